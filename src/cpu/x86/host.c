/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Probe of the host's processor: which instructions the translator may execute natively. */
#include "cpu/x86/host.h"

#include <asm/hwcap2.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>

enum { EAX, EBX, ECX, EDX };

#define XCR0_SSE    0x3u
#define XCR0_AVX    0x7u
#define XCR0_AVX512 0xe7u

/* In no x86-64 level: stays on an unmasked host, goes with every mask. */
#define BEYOND 9

/*
 * Instructions of the host, by CPUID bit: the x86-64 level that has them (System V ABI, table
 * "Micro-architecture levels") and the XCR0 bits without which they fault.
 */
static const struct feature {
	u32 function;
	u8 index, reg, bit, level;
	u8 xcr0;
	const char *name;
} features[] = {
	{ 1, 0, ECX, 0, 2, 0, "SSE3" },
	{ 1, 0, ECX, 9, 2, 0, "SSSE3" },
	{ 1, 0, ECX, 13, 2, 0, "CMPXCHG16B" },
	{ 1, 0, ECX, 19, 2, 0, "SSE4.1" },
	{ 1, 0, ECX, 20, 2, 0, "SSE4.2" },
	{ 1, 0, ECX, 23, 2, 0, "POPCNT" },
	{ 0x80000001, 0, ECX, 0, 2, 0, "LAHF/SAHF in 64-bit mode" },

	{ 1, 0, ECX, 12, 3, XCR0_AVX, "FMA" },
	{ 1, 0, ECX, 22, 3, 0, "MOVBE" },
	{ 1, 0, ECX, 26, 3, 0, "XSAVE" },
	{ 1, 0, ECX, 27, 3, 0, "OSXSAVE" },
	{ 1, 0, ECX, 28, 3, XCR0_AVX, "AVX" },
	{ 1, 0, ECX, 29, 3, XCR0_AVX, "F16C" },
	{ 7, 0, EBX, 3, 3, 0, "BMI1" },
	{ 7, 0, EBX, 5, 3, XCR0_AVX, "AVX2" },
	{ 7, 0, EBX, 8, 3, 0, "BMI2" },
	{ 0x80000001, 0, ECX, 5, 3, 0, "LZCNT" },

	{ 7, 0, EBX, 16, 4, XCR0_AVX512, "AVX512F" },
	{ 7, 0, EBX, 17, 4, XCR0_AVX512, "AVX512DQ" },
	{ 7, 0, EBX, 28, 4, XCR0_AVX512, "AVX512CD" },
	{ 7, 0, EBX, 30, 4, XCR0_AVX512, "AVX512BW" },
	{ 7, 0, EBX, 31, 4, XCR0_AVX512, "AVX512VL" },

	{ 1, 0, ECX, 1, BEYOND, 0, "PCLMULQDQ" },
	{ 1, 0, ECX, 25, BEYOND, 0, "AES" },
	{ 1, 0, ECX, 30, BEYOND, 0, "RDRAND" },
	{ 7, 0, EBX, 0, BEYOND, 0, "FSGSBASE" },
	{ 7, 0, EBX, 9, BEYOND, 0, "ERMS" },
	{ 7, 0, EBX, 18, BEYOND, 0, "RDSEED" },
	{ 7, 0, EBX, 19, BEYOND, 0, "ADX" },
	{ 7, 0, EBX, 21, BEYOND, XCR0_AVX512, "AVX512_IFMA" },
	{ 7, 0, EBX, 23, BEYOND, 0, "CLFLUSHOPT" },
	{ 7, 0, EBX, 24, BEYOND, 0, "CLWB" },
	{ 7, 0, EBX, 29, BEYOND, 0, "SHA" },
	{ 7, 0, ECX, 1, BEYOND, XCR0_AVX512, "AVX512_VBMI" },
	{ 7, 0, ECX, 6, BEYOND, XCR0_AVX512, "AVX512_VBMI2" },
	{ 7, 0, ECX, 8, BEYOND, 0, "GFNI" },
	{ 7, 0, ECX, 9, BEYOND, XCR0_AVX, "VAES" },
	{ 7, 0, ECX, 10, BEYOND, XCR0_AVX, "VPCLMULQDQ" },
	{ 7, 0, ECX, 11, BEYOND, XCR0_AVX512, "AVX512_VNNI" },
	{ 7, 0, ECX, 12, BEYOND, XCR0_AVX512, "AVX512_BITALG" },
	{ 7, 0, ECX, 14, BEYOND, XCR0_AVX512, "AVX512_VPOPCNTDQ" },
	{ 7, 0, EDX, 4, BEYOND, 0, "FSRM" },
	{ 7, 0, EDX, 8, BEYOND, XCR0_AVX512, "AVX512_VP2INTERSECT" },
	{ 7, 0, EDX, 23, BEYOND, XCR0_AVX512, "AVX512_FP16" },
	{ 7, 1, EAX, 4, BEYOND, XCR0_AVX, "AVX_VNNI" },
	{ 7, 1, EAX, 5, BEYOND, XCR0_AVX512, "AVX512_BF16" },
	{ 7, 1, EAX, 23, BEYOND, XCR0_AVX, "AVX_IFMA" },
	{ 0xd, 1, EAX, 0, BEYOND, 0, "XSAVEOPT" },
	{ 0xd, 1, EAX, 1, BEYOND, 0, "XSAVEC" },
	{ 0xd, 1, EAX, 2, BEYOND, 0, "XGETBV with ECX 1" },
	{ 0x80000001, 0, ECX, 6, BEYOND, 0, "SSE4A" },
	{ 0x80000001, 0, ECX, 7, BEYOND, 0, "misaligned SSE" },
	{ 0x80000008, 0, EBX, 0, BEYOND, 0, "CLZERO" },
};

