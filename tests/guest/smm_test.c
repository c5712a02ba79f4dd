/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* System management mode: SMI from every mode, memory of its own, the state-save map, RSM and what it refuses. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vm.h"

#define SMRAM	   0x30000ul /* guest-physical, in the address space of SMM only */
#define SMRAM_SIZE 0x20000ul
#define SMM_SLOT   (1 << 16 | 3)
/* Of the map, as the manuals count: from SMBASE + 0x8000. */
#define MAP(offset) (0x8000 + (offset))

static uint8_t *smram;

/* The guest leaves by one port, then halts; SMM leaves by another. */
GUEST(out16, 16, "out %al, $0x80; hlt");
GUEST(out32, 32, "out %al, $0x80; hlt");
GUEST(out64, 64, "out %al, $0x80; hlt");
GUEST(loop64, 64, "1: out %al, $0x80; jmp 1b");
GUEST(peek64, 64, "out %al, $0x80; mov 0x38000, %eax; hlt");
GUEST(rsm64, 64, "rsm");
GUEST(handler, 16, "mov $0x5a, %al; out %al, $0x81; rsm");
GUEST(relocate, 16, "movl $0x40000, %cs:0xff00; out %al, $0x82; rsm");
GUEST(spoil, 16, "movl $0x10000000, %cs:0xff54; rsm");
GUEST(paged, 16,
      "mov $0x5a, %al; out %al, $0x81; mov %cr4, %eax; or $0x10, %eax; mov %eax, %cr4; rsm");

static void smm_load(const uint8_t *code, const uint8_t *end)
{
	memset(smram, 0, SMRAM_SIZE);
	memcpy(smram + 0x8000, code, end - code);
}
#define SMM_LOAD(name) smm_load(name, name##_end)

static void make(struct vm *vm, unsigned flags)
{
	vm_make(vm, flags);
	if (vm_ioctl(vm, vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM) != 1)
		check_skip("no KVM_CAP_X86_SMM");
	smram = mmap(NULL, SMRAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	vm_slot(vm, SMM_SLOT, 0, SMRAM, SMRAM_SIZE, smram);
}

static uint64_t map_get(unsigned offset, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, smram + MAP(offset), size);
	return v;
}

static struct kvm_vcpu_events events(struct vm *vm)
{
	struct kvm_vcpu_events e;

	CHECK_EQ(vm_ioctl(vm, vm->vcpu, KVM_GET_VCPU_EVENTS, (unsigned long)&e), 0);
	return e;
}

static void smi(struct vm *vm)
{
	CHECK_EQ(vm_ioctl(vm, vm->vcpu, KVM_SMI, 0), 0);
}

/* Run, and expect OUT to @port. */
static void expect_port(struct vm *vm, unsigned port, bool in_smm, const char *where)
{
	check_exit(vm, KVM_EXIT_IO, where);
	if (vm->run->io.port != port)
		check_fatal(where, "port %#x, expected %#x", vm->run->io.port, port);
	if (!!(vm->run->flags & KVM_RUN_X86_SMM) != in_smm)
		check_failed(where, "run->flags is %#x", vm->run->flags);
	if (events(vm).smi.smm != in_smm)
		check_failed(where, "smi.smm is %u", events(vm).smi.smm);
}
#define EXPECT_PORT(vm, port, in_smm) expect_port(vm, port, in_smm, VM_HERE)

/* A VM whose guest has left by its port once, with an SMI pending for the code @smm. */
static void interrupted(struct vm *vm, enum vm_mode mode, const uint8_t *code, const uint8_t *end,
			const uint8_t *smm, const uint8_t *smm_end)
{
	make(vm, 0);
	vm_enter(vm, mode, 0);
	vm_load(vm, VM_CODE, code, end - code);
	smm_load(smm, smm_end);
	EXPECT_PORT(vm, 0x80, false);
	smi(vm);
}
#define INTERRUPTED(vm, mode, guest, smm) interrupted(vm, mode, guest, guest##_end, smm, smm##_end)

static void check_inside(struct vm *vm)
{
	struct kvm_sregs s = vm_sregs(vm);

	CHECK_EQ(s.cr0 & 0x8000000d, 0); /* PE, EM, TS, PG */
	CHECK_EQ(s.cr4, 0);
	CHECK_EQ(s.efer, 0);
	CHECK_EQ(s.cs.base, SMRAM);
	CHECK_EQ(s.cs.selector, SMRAM >> 4);
	CHECK_EQ(s.ds.limit, 0xffffffff);
	CHECK_EQ(s.idt.limit, 0);
	CHECK_EQ(vm_regs(vm).rflags, 2);
	CHECK_EQ(vm_regs(vm).rip & ~0xful, 0x8000);
	CHECK_EQ(events(vm).nmi.masked, 1);
}

