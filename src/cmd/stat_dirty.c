/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm stat --dirty: how fast a VM writes to its memory, and a picture of where. */
#include "cmd/stat_dirty.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cmd/png.h"
#include "vmm/say.h"
#include "vmm/status.h"

#define POINT_HEIGHT 4u /* of a round in the picture */
#define POINT_WIDTH  2u /* of a part of memory */
#define PAGES_MIB    256.0

static double number(json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static double pages_of(json_t *round, size_t slot)
{
	return json_number_value(json_array_get(json_object_get(round, "pages"), slot));
}

static void text_print(json_t *report, const char *name)
{
	json_t *rounds = json_object_get(report, "rounds"), *round, *slot;
	size_t i, k;

	printf("%s: pages written, MiB/s\n%8s%10s%14s%14s\n", name, "round", "seconds", "low slot",
	       "high slot");
	json_array_foreach(rounds, i, round)
	{
		const double s = number(round, "seconds");

		printf("%8zu%10.2f%14.2f%14.2f\n", i + 1, s, pages_of(round, 0) / PAGES_MIB / s,
		       pages_of(round, 1) / PAGES_MIB / s);
	}
	json_array_foreach(json_object_get(report, "slots"), k, slot)
	{
		if (number(slot, "pages") > 0)
			printf("slot %zu: %.0f MiB\n", k, number(slot, "pages") / PAGES_MIB);
	}
}

/* Black, blue, red, yellow, white. */
static void palette_fill(u8 palette[768])
{
	static const u8 stops[5][3] = {
		{ 0, 0, 0 }, { 32, 32, 160 }, { 208, 32, 48 }, { 255, 208, 32 }, { 255, 255, 255 },
	};

	for (unsigned i = 0; i < 256; i++)
		for (unsigned c = 0; c < 3; c++) {
			const unsigned part = i < 255 ? i * 4 / 255 : 3, at = i * 4 - part * 255;

			palette[3 * i + c] =
				(u8)(stops[part][c] +
				     ((int)stops[part + 1][c] - stops[part][c]) * (int)at / 255);
		}
}

/* The share of pages that were written, in square root, so that a little is seen. */
static u8 colour(double pages, double of)
{
	const double share = of > 0 ? pages / of : 0;
	unsigned root = 0;

	while (root < 255 && (double)(root + 1) * (root + 1) <= share * 255 * 255)
		root++;
	return (u8)(pages > 0 && root < 24 ? 24 : root);
}

static int picture_write(json_t *report, const char *path, struct why *why)
{
	json_t *rounds = json_object_get(report, "rounds"),
	       *slots = json_object_get(report, "slots");
	json_t *heat = json_object_get(json_array_get(rounds, 0), "heat");
	const size_t columns = json_array_size(heat), count = json_array_size(rounds);
	const u32 width = (u32)columns * POINT_WIDTH, height = (u32)count * POINT_HEIGHT;
	const double part = (number(json_array_get(slots, 0), "pages") +
			     number(json_array_get(slots, 1), "pages")) /
			    (columns ? (double)columns : 1);
	u8 palette[768], *points = calloc(width ? width : 1, height ? height : 1);
	int r;

	if (!points || !width || !height) {
		free(points);
		return why_set(why, EINVAL, "there is nothing to draw");
	}
	for (u32 y = 0; y < height; y++)
		for (u32 x = 0; x < width; x++) {
			heat = json_object_get(json_array_get(rounds, y / POINT_HEIGHT), "heat");
			points[(size_t)y * width + x] = colour(
				json_number_value(json_array_get(heat, x / POINT_WIDTH)), part);
		}
	palette_fill(palette);
	r = png_write(path, points, width, height, palette, why);
	free(points);
	return r;
}

static void sleep_ms(unsigned ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

/* Until all rounds are done; a job that ends before says why. */
static int rounds_wait(struct monitor_client *c, const struct stat_dirty *o, json_t **report,
		       struct why *why)
{
	for (;;) {
		json_t *job = NULL;
		const char *error;
		int r;

		sleep_ms(o->interval_ms);
		r = monitor_client_call(c, "query-migrate", NULL, &job, why);
		if (r < 0)
			return r;
		error = json_string_value(json_object_get(job, "error-desc"));
		r = error && *error ? why_set(why, EIO, "%s", error) : 0;
		json_decref(job);
		if (r == 0)
			r = monitor_client_call(c, "query-dirty", NULL, report, why);
		if (r < 0 || json_array_size(json_object_get(*report, "rounds")) >= o->rounds)
			return r;
		json_decref(*report);
		*report = NULL;
	}
}

static int output_check(void)
{
	if (fflush(stdout) == 0)
		return STATUS_OK;
	say("cannot write to stdout: %s", strerror(errno));
	return STATUS_OUTPUT;
}

int stat_dirty(struct monitor_client *c, const char *name, const struct stat_dirty *o)
{
	json_t *report = NULL;
	struct why why;
	int r = monitor_client_call(c, "measure-dirty",
				    json_pack("{s:i,s:i}", "interval-ms", (int)o->interval_ms,
					      "rounds", (int)o->rounds),
				    &report, &why);

	json_decref(report);
	report = NULL;
	if (r == 0)
		r = rounds_wait(c, o, &report, &why);
	if (r == 0 && o->png)
		r = picture_write(report, o->png, &why);
	if (r < 0) {
		say("%s", why.text);
		json_decref(report);
		return STATUS_REFUSED;
	}
	if (o->json) {
		json_dumpf(report, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
		putchar('\n');
	} else {
		text_print(report, name);
	}
	json_decref(report);
	return output_check();
}
