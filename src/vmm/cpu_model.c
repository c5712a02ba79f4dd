/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* --cpu host|intel|amd[,+flag,-flag...]: from the supported CPUID to what a vCPU is given. */
#include "vmm/cpu_model.h"

#include <errno.h>
#include <string.h>

enum { EAX, EBX, ECX, EDX };

/* Names as /proc/cpuinfo shows them. */
static const struct flag {
	const char *name;
	u32 leaf, index;
	u8 reg, bit;
} flags[] = {
	{ "fpu", 1, 0, EDX, 0 },
	{ "tsc", 1, 0, EDX, 4 },
	{ "pae", 1, 0, EDX, 6 },
	{ "cx8", 1, 0, EDX, 8 },
	{ "apic", 1, 0, EDX, 9 },
	{ "sep", 1, 0, EDX, 11 },
	{ "mtrr", 1, 0, EDX, 12 },
	{ "pge", 1, 0, EDX, 13 },
	{ "mca", 1, 0, EDX, 14 },
	{ "cmov", 1, 0, EDX, 15 },
	{ "pat", 1, 0, EDX, 16 },
	{ "pse36", 1, 0, EDX, 17 },
	{ "clflush", 1, 0, EDX, 19 },
	{ "mmx", 1, 0, EDX, 23 },
	{ "fxsr", 1, 0, EDX, 24 },
	{ "sse", 1, 0, EDX, 25 },
	{ "sse2", 1, 0, EDX, 26 },
	{ "ht", 1, 0, EDX, 28 },
	{ "pni", 1, 0, ECX, 0 },
	{ "sse3", 1, 0, ECX, 0 },
	{ "pclmulqdq", 1, 0, ECX, 1 },
	{ "monitor", 1, 0, ECX, 3 },
	{ "vmx", 1, 0, ECX, 5 },
	{ "ssse3", 1, 0, ECX, 9 },
	{ "fma", 1, 0, ECX, 12 },
	{ "cx16", 1, 0, ECX, 13 },
	{ "pdcm", 1, 0, ECX, 15 },
	{ "pcid", 1, 0, ECX, 17 },
	{ "sse4_1", 1, 0, ECX, 19 },
	{ "sse4_2", 1, 0, ECX, 20 },
	{ "x2apic", 1, 0, ECX, 21 },
	{ "movbe", 1, 0, ECX, 22 },
	{ "popcnt", 1, 0, ECX, 23 },
	{ "tsc_deadline_timer", 1, 0, ECX, 24 },
	{ "aes", 1, 0, ECX, 25 },
	{ "xsave", 1, 0, ECX, 26 },
	{ "avx", 1, 0, ECX, 28 },
	{ "f16c", 1, 0, ECX, 29 },
	{ "rdrand", 1, 0, ECX, 30 },
	{ "hypervisor", 1, 0, ECX, 31 },
	{ "arat", 6, 0, EAX, 2 },
	{ "fsgsbase", 7, 0, EBX, 0 },
	{ "tsc_adjust", 7, 0, EBX, 1 },
	{ "bmi1", 7, 0, EBX, 3 },
	{ "avx2", 7, 0, EBX, 5 },
	{ "smep", 7, 0, EBX, 7 },
	{ "bmi2", 7, 0, EBX, 8 },
	{ "erms", 7, 0, EBX, 9 },
	{ "invpcid", 7, 0, EBX, 10 },
	{ "avx512f", 7, 0, EBX, 16 },
	{ "avx512dq", 7, 0, EBX, 17 },
	{ "rdseed", 7, 0, EBX, 18 },
	{ "adx", 7, 0, EBX, 19 },
	{ "smap", 7, 0, EBX, 20 },
	{ "avx512ifma", 7, 0, EBX, 21 },
	{ "clflushopt", 7, 0, EBX, 23 },
	{ "clwb", 7, 0, EBX, 24 },
	{ "avx512cd", 7, 0, EBX, 28 },
	{ "sha_ni", 7, 0, EBX, 29 },
	{ "avx512bw", 7, 0, EBX, 30 },
	{ "avx512vl", 7, 0, EBX, 31 },
	{ "avx512vbmi", 7, 0, ECX, 1 },
	{ "umip", 7, 0, ECX, 2 },
	{ "pku", 7, 0, ECX, 3 },
	{ "avx512_vbmi2", 7, 0, ECX, 6 },
	{ "gfni", 7, 0, ECX, 8 },
	{ "vaes", 7, 0, ECX, 9 },
	{ "vpclmulqdq", 7, 0, ECX, 10 },
	{ "avx512_vnni", 7, 0, ECX, 11 },
	{ "avx512_bitalg", 7, 0, ECX, 12 },
	{ "avx512_vpopcntdq", 7, 0, ECX, 14 },
	{ "la57", 7, 0, ECX, 16 },
	{ "rdpid", 7, 0, ECX, 22 },
	{ "fsrm", 7, 0, EDX, 4 },
	{ "serialize", 7, 0, EDX, 14 },
	{ "spec_ctrl", 7, 0, EDX, 26 },
	{ "intel_stibp", 7, 0, EDX, 27 },
	{ "arch_capabilities", 7, 0, EDX, 29 },
	{ "spec_ctrl_ssbd", 7, 0, EDX, 31 },
	{ "avx_vnni", 7, 1, EAX, 4 },
	{ "avx512_bf16", 7, 1, EAX, 5 },
	{ "xsaveopt", 0xd, 1, EAX, 0 },
	{ "xsavec", 0xd, 1, EAX, 1 },
	{ "xgetbv1", 0xd, 1, EAX, 2 },
	{ "xsaves", 0xd, 1, EAX, 3 },
	{ "kvmclock", 0x40000001, 0, EAX, 3 },
	{ "lahf_lm", 0x80000001, 0, ECX, 0 },
	{ "svm", 0x80000001, 0, ECX, 2 },
	{ "cr8_legacy", 0x80000001, 0, ECX, 4 },
	{ "abm", 0x80000001, 0, ECX, 5 },
	{ "sse4a", 0x80000001, 0, ECX, 6 },
	{ "misalignsse", 0x80000001, 0, ECX, 7 },
	{ "3dnowprefetch", 0x80000001, 0, ECX, 8 },
	{ "osvw", 0x80000001, 0, ECX, 9 },
	{ "xop", 0x80000001, 0, ECX, 11 },
	{ "fma4", 0x80000001, 0, ECX, 16 },
	{ "tbm", 0x80000001, 0, ECX, 21 },
	{ "topoext", 0x80000001, 0, ECX, 22 },
	{ "perfctr_core", 0x80000001, 0, ECX, 23 },
	{ "syscall", 0x80000001, 0, EDX, 11 },
	{ "nx", 0x80000001, 0, EDX, 20 },
	{ "mmxext", 0x80000001, 0, EDX, 22 },
	{ "fxsr_opt", 0x80000001, 0, EDX, 25 },
	{ "pdpe1gb", 0x80000001, 0, EDX, 26 },
	{ "rdtscp", 0x80000001, 0, EDX, 27 },
	{ "lm", 0x80000001, 0, EDX, 29 },
	{ "constant_tsc", 0x80000007, 0, EDX, 8 },
	{ "nonstop_tsc", 0x80000007, 0, EDX, 8 },
	{ "clzero", 0x80000008, 0, EBX, 0 },
	{ "xsaveerptr", 0x80000008, 0, EBX, 2 },
	{ "wbnoinvd", 0x80000008, 0, EBX, 9 },
	{ "ibpb", 0x80000008, 0, EBX, 12 },
	{ "ibrs", 0x80000008, 0, EBX, 14 },
	{ "stibp", 0x80000008, 0, EBX, 15 },
	{ "amd_ssbd", 0x80000008, 0, EBX, 24 },
	{ "virt_ssbd", 0x80000008, 0, EBX, 25 },
};

