/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Random remapping, unmapping, protecting and patching on several vCPUs at once, against a model: nothing stale is ever used. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "vm.h"

/*
 * Each worker has a window of four pages and, for a round, four frames, which it maps, stores to, patches and calls as its
 * random numbers say. In the next round the frames are another worker's: what anybody has translated or cached of them is old.
 * A round ends with HLT, and no register is set from outside, which would drop what is cached. So all results follow from the
 * seeds, and the model below gets the same: sums of all that was read, returned and raised, and the frames.
 *
 * An eighth of what they do goes to a page of the round that nobody ever maps otherwise: only what the writer tells the others
 * takes their translations back.
 *
 * A frame has data, and from 0x800 on 16 functions of 6 bytes that return a number, at every 128th byte.
 */
#define WORKERS	      8
#define PAGES	      4 /* per worker, in its window and of frames */
#define FRAMES	      0x400000ul
#define WINDOWS	      0x100000ul
#define WINDOW_STRIDE 0x10000ul
#define SHARED	      0x180000ul /* a page for each worker's round */
#define STACK(i)      (0x30000ul + 0x1000 * (i))
#define HANDLER	      (VM_CODE + 0x1000)
#define OPS	      1500 /* of a round; in the code below, too */
#define ROUNDS	      16

/*
 * RDI number of the worker, RBP workers - 1, R8 random number, R9 sum, R10 its frames, R11 round, R12 its first PTE,
 * R13 its window, R14 its stack, R15 where a fault goes on.
 */
GUEST(worker, 64,
      "lea 9f(%rip), %r15\n"
      "0: xor %eax, %eax; cpuid\n"
      "mov %edi, %eax; add %r11d, %eax; and %ebp, %eax; shl $14, %eax; lea 0x400000(%rax), %r10; "
      "inc %r11\n"
      "xor %ecx, %ecx; mov %r13, %rbx\n"
      "1: movq $0, (%r12,%rcx,8); invlpg (%rbx); add $0x1000, %rbx; inc %ecx; cmp $4, %ecx; jne "
      "1b\n"
      "mov $1500, %esi\n"
      /* xorshift; RBX page of the window, RDX operand in it */
      "2: mov %r8, %rax; shl $13, %rax; xor %rax, %r8; mov %r8, %rax; shr $7, %rax; xor %rax, %r8\n"
      "mov %r8, %rax; shl $17, %rax; xor %rax, %r8\n"
      "mov %r8d, %ebx; and $3, %ebx; shl $12, %ebx; add %r13, %rbx\n"
      "mov %r8d, %edx; shr $7, %edx; and $0x1ff, %edx; shl $3, %edx\n"
      "test $0x800, %edx; jz 1f; or $0x40, %edx; 1: add %rbx, %rdx\n"
      /* RCX function */
      "mov %r8d, %ecx; shr $16, %ecx; and $15, %ecx; shl $7, %ecx; lea 0x800(%rbx,%rcx), %rcx\n"
      "mov %r8d, %eax; shr $2, %eax; and $7, %eax\n"
      "cmp $1, %eax; jb 3f; je 4f; cmp $3, %eax; jb 5f; je 6f; cmp $5, %eax; jb 7f; je 8f; cmp $6, "
      "%eax; je 1f\n"
      /* 7: call, patch or store beside functions of the shared page; 4: call */
      "and $0xf80, %ecx; mov %r10, %rdx; shr $2, %rdx; lea 0x80000(%rcx,%rdx), %rcx\n"
      "mov %r8d, %eax; shr $20, %eax; and $3, %eax; cmp $1, %eax; je 8f; jb 7f; test $1, %eax; jnz "
      "7f\n"
      "mov %r8, 0x40(%rcx); jmp 9f\n"
      "7: call *%rcx; add %rax, %r9; jmp 9f\n"
      /* 1: unmap, one time in four; 0: map with random rights */
      "4: test $0x300000, %r8d; jnz 3f; xor %eax, %eax; jmp 4f\n"
      "3: mov %r8d, %eax; shr $5, %eax; and $3, %eax; shl $12, %eax; lea 0x61(%rax,%r10), %rax\n"
      "mov %r8d, %ecx; shr $20, %ecx; mov %ecx, %edx; and $1, %edx; lea (%rax,%rdx,2), %rax\n"
      "and $2, %ecx; shl $62, %rcx; or %rcx, %rax\n"
      "4: mov %r8d, %edx; and $3, %edx; mov %rax, (%r12,%rdx,8); invlpg (%rbx); jmp 9f\n"
      "5: mov (%rdx), %rax; add %rax, %r9; jmp 9f\n"
      "6: mov %r8, (%rdx); jmp 9f\n"
      "8: mov %r8d, 1(%rcx); jmp 9f\n"
      "1: add %r8, (%rdx)\n"
      "9: mov %r14, %rsp; rol $1, %r9; dec %esi; jnz 2b; hlt; jmp 0b");
