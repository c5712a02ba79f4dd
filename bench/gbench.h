/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a workload of the guest benchmark is, and the small helpers that all of them use. */
#ifndef GBENCH_H
#define GBENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The same program runs natively and as /init of a guest, so a workload depends on nothing but the processor
 * and the kernel: no libm, no randomness, no file. Its checksum depends on @reps only and must be the
 * same on every machine; a floating-point workload uses what IEEE 754 defines exactly.
 */
struct workload {
	const char *name; /* class.what */
	uint64_t (*run)(unsigned long reps);
	unsigned long reps;    /* at scale 100: at least 0.1 s natively */
	void (*prepare)(void); /* not timed; may be missing */
	bool (*can)(void);     /* whether this processor has what it needs; may be missing */
	unsigned flags;
};

#define WORK_SMP  1u /* worth a row with two processors */
#define WORK_INFO 2u /* shorter than 0.1 s by its nature: printed, in no mean */

/* Tables that end with an empty row; one per class. */
extern const struct workload int_works[], fp_works[], simd_works[], mem_works[], branch_works[];
extern const struct workload sys_works[], ipc_works[], proc_works[], mm_works[], thread_works[];
extern const struct workload jit_works[];

/* What a child of proc.exec ends with, and the program of proc.dynamic: see work_proc.c and dyn.c. */
#define EXEC_ARGUMENT "--exit"
#define DYN_NAME      "gbench-dyn"

/* Memory in 4 KiB pages, or in huge ones where the kernel gives them; zero; ends the program if there is none. */
void *area_alloc(size_t size, bool huge);
void area_free(void *area, size_t size);

/* Ends the run with a message and a failure. */
_Noreturn void bench_fail(const char *what);

static inline uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
	return hash ^ hash >> 29;
}

/* A xorshift generator: never 0 from a seed that is not 0. */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

/* The compiler must take @p as read and written. */
#define OPAQUE(p) __asm__ volatile("" : "+r"(p) : : "memory")

#endif
