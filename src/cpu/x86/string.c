/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* String instructions: MOVS, CMPS, STOS, LODS and SCAS, one and repeated. */
#include "cpu/x86/access.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

/*
 * A repeated instruction runs in chunks: as many elements as lie in one page on each side and do
 * not wrap in the address size. Where both pages are RAM the host's own string instruction of the
 * same element size does the chunk on the host addresses, which makes overlaps exact. What is
 * left - an element across pages, a device - is one element through x86_read() and x86_write().
 * After each chunk the registers are exact, so a fault, an exit or a poll may come at any time.
 */
#define STRING_BUDGET 65536u /* bytes between two polls */

/* One side of a string instruction: [seg:reg] */
struct string_side {
	unsigned reg, seg, access;
	u64 ea;
	gva_t lin; /* of the next element */
	u8 *host;  /* lowest byte of the chunk; NULL: one element by linear address */
};

struct string {
	struct x86_cpu *cpu;
	const struct x86_insn *insn;
	struct string_side src, dst;
	unsigned size;
	bool down;
	u64 n;	   /* elements of this chunk; becomes what was done */
	bool stop; /* REPE or REPNE has ended */
};

/* Does the chunk; s->n is what was asked for and becomes what was done. */
typedef enum x86_status string_fn(struct string *s);

enum { USE_SRC = 1, USE_DST = 2, USE_DST_READ = 4, USE_COMPARE = 8 };

static inline u64 address_mask(const struct x86_insn *insn)
{
	return insn->adsize == 8 ? ~0ull : insn->adsize == 4 ? ~0u : 0xffff;
}

static inline u64 min_u64(u64 a, u64 b)
{
	return a < b ? a : b;
}

/* Elements from @side on that stay in its page and do not wrap; 0 when the first does not. */
static u64 side_run(const struct string *s, const struct string_side *side)
{
	u64 offset = side->lin & ~PAGE_MASK, mask = address_mask(s->insn);
	u64 run = (PAGE_SIZE - offset) / s->size;

	if (s->insn->adsize != 8)
		run = min_u64(run, (mask - side->ea + 1) / s->size);
	if (run && s->down) {
		run = offset / s->size + 1;
		if (s->insn->adsize != 8)
			run = min_u64(run, side->ea / s->size + 1);
	}
	return run;
}

static enum x86_status side_linear(struct string *s, struct string_side *side)
{
	side->ea = x86_gpr_sized(s->cpu, side->reg, s->insn->adsize);
	side->host = NULL;
	return x86_linear(s->cpu, side->seg, side->ea, s->size, side->access, &side->lin);
}

/* Whether the whole chunk is inside the segment; the first element is known to be. */
static bool side_fits(struct string *s, const struct string_side *side)
{
	u64 back = s->down ? (s->n - 1) * s->size : 0;
	gva_t lin;

	return s->n == 1 || x86_linear(s->cpu, side->seg, side->ea - back, s->n * s->size,
				       side->access, &lin) == X86_OK;
}

static enum x86_status side_host(struct string *s, struct string_side *side)
{
	u64 back = s->down ? (s->n - 1) * s->size : 0;
	void *host;
	enum x86_status st =
		x86_host(s->cpu, side->lin - back, s->n * s->size, side->access, &host, NULL, NULL);

	side->host = st == X86_OK ? host : NULL;
	return st;
}

/* Choose the next chunk of at most @n elements; without host addresses it is one element. */
static enum x86_status chunk_place(struct string *s, unsigned use, u64 n)
{
	bool src = use & USE_SRC, dst = use & (USE_DST | USE_DST_READ);
	enum x86_status st;

	if (src && (st = side_linear(s, &s->src)))
		return st;
	/* Which of two bad addresses counts is open otherwise; with #AC the source's faults all come first, as on AMD. */
	if (unlikely(s->cpu->mode & MODE_AC) && src && dst &&
	    (st = x86_probe(s->cpu, s->src.lin, s->size, ACC_READ)))
		return st;
	if (dst && (st = side_linear(s, &s->dst)))
		return st;
	/* Compares downwards are rare, and alignment checks belong to elements. */
	if (s->cpu->mode & MODE_AC || (use & USE_COMPARE && s->down))
		n = min_u64(n, 1);
	if (src)
		n = min_u64(n, side_run(s, &s->src));
	if (dst)
		n = min_u64(n, side_run(s, &s->dst));
	s->n = n;
	if (!n)
		goto single;
	if ((src && !side_fits(s, &s->src)) || (dst && !side_fits(s, &s->dst)))
		s->n = 1;
	if (src && (st = side_host(s, &s->src)))
		return st;
	if (dst && (st = side_host(s, &s->dst)))
		return st;
	if ((!src || s->src.host) && (!dst || s->dst.host))
		return X86_OK;
single:
	s->src.host = s->dst.host = NULL;
	s->n = 1;
	return X86_OK;
}

