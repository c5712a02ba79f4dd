#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# Debian's QEMU with -accel kvm under `anykvm exec` boots Debian's kernel to /init, which looks around and powers off.
"""usage: qemu_test.py ANYKVM [--long] [--only NAME]

Skipped where QEMU, busybox or a kernel is missing; a row also where its firmware is."""

import argparse
import os
import shutil
import sys
import tempfile

import guestlib
import qemulib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402

QEMU = "qemu-system-x86_64"
NOBODY = 65534
TIMEOUT = 150
DISK = (b"anykvm disk " * 43691)[:1 << 19]
BAD = ("Kernel panic", "BUG:", "Oops", "WARNING:", "general protection", "soft lockup", "anykvm:")
OVMF = ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_CODE_4M.fd")

INIT = b"""#!/bin/busybox sh
b=/bin/busybox
MODULES="@MODULES@"
$b mount -t proc proc /proc
$b mkdir -p /sys && $b mount -t sysfs sysfs /sys
echo "HERE cpus=$($b grep -c ^processor /proc/cpuinfo) hypervisor=$($b grep -c KVM /sys/hypervisor/type 2>/dev/null)"
echo "SUM $($b seq 1 2000 | $b md5sum | $b cut -c1-8)"
for m in $MODULES; do $b insmod /$m; done
for d in /sys/block/vd*; do [ -e $d ] && echo "DISK $($b cat $d/size)"; done
for d in /sys/class/net/eth*; do [ -e $d ] && echo "NET $($b cat $d/address)"; done
if $b grep -q move /proc/cmdline; then
  echo "READY"
  $b seq 1 40 | while read n; do echo "STEP $n"; $b sleep 0.1; done
  echo "SUM $($b seq 1 2000 | $b md5sum | $b cut -c1-8)"
fi
$b poweroff -f
"""
SUM = "SUM ea4d0a24"
# Debian's kernels have virtio as modules, in the order in which they depend on each other.
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
           "failover", "net_failover", "virtio_net")
NONE = ["-vga", "none", "-net", "none"]


class Row:
    """One configuration: QEMU's arguments, and what the console must show besides."""

    def __init__(self, name, args, cpus=1, **more):
        self.name, self.args, self.cpus = name, args, cpus
        self.accel = more.pop("accel", "kvm")
        self.long = more.pop("long", True)  # not in make check
        self.show = more.pop("show", ())
        self.firmware = more.pop("firmware", None)
        self.user = more.pop("user", False)
        self.modules = more.pop("modules", False)
        self.move = more.pop("move", False)  # saved into a file, and loaded by another QEMU
        assert not more


MODELS = ("host", "max", "qemu64")
COUNTS = (1, 2, 4)


