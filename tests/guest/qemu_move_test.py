#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Debian's QEMU on anykvm moves a guest that rewrites its memory: to another QEMU, with bitmap and ring, and into a qcow2 image.
"""usage: qemu_move_test.py ANYKVM REWRITER [MIGRATIONS]

The guest checks each page before it writes to it again, and counts: a page that was lost is a line with BAD."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import guestlib
import qemulib
from guestlib import initrd

ANYKVM, REWRITER = sys.argv[1:3]
MIGRATIONS = int(sys.argv[3]) if len(sys.argv) > 3 else 2
QEMU = "qemu-system-x86_64"
TIMEOUT = 150
MEMORY = 192
INIT = b"""#!/bin/busybox sh
/bin/busybox chmod +x /rewriter
exec /rewriter 48 2 1
"""


class Guest(qemulib.Started):
    """A QEMU with a monitor."""

    def __init__(self, folder, name, accel, *options):
        self.monitor_path = os.path.join(folder, name + ".qmp")
        if os.path.exists(self.monitor_path):
            os.unlink(self.monitor_path)
        command = [ANYKVM, "exec", "--", QEMU, "-accel", accel, "-M", "q35", "-cpu", "host", "-smp", "2", "-m", str(MEMORY),
                   "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel",
                   os.path.join(folder, "vmlinuz"), "-initrd", os.path.join(folder, "initrd.gz"), "-append",
                   "console=ttyS0 quiet panic=-1", "-qmp", f"unix:{self.monitor_path},server=on,wait=off", *options]
        super().__init__(command, TIMEOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.finish()

    def monitor(self):
        while True:
            try:
                return qemulib.Monitor(self.monitor_path)
            except OSError:  # it does not listen yet
                if self.process.poll() is not None or time.monotonic() > self.deadline:
                    raise
            time.sleep(0.05)

    def human(self, line):
        """A command of the other monitor; what it says."""
        with self.monitor() as m:
            return m.command("human-monitor-command", **{"command-line": line})

    def counts(self, since):
        text = self.out[since:]
        return [[int(n) for n in re.findall(rb"tick %d (\d+)\r?\n" % thread, text)] for thread in (0, 1)]

    def is_well(self, since=0):
        """A message unless both threads count on without a gap, and no page was wrong."""
        while min(map(len, self.counts(since))) < 2 and time.monotonic() < self.deadline and self.process.poll() is None:
            time.sleep(0.05)
        for found in self.counts(since):
            if len(found) < 2 or found != list(range(found[0], found[0] + len(found))) or b"BAD" in self.out:
                return f"the guest is not well: {self.out[-300:]!r} {self.err[-500:]!r}"
        return None


def migrate(folder, accel):
    """To and fro over a unix socket."""
    def check():
        here = Guest(folder, "q0", accel)
        try:
            if not here.wait_for(b"tick 1 1"):
                return f"it did not start: {here.out[-500:]!r} {here.err[-500:]!r}"
            for n in range(1, MIGRATIONS + 1):
                wire = os.path.join(folder, f"wire{n}")
                if os.path.exists(wire):
                    os.unlink(wire)
                there = Guest(folder, f"q{n}", accel, "-incoming", f"unix:{wire}")
                with there.monitor(), here.monitor() as m:
                    m.migrate(f"unix:{wire}")
                    info = m.command("query-migrate")
                    m.command("quit")
                print(f"# migration {n}: {info['ram']['dirty-sync-count']} rounds, {info['total-time']} ms, "
                      f"{info['downtime']} ms of them the guest stood", flush=True)
                if info["ram"]["dirty-sync-count"] < 2:
                    there.__exit__()
                    return f"no round: {info}"
                here.finish()
                here = there
                problem = here.is_well()
                if problem:
                    return f"after migration {n}: {problem}"
        except (RuntimeError, OSError, ValueError) as gone:
            return f"{gone}: {here.err[-500:]!r}"
        finally:
            here.__exit__()
        return None
    return check


def saved(folder):
    """savevm while it runs, and loadvm: in the same QEMU, which goes back, and in another one."""
    image = os.path.join(folder, "disk.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "16M"], check=True)
    drive = ("-drive", f"file={image},format=qcow2,if=virtio")
    with Guest(folder, "s0", "kvm", *drive) as first:
        if not first.wait_for(b"tick 1 1"):
            return f"it did not start: {first.out[-500:]!r} {first.err[-500:]!r}"
        said = first.human("savevm one")
        at = len(first.out)
        problem = f"savevm: {said}" if said else first.is_well(at)
        if problem:
            return problem
        last = first.counts(at)[0][-1]
        said = first.human("loadvm one")
        at = len(first.out)
        problem = f"loadvm: {said}" if said else first.is_well(at)
        if problem:
            return problem
        if first.counts(at)[0][0] > last:
            return f"loadvm does not go back: {first.counts(at)} after {last}"
    with Guest(folder, "s1", "kvm", *drive, "-loadvm", "one") as second:
        return second.is_well()


def main():
    kernel = initrd.kernel(ANYKVM)
    missing = [n for n in (QEMU, "qemu-img") if not shutil.which(n)]
    if missing or not kernel or not initrd.busybox():
        print(f"1..0 # SKIP missing: {' '.join(missing) or 'kernel or busybox'} (make deps)")
        return 0
    with tempfile.TemporaryDirectory() as folder, open(REWRITER, "rb") as f:
        initrd.make(os.path.join(folder, "initrd.gz"), INIT, [("rewriter", f.read())])
        shutil.copy(kernel, os.path.join(folder, "vmlinuz"))
        return guestlib.main([
            ("live migration to another QEMU", migrate(folder, "kvm")),
            ("live migration with the dirty ring", migrate(folder, "kvm,dirty-ring-size=4096")),
            ("savevm, loadvm", lambda: saved(folder)),
        ])


if __name__ == "__main__":
    sys.exit(main())
