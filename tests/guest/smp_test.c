/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Several vCPUs at once: locked instructions, code and page tables that others change, memory slots, wake-ups. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm.h"

#define CPUS		 3
#define STACK(i)	 (0x30000ul + 0x1000 * (i))
#define CELLS		 0x28000ul /* words that host and guest look at */
#define WATCH_MS	 10
#define STUCK_MS	 5000
#define MSR_TSC_DEADLINE 0x6e0

struct smp {
	struct vm vm; /* its vCPU is the first */
	struct vm cpu[CPUS];
	pthread_t thread[CPUS];
	int end[CPUS]; /* exit reason, or -errno */
	unsigned n;
};

static uint64_t *cell(struct smp *s, uint64_t gpa)
{
	return (uint64_t *)(s->vm.ram + gpa);
}

static uint64_t cell_get(struct smp *s, uint64_t gpa)
{
	return __atomic_load_n(cell(s, gpa), __ATOMIC_SEQ_CST);
}

/* @n vCPUs in 64-bit mode, each with its number in RDI, RSI = @rsi and a stack of its own. */
static void smp_make(struct smp *s, unsigned n, unsigned flags)
{
	vm_make(&s->vm, flags);
	s->n = n;
	vm_enter(&s->vm, VM_LONG, 0);
	s->cpu[0] = s->vm;
	for (unsigned i = 1; i < n; i++)
		vm_add_cpu(&s->cpu[i], &s->vm, i);
}

static void cpu_start(struct smp *s, unsigned i, uint64_t rip, uint64_t rsi)
{
	struct kvm_mp_state running = { KVM_MP_STATE_RUNNABLE };
	struct vm *c = &s->cpu[i];
	struct kvm_regs r;

	vm_cpu_enter(c, VM_LONG, 0);
	c->mode = VM_LONG;
	r = vm_regs(c);
	r.rip = rip;
	r.rsp = STACK(i) + 0xff0;
	r.rdi = i;
	r.rsi = rsi;
	vm_set_regs(c, &r);
	vm_ioctl(c, c->vcpu, KVM_SET_MP_STATE, (unsigned long)&running);
}

struct runner {
	struct smp *s;
	unsigned i;
};

/* Until an exit that is not a device's: nobody answers. */
static void *run_thread(void *argument)
{
	struct runner *r = argument;
	struct vm *c = &r->s->cpu[r->i];
	int end;

	do {
		end = vm_run(c);
		if (end == KVM_EXIT_MMIO && !c->run->mmio.is_write)
			memset(c->run->mmio.data, 0xff, 8);
	} while (end == KVM_EXIT_MMIO || end == -EINTR);
	__atomic_store_n(&r->s->end[r->i], end, __ATOMIC_SEQ_CST);
	free(r);
	return NULL;
}

static void smp_run(struct smp *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		struct runner *r = malloc(sizeof(*r));

		*r = (struct runner){ s, i };
		s->end[i] = -1;
		if (pthread_create(&s->thread[i], NULL, run_thread, r))
			check_fatal("pthread_create", "failed");
	}
}

static void smp_join(struct smp *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		pthread_join(s->thread[i], NULL);
		if (s->end[i] != KVM_EXIT_HLT && s->end[i] != KVM_EXIT_IO)
			check_failed("vCPU", "%u ends with %s", i,
				     vm_exit_text(&s->cpu[i], s->end[i]));
	}
}

static void smp_destroy(struct smp *s)
{
	for (unsigned i = 1; i < s->n; i++)
		vm_drop_cpu(&s->cpu[i]);
	vm_destroy(&s->vm);
}

/* --- Locked instructions: RSI is the address; counts must be exact. */

#define LOOPS 3000
GUEST(count_add, 64, "mov $3000, %ecx; 1: lock addq $1, (%rsi); dec %ecx; jnz 1b; hlt");
GUEST(count_inc, 64, "mov $3000, %ecx; 1: lock incl (%rsi); dec %ecx; jnz 1b; hlt");
GUEST(count_xadd, 64,
      "mov $3000, %ecx; 1: mov $1, %eax; lock xaddq %rax, (%rsi); dec %ecx; jnz 1b; hlt");
