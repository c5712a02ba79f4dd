#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Live migration to and fro with a guest that rewrites its memory; cuts at random bytes; strangers; non-convergence.
"""usage: migrate_test.py ANYKVM REWRITER [MIGRATIONS CUTS [LOG]]

LOG: a file to which each migration and each cut is added as a line of JSON; what it holds counts, so that a long run
goes on where it ended."""

import json
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

import guestlib
from vmlib import ANYKVM, TIMEOUT, Vm

REWRITER = sys.argv[2]
MIGRATIONS = int(sys.argv[3]) if len(sys.argv) > 3 else 4
CUTS = int(sys.argv[4]) if len(sys.argv) > 4 else 8
LOG = sys.argv[5] if len(sys.argv) > 5 else None
BASE = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)

MEMORY = 256  # MiB, of which two threads rewrite and check so many without end
WRITTEN = 80
BUDGET = 250  # ms of standstill
LINK = "300M"  # bytes per second of the rounds, so that the guest has time to rewrite its share in each
FRAME_ROUND, FRAME_END = 6, 9

INIT = b"""#!/bin/busybox sh
/bin/busybox chmod +x /rewriter
exec /rewriter %d 2 1
""" % WRITTEN


def program():
    with open(REWRITER, "rb") as f:
        return [("rewriter", f.read())]


def start(folder, name, uri=None):
    options = ["--cpus", "2"] + (["--incoming", uri] if uri else [])
    return Vm(folder, name, options, INIT, f"{MEMORY}M", files=program())


def source(folder):
    """The guest as it counts already: booted once, and restored for each test."""
    base = os.path.join(BASE.name, "base")
    if os.path.exists(base):
        vm = Vm(folder, "vm0", [], INIT, restore=base, files=program())
        vm.wait_for_console(b"tick")
        return vm
    vm = start(folder, "vm0")
    if not vm.wait_for_console(b"tick 1 2") or vm.run("snapshot", "vm0", base).returncode:
        vm.__exit__()
        raise AssertionError("the guest did not start, or cannot be saved")
    return vm


def records(kind):
    """What the log of earlier runs has of these."""
    if not LOG or not os.path.exists(LOG):
        return []
    with open(LOG, encoding="utf-8") as f:
        return [r for r in map(json.loads, f) if r["kind"] == kind]


def record(kind, **values):
    if LOG:
        with open(LOG, "a", encoding="utf-8") as f:
            f.write(json.dumps({"kind": kind, **values}) + "\n")


class Progress:
    """How long each takes in a long run, and how long the rest will."""

    def __init__(self, what, wanted):
        self.what, self.wanted, self.began, self.count = what, wanted, time.monotonic(), 0

    def tell(self, done):
        self.count += 1
        each = (time.monotonic() - self.began) / self.count
        if self.wanted >= 10 and self.count % 10 == 0:
            print(f"# {done} of {self.wanted} {self.what}, {each:.1f} s each, {each * (self.wanted - done) / 60:.0f} min left",
                  flush=True)


def wait_for(what, seconds=TIMEOUT):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def is_alive(vm):
    """A message unless both threads count on, without a gap and without a wrong byte, over all that they rewrite."""
    text, end = b"", time.monotonic() + TIMEOUT

    def counts(thread):
        return [int(n) for n in re.findall(rb"tick %d (\d+)\r?\n" % thread, text)]
    while min(len(counts(0)), len(counts(1))) < 2 and time.monotonic() < end and vm.process.poll() is None:
        text += vm.console(0.05)
    for found in (counts(0), counts(1)):
        if len(found) < 2 or found != list(range(found[0], found[0] + len(found))) or b"BAD" in text:
            return f"the guest is not well: {text[-300:]!r}"
    return None


def migrate(vm, uri, *options):
    return vm.run("migrate", vm.name, uri, "--json", *options)


def is_full(rounds):
    """Three rounds and more, and at least a quarter of memory written anew in each of the first two."""
    return len(rounds) >= 3 and all(r["left-bytes"] >= MEMORY << 18 for r in rounds[:2])


