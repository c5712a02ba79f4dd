#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# virsh migrate --live between two libvirtds, each in a network namespace of its own.
"""usage: libvirt_migrate_test.py ANYKVM REWRITER

Two daemons as in libvirt_test.py. The namespaces are joined by a pair of virtual interfaces; the guest's memory goes through it by
TCP, and virsh, which leads, talks to both daemons by their unix sockets. Skipped where namespaces are not allowed."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

import guestlib
import libvirt_test
from guestlib import initrd
from libvirt_test import NAME, QEMU

ADDRESSES = ("10.77.0.1", "10.77.0.2")
INIT = b"""#!/bin/busybox sh
/bin/busybox chmod +x /rewriter
exec /rewriter 32 2 1
"""


class Namespaces:
    """Two of them, each held by a process that sleeps."""

    def __init__(self):
        self.holders = []
        try:
            for n in range(len(ADDRESSES)):
                # libvirt refuses to migrate to a host of the same name.
                holder = subprocess.Popen(  # pylint: disable=consider-using-with
                    ["unshare", "-n", "-u", "sh", "-c", f"hostname anykvm{n} && exec sleep 1000"])
                self.holders.append(holder)
            self.wait()
            self.inside(0, "ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns",
                        str(self.holders[1].pid))
            for n, address in enumerate(ADDRESSES):
                self.inside(n, "ip", "address", "add", address + "/24", "dev", "wire")
                for device in ("lo", "wire"):
                    self.inside(n, "ip", "link", "set", device, "up")
        except (OSError, subprocess.CalledProcessError, TimeoutError) as refused:
            self.end()
            raise guestlib.Skip(f"no network namespaces here: {refused}") from refused

    def wait(self):
        own = os.readlink("/proc/self/ns/net")
        for holder in self.holders:
            libvirt_test.wait_until("a namespace", lambda h=holder: h.poll() is not None or os.readlink(
                f"/proc/{h.pid}/ns/net") != own, 10)

    def prefix(self, n):
        return ["nsenter", "-t", str(self.holders[n].pid), "-n", "-u"]

    def inside(self, n, *command):
        subprocess.run(self.prefix(n) + list(command), check=True, capture_output=True)

    def end(self):
        for holder in self.holders:
            holder.kill()
            holder.wait()


def ticks(text):
    return [[int(n) for n in re.findall(rb"tick %d (\d+)\r?\n" % thread, text)] for thread in (0, 1)]


def is_well(console):
    """Both threads count on, and no page was wrong."""
    since = len(console.text)

    def counted():
        console.has("")  # reads
        return min(map(len, ticks(console.text[since:]))) >= 2
    libvirt_test.wait_until("the guest counts", counted)
    for found in ticks(console.text[since:]):
        if found != list(range(found[0], found[0] + len(found))) or b"BAD" in console.text:
            return f"the guest is not well: {console.text[-300:]!r}"
    return None


def moved(here, there, to):
    """The guest goes from one daemon to the other."""
    console = libvirt_test.Console(here)
    try:
        problem = is_well(console)
    finally:
        console.end()
    socket = os.path.join(there.env["XDG_RUNTIME_DIR"], "libvirt", "libvirt-sock")
    here.virsh("migrate", "--live", "--undefinesource", "--persistent", NAME, f"qemu+unix:///session?socket={socket}",
               "--migrateuri", f"tcp://{to}:49300")
    if problem or there.state() != "running" or NAME in here.virsh("list", "--all", "--name").split():
        return problem or f"it is {there.state()} there"
    console = libvirt_test.Console(there)
    try:
        return is_well(console)
    finally:
        console.end()


def check(anykvm, rewriter, kernel, folder):
    os.chmod(folder, 0o755)
    spaces, hosts = Namespaces(), []
    try:
        definition = libvirt_test.files_make(anykvm, kernel, folder, INIT, [("rewriter", rewriter)])
        for n in range(2):
            hosts.append(libvirt_test.Host(os.path.join(folder, f"host{n}"), os.path.abspath(anykvm), spaces.prefix(n)))
        hosts[0].virsh("define", definition)
        hosts[0].virsh("start", NAME)
        return moved(hosts[0], hosts[1], ADDRESSES[1]) or moved(hosts[1], hosts[0], ADDRESSES[0])
    except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as e:
        logs = [open(os.path.join(folder, f"host{n}", "log"), "rb").read()[-700:] for n in range(len(hosts))]
        return f"{e}\n{logs}"
    finally:
        for host in hosts:
            host.end()
        spaces.end()


def main():
    anykvm, rewriter = sys.argv[1:3]
    kernel = initrd.kernel(anykvm)
    missing = [n for n in ("virsh", QEMU, "setpriv", "unshare", "nsenter", "ip") if not shutil.which(n)]
    if os.getuid() or missing or not kernel or not initrd.busybox():
        print(f"1..0 # SKIP it needs root for namespaces, and {' '.join(missing) or 'kernel and busybox'} (make deps)")
        return 0
    with open(rewriter, "rb") as f, tempfile.TemporaryDirectory() as folder:
        program = f.read()
        return guestlib.main([("virsh migrate --live, to and back", lambda: check(anykvm, program, kernel, folder))])


if __name__ == "__main__":
    sys.exit(main())
