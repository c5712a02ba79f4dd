// SPDX-License-Identifier: MIT OR Apache-2.0
/* Memory-management workloads: first touches of pages, and mappings that come and go. */
#include <sys/mman.h>

#include "gbench.h"

#define PAGE  4096u
#define PAGES 61440u

/* @reps thousand pages; an area has 61440. */
static uint64_t touch_run(unsigned long reps)
{
	unsigned long left = reps * 1024;
	uint64_t sum = 1;

	while (left) {
		unsigned long pages = left < PAGES ? left : PAGES;
		uint8_t *area = area_alloc((size_t)pages * PAGE, false);

		for (unsigned long i = 0; i < pages; i++)
			area[i * PAGE + i % PAGE] += (uint8_t)i;
		for (unsigned long i = 0; i < pages; i += 511)
			sum = mix(sum, area[i * PAGE + i % PAGE]);
		area_free(area, (size_t)pages * PAGE);
		left -= pages;
	}
	return sum;
}

/* Map 64 KiB, touch a part, protect a part, unmap: what allocators and thread starts do. */
static uint64_t churn_run(unsigned long reps)
{
	uint64_t sum = 1;

	for (unsigned long n = 0; n < reps; n++) {
		uint8_t *area = area_alloc(16 * PAGE, false);

		for (unsigned i = 0; i < 4; i++)
			area[i * 4 * PAGE + n % PAGE] = (uint8_t)(n + i);
		if (mprotect(area, 8 * PAGE, PROT_READ))
			bench_fail("mprotect");
		sum = mix(sum, area[4 * PAGE + n % PAGE] + area[12 * PAGE + n % PAGE]);
		area_free(area, 16 * PAGE);
	}
	return sum;
}

const struct workload mm_works[] = {
	{ .name = "mm.touch", .run = touch_run, .reps = 100 },
	{ .name = "mm.churn", .run = churn_run, .reps = 10000 },
	{ 0 },
};
