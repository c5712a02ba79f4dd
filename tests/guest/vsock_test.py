#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# 'anykvm run --vsock': streams between programs of the guest and of the host, both ways, many, large, slow and refused.
"""usage: vsock_test.py ANYKVM FORM

The guest's side is this file too, run by the guest's python with Debian's driver. Skipped without a kernel."""

import fcntl
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading

TIMEOUT = 120
ECHO, NOBODY, SLOW, BACK, DONE = 1000, 1001, 1002, 2000, 1003
MANY = 100
BIG = 2 << 20


def read_all(s):
    data = b""
    while chunk := s.recv(65536):
        data += chunk
    return data


def exchange(s, data):
    """Send data and the end of it while what comes back is read."""
    sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
    sender.start()
    got = read_all(s)
    sender.join()
    s.close()
    return got


# The guest ---------------------------------------------------------------------------------------------------------

def guest_connect(port):
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    s.settimeout(60)
    s.connect((2, port))
    return s


def guest_echo():
    data = random.Random(1).randbytes(BIG)
    return exchange(guest_connect(ECHO), data) == data


def guest_refused():
    try:
        guest_connect(NOBODY)
    except ConnectionResetError:
        return True
    return False


def guest_many():
    """All are open at once; each has its own bytes."""
    all_of_them = [guest_connect(ECHO) for _ in range(MANY)]
    data = [random.Random(i).randbytes(100 * i + 1) for i in range(MANY)]
    for s, d in zip(all_of_them, data):
        s.sendall(d)
    for s in all_of_them:
        s.shutdown(socket.SHUT_WR)
    return all(read_all(s) == d for s, d in zip(all_of_them, data))


def guest_slow():
    """A host that does not read stops the guest, and what it has not read is not lost."""
    s, sent, block = guest_connect(SLOW), 0, bytes(range(256)) * 16
    s.settimeout(1)
    try:
        while sent < 64 << 20:
            sent += s.send(block[sent % 256:])
    except TimeoutError:
        pass
    if sent >= 64 << 20:
        return False
    s.settimeout(60)
    guest_connect(DONE).close()  # now it reads
    s.shutdown(socket.SHUT_WR)
    return read_all(s) == str(sent).encode()


def guest_abort():
    """Closed with bytes unread: the host sees an end, and no more."""
    s = guest_connect(ECHO)
    s.sendall(b"x" * 1000)
    s.recv(1)
    s.close()
    return True


def guest_back():
    """The host connects, as often as it likes, until it says stop."""
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, BACK))
    listener.listen(32)
    guest_connect(DONE).close()  # it listens
    while True:
        s, _ = listener.accept()
        s.settimeout(60)
        data = read_all(s)
        s.sendall(data)
        s.close()
        if data == b"stop":
            return True


def guest_main():
    with open("/dev/vsock", "rb") as f:
        print("cid", struct.unpack("I", fcntl.ioctl(f, 0x7b9, b"    "))[0])  # IOCTL_VM_SOCKETS_GET_LOCAL_CID
    for test in (guest_echo, guest_refused, guest_many, guest_abort, guest_slow, guest_back):
        print(test.__name__, test(), flush=True)
    return 0


# The host ----------------------------------------------------------------------------------------------------------

def listen(path, serve):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.bind(path)
    s.listen(MANY + 20)

    def loop():
        while True:
            try:
                c, _ = s.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(c,), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()
    return s


def echo(c):
    try:
        while chunk := c.recv(65536):
            c.sendall(chunk)
    except OSError:
        pass
    c.close()


class Slow:
    """Reads nothing until the guest has connected to DONE, then everything, and checks each byte. The second such connection
    says that the guest listens."""

    def __init__(self):
        self.reads, self.guest_listens = threading.Event(), threading.Event()

    def serve(self, c):
        self.reads.wait()
        n, pattern = 0, bytes(range(256)) * 300
        while chunk := c.recv(65536):
            if chunk != pattern[n % 256:n % 256 + len(chunk)]:
                break
            n += len(chunk)
        c.sendall(str(n).encode())
        c.close()

    def done(self, c):
        (self.guest_listens if self.reads.is_set() else self.reads).set()
        c.close()


