/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* For each row of kvm.def: wrong descriptors, bad pointers, forbidden arguments; and what all cases together have seen of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "abi.h"

enum { SYSTEM, VM, VCPU, KINDS };
enum { VALUE, NONE, RAW, IN, OUT, INOUT };

static const char *const kind_names[] = { "system", "VM", "vCPU" };

static const struct row {
	const char *name;
	unsigned long request;
	int kind, pass;
} rows[] = {
/* clang-format off */
#define KVM_IOCTL(name, kind, pass, type, arch, cap, handler) { #name, KVM_##name, kind, pass },
#include "kvm/kvm.def"
#undef KVM_IOCTL
	/* clang-format on */
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* What the kernel's document and sources name for a request, beside EFAULT of a pointer and the wrong descriptor. */
static const struct {
	const char *name;
	int kind;
	int err[6];
} documented[] = {
	{ "GET_API_VERSION", SYSTEM, { EINVAL } },
	{ "CREATE_VM", SYSTEM, { EINVAL } },
	{ "GET_VCPU_MMAP_SIZE", SYSTEM, { EINVAL } },
	{ "GET_MSR_INDEX_LIST", SYSTEM, { E2BIG } },
	{ "GET_MSR_FEATURE_INDEX_LIST", SYSTEM, { E2BIG } },
	{ "GET_MSRS", SYSTEM, { E2BIG } },
	{ "GET_SUPPORTED_CPUID", SYSTEM, { E2BIG } },
	{ "GET_EMULATED_CPUID", SYSTEM, { E2BIG } },
	{ "GET_SUPPORTED_HV_CPUID", SYSTEM, { E2BIG } },
	{ "GET_DEVICE_ATTR", SYSTEM, { ENXIO } },
	{ "HAS_DEVICE_ATTR", SYSTEM, { ENXIO } },
	{ "CREATE_VCPU", VM, { EINVAL, EEXIST } },
	{ "ENABLE_CAP", VM, { EINVAL } },
	{ "SET_USER_MEMORY_REGION", VM, { EINVAL, EEXIST } },
	{ "GET_DIRTY_LOG", VM, { ENOENT, EINVAL, ENXIO } },
	{ "CLEAR_DIRTY_LOG", VM, { ENOENT, EINVAL, ENXIO } },
	{ "RESET_DIRTY_RINGS", VM, { EINVAL } },
	{ "SET_NR_MMU_PAGES", VM, { EINVAL } },
	{ "SET_TSS_ADDR", VM, { EINVAL } },
	{ "SET_IDENTITY_MAP_ADDR", VM, { EINVAL } },
	{ "SET_BOOT_CPU_ID", VM, { EBUSY } },
	{ "CREATE_IRQCHIP", VM, { EEXIST, EINVAL } },
	{ "GET_IRQCHIP", VM, { ENXIO, EINVAL } },
	{ "SET_IRQCHIP", VM, { ENXIO, EINVAL } },
	{ "IRQ_LINE", VM, { ENXIO } },
	{ "IRQ_LINE_STATUS", VM, { ENXIO } },
	{ "SIGNAL_MSI", VM, { EINVAL } },
	{ "SET_GSI_ROUTING", VM, { EINVAL } },
	{ "IRQFD", VM, { EINVAL, EBADF, EBUSY } },
	{ "IOEVENTFD", VM, { EINVAL, EBADF, EEXIST, ENOENT } },
	{ "REGISTER_COALESCED_MMIO", VM, { EINVAL } },
	{ "UNREGISTER_COALESCED_MMIO", VM, { EINVAL } },
	{ "CREATE_PIT", VM, { ENOENT, EEXIST } },
	{ "CREATE_PIT2", VM, { ENOENT, EEXIST } },
	{ "GET_PIT", VM, { ENXIO } },
	{ "SET_PIT", VM, { ENXIO } },
	{ "GET_PIT2", VM, { ENXIO } },
	{ "SET_PIT2", VM, { ENXIO } },
	{ "REINJECT_CONTROL", VM, { ENXIO } },
	{ "SET_CLOCK", VM, { EINVAL } },
	{ "HYPERV_EVENTFD", VM, { EINVAL, EBADF, EEXIST, ENOENT } },
	{ "XEN_HVM_CONFIG", VM, { EINVAL } },
	{ "XEN_HVM_GET_ATTR", VM, { ENOENT } },
	{ "XEN_HVM_SET_ATTR", VM, { ENOENT, EINVAL } },
	{ "XEN_HVM_EVTCHN_SEND", VM, { EINVAL } },
	{ "X86_SET_MSR_FILTER", VM, { EINVAL } },
	{ "SET_TSC_KHZ", VM, { EINVAL } },
	{ "RUN", VCPU, { EINTR, EINVAL } },
	{ "SET_SREGS", VCPU, { EINVAL } },
	{ "SET_SREGS2", VCPU, { EINVAL } },
	{ "INTERRUPT", VCPU, { EINVAL, ENXIO, EEXIST } },
	{ "SET_MSRS", VCPU, { E2BIG } },
	{ "GET_MSRS", VCPU, { E2BIG } },
	{ "SET_CPUID", VCPU, { E2BIG, EINVAL } },
	{ "SET_CPUID2", VCPU, { E2BIG, EINVAL } },
	{ "GET_CPUID2", VCPU, { E2BIG } },
	{ "SET_SIGNAL_MASK", VCPU, { EINVAL } },
	{ "SET_XSAVE", VCPU, { EINVAL } },
	{ "SET_XCRS", VCPU, { EINVAL } },
	{ "GET_LAPIC", VCPU, { EINVAL } },
	{ "SET_LAPIC", VCPU, { EINVAL } },
	{ "SET_MP_STATE", VCPU, { EINVAL } },
	{ "SET_VCPU_EVENTS", VCPU, { EINVAL } },
	{ "SET_GUEST_DEBUG", VCPU, { EBUSY } },
	{ "SET_DEBUGREGS", VCPU, { EINVAL } },
	{ "ENABLE_CAP", VCPU, { EINVAL } },
	{ "XEN_VCPU_GET_ATTR", VCPU, { ENOENT } },
	{ "XEN_VCPU_SET_ATTR", VCPU, { ENOENT, EINVAL } },
	{ "KVMCLOCK_CTRL", VCPU, { EINVAL } },
	{ "SET_VAPIC_ADDR", VCPU, { EINVAL } },
	{ "X86_SETUP_MCE", VCPU, { EINVAL } },
	{ "X86_SET_MCE", VCPU, { EINVAL } },
	{ "GET_NESTED_STATE", VCPU, { E2BIG } },
	{ "SET_NESTED_STATE", VCPU, { EINVAL } },
	{ "SET_DEVICE_ATTR", VCPU, { ENXIO } },
	{ "GET_DEVICE_ATTR", VCPU, { ENXIO } },
	{ "HAS_DEVICE_ATTR", VCPU, { ENXIO } },
};

static struct seen {
	bool success, wrong_fd;
	unsigned char err[134]; /* by errno */
} seen[ROWS];

/* Which kind of descriptor a number is; 0: not known. */
static unsigned char kind_of[4096];

static int row_find(int kind, unsigned long request)
{
	for (unsigned i = 0; i < ROWS; i++)
		if (rows[i].kind == kind && (unsigned)rows[i].request == (unsigned)request)
			return (int)i;
	return -1;
}

void abi_table_note(int fd, unsigned long request, long r)
{
	int kind = fd >= 0 && fd < 4096 ? kind_of[fd] - 1 : -1, row;

	if (r >= 0 && r < 4096 && request == KVM_CREATE_VM)
		kind_of[r] = VM + 1;
	if (r >= 0 && r < 4096 && request == KVM_CREATE_VCPU)
		kind_of[r] = VCPU + 1;
	row = row_find(kind, request);
	if (row < 0)
		return;
	if (r >= 0)
		seen[row].success = true;
	else if (-r < (long)sizeof(seen[row].err))
		seen[row].err[-r] = 1;
}

void abi_table_system(int fd)
{
	kind_of[fd] = SYSTEM + 1;
}

static void wrong_fd_cases(struct abi *a, const int fds[KINDS], unsigned i)
{
	char name[80];

	for (int kind = 0; kind < KINDS; kind++) {
		if (row_find(kind, rows[i].request) >= 0)
			continue;
		snprintf(name, sizeof(name), "%s on the wrong descriptor, %s", rows[i].name,
			 kind_names[kind]);
		abi_case(a, name, kind == VM ? -ENOTTY : -EINVAL,
			 IOCTL(a, fds[kind], rows[i].request, 0));
		seen[i].wrong_fd = true;
	}
	snprintf(name, sizeof(name), "%s on no descriptor", rows[i].name);
	abi_case(a, name, -EBADF, IOCTL(a, -1, rows[i].request, 0));
}

static void argument_cases(struct abi *a, int fd, unsigned i)
{
	char name[80];

	if (rows[i].pass == NONE) {
		snprintf(name, sizeof(name), "%s with an argument", rows[i].name);
		abi_case(a, name, -EINVAL, IOCTL(a, fd, rows[i].request, 1));
	} else if (rows[i].pass != VALUE) {
		snprintf(name, sizeof(name), "%s (%s) of a bad pointer", rows[i].name,
			 kind_names[rows[i].kind]);
		abi_case(a, name, -EFAULT, IOCTL(a, fd, rows[i].request, abi_bad_pointer()));
	}
}

/* On a VM that has everything a request may ask for first. */
void abi_table_cases(struct abi *a)
{
	struct kvm_pit_config pit = { 0 };
	int fds[KINDS] = { a->sys };

	fds[VM] = abi_vm(a, NULL);
	abi_case(a, "CREATE_IRQCHIP", 0, IOCTL(a, fds[VM], KVM_CREATE_IRQCHIP, 0));
	abi_case(a, "CREATE_PIT2", 0, IOCTL(a, fds[VM], KVM_CREATE_PIT2, &pit));
	fds[VCPU] = (int)IOCTL(a, fds[VM], KVM_CREATE_VCPU, 0);
	for (unsigned i = 0; i < ROWS; i++) {
		wrong_fd_cases(a, fds, i);
		argument_cases(a, fds[rows[i].kind], i);
	}
	abi_close(a, fds[VCPU]);
	abi_close(a, fds[VM]);
}

static bool is_documented(const struct row *r, const char *name, int kind)
{
	return r->kind == kind && !strcmp(r->name, name);
}

/* "-" and the names of what was not seen; true: there is something. */
static bool holes_print(unsigned i, char *text, size_t room)
{
	size_t n = 0;

	text[0] = 0;
	if (!seen[i].success)
		n += snprintf(text + n, room - n, " success");
	if (rows[i].pass != VALUE && rows[i].pass != NONE && !seen[i].err[EFAULT])
		n += snprintf(text + n, room - n, " EFAULT");
	for (unsigned d = 0; d < sizeof(documented) / sizeof(documented[0]); d++) {
		if (!is_documented(&rows[i], documented[d].name, documented[d].kind))
			continue;
		for (unsigned e = 0; e < 6 && documented[d].err[e]; e++)
			if (!seen[i].err[documented[d].err[e]])
				n += snprintf(text + n, room - n, " %s",
					      strerrorname_np(documented[d].err[e]));
	}
	return n;
}

unsigned abi_table_report(bool print)
{
	char holes[160];
	unsigned bad = 0;

	for (unsigned i = 0; i < ROWS; i++) {
		bool any = holes_print(i, holes, sizeof(holes));

		bad += any;
		if (!print && !any)
			continue;
		printf("# %-6s %-28s %s%s", kind_names[rows[i].kind], rows[i].name,
		       seen[i].success ? "success" : "", seen[i].wrong_fd ? " wrong-fd" : "");
		for (unsigned e = 1; e < sizeof(seen[i].err); e++)
			if (seen[i].err[e])
				printf(" %s", strerrorname_np((int)e));
		printf("%s%s\n", any ? "; not seen:" : "", holes);
	}
	for (unsigned d = 0; d < sizeof(documented) / sizeof(documented[0]); d++) {
		bool found = false;

		for (unsigned i = 0; i < ROWS; i++)
			found |= is_documented(&rows[i], documented[d].name, documented[d].kind);
		if (!found)
			printf("# documented, but no row: %s\n", documented[d].name);
		bad += !found;
	}
	return bad;
}
