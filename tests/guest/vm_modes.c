/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Descriptor tables, page tables and segment registers for each mode of the test VMM. */
#include <string.h>

#include "vm.h"

const char *const vm_mode_names[VM_MODES] = {
	[VM_REAL] = "real",	[VM_PM16] = "16-bit",	 [VM_PM32] = "32-bit",
	[VM_PAGED32] = "paged", [VM_PAE] = "PAE",	 [VM_COMPAT] = "compatibility",
	[VM_LONG] = "64-bit",	[VM_V86] = "virtual-86",
};

#define PTE_ALL 0x67ull /* present, writable, user, accessed, dirty */
#define PTE_PS	0x80ull

static bool is_long(enum vm_mode mode)
{
	return mode == VM_LONG || mode == VM_COMPAT;
}

static uint64_t descriptor(uint32_t base, uint32_t limit, unsigned attr)
{
	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)attr << 40 |
	       (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)(base >> 24) << 56;
}

/* Attributes: access byte, and the upper nibble of flags 8 bits higher. */
static void gdt_write(struct vm *vm, enum vm_mode mode)
{
	uint64_t gdt[13] = {
		[SEL_CODE64 >> 3] = descriptor(0, 0xfffff, 0xa09b),
		[SEL_DATA >> 3] = descriptor(0, 0xfffff, 0xc093),
		[SEL_CODE32 >> 3] = descriptor(0, 0xfffff, 0xc09b),
		[SEL_USER32 >> 3] = descriptor(0, 0xfffff, 0xc0fb),
		[SEL_USER_DATA >> 3] = descriptor(0, 0xfffff, 0xc0f3),
		[SEL_USER64 >> 3] = descriptor(0, 0xfffff, 0xa0fb),
		[SEL_CODE16 >> 3] = descriptor(0, 0xffff, 0x009b),
		[SEL_DATA16 >> 3] = descriptor(0, 0xffff, 0x0093),
		[SEL_USER16 >> 3] = descriptor(0, 0xffff, 0x00fb),
		[SEL_USER_DATA16 >> 3] = descriptor(0, 0xffff, 0x00f3),
		[SEL_TSS >> 3] = descriptor(VM_TSS, is_long(mode) ? 103 : 103, 0x008b),
	};

	memcpy(vm->ram + VM_GDT, gdt, sizeof(gdt));
	memset(vm->ram + VM_TSS, 0, 104);
	if (is_long(mode)) {
		vm_poke(vm, VM_TSS + 4, VM_STACK, 8);
		vm_poke(vm, VM_TSS + 36, VM_IST, 8);
	} else {
		vm_poke(vm, VM_TSS + 4, VM_STACK, 4);
		vm_poke(vm, VM_TSS + 8, SEL_DATA, 4);
	}
	vm_poke(vm, VM_TSS + 102, 104, 2);
}

/* OUT to the vector's port, drop an error code, IRET: in the width of the mode's handlers. */
static void stub_write(struct vm *vm, enum vm_mode mode, unsigned vector)
{
	uint8_t stub[16] = { 0xe6, vector }, *p = stub + 2;
	bool error = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;

	if (error && mode != VM_REAL) {
		if (is_long(mode))
			*p++ = 0x48;
		*p++ = 0x83;
		*p++ = 0xc4;
		*p++ = is_long(mode) ? 8 : 4;
	}
	if (is_long(mode))
		*p++ = 0x48;
	*p = 0xcf;
	vm_load(vm, VM_STUBS + 16 * vector, stub, sizeof(stub));
}

static void idt_write(struct vm *vm, enum vm_mode mode)
{
	for (unsigned v = 0; v < 256; v++) {
		uint32_t to = VM_STUBS + 16 * v;

		stub_write(vm, mode, v);
		if (mode == VM_REAL) {
			vm_poke(vm, 4 * v, to, 4);
		} else if (is_long(mode)) {
			vm_poke(vm, VM_IDT + 16 * v, to | SEL_CODE64 << 16, 4);
			vm_poke(vm, VM_IDT + 16 * v + 4, 0xee00, 8);
			vm_poke(vm, VM_IDT + 16 * v + 12, 0, 4);
		} else {
			vm_poke(vm, VM_IDT + 8 * v, to | SEL_CODE32 << 16, 4);
			vm_poke(vm, VM_IDT + 8 * v + 4, 0xee00, 4);
		}
	}
}

/* Identity for 1 GiB (32-bit paging: 4 GiB), the first table in 4 KiB pages. */
static void tables_write(struct vm *vm, enum vm_mode mode)
{
	unsigned size = mode == VM_PAGED32 || mode == VM_V86 ? 4 : 8, n = 4096 / size;
	uint64_t pd = mode == VM_PAE ? 0x11000 : 0x12000;

	memset(vm->ram + VM_TABLES, 0, 0x4000);
	if (size == 4)
		pd = VM_TABLES;
	for (unsigned i = 0; i < n; i++)
		vm_poke(vm, VM_PT + i * size, (uint64_t)i << 12 | PTE_ALL, size);
	for (unsigned i = 0; i < n; i++)
		vm_poke(vm, pd + i * size,
			i ? (uint64_t)i << (size == 4 ? 22 : 21) | PTE_ALL | PTE_PS
			  : VM_PT | PTE_ALL,
			size);
	if (mode == VM_PAE)
		vm_poke(vm, VM_TABLES, pd | 1, 8);
	if (is_long(mode)) {
		vm_poke(vm, VM_TABLES, (VM_TABLES + 0x1000) | PTE_ALL, 8);
		vm_poke(vm, VM_TABLES + 0x1000, pd | PTE_ALL, 8);
	}
}

