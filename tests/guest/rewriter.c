// SPDX-License-Identifier: MIT OR Apache-2.0
/* A program for guests: as many threads as asked for rewrite their shares of memory without end, and check each page before. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define WORDS	    512
#define THREADS_MAX 16

static uint64_t *memory;
static size_t pages; /* of each thread */

static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static unsigned
	effort; /* how often a word is mixed: what a processor writes per second depends on it */

/* What pass @pass writes to page @page: no two pages and no two passes alike. */
static uint64_t word(uint64_t seed, unsigned i)
{
	uint64_t w = seed + i * 0x9e3779b97f4a7c15ull;

	for (unsigned k = 0; k < effort; k++)
		w = mix(w);
	return w;
}

static uint64_t seed_of(size_t page, uint64_t pass)
{
	return mix(page << 32 | (uint32_t)pass);
}

static int is_right(const uint64_t *p, uint64_t seed)
{
	uint64_t wrong = 0;

	for (unsigned i = 0; i < WORDS; i++)
		wrong |= p[i] ^ word(seed, i);
	return !wrong;
}

static void *rewrite(void *arg)
{
	const size_t number = (size_t)arg, first = number * pages;
	cpu_set_t cpu;
	char line[96];
	int n;

	CPU_ZERO(&cpu);
	CPU_SET(number % (size_t)sysconf(_SC_NPROCESSORS_ONLN), &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
	for (uint64_t pass = 1;; pass++) {
		for (size_t page = first; page < first + pages; page++) {
			uint64_t *p = memory + page * WORDS, seed = seed_of(page, pass);

			if (pass > 1 && !is_right(p, seed_of(page, pass - 1))) {
				n = snprintf(line, sizeof(line), "BAD page %zu in pass %lu\n", page,
					     pass);
				if (write(1, line, n) != n)
					exit(1);
			}
			for (unsigned i = 0; i < WORDS; i++)
				p[i] = word(seed, i);
		}
		n = snprintf(line, sizeof(line), "tick %zu %lu\n", number, pass);
		if (write(1, line, n) != n)
			exit(1);
	}
	return NULL;
}

/* usage: rewriter MIB THREADS EFFORT */
int main(int argc, char **argv)
{
	const size_t mib = argc > 3 ? strtoul(argv[1], NULL, 0) : 0;
	const size_t threads = argc > 3 ? strtoul(argv[2], NULL, 0) : 0;
	pthread_t thread;

	if (!mib || !threads || threads > THREADS_MAX)
		return 2;
	effort = (unsigned)strtoul(argv[3], NULL, 0);
	pages = mib * 256 / threads;
	memory = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	printf("HERE-NOW\n");
	fflush(stdout);
	for (size_t i = 1; i < threads; i++)
		if (pthread_create(&thread, NULL, rewrite, (void *)i))
			return 1;
	rewrite(NULL);
}
