#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# The tests of dirty logs must notice what is left out of their protocol: builds with meson's option "broken".
"""usage: broken_test.py SOURCE BUILD"""

import os
import subprocess
import sys

import guestlib
from guestlib import Run, Skip

SOURCE, BUILD = sys.argv[1:3]
TRIES = 6


def program(what):
    """guest-dirty of a build of its own, without that part."""
    folder = os.path.join(BUILD, "broken-" + what)
    steps = [["ninja", "-C", folder, "tests/guest/guest-dirty"]]
    if not os.path.exists(os.path.join(folder, "build.ninja")):
        steps.insert(0, ["meson", "setup", folder, SOURCE, f"-Dbroken={what}"])
    for step in steps:
        if subprocess.run(step, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
            raise Skip(f"cannot build: {' '.join(step)}")
    return os.path.join(folder, "tests/guest/guest-dirty")


def is_found_out(what):
    """A message when no run of the writers loses a page."""
    path = program(what)
    for n in range(TRIES):
        run = Run([path, "--form", "fast", "2 writers"], 600)
        if b"pages lost" in run.out:
            print(f"# without '{what}': run {n + 1} loses pages")
            return None
    return f"without '{what}' {TRIES} runs lose nothing: the tests would not see it"


def check_whole():
    """And with all of it nothing is lost."""
    run = Run([os.path.join(BUILD, "tests/guest/guest-dirty"), "--form", "fast", "2 writers"], 600)
    return None if run.status == 0 else run.describe()


guestlib.exit_with([
    ("nothing left out", check_whole),
    ("no wait for the vCPUs", lambda: is_found_out("wait")),
    ("no second look at the record", lambda: is_found_out("record")),
])
