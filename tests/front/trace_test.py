#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# anykvm trace: lines, filters, summary, and what it says to wrong arguments.
"""usage: trace_test.py ANYKVM LIBRARY PROGRAM STATIC-PROGRAM"""

import json
import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guest"))
import guestlib  # noqa: E402

# What "traced" does, in this order; other lines may stand between.
WANTED = [
    r'^open\("/dev/kvm"\) = \d+<kvm>$',
    r"^ioctl\(\d+<kvm>, KVM_GET_API_VERSION\) = 12$",
    r"^ioctl\(\d+<kvm>, KVM_CREATE_VM, 0\) = \d+$",
    r"^ioctl\(\d+<vm>, KVM_SET_USER_MEMORY_REGION, \{slot=0, flags=0, guest_phys_addr=0, memory_size=0x10000, "
    r"userspace_addr=ADDRESS\}\) = 0$",
    r"^mmap\(\d+<vcpu>, 12288, offset=0\) = ADDRESS$",
    r"KVM_SET_USER_MEMORY_REGION, \{slot=1, flags=KVM_MEM_READONLY, guest_phys_addr=0x100000, ",
    r"^ioctl\(\d+<kvm>, KVM_CHECK_EXTENSION, KVM_CAP_IRQCHIP\) = 1$",
    r"<vm>, KVM_ENABLE_CAP, \{cap=KVM_CAP_EXCEPTION_PAYLOAD, flags=0, args\[0\]=0x1, args\[1\]=0\}\) = 0$",
    r"^ioctl\(\d+<vcpu:0>, KVM_SET_MSRS, \{nmsrs=2, \[TSC\(0x10\)=0, LSTAR\(0xc0000082\)=0x1234\]\}\) = 2$",
    r"KVM_SET_MP_STATE, \{mp_state=0x63\}\) = -1 EINVAL$",
    r"KVM_GET_REGS, ADDRESS\) = -1 EFAULT$",
    r"KVM_GET_REGS, \{rip=0xfff0, rsp=0, rflags=0x2, ",
    r"<vm>, KVM_CREATE_DEVICE, 0\) = -1 E",
    r"<vm>, 0xaeff, 0x5\) = -1 ENOTTY$",
    r"KVM_RUN\) = 0 \(KVM_EXIT_IO in port=0x60 size=1 rip=0x1000\)$",
    r"KVM_RUN \{answer 0x61 'a'\}\) = 0 \(KVM_EXIT_IO out port=0x10 size=1 data=0x61 'a' rip=0x1002\)$",
    r"KVM_RUN\) = 0 \(KVM_EXIT_MMIO write gpa=0xa0000 len=1 data=0x61 'a' rip=0x1008\)$",
    r"KVM_RUN\) = 0 \(KVM_EXIT_MMIO read gpa=0xa0000 len=1 rip=0x100b\)$",
    r"KVM_RUN \{answer 0x62 'b'\}\) = 0 \(KVM_EXIT_HLT rip=0x100f\)$",
    r"KVM_RUN \{immediate_exit\}\) = -1 EINTR \(rip=0x100f\)$",
]
TIMED = re.compile(r"^ *\d+ +\d+\.\d{6} (open|mmap|ioctl)\(.* <\d+\.\d{6}>$")


class Trace:
    """The program under 'anykvm trace', and its lines."""

    def __init__(self, anykvm, options, command):
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as f:
            self.run = guestlib.Run([anykvm, "trace", "-o", f.name, *options, "--", *command], 60)
            self.lines = f.read().splitlines()

    def wrong(self, status=0):
        if self.run.status != status or self.run.err or self.run.out:
            return f"wanted status {status} and no message: {self.run.describe()}"
        return None

    def say(self, what):
        return what + "\n" + "\n".join(self.lines[-40:])


def in_order(lines, patterns):
    """The first pattern that no line matches behind those of the patterns before."""
    rest = iter(lines)
    for pattern in patterns:
        if not any(re.search(pattern, line) for line in rest):
            return pattern
    return None


