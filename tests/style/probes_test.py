#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# The USDT probes of a library are those of probes.def: provider, names, numbers of arguments, a NOP each, and the manual.
"""usage: probes_test.py PROBES.DEF MANUAL yes|no LIBRARY... -- CC...   (no: built without sys/sdt.h, so there are none)"""

import glob
import os
import re
import subprocess
import sys

ROW = re.compile(r'^PROBE_ROW\((\w+), (\d+), "([^"]*)"\)', re.M)
NOTE = re.compile(r"Provider: (\S+)\s+Name: (\S+)\s+Location: 0x([0-9a-f]+), Base: 0x([0-9a-f]+), Semaphore: 0x([0-9a-f]+)"
                  r"\s+Arguments: ?(.*)")
LOAD = re.compile(r"^ *LOAD +0x([0-9a-f]+) 0x([0-9a-f]+) 0x[0-9a-f]+ 0x([0-9a-f]+)", re.M)
NOP = 0x90


def readelf(option, path):
    return subprocess.run(["readelf", option, path], capture_output=True, text=True, check=True).stdout


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def byte_at(path, address):
    for offset, start, size in (tuple(int(x, 16) for x in m) for m in LOAD.findall(readelf("-lW", path))):
        if start <= address < start + size:
            with open(path, "rb") as f:
                f.seek(offset + address - start)
                return f.read(1)[0]
    return None


def check_library(path, rows):
    """What is wrong, one message each."""
    seen, wrong = set(), []
    for provider, name, location, _base, semaphore, arguments in NOTE.findall(readelf("-n", path)):
        count = len(arguments.split())
        seen.add(name)
        if provider != "kvm":
            wrong.append(f"{name}: provider {provider}")
        if name not in rows:
            wrong.append(f"{name} has no row in probes.def")
        elif count != rows[name]:
            wrong.append(f"{name}: {count} arguments ({arguments}), the row says {rows[name]}")
        if int(semaphore, 16):
            wrong.append(f"{name}: a semaphore, so it is more than a NOP")
        if byte_at(path, int(location, 16)) != NOP:
            wrong.append(f"{name}: no NOP at {location}")
    wrong += [f"{name} is nowhere in the library" for name in rows if name not in seen]
    return wrong


def check_without(source, compiler):
    """Sources with probes compile, without a warning, as where there is no sys/sdt.h."""
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{source}", f"-I{source}/../include",
             "-DANYKVM_NO_PROBES"]
    files = [path for path in glob.glob(os.path.join(source, "**", "*.c"), recursive=True)
             if re.search(r"\bPROBE\(", read(path))]
    wrong = [] if files else ["no source has a probe"]
    for path in files:
        run = subprocess.run(compiler + flags + [path], capture_output=True, text=True, check=False)
        if run.returncode:
            wrong.append(f"{path}: {run.stderr.splitlines()[-1] if run.stderr else run.returncode}")
    return wrong


def check_rows(text, manual, rows):
    wrong = [f"{name}: {count} arguments, but '{meaning}'" for name, count, meaning in ROW.findall(text)
             if meaning.count(",") + 1 != int(count) and "reason" not in meaning and "woken" not in meaning]
    return wrong + [f"{name} is not in the manual" for name in rows if name.replace("_", r"\_") not in manual
                    and name not in manual]


def report(number, name, wrong):
    print(f"{'not ok' if wrong else 'ok'} {number} - {name}")
    for line in wrong:
        print("# " + line)
    return bool(wrong)


def main():
    split = sys.argv.index("--")
    text, manual, built, libraries = read(sys.argv[1]), read(sys.argv[2]), sys.argv[3], sys.argv[4:split]
    rows = {name: int(count) for name, count, _ in ROW.findall(text)}
    print(f"1..{len(libraries) + 3}")
    failed = report(1, "rows and manual", check_rows(text, manual, rows) if rows else ["no rows"])
    for number, library in enumerate(libraries, 2):
        if built == "no":
            print(f"ok {number} - {library} # SKIP built without sys/sdt.h (systemtap-sdt-dev)")
        else:
            failed |= report(number, library, check_library(library, rows))
    # The test itself: a row too many, a row less, a wrong number of arguments must be found.
    found = built == "no" or all(check_library(libraries[0], bad) for bad in (
        dict(rows, kvm_nothing=1), {k: v for k, v in rows.items() if k != "kvm_exit"}, dict(rows, kvm_entry=7)))
    failed |= report(len(libraries) + 2, "wrong rows are found", [] if found else ["they are not"])
    source = os.path.join(os.path.dirname(sys.argv[1]), "..")
    failed |= report(len(libraries) + 3, "sources without sys/sdt.h", check_without(source, sys.argv[split + 1:]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
