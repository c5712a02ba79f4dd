/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Data and I/O breakpoints. */
#include "cpu/x86/debug.h"

static bool overlaps(u64 base, unsigned len, u64 at, unsigned size)
{
	base &= ~(u64)(len - 1);
	return at < base + len && base < at + size;
}

void x86_watch_note(struct x86_cpu *cpu, gva_t lin, unsigned size, bool is_write)
{
	u64 dr7 = x86_dr7(cpu);

	for (unsigned i = 0; i < 4; i++) {
		enum dr7_kind kind = dr7_kind(dr7, i);

		if (!dr7_enabled(dr7, i) ||
		    !(kind == DR7_ACCESS || (kind == DR7_WRITE && is_write)))
			continue;
		if (overlaps(x86_dr(cpu, i), dr7_len(dr7, i), lin, size))
			cpu->watch |= BIT(i);
	}
}

void x86_watch_note_io(struct x86_cpu *cpu, u16 port, unsigned size)
{
	u64 dr7 = x86_dr7(cpu);

	for (unsigned i = 0; i < 4; i++) {
		if (dr7_enabled(dr7, i) && dr7_kind(dr7, i) == DR7_IO && cpu->cr4 & CR4_DE &&
		    overlaps(x86_dr(cpu, i), dr7_len(dr7, i), port, size))
			cpu->watch |= BIT(i);
	}
}
