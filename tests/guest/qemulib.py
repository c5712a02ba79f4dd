# SPDX-License-Identifier: MIT OR Apache-2.0
# A QEMU that is spoken to while it runs: its console as it comes, and its monitor (QMP).
"""The console is QEMU's stdout; Started has what guestlib.Run has once finish() was called."""

import json
import os
import socket
import subprocess
import threading
import time

import guestlib


class Started(guestlib.Run):
    """A run that has not ended yet."""

    def __init__(self, command, timeout):  # pylint: disable=super-init-not-called
        self.begin = time.monotonic()
        self.deadline = self.begin + timeout * float(os.environ.get("ANYKVM_PATIENCE", "1"))
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,  # pylint: disable=consider-using-with
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.out, self.err, self.ended = b"", b"", True
        self.readers = [threading.Thread(target=self._read, args=(self.process.stdout, "out")),
                        threading.Thread(target=self._read, args=(self.process.stderr, "err"))]
        for t in self.readers:
            t.start()

    def _read(self, stream, where):
        while True:
            data = os.read(stream.fileno(), 65536)
            if not data:
                return
            setattr(self, where, getattr(self, where) + data)

    def wait_for(self, text):
        """Until the console shows @text; False when the process or the time ends before."""
        while text not in self.out:
            if self.process.poll() is not None or time.monotonic() > self.deadline:
                return text in self.out
            time.sleep(0.05)
        return True

    def finish(self):
        """Wait for its end, or make one at the deadline."""
        try:
            self.process.wait(max(1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.ended = False
            self.process.kill()
            self.process.wait()
        for t in self.readers:
            t.join()
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        self.status, self.seconds = self.process.returncode, time.monotonic() - self.begin
        return self


class Monitor:
    """QMP over a socket that QEMU listens on."""

    def __init__(self, path, timeout=60):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout * float(os.environ.get("ANYKVM_PATIENCE", "1")))
        self.socket.connect(path)
        self.file = self.socket.makefile("rwb")
        self.file.readline()  # the greeting
        self.command("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def command(self, name, **arguments):
        """What it returned; RuntimeError with what it said when it refused."""
        self.file.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "error" in answer:
                raise RuntimeError(f"{name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def migrate(self, uri):
        # On a busy host the default limit is met after the guest's own end only.
        self.command("migrate-set-parameters", **{"downtime-limit": 10000})
        self.command("migrate", uri=uri)
        while True:
            status = self.command("query-migrate").get("status")
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise RuntimeError(f"migration {status}")
            time.sleep(0.05)
