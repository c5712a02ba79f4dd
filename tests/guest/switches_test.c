/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Random loops under every switch of the engine's fast form: all end as in the checked form, faults included. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "anykvm/anykvm.h"
#include "vm.h"

#define PROGRAMS 160

#define AREA	 0xc0000ul
#define AREA_END 0x1f0000ul

static const char *const choices[] = {
	"engine=checked", /* what the others are compared with */
	"engine=fast",
	"engine=fast,loops=off",
	"engine=fast,windows=off",
	"engine=fast,beside=off",
	"engine=fast,loops=off,windows=off",
	"engine=fast,loops=off,beside=off",
	"engine=fast,windows=off,beside=off",
	"engine=fast,ahead=off",
	"engine=fast,cross=off",
	"engine=fast,loops=off,ahead=off,windows=off,beside=off,cross=off",
	"engine=fast,counters=on",
	"engine=fast,exact=on",
	"engine=fast,audit=strict",
};
#define CHOICES (sizeof(choices) / sizeof(choices[0]))

struct outcome {
	struct kvm_regs regs; /* flags left out */
	uint64_t memory, vectors;
	int64_t vector;
	uint64_t rip, cr2;
};

struct code {
	uint8_t bytes[1024];
	unsigned n;
};

static void put(struct code *c, const void *bytes, unsigned n)
{
	memcpy(c->bytes + c->n, bytes, n);
	c->n += n;
}

static void put8(struct code *c, unsigned b)
{
	c->bytes[c->n++] = (uint8_t)b;
}

static void put32(struct code *c, int32_t v)
{
	put(c, &v, 4);
}

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* Values change in any way, addresses by constants (but for one in eight), RCX counts the rounds. */
static const uint8_t values[] = { RAX, RDX, R9, R10, R11, R15 };
static const uint8_t addresses[] = { RBX, RBP, RSI, RDI, R8, R12, R13, R14, RAX, RDX };
#define PICK(from, seed) ((from)[vm_random(seed) % sizeof(from)])

struct operand {
	unsigned base, index, scale; /* index RSP: none */
	int32_t disp;
};

static struct operand operand_make(uint64_t *seed)
{
	struct operand o = { PICK(addresses, seed), RSP, 0, 0 };
	uint64_t r = vm_random(seed);

	if (o.base == RAX || o.base == RDX) /* no address: the short forms of ADD belong to RAX */
		o.base = RSI;
	if (r % 4 == 0) {
		o.index = R9;
		o.scale = r >> 8 & 3;
	}
	o.disp = (int32_t)((r >> 16) % 96) - 32;
	if (r % 7 == 0)
		o.disp += (int32_t)((r >> 32) % 0x8000);
	return o;
}

/* Prefix, REX, opcode bytes, ModRM, SIB, disp32. */
static void put_mem(struct code *c, unsigned prefix, bool wide, const char *opcode, unsigned reg,
		    const struct operand *o)
{
	if (prefix)
		put8(c, prefix);
	put8(c, 0x40 | wide << 3 | (reg >> 3) << 2 | (o->index == RSP ? 0 : (o->index >> 3) << 1) |
			o->base >> 3);
	put(c, opcode, (unsigned)strlen(opcode));
	put8(c, 0x84 | (reg & 7) << 3);
	put8(c, (o->scale & 3) << 6 | (o->index & 7) << 3 | (o->base & 7));
	put32(c, o->disp);
}

static void put_access(struct code *c, uint64_t *seed)
{
	static const struct {
		unsigned prefix;
		bool wide;
		const char *opcode;
		bool vector;
	} forms[] = {
		{ 0, true, "\x8b", false },	   { 0, true, "\x89", false },
		{ 0, false, "\x8b", false },	   { 0, false, "\x89", false },
		{ 0, true, "\x03", false },	   { 0, true, "\x01", false },
		{ 0, false, "\x33", false },	   { 0, true, "\x0f\xb6", false },
		{ 0, false, "\x88", false },	   { 0x66, false, "\x89", false },
		{ 0xf0, true, "\x0f\xc1", false }, { 0, false, "\x0f\x10", true },
		{ 0, false, "\x0f\x11", true },	   { 0, false, "\x0f\x28", true }, /* aligned */
		{ 0x66, false, "\x0f\xfe", true }, { 0, true, "\x3b", false },
		{ 0, true, "\x13", false },	   { 0xf2, false, "\x0f\x10", true },
	};
	uint64_t r = vm_random(seed);
	unsigned k = r % (sizeof(forms) / sizeof(forms[0]));
	struct operand o = operand_make(seed);

	if (!strcmp(forms[k].opcode, "\x0f\x28") && r >> 20 & 7)
		k--;
	put_mem(c, forms[k].prefix, forms[k].wide, forms[k].opcode,
		forms[k].vector ? r >> 8 & 7 : PICK(values, seed), &o);
}

