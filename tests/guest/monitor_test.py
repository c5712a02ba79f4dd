#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# The monitor of a running VM: status, stop, go on, end; names that are taken, unknown or bad; hostile clients.
"""usage: monitor_test.py ANYKVM"""

import json
import os
import signal
import subprocess
import tempfile
import time

import guestlib
from vmlib import TIMEOUT, Vm


def say(stream, request):
    stream.write(json.dumps(request).encode() + b"\n")
    return hear(stream)


def hear(stream):
    return json.loads(stream.readline())


def check_stop():
    """stop and cont, status, the guest's silence and its voice, quit."""
    with tempfile.TemporaryDirectory() as folder, Vm(folder) as vm:
        if not vm.wait_for_console(b"HERE-NOW"):
            return "the guest did not start"
        s, stream = vm.connect()
        greeting = hear(stream)
        if "QMP" not in greeting:
            return f"no greeting: {greeting}"
        if say(stream, {"execute": "query-status", "id": [7]}) != {
                "return": {"status": "running", "running": True, "singlestep": False}, "id": [7]}:
            return "wrong status of a running VM"
        for _ in range(20):
            if vm.ctl("stop").returncode or vm.ctl("cont").returncode:
                return "stop or cont is refused"
        if vm.ctl("stop").returncode or vm.ctl("stop").returncode:
            return "stop twice is refused"
        vm.console(0.3)
        if vm.console(0.5):
            return "the guest prints although it is stopped"
        if json.loads(vm.ctl("query-status").stdout)["status"] != "paused":
            return "a stopped VM is not paused"
        vm.ctl("cont")
        if not vm.wait_for_console(b"tick"):
            return "the guest does not go on"
        events = [hear(stream)["event"] for _ in range(43)]
        if events != ["STOP", "RESUME"] * 20 + ["STOP", "STOP", "RESUME"]:
            return f"events: {events}"
        s.close()
        vm.ctl("stop")
        if vm.ctl("quit").returncode or vm.process.wait(TIMEOUT) != 0:
            return "quit does not end a stopped VM with status 0"
        if os.path.exists(vm.path):
            return "the socket is left behind"
    return None


def check_names():
    """Taken, unknown, bad; a socket left by a VM that was killed."""
    with tempfile.TemporaryDirectory() as folder, Vm(folder) as vm:
        if not vm.wait_for_console(b"HERE-NOW"):
            return "the guest did not start"
        second = subprocess.run(vm.command, env=vm.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, timeout=TIMEOUT, check=False)
        if second.returncode != 2 or b"is running" not in second.stderr:
            return f"a taken name: status {second.returncode}, {second.stderr!r}"
        if vm.ctl("query-status").returncode:
            return "the first VM lost its socket to the second"
        unknown = vm.ctl("query-status", name="nobody")
        if unknown.returncode != 2 or "there is no VM named 'nobody'" not in unknown.stderr:
            return f"an unknown name: {unknown}"
        for bad in ("../x", ".hidden", "-x", "a/b", "x" * 49, "", "a b"):
            r = vm.ctl("query-status", name=bad) if bad and bad[0] != "-" else None
            if r and (r.returncode != 2 or "name" not in r.stderr):
                return f"the name {bad!r}: {r}"
        refused = vm.ctl("no-such-command")
        if refused.returncode != 1 or "no-such-command" not in refused.stderr:
            return f"an unknown command: {refused}"
        vm.process.send_signal(signal.SIGKILL)
        vm.process.wait(TIMEOUT)
        if not os.path.exists(vm.path):
            return "the test needs a socket that is left behind"
        if vm.ctl("query-status").returncode != 2:
            return "a stale socket answers"
        with Vm(folder) as again:
            if not again.wait_for_console(b"HERE-NOW") or again.ctl("query-status").returncode:
                return "a stale socket is not replaced"
    return None


BAD_LINES = [
    b"", b"x", b"[]", b"3", b"{}", b'{"execute":3}', b'{"execute":"stop","arguments":[]}', b"\xff\xfe",
    b'{"execute":"stop","arguments":{"x":1}}', b'{"execute":"stop","extra":1}', b'{"execute":"' + b"A" * 3000 + b'"}',
    b'{"execute":"query-status","execute":"stop"}', b"[" * 5000, b'{"execute":"\\u0000"}', b"{" * 60000,
    b'{"execute":"query-status"', b'"execute"', b'{"execute":null}',
]


def check_hostile():
    """Lines that are no request, lines without an end, clients that do not read, too many clients: the VM runs on."""
    rng = guestlib.generator()
    with tempfile.TemporaryDirectory() as folder, Vm(folder) as vm:
        if not vm.wait_for_console(b"HERE-NOW"):
            return "the guest did not start"
        s, stream = vm.connect()
        hear(stream)
        for line in BAD_LINES:
            stream.write(line + b"\n")
            if line and "error" not in hear(stream):
                return f"{line[:60]!r} is no error"
        for _ in range(300):
            line = bytearray(b'{"execute":"query-status","arguments":{},"id":1}')
            for _ in range(rng.randrange(1, 4)):
                line[rng.randrange(len(line))] = rng.choice(b'{}[]",:x1\x00\xff')
            stream.write(bytes(line) + b"\n")
            hear(stream)
        s.close()
        s, stream = vm.connect()
        hear(stream)
        try:
            s.sendall(b"x" * 200000)
            while stream.read(4096):
                pass
        except OSError:
            pass
        s.close()
        s, _ = vm.connect()  # asks and does not read
        s.settimeout(2)
        try:
            for _ in range(50000):
                s.sendall(b'{"execute":"query-commands"}\n')
        except OSError:
            pass
        others = []
        try:
            for _ in range(30):
                others.append(vm.connect()[0])
        except OSError:
            pass  # the queue of those who wait to be refused is full
        for other in others:
            other.close()
        s.close()
        end = time.monotonic() + TIMEOUT
        while vm.ctl("query-status").returncode:
            if time.monotonic() > end:
                return "the monitor is gone"
            time.sleep(0.1)
        if not vm.wait_for_console(b"tick"):
            return "the guest does not run on"
    return None


guestlib.exit_with([
    ("stop, cont, quit", check_stop),
    ("names and stale sockets", check_names),
    ("hostile clients", check_hostile),
])
