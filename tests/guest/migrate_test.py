#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Live migration to and fro with a guest that rewrites its memory; cuts at random bytes; changed streams; strangers; non-convergence.
"""usage: migrate_test.py ANYKVM REWRITER [MIGRATIONS CUTS [LOG [CHANGES]]]

LOG: a file (- for none) to which each migration and each cut is added as a line of JSON; what it holds counts, so that a long run
goes on where it ended."""

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import guestlib
import movelib
from movelib import (FRAME_END, FRAME_ROUND, INIT, LINK, MEMORY, Cutter, Mangler, after_cut, is_alive, is_waiting, migrate,
                     program, source, start, wait_for)
from vmlib import ANYKVM, TIMEOUT, Vm

MIGRATIONS = int(sys.argv[3]) if len(sys.argv) > 3 else 4
CUTS = int(sys.argv[4]) if len(sys.argv) > 4 else 8
LOG = sys.argv[5] if len(sys.argv) > 5 and sys.argv[5] != "-" else None
CHANGES = int(sys.argv[6]) if len(sys.argv) > 6 else 6
BUDGET = 250  # ms of standstill


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


def cut_plan(rng, n):
    """(name, bytes, after which frame, options): half of the cuts in the final round, half of these in the commit exchange."""
    final = ("--downtime", "4000")  # the second round is the last one
    if n % 2:
        return "rounds", rng.randrange(1, 200 << 20), None, ("--max-bandwidth", LINK, "--downtime", "50")
    if n % 4:
        return "last pages", rng.randrange(1, 72 << 20), FRAME_ROUND, final
    return "commit", rng.randrange(0, 72), FRAME_END, final  # three heads of frames


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


def change_plan(rng, n):
    """(where, bytes, after which frame, whether of the source's stream, how, options)"""
    how = (movelib.flipped, movelib.reordered, movelib.replaced)[n % 3]
    final = ("--downtime", "4000")
    if n % 8 == 7:
        return "answers", rng.randrange(0, 60), None, False, how, ("--max-bandwidth", LINK, "--downtime", "50")
    if n % 8 == 3:
        return "commit", rng.randrange(0, 24), FRAME_END, True, how, final
    if n % 2:
        return "rounds", rng.randrange(0, 200 << 20), None, True, how, ("--max-bandwidth", LINK, "--downtime", "50")
    return "last pages and state", rng.randrange(0, 72 << 20), FRAME_ROUND, True, how, final


def one_change(folder, here, n, rng, counts):
    """(who runs in the end, whether something was changed, a message)."""
    where, budget, after, of_source, how, options = change_plan(rng, n)
    for old in (f"{folder}/wire", f"{folder}/changed"):
        if os.path.exists(old):
            os.unlink(old)
    there = start(folder, f"vm{n}-{rng.randrange(1 << 30)}", f"unix:{folder}/wire")
    if not wait_for(lambda: is_waiting(f"{folder}/wire")):
        there.__exit__()
        return here, False, "the target does not wait"
    link = Mangler(f"{folder}/changed", f"{folder}/wire", budget, after, of_source, how, rng)
    run = migrate(here, f"unix:{folder}/changed", *options)
    winner, problem = after_cut(here, there, run)
    what = f"change {n}, {where}, {how.__name__} after {budget} bytes"
    loser = here if winner is there else there
    loser.process.kill()
    _, err = loser.process.communicate()
    if not problem and link.has_cut:
        place = re.search(r"refused at frame \d+: [^\n]+", run.stderr + err.decode(errors="replace"))
        if not place and where != "commit":  # there the target stands, and says why when it is asked
            problem = f"no place and no reason: {run}, {err!r}"
        elif winner is there and where != "commit":
            problem = f"it was taken in: {run}"
        elif where not in ("commit", "answers") and loser.process.returncode != 71:
            problem = f"the target ended with {loser.process.returncode}"
        counts[where, how.__name__] = counts.get((where, how.__name__), 0) + 1
    problem = problem or is_alive(winner)
    return winner, link.has_cut, problem and f"{what}: {problem}"


def check_changes():
    """Bits of the stream are flipped, pieces of it are reordered or replaced: it is refused, and the source goes on."""
    rng = guestlib.generator()
    counts = {}
    if not CHANGES:
        raise guestlib.Skip("none wanted")
    with tempfile.TemporaryDirectory() as folder:
        here = source(folder)
        progress = Progress("changes", CHANGES)
        try:
            while sum(counts.values()) < CHANGES:
                here, _, problem = one_change(folder, here, sum(counts.values()), rng, counts)
                if problem:
                    return problem
                progress.tell(sum(counts.values()))
        finally:
            here.__exit__()
    print("# changes: " + ", ".join(f"{where}: {how} {n}" for (where, how), n in sorted(counts.items())))
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


def check_debugger():
    """A debugger waits at the target: the machine comes, stands for it, is looked at, and goes on when it leaves."""
    gdb = shutil.which("gdb")
    if not gdb:
        raise guestlib.Skip("no gdb")
    with tempfile.TemporaryDirectory() as folder, source(folder) as here:
        place = f"{folder}/gdb"
        with Vm(folder, "vm1", ["--cpus", "2", "--incoming", f"unix:{folder}/wire", "--gdb", f"unix:{place}"], INIT,
                f"{MEMORY}M", files=program()) as there:
            wait_for(lambda: is_waiting(f"{folder}/wire"))
            run = migrate(here, f"unix:{folder}/wire", "--verify")
            if run.returncode or here.process.wait(TIMEOUT):
                return f"it does not move: {run}"
            if b"tick" in there.console(0.5):
                return "it does not stand for the debugger"
            run = guestlib.Run([gdb, "-nx", "-batch", "-ex", "set architecture i386:x86-64", "-ex", f"target remote {place}",
                                "-ex", "info threads", "-ex", "print/x $cr3", "-ex", "x/i $pc", "-ex", "detach"], TIMEOUT)
            if run.status or not re.search(rb"\$1 = 0x[1-9a-f]", run.out) or b"=>" not in run.out:
                return f"gdb: {run.describe()}"
            return is_alive(there)


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
                report = json.loads(run.stdout)
                rounds = report["rounds"]
                print(f"# {len(rounds)} rounds, throttle up to {max(r['throttle'] for r in rounds)}%, standstill "
                      f"{report['downtime-ms']:.1f} ms with a budget of 30 ms")
                if not is_throttled_enough(rounds):
                    return f"no throttling: {rounds}"
                return is_alive(last)


guestlib.exit_with([
    ("to and fro", check_to_and_fro),
    ("cuts", check_cuts),
    ("changed streams", check_changes),
    ("strangers", check_strangers),
    ("a debugger at the target", check_debugger),
    ("convergence", check_convergence),
])
