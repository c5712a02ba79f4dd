/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Building the default CPUID from the host's and cpuid.def. */
#include "cpu/x86/cpuid.h"

#include <string.h>

enum { EAX, EBX, ECX, EDX };
enum { HOST, BITS, MAKE, ZERO, GIVE, GIVE_INTEL, GIVE_AMD, RUN, HIDE };
enum { ANY, INTEL, AMD };

/* Families of sub-leaves; smaller numbers are one sub-leaf. */
enum { ONE = 0x100, CACHES, TOPOLOGY, XSTATE };

static const struct leaf {
	u32 function;
	u16 which;
	u8 vendor;
	u8 how[4];
} leaves[] = {
#define LEAF(function, which, vendor, eax, ebx, ecx, edx)                                          \
	{ function, which, vendor, { eax, ebx, ecx, edx } },
#define FEATURE(function, index, reg, bit, name, how, why)
#include "cpu/x86/cpuid.def"
#undef LEAF
#undef FEATURE
};

static const struct feature {
	u32 function;
	u8 index, reg, bit, how;
} features[] = {
#define LEAF(function, which, vendor, eax, ebx, ecx, edx)
#define FEATURE(function, index, reg, bit, name, how, why) { function, index, reg, bit, how },
#include "cpu/x86/cpuid.def"
#undef LEAF
#undef FEATURE
};

static bool feature_given(const struct x86_host *host, const struct feature *f, u32 value)
{
	switch (f->how) {
	case HOST:
		return value >> f->bit & 1;
	case GIVE:
		return true;
	case GIVE_INTEL:
		return host->intel;
	case GIVE_AMD:
		return host->amd;
	default:
		return false;
	}
}

static u32 filter_bits(const struct x86_host *host, u32 function, u32 index, unsigned reg,
		       u32 value)
{
	u32 v = 0;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];

		if (f->function == function && f->index == index && f->reg == reg &&
		    feature_given(host, f, value))
			v |= BIT(f->bit);
	}
	return v;
}

/* Values of the registers marked MAKE; @r holds the host's. */
static u32 make_value(const struct x86_host *host, u32 function, u32 index, unsigned reg,
		      const u32 r[4])
{
	static const u32 signature[4] = { 0x40000001, 0x4b4d564b, 0x564b4d56, 0x0000004d };

	switch (function) {
	case 0: /* what follows is zero or the VMM's */
		return host->xsave ? 0xd : 0xb;
	case 1: /* brand and CLFLUSH size; APIC ID 0, one logical processor */
		return (r[EBX] & 0xff) | (r[EBX] & 0xff00 ? r[EBX] & 0xff00 : 8 << 8) | 1 << 16;
	case 4: /* caches are shared with nobody, one core per package */
	case 0x8000001d:
		return r[EAX] & 0x3fff;
	case 7: /* last sub-leaf */
		return 2;
	case 0xb: /* level 0: threads, 1: cores; one of each */
		return reg == EBX ? 1 : index | (index + 1) << 8;
	case 0xd:
		if (index >= 2)
			return r[ECX] & 2; /* user state; alignment as the host's */
		return reg == EAX ? (u32)host->xcr0 : reg == EBX ? 576 : host->xsave_size;
	case 0x40000000:
		return signature[reg];
	case 0x80000000:
		return host->amd ? 0x80000021 : 0x80000008;
	case 0x80000008:
		return host->phys_bits | host->virt_bits << 8;
	default:
		return 0;
	}
}

struct table {
	struct x86_cpuid_entry *out;
	unsigned n, max;
};

/* Add one sub-leaf; false when the host has no more of this family. */
static bool add_entry(const struct x86_host *host, const struct leaf *l, u32 index, struct table *t)
{
	struct x86_cpuid_entry e = { .function = l->function, .index = index };
	u32 r[4], v[4];

	x86_host_cpuid(host, l->function, index, r);
	if (l->which == CACHES && !(r[EAX] & 0x1f))
		return false;
	for (unsigned i = 0; i < 4; i++) {
		v[i] = l->how[i] == HOST   ? r[i]
		       : l->how[i] == BITS ? filter_bits(host, l->function, index, i, r[i])
		       : l->how[i] == MAKE ? make_value(host, l->function, index, i, r)
					   : 0;
	}
	e.eax = v[EAX];
	e.ebx = v[EBX];
	e.ecx = v[ECX];
	e.edx = v[EDX];
	e.flags = l->which == ONE ? 0 : X86_CPUID_INDEXED;
	if (t->n < t->max)
		t->out[t->n] = e;
	t->n++;
	return true;
}

static void add_leaf(const struct x86_host *host, const struct leaf *l, struct table *t)
{
	if ((l->vendor == INTEL && !host->intel) || (l->vendor == AMD && !host->amd))
		return;
	if (l->function == 0xd && !host->xsave)
		return;
	switch (l->which) {
	case CACHES:
		for (u32 i = 0; i < 8 && add_entry(host, l, i, t); i++)
			;
		break;
	case TOPOLOGY:
		add_entry(host, l, 0, t);
		add_entry(host, l, 1, t);
		break;
	case XSTATE:
		for (u32 i = 2; i < 8; i++)
			if (host->xcr0 >> i & 1)
				add_entry(host, l, i, t);
		break;
	default:
		add_entry(host, l, l->which == ONE ? 0 : l->which, t);
	}
}

unsigned x86_cpuid_supported(const struct x86_host *host, struct x86_cpuid_entry *out, unsigned max)
{
	struct table t = { .out = out, .max = max };

	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		add_leaf(host, &leaves[i], &t);
	return t.n;
}
