#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# SeaBIOS shows its boot menu and starts what is chosen, OVMF its shell, under Debian's QEMU and `anykvm exec`.
"""usage: firmware_test.py ANYKVM [--long]

The firmware's console is the serial line; keys are typed when their question is there. Skipped without QEMU or the firmware."""

import argparse
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

import guestlib

QEMU = "qemu-system-x86_64"
SEABIOS = "/usr/share/seabios/bios-256k.bin"
ESCAPES = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
# Says HI on the serial line and powers off by the port of isa-debug-exit: status 2 * 0x10 + 1.
SECTOR = bytes.fromhex("baf803b048eeb049ee" "ba0105b010ee" "f4ebfd").ljust(510, b"\0") + b"\x55\xaa"


class Console:
    """A QEMU whose serial line is its standard input and output."""

    def __init__(self, anykvm, arguments, seconds, cpu="host"):
        command = [anykvm, "exec", "--", QEMU, "-accel", "kvm", "-cpu", cpu, "-nographic", "-no-reboot", "-net", "none",
                   "-vga", "none", "-monitor", "none", "-serial", "stdio"] + arguments
        self.end = time.monotonic() + seconds * float(os.environ.get("ANYKVM_PATIENCE", "1"))
        self.text = b""
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()
        self.p.stdin.close()
        self.p.stdout.close()

    def read(self):
        """More of the output; False when there will be none."""
        left = self.end - time.monotonic()
        if left <= 0 or not select.select([self.p.stdout], [], [], left)[0]:
            return False
        more = os.read(self.p.stdout.fileno(), 65536)
        self.text += more
        return bool(more)

    def screen(self):
        return ESCAPES.sub(b"", self.text).decode(errors="replace")

    def sees(self, what):
        """Whether the text comes before the time is over."""
        while what not in self.screen():
            if not self.read():
                return False
        return True

    def types(self, keys):
        self.p.stdin.write(keys)
        self.p.stdin.flush()

    def status(self):
        """Exit status after the output has ended, or None."""
        while self.read():
            pass
        try:
            return self.p.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return None

    def missing(self, what):
        return f"no '{what}' on the console: {self.screen()[-1200:]!r}"


def needs(*paths):
    if not shutil.which(QEMU):
        raise guestlib.Skip("no qemu-system-x86_64 (make deps)")
    for path in paths:
        if not os.path.exists(path):
            raise guestlib.Skip(f"no {path}")


def seabios(anykvm, machine, keys):
    """The menu is asked for with ESC; the boot sector of the chosen disk runs."""
    needs(SEABIOS)
    with tempfile.TemporaryDirectory() as folder:
        disks = [os.path.join(folder, name) for name in ("empty", "sector")]
        for disk, content in zip(disks, (bytes(1 << 20), SECTOR + bytes(1 << 20))):
            with open(disk, "wb") as f:
                f.write(content)
        arguments = ["-M", machine, "-m", "64", "-boot", "menu=on,splash-time=20000",
                     "-device", "isa-debug-exit,iobase=0x501,iosize=1"]
        for disk in disks:
            arguments += ["-drive", f"file={disk},format=raw,if=virtio"]
        with Console(anykvm, arguments, 90) as c:
            if not c.sees("Press ESC for boot menu"):
                return c.missing("Press ESC for boot menu")
            c.types(b"\x1b")
            if not c.sees("Select boot device:"):
                return c.missing("Select boot device:")
            if not c.sees("2. "):
                return c.missing("2. ")
            c.types(keys)
            status = c.status()
            if "HI" not in c.screen().split("Select boot device:")[-1]:
                return c.missing("HI")
            return None if status == 33 else f"status {status}, wanted 33: {c.screen()[-300:]!r}"


def ovmf(anykvm, code, seconds, cpu="host"):
    """Its shell answers, and switches off."""
    needs(code)
    with Console(anykvm, ["-M", "q35", "-m", "256", "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"],
                 seconds, cpu) as c:
        if not c.sees("Shell>"):
            return c.missing("Shell>")
        c.types(b"ver\r")
        if not c.sees("UEFI Interactive Shell v2") or not c.sees("UEFI v2"):
            return c.missing("UEFI v2")
        c.types(b"reset -s\r")
        status = c.status()
        return None if status == 0 else f"status {status}, wanted 0: {c.screen()[-600:]!r}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("anykvm")
    parser.add_argument("--long", action="store_true", help="also those whose 32-bit part takes minutes")
    args = parser.parse_args()
    tests = [
        ("SeaBIOS on pc", lambda: seabios(args.anykvm, "pc", b"2")),
        ("SeaBIOS on q35", lambda: seabios(args.anykvm, "q35", b"2")),
        ("OVMF on q35", lambda: ovmf(args.anykvm, "/usr/share/OVMF/OVMF_CODE.fd", 200)),
    ]
    # This build (edk2 2022.11) maps all of 48 physical address bits in 2 MiB pages, whose tables take 1 GiB, where CPUID has 1 GiB pages, which
    # it counts on and does not use: on QEMU's own processors (-accel tcg -cpu max,phys-bits=48) it ends in its tables, too.
    if args.long:
        tests.append(("OVMF of 4 MiB on q35", lambda: ovmf(args.anykvm, "/usr/share/OVMF/OVMF_CODE_4M.fd", 900,
                                                           "host,host-phys-bits-limit=40")))
    return guestlib.main(tests)


if __name__ == "__main__":
    sys.exit(main())
