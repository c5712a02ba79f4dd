// SPDX-License-Identifier: MIT OR Apache-2.0
/* Vector workloads: the same kernel of floats, products and shuffles in SSE2, AVX2 and AVX-512. */
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#include "gbench.h"

#define COUNT 8192 /* floats, 32 KiB per array: stays in the first caches */

static float fa[COUNT] __attribute__((aligned(64))), fb[COUNT] __attribute__((aligned(64)));
static int16_t ia[COUNT] __attribute__((aligned(64))), ib[COUNT] __attribute__((aligned(64)));

static void arrays_make(void)
{
	uint64_t seed = 5;

	for (unsigned i = 0; i < COUNT; i++) {
		fa[i] = (float)(next_random(&seed) & 0xffff) / 256;
		fb[i] = (float)(next_random(&seed) & 0xffff) / 512 - 64;
		ia[i] = (int16_t)next_random(&seed);
		ib[i] = (int16_t)next_random(&seed);
	}
}

static uint64_t arrays_sum(uint64_t sum)
{
	uint32_t bits;

	for (unsigned i = 0; i < COUNT; i += 61) {
		memcpy(&bits, &fa[i], 4);
		sum = mix(sum, bits);
		sum = mix(sum, (uint16_t)ia[i]);
	}
	return sum;
}

static void sse2_pass(void)
{
	const __m128 half = _mm_set1_ps(0.5f), low = _mm_set1_ps(-4096), high = _mm_set1_ps(4096);

	for (unsigned i = 0; i < COUNT; i += 4) {
		__m128 x = _mm_load_ps(fa + i), y = _mm_load_ps(fb + i);

		x = _mm_add_ps(_mm_mul_ps(x, half), _mm_sub_ps(y, _mm_mul_ps(x, y)));
		x = _mm_max_ps(_mm_min_ps(_mm_div_ps(x, _mm_add_ps(high, y)), high), low);
		x = _mm_or_ps(_mm_and_ps(_mm_cmplt_ps(x, y), x),
			      _mm_andnot_ps(_mm_cmplt_ps(x, y), y));
		_mm_store_ps(fa + i, _mm_shuffle_ps(x, x, _MM_SHUFFLE(2, 3, 0, 1)));
	}
	for (unsigned i = 0; i < COUNT; i += 8) {
		__m128i x = _mm_load_si128((const __m128i *)(ia + i));
		__m128i y = _mm_load_si128((const __m128i *)(ib + i));
		__m128i p = _mm_madd_epi16(x, y);

		x = _mm_add_epi16(_mm_mullo_epi16(x, y),
				  _mm_packs_epi32(_mm_srai_epi32(p, 9), _mm_slli_epi32(p, 1)));
		x = _mm_xor_si128(x, _mm_subs_epi16(_mm_unpackhi_epi8(x, y), y));
		_mm_store_si128((__m128i *)(ia + i), _mm_shufflelo_epi16(x, 0x1b));
	}
}

static uint64_t sse2_run(unsigned long reps)
{
	for (unsigned long n = 0; n < reps; n++)
		sse2_pass();
	return arrays_sum(1);
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

__attribute__((target("avx2,fma"))) static void avx2_pass(void)
{
	const __m256 half = _mm256_set1_ps(0.5f), high = _mm256_set1_ps(4096);
	const __m256i turn = _mm256_setr_epi32(3, 6, 1, 4, 7, 2, 5, 0);

	for (unsigned i = 0; i < COUNT; i += 8) {
		__m256 x = _mm256_load_ps(fa + i), y = _mm256_load_ps(fb + i);

		x = _mm256_fmadd_ps(x, half, _mm256_sub_ps(y, _mm256_mul_ps(x, y)));
		x = _mm256_min_ps(_mm256_div_ps(x, _mm256_add_ps(high, y)), high);
		x = _mm256_blendv_ps(y, x, _mm256_cmp_ps(x, y, _CMP_LT_OQ));
		_mm256_store_ps(fa + i, _mm256_permutevar8x32_ps(x, turn));
	}
	for (unsigned i = 0; i < COUNT; i += 16) {
		__m256i x = _mm256_load_si256((const __m256i *)(ia + i));
		__m256i y = _mm256_load_si256((const __m256i *)(ib + i));
		__m256i p = _mm256_madd_epi16(x, y);

		x = _mm256_add_epi16(
			_mm256_mullo_epi16(x, y),
			_mm256_packs_epi32(_mm256_srai_epi32(p, 9), _mm256_sllv_epi32(p, turn)));
		x = _mm256_xor_si256(x, _mm256_subs_epi16(_mm256_unpackhi_epi8(x, y), y));
		_mm256_store_si256((__m256i *)(ia + i), _mm256_shuffle_epi8(x, y));
	}
}

static uint64_t avx2_run(unsigned long reps)
{
	for (unsigned long n = 0; n < reps; n++)
		avx2_pass();
	return arrays_sum(2);
}

static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl");
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) static void avx512_pass(void)
{
	const __m512 half = _mm512_set1_ps(0.5f), high = _mm512_set1_ps(4096);

	for (unsigned i = 0; i < COUNT; i += 16) {
		__m512 x = _mm512_load_ps(fa + i), y = _mm512_load_ps(fb + i);
		__mmask16 less;

		x = _mm512_fmadd_ps(x, half, _mm512_sub_ps(y, _mm512_mul_ps(x, y)));
		x = _mm512_min_ps(_mm512_div_ps(x, _mm512_add_ps(high, y)), high);
		less = _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ);
		_mm512_store_ps(fa + i, _mm512_mask_shuffle_ps(y, less, x, y, 0x4e));
	}
	for (unsigned i = 0; i < COUNT; i += 32) {
		__m512i x = _mm512_load_si512(ia + i), y = _mm512_load_si512(ib + i);
		__m512i p = _mm512_madd_epi16(x, y);

		x = _mm512_add_epi16(_mm512_mullo_epi16(x, y),
				     _mm512_packs_epi32(_mm512_srai_epi32(p, 9), p));
		x = _mm512_ternarylogic_epi32(x, y, p, 0x96);
		_mm512_store_si512(ia + i, _mm512_shuffle_epi8(x, y));
	}
}

static uint64_t avx512_run(unsigned long reps)
{
	for (unsigned long n = 0; n < reps; n++)
		avx512_pass();
	return arrays_sum(3);
}

const struct workload simd_works[] = {
	{ .name = "simd.sse2", .run = sse2_run, .reps = 50000, .prepare = arrays_make },
	{ .name = "simd.avx2",
	  .run = avx2_run,
	  .reps = 120000,
	  .prepare = arrays_make,
	  .can = has_avx2 },
	{ .name = "simd.avx512",
	  .run = avx512_run,
	  .reps = 250000,
	  .prepare = arrays_make,
	  .can = has_avx512 },
	{ 0 },
};
