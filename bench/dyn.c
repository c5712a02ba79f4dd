// SPDX-License-Identifier: MIT OR Apache-2.0
/* A dynamically linked program that calls a little of many libc and libm functions, as a shell's tools do. */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(int argc, char **argv)
{
	char text[256], *words[32];
	unsigned n = 0;
	struct tm tm;
	time_t when = 1000000000;

	setlocale(LC_ALL, "");
	gmtime_r(&when, &tm);
	strftime(text, sizeof(text), "%A %d %B %Y the quick brown fox jumps over it", &tm);
	for (char *w = strtok(text, " "); w && n < 32; w = strtok(NULL, " "))
		words[n++] = strdup(w);
	qsort(words, n, sizeof(words[0]), compare);
	snprintf(text, sizeof(text), "%s %s %.3f %g", words[0], words[n - 1], sin(n), pow(2, n));
	while (n)
		free(words[--n]);
	/* 9 words; the text is the same wherever libm is good to six digits. */
	return strlen(text) > 10 && argc > 2 ? atoi(argv[2]) & 0x7f : 127;
}
