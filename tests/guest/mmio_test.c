/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Accesses to devices: each is seen once, in order, with the right bytes; the registers are right afterwards. */
#include <errno.h>
#include <string.h>

#include "vm.h"

#define DEV    VM_DEVICE
#define MAX    16
#define PORT   0x500
#define IN_OUT (1ull << 63) /* .at is a port */

/* One access of the device: what the device answers, or what it must be given. */
struct seen {
	uint64_t at;
	unsigned len;
	bool write;
	uint64_t data;
};
#define R(at, len, data)                                                                           \
	{                                                                                          \
		at, len, false, data                                                               \
	}
#define W(at, len, data)                                                                           \
	{                                                                                          \
		at, len, true, data                                                                \
	}

struct script {
	const char *name;
	const uint8_t *code, *end;
	struct seen seen[MAX];
	uint64_t rax, rbx; /* afterwards */
};

static uint64_t cut(uint64_t v, unsigned len)
{
	return len >= 8 ? v : v & ((1ull << 8 * len) - 1);
}

/* Compare one exit with what is expected; answer a read. */
static bool serve(struct vm *vm, int reason, const struct seen *s, const char *name)
{
	struct kvm_run *run = vm->run;
	bool io = s->at & IN_OUT, write;
	uint8_t *data = io ? (uint8_t *)run + run->io.data_offset : run->mmio.data;
	uint64_t got = 0;

	if (!s->len || reason != (io ? KVM_EXIT_IO : KVM_EXIT_MMIO)) {
		check_failed(name, "expected %s of %lx, got %s", s->write ? "write" : "read", s->at,
			     vm_exit_text(vm, reason));
		return false;
	}
	write = io ? run->io.direction == KVM_EXIT_IO_OUT : run->mmio.is_write;
	if (write != s->write || (io ? run->io.port : run->mmio.phys_addr) != (s->at & ~IN_OUT) ||
	    (io ? run->io.size : run->mmio.len) != s->len) {
		check_failed(name, "expected %s of %lx, %u bytes, got %s",
			     s->write ? "write" : "read", s->at, s->len, vm_exit_text(vm, reason));
		return false;
	}
	if (!write) {
		memcpy(data, &s->data, s->len);
		return true;
	}
	memcpy(&got, data, s->len);
	if (got != cut(s->data, s->len))
		check_failed(name, "wrote %lx to %lx, expected %lx", got, s->at, s->data);
	return true;
}

static void script_enter(struct vm *vm, const struct script *s, enum vm_mode mode)
{
	struct kvm_regs r;

	vm_enter(vm, mode, 0);
	vm_load(vm, VM_CODE, s->code, s->end - s->code);
	r = vm_regs(vm);
	r.rbx = DEV;
	r.rsi = DEV + 0x100;
	r.rdi = DEV + 0x200;
	r.rax = 0x1111111111111111;
	r.rdx = PORT;
	r.rcx = 3;
	vm_set_regs(vm, &r);
	memset(vm->ram + VM_DATA, 0, 0x1000);
	vm_poke(vm, VM_DATA + 8, 0x43e0000000000000, 8); /* too large for an integer */
	for (unsigned i = 0; i < 16; i++)
		vm->ram[VM_HOLE - 16 + i] = vm->ram[VM_HOLE_END + i] = 0x80 + i;
}

static void script_run(struct vm *vm, const struct script *s, enum vm_mode mode)
{
	struct kvm_regs r;
	unsigned i;
	int reason;

	script_enter(vm, s, mode);
	for (i = 0; i < MAX; i++) {
		reason = vm_run(vm);
		if (reason == KVM_EXIT_HLT || !serve(vm, reason, &s->seen[i], s->name))
			break;
	}
	if (reason == KVM_EXIT_HLT && i < MAX && s->seen[i].len)
		check_failed(s->name, "ended before access %u", i);
	r = vm_regs(vm);
	if (r.rax != s->rax || r.rbx != s->rbx)
		check_failed(s->name, "rax %llx rbx %llx, expected %lx %lx", r.rax, r.rbx, s->rax,
			     s->rbx);
}

#define OLD	   0x1111111111111111ull
#define CODE(name) #name, name, name##_end

