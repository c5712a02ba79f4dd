#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Debian's kernel boots to /init, the demo's output is right, and the machine powers off.
"""usage: boot_test.py ANYKVM FORM [OPTION...]

Skipped when there is no kernel and none can be fetched."""

import os
import subprocess
import sys

import guestlib

TIMEOUT = {"checked": 400, "fast": 120}


def boot(anykvm, form, options):
    if not os.path.exists("/bin/busybox") and not os.path.exists("/usr/bin/busybox"):
        raise guestlib.Skip("no busybox (tools/deps run)")
    if subprocess.run([anykvm, "fetch"], check=False, capture_output=True).returncode:
        raise guestlib.Skip("no kernel: anykvm fetch failed")
    run = guestlib.Run([anykvm, "run", "--engine", form] + options, TIMEOUT[form])
    text = run.out.decode(errors="replace")
    if run.why_crashed():
        return run.why_crashed()
    if not run.ended or run.status != 0:
        return f"wanted status 0: {run.describe()}"
    for expected in ("anykvm: /init reached", "Linux", "(right)", "demo done"):
        if expected not in text:
            return f"no '{expected}' on the console: {run.describe()}"
    for bad in ("Kernel panic", "BUG:", "Oops", "WARNING:", "general protection"):
        if bad in text:
            return f"'{bad}' on the console: {text[max(0, text.index(bad) - 200):][:800]}"
    return None


def main():
    anykvm, form, options = sys.argv[1], sys.argv[2], sys.argv[3:]
    name = " ".join(["boot", form] + options)
    return guestlib.main([(name, lambda: boot(anykvm, form, options))])


if __name__ == "__main__":
    sys.exit(main())
