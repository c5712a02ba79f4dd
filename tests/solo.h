/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One processor with memory of its own on one form of the engine, without the KVM floor: tests set its state by hand. */
#ifndef TESTS_SOLO_H
#define TESTS_SOLO_H

#include "cpu/x86/cpuid.h"
#include "engine/engine.h"

struct solo {
	struct mem *mem;
	struct engine *engine;
	struct engine_vcpu *v;
};

u8 *solo_ram(u64 size); /* zeros; NULL: no memory */
/*
 * After reset, with @size bytes of @ram at guest-physical 0. @edit changes the CPUID that is offered (may be NULL).
 * NULL, or why there is none.
 */
const char *solo_make(struct solo *s, const struct engine_options *options, u8 *ram, u64 size,
		      const struct x86_platform *platform,
		      void (*edit)(struct x86_cpuid_entry *e, unsigned n));
void solo_destroy(struct solo *s); /* also what was only begun */

/* Run until an exit, with the state that the processor was given. */
void solo_run(struct solo *s);

/* Handlers of tests: one HLT per vector, 16 bytes apart. */
void stubs_write(u8 *text);
/* Whose HLT at linear @text has ended the run; -1: another exit, or another HLT. */
int stub_of(const struct x86_cpu *cpu, gva_t text);
/* Whether the exception pushes an error code. */
bool vector_has_error(unsigned vector);

#endif
