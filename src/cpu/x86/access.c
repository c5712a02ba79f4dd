/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Reading and writing guest memory at linear addresses: RAM by host address, the rest as devices. */
#include "cpu/x86/access.h"
#include "base/bulk.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/raise.h"
#include "cpu/x86/mode.h"

/* One or two pieces of an operand, cut at the page boundary. */
struct piece {
	struct slot *slot; /* NULL: device */
	gpa_t gpa;
	unsigned len;
};

/* The sizes that general registers have are aligned by nature; see align.h for all else. */
static inline bool is_misaligned(const struct x86_cpu *cpu, gva_t lin, unsigned size,
				 unsigned access)
{
	return unlikely(cpu->mode & MODE_AC) &&
	       !(access & (ACC_SYSTEM | ACC_FETCH | ACC_UNALIGNED)) &&
	       (size == 2 || size == 4 || size == 8) && (lin & (size - 1));
}

/* Data breakpoints: no access goes by a tag while there are any, see x86_is_debugged(). */
static inline void watch(struct x86_cpu *cpu, gva_t lin, unsigned size, unsigned access)
{
	if (unlikely(x86_dr7(cpu) & DR7_ENABLES) && !(access & (ACC_SYSTEM | ACC_FETCH)))
		x86_watch_note(cpu, lin, size, access & ACC_WRITE);
}

/* Let a write of [gpa, gpa + len) happen next; returns whether a write tag may be installed. */
static inline bool write_open(struct x86_cpu *cpu, struct slot *s, gpa_t gpa, unsigned len)
{
	gfn_t gfn = gpa >> PAGE_SHIFT;

	if (likely(page_grant_write(cpu->writer, s, gfn)))
		return true;
	if (page_has_code(s, gfn) && cpu->code_written)
		cpu->code_written(cpu->engine, s, gpa, len);
	return false;
}

static inline struct slot *slot_for(struct x86_cpu *cpu, gpa_t gpa, unsigned access)
{
	struct slot *s = x86_slot(cpu, gpa >> PAGE_SHIFT);

	if ((access & ACC_WRITE) && s && unlikely(slot_is_readonly(s)))
		return NULL;
	return s;
}

enum x86_status x86_host(struct x86_cpu *cpu, gva_t lin, unsigned size, unsigned access,
			 void **host, bool *tag, struct x86_xlate *xl)
{
	struct x86_xlate own;
	enum x86_status st;
	bool granted = true;
	struct slot *s;

	*host = NULL;
	if (tag)
		*tag = false;
	if (unlikely((lin & ~PAGE_MASK) + size > PAGE_SIZE))
		return X86_OK;
	if (is_misaligned(cpu, lin, size, access))
		return x86_raise_error(cpu, VEC_AC, 0);
	if (!xl)
		xl = &own;
	st = x86_walk(cpu, lin, access, xl);
	if (unlikely(st))
		return st;
	s = slot_for(cpu, xl->gpa, access);
	if (unlikely(!s))
		return X86_OK;
	watch(cpu, lin, size, access);
	if (access & ACC_WRITE)
		granted = write_open(cpu, s, xl->gpa, size);
	else
		page_note_read(s, xl->gpa >> PAGE_SHIFT);
	if (tag)
		*tag = granted;
	*host = slot_hva(s, xl->gpa);
	return X86_OK;
}

/* Translate all of an operand; every page is checked before anything happens. Returns status. */
static inline enum x86_status pieces_make(struct x86_cpu *cpu, gva_t lin, unsigned size,
					  unsigned access, struct piece p[2], unsigned *n)
{
	unsigned first = PAGE_SIZE - (lin & ~PAGE_MASK);
	struct x86_xlate xl;
	enum x86_status st;
	gva_t next;

	if (is_misaligned(cpu, lin, size, access))
		return x86_raise_error(cpu, VEC_AC, 0);
	st = x86_walk(cpu, lin, access, &xl);
	if (unlikely(st))
		return st;
	p[0].gpa = xl.gpa;
	p[0].len = size;
	*n = 1;
	if (unlikely(size > first)) {
		next = lin + first;
		if (next == BIT_ULL(32) && !x86_is_64(cpu))
			next = 0; /* 32-bit addresses wrap */
		st = x86_walk(cpu, next, access, &xl);
		if (st)
			return st;
		p[0].len = first;
		p[1].gpa = xl.gpa;
		p[1].len = size - first;
		p[1].slot = slot_for(cpu, xl.gpa, access);
		*n = 2;
	}
	p[0].slot = slot_for(cpu, p[0].gpa, access);
	watch(cpu, lin, size, access);
	return X86_OK;
}

