# SPDX-License-Identifier: MIT OR Apache-2.0
# What the measuring programs share: compile, make the guest's file system, run machines, describe the host.
"""See run.py (workloads), boot.py (boot time)."""

import glob
import os
import platform
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tools"))
sys.dont_write_bytecode = True
import initrd as initramfs  # noqa: E402

# The same code for every machine and compiler: no vectors that were not asked for, no contraction.
CFLAGS = ["-std=gnu11", "-O2", "-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-ffp-contract=off",
          "-Wall", "-Wextra", "-Wvla", "-Wmissing-prototypes"]
DYNAMIC = "gbench-dyn"


class Failed(Exception):
    """A machine ended, was silent for too long, or answered with a failure."""


def compile_workloads(folder):
    """gbench (static) and gbench-dyn (a dynamically linked PIE) in folder; the path of gbench."""
    os.makedirs(folder, exist_ok=True)
    cc = os.environ.get("CC", "cc").split()
    program = os.path.join(folder, "gbench")
    sources = [os.path.join(HERE, "gbench.c")] + sorted(glob.glob(os.path.join(HERE, "work_*.c")))
    commands = [
        cc + CFLAGS + ["-static", "-pthread", "-o", program] + sources,
        cc + CFLAGS + ["-fPIE", "-pie", "-o", os.path.join(folder, DYNAMIC),
                       os.path.join(HERE, "dyn.c"), "-Wl,--no-as-needed", "-lm"]]
    for command in commands:
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"bench: cannot compile: {' '.join(command)} (make deps)")
    return program


def libraries(program):
    """Paths of the dynamic linker and the libraries of a program, as ldd tells them."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return re.findall(r"(?:=> )?(/\S+) \(0x", done.stdout)


def make_initrd(path, program):
    """An archive with gbench as /init, gbench-dyn and its libraries; not compressed."""
    files = [("init", program)]
    dynamic = os.path.join(os.path.dirname(program), DYNAMIC)
    found = libraries(dynamic)
    if found:
        files += [(DYNAMIC, dynamic)] + [(p.lstrip("/"), p) for p in found]
    folders = {"dev", "proc", "sys", "tmp"}
    for name, _ in files:
        while os.path.dirname(name):
            name = os.path.dirname(name)
            folders.add(name)
    parts = [initramfs.entry(name, 0o40755, ino=number)
             for number, name in enumerate(sorted(folders), 1)]
    parts.append(initramfs.entry("dev/console", 0o20600, rdev=(5, 1), ino=100))
    for number, (name, source) in enumerate(files, 101):
        with open(source, "rb") as f:
            parts.append(initramfs.entry(name, 0o100755, f.read(), ino=number))
    with open(path, "wb") as f:
        f.write(b"".join(parts + [initramfs.entry("TRAILER!!!", 0)]))


def anykvm_command(anykvm, form, kernel, initrd, append, mem, cpus=1):
    """Our program with a form of the engine."""
    command = [anykvm, "run", "--engine", form, "--kernel", kernel, "--initrd", initrd,
               "--append", append, "--mem", mem, "--no-reboot"]
    if os.environ.get("BENCH_COUNTERS"):  # counting in line makes the guest up to four times slower
        command.append("-v")
    return command + (["--cpus", str(cpus)] if cpus > 1 else [])


def qemu_command(kernel, initrd, append, mem, cpus=1, cpu="max"):
    """QEMU TCG, or None where there is none."""
    qemu = shutil.which("qemu-system-x86_64")
    return qemu and [qemu, "-accel", "tcg", "-cpu", cpu, "-smp", str(cpus), "-m", mem, "-nodefaults",
                     "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel,
                     "-initrd", initrd, "-append", append]


def counters(text):
    """The lines "anykvm: [label] name value" that -v prints, as a dictionary."""
    found = {}
    for line in text.decode(errors="replace").splitlines():
        words = line.replace("anykvm:", "").split()
        if 2 <= len(words) <= 3 and words[-1].replace(".", "", 1).isdigit():
            found[".".join(words[:-1])] = float(words[-1]) if "." in words[-1] else int(words[-1])
    return found


def cpu_of(pid):
    """Seconds that all threads of a process have run; precise, unlike /proc/PID/stat."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path, encoding="ascii") as f:
                total += int(f.read().split()[0])
        except (OSError, ValueError, IndexError):
            pass
    return total / 1e9


class Machine:
    """A server of gbench: a guest, or a process when pinned or not to a processor of the host."""

    def __init__(self, name, command, pin=None):
        self.name, self.command, self.pin = name, command, pin
        self.process = None
        self.facts = {}
        self.text = b""
        self.starts = 0

    def start(self, timeout):
        """Start and wait until it is ready; raises Failed."""
        self.messages = tempfile.TemporaryFile()
        pin = self.pin
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.messages,
            preexec_fn=(lambda: os.sched_setaffinity(0, {pin})) if pin is not None else None)
        self.text = b""
        self.starts += 1
        begin = time.monotonic()
        words = self.wait_line(rb"gbench: (ready [^\r\n]*)\r?\n", timeout)[0].split()
        self.facts = dict(w.split("=", 1) for w in words if "=" in w)
        self.facts["ready_s"] = round(time.monotonic() - begin, 3)

    def wait_line(self, pattern, timeout):
        """Read until the pattern has come; its groups as text."""
        end = time.monotonic() + timeout
        fd = self.process.stdout.fileno()
        while True:
            found = re.search(pattern, self.text)
            if found:
                self.text = self.text[found.end():]
                return [g.decode(errors="replace") for g in found.groups()]
            left = end - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise Failed(f"no answer in {timeout:.0f} s: {self.tail()}")
            piece = os.read(fd, 65536)
            if not piece:
                status = self.process.wait()
                raise Failed(f"ended with status {status}: {self.tail()}")
            self.text += piece

    def tail(self):
        """The ends of console and messages, for a report."""
        self.messages.seek(0)
        return (self.text[-1500:] + self.messages.read()[-500:]).decode(errors="replace").strip()

    def run(self, workload, scale, timeout):
        """(seconds, checksum, seconds of processor time), or None when the guest's processor lacks
        what it needs; raises Failed."""
        try:
            self.process.stdin.write(f"{workload} {scale}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"ended: {self.tail()}") from None
        pattern = rb"gbench: " + re.escape(workload.encode()) + rb" ([^\r\n]*)\r?\n"
        answer, = self.wait_line(pattern, timeout)
        before = cpu_of(self.process.pid)
        if answer == "begins":
            answer, = self.wait_line(pattern, timeout)
        if answer == "absent":
            return None
        words = answer.split()
        if len(words) != 3:
            raise Failed(f"the workload ended with {answer}: {self.tail()}")
        # Inside a guest, processor time means nothing: take the machine's.
        cpu = float(words[2]) if self.name == "native" else cpu_of(self.process.pid) - before
        return float(words[0]), words[1], cpu

    def stop(self, timeout=20):
        """Power off; what its counters say."""
        if not self.process:
            return {}
        try:
            self.process.stdin.write(b"quit\n")
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.messages.seek(0)
        found = counters(self.messages.read())
        self.forget()
        return found

    def kill(self):
        """End it at once."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.forget()

    def forget(self):
        self.process.stdout.close()
        self.messages.close()
        self.process = None


def host():
    """What the figures were taken on."""
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(),
            "load": os.getloadavg()[0]}