static void check_map(const struct kvm_regs *r, const struct kvm_sregs *s)
{
	CHECK_EQ(map_get(0x7efc, 4), 0x20064);
	CHECK_EQ(map_get(0x7f00, 4), SMRAM);
	CHECK_EQ(map_get(0x7ff8, 8), r->rax);
	CHECK_EQ(map_get(0x7fe0, 8), r->rbx);
	CHECK_EQ(map_get(0x7f80, 8), r->r15);
	CHECK_EQ(map_get(0x7f70, 4), r->rflags);
	CHECK_EQ(map_get(0x7f58, 8), s->cr0);
	CHECK_EQ(map_get(0x7f50, 8), s->cr3);
	CHECK_EQ(map_get(0x7f48, 8), s->cr4);
	CHECK_EQ(map_get(0x7ed0, 8), s->efer);
	CHECK_EQ(map_get(0x7e10, 2), s->cs.selector);
	CHECK_EQ(map_get(0x7e18, 8), s->cs.base);
	CHECK_EQ(map_get(0x7e68, 8), s->gdt.base);
	CHECK_EQ(map_get(0x7e84, 4), s->idt.limit);
	CHECK_EQ(map_get(0x7e90, 2), s->tr.selector);
}

/* An SMI between two instructions of the mode changes nothing that the guest can see. */
static void round_trip(enum vm_mode mode, unsigned cpl, const uint8_t *code, const uint8_t *end)
{
	struct kvm_sregs s, s2;
	struct kvm_regs r, r2;
	struct vm vm;

	make(&vm, 0);
	check_note("%s, CPL %u", vm_mode_names[mode], cpl);
	vm_enter(&vm, mode, cpl);
	vm_load(&vm, VM_CODE, code, end - code);
	SMM_LOAD(handler);
	r = vm_regs(&vm);
	r.rax = 0x1122334455667788;
	r.rbx = 0x99aabbccddeeff00;
	r.r15 = 0x0123456789abcdef;
	r.rflags |= 0x3000 | 0x8d5; /* IOPL 3: OUT is for everybody */
	vm_set_regs(&vm, &r);
	if (mode != VM_V86) /* ports are never free there */
		EXPECT_PORT(&vm, 0x80, false);
	smi(&vm);
	CHECK_EQ(events(&vm).smi.pending, 1);
	r = vm_regs(&vm);
	s = vm_sregs(&vm);
	EXPECT_PORT(&vm, 0x81, true);
	check_inside(&vm);
	check_map(&r, &s);
	check_exit(&vm, cpl && mode != VM_REAL ? KVM_EXIT_IO : KVM_EXIT_HLT, VM_HERE);
	if (!cpl || mode == VM_REAL) { /* HLT of a user is a #GP that the stub tells */
		r2 = vm_regs(&vm);
		s2 = vm_sregs(&vm);
		r.rip = r2.rip;
		CHECK(!memcmp(&r, &r2, sizeof(r)));
		CHECK(!memcmp(&s, &s2, sizeof(s)));
	} else {
		CHECK_EQ(vm.run->io.port, 13);
	}
	CHECK_EQ(events(&vm).smi.smm, 0);
	CHECK_EQ(events(&vm).nmi.masked, 0);
	vm_destroy(&vm);
}

static void round_trips(void)
{
	round_trip(VM_REAL, 0, out16, out16_end);
	round_trip(VM_PM16, 0, out16, out16_end);
	round_trip(VM_PM32, 0, out32, out32_end);
	round_trip(VM_PM32, 3, out32, out32_end);
	round_trip(VM_PAGED32, 0, out32, out32_end);
	round_trip(VM_PAE, 0, out32, out32_end);
	round_trip(VM_COMPAT, 0, out32, out32_end);
	round_trip(VM_COMPAT, 3, out32, out32_end);
	round_trip(VM_LONG, 0, out64, out64_end);
	round_trip(VM_LONG, 3, out64, out64_end);
	round_trip(VM_V86, 3, out16, out16_end);
}

/* A processor without long mode has the map of the P6. */
static void old_map(void)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));
	struct kvm_regs r, r2;
	struct vm vm;

	make(&vm, 0);
	c->nent = 256;
	CHECK_EQ(vm_ioctl(&vm, vm.sys, KVM_GET_SUPPORTED_CPUID, (unsigned long)c), 0);
	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function == 0x80000001)
			c->entries[i].edx &= ~(1u << 29);
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_SET_CPUID2, (unsigned long)c), 0);
	free(c);
	VM_START(&vm, VM_PAGED32, 0, out32);
	SMM_LOAD(handler);
	EXPECT_PORT(&vm, 0x80, false);
	smi(&vm);
	r = vm_regs(&vm);
	EXPECT_PORT(&vm, 0x81, true);
	CHECK_EQ(map_get(0x7efc, 4), 0x20000);
	CHECK_EQ(map_get(0x7ef8, 4), SMRAM);
	CHECK_EQ(map_get(0x7ffc, 4), 0x80000000 | (map_get(0x7ffc, 4) & 0x7fffffff));
	CHECK_EQ(map_get(0x7fd0, 4), (uint32_t)r.rax);
	CHECK_EQ(map_get(0x7fac, 4), SEL_CODE32);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	r2 = vm_regs(&vm);
	r.rip = r2.rip;
	CHECK(!memcmp(&r, &r2, sizeof(r)));
	vm_destroy(&vm);
}

