#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Flat images: expected output and end; hostile ones never crash the process.
"""usage: flat_test.py ANYKVM SOURCE-FOLDER [--device DEVICE]"""

import functools
import os
import subprocess
import sys
import tempfile

import guestlib

ADDRESS = "0x7c00"
# (image, exit status or None for one that only a signal ends, what it prints)
IMAGES = [
    ("hello", 0, b"hello\n"),
    ("triple", 33, b""),
    ("reset", 32, b""),
    ("keyboard", 32, b""),
    ("sleep", None, b"s"),
    ("spin", None, b"s"),
    ("smc", 0, b"bcdx"),
    ("mmio", 0, b"1"),
    ("long", 0, b"rfp"),
    ("faults", None, b"s"),
]
SIGTERM_STATUS = 128 + 15
RANDOM_IMAGES = 8


def build(source, folder, name):
    """Assemble one image."""
    target = os.path.join(folder, name + ".bin")
    subprocess.run(["gcc", "-nostdlib", "-static", "-I", source,
                    f"-Wl,-N,-Ttext={ADDRESS},--build-id=none,--oformat=binary", "-o", target,
                    os.path.join(source, name + ".S")], check=True)
    return target


def command_of(anykvm, form, device, image):
    command = [anykvm, "run", "--no-reboot", "--mem", "64M", "--flat", f"{image}@{ADDRESS}"]
    return command + (["--device", device] if device else ["--engine", form])


def check_image(command, status, output):
    """One image with a known end."""
    run = guestlib.Run(command, 20 if status is not None else 2)
    if run.why_crashed():
        return run.why_crashed()
    if run.ended != (status is not None):
        return f"{'did not end' if status is not None else 'ended'}: {run.describe()}"
    if run.status != (SIGTERM_STATUS if status is None else status):
        return f"wanted status {status}: {run.describe()}"
    if run.out.replace(b"\r\n", b"\n") != output:
        return f"wanted output {output!r}: {run.describe()}"
    return None


def check_nowhere(command):
    """A fetch from where there is no memory is an error exit with one line."""
    run = guestlib.Run(command, 20)
    if run.why_crashed():
        return run.why_crashed()
    if not run.ended or run.status < 64 or not run.err.strip():
        return f"wanted an error exit and a line that says why: {run.describe()}"
    return None


def check_random(command_for, folder, number):
    """Random bytes: any end but a crash."""
    generator = guestlib.generator()
    for _ in range(number + 1):
        data = generator.randbytes(generator.choice([64, 512, 4096]))
    path = os.path.join(folder, f"random{number}.bin")
    with open(path, "wb") as f:
        f.write(data)
    run = guestlib.Run(command_for(path), 1)
    problem = run.why_crashed()
    return f"seed {guestlib.seed()}, image {number}: {problem}" if problem else None


def tests_of(anykvm, source, folder, form, device):
    """All tests of one form of execution."""
    make = functools.partial(command_of, anykvm, form, device)
    where = device or form
    tests = []
    for name, status, output in IMAGES:
        image = build(source, folder, name)
        tests.append((f"{where}: {name}", functools.partial(check_image, make(image), status, output)))
    nowhere = build(source, folder, "nowhere")
    tests.append((f"{where}: nowhere", functools.partial(check_nowhere, make(nowhere))))
    if not device:
        for number in range(RANDOM_IMAGES):
            tests.append((f"{where}: random bytes {number}",
                          functools.partial(check_random, make, folder, number)))
    return tests


def main():
    anykvm, source = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        if "--device" in sys.argv:
            device = sys.argv[sys.argv.index("--device") + 1]
            if not os.access(device, os.R_OK | os.W_OK):
                print(f"1..0 # SKIP no {device} that this user may open")
                return 0
            return guestlib.main(tests_of(anykvm, source, folder, None, device))
        tests = []
        for form in ("checked", "fast"):
            tests += tests_of(anykvm, source, folder, form, None)
        return guestlib.main(tests)


if __name__ == "__main__":
    sys.exit(main())