GUEST(fault, 64,
      "pop %rax; mov %cr2, %rdx; sub %r13, %rdx; lea (%rax,%rdx,8), %rax; add %rax, %r9; jmp "
      "*%r15");

struct model {
	uint64_t random, sum;
	uint64_t pte[PAGES]; /* frame's number, and rights; 0: none */
};
enum { PRESENT = 0x100, WRITE = 0x200, NO_EXECUTE = 0x400 };

struct stale {
	struct vm cpu[WORKERS];
	unsigned n, rounds;
	pthread_barrier_t barrier;
	struct model model[WORKERS];
	uint8_t *frames; /* the model's, and behind them the shared pages */
};

static uint64_t number(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, size);
	return v;
}

/* A fault's part of the sum. */
static void model_fault(struct model *m, unsigned error, uint64_t at)
{
	m->sum += error + 8 * at;
}

static void model_data(struct model *m, uint8_t *frames, unsigned op, unsigned page, unsigned off)
{
	uint64_t pte = m->pte[page], present = !!(pte & PRESENT);
	uint8_t *p = frames + (pte & 0xff) * 4096 + off;
	unsigned size = op == 5 ? 4 : 8;
	uint64_t v;

	if (!present || (op != 2 && !(pte & WRITE))) {
		model_fault(m, present | (op != 2 ? 2 : 0), 4096 * page + off);
		return;
	}
	v = number(p, 8);
	if (op == 2)
		m->sum += v;
	v = op == 6 ? v + m->random : m->random;
	if (op != 2)
		memcpy(p, &v, size);
}

static void model_call(struct model *m, const uint8_t *frames, unsigned page, unsigned off)
{
	uint64_t pte = m->pte[page];

	if (!(pte & PRESENT) || pte & NO_EXECUTE)
		model_fault(m, pte & PRESENT ? 0x11 : 0x10, 4096 * page + off);
	else
		m->sum += number(frames + (pte & 0xff) * 4096 + off + 1, 4);
}

static void model_shared(struct model *m, uint8_t *function)
{
	const unsigned what = m->random >> 20 & 3;

	if (what == 1)
		memcpy(function + 1, &m->random, 4);
	else if (what == 2)
		memcpy(function + 0x40, &m->random, 8);
	else
		m->sum += number(function + 1, 4);
}

static void model_op(struct model *m, uint8_t *frames, unsigned first, uint8_t *shared)
{
	uint64_t r = m->random;
	unsigned page, op, off, function;

	r ^= r << 13;
	r ^= r >> 7;
	r ^= r << 17;
	m->random = r;
	page = r & 3;
	op = r >> 2 & 7;
	off = 8 * (r >> 7 & 0x1ff);
	off |= off & 0x800 ? 0x40 : 0;
	function = 0x800 + 128 * (r >> 16 & 15);
	if (op == 1 && !(r >> 20 & 3))
		m->pte[page] = 0;
	else if (op < 2)
		m->pte[page] = PRESENT | (first + (r >> 5 & 3)) | (r >> 20 & 1 ? WRITE : 0) |
			       (r >> 21 & 1 ? NO_EXECUTE : 0);
	else if (op == 7)
		model_shared(m, shared + function);
	else if (op == 4)
		model_call(m, frames, page, function);
	else
		model_data(m, frames, op, page, op == 5 ? function + 1 : off);
	m->sum = m->sum << 1 | m->sum >> 63;
}

static void model_run(struct stale *s)
{
	for (unsigned round = 0; round < s->rounds; round++)
		for (unsigned i = 0; i < s->n; i++) {
			unsigned turn = (i + round) % s->n;

			memset(s->model[i].pte, 0, sizeof(s->model[i].pte));
			for (unsigned k = 0; k < OPS; k++)
				model_op(&s->model[i], s->frames, PAGES * turn,
					 s->frames + 4096 * (s->n * PAGES + turn));
		}
}

static void frames_fill(struct stale *s, uint64_t *seed)
{
	const size_t size = (size_t)s->n * PAGES * 4096, all = size + s->n * 4096ul;

	for (size_t i = 0; i < all; i++)
		s->frames[i] = vm_random(seed);
	for (size_t f = 0; f < all; f += 4096)
		for (unsigned k = 0; k < 16; k++) {
			s->frames[f + 0x800 + 128 * k] = 0xb8;
			s->frames[f + 0x805 + 128 * k] = 0xc3;
		}
	vm_load(&s->cpu[0], FRAMES, s->frames, size);
	vm_load(&s->cpu[0], SHARED, s->frames + size, all - size);
}