def check_to_and_fro():
    """Each time another process, over unix and tcp, SHA-256 of all memory compared."""
    done = records("migration")
    tried = 0
    if not MIGRATIONS:
        raise guestlib.Skip("none wanted")
    with tempfile.TemporaryDirectory() as folder:
        port = socket.create_server(("127.0.0.1", 0))
        uris = [f"unix:{folder}/wire", f"tcp:127.0.0.1:{port.getsockname()[1]}"]
        port.close()
        here = source(folder)
        progress = Progress("migrations", MIGRATIONS)
        try:
            # On a machine that is busy with something else the guest may be too slow: those do not count.
            while sum(r["full"] for r in done) < MIGRATIONS and tried < 4 * MIGRATIONS:
                n = tried = tried + 1
                uri = uris[n % 2]
                there = start(folder, f"vm{n}", uri)
                options = ("--verify", "--downtime", str(BUDGET), "--max-bandwidth", LINK)
                wait_for(lambda: is_waiting(uri.partition(":")[2]))
                run = migrate(here, uri, *options)
                if run.returncode:
                    there.__exit__()
                    return f"migration {n}: {run}"
                report = json.loads(run.stdout)
                if here.process.wait(TIMEOUT) != 0:
                    there.__exit__()
                    return f"migration {n}: the source ended with {here.process.returncode}"
                here.__exit__()
                here = there
                rounds = report["rounds"]
                row = {"full": is_full(rounds), "rounds": len(rounds), "total-ms": round(report["total-ms"], 1),
                       "downtime-ms": round(report["downtime-ms"], 1), "budget-ms": BUDGET,
                       "of-budget": round(report["downtime-ms"] / BUDGET, 3), "throttle": max(r["throttle"] for r in rounds),
                       "rewritten": [round(r["left-bytes"] / (MEMORY << 20), 2) for r in rounds[:-1]]}
                if MIGRATIONS < 10:
                    print(f"# migration {n}: {row}", flush=True)
                if len(report.get("sha256", "")) != 64:
                    return f"no SHA-256: {report}"
                problem = is_alive(here)
                if problem:
                    return f"after migration {n}: {problem}"
                record("migration", **row)
                done.append(row)
                progress.tell(sum(r["full"] for r in done))
        finally:
            here.__exit__()
    full = [r for r in done if r["full"]]
    print(f"# {len(done)} migrations, {len(full)} of them with 3 rounds and more and a quarter of memory rewritten in the "
          f"first two; rounds {sum(r['rounds'] for r in done)}, longest standstill "
          f"{max(r['downtime-ms'] for r in done)} ms")
    print("# " + standstills(done))
    if not full:
        raise guestlib.Skip("this machine is too busy: the guest was moved, but never rewrote a quarter between rounds")
    return None


def standstills(rows):
    """What part of its budget each took."""
    parts = [r["downtime-ms"] / r.get("budget-ms", BUDGET) for r in rows]
    return (f"standstill of {len(rows)} by budget: {sum(p > 1.2 for p in parts)} above 1.2, median "
            f"{statistics.median(parts):.2f}, longest {max(parts):.2f}")


class Cutter(threading.Thread):
    """A proxy that passes so many bytes of both directions together, at first or after the first frame of a kind, and cuts."""

    def __init__(self, path, to, budget, after=None):
        super().__init__(daemon=True)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(1)
        self.to, self.left, self.end_left = to, 1 << 50 if after else budget, budget if after else None
        self.after, self.has_cut = after, False
        self.head, self.skip = b"", 0
        self.lock = threading.Lock()
        self.start()

    def run(self):
        source, _ = self.server.accept()
        target = socket.socket(socket.AF_UNIX)
        target.connect(self.to)
        pumps = [threading.Thread(target=self.pump, args=pair, daemon=True)
                 for pair in ((source, target, True), (target, source, False))]
        for p in pumps:
            p.start()
        for p in pumps:
            p.join()
        for s in (source, target, self.server):
            s.close()

    def look(self, data):
        """Follow the frames of the source up to the one that is meant: from there on so many bytes."""
        at = 0
        while at < len(data) and self.end_left is not None:
            if self.skip:
                n = min(self.skip, len(data) - at)
                self.skip -= n
            else:
                n = min(24 - len(self.head), len(data) - at)
                self.head += data[at:at + n]
                if len(self.head) == 24:
                    _, kind, _, self.skip = struct.unpack("<4I", self.head[:16])
                    self.head = b""
                    if kind == self.after:
                        self.left, self.end_left = at + n + self.skip + self.end_left, None
            at += n

    def pump(self, one, other, from_source):
        try:
            while True:
                data = one.recv(65536)
                if not data:
                    break
                with self.lock:
                    if from_source:
                        self.look(data)
                    data = data[:self.left]
                    self.left -= len(data)
                other.sendall(data)
                if not self.left:
                    self.has_cut = True
                    break
        except OSError:
            pass
        for s in (one, other):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def status(vm):
    run = vm.ctl("query-status")
    return json.loads(run.stdout) if run.returncode == 0 else None


