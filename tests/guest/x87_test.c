/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Images of the x87 state show no address of the host: instruction and data pointers are zero. */
#include <string.h>

#include "vm.h"

#define IMAGE VM_DATA
#define FILL  0xaa

static void image_clear(struct vm *vm)
{
	memset(vm->ram + IMAGE, FILL, 0x1000);
}

/* A load, an operation on memory and an exception that is masked: all set the pointers. */
#define WORK_64 "fninit; fld1; fldl 0x200f0; fadds 0x200f0; fdiv %st(1), %st; fsqrt; fld %st(1)\n"
#define WORK_32 WORK_64
#define WORK_16 "fninit; fld1; fldl 0xf0; fadds 0xf0; fdiv %st(1), %st; fsqrt; fld %st(1)\n"

GUEST(env64, 64,
      WORK_64 "fnstenv 0x20100; fnsave 0x20200\n" WORK_64
	      "data16 fnstenv 0x20300; data16 fnsave 0x20400\n" WORK_64
	      "fxsave 0x20600; fxsave64 0x20800; hlt");
GUEST(env32, 32,
      WORK_32 "fnstenv 0x20100; fnsave 0x20200\n" WORK_32
	      "data16 fnstenv 0x20300; data16 fnsave 0x20400\n" WORK_32
	      "fxsave 0x20600; fxsave 0x20800; hlt");
GUEST(env16, 16,
      "mov $0x2000, %ax; mov %ax, %ds\n" WORK_16
      "data32 fnstenv 0x100; data32 fnsave 0x200\n" WORK_16 "fnstenv 0x300; fnsave 0x400\n" WORK_16
      "fxsave 0x600; fxsave 0x800; hlt");
GUEST(xsave64, 64,
      "mov %cr4, %rax; or $0x40000, %eax; mov %rax, %cr4; xor %ecx, %ecx; mov $7, %eax; xor %edx, "
      "%edx; xsetbv\n" WORK_64 "mov $7, %eax; xor %edx, %edx; xsave 0x20100; xsave64 0x20600\n"
      "hlt; mov $7, %eax; xor %edx, %edx; xsaveopt 0x20100; xsaveopt64 0x20600\n"
      "hlt; mov $7, %eax; xor %edx, %edx; xsavec 0x20100; xsavec64 0x20600; hlt");

static void zero_at(struct vm *vm, const char *what, uint64_t offset, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		if (vm->ram[IMAGE + offset + i]) {
			check_failed(what, "byte %u of a pointer is %#x", i,
				     vm->ram[IMAGE + offset + i]);
			return;
		}
}

/* A word that must be an architectural value, so that the image was written at all. */
static void tags_are(struct vm *vm, const char *what, uint64_t offset, unsigned expected)
{
	unsigned got = vm_peek(vm, IMAGE + offset, 2);

	if (got != expected)
		check_failed(what, "tag word is %#x, expected %#x", got, expected);
}

static void env_in(struct vm *vm, enum vm_mode mode, const uint8_t *code, const uint8_t *end)
{
	struct kvm_fpu fpu;

	vm_enter(vm, mode, 0);
	vm_load(vm, VM_CODE, code, end - code);
	image_clear(vm);
	vm_poke(vm, IMAGE + 0xf0, 0x4008000000000000, 8);
	CHECK_EXIT(vm, KVM_EXIT_HLT);
	check_note("%s", vm_mode_names[mode]);
	/* 32-bit format: FIP at 12, selector and opcode at 16, FDP at 20, selector at 24. */
	tags_are(vm, "FNSTENV", 0x108, 0x03ff);
	zero_at(vm, "FNSTENV", 0x10c, 14);
	tags_are(vm, "FNSAVE", 0x208, 0x03ff);
	zero_at(vm, "FNSAVE", 0x20c, 14);
	/* 16-bit format: words at 6, 8, 10, 12. */
	tags_are(vm, "16-bit FNSTENV", 0x304, 0x03ff);
	zero_at(vm, "16-bit FNSTENV", 0x306, 8);
	tags_are(vm, "16-bit FNSAVE", 0x404, 0x03ff);
	zero_at(vm, "16-bit FNSAVE", 0x406, 8);
	/* FXSAVE: opcode at 6, FIP at 8, FDP at 16. */
	tags_are(vm, "FXSAVE", 0x604, 0xe0);
	zero_at(vm, "FXSAVE", 0x606, 18);
	tags_are(vm, "FXSAVE64", 0x804, 0xe0);
	zero_at(vm, "FXSAVE64", 0x806, 18);
	/* Behind the images nothing was written. */
	CHECK_EQ(vm->ram[IMAGE + 0x11c], FILL);
	CHECK_EQ(vm->ram[IMAGE + 0x30e], FILL);
	CHECK_EQ(vm->ram[IMAGE + 0x26c], FILL);
	CHECK_EQ(vm->ram[IMAGE + 0x45e], FILL);
	if (vm_ioctl(vm, vm->vcpu, KVM_GET_FPU, (unsigned long)&fpu))
		check_failed("KVM_GET_FPU", "refused");
	CHECK_EQ(fpu.last_ip, 0);
	CHECK_EQ(fpu.last_dp, 0);
	CHECK_EQ(fpu.last_opcode, 0);
}