GUEST(count_cmpxchg, 64,
      "mov $3000, %ecx; 1: mov (%rsi), %rax; 2: lea 1(%rax), %rdx; lock cmpxchgq %rdx, (%rsi); jnz "
      "2b;"
      "dec %ecx; jnz 1b; hlt");
/* A lock in the word by XCHG guards a plain count behind it. */
GUEST(count_xchg, 64,
      "mov $3000, %ecx; 1: mov $1, %eax; xchg %eax, (%rsi); test %eax, %eax; jz 2f; pause; jmp 1b;"
      "2: incq 64(%rsi); mov %ecx, %ecx; movl $0, (%rsi); dec %ecx; jnz 1b; hlt");
/* Half of them takes the low part alone, which does not cross the page. */
GUEST(count_mixed, 64,
      "mov $3000, %ecx; test $1, %edi; jnz 2f; 1: lock addq $1, (%rsi); dec %ecx; jnz 1b; hlt;"
      "2: lock incl (%rsi); dec %ecx; jnz 2b; hlt");

static void count(const uint8_t *code, const uint8_t *end, uint64_t at, uint64_t result)
{
	struct smp s;
	uint64_t got;

	smp_make(&s, CPUS, 0);
	vm_load(&s.vm, VM_CODE, code, end - code);
	for (unsigned i = 0; i < CPUS; i++)
		cpu_start(&s, i, VM_CODE, at);
	smp_run(&s);
	smp_join(&s);
	memcpy(&got, s.vm.ram + result, 8);
	if (got != LOOPS * CPUS)
		check_failed("count", "at %#lx: %lu, expected %u", at, got, LOOPS * CPUS);
	smp_destroy(&s);
}

static void locked_aligned(void)
{
	count(count_add, count_add_end, CELLS, CELLS);
	count(count_inc, count_inc_end, CELLS, CELLS);
	count(count_xadd, count_xadd_end, CELLS, CELLS);
	count(count_cmpxchg, count_cmpxchg_end, CELLS, CELLS);
	count(count_xchg, count_xchg_end, CELLS, CELLS + 64);
}

static void locked_line(void)
{
	count(count_add, count_add_end, CELLS + 0x3d, CELLS + 0x3d);
	count(count_cmpxchg, count_cmpxchg_end, CELLS + 0x3d, CELLS + 0x3d);
}

#define CROSS (CELLS + 0xffc)

static void locked_page(void)
{
	count(count_add, count_add_end, CROSS, CROSS);
	count(count_xadd, count_xadd_end, CROSS, CROSS);
	count(count_mixed, count_mixed_end, CROSS, CROSS);
	count(count_xchg, count_xchg_end, CROSS + 2, CROSS + 2 + 64);
}

/* --- Code that another vCPU changes: what is read in the flag must have reached the code. */

#define BODY 0x21003ul /* mov $imm, %eax; ret: the immediate is aligned */
#define FLAG CELLS
GUEST(writer, 64,
      "mov $20000, %ecx; mov $1, %eax; 1: mov %eax, 0x21004; mov %eax, 0x28000; inc %eax; pause; "
      "dec %ecx; jnz 1b;"
      "movl $1, 0x28100; hlt");
GUEST(caller, 64,
      "mov $0x21003, %r8d; 1: mov 0x28000, %esi; xor %eax, %eax; cpuid; call *%r8; cmp %esi, %eax; "
      "jb 2f;"
      "incq 0x28200(,%rdi,8); cmpl $0, 0x28100; je 1b; hlt; 2: mov %rax, %rbx; out %al, $0xf0");
/* Without an instruction that serializes old code may run for a while, but not for ever. */
GUEST(caller_plain, 64,
      "xor %r9d, %r9d; 1: mov 0x28000, %esi; mov $0x21003, %r8d; call *%r8; cmp %esi, %eax; jb 2f; "
      "xor %r9d, %r9d;"
      "3: cmpl $0, 0x28100; je 1b; hlt; 2: inc %r9d; cmp $1000, %r9d; jb 3b; mov %rax, %rbx; out "
      "%al, $0xf0");

