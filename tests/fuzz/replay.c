/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A fuzz target without libFuzzer: the corpus, then inputs at random and made of the corpus, by ANYKVM_SEED. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

#define INPUT_MAX  256
#define INPUTS_MAX 1024

static struct input {
	u8 bytes[INPUT_MAX];
	size_t n;
} corpus[INPUTS_MAX];
static unsigned ninputs;
static u64 state = 1;

static unsigned below(unsigned n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (state >> 33) % n;
}

static void load(const char *folder)
{
	DIR *d = opendir(folder);
	char path[4096];
	struct dirent *e;

	while (d && ninputs < INPUTS_MAX && (e = readdir(d))) {
		FILE *f;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		f = fopen(path, "rb");
		if (!f)
			continue;
		corpus[ninputs].n = fread(corpus[ninputs].bytes, 1, INPUT_MAX, f);
		ninputs++;
		fclose(f);
	}
	if (d)
		closedir(d);
}

/* Of two inputs of the corpus, or of none, with some bytes changed. */
static void breed(struct input *in)
{
	in->n = 3 + below(40);
	for (size_t i = 0; i < in->n; i++)
		in->bytes[i] = below(256);
	if (ninputs && below(4)) {
		const struct input *a = &corpus[below(ninputs)], *b = &corpus[below(ninputs)];
		size_t cut = a->n ? below(a->n) + 1 : 0;

		memcpy(in->bytes, a->bytes, cut);
		in->n = cut + b->n > INPUT_MAX ? cut : cut + b->n;
		memcpy(in->bytes + cut, b->bytes, in->n - cut);
		for (unsigned k = below(6); in->n && k--;)
			in->bytes[below(in->n)] = below(256);
	}
}

/* The input at hand lies in a file, so that it is there after a crash, with zeros behind it. */
static char kept_path[64]; /* a target of its own: they run side by side */

static u8 *kept_map(void)
{
	int fd;
	u8 *p = MAP_FAILED;

	snprintf(kept_path, sizeof(kept_path), "%.40s-failed.bin", program_invocation_short_name);
	fd = open(kept_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd >= 0 && !ftruncate(fd, INPUT_MAX))
		p = mmap(NULL, INPUT_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	return p == MAP_FAILED ? NULL : p;
}

static void keep(u8 *kept, const struct input *in)
{
	fuzz_input = in->bytes;
	fuzz_input_size = in->n;
	if (!kept)
		return;
	memset(kept, 0, INPUT_MAX);
	memcpy(kept, in->bytes, in->n);
}

int main(int argc, char **argv)
{
	const char *seed = getenv("ANYKVM_SEED");
	double seconds = argc > 2 ? strtod(argv[2], NULL) : 10;
	struct timespec start, now;
	static struct input in;
	u8 *kept = kept_map();
	u64 n = 0;

	if (argc < 2)
		return 2;
	state = seed ? strtoull(seed, NULL, 0) : 1;
	load(argv[1]);
	printf("1..2\n");
	for (unsigned i = 0; i < ninputs; i++) {
		keep(kept, &corpus[i]);
		LLVMFuzzerTestOneInput(corpus[i].bytes, corpus[i].n);
	}
	printf("%s 1 - %u inputs of the corpus\n", ninputs ? "ok" : "not ok", ninputs);
	fflush(stdout);
	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		for (unsigned k = 0; k < 64; k++, n++) {
			breed(&in);
			keep(kept, &in);
			LLVMFuzzerTestOneInput(in.bytes, in.n);
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - start.tv_sec + (now.tv_nsec - start.tv_nsec) / 1e9 < seconds);
	remove(kept_path);
	printf("ok 2 - %lu inputs at random\n", n);
	return ninputs ? 0 : 1;
}
