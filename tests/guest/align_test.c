/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Alignment checks: which operands raise #AC, which never do, and when none is raised at all. */
#include <string.h>

#include "vm.h"

#define CR0_AM	    (1u << 18)
#define FL_AC	    (1u << 18)
#define CR4_FX	    0x600 /* OSFXSR, OSXMMEXCPT */
#define VECTOR_DONE 0x80
#define PLACE	    (VM_DATA + 0x100)

/* One instruction; its operand is at RDX, and so are RSI, RDI, RBP and RSP. Memory is zeros. */
#define ROW64(name, text) GUEST(name, 64, text "\nint $0x80")
#define ROW32(name, text) GUEST(name, 32, text "\nint $0x80")
ROW64(word, "addw $1, (%rdx)");
ROW64(dword, "mov (%rdx), %eax");
ROW64(qword, "mov %rax, (%rdx)");
ROW64(locked, "lock xadd %rax, (%rdx)");
ROW64(push64, "push %rax");
ROW64(pop64, "pop %rax");
ROW64(leave64, "leave");
ROW64(lods64, "lodsq");
ROW64(stos64, "stosq");
ROW64(scalar, "movsd (%rdx), %xmm0");
ROW64(load16, "movups (%rdx), %xmm0");
ROW64(store16, "movdqu %xmm0, (%rdx)");
ROW64(lddqu16, "lddqu (%rdx), %xmm0");
ROW64(aligned16, "movaps (%rdx), %xmm0");
ROW64(cx16, "cmpxchg16b (%rdx)");
ROW64(fild16, "filds (%rdx)");
ROW64(fld80, "fldt (%rdx)");
ROW64(env32, "fnstenv (%rdx)");
ROW64(env16, "data16 fnstenv (%rdx)");
ROW64(save32, "fnsave (%rdx)");
ROW64(fx, "fxsave (%rdx)");
ROW64(far32, "lfsl (%rdx), %eax");
ROW64(far16, "lfsw (%rdx), %ax");
ROW64(jump32, "ljmpl *(%rdx)");
ROW64(none_lea, "lea 1(%rdx), %rax");
ROW64(none_hint, "prefetcht0 (%rdx)");
ROW32(dword_32, "mov (%edx), %eax");
ROW32(bound_32, "bound %eax, (%edx)");
ROW32(far_32, "lesl (%edx), %eax");
ROW32(call_32, "lcall *(%edx)");
ROW32(pusha_32, "pushal");
ROW32(pop_ds, "pop %ds");
ROW32(enter_32, "enter $0, $0");
ROW32(table_32, "sgdt (%edx)");
ROW32(load16_32, "movups (%edx), %xmm0");

static const struct row {
	const char *name;
	const uint8_t *code, *end;
	enum vm_mode mode;
	unsigned align; /* 1: never #AC */
	int otherwise;	/* the vector where there is no #AC */
} rows[] = {
#define ROW(name, mode, align, otherwise)                                                          \
	{                                                                                          \
#name, name, name##_end, mode, align, otherwise                                    \
	}
	ROW(word, VM_LONG, 2, VECTOR_DONE),
	ROW(dword, VM_LONG, 4, VECTOR_DONE),
	ROW(qword, VM_LONG, 8, VECTOR_DONE),
	ROW(locked, VM_LONG, 8, VECTOR_DONE),
	ROW(push64, VM_LONG, 8, VECTOR_DONE),
	ROW(pop64, VM_LONG, 8, VECTOR_DONE),
	ROW(leave64, VM_LONG, 8, VECTOR_DONE),
	ROW(lods64, VM_LONG, 8, VECTOR_DONE),
	ROW(stos64, VM_LONG, 8, VECTOR_DONE),
	ROW(scalar, VM_LONG, 8, VECTOR_DONE),
	ROW(load16, VM_LONG, 16, VECTOR_DONE),
	ROW(store16, VM_LONG, 16, VECTOR_DONE),
	ROW(lddqu16, VM_LONG, 16, VECTOR_DONE),
	ROW(aligned16, VM_LONG, 1, 13),
	ROW(cx16, VM_LONG, 1, 13),
	ROW(fild16, VM_LONG, 2, VECTOR_DONE),
	ROW(fld80, VM_LONG, 8, VECTOR_DONE),
	ROW(env32, VM_LONG, 4, VECTOR_DONE),
	ROW(env16, VM_LONG, 2, VECTOR_DONE),
	ROW(save32, VM_LONG, 4, VECTOR_DONE),
	ROW(fx, VM_LONG, 4, 13),
	ROW(far32, VM_LONG, 4, VECTOR_DONE),
	ROW(far16, VM_LONG, 2, VECTOR_DONE),
	ROW(jump32, VM_LONG, 4, 13), /* a null selector */
	ROW(none_lea, VM_LONG, 1, VECTOR_DONE),
	ROW(none_hint, VM_LONG, 1, VECTOR_DONE),
	ROW(dword_32, VM_PAE, 4, VECTOR_DONE),
	ROW(bound_32, VM_PAE, 4, VECTOR_DONE),
	ROW(far_32, VM_PAE, 4, VECTOR_DONE),
	ROW(call_32, VM_PAE, 4, 13),
	ROW(pusha_32, VM_PAE, 4, VECTOR_DONE),
	ROW(pop_ds, VM_PAE, 4, VECTOR_DONE),
	ROW(enter_32, VM_PAE, 4, VECTOR_DONE),
	ROW(table_32, VM_PAE, 4, VECTOR_DONE),
	ROW(load16_32, VM_PAE, 16, VECTOR_DONE),
};

