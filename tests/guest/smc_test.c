/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Code that changes after it was translated: by stores of the host, of the guest, and through aliases. */
#include <string.h>

#include "vm.h"

/* The body that is changed: mov $imm, %eax; ret. */
#define BODY	 0x21000
#define BODY_IMM (BODY + 1)
#define ALIAS	 0x31000ul
#define OTHER	 0x22000
static const uint8_t body[] = { 0xb8, 1, 0, 0, 0, 0xc3 };

static void body_load(struct vm *vm, uint64_t at, uint32_t value)
{
	vm_load(vm, at, body, sizeof(body));
	vm_poke(vm, at + 1, value, 4);
}

/* Host stores while the guest is in an exit. */

GUEST(call_invlpg, 64,
      "1: mov $0x21000, %ebx; call *%rbx; hlt; invlpg (%rbx); call *%rbx; hlt; jmp 1b");
GUEST(call_cr3, 64,
      "1: mov $0x21000, %ebx; call *%rbx; hlt; mov %cr3, %rcx; mov %rcx, %cr3; call *%rbx; hlt; "
      "jmp 1b");
GUEST(call_plain32, 32, "1: mov $0x21000, %ebx; call *%ebx; hlt; jmp 1b");
GUEST(call_plain16, 16, "1: mov $0x9000, %bx; call *%bx; hlt; jmp 1b");

static void host_store_paged(const uint8_t *code, const uint8_t *end)
{
	struct vm vm;

	vm_make(&vm, 0);
	vm_enter(&vm, VM_LONG, 0);
	vm_load(&vm, VM_CODE, code, end - code);
	body_load(&vm, BODY, 1);
	for (unsigned i = 1; i < 50; i++) {
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		vm_poke(&vm, BODY_IMM, i + 100, 4);
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		CHECK_EQ(vm_regs(&vm).rax, i + 100);
	}
	vm_destroy(&vm);
}

static void host_store_invlpg(void)
{
	host_store_paged(call_invlpg, call_invlpg_end);
}

static void host_store_cr3(void)
{
	host_store_paged(call_cr3, call_cr3_end);
}

/* With paging off an exit is enough. */
static void host_store_unpaged(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_PM32, 0, call_plain32);
	body_load(&vm, BODY, 1);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	for (unsigned i = 1; i < 50; i++) {
		vm_poke(&vm, BODY_IMM, i, 4);
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		CHECK_EQ(vm_regs(&vm).rax, i);
	}
	VM_START(&vm, VM_REAL, 0, call_plain16);
	body_load(&vm, 0x9000, 1);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	for (unsigned i = 1; i < 50; i++) {
		vm_load(&vm, 0x9000, (uint8_t[]){ 0xb8, i, 0, 0xc3 }, 4);
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		CHECK_EQ(vm_regs(&vm).rax & 0xffff, i);
	}
	vm_destroy(&vm);
}

GUEST(call_twice, 64, "mov $0x21000, %ebx; call *%rbx; call *%rbx; hlt");

static void host_store_set_regs(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, call_twice);
	for (unsigned i = 1; i < 50; i++) {
		struct kvm_regs r = vm_regs(&vm);

		body_load(&vm, BODY, i);
		r.rip = VM_CODE;
		vm_set_regs(&vm, &r);
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		CHECK_EQ(vm_regs(&vm).rax, i);
	}
	vm_destroy(&vm);
}

/* The guest maps another page at the address: a frame with other code, then back to the first. */
static void remap(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, call_invlpg);
	body_load(&vm, BODY, 1);
	body_load(&vm, OTHER, 2);
	for (unsigned i = 0; i < 20; i++) {
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		*vm_pte(&vm, BODY) = (i & 1 ? BODY : OTHER) | 0x67;
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		CHECK_EQ(vm_regs(&vm).rax, i & 1 ? 1 : 2);
	}
	vm_destroy(&vm);
}