def plain(anykvm, program):
    t = Trace(anykvm, ["--plain"], [program, "traced"])
    missing = in_order(t.lines, WANTED)
    return t.wrong() or (t.say(f"no line for {missing}") if missing else None)


def two_runs(anykvm, program):
    a, b = (Trace(anykvm, ["--plain"], [program, "traced"]) for _ in range(2))
    return a.wrong() or (None if a.lines == b.lines else a.say("two plain traces differ"))


def timed(anykvm, program):
    t = Trace(anykvm, [], [program, "traced"])
    bad = [line for line in t.lines if not TIMED.match(line)]
    return t.wrong() or (t.say(f"no times: {bad[0]}") if bad or len(t.lines) < 20 else None)


def only(anykvm, program, options, patterns, count):
    t = Trace(anykvm, ["--plain", *options], [program, "traced"])
    missing = in_order(t.lines, patterns)
    if t.wrong() or missing or len(t.lines) != count:
        return t.wrong() or t.say(f"wanted {count} lines with {patterns}")
    return None


def threads(anykvm, program):
    """Nothing is lost or torn when the ring is smaller than the trace."""
    t = Trace(anykvm, ["-C", "-e", "check_extension"], [program, "traced-threads"])
    calls = [line for line in t.lines if "CHECK_EXTENSION" in line and "ioctl(" in line]
    if t.wrong() or len(calls) != 80001 or any(not TIMED.match(line) for line in calls):
        return t.wrong() or t.say(f"{len(calls)} whole lines, wanted 80001")
    if len({line.split()[0] for line in calls}) != 5:
        return t.say("wanted lines of four threads and a child")
    return None if any(re.search(r" 80001 +1  KVM_CHECK_EXTENSION$", line) for line in t.lines) else t.say("count")


def killed(anykvm, program):
    """The end of a program that was killed says where it was."""
    t = Trace(anykvm, ["--plain"], [program, "traced-killed"])
    good = t.lines and re.match(r"ioctl\(\d+<vcpu:0>, KVM_RUN <unfinished \.\.\.>$", t.lines[-1])
    return t.wrong(142) or (None if good else t.say("wanted an unfinished KVM_RUN"))


def filtered(anykvm, program):
    """A thread that may only use futex, ioctl, write and exit is traced too."""
    t = Trace(anykvm, ["-e", "run"], [program, "allow-list"])
    if t.run.status or len(t.lines) != 1000:
        return t.say(f"wanted 1000 lines: {t.run.describe()}")
    return None


def summary(anykvm, program):
    t = Trace(anykvm, ["--summary"], [program, "traced"])
    text = "\n".join(t.lines)
    wanted = (r"seconds +us/call +max us +calls +errors +ioctl", r" 6 +1  KVM_RUN", r" 2 +1  KVM_GET_REGS",
              r" 2  KVM_EXIT_IO", r" 2  KVM_EXIT_MMIO", r" 1  KVM_EXIT_HLT")
    missing = [w for w in wanted if not re.search(w, text)]
    return t.wrong() or (t.say(f"no {missing}") if missing or "ioctl(" in text else None)


def summary_json(anykvm, program):
    t = Trace(anykvm, ["--json"], [program, "traced"])
    if t.wrong():
        return t.wrong()
    data = json.loads("\n".join(t.lines))
    run = [row for row in data["ioctls"] if row["name"] == "KVM_RUN"]
    exits = {row["name"]: row["exits"] for row in data["exits"]}
    good = data["version"] == 1 and run and run[0]["calls"] == 6 and run[0]["errors"] == 1 and \
        exits["KVM_EXIT_IO"] == 2 and exits["KVM_EXIT_MMIO"] == 2 and data["lost_lines"] == 0
    return None if good else t.say("wrong figures")


def own_vmm(anykvm):
    """The built-in VMM is a KVM program as well. mov al, 0xfe; out 0x64, al: a reset."""
    with tempfile.NamedTemporaryFile() as f:
        f.write(b"\xb0\xfe\xe6\x64\xf4")
        f.flush()
        t = Trace(anykvm, ["--plain", "-e", "run,create_vcpu"], [anykvm, "run", "--flat", f.name + "@0x7c00"])
    missing = in_order(t.lines, [r"KVM_CREATE_VCPU, 0\) = \d+$", r"KVM_EXIT_IO out port=0x64 size=1 data=0xfe"])
    return t.say(f"no {missing}: {t.run.describe()}") if missing else None