struct how {
	unsigned cpl;
	bool am, ac, there;
};

static void prepare(struct vm *vm, const struct row *r, const struct how *how, unsigned off)
{
	struct kvm_sregs s;
	struct kvm_regs g;

	vm_cpu_enter(vm, r->mode, how->cpl);
	s = vm_sregs(vm);
	s.cr0 = (s.cr0 & ~(uint64_t)CR0_AM) | (how->am ? CR0_AM : 0);
	s.cr4 |= CR4_FX;
	vm_set_sregs(vm, &s);
	g = vm_regs(vm);
	g.rflags = 2 | (how->ac ? FL_AC : 0);
	g.rax = 0;
	g.rdx = g.rsi = g.rdi = g.rbp = g.rsp = PLACE + off;
	vm_set_regs(vm, &g);
	memset(vm->ram + VM_DATA, 0, 0x1000);
}

static void row_run(struct vm *vm, const struct row *r, const struct how *how, unsigned off,
		    int vector)
{
	struct vm_frame f;

	prepare(vm, r, how, off);
	*vm_pte(vm, VM_DATA) = VM_DATA | (how->there ? 7 : 6);
	f = vm_fault(vm, vector, r->name);
	if (f.vector != vector || (vector != VECTOR_DONE && f.rip != VM_CODE) ||
	    (vector == 17 && (f.error || !(f.rflags & FL_AC))))
		check_failed(r->name,
			     "offset %u, CPL %u, AM %d, AC %d, there %d: vector %d error %lx rip "
			     "%lx rflags %lx, expected %d",
			     off, how->cpl, how->am, how->ac, how->there, f.vector, f.error, f.rip,
			     f.rflags, vector);
}

static void operands(void)
{
	static const struct how checked = { 3, true, true, true }, gone = { 3, true, true, false };
	static const struct how unchecked[] = {
		{ 3, true, false, true }, /* EFLAGS.AC clear */
		{ 3, false, true, true }, /* CR0.AM clear */
		{ 0, true, true, true },  /* the kernel's */
	};
	struct vm vm;

	vm_make(&vm, 0);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];

		vm_enter(&vm, r->mode, 3);
		vm_load(&vm, VM_CODE, r->code, r->end - r->code);
		row_run(&vm, r, &checked, r->align, r->otherwise);
		for (unsigned k = 0; k < sizeof(unchecked) / sizeof(unchecked[0]); k++)
			row_run(&vm, r, &unchecked[k], r->align / 2,
				r->align > 1	     ? r->otherwise
				: r->otherwise == 13 ? VECTOR_DONE
						     : r->otherwise);
		if (r->align == 1)
			continue;
		row_run(&vm, r, &checked, r->align / 2, 17);
		row_run(&vm, r, &gone, r->align / 2, 17);
		if (r->otherwise == VECTOR_DONE)
			row_run(&vm, r, &gone, r->align, 14);
	}
	vm_destroy(&vm);
}

/* What the processor accesses on its own account is not checked: descriptors, and the frame on the kernel's stack. */
ROW32(load_ds, "mov %ss, %eax; mov %eax, %ds");
static const struct row system_row = ROW(load_ds, VM_PM32, 1, VECTOR_DONE);

static void system_accesses(void)
{
	static const struct how checked = { 3, true, true, true };
	struct kvm_sregs s;
	struct kvm_regs g;
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	vm_enter(&vm, VM_PM32, 3);
	vm_load(&vm, VM_CODE, load_ds, load_ds_end - load_ds);
	prepare(&vm, &system_row, &checked, 1);
	memcpy(vm.ram + VM_DATA + 0x801, vm.ram + VM_GDT, 0x100);
	vm_poke(&vm, VM_TSS + 4, VM_STACK - 0x101, 4);
	s = vm_sregs(&vm);
	s.gdt.base = VM_DATA + 0x801;
	vm_set_sregs(&vm, &s);
	f = VM_FAULT(&vm, VECTOR_DONE);
	CHECK_EQ(f.rip, VM_CODE + (load_ds_end - load_ds));
	g = vm_regs(&vm);
	CHECK(g.rsp & 1);
	vm_destroy(&vm);
}

/* KVM_TRANSLATE is no access of the guest's. */
static void translation(void)
{
	static const struct how checked = { 3, true, true, true };
	struct kvm_translation t = { .linear_address = PLACE + 1 };
	struct vm vm;

	vm_make(&vm, 0);
	vm_enter(&vm, VM_LONG, 3);
	prepare(&vm, &rows[0], &checked, 1);
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_TRANSLATE, (unsigned long)&t), 0);
	CHECK(t.valid);
	CHECK_EQ(t.physical_address, PLACE + 1);
	vm_destroy(&vm);
}

VM_TESTS({ .name = "operands", .run = operands },
	 { .name = "system accesses", .run = system_accesses },
	 { .name = "translation", .run = translation });
