#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Disks of a machine that moves: a guest writes and reads a qcow2 and a raw image of both sides; one side has them at a time.
"""usage: disk_move_test.py ANYKVM REWRITER [MIGRATIONS]"""

import os
import re
import subprocess
import sys
import tempfile

import guestlib
import movelib
from guestlib import Skip
from vmlib import ANYKVM, TIMEOUT, Vm

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402

MIGRATIONS = int(sys.argv[3]) if len(sys.argv) > 3 else 4
MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")
SLOTS, SLOT, STEP = 100, 64 << 10, 37
SIZE = 64 << 20

# Each pass writes a slot of one disk, reads one of six passes before, and writes and discards a place behind all slots.
INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc p /proc
$b mount -t devtmpfs d /dev
for m in {' '.join(MODULES)}; do $b insmod /$m.ko; done
i=0
text() {{ $b yes "pass $1 of this guest" | $b head -c {SLOT}; }}
disk() {{ [ $(($1 % 2)) = 0 ] && echo /dev/vda || echo /dev/vdb; }}
while :; do
  i=$((i + 1))
  d=$(disk $i)
  text $i | $b dd of=$d bs={SLOT} seek=$((i * {STEP} % {SLOTS})) conv=notrunc,fsync iflag=fullblock 2>/dev/null || echo BAD write
  $b dd if=/dev/zero of=$d bs={SLOT} seek=$(({SLOTS} + i % 50)) count=1 conv=notrunc,fsync 2>/dev/null || echo BAD write
  $b blkdiscard -o $((({SLOTS} + i % 50) * {SLOT})) -l {SLOT} $d 2>/dev/null
  if [ $i -gt 6 ]; then
    echo 1 > /proc/sys/vm/drop_caches
    j=$((i - 6))
    text $j > /tmp/want
    $b dd if=$(disk $j) bs={SLOT} skip=$((j * {STEP} % {SLOTS})) count=1 2>/dev/null | $b cmp - /tmp/want || echo BAD read $j
  fi
  echo tick $i