static void cross_modify(const uint8_t *code, const uint8_t *end)
{
	static const uint8_t body[] = { 0xb8, 0, 0, 0, 0, 0xc3 };
	struct smp s;

	smp_make(&s, CPUS, 0);
	VM_LOAD(&s.vm, VM_CODE, writer);
	vm_load(&s.vm, VM_CODE + 0x1000, code, end - code);
	vm_load(&s.vm, BODY, body, sizeof(body));
	cpu_start(&s, 0, VM_CODE, 0);
	for (unsigned i = 1; i < CPUS; i++)
		cpu_start(&s, i, VM_CODE + 0x1000, 0);
	smp_run(&s);
	smp_join(&s);
	for (unsigned i = 1; i < CPUS; i++)
		if (s.end[i] != KVM_EXIT_HLT)
			check_failed("caller", "%u: the flag says %llu, the code %llu", i,
				     vm_regs(&s.cpu[i]).rsi, vm_regs(&s.cpu[i]).rbx);
	smp_destroy(&s);
}

static void code_serialized(void)
{
	cross_modify(caller, caller_end);
}

static void code_plain(void)
{
	cross_modify(caller_plain, caller_plain_end);
}

/* --- Page tables: after every vCPU has said that it dropped the page, nobody may reach the old frame. */

#define PAGE_LIN 0x40000ul
#define FRAME_A	 0x50000ul
#define FRAME_B	 0x51000ul
#define GEN	 CELLS
#define ACK	 (CELLS + 0x80)
#define STOP	 (CELLS + 0x100)
/* R9 generation, R10 frame in use, R11 old frame, RSI address of the PTE. */
GUEST(remapper, 64,
      "mov $600, %ecx; xor %r9d, %r9d; mov $0x50000, %r10d; mov $0x51000, %r11d;"
      "1: xchg %r10, %r11; lea 0x67(%r10), %rax; mov %rax, (%rsi); invlpg 0x40000; inc %r9; mov "
      "%r9, 0x28000;"
      "2: pause; cmp %r9, 0x28088; jne 2b; cmp %r9, 0x28090; jne 2b;"
      "movq $0xbad, (%r11); movq $0, 8(%r11); movq $0, 16(%r11); mov $20, %edx; 3: pause; dec "
      "%edx; jnz 3b;"
      "mov 8(%r11), %rax; or 16(%r11), %rax; jnz 4f; movq $0, (%r11); dec %ecx; jnz 1b; movl $1, "
      "0x28100; hlt;"
      "4: movl $1, 0x28100; out %al, $0xf1");
GUEST(user, 64,
      "1: mov 0x28000, %rax; cmp %rax, %r9; je 2f; invlpg 0x40000; mov %rax, %r9; mov %r9, "
      "0x28080(,%rdi,8);"
      "2: cmpq $0xbad, 0x40000; je 3f; movq $1, 0x40000(,%rdi,8); cmpl $0, 0x28100; je 1b; hlt;"
      "3: out %al, $0xf0");

static void shootdown(void)
{
	struct smp s;

	smp_make(&s, CPUS, 0);
	VM_LOAD(&s.vm, VM_CODE, remapper);
	VM_LOAD(&s.vm, VM_CODE + 0x1000, user);
	*vm_pte(&s.vm, PAGE_LIN) = FRAME_A | 0x67;
	cpu_start(&s, 0, VM_CODE, (uint64_t)((uint8_t *)vm_pte(&s.vm, PAGE_LIN) - s.vm.ram));
	for (unsigned i = 1; i < CPUS; i++)
		cpu_start(&s, i, VM_CODE + 0x1000, 0);
	smp_run(&s);
	smp_join(&s);
	for (unsigned i = 0; i < CPUS; i++)
		if (s.end[i] != KVM_EXIT_HLT)
			check_failed("shootdown", "vCPU %u saw the old frame, generation %lu", i,
				     cell_get(&s, GEN));
	smp_destroy(&s);
}

/* --- Memory slots that come and go under running vCPUs. */

#define SLOT_AT	  0x1000000ul /* behind the RAM; mapped by the page tables */
#define SLOT_SIZE 0x4000ul
#define CHANGES	  400
/* GEN is odd while slots change; else bit 1 says which memory is there, whose first word is 100 or 101. */
GUEST(slot_user, 64,
      "1: cmpl $0, 0x28100; jne 3f; mov 0x28000, %rax; mov (%rsi), %rdx; movq $7, 8(%rsi,%rdi,8); "
      "mov 0x28000, %rbx;"
      "cmp %rax, %rbx; jne 1b; test $1, %al; jnz 1b; shr $1, %eax; and $1, %eax; add $100, %eax; "
      "incq 0x28200(,%rdi,8);"
      "cmp %rax, %rdx; je 1b; out %al, $0xf0; 3: hlt");

