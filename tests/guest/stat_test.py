#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# anykvm stat: shares of time that add up and follow what the guest does, counters that rise, bounds, refusals.
"""usage: stat_test.py ANYKVM"""

import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
import zlib

import guestlib
from vmlib import TIMEOUT, Vm

# One processor is never idle, the other always.
INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t proc p /proc
echo HERE-NOW
while :; do read line < /proc/self/stat; done
"""
COMMAND = ["--interval", "0.5", "--count", "2", "--json"]


def reports(vm):
    r = vm.run("stat", vm.name, *COMMAND)
    if r.returncode:
        raise AssertionError(f"status {r.returncode}: {r.stderr}")
    return [json.loads(line) for line in r.stdout.splitlines()]


def share(report, cpu, begins):
    return sum(v for k, v in report["cpus"][cpu]["share"].items() if k.startswith(begins))


def check_shares():
    with tempfile.TemporaryDirectory() as folder, Vm(folder, options=["--cpus", "2"], init=INIT) as vm:
        if not vm.wait_for_console(b"HERE-NOW"):
            return "the guest did not start"
        for r in reports(vm):
            if r["samples"] < 20:
                return f"{r['samples']} samples in {r['seconds']} s"
            for cpu in (0, 1):
                if abs(sum(r["cpus"][cpu]["share"].values()) - 1) > 1e-6:
                    return f"the shares of processor {cpu} do not add up: {r['cpus'][cpu]['share']}"
            idle = sorted(share(r, cpu, "idle") for cpu in (0, 1))
            if idle[0] > 0.6 or idle[1] < 0.4:
                return f"one processor works, the other does not; idle: {idle}"
            busy = 0 if share(r, 0, "idle") < share(r, 1, "idle") else 1
            if share(r, busy, "guest") < 0.1:
                return f"a busy processor in guest code: {r['cpus'][busy]['share']}"
            if r["rate"]["helper_syscall"] < 10:
                return f"system calls per second: {r['rate']['helper_syscall']}"
        # What is short is told apart while the VM is watched.
        if not any(share(r, cpu, ("helper_", "slow_path")) for cpu in (0, 1)):
            return "no sample is of a helper or the slow path"
        total = r["total"]
        if not 0 < total["tlb_and_site_bytes"] <= 2 * (8 << 20):
            return f"TLB and site tables: {total['tlb_and_site_bytes']}"
        if not 0 < total["cache_code_bytes"] < total["cache_code_room"] or not total["tlb_fills"]:
            return f"counters: {total}"
        # They count on between the three.
        if not 0.9 < total["blocks"] / sum(c["total"]["blocks"] for c in r["cpus"]) < 1.1:
            return "the processors' blocks are not the VM's"
        text = vm.run("stat", vm.name)
        for word in ("guest code", "idle", "TLB and site tables", "syscall", "2 processors"):
            if word not in text.stdout:
                return f"{word!r} is not in the report: {text.stdout} {text.stderr}"
        return check_quiet(vm)


def ask(vm, ms=None):
    r = vm.ctl("query-stat", *([] if ms is None else [json.dumps({"sample-ms": ms})]))
    return json.loads(r.stdout)


def check_quiet(vm):
    """Nobody asks: no samples. A VM that stands is outside."""
    end = time.monotonic() + TIMEOUT
    while True:
        before = ask(vm)["samples"]
        time.sleep(0.3)
        if ask(vm)["samples"] == before:
            break
        if time.monotonic() > end:
            return "the sampler goes on although nobody asks"
    vm.ctl("stop")
    r = reports(vm)[1]
    if any(share(r, cpu, "outside") != 1 for cpu in (0, 1)):
        return f"a VM that stands: {[c['share'] for c in r['cpus']]}"
    vm.ctl("cont")
    for bad in ('{"sample-ms":-1}', '{"sample-ms":"x"}', '{"sample-ms":3600001}', '{"other":1}', '{"sample-ms":1.5}',
                '{"sample-ms":1,"other":1}'):
        if vm.ctl("query-stat", bad).returncode != 1:
            return f"{bad} is accepted"
    return None


def check_refused():
    with tempfile.TemporaryDirectory() as folder, Vm(folder) as vm:
        for words, message in (((), "needs the name"), (("nobody",), "no VM named"),
                               ((vm.name, "--interval", "0"), "no time"), ((vm.name, "--interval", "x"), "no time"),
                               ((vm.name, "--interval", "nan"), "no time"), ((vm.name, "--count", "0"), "--count"),
                               ((vm.name, "x"), "one word too many")):
            r = vm.run("stat", *words)
            if r.returncode != 2 or message not in r.stderr:
                return f"{words}: status {r.returncode}, {r.stderr!r}"
    return None


WRITER = b"""#!/bin/busybox sh
echo HERE-NOW
while :; do /bin/busybox dd if=/dev/zero of=/tmp/x bs=1M count=4 conv=notrunc 2>/dev/null; done
"""
DIRTY = ["--dirty", "--interval", "0.2", "--count", "5", "--json"]


def picture(path):
    """Width, height and the points of a picture."""
    with open(path, "rb") as f:
        data = f.read()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise AssertionError("no picture")
    parts, at = {}, 8
    while at < len(data):
        n, name = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + n]
        if struct.unpack(">I", data[at + 8 + n:at + 12 + n])[0] != zlib.crc32(name + body):
            raise AssertionError(f"wrong sum of {name}")
        parts[name], at = body, at + 12 + n
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    lines = zlib.decompress(parts[b"IDAT"])
    return width, height, b"".join(lines[y * (width + 1) + 1:(y + 1) * (width + 1)] for y in range(height))


def check_dirty():
    """Rates of a guest that writes, and none of one that stands; nothing else that takes the log meanwhile; the picture."""
    with tempfile.TemporaryDirectory() as folder, Vm(folder, init=WRITER) as vm:
        if not vm.wait_for_console(b"HERE-NOW"):
            return "the guest did not start"
        png = os.path.join(folder, "heat.png")
        r = vm.run("stat", vm.name, *DIRTY, "--png", png)
        if r.returncode:
            return f"status {r.returncode}: {r.stderr}"
        report = json.loads(r.stdout)
        if [s["pages"] for s in report["slots"]] != [128 << 8, 0] or len(report["rounds"]) != 5:
            return f"slots {report['slots']}, {len(report['rounds'])} rounds"
        for x in report["rounds"]:
            if sum(x["heat"]) != sum(x["pages"]) or x["pages"][1]:
                return f"a round does not add up: {x}"
        if max(x["pages"][0] for x in report["rounds"]) < 100:
            return f"the guest has written {[x['pages'] for x in report['rounds']]}"
        width, height, points = picture(png)
        if (width, height) != (512, 20):
            return f"a picture of {width} by {height}"
        for y, x in enumerate(report["rounds"]):
            line = points[y * 4 * width:(y * 4 + 1) * width:2]
            if [p > 0 for p in line] != [h > 0 for h in x["heat"]]:
                return f"round {y} of the picture is another"
        vm.ctl("stop")
        vm.run("stat", vm.name, *DIRTY)
        report = json.loads(vm.run("stat", vm.name, *DIRTY).stdout)
        if any(sum(x["pages"]) for x in report["rounds"]):
            return f"a guest that stands has written {[x['pages'] for x in report['rounds']]}"
        vm.ctl("cont")
        if vm.ctl("measure-dirty", '{"interval-ms":60000,"rounds":2}').returncode:
            return "a measurement is refused"
        for words in (("ctl", vm.name, "measure-dirty", '{"interval-ms":100,"rounds":2}'),
                      ("snapshot", vm.name, os.path.join(folder, "s")), ("stat", vm.name, "--dirty")):
            if vm.run(*words).returncode != 1:
                return f"{words} goes while a measurement does"
        vm.ctl("migrate-cancel")
        for bad in ('{}', '{"interval-ms":100}', '{"interval-ms":1,"rounds":1}', '{"interval-ms":100,"rounds":121}',
                    '{"interval-ms":"x","rounds":1}', '{"interval-ms":100,"rounds":1,"x":1}'):
            if vm.ctl("measure-dirty", bad).returncode != 1:
                return f"{bad} is accepted"
        r = vm.run("snapshot", vm.name, os.path.join(folder, "s"))
        if r.returncode:
            return f"a snapshot after a measurement: {r.stderr}"
        for words in (("--png", png), ("--dirty", "--count", "121"), ("--dirty", "--interval", "61")):
            if vm.run("stat", vm.name, *words).returncode != 2:
                return f"{words} is accepted"
        r = vm.run("stat", vm.name, "--dirty", "--interval", "0.1", "--count", "1", "--png", folder + "/none/x.png")
        return None if r.returncode == 1 and "No such file" in r.stderr else f"a folder that is not there: {r.stderr}"


def mappings(pid):
    """Executable anonymous memory of a process: the code caches."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as f:
        rows = [line.split() for line in f]
    return [tuple(int(x, 16) for x in row[0].split("-")) for row in rows if row[1] == "r-xs" and "/dev/zero" in row]


