#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# anykvm stat: shares of time that add up and follow what the guest does, counters that rise, bounds, refusals.
"""usage: stat_test.py ANYKVM"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time

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
])