static void worker_start(struct stale *s, unsigned i, uint64_t *seed)
{
	const uint64_t window = WINDOWS + i * WINDOW_STRIDE;
	struct kvm_mp_state running = { KVM_MP_STATE_RUNNABLE };
	struct vm *c = &s->cpu[i];
	struct kvm_regs r;

	vm_cpu_enter(c, VM_LONG, 0);
	c->mode = VM_LONG;
	s->model[i] = (struct model){ .random = vm_random(seed) | 1 };
	r = vm_regs(c);
	r.rdi = i;
	r.rbp = s->n - 1;
	r.r8 = s->model[i].random;
	r.r9 = r.r11 = 0;
	r.r12 = (uint64_t)((uint8_t *)vm_pte(c, window) - c->ram);
	r.r13 = window;
	r.rsp = r.r14 = STACK(i) + 0xff0;
	r.rip = VM_CODE;
	vm_set_regs(c, &r);
	vm_ioctl(c, c->vcpu, KVM_SET_MP_STATE, (unsigned long)&running);
}

struct runner {
	struct stale *s;
	unsigned i;
};

static void *worker_run(void *argument)
{
	struct runner *r = argument;

	for (unsigned round = 0; round < r->s->rounds; round++) {
		CHECK_EXIT(&r->s->cpu[r->i], KVM_EXIT_HLT);
		pthread_barrier_wait(&r->s->barrier);
	}
	return NULL;
}

static void outcome_check(struct stale *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		CHECK_EQ(vm_regs(&s->cpu[i]).r8, s->model[i].random);
		CHECK_EQ(vm_regs(&s->cpu[i]).r9, s->model[i].sum);
	}
	for (unsigned f = 0; f < s->n * PAGES; f++)
		if (memcmp(s->cpu[0].ram + FRAMES + 4096 * f, s->frames + 4096 * f, 4096))
			check_failed(VM_HERE, "frame %u has other bytes than the model's", f);
	if (memcmp(s->cpu[0].ram + SHARED, s->frames + 4096ul * s->n * PAGES, 4096ul * s->n))
		check_failed(VM_HERE, "the shared pages have other bytes than the model's");
}

static void with_workers(unsigned n)
{
	const char *rounds = getenv("ANYKVM_ROUNDS");
	uint64_t seed = vm_seed() * 64 + n;
	struct runner runner[WORKERS];
	pthread_t thread[WORKERS];
	struct stale s = { .n = n, .rounds = rounds ? strtoul(rounds, NULL, 0) : ROUNDS };

	vm_make(&s.cpu[0], 0);
	vm_enter(&s.cpu[0], VM_LONG, 0);
	for (unsigned i = 1; i < n; i++)
		vm_add_cpu(&s.cpu[i], &s.cpu[0], i);
	VM_LOAD(&s.cpu[0], VM_CODE, worker);
	VM_LOAD(&s.cpu[0], HANDLER, fault);
	vm_gate(&s.cpu[0], 14, HANDLER);
	s.frames = malloc((size_t)n * (PAGES + 1) * 4096);
	frames_fill(&s, &seed);
	for (unsigned i = 0; i < n; i++)
		worker_start(&s, i, &seed);
	model_run(&s);
	pthread_barrier_init(&s.barrier, NULL, n);
	for (unsigned i = 0; i < n; i++) {
		runner[i] = (struct runner){ &s, i };
		if (pthread_create(&thread[i], NULL, worker_run, &runner[i]))
			check_fatal("pthread_create", "failed");
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
	outcome_check(&s);
	pthread_barrier_destroy(&s.barrier);
	free(s.frames);
	for (unsigned i = 1; i < n; i++)
		vm_drop_cpu(&s.cpu[i]);
	vm_destroy(&s.cpu[0]);
}

static void one(void)
{
	with_workers(1);
}

static void two(void)
{
	with_workers(2);
}

static void four(void)
{
	with_workers(4);
}

static void eight(void)
{
	with_workers(8);
}

VM_TESTS({ .name = "one vCPU", .run = one, .seconds = 600 },
	 { .name = "two vCPUs", .run = two, .seconds = 600 },
	 { .name = "four vCPUs", .run = four, .seconds = 600 },
	 { .name = "eight vCPUs", .run = eight, .seconds = 600 });
