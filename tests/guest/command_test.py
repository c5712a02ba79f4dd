#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# anykvm run -- CMD: input, output, status and files; disks, shares and entropy as a program of the guest sees them.
"""usage: command_test.py ANYKVM FORM

Skipped when there is no kernel and none can be fetched."""

import functools
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile

import guestlib

TIMEOUT = 120


def command(anykvm, form, options, words, folder, stdin=b"", env=None):
    """Run words in the guest, in folder; (status, stdout, stderr)."""
    patience = float(os.environ.get("ANYKVM_PATIENCE", "1"))
    run = subprocess.run([anykvm, "run", "--engine", form] + options + ["--"] + words, cwd=folder, input=stdin,
                         capture_output=True, timeout=TIMEOUT * patience, check=False,
                         env=dict(os.environ, **(env or {})))
    return run.returncode, run.stdout, run.stderr


def shell(run, text, folder, options=(), stdin=b"", env=None):
    return run(list(options), ["sh", "-c", text], folder, stdin, env)


def wanted(got, status, out, err=None):
    if got[0] != status or got[1] != out or (err is not None and got[2] != err):
        return f"wanted status {status}, {out!r}, {err!r}: got status {got[0]}, {got[1][-400:]!r}, {got[2][-400:]!r}"
    return None


def test_streams(run, folder):
    """Bytes of any value go through, in both directions, and the three streams are apart."""
    data = random.Random(1).randbytes(1 << 20)
    problem = wanted(run([], ["cat"], folder, data), 0, data, b"")
    return problem or wanted(shell(run, "echo out; echo err >&2; read a; echo \"$a\"; exit 42", folder, stdin=b"in\n"),
                             42, b"out\nin\n", b"err\n")


def test_words(run, folder):
    """Words, variables and the folder arrive as they are."""
    words = ["a b", "it's", "", "$HOME", "`ls`", "*", "\\n", "\"", "ü"]
    text = "pwd; printf '%s\\n' \"$ODD\" \"$@\"; kill -9 $$"
    got = run([], ["sh", "-c", text, "sh"] + words, folder, b"", {"ODD": "x 'y' \"z\"", "LD_DEBUG": "all"})
    return wanted(got, 137, "\n".join([os.path.realpath(folder), "x 'y' \"z\""] + words + [""]).encode())


def test_no_command(run, folder):
    status, _, err = run([], ["no-such-program"], folder)
    return None if status == 127 and b"no-such-program" in err else f"status {status}, {err!r}"


def test_make(run, folder):
    """A small C project of a library, a generated header and a program: built by two jobs on two processors, run on the host;
    nothing is built again; an error of the compiler is the status, and both its jobs end."""
    def put(name, text):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)
    parts = "abcdef"
    put("Makefile", "OBJECTS = " + " ".join(f"{p}.o" for p in parts) + "\nprog: main.o libparts.a\n\t$(CC) -o $@ main.o libparts.a\n"
        "libparts.a: $(OBJECTS)\n\t$(AR) rcs $@ $(OBJECTS)\nparts.h: parts.txt\n\tsed 's/.*/int &(void);/' $< > $@\n"
        "%.o: %.c parts.h\n\t$(CC) -O2 -Wall -Werror -c -o $@ $<\n")
    put("parts.txt", "\n".join(parts) + "\n")
    for i, p in enumerate(parts):
        put(f"{p}.c", f"#include <stdio.h>\n#include \"parts.h\"\nint {p}(void) {{ return {i + 2}; }}\n")
    put("main.c", "#include \"parts.h\"\nint main(void) { return " + "() + ".join(parts) + "() + 15; }\n")  # 2 + ... + 7 = 27
    status, _, err = run(["--cpus", "2"], ["make", "-j2"], folder)
    if status:
        return f"make: status {status}, {err[-500:]!r}"
    if subprocess.run([os.path.join(folder, "prog")], check=False).returncode != 42:
        return "what the guest has built does not run on the host"
    if os.stat(os.path.join(folder, "prog")).st_uid != os.geteuid():
        return "what the guest has built belongs to somebody else"
    status, out, err = run([], ["make"], folder)
    if status or b"up to date" not in out:
        return f"make once more: status {status}, {out!r}, {err[-500:]!r}"
    put("a.c", "int broken(\n")
    status, _, err = run(["--cpus", "2"], ["make", "-j2"], folder)
    return None if status == 2 and b"a.c" in err else f"a broken project: status {status}, {err[-500:]!r}"