GUEST(load1, 64, "mov 3(%rbx), %al; hlt");
GUEST(load1h, 64, "mov 3(%rbx), %ah; hlt");
GUEST(load2, 64, "mov 2(%rbx), %ax; hlt");
GUEST(load4, 64, "mov 4(%rbx), %eax; hlt");
GUEST(load8, 64, "mov 8(%rbx), %rax; hlt");
GUEST(load8odd, 64, "mov 9(%rbx), %rax; hlt");
GUEST(loadzx, 64, "movzwl 2(%rbx), %eax; hlt");
GUEST(loadsx, 64, "movsbq 2(%rbx), %rax; hlt");
GUEST(loadsxd, 64, "movslq 4(%rbx), %rax; hlt");
GUEST(loadabs, 64, "mov $0x1234, %eax; movabs 0x10000010, %rax; hlt");
GUEST(store1, 64, "mov %al, 3(%rbx); hlt");
GUEST(store4, 64, "mov %eax, 4(%rbx); hlt");
GUEST(store8, 64, "mov %rax, 8(%rbx); hlt");
GUEST(storeimm, 64, "movq $-2, 8(%rbx); movw $0x1234, (%rbx); hlt");
GUEST(add_mem, 64, "addl $5, 4(%rbx); setc %al; hlt");
GUEST(add_reg, 64, "add 8(%rbx), %rax; hlt");
GUEST(adc_mem, 64, "stc; adc %rax, 8(%rbx); hlt");
GUEST(inc_byte, 64, "incb (%rbx); lahf; hlt");
GUEST(not_neg, 64, "notw 2(%rbx); negq 8(%rbx); hlt");
GUEST(shl_mem, 64, "shll %cl, 4(%rbx); hlt");
GUEST(lock_or, 64, "lock orb $0x0f, 1(%rbx); hlt");
GUEST(xchg_mem, 64, "xchg %rax, 8(%rbx); hlt");
GUEST(xadd_mem, 64, "lock xadd %eax, 4(%rbx); hlt");
GUEST(cmpxchg_hit, 64, "mov $7, %eax; mov $9, %ecx; lock cmpxchg %ecx, 4(%rbx); sete %ah; hlt");
GUEST(cmpxchg_miss, 64,
      "mov $7, %eax; mov $9, %ecx; cmpxchg %ecx, 4(%rbx); sete %ch; mov %ch, 0x20000; hlt");
GUEST(cmp_mem, 64, "cmpl $3, 4(%rbx); sete %al; testb $1, (%rbx); setz %ah; hlt");
GUEST(bts_mem, 64, "mov $35, %ecx; bts %ecx, (%rbx); setc %al; hlt");
GUEST(push_mem, 64, "push 8(%rbx); pop %rax; hlt");
GUEST(pop_mem, 64, "push %rax; pop 8(%rbx); hlt");
GUEST(push_to, 64,
      "lea 0x100(%rbx), %rsp; push %rax; pushw $0x1234; pop %cx; pop %rax; mov $0x6ff0, %esp; hlt");
GUEST(call_mem, 64, "call *8(%rbx); .skip 16-(.-call_mem), 0x90; hlt");
GUEST(call_push, 64,
      "lea 0x100(%rbx), %rsp; call 1f; .skip 32-(.-call_push), 0x90; 1: ret; .skip "
      "48-(.-call_push), 0x90; mov $1, %eax; hlt");
GUEST(sse_load, 64,
      "movups 0x10(%rbx), %xmm1; movq %xmm1, %rax; psrldq $8, %xmm1; movq %xmm1, %rbx; hlt");
GUEST(sse_store, 64, "movq %rax, %xmm1; movaps %xmm1, 0x10(%rbx); hlt");
GUEST(sse_add, 64, "movq %rax, %xmm1; paddq 0x10(%rbx), %xmm1; movq %xmm1, %rax; hlt");
GUEST(sse_scalar, 64, "movss 4(%rbx), %xmm0; movd %xmm0, %eax; movlps %xmm0, 8(%rbx); hlt");
GUEST(movnti, 64, "movnti %rax, 8(%rbx); sfence; hlt");
GUEST(x87_load, 64, "fninit; fldt 0x10(%rbx); fistpll 0x20000; mov 0x20000, %rax; hlt");
GUEST(x87_store, 64, "fninit; fld1; fstpl 8(%rbx); hlt");
GUEST(x87_held, 64,
      "fninit; movw $0x37e, 0x20000; fldcw 0x20000; fldl 0x20008; fistpl 8(%rbx); fnstsw %ax; "
      "movzwl %ax, %eax; hlt");
