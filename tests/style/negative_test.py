#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# The checks themselves must fail on what they forbid: each folder of bad/ breaks one rule.
"""Each folder of bad/ is a small tree with a file "expect": "TOOL [ARGS]: REGEX". The tool must fail on the tree
and print a line that the expression matches. Every other tree in which that rule is kept is the positive test."""

import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(HERE, "..", "..", "tools")


def run_tool(tool, args, tree):
    """The finished run of one tool on one bad tree."""
    command = [os.path.join(TOOLS, tool)] + args
    if tool != "check-leaf" and "--objects" not in args:
        return subprocess.run(command + ["--root", tree], capture_output=True, text=True, check=False)
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for name in sorted(os.listdir(tree)):
            if name.endswith(".c"):
                objects.append(os.path.join(folder, name + ".o"))
                compiler = os.environ.get("CC", "gcc").split()
                subprocess.run(compiler + ["-O2", "-c", "-o", objects[-1], os.path.join(tree, name)],
                               check=True)
        return subprocess.run(command + objects, capture_output=True, text=True, check=False)


def check_tree(tree):
    """What the check missed, or None."""
    with open(os.path.join(tree, "expect"), encoding="utf-8") as f:
        command, expected = f.read().strip().split(": ", 1)
    tool, *args = command.split()
    done = run_tool(tool, args, tree)
    if done.returncode != 1:
        return f"{command}: status {done.returncode}, wanted 1; {done.stderr}"
    if not re.search(expected, done.stdout):
        return f"{command}: no line matches '{expected}' in: {done.stdout}"
    return None


def main():
    trees = sorted(os.listdir(os.path.join(HERE, "bad")))
    failed = 0
    print(f"1..{len(trees)}")
    for number, name in enumerate(trees, 1):
        problem = check_tree(os.path.join(HERE, "bad", name))
        failed += problem is not None
        print(f"{'not ok' if problem else 'ok'} {number} - bad/{name} is refused")
        if problem:
            print("# " + problem.replace("\n", "\n# "))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
