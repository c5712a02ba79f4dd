/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One stream on one form of the engine: set up, run, keep what it left; compare two of these. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "cpu/x86/control.h"
#include "cpu/x86/event.h"
#include "cpu/x86/xstate.h"
#include "../image.h"
#include "../solo.h"
#include "end.h"

#define STREAM_MS 10 /* of processor time: the machine may have other work */

static u8 *clean; /* memory before any run */

static void stream_over(int sig)
{
	(void)sig;
	for (unsigned i = 0; i < GUESTS_MAX; i++)
		engine_kick(machine_vcpu(i));
}

static void stream_watch(unsigned ms)
{
	struct itimerval t = { .it_value.tv_usec = 1000l * ms };
	struct sigaction sa = { .sa_handler = stream_over, .sa_flags = SA_ONSTACK | SA_RESTART };

	sigaction(SIGPROF, &sa, NULL);
	setitimer(ITIMER_PROF, &t, NULL);
}

/* --- what is not compared with the fast form unless it is exact --- */

/* DIFFERS (engine/slow.c): it arrives at a branch target that is not canonical, and faults there. */
static bool is_lost(const struct x86_cpu *cpu, const struct cell *c)
{
	return c->mode->lma &&
	       !x86_canonical(frame_word(cpu, c, 1, 8), cpu->cr4 & CR4_LA57 ? 57 : 48);
}

/*
 * Whether it wrote to its 64-bit gates or to their handlers: then more code may have run behind an exception, on a frame whose
 * flags are lost, down to gates made of such frames.
 */
static bool gates_changed(const u8 *ram, const struct cell *c)
{
	return c->mode->lma && (memcmp(ram + AT_IDT64, clean + AT_IDT64, PAGE_SIZE) ||
				memcmp(ram + AT_TEXT, clean + AT_TEXT, PAGE_SIZE));
}

/*
 * Instructions of 64-bit mode whose undefined flags are what they were before on some processors: the fast form has lost those,
 * since nobody may read them. Multiplication, division, shifts, bit tests and scans.
 */
static bool leaves_flags_open(const u8 *code, size_t n)
{
	static const u8 one[] = { 0xf6, 0xf7, 0x69, 0x6b, 0xc0, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3 };
	static const u8 two[] = { 0xaf, 0xa3, 0xab, 0xb3, 0xbb, 0xba,
				  0xbc, 0xbd, 0xa4, 0xa5, 0xac, 0xad };

	for (size_t i = 0; i < n; i++)
		if (memchr(one, code[i], sizeof(one)) ||
		    (i && code[i - 1] == 0x0f && memchr(two, code[i], sizeof(two))))
			return true;
	return false;
}

static bool end_is_lax(const struct x86_cpu *cpu, const struct cell *c, const u8 *code, unsigned n,
		       const struct end *e)
{
	if (!c->mode->lma) /* only 64-bit code has a fast form */
		return false;
	return gates_changed(e->memory, c) || leaves_flags_open(code, n) ||
	       memcmp(e->memory + AT_CODE, code, n) || /* or what it has written there */
	       (e->world.vector == VEC_GP && is_lost(cpu, c));
}

/* --- one run --- */

static void cpu_prepare(struct x86_cpu *cpu, const struct cell *c, const struct world *in)
{
	x86_reset(cpu, false);
	world_load(cpu, c, in);
	memset(cpu->xsave, 0, sizeof(cpu->xsave));
	cpu->xsave[0] = 0x7f; /* FCW, MXCSR: exceptions masked */
	cpu->xsave[1] = 0x03;
	cpu->xsave[24] = 0x80;
	cpu->xsave[25] = 0x1f;
}

static int vector_of(const struct x86_cpu *cpu)
{
	int vector = stub_of(cpu, AT_TEXT);

	return vector < 0 ? 2000 + (int)cpu->exit.reason : vector == VEC_BP ? -1 : vector;
}

void stream_begin(unsigned which, const struct cell *c, const u8 *code, unsigned n,
		  const struct world *in)
{
	struct engine_vcpu *v = machine_vcpu(which);
	u8 *ram = machine_ram();

	if (!clean) {
		clean = malloc(RAM_SIZE);
		memcpy(clean, ram, RAM_SIZE);
	}
	memcpy(ram, clean, RAM_SIZE);
	memset(ram + AT_CODE, 0xcc, STREAM_MAX + 16);
	memcpy(ram + AT_CODE, code, n);
	cpu_prepare(engine_cpu(v), c, in);
	engine_state_changed(v);
}

