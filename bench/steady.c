// SPDX-License-Identifier: MIT OR Apache-2.0
/* The guest of move.py: fills memory once, then writes so many pages a second, and prints a line every 10 ms. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PAGE  4096ul
#define TICKS 100ul /* a second */

/* usage: steady FILLED_MIB WRITTEN_PAGES_PER_SECOND */
int main(int argc, char **argv)
{
	const size_t pages = argc > 2 ? strtoul(argv[1], NULL, 0) * 256 : 0;
	const size_t rate = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;
	uint8_t *memory = pages ? aligned_alloc(PAGE, pages * PAGE) : NULL;
	size_t next = 0, due = 0;
	char line[32];

	if (!memory)
		return 1;
	for (size_t i = 0; i < pages * PAGE / 8; i++)
		((uint64_t *)memory)[i] = i * 0x9e3779b97f4a7c15ull;
	for (uint64_t tick = 0;; tick++) {
		int n = snprintf(line, sizeof(line), "tick %lu\n", tick);

		if (write(1, line, n) != n)
			return 1;
		for (due += rate; due >= TICKS; due -= TICKS)
			memory[next++ % pages * PAGE + tick % PAGE]++;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000000l / TICKS }, NULL);
	}
}
