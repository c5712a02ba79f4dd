/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Execution of virtual processors: what the KVM floor sees of the engine. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <signal.h>

#include "cpu/x86/host.h"
#include "cpu/x86/state.h"

enum engine_form { ENGINE_CHECKED, ENGINE_FAST };

struct engine_options {
	enum engine_form form;
	const char *cpu_mask;	     /* as for x86_host_probe(); NULL: none */
	const struct x86_host *host; /* as it was probed with cpu_mask; NULL: not yet */
	bool verbose;
	bool cross;   /* jumps out of a supervisor's page are linked */
	bool beside;  /* stores beside code without a walk */
	bool ahead;   /* flags that the instructions behind a block overwrite are not kept */
	bool loops;   /* no check in the rounds of a loop that are sure (x86/loop.c) */
	bool windows; /* one check for several accesses (x86/window.c) */
	bool named;   /* engine_perf_map_open() was called: blocks are made in full context only */
	unsigned
		audit; /* every so many hits compare what is cached with the tables (audit.h); 0: none does */
	bool audit_strict; /* a difference ends KVM_RUN with an internal error */
	bool exact; /* the fast form without its two differences: flags in frames, branches that leave the canonical addresses */
};

struct engine;	    /* one per VM: code cache */
struct engine_vcpu; /* one per vCPU */

/* NULL and errno on failure. */
struct engine *engine_create(struct mem *mem, const struct engine_options *options);
void engine_destroy(struct engine *e); /* after all its vCPUs */

struct engine_vcpu *engine_vcpu_create(struct engine *e);
void engine_vcpu_destroy(struct engine_vcpu *v);
struct x86_cpu *engine_cpu(struct engine_vcpu *v);

enum engine_exit {
	ENGINE_KICKED, /* cpu->kick was set; the state is precise, cpu->kick is cleared */
	ENGINE_EXIT,   /* cpu->exit is filled */
};

/*
 * Run until an exit. Called by the vCPU's own thread, in full context before and after (the vector
 * state is in cpu->xsave). cpu->rip is precise. Everything in struct x86_cpu may be changed between
 * two calls; after changing it call engine_state_changed().
 */
enum engine_exit engine_run(struct engine_vcpu *v);

/*
 * Call @fn, which delivers an event to the guest, with the same guard that engine_run() has: where memory of a slot cannot
 * be accessed, it is left and X86_EXIT returned with cpu->exit set. @fn holds no lock. Full context.
 */
enum x86_status engine_guarded(struct engine_vcpu *v, enum x86_status (*fn)(void *), void *arg);

/* Registers, memory slots or the mode were changed from outside: drop execute tags and cached translations. */
void engine_state_changed(struct engine_vcpu *v);

/* From any thread or a signal handler: make engine_run() return soon. */
void engine_kick(struct engine_vcpu *v);

/* Drop all translations of all vCPUs; returns when none uses an old slot. For struct mem_ops. */
void engine_flush_all(void *engine);
/* The same for write tags; @granted_only as in struct mem_ops. */
void engine_drop_writes(void *engine, bool granted_only);

/* Counters of @only, or of all vCPUs together when it is NULL: @fn for each, under a lock of the engine's. */
typedef void (*counter_fn)(void *arg, const char *name, u64 value);
void engine_counters(struct engine *e, const struct engine_vcpu *only, counter_fn fn, void *arg);

/* From any thread: have engine_where() say more than "guest" about what is short. vCPUs begin at their next poll. */
void engine_watch(struct engine *e, bool on);
/* What the vCPU does this moment, when engine_is_in(). The name is NULL from some number on. */
bool engine_is_in(const struct engine_vcpu *v);
u32 engine_where(const struct engine_vcpu *v);
const char *engine_where_name(u32 where);

/* Before the first engine: each block of translated code gets a line in /tmp/perf-PID.map. 0 or -errno. */
int engine_perf_map_open(void);

/* Once per thread that runs a vCPU, before a filter of system calls may forbid it; engine_run() does it itself. */
void engine_thread_prepare(void);
/* In a child of fork(): its thread has another number than the parent's, of which it is a copy. */
void engine_forked(void);

/*
 * Where only the kernel can set %gs: take @v for this thread, if no other thread has it. Nothing to do elsewhere (true).
 * engine_thread_owns(): whether engine_run() needs no system call for %gs.
 */
bool engine_thread_bind(struct engine_vcpu *v);
bool engine_thread_owns(const struct engine_vcpu *v);

/* From a handler: whether the signal was raised by translated code and is dealt with. */
bool engine_signal(int sig, siginfo_t *info, void *context);

/* Install the process-wide handlers once; returns 0 or -errno, with one line in *why when the host lacks what is required. */
int engine_init(const char **why);

#endif