GUEST(x87_word, 64, "fninit; fnstcw 8(%rbx); fnstsw 10(%rbx); fld1; fbstp 0x10(%rbx); hlt");
GUEST(movs_rep, 64, "cld; rep movsb; hlt");
GUEST(movs_one, 64, "movsq; hlt");
GUEST(movs_down, 64, "std; mov $2, %ecx; rep movsl; cld; hlt");
GUEST(movs_ram, 64, "mov $0x20000, %edi; mov $2, %ecx; rep movsl; mov 0x20000, %rax; hlt");
GUEST(stos_rep, 64, "mov $2, %ecx; rep stosw; hlt");
GUEST(lods_one, 64, "lodsl; hlt");
GUEST(cmps_rep, 64, "repe cmpsb; setne %al; hlt");
GUEST(scas_rep, 64, "mov $0x22, %al; repne scasb; mov %cl, %al; hlt");
GUEST(ins_mem, 64, "insl; hlt");
GUEST(outs_mem, 64, "mov $2, %ecx; rep outsw; hlt");
GUEST(cross_read, 64, "mov 0x9fffc, %rax; hlt");
GUEST(cross_write, 64, "mov %rax, 0x9fffd; mov 0x9fff8, %ecx; mov 0x9fffc, %ebx; hlt");
GUEST(cross_rmw, 64, "mov $1, %eax; add %rax, 0x9fffc; hlt");
GUEST(cross_back, 64, "mov 0xbfffe, %eax; hlt");
GUEST(cross_sse, 64,
      "movups 0x9fff4, %xmm0; movq %xmm0, %rax; psrldq $8, %xmm0; movq %xmm0, %rbx; hlt");
GUEST(lea_only, 64, "lea 8(%rbx), %rax; prefetcht0 (%rbx); clflush (%rbx); hlt");
GUEST(cmov_not, 64, "cmp %eax, %eax; cmovne 4(%rbx), %eax; hlt");
GUEST(jmp_mem, 64, "jmp *8(%rbx); .skip 32-(.-jmp_mem), 0x90; mov $2, %eax; hlt");

