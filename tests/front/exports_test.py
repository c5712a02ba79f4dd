#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# libanykvm-preload.so exports the functions that it stands before, nothing else, and has no destructor.
"""usage: exports_test.py LIBRARY NAMES"""

import subprocess
import sys


def main():
    library, names = sys.argv[1:3]
    with open(names, encoding="utf-8") as f:
        wanted = {line.strip() for line in f if not line.startswith("#")}
    lines = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    exported = {line.split()[-1] for line in lines}
    wrong = [f"{name} is exported and not in the list" for name in sorted(exported - wanted)]
    wrong += [f"{name} is in the list and not exported" for name in sorted(wanted - exported)]
    wrong += [f"{name} has a version, so programs that want libc's would pass it by"
              for name in sorted(exported) if "@" in name]
    needed = [line.split("[")[1].rstrip("]") for line in
              subprocess.run(["readelf", "-d", library], capture_output=True, text=True,
                             check=True).stdout.splitlines() if "(NEEDED)" in line]
    foreign = [n for n in needed if not n.startswith(("libc.so", "libZydis.so", "libZycore.so", "ld-linux"))]
    symbols = subprocess.run(["nm", library], capture_output=True, text=True, check=True).stdout
    tests = [("exports are the list", wrong),
             ("needs libc and Zydis only", [f"needs {n}" for n in foreign]),
             ("no atfork handler and no exit handler",
              [line for line in symbols.splitlines() if "pthread_atfork" in line or " U atexit" in line])]
    print(f"1..{len(tests)}")
    for number, (name, messages) in enumerate(tests, 1):
        print(f"{'not ok' if messages else 'ok'} {number} - {name}")
        for message in messages:
            print(f"# {message}")
    return 1 if any(m for _, m in tests) else 0


if __name__ == "__main__":
    sys.exit(main())
