#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# The verbs exec, env, doctor and explain: what they do, and what they say to wrong arguments.
"""usage: verbs_test.py ANYKVM LIBRARY STATIC-PROGRAM CODES"""

import json
import os
import re
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guest"))
import guestlib  # noqa: E402


def refuse(command, status, word):
    """That status, nothing on stdout, one line on stderr with the word."""
    run = guestlib.Run(command, 20)
    lines = run.err.decode(errors="replace").strip().splitlines()
    if run.status != status or run.out or len(lines) != 1 or word.lower() not in lines[0].lower():
        return f"wanted status {status} and one line with '{word}': {run.describe()}"
    return None


def want(command, status, pattern, env=None):
    """That status, no message, and the pattern on stdout."""
    run = guestlib.Run(command, 60, env=env)
    if run.status != status or run.err or not re.search(pattern, run.out.decode(errors="replace"), re.S):
        return f"wanted status {status} and '{pattern}': {run.describe()}"
    return None


def write(folder, name, text, mode=0o755):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(text)
    os.chmod(path, mode)
    return path


def wrong(anykvm, static, folder):
    """(name, test) of arguments that are refused."""
    foreign = bytearray(64)
    foreign[:5] = b"\x7fELF\x01"
    cases = [
        ("exec without a command", ["exec"], 2, "command"),
        ("exec with an unknown option", ["exec", "--fast", "true"], 2, "--fast"),
        ("exec of nothing", ["exec", "--", ""], 127, "AK008"),
        ("exec of a missing program", ["exec", "no-such-program"], 127, "AK008"),
        ("exec of a missing path", ["exec", "./no/such"], 127, "AK008"),
        ("exec of a folder", ["exec", folder], 126, "AK0"),
        ("exec of a file without the right", ["exec", write(folder, "plain", b"#!/bin/sh\n", 0o644)], 126, "AK008"),
        ("exec of text", ["exec", write(folder, "text", b"hello")], 126, "AK004"),
        ("exec of an empty file", ["exec", write(folder, "empty", b"")], 126, "AK004"),
        ("exec of a 32-bit program", ["exec", write(folder, "foreign", bytes(foreign))], 3, "AK004"),
        ("exec of a cut program", ["exec", write(folder, "cut", b"\x7fELF\x02\x01\x01")], 3, "AK004"),
        ("exec of a static program", ["exec", static], 3, "AK003"),
        ("exec of a script for a static program",
         ["exec", write(folder, "script", b"#!" + static.encode() + b"\n")], 3, "AK003"),
        ("exec of a script for itself",
         ["exec", write(folder, "loop", b"#!" + os.path.join(folder, "loop").encode() + b"\n")], 126, "scripts"),
        ("env with a word", ["env", "x"], 2, "'x'"),
        ("env with an unknown mode", ["env", "--mode", "never"], 2, "never"),
        ("env without a mode", ["env", "--mode"], 2, "--mode"),
        ("doctor with an unknown option", ["doctor", "--jsn"], 2, "--json"),
        ("explain of an unknown code", ["explain", "AK999"], 2, "AK999"),
        ("explain of two", ["explain", "AK001", "AK002"], 2, "AK002"),
        ("an unknown verb", ["exce"], 2, "exec"),
    ]
    for name, arguments, status, word in cases:
        yield name, lambda a=arguments, s=status, w=word: refuse([anykvm] + a, s, w)


def check_doctor(anykvm, arguments, status):
    run = guestlib.Run([anykvm, "doctor", "--json"] + arguments, 60)
    try:
        told = json.loads(run.out)
    except ValueError as e:
        return f"{e}: {run.describe()}"
    names = [c["check"] for c in told["checks"]]
    if run.status != status or told["version"] != 1 or told["ok"] != (status == 0) or "engine" not in names:
        return f"wanted status {status}: {run.describe()}"
    if any(c["level"] not in ("info", "pass", "warn", "fail") for c in told["checks"]):
        return f"an unknown level: {run.describe()}"
    return None


def check_codes(anykvm, path):
    """Every code is explained, and every code that a message of the source has exists."""
    with open(path, encoding="utf-8") as f:
        codes = re.findall(r'^CODE\("(AK\d+)"', f.read(), re.M)
    if len(codes) != len(set(codes)):
        return "a code is there twice"
    for code in codes:
        problem = want([anykvm, "explain", code], 0, f"^{code}: .*Why:.*To do:")
        if problem:
            return problem
    used = set()
    for folder, _, names in os.walk(os.path.join(os.path.dirname(path), "..")):
        for name in names:
            if name.endswith(".c"):
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    used |= set(re.findall(r"AK\d\d\d", f.read()))
    return f"messages with unknown codes: {used - set(codes)}" if used - set(codes) else None