/* A loop whose own page is remapped under it by MOV CR3: the next instruction is the new page's. */
#define LOOP_CODE "mov $0x50000, %ecx; mov %cr3, %rdx; mov %rcx, %cr3; mov $1, %eax; hlt; hlt"
GUEST(self_remap, 64, LOOP_CODE);
GUEST(self_remap_new, 64,
      "mov $0x50000, %ecx; mov %cr3, %rdx; mov %rcx, %cr3; mov $2, %eax; hlt; hlt");
GUEST(self_invlpg, 64,
      "mov $0x13108, %edi; movl $0x21067, (%rdi); mov $0x21000, %ebx; invlpg (%rbx); mov $1, %eax; "
      "hlt");
GUEST(self_invlpg_new, 64,
      "mov $0x13108, %edi; movl $0x22067, (%rdi); mov $0x21000, %ebx; invlpg (%rbx); mov $2, %eax; "
      "hlt");

static void remap_self(void)
{
	struct vm vm;
	uint64_t pd;

	vm_make(&vm, 0);
	vm_enter(&vm, VM_LONG, 0);
	VM_LOAD(&vm, BODY, self_remap);
	VM_LOAD(&vm, OTHER, self_remap_new);
	/* A second set of tables, with BODY at OTHER. */
	memcpy(vm.ram + 0x50000, vm.ram + VM_TABLES, 0x4000);
	vm_poke(&vm, 0x50000, 0x51067, 8);
	vm_poke(&vm, 0x51000, 0x52067, 8);
	pd = vm_peek(&vm, 0x52000, 8);
	vm_poke(&vm, 0x52000, (pd & 0xfff) | 0x53000, 8);
	vm_poke(&vm, 0x53000 + (BODY >> 12) * 8, OTHER | 0x67, 8);
	vm_jump(&vm, BODY);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rax, 2);
	vm_enter(&vm, VM_LONG, 0);
	VM_LOAD(&vm, BODY, self_invlpg_new);
	VM_LOAD(&vm, OTHER, self_invlpg_new);
	vm_poke(&vm, BODY + 26, 1, 1);
	vm_jump(&vm, BODY);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_peek(&vm, VM_PT + (BODY >> 12) * 8, 8) & ~0x60ull, OTHER | 7);
	CHECK_EQ(vm_regs(&vm).rax, 2);
	vm_destroy(&vm);
}

/* Stores of the guest. Each of these ends in HLT with 0 in RBX for good. */

/* The next instruction, an instruction ahead in the block, one behind in a loop, in all widths. */
GUEST(smc64, 64,
      "movb $2, 1f+1(%rip)\n 1: mov $1, %eax; cmp $2, %eax; jne bad64\n"
      "movb $3, 2f+1(%rip); nop; nop; xor %ecx, %ecx; add $5, %ecx\n 2: mov $1, %eax; cmp $3, "
      "%eax; jne bad64\n"
      "mov $200, %ecx; xor %esi, %esi\n"
      "3: incb 4f+1(%rip)\n 4: mov $0, %al; inc %sil; cmp %sil, %al; jne bad64; loop 3b\n"
      /* XCHG, LOCK ADD, CMPXCHG and BTS onto the instruction ahead. */
      "mov $7, %dl; xchg %dl, 5f+1(%rip)\n 5: mov $1, %al; cmp $7, %al; jne bad64\n"
      "lock addb $3, 6f+1(%rip)\n 6: mov $1, %al; cmp $4, %al; jne bad64\n"
      "mov $1, %al; mov $9, %dl; cmpxchg %dl, 7f+1(%rip)\n 7: mov $1, %al; cmp $9, %al; jne bad64\n"
      "btsl $12, 8f(%rip)\n 8: mov $1, %al; cmp $0x11, %al; jne bad64\n"
      "movups 20f(%rip), %xmm0; movups %xmm0, 9f(%rip)\n 9: mov $1, %eax; nop; nop; nop; nop; nop; "
      "nop; nop; nop; nop; nop; nop\n"
      "cmp $0x33, %eax; jne bad64\n"
      /* PUSH onto the code ahead. */
      "mov %rsp, %rbp; lea 10f+8(%rip), %rsp; mov 21f(%rip), %rax; push %rax\n"
      "10: mov $1, %ecx; nop; nop; nop; mov %rbp, %rsp; cmp $0x44, %ecx; jne bad64\n"
      /* CALL that pushes its return address onto its own target's page is no change of code. */
      "xor %ebx, %ebx; hlt; jmp .\n bad64: mov $1, %ebx; hlt\n"
      ".balign 16\n 20: mov $0x33, %eax; .fill 11, 1, 0x90\n 21: mov $0x44, %ecx; .fill 3, 1, "
      "0x90");
