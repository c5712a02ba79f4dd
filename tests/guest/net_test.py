#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# The network of 'anykvm run --net user': DHCP, the host's servers from the guest, the guest's servers through forwards.
"""usage: net_test.py ANYKVM FORM [--long]

No packet leaves the machine. Skipped when there is no kernel and none can be fetched."""

import hashlib
import http.server
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

import guestlib

TIMEOUT = 120


def command(words, folder):
    patience = float(os.environ.get("ANYKVM_PATIENCE", "1"))
    run = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT * patience,
                         check=False)
    return run.returncode, run.stdout, run.stderr


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server(http.server.BaseHTTPRequestHandler):
    """GET gives the data, whatever the path."""

    data = b""

    def do_GET(self):  # noqa: N802
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
        self.wfile.write(self.data)

    def log_message(self, format, *args):  # noqa: A002
        pass


def serve(data):
    handler = type("Handler", (Server,), {"data": data})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def send_all(s, data):
    try:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the reader sees that less came back


def exchange(port, data, deadline):
    """Send data to the guest's server and read until its end; tries again until it listens."""
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
                sender = threading.Thread(target=send_all, args=(s, data))
                sender.start()
                got = b""
                while chunk := s.recv(65536):
                    got += chunk
                sender.join()
            if got:
                return got
        except OSError:
            pass
        time.sleep(0.2)
    return None


def test_both_ways(anykvm, form, folder):
    """4 MiB from a server of the host, and 2 MiB through a forward to a server of the guest and back."""
    down, up = random.Random(3).randbytes(4 << 20), random.Random(4).randbytes(2 << 20)
    server = serve(down)
    port = free_port()
    text = (f"cat /sys/class/net/eth0/address; ip -4 -o addr show eth0 | grep -o 'inet [0-9.]*'; "
            f"ip route | grep -o 'via [0-9.]*'; cat /etc/resolv.conf; "
            f"busybox wget -qO- http://10.0.2.2:{server.server_port}/ | sha256sum; "
            f"busybox nc -l -p 7000 -e cat")
    answers = []
    client = threading.Thread(target=lambda: answers.append(exchange(port, up, time.monotonic() + TIMEOUT)))
    client.start()
    status, out, err = command([anykvm, "run", "--engine", form, "--net",
                                f"user,hostfwd=tcp:127.0.0.1:{port}-:7000,mac=02:00:00:00:00:07", "--",
                                "sh", "-c", text], folder)
    client.join()
    server.shutdown()
    wanted = ("02:00:00:00:00:07\ninet 10.0.2.15\nvia 10.0.2.2\nnameserver 10.0.2.3\n"
              f"{hashlib.sha256(down).hexdigest()}  -\n").encode()
    if status or out != wanted:
        return f"status {status}, wanted {wanted!r}, got {out!r}, {err[-400:]!r}"
    if answers[0] != up:
        return f"through the forward: {len(answers[0] or b'')} bytes of {len(up)} came back, or others"
    return None


def test_restrict(anykvm, form, folder):
    """A restricted network reaches no server of the host."""
    server = serve(b"secret")
    status, out, err = command([anykvm, "run", "--engine", form, "--net", "user,restrict", "--", "sh", "-c",
                                f"timeout 5 busybox wget -T 2 -qO- http://10.0.2.2:{server.server_port}/ || echo none"],
                               folder)
    server.shutdown()
    return None if status == 0 and out == b"none\n" else f"status {status}, {out!r}, {err[-400:]!r}"


def test_two(anykvm, form, folder):
    """Two networks are two interfaces, and UDP goes through."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(1)
        status, out, err = command([anykvm, "run", "--engine", form, "--net", "user", "--net", "user", "--", "bash", "-c",
                                    f"ls /sys/class/net; echo hello > /dev/udp/10.0.2.2/{s.getsockname()[1]}; sleep 1"],
                                   folder)
        try:
            got = s.recv(100)
        except OSError as problem:
            got = repr(problem).encode()
    if status or out != b"eth0\neth1\nlo\n" or got != b"hello\n":
        return f"status {status}, {out!r}, {got!r}, {err[-400:]!r}"
    return None


def test_port_taken(anykvm, form, folder):
    """A port of the host that somebody has is told in one line, and nothing is started."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        status, out, err = command([anykvm, "run", "--engine", form, "--net", f"user,hostfwd={port}-22"], folder)
    if status != 2 or out or len(err.splitlines()) != 1 or str(port).encode() not in err:
        return f"status {status}, {out!r}, {err!r}"
    return None


def test_tap_refused(anykvm, form, folder):
    """A tap device that cannot be had, and a descriptor that is none: one line."""
    for words in ("tap,if=anykvm-none", "tap,fd=0", "tap,fd=987"):
        if words.startswith("tap,if") and os.geteuid() == 0 and os.path.exists("/dev/net/tun"):
            continue
        status, out, err = command([anykvm, "run", "--engine", form, "--net", words], folder)
        if status != 2 or out or len(err.splitlines()) != 1:
            return f"{words}: status {status}, {out!r}, {err!r}"
    return None


def test_tap(anykvm, form, folder):
    """A tap device in a network namespace of the test's own: a download from the host's address."""
    inner = ("ip link set lo up; ip tuntap add tap0 mode tap && ip addr add 10.9.0.1/24 dev tap0 && ip link set tap0 up || "
             "exit 99; (cd {folder} && exec python3 -m http.server --bind 10.9.0.1 8000 >/dev/null 2>&1) & "
             "{anykvm} run --engine {form} --net tap,if=tap0 -- sh -c 'ip addr add 10.9.0.2/24 dev eth0; "
             "busybox wget -qO- http://10.9.0.1:8000/data | sha256sum'; s=$?; kill %1; exit $s")
    data = random.Random(5).randbytes(1 << 20)
    with open(os.path.join(folder, "data"), "wb") as f:
        f.write(data)
    if not os.path.exists("/dev/net/tun") or os.geteuid():
        raise guestlib.Skip("no /dev/net/tun, or not root")
    if subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode:
        raise guestlib.Skip("no network namespace can be made")
    status, out, err = command(["unshare", "-n", "bash", "-mc", inner.format(anykvm=anykvm, form=form, folder=folder)], folder)
    if status == 99:
        raise guestlib.Skip("no tap device can be made: " + err.decode(errors="replace").strip()[-100:])
    if status or out != f"{hashlib.sha256(data).hexdigest()}  -\n".encode():
        return f"status {status}, {out!r}, {err[-400:]!r}"
    return None


def main():
    anykvm, form = os.path.abspath(sys.argv[1]), sys.argv[2]
    if not guestlib.can_boot(anykvm):
        return 0
    tests = []
    long = (test_restrict, test_two, test_tap) if "--long" in sys.argv else ()
    for test in (test_both_ways, test_port_taken, test_tap_refused) + long:
        def one(test=test):
            with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
                return test(anykvm, form, folder)
        tests.append((test.__name__[5:].replace("_", " "), one))
    return guestlib.main(tests)


if __name__ == "__main__":
    sys.exit(main())