static const struct script scripts[] = {
	{ CODE(load1), { R(DEV + 3, 1, 0x42) }, 0x1111111111111142, DEV },
	{ CODE(load1h), { R(DEV + 3, 1, 0x42) }, 0x1111111111114211, DEV },
	{ CODE(load2), { R(DEV + 2, 2, 0x4243) }, 0x1111111111114243, DEV },
	{ CODE(load4), { R(DEV + 4, 4, 0x84838281) }, 0x84838281, DEV },
	{ CODE(load8), { R(DEV + 8, 8, 0x8877665544332211) }, 0x8877665544332211, DEV },
	{ CODE(load8odd), { R(DEV + 9, 8, 0x8877665544332211) }, 0x8877665544332211, DEV },
	{ CODE(loadzx), { R(DEV + 2, 2, 0xfedc) }, 0xfedc, DEV },
	{ CODE(loadsx), { R(DEV + 2, 1, 0x80) }, 0xffffffffffffff80, DEV },
	{ CODE(loadsxd), { R(DEV + 4, 4, 0x80000001) }, 0xffffffff80000001, DEV },
	{ CODE(loadabs), { R(DEV + 16, 8, 77) }, 77, DEV },
	{ CODE(store1), { W(DEV + 3, 1, 0x11) }, OLD, DEV },
	{ CODE(store4), { W(DEV + 4, 4, OLD) }, OLD, DEV },
	{ CODE(store8), { W(DEV + 8, 8, OLD) }, OLD, DEV },
	{ CODE(storeimm), { W(DEV + 8, 8, -2), W(DEV, 2, 0x1234) }, OLD, DEV },
	{ CODE(add_mem), { R(DEV + 4, 4, 0xfffffffe), W(DEV + 4, 4, 3) }, 0x1111111111111101, DEV },
	{ CODE(add_reg), { R(DEV + 8, 8, 1) }, OLD + 1, DEV },
	{ CODE(adc_mem), { R(DEV + 8, 8, 2), W(DEV + 8, 8, OLD + 3) }, OLD, DEV },
	{ CODE(inc_byte), { R(DEV, 1, 0xff), W(DEV, 1, 0) }, 0x1111111111115611, DEV },
	{ CODE(not_neg),
	  { R(DEV + 2, 2, 0x00ff), W(DEV + 2, 2, 0xff00), R(DEV + 8, 8, 1), W(DEV + 8, 8, -1) },
	  OLD,
	  DEV },
	{ CODE(shl_mem), { R(DEV + 4, 4, 0x21), W(DEV + 4, 4, 0x108) }, OLD, DEV },
	{ CODE(lock_or), { R(DEV + 1, 1, 0xf0), W(DEV + 1, 1, 0xff) }, OLD, DEV },
	{ CODE(xchg_mem), { R(DEV + 8, 8, 5), W(DEV + 8, 8, OLD) }, 5, DEV },
	{ CODE(xadd_mem), { R(DEV + 4, 4, 1), W(DEV + 4, 4, 0x11111112) }, 1, DEV },
	{ CODE(cmpxchg_hit), { R(DEV + 4, 4, 7), W(DEV + 4, 4, 9) }, 0x107, DEV },
	{ CODE(cmpxchg_miss), { R(DEV + 4, 4, 8), W(DEV + 4, 4, 8) }, 8, DEV },
	{ CODE(cmp_mem), { R(DEV + 4, 4, 3), R(DEV, 1, 2) }, 0x1111111111110101, DEV },
	{ CODE(bts_mem), { R(DEV + 4, 4, 0), W(DEV + 4, 4, 8) }, 0x1111111111111100, DEV },
	{ CODE(push_mem), { R(DEV + 8, 8, 12345) }, 12345, DEV },
	{ CODE(pop_mem), { W(DEV + 8, 8, OLD) }, OLD, DEV },
	{ CODE(push_to),
	  { W(DEV + 0xf8, 8, OLD), W(DEV + 0xf6, 2, 0x1234), R(DEV + 0xf6, 2, 5),
	    R(DEV + 0xf8, 8, 6) },
	  6,
	  DEV },
	{ CODE(call_mem), { R(DEV + 8, 8, VM_CODE + 16) }, OLD, DEV },
	{ CODE(call_push),
	  { W(DEV + 0xf8, 8, VM_CODE + 12), R(DEV + 0xf8, 8, VM_CODE + 48) },
	  1,
	  DEV },
	{ CODE(sse_load), { R(DEV + 16, 8, 1), R(DEV + 24, 8, 2) }, 1, 2 },
	{ CODE(sse_store), { W(DEV + 16, 8, OLD), W(DEV + 24, 8, 0) }, OLD, DEV },
	{ CODE(sse_add), { R(DEV + 16, 8, 3), R(DEV + 24, 8, 2) }, OLD + 3, DEV },
	{ CODE(sse_scalar),
	  { R(DEV + 4, 4, 0x12345678), W(DEV + 8, 8, 0x12345678) },
	  0x12345678,
	  DEV },
	{ CODE(movnti), { W(DEV + 8, 8, OLD) }, OLD, DEV },
	{ CODE(x87_load), { R(DEV + 16, 8, 0xa000000000000000), R(DEV + 24, 2, 0x4002) }, 10, DEV },
	{ CODE(x87_store), { W(DEV + 8, 8, 0x3ff0000000000000) }, OLD, DEV },
	/* An unmasked exception: nothing is stored. */
	{ CODE(x87_held), { { 0 } }, 0xb881, DEV },
	{ CODE(x87_word),
	  { W(DEV + 8, 2, 0x37f), W(DEV + 10, 2, 0), W(DEV + 16, 8, 1), W(DEV + 24, 2, 0) },
	  OLD,
	  DEV },
	{ CODE(movs_rep),
	  { R(DEV + 0x100, 1, 1), W(DEV + 0x200, 1, 1), R(DEV + 0x101, 1, 2), W(DEV + 0x201, 1, 2),
	    R(DEV + 0x102, 1, 3), W(DEV + 0x202, 1, 3) },
	  OLD,
	  DEV },
	{ CODE(movs_one), { R(DEV + 0x100, 8, 77), W(DEV + 0x200, 8, 77) }, OLD, DEV },
	{ CODE(movs_down),
	  { R(DEV + 0x100, 4, 1), W(DEV + 0x200, 4, 1), R(DEV + 0xfc, 4, 2), W(DEV + 0x1fc, 4, 2) },
	  OLD,
	  DEV },
	{ CODE(movs_ram), { R(DEV + 0x100, 4, 1), R(DEV + 0x104, 4, 2) }, 0x200000001, DEV },
	{ CODE(stos_rep), { W(DEV + 0x200, 2, OLD), W(DEV + 0x202, 2, OLD) }, OLD, DEV },
	{ CODE(lods_one), { R(DEV + 0x100, 4, 5) }, 5, DEV },
	{ CODE(cmps_rep),
	  { R(DEV + 0x100, 1, 1), R(DEV + 0x200, 1, 1), R(DEV + 0x101, 1, 2),
	    R(DEV + 0x201, 1, 3) },
	  0x1111111111111101,
	  DEV },
	{ CODE(scas_rep),
	  { R(DEV + 0x200, 1, 1), R(DEV + 0x201, 1, 0x22) },
	  0x1111111111111101,
	  DEV },
	{ CODE(ins_mem), { R(PORT | IN_OUT, 4, 0x1234), W(DEV + 0x200, 4, 0x1234) }, OLD, DEV },
	{ CODE(outs_mem),
	  { R(DEV + 0x100, 2, 1), W(PORT | IN_OUT, 2, 1), R(DEV + 0x102, 2, 2),
	    W(PORT | IN_OUT, 2, 2) },
	  OLD,
	  DEV },
	{ CODE(cross_read), { R(VM_HOLE, 4, 0x04030201) }, 0x040302018f8e8d8c, DEV },
	{ CODE(cross_write), { W(VM_HOLE, 5, OLD) }, OLD, 0x1111118c },
	{ CODE(cross_rmw), { R(VM_HOLE, 4, 7), W(VM_HOLE, 4, 7) }, 1, DEV },
	{ CODE(cross_back), { R(VM_HOLE_END - 2, 2, 0x2211) }, 0x81802211, DEV },
	{ CODE(cross_sse),
	  { R(VM_HOLE, 4, 0x44332211) },
	  0x8b8a898887868584 + 0,
	  0x443322118f8e8d8c },
	{ CODE(lea_only), { { 0 } }, DEV + 8, DEV },
	{ CODE(cmov_not), { R(DEV + 4, 4, 9) }, 0x11111111, DEV },
	{ CODE(jmp_mem), { R(DEV + 8, 8, VM_CODE + 32) }, 2, DEV },
};