static void side_advance(struct string *s, const struct string_side *side)
{
	u64 bytes = s->n * s->size;

	x86_gpr_write(s->cpu, side->reg, side->ea + (s->down ? -bytes : bytes), s->insn->adsize);
}

/*
 * A count of zero with 32-bit addresses in 64-bit mode, which the manuals leave open: Intel's processors clear the
 * upper halves of RCX and of the pointers of MOVS and STOS (KVM knows this too), AMD's change nothing.
 */
static void zero_count(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned use)
{
	if (!cpu->intel || !x86_is_64(cpu) || insn->adsize != 4)
		return;
	x86_gpr_write(cpu, RCX, 0, 4);
	if (use & USE_DST)
		x86_gpr_write(cpu, RDI, x86_gpr_sized(cpu, RDI, 4), 4);
	if (use & USE_DST && use & USE_SRC)
		x86_gpr_write(cpu, RSI, x86_gpr_sized(cpu, RSI, 4), 4);
}

static enum x86_status string_run(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned use,
				  string_fn *chunk)
{
	struct string s = { .cpu = cpu, .insn = insn, .size = insn->opsize, .down = cpu->f.df };
	u64 left = 1, budget = STRING_BUDGET / insn->opsize;
	bool rep = insn->prefixes & (INSN_REP | INSN_REPNE), replayed = false;
	enum x86_status st;

	s.src = (struct string_side){ .reg = RSI,
				      .seg = insn->seg_override ? insn->seg : SEG_DS,
				      .access = ACC_READ };
	s.dst = (struct string_side){ .reg = RDI,
				      .seg = SEG_ES,
				      .access = use & USE_DST ? ACC_WRITE : ACC_READ };
	if (rep)
		left = x86_gpr_sized(cpu, RCX, insn->adsize);
	if (unlikely(!left))
		zero_count(cpu, insn, use);
	if (cpu->mode & MODE_STEP)
		budget = 1;
	while (left && !s.stop) {
		if (!budget || replayed) {
			/* A poll, and the end of this element's device accesses. */
			cpu->next_rip = cpu->rip;
			break;
		}
		st = chunk_place(&s, use, min_u64(left, budget));
		if (st == X86_OK)
			st = chunk(&s);
		if (st != X86_OK)
			return st;
		if (use & USE_SRC)
			side_advance(&s, &s.src);
		if (use & (USE_DST | USE_DST_READ))
			side_advance(&s, &s.dst);
		left -= s.n;
		budget = cpu->kick ? 0 : budget - s.n;
		replayed = cpu->replay.n;
		x86_replay_forget(cpu);
		if (rep)
			x86_gpr_write(cpu, RCX, left, insn->adsize);
	}
	return X86_OK;
}

/* The host's own instruction on host addresses: "insn" of all four element sizes. */
#define HOST_STRING(size, before, insn, after, ...)                                                \
	do {                                                                                       \
		switch (size) {                                                                    \
		case 1:                                                                            \
			__asm__ volatile(before insn "b" after : __VA_ARGS__);                     \
			break;                                                                     \
		case 2:                                                                            \
			__asm__ volatile(before insn "w" after : __VA_ARGS__);                     \
			break;                                                                     \
		case 4:                                                                            \
			__asm__ volatile(before insn "l" after : __VA_ARGS__);                     \
			break;                                                                     \
		case 8:                                                                            \
			__asm__ volatile(before insn "q" after : __VA_ARGS__);                     \
			break;                                                                     \
		}                                                                                  \
	} while (0)

/* @dst and @src are the lowest bytes of @n elements; order matters only when they overlap. */
static void host_movs(u8 *dst, const u8 *src, u64 n, unsigned size, bool down)
{
	u64 bytes = n * size;

	if (down && n > 1 && (u64)(dst - src) + bytes - 1 < 2 * bytes - 1) {
		dst += bytes - size;
		src += bytes - size;
		HOST_STRING(size, "std; ", "rep movs", "; cld", "+D"(dst), "+S"(src), "+c"(n)
			    :
			    : "memory", "cc");
	} else {
		HOST_STRING(size, "", "rep movs", "", "+D"(dst), "+S"(src), "+c"(n) : : "memory");
	}
}

static void host_stos(u8 *dst, u64 v, u64 n, unsigned size)
{
	HOST_STRING(size, "", "rep stos", "", "+D"(dst), "+c"(n) : "a"(v) : "memory");
}

