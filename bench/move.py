#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Migration and snapshots in numbers: how long the guest stands, how long it all takes; QEMU TCG moving the same guest beside.
"""usage: bench/move.py ANYKVM [--mem MIB] [--filled MIB] [--tries N] [--no-qemu]

A guest that writes 256 pages (1 MiB) a second and prints a line every 10 ms is sent to another process with a budget of 10 ms,
saved to a file in memory, and restored from it. The least of N tries. Results are data, never a pass or a failure."""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

import benchlib
import initrd  # found by benchlib

BUDGET = 10
INIT = b"""#!/bin/busybox sh
/bin/busybox chmod +x /steady
exec /steady %d 256
"""
HERE = os.path.dirname(os.path.abspath(__file__))


class Guest:
    """A machine whose console is a pipe."""

    def __init__(self, command, env):
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=env)
        self.text = b""

    def until(self, mark):
        """Seconds from the start until the console has the mark."""
        while mark not in self.text:
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                sys.exit(f"bench/move.py: a guest ended: {self.process.stderr.read()[-500:]!r}")
            self.text += piece
        return time.monotonic() - self.began

    def end(self):
        self.process.kill()
        self.process.communicate()


class Anykvm:
    """Everything that is done with anykvm, in one folder."""

    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.env = dict(os.environ, XDG_RUNTIME_DIR=folder)
        self.image = os.path.join(folder, "initrd.gz")
        self.kernel = initrd.kernel(args.anykvm)

    def run(self, name, *options):
        return Guest([self.args.anykvm, "run", "--kernel", self.kernel, "--initrd", self.image, "--append",
                      "console=ttyS0 quiet", "--mem", f"{self.args.mem}M", "--name", name, *options], self.env)

    def verb(self, *words):
        done = subprocess.run([self.args.anykvm, *words], env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"bench/move.py: {words}: {done.stderr}")
        return json.loads(done.stdout)

    def migrate(self):
        wire = os.path.join(self.folder, "wire")
        here = self.run("here")
        here.until(b"tick 20")
        there = self.run("there", "--incoming", f"unix:{wire}")
        while not os.path.exists(wire):
            time.sleep(0.01)
        report = self.verb("migrate", "here", f"unix:{wire}", "--json", "--downtime", str(BUDGET))
        here.process.wait()
        there.until(b"tick")
        there.end()
        return report

    def snapshot(self):
        path = os.path.join(self.folder, "snapshot")
        here = self.run("here")
        here.until(b"tick 20")
        report = self.verb("snapshot", "here", path, "--json")
        here.end()
        seconds = []
        for lazy in (["--lazy"], []):
            guest = Guest([self.args.anykvm, "restore", path, "-v", "--name", "there"] + lazy, self.env)
            seconds.append(guest.until(b"tick"))
            guest.process.kill()
            text = guest.process.communicate()[1].decode()
            first = re.search(r"first instruction at ([0-9.]+) s .*, ([0-9.]+) ms after main", text)
            seconds.append(float(first[1]) - guest.began)
            seconds.append(float(first[2]) / 1000)
        return report, seconds


def qmp(path, *commands):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        f = s.makefile("rwb", buffering=0)
        f.readline()
        answer = None
        for command in ({"execute": "qmp_capabilities"}, *commands):
            f.write(json.dumps(command).encode() + b"\n")
            answer = json.loads(f.readline())
            while "event" in answer:
                answer = json.loads(f.readline())
        return answer["return"]


def qemu_migrate(args, folder, kernel, image):
    """total ms, downtime ms of QEMU TCG, or None."""
    command = benchlib.qemu_command(kernel, image, "console=ttyS0 quiet", f"{args.mem}M")
    if not command or args.no_qemu:
        return None
    wire = os.path.join(folder, "qemu-wire")
    guests = []
    for name, more in (("a", []), ("b", ["-incoming", f"unix:{wire}"])):
        guests.append(Guest(command + ["-qmp", f"unix:{folder}/qmp-{name},server=on,wait=off"] + more, None))
        if name == "a":
            guests[0].until(b"tick 20")
    while not os.path.exists(f"{folder}/qmp-b") or not os.path.exists(wire):
        time.sleep(0.05)
    qmp(f"{folder}/qmp-a",
        {"execute": "migrate-set-parameters", "arguments": {"downtime-limit": BUDGET, "max-bandwidth": 0}},
        {"execute": "migrate", "arguments": {"uri": f"unix:{wire}"}})
    end = time.monotonic() + 60
    info = {}
    while info.get("status") not in ("completed", "failed") and time.monotonic() < end:
        time.sleep(0.05)
        info = qmp(f"{folder}/qmp-a", {"execute": "query-migrate"})
    for g in guests:
        g.end()
    return (info["total-time"], info["downtime"]) if info.get("status") == "completed" else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("anykvm")
    parser.add_argument("--mem", type=int, default=1024)
    parser.add_argument("--filled", type=int, default=128)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--no-qemu", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        program = os.path.join(folder, "steady")
        subprocess.run(["cc", "-O2", "-static", "-o", program, os.path.join(HERE, "steady.c")], check=True)
        machine = Anykvm(args, folder)
        with open(program, "rb") as f:
            initrd.make(machine.image, INIT % args.filled, [("steady", f.read())])
        moves = [machine.migrate() for _ in range(args.tries)]
        saves = [machine.snapshot() for _ in range(args.tries)]
        rows = [("migration, total", min(m["total-ms"] for m in moves), "<= 400"),
                ("migration, the guest stands", min(m["downtime-ms"] for m in moves), f"<= {BUDGET}"),
                ("  sent", min(m["bytes"] for m in moves) / 1048576, "MiB"),
                ("snapshot, the guest stands", min(s["downtime-ms"] for s, _ in saves), "<= 20"),
                ("snapshot, until it is durable", min(s["total-ms"] for s, _ in saves), ""),
                ("lazy restore, main() to first instruction", 1000 * min(t[2] for _, t in saves), "<= 10"),
                ("  from fork() and exec()", 1000 * min(t[1] for _, t in saves), ""),
                ("  to the guest's next line", 1000 * min(t[0] for _, t in saves), ""),
                ("whole restore, main() to first instruction", 1000 * min(t[5] for _, t in saves), "")]
        peer = qemu_migrate(args, folder, machine.kernel, machine.image)
        if peer:
            rows += [("QEMU TCG: migration, total", peer[0], ""), ("QEMU TCG: the guest stands", peer[1], "")]
        for name, value, target in rows:
            print(f"{name:46} {value:10.1f} {'' if target == 'MiB' else 'ms '}{target}")
        print(json.dumps({"bench": "move", "mem": args.mem, "filled": args.filled,
                          **{name.strip(): round(value, 2) for name, value, _ in rows}}))


main()
