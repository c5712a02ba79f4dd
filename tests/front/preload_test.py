#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# A KVM program of libc's functions only, under the preload library.
"""usage: preload_test.py ANYKVM LIBRARY PROGRAM"""

import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guest"))
import guestlib  # noqa: E402

# Not judged, or not alone.
NOT_TESTS = {"measure", "exits", "traced-killed"}
# "bad": the message must come, and the program goes on as with auto.
MODES = (("force", True), ("off", False))


def run_one(anykvm, program, name):
    run = guestlib.Run([anykvm, "exec", "--", program, name], 60)
    if name.startswith("allow-list"): # they lack rt_sigreturn: that is told, once
        if run.status != 0 or run.err.count(b"AK005") != 1 or b"rt_sigreturn" not in run.err:
            return f"wanted status 0 and one line: {run.describe()}"
    elif run.status != 0 or run.err:
        return f"wanted status 0 and no message: {run.describe()}"
    return None


def check_mode(library, program, mode, works):
    run = guestlib.Run([program, "runs"], 60, env={"LD_PRELOAD": library, "ANYKVM": mode})
    if works != (run.status == 0):
        return f"ANYKVM={mode}: {run.describe()}"
    return None


def check_off(library, program):
    if os.path.exists("/dev/kvm"):
        raise guestlib.Skip("there is a /dev/kvm, so off does not mean none")
    return check_mode(library, program, "off", False)


def check_unknown_mode(library, program):
    run = guestlib.Run([program, "runs"], 60, env={"LD_PRELOAD": library, "ANYKVM": "maybe"})
    if b"AK002" not in run.err or run.err.count(b"\n") != 1:
        return f"wanted one line with AK002: {run.describe()}"
    return None


def check_no_system_calls(library, program):
    """Between BEGIN and END are 1000 exits by port I/O."""
    if not shutil.which("strace"):
        raise guestlib.Skip("no strace")
    run = guestlib.Run(["strace", "-qq", "-E", "LD_PRELOAD=" + library, "-E", "ANYKVM=force", program, "exits"], 60)
    lines = run.err.decode(errors="replace").splitlines()
    begin = [i for i, line in enumerate(lines) if 'write(2, "BEGIN' in line]
    end = [i for i, line in enumerate(lines) if 'write(2, "END' in line]
    if not begin or not end:
        raise guestlib.Skip(f"strace does not work here: {run.describe()}")
    calls = [line for line in lines[begin[0] + 1:end[0]] if "(" in line and "BEGIN" not in line]
    # The first exit after a pause of the VM's tick wakes its thread.
    return "\n".join(calls) if len(calls) > 2 else None


def main():
    anykvm, library, program = sys.argv[1:4]
    names = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    tests = [(name, lambda n=name: run_one(anykvm, program, n)) for name in names if name not in NOT_TESTS]
    tests += [("ANYKVM=force", lambda: check_mode(library, program, "force", True)),
              ("ANYKVM=off", lambda: check_off(library, program)),
              ("an unknown value of ANYKVM", lambda: check_unknown_mode(library, program)),
              ("KVM_RUN makes no system call", lambda: check_no_system_calls(library, program))]
    return guestlib.main(tests)


if __name__ == "__main__":
    sys.exit(main())