static void cpuid_native(u32 function, u32 index, u32 out[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(out[EAX]), "=b"(out[EBX]), "=c"(out[ECX]), "=d"(out[EDX])
			 : "a"(function), "c"(index));
}

/* A leaf past the last one is zeros. */
static void cpuid_raw(u32 function, u32 index, u32 out[4])
{
	cpuid_native(function & 0x80000000, 0, out);
	if (function > out[EAX])
		memset(out, 0, 4 * sizeof(out[0]));
	else
		cpuid_native(function, index, out);
}

/* Take away from what CPUID says in @out. */
static void cpuid_mask(const struct x86_host *host, u32 function, u32 index, u32 out[4])
{
	if (function == 0xd && !host->xsave)
		memset(out, 0, 4 * sizeof(out[0]));
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];

		if (f->function != function || f->index != index)
			continue;
		if ((host->mask_level && f->level > host->mask_level) || f->xcr0 & ~host->xcr0)
			out[f->reg] &= ~BIT(f->bit);
	}
	if (function == 7 && index == 0 && host->rdseed_off)
		out[EBX] &= ~BIT(18);
}

void x86_host_cpuid(const struct x86_host *host, u32 function, u32 index, u32 out[4])
{
	cpuid_raw(function, index, out);
	cpuid_mask(host, function, index, out);
}

/* A probe asks for many bits of few leaves, and CPUID takes microseconds where a hypervisor serves it: the last leaf is kept. */
static bool host_has(const struct x86_host *host, u32 function, u32 index, unsigned reg,
		     unsigned bit)
{
	static __thread struct {
		bool is_valid;
		u32 function, index, out[4];
	} last;
	u32 out[4];

	if (!last.is_valid || last.function != function || last.index != index) {
		cpuid_raw(function, index, last.out);
		last.function = function;
		last.index = index;
		last.is_valid = true;
	}
	memcpy(out, last.out, sizeof(out));
	cpuid_mask(host, function, index, out);
	return out[reg] >> bit & 1;
}

/* Whether all of level @level is there; the first that is missing goes to *@missing. */
static bool level_complete(const struct x86_host *host, unsigned level, const char **missing)
{
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];

		if (f->level == level && !host_has(host, f->function, f->index, f->reg, f->bit)) {
			*missing = f->name;
			return false;
		}
	}
	return true;
}

static u64 xgetbv0(void)
{
	u32 lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (u64)hi << 32 | lo;
}

