#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# The exit status tells how a guest ended, and a reset starts it again.
"""usage: ends_test.py ANYKVM FORM"""

import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading

import guestlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo HERE-NOW
{action}
"""
MARK = b"HERE-NOW"
# (name, what /init does, more options, exit status)
ENDS = [
    ("power-off", "/bin/busybox poweroff -f", [], 0),
    ("reset with --no-reboot", "/bin/busybox reboot -f", ["--no-reboot"], 32),
    ("panic with --no-reboot", "echo c > /proc/sysrq-trigger", ["--no-reboot"], 32),
    ("init that ends, with --no-reboot", "exit 0", ["--no-reboot"], 32),
]
TIMEOUT = 60


class Machine:
    """A folder with an initramfs for one action, and the command that boots it."""

    def __init__(self, anykvm, form, folder, action, options):
        image = os.path.join(folder, "initrd.gz")
        initrd.make(image, INIT.format(action=action).encode())
        self.command = [anykvm, "run", "--engine", form, "--kernel", initrd.kernel(anykvm), "--initrd", image,
                        "--append", "console=ttyS0 quiet panic=-1", "--mem", "256M"] + options


def check_end(anykvm, form, action, options, status):
    with tempfile.TemporaryDirectory() as folder:
        run = guestlib.Run(Machine(anykvm, form, folder, action, options).command, TIMEOUT)
    if run.why_crashed():
        return run.why_crashed()
    if not run.ended or run.status != status or MARK not in run.out:
        return f"wanted status {status}: {run.describe()}"
    return None


def console_until(process, count):
    """Read the console until /init has been reached that many times; whether it was."""
    console = b""
    while console.count(MARK) < count:
        piece = os.read(process.stdout.fileno(), 4096)
        if not piece:
            return False
        console += piece
    return True


def check_signal(anykvm, form, action, times, number):
    """Reach /init so many times, then a signal: status 128 + number."""
    with tempfile.TemporaryDirectory() as folder:
        command = Machine(anykvm, form, folder, action, []).command
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as process:
            timer = threading.Timer(TIMEOUT, process.kill)
            timer.start()
            reached = console_until(process, times)
            process.send_signal(number)
            process.stdout.read()
            status = process.wait()
            timer.cancel()
    if not reached:
        return f"/init was not reached {times} times"
    return None if status == 128 + number else f"status {status}, wanted {128 + number}"


def main():
    anykvm, form = sys.argv[1:3]
    if not guestlib.can_boot(anykvm):
        return 0
    tests = [(f"{form}: {name}", functools.partial(check_end, anykvm, form, action, options, status))
             for name, action, options, status in ENDS]
    tests.append((f"{form}: a reset starts it again",
                  functools.partial(check_signal, anykvm, form, "/bin/busybox reboot -f", 2, signal.SIGTERM)))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        tests.append((f"{form}: {number.name} while it sleeps",
                      functools.partial(check_signal, anykvm, form, "/bin/busybox sleep 1000", 1, number)))
        tests.append((f"{form}: {number.name} while it computes",
                      functools.partial(check_signal, anykvm, form, "while :; do :; done", 1, number)))
    return guestlib.main(tests)


if __name__ == "__main__":
    sys.exit(main())
