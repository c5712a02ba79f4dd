/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Decoded instructions found again by their shape: prefixes, opcode, ModRM and SIB. Leaf code. */
#include "engine/x86/memo.h"

#include <assert.h>

/*
 * All but displacement and immediate of a decoded instruction follows from the bytes in front of them, which are at most
 * eight: the key. An entry is what the decoder said of an instruction with that key; another one with the same key
 * differs in the two numbers only. What depends on more is not kept (memo_keep()).
 */

/* Opcodes with ModRM in 64-bit mode, a bit each. Where this is wrong, memo_keep() sees it and keeps nothing. */
static const u32 modrm_1[8] = { 0x0f0f0f0f, 0x0f0f0f0f, 0x00000000, 0x00000a08,
				0x0000ffff, 0x00000000, 0xff0f00c3, 0xc0c00000 };
static const u32 modrm_0f[8] = { 0xffffa00f, 0xff00ffff, 0xffffffff, 0xff7fffff,
				 0xffff0000, 0xfffff8f8, 0xffff00ff, 0xffffffff };

static bool has_modrm(const u32 *map, u8 opcode)
{
	return map[opcode >> 5] >> (opcode & 31) & 1;
}

static bool is_prefix(u8 b)
{
	switch (b) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3:
		return true;
	default:
		return (b & 0xf0) == 0x40; /* REX; the decoder knows which of several count */
	}
}

/* Length of the key, or 0. @b: eight bytes. */
static unsigned key_len(const u8 *b, bool *modrm)
{
	unsigned k = 0, rm;

	while (k < 4 && is_prefix(b[k]))
		k++;
	if (b[k] == 0x62 || b[k] == 0xc4 || b[k] == 0xc5)
		return 0; /* EVEX multiplies displacements; VEX has registers in immediates */
	if (b[k] == 0x0f) {
		k++;
		*modrm = has_modrm(modrm_0f, b[k]);
		if (b[k] == 0x38 || b[k] == 0x3a)
			k++;
	} else {
		*modrm = has_modrm(modrm_1, b[k]);
	}
	k++;
	if (!*modrm)
		return k;
	if (k > 6)
		return 0;
	rm = b[k++];
	return (rm >> 6) != 3 && (rm & 7) == 4 ? k + 1 : k;
}

static u64 low_bytes(unsigned n)
{
	return n < 8 ? BIT_ULL(8 * n) - 1 : ~0ull;
}

static unsigned memo_index(u64 key)
{
	return key * 0x9e3779b97f4a7c15ull >> (64 - MEMO_BITS);
}

/* @n bytes that others may be writing: read once. */
static void bytes_read(const u8 *bytes, unsigned n, u64 out[2])
{
	u8 copy[16] = { 0 };

	if (likely(n == 15)) {
		__builtin_memcpy(&out[0], bytes, 8);
		__builtin_memcpy(&out[1], bytes + 7, 8);
		out[1] >>= 8;
		return;
	}
	for (unsigned i = 0; i < n; i++)
		copy[i] = ((const volatile u8 *)bytes)[i];
	__builtin_memcpy(out, copy, 16);
}

static u64 number(const u8 *p, unsigned size, bool is_signed)
{
	unsigned empty = 64 - 8 * size;
	u64 v;

	if (!size)
		return 0;
	__builtin_memcpy(&v, p, 8);
	v <<= empty;
	return is_signed ? (u64)((s64)v >> empty) : v >> empty;
}

static_assert(sizeof(struct decoded) % 8 == 0, "copied in words");

/* In a loop: the compiler would call libc for the whole. */
static void decoded_copy(struct decoded *to, const struct decoded *from)
{
	for (unsigned i = 0; i < sizeof(*to); i += 8)
		__builtin_memcpy((u8 *)to + i, (const u8 *)from + i, 8);
}

bool memo_find(const struct memo *m, const u8 *bytes, unsigned n, struct decoded *out)
{
	u64 in[4] = { 0 }, key;
	const u8 *b = (const u8 *)in;
	const struct memo_entry *e;
	struct x86_insn *insn = &out->insn;
	unsigned k;
	bool modrm;

	bytes_read(bytes, n, in);
	k = key_len(b, &modrm);
	key = in[0] & low_bytes(k);
	e = &m->e[memo_index(key)];
	if (!k || e->key != key || !e->d.insn.len || e->d.insn.len > n)
		return false;
	decoded_copy(out, &e->d);
	in[0] &= low_bytes(insn->len);
	in[1] &= insn->len < 8 ? 0 : low_bytes(insn->len - 8);
	__builtin_memcpy(insn->bytes, &in[0], 8);
	__builtin_memcpy(insn->bytes + 7, (const u8 *)in + 7, 8);
	insn->disp = (s64)number(b + out->disp_off, out->disp_size, true);
	insn->imm = number(b + out->imm_off, out->imm_size, out->imm_signed);
	return true;
}

/* Whether more than the key and two numbers decide what the instruction is. */
static bool is_special(const struct decoded *d)
{
	const struct x86_insn *insn = &d->insn;
	bool map_0f = insn->bytes[d->opcode_off] == 0x0f;

	if (d->enc != ENC_LEGACY || insn->imm2 || (insn->has_mem && !d->has_modrm))
		return true;
	if (!map_0f)
		return insn->opcode == 0xc0 || insn->opcode == 0xc1 || /* a count of zero */
		       insn->opcode == 0xc8;			       /* ENTER */
	switch (insn->bytes[d->opcode_off + 1]) {
	case 0x0f: /* 3DNow: the opcode is the last byte */
	case 0x78: /* EXTRQ, INSERTQ */
	case 0xa4: /* SHLD, SHRD by a count of zero */
	case 0xac:
		return true;
	default:
		return false;
	}
}

void memo_keep(struct memo *m, const struct decoded *d)
{
	const struct x86_insn *insn = &d->insn;
	u64 in = 0, key;
	unsigned k, n = insn->len < 8 ? insn->len : 8;
	bool modrm;

	for (unsigned i = 0; i < n; i++)
		in |= (u64)insn->bytes[i] << (8 * i);
	k = key_len((const u8 *)&in, &modrm);
	if (!k || k > n || modrm != d->has_modrm || is_special(d) ||
	    k + d->disp_size + d->imm_size != insn->len || (d->disp_size && d->disp_off != k) ||
	    (d->imm_size && d->imm_off != k + d->disp_size))
		return;
	key = in & low_bytes(k);
	m->e[memo_index(key)].key = key;
	decoded_copy(&m->e[memo_index(key)].d, d);
}