/* Which state components may be used: all of a group or none. */
static void probe_xcr0(struct x86_host *host)
{
	u64 enabled;

	host->xcr0 = XCR0_SSE;
	host->xsave = host_has(host, 1, 0, ECX, 27);
	if (!host->xsave)
		return;
	enabled = xgetbv0();
	if ((enabled & XCR0_AVX) == XCR0_AVX) {
		host->xcr0 = XCR0_AVX; /* first: the rows ask for it */
		if (!host_has(host, 1, 0, ECX, 28))
			host->xcr0 = XCR0_SSE;
	}
	if (host->xcr0 == XCR0_AVX && (enabled & XCR0_AVX512) == XCR0_AVX512) {
		host->xcr0 = XCR0_AVX512;
		if (!host_has(host, 7, 0, EBX, 16))
			host->xcr0 = XCR0_AVX;
	}
}

static u32 xsave_size(u64 xcr0)
{
	u32 size = 576, out[4];

	for (unsigned i = 2; i < 8; i++) {
		if (!(xcr0 >> i & 1))
			continue;
		cpuid_native(0xd, i, out);
		if (out[EBX] + out[EAX] > size)
			size = out[EBX] + out[EAX];
	}
	return size;
}

static u32 mxcsr_mask(void)
{
	u8 area[512] __attribute__((aligned(16))) = { 0 };
	u32 mask;

	__asm__ volatile("fxsave %0" : "+m"(area));
	memcpy(&mask, area + 28, sizeof(mask));
	return mask ? mask : 0xffbf;
}

static u64 raw_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/* A clock reading with the TSC of the same moment: the tightest of several tries. */
static void sample_pair(u64 *tsc, u64 *ns)
{
	u64 best = ~0ull;

	for (int i = 0; i < 8; i++) {
		u64 before = __builtin_ia32_rdtsc(), now = raw_ns();
		u64 after = __builtin_ia32_rdtsc();

		if (after - before < best) {
			best = after - before;
			*tsc = before + best / 2;
			*ns = now;
		}
	}
}

#define TSC_SPAN_NS                                                                                \
	2000000u /* both readings are good to some 30 ns: 30 millionths, and KVM allows 250 */

static struct {
	pthread_mutex_t lock;
	bool has_begun;
	u64 tsc, ns; /* at the first probe */
	u32 khz;     /* 0: not known yet */
} tsc_clock = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void tsc_measure_begin(void)
{
	pthread_mutex_lock(&tsc_clock.lock);
	if (!tsc_clock.has_begun)
		sample_pair(&tsc_clock.tsc, &tsc_clock.ns);
	tsc_clock.has_begun = true;
	pthread_mutex_unlock(&tsc_clock.lock);
}

static u32 tsc_measure_end(void)
{
	u64 tsc, ns = raw_ns() - tsc_clock.ns;

	while (ns < TSC_SPAN_NS) {
		nanosleep(&(struct timespec){ .tv_nsec = (long)(TSC_SPAN_NS - ns) }, NULL);
		ns = raw_ns() - tsc_clock.ns;
	}
	sample_pair(&tsc, &ns);
	tsc -= tsc_clock.tsc;
	ns -= tsc_clock.ns;
	return (u32)(((u128)tsc * 1000000 + ns / 2) / ns);
}

/* The frequency that the kernel itself uses: measured against its raw clock, once per process. */
static u32 tsc_khz_measured(void)
{
	u32 khz;

	tsc_measure_begin();
	pthread_mutex_lock(&tsc_clock.lock);
	if (!tsc_clock.khz)
		tsc_clock.khz = tsc_measure_end();
	khz = tsc_clock.khz;
	pthread_mutex_unlock(&tsc_clock.lock);
	return khz;
}

u32 x86_host_tsc_khz(const struct x86_host *host)
{
	u32 out[4];

	if (!host_has(host, 0x80000007, 0, EDX, 8))
		return 0;
	x86_host_cpuid(host, 0x15, 0, out);
	if (out[EAX] && out[EBX] && out[ECX])
		return (u32)((u64)out[ECX] * out[EBX] / out[EAX] / 1000);
	return tsc_khz_measured();
}