/* add or sub reg, constant: short, long, and RAX's own form; inc; lea. */
static void put_move(struct code *c, uint64_t *seed)
{
	static const int16_t steps[] = { 8,  8,	 8,  4,	    1,	    16,	    32,
					 -8, -4, 24, 0x300, 0x1008, -0x300, 64 };
	uint64_t r = vm_random(seed);
	unsigned reg = PICK(addresses, seed);
	int step = steps[r % (sizeof(steps) / sizeof(steps[0]))];

	if (reg == RDX)
		reg = R9; /* an index */
	if (reg == RAX) {
		put(c, "\x48\x05", 2);
		put32(c, step);
	} else if (r >> 8 & 1 && step == (int8_t)step) {
		put8(c, 0x48 | reg >> 3);
		put8(c, 0x83);
		put8(c, 0xc0 | (reg & 7));
		put8(c, (uint8_t)step);
	} else if (r >> 9 & 1) {
		put8(c, 0x48 | reg >> 3);
		put8(c, 0x81);
		put8(c, 0xe8 | (reg & 7)); /* sub */
		put32(c, -step);
	} else {
		struct operand o = { reg, RSP, 0, step };

		put_mem(c, 0, true, "\x8d", reg, &o);
	}
}

/* What makes addresses unforeseen, and flags and values. */
static void put_other(struct code *c, uint64_t *seed)
{
	uint64_t r = vm_random(seed);
	unsigned a = PICK(values, seed), b = PICK(values, seed);

	switch (r % 6) {
	case 0: /* and r9d, 0xff8: an index that varies */
		put(c, "\x41\x81\xe1\xf8\x0f\x00\x00", 7);
		break;
	case 1: /* adc a, b */
		put8(c, 0x48 | (b >> 3) << 2 | a >> 3);
		put8(c, 0x11);
		put8(c, 0xc0 | (b & 7) << 3 | (a & 7));
		break;
	case 2: /* setb al */
		put(c, "\x0f\x92\xc0", 3);
		break;
	case 3: /* rol a, 7 */
		put8(c, 0x48 | a >> 3);
		put(c, "\xc1", 1);
		put8(c, 0xc0 | (a & 7));
		put8(c, 7);
		break;
	case 4: /* paddd xmm0, xmm1 */
		put(c, "\x66\x0f\xfe\xc1", 4);
		break;
	default: /* cmovs a, b */
		put8(c, 0x48 | (a >> 3) << 2 | b >> 3);
		put(c, "\x0f\x48", 2);
		put8(c, 0xc0 | (a & 7) << 3 | (b & 7));
		break;
	}
}

/* for (rcx; rcx; rcx--) { ... }, around a second time with other addresses; then HLT, which faults at CPL 3. */
static void program_make(struct code *c, uint64_t *seed)
{
	unsigned n = 1 + vm_random(seed) % 10, start = c->n;

	for (unsigned i = 0; i < n; i++) {
		uint64_t r = vm_random(seed) % 8;

		if (r < 4)
			put_access(c, seed);
		else if (r < 7)
			put_move(c, seed);
		else
			put_other(c, seed);
	}
	put(c, "\x48\x83\xe9\x01\x0f\x85", 6); /* sub rcx, 1; jnz */
	put32(c, (int32_t)start - (int32_t)(c->n + 4));
}

/* Pages in another order than their memory; some cannot be written, some are not there. */
static void pages_mix(struct vm *vm, uint64_t *seed)
{
	unsigned first = AREA >> 12, last = AREA_END >> 12;

	for (unsigned i = first; i < last; i++)
		*vm_pte(vm, (uint64_t)i << 12) = ((uint64_t)i << 12) | 0x67;
	for (unsigned i = first; i < last; i++) {
		unsigned j = first + vm_random(seed) % (last - first);
		uint64_t *a = vm_pte(vm, (uint64_t)i << 12), *b = vm_pte(vm, (uint64_t)j << 12);
		uint64_t kept = *a;

		*a = *b;
		*b = kept;
	}
	for (unsigned k = 0; k < 6; k++) {
		uint64_t r = vm_random(seed);

		*vm_pte(vm, (first + (r >> 8) % (last - first)) << 12) &= r & 1 ? ~1ull : ~2ull;
	}
	/* Text that cannot be written, as everywhere but in just-in-time compilers. */
	*vm_pte(vm, VM_CODE) &= ~2ull;
}