GUEST(smc32, 32,
      "call 0f\n 0: pop %edi; sub $5, %edi\n"
      "movb $2, 1f-smc32+1(%edi)\n 1: mov $1, %eax; cmp $2, %eax; jne bad32\n"
      "mov $200, %ecx; xor %edx, %edx\n"
      "3: incb 4f-smc32+1(%edi)\n 4: mov $0, %al; inc %dl; cmp %dl, %al; jne bad32; loop 3b\n"
      "lock incb 5f-smc32+1(%edi)\n 5: mov $1, %al; cmp $2, %al; jne bad32\n"
      "xor %ebx, %ebx; hlt; jmp .\n bad32: mov $1, %ebx; hlt");
GUEST(smc16, 16,
      "call 0f\n 0: pop %di; sub $3, %di\n"
      "movb $2, 1f-smc16+1(%di)\n 1: mov $1, %ax; cmp $2, %ax; jne bad16\n"
      "mov $200, %cx; xor %dx, %dx\n"
      "3: incb 4f-smc16+1(%di)\n 4: mov $0, %al; inc %dl; cmp %dl, %al; jne bad16; loop 3b\n"
      "lock incb 5f-smc16+1(%di)\n 5: mov $1, %al; cmp $2, %al; jne bad16\n"
      "xor %bx, %bx; hlt; jmp .\n bad16: mov $1, %bx; hlt");

static void expect_good(struct vm *vm, const char *where)
{
	check_exit(vm, KVM_EXIT_HLT, where);
	if (vm_regs(vm).rbx)
		check_failed(where, "old code ran, before rip %llx", vm_regs(vm).rip);
}

static void self_modifying(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, smc64);
	expect_good(&vm, "64-bit");
	VM_START(&vm, VM_PM32, 0, smc32);
	expect_good(&vm, "32-bit");
	VM_START(&vm, VM_PAE, 0, smc32);
	expect_good(&vm, "PAE");
	VM_START(&vm, VM_COMPAT, 0, smc32);
	expect_good(&vm, "compatibility");
	VM_START(&vm, VM_REAL, 0, smc16);
	expect_good(&vm, "real");
	/* 16-bit protected mode cannot write through CS; DS covers the same bytes. */
	VM_START(&vm, VM_PM16, 0, smc16);
	expect_good(&vm, "16-bit");
	vm_destroy(&vm);
}

/* REP STOS and REP MOVS over the code ahead, over the string instruction itself, and backwards. */
GUEST(rep_over, 64,
      "lea 1f(%rip), %rdi; mov $8, %ecx; mov $0x90, %al; mov $1, %ebx; rep stosb\n"
      "1: jmp bad_rep; .fill 3, 1, 0xcc; .fill 3, 1, 0xcc; .fill 2, 1, 0x90\n"
      "lea 2f(%rip), %rdi; lea 3f(%rip), %rsi; mov $5, %ecx; rep movsb\n"
      "2: mov $1, %eax; cmp $0x55, %eax; jne bad_rep\n"
      "lea 4f+4(%rip), %rdi; lea 3f+4(%rip), %rsi; mov $5, %ecx; std; rep movsb; cld\n"
      "4: mov $1, %eax; cmp $0x55, %eax; jne bad_rep\n"
      /* The string instruction overwrites itself: all iterations are done, then what it wrote runs. */
      "lea 5f(%rip), %rdi; mov $4, %ecx; mov $0x90, %al\n"
      "5: rep stosb; nop; nop; test %ecx, %ecx; jnz bad_rep\n"
      "xor %ebx, %ebx; hlt; jmp .\n bad_rep: mov $1, %ebx; hlt\n 3: mov $0x55, %eax");

