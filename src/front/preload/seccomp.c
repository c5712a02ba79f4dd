/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A filter of system calls that the program is about to install: what it forbids, and what that means for us. */
#define _GNU_SOURCE
#include "front/preload/seccomp.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/engine.h"
#include "front/preload/interpose.h"
#include "front/preload/real.h"
#include "kvm/calling.h"
#include "kvm/file.h"
#include "kvm/trace/trace.h"

/*
 * A filter that kills is not asked by trying: it is a small program, and it is run here, for the few system
 * calls that KVM_RUN and the requests of a vCPU make. Then either another way is taken, or one line says
 * which call is missed. Filters only ever add up, so what was forbidden stays so.
 */
/* The constructor ran in the main thread, whose filters are those of every thread made later. */
static __thread bool main_thread __attribute__((tls_model("initial-exec")));

__attribute__((constructor)) static void main_thread_note(void)
{
	main_thread = true;
}

#define DATA_WORDS (sizeof(struct seccomp_data) / sizeof(u32))

struct machine {
	u32 a, x, mem[BPF_MEMWORDS];
	u32 data[DATA_WORDS];
};

static u32 alu(const struct sock_filter *i, u32 a, u32 operand)
{
	switch (BPF_OP(i->code)) {
	case BPF_ADD:
		return a + operand;
	case BPF_SUB:
		return a - operand;
	case BPF_MUL:
		return a * operand;
	case BPF_DIV:
		return operand ? a / operand : 0;
	case BPF_OR:
		return a | operand;
	case BPF_AND:
		return a & operand;
	case BPF_XOR:
		return a ^ operand;
	case BPF_LSH:
		return operand < 32 ? a << operand : 0;
	case BPF_RSH:
		return operand < 32 ? a >> operand : 0;
	default:
		return -a;
	}
}

static bool jumps(const struct sock_filter *i, u32 a, u32 operand)
{
	switch (BPF_OP(i->code)) {
	case BPF_JEQ:
		return a == operand;
	case BPF_JGT:
		return a > operand;
	case BPF_JGE:
		return a >= operand;
	default:
		return a & operand;
	}
}

static u32 load(const struct machine *m, const struct sock_filter *i)
{
	switch (BPF_MODE(i->code)) {
	case BPF_IMM:
		return i->k;
	case BPF_MEM:
		return m->mem[i->k % BPF_MEMWORDS];
	case BPF_LEN:
		return sizeof(struct seccomp_data);
	default:
		return i->k / 4 < DATA_WORDS ? m->data[i->k / 4] : 0;
	}
}

/* How many instructions to go over after @i; -1: it ends. */
static int step(struct machine *m, const struct sock_filter *i)
{
	u32 operand = BPF_SRC(i->code) == BPF_X ? m->x : i->k;

	switch (BPF_CLASS(i->code)) {
	case BPF_LD:
		m->a = load(m, i);
		return 0;
	case BPF_LDX:
		m->x = load(m, i);
		return 0;
	case BPF_ST:
		m->mem[i->k % BPF_MEMWORDS] = m->a;
		return 0;
	case BPF_STX:
		m->mem[i->k % BPF_MEMWORDS] = m->x;
		return 0;
	case BPF_ALU:
		m->a = alu(i, m->a, operand);
		return 0;
	case BPF_JMP:
		if (BPF_OP(i->code) == BPF_JA)
			return i->k;
		return jumps(i, m->a, operand) ? i->jt : i->jf;
	case BPF_MISC:
		if (BPF_MISCOP(i->code) == BPF_TAX)
			m->x = m->a;
		else
			m->a = m->x;
		return 0;
	default:
		m->a = BPF_RVAL(i->code) == BPF_A ? m->a : i->k;
		return -1;
	}
}

