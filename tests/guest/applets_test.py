#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# busybox's own applets give the host's results in the guest.
"""usage: applets_test.py ANYKVM FORM LINES [few]

The same script runs on the host and in a guest, over a file of that many numbered lines (2,200,000 are 16 MiB).
"few" leaves the slowest applets out, for the checked form over large files."""

import os
import subprocess
import sys
import tempfile

import guestlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import initrd  # noqa: E402

SCRIPT = """
B=BUSYBOX
$B seq 1 LINES > data
$B wc data
$B md5sum < data
$B sha256sum < data
$B sha512sum < data
$B sha3sum < data
$B gzip -c < data > data.gz
$B gunzip -c < data.gz | $B sha256sum
$B bzip2 -c < data | $B bunzip2 -c | $B md5sum
$B awk '{ s += $1 * 1.5; t += $1 % 7; q += $1 / 7 } END { printf "%.3f %d %.6f\\n", s, t, q }' data
$B sort -r data | $B sha256sum
$B sort -n -k1.2 data | $B md5sum
$B tr 0-9 a-j < data | $B sed 's/ab*c/X/g' | $B md5sum
$B grep -c '7.*3$' data
$B od -An -tx8 data | $B tail -n 2
$B expr 123456789 '*' 987654321 / 1009
"""
FEW = """
B=BUSYBOX
$B seq 1 LINES > data
$B sha256sum < data
$B gzip -c < data | $B gunzip -c | $B sha256sum
$B awk '{ s += $1 * 1.5; t += $1 % 7; q += $1 / 7 } END { printf "%.3f %d %.6f\\n", s, t, q }' data
$B sort -r data | $B sha256sum
"""
INIT = """#!/bin/busybox sh
cd /tmp
echo BEGIN-RESULTS
{script}
echo END-RESULTS
/bin/busybox poweroff -f
"""
TIMEOUT = 900


def host_result(script, folder):
    """What the host's processor says."""
    return subprocess.run(["sh", "-c", script.replace("BUSYBOX", initrd.busybox())], cwd=folder,
                          capture_output=True, text=True, check=True).stdout.splitlines()


def guest_result(command):
    """The lines between the marks, or a message."""
    run = guestlib.Run(command, TIMEOUT)
    lines = run.out.decode(errors="replace").replace("\r", "").splitlines()
    if run.status != 0 or "END-RESULTS" not in lines:
        return None, run.describe()
    return lines[lines.index("BEGIN-RESULTS") + 1:lines.index("END-RESULTS")], None


def compare(anykvm, form, count, script):
    kernel = initrd.kernel(anykvm)
    if not kernel:
        raise guestlib.Skip("no kernel: anykvm fetch failed")
    if not initrd.busybox():
        raise guestlib.Skip("no busybox (tools/deps run)")
    script = script.replace("LINES", str(count))
    with tempfile.TemporaryDirectory() as folder:
        wanted = host_result(script, folder)
        image = os.path.join(folder, "initrd.gz")
        initrd.make(image, INIT.format(script=script.replace("BUSYBOX", "/bin/busybox")).encode())
        got, problem = guest_result([anykvm, "run", "--engine", form, "--mem", "512M", "--kernel", kernel,
                                     "--initrd", image, "--append", "console=ttyS0 quiet", "--no-reboot"])
    if problem:
        return problem
    different = [f"host {a!r}, guest {b!r}" for a, b in zip(wanted, got) if a != b]
    if len(wanted) != len(got):
        different.append(f"{len(wanted)} lines on the host, {len(got)} in the guest")
    return "\n".join(different) or None


def main():
    anykvm, form, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    script = FEW if sys.argv[4:] == ["few"] else SCRIPT
    return guestlib.main([(f"{form}: busybox over {count} lines", lambda: compare(anykvm, form, count, script))])


if __name__ == "__main__":
    sys.exit(main())
