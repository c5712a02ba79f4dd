/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The checks of anykvm doctor, one function each. */
#define _GNU_SOURCE
#include "cmd/checks.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "anykvm/anykvm.h"
#include "cmd/child.h"
#include "cmd/program.h"

#define HWCAP2_FSGSBASE_BIT BIT(1)
#define FILES_WANTED	    256
#define SPACE_WANTED	    (4ull << 30)

static void set(struct check *c, enum check_level level, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void set(struct check *c, enum check_level level, const char *code, const char *format, ...)
{
	va_list ap;

	c->level = level;
	c->code = code;
	va_start(ap, format);
	vsnprintf(c->text, sizeof(c->text), format, ap);
	va_end(ap);
}

static void todo(struct check *c, const char *text)
{
	snprintf(c->todo, sizeof(c->todo), "%s", text);
}

static void check_processor(struct check *c)
{
	char brand[49] = "";
	u32 r[4];

	for (u32 leaf = 0; leaf < 3; leaf++) {
		if (__get_cpuid(0x80000002 + leaf, &r[0], &r[1], &r[2], &r[3]))
			memcpy(brand + 16 * leaf, r, 16);
	}
	set(c, CHECK_PASS, NULL, "%s; used:%s%s%s%s%s", brand[0] ? brand : "x86-64",
	    __builtin_cpu_supports("avx2") ? " AVX2" : "",
	    __builtin_cpu_supports("avx512f") ? " AVX-512" : "",
	    __builtin_cpu_supports("bmi2") ? " BMI2" : "",
	    getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT ? " FSGSBASE" : "",
	    __get_cpuid(0x80000007, &r[0], &r[1], &r[2], &r[3]) && r[3] & BIT(8) ? " invariant TSC"
										 : "");
	if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT))
		todo(c, "without FSGSBASE the kernel sets %gs: one system call when a thread "
			"changes to another vCPU");
}

static bool has_vmx_or_svm(const char **which)
{
	u32 a, b, c, d;

	if (__get_cpuid(1, &a, &b, &c, &d) && c & BIT(5)) {
		*which = "VMX";
		return true;
	}
	*which = "SVM";
	return __get_cpuid(0x80000001, &a, &b, &c, &d) && c & BIT(2);
}

static void check_virtualization(struct check *c)
{
	const char *which;

	if (has_vmx_or_svm(&which))
		set(c, CHECK_INFO, NULL, "the processor offers %s; anykvm does not use it", which);
	else
		set(c, CHECK_INFO, NULL,
		    "the processor offers neither VMX nor SVM; none is needed");
}

static void check_device(struct check *c)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), err = errno, version;
	const char *which;

	if (fd < 0 && err == ENOENT) {
		set(c, CHECK_INFO, "AK009", "there is no /dev/kvm; ANYKVM=auto uses anykvm");
	} else if (fd < 0) {
		set(c, CHECK_WARN, "AK010", "/dev/kvm: %s; ANYKVM=auto uses anykvm", strerror(err));
		if (err == EACCES)
			todo(c, "sudo usermod -aG kvm \"$USER\"   (then log in again)");
	} else {
		version = ioctl(fd, KVM_GET_API_VERSION, 0);
		close(fd);
		if (version != KVM_API_VERSION)
			set(c, CHECK_WARN, NULL,
			    "/dev/kvm answers API version %d, not %d; ANYKVM=auto uses anykvm",
			    version, KVM_API_VERSION);
		else if (!has_vmx_or_svm(&which))
			set(c, CHECK_INFO, "AK011",
			    "/dev/kvm works without VMX or SVM (KVM_PVM), and slowly; ANYKVM=auto "
			    "uses anykvm");
		else
			set(c, CHECK_PASS, NULL, "/dev/kvm works; ANYKVM=auto uses it");
	}
}

static void check_code_memory(struct check *c)
{
	int fd = memfd_create("anykvm-doctor", MFD_CLOEXEC);
	void *w = MAP_FAILED, *x = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, PAGE_SIZE)) {
		w = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		x = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	}
	if (w == MAP_FAILED || x == MAP_FAILED)
		set(c, CHECK_FAIL, "AK012",
		    "a memfd cannot be mapped for writing and for execution: %s", strerror(errno));
	else
		set(c, CHECK_PASS, NULL, "a memfd can be mapped for writing and for execution");
	if (w != MAP_FAILED)
		munmap(w, PAGE_SIZE);
	if (x != MAP_FAILED)
		munmap(x, PAGE_SIZE);
	if (fd >= 0)
		close(fd);
}

