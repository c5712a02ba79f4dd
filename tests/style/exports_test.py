#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# libanykvm.so exports exactly the functions of the public header, under a version.
import re
import subprocess
import sys


def main():
    library, header = sys.argv[1:3]
    with open(header, encoding="utf-8") as f:
        code = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    declared = set(re.findall(r"\b(anykvm_\w+)\(", code))
    lines = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    exported = {line.split()[-1] for line in lines if line.split()[1] != "A"}
    wrong = [f"{name} is exported but not declared in anykvm.h"
             for name in sorted({e.split("@")[0] for e in exported} - declared)]
    wrong += [f"{name} is declared in anykvm.h but not exported"
              for name in sorted(declared - {e.split("@")[0] for e in exported})]
    wrong += [f"{name} has no version" for name in sorted(exported) if "@@" not in name]
    print("1..1")
    print(f"{'not ok' if wrong else 'ok'} 1 - libanykvm.so exports the public header")
    for message in wrong:
        print(f"# {message}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