static void all_scripts(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	for (unsigned i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
		script_run(&vm, &scripts[i], VM_LONG);
	vm_destroy(&vm);
}

/* The same code many times: what was cached the first time must not be wrong the second. */
static void again(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	for (unsigned k = 0; k < 5; k++)
		for (unsigned i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
			script_run(&vm, &scripts[i], VM_LONG);
	vm_destroy(&vm);
}

/* 32-bit code; PUSHA and far pointers take several accesses. */
GUEST(add32, 32, "addl $5, 4(%ebx); hlt");
GUEST(pusha32, 32, "lea 0x100(%ebx), %esp; push %eax; push $2; pop %eax; hlt");
GUEST(xlat32, 32, "mov $4, %al; xlat; hlt");
GUEST(enter32, 32,
      "lea 0x100(%ebx), %esp; mov $0x1234, %ebp; enter $8, $0; leave; mov %ebp, %eax; hlt");

static const struct script scripts32[] = {
	{ CODE(add32), { R(DEV + 4, 4, 1), W(DEV + 4, 4, 6) }, 0x11111111, DEV },
	{ CODE(pusha32),
	  { W(DEV + 0xfc, 4, OLD), W(DEV + 0xf8, 4, 2), R(DEV + 0xf8, 4, 3) },
	  3,
	  DEV },
	{ CODE(xlat32), { R(DEV + 4, 1, 9) }, 0x11111109, DEV },
	{ CODE(enter32), { W(DEV + 0xfc, 4, 0x1234), R(DEV + 0xfc, 4, 0x99) }, 0x99, DEV },
};

static void scripts_32(void)
{
	static const enum vm_mode modes[] = { VM_PM32, VM_PAGED32, VM_PAE, VM_COMPAT };
	struct vm vm;

	vm_make(&vm, 0);
	for (unsigned m = 0; m < 4; m++)
		for (unsigned i = 0; i < sizeof(scripts32) / sizeof(scripts32[0]); i++) {
			struct script s = scripts32[i];
			struct kvm_regs r;

			script_enter(&vm, &s, modes[m]);
			r = vm_regs(&vm);
			r.rax = (uint32_t)r.rax;
			vm_set_regs(&vm, &r);
			for (unsigned k = 0; k < MAX; k++) {
				int reason = vm_run(&vm);

				if (reason == KVM_EXIT_HLT ||
				    !serve(&vm, reason, &s.seen[k], s.name))
					break;
			}
			CHECK_EQ(vm_regs(&vm).rax, s.rax);
		}
	vm_destroy(&vm);
}

/* immediate_exit after an access completes the instruction and begins no other. */
GUEST(two_steps, 64, "mov 4(%rbx), %eax; inc %eax; addl $1, 8(%rbx); inc %eax; hlt");

static void complete_only(void)
{
	static const struct seen add[] = { R(DEV + 8, 4, 10), W(DEV + 8, 4, 11) };
	static const struct seen load = R(DEV + 4, 4, 100);
	const struct script s = { CODE(two_steps), { { 0 } }, 0, 0 };
	struct vm vm;

	vm_make(&vm, 0);
	script_enter(&vm, &s, VM_LONG);
	CHECK_EQ(vm_regs(&vm).rip, VM_CODE);
	serve(&vm, vm_run(&vm), &load, "load");
	vm.run->immediate_exit = 1;
	CHECK_EQ(vm_run(&vm), -EINTR);
	CHECK_EQ(vm_regs(&vm).rip, VM_CODE + 3);
	CHECK_EQ(vm_regs(&vm).rax, 100);
	CHECK_EQ(vm_run(&vm), -EINTR);
	CHECK_EQ(vm_regs(&vm).rip, VM_CODE + 3);
	vm.run->immediate_exit = 0;
	serve(&vm, vm_run(&vm), &add[0], "add");
	CHECK_EQ(vm_regs(&vm).rax, 101);
	vm.run->immediate_exit = 1; /* the write is still due */
	serve(&vm, vm_run(&vm), &add[1], "add");
	CHECK_EQ(vm_run(&vm), -EINTR);
	CHECK_EQ(vm_regs(&vm).rip, VM_CODE + 9);
	vm.run->immediate_exit = 0;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rax, 102);
	vm_destroy(&vm);
}

/* User space looks at the registers between the accesses, or moves the guest away. */
static void registers_between(void)
{
	static const struct seen load = R(DEV + 4, 4, 100), add = R(DEV + 8, 4, 10);
	const struct script s = { CODE(two_steps), { { 0 } }, 0, 0 };
	struct kvm_sregs sregs;
	struct vm vm;

	vm_make(&vm, 0);
	script_enter(&vm, &s, VM_LONG);
	serve(&vm, vm_run(&vm), &load, "load");
	(void)vm_regs(&vm);
	sregs = vm_sregs(&vm);
	(void)sregs;
	serve(&vm, vm_run(&vm), &add, "add");
	CHECK_EQ(vm_regs(&vm).rax, 101);
	/* Away: the half done addition is forgotten. */
	vm_jump(&vm, VM_CODE + 9);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rax, 102);
	/* And the same instruction again starts anew. */
	vm_jump(&vm, VM_CODE + 5);
	serve(&vm, vm_run(&vm), &add, "add again");
	vm_destroy(&vm);
}

