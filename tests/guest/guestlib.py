# SPDX-License-Identifier: MIT OR Apache-2.0
# What the guest tests share: run the program with a deadline, and report in TAP.
"""A test is a function that returns None, or a message that says what was wrong, or raises Skip."""

import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402


class Skip(Exception):
    """The reason why a test cannot run here."""


class Run:
    """A finished run: status (negative: killed by that signal), out, err, seconds."""

    def __init__(self, command, timeout, env=None, stdin=None):
        start = time.monotonic()
        if timeout >= 10:
            timeout *= float(os.environ.get("ANYKVM_PATIENCE", "1"))
        with subprocess.Popen(command, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=dict(os.environ, **(env or {}))) as p:
            self.ended = True
            try:
                self.out, self.err = p.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                self.ended = False
                p.terminate()
                try:
                    self.out, self.err = p.communicate(timeout=10)
                except subprocess.TimeoutExpired:
                    p.kill()
                    self.out, self.err = p.communicate()
            self.status = p.returncode
        self.seconds = time.monotonic() - start

    def why_crashed(self):
        """A message when the process ended in a way that a guest must not cause."""
        if self.status < 0 or self.status in (132, 134, 135, 136, 139):
            return f"the process crashed: {self.describe()}"
        return None

    def describe(self):
        """Status and the ends of both streams."""
        return (f"status {self.status} after {self.seconds:.1f} s, output "
                f"{self.out[-300:]!r}, messages {self.err[-500:]!r}")


def seed():
    """The seed of random tests: ANYKVM_SEED (make soak), else always the same."""
    return int(os.environ.get("ANYKVM_SEED", "1"))


def generator():
    return random.Random(seed())


def can_boot(anykvm):
    """Whether there is a kernel and a busybox for a guest; otherwise the test has said that it is skipped."""
    if initrd.busybox() and initrd.kernel(anykvm):
        return True
    print("1..0 # SKIP no busybox (tools/deps run), or no kernel: anykvm fetch failed")
    return False


def main(tests):
    """Run (name, function) pairs, print TAP; the exit status."""
    failed = 0
    print(f"1..{len(tests)}", flush=True)
    for number, (name, test) in enumerate(tests, 1):
        try:
            problem = test()
        except Skip as reason:
            print(f"ok {number} - {name} # SKIP {reason}", flush=True)
            continue
        except subprocess.TimeoutExpired as hang:
            problem = hang
        print(f"{'not ok' if problem else 'ok'} {number} - {name}", flush=True)
        if problem:
            failed += 1
            print("# " + str(problem).replace("\n", "\n# "), flush=True)
    return 1 if failed else 0


def exit_with(tests):
    sys.exit(main(tests))
