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


def program(what, name):
    """A program of tests of a build of its own, without that part."""
    folder = os.path.join(BUILD, "broken-" + what)
    steps = [["ninja", "-C", folder, name]]
    if not os.path.exists(os.path.join(folder, "build.ninja")):
        steps.insert(0, ["meson", "setup", folder, SOURCE, f"-Dbroken={what}"])
    for step in steps:
        if subprocess.run(step, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
            raise Skip(f"cannot build: {' '.join(step)}")
    return os.path.join(folder, name)


# What is left out, the program that must find it, its arguments, how many rounds, and what it says then.
LITMUS = "tests/guest/guest-litmus"
ROWS = {
    "wait": (LITMUS, ["--form", "fast", "2 running"], "40000", b"pages lost"),
    "record": (LITMUS, ["--form", "fast", "2 running"], "40000", b"pages lost"),
    "fence": (LITMUS, ["--form", "fast", "tight"], "40000", b"pages lost"),
    "mark": ("tests/unit/unit-ram", [], "2000", b"difference"),
}


def is_found_out(what):
    """A message when no run loses a page."""
    name, arguments, rounds, mark = ROWS[what]
    path = program(what, name)
    for n in range(TRIES):
        run = Run([path] + arguments, 600, env={"ANYKVM_ROUNDS": rounds})
        if mark in run.out + run.err:
            print(f"# without '{what}': run {n + 1} loses pages")
            return None
    return f"without '{what}' {TRIES} runs lose nothing: the tests would not see it"


def check_whole(what):
    """And with all of it nothing is lost."""
    name, arguments, rounds, _ = ROWS[what]
    run = Run([os.path.join(BUILD, name)] + arguments, 600, env={"ANYKVM_ROUNDS": rounds})
    return None if run.status == 0 else run.describe()


guestlib.exit_with(
    [(f"nothing left out: {' '.join([os.path.basename(ROWS[w][0])] + ROWS[w][1])}", lambda w=w: check_whole(w))
     for w in ("record", "fence", "mark")] +
    [("no wait for the vCPUs", lambda: is_found_out("wait")),
     ("no second look at the record", lambda: is_found_out("record")),
     ("no fence behind non-temporal stores", lambda: is_found_out("fence")),
     ("marks of devices without a lock", lambda: is_found_out("mark"))])
