#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Memory pressure: a guest runs and checksums programs of more than its RAM, which go out to a virtio disk and come back by DMA.
"""usage: pressure_test.py ANYKVM FORM RAM PROGRAMS SUMS ROUNDS (MiB; the test of the issue: 96 192 1 2)

The programs lie in a tmpfs that swaps to the disk. Each has code in every page, which goes from page to page and computes
a number of its own; so a page of code that comes back to another frame, or whose old translation runs, gives another
number. Each SUMS-th is checksummed too. Skipped without a kernel and its modules."""

import hashlib
import os
import random
import re
import struct
import sys
import tempfile

import guestlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402

PAGE, SIZE = 4096, 4 << 20
BASE, HEAD = 0x400000, 64 + 56
MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc p /proc
$b mount -t devtmpfs d /dev
for m in {modules}; do $b insmod /$m; done
$b mkswap /dev/vda >/dev/null
$b swapon /dev/vda
$b mkdir /t
$b mount -t tmpfs -o size={size} t /t
i=0
while [ $i -lt {count} ]; do
  $b dd if=/dev/vdb of=/t/$i bs=1M skip=$((i * 4)) count=4 2>/dev/null
  i=$((i + 1))
done
$b chmod 755 /t/*
for step in {steps}; do
  i=0
  n=0
  while [ $n -lt {count} ]; do
    sum=-
    [ $((i % {sums})) -ne 0 ] || sum=$($b sha256sum /t/$i)
    echo "P $step $i $(/t/$i) ${{sum%% *}}"
    i=$(((i + step) % {count}))
    n=$((n + 1))
  done
done
$b grep pswp /proc/vmstat
$b grep MemTotal /proc/meminfo
$b poweroff -f
"""

# EAX as eight hexadecimal digits and a newline on stdout, then exit.
TAIL = bytes.fromhex(
    "89c3"              # mov ebx, eax
    "4883ec10"          # sub rsp, 16
    "31c9"              # xor ecx, ecx
    "c1c304"            # again: rol ebx, 4
    "89d8" "83e00f"     # mov eax, ebx; and eax, 15
    "0430" "3c3a"       # add al, '0'; cmp al, '9' + 1
    "7202" "0427"       # jb +2; add al, 39
    "88040c"            # mov [rsp + rcx], al
    "ffc1" "83f908"     # inc ecx; cmp ecx, 8
    "72e6"              # jb again
    "c64424080a"        # mov byte [rsp + 8], 10
    "b801000000" "bf01000000" "4889e6" "ba09000000" "0f05"  # write(1, rsp, 9)
    "b83c000000" "31ff" "0f05")  # exit(0)


def rol(value, n):
    return (value << n | value >> (32 - n)) & 0xffffffff


def program(number):
    """(image, what it prints)"""
    rng = random.Random(number)
    image, eax, at = bytearray(rng.randbytes(SIZE)), 0, HEAD
    struct.pack_into("<16sHHIQQQIHHHHHH", image, 0, b"\x7fELF\x02\x01\x01", 2, 62, 1, BASE + HEAD, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    struct.pack_into("<IIQQQQQQ", image, 64, 1, 5, 0, BASE, BASE, SIZE, SIZE, PAGE)
    code = b"\x31\xc0"
    for page in range(SIZE // PAGE):
        add, mix = rng.getrandbits(32), rng.getrandbits(32)
        eax = rol((eax + add & 0xffffffff) ^ mix, 7)
        code += b"\x05" + struct.pack("<I", add) + b"\x35" + struct.pack("<I", mix) + b"\xc1\xc0\x07"
        following = (page + 1) * PAGE + rng.randrange(0, PAGE - 128)
        if page + 1 < SIZE // PAGE:
            code += b"\xe9" + struct.pack("<i", following - (at + len(code) + 5))
        else:
            code += TAIL
        image[at:at + len(code)] = code
        at, code = following, b""
    return bytes(image), f"{eax:08x}"


def check(anykvm, form, ram, programs, sums, rounds, folder):
    kernel = initrd.kernel(anykvm)
    modules = initrd.modules(kernel, MODULES) if kernel else []
    if len(modules) != len(MODULES):
        raise guestlib.Skip("no kernel with its modules: anykvm fetch failed")
    count = (programs << 20) // SIZE
    wanted = []
    with open(os.path.join(folder, "programs"), "wb") as f:
        for i in range(count):
            image, number = program(i)
            f.write(image)
            wanted.append((number, hashlib.sha256(image).hexdigest() if i % sums == 0 else "-"))
    with open(os.path.join(folder, "swap"), "wb") as f:
        f.truncate((programs + ram) << 20)
    steps = (1, next(s for s in (17, 19, 23) if count % s))[:rounds]
    initrd.make(os.path.join(folder, "initrd"),
                INIT.format(modules=" ".join(n for n, _ in modules), size=(count + 2) * SIZE, count=count, sums=sums,
                            steps=" ".join(map(str, steps))).encode(), modules)
    run = guestlib.Run([anykvm, "run", "--engine", form, "--kernel", kernel, "--initrd", os.path.join(folder, "initrd"),
                        "--append", "console=ttyS0 quiet panic=-1", "--no-reboot", "--mem", f"{ram}M", "--disk", os.path.join(folder, "swap"),
                        "--disk", os.path.join(folder, "programs") + ",ro"], 1000)
    out = run.out.decode(errors="replace")
    if run.status or not run.ended:
        return run.describe()
    got = re.findall(r"^P (\d+) (\d+) (\S*) (\S+)\r?$", out, re.M)
    for step in steps:
        of_step = {int(i): (number, digest) for s, i, number, digest in got if int(s) == step}
        for i in range(count):
            if of_step.get(i) != wanted[i]:
                return f"program {i}, step {step}: wanted {wanted[i]}, got {of_step.get(i)}"
    swapped = {k: int(n) for k, n in re.findall(r"(pswp\w+) (\d+)", out)}
    usable = int(re.search(r"MemTotal: +(\d+)", out)[1]) >> 2
    excess = (programs << 8) - usable
    # Otherwise it was no pressure.
    if excess <= 0 or swapped["pswpout"] < excess or swapped["pswpin"] < excess * rounds // 2:
        return f"too little was swapped for {usable} pages of RAM: {swapped}"
    print(f"# {programs} MiB of programs in {ram} MiB of RAM ({usable} pages usable), {rounds} rounds: {run.seconds:.1f} s, "
          f"pages out {swapped['pswpout']}, in {swapped['pswpin']}", flush=True)
    return None


def main():
    anykvm, form = sys.argv[1:3]
    ram, programs, sums, rounds = map(int, sys.argv[3:7])
    with tempfile.TemporaryDirectory() as folder:
        return guestlib.main([(f"programs of {programs} MiB in {ram} MiB of RAM, {form}",
                               lambda: check(anykvm, form, ram, programs, sums, rounds, folder))])


if __name__ == "__main__":
    sys.exit(main())