def after_cut(here, there, run):
    """Exactly one side runs, or one or both stand and are resolved; (the side that runs, a message)."""
    wait_for(lambda: there.process.poll() is not None or
             (status(there) or {}).get("status") in ("running", "postmigrate"), 30)
    states = [status(v) if v.process.poll() is None else None for v in (here, there)]
    running = [v for v, s in zip((here, there), states) if s and s["running"]]
    if len(running) > 1:
        return None, "both sides run"
    if run.returncode == 0 and running != [there]:
        return None, f"it says that it moved, and there it is {states[1]}"
    if running == [there]:
        if states[0]:  # stands, unresolved: it runs there
            if states[0]["status"] != "postmigrate" or "stands here" not in run.stderr:
                return None, f"the source is {states[0]}: {run}"
            if here.run("migrate", here.name, "--resolve", "discard").returncode:
                return None, "the source cannot be discarded"
            here.process.wait(TIMEOUT)
        return there, None
    if running == [here]:
        if states[1] and there.run("migrate", there.name, "--resolve", "discard").returncode:
            return None, f"a target that stands cannot be discarded: {states[1]}"
        return here, None
    # Both stand, or the source stands alone.
    if not states[0] or states[0]["status"] != "postmigrate":
        return None, f"nobody runs: {states}, {run}"
    if states[1]:
        winner, loser = (there, here) if after_cut.turn % 2 else (here, there)
        after_cut.turn += 1
        if loser.run("migrate", loser.name, "--resolve", "discard").returncode:
            return None, "cannot discard"
        loser.process.wait(TIMEOUT)
    else:
        winner = here
    if winner.run("migrate", winner.name, "--resolve", "run").returncode:
        return None, f"cannot resolve {winner.name}"
    return winner, None


after_cut.turn = 0


def cut_plan(rng, n):
    """(name, bytes, after which frame, options): half of the cuts in the final round, half of these in the commit exchange."""
    final = ("--downtime", "4000")  # the second round is the last one
    if n % 2:
        return "rounds", rng.randrange(1, 200 << 20), None, ("--max-bandwidth", LINK, "--downtime", "50")
    if n % 4:
        return "last pages", rng.randrange(1, 72 << 20), FRAME_ROUND, final
    return "commit", rng.randrange(0, 72), FRAME_END, final  # three heads of frames


def is_waiting(place):
    """A socket at that path, or at HOST:PORT, is listened at: there is a moment in which it only exists."""
    if not place.startswith("/"):
        port = int(place.rpartition(":")[2])
        with open("/proc/net/tcp", encoding="utf-8") as f:
            rows = [line.split() for line in f]
        return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows[1:])
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as f:
        rows = [line.split() for line in f]
    return any(len(row) == 8 and row[7] == place and int(row[3], 16) & 0x10000 for row in rows[1:])


def one_cut(folder, here, n, rng, counts):
    """(who runs in the end, whether there was a cut, a message)."""
    where, budget, after, options = cut_plan(rng, n)
    for old in (f"{folder}/wire", f"{folder}/cut"):
        if os.path.exists(old):
            os.unlink(old)
    there = start(folder, f"vm{n}-{rng.randrange(1 << 30)}", f"unix:{folder}/wire")
    if not wait_for(lambda: is_waiting(f"{folder}/wire")):
        there.__exit__()
        return here, False, "the target does not wait"
    cutter = Cutter(f"{folder}/cut", f"{folder}/wire", budget, after)
    run = migrate(here, f"unix:{folder}/cut", *options)
    if run.returncode not in (0, 1):
        there.__exit__()
        return here, False, f"cut {n}: {run}"
    winner, problem = after_cut(here, there, run)
    if problem:
        there.__exit__()
        return here, False, f"cut {n}, {where}, {budget} bytes: {problem}"
    outcome = "stood" if "stands here" in run.stderr else "moved" if winner is there else "stayed"
    if cutter.has_cut:
        counts[where, outcome] = counts.get((where, outcome), 0) + 1
    (here if winner is there else there).__exit__()
    problem = is_alive(winner)
    if not problem and cutter.has_cut:
        record("cut", where=where, outcome=outcome, bytes=budget)
    return winner, cutter.has_cut, problem and f"after cut {n}, {where}: {problem}"