bool stream_run(unsigned which, const struct cell *c, const u8 *code, unsigned n,
		const struct world *in, struct end *out)
{
	struct engine_vcpu *v = machine_vcpu(which);
	struct x86_cpu *cpu = engine_cpu(v);
	enum engine_exit how;

	stream_begin(which, c, code, n, in);
	stream_watch(STREAM_MS);
	how = engine_run(v);
	stream_watch(0);
	if (how == ENGINE_KICKED)
		return false;
	memset(&out->world, 0, sizeof(out->world));
	world_read(cpu, &out->world);
	out->world.flags &= AF_OF | AF_CF | AF_PF | AF_AF | AF_ZF | AF_SF;
	out->world.vector = vector_of(cpu);
	memcpy(out->xsave, cpu->xsave, sizeof(out->xsave));
	memcpy(out->memory, machine_ram(), RAM_SIZE);
	out->is_lax = end_is_lax(cpu, c, code, n, out);
	return true;
}

/* --- comparison --- */

static char difference[120];

/* FIP, FDP and FOP are the host's. */
static void vectors_complete(const struct end *e, u8 *x)
{
	memcpy(x, e->xsave, X86_XSAVE_MAX);
	image_complete(x, ~0ull);
	memset(x + 6, 0, XS_MXCSR - 6);
	memset(x + XS_MXCSR + 4, 0, 4);
	memset(x + XS_HEADER, 0, XS_EXTENDED - XS_HEADER);
}

static bool vectors_differ(const struct end *a, const struct end *b)
{
	static u8 x[X86_XSAVE_MAX], y[X86_XSAVE_MAX];

	vectors_complete(a, x);
	vectors_complete(b, y);
	for (unsigned at = 0; at < X86_XSAVE_MAX; at++)
		if (x[at] != y[at]) {
			snprintf(difference, sizeof(difference), "vector state at %u: %02x, %02x",
				 at, x[at], y[at]);
			return true;
		}
	return false;
}

#define FIELD(f)                                                                                   \
	{                                                                                          \
#f, offsetof(struct world, f), sizeof(((struct world *)0)->f)                      \
	}
static const struct {
	const char *name;
	u32 at, size;
} world_fields[] = {
	FIELD(vector),
	FIELD(gpr),
	FIELD(cr0),
	FIELD(cr2),
	FIELD(cr3),
	FIELD(cr4),
	FIELD(cr8),
	FIELD(xcr0),
	FIELD(efer),
	FIELD(dr),
	FIELD(dr6),
	FIELD(dr7),
	FIELD(star),
	FIELD(lstar),
	FIELD(kernel_gs_base),
	FIELD(sysenter_eip),
	FIELD(tsc_aux),
	FIELD(pat),
	FIELD(gdt.base),
	FIELD(gdt.limit),
	FIELD(idt.base),
	FIELD(idt.limit),
	FIELD(fs_base),
	FIELD(gs_base),
	FIELD(df),
	FIELD(flags),
	FIELD(hypercall),
	FIELD(has_hypercall),
};

static bool worlds_differ(const struct world *a, const struct world *b, bool lax)
{
	for (unsigned i = 0; i < ARRAY_SIZE(world_fields); i++) {
		const u8 *p = (const u8 *)a + world_fields[i].at,
			 *q = (const u8 *)b + world_fields[i].at;

		if (lax && world_fields[i].at == offsetof(struct world, flags))
			continue;
		for (unsigned k = 0; k < world_fields[i].size; k += 8) {
			unsigned n = world_fields[i].size - k < 8 ? world_fields[i].size - k : 8;
			u64 x = 0, y = 0;

			memcpy(&x, p + k, n);
			memcpy(&y, q + k, n);
			if (x == y)
				continue;
			snprintf(difference, sizeof(difference), "%s %u: %lx, %lx",
				 world_fields[i].name, k / 8, x, y);
			return true;
		}
	}
	return false;
}

/* The low half of a flags image in a frame, which differs in nothing but arithmetic flags. */
static bool is_flags_image(const struct end *a, const struct end *b, u32 at)
{
	u16 x, y;

	memcpy(&x, a->memory + at, 2);
	memcpy(&y, b->memory + at, 2);
	return x & y & 2 && !((x ^ y) & ~FL_ARITH);
}

static bool memories_differ(const struct end *a, const struct end *b, bool lax)
{
	unsigned n;

	for (u32 at = 0; at < RAM_SIZE; at += 2) {
		if (!(at % PAGE_SIZE) && !memcmp(a->memory + at, b->memory + at, PAGE_SIZE)) {
			at += PAGE_SIZE - 2;
			continue;
		}
		if (!memcmp(a->memory + at, b->memory + at, 2) || (lax && is_flags_image(a, b, at)))
			continue;
		n = snprintf(difference, sizeof(difference), "memory at %#x:", at);
		for (unsigned k = 0; k < 16; k++)
			n += snprintf(difference + n, sizeof(difference) - n, "%s %02x",
				      k == 8 ? "," : "", (k < 8 ? a : b)->memory[at + k % 8]);
		return true;
	}
	return false;
}

const char *end_difference(const struct end *a, const struct end *b, bool lax)
{
	if (worlds_differ(&a->world, &b->world, lax) || vectors_differ(a, b) ||
	    memories_differ(a, b, lax))
		return difference;
	return NULL;
}
