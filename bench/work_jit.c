// SPDX-License-Identifier: MIT OR Apache-2.0
/* Code that writes code: a patched constant, a stream of fresh functions, data stored beside code. */
#include <string.h>
#include <sys/mman.h>

#include "gbench.h"

#define SIZE (1u << 20)
#define SLOT 64u

typedef uint64_t (*code_fn)(uint64_t);
typedef void (*store_fn)(uint64_t *, uint64_t);

static uint8_t *code;

static void code_prepare(void)
{
	code = area_alloc(SIZE, false);
	if (mprotect(code, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC))
		bench_fail("mprotect");
}

/* lea rax, [rdi + constant]; ret */
static void adder_put(uint8_t *at, uint32_t constant)
{
	static const uint8_t head[] = { 0x48, 0x8d, 0x87 };

	memcpy(at, head, sizeof(head));
	memcpy(at + 3, &constant, 4);
	at[7] = 0xc3;
}

static void constant_patch(uint8_t *at, uint32_t constant)
{
	__atomic_store_n((uint32_t *)(at + 3), constant, __ATOMIC_RELAXED);
}

/* An inline cache or a static key: the constant of one function changes before each call. */
static uint64_t patch_run(unsigned long reps)
{
	uint64_t x = 0;

	adder_put(code, 0);
	for (unsigned long n = 0; n < reps; n++) {
		constant_patch(code, (uint32_t)n & 0xffff);
		x = ((code_fn)(void *)code)(x)*5 + n;
	}
	return x;
}

/* A compiler's output: a new function, called once; the space is used again after 16384 of them. */
static uint64_t stream_run(unsigned long reps)
{
	uint64_t x = 0;

	for (unsigned long n = 0; n < reps; n++) {
		uint8_t *at = code + n * SLOT % SIZE;

		adder_put(at, (uint32_t)(n * 2654435761u) & 0xfffffff);
		x = ((code_fn)(void *)at)(x)*5 + n;
	}
	return x;
}

/* Counters and objects that share a page with the code which writes them: add [rdi], rsi; ret. */
static uint64_t neighbour_run(unsigned long reps)
{
	static const uint8_t adder[] = { 0x48, 0x01, 0x37, 0xc3 };
	uint64_t *data = (uint64_t *)(void *)(code + 2048), sum = 1;

	memcpy(code, adder, sizeof(adder));
	for (unsigned long n = 0; n < reps; n++)
		((store_fn)(void *)code)(data + (n & 127), n);
	for (unsigned i = 0; i < 128; i++)
		sum = mix(sum, data[i]);
	return sum;
}

const struct workload jit_works[] = {
	{ .name = "jit.patch", .run = patch_run, .reps = 4000000, .prepare = code_prepare },
	{ .name = "jit.stream", .run = stream_run, .reps = 2500000, .prepare = code_prepare },
	{ .name = "jit.neighbour",
	  .run = neighbour_run,
	  .reps = 80000000,
	  .prepare = code_prepare },
	{ 0 },
};
