#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# An unprivileged user boots Debian's kernel, and /dev/kvm is never opened.
"""usage: unprivileged_test.py ANYKVM FORM

As root the machine runs as nobody, otherwise as who calls."""

import os
import shutil
import subprocess
import sys
import tempfile

import guestlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402

NOBODY = 65534
TIMEOUT = 120
INIT = b"""#!/bin/busybox sh
echo UNPRIVILEGED-HERE
/bin/busybox poweroff -f
"""


def drop():
    """The command that becomes nobody, with no group of root's."""
    if os.getuid():
        return []
    if not shutil.which("setpriv"):
        raise guestlib.Skip("no setpriv")
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def boot(anykvm, form, folder, prefix):
    """Boot from copies that anybody may read; a Run."""
    os.chmod(folder, 0o777)
    kernel, program, image = (os.path.join(folder, name) for name in ("vmlinuz", "anykvm", "initrd.gz"))
    shutil.copy(initrd.kernel(anykvm), kernel)
    shutil.copy(anykvm, program)
    initrd.make(image, INIT)
    for path in (kernel, program, image):
        os.chmod(path, 0o755)
    return guestlib.Run(prefix + [program, "run", "--engine", form, "--kernel", kernel, "--initrd", image,
                                  "--append", "console=ttyS0 quiet", "--mem", "256M", "--no-reboot"],
                        TIMEOUT, env={"HOME": folder, "XDG_CACHE_HOME": folder})


def check_boot(anykvm, form):
    with tempfile.TemporaryDirectory() as folder:
        run = boot(anykvm, form, folder, drop())
    if run.why_crashed():
        return run.why_crashed()
    if run.status != 0 or b"UNPRIVILEGED-HERE" not in run.out:
        return f"wanted status 0: {run.describe()}"
    return None


def check_opens(anykvm, form):
    """No open of /dev/kvm by any thread or child."""
    if not shutil.which("strace"):
        raise guestlib.Skip("no strace")
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "trace")
        prefix = drop() + ["strace", "-f", "-qq", "--seccomp-bpf", "-o", trace,
                           "-e", "trace=open,openat,openat2"]
        run = boot(anykvm, form, folder, prefix)
        if not os.path.exists(trace):
            raise guestlib.Skip(f"strace does not work here: {run.describe()}")
        with open(trace, encoding="utf-8", errors="replace") as f:
            lines = f.read().splitlines()
    if run.status != 0 or b"UNPRIVILEGED-HERE" not in run.out:
        return f"wanted status 0: {run.describe()}"
    if not any("vmlinuz" in line for line in lines):
        return "the trace does not even show the kernel"
    opened = [line for line in lines if "/dev/kvm" in line]
    return "\n".join(opened) or None


def main():
    anykvm, form = sys.argv[1:3]
    if not guestlib.can_boot(anykvm):
        return 0
    try:
        subprocess.run(drop() + ["true"], check=True, capture_output=True)
    except (subprocess.CalledProcessError, guestlib.Skip):
        print("1..0 # SKIP cannot become another user")
        return 0
    return guestlib.main([(f"{form}: boot as an unprivileged user", lambda: check_boot(anykvm, form)),
                          (f"{form}: no open of /dev/kvm", lambda: check_opens(anykvm, form))])


if __name__ == "__main__":
    sys.exit(main())