def test_files(run, folder):
    """The current folder is the host's; everything else can be read, and what is changed there vanishes."""
    text = ("echo new > file && mkdir d && mv file d/moved && ln -s d/moved link && cat link && chmod 640 d/moved && "
            "ln d/moved hard && rm link && truncate -s 3 hard && touch -d @1000000000 hard && "
            "echo x > /etc/anykvm-test && cat /etc/anykvm-test && ls /lower 2>/dev/null; ls -la d | wc -l")
    problem = wanted(shell(run, text, folder), 0, b"new\nx\n4\n")
    if problem:
        return problem
    st = os.stat(os.path.join(folder, "hard"))
    if st.st_size != 3 or st.st_mode & 0o7777 != 0o640 or st.st_nlink != 2 or st.st_mtime != 1000000000:
        return f"the host sees {st}"
    if os.path.exists("/etc/anykvm-test") or os.path.lexists(os.path.join(folder, "link")):
        return "the guest has changed a file of the host that was not shared"
    return None


def test_share(run, folder):
    """A read-only share refuses; links do not lead out of a share on the host's side."""
    os.mkdir(os.path.join(folder, "s"))
    os.mkdir(os.path.join(folder, "w"))
    os.symlink(folder, os.path.join(folder, "s", "out"))
    with open(os.path.join(folder, "s", "f"), "w", encoding="utf-8") as f:
        f.write("shared\n")
    text = ("mkdir -p /tmp/m && mount -t virtiofs ro /tmp/m && cat /tmp/m/f && readlink /tmp/m/out; "
            "touch /tmp/m/new; mount -o remount,rw /tmp/m; echo x >> /tmp/m/f; rm /tmp/m/f; ls /tmp/m/..")
    if os.geteuid():
        raise guestlib.Skip("mounting in the guest needs root")
    got = shell(run, text.replace("ls /tmp/m/..", "cat /tmp/m/f"), folder,
                ["--share", f"{folder}/s=ro,ro", "--share", f"{folder}/w=rw"])
    return wanted(got, 0, f"shared\n{folder}\nshared\n".encode()) or (
        "written to" if os.listdir(os.path.join(folder, "s")).count("new") else None)


def test_disk(run, folder):
    """Sums of a disk as the host has written it; writes arrive; a read-only disk refuses; errors of the host are errors."""
    if os.geteuid():
        raise guestlib.Skip("the device node of a disk is root's")
    data = random.Random(2).randbytes(4 << 20)
    image = os.path.join(folder, "disk.img")
    with open(image, "wb") as f:
        f.write(data)
    digest = hashlib.sha256(data).hexdigest().encode()
    problem = wanted(shell(run, "sha256sum < /dev/vda; cat /sys/block/vda/serial; dd if=/dev/zero of=/dev/vda count=1 2>&1 "
                           "| grep -c 'not permitted'", folder, ["--disk", f"{image},ro,serial=S1"]),
                     0, digest + b"  -\nS11\n")
    if problem:
        return problem
    text = ("dd if=/dev/urandom of=/dev/vda bs=1M seek=1 count=1 conv=fsync 2>/dev/null && blkdiscard -z -o 2M -l 64K "
            "/dev/vda && sha256sum < /dev/vda")
    status, out, err = shell(run, text, folder, ["--disk", image])
    with open(image, "rb") as f:
        now = f.read()
    if status or hashlib.sha256(now).hexdigest().encode() != out[:64]:
        return f"the guest and the host differ: status {status}, {err!r}"
    if now[:1 << 20] != data[:1 << 20] or now[1 << 20:2 << 20] == data[1 << 20:2 << 20] or any(now[2 << 20:(2 << 20) + 65536]):
        return "the writes are not where they belong"
    return None