/* Port input and output of each size; the REP forms may come in batches. */
GUEST(ports, 64,
      "in $0x80, %al; in (%dx), %ax; in (%dx), %eax; out %al, $0x81; out %ax, (%dx); out %eax, "
      "(%dx)\n"
      "mov $0x20000, %edi; mov $600, %ecx; rep insb; mov $0x20000, %esi; mov $300, %ecx; rep "
      "outsw; hlt");

static void port_io(void)
{
	static const struct seen seen[] = { R(0x80 | IN_OUT, 1, 1),   R(PORT | IN_OUT, 2, 0x203),
					    R(PORT | IN_OUT, 4, 0x7), W(0x81 | IN_OUT, 1, 7),
					    W(PORT | IN_OUT, 2, 7),   W(PORT | IN_OUT, 4, 7) };
	const struct script s = { CODE(ports), { { 0 } }, 0, 0 };
	unsigned in = 0, out = 0;
	struct vm vm;
	int reason;

	vm_make(&vm, 0);
	script_enter(&vm, &s, VM_LONG);
	for (unsigned i = 0; i < 6; i++)
		serve(&vm, vm_run(&vm), &seen[i], "port");
	while ((reason = vm_run(&vm)) == KVM_EXIT_IO) {
		uint8_t *data = (uint8_t *)vm.run + vm.run->io.data_offset;
		unsigned n = vm.run->io.size * vm.run->io.count;

		CHECK_EQ(vm.run->io.port, PORT);
		CHECK(n > 0 && n <= 4096);
		for (unsigned i = 0; i < n; i++) {
			if (vm.run->io.direction == KVM_EXIT_IO_IN)
				data[i] = in++ * 7;
			else if (data[i] != (uint8_t)(out++ * 7))
				check_failed("outs", "byte %u is %x", out - 1, data[i]);
		}
	}
	CHECK_EQ(reason, KVM_EXIT_HLT);
	CHECK_EQ(in, 600);
	CHECK_EQ(out, 600);
	vm_destroy(&vm);
}