static void rep_over_code(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, rep_over);
	/* The fill at label 1 is 8 NOPs after the jump's two bytes are gone. */
	expect_good(&vm, VM_HERE);
	vm_destroy(&vm);
}

/* A chained loop of two blocks: the second is patched after many rounds. Counts in RSI and RDI. */
GUEST(chained, 64,
      "mov $5000, %ecx; xor %esi, %esi; xor %edi, %edi\n"
      "1: jmp 2f\n .balign 64\n 2: mov $1, %eax; add %eax, %esi; jmp 3f\n .balign 64\n"
      "3: cmp $2500, %ecx; jne 4f; movb $3, 2b+1(%rip)\n 4: loop 1b; hlt");

static void chained_target(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, chained);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	/* 2501 rounds of 1, then 2499 of 3. */
	CHECK_EQ(vm_regs(&vm).rsi, 2501 + 2499 * 3);
	vm_destroy(&vm);
}

/* An instruction on two pages; its second half is patched by host and guest. */
#define STRADDLE 0x22ffd /* b8 imm32: two bytes of imm in the first page */
GUEST(straddle_guest, 64,
      "mov $0x22ffd, %ebx; call *%rbx; mov %eax, %esi; movb $0x77, 0x23001; call *%rbx; mov %eax, "
      "%edi\n"
      "movb $0x66, 0x22ffe; call *%rbx; mov %eax, %edx; hlt");
GUEST(straddle_remap, 64,
      "mov $0x22ffd, %ebx; call *%rbx; mov %eax, %esi; hlt; invlpg 0x23000; call *%rbx; mov %eax, "
      "%edi; hlt");

static void straddling(void)
{
	struct vm vm;
	struct kvm_regs r;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, straddle_guest);
	body_load(&vm, STRADDLE, 0x11223344);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	r = vm_regs(&vm);
	CHECK_EQ(r.rsi, 0x11223344);
	CHECK_EQ(r.rdi, 0x77223344);
	CHECK_EQ(r.rdx, 0x77223366);
	/* Another second page. */
	VM_START(&vm, VM_LONG, 0, straddle_remap);
	body_load(&vm, STRADDLE, 0x11223344);
	memcpy(vm.ram + 0x24000, vm.ram + 0x23000, 16);
	vm_poke(&vm, 0x24000, 0x99, 1);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	*vm_pte(&vm, 0x23000) = 0x24067;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	r = vm_regs(&vm);
	CHECK_EQ(r.rsi, 0x11223344);
	CHECK_EQ(r.rdi, 0x11993344);
	/* The second page is not there: #PF with its address, none of the instruction done. */
	VM_START(&vm, VM_LONG, 0, straddle_remap);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	*vm_pte(&vm, 0x23000) = 0;
	{
		struct vm_frame f = VM_FAULT(&vm, 14);

		CHECK_EQ(f.cr2, 0x23000);
		CHECK_EQ(f.rip, STRADDLE);
	}
	vm_destroy(&vm);
}

