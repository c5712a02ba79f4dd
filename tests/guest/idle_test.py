#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# An idle guest uses at most 2 % of a core over 10 seconds.
"""usage: idle_test.py ANYKVM FORM"""

import os
import subprocess
import sys
import tempfile
import threading
import time

import guestlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402

INIT = b"""#!/bin/busybox sh
echo IDLE-NOW
exec /bin/busybox sleep 1000
"""
SETTLE, MEASURE, SHARE = 5, 10, 0.02


def cpu_seconds(pid):
    """User and system time of a process and its threads."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_share(process):
    """The share of a core that the process uses once the guest sleeps; None when it never does."""
    console = b""
    while b"IDLE-NOW" not in console:
        piece = os.read(process.stdout.fileno(), 4096)
        if not piece:
            return None
        console += piece
    time.sleep(SETTLE)
    before = cpu_seconds(process.pid)
    time.sleep(MEASURE)
    return (cpu_seconds(process.pid) - before) / MEASURE


def check(anykvm, form):
    kernel = initrd.kernel(anykvm)
    if not kernel or not initrd.busybox():
        raise guestlib.Skip("no kernel: anykvm fetch failed, or no busybox")
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "initrd.gz")
        initrd.make(image, INIT)
        command = [anykvm, "run", "--engine", form, "--kernel", kernel, "--initrd", image,
                   "--append", "console=ttyS0 quiet"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as process:
            timer = threading.Timer(400, process.kill)
            timer.start()
            share = idle_share(process)
            timer.cancel()
            process.terminate()
    if share is None:
        return "the guest did not get to /init"
    print(f"# {share * 100:.2f} % of a core")
    return None if share <= SHARE else f"{share * 100:.1f} % of a core, at most {SHARE * 100:.0f} % wanted"


def main():
    anykvm, form = sys.argv[1:3]
    return guestlib.main([(f"{form}: idle", lambda: check(anykvm, form))])


if __name__ == "__main__":
    sys.exit(main())
