/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Hardware exceptions of translated code: host signals become guest exceptions at the right instruction. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/attempt.h"
#include "cpu/x86/event.h"
#include "engine/chain.h"
#include "engine/vcpu.h"
#include "engine/x86/regs.h"

static __thread struct engine_vcpu *running __attribute__((tls_model("initial-exec")));
static __thread pid_t thread __attribute__((tls_model("initial-exec")));
static __thread u32 prepared __attribute__((tls_model("initial-exec"))); /* in which process */
static u32 process = 1;

void engine_forked(void)
{
	__atomic_add_fetch(&process, 1, __ATOMIC_RELAXED);
}

/*
 * The kernel ends a process whose thread faults while the fault's signal is blocked, and a program may
 * block what it likes in the threads that it makes: once per thread, these are let through.
 */
void engine_thread_prepare(void)
{
	sigset_t set;

	if (likely(prepared == __atomic_load_n(&process, __ATOMIC_RELAXED)))
		return;
	prepared = __atomic_load_n(&process, __ATOMIC_RELAXED);
	sigemptyset(&set);
	for (int sig = 1; sig <= 64; sig++)
		if (chain_is_sync(sig))
			sigaddset(&set, sig);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	thread = syscall(
		SYS_gettid); /* here, because a filter of system calls may come before KVM_RUN */
}

/* What our own signal carries, so that nobody else's is taken for it; one that programs and we leave unblocked. */
static const char fetch_cookie;
#define FETCH_SIGNAL SIGILL

void signals_fetch(const struct engine_vcpu *v)
{
	siginfo_t info = { .si_signo = FETCH_SIGNAL, .si_code = SI_QUEUE };

	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_ptr = (void *)&fetch_cookie;
	syscall(SYS_rt_tgsigqueueinfo, info.si_pid, __atomic_load_n(&v->thread, __ATOMIC_RELAXED),
		FETCH_SIGNAL, &info);
}

void signals_enter(struct engine_vcpu *v)
{
	engine_thread_prepare();
	__atomic_store_n(&v->thread, thread, __ATOMIC_RELAXED);
	running = v;
}

void signals_leave(struct engine_vcpu *v)
{
	(void)v;
	running = NULL;
}

/* Index in gregs of each host register. */
static const u8 greg_of[16] = {
	[RAX] = REG_RAX, [RCX] = REG_RCX, [RDX] = REG_RDX, [RBX] = REG_RBX,
	[RSP] = REG_RSP, [RBP] = REG_RBP, [RSI] = REG_RSI, [RDI] = REG_RDI,
	[R8] = REG_R8,	 [R9] = REG_R9,	  [R10] = REG_R10, [R11] = REG_R11,
	[R12] = REG_R12, [R13] = REG_R13, [R14] = REG_R14, [R15] = REG_R15,
};

/* Where guest registers are when a block is anywhere but in the second body of a loop. */
static const u8 home_of[16] = {
	[RAX] = RAX, [RCX] = RCX,    [RDX] = RDX,    [RBX] = RBX,    [RSP] = HOST_RSP, [RBP] = RBP,
	[RSI] = RSI, [RDI] = RDI,    [R8] = R8,	     [R9] = R9,	     [R10] = R10,      [R11] = R11,
	[R12] = R12, [R13] = IN_GPR, [R14] = IN_GPR, [R15] = IN_GPR,
};

static const struct pc_entry *pc_find(const struct block *b, u32 host)
{
	const struct pc_entry *found = NULL;

	for (u16 i = 0; i < b->npc && b->pc[i].host <= host; i++)
		found = &b->pc[i];
	return found;
}

static u16 aflags_of(u64 rflags)
{
	return (rflags & (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF)) << 8 |
	       (rflags & FL_OF ? AF_OF : 0);
}

static void state_save(struct engine_vcpu *v, const greg_t *g, const struct block *b,
		       const struct pc_entry *pc)
{
	static const u8 lendable[3] = { RSI, RDI, RBP };
	struct x86_cpu *cpu = &v->cpu;
	bool in_loop = b->loop && pc->host >= b->loop->from && pc->host < b->loop->to;
	const u8 *home = in_loop ? b->loop->home : home_of;

	for (unsigned r = 0; r < 16; r++)
		if (home[r] != IN_GPR)
			cpu->gpr[r] = g[greg_of[home[r]]];
	for (unsigned k = 0; k < 3; k++)
		if (pc->flags >> PC_LENT_SHIFT & BIT(k))
			cpu->gpr[lendable[k]] = v->lent[k];
	if (!(pc->flags & PC_FLAGS_SAVED))
		cpu->aflags = aflags_of(g[REG_EFL]);
	cpu->rip = x86_rip_mask(cpu, v->rip_page + pc->page_off);
	cpu->next_rip = x86_rip_mask(cpu, cpu->rip + pc->len);
}

/* The guest's exception for a host trap number; false: it is the host's own (memory that is not there). */
static bool raise_for(struct engine_vcpu *v, unsigned trap)
{
	struct x86_cpu *cpu = &v->cpu;

	switch (trap) {
	case VEC_DE:
	case VEC_UD:
	case VEC_MF:
		x86_raise(cpu, trap);
		return true;
	case VEC_XM:
		x86_raise(cpu, cpu->mode & MODE_XM ? VEC_XM : VEC_UD);
		return true;
	case VEC_GP:
	case VEC_SS:
	case VEC_AC:
		x86_raise_error(cpu, trap, 0);
		return true;
	default:
		return false;
	}
}