static uint64_t memory_hash(const struct vm *vm)
{
	uint64_t h = 0, w;

	for (uint64_t at = AREA; at < AREA_END; at += 8) {
		memcpy(&w, vm->ram + at, 8);
		h = (h ^ w) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	return h;
}

static uint64_t vectors_hash(struct vm *vm)
{
	struct kvm_fpu fpu;
	uint64_t h = 0, w;

	if (vm_ioctl(vm, vm->vcpu, KVM_GET_FPU, (unsigned long)&fpu))
		check_failed("KVM_GET_FPU", "refused");
	for (unsigned i = 0; i < sizeof(fpu.xmm); i += 8) {
		memcpy(&w, (uint8_t *)fpu.xmm + i, 8);
		h = (h ^ w) * 0x9e3779b97f4a7c15ull;
	}
	return h;
}

static void one(struct vm *vm, uint64_t seed, struct outcome *out)
{
	struct kvm_regs regs;
	struct code c = { .n = 0 };
	uint64_t *r = (uint64_t *)&regs;
	struct vm_frame f;

	vm_cpu_enter(vm, VM_LONG, 3);
	pages_mix(vm, &seed);
	program_make(&c, &seed);
	put8(&c, 0xf4);
	vm_load(vm, VM_CODE, c.bytes, c.n);
	regs = vm_regs(vm);
	for (unsigned i = 0; i < 16; i++) {
		uint64_t v = vm_random(&seed);

		/* In the order of struct kvm_regs: RSP is the seventh. */
		if (i != 6)
			r[i] = AREA + 0x30000 + (v % 0xc0000 & ~(v >> 40 & 1 ? 7ull : 15ull));
	}
	regs.rcx = 1 + vm_random(&seed) % 1600;
	regs.r9 = vm_random(&seed) % 0x100 * 8;
	vm_set_regs(vm, &regs);
	for (int again = 0; again < 2; again++) {
		int reason = vm_run(vm);

		f = vm_frame(vm);
		if (reason != KVM_EXIT_IO || f.vector < 0)
			check_fatal("a program", "%s", vm_exit_text(vm, reason));
		if (f.vector != 13 || again)
			break;
		/* To its end: once more, now that the engine knows it. */
		regs = vm_regs(vm);
		vm_cpu_enter(vm, VM_LONG, 3);
		regs.rip = VM_CODE;
		regs.rcx = 900;
		regs.rsp = vm_regs(vm).rsp;
		regs.rflags = 2;
		vm_set_regs(vm, &regs);
	}
	memset(out, 0, sizeof(*out));
	out->regs = vm_regs(vm);
	out->regs.rflags = out->regs.rsp = 0;
	out->memory = memory_hash(vm);
	out->vectors = vectors_hash(vm);
	out->vector = f.vector;
	out->rip = f.rip;
	out->cr2 = f.vector == 14 ? f.cr2 : 0;
}

static void all(struct outcome *out)
{
	struct vm vm;
	uint64_t seed = vm_seed() * 0x10001;

	vm_make(&vm, 0);
	vm_enter(&vm, VM_LONG, 3);
	/* No device, and nothing of the test's own: what strays faults. */
	for (uint64_t at = 2ul << 20; at < 1ul << 30; at += 2ul << 20)
		*vm_pde(&vm, at) = 0;
	for (uint64_t at = 0; at < 2ul << 20; at += 0x1000)
		if (at != VM_CODE && (at < AREA || at >= AREA_END))
			*vm_pte(&vm, at) &= ~4ull;
	for (uint64_t at = AREA; at < AREA_END; at += 8)
		vm_poke(&vm, at, vm_random(&seed) & 0x3f3f3f3f3f3f3f3full, 8);
	for (unsigned k = 0; k < PROGRAMS; k++)
		one(&vm, vm_random(&seed), &out[k]);
	vm_destroy(&vm);
}

static void compare(const char *choice, const struct outcome *right, const struct outcome *got)
{
	for (unsigned k = 0; k < PROGRAMS; k++) {
		if (!memcmp(&right[k], &got[k], sizeof(*got)))
			continue;
		check_failed(choice,
			     "program %u: vector %ld rip %#lx cr2 %#lx memory %#lx, checked form: "
			     "%ld %#lx %#lx %#lx",
			     k, (long)got[k].vector, got[k].rip, got[k].cr2, got[k].memory,
			     (long)right[k].vector, right[k].rip, right[k].cr2, right[k].memory);
		return; /* the memory of the others is another one too */
	}
}

static void switches(void)
{
	struct outcome *table = mmap(NULL, CHOICES * PROGRAMS * sizeof(*table),
				     PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned ends[32] = { 0 };

	for (unsigned i = 0; i < CHOICES; i++) {
		int status = -1;
		pid_t pid = fork();

		if (!pid) {
			if (anykvm_configure(choices[i]))
				_exit(2);
			all(table + i * PROGRAMS);
			_exit(0);
		}
		if (waitpid(pid, &status, 0) != pid || status)
			check_failed(choices[i], "ended with status %#x", status);
		else
			compare(choices[i], table, table + i * PROGRAMS);
	}
	for (unsigned k = 0; k < PROGRAMS; k++)
		ends[table[k].vector & 31]++;
	check_note("%u programs ran to their end, %u to a page fault", ends[13], ends[14]);
	CHECK(ends[13] > PROGRAMS / 4 && ends[14] > PROGRAMS / 32);
}

VM_TESTS({ "random loops", switches, 100, true });
