// SPDX-License-Identifier: MIT OR Apache-2.0
/* Memory workloads: streams, string instructions, random chases through 64 MiB in small and huge pages. */
#include "gbench.h"

#define SIZE  (64u << 20)
#define WORDS (SIZE / 8)
#define LINES (SIZE / 64)

static uint64_t *area;

static void area_fill(bool huge)
{
	area = area_alloc(SIZE, huge);
	for (size_t i = 0; i < WORDS; i++)
		area[i] = i;
}

static void stream_prepare(void)
{
	area_fill(false);
}

/* A pass reads everything, writes one half, and copies a quarter. */
static uint64_t stream_run(unsigned long reps)
{
	uint64_t sum = 1;

	for (unsigned long n = 0; n < reps; n++) {
		uint64_t total = 0;

		for (size_t i = 0; i < WORDS; i++)
			total += area[i];
		for (size_t i = 0; i < WORDS / 2; i++)
			area[i] = total + i;
		for (size_t i = 0; i < WORDS / 4; i++)
			area[WORDS / 2 + i] = area[i * 2];
		sum = mix(sum, total);
	}
	return sum;
}

static void rep_movs(void *to, const void *from, size_t n)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void rep_stos(void *to, uint64_t value, size_t n)
{
	__asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(value) : "memory");
}

/* Lengths from one line to 32 KiB, at odd addresses: what memcpy and the kernel's copies do. */
static uint64_t string_run(unsigned long reps)
{
	uint64_t sum = 1, seed = 11;
	uint8_t *bytes = (uint8_t *)area;

	for (unsigned long n = 0; n < reps; n++) {
		uint64_t r = next_random(&seed);
		size_t len = (r & 0x1f) ? 64 + (r >> 8) % 1000 : 32768;
		size_t to = (r >> 20) % (SIZE / 2 - len), from = SIZE / 2 + (r >> 30) % (SIZE / 4);

		rep_movs(bytes + to, bytes + from, len);
		rep_stos(bytes + SIZE - 65536, r, 64);
		sum += bytes[to + len / 2];
	}
	return mix(sum, area[WORDS - 8192]);
}

/* One cycle through all lines (Sattolo's shuffle): each line holds the number of the next. */
static void chase_fill(bool huge)
{
	uint64_t seed = 13;

	area = area_alloc(SIZE, huge);
	for (size_t i = 0; i < LINES; i++)
		area[i * 8] = i;
	for (size_t i = LINES - 1; i; i--) {
		size_t j = next_random(&seed) % i;
		uint64_t v = area[i * 8];

		area[i * 8] = area[j * 8];
		area[j * 8] = v;
	}
}

static void chase_small(void)
{
	chase_fill(false);
}

static void chase_huge(void)
{
	chase_fill(true);
}

static uint64_t chase_run(unsigned long reps)
{
	uint64_t at = 0;

	for (unsigned long n = 0; n < reps; n++)
		at = area[at * 8];
	return mix(1, at);
}

const struct workload mem_works[] = {
	{ .name = "mem.seq", .run = stream_run, .reps = 40, .prepare = stream_prepare },
	{ .name = "mem.string", .run = string_run, .reps = 1200000, .prepare = stream_prepare },
	{ .name = "mem.rand", .run = chase_run, .reps = 1000000, .prepare = chase_small },
	{ .name = "mem.rand2m", .run = chase_run, .reps = 1000000, .prepare = chase_huge },
	{ 0 },
};