struct unaligned16 {
	u16 v;
} __attribute__((packed, may_alias));
struct unaligned32 {
	u32 v;
} __attribute__((packed, may_alias));
struct unaligned64 {
	u64 v;
} __attribute__((packed, may_alias));

/* Frames and descriptors: REP MOVSB takes longer to start than they take to copy. */
static inline void block_copy(u8 *dst, const u8 *src, unsigned size)
{
	if (size > 128) {
		bulk_copy(dst, src, size);
		return;
	}
	for (; size >= 8; size -= 8, dst += 8, src += 8)
		((volatile struct unaligned64 *)dst)->v =
			((const volatile struct unaligned64 *)src)->v;
	for (; size; size--)
		*(volatile u8 *)dst++ = *(const volatile u8 *)src++;
}

/* Register-sized data moves with one load and one store, so that other processors see no halves. */
static inline void ram_copy(void *dst, const void *src, unsigned size)
{
	switch (size) {
	case 1:
		*(volatile u8 *)dst = *(const volatile u8 *)src;
		break;
	case 2:
		((volatile struct unaligned16 *)dst)->v =
			((const volatile struct unaligned16 *)src)->v;
		break;
	case 4:
		((volatile struct unaligned32 *)dst)->v =
			((const volatile struct unaligned32 *)src)->v;
		break;
	case 8:
		((volatile struct unaligned64 *)dst)->v =
			((const volatile struct unaligned64 *)src)->v;
		break;
	default:
		block_copy(dst, src, size);
	}
}

enum x86_status x86_read(struct x86_cpu *cpu, gva_t lin, void *buf, unsigned size, unsigned access)
{
	struct piece p[2];
	unsigned i, n;
	u8 *to = buf;
	enum x86_status st = pieces_make(cpu, lin, size, access, p, &n);

	if (unlikely(st))
		return st;
	for (i = 0; i < n; to += p[i++].len) {
		if (likely(p[i].slot)) {
			page_note_read(p[i].slot, p[i].gpa >> PAGE_SHIFT);
			ram_copy(to, slot_hva(p[i].slot, p[i].gpa), p[i].len);
			continue;
		}
		st = x86_mmio(cpu, p[i].gpa, to, p[i].len, false);
		if (st)
			return st;
	}
	return X86_OK;
}

/* Devices first: they may ask for a restart, and then no byte of RAM has been written. */
static enum x86_status write_devices(struct x86_cpu *cpu, const struct piece *p, unsigned n,
				     const u8 *from)
{
	unsigned i;

	for (i = 0; i < n; from += p[i++].len) {
		enum x86_status st;

		if (likely(p[i].slot))
			continue;
		st = x86_mmio(cpu, p[i].gpa, (void *)from, p[i].len, true);
		if (st)
			return st;
	}
	return X86_OK;
}

enum x86_status x86_write(struct x86_cpu *cpu, gva_t lin, const void *buf, unsigned size,
			  unsigned access)
{
	struct piece p[2];
	unsigned i, n;
	const u8 *from = buf;
	enum x86_status st = pieces_make(cpu, lin, size, access | ACC_WRITE, p, &n);

	if (likely(st == X86_OK))
		st = write_devices(cpu, p, n, from);
	if (unlikely(st))
		return st;
	for (i = 0; i < n; from += p[i++].len) {
		if (!p[i].slot)
			continue;
		write_open(cpu, p[i].slot, p[i].gpa, p[i].len);
		ram_copy(slot_hva(p[i].slot, p[i].gpa), from, p[i].len);
	}
	return X86_OK;
}

enum x86_status x86_probe(struct x86_cpu *cpu, gva_t lin, unsigned size, unsigned access)
{
	struct piece p[2];
	unsigned n;

	return pieces_make(cpu, lin, size, access, p, &n);
}