def host_connect(path, port, data):
    """What comes back from the guest's port; None: it is refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(60)
        s.connect(path)
        # The stream may begin before the answer is there.
        s.sendall(f"CONNECT {port}\n".encode() + data[:10])
        answer = b""
        while not answer.endswith(b"\n"):
            byte = s.recv(1)
            if not byte:
                return None
            answer += byte
        if not answer.startswith(b"OK "):
            return answer
        return exchange(s, data[10:])


def is_cut(path, text):
    """Whether whoever says that to the VM is cut off."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(60)
        s.connect(path)
        try:
            s.sendall(text)
            return s.recv(1) == b""
        except ConnectionError:
            return True


def host_side(path, slow, problems):
    """When the guest listens."""
    slow.guest_listens.wait()
    big = random.Random(5).randbytes(BIG)
    if host_connect(path, BACK, big) != big:
        problems.append("2 MiB to the guest and back are others")
    if host_connect(path, BACK + 1, b"") is not None:
        problems.append("a port that nobody listens at answers")
    for text in (b"HELLO\n", b"CONNECT \n", b"CONNECT x\n", b"CONNECT 99999999999\n", b"CONNECT -1\n",
                 b"CONNECT 4294967295\n", b"\n", b"C" * 10000):
        if not is_cut(path, text):
            problems.append(f"{text[:30]!r} is not refused")
    results = []
    threads = [threading.Thread(target=lambda n=n: results.append(host_connect(path, BACK, b"%d" % n * n) == b"%d" % n * n))
               for n in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if results != [True] * 20:
        problems.append(f"20 connections at once: {results}")
    if host_connect(path, BACK, b"stop") != b"stop":
        problems.append("the guest does not stop")


def test_streams(anykvm, form, folder):
    path = os.path.join(folder, "s")
    slow, problems = Slow(), []
    servers = [listen(f"{path}_{ECHO}", echo), listen(f"{path}_{SLOW}", slow.serve), listen(f"{path}_{DONE}", slow.done)]
    host = threading.Thread(target=host_side, args=(path, slow, problems), daemon=True)
    host.start()
    patience = float(os.environ.get("ANYKVM_PATIENCE", "1"))
    r = subprocess.run([anykvm, "run", "--engine", form, "--vsock", f"77,uds={path}", "--", "python3",
                        os.path.abspath(__file__), "--guest"], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
                       timeout=TIMEOUT * patience, check=False)
    for s in servers:
        s.close()
    wanted = "cid 77\n" + "".join(f"guest_{t} True\n" for t in ("echo", "refused", "many", "abort", "slow", "back"))
    if r.returncode or r.stdout.decode() != wanted:
        return f"status {r.returncode}, {r.stdout.decode()}, {r.stderr[-800:]!r}"
    host.join(10)
    if host.is_alive():
        problems.append("the host's side did not end")
    if os.path.exists(path):
        problems.append("the socket is left behind")
    return "; ".join(problems) or None


def test_refused(anykvm, folder):
    """Options that are wrong; a path that is used; a leftover that is replaced."""
    path = os.path.join(folder, "s")
    in_use = listen(path, echo)
    for text, message in (("2", "no address"), ("x", "no address"), ("4294967295", "no address"), ("", "begins with nothing"),
                          ("3,uds=" + "x" * 96, "path"), ("3,uds=", "uds"), ("3,other=1", "other"),
                          (f"3,uds={path}", "in use"), (f"3,uds={folder}/none/s", "No such file")):
        r = subprocess.run([anykvm, "run", "--vsock", text], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=TIMEOUT, check=False, cwd=folder)
        if r.returncode != 2 or message not in r.stderr:
            return f"--vsock {text}: status {r.returncode}, {r.stderr!r}"
    in_use.shutdown(socket.SHUT_RDWR)
    in_use.close()
    if not os.path.exists(path):
        return "the test needs a socket that is left behind"
    r = subprocess.run([anykvm, "run", "--vsock", f"3,uds={path}", "--", "true"], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd=folder)
    return None if r.returncode == 0 else f"a leftover is not replaced: {r.stderr!r}"


def main():
    if "--guest" in sys.argv:
        return guest_main()
    import guestlib  # the guest's side does without
    anykvm, form = os.path.abspath(sys.argv[1]), sys.argv[2]
    if not guestlib.can_boot(anykvm):
        return 0
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, tempfile.TemporaryDirectory(dir="/var/tmp") as other:
        return guestlib.main([("streams", lambda: test_streams(anykvm, form, folder)),
                              ("options and paths", lambda: test_refused(anykvm, other))])


if __name__ == "__main__":
    sys.exit(main())