def matrix(virtio, found):
    """Each machine with 1, 2 and 4 CPUs and with each model of CPU."""
    ovmf = next((f for f in OVMF if os.path.exists(f)), "none")
    both = {"show": found, "modules": True}
    machines = [
        # Name, machine, what follows the CPU model, arguments, more of the row.
        ("pc with virtio, saved and loaded", "pc", "", virtio, {"move": True, **both}),
        ("q35, split interrupt controllers, IOMMU", "q35,kernel-irqchip=split", "",
         ["-device", "intel-iommu,intremap=on"] + virtio, both),
        ("microvm", "microvm", "", ["-nodefaults", "-serial", "stdio"], {}),
        ("pc, all of Hyper-V's interface", "pc", ",hv-passthrough", virtio, both),
        ("pc, dirty ring", "pc", "", virtio, {"accel": "kvm,dirty-ring-size=4096", "move": True, **both}),
        ("pc without the kernel's interrupt controllers", "pc,kernel-irqchip=off", "", NONE, {}),
        ("q35 with virtio", "q35", "", virtio, both),
        ("OVMF on q35", "q35", "",
         ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={ovmf}"] + virtio, {"firmware": OVMF, **both}),
    ]
    out = []
    for i, (name, machine, flags, args, more) in enumerate(machines):
        for k, cpus in enumerate(COUNTS):
            model = MODELS[(i + k) % len(MODELS)]
            if cpus > 1 and "kernel-irqchip=off" in machine:
                continue  # Debian's 7.2.22 never takes back the start-up request of a CPU's APIC, and turns for ever
            out.append(Row(f"{name}, {cpus} x {model}", ["-M", machine, "-cpu", model + flags] + args, cpus,
                           long=(name, cpus) not in QUICK, **more))
    return out


QUICK = (("q35 with virtio", 2), ("microvm", 1))


def rows(disk):
    virtio = ["-vga", "none", "-drive", f"file={disk},format=raw,if=virtio,readonly=on",
              "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,mac=52:54:00:12:34:99"]
    found = [f"DISK {len(DISK) // 512}", "NET 52:54:00:12:34:99"]
    return [
        Row("pc, -cpu host", ["-M", "pc", "-cpu", "host"] + NONE, long=False),
        Row("pc with all that it has by default", ["-M", "pc", "-cpu", "host"]),
        Row("q35 with all that it has by default, 2 CPUs", ["-M", "q35", "-cpu", "max"], 2),
        Row("pc, -sandbox on", ["-M", "pc", "-cpu", "host", "-sandbox",
                                "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"] + NONE),
        Row("pc as an unprivileged user", ["-M", "pc", "-cpu", "host"] + NONE, user=True),
    ] + matrix(virtio, found)


def command(anykvm, row, kernel, image):
    prefix = []
    if row.user and not os.getuid():
        if not shutil.which("setpriv"):
            raise guestlib.Skip("no setpriv")
        prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return prefix + [anykvm, "exec", "--", QEMU, "-accel", row.accel, "-m", "512", "-nographic", "-no-reboot",
                     "-kernel", kernel, "-initrd", image, "-smp", str(row.cpus),
                     "-append", "console=ttyS0 panic=-1" + (" move" if row.move else "")] + row.args


def run_moved(arguments, folder):
    """A run whose QEMU saves the guest and ends when it says READY; a second one goes on. Their consoles in a row."""
    state, sock = os.path.join(folder, "state"), os.path.join(folder, "qmp")
    for path in (state, sock):
        if os.path.exists(path):
            os.unlink(path)
    first = qemulib.Started(arguments + ["-qmp", f"unix:{sock},server=on,wait=off"], TIMEOUT)
    if first.wait_for(b"READY"):
        try:
            with qemulib.Monitor(sock) as monitor:
                monitor.migrate(f"exec:cat > {state}")
                monitor.command("quit")
        except (OSError, ValueError) as gone:  # its end shows why
            first.err += f"it ended before it was saved: {gone}".encode()
            first.finish().ended = False
            return first
    head = first.finish()
    if head.status != 0:
        return head
    run = guestlib.Run(arguments + ["-incoming", f"exec:cat {state}"], TIMEOUT)
    run.out = head.out + run.out
    return run


def boot(anykvm, row, kernel, copy, image):
    if row.modules and len(initrd.modules(kernel, MODULES)) < len(MODULES):
        raise guestlib.Skip("no modules of the kernel in the cache: anykvm fetch --refresh")
    if row.firmware and not any(os.path.exists(f) for f in row.firmware):
        raise guestlib.Skip(f"no {row.firmware[0]}")
    arguments = command(anykvm, row, copy, image)
    if row.move:
        run = run_moved(arguments, os.path.dirname(image))
    else:
        run = guestlib.Run(arguments, TIMEOUT)
    text = run.out.decode(errors="replace")
    if run.why_crashed():
        return run.why_crashed()
    if not run.ended or run.status != 0:
        return f"wanted status 0: {run.describe()}"
    for expected in [f"HERE cpus={row.cpus} ", SUM] + list(row.show):
        if expected not in text:
            return f"no '{expected}' on the console: {text[-1500:]}"
    for bad in BAD:
        if bad in text or bad in run.err.decode(errors="replace"):
            return f"'{bad}': {text[max(0, text.find(bad) - 300):][:900]} {run.err!r}"
    return None


def counted(passed, row, problem):
    if not problem:
        passed.append(row)
    return problem


def summary(passed, chosen):
    """What was seen to work: how often, by machine, number of processors, model, and devices."""
    def values(which):
        return ", ".join(sorted({which(row) for row in passed}))
    print(f"# {len(passed)} of {len(chosen)} configurations passed")
    if not passed:
        return
    options = [dict(zip(row.args[::2], row.args[1::2])) for row in passed]
    print(f"# machines: {', '.join(sorted({o['-M'] for o in options}))}")
    print(f"# models: {', '.join(sorted({o['-cpu'] for o in options}))}")
    print(f"# processors: {values(lambda row: str(row.cpus))}; accelerators: {values(lambda row: row.accel)}")
    print(f"# with a virtio disk and network: {sum(row.modules for row in passed)}; saved and loaded: "
          f"{sum(row.move for row in passed)}; OVMF: {sum(bool(row.firmware) for row in passed)}; as an unprivileged user: "
          f"{sum(row.user for row in passed)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("anykvm")
    parser.add_argument("--long", action="store_true", help="the whole matrix")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    kernel = initrd.kernel(args.anykvm)
    if not shutil.which(QEMU) or not initrd.busybox() or not kernel:
        print("1..0 # SKIP no qemu-system-x86_64, no busybox or no kernel (make deps)")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        image, disk, copy = (os.path.join(folder, n) for n in ("initrd.gz", "disk", "vmlinuz"))
        modules = initrd.modules(kernel, MODULES)
        initrd.make(image, INIT.replace(b"@MODULES@", " ".join(n for n, _ in modules).encode()), modules)
        shutil.copy(kernel, copy)
        with open(disk, "wb") as f:
            f.write(DISK)
        for path in (image, disk, copy):
            os.chmod(path, 0o644)
        chosen = [r for r in rows(disk) if args.only in r.name and (args.long or not r.long)]
        passed = []
        status = guestlib.main([(r.name, lambda r=r: counted(passed, r, boot(args.anykvm, r, kernel, copy, image)))
                                for r in chosen])
        summary(passed, chosen)
        return status


if __name__ == "__main__":
    sys.exit(main())