def check_perf_map():
    """ANYKVM_OPTIONS=perf-map=on: each line is of the code cache, perf finds the names, and no link is followed."""
    with tempfile.TemporaryDirectory() as folder:
        victim = os.path.join(folder, "victim")
        with open(victim, "w", encoding="ascii") as f:
            f.write("untouched")
        with Vm(folder, init=INIT, environment={"ANYKVM_OPTIONS": "perf-map=on"},
                before=lambda: os.symlink(victim, f"/tmp/perf-{os.getpid()}.map")) as vm:
            path = f"/tmp/perf-{vm.process.pid}.map"
            try:
                return look_at_map(vm, path, folder) or (
                    None if open(victim, encoding="ascii").read() == "untouched" else "a link was followed")
            finally:
                os.unlink(path)


def look_at_map(vm, path, folder):
    if not vm.wait_for_console(b"HERE-NOW"):
        return "the guest did not start"
    places = mappings(vm.process.pid)
    with open(path, encoding="ascii") as f:
        lines = f.read().splitlines()[:-1]
    if not places or len(lines) < 1000:
        return f"{len(places)} code caches, {len(lines)} lines"
    kinds = set()
    for line in lines:
        m = re.fullmatch(r"([0-9a-f]+) ([0-9a-f]+) guest_(kernel|user|stubs)_([0-9a-f]+)", line)
        if not m:
            return f"perf does not read {line!r}"
        start, size = int(m[1], 16), int(m[2], 16)
        if not size or not any(lo <= start and start + size <= hi for lo, hi in places):
            return f"{line!r} is not in {places}"
        kinds.add(m[3])
        if (m[3] == "user" and int(m[4], 16) >= 1 << 47) or (m[3] == "kernel" and 1 << 47 <= int(m[4], 16) < 0xffff << 48):
            return f"an address of the wrong half: {line!r}"
    if kinds != {"kernel", "user", "stubs"}:
        return f"kinds of code: {kinds}"
    return look_with_perf(vm, os.path.join(folder, "perf.data"))


def look_with_perf(vm, data):
    if not shutil.which("perf"):
        return None
    r = subprocess.run(["perf", "record", "-e", "cpu-clock", "-o", data, "-p", str(vm.process.pid), "--", "sleep", "0.5"],
                       capture_output=True, check=False)
    if r.returncode:
        return None  # not allowed here
    r = subprocess.run(["perf", "report", "-i", data, "--stdio", "--sort", "symbol"], capture_output=True, text=True,
                       check=False)
    return None if "] guest_" in r.stdout else f"perf knows no name of guest code: {r.stdout[:600]}{r.stderr[:200]}"


guestlib.exit_with([
    ("shares and counters of a guest that works on one of two processors", check_shares),
    ("bad names and options", check_refused),
    ("names of guest code for perf", check_perf_map),
    ("rates of writing, and their picture", check_dirty),
])
