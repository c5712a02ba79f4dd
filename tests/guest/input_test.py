#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Bad input to the command: exit status 2 and one line that says what is wrong.
"""usage: input_test.py ANYKVM"""

import functools
import os
import random
import sys
import tempfile

import guestlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402


def check(command, word):
    """Status 2, nothing on stdout, one line on stderr with a word of what was wrong."""
    run = guestlib.Run(command, 20)
    if run.why_crashed():
        return run.why_crashed()
    if not run.ended or run.status != 2:
        return f"wanted status 2: {run.describe()}"
    if run.out:
        return f"wanted nothing on stdout: {run.describe()}"
    lines = run.err.decode(errors="replace").strip().splitlines()
    if len(lines) != 1 or len(lines[0]) > 400:
        return f"wanted one line: {run.describe()}"
    if word.lower() not in lines[0].lower():
        return f"the line does not name '{word}': {run.describe()}"
    return None


def write(folder, name, data):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def kernel_files(folder):
    """(name, path) of kernels that are none."""
    noise = random.Random(1).randbytes(100000)
    header = bytearray(noise)
    header[0x1fe:0x200] = b"\x55\xaa"
    header[0x202:0x206] = b"HdrS"
    header[0x1f1] = 255
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\xff" * 48
    yield "empty", write(folder, "empty", b"")
    yield "one byte", write(folder, "byte", b"x")
    yield "noise", write(folder, "noise", noise)
    yield "a bzImage cut off", write(folder, "cut", bytes(header[:0x210]))
    yield "a bzImage of noise", write(folder, "header", bytes(header))
    yield "an ELF cut off", write(folder, "elf", elf)
    yield "a directory", folder


def main():
    anykvm = sys.argv[1]
    tests = []

    def add(name, word, *args):
        tests.append((name, functools.partial(check, [anykvm] + list(args), word)))

    with tempfile.TemporaryDirectory() as folder:
        flat = write(folder, "flat", b"\xf4" * 16)
        add("an unknown verb", "frobnicate", "frobnicate")
        add("an unknown option", "frobnicate", "run", "--frobnicate")
        add("an option without its value", "--mem", "run", "--mem")
        add("a missing kernel", "nosuchfile", "run", "--kernel", os.path.join(folder, "nosuchfile"))
        for name, path in kernel_files(folder):
            add(f"a kernel that is {name}", os.path.basename(path), "run", "--kernel", path)
        for size in ("0", "abc", "-1", "12Q", "99999999999999999999G", "16777216T", ""):
            add(f"memory of '{size}'", "mem", "run", "--flat", f"{flat}@0x7c00", "--mem", size)
        add("too many processors", "cpus", "run", "--flat", f"{flat}@0x7c00", "--cpus", "5000")
        add("several processors for a flat image", "cpus", "run", "--flat", f"{flat}@0x7c00", "--cpus", "2")
        add("65 processors", "cpus", "run", "--cpus", "65")
        add("no processor", "cpus", "run", "--flat", f"{flat}@0x7c00", "--cpus", "0")
        add("an unknown processor", "cpu", "run", "--flat", f"{flat}@0x7c00", "--cpu", "z80")
        add("an unknown form", "engine", "run", "--flat", f"{flat}@0x7c00", "--engine", "warp")
        add("a missing image", "nosuchfile", "run", "--flat", os.path.join(folder, "nosuchfile") + "@0x7c00")
        add("an image outside memory", "flat", "run", "--mem", "64M", "--flat", f"{flat}@0xffffffffff")
        for words, word in ((",", "--disk"), ("x,rw", "rw"), ("x,format=vmdk", "vmdk"), ("x,format", "format"),
                            ("x,ro=1", "ro"), ("x,serial=" + "s" * 21, "20")):
            add(f"a disk '{words}'", word, "run", "--disk", words)
        for words, word in (("", "--share"), ("=", "begins"), (".=a b", "tag"), (".=../x", "tag"), (".,rw", "rw"),
                            (".=" + "t" * 37, "tag")):
            add(f"a share '{words}'", word if words != "=" else "tag", "run", "--share", words)
        add("a tag twice", "twice", "run", "--share", ".=a", "--share", ".=a")
        add("a command that is none", "nothing follows", "run", "--")
        add("a command in a flat image", "--flat", "run", "--flat", f"{flat}@0x7c00", "--", "true")
        add("nine disks", "8 disks", "run", *["--disk=x"] * 9)
        kernel = initrd.kernel(anykvm)
        if kernel:
            qcow2 = write(folder, "image.qcow2", b"QFI\xfb" + bytes(508))
            for name, disk, word in (("missing", os.path.join(folder, "nosuchfile"), "nosuchfile"),
                                     ("odd", write(folder, "odd.img", b"x" * 513), "512"),
                                     ("empty", write(folder, "empty.img", b""), "512"),
                                     ("folder", folder + ",ro", "neither"),
                                     ("qcow2 by surprise", qcow2, "format=qcow2"),
                                     ("no qcow2", write(folder, "raw.img", bytes(512)) + ",format=qcow2",
                                      "no qcow2"),
                                     ("truncated qcow2", qcow2 + ",format=qcow2", "qcow2")):
                add(f"a disk image that is {name}", word, "run", "--kernel", kernel, "--disk", disk)
            add("a shared folder that is missing", "nosuchfile", "run", "--kernel", kernel, "--share",
                os.path.join(folder, "nosuchfile"))
            add("a shared folder that is a file", "raw.img", "run", "--kernel", kernel, "--share",
                os.path.join(folder, "raw.img"))
            add("an image used twice", "in use", "run", "--kernel", kernel, *["--disk",
                os.path.join(folder, "raw.img")] * 2)
            big = os.path.join(folder, "big")
            with open(big, "wb") as f:
                f.truncate(200 << 20)
            add("an initrd larger than memory", "initrd", "run", "--kernel", kernel, "--initrd", big,
                "--mem", "128M")
            add("a missing initrd", "nosuchfile", "run", "--kernel", kernel, "--initrd",
                os.path.join(folder, "nosuchfile"))
        return guestlib.main(tests)


if __name__ == "__main__":
    sys.exit(main())
