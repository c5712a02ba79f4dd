#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# 32-bit programs: Debian's i386 kernel to its init, and a 32-bit busybox on the 64-bit kernel.
"""usage: i386_test.py ANYKVM [--quick]      --quick: only the program on the 64-bit kernel"""

import hashlib
import os
import subprocess
import sys
import tempfile

from guestlib import Run, Skip, exit_with

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))

SCRIPT = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo "machine $(/bin/busybox uname -m)"
/bin/busybox yes anykvm | /bin/busybox head -c 262144 | /bin/busybox sha256sum
/bin/busybox awk 'BEGIN { s = 0; for (i = 0; i < 1000; i++) s += i * 1.5; print "sum " s }'
echo init-is-done
/bin/busybox poweroff -f
"""
SUM = hashlib.sha256((b"anykvm\n" * 40000)[:262144]).hexdigest().encode()


def fetch(anykvm, *package):
    done = subprocess.run([anykvm, "fetch", *package], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skip(done.stderr.strip().splitlines()[-1])
    return done.stdout.strip()


def boot(anykvm, kernel, machine, seconds):
    """Run the script with the 32-bit busybox; None, or what was wrong."""
    import initrd  # pylint: disable=import-outside-toplevel
    initrd.BUSYBOX = (fetch(anykvm, "busybox-static:i386"),)
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "initrd")
        initrd.make(image, SCRIPT)
        run = Run([anykvm, "run", "--kernel", kernel, "--initrd", image, "--mem", "512M", "--no-reboot",
                   "--append", "console=ttyS0 panic=-1 quiet cryptomgr.notests"], seconds)
    if not run.ended:
        return f"not ended after {run.seconds:.0f} s: {run.out[-300:]!r}"
    for wanted in (b"machine " + machine, SUM, b"sum 749250", b"init-is-done"):
        if wanted not in run.out:
            return f"no {wanted!r} in {run.out[-600:]!r}"
    return None


def main():
    anykvm = sys.argv[1]
    tests = [("a 32-bit program on the 64-bit kernel",
              lambda: boot(anykvm, fetch(anykvm), b"x86_64", 120))]
    if "--quick" not in sys.argv:
        tests.append(("the i386 kernel to its init",
                      lambda: boot(anykvm, fetch(anykvm, "linux-image-686-pae:i386"), b"i686", 900)))
    exit_with(tests)


if __name__ == "__main__":
    main()