done
"""


class Disks:
    """An image of each format in a folder, and machines that have them."""

    def __init__(self, folder):
        self.folder = folder
        self.images = [os.path.join(folder, "image.qcow2"), os.path.join(folder, "image.raw")]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.images[0], str(SIZE)], check=True)
        with open(self.images[1], "wb") as f:
            f.truncate(SIZE)
        self.modules = initrd.modules(initrd.kernel(ANYKVM), MODULES)
        if len(self.modules) < len(MODULES) - 1:
            raise Skip("no modules of the kernel")

    def start(self, name, uri=None):
        options = ["--disk", f"{self.images[0]},format=qcow2", "--disk", self.images[1]]
        return Vm(self.folder, name, options + (["--incoming", uri] if uri else []), INIT.encode(), "128M",
                  files=self.modules)

    def check(self, last, sound=(0,)):
        """A message unless the qcow2 image is sound, and each slot has what the last pass that wrote there has written."""
        run = subprocess.run(["qemu-img", "check", "-f", "qcow2", self.images[0]], capture_output=True, text=True, check=False)
        if run.returncode not in sound:
            return f"qemu-img check: {run.stdout}{run.stderr}"
        plain = os.path.join(self.folder, "plain")
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.images[0], plain], check=True)
        with open(plain, "rb") as one, open(self.images[1], "rb") as two:
            data = [one.read(), two.read()]
        for i in range(max(1, last - SLOTS + 1), last + 1):
            at = i * STEP % SLOTS * SLOT
            line = b"pass %d of this guest\n" % i
            want = (line * (SLOT // len(line) + 1))[:SLOT]
            if data[i % 2][at:at + SLOT] != want and i + SLOTS > last + 1:
                return f"pass {i} is not on the disk: {data[i % 2][at:at + 40]!r}"
        return None


def counts(vm):
    """The last number of some that come without a gap; a message."""
    ticks = vm.counted()
    return (ticks[-1], None) if ticks else (0, "the guest does not count on, or has read what it did not write")


def moved(here, disks, name, uri):
    there = disks.start(name, uri)
    movelib.wait_for(lambda: movelib.is_waiting(uri[5:]))
    run = here.run("migrate", here.name, uri, "--verify", "--downtime", "300")
    if run.returncode or here.process.wait(TIMEOUT):
        there.__exit__()
        return None, f"{run}, {here.process.returncode}"
    return there, None


def check_to_and_fro():
    """The guest writes on; who is left has given the images up, and nobody else gets them."""
    with tempfile.TemporaryDirectory() as folder:
        disks, uri = Disks(folder), f"unix:{folder}/wire"
        here = disks.start("vm0")
        try:
            if not here.wait_for_console(b"tick 8\r"):
                return f"the guest does not start: {here.process.stderr.read()}"
            for n in range(1, MIGRATIONS + 1):
                there, problem = moved(here, disks, f"vm{n}", uri)
                if problem:
                    return f"migration {n}: {problem}"
                here.__exit__()
                here = there
                last, problem = counts(here)
                if problem:
                    return f"migration {n}: {problem}"
            with disks.start("other") as other:
                if other.process.wait(TIMEOUT) == 0 or b"in use" not in other.process.stderr.read():
                    return "another machine takes the images, too"
            last, problem = counts(here)
            if problem:
                return problem
            if here.run("ctl", here.name, "stop").returncode:
                return "it does not stop"
            last = max([last] + [int(t) for t in re.findall(rb"tick (\d+)", here.console(0.3))])
            if here.run("ctl", here.name, "quit").returncode or here.process.wait(TIMEOUT) is None:
                return "it does not end"
            return disks.check(last)
        finally:
            here.__exit__()


def cut_after(here, disks, name, after_end):
    """A target, and what the source says when the link is cut so many bytes after the end of its stream."""
    folder = disks.folder
    for old in ("wire", "cut"):
        if os.path.exists(f"{folder}/{old}"):
            os.unlink(f"{folder}/{old}")
    there = disks.start(name, f"unix:{folder}/wire")
    movelib.wait_for(lambda: movelib.is_waiting(f"{folder}/wire"))
    movelib.Cutter(f"{folder}/cut", f"{folder}/wire", after_end, movelib.FRAME_END)
    return there, here.run("migrate", here.name, f"unix:{folder}/cut", "--downtime", "300")


def check_one_side():
    """Links cut in the commit exchange: whoever has the images runs, and the other one is refused, whatever a person says."""
    with tempfile.TemporaryDirectory() as folder:
        disks = Disks(folder)
        with disks.start("vm0") as here:
            if not here.wait_for_console(b"tick 8\r"):
                return "the guest does not start"
            there, run = cut_after(here, disks, "vm1", 10)  # READY is lost: the source goes on
            with there:
                if run.returncode != 1 or counts(here)[1]:
                    return f"the source does not go on: {run}, {counts(here)}"
                movelib.wait_for(lambda: (movelib.status(there) or {}).get("status") == "postmigrate")
                run = there.run("migrate", "vm1", "--resolve", "run")
                if run.returncode == 0 or "in use" not in run.stderr:
                    return f"the target runs beside the source: {run}"
                if there.run("migrate", "vm1", "--resolve", "discard").returncode or counts(here)[1]:
                    return f"it cannot be discarded: {counts(here)}"
            there, run = cut_after(here, disks, "vm2", 30)  # COMMIT is lost: both stand
            with there:
                if "stands here" not in run.stderr:
                    return f"the source does not stand: {run}"
                movelib.wait_for(lambda: (movelib.status(there) or {}).get("status") == "postmigrate")
                if there.run("migrate", "vm2", "--resolve", "run").returncode or counts(there)[1]:
                    return f"the target does not run: {counts(there)}"
                run = here.run("migrate", "vm0", "--resolve", "run")
                if run.returncode == 0 or "in use" not in run.stderr:
                    return f"the source runs, too: {run}"
                if here.run("migrate", "vm0", "--resolve", "discard").returncode:
                    return "the source cannot be discarded"
                here.process.wait(TIMEOUT)
                last, problem = counts(there)
                there.process.kill()
                there.process.wait()
                return problem or disks.check(last, (0, 3))  # clusters may be leaked by who is killed


if not guestlib.can_boot(ANYKVM):
    sys.exit(0)
guestlib.exit_with([("to and fro with disks", check_to_and_fro), ("one side has the disks", check_one_side)])
