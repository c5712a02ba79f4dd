/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Address translation and memory access as the processor does them: effective address, segment, paging, device replay. */
#ifndef CPU_X86_ACCESS_H
#define CPU_X86_ACCESS_H

#include "cpu/x86/insn.h"

/* Kind of an access. */
enum x86_access {
	ACC_READ = 0,
	ACC_WRITE = BIT(0),
	ACC_FETCH = BIT(1),
	ACC_SYSTEM = BIT(
		2), /* implicit supervisor access: descriptor tables, TSS, frames of a CPL change */
	ACC_UNALIGNED = BIT(3), /* no #AC: the caller has asked by a rule of its own, see align.h */
};

struct x86_xlate {
	gpa_t gpa; /* of the byte asked for */
	u64 span;  /* size of the guest page it lies in: 4K, 2M, 4M, 1G; 4K with paging off */
	bool user, writable, executable, global, dirty;
};

/*
 * Walk the guest's page tables for @lin. Sets A (and D for a write) by compare-and-swap on the
 * entry, as a logged guest write. X86_OK, or X86_FAULT with #PF in cpu->exc (payload = CR2).
 * The permission is checked for cpu->cpl, or supervisor with ACC_SYSTEM; SMAP with f.ac.
 */
enum x86_status x86_walk(struct x86_cpu *cpu, gva_t lin, unsigned access, struct x86_xlate *out);

/* As x86_walk(), but changes nothing and raises nothing: for KVM_TRANSLATE and debuggers. Returns whether mapped. */
bool x86_walk_debug(struct x86_cpu *cpu, gva_t lin, struct x86_xlate *out);

/*
 * The effective address of the explicit memory operand, without segment base, cut to the address size.
 * x86_linear() adds the base and makes the segment's checks (type, limit, canonical): #GP(0) or #SS(0).
 */
u64 x86_effective(const struct x86_cpu *cpu, const struct x86_insn *insn);
enum x86_status x86_linear(struct x86_cpu *cpu, unsigned seg, u64 ea, unsigned size,
			   unsigned access, gva_t *lin);

/*
 * The host address of [lin, lin + size), when that is RAM inside one page: *host set. Page-crossing
 * or device: *host = NULL and X86_OK (the caller goes through x86_read() and x86_write()).
 * *tag (may be NULL): whether a TLB tag for this kind of access may be installed; *xl (may be NULL): the translation.
 */
enum x86_status x86_host(struct x86_cpu *cpu, gva_t lin, unsigned size, unsigned access,
			 void **host, bool *tag, struct x86_xlate *xl);

/*
 * Read or write guest memory at a linear address, any size up to 4096, page crossings and devices included
 * (all pages are checked before the first byte is written). Devices: X86_FULL in leaf context; X86_EXIT when user space must answer.
 */
enum x86_status x86_read(struct x86_cpu *cpu, gva_t lin, void *buf, unsigned size, unsigned access);
enum x86_status x86_write(struct x86_cpu *cpu, gva_t lin, const void *buf, unsigned size,
			  unsigned access);

/* Check that a later access of that kind will not fault (both pages of a crossing). */
enum x86_status x86_probe(struct x86_cpu *cpu, gva_t lin, unsigned size, unsigned access);

/* Through a segment: x86_linear() and then the access. */
enum x86_status x86_read_seg(struct x86_cpu *cpu, unsigned seg, u64 ea, void *buf, unsigned size);
enum x86_status x86_write_seg(struct x86_cpu *cpu, unsigned seg, u64 ea, const void *buf,
			      unsigned size);

/* An explicit memory operand of @size bytes that is no single datum: far pointers, images. Aligned by the rule of the instruction. */
enum x86_status x86_image_read(struct x86_cpu *cpu, const struct x86_insn *insn, void *buf,
			       unsigned size);
enum x86_status x86_image_write(struct x86_cpu *cpu, const struct x86_insn *insn, const void *buf,
				unsigned size);

/* The explicit operand of an instruction: register (by .rm) or memory; size 1, 2, 4, 8. */
enum x86_status x86_operand_read(struct x86_cpu *cpu, const struct x86_insn *insn, u64 *v,
				 unsigned size);
enum x86_status x86_operand_write(struct x86_cpu *cpu, const struct x86_insn *insn, u64 v,
				  unsigned size);

/* Byte registers with or without REX: 4-7 mean AH, CH, DH, BH without. */
u8 x86_gpr8(const struct x86_cpu *cpu, const struct x86_insn *insn, unsigned r);
void x86_gpr8_write(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned r, u8 v);

/* The slot of a guest frame or NULL (device, or nothing there). */
static inline struct slot *x86_slot(struct x86_cpu *cpu, gfn_t gfn)
{
	struct slot *s = cpu->slot_hint;

	if (likely(s && slot_has(s, gfn) && s->id >> 16 == cpu->space))
		return s;
	return mem_slot_find(cpu->mem, cpu->space, gfn, &cpu->slot_hint);
}

/* Whether an address may be used as a linear one in 64-bit mode. */
static inline bool x86_is_canonical(const struct x86_cpu *cpu, u64 a)
{
	unsigned up = unlikely(cpu->cr4 & CR4_LA57) ? 7 : 16;

	return (u64)((s64)(a << up) >> up) == a;
}

/* The legacy (not 64-bit mode) half of x86_linear(), for a segment that need not be loaded. */
enum x86_status x86_linear_legacy(struct x86_cpu *cpu, const struct x86_seg *s, bool stack, u64 ea,
				  unsigned size, unsigned access, gva_t *lin);

/*
 * Device access at a guest-physical address, in fragments of at most 8 bytes, with replay. X86_FULL in leaf context.
 * The answer of user space is taken from cpu->exit.data when the instruction runs again.
 */
enum x86_status x86_mmio(struct x86_cpu *cpu, gpa_t gpa, void *data, unsigned size, bool is_write);

/* The instruction (or event delivery) will run again from its start. X86_EXIT for a device implies it. */
static inline void x86_replay_restart(struct x86_cpu *cpu)
{
	cpu->replay.next = 0;
}

/* When it is complete, or ended with a fault. */
static inline void x86_replay_forget(struct x86_cpu *cpu)
{
	cpu->replay.n = 0;
	cpu->replay.next = 0;
	cpu->replay.waiting = false;
}

/* Port access with replay; permission is the caller's. X86_FULL in leaf context. */
enum x86_status x86_io(struct x86_cpu *cpu, u16 port, void *data, unsigned size, bool is_write);

/* Stack, by the mode's stack size; @size bytes of datum. SP changes only on success. */
enum x86_status x86_push(struct x86_cpu *cpu, u64 v, unsigned size);
enum x86_status x86_pop(struct x86_cpu *cpu, u64 *v, unsigned size);

#endif
