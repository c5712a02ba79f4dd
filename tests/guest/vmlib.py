# SPDX-License-Identifier: MIT OR Apache-2.0
# A guest with a name that counts on its console, for the tests of monitor, snapshots and migration.
"""The first argument of the test is the program."""

import os
import re
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402

INIT = b"""#!/bin/busybox sh
echo HERE-NOW
i=0
while :; do i=$((i+1)); echo tick $i; /bin/busybox sleep 0.1; done
"""
TIMEOUT = 60 * float(os.environ.get("ANYKVM_PATIENCE", "1"))
ANYKVM = sys.argv[1]


class Vm:
    """A guest that prints a line ten times a second, with a name and a folder for its socket."""

    def __init__(self, folder, name="vm1", options=(), init=INIT, mem="128M", restore=None, environment=None,
                 before=None, files=()):
        self.env = dict(os.environ, XDG_RUNTIME_DIR=folder, **(environment or {}))
        image = os.path.join(folder, "initrd.gz")
        if not os.path.exists(image):
            initrd.make(image, init, files)
        self.command = [ANYKVM, "run", "--kernel", initrd.kernel(ANYKVM), "--initrd", image, "--append",
                        "console=ttyS0 quiet", "--mem", mem, "--name", name] + list(options)
        if restore:
            self.command = [ANYKVM, "restore", restore, "--name", name] + list(options)
        self.path = os.path.join(folder, "anykvm", name + ".sock")
        self.name = name
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=self.env, preexec_fn=before)
        os.set_blocking(self.process.stdout.fileno(), False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ctl(self, *words, name=None):
        return subprocess.run([ANYKVM, "ctl", name or self.name] + list(words), env=self.env, timeout=TIMEOUT,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)

    def console(self, seconds):
        """What the guest prints in so many seconds."""
        end, text = time.monotonic() + seconds, b""
        while time.monotonic() < end:
            text += self.process.stdout.read() or b""
            time.sleep(0.02)
        return text

    def wait_for_console(self, mark):
        text, end = b"", time.monotonic() + TIMEOUT
        while mark not in text and time.monotonic() < end and self.process.poll() is None:
            text += self.console(0.1)
        return mark in text

    def ticks(self, seconds):
        """The numbers that the guest has counted in so many seconds."""
        return [int(n) for n in re.findall(rb"tick (\d+)\r?\n", self.console(seconds))]

    def counted(self, enough=3):
        """The next numbers that it counts, however slow the host is; [] when they have a gap, or do not come."""
        text, end, ticks = b"", time.monotonic() + TIMEOUT, []
        while len(ticks) < enough and time.monotonic() < end and self.process.poll() is None:
            text += self.console(0.1)
            ticks = [int(n) for n in re.findall(rb"tick (\d+)\r?\n", text)]
        return ticks if ticks and ticks == list(range(ticks[0], ticks[-1] + 1)) else []

    def run(self, *words):
        """A verb of the program, with this guest's folder of sockets."""
        return subprocess.run([ANYKVM] + list(words), env=self.env, timeout=TIMEOUT, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False)

    def connect(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(TIMEOUT)
        s.connect(self.path)
        return s, s.makefile("rwb", buffering=0)