static void environments(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	env_in(&vm, VM_LONG, env64, env64_end);
	env_in(&vm, VM_COMPAT, env32, env32_end);
	env_in(&vm, VM_PM32, env32, env32_end);
	env_in(&vm, VM_PAGED32, env32, env32_end);
	env_in(&vm, VM_PAE, env32, env32_end);
	env_in(&vm, VM_REAL, env16, env16_end);
	vm_destroy(&vm);
}

static void xsave_images(void)
{
	static const char *const names[] = { "XSAVE", "XSAVEOPT", "XSAVEC" };
	struct vm vm;

	vm_make(&vm, 0);
	if (!vm_has(&vm, 1, 0, 2, 26) || !vm_has(&vm, 0xd, 1, 0, 0) || !vm_has(&vm, 0xd, 1, 0, 1))
		check_skip("no XSAVEOPT and XSAVEC in the guest");
	VM_START(&vm, VM_LONG, 0, xsave64);
	for (unsigned i = 0; i < 3; i++) {
		image_clear(&vm);
		memset(vm.ram + IMAGE + 0x100 + 512, 0, 64);
		memset(vm.ram + IMAGE + 0x600 + 512, 0, 64);
		vm_poke(&vm, IMAGE + 0xf0, 0x4008000000000000, 8);
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		tags_are(&vm, names[i], 0x104, 0xe0);
		zero_at(&vm, names[i], 0x106, 18);
		tags_are(&vm, names[i], 0x604, 0xe0);
		zero_at(&vm, names[i], 0x606, 18);
		CHECK_EQ(vm_peek(&vm, IMAGE + 0x100 + 512, 1) & 1, 1);
	}
	vm_destroy(&vm);
}

/* An unmasked exception is reported at the next waiting instruction, and its image shows no address either. */
GUEST(pending, 64,
      "fninit; movw $0x37b, 0x20000; fldcw 0x20000; fld1; fldz; fdivrp; fnstenv 0x20100\n"
      "fldcw 0x20000; fld1; hlt");

static void pending_exception(void)
{
	struct vm vm;
	struct vm_frame f;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, pending);
	image_clear(&vm);
	f = VM_FAULT(&vm, 16);
	/* FNSTENV masked it; FLDCW brought it back; FLD1 found it. */
	CHECK_EQ(f.rip, VM_CODE + (pending_end - pending) - 3);
	zero_at(&vm, "FNSTENV", 0x10c, 14);
	CHECK_EQ(vm_peek(&vm, IMAGE + 0x104, 2) & 0x84, 0x84);
	vm_destroy(&vm);
}

/*
 * Stores across pages, with all exceptions unmasked: a result that is not exact is stored, one that is invalid, too large or too
 * small is not, and #MF comes at the next waiting instruction.
 */
GUEST(inexact, 64,
      "fninit; movw $0x340, 0x20000; fldl 0x20010; fldcw 0x20000; fistpl 0x20ffe; fwait; hlt");
GUEST(invalid, 64,
      "fninit; movw $0x340, 0x20000; fldl 0x20018; fldcw 0x20000; fistpl 0x20ffe; fwait; hlt");
GUEST(toolarge, 64,
      "fninit; movw $0x340, 0x20000; fldl 0x20018; fldcw 0x20000; fsts 0x20ffe; fwait; hlt");
GUEST(toosmall, 64,
      "fninit; movw $0x340, 0x20000; fldl 0x20020; fldcw 0x20000; fsts 0x20ffe; fwait; hlt");

static void store_across(struct vm *vm, const uint8_t *code, const uint8_t *end, unsigned expected)
{
	struct vm_frame f;

	vm_enter(vm, VM_LONG, 0);
	vm_load(vm, VM_CODE, code, end - code);
	image_clear(vm);
	vm_poke(vm, IMAGE + 0x10, 0x4009000000000000, 8); /* 3.125 */
	vm_poke(vm, IMAGE + 0x18, 0x7e37e43c8800759c, 8); /* 1e300 */
	vm_poke(vm, IMAGE + 0x20, 0x01a56e1fc2f8f359, 8); /* 1e-300 */
	vm_poke(vm, IMAGE + 0xffe, 0x55555555, 4);
	f = VM_FAULT(vm, 16);
	CHECK_EQ(f.rip, VM_CODE + (end - code) - 2);
	CHECK_EQ(vm_peek(vm, IMAGE + 0xffe, 4), expected);
}

static void stores_across_pages(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	store_across(&vm, inexact, inexact_end, 3);
	store_across(&vm, invalid, invalid_end, 0x55555555);
	store_across(&vm, toolarge, toolarge_end, 0x55555555);
	store_across(&vm, toosmall, toosmall_end, 0x55555555);
	vm_destroy(&vm);
}

/* What another guest, or the host, left in the registers is not seen by a new one. */
GUEST(fresh, 64, "fxsave64 0x20000; hlt");