static void probe_features(struct x86_host *host)
{
	u32 out[4];

	host->xsaveopt = host->xsave && host_has(host, 0xd, 1, EAX, 0);
	host->xsavec = host->xsave && host_has(host, 0xd, 1, EAX, 1);
	host->xinuse = host->xsave && host_has(host, 0xd, 1, EAX, 2);
	host->avx = host->xcr0 & 4;
	host->avx2 = host_has(host, 7, 0, EBX, 5);
	host->avx512 = host->xcr0 & 0xe0;
	host->fp16 = host_has(host, 7, 0, EDX, 23);
	host->bmi1 = host_has(host, 7, 0, EBX, 3);
	host->bmi2 = host_has(host, 7, 0, EBX, 8);
	/*
	 * CPUID does not tell: under some hypervisors the instructions run and CPUID shows them while the kernel does not
	 * know of them, and then a base that they wrote is lost at the next switch of threads. Linux says so
	 * in the auxiliary vector (Documentation/arch/x86/x86_64/fsgs.rst).
	 */
	host->fsgsbase = host_has(host, 7, 0, EBX, 0) && getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	host->lahf64 = host_has(host, 0x80000001, 0, ECX, 0);
	host->cx16 = host_has(host, 1, 0, ECX, 13);
	host->erms = host_has(host, 7, 0, EBX, 9);
	host->fsrm = host_has(host, 7, 0, EDX, 4);
	host->xsave_size = xsave_size(host->xcr0);
	host->mxcsr_mask = mxcsr_mask();
	tsc_measure_begin();
	x86_host_cpuid(host, 0x80000008, 0, out);
	host->phys_bits = out[EAX] & 0xff;
	host->virt_bits = out[EAX] >> 8 & 0xff;
	/* Guests place devices below the top: fewer than 39 bits is no size for them. */
	if (host->phys_bits < 39)
		host->phys_bits = 39;
	if (host->phys_bits > 52)
		host->phys_bits = 52;
	if (host->virt_bits != 57)
		host->virt_bits = 48;
}

/*
 * Whether the kernel lists a flag. It hides what has an erratum (RDSEED that returns 0 as random), where
 * CPUID in user mode still shows it. What cannot be read is believed.
 */
static bool kernel_lists(const char *flag)
{
	char line[8192];
	FILE *f = fopen("/proc/cpuinfo", "re");
	bool found = true;

	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "flags", 5) == 0) {
			found = strstr(line, flag) != NULL;
			break;
		}
	}
	if (f)
		fclose(f);
	return found;
}

static int parse_mask(const char *mask)
{
	if (!mask || !*mask)
		return 0;
	if (strlen(mask) == 9 && !memcmp(mask, "x86-64-v", 8) && mask[8] >= '2' && mask[8] <= '4')
		return mask[8] - '0';
	return -EINVAL;
}

int x86_host_probe(struct x86_host *host, const char *mask, const char **why)
{
	static char reason[128];
	const char *missing = NULL, *dummy;
	int level = parse_mask(mask);
	u32 out[4];

	*why = "";
	if (level < 0) {
		*why = "cpu-mask must be x86-64-v2, x86-64-v3 or x86-64-v4";
		return -EINVAL;
	}
	memset(host, 0, sizeof(*host));
	host->mask_level = level;
	cpuid_native(0, 0, out);
	/* Hygon is AMD's design: its rules for branches and SYSCALL are AMD's. */
	host->intel = out[EBX] == 0x756e6547 || out[EBX] == 0x746e6543;
	host->amd = !host->intel;
	host->rdseed_off = !kernel_lists(" rdseed");
	probe_xcr0(host);
	host->level = 1;
	while (host->level < 4 &&
	       level_complete(host, host->level + 1, host->level == 1 ? &missing : &dummy))
		host->level++;
	if (host->level < 2) {
		snprintf(reason, sizeof(reason),
			 "this processor lacks %s; x86-64-v2 is the least that anykvm needs",
			 missing);
		*why = reason;
		return -ENOTSUP;
	}
	probe_features(host);
	return 0;
}
