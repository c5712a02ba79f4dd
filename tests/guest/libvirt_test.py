#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# A libvirtd of its own under `anykvm exec` starts, stops, suspends and resumes a guest of type kvm.
"""usage: libvirt_test.py ANYKVM

The daemon is an unprivileged session daemon with folders of its own: nothing of the host's libvirt is used or seen.
It looks for /dev/kvm itself, so it runs under `anykvm exec` too; it hands only a part of its environment to
the emulator, which is therefore a wrapper."""

import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

import guestlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402

QEMU = "qemu-system-x86_64"
NOBODY = 65534
TIMEOUT = 90
NAME = "anykvm-test"

INIT = b"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b stty -echo
echo "READY cpus=$($b grep -c ^processor /proc/cpuinfo)"
while read line; do
  case $line in
  off) $b poweroff -f ;;
  *) echo "ANSWER $line" ;;
  esac
done
"""

DOMAIN = """<domain type='kvm'>
  <name>{name}</name>
  <memory unit='MiB'>384</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{image}</initrd>
    <cmdline>console=ttyS0 panic=-1</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='host-passthrough'/>
  <devices>
    <emulator>{emulator}</emulator>
    <serial type='pty'><target port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    <memballoon model='none'/>
  </devices>
</domain>
"""

DAEMON_CONFIG = """host_uuid = "{uuid}"
"""

CONFIG = """stdio_handler = "file"
security_driver = "none"
"""


def wait_until(what, true, seconds=TIMEOUT):
    end = time.monotonic() + seconds * float(os.environ.get("ANYKVM_PATIENCE", "1"))
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


class Host:
    """The daemon, and virsh that talks to it."""

    def __init__(self, folder, anykvm, namespace=()):
        self.env = {"PATH": os.environ["PATH"], "HOME": folder, "LC_ALL": "C"}
        for name in ("RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME", "STATE_HOME"):
            path = os.path.join(folder, name.lower())
            os.makedirs(path, mode=0o700)
            self.env["XDG_" + name] = path
        os.makedirs(os.path.join(folder, "config_home", "libvirt"))
        with open(os.path.join(folder, "config_home", "libvirt", "qemu.conf"), "w", encoding="ascii") as f:
            f.write(CONFIG)
        with open(os.path.join(folder, "config_home", "libvirt", "libvirtd.conf"), "w", encoding="ascii") as f:
            f.write(DAEMON_CONFIG.format(uuid=uuid.uuid4()))
        self.prefix = []
        if not os.getuid():
            self.prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            for root, folders, files in os.walk(folder):
                for name in [root] + [os.path.join(root, n) for n in folders + files]:
                    os.chown(name, NOBODY, NOBODY)
        self.log = open(os.path.join(folder, "log"), "wb")  # pylint: disable=consider-using-with
        self.daemon = subprocess.Popen(  # pylint: disable=consider-using-with
            list(namespace) + self.prefix + [anykvm, "exec", "--", shutil.which("libvirtd", path=os.environ["PATH"] + ":/usr/sbin")], env=self.env,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        wait_until("a socket of libvirtd", lambda: os.path.exists(
            os.path.join(folder, "runtime_dir", "libvirt", "libvirt-sock")), 30)

    def command(self, *words):
        return self.prefix + ["virsh", "-q", "-c", "qemu:///session"] + list(words)

    def virsh(self, *words):
        """Its output; RuntimeError when it fails."""
        run = subprocess.run(self.command(*words), env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                             timeout=TIMEOUT * float(os.environ.get("ANYKVM_PATIENCE", "1")), check=False)
        if run.returncode:
            raise RuntimeError(f"virsh {' '.join(words)}: {run.stderr.decode(errors='replace')}")
        return run.stdout.decode(errors="replace").strip()

    def state(self):
        return self.virsh("domstate", NAME)

    def end(self):
        subprocess.run(self.command("destroy", NAME), env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                       timeout=60, check=False)
        self.daemon.terminate()
        self.daemon.wait(30)
        self.log.close()


class Console:
    """virsh console, on a terminal as it wants one."""

    def __init__(self, host):
        self.text = b""
        pid, self.fd = pty.fork()
        if not pid:
            os.execvpe(host.command()[0], host.command("console", NAME, "--force"), host.env)
        self.pid = pid
        os.set_blocking(self.fd, False)

    def has(self, text):
        try:
            self.text += os.read(self.fd, 65536)
        except (BlockingIOError, OSError):
            pass
        return text.encode() in self.text

    def expect(self, text, meanwhile=lambda: None):
        try:
            wait_until(text, lambda: self.has(text) or meanwhile())
        except TimeoutError as e:
            raise TimeoutError(f"{e}; the console has {self.text[-600:]!r}") from None

    def ask(self, line):
        """Again and again: a guest that boots hears nothing yet."""
        def again():
            self.say(line)
            time.sleep(1)
        self.expect(f"ANSWER {line}", again)

    def say(self, line):
        os.write(self.fd, line.encode() + b"\r")

    def end(self):
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def life(host):
    """Started, spoken to, suspended, resumed, and switched off from inside; then started and destroyed."""
    host.virsh("start", NAME)
    console = Console(host)
    try:
        console.ask("one")
        host.virsh("suspend", NAME)
        if host.state() != "paused":
            return f"suspended, it is {host.state()}"
        console.say("two")
        time.sleep(1)
        if console.has("ANSWER two"):
            return "it answers while it is suspended"
        host.virsh("resume", NAME)
        console.expect("ANSWER two")
        if host.state() != "running":
            return f"resumed, it is {host.state()}"
        console.say("off")
        wait_until("shut off", lambda: host.state() == "shut off")
    finally:
        console.end()
    host.virsh("start", NAME)
    if host.state() != "running":
        return f"started again, it is {host.state()}"
    host.virsh("destroy", NAME)
    return None if host.state() == "shut off" else f"destroyed, it is {host.state()}"


def files_make(anykvm, kernel, folder, init, programs):
    """What a guest is made of; the path of its definition."""
    image, copy, emulator = (os.path.join(folder, n) for n in ("initrd.gz", "vmlinuz", "emulator"))
    initrd.make(image, init, programs)
    shutil.copy(kernel, copy)
    with open(emulator, "w", encoding="utf-8") as f:
        f.write(f'#!/bin/sh\nexec {os.path.abspath(anykvm)} exec -- {shutil.which(QEMU)} "$@"\n')
    for path, mode in ((image, 0o644), (copy, 0o644), (emulator, 0o755)):
        os.chmod(path, mode)
    definition = os.path.join(folder, "domain.xml")
    with open(definition, "w", encoding="utf-8") as f:
        f.write(DOMAIN.format(name=NAME, kernel=copy, image=image, emulator=emulator))
    return definition


def check(anykvm, kernel, folder):
    os.chmod(folder, 0o755)
    definition = files_make(anykvm, kernel, folder, INIT, [])
    host = Host(os.path.join(folder, "host"), os.path.abspath(anykvm))
    try:
        host.virsh("define", definition)
        return life(host)
    except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as e:
        with open(os.path.join(folder, "host", "log"), encoding="utf-8", errors="replace") as f:
            return f"{e}\n{f.read()[-1500:]}"
    finally:
        host.end()


def main():
    anykvm = sys.argv[1]
    kernel = initrd.kernel(anykvm)
    missing = [n for n in ("virsh", QEMU, "setpriv") if not shutil.which(n)]
    if not shutil.which("libvirtd", path=os.environ["PATH"] + ":/usr/sbin"):
        missing.append("libvirtd")
    if missing or not kernel or not initrd.busybox():
        print(f"1..0 # SKIP missing: {' '.join(missing) or 'kernel or busybox'} (make deps)")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return guestlib.main([("start, console, suspend, resume, shut off, destroy",
                               lambda: check(anykvm, kernel, folder))])


if __name__ == "__main__":
    sys.exit(main())
