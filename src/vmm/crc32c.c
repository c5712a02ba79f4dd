/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* CRC-32C by the processor's instruction, three streams at a time, or by a table where it lacks one. */
/*
 * The instruction takes eight bytes every cycle but gives its result after three: so three blocks of LANE bytes are
 * run side by side, and their results joined. Joining is multiplication by x^(8 LANE) modulo the polynomial, which is linear: four
 * tables of 256 words, one per byte of a result.
 */
#include "vmm/crc32c.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* reflected */
#define LANE	   1024u

static u32 bytes_table[256];
static u32 shift_table[4][256]; /* past LANE bytes of zeros */
static bool has_instruction;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static u32 by_table(u32 crc, const u8 *p, size_t n)
{
	while (n--)
		crc = crc >> 8 ^ bytes_table[(u8)crc ^ *p++];
	return crc;
}

static u32 shift(u32 crc)
{
	return shift_table[0][crc & 255] ^ shift_table[1][crc >> 8 & 255] ^
	       shift_table[2][crc >> 16 & 255] ^ shift_table[3][crc >> 24];
}

static void tables_make(void)
{
	static const u8 zeros[LANE];

	for (u32 i = 0; i < 256; i++) {
		u32 crc = i;

		for (unsigned k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		bytes_table[i] = crc;
	}
	/* Linear: what a word becomes is the sum of what its bits become. */
	for (u32 b = 0; b < 32; b++) {
		const u32 bit = by_table(1u << b, zeros, LANE);

		for (u32 i = 0; i < 256; i++)
			if (i >> b % 8 & 1)
				shift_table[b / 8][i] ^= bit;
	}
	has_instruction = __builtin_cpu_supports("sse4.2");
}

static u64 load64(const u8 *p)
{
	u64 value;

	memcpy(&value, p, sizeof(value));
	return value;
}

__attribute__((target("sse4.2"))) static u32 by_instruction(u32 crc, const u8 *p, size_t n)
{
	u64 a = crc;

	for (; n >= 3 * LANE; n -= 3 * LANE, p += 3 * LANE) {
		u64 b = 0, c = 0;

		for (unsigned i = 0; i < LANE; i += 8) {
			a = __builtin_ia32_crc32di(a, load64(p + i));
			b = __builtin_ia32_crc32di(b, load64(p + LANE + i));
			c = __builtin_ia32_crc32di(c, load64(p + 2 * LANE + i));
		}
		a = shift(shift((u32)a) ^ (u32)b) ^ (u32)c;
	}
	for (; n >= 8; n -= 8, p += 8)
		a = __builtin_ia32_crc32di(a, load64(p));
	for (; n; n--)
		a = __builtin_ia32_crc32qi((u32)a, *p++);
	return (u32)a;
}

u32 crc32c(u32 crc, const void *data, size_t n)
{
	pthread_once(&once, tables_make);
	return ~(has_instruction ? by_instruction(~crc, data, n) : by_table(~crc, data, n));
}