static void slots(void)
{
	uint8_t *memory[2];
	struct smp s;
	unsigned which = 0;

	smp_make(&s, CPUS, 0);
	VM_LOAD(&s.vm, VM_CODE, slot_user);
	for (unsigned k = 0; k < 2; k++) {
		memory[k] = mmap(NULL, SLOT_SIZE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		*(uint64_t *)memory[k] = 100 + k;
	}
	*cell(&s, GEN) = 1;
	for (unsigned i = 0; i < CPUS; i++)
		cpu_start(&s, i, VM_CODE, SLOT_AT);
	smp_run(&s);
	for (unsigned n = 0; n < CHANGES; n++, which ^= 1) {
		mprotect(memory[which], SLOT_SIZE, PROT_READ | PROT_WRITE);
		vm_slot(&s.vm, 2, 0, SLOT_AT, SLOT_SIZE, memory[which]);
		__atomic_store_n(cell(&s, GEN), 4ul * n + 4 + 2 * which, __ATOMIC_SEQ_CST);
		usleep(n % 7 * 300);
		__atomic_store_n(cell(&s, GEN), 4ul * n + 5, __ATOMIC_SEQ_CST);
		vm_slot(&s.vm, 2, 0, SLOT_AT, 0, NULL);
		/* Whoever still goes there gets a signal. */
		mprotect(memory[which], SLOT_SIZE, PROT_NONE);
	}
	__atomic_store_n(cell(&s, STOP), 1, __ATOMIC_SEQ_CST);
	smp_join(&s);
	for (unsigned i = 0; i < CPUS; i++) {
		if (s.end[i] != KVM_EXIT_HLT)
			check_failed("slots", "vCPU %u read %llu", i, vm_regs(&s.cpu[i]).rdx);
		if (!cell_get(&s, CELLS + 0x200 + 8 * i))
			check_failed("slots", "vCPU %u never read the slot", i);
	}
	smp_destroy(&s);
}

/* --- Wake-ups: timers in TSC-deadline mode and IPIs, always waited for by STI and HLT. */

#define TICKS  0x29000ul /* per vCPU 64 bytes: timer interrupts, IPIs, rounds */
#define ROUNDS 8000
#define X2APIC_ON                                                                                  \
	"mov $0x1b, %ecx; rdmsr; or $0xc00, %eax; wrmsr; mov $0x80f, %ecx; mov $0x1ff, %eax; xor " \
	"%edx, %edx; wrmsr;"                                                                       \
	"mov %edi, %r15d; shl $6, %r15d; add $0x29000, %r15d;"

GUEST(on_timer, 64,
      "incq (%r15); push %rax; push %rcx; push %rdx; mov $0x80b, %ecx; xor %eax, %eax; xor %edx, "
      "%edx; wrmsr;"
      "pop %rdx; pop %rcx; pop %rax; iretq");
GUEST(on_ipi, 64,
      "incq 8(%r15); push %rax; push %rcx; push %rdx; mov $0x80b, %ecx; xor %eax, %eax; xor %edx, "
      "%edx; wrmsr;"
      "pop %rdx; pop %rcx; pop %rax; iretq");
/* Deadlines from the past up to some ten microseconds ahead: R12 is a random state. */
GUEST(timer_loop, 64,
      X2APIC_ON
      "mov $0x832, %ecx; mov $0x40040, %eax; xor %edx, %edx; wrmsr; lea 12345(%rdi), %r12;"
      "xor %r14d, %r14d;"
      "1: imul $1103515245, %r12d, %r12d; add $12345, %r12d; mov %r12d, %r13d; shr $15, %r13d;"
      "rdtsc; shl $32, %rdx; or %rdx, %rax; add %r13, %rax; sub $20000, %rax; mov %rax, %rdx; shr "
      "$32, %rdx;"
      "mov $0x6e0, %ecx; wrmsr; inc %r14;"
      "2: cmp %r14, (%r15); jae 3f; sti; hlt; cli; jmp 2b;"
      "3: mov %r14, 16(%r15); cmp $8000, %r14d; jb 1b; out %al, $0xf2");
/* The number of the round to the other's mailbox and vector 0x41, then wait for its: IPIs may melt into one. */
GUEST(ping_pong, 64,
      X2APIC_ON "mov %r15, %r13; xor $64, %r13; xor %r14d, %r14d;"
		"1: inc %r14; mov %r14, 24(%r13); mov $0x830, %ecx; mov $0x41, %eax; mov %edi, "
		"%edx; xor $1, %edx; wrmsr;"
		"2: cmp %r14, 24(%r15); jae 3f; sti; hlt; cli; jmp 2b;"
		"3: mov %r14, 16(%r15); cmp $8000, %r14d; jb 1b; out %al, $0xf2");

/* No progress of any vCPU for so long is a lost wake-up. */
static void watch(struct smp *s)
{
	uint64_t last[CPUS] = { 0 };
	unsigned still[CPUS] = { 0 };

	for (;;) {
		unsigned running = 0;

		usleep(WATCH_MS * 1000);
		for (unsigned i = 0; i < s->n; i++) {
			uint64_t now = cell_get(s, TICKS + 64 * i + 16);

			if (__atomic_load_n(&s->end[i], __ATOMIC_SEQ_CST) != -1)
				continue;
			running++;
			still[i] = now == last[i] ? still[i] + WATCH_MS : 0;
			last[i] = now;
			if (still[i] > STUCK_MS)
				check_fatal("wake-up",
					    "vCPU %u hangs after %lu rounds, %lu timers, %lu IPIs",
					    i, now, cell_get(s, TICKS + 64 * i),
					    cell_get(s, TICKS + 64 * i + 8));
		}
		if (!running)
			return;
	}
}

static void wakeups(const uint8_t *code, const uint8_t *end, unsigned n)
{
	struct smp s;

	smp_make(&s, n, VM_IRQCHIP);
	VM_LOAD(&s.vm, VM_CODE + 0x1000, on_timer);
	VM_LOAD(&s.vm, VM_CODE + 0x1100, on_ipi);
	vm_gate(&s.vm, 0x40, VM_CODE + 0x1000);
	vm_gate(&s.vm, 0x41, VM_CODE + 0x1100);
	vm_load(&s.vm, VM_CODE, code, end - code);
	for (unsigned i = 0; i < n; i++)
		cpu_start(&s, i, VM_CODE, 0);
	smp_run(&s);
	watch(&s);
	smp_join(&s);
	for (unsigned i = 0; i < n; i++) {
		CHECK_EQ(s.end[i], KVM_EXIT_IO);
		CHECK_EQ(s.cpu[i].run->io.port, 0xf2);
		CHECK_EQ(cell_get(&s, TICKS + 64 * i + 16), ROUNDS);
	}
	smp_destroy(&s);
}

static void timer_one(void)
{
	wakeups(timer_loop, timer_loop_end, 1);
}

static void timer_all(void)
{
	wakeups(timer_loop, timer_loop_end, CPUS);
}

static void ipi(void)
{
	wakeups(ping_pong, ping_pong_end, 2);
}

VM_TESTS({ .name = "locked instructions, aligned", .run = locked_aligned, .seconds = 20 },
	 { .name = "locked instructions across a cache line", .run = locked_line, .seconds = 20 },
	 { .name = "locked instructions across a page", .run = locked_page, .seconds = 60 },
	 { .name = "code changed by another vCPU, serialized",
	   .run = code_serialized,
	   .seconds = 60 },
	 { .name = "code changed by another vCPU",
	   .run = code_plain,
	   .seconds = 60,
	   .library_only = true },
	 { .name = "TLB shootdown", .run = shootdown, .seconds = 60 },
	 { .name = "memory slots change under running vCPUs", .run = slots, .seconds = 60 },
	 { .name = "timers wake a halted vCPU", .run = timer_one, .seconds = 120 },
	 { .name = "timers wake halted vCPUs", .run = timer_all, .seconds = 120 },
	 { .name = "IPIs wake halted vCPUs", .run = ipi, .seconds = 120 });
