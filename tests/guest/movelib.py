# SPDX-License-Identifier: MIT OR Apache-2.0
# What the tests of migration share: a guest that rewrites its memory, and links that are cut or that change what they carry.
"""The arguments of the test: the program, and rewriter."""

import json
import os
import re
import socket
import struct
import sys
import tempfile
import threading
import time

from vmlib import TIMEOUT, Vm

REWRITER = sys.argv[2]
BASE = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)

MEMORY = 256  # MiB, of which two threads rewrite and check so many without end
WRITTEN = 80
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
    problem = None if vm.wait_for_console(b"tick 1 2") else f"the guest does not start: {vm.process.poll()}"
    run = None if problem else vm.run("snapshot", "vm0", base)
    if run and run.returncode:
        problem = f"it cannot be saved: {run}"
    if problem:
        vm.__exit__()
        raise AssertionError(problem)
    return vm


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

    def carry(self, data, _from_source):
        """What is passed on of these bytes, and whether there will be more."""
        data = data[:self.left]
        self.left -= len(data)
        self.has_cut = not self.left
        return data, not self.has_cut

    def pump(self, one, other, from_source):
        try:
            while True:
                data = one.recv(65536)
                if not data:
                    break
                with self.lock:
                    if from_source:
                        self.look(data)
                    data, goes_on = self.carry(data, from_source)
                other.sendall(data)
                if not goes_on:
                    break
        except OSError:
            pass
        for s in (one, other):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def flipped(data, rng):
    """One bit of the first bytes is another one."""
    at = rng.randrange(min(len(data), 4096))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]


def reordered(data, rng):
    """Two pieces that follow each other change places; a bit is flipped where that changes nothing."""
    size = rng.randrange(1, 4097)
    swapped = data[size:2 * size] + data[:size] + data[2 * size:]
    return swapped if swapped != data else flipped(data, rng)


def replaced(data, rng):
    """Some bytes are others."""
    size = min(len(data), rng.randrange(1, 4097))
    other = rng.randbytes(size) + data[size:]
    return other if other != data else flipped(data, rng)


class Mangler(Cutter):
    """Passes everything on, but changes what follows so many bytes of one direction: once, and by @how."""

    def __init__(self, path, to, budget, after, of_source, how, rng):
        self.of_source, self.how, self.rng = of_source, how, rng
        super().__init__(path, to, budget, after)

    def carry(self, data, from_source):
        if from_source != self.of_source or self.has_cut:
            return data, True
        if len(data) <= self.left:
            self.left -= len(data)
            return data, True
        self.has_cut = True
        return data[:self.left] + self.how(data[self.left:], self.rng), True


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