/* Faults beat devices: a write whose second page faults must not reach the device on the first. */
GUEST(cross_fault, 64, "mov %rax, 0xa0ffc; hlt");
GUEST(string_fault, 64, "mov $0x20ffe, %edi; mov $4, %ecx; cld; rep movsb; hlt");

static void faults_first(void)
{
	const struct script s = { CODE(cross_fault), { { 0 } }, 0, 0 };
	const struct script t = { CODE(string_fault), { { 0 } }, 0, 0 };
	static const struct seen seen[] = { R(DEV + 0x100, 1, 1), R(DEV + 0x101, 1, 2) };
	struct vm_frame f;
	struct vm vm;
	int reason;

	vm_make(&vm, 0);
	script_enter(&vm, &s, VM_LONG);
	*vm_pte(&vm, 0xa1000) = 0;
	f = VM_FAULT(&vm, 14);
	CHECK_EQ(f.cr2, 0xa1000);
	script_enter(&vm, &t, VM_LONG);
	*vm_pte(&vm, 0x21000) = 0;
	for (unsigned i = 0; i < 2; i++)
		serve(&vm, vm_run(&vm), &seen[i], "string");
	/* Whether the third byte is read before the fault is the processor's choice. */
	reason = vm_run(&vm);
	if (reason == KVM_EXIT_MMIO)
		reason = vm_run(&vm);
	CHECK_EQ(reason, KVM_EXIT_IO);
	f = vm_frame(&vm);
	CHECK_EQ(f.vector, 14);
	CHECK_EQ(f.cr2, 0x21000);
	CHECK_EQ(vm_regs(&vm).rcx, 2);
	CHECK_EQ(vm_regs(&vm).rsi, DEV + 0x102);
	CHECK_EQ(vm_peek(&vm, 0x20ffe, 2), 0x201);
	vm_destroy(&vm);
}

VM_TESTS({ .name = "instructions", .run = all_scripts },
	 { .name = "again and again", .run = again },
	 { .name = "32-bit instructions", .run = scripts_32 },
	 { .name = "immediate_exit completes", .run = complete_only },
	 { .name = "registers between accesses", .run = registers_between },
	 { .name = "ports", .run = port_io }, { .name = "faults come first", .run = faults_first });