def test_qcow2(run, folder):
    """A compressed qcow2 image: sums as the host has written it; what the guest writes is there, and qemu-img finds no fault."""
    if os.geteuid():
        raise guestlib.Skip("the device node of a disk is root's")
    if not shutil.which("qemu-img"):
        raise guestlib.Skip("no qemu-img (tools/deps check)")
    data = random.Random(6).randbytes(2 << 20) + bytes(2 << 20) + b"text " * (1 << 19)
    data = data[:6 << 20].ljust(6 << 20, b"\0")
    raw, image = os.path.join(folder, "raw.img"), os.path.join(folder, "disk.qcow2")
    with open(raw, "wb") as f:
        f.write(data)
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    text = ("sha256sum < /dev/vda; dd if=/dev/urandom of=/dev/vda bs=4k seek=200 count=300 conv=fsync 2>/dev/null; "
            "blkdiscard -o 4M -l 1M /dev/vda; dd if=/dev/urandom of=/dev/vda bs=1M seek=5 count=1 conv=fsync 2>/dev/null; "
            "echo 3 > /proc/sys/vm/drop_caches; sha256sum < /dev/vda")
    status, out, err = shell(run, text, folder, ["--disk", f"{image},format=qcow2"])
    if status or out[:64] != hashlib.sha256(data).hexdigest().encode():
        return f"status {status}, {out!r}, {err!r}"
    checked = subprocess.run(["qemu-img", "check", image], capture_output=True, check=False)
    if checked.returncode:
        return f"qemu-img check: {checked.stdout[-300:]!r}"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    with open(raw, "rb") as f:
        now = f.read()
    return None if hashlib.sha256(now).hexdigest().encode() == out[68:132] else f"qemu-img reads something else: {out!r}"


def test_host_errors(run, folder):
    """An image that shrinks under the guest: input/output errors there, and nothing else."""
    if os.geteuid():
        raise guestlib.Skip("the device node of a disk is root's")
    disks = []
    for letter, kind in zip("ab", ("raw", "qcow2")):
        image = os.path.join(folder, f"vd{letter}.img")
        with open(image, "wb") as f:
            f.truncate(8 << 20)
        if kind == "qcow2":
            if not shutil.which("qemu-img"):
                continue
            subprocess.run(["qemu-img", "create", "-q", "-f", kind, image, "8M"], check=True)
        disks.append((letter, ["--disk", f"{image},format={kind}"]))
    # All of it is read into nothing, so each dd meets the end of the file; what is written makes the file longer again.
    text = ("dd if=/dev/zero of=/dev/vd$d bs=1M count=8 conv=fsync 2>/dev/null; truncate -s $size vd$d.img; "
            "echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vd$d of=/dev/null bs=64K 2>&1 | grep -c 'Input/output error'; "
            "dd if=/dev/zero of=/dev/vd$d bs=64K seek=100 count=1 conv=fsync 2>/dev/null; echo $?")
    words = " ".join(letter for letter, _ in disks)
    return wanted(shell(run, f"for d in {words}; do for size in 1M 4K 0; do {text}; done; done; echo on", folder,
                        [word for _, more in disks for word in more]), 0, b"1\n0\n" * 3 * len(disks) + b"on\n")


def test_entropy(run, folder):
    if os.geteuid():
        raise guestlib.Skip("the entropy device is root's")
    return wanted(shell(run, "cat /sys/class/misc/hw_random/rng_current; head -c 1000 /dev/hwrng | wc -c", folder), 0,
                  b"virtio_rng.0\n1000\n")


def test_end(run, folder):
    """A guest that ends without the status of the command."""
    if os.geteuid():
        raise guestlib.Skip("only root may reset the guest")
    status, _, err = shell(run, "echo o > /proc/sysrq-trigger; sleep 60", folder)
    return None if status == 70 and len(err.splitlines()) == 1 else f"status {status}, {err!r}"


def test_panic(run, folder):
    """A panic of the guest's kernel ends the machine with its own status."""
    if os.geteuid():
        raise guestlib.Skip("only root may crash the guest")
    status, _, err = shell(run, "echo c > /proc/sysrq-trigger; sleep 60", folder)
    return None if status == 34 and b"panicked" in err else f"status {status}, {err!r}"


def main():
    anykvm, form = os.path.abspath(sys.argv[1]), sys.argv[2]
    if not guestlib.can_boot(anykvm):
        return 0
    tests = []
    for test in (test_streams, test_words, test_no_command, test_make, test_files, test_share, test_disk,
                 test_qcow2, test_host_errors, test_entropy, test_end, test_panic):
        def one(test=test):
            # Not below /tmp of the guest, which is its own.
            with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
                return test(functools.partial(command, anykvm, form), folder)
        tests.append((test.__name__[5:].replace("_", " "), one))
    return guestlib.main(tests)


if __name__ == "__main__":
    sys.exit(main())