/* Self-modifying across the page boundary: the store is in one page, the code in the next. */
GUEST(cross, 64,
      "mov $100, %ecx; xor %esi, %esi\n"
      "1: incb 2f+1(%rip); jmp 2f\n .skip 0xff8-(.-cross), 0x90\n .fill 8, 1, 0x90\n"
      "2: mov $0, %al; inc %sil; cmp %sil, %al; jne 3f; dec %ecx; jnz 1b; xor %ebx, %ebx; hlt; jmp "
      ".\n"
      "3: mov $1, %ebx; hlt");
/* A store that lies on both pages, both with code. */
GUEST(cross_store, 64,
      "mov $0x22ffa, %ebx; call *%rbx; mov %eax, %esi; mov %edx, %edi\n"
      "movl $0xb802b801, 0x22ffe; movl $0xc3000000, 0x23001\n"
      "call *%rbx; hlt");

static void page_crossing(void)
{
	struct vm vm;
	struct kvm_regs r;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, cross);
	expect_good(&vm, VM_HERE);
	/* 22ffa: mov $imm, %edx (ba); 22fff: nop; 23000: mov $imm, %eax; ret. */
	VM_START(&vm, VM_LONG, 0, cross_store);
	vm_load(&vm, 0x22ffa, "\xba\x01\x00\x00\x00\x90\xb8\x05\x00\x00\x00\xc3", 12);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	r = vm_regs(&vm);
	CHECK_EQ(r.rsi, 5);
	CHECK_EQ(r.rdi, 1);
	CHECK_EQ(r.rdx, 0x01000001);
	CHECK_EQ(r.rax, 2);
	vm_destroy(&vm);
}

/* Two virtual aliases of one frame; the code is changed through the other one, which was hot. */
GUEST(aliases, 64,
      "mov $0x21000, %ebx; mov $0x31000, %ebp; mov $100, %ecx\n"
      /* Heat the write tag of the alias before there is code on the page. */
      "1: movb $0xc3, 0x100(%rbp); loop 1b\n"
      "movl $0x000001b8, (%rbp); movw $0xc300, 4(%rbp); call *%rbx; mov %eax, %esi\n"
      "incb 1(%rbp); call *%rbx; mov %eax, %edi\n"
      "incb 1(%rbp); call *%rbp; mov %eax, %r8d\n"
      "incb 1(%rbx); call *%rbp; mov %eax, %r9d; incb 1(%rbp); call *%rbx; hlt");

static void virtual_aliases(void)
{
	struct vm vm;
	struct kvm_regs r;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, aliases);
	*vm_pte(&vm, ALIAS) = BODY | 0x67;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	r = vm_regs(&vm);
	CHECK_EQ(r.rsi, 1);
	CHECK_EQ(r.rdi, 2);
	CHECK_EQ(r.r8, 3);
	CHECK_EQ(r.r9, 4);
	CHECK_EQ(r.rax, 5);
	vm_destroy(&vm);
}

/* Two slots over the same memory of the VMM: a store through the other frame is also seen. */
static void slot_aliases(void)
{
	struct vm vm;
	struct kvm_regs r;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, aliases);
	vm_slot(&vm, 5, 0, VM_SIZE, 4096, vm.ram + BODY);
	*vm_pte(&vm, ALIAS) = VM_SIZE | 0x67;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	r = vm_regs(&vm);
	CHECK_EQ(r.rsi, 1);
	CHECK_EQ(r.rax, 5);
	vm_destroy(&vm);
}

/* Data first, with a hot write tag; then code; then data again, many times. */
GUEST(turns, 64,
      "mov $0x21000, %ebx; mov $200, %ecx; xor %edi, %edi\n"
      "1: mov $64, %edx\n 2: mov %edx, 0x800(%rbx,%rdx,4); dec %edx; jnz 2b\n"
      "mov %ecx, 1(%rbx); movb $0xb8, (%rbx); movb $0xc3, 5(%rbx); call *%rbx\n"
      "cmp %eax, %ecx; jne 3f; loop 1b; xor %ebx, %ebx; hlt\n 3: mov $1, %ebx; hlt");

