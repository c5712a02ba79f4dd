// SPDX-License-Identifier: MIT OR Apache-2.0
/* Integer workloads: a compressor with its decompressor, a sort, SHA-256. */
#include <string.h>

#include "gbench.h"

/* --- An LZ77 of bytes: a token is a literal run, or a match of 4 to 131 bytes up to 64 KiB back. --- */

#define TEXT_SIZE (256u << 10)
#define HASH_BITS 13

static uint8_t text[TEXT_SIZE], packed[TEXT_SIZE * 2], unpacked[TEXT_SIZE];
static uint32_t last_seen[1u << HASH_BITS];

/* Words out of a small dictionary, the earlier ones more often. */
static void text_make(void)
{
	uint64_t seed = 42;
	size_t at = 0;

	while (at < TEXT_SIZE) {
		uint64_t r = next_random(&seed);
		uint64_t word = (r >> 8) & (r >> 20) & 1023;
		size_t len = 2 + word % 9;

		for (size_t i = 0; i < len && at < TEXT_SIZE; i++)
			text[at++] = (uint8_t)('a' + (word * 31 + i * 7 + (word >> i)) % 26);
		if (at < TEXT_SIZE)
			text[at++] = ' ';
	}
}

static uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

static size_t put_literals(uint8_t *out, size_t o, const uint8_t *from, size_t len)
{
	while (len) {
		size_t n = len > 127 ? 127 : len;

		out[o++] = (uint8_t)n;
		for (size_t i = 0; i < n; i++)
			out[o++] = *from++;
		len -= n;
	}
	return o;
}

static size_t lz_pack(const uint8_t *in, size_t size, uint8_t *out)
{
	size_t i = 0, literal = 0, o = 0;

	memset(last_seen, 0, sizeof(last_seen));
	while (i + 4 < size) {
		uint32_t v = load32(in + i), h = v * 2654435761u >> (32 - HASH_BITS);
		size_t back = last_seen[h], len = 4;

		last_seen[h] = (uint32_t)i;
		if (back >= i || i - back > 65535 || load32(in + back) != v) {
			i++;
			continue;
		}
		while (i + len < size && len < 131 && in[back + len] == in[i + len])
			len++;
		o = put_literals(out, o, in + literal, i - literal);
		out[o++] = (uint8_t)(0x80 + len - 4);
		out[o++] = (uint8_t)(i - back);
		out[o++] = (uint8_t)((i - back) >> 8);
		i += len;
		literal = i;
	}
	return put_literals(out, o, in + literal, size - literal);
}

static size_t lz_unpack(const uint8_t *in, size_t size, uint8_t *out)
{
	size_t i = 0, o = 0;

	while (i < size) {
		size_t len = in[i++];

		if (len < 0x80) {
			while (len--)
				out[o++] = in[i++];
			continue;
		}
		len -= 0x80 - 4;
		for (size_t back = in[i] | (size_t)in [i + 1] << 8; len--; o++)
			out[o] = out[o - back];
		i += 2;
	}
	return o;
}

static uint64_t lz_run(unsigned long reps)
{
	uint64_t sum = 1;

	for (unsigned long n = 0; n < reps; n++) {
		size_t size;

		text[n * 977 % TEXT_SIZE] ^= 1;
		size = lz_pack(text, TEXT_SIZE, packed);
		sum = mix(sum, size);
		sum = mix(sum, lz_unpack(packed, size, unpacked));
		if (memcmp(text, unpacked, TEXT_SIZE))
			sum = mix(sum, 0xbad);
	}
	return sum;
}

/* --- Quicksort, short runs by insertion. --- */

#define SORT_COUNT 200000u

static uint32_t numbers[SORT_COUNT];

static void insertion_sort(uint32_t *a, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		uint32_t v = a[i];
		size_t j = i;

		for (; j && a[j - 1] > v; j--)
			a[j] = a[j - 1];
		a[j] = v;
	}
}

static void quick_sort(uint32_t *a, size_t n)
{
	while (n > 16) {
		uint32_t pivot = a[n / 2];
		size_t i = 0, j = n - 1;

		for (;; i++, j--) {
			while (a[i] < pivot)
				i++;
			while (a[j] > pivot)
				j--;
			if (i >= j)
				break;
			uint32_t v = a[i];

			a[i] = a[j];
			a[j] = v;
		}
		quick_sort(a, i);
		a += i;
		n -= i;
	}
	insertion_sort(a, n);
}

static uint64_t sort_run(unsigned long reps)
{
	uint64_t sum = 1, seed = 7;

	for (unsigned long n = 0; n < reps; n++) {
		for (size_t i = 0; i < SORT_COUNT; i++)
			numbers[i] = (uint32_t)next_random(&seed);
		quick_sort(numbers, SORT_COUNT);
		for (size_t i = 0; i < SORT_COUNT; i += 997)
			sum = mix(sum, numbers[i]);
	}
	return sum;
}

/* --- SHA-256. --- */

static const uint32_t sha_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2
};

static uint32_t ror(uint32_t v, unsigned n)
{
	return v >> n | v << (32 - n);
}

static void sha_block(uint32_t h[8], const uint8_t *in)
{
	uint32_t w[64], s[8];

	for (unsigned i = 0; i < 16; i++)
		w[i] = __builtin_bswap32(load32(in + 4 * i));
	for (unsigned i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		       (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(s, h, sizeof(s));
	for (unsigned i = 0; i < 64; i++) {
		uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
			      ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha_k[i] + w[i];
		uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
			      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		for (unsigned j = 7; j; j--)
			s[j] = s[j - 1];
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (unsigned i = 0; i < 8; i++)
		h[i] += s[i];
}

static uint64_t sha_run(unsigned long reps)
{
	uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
			  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	uint64_t sum = 1;

	for (unsigned long n = 0; n < reps; n++)
		for (size_t at = 0; at < TEXT_SIZE; at += 64)
			sha_block(h, text + at);
	for (unsigned i = 0; i < 8; i++)
		sum = mix(sum, h[i]);
	return sum;
}

const struct workload int_works[] = {
	{ .name = "int.lz", .run = lz_run, .reps = 160, .prepare = text_make },
	{ .name = "int.sort", .run = sort_run, .reps = 16 },
	{ .name = "int.sha256", .run = sha_run, .reps = 110, .prepare = text_make },
	{ 0 },
};