static void check_userfaultfd(struct check *c)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */);

	if (fd >= 0)
		set(c, CHECK_PASS, NULL, "userfaultfd works (post-copy migration of KVM programs)");
	else
		set(c, CHECK_INFO, NULL,
		    "userfaultfd: %s; only KVM programs with post-copy migration miss it",
		    strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void check_limits(struct check *c)
{
	struct rlimit files = { 0, 0 }, space = { 0, 0 };

	getrlimit(RLIMIT_NOFILE, &files);
	getrlimit(RLIMIT_AS, &space);
	if (files.rlim_cur < FILES_WANTED) {
		set(c, CHECK_WARN, "AK013", "at most %llu open files",
		    (unsigned long long)files.rlim_cur);
		todo(c, "ulimit -n 1024");
	} else if (space.rlim_cur != RLIM_INFINITY && space.rlim_cur < SPACE_WANTED) {
		set(c, CHECK_WARN, "AK013", "at most %llu MiB of address space",
		    (unsigned long long)(space.rlim_cur >> 20));
		todo(c, "ulimit -v unlimited");
	} else {
		set(c, CHECK_PASS, NULL, "%llu open files, address space %s",
		    (unsigned long long)files.rlim_cur,
		    space.rlim_cur == RLIM_INFINITY ? "unlimited" : "limited");
	}
}

static void check_seccomp(struct check *c)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	int mode = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Seccomp: %d", &mode) == 1)
			break;
	if (f)
		fclose(f);
	if (mode > 0)
		set(c, CHECK_INFO, NULL,
		    "a seccomp filter is around this process (a container); what it forbids shows "
		    "below");
	else
		set(c, CHECK_PASS, NULL, "no seccomp filter around this process");
}

/* The built-in device must make a VM with a vCPU. */
static void check_engine(struct check *c)
{
	int kvm = anykvm_open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = kvm >= 0 ? anykvm_ioctl(kvm, KVM_CREATE_VM, 0) : -1;
	int vcpu = vm >= 0 ? anykvm_ioctl(vm, KVM_CREATE_VCPU, 0) : -1;

	if (vcpu >= 0)
		set(c, CHECK_PASS, NULL, "anykvm %s makes a VM with a vCPU", anykvm_version());
	else
		set(c, CHECK_FAIL, "AK014", "anykvm %s cannot make a VM with a vCPU: %s",
		    anykvm_version(), strerror(errno));
	if (vcpu >= 0)
		anykvm_close(vcpu);
	if (vm >= 0)
		anykvm_close(vm);
	if (kvm >= 0)
		anykvm_close(kvm);
}

/* The loader is silent and the program's status right: the library was loaded. */
static void check_preload(struct check *c)
{
	char library[PATH_MAX], setting[PATH_MAX + 16], out[256];
	const char *argv[] = { "env", setting, "true", NULL };
	struct why why;
	int status;

	if (preload_find(library, &why) < 0) {
		set(c, CHECK_FAIL, "AK001", "%.250s", why.text);
		return;
	}
	snprintf(setting, sizeof(setting), "LD_PRELOAD=%s", library);
	status = child_output(argv, NULL, true, out, sizeof(out));
	if (status || out[0])
		set(c, CHECK_FAIL, "AK001", "%.100s does not load: %.150s", library, out);
	else
		set(c, CHECK_PASS, NULL, "%.250s loads", library);
}

static void check_command(struct check *c, const char *command)
{
	struct program program;
	struct why why;
	int r = program_inspect(&program, command, &why);

	if (!r)
		r = program_check(&program, &why);
	if (r < 0) {
		char *code = strrchr(why.text, '(');
		static char kept[8];

		if (code) { /* "... (AK003)" */
			snprintf(kept, sizeof(kept), "%.5s", code + 1);
			code[code > why.text ? -1 : 0] = 0;
		}
		set(c, CHECK_FAIL, code ? kept : NULL, "%.280s", why.text);
		return;
	}
	set(c, CHECK_PASS, NULL, "%.200s: %s; way in: preload", program.path,
	    program_kind_name(&program));
	snprintf(c->todo, sizeof(c->todo), "anykvm exec -- %.200s ...", command);
}

unsigned checks_run(struct check checks[CHECKS_MAX], const char *command)
{
	static const struct {
		const char *name;
		void (*run)(struct check *c);
	} rows[] = {
		{ "processor", check_processor },     { "vmx-svm", check_virtualization },
		{ "device", check_device },	      { "code-memory", check_code_memory },
		{ "userfaultfd", check_userfaultfd }, { "limits", check_limits },
		{ "seccomp", check_seccomp },	      { "engine", check_engine },
		{ "preload", check_preload },
	};
	unsigned n = 0;

	memset(checks, 0, CHECKS_MAX * sizeof(*checks));
	for (; n < ARRAY_SIZE(rows); n++) {
		checks[n].name = rows[n].name;
		rows[n].run(&checks[n]);
	}
	if (command) {
		checks[n].name = "command";
		check_command(&checks[n++], command);
	}
	return n;
}