static void data_then_code(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, turns);
	expect_good(&vm, VM_HERE);
	vm_destroy(&vm);
}

/* Code beside data on one page: stores that hit no block neither break nor slow to death. */
GUEST(beside, 64, "mov $300000, %ecx\n 1: incl 0xe00(%rip); loop 1b; hlt");

static void data_beside_code(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, beside);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_peek(&vm, VM_CODE + 11 + 0xe00, 4), 300000);
	vm_destroy(&vm);
}

/* Where data was stored beside code long enough for a fast way to be found, code appears and is patched, by the same store. */
GUEST(range, 64,
      "mov $0x21000, %ebx; movl $0x1b8, (%rbx); movl $0xc300, 4(%rbx); call *%rbx\n"
      "lea 0x800(%rbx), %rsi; mov $200, %ecx\n"
      "1: mov %rsi, %rdi; mov $40, %edx\n"
      "2: mov %edx, %eax; call 8f; add $4, %rdi; dec %edx; jnz 2b\n"
      "mov %rsi, %rdi; mov %ecx, %eax; shl $8, %eax; or $0xb8, %eax; call 8f\n"
      "add $4, %rdi; mov $0xc300, %eax; call 8f; call *%rsi; cmp %eax, %ecx; jne 9f\n"
      "mov %rsi, %rdi; lea 1(%rcx), %eax; shl $8, %eax; or $0xb8, %eax; call 8f\n"
      "call *%rsi; dec %eax; cmp %eax, %ecx; jne 9f\n"
      "dec %ecx; jnz 1b; xor %ebx, %ebx; hlt\n"
      "8: mov %eax, (%rdi); ret\n"
      "9: mov $1, %ebx; hlt");

static void range_then_code(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, range);
	expect_good(&vm, VM_HERE);
	vm_destroy(&vm);
}

/* Two stores behind one register: the first hits no code, the second does, of a function and of the block itself; and by pushes. */
GUEST(window, 64,
      "mov $0x21080, %ebx; movb $0xb8, (%rbx); movb $0xc3, 5(%rbx); mov $100, %ecx\n"
      "1: mov %ecx, -64(%rbx); mov %ecx, 1(%rbx); call *%rbx; cmp %eax, %ecx; jne 9f; loop 1b\n"
      "lea 3f(%rip), %rsi; mov $100, %ecx\n"
      "2: mov %ecx, 0xc0(%rsi); mov %ecx, 1(%rsi)\n 3: mov $0, %eax; cmp %eax, %ecx; jne 9f; loop "
      "2b\n"
      "mov $0x21100, %ebx; mov $0xb8, %edi; shl $56, %rdi; mov $100, %ecx; mov %rsp, %rbp\n"
      "movl $0xc3, 4(%rbx)\n"
      "4: lea 72(%rbx), %rsp; push %rcx; push %rcx; push %rcx; push %rcx; push %rcx; push %rcx\n"
      "push %rcx; push %rcx; mov $0xc3, %eax; shl $32, %rax; or %rcx, %rax; push %rax; push %rdi\n"
      "lea -1(%rbx), %rdx; mov %rbp, %rsp; call *%rdx; cmp %eax, %ecx; jne 9f; loop 4b\n"
      "xor %ebx, %ebx; hlt\n 9: mov $1, %ebx; hlt");

static void window_over_code(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, window);
	expect_good(&vm, VM_HERE);
	vm_destroy(&vm);
}

/* A store turns the ADD behind it, which needs no flags, into an ADC: the carry from before the store counts. */
GUEST(carry, 64, "xor %eax, %eax; cmp $1, %eax; movb $0xd0, 1f+1(%rip)\n 1: add $0, %eax; hlt");
#define CARRY_BYTE (VM_CODE + (carry_end - carry) - 3)