/* A vendor's processor: signature, and what the other vendor's kernel code would trip over. */
static const struct model {
	const char *name;
	const char *vendor; /* NULL: as supported */
	u32 signature;	    /* CPUID leaf 1 EAX */
	const char *removed[16];
} models[] = {
	{ "host", NULL, 0, { NULL } },
	{ "intel",
	  "GenuineIntel",
	  0x00050657,
	  { "svm", "cr8_legacy", "sse4a", "misalignsse", "osvw", "xop", "fma4", "tbm", "topoext",
	    "perfctr_core", "mmxext", "fxsr_opt", "clzero", "xsaveerptr", "virt_ssbd", NULL } },
	{ "amd",
	  "AuthenticAMD",
	  0x00830f10,
	  { "vmx", "arch_capabilities", "spec_ctrl", "intel_stibp", "spec_ctrl_ssbd", "pdcm",
	    NULL } },
};

static struct kvm_cpuid_entry2 *entry_find(struct kvm_cpuid2 *cpuid, u32 leaf, u32 index)
{
	for (u32 i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == leaf &&
		    (!(cpuid->entries[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) ||
		     cpuid->entries[i].index == index))
			return &cpuid->entries[i];
	return NULL;
}

static u32 *reg_of(struct kvm_cpuid_entry2 *e, unsigned reg)
{
	u32 *const regs[] = { &e->eax, &e->ebx, &e->ecx, &e->edx };

	return regs[reg];
}

static const struct flag *flag_find(const char *name, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (strlen(flags[i].name) == n && memcmp(flags[i].name, name, n) == 0)
			return &flags[i];
	return NULL;
}

static void flag_clear(struct kvm_cpuid2 *cpuid, const struct flag *f)
{
	struct kvm_cpuid_entry2 *e = entry_find(cpuid, f->leaf, f->index);

	if (e)
		*reg_of(e, f->reg) &= ~BIT(f->bit);
}

static bool flag_is_set(struct kvm_cpuid2 *cpuid, const struct flag *f)
{
	struct kvm_cpuid_entry2 *e = entry_find(cpuid, f->leaf, f->index);

	return e && *reg_of(e, f->reg) & BIT(f->bit);
}

/* What is only emulated is there for who asks for it. */
static bool flag_take(struct kvm_cpuid2 *cpuid, struct kvm_cpuid2 *emulated, const struct flag *f)
{
	struct kvm_cpuid_entry2 *e = entry_find(cpuid, f->leaf, f->index);

	if (flag_is_set(cpuid, f))
		return true;
	if (!e || !flag_is_set(emulated, f))
		return false;
	*reg_of(e, f->reg) |= BIT(f->bit);
	return true;
}

static int flag_edit(struct kvm_cpuid2 *cpuid, struct kvm_cpuid2 *emulated, const char *word,
		     size_t n, struct why *why)
{
	const struct flag *f = n > 1 ? flag_find(word + 1, n - 1) : NULL;

	if (word[0] != '+' && word[0] != '-')
		return why_set(why, EINVAL,
			       "--cpu: '%.*s' has no sign; write +flag or -flag after the model",
			       (int)n, word);
	if (!f)
		return why_set(why, EINVAL,
			       "--cpu: no flag is called '%.*s'; use a name from /proc/cpuinfo",
			       (int)(n - 1), word + 1);
	if (word[0] == '-')
		flag_clear(cpuid, f);
	else if (!flag_take(cpuid, emulated, f))
		return why_set(why, EINVAL,
			       "--cpu: this processor cannot give '%s' to a guest; drop it",
			       f->name);
	return 0;
}

static void vendor_set(struct kvm_cpuid_entry2 *e, const char *vendor)
{
	if (!e)
		return;
	memcpy(&e->ebx, vendor, 4);
	memcpy(&e->edx, vendor + 4, 4);
	memcpy(&e->ecx, vendor + 8, 4);
}

static void model_set(struct kvm_cpuid2 *cpuid, const struct model *m)
{
	struct kvm_cpuid_entry2 *e = entry_find(cpuid, 1, 0);
	char brand[48] = "anykvm processor";

	if (!m->vendor)
		return;
	vendor_set(entry_find(cpuid, 0, 0), m->vendor);
	vendor_set(entry_find(cpuid, 0x80000000, 0), m->vendor);
	if (e)
		e->eax = m->signature;
	for (u32 i = 0; i < 3; i++) {
		e = entry_find(cpuid, 0x80000002 + i, 0);
		if (e)
			memcpy(&e->eax, brand + 16 * i, 16);
	}
	for (size_t i = 0; i < ARRAY_SIZE(m->removed) && m->removed[i]; i++)
		flag_clear(cpuid, flag_find(m->removed[i], strlen(m->removed[i])));
}

static unsigned bits_for(unsigned count)
{
	unsigned bits = 0;

	while (BIT(bits) < count)
		bits++;
	return bits;
}

/* Levels of leaves 0xb and 0x1f: one thread per core, all cores in one package. */
static void topology_level(struct kvm_cpuid_entry2 *e, unsigned apic_id, unsigned count)
{
	enum { LEVEL_NONE, LEVEL_THREAD, LEVEL_CORE };
	const bool is_core = e->index == 1;

	e->ecx = e->index | (e->index > 1 ? LEVEL_NONE : is_core ? LEVEL_CORE : LEVEL_THREAD) << 8;
	e->eax = is_core ? bits_for(count) : 0;
	e->ebx = e->index > 1 ? 0 : is_core ? count : 1;
	e->edx = apic_id;
}

static void topology_set(struct kvm_cpuid_entry2 *e, unsigned apic_id, unsigned count)
{
	switch (e->function) {
	case 1:
		e->ebx = (e->ebx & 0x0000ffff) | count << 16 | apic_id << 24;
		e->edx = count > 1 ? e->edx | BIT(28) : e->edx & ~BIT(28);
		break;
	case 4: /* cores of the package, minus 1, where a cache is described */
		if (e->eax & 0x1f)
			e->eax = (e->eax & 0x00003fff) | (count - 1) << 26 |
				 ((e->eax >> 5 & 7) == 3 ? (count - 1) << 14 : 0);
		break;
	case 0xb:
	case 0x1f:
		topology_level(e, apic_id, count);
		break;
	case 0x80000008:
		e->ecx = (e->ecx & ~0xf0ffu) | bits_for(count) << 12 | (count - 1);
		break;
	case 0x8000001e:
		e->eax = apic_id;
		e->ebx = apic_id; /* one thread per core */
		e->ecx = 0;
		break;
	}
}

static int model_find(const char *spec, size_t n, const struct model **out, struct why *why)
{
	for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
		*out = &models[i];
		if (strlen(models[i].name) == n && memcmp(models[i].name, spec, n) == 0)
			return 0;
	}
	return why_set(why, EINVAL, "--cpu: no model is called '%.*s'; give host, intel or amd",
		       (int)n, spec);
}