static void relocation(void)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = { .head.nmsrs = 1, .entry.index = 0x9e };
	struct vm vm;

	INTERRUPTED(&vm, VM_LONG, loop64, relocate);
	memcpy(smram + 0x18000, handler, handler_end - handler);
	EXPECT_PORT(&vm, 0x82, true);
	EXPECT_PORT(&vm, 0x80, false);
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_GET_MSRS, (unsigned long)&m), 1);
	CHECK_EQ(m.entry.data, 0x40000);
	smi(&vm);
	EXPECT_PORT(&vm, 0x81, true);
	CHECK_EQ(vm_sregs(&vm).cs.base, 0x40000);
	/* An SMI in SMM waits for RSM; two are one. */
	smi(&vm);
	smi(&vm);
	EXPECT_PORT(&vm, 0x81, true);
	EXPECT_PORT(&vm, 0x80, false);
	vm_destroy(&vm);
}

/* What only SMM can see. */
static void memory(void)
{
	struct vm vm;

	INTERRUPTED(&vm, VM_LONG, peek64, handler);
	vm_poke(&vm, 0x38000, 0x600df00d, 4);
	EXPECT_PORT(&vm, 0x81, true);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rax, 0x600df00d);
	CHECK_EQ(vm_peek(&vm, 0x3fefc, 4), 0); /* the map went to the other space */
	vm_destroy(&vm);
}

/* A CR3 beyond MAXPHYADDR is refused before long mode is on. */
static void refusals(void)
{
	struct vm vm;

	INTERRUPTED(&vm, VM_LONG, out64, spoil);
	CHECK_EXIT(&vm, KVM_EXIT_SHUTDOWN);
	vm_destroy(&vm);
	make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, rsm64);
	VM_FAULT(&vm, 6);
	vm_destroy(&vm);
}

/* NMIs wait for RSM, also when they were blocked before the SMI. */
static void nmis(void)
{
	struct vm vm;

	INTERRUPTED(&vm, VM_LONG, loop64, paged);
	EXPECT_PORT(&vm, 0x81, true);
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_NMI, 0), 0);
	EXPECT_PORT(&vm, 2, false); /* the stub of vector 2, before its IRET */
	CHECK_EQ(events(&vm).nmi.masked, 1);
	smi(&vm);
	EXPECT_PORT(&vm, 0x81, true);
	CHECK_EQ(events(&vm).smi.smm_inside_nmi, 1);
	EXPECT_PORT(&vm, 0x80, false);
	CHECK_EQ(events(&vm).nmi.masked, 0); /* the stub's IRET came between */
	vm_destroy(&vm);
}

static void by_events(void)
{
	struct kvm_vcpu_events e;
	struct kvm_mp_state mp = { KVM_MP_STATE_HALTED };
	struct vm vm;

	make(&vm, VM_IRQCHIP);
	CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE), 2);
	VM_START(&vm, VM_LONG, 0, out64);
	SMM_LOAD(handler);
	/* A halted processor is woken. */
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_SET_MP_STATE, (unsigned long)&mp), 0);
	smi(&vm);
	EXPECT_PORT(&vm, 0x81, true);
	e = events(&vm);
	CHECK_EQ(e.flags & KVM_VCPUEVENT_VALID_SMM, KVM_VCPUEVENT_VALID_SMM);
	/* Out and in again by user space; INIT waits for RSM. */
	e.smi.smm = 0;
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_SET_VCPU_EVENTS, (unsigned long)&e), 0);
	CHECK_EQ(events(&vm).smi.smm, 0);
	e.smi.smm = 1;
	e.smi.latched_init = 1;
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_SET_VCPU_EVENTS, (unsigned long)&e), 0);
	CHECK_EQ(events(&vm).smi.smm, 1);
	CHECK_EQ(events(&vm).smi.latched_init, 1);
	mp.mp_state = KVM_MP_STATE_INIT_RECEIVED;
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_SET_MP_STATE, (unsigned long)&mp), -EINVAL);
	vm_destroy(&vm);
}

VM_TESTS({ "SMI and RSM in every mode", round_trips, 60, false },
	 { "32-bit map", old_map, 0, false }, { "SMBASE", relocation, 0, false },
	 { "address space", memory, 0, false }, { "what RSM refuses", refusals, 0, false },
	 { "NMIs", nmis, 0, false }, { "events by user space", by_events, 0, false });