static void flags_across_patch(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, carry);
	CHECK_EQ(vm_peek(&vm, CARRY_BYTE, 1), 0xc0);
	for (unsigned i = 0; i < 20; i++) {
		vm_poke(&vm, CARRY_BYTE, 0xc0, 1);
		vm_jump(&vm, VM_CODE);
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		CHECK_EQ(vm_regs(&vm).rax, 1);
	}
	vm_destroy(&vm);
}

/* One address, functions of different lengths in turn: a translation takes the place of a shorter or a longer one. */
GUEST(lengths, 64,
      "mov $300, %r8d\n"
      "1: mov $0x21000, %edi; lea 5f(%rip), %rsi; mov $6f - 5f, %ecx; rep movsb\n"
      "mov $0x21000, %ebx; call *%rbx; cmp $1, %eax; jne 9f\n"
      "mov $0x21000, %edi; lea 6f(%rip), %rsi; mov $7f - 6f, %ecx; rep movsb\n"
      "call *%rbx; cmp $2, %eax; jne 9f\n"
      "test $1, %r8d; jz 2f\n"
      "mov $0x21000, %edi; lea 7f(%rip), %rsi; mov $8f - 7f, %ecx; rep movsb\n"
      "call *%rbx; cmp $3, %eax; jne 9f\n"
      "2: dec %r8d; jnz 1b; xor %ebx, %ebx; hlt\n"
      "5: mov $1, %eax; ret\n"
      "6: xor %eax, %eax\n 4: inc %eax; cmp $2, %eax; jne 4b; ret\n"
      "7: push %rbx; push %rcx; movl $1, 0x900(%rbx); mov $2, %eax; add 0x900(%rbx), %eax; pop "
      "%rcx; "
      "pop %rbx; ret\n"
      "8: nop\n"
      "9: mov $1, %ebx; hlt");

static void code_of_lengths(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, lengths);
	expect_good(&vm, VM_HERE);
	vm_destroy(&vm);
}

/* Many pages of code rewritten in turn: more code than is useful to keep. */
GUEST(churn, 64,
      "mov $300, %r9d\n"
      "1: mov $64, %r8d; mov $0x40000, %ebx\n"
      "2: mov $0xb8, %al; mov %al, (%rbx); mov %r9d, 1(%rbx); movb $0xc3, 5(%rbx); call *%rbx\n"
      "cmp %eax, %r9d; jne 3f; add $0x1000, %ebx; dec %r8d; jnz 2b; dec %r9d; jnz 1b\n"
      "xor %ebx, %ebx; hlt\n 3: mov $1, %ebx; hlt");

static void code_churn(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, churn);
	expect_good(&vm, VM_HERE);
	vm_destroy(&vm);
}

VM_TESTS({ .name = "host stores, INVLPG", .run = host_store_invlpg },
	 { .name = "host stores, CR3 load", .run = host_store_cr3 },
	 { .name = "host stores, paging off", .run = host_store_unpaged },
	 { .name = "host stores, SET_REGS", .run = host_store_set_regs },
	 { .name = "a page remapped", .run = remap },
	 { .name = "the running page remapped", .run = remap_self },
	 { .name = "self-modifying code", .run = self_modifying },
	 { .name = "string stores over code", .run = rep_over_code },
	 { .name = "a chained target patched", .run = chained_target },
	 { .name = "an instruction on two pages", .run = straddling },
	 { .name = "stores across pages", .run = page_crossing },
	 { .name = "virtual aliases", .run = virtual_aliases },
	 { .name = "slots of the same memory", .run = slot_aliases, .library_only = true },
	 { .name = "data, then code", .run = data_then_code },
	 { .name = "data beside code", .run = data_beside_code },
	 { .name = "data beside code, then code", .run = range_then_code },
	 { .name = "windows that reach over code", .run = window_over_code },
	 { .name = "flags across a patch of the next instruction", .run = flags_across_patch },
	 { .name = "code of changing length", .run = code_of_lengths },
	 { .name = "code that always changes", .run = code_churn });