def refused(anykvm, arguments, status, word, env=None):
    run = guestlib.Run([anykvm, *arguments], 20, env=env)
    lines = run.err.decode(errors="replace").strip().splitlines()
    if run.status != status or len(lines) != 1 or word not in lines[0]:
        return f"wanted status {status} and one line with '{word}': {run.describe()}"
    return None


def bad_area(anykvm, program, path):
    """A variable that means something else costs the program its KVM, with one line, and nothing more."""
    run = guestlib.Run([anykvm, "exec", "--", program, "runs"], 20, env={"ANYKVM_TRACE": path})
    text = run.err.decode()
    if run.status != 1 or "no trace" not in text or "AK015" not in text:
        return f"wanted a refusal: {run.describe()}"
    return None


def wrong(anykvm, static):
    cases = [
        (["trace"], 2, "command"),
        (["trace", "-o"], 2, "--output"),
        (["trace", "--fast", "true"], 2, "--fast"),
        (["trace", "-e", "kvm_rum", "true"], 2, "KVM_RUN"),
        (["trace", "-e", "run,,run", "true"], 2, "commas"),
        (["trace", "-e", "!", "true"], 2, "commas"),
        (["trace", "-e", "kvm_cap_irqchip", "true"], 2, "there is no ioctl"),
        (["trace", "--slower", "soon", "true"], 2, "milliseconds"),
        (["trace", "-c", "-C", "true"], 2, "--both"),
        (["trace", "-c", "-e", "run", "true"], 2, "--both"),
        (["trace", "-o", "/no/such/file", "true"], 69, "/no/such/file"),
        (["trace", "--", "no-such-program"], 127, "AK008"),
        (["trace", "--", static], 3, "AK003"),
    ]
    return [(" ".join(a[:-1] or a), lambda a=a, s=s, w=w: refused(anykvm, a, s, w)) for a, s, w in cases]


def main():
    anykvm, _library, program, static = sys.argv[1:5]
    tests = [
        ("requests and exits in words", lambda: plain(anykvm, program)),
        ("two plain traces are alike", lambda: two_runs(anykvm, program)),
        ("times and threads", lambda: timed(anykvm, program)),
        ("only KVM_RUN", lambda: only(anykvm, program, ["-e", "run"], ["KVM_EXIT_HLT", "EINTR"], 6)),
        ("only exits for MMIO", lambda: only(anykvm, program, ["-e", "exit_mmio"], [" write ", " read "], 2)),
        ("all exits but I/O and MMIO", lambda: only(anykvm, program, ["-e", "!exit_io,exit_mmio"], ["HLT", "INTR"], 2)),
        ("all but KVM_RUN that failed", lambda: only(anykvm, program, ["-Z", "-e", "!run"], ["MP_STATE", "aeff"], 4)),
        ("nothing takes a minute", lambda: only(anykvm, program, ["--slower", "60000"], [], 0)),
        ("threads, a child, and a full ring", lambda: threads(anykvm, program)),
        ("killed in guest code", lambda: killed(anykvm, program)),
        ("a thread with a filter", lambda: filtered(anykvm, program)),
        ("summary", lambda: summary(anykvm, program)),
        ("summary as JSON", lambda: summary_json(anykvm, program)),
        ("the built-in VMM", lambda: own_vmm(anykvm)),
        ("the status is the program's", lambda: refused(anykvm, ["trace", "sh", "-c", "echo x >&2; exit 7"], 7, "x")),
        ("no area", lambda: bad_area(anykvm, program, "/no/such/file")),
        ("an area of other content", lambda: bad_area(anykvm, program, anykvm)),
    ]
    return guestlib.main(tests + wrong(anykvm, static))


if __name__ == "__main__":
    sys.exit(main())