u32 seccomp_verdict(const struct sock_fprog *program, int number)
{
	struct seccomp_data data = { .nr = number, .arch = AUDIT_ARCH_X86_64 };
	struct machine m = { 0 };
	unsigned at = 0;
	int skip;

	memcpy(m.data, &data, sizeof(data));
	while (at < program->len) {
		skip = step(&m, &program->filter[at]);
		if (skip < 0)
			return m.a & SECCOMP_RET_ACTION_FULL;
		at += 1 + skip; /* jumps go forward only: this ends */
	}
	return SECCOMP_RET_ALLOW;
}

static bool is_forbidden(const struct sock_fprog *program, int number)
{
	u32 verdict = program ? seccomp_verdict(program, number) : SECCOMP_RET_KILL_THREAD;

	return verdict == SECCOMP_RET_KILL_PROCESS || verdict == SECCOMP_RET_KILL_THREAD ||
	       verdict == SECCOMP_RET_TRAP || verdict == SECCOMP_RET_ERRNO;
}

static const struct {
	int number;
	enum calling_way way; /* to take instead, or CALLING_NORMAL */
	const char *name, *use;
} calls[] = {
	{ SYS_rt_tgsigqueueinfo, CALLING_IN_PLACE, NULL, NULL },
	{ SYS_rt_sigprocmask, CALLING_IN_PLACE, NULL, NULL },
	{ SYS_fstat, CALLING_BY_NUMBER, NULL, NULL },
	{ SYS_rt_sigreturn, CALLING_NORMAL, "rt_sigreturn",
	  "an exception that the guest causes, such as a division by zero, would end the process" },
	{ SYS_futex, CALLING_NORMAL, "futex", "a halted vCPU could not wait" },
};

static void complain(const char *call, const char *use)
{
	dprintf(STDERR_FILENO,
		"anykvm: the program's seccomp filter forbids %s: %s; allow it in the filter "
		"(AK005)\n",
		call, use);
}

/*
 * Set everything up that this thread will need; the ways that it is left. A program without a VM may never have one:
 * it is not told anything.
 */
static u32 prepare(const struct sock_fprog *program)
{
	bool has_vm = file_next(0) >= 0;
	u32 ways = 0;

	if (has_vm)
		engine_thread_prepare();
	trace_thread_prepare();
	for (unsigned i = 0; i < ARRAY_SIZE(calls); i++) {
		if (!is_forbidden(program, calls[i].number))
			continue;
		ways |= calls[i].way;
		if (has_vm && !calls[i].way)
			complain(calls[i].name, calls[i].use);
	}
	if (is_forbidden(program, SYS_arch_prctl)) {
		calling_bind();
		ways |= CALLING_FIXED_GS;
	}
	return ways;
}

u32 seccomp_before(unsigned operation, unsigned flags, const void *argument)
{
	const struct sock_fprog *program = argument;

	if (operation == SECCOMP_SET_MODE_STRICT && !flags && !argument)
		return prepare(NULL);
	if (operation == SECCOMP_SET_MODE_FILTER && program && program->len && program->filter)
		return prepare(program);
	return 0; /* a question what the kernel can do, or a mistake */
}

void seccomp_after(u32 ways, unsigned flags)
{
	if (ways)
		calling_restrict(ways, flags & SECCOMP_FILTER_FLAG_TSYNC || main_thread);
}

INTERPOSE int prctl(int option, ...)
{
	unsigned long arg[4];
	u32 ways = 0;
	va_list ap;
	int r;

	va_start(ap, option);
	for (unsigned i = 0; i < 4; i++)
		arg[i] = va_arg(ap, unsigned long);
	va_end(ap);
	if (likely(option != PR_SET_SECCOMP))
		return real_prctl(option, arg);
	if (arg[0] == SECCOMP_MODE_STRICT)
		ways = seccomp_before(SECCOMP_SET_MODE_STRICT, 0, NULL);
	else if (arg[0] == SECCOMP_MODE_FILTER)
		ways = seccomp_before(SECCOMP_SET_MODE_FILTER, 0, (const void *)arg[1]);
	r = real_prctl(option, arg);
	if (!r)
		seccomp_after(ways, 0);
	return r;
}