def check_installed(anykvm, library):
    """Elsewhere, with the library where an installation has it; then without it."""
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(os.path.join(folder, "bin"))
        os.makedirs(os.path.join(folder, "lib", "anykvm"))
        program = shutil.copy(anykvm, os.path.join(folder, "bin", "anykvm"))
        place = os.path.join(folder, "lib", "anykvm", "libanykvm-preload.so")
        shutil.copy(library, place)
        problem = want([program, "env"], 0, re.escape(place))
        if problem:
            return problem
        os.unlink(place)
        run = guestlib.Run([program, "exec", "true"], 20)
        if run.status == 0 and not run.err:
            raise guestlib.Skip("anykvm is installed on this machine")
        return refuse([program, "exec", "true"], 3, "AK001")


VERBS = ("run", "exec", "trace", "migrate", "snapshot", "stat", "ctl", "doctor", "fetch")


def check_manuals(anykvm, root):
    """Every option of a verb's --help is in its manual, and every option of the library in the common one."""
    def manual(name):
        with open(os.path.join(root, "man", name), encoding="utf-8") as f:
            return f.read().replace("\\-", "-")
    missing = []
    for verb in VERBS:
        text = guestlib.Run([anykvm, verb, "--help"], 20).out.decode()
        options = re.findall(r"^ +(?:-\w, +)?(--[a-z-]+)", text, re.M)
        missing += [f"{verb} {option}" for option in options if option not in manual(f"anykvm-{verb}.1")]
    with open(os.path.join(root, "src/kvm/options.c"), encoding="utf-8") as f:
        options = re.findall(r'^\t\{ "([a-z-]+)", \w+_values,', f.read(), re.M)
    missing += [option for option in options if f"{option}=" not in manual("anykvm.1")]
    if not options:
        missing.append("the library's options themselves")
    return f"not in the manual: {', '.join(missing)}" if missing else None


def main():
    anykvm, library, static, codes = sys.argv[1:5]
    environment = {"LD_PRELOAD": ""}
    with tempfile.TemporaryDirectory() as folder:
        tests = list(wrong(anykvm, static, folder))
        tests += [
            ("exec passes the status on", lambda: want([anykvm, "exec", "sh", "-c", "exit 42"], 42, "^$")),
            ("exec leaves the command's options alone",
             lambda: want([anykvm, "exec", "echo", "-n", "--help"], 0, "^--help$")),
            ("exec sets the environment", lambda: want(
                [anykvm, "exec", "--", "sh", "-c", "echo $ANYKVM $LD_PRELOAD"], 0, r"^force .*libanykvm-preload.so\n$")),
            ("exec within exec adds nothing", lambda: want(
                [anykvm, "exec", anykvm, "exec", "sh", "-c", "echo $LD_PRELOAD"], 0, r"^[^:]*preload.so\n$")),
            ("env for a shell", lambda: want(
                ["sh", "-c", f"eval \"$({anykvm} env)\"; echo $ANYKVM; stat -c %F /dev/kvm"], 0,
                "^auto\ncharacter special file\n$", environment)),
            ("env --mode force", lambda: want([anykvm, "env", "--mode=force"], 0, "export ANYKVM=force")),
            ("doctor", lambda: want([anykvm, "doctor"], 0, "pass +engine")),
            ("doctor --json", lambda: check_doctor(anykvm, [], 0)),
            ("doctor -- a dynamic program", lambda: check_doctor(anykvm, ["--", "sh", "--nonsense"], 0)),
            ("doctor -- a static program", lambda: check_doctor(anykvm, ["--", static], 3)),
            ("doctor -- a missing program", lambda: check_doctor(anykvm, ["--", "no-such-program"], 3)),
            ("explain lists", lambda: want([anykvm, "explain"], 0, "AK001 .*AK003 ")),
            ("every code", lambda: check_codes(anykvm, codes)),
            ("every option is in a manual", lambda: check_manuals(anykvm, os.path.join(os.path.dirname(codes), "../.."))),
            ("installed, and without the library", lambda: check_installed(anykvm, library)),
        ]
        for verb in ("exec", "env", "doctor", "explain"):
            tests.append((f"{verb} --help", lambda v=verb: want([anykvm, v, "--help"], 0, f"^usage: anykvm {v}")))
            tests.append((f"help {verb}", lambda v=verb: want([anykvm, "help", v], 0, f"^usage: anykvm {v}")))
        return guestlib.main(tests)


if __name__ == "__main__":
    sys.exit(main())
