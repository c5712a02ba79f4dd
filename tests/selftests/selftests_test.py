#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
# The Linux kernel's own KVM selftests, built from Debian's linux-source package, run through a way in.
"""usage: selftests_test.py [--quick] [--only NAME]... [--build-only] -- COMMAND...

Each program is run as COMMAND... PROGRAM, for instance: build/anykvm exec -- PROGRAM. A program that skips
itself has failed: what it asked for is missing. The sources are unpacked and built once, with the
flags they come with, in $XDG_CACHE_HOME/anykvm/selftests."""

import argparse
import fcntl
import os
import re
import subprocess
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guest"))
from guestlib import Run, Skip, main as run_rows  # pylint: disable=wrong-import-position

TARBALL = "/usr/src/linux-source-6.1.tar.xz"
TOP = "linux-source-6.1"
PARTS = ["Makefile", "scripts", "arch/x86", "include", "usr", "lib/rbtree.c", "tools/include", "tools/arch",
         "tools/scripts", "tools/build", "tools/lib/rbtree.c", "tools/testing/selftests/kvm",
         "tools/testing/selftests/rseq", "tools/testing/selftests/lib.mk",
         "tools/testing/selftests/kselftest.h", "tools/testing/selftests/kselftest_harness.h"]
TESTS = "tools/testing/selftests/kvm"
# Two files of this release do not build as they come, and one has a race of its own: sed's script, file.
FIXES = [
    ("s/TEST_ASSERT_EQ(/ASSERT_EQ(/", "dirty_log_test.c"),
    ("/#include <asm\\/kvm.h>/i #include <linux/stddef.h>", "steal_time.c"),
    # The vCPU is let go before it is told the new iteration: on a busy machine it may hold the old one in a register
    # over the next harvest, on any KVM, and the test then finds "Set page N value M incorrect". Later kernels tell it first.
    ("/sem_post(&sem_vcpu_cont);/{N;s/\\(.*sem_post.*;\\)\\n\\(.*sync_global_to_guest.*;\\)/\\2\\n\\1/}",
     "dirty_log_test.c"),
]
KSFT_SKIP = 4
SECONDS = 120
SLOW = {  # more seconds
    "demand_paging_test": 300,
    "dirty_log_perf_test": 300,
    "dirty_log_test": 300,
    "hardware_disable_test": 600,
    "kvm_create_max_vcpus": 300,
    "kvm_page_table_test": 300,
    "max_guest_memory_test": 300,
    "memslot_modification_stress_test": 300,
    "memslot_perf_test": 600,
    "rseq_test": 300,
    "set_memory_region_test": 300,
    "tsc_scaling_sync": 300,
}
# Programs that every `make check` runs: short, and each of another room.
QUICK = ["cpuid_test", "cr4_cpuid_sync_test", "debug_regs", "emulator_error_test",
         "get_msr_index_features", "hyperv_cpuid",
         "kvm_binary_stats_test", "kvm_pv_test", "monitor_mwait_test",
         "platform_info_test", "set_boot_cpu_id", "steal_time", "smm_test", "state_test", "sync_regs_test", "ucna_injection_test",
         "userspace_io_test", "userspace_msr_exit_test",
         "xen_vmcall_test"]

VMX = "needs nested VMX"
SVM = "needs nested SVM"
# What is not expected here, and why.
EXCEPTIONS = {
    "access_tracking_perf_test": "needs /sys/kernel/mm/page_idle",
    "amx_test": "needs AMX",
    "evmcs_test": VMX,
    "hyperv_svm_test": SVM,
    "mmio_warning_test": "needs an Intel host whose KVM module says that it has no unrestricted guests",
    "nested_exceptions_test": "needs nested VMX or SVM",
    "nx_huge_pages_test": "tests how the kvm module itself splits huge pages against a defect of Intel's processors, once its parameter is set",
    "pmu_event_filter_test": "needs a PMU of the host",
    "sev_migrate_tests": "needs SEV",
    "svm_int_ctl_test": SVM,
    "svm_nested_shutdown_test": SVM,
    "svm_nested_soft_inject_test": SVM,
    "svm_vmcall_test": SVM,
    "triple_fault_event_test": "needs nested VMX or SVM",
    "vmx_apic_access_test": VMX,
    "vmx_close_while_nested_test": VMX,
    "vmx_dirty_log_test": VMX,
    "vmx_exception_with_invalid_guest_state": "needs an Intel host whose KVM module says that it has no "
                                              "unrestricted guests",
    "vmx_invalid_nested_guest_state": VMX,
    "vmx_msrs_test": VMX,
    "vmx_nested_tsc_scaling_test": VMX,
    "vmx_pmu_caps_test": "needs a PMU of the host",
    "vmx_preemption_timer_test": VMX,
    "vmx_set_nested_state_test": VMX,
    "vmx_tsc_adjust_test": VMX,
}
# What is expected and not there yet; a row goes when its program passes.
TODO = {}


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "anykvm", "selftests")


def programs(tree):
    """Names as the Makefile lists them, with their folder."""
    names = []
    with open(os.path.join(tree, TESTS, "Makefile"), encoding="utf-8") as f:
        for line in f:
            m = re.match(r"TEST_GEN_PROGS(_EXTENDED)?_x86_64\s*\+?=\s*(\S+)", line)
            if m:
                names.append(m.group(2))
    return names


