#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Make an initramfs of a static busybox and a script, for tests and measurements; and ask for a kernel.
"""usage: tools/initrd.py OUTPUT < SCRIPT"""

import gzip
import os
import subprocess
import sys

BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")


def busybox():
    """The host's busybox, or None."""
    return next((p for p in BUSYBOX if os.path.exists(p)), None)


def entry(name, mode, data=b"", rdev=(0, 0), ino=0):
    """One entry of a newc archive."""
    path = name.encode() + b"\0"
    fields = [ino, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(path), 0]
    head = b"070701" + b"".join(b"%08x" % f for f in fields) + path
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def make(path, script, files=()):
    """Write the archive: /bin/busybox, /dev/console, /tmp, /proc, the script as /init, and (name, data) pairs at the top."""
    with open(busybox(), "rb") as f:
        program = f.read()
    parts = [entry(name, 0o40755, ino=number)
             for number, name in enumerate(("bin", "dev", "proc", "tmp"), 1)]
    parts += [entry("dev/console", 0o20600, rdev=(5, 1), ino=5),
              entry("bin/busybox", 0o100755, program, ino=6),
              entry("init", 0o100755, script, ino=7)]
    parts += [entry(name, 0o100644, data, ino=number) for number, (name, data) in enumerate(files, 8)]
    parts.append(entry("TRAILER!!!", 0))
    with gzip.open(path, "wb", compresslevel=1) as f:
        f.write(b"".join(parts))


def kernel(anykvm):
    """The kernel that `anykvm fetch` gives (at once when the cache has it), or None."""
    done = subprocess.run([anykvm, "fetch"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def modules(image, names):
    """(name.ko, data) of those modules of a kernel in the cache that are there, in this order."""
    version = os.path.basename(image).removeprefix("vmlinuz-")
    found = {}
    for folder, _, files in os.walk(os.path.join(os.path.dirname(image), "modules", version)):
        for name in files:
            found[name] = os.path.join(folder, name)
    result = []
    for name in names:
        path = found.get(name + ".ko")
        if path:
            with open(path, "rb") as f:
                result.append((name + ".ko", f.read()))
    return result


if __name__ == "__main__":
    make(sys.argv[1], sys.stdin.buffer.read())
