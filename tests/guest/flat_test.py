#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Flat images: expected exits and end; hostile ones never crash the process; the same on a real device.
"""usage: flat_test.py ANYKVM SOURCE-FOLDER [--device DEVICE]

With --device each image that ends by itself runs on that device too, and exits and registers must be equal."""

import functools
import json
import os
import subprocess
import sys
import tempfile

import guestlib

ADDRESS = "0x7c00"
UART = "0x3f8"
# (image, exit status or None for one that only a signal ends, bytes written to the serial port, other exits)
IMAGES = [
    ("hello", 0, b"hello\n", []),
    ("triple", 33, b"", []),
    ("spin", None, b"s", []),
    ("smc", 0, b"bcdx", []),
    ("sector", 0, b"rpqtbmu", []),
    ("long", 0, b"rfp", []),
    ("faults", None, b"s", []),
    ("mmio", 0, b"1", [("read", "0xd0000008", 8), ("write", "0xd0000010", 2), ("read", "0xd0000020", 4),
                       ("write", "0xd0000020", 4), ("read", "0xd0000000", 2)]),
    ("nowhere", 64, b"n", []),
]
# What a device cannot do by itself, by the word that /sys/module shows: the emulator of a host without hardware support.
DEVICE_LIMITS = {"kvm_pvm": {"triple": "hangs on a triple fault in real mode", "long": "cannot emulate SSE"}}
SIGTERM_STATUS = 128 + 15
RANDOM_IMAGES = 8


def build(source, folder, name):
    """Assemble one image."""
    target = os.path.join(folder, name + ".bin")
    subprocess.run(["gcc", "-nostdlib", "-static", "-I", source,
                    f"-Wl,-N,-Ttext={ADDRESS},--build-id=none,--oformat=binary", "-o", target,
                    os.path.join(source, name + ".S")], check=True)
    return target


def command_of(anykvm, where, image):
    """The command for a form of execution, or for a device."""
    option = "--device" if where.startswith("/") else "--engine"
    return [anykvm, "run", option, where, "--no-reboot", "--json", "--mem", "64M", "--flat",
            f"{image}@{ADDRESS}"]


def serial(exits):
    """The bytes that went to the serial port."""
    return bytes(int(e["value"], 16) for e in exits if e.get("port") == UART and e["write"])


def others(exits):
    """What else left the machine, in short."""
    return [("write" if e["write"] else "read", e.get("port") or e["address"], e["size"])
            for e in exits if e.get("port") != UART]


def check_image(command, status, output, others_wanted):
    """One image with a known end."""
    run = guestlib.Run(command, 20 if status is not None else 2)
    if run.why_crashed():
        return run.why_crashed()
    if run.ended != (status is not None):
        return f"{'did not end' if status is not None else 'ended'}: {run.describe()}"
    if run.status != (SIGTERM_STATUS if status is None else status):
        return f"wanted status {status}: {run.describe()}"
    if run.status >= 64 and not run.err.strip() and status is not None:
        return f"no line says why: {run.describe()}"
    exits = json.loads(run.out)["exits"]
    if serial(exits) != output:
        return f"wanted {output!r} on the serial port: {serial(exits)!r}"
    if others(exits) != others_wanted:
        return f"wanted exits {others_wanted}: {others(exits)}"
    return None


def check_random(make, folder, number):
    """Random bytes: any end but a crash."""
    generator = guestlib.generator()
    for _ in range(number + 1):
        data = generator.randbytes(generator.choice([64, 512, 4096]))
    path = os.path.join(folder, f"random{number}.bin")
    with open(path, "wb") as f:
        f.write(data)
    run = guestlib.Run(make(path), 1)
    problem = run.why_crashed()
    return f"seed {guestlib.seed()}, image {number}: {problem}" if problem else None


def differences(a, b, path=""):
    """Where two JSON values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(set(a) | set(b)):
            yield from differences(a.get(key), b.get(key), f"{path}.{key}")
    elif a != b:
        yield f"{path[1:]}: ours {a}, device {b}"


def check_same(anykvm, device, name, image):
    """The device and both forms agree."""
    for module, limits in DEVICE_LIMITS.items():
        if name in limits and os.path.isdir(f"/sys/module/{module}"):
            raise guestlib.Skip(f"{module} {limits[name]}")
    theirs = guestlib.Run(command_of(anykvm, device, image), 10)
    for form in ("checked", "fast"):
        ours = guestlib.Run(command_of(anykvm, form, image), 10)
        if not ours.ended or not theirs.ended:
            return f"no end: ours {ours.describe()}; device {theirs.describe()}"
        wrong = list(differences(json.loads(ours.out), json.loads(theirs.out)))
        if wrong:
            return f"{form}:\n" + "\n".join(wrong)
    return None


def tests_of(anykvm, images, folder, form):
    """All tests of one form of execution."""
    make = functools.partial(command_of, anykvm, form)
    tests = [(f"{form}: {name}", functools.partial(check_image, make(images[name]), *expected))
             for name, *expected in IMAGES]
    for number in range(RANDOM_IMAGES):
        tests.append((f"{form}: random bytes {number}",
                      functools.partial(check_random, make, folder, number)))
    return tests


def main():
    anykvm, source = sys.argv[1:3]
    device = sys.argv[4] if len(sys.argv) == 5 and sys.argv[3] == "--device" else None
    if device and not os.access(device, os.R_OK | os.W_OK):
        print(f"1..0 # SKIP no {device} that this user may open")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        images = {name: build(source, folder, name) for name, *_ in IMAGES}
        if device:
            return guestlib.main([(f"{device}: {name}",
                                   functools.partial(check_same, anykvm, device, name, images[name]))
                                  for name, status, *_ in IMAGES if status is not None])
        return guestlib.main(tests_of(anykvm, images, folder, "checked") +
                             tests_of(anykvm, images, folder, "fast"))


if __name__ == "__main__":
    sys.exit(main())