/* It is left with an exit that says where. */
static void memory_is_gone(struct engine_vcpu *v, gpa_t gpa)
{
	v->cpu.exit.reason = X86_EXIT_MEMORY;
	v->cpu.exit.gpa = gpa;
	v->reason = LEAVE_EXIT;
}

static bool take(struct engine_vcpu *v, const siginfo_t *info, ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	const struct cache *c = &v->cache;
	u64 start = (u64)c->code_w + c->delta, pc = g[REG_RIP];
	const struct pc_entry *entry;
	struct block *b;

	if (pc < start || pc >= start + c->code_size)
		return false;
	b = cache_block_at(c, pc);
	entry = b ? pc_find(b, pc - start - b->code) : NULL;
	if (!entry)
		return false;
	state_save(v, g, b, entry);
	if (raise_for(v, g[REG_TRAPNO])) {
		v->reason = LEAVE_FAULT;
	} else {
		gpa_t gpa = X86_NO_GPA;

		(void)mem_has_hva(v->engine->mem, info->si_addr, &gpa);
		memory_is_gone(v, gpa);
	}
	g[REG_RIP] = v->stubs.leave;
	return true;
}

static void guard_leave(struct engine_vcpu *v)
{
	__builtin_longjmp(v->guard, 1);
}

/*
 * C code of ours that accesses guest memory for the guest: page walks, frames, helpers, code that is read for translation.
 * Below translated code it is leaf code, which holds no lock where it accesses guest memory: forget it and take the way out
 * of translated code, which saves the vectors; the general registers were saved before it was called. In full context
 * go on in engine_run() or engine_guarded().
 */
static bool take_in_c(struct engine_vcpu *v, int sig, const siginfo_t *info, ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	gpa_t gpa;

	/* A page that the hardware has lost (BUS_MCEERR_AR) is the program's to know. */
	if (!((sig == SIGSEGV && info->si_code > 0 && info->si_code != SI_KERNEL) ||
	      (sig == SIGBUS && info->si_code == BUS_ADRERR)) ||
	    !mem_has_hva(v->engine->mem, info->si_addr, &gpa))
		return false;
	if (!v->cpu.full) {
		g[REG_RSP] = v->host_rsp;
		g[REG_RIP] = v->stubs.leave;
	} else if (v->guarded) {
		g[REG_RSP] =
			((g[REG_RSP] - 256) & ~15) - 8; /* as after a call, below the red zone */
		g[REG_RDI] = (greg_t)v;
		g[REG_RIP] = (greg_t)guard_leave;
	} else {
		return false;
	}
	memory_is_gone(v, gpa);
	return true;
}

/* Only what the kernel says about an access: a signal of the same number may be sent by anybody. */
static bool attempt_failed(const siginfo_t *info, ucontext_t *uc)
{
	return info->si_code > 0 && attempt_resume((u64 *)&uc->uc_mcontext.gregs[REG_RIP]);
}

/*
 * This vCPU is waited for. At an access to guest memory nothing of the instruction has been done yet: leave, so that it
 * starts over, and requests are served before. Elsewhere in translated code a poll is near. In C write tags are dropped here.
 */
static void fetched(struct engine_vcpu *v, ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	const struct cache *c = &v->cache;
	u64 start = (u64)c->code_w + c->delta, pc = g[REG_RIP];
	const struct pc_entry *entry;
	struct block *b;

	if (!v->requests.in || !v->cpu.request)
		return;
	if (pc < start || pc >= start + c->code_size) {
		requests_serve_stuck(v);
		return;
	}
	b = cache_block_at(c, pc);
	entry = b ? pc_find(b, pc - start - b->code) : NULL;
	if (!entry || !(entry->flags & PC_ACCESS) || entry->host != pc - start - b->code ||
	    v->step || v->unshadow || v->unrf || v->hold_kick)
		return;
	state_save(v, g, b, entry);
	v->reason = LEAVE_NONE;
	g[REG_RIP] = v->stubs.leave;
}

bool engine_signal(int sig, siginfo_t *info, void *context)
{
	if (!chain_is_sync(sig))
		return false;
	if (unlikely(info->si_code == SI_QUEUE && info->si_value.sival_ptr == &fetch_cookie)) {
		if (running)
			fetched(running, context);
		return true;
	}
	if (running && take(running, info, context))
		return true;
	/* Before what follows: whoever attempts an access wants to know. */
	return attempt_failed(info, context) || (running && take_in_c(running, sig, info, context));
}

static void handler(int sig, siginfo_t *info, void *context)
{
	if (!engine_signal(sig, info, context))
		chain_call(sig, info, context);
}

int signals_install(void)
{
	struct sigaction sa, program;
	sigset_t saved;
	int r = 0;

	chain_lock(&saved);
	for (int sig = 1; sig <= 64 && !r; sig++) {
		if (!chain_is_sync(sig))
			continue;
		if (sigaction(sig, NULL, &program)) {
			r = -errno;
			break;
		}
		chain_set(sig, &program);
		chain_action(&program, handler, &sa);
		r = sigaction(sig, &sa, NULL) ? -errno : 0;
	}
	chain_unlock(&saved);
	return r;
}