/* Flags come as LAHF and SETO leave them, which is how cpu->aflags keeps them. Returns elements done. */
static u64 host_cmps(const u8 *src, const u8 *dst, u64 n, unsigned size, bool ne, u16 *flags)
{
	u64 left = n, ax = 0;

	if (ne)
		HOST_STRING(size, "", "repne cmps", "; lahf; seto %%al", "+D"(dst), "+S"(src),
			    "+c"(left), "+a"(ax)
			    :
			    : "memory", "cc");
	else
		HOST_STRING(size, "", "repe cmps", "; lahf; seto %%al", "+D"(dst), "+S"(src),
			    "+c"(left), "+a"(ax)
			    :
			    : "memory", "cc");
	*flags = ax;
	return n - left;
}

static u64 host_scas(const u8 *dst, u64 v, u64 n, unsigned size, bool ne, u16 *flags)
{
	u64 left = n;

	if (ne)
		HOST_STRING(size, "", "repne scas", "; lahf; seto %%al", "+D"(dst), "+c"(left),
			    "+a"(v)
			    :
			    : "memory", "cc");
	else
		HOST_STRING(size, "", "repe scas", "; lahf; seto %%al", "+D"(dst), "+c"(left),
			    "+a"(v)
			    :
			    : "memory", "cc");
	*flags = v;
	return n - left;
}

static enum x86_status movs_chunk(struct string *s)
{
	enum x86_status st;
	u64 v;

	if (s->src.host) {
		host_movs(s->dst.host, s->src.host, s->n, s->size, s->down);
		return X86_OK;
	}
	st = x86_read(s->cpu, s->src.lin, &v, s->size, ACC_READ);
	return st ? st : x86_write(s->cpu, s->dst.lin, &v, s->size, ACC_WRITE);
}

static enum x86_status stos_chunk(struct string *s)
{
	u64 v = x86_gpr_sized(s->cpu, RAX, s->size);

	if (!s->dst.host)
		return x86_write(s->cpu, s->dst.lin, &v, s->size, ACC_WRITE);
	host_stos(s->dst.host, v, s->n, s->size);
	return X86_OK;
}

/* Only the last element of a chunk stays in the register. */
static enum x86_status lods_chunk(struct string *s)
{
	u64 v = 0;

	if (s->src.host) {
		u8 *last = s->src.host + (s->down ? 0 : (s->n - 1) * s->size);

		host_movs((u8 *)&v, last, 1, s->size, false);
	} else {
		enum x86_status st = x86_read(s->cpu, s->src.lin, &v, s->size, ACC_READ);

		if (st != X86_OK)
			return st;
	}
	x86_gpr_write(s->cpu, RAX, v, s->size);
	return X86_OK;
}

static void compare_done(struct string *s, u16 flags)
{
	bool ne = s->insn->prefixes & INSN_REPNE;

	s->cpu->aflags = flags;
	s->stop = !!(flags & AF_ZF) == ne;
}

static enum x86_status cmps_chunk(struct string *s)
{
	const u8 *a = s->src.host, *b = s->dst.host;
	enum x86_status st;
	u64 va, vb;
	u16 flags;

	if (!a) {
		st = x86_read(s->cpu, s->src.lin, &va, s->size, ACC_READ);
		if (st == X86_OK)
			st = x86_read(s->cpu, s->dst.lin, &vb, s->size, ACC_READ);
		if (st != X86_OK)
			return st;
		a = (u8 *)&va;
		b = (u8 *)&vb;
	}
	s->n = host_cmps(a, b, s->n, s->size, s->insn->prefixes & INSN_REPNE, &flags);
	compare_done(s, flags);
	return X86_OK;
}

static enum x86_status scas_chunk(struct string *s)
{
	const u8 *b = s->dst.host;
	u16 flags;
	u64 vb;

	if (!b) {
		enum x86_status st = x86_read(s->cpu, s->dst.lin, &vb, s->size, ACC_READ);

		if (st != X86_OK)
			return st;
		b = (u8 *)&vb;
	}
	s->n = host_scas(b, x86_gpr_sized(s->cpu, RAX, s->size), s->n, s->size,
			 s->insn->prefixes & INSN_REPNE, &flags);
	compare_done(s, flags);
	return X86_OK;
}

enum x86_status x86_op_movs(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return string_run(cpu, insn, USE_SRC | USE_DST, movs_chunk);
}

enum x86_status x86_op_stos(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return string_run(cpu, insn, USE_DST, stos_chunk);
}

enum x86_status x86_op_lods(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return string_run(cpu, insn, USE_SRC, lods_chunk);
}

enum x86_status x86_op_cmps(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return string_run(cpu, insn, USE_SRC | USE_DST_READ | USE_COMPARE, cmps_chunk);
}

enum x86_status x86_op_scas(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return string_run(cpu, insn, USE_DST_READ | USE_COMPARE, scas_chunk);
}
