/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Cases of what is special to x86: MSR filters and exits, machine checks, attributes, nested state, quirks. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi.h"

#define MSR_STAR  0xc0000081u
#define MCI_VALID (1ull << 63)
#define MCI_UC	  (1ull << 61)

static void filter_errors(struct abi *a, int vm, int vcpu)
{
	__u8 bits[0x601] = { 0 };
	struct kvm_msr_filter f = { .flags = 2 };

	abi_case(a, "X86_SET_MSR_FILTER unknown flag", -EINVAL,
		 IOCTL(a, vm, KVM_X86_SET_MSR_FILTER, &f));
	f.flags = KVM_MSR_FILTER_DEFAULT_DENY;
	abi_case(a, "X86_SET_MSR_FILTER denies all", -EINVAL,
		 IOCTL(a, vm, KVM_X86_SET_MSR_FILTER, &f));
	f = (struct kvm_msr_filter){ .ranges[3] = { .nmsrs = 1, .bitmap = bits } };
	abi_case(a, "X86_SET_MSR_FILTER range for nothing", -EINVAL,
		 IOCTL(a, vm, KVM_X86_SET_MSR_FILTER, &f));
	f.ranges[3].flags = 4;
	abi_case(a, "X86_SET_MSR_FILTER unknown range flag", -EINVAL,
		 IOCTL(a, vm, KVM_X86_SET_MSR_FILTER, &f));
	f.ranges[3].flags = KVM_MSR_FILTER_READ;
	f.ranges[3].nmsrs = KVM_MSR_FILTER_MAX_BITMAP_SIZE * 8 + 1;
	abi_case(a, "X86_SET_MSR_FILTER range too long", -EINVAL,
		 IOCTL(a, vm, KVM_X86_SET_MSR_FILTER, &f));
	f.ranges[3].nmsrs = 1;
	f.ranges[3].bitmap = abi_bad_pointer();
	abi_case(a, "X86_SET_MSR_FILTER, bad bitmap", -EFAULT,
		 IOCTL(a, vm, KVM_X86_SET_MSR_FILTER, &f));
	abi_case(a, "X86_SET_MSR_FILTER, bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_X86_SET_MSR_FILTER, abi_bad_pointer()));
	abi_case(a, "X86_SET_MSR_FILTER on a vCPU", -EINVAL,
		 IOCTL(a, vcpu, KVM_X86_SET_MSR_FILTER, &f));
	f = (struct kvm_msr_filter){ 0 };
	abi_case(a, "X86_SET_MSR_FILTER empty", 0, IOCTL(a, vm, KVM_X86_SET_MSR_FILTER, &f));
	abi_case(a, "ENABLE_CAP USER_SPACE_MSR unknown reason", -EINVAL,
		 abi_enable(a, vm, KVM_CAP_X86_USER_SPACE_MSR, 8));
}

/* mov $STAR, %ecx; rdmsr; wrmsr; hlt */
static void msr_exit_cases(struct abi *a)
{
	__u8 none = 0;
	struct kvm_msr_filter f = { .ranges[0] = { .flags = KVM_MSR_FILTER_READ |
							    KVM_MSR_FILTER_WRITE,
						   .base = MSR_STAR,
						   .nmsrs = 1,
						   .bitmap = &none } };
	struct abi_guest g;

	ABI_START(a, &g, false, 0x66, 0xb9, 0x81, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0f, 0x30, 0xf4);
	filter_errors(a, g.vm, g.vcpu);
	abi_enable(a, g.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER);
	abi_case(a, "X86_SET_MSR_FILTER", 0, IOCTL(a, g.vm, KVM_X86_SET_MSR_FILTER, &f));
	abi_run(a, &g);
	abi_case(a, "filtered RDMSR exits", KVM_EXIT_X86_RDMSR, g.run->exit_reason);
	abi_case(a, "filtered RDMSR says why", KVM_MSR_EXIT_REASON_FILTER, g.run->msr.reason);
	abi_case(a, "filtered RDMSR says which", 1, g.run->msr.index == MSR_STAR);
	g.run->msr.data = 0x1234500006789ull;
	abi_run(a, &g);
	abi_case(a, "answered RDMSR: WRMSR follows", KVM_EXIT_X86_WRMSR, g.run->exit_reason);
	abi_case(a, "answered RDMSR gives the value", 1, g.run->msr.data == 0x1234500006789ull);
	abi_case(a, "RIP at the exit is the WRMSR's", 0x108, (long)abi_regs(a, &g).rip);
	abi_run(a, &g);
	abi_case(a, "answered WRMSR is done", KVM_EXIT_HLT, g.run->exit_reason);
	abi_stop(a, &g);
}

/* The VMM refuses the access: #GP, and there is no handler in the page. */
static void msr_refuse_cases(struct abi *a)
{
	struct abi_guest g;

	ABI_START(a, &g, false, 0x66, 0xb9, 0xef, 0xbe, 0xad, 0xde, 0x0f, 0x32, 0xf4);
	abi_enable(a, g.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN);
	abi_run(a, &g);
	abi_case(a, "unknown RDMSR exits", KVM_EXIT_X86_RDMSR, g.run->exit_reason);
	abi_case(a, "unknown RDMSR says why", KVM_MSR_EXIT_REASON_UNKNOWN, g.run->msr.reason);
	g.run->msr.error = 1;
	g.page[4 * 13] = 0x0a; /* vector of #GP: 0:0x10a, a HLT behind the other */
	g.page[4 * 13 + 1] = 1;
	g.page[0x10a] = 0xf4;
	abi_run(a, &g);
	abi_case(a, "refused RDMSR is #GP", 0x10b, (long)abi_regs(a, &g).rip);
	abi_stop(a, &g);
}

/* mov $6, %cx; mov $0x300, %di; mov $0x80, %dx; rep insw; hlt: one exit for the batch */
static void ins_cases(struct abi *a)
{
	struct abi_guest g;
	uint8_t *data;

	ABI_START(a, &g, false, 0xb9, 6, 0, 0xbf, 0, 3, 0xba, 0x80, 0, 0xf3, 0x6d, 0xf4);
	abi_run(a, &g);
	abi_case(a, "REP INS asks at once", 6, g.run->io.count);
	abi_case(a, "REP INS: size", 2, g.run->io.size);
	data = (uint8_t *)g.run + g.run->io.data_offset;
	for (int i = 0; i < 12; i++)
		data[i] = i + 1;
	abi_run(a, &g);
	abi_case(a, "REP INS is complete", KVM_EXIT_HLT, g.run->exit_reason);
	abi_case(a, "REP INS: first and last byte", 0x010c, g.page[0x300] << 8 | g.page[0x30b]);
	abi_case(a, "REP INS: nothing beyond", 0, g.page[0x30c]);
	abi_case(a, "REP INS: RDI", 0x30c, (long)abi_regs(a, &g).rdi);
	abi_stop(a, &g);
}

static void mce_cases(struct abi *a)
{
	struct kvm_x86_mce m = { .status = MCI_VALID | MCI_UC, .bank = 32 };
	__u64 cap = 4 | 1 << 8;
	int vcpu, vm = abi_vm(a, &vcpu);
	struct kvm_vcpu_events e;

	abi_case(a, "X86_SET_MCE, no such bank", -EINVAL, IOCTL(a, vcpu, KVM_X86_SET_MCE, &m));
	m.bank = 4;
	IOCTL(a, vcpu, KVM_X86_SETUP_MCE, &cap);
	abi_case(a, "X86_SET_MCE, bank past the set up ones", -EINVAL,
		 IOCTL(a, vcpu, KVM_X86_SET_MCE, &m));
	m.bank = 3;
	m.status = MCI_UC;
	abi_case(a, "X86_SET_MCE, not valid", -EINVAL, IOCTL(a, vcpu, KVM_X86_SET_MCE, &m));
	abi_case(a, "X86_SET_MCE, bad pointer", -EFAULT,
		 IOCTL(a, vcpu, KVM_X86_SET_MCE, abi_bad_pointer()));
	abi_case(a, "X86_SET_MCE on a VM", -ENOTTY, IOCTL(a, vm, KVM_X86_SET_MCE, &m));
	m.status = MCI_VALID;
	abi_case(a, "X86_SET_MCE, corrected", 0, IOCTL(a, vcpu, KVM_X86_SET_MCE, &m));
	/* Uncorrected, and the guest has not set CR4.MCE: the machine is down. */
	m.status = MCI_VALID | MCI_UC | 1ull << 57;
	abi_enable(a, vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1);
	abi_case(a, "X86_SET_MCE, uncorrected", 0, IOCTL(a, vcpu, KVM_X86_SET_MCE, &m));
	IOCTL(a, vcpu, KVM_GET_VCPU_EVENTS, &e);
	abi_case(a, "it is a triple fault", 1, e.triple_fault.pending);
	abi_close(a, vcpu);
	abi_close(a, vm);
}

static long debug(struct abi *a, struct abi_guest *g, unsigned control, unsigned dr7, unsigned dr0)
{
	struct kvm_guest_debug d = { .control = control,
				     .arch.debugreg = { [0] = dr0, [7] = dr7 } };

	return IOCTL(a, g->vcpu, KVM_SET_GUEST_DEBUG, &d);
}

static void triple_fault_cases(struct abi *a)
{
	struct kvm_vcpu_events e;
	struct abi_guest g;

	ABI_START(a, &g, false, 0xf4);
	IOCTL(a, g.vcpu, KVM_GET_VCPU_EVENTS, &e);
	abi_case(a, "no triple fault in events before it is enabled", 0,
		 !!(e.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT));
	e.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	abi_case(a, "SET_VCPU_EVENTS triple fault, not enabled", -EINVAL,
		 IOCTL(a, g.vcpu, KVM_SET_VCPU_EVENTS, &e));
	abi_case(a, "ENABLE_CAP TRIPLE_FAULT_EVENT", 0,
		 abi_enable(a, g.vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1));
	e.triple_fault.pending = 1;
	abi_case(a, "SET_VCPU_EVENTS triple fault", 0, IOCTL(a, g.vcpu, KVM_SET_VCPU_EVENTS, &e));
	abi_case(a, "SET_GUEST_DEBUG injects nothing beside it", -EBUSY,
		 debug(a, &g, KVM_GUESTDBG_INJECT_BP, 0, 0));
	abi_run(a, &g);
	abi_case(a, "it ends the run", KVM_EXIT_SHUTDOWN, g.run->exit_reason);
	abi_run(a, &g);
	abi_case(a, "once", KVM_EXIT_HLT, g.run->exit_reason);
	abi_stop(a, &g);
}

static void attr_cases(struct abi *a)
{
	__u64 value = 0;
	struct kvm_device_attr d = { .group = KVM_VCPU_TSC_CTRL,
				     .attr = KVM_VCPU_TSC_OFFSET,
				     .addr = (uintptr_t)&value };
	int vcpu, vm = abi_vm(a, &vcpu);

	abi_case(a, "HAS_DEVICE_ATTR TSC offset", 0, IOCTL(a, vcpu, KVM_HAS_DEVICE_ATTR, &d));
	value = 12345;
	abi_case(a, "SET_DEVICE_ATTR TSC offset", 0, IOCTL(a, vcpu, KVM_SET_DEVICE_ATTR, &d));
	value = 0;
	abi_case(a, "GET_DEVICE_ATTR TSC offset", 0, IOCTL(a, vcpu, KVM_GET_DEVICE_ATTR, &d));
	abi_case(a, "GET_DEVICE_ATTR gives what was set", 12345, (long)value);
	d.addr = (uintptr_t)abi_bad_pointer();
	abi_case(a, "GET_DEVICE_ATTR, bad value pointer", -EFAULT,
		 IOCTL(a, vcpu, KVM_GET_DEVICE_ATTR, &d));
	abi_case(a, "SET_DEVICE_ATTR, bad value pointer", -EFAULT,
		 IOCTL(a, vcpu, KVM_SET_DEVICE_ATTR, &d));
	abi_case(a, "SET_DEVICE_ATTR, bad pointer", -EFAULT,
		 IOCTL(a, vcpu, KVM_SET_DEVICE_ATTR, abi_bad_pointer()));
	d.attr = 7;
	abi_case(a, "HAS_DEVICE_ATTR unknown", -ENXIO, IOCTL(a, vcpu, KVM_HAS_DEVICE_ATTR, &d));
	abi_case(a, "GET_DEVICE_ATTR unknown", -ENXIO, IOCTL(a, vcpu, KVM_GET_DEVICE_ATTR, &d));
	abi_case(a, "SET_DEVICE_ATTR unknown", -ENXIO, IOCTL(a, vcpu, KVM_SET_DEVICE_ATTR, &d));
	d = (struct kvm_device_attr){ .attr = KVM_X86_XCOMP_GUEST_SUPP, .addr = (uintptr_t)&value };
	abi_case(a, "HAS_DEVICE_ATTR XCOMP", 0, IOCTL(a, a->sys, KVM_HAS_DEVICE_ATTR, &d));
	abi_case(a, "GET_DEVICE_ATTR XCOMP", 0, IOCTL(a, a->sys, KVM_GET_DEVICE_ATTR, &d));
	abi_case(a, "x87 is in it", 1, value & 1);
	d.attr = 9;
	abi_case(a, "system GET_DEVICE_ATTR unknown", -ENXIO,
		 IOCTL(a, a->sys, KVM_GET_DEVICE_ATTR, &d));
	abi_case(a, "system SET_DEVICE_ATTR", -EINVAL, IOCTL(a, a->sys, KVM_SET_DEVICE_ATTR, &d));
	abi_close(a, vcpu);
	abi_close(a, vm);
}

static void nested_cases(struct abi *a)
{
	struct kvm_nested_state s = { .size = 8 };
	int vcpu, vm = abi_vm(a, &vcpu);

	abi_case(a, "GET_NESTED_STATE without room", -E2BIG,
		 IOCTL(a, vcpu, KVM_GET_NESTED_STATE, &s));
	abi_case(a, "GET_NESTED_STATE says how much", 1, s.size >= sizeof(s));
	s.size = sizeof(s);
	abi_case(a, "GET_NESTED_STATE", 0, IOCTL(a, vcpu, KVM_GET_NESTED_STATE, &s));
	abi_case(a, "SET_NESTED_STATE of what it gave", 0,
		 IOCTL(a, vcpu, KVM_SET_NESTED_STATE, &s));
	s.flags = KVM_STATE_NESTED_RUN_PENDING;
	abi_case(a, "SET_NESTED_STATE pending without a guest", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_NESTED_STATE, &s));
	s.flags = 0x8000;
	abi_case(a, "SET_NESTED_STATE unknown flag", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_NESTED_STATE, &s));
	s.flags = 0;
	s.size = 4;
	abi_case(a, "SET_NESTED_STATE too small", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_NESTED_STATE, &s));
	abi_case(a, "GET_NESTED_STATE, bad pointer", -EFAULT,
		 IOCTL(a, vcpu, KVM_GET_NESTED_STATE, abi_bad_pointer()));
	abi_case(a, "SET_NESTED_STATE, bad pointer", -EFAULT,
		 IOCTL(a, vcpu, KVM_SET_NESTED_STATE, abi_bad_pointer()));
	abi_close(a, vcpu);
	abi_close(a, vm);
}