static void fresh_state(void)
{
	struct vm vm;

	__asm__ volatile("fld1; fld1; fldpi" ::: "st", "st(1)", "st(2)");
	__asm__ volatile("pcmpeqb %%xmm7, %%xmm7" ::: "xmm7");
	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, fresh);
	image_clear(&vm);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_peek(&vm, IMAGE, 2), 0x37f);
	CHECK_EQ(vm_peek(&vm, IMAGE + 4, 2), 0);
	zero_at(&vm, "XMM", 32, 128 + 256);
	vm_destroy(&vm);
	__asm__ volatile("fninit");
}

GUEST(reload, 64,
      "fxrstor64 0x20200; fxsave64 0x20400; fldenv 0x20600; fnstenv 0x20700; fxrstor64 0x20200; "
      "frstor 0x20600; fnsave 0x20800; hlt");

/* Reserved bits of the control word and the error summary are what the processor makes of them, also in state that nothing has used. */
static void words_loaded(void)
{
	static const struct {
		uint16_t fcw, fsw, fcw_is, fsw_is;
	} words[] = {
		{ 0x23b2, 0x3fb3, 0x0372, 0xbfb3 }, /* IE and DE are pending, IE is not masked */
		{ 0xfdfc, 0x4ce0, 0x1d7c, 0x4c60 }, /* PE is pending and masked */
		{ 0x0000, 0x0000, 0x0040, 0x0000 },
	};

	for (unsigned k = 0; k < sizeof(words) / sizeof(words[0]); k++) {
		struct vm vm;

		vm_make(&vm, 0);
		VM_START(&vm, VM_LONG, 0, reload);
		memset(vm.ram + IMAGE, 0, 0x1000);
		vm_poke(&vm, IMAGE + 0x200, words[k].fcw | (uint32_t)words[k].fsw << 16, 4);
		vm_poke(&vm, IMAGE + 0x200 + 24, 0x1f80, 4); /* MXCSR */
		vm_poke(&vm, IMAGE + 0x600, words[k].fcw, 4);
		vm_poke(&vm, IMAGE + 0x604, words[k].fsw, 4);
		vm_poke(&vm, IMAGE + 0x608, 0xffff, 4);
		if (k) { /* the first leaves an exception for FLDENV and FRSTOR */
			CHECK_EXIT(&vm, KVM_EXIT_HLT);
			CHECK_EQ(vm_peek(&vm, IMAGE + 0x700, 2), words[k].fcw_is);
			CHECK_EQ(vm_peek(&vm, IMAGE + 0x704, 2), words[k].fsw_is);
			CHECK_EQ(vm_peek(&vm, IMAGE + 0x800, 2), words[k].fcw_is);
			CHECK_EQ(vm_peek(&vm, IMAGE + 0x804, 2), words[k].fsw_is);
		} else {
			CHECK_EQ(vm_fault(&vm, 16, "FLDENV").vector, 16);
		}
		CHECK_EQ(vm_peek(&vm, IMAGE + 0x400, 2), words[k].fcw_is);
		CHECK_EQ(vm_peek(&vm, IMAGE + 0x402, 2), words[k].fsw_is);
		vm_destroy(&vm);
	}
}

GUEST(save_over, 64, "fxsave64 (%rbx); hlt");
GUEST(load_over, 64, "fxrstor64 (%rbx); hlt");

/* Of two pages that both fault the last byte's is told, as on AMD's processors. */
static void two_bad_pages(void)
{
	for (unsigned store = 0; store < 2; store++) {
		uint64_t at = VM_DATA + 0x1f00;
		struct vm_frame frame;
		struct kvm_regs r;
		struct vm vm;

		vm_make(&vm, 0);
		VM_START(&vm, VM_LONG, 3, load_over);
		if (store)
			VM_LOAD(&vm, VM_CODE, save_over);
		if (store)
			*vm_pte(&vm, at) &= ~2ull; /* read-only */
		else
			*vm_pte(&vm, at) &= ~4ull; /* the supervisor's */
		*vm_pte(&vm, at + 0x1000) &= ~1ull;
		r = vm_regs(&vm);
		r.rbx = at;
		vm_set_regs(&vm, &r);
		frame = vm_fault(&vm, 14, "FXSAVE");
		CHECK_EQ(frame.error, store ? 6 : 4); /* not there, not 7 or 5 */
		CHECK_EQ(frame.cr2, at + 511);
		vm_destroy(&vm);
	}
}

VM_TESTS({ .name = "FNSTENV, FNSAVE, FXSAVE", .run = environments, .library_only = true },
	 { .name = "XSAVE, XSAVEOPT, XSAVEC", .run = xsave_images, .library_only = true },
	 { .name = "a pending exception", .run = pending_exception },
	 { .name = "unmasked exceptions of stores across pages", .run = stores_across_pages },
	 { .name = "words that are loaded", .run = words_loaded },
	 { .name = "FXSAVE and FXRSTOR, two bad pages",
	   .run = two_bad_pages,
	   .library_only = true },
	 { .name = "a new processor's state", .run = fresh_state });
