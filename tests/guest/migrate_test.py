#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Live migration to and fro with a guest that rewrites its memory; cuts at random bytes; strangers; non-convergence.
"""usage: migrate_test.py ANYKVM [MIGRATIONS CUTS]"""

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import guestlib
from vmlib import ANYKVM, TIMEOUT, Vm

MIGRATIONS = int(sys.argv[2]) if len(sys.argv) > 2 else 4
BASE = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
CUTS = int(sys.argv[3]) if len(sys.argv) > 3 else 8

# Fills a file in memory over and over, and says when it reads back something else.
INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t tmpfs tmpfs /tmp
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox dd if=/dev/urandom of=/seed bs=64k count=16 2>/dev/null
sum=$(/bin/busybox md5sum < /seed)
echo HERE-NOW
i=0
while :; do
	i=$((i+1))
	for n in 1 2 3 4; do { echo $i$n; /bin/busybox cat /seed; } > /tmp/$n; done
	for n in 1 2 3 4; do
		[ "$(/bin/busybox tail -n +2 /tmp/$n | /bin/busybox md5sum)" = "$sum" ] || echo BAD $i $n
		read line < /tmp/$n
		[ "$line" = "$i$n" ] || echo BAD line $i $n
	done
	echo tick $i
done
"""


def start(folder, name, uri=None):
    options = ["--cpus", "2"] + (["--incoming", uri] if uri else [])
    return Vm(folder, name, options, INIT, "192M")


def source(folder):
    """The guest as it counts already: booted once, and restored for each test."""
    base = os.path.join(BASE.name, "base")
    if os.path.exists(base):
        vm = Vm(folder, "vm0", [], INIT, restore=base)
        vm.wait_for_console(b"tick")
        return vm
    vm = start(folder, "vm0")
    if not vm.wait_for_console(b"tick 2") or vm.run("snapshot", "vm0", base).returncode:
        vm.__exit__()
        raise AssertionError("the guest did not start, or cannot be saved")
    return vm


def wait_for(what, seconds=TIMEOUT):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def is_alive(vm):
    """A message unless the guest counts on, without a gap and without a wrong byte."""
    text, end = b"", time.monotonic() + TIMEOUT
    while text.count(b"tick") < 3 and time.monotonic() < end and vm.process.poll() is None:
        text += vm.console(0.05)
    if b"BAD" in text or text.count(b"tick") < 3:
        return f"the guest is not well: {text[-300:]!r}"
    return None


def migrate(vm, uri, *options):
    return vm.run("migrate", vm.name, uri, "--json", *options)


def check_to_and_fro():
    """Each time another process, over unix and tcp, SHA-256 of all memory compared."""
    with tempfile.TemporaryDirectory() as folder:
        port = socket.create_server(("127.0.0.1", 0))
        uris = [f"unix:{folder}/wire", f"tcp:127.0.0.1:{port.getsockname()[1]}"]
        port.close()
        here = source(folder)
        try:
            for n in range(1, MIGRATIONS + 1):
                uri = uris[n % 2]
                there = start(folder, f"vm{n}", uri)
                if not wait_for(lambda: retry(here, uri, ("--verify", "--downtime", "30"))) or retry.last.returncode:
                    there.__exit__()
                    return f"migration {n}: {retry.last}"
                run = retry.last
                report = json.loads(run.stdout)
                if here.process.wait(TIMEOUT) != 0:
                    there.__exit__()
                    return f"migration {n}: the source ended with {here.process.returncode}"
                here.__exit__()
                here = there
                print(f"# migration {n}: {len(report['rounds'])} rounds, {report['total-ms']:.0f} ms, "
                      f"stood {report['downtime-ms']:.1f} ms", flush=True)
                if len(report.get("sha256", "")) != 64:
                    return f"no SHA-256: {report}"
                problem = is_alive(here)
                if problem:
                    return f"after migration {n}: {problem}"
        finally:
            here.__exit__()
    return None


def retry(vm, uri, options):
    """Whether it is done, again while nobody listens there yet."""
    retry.last = migrate(vm, uri, *options)
    return not any(text in retry.last.stderr for text in ("cannot connect", "there is no VM"))


class Cutter(threading.Thread):
    """A proxy that passes so many bytes of both directions together, at first or after the END frame, and then cuts."""

    def __init__(self, path, to, budget, after_end):
        super().__init__(daemon=True)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(1)
        self.to, self.left, self.end_left = to, 1 << 50 if after_end else budget, budget if after_end else None
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
        """Follow the frames of the source up to END: from there on so many bytes."""
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
                    if kind == 9:
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


def check_cuts():
    """The link is cut after a random number of bytes, most times in the commit exchange."""
    rng = guestlib.generator()
    counts = {"moved": 0, "stayed": 0, "stood": 0}
    with tempfile.TemporaryDirectory() as folder:
        here = source(folder)
        try:
            for n in range(1, CUTS + 1):
                after_end = n % 4 != 0
                budget = rng.randrange(0, 90) if after_end else rng.randrange(1, 80 << 20)
                for old in (f"{folder}/wire", f"{folder}/cut"):
                    if os.path.exists(old):
                        os.unlink(old)
                there = start(folder, f"vm{n}", f"unix:{folder}/wire")
                if not wait_for(lambda: os.path.exists(f"{folder}/wire")):
                    return "the target does not wait"
                Cutter(f"{folder}/cut", f"{folder}/wire", budget, after_end)
                run = migrate(here, f"unix:{folder}/cut")
                counts["stood"] += "stands here" in run.stderr
                winner, problem = after_cut(here, there, run)
                if problem:
                    there.__exit__()
                    return f"cut {n}, {budget} bytes{' after END' if after_end else ''}: {problem}"
                counts["moved" if winner is there else "stayed"] += 1
                (here if winner is there else there).__exit__()
                here = winner
                problem = is_alive(here)
                if problem:
                    return f"after cut {n}: {problem}"
        finally:
            here.__exit__()
    print(f"# cuts: {counts}")
    return None


def check_strangers():
    """Streams that are none, machines that do not fit: the target ends with a reason, the source runs on."""
    rng = guestlib.generator()
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{folder}/wire"
        for data in (b"", b"GET / HTTP/1.0\r\n\r\n" * 4, bytes(100), rng.randbytes(5000), b"QEVM" + bytes(50)):
            there = start(folder, "vm1", f"unix:{uri}")
            if not wait_for(lambda: os.path.exists(uri)):
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
            with Vm(folder, "vm1", ["--cpus", "1", "--incoming", f"unix:{uri}"], INIT, "192M") as there:
                wait_for(lambda: os.path.exists(uri))
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
    slow = ("--max-bandwidth", "20M", "--downtime", "1")
    with tempfile.TemporaryDirectory() as folder, source(folder) as here:
        uri = f"unix:{folder}/wire"

        def target(name):
            vm = start(folder, name, uri)
            wait_for(lambda: os.path.exists(f"{folder}/wire"))
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