static void quirk_cases(struct abi *a)
{
	int vm = abi_vm(a, NULL);

	abi_case(a, "DISABLE_QUIRKS2 unknown", -EINVAL,
		 abi_enable(a, vm, KVM_CAP_DISABLE_QUIRKS2, 1ull << 40));
	abi_case(a, "DISABLE_QUIRKS2", 0,
		 abi_enable(a, vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_FIX_HYPERCALL_INSN));
	abi_case(a, "DISABLE_QUIRKS2 takes back", 0, abi_enable(a, vm, KVM_CAP_DISABLE_QUIRKS2, 0));
	abi_case(a, "MSR_PLATFORM_INFO", 0, abi_enable(a, vm, KVM_CAP_MSR_PLATFORM_INFO, 0));
	abi_case(a, "EXIT_ON_EMULATION_FAILURE", 0,
		 abi_enable(a, vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1));
	abi_case(a, "EXIT_ON_EMULATION_FAILURE unknown", -EINVAL,
		 abi_enable(a, vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 2));
	abi_close(a, vm);
}

/* nop; mov %al, 0x300; int3; hlt */
static void debug_cases(struct abi *a)
{
	struct abi_guest g;

	ABI_START(a, &g, false, 0x90, 0xa2, 0x00, 0x03, 0xcc, 0xf4);
	abi_case(a, "SET_GUEST_DEBUG, bad pointer", -EFAULT,
		 IOCTL(a, g.vcpu, KVM_SET_GUEST_DEBUG, abi_bad_pointer()));
	abi_case(a, "SET_GUEST_DEBUG on a VM", -ENOTTY, IOCTL(a, g.vm, KVM_SET_GUEST_DEBUG, 0));
	abi_case(a, "SET_GUEST_DEBUG step", 0,
		 debug(a, &g, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP, 0x400, 0));
	abi_run(a, &g);
	abi_case(a, "a step exits", KVM_EXIT_DEBUG, g.run->exit_reason);
	abi_case(a, "a step is #DB", 1, g.run->debug.arch.exception);
	abi_case(a, "a step is behind the instruction", 0x101, (long)g.run->debug.arch.pc);
	abi_case(a, "a step: DR6", 0xffff4ff0, (long)g.run->debug.arch.dr6);
	/* A write of one byte at 0x300. */
	debug(a, &g, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, 0x10402, 0x300);
	abi_run(a, &g);
	abi_case(a, "a watchpoint exits", KVM_EXIT_DEBUG, g.run->exit_reason);
	abi_case(a, "a watchpoint is behind the instruction", 0x104, (long)g.run->debug.arch.pc);
	abi_case(a, "a watchpoint: DR6", 0xffff0ff1, (long)g.run->debug.arch.dr6);
	debug(a, &g, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, 0x402, 0x104);
	abi_run(a, &g);
	abi_case(a, "a breakpoint is at the instruction", 0x104, (long)g.run->debug.arch.pc);
	debug(a, &g, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP, 0x400, 0);
	abi_run(a, &g);
	abi_case(a, "INT3 exits", 3, g.run->debug.arch.exception);
	abi_case(a, "INT3 is at the instruction", 0x104, (long)g.run->debug.arch.pc);
	abi_case(a, "SET_GUEST_DEBUG off", 0, debug(a, &g, 0, 0, 0));
	abi_case(a, "SET_GUEST_DEBUG injects #BP", 0, debug(a, &g, KVM_GUESTDBG_INJECT_BP, 0, 0));
	abi_case(a, "SET_GUEST_DEBUG injects one", -EBUSY,
		 debug(a, &g, KVM_GUESTDBG_INJECT_DB, 0, 0));
	g.page[4 * 3 + 1] = 2; /* vector of #BP: 0:0x200 */
	g.page[0x200] = 0xf4;
	abi_run(a, &g);
	abi_case(a, "the injected #BP is delivered", 0x201, (long)abi_regs(a, &g).rip);
	abi_stop(a, &g);
}

