/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Vector and opmask registers in the saved state, and the bytes that a masked access touches. */
#include "cpu/x86/vector.h"

#include "base/bulk.h"

/* State components (SDM "XSAVE-Supported Features and State-Component Bitmaps") and the header. */
enum { COMP_X87, COMP_SSE, COMP_AVX, COMP_K = 5, COMP_ZMM_HI256, COMP_HI16_ZMM, COMP_COUNT };
#define XSTATE_BV_OFFSET 512
#define XMM_OFFSET	 160
#define XMM_BYTES	 256

struct component {
	u32 offset, size;
	bool known;
};

/* Where the host has its components: Intel and AMD differ. Written with equal values by whoever is first. */
static struct component component[COMP_COUNT] = {
	[COMP_SSE] = { XMM_OFFSET, XMM_BYTES, true },
};

static const struct component *component_find(unsigned c)
{
	struct component *p = &component[c];

	if (!__atomic_load_n(&p->known, __ATOMIC_ACQUIRE)) {
		u32 eax = 0xd, ebx, ecx = c, edx;

		__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
		__atomic_store_n(&p->offset, ebx, __ATOMIC_RELAXED);
		__atomic_store_n(&p->size, eax, __ATOMIC_RELAXED);
		__atomic_store_n(&p->known, true, __ATOMIC_RELEASE);
	}
	return p;
}

static inline u64 *xstate_bv(struct x86_cpu *cpu)
{
	return (u64 *)(cpu->xsave + XSTATE_BV_OFFSET);
}

/* The component's memory when it is in use, else NULL: it is 0 then. */
static const u8 *component_used(const struct x86_cpu *cpu, unsigned c)
{
	const struct component *p = component_find(c);

	if (!(*(const u64 *)(cpu->xsave + XSTATE_BV_OFFSET) >> c & 1) || !p->size ||
	    p->offset + p->size > X86_XSAVE_MAX)
		return NULL;
	return cpu->xsave + p->offset;
}

/* The component's memory, put into use; NULL when the host has none. */
static u8 *component_use(struct x86_cpu *cpu, unsigned c)
{
	const struct component *p = component_find(c);

	if (!p->size || p->offset + p->size > X86_XSAVE_MAX)
		return NULL;
	if (!(*xstate_bv(cpu) >> c & 1)) {
		bulk_zero(cpu->xsave + p->offset, p->size);
		*xstate_bv(cpu) |= BIT_ULL(c);
	}
	return cpu->xsave + p->offset;
}

/* Which component holds the byte @offset of register @reg, and where in it. */
static unsigned lane_find(unsigned reg, unsigned offset, unsigned *at)
{
	if (reg >= 16) {
		*at = (reg - 16) * 64 + offset;
		return COMP_HI16_ZMM;
	}
	if (offset >= 32) {
		*at = reg * 32 + offset - 32;
		return COMP_ZMM_HI256;
	}
	*at = reg * 16 + (offset & 15);
	return offset >= 16 ? COMP_AVX : COMP_SSE;
}

void x86_vector_read(const struct x86_cpu *cpu, unsigned reg, unsigned offset, void *buf,
		     unsigned size)
{
	unsigned at, c = lane_find(reg & 31, offset, &at);
	const u8 *p = component_used(cpu, c);

	if (p)
		bulk_copy(buf, p + at, size);
	else
		bulk_zero(buf, size);
}

void x86_vector_write(struct x86_cpu *cpu, unsigned reg, unsigned offset, const void *buf,
		      unsigned size)
{
	unsigned at, c = lane_find(reg & 31, offset, &at);
	u8 *p = component_use(cpu, c);

	if (p)
		bulk_copy(p + at, buf, size);
}

u64 x86_opmask_read(const struct x86_cpu *cpu, unsigned k)
{
	const u8 *p = component_used(cpu, COMP_K);

	return p ? ((const u64 *)p)[k & 7] : 0;
}

void x86_opmask_write(struct x86_cpu *cpu, unsigned k, u64 v)
{
	u8 *p = component_use(cpu, COMP_K);

	if (p)
		((u64 *)p)[k & 7] = v;
}

static inline u64 low_bits(unsigned n)
{
	return n >= 64 ? ~0ull : BIT_ULL(n) - 1;
}

/* One bit per element becomes @elem bits. */
static u64 bytes_of_elements(u64 bits, unsigned elem)
{
	u64 bytes = 0;

	for (unsigned at = 0; bits && at < 64; at += elem, bits >>= 1) {
		if (bits & 1)
			bytes |= low_bits(elem) << at;
	}
	return bytes;
}

static unsigned count_bits(u64 v)
{
	unsigned n = 0;

	for (; v; v &= v - 1)
		n++;
	return n;
}

/* VMASKMOV and VPMASKMOV: the sign bit of each element of the mask register. */
static u64 sign_bits(const struct x86_cpu *cpu, unsigned reg, unsigned elem, unsigned n)
{
	u64 bits = 0;

	for (unsigned i = 0; i < n; i++) {
		u8 top;

		x86_vector_read(cpu, reg, i * elem + elem - 1, &top, 1);
		bits |= (u64)(top >> 7) << i;
	}
	return bits;
}

/* Memory element i feeds elements i, i + n, ... of the register: active when one of them is. */
static u64 fold_bits(u64 bits, unsigned total, unsigned n)
{
	u64 folded = 0;

	for (unsigned i = 0; i < total && i < 64; i++)
		folded |= (bits >> i & 1) << i % n;
	return folded;
}

void x86_active_bytes(const struct x86_cpu *cpu, const struct x86_insn *insn, u64 mask[1])
{
	unsigned elem = insn->elem ? insn->elem : insn->memsize;
	unsigned n = elem && insn->memsize > elem ? insn->memsize / elem : 1;
	unsigned total = insn->mask_bits	     ? insn->mask_bits
			 : elem && insn->vlen > elem ? insn->vlen / elem
						     : n;
	bool opmask = insn->mask_kind != INSN_MASK_VEC;
	u64 bits;

	mask[0] = low_bits(insn->memsize);
	if (insn->mask_kind == INSN_MASK_NONE || (opmask && !insn->mask) || elem > 64)
		return;
	bits = opmask ? x86_opmask_read(cpu, insn->mask) : sign_bits(cpu, insn->mask, elem, n);
	switch (insn->mask_kind) {
	case INSN_MASK_K_PACKED:
		bits = low_bits(count_bits(bits & low_bits(total)));
		break;
	case INSN_MASK_BROADCAST:
		if (!(insn->access & INSN_WRITE)) /* nothing is stored to many elements */
			bits = fold_bits(bits, total, n);
		break;
	}
	mask[0] &= bytes_of_elements(bits & low_bits(n), elem);
}
