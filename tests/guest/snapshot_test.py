#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Snapshots: the guest goes on from where it was, twice from one file; files that are cut, flipped or foreign are refused.
"""usage: snapshot_test.py ANYKVM REWRITER [FLIPS]"""

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import guestlib
import vmlib
from vmlib import ANYKVM, Vm

REWRITER = sys.argv[2]
FLIPS = int(sys.argv[3]) if len(sys.argv) > 3 else 12
RAM_AT = 2 << 20
MEMORY = 128 << 20
FOLDER = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
SNAP = os.path.join(FOLDER.name, "snap")


def check_take():
    """Snapshots of a running and a stopped guest; it runs on; a failed or cancelled one leaves nothing."""
    with Vm(FOLDER.name, options=["--cpus", "2"]) as vm:
        if not vm.wait_for_console(b"tick 3"):
            return "the guest did not start"
        for _ in range(3):
            run = vm.run("snapshot", "vm1", SNAP, "--json")
            if run.returncode:
                return f"not taken: {run}"
        report = json.loads(run.stdout)
        if report["status"] != "completed" or report["downtime-ms"] <= 0 or not report["rounds"]:
            return f"wrong report: {report}"
        print(f"# stood {report['downtime-ms']:.1f} ms, durable after {report['total-ms']:.1f} ms")
        if not vm.counted():
            return "the guest does not count on"
        bad = vm.run("snapshot", "vm1", os.path.join(FOLDER.name, "no", "such", "folder"))
        if bad.returncode != 1 or "cannot make" not in bad.stderr:
            return f"a folder that is not there: {bad}"
        vm.ctl("stop")
        if vm.run("snapshot", "vm1", SNAP + ".stopped").returncode:
            return "a stopped guest cannot be saved"
        if json.loads(vm.ctl("query-status").stdout)["status"] != "paused":
            return "a stopped guest runs after its snapshot"
        os.unlink(SNAP + ".stopped")
        with subprocess.Popen([ANYKVM, "snapshot", "vm1", SNAP + ".cancelled"], env=vm.env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
            time.sleep(0.01)
            vm.ctl("migrate-cancel")
            p.wait()
        left = [n for n in os.listdir(FOLDER.name) if ".tmp" in n]
        return f"left behind: {left}" if left else None


def check_quiet():
    """A guest that sleeps, whose processors never come out of the device by themselves."""
    quiet = vmlib.INIT.replace(b"i=0\n", b"/bin/busybox sleep 1000\n")
    with tempfile.TemporaryDirectory(dir=FOLDER.name) as folder:
        with Vm(folder, options=["--cpus", "2"], init=quiet) as vm:
            if not vm.wait_for_console(b"HERE-NOW"):
                return "the guest did not start"
            time.sleep(0.5)
            run = vm.run("snapshot", "vm1", os.path.join(folder, "snap"))
            return f"not taken: {run}" if run.returncode else None


def check_restore(options):
    def check():
        numbers = []
        for _ in range(2):
            with Vm(FOLDER.name, name="vm2", restore=SNAP, options=options) as vm:
                if not vm.wait_for_console(b"tick"):
                    return f"the guest does not go on: {vm.process.poll()}"
                ticks = vm.counted()
                if not ticks:
                    return "it does not count"
                numbers.append(ticks[0])
                again = vm.run("snapshot", "vm2", SNAP + ".again")
                if again.returncode:
                    return f"no snapshot of a restored guest: {again}"
            with Vm(FOLDER.name, name="vm2", restore=SNAP + ".again", options=options) as vm:
                if not vm.wait_for_console(b"tick"):
                    return "a snapshot of a restored guest cannot be restored"
        return None if abs(numbers[0] - numbers[1]) < 20 else f"not from where it was: {numbers}"
    return check


def refused(path, why, options=()):
    run = guestlib.Run([ANYKVM, "restore", path] + list(options), 30)
    if run.status != 2 or not run.ended or why not in run.err.decode():
        return f"not refused with '{why}': {run.describe()}"
    return None


def check_damage():
    """Bits flipped and ends cut, everywhere: refused with the place. The rest of the file is as before each time."""
    rng = guestlib.generator()
    bad = SNAP + ".bad"
    shutil.copy(SNAP, bad)
    size = os.path.getsize(bad)
    with open(bad, "r+b") as f:
        f.seek(RAM_AT)
        memory = f.read(MEMORY)
        used = [i for i in range(0, MEMORY, 4096) if memory[i:i + 4096].strip(b"\0")]
        places = [rng.randrange(216) for _ in range(FLIPS // 4)] + [rng.randrange(216, RAM_AT)]
        places += [RAM_AT + rng.choice(used) + rng.randrange(4096) for _ in range(FLIPS // 4)]
        places += [rng.randrange(RAM_AT + MEMORY, size) for _ in range(FLIPS // 2)] + [size - 1]
        for place in places:
            f.seek(place)
            byte = f.read(1)[0]
            f.seek(place)
            f.write(bytes([byte ^ 1 << rng.randrange(8)]))
            f.flush()
            problem = refused(bad, "refused at byte")
            if problem:
                return f"a bit at {place}: {problem}"
            f.seek(place)
            f.write(bytes([byte]))
        f.flush()
        for cut in (0, 1, 16, 4095, 4096, RAM_AT, RAM_AT + 4096, RAM_AT + MEMORY, size - 1):
            shutil.copy(SNAP, bad)
            os.truncate(bad, cut)
            problem = refused(bad, "refused at byte")
            if problem:
                return f"cut at {cut}: {problem}"
        shutil.copy(SNAP, bad)
        with open(bad, "ab") as more:
            more.write(b"x")
    return refused(bad, "goes on after its end")


def check_foreign():
    """Other files, no files, another machine."""
    other = os.path.join(FOLDER.name, "other")
    with open(other, "wb") as f:
        f.write(b"QEVM" + bytes(100000))
    disk = os.path.join(FOLDER.name, "disk")
    with open(disk, "wb") as f:
        f.truncate(1 << 20)
    return (refused(other, "no snapshot of anykvm") or refused(FOLDER.name, "cannot read") or
            refused("/no/such/file", "cannot open") or refused("/dev/null", "ends here") or
            refused(SNAP, "lacks the device virtio-blk", ["--disk", disk]))


def memory_of(path):
    """Memory as a chain of files has it, without the program: parts of the header are sums, roots, held, base."""
    with open(path, "rb") as f:
        f.seek(72)
        parts = [struct.unpack("<QQII", f.read(24)) for _ in range(6)]
        f.seek(RAM_AT)
        memory = bytearray(f.read(MEMORY))
        f.seek(parts[2][0])
        held = f.read(parts[2][1])
        base = f.read(parts[3][1]).decode()
    if held:
        old = memory_of(os.path.join(os.path.dirname(path), os.path.basename(base)))
        for page in range(MEMORY >> 12):
            if not held[page // 8] >> page % 8 & 1:
                memory[page << 12:(page + 1) << 12] = old[page << 12:(page + 1) << 12]
    return memory


def snapshots_take(vm, path):
    """A whole one, two increments while it runs, a third one and again a whole one while it stands; what is refused meanwhile."""
    run = vm.run("snapshot", "vm1", path("whole"), "--base", SNAP)
    if run.returncode != 1 or "is not known; take the base with --follow" not in run.stderr:
        return f"an increment to what is not followed: {run}"
    for name, options in (("whole", ["--follow"]), ("one", ["--base", path("whole")]), ("two", ["--base", path("one")])):
        run = vm.run("snapshot", "vm1", path(name), *options)
        if run.returncode:
            return f"{name} is not taken: {run}"
        vm.ticks(0.5)
    run = vm.run("snapshot", "vm1", path("wrong"), "--base", path("whole"))
    if run.returncode != 1 or "is known since" not in run.stderr or os.path.exists(path("wrong")):
        return f"an increment to an older one: {run}"
    if vm.run("snapshot", "vm1", os.path.join(FOLDER.name, "no", "folder"), "--base", path("two")).returncode != 1:
        return "no folder is no failure"
    vm.ctl("stop")
    for name, options in (("three", ["--base", path("two")]), ("all", [])):
        run = vm.run("snapshot", "vm1", path(name), *options)
        if run.returncode:
            return f"{name} is not taken: {run}"
    return None


def check_increments():
    """A chain has the memory of a whole snapshot, is restored, also from another folder, and refused when a base is not the right one."""
    with tempfile.TemporaryDirectory(dir=FOLDER.name) as folder:
        def path(name, there=folder):
            return os.path.join(there, name)
        with Vm(folder, options=["--cpus", "2"]) as vm:
            if not vm.wait_for_console(b"tick 3"):
                return "the guest did not start"
            problem = snapshots_take(vm, path)
            if problem:
                return problem
        if memory_of(path("three")) != memory_of(path("all")):
            return "the chain has another memory than the whole snapshot"
        sizes = {n: os.stat(path(n)).st_blocks * 512 for n in ("whole", "one", "two", "three")}
        print(f"# bytes: {sizes}")
        if sizes["two"] > sizes["whole"] / 2:
            return f"an increment is as large as all: {sizes}"
        moved = os.path.join(folder, "moved")
        os.mkdir(moved)
        for name in ("whole", "one", "two"):
            os.rename(path(name), path(name, moved))
        for options in ([], ["--lazy"]):
            with Vm(folder, name="vm2", restore=path("two", moved), options=options) as vm:
                if not vm.wait_for_console(b"tick") or not vm.counted():
                    return "it does not go on"
        with open(path("whole", moved), "r+b") as f:
            data = f.read(RAM_AT + MEMORY)
            at = len(data.rstrip(b"\0")) - 1
            f.seek(at)
            f.write(bytes([data[at] ^ 1]))
        problem = refused(path("two", moved), "whole' is refused at byte", ["--lazy"])
        shutil.copy(SNAP, path("whole", moved))
        problem = problem or refused(path("two", moved), "is an increment to another one than")
        os.unlink(path("whole", moved))
        return problem or refused(path("two", moved), "cannot open the snapshot")


def check_restored(options):
    """A restored machine's first increment is to the file that it came from, of what it wrote since; and only with --follow."""
    with tempfile.TemporaryDirectory(dir=FOLDER.name) as folder:
        def path(name):
            return os.path.join(folder, name)
        shutil.copy(SNAP, path("whole"))
        with Vm(folder, name="vm2", restore=path("whole"), options=options) as vm:
            run = vm.wait_for_console(b"tick") and vm.run("snapshot", "vm2", path("one"), "--base", path("whole"))
            if not run or run.returncode != 1 or "is not known" not in run.stderr:
                return f"an increment of what is not followed: {run}"
        with Vm(folder, name="vm2", restore=path("whole"), options=options + ["--follow"]) as vm:
            if not vm.wait_for_console(b"tick"):
                return f"the guest does not go on: {vm.process.poll()}"
            for name, base in (("one", "whole"), ("two", "one")):
                run = vm.run("snapshot", "vm2", path(name), "--base", path(base))
                if run.returncode or not vm.counted():
                    return f"{name} is not taken: {run}"
            vm.ctl("stop")
            for name, more in (("three", ["--base", path("two")]), ("all", [])):
                run = vm.run("snapshot", "vm2", path(name), *more)
                if run.returncode:
                    return f"{name} is not taken: {run}"
        if memory_of(path("three")) != memory_of(path("all")):
            return "the chain has another memory than the whole snapshot"
        if os.stat(path("one")).st_blocks > os.stat(path("whole")).st_blocks / 2:
            return "an increment is as large as all"
        with Vm(folder, name="vm3", restore=path("three"), options=options) as vm:
            return None if vm.wait_for_console(b"tick") and vm.counted() else "the chain does not go on"


def check_lazy_damage():
    """A lazy restore finds a damaged page while the guest runs, and ends it."""
    bad = SNAP + ".bad"
    shutil.copy(SNAP, bad)
    with open(bad, "r+b") as f:
        f.seek(RAM_AT + (MEMORY >> 1))
        data = f.read(MEMORY >> 1)
        at = RAM_AT + (MEMORY >> 1) + len(data.rstrip(b"\0")) - 1
        f.seek(at)
        f.write(bytes([data.rstrip(b"\0")[-1] ^ 1]))
    return refused(bad, "page of memory is damaged", ["--lazy"])


def check_lazy_use():
    """A page that the guest needs at once is damaged: it is refused before the guest has done anything with it."""
    bad = SNAP + ".bad"
    shutil.copy(SNAP, bad)
    with open(bad, "r+b") as f:
        f.seek(RAM_AT)
        memory = f.read(MEMORY)
        for page in range(0, MEMORY, 4096):
            if memory[page:page + 4096].strip(b"\0"):
                f.seek(RAM_AT + page + 8)
                f.write(bytes([memory[page + 8] ^ 1]))
    run = guestlib.Run([ANYKVM, "restore", bad, "--lazy"], 30)
    if run.status != 2 or b"page of memory is damaged" not in run.err or run.out:
        return f"not refused: {run.describe()}"
    return None


def refuse_userfaultfd():
    """In the child: a filter of system calls that gives EPERM for userfaultfd, as those of containers do."""
    code = b"".join(struct.pack("<HBBI", *row) for row in (
        (0x20, 0, 0, 0),            # the number of the call
        (0x15, 0, 1, 323),          # userfaultfd: the next, otherwise the last
        (0x06, 0, 0, 0x50000 | 1),  # EPERM
        (0x06, 0, 0, 0x7fff0000)))  # allow
    rows = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(rows)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):  # NO_NEW_PRIVS, SECCOMP
        os._exit(99)


def check_lazy_refused():
    """Where the host allows no userfaultfd, a warning says so and all is read first: a damaged file before anything runs."""
    bad = SNAP + ".bad"
    with Vm(FOLDER.name, name="vm2", restore=SNAP, options=["--lazy"], before=refuse_userfaultfd) as vm:
        line = vm.process.stderr.readline()
        if b"no lazy restore here (userfaultfd: Operation not permitted)" not in line:
            return f"no warning: {line!r}"
        if not vm.wait_for_console(b"tick") or not vm.counted():
            return "the guest does not go on"
    shutil.copy(SNAP, bad)
    with open(bad, "r+b") as f:
        f.seek(RAM_AT)
        at = RAM_AT + len(f.read(MEMORY).rstrip(b"\0")) - 1
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1]))
    with Vm(FOLDER.name, name="vm2", restore=bad, options=["--lazy"], before=refuse_userfaultfd) as vm:
        out, err = vm.process.communicate(timeout=vmlib.TIMEOUT)
    return None if vm.process.returncode == 2 and b"refused at byte" in err and not out else f"{out[-200:]!r} {err!r}"


REWRITTEN = 48  # MiB


def own_pages(memory):
    """Numbers of the pages that the rewriter has written: no two words alike, which no other page of a small guest is."""
    for page in range(0, MEMORY, 4096):
        if len(set(struct.unpack_from("<512Q", memory, page))) == 512:
            yield page >> 12


def check_lazy_running():
    """A processor that runs already meets a damaged page: the machine ends before the guest has used what it holds."""
    init = b"#!/bin/busybox sh\n/bin/busybox chmod +x /rewriter\nexec /rewriter %d 1 1\n" % REWRITTEN
    with open(REWRITER, "rb") as f:
        program = f.read()
    with tempfile.TemporaryDirectory(dir=FOLDER.name) as folder:
        snap = os.path.join(folder, "snap")
        with Vm(folder, init=init, files=[("rewriter", program)]) as vm:
            if not vm.wait_for_console(b"tick 0 2") or vm.run("snapshot", "vm1", snap).returncode:
                return "the guest does not start, or cannot be saved"
        with open(snap, "r+b") as f:
            f.seek(RAM_AT)
            pages = list(own_pages(f.read(MEMORY)))
            if len(pages) < REWRITTEN * 200:
                return f"{len(pages)} pages are the rewriter's"
            for page in pages:
                f.seek(RAM_AT + page * 4096 + 8)
                byte = f.read(1)[0]
                f.seek(-1, 1)
                f.write(bytes([byte ^ 1]))
        with Vm(folder, name="vm2", restore=snap, options=["--lazy", "-v"]) as vm:
            out, err = vm.process.communicate(timeout=vmlib.TIMEOUT)
        if b"no lazy restore here" in err:
            raise guestlib.Skip("the host allows no userfaultfd")
        if vm.process.returncode != 2 or b"first instruction at" not in err or b"page of memory is damaged" not in err:
            return f"{vm.process.returncode}, {err[-400:]!r}"
        return f"it has used a damaged page: {out[-200:]!r}" if b"BAD" in out or b"tick" in out else None


def check_lazy_first():
    """Restored lazily, the guest begins before its memory is read: the moment of its first instruction is told."""
    with Vm(FOLDER.name, name="vm2", restore=SNAP, options=["--lazy", "-v"]) as vm:
        line = vm.process.stderr.readline()
        if b"no lazy restore here" in line:
            raise guestlib.Skip("the host allows no userfaultfd")
        print(f"# {line.decode().strip()}")
        return None if b"first instruction at" in line and vm.wait_for_console(b"tick") else f"{line!r}"


guestlib.exit_with([
    ("take", check_take),
    ("take of a guest that sleeps", check_quiet),
    ("restore", check_restore([])),
    ("restore lazily", check_restore(["--lazy"])),
    ("increments", check_increments),
    ("an increment to what it was restored from", lambda: check_restored([])),
    ("an increment to what it was restored from lazily", lambda: check_restored(["--lazy"])),
    ("damaged files", check_damage),
    ("foreign files", check_foreign),
    ("a damaged page of a lazy restore", check_lazy_damage),
    ("damaged pages that a lazy restore needs at once", check_lazy_use),
    ("a running guest of a lazy restore meets damaged pages", check_lazy_running),
    ("a lazy restore where userfaultfd is refused", check_lazy_refused),
    ("the first instruction of a lazy restore", check_lazy_first),
])
