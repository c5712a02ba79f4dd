#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Boot time, from exec to the first line of /init: anykvm's forms and QEMU TCG, interleaved in one run, as JSON.
"""usage: bench/boot.py ANYKVM [--kernel FILE] [--rounds N] [--mem SIZE] [--only NAME,...] [--timeout S]

All machines get the same kernel, the same initramfs (made here: a static busybox and a script) and the same command line.
Each round boots each machine once; the median of N rounds is reported, and its ratio to QEMU TCG. A machine that does not get to
/init within --timeout is reported as failed, with the end of its console. Names: fast, checked, tcg (QEMU's
default processor, its fastest), tcg-max (all that TCG can model).
Results are data, never a pass or a failure; progress goes to stderr."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import benchlib

MARK = b"bench: /init reached"
INIT = b"""#!/bin/busybox sh
echo 'bench: /init reached'
/bin/busybox poweroff -f
"""
APPEND = "console=ttyS0 panic=-1"


def machines(args, initrd):
    """{name: command} of what can run here."""
    commands = {form: benchlib.anykvm_command(args.anykvm, form, args.kernel, initrd, APPEND, args.mem)
                for form in ("fast", "checked")}
    for name, cpu in (("tcg", "qemu64"), ("tcg-max", "max")):
        command = benchlib.qemu_command(args.kernel, initrd, APPEND, args.mem, cpu=cpu)
        if command:
            commands[name] = command
        else:
            print("bench/boot.py: no qemu-system-x86_64: no comparison (tools/deps bench)", file=sys.stderr)
    if args.only:
        commands = {k: v for k, v in commands.items() if k in args.only.split(",")}
    return commands


def boot(command, timeout):
    """One boot: seconds to the mark (None when it did not come), seconds to the end, status, console, messages."""
    with tempfile.TemporaryFile() as messages:
        start = time.monotonic()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=messages) as process:
            timer = threading.Timer(timeout, process.kill)
            timer.start()
            console, reached = b"", None
            while True:
                piece = os.read(process.stdout.fileno(), 65536)
                if not piece:
                    break
                console += piece
                if reached is None and MARK in console:
                    reached = time.monotonic() - start
            status = process.wait()
            timer.cancel()
        end = time.monotonic() - start
        messages.seek(0)
        return reached, end, status, console, messages.read()


def summary(name, runs, tcg):
    """The row of one machine."""
    good = [r["init"] for r in runs if r["init"] is not None]
    row = {"machine": name, "booted": len(good), "of": len(runs)}
    if good:
        row["init_median_s"] = round(statistics.median(good), 3)
        row["init_min_s"] = round(min(good), 3)
        row["exit_median_s"] = round(statistics.median(r["exit"] for r in runs), 3)
        if tcg:
            row["times_tcg"] = round(statistics.median(good) / tcg, 3)
    if runs[-1]["counters"]:
        row["counters"] = runs[-1]["counters"]
    failures = [r["tail"] for r in runs if r["init"] is None]
    if failures:
        row["console_tail"] = failures[-1]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("anykvm")
    parser.add_argument("--kernel")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mem", default="1G")
    parser.add_argument("--only", default="")
    parser.add_argument("--timeout", type=float, default=300)
    args = parser.parse_args()
    args.kernel = args.kernel or benchlib.initramfs.kernel(args.anykvm)
    if not args.kernel:
        sys.exit("bench/boot.py: no kernel: 'anykvm fetch' says why; or give --kernel")
    if not benchlib.initramfs.busybox():
        sys.exit("bench/boot.py: no busybox: make deps")

    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        initrd = os.path.join(folder, "initrd.gz")
        benchlib.initramfs.make(initrd, INIT)
        for number in range(args.rounds):
            for name, command in machines(args, initrd).items():
                reached, end, status, console, messages = boot(command, args.timeout)
                tail = (console[-400:] + messages[-400:]).decode(errors="replace")
                runs.setdefault(name, []).append(
                    {"init": reached, "exit": end, "status": status, "tail": tail,
                     "counters": benchlib.counters(messages)})
                shown = "failed" if reached is None else f"{reached:.2f} s"
                print(f"round {number + 1}: {name}: {shown}, status {status}", file=sys.stderr)
    good = [r["init"] for r in runs.get("tcg", []) if r["init"] is not None]
    tcg = statistics.median(good) if good else None
    rows = [summary(name, rounds, tcg) for name, rounds in runs.items()]
    print(json.dumps({"bench": "boot", "host": benchlib.host(), "kernel": os.path.basename(args.kernel),
                      "mem": args.mem, "results": rows}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
