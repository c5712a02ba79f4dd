#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Debian's kernel with page tables of five levels: it says so, uses their addresses, and user code gets some beyond 47 bits.
"""usage: la57_boot_test.py ANYKVM"""

import re
import sys

from guestlib import Run, Skip, exit_with

# A mapping asked for at 2^52 is there, and what is written there is read; printed as the kernel has placed it.
USER = """
import ctypes, mmap
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p] + [ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
at = libc.mmap(1 << 52, 1 << 20, 3, 0x22, -1, 0)
ctypes.memmove(at + 4096, b"five levels", 11)
print("mapped", hex(at), ctypes.string_at(at + 4096, 11).decode())
"""
SCRIPT = ("echo flag $(grep -c -w la57 /proc/cpuinfo); grep -m1 'address sizes' /proc/cpuinfo; "
          "echo 1 > /proc/sys/kernel/kptr_restrict; echo kernel $(head -1 /proc/vmallocinfo); "
          f"python3 -c '{USER}'")


def boot(anykvm, options, flags, kernel, user):
    """None, or what was wrong: how many processors show the flag, where kernel and user addresses begin."""
    run = Run([anykvm, "run"] + options + ["--", "sh", "-c", SCRIPT], 150)
    text = run.out.decode(errors="replace")
    if "anykvm fetch" in text and run.status:
        raise Skip("no kernel: anykvm fetch failed")
    for wanted in (rf"^flag {flags}\s*$", rf"^kernel {kernel}", rf"^mapped {user} five levels\s*$"):
        if not re.search(wanted, text, re.MULTILINE):
            return f"no '{wanted}' in {run.describe()}"
    return None


def refused(anykvm, model, words):
    run = Run([anykvm, "run", "--cpu", model, "--", "true"], 60)
    return None if run.status and words in run.out + run.err else f"wanted '{words}': {run.describe()}"


def main():
    anykvm = sys.argv[1]
    five = (r"0xffa[0-9a-f]{13}-", "0x10000000000000")
    four = (r"0xffff[c-e][0-9a-f]{11}-", "0x7[0-9a-f]{11}")
    exit_with([
        ("five levels", lambda: boot(anykvm, ["--cpu", "host,+la57"], 1, *five)),
        ("five levels on two processors", lambda: boot(anykvm, ["--cpu", "host,+la57", "--cpus", "2"], 2, *five)),
        ("four where the command line says no5lvl",
         lambda: boot(anykvm, ["--cpu", "host,+la57", "--append", "console=ttyS0 quiet no5lvl"], 0, *four)),
        ("what is neither offered nor emulated", lambda: refused(anykvm, "host,+vmx", b"cannot give 'vmx'")),
        ("four where nobody asks for more", lambda: boot(anykvm, ["--cpu", "host,-la57"], 0, *four)),
    ])


if __name__ == "__main__":
    main()
