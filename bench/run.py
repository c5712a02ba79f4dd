#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Workloads natively, under anykvm and under QEMU TCG, interleaved in one run: a table, and JSON.
"""usage: bench/run.py ANYKVM [options]

The same static program (bench/gbench.c) runs as a process bound to one processor, and as /init of guests that have the
same kernel and initramfs. All machines stay up; each workload runs on one after the other, so that load of the host
meets all of them, and the medians of --runs rounds are compared. A workload that gives another checksum than the
native run, or ends badly (in QEMU: only reported), makes the exit status 1; a machine that hangs is started anew.

The ratios are to native at the same number of processors (one: bound to one processor of the host, two: free).
"cpu" is the ratio of processor times instead of wall times: it does not see the host's other load."""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile

import benchlib
from benchlib import Failed, Machine

APPEND = "console=ttyS0 quiet panic=-1"
# Percent of the work where a machine is so slow that all of it is a waste of time: (machine, regex, percent).
SCALES = [("tcg", r"jit\.|simd\.", 10), ("tcg", r"fp\.", 25)]


def log(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    """One run of everything: machines by (name, cpus), samples by (workload, cpus, machine)."""

    def __init__(self, args, program, initrd):
        self.args = args
        self.program = program
        self.machines = {}
        self.samples = {}
        self.failures = []
        self.sums = {}
        self.absent = set()
        self.counters = {}
        self.facts = {}
        self.works = self.read_list()
        for cpus in args.cpus:
            self.add_machines(cpus, initrd)

    def read_list(self):
        """(name, flags) of the workloads that --only leaves."""
        done = subprocess.run([self.program, "list"], capture_output=True, text=True, check=True)
        rows = [line.split() for line in done.stdout.splitlines()]
        return [(r[0], set(r[1:])) for r in rows if re.search(self.args.only, r[0])]

    def add_machines(self, cpus, initrd):
        """Native first: its checksum is the right one."""
        args = self.args
        pin = args.pin if cpus == 1 else None
        commands = {"native": [self.program, "serve"]}
        for form in args.forms:
            commands[form] = benchlib.anykvm_command(args.anykvm, form, args.kernel, initrd, APPEND,
                                                     args.mem, cpus)
        if args.tcg:
            commands["tcg"] = benchlib.qemu_command(args.kernel, initrd, APPEND, args.mem, cpus)
        for name, command in commands.items():
            if not command:
                log("bench/run.py: no qemu-system-x86_64: no comparison (tools/deps bench)")
                continue
            machine = Machine(name, command, pin if name == "native" else None)
            if self.boot(machine, cpus):
                self.machines[name, cpus] = machine

    def boot(self, machine, cpus):
        try:
            machine.start(self.args.boot_timeout)
        except Failed as why:
            self.fail("boot", cpus, machine.name, str(why))
            machine.kill()
            return False
        self.facts[f"{machine.name}/{cpus}"] = machine.facts
        log(f"{machine.name}, {cpus} cpu: ready after {machine.facts['ready_s']} s, "
            f"clock {machine.facts.get('clocksource')}")
        return True

    def fail(self, workload, cpus, name, why):
        self.failures.append({"workload": workload, "cpus": cpus, "machine": name, "why": why})
        log(f"FAILED {workload} on {name}, {cpus} cpu: {why}")

    def scale_of(self, name, workload):
        if name == "checked":
            return self.args.checked_scale
        return next((p for m, r, p in SCALES if m == name and re.match(r, workload)), 100)

    def one(self, workload, cpus, name, scale):
        """One measurement; False when there will be no further on this machine."""
        machine = self.machines.get((name, cpus))
        if not machine or not machine.process:
            return
        try:
            got = machine.run(workload, scale, self.args.timeout)
        except Failed as why:
            self.fail(workload, cpus, name, str(why))
            machine.kill()
            if machine.starts > self.args.restarts or not self.boot(machine, cpus):
                log(f"{name}, {cpus} cpu: given up")
            return
        if got is None:
            self.absent.add((workload, cpus, name))
            return
        seconds, checksum, cpu = got
        right = self.sums.setdefault((workload, scale), checksum)
        if checksum != right:
            self.fail(workload, cpus, name, f"checksum {checksum}, native {right}")
            return
        sample = {"s": seconds * 100 / scale, "cpu_s": cpu * 100 / scale}
        if not (name == "native" and scale != 100):
            self.samples.setdefault((workload, cpus, name), []).append(sample)

    def failed_before(self, workload, cpus, name):
        return any(f["workload"] == workload and f["cpus"] == cpus and f["machine"] == name
                   for f in self.failures)

    def round(self, number):
        for workload, flags in self.works:
            for cpus in self.args.cpus:
                if (cpus > 1 and "smp" not in flags) or ("info" in flags and number):
                    continue
                for name in [n for n, c in self.machines if c == cpus]:
                    scale = 100 if "info" in flags else self.scale_of(name, workload)
                    if scale != 100 and (workload, scale) not in self.sums:
                        self.one(workload, cpus, "native", scale)
                    if not self.failed_before(workload, cpus, name):
                        self.one(workload, cpus, name, scale)
            log(f"round {number + 1}: {workload}: {self.short(workload)}")

    def short(self, workload):
        return ", ".join(f"{n}{'' if c == 1 else '/' + str(c)} {s[-1]['s']:.3f}"
                         for (w, c, n), s in self.samples.items() if w == workload)

    def stop(self):
        for (name, cpus), machine in self.machines.items():
            found = machine.stop()
            if found:
                self.counters[f"{name}/{cpus}"] = found

    def rows(self):
        """The results as data."""
        out = []
        for workload, flags in self.works:
            for cpus in self.args.cpus:
                native = self.samples.get((workload, cpus, "native"))
                if not native:
                    continue
                row = {"workload": workload, "class": workload.split(".")[0], "cpus": cpus,
                       "mean": "info" not in flags, "checksum": self.sums[workload, 100],
                       "machines": {}}
                for name in [n for n, c in self.machines if c == cpus]:
                    samples = self.samples.get((workload, cpus, name))
                    if samples:
                        row["machines"][name] = statistic(samples, native,
                                                          self.scale_of(name, workload))
                out.append(row)
        return out


def statistic(samples, native, scale):
    walls = [s["s"] for s in samples]
    median = statistics.median(walls)
    cpu = statistics.median(s["cpu_s"] for s in samples)
    native_cpu = statistics.median(s["cpu_s"] for s in native)
    base = statistics.median(s["s"] for s in native)
    return {"seconds": [round(w, 6) for w in walls], "median_s": round(median, 6),
            "spread": round((max(walls) - min(walls)) / median, 3), "cpu_s": round(cpu, 6),
            "scale": scale, "ratio": round(median / base, 3),
            "cpu_ratio": round(cpu / native_cpu, 3) if native_cpu else None}


def geomean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def means(rows, name, key="ratio"):
    """{class: geometric mean} and "all", over the rows with one processor; "all/2" over those with two."""
    groups = {}
    for row in rows:
        got = row["machines"].get(name)
        if not got or not row["mean"] or not got[key]:
            continue
        if row["cpus"] == 1:
            groups.setdefault(row["class"], []).append(got[key])
        everything = "all" if row["cpus"] == 1 else f"all/{row['cpus']}"
        groups.setdefault(everything, []).append(got[key])
    order = sorted(groups, key=lambda group: group.startswith("all"))
    return {group: round(geomean(groups[group]), 3) for group in order}


def print_means(names, found):
    """Under the columns of the ratios."""
    groups = dict.fromkeys(g for name in names for g in found[name]["wall"])
    for group in sorted(groups, key=lambda g: g.startswith("all")):
        line = f"{'mean ' + group:31}"
        for name in names:
            wall, cpu = (found[name][kind].get(group, 0) for kind in ("wall", "cpu"))
            line += f" |{'':10}{wall:8.2f}{'':5}{cpu:8.2f}"
        print(line)


def print_table(rows, names, found):
    """For people: native, then wall seconds, ratio, spread and ratio of processor times of each."""
    head = f"{'workload':16}{'native s':>10}{'±%':>5}"
    for name in names:
        head += f" |{name + ' s':>10}{'x':>8}{'±%':>5}{'cpu x':>8}"
    print(head)
    for row in rows:
        native = row["machines"]["native"]
        text = row["workload"] + ("" if row["cpus"] == 1 else f"/{row['cpus']}")
        line = f"{text:16}{native['median_s']:10.4f}{native['spread'] * 100:5.0f}"
        for name in names:
            got = row["machines"].get(name)
            if got:
                line += (f" |{got['median_s']:10.4f}{got['ratio']:8.2f}{got['spread'] * 100:5.0f}"
                         f"{got['cpu_ratio'] or 0:8.2f}")
            else:
                line += f" |{'-':>10}{'':>21}"
        print(line)
    print_means(names, found)


def arguments():
    def integers(text):
        return sorted({int(v) for v in text.split(",")})

    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("anykvm")
    parser.add_argument("--only", default="", metavar="REGEX")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--forms", default="fast", help="fast, checked or both, or empty")
    parser.add_argument("--cpus", type=integers, default=[1], help="as in 1,2")
    parser.add_argument("--no-tcg", dest="tcg", action="store_false")
    parser.add_argument("--kernel")
    parser.add_argument("--mem", default="1G")
    parser.add_argument("--pin", type=int, default=max(os.sched_getaffinity(0)),
                        help="the host's processor for native runs")
    parser.add_argument("--checked-scale", type=int, default=5, help="percent of the work in the checked form")
    parser.add_argument("--timeout", type=float, default=180)
    parser.add_argument("--boot-timeout", type=float, default=120)
    parser.add_argument("--restarts", type=int, default=8, help="of a machine that failed")
    parser.add_argument("--output", help="JSON (beside the program: bench/results.json)")
    args = parser.parse_args()
    args.forms = [f for f in args.forms.split(",") if f]
    args.kernel = args.kernel or benchlib.initramfs.kernel(args.anykvm)
    if not args.kernel:
        sys.exit("bench/run.py: no kernel: 'anykvm fetch' says why; or give --kernel")
    return args


def main():
    args = arguments()
    folder = os.path.join(os.path.dirname(os.path.abspath(args.anykvm)), "bench")
    program = benchlib.compile_workloads(folder)
    before = benchlib.host()
    with tempfile.TemporaryDirectory() as scratch:
        initrd = os.path.join(scratch, "initrd")
        benchlib.make_initrd(initrd, program)
        bench = Bench(args, program, initrd)
        try:
            for number in range(args.runs):
                bench.round(number)
        except KeyboardInterrupt:
            log("bench/run.py: interrupted: what there is so far")
        finally:
            bench.stop()
    rows = bench.rows()
    names = list(dict.fromkeys(n for n, _ in bench.machines if n != "native"))
    found = {name: {"wall": means(rows, name), "cpu": means(rows, name, "cpu_ratio")} for name in names}
    print_table(rows, names, found)
    output = args.output or os.path.join(folder, "results.json")
    with open(output + ".new", "w", encoding="utf-8") as f:
        json.dump({"bench": "workloads", "host": before, "load_after": os.getloadavg()[0],
                   "kernel": os.path.basename(args.kernel), "mem": args.mem, "runs": args.runs,
                   "machines": bench.facts, "results": rows, "means": found,
                   "absent": sorted(bench.absent), "failures": bench.failures,
                   "counters": bench.counters}, f, indent=2)
    os.rename(output + ".new", output)
    log(f"bench/run.py: load {before['load']:.1f} at the start, {os.getloadavg()[0]:.1f} at the end; {output}")
    for failure in bench.failures:
        print(f"FAILED {failure['workload']} on {failure['machine']}, {failure['cpus']} cpu: "
              f"{failure['why'][:300]}")
    # A peer that hangs is its own affair; a checksum is never.
    return 1 if any(f["machine"] != "tcg" or f["why"].startswith("checksum") for f in bench.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