/* Kernels take from here which addresses are canonical. */
static void address_bits_set(struct kvm_cpuid2 *cpuid)
{
	struct kvm_cpuid_entry2 *e = entry_find(cpuid, 0x80000008, 0);

	if (e && flag_is_set(cpuid, flag_find("la57", 4)))
		e->eax = (e->eax & ~0xff00u) | 57 << 8;
}

bool cpu_model_asks(const char *spec, const char *flag)
{
	size_t n = strcspn(spec, ",");

	for (spec += n; *spec; spec += n) {
		spec++;
		n = strcspn(spec, ",");
		if (*spec == '+' && n == strlen(flag) + 1 && !memcmp(spec + 1, flag, n - 1))
			return true;
	}
	return false;
}

int cpu_model_apply(struct kvm_cpuid2 *cpuid, struct kvm_cpuid2 *emulated, const char *spec,
		    unsigned index, unsigned count, struct why *why)
{
	size_t n = strcspn(spec, ",");
	const struct model *m;
	int r = model_find(spec, n, &m, why);

	if (r < 0)
		return r;
	model_set(cpuid, m);
	for (spec += n; *spec; spec += n) {
		spec++;
		n = strcspn(spec, ",");
		r = flag_edit(cpuid, emulated, spec, n, why);
		if (r < 0)
			return r;
	}
	address_bits_set(cpuid);
	for (u32 i = 0; i < cpuid->nent; i++)
		topology_set(&cpuid->entries[i], index, count);
	return 0;
}

unsigned cpu_model_phys_bits(const struct kvm_cpuid2 *cpuid)
{
	for (u32 i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 0x80000008)
			return cpuid->entries[i].eax & 0xff;
	return 36;
}