/* The guest's own data breakpoint: mov %eax, %dr0 and %dr7, then a store that hits, and one that does not. */
static void guest_breakpoint_cases(struct abi *a)
{
	struct kvm_debugregs d;
	struct abi_guest g;

	ABI_START(a, &g, false, 0xa2, 0x01, 0x03, 0xa2, 0x00, 0x03, 0xf4);
	IOCTL(a, g.vcpu, KVM_GET_DEBUGREGS, &d);
	d.db[0] = 0x300;
	d.dr7 = 0x10402; /* a write, one byte */
	IOCTL(a, g.vcpu, KVM_SET_DEBUGREGS, &d);
	g.page[4 * 1 + 1] = 2; /* vector of #DB: 0:0x200 */
	g.page[0x200] = 0xf4;
	abi_run(a, &g);
	abi_case(a, "the guest's watchpoint is delivered", 0x201, (long)abi_regs(a, &g).rip);
	abi_case(a, "behind the store that hit", 0x106, g.page[0x7fa] | g.page[0x7fb] << 8);
	IOCTL(a, g.vcpu, KVM_GET_DEBUGREGS, &d);
	abi_case(a, "DR6 of the guest", 0xffff0ff1, (long)d.dr6);
	abi_stop(a, &g);
}

static void stats_cases(struct abi *a)
{
	struct kvm_stats_header h = { 0 };
	struct abi_guest g;
	int fd;

	ABI_START(a, &g, false, 0xf4);
	fd = IOCTL(a, g.vcpu, KVM_GET_STATS_FD, 0);
	abi_case(a, "GET_STATS_FD of a vCPU", ABI_OK, fd);
	abi_case(a, "its header", sizeof(h), read(fd, &h, sizeof(h)));
	abi_case(a, "size of a name", 48, h.name_size);
	abi_case(a, "it cannot be written", -1, write(fd, &h, 1));
	close(fd);
	fd = IOCTL(a, g.vm, KVM_GET_STATS_FD, 0);
	abi_case(a, "GET_STATS_FD of a VM", ABI_OK, fd);
	close(fd);
	abi_case(a, "GET_STATS_FD of the system", -EINVAL, IOCTL(a, a->sys, KVM_GET_STATS_FD, 0));
	abi_stop(a, &g);
}

void abi_x86_cases(struct abi *a)
{
	debug_cases(a);
	guest_breakpoint_cases(a);
	stats_cases(a);
	msr_exit_cases(a);
	msr_refuse_cases(a);
	ins_cases(a);
	mce_cases(a);
	triple_fault_cases(a);
	attr_cases(a);
	nested_cases(a);
	quirk_cases(a);
}
