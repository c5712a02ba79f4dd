#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Programs that know nothing of KVM print the same with the preload library as without.
"""usage: strangers_test.py ANYKVM LIBRARY"""

import os
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guest"))
import guestlib  # noqa: E402

JOBS = r"""
set -m
sleep 0.2 & sleep 0.1 & wait
trap 'echo usr1' USR1; kill -USR1 $$
(trap 'echo bye' EXIT; exit 3); echo $?
sleep 10 & kill -STOP %1; kill -CONT %1; kill %1; wait %1; echo $?
exec 7>/dev/null; exec 8>&7; exec 7>&-; echo x >&8; echo done
"""

PYTHON = r"""
import os, signal, subprocess, threading, multiprocessing, tempfile, socket, select, ctypes
assert subprocess.run(["sh", "-c", "echo hi; exit 4"], capture_output=True).returncode == 4
assert subprocess.run(["true"], close_fds=True, restore_signals=True).returncode == 0
got = []
signal.signal(signal.SIGUSR1, lambda s, f: got.append(s))
os.kill(os.getpid(), signal.SIGUSR1); assert got == [signal.SIGUSR1]
assert signal.getsignal(signal.SIGUSR1) is not None
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGSEGV})
assert signal.SIGSEGV in signal.pthread_sigmask(signal.SIG_BLOCK, set())
os.kill(os.getpid(), signal.SIGUSR2); assert signal.sigwait({signal.SIGUSR2}) == signal.SIGUSR2
signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.signal(signal.SIGALRM, lambda s, f: got.append(s))
a, b = socket.socketpair(); fd = os.dup(a.fileno()); os.dup2(fd, 50); os.close(50); os.close(fd)
with tempfile.TemporaryFile() as f:
    f.write(b"x" * 100); f.flush(); assert os.fstat(f.fileno()).st_size == 100
try:
    os.open("/nonexistent", os.O_RDONLY)
except FileNotFoundError:
    pass
t = threading.Thread(target=lambda: None); t.start(); t.join()
pid = os.fork()
if not pid:
    os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
print("fine", sorted(os.listdir("/"))[0])
"""

C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <setjmp.h>
static sigjmp_buf j;
static void h(int s) { siglongjmp(j, s); }
int main(void)
{
	signal(SIGSEGV, h);
	int s = sigsetjmp(j, 1);
	if (!s) *(volatile int *)8 = 1;
	printf("caught %d, system %d\n", s, system("exit 3") >> 8);
	return 0;
}
"""


def compare(command, library, folder):
    runs = [guestlib.Run(command, 120, env=env)
            for env in ({"HOME": folder}, {"HOME": folder, "LD_PRELOAD": library})]
    plain, ours = ((r.status, r.out, r.err) for r in runs)
    if plain != ours:
        return f"without: {runs[0].describe()}\nwith: {runs[1].describe()}"
    return None


def commands(folder):
    source, program = os.path.join(folder, "a.c"), os.path.join(folder, "a")
    with open(source, "w", encoding="utf-8") as f:
        f.write(C)
    with open(os.path.join(folder, "data"), "wb") as f:
        f.write(bytes(range(256)) * 4000)
    data = os.path.join(folder, "data")
    yield "ls", ["ls", "-la", "/dev/null", "/usr"]
    yield "cat of a missing file", ["cat", "/nonexistent"]
    yield "stat of a missing /dev/kvmx", ["stat", "/dev/kvmx"]
    yield "sort and checksums", ["sh", "-c", f"od -An -tx1 {data} | sort | sha256sum; cp {data} {data}2; cmp {data} {data}2"]
    yield "dd, tar, gzip", ["sh", "-c", f"cd {folder}; tar cf - data | gzip -n | gzip -d | tar tvf -; dd if=data bs=7 count=9 status=none | wc -c"]
    yield "find and xargs", ["sh", "-c", "find /usr/include -maxdepth 1 -name 's*.h' -print0 | sort -z | xargs -0 -n 3 echo"]
    yield "timeout", ["timeout", "0.2", "sleep", "5"]
    yield "bash with jobs", ["bash", "-c", JOBS]
    yield "python3", ["python3", "-c", PYTHON]
    yield "gcc", ["gcc", "-O2", "-o", program, source]
    yield "the program that it made", [program]
    yield "git", ["git", "--version"]


def main():
    library = sys.argv[2]
    with tempfile.TemporaryDirectory() as folder:
        tests = []
        for name, command in commands(folder):
            def test(command=command):
                if not shutil.which(command[0]) and not command[0].startswith(folder):
                    raise guestlib.Skip(f"no {command[0]}")
                return compare(command, library, folder)
            tests.append((name, test))
        return guestlib.main(tests)


if __name__ == "__main__":
    sys.exit(main())
