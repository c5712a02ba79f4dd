/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A processor alone: memory, engine, CPUID, and how a run of it has ended. */
#include <sys/mman.h>

#include "cpu/x86/event.h"
#include "cpu/x86/host.h"
#include "solo.h"

u8 *solo_ram(u64 size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

const char *solo_make(struct solo *s, const struct engine_options *options, u8 *ram, u64 size,
		      const struct x86_platform *platform,
		      void (*edit)(struct x86_cpuid_entry *e, unsigned n))
{
	static struct x86_cpuid_entry entries[X86_CPUID_MAX];
	const char *why = "a guest could not be made";
	struct x86_host host;
	struct x86_cpu *cpu;
	unsigned n;

	if (x86_host_probe(&host, NULL, &why))
		return why;
	s->mem = mem_create(NULL, NULL);
	if (!s->mem || mem_slot_set(s->mem, 0, 0, 0, 0, size >> PAGE_SHIFT, ram))
		return why;
	s->engine = engine_create(s->mem, options);
	s->v = s->engine ? engine_vcpu_create(s->engine) : NULL;
	if (!s->v)
		return why;
	cpu = engine_cpu(s->v);
	n = x86_cpuid_supported(&host, entries, X86_CPUID_MAX);
	if (edit)
		edit(entries, n);
	x86_cpuid_set(cpu, entries, n);
	x86_reset(cpu, false);
	cpu->platform = platform;
	return NULL;
}

void solo_destroy(struct solo *s)
{
	if (s->v)
		engine_vcpu_destroy(s->v);
	if (s->engine)
		engine_destroy(s->engine);
	if (s->mem)
		mem_destroy(s->mem);
}

void solo_run(struct solo *s)
{
	engine_state_changed(s->v);
	while (engine_run(s->v) == ENGINE_KICKED)
		;
}

void stubs_write(u8 *text)
{
	for (unsigned v = 0; v < 256; v++)
		text[16 * v] = 0xf4;
}

int stub_of(const struct x86_cpu *cpu, gva_t text)
{
	u64 off = cpu->rip - text;

	return cpu->exit.reason == X86_EXIT_HLT && off <= 16 * 255 + 1 ? (int)(off / 16) : -1;
}

bool vector_has_error(unsigned vector)
{
	static const u32 with = BIT(8) | BIT(10) | BIT(11) | BIT(12) | BIT(13) | BIT(14) | BIT(17);

	return vector < 32 && with >> vector & 1;
}
