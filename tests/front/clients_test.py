#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Long runs of KVM programs under the preload library: stress-ng's KVM stressor, and a storm of signals.
"""usage: clients_test.py ANYKVM PROGRAM; the storm lasts ANYKVM_STORM_SECONDS, 120 if not set."""

import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guest"))
import guestlib  # noqa: E402

OPERATIONS = 1000


def stress(anykvm):
    """stress-ng calls a stressor that finds no KVM a success: its count is what says that it ran."""
    if not shutil.which("stress-ng"):
        raise guestlib.Skip("no stress-ng (make deps)")
    run = guestlib.Run([anykvm, "exec", "--", "stress-ng", "--kvm", "1", "--kvm-ops", str(OPERATIONS),
                        "--metrics-brief"], 300)
    text = (run.out + run.err).decode(errors="replace")
    count = re.search(r"\] kvm +(\d+) ", text)
    if run.status or "skipped" in text or not count or int(count.group(1)) < OPERATIONS:
        return f"wanted {OPERATIONS} operations: {run.describe()}"
    return None


def storm(anykvm, program):
    """SIGALRM every millisecond, in guest code, in exits and in between."""
    seconds = os.environ.get("ANYKVM_STORM_SECONDS", "120")
    run = guestlib.Run([anykvm, "exec", "--", program, "storm"], int(seconds) + 60,
                       env={"ANYKVM_STORM_SECONDS": seconds})
    return None if run.status == 0 and not run.err else f"wanted status 0 and no message: {run.describe()}"


def main():
    anykvm, program = sys.argv[1:3]
    guestlib.exit_with([(f"stress-ng --kvm, {OPERATIONS} operations", lambda: stress(anykvm)),
                        ("a signal every millisecond", lambda: storm(anykvm, program))])


if __name__ == "__main__":
    main()