def must(command, why, cwd=None):
    """Run a step of the build; its last lines are shown when it fails."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CFLAGS", "LDFLAGS")}
    r = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, check=False)
    if r.returncode:
        tail = r.stdout.decode(errors="replace")[-2000:].replace("\n", "\n# ")
        print(f"# {tail}\nBail out! {why}: {' '.join(command)}")
        sys.exit(1)


def unpack(tree):
    new = tree + ".new"
    must(["rm", "-rf", new], "cannot clean")
    os.makedirs(new)
    must(["tar", "xf", TARBALL, "-C", new, "--strip-components=1"] + [f"{TOP}/{part}" for part in PARTS],
         "cannot unpack")
    for script, name in FIXES:
        must(["sed", "-i", script, os.path.join(new, TESTS, name)], "cannot fix")
    must(["make", "-s", "headers_install", "ARCH=x86"], "cannot install headers", cwd=new)
    os.rename(new, tree)


def build(wanted):
    """The folder of the programs; wanted: names, or None for all."""
    if not os.path.exists(TARBALL):
        raise Skip(f"{TARBALL} is not there; Debian's package linux-source-6.1 has it")
    tree = os.path.join(cache(), f"linux-6.1-{zlib.crc32(repr(FIXES).encode()):08x}")
    os.makedirs(cache(), exist_ok=True)
    with open(os.path.join(cache(), "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(tree):
            unpack(tree)
        folder = os.path.join(tree, TESTS)
        missing = [os.path.join(folder, name) for name in programs(tree)
                   if (wanted is None or os.path.basename(name) in wanted)
                   and not os.path.exists(os.path.join(folder, name))]
        if missing:
            must(["make", "-s", f"-j{os.cpu_count()}", "-C", folder, "ARCH=x86_64"] + missing,
                 "cannot build")
    return tree


CLOCK_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
# One program wants the host's own clock to be the TSC, since KVM's depends on it, and takes that for granted where the
# host does not say. anykvm's clock reads the TSC whatever the host does: the program is not told.
UNTOLD = ["unshare", "-rm", "sh", "-c", f'mount --bind /dev/null {CLOCK_SOURCE} && exec "$@"', "sh"]


def surroundings(name):
    """A command that the program runs under, because of the host."""
    if name != "kvm_clock_test" or not os.path.exists(CLOCK_SOURCE):
        return []
    with open(CLOCK_SOURCE, encoding="ascii") as f:
        if f.read().strip() == "tsc":
            return []
    if Run(UNTOLD + ["true"], 30).status:
        raise Skip("the host's clock source is not the TSC, and no namespace may be made to hide that")
    return UNTOLD


def last_words(run):
    """What a program said before it ended."""
    text = (run.out + run.err).decode(errors="replace").strip()
    return "\n".join(text.splitlines()[-12:])


def check(command, path, name):
    """None, or what was wrong."""
    command = surroundings(name) + command
    # 1,000 descriptors and more: the soft limit of a shell is often less.
    run = Run(["sh", "-c", 'ulimit -n "$(ulimit -Hn)"; exec "$@"', "sh"] + command + [path],
              SLOW.get(name, SECONDS))
    if not run.ended:
        return f"not ended after {run.seconds:.0f} s\n{last_words(run)}"
    if run.status == KSFT_SKIP:
        return f"it skipped itself: a skip is a failure here\n{last_words(run)}"
    if run.status:
        return f"status {run.status} after {run.seconds:.1f} s\n{last_words(run)}"
    return None


def why_not(command):
    """Why the way in does not work, or None."""
    run = Run(command + ["true"], 30)
    return None if run.status == 0 else f"{' '.join(command)} true: {last_words(run) or run.status}"


def rows(args, passed, excepted):
    """(name, function) for guestlib; names go into the lists as they come to their ends."""
    wanted = args.only or (QUICK if args.quick else None)
    try:
        tree = build(wanted)
    except Skip as reason:
        print(f"1..0 # SKIP {reason}")
        sys.exit(0)
    if args.build_only:
        sys.exit(0)
    problem = why_not(args.command)
    if problem:
        print(f"1..0 # SKIP no way in: {problem.splitlines()[-1]}")
        sys.exit(0)

    def row(path):
        name = os.path.basename(path)

        def test():
            reason = EXCEPTIONS.get(name)
            if reason and not args.only:
                excepted.append(name)
                raise Skip(reason)
            problem = check(args.command, os.path.join(tree, TESTS, path), name)
            if not problem:
                passed.append(name)
            return problem
        return (f"{name} # TODO {TODO[name]}" if name in TODO else name), test

    paths = [path for path in programs(tree) if wanted is None or os.path.basename(path) in wanted]
    return [row(path) for path in paths]


def summary(tests, passed, excepted):
    """The figures, by name. What is neither has failed, also when it skipped itself."""
    names = [name.split(" # ")[0] for name, _ in tests]
    failed = [name for name in names if name not in passed + excepted]
    print(f"# passed: {' '.join(passed)}")
    reasons = {}
    for name in excepted:
        reasons.setdefault(EXCEPTIONS[name], []).append(name)
    for reason, which in sorted(reasons.items()):
        print(f"# excepted, {reason}: {' '.join(which)}")
    if failed:
        print(f"# failed: {' '.join(failed)}")
    print(f"# {len(names)} programs: {len(passed)} passed, {len(excepted)} excepted, {len(failed)} failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a handful of short ones")
    parser.add_argument("--only", action="append", metavar="NAME", help="this program, also an exception")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("command", nargs="*", metavar="COMMAND")
    passed, excepted = [], []
    tests = rows(parser.parse_args(), passed, excepted)
    status = run_rows(tests)
    summary(tests, passed, excepted)
    sys.exit(status)


if __name__ == "__main__":
    main()
