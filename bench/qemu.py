#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# QEMU on anykvm against QEMU TCG: the same boot to /init, interleaved in one run, as JSON.
"""usage: bench/qemu.py ANYKVM [--kernel FILE] [--rounds N] [--mem SIZE] [--timeout S]

Same QEMU, machine, kernel and initramfs; only the accelerator differs: "kvm" under `anykvm exec` with -cpu host, TCG with its
default processor ("tcg", its fastest) and with -cpu max. times_tcg below 1 is faster than TCG.
Results are data, never a pass or a failure; progress goes to stderr."""

import argparse
import json
import os
import statistics
import sys
import tempfile

import benchlib
import boot


def machines(args, initrd):
    """{name: command}, or nothing without QEMU."""
    kvm = benchlib.qemu_command(args.kernel, initrd, boot.APPEND, args.mem, cpu="host")
    if not kvm:
        return {}
    kvm[kvm.index("tcg")] = "kvm"
    return {"kvm": [args.anykvm, "exec", "--"] + kvm,
            "tcg": benchlib.qemu_command(args.kernel, initrd, boot.APPEND, args.mem, cpu="qemu64"),
            "tcg-max": benchlib.qemu_command(args.kernel, initrd, boot.APPEND, args.mem, cpu="max")}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("anykvm")
    parser.add_argument("--kernel")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mem", default="512M")
    parser.add_argument("--timeout", type=float, default=120)
    args = parser.parse_args()
    args.kernel = args.kernel or benchlib.initramfs.kernel(args.anykvm)
    if not args.kernel or not benchlib.initramfs.busybox():
        sys.exit("bench/qemu.py: no kernel or no busybox: 'anykvm fetch' says why; make deps")
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        initrd = os.path.join(folder, "initrd.gz")
        benchlib.initramfs.make(initrd, boot.INIT)
        commands = machines(args, initrd)
        if not commands:
            sys.exit("bench/qemu.py: no qemu-system-x86_64 (tools/deps bench)")
        for number in range(args.rounds):
            for name, command in commands.items():
                reached, _, status, console, _ = boot.boot(command, args.timeout)
                times.setdefault(name, []).append(reached)
                shown = f"{reached:.2f} s" if reached else f"failed: {console[-300:]!r}"
                print(f"round {number + 1}: {name}: {shown}, status {status}", file=sys.stderr)
    medians = {name: statistics.median(t for t in all_of if t) for name, all_of in times.items() if any(all_of)}
    rows = [{"machine": name, "booted": sum(t is not None for t in all_of), "of": len(all_of),
             "init_median_s": round(medians[name], 3) if name in medians else None,
             "times_tcg": round(medians[name] / medians["tcg"], 3) if {name, "tcg"} <= set(medians) else None}
            for name, all_of in times.items()]
    print(json.dumps({"bench": "qemu", "host": benchlib.host(), "kernel": os.path.basename(args.kernel),
                      "mem": args.mem, "results": rows}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
