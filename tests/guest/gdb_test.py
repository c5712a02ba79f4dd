#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# anykvm run --gdb: what gdb does with a small kernel, and what a client that knows no manners does.
"""usage: gdb_test.py ANYKVM FORM FOLDER"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import guestlib

TIMEOUT = 60
SCRIPT = """
set pagination off
set confirm off
set architecture i386:x86-64
target remote {place}
info threads
hbreak long_mode
continue
printf "A %d\\n", $rip == (long)&long_mode
break work
continue
printf "B %d\\n", $rip == (long)&work
x/1xb &work
stepi
printf "C %lx %d\\n", $rax, $rip == (long)&loaded
delete
watch *(int*)&counter
continue
printf "D %d %d\\n", *(int*)&counter, $rip == (long)&counted
continue
printf "E %d\\n", *(int*)&counter
delete
set var *(int*)&counter = 41
hbreak counted
continue
printf "F %d\\n", *(int*)&counter
stepi
printf "G %d\\n", $rbx
set var $rbx = 0x123456789
printf "H %lx %lx %lx %lx\\n", $rbx, $cr0 & 0x80000001, $efer & 0x500, $cr3 == (long)&pml4
stepi
print/x $xmm1
delete
set var *(int*)&finish = 1
detach
"""
WANTED = {"A 1", "B 1", "C 1122334455667788 1", "D 1 1", "E 2", "F 42", "G 42", "H 123456789 80000001 500 1",
          "$1 = 0x1122334455667788"}


def build(folder, source):
    kernel = os.path.join(folder, "kernel.elf")
    subprocess.run(["cc", "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x100000", "-Wl,--build-id=none", "-Wl,-e,start", "-o", kernel,
                    os.path.join(source, "kernel.S")], check=True)
    return kernel


MACHINES = []


def start(anykvm, form, kernel, place, *options):
    MACHINES.append(subprocess.Popen([anykvm, "run", "--engine", form, "--kernel", kernel, "--mem", "64M", "--no-reboot", "--gdb",
                             f"unix:{place}"] + list(options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE))
    return MACHINES[-1]


def finish(machine, status):
    """The machine ends with this status, or a message."""
    try:
        _, err = machine.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        machine.kill()
        machine.communicate()
        return "the machine does not end"
    return None if machine.returncode == status else f"status {machine.returncode}, wanted {status}: {err[-300:]!r}"


def test_gdb(anykvm, form, folder, kernel):
    """Break- and watchpoints, steps, registers and memory, on one of two processors; then the machine runs on to its end."""
    if not shutil.which("gdb"):
        raise guestlib.Skip("no gdb (tools/deps check)")
    place = os.path.join(folder, "gdb")
    script = os.path.join(folder, "script")
    with open(script, "w", encoding="utf-8") as f:
        f.write(SCRIPT.format(place=place))
    machine = start(anykvm, form, kernel, place, "--cpus", "2")
    wait_for(place)
    try:
        gdb = subprocess.run(["gdb", "-nx", "-batch", "-x", script, kernel], stdin=subprocess.DEVNULL, capture_output=True,
                             timeout=TIMEOUT, check=False, text=True)
        output = gdb.stdout + gdb.stderr
    except subprocess.TimeoutExpired as e:
        output = f"{e.stdout}"
    missing = WANTED - set(output.splitlines())
    if missing or "Thread 2" not in output or "0x48" not in output:
        return f"missing {sorted(missing)}: {output[-2500:]}"
    return finish(machine, 32)


def wait_for(place):
    for _ in range(int(TIMEOUT / 0.05)):
        if os.path.exists(place):
            return
        time.sleep(0.05)


class Client:
    """A client of the protocol, which checks checksums and acknowledges."""

    def __init__(self, place):
        wait_for(place)
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        self.s.connect(place)
        self.rest = b""

    def raw(self, data):
        self.s.sendall(data)

    def byte(self):
        if not self.rest:
            self.rest = self.s.recv(65536)
        byte, self.rest = self.rest[:1], self.rest[1:]
        return byte

    def receive(self):
        while self.byte() not in (b"$", b""):
            pass
        data = b""
        while (c := self.byte()) not in (b"#", b""):
            data += c
        told = int(self.byte() + self.byte(), 16)
        assert told == sum(data) % 256, "checksum"
        try:
            self.raw(b"+")
        except OSError:
            pass  # who has answered a detach is gone
        return data.decode(errors="replace")

    def send(self, data):
        data = data if isinstance(data, bytes) else data.encode()
        self.raw(b"$" + data + b"#%02x" % (sum(data) % 256))

    def ask(self, data):
        self.send(data)
        return self.receive()


def symbol(kernel, name):
    lines = subprocess.run(["nm", kernel], capture_output=True, check=True, text=True).stdout.splitlines()
    return next(int(line.split()[0], 16) for line in lines if line.split()[-1] == name)


def test_protocol(anykvm, form, folder, kernel):
    """Packets one by one, good and bad; a break; kill."""
    place = os.path.join(folder, "gdb")
    machine = start(anykvm, form, kernel, place)
    c = Client(place)
    counter, work = symbol(kernel, "counter"), symbol(kernel, "work")
    exchanges = [
        ("?", "T05thread:1;"), ("qAttached", "1"), ("qC", "QC1"), ("qfThreadInfo", "m1"), ("qsThreadInfo", "l"),
        ("T1", "OK"), ("T2", "E03"), ("Hg0", "OK"), ("Hg9", "E16"), ("vNothing", ""), ("!", ""), ("qNothing", ""),
        ("p999", "E16"), ("pffffffffffffffff", "E16"), ("P10=zz", "E16"), ("G00", "E16"), ("m", "E16"), ("m0", "E16"),
        ("m0,ffffffffffffffff", "E16"), ("mffffffffffff0000,4", "E0e"),
        (f"M{counter:x},4:07000000", "OK"), (f"m{counter:x},4", "07000000"), (f"M{counter:x},4:07", "E16"),
        (f"M{counter:x},4:xx000000", "E16"), ("P0=8877665544332211", "OK"), ("p0", "8877665544332211"),
        ("Z9,0,1", ""), ("Z1,", "E16"), ("z1,1234,1", "E02"), ("z0,1234,1", "E02"), ("Z2,1001,4", "E16"), ("Z2,1000,3", "E16"),
        ("Z2,1000,8", "OK"), ("Z2,1000,8", "OK"), ("Z4,2000,1", "OK"), ("Z3,3000,2", "OK"), ("Z1,4000,1", "OK"),
        ("Z1,5000,1", "E1c"), ("z2,1000,8", "OK"), ("Z1,5000,1", "OK"), ("Z0,ffffff00,1", "E0e"), ("vCont;x", "E16"),
        ("vCont;c:7", "E16"), ("vCont?", "vCont;c;C;s;S"), ("qXfer:features:read:target.xml:zz,1", "E16"),
    ]
    for sent, wanted in exchanges:
        got = c.ask(sent)
        if got != wanted:
            return f"{sent}: {got!r}, wanted {wanted!r}"
    c.raw(b"$?#00")
    if c.byte() != b"-":
        return "a wrong checksum is taken"
    if c.ask(b"X%x,2:}\x03}\x04" % counter) != "OK" or c.ask(f"m{counter:x},2") != "2324":
        return "binary memory"
    for at in ("z4,2000,1", "z3,3000,2", "z1,4000,1", "z1,5000,1"):
        c.ask(at)
    xml, part = "", "m"
    while part == "m":
        got = c.ask(f"qXfer:features:read:target.xml:{len(xml):x},400")
        part, xml = got[0], xml + got[1:]
    if not xml.endswith("</target>") or "org.gnu.gdb.i386.sse" not in xml:
        return f"description: {xml[-200:]!r}"
    got = c.ask(f"Z1,{work:x},1"), c.ask("c")
    if got != ("OK", "T05thread:1;hwbreak:;"):
        return f"hardware breakpoint: {got}"
    c.ask(f"z1,{work:x},1")
    if c.ask(f"Z2,{counter:x},4") != "OK" or c.ask("vCont;c") != f"T05thread:1;watch:{counter:x};":
        return "watchpoint"
    c.ask(f"z2,{counter:x},4")
    c.send("c")
    time.sleep(0.2)
    c.raw(b"\x03")
    if (got := c.receive()) != "T02thread:1;":
        return f"break: {got}"
    c.send("k")
    return finish(machine, 0)


def test_gone(anykvm, form, folder, kernel):
    """A client that goes away, or sends what never ends, leaves a machine that runs, and another may come."""
    place = os.path.join(folder, "gdb")
    machine = start(anykvm, form, kernel, place)
    work, done = symbol(kernel, "work"), symbol(kernel, "finish")
    c = Client(place)
    c.ask(f"Z1,{work:x},1")
    c.ask("c")
    c.ask(f"Z0,{work:x},1")
    c.s.close()
    time.sleep(0.3)
    c = Client(place)
    if c.ask(f"m{work:x},1") != "48":
        return "a breakpoint stays behind"
    try:
        c.raw(b"$" + b"m" * 100000)
        c.s.recv(1)
    except OSError:
        pass
    c = Client(place)
    c.ask(f"M{done:x},4:01000000")
    c.ask("D")
    return finish(machine, 32)


def test_places(anykvm, form, folder, kernel):
    """A place that cannot be had is told in one line."""
    taken = os.path.join(folder, "taken")
    with open(taken, "w", encoding="utf-8"):
        pass
    for place in ("", "tcp:", "tcp:x", "tcp:70000", "tcp:nowhere:1", "tcp:8.8.8.8:1", "unix:", f"unix:{taken}", "unix:" + "x" * 200):
        run = guestlib.Run([anykvm, "run", "--engine", form, "--kernel", kernel, "--gdb", place], 20)
        if run.status != 2 or run.out or len(run.err.splitlines()) != 1:
            return f"'{place}': {run.describe()}"
    run = guestlib.Run([anykvm, "run", "--flat", f"{kernel}@0x1000", "--gdb", "tcp:0"], 20)
    return None if run.status == 2 and b"--gdb" in run.err else run.describe()


def main():
    anykvm, form, source = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3]
    tests = []
    with tempfile.TemporaryDirectory() as top:
        kernel = build(top, source)
        for test in (test_gdb, test_protocol, test_gone, test_places):
            def one(test=test):
                try:
                    with tempfile.TemporaryDirectory() as folder:
                        return test(anykvm, form, folder, kernel)
                finally:
                    for machine in MACHINES:
                        if machine.poll() is None:
                            machine.kill()
                            machine.communicate()
            tests.append((test.__name__[5:], one))
        return guestlib.main(tests)


if __name__ == "__main__":
    sys.exit(main())