def check_cuts():
    """The link is cut after a random number of bytes."""
    rng = guestlib.generator()
    counts = {}
    if not CUTS:
        raise guestlib.Skip("none wanted")
    for r in records("cut"):
        counts[r["where"], r["outcome"]] = counts.get((r["where"], r["outcome"]), 0) + 1
    rng.seed(guestlib.seed() + sum(counts.values()))
    with tempfile.TemporaryDirectory() as folder:
        here = source(folder)
        progress = Progress("cuts", CUTS)
        try:
            while sum(counts.values()) < CUTS:
                n = sum(counts.values()) + 1
                cut = False
                while not cut:  # it may be over before so many bytes
                    here, cut, problem = one_cut(folder, here, n, rng, counts)
                    if problem:
                        return problem
                progress.tell(sum(counts.values()))
        finally:
            here.__exit__()
    print("# cuts: " + ", ".join(f"{where}: {outcome} {n}" for (where, outcome), n in sorted(counts.items())))
    return None


def check_strangers():
    """Streams that are none, machines that do not fit: the target ends with a reason, the source runs on."""
    rng = guestlib.generator()
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{folder}/wire"
        for data in (b"", b"GET / HTTP/1.0\r\n\r\n" * 4, bytes(100), rng.randbytes(5000), b"QEVM" + bytes(50)):
            there = start(folder, "vm1", f"unix:{uri}")
            if not wait_for(lambda: is_waiting(uri)):
                return "the target does not wait"
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(uri)
                s.sendall(data)
            try:
                _, err = there.process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                there.__exit__()
                return f"{data[:20]!r} does not end it"
            if there.process.returncode != 71 or not (b"refused at frame" in err or b"cut" in err):
                return f"{data[:20]!r}: {there.process.returncode}, {err!r}"
        with source(folder) as here:
            if here.run("migrate", "vm0", "unix:/no/such/place").returncode != 1:
                return "nobody there is no failure"
            with Vm(folder, "vm1", ["--cpus", "1", "--incoming", f"unix:{uri}"], INIT, f"{MEMORY}M", files=program()) as there:
                wait_for(lambda: is_waiting(uri))
                run = here.run("migrate", "vm0", f"unix:{uri}")
                if run.returncode != 1 or "--cpus 2" not in run.stderr or there.process.wait(TIMEOUT) != 71:
                    return f"another machine: {run}"
            return is_alive(here)


def is_throttled_enough(rounds):
    """Whether no two rounds in a row left 70 % of what they sent without a throttle in the next."""
    stuck = 0
    for r in rounds[1:]:
        if stuck >= 2 and not r["throttle"]:
            return False
        stuck = stuck + 1 if r["left-bytes"] > 0.7 * 4096 * (r["pages"] - r["zero-pages"]) else 0
    return True


def check_convergence():
    """A link slower than the guest writes: a timeout cancels, force ends it, throttling makes it fit; cancel works."""
    slow = ("--max-bandwidth", "60M", "--downtime", "30")
    with tempfile.TemporaryDirectory() as folder, source(folder) as here:
        uri = f"unix:{folder}/wire"

        def target(name):
            vm = start(folder, name, uri)
            wait_for(lambda: is_waiting(f"{folder}/wire"))
            return vm
        with target("vm1") as there:
            run = migrate(here, uri, "--timeout", "1", *slow)
            if run.returncode != 1 or "does not converge" not in run.stderr or there.process.wait(TIMEOUT) != 71:
                return f"a timeout does not cancel: {run}"
        with target("vm2") as there:
            with subprocess.Popen([ANYKVM, "migrate", "vm0", uri, "--max-bandwidth", "10M"], env=here.env,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as p:
                time.sleep(1.5)
                p.terminate()
                _, err = p.communicate(timeout=TIMEOUT)
            if p.returncode != 1 or b"cancelled" not in err or there.process.wait(TIMEOUT) != 71:
                return f"not cancelled: {p.returncode} {err!r}"
        problem = is_alive(here)
        if problem:
            return problem
        with target("vm3") as there:
            run = migrate(here, uri, "--timeout", "1", "--timeout-do", "force", *slow)
            problem = f"not forced: {run}" if run.returncode else is_alive(there)
            if problem:
                return problem
            with target("vm4") as last:
                run = migrate(there, uri, *slow)
                if run.returncode:
                    return f"it does not converge: {run}"
                rounds = json.loads(run.stdout)["rounds"]
                print(f"# {len(rounds)} rounds, throttle up to {max(r['throttle'] for r in rounds)}%")
                if not is_throttled_enough(rounds):
                    return f"no throttling: {rounds}"
                return is_alive(last)


guestlib.exit_with([
    ("to and fro", check_to_and_fro),
    ("cuts", check_cuts),
    ("strangers", check_strangers),
    ("convergence", check_convergence),
])