uint64_t *vm_pte(struct vm *vm, uint64_t lin)
{
	return (uint64_t *)(vm->ram + VM_PT) + (lin >> 12);
}

uint64_t *vm_pde(struct vm *vm, uint64_t lin)
{
	return (uint64_t *)(vm->ram + (vm->mode == VM_PAE ? 0x11000 : 0x12000)) + (lin >> 21);
}

/* A segment register as a load of @sel would leave it. */
static struct kvm_segment segment(struct vm *vm, unsigned sel)
{
	uint64_t d = vm_peek(vm, VM_GDT + (sel & ~7), 8);
	unsigned attr = d >> 40;
	struct kvm_segment s = { .selector = sel,
				 .base = (d >> 16 & 0xffffff) | d >> 56 << 24,
				 .limit = (d & 0xffff) | (d >> 48 & 0xf) << 16,
				 .type = attr & 0xf,
				 .s = attr >> 4 & 1,
				 .dpl = attr >> 5 & 3,
				 .present = attr >> 7 & 1,
				 .l = attr >> 13 & 1,
				 .db = attr >> 14 & 1,
				 .g = attr >> 15 & 1 };

	if (s.g)
		s.limit = s.limit << 12 | 0xfff;
	return s;
}

static struct kvm_segment real_segment(unsigned type, unsigned dpl)
{
	return (struct kvm_segment){
		.limit = 0xffff, .type = type, .s = 1, .present = 1, .dpl = dpl
	};
}

static void segments_set(struct vm *vm, struct kvm_sregs *s, enum vm_mode mode, unsigned cpl)
{
	static const uint16_t code[VM_MODES][2] = {
		[VM_PM16] = { SEL_CODE16, SEL_USER16 },	   [VM_PM32] = { SEL_CODE32, SEL_USER32 },
		[VM_PAGED32] = { SEL_CODE32, SEL_USER32 }, [VM_PAE] = { SEL_CODE32, SEL_USER32 },
		[VM_COMPAT] = { SEL_CODE32, SEL_USER32 },  [VM_LONG] = { SEL_CODE64, SEL_USER64 },
	};
	bool user = cpl == 3, narrow = mode == VM_PM16;
	unsigned data = user ? (narrow ? SEL_USER_DATA16 : SEL_USER_DATA)
			     : (narrow ? SEL_DATA16 : SEL_DATA);

	if (mode == VM_REAL || mode == VM_V86) {
		s->cs = real_segment(mode == VM_REAL ? 11 : 3, mode == VM_REAL ? 0 : 3);
		s->ss = real_segment(3, mode == VM_REAL ? 0 : 3);
		s->ds = s->es = s->fs = s->gs = s->ss;
	} else {
		s->cs = segment(vm, code[mode][user]);
		s->ss = segment(vm, data);
		s->ds = s->es = s->fs = s->gs = s->ss;
	}
	s->tr = segment(vm, SEL_TSS);
	s->tr.s = 0;
	s->tr.type = 11;
	s->ldt = (struct kvm_segment){ .unusable = 1 };
}

void vm_cpu_enter(struct vm *vm, enum vm_mode mode, unsigned cpl)
{
	struct kvm_sregs s = vm_sregs(vm);
	struct kvm_regs r = { .rip = VM_CODE, .rflags = 2 };

	vm->mode = mode;
	segments_set(vm, &s, mode, cpl);
	s.gdt = (struct kvm_dtable){ .base = VM_GDT, .limit = 0x6f };
	s.idt = (struct kvm_dtable){ .base = mode == VM_REAL ? 0 : VM_IDT,
				     .limit = mode == VM_REAL ? 0x3ff : 0xfff };
	s.cr3 = VM_TABLES;
	s.cr2 = 0;
	s.cr4 = 0x600; /* SSE */
	s.cr0 = mode == VM_REAL ? 0x32 : 0x33;
	s.efer = 0;
	if (mode >= VM_PAGED32)
		s.cr0 |= 1u << 31 | 1u << 16;
	if (mode == VM_PAGED32 || mode == VM_V86)
		s.cr4 |= 0x10;
	if (mode == VM_PAE || is_long(mode))
		s.cr4 |= 0x20;
	if (is_long(mode))
		s.efer = 0xd01;
	else if (mode == VM_PAE)
		s.efer = 0x800;
	if (mode == VM_V86)
		r.rflags |= 1u << 17;
	vm_set_sregs(vm, &s);
	r.rsp = cpl == 3 || mode == VM_V86 ? VM_USER_STACK : VM_STACK;
	vm_set_regs(vm, &r);
}

void vm_enter(struct vm *vm, enum vm_mode mode, unsigned cpl)
{
	gdt_write(vm, mode);
	idt_write(vm, mode);
	tables_write(vm, mode);
	vm_cpu_enter(vm, mode, cpl);
}
