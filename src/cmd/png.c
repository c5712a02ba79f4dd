/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Pictures as PNG files, as the specification "Portable Network Graphics" has them. */
#include "cmd/png.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

static void number_put(u8 *to, u32 value)
{
	for (unsigned i = 0; i < 4; i++)
		to[i] = (u8)(value >> (24 - 8 * i));
}

static void chunk_write(FILE *f, const char *name, const u8 *data, u32 n)
{
	u8 head[8], tail[4];
	uLong crc;

	number_put(head, n);
	memcpy(head + 4, name, 4);
	crc = crc32(crc32(0, head + 4, 4), data, n);
	number_put(tail, (u32)crc);
	fwrite(head, 1, sizeof(head), f);
	fwrite(data, 1, n, f);
	fwrite(tail, 1, sizeof(tail), f);
}

/* Each line has a byte in front: no filter. */
static u8 *lines_pack(const u8 *points, u32 width, u32 height, uLong *n)
{
	const size_t raw_size = (size_t)(width + 1) * height;
	u8 *raw = malloc(raw_size), *packed = malloc(compressBound(raw_size));

	*n = compressBound(raw_size);
	for (u32 y = 0; raw && y < height; y++) {
		raw[(size_t)y * (width + 1)] = 0;
		memcpy(raw + (size_t)y * (width + 1) + 1, points + (size_t)y * width, width);
	}
	if (!raw || !packed || compress2(packed, n, raw, raw_size, 9) != Z_OK) {
		free(packed);
		packed = NULL;
	}
	free(raw);
	return packed;
}

static void image_write(FILE *f, const u8 *packed, uLong n, u32 width, u32 height,
			const u8 *palette)
{
	u8 head[13] = { [8] = 8, [9] = 3 }; /* bits, palette */

	fwrite("\x89PNG\r\n\x1a\n", 1, 8, f);
	number_put(head, width);
	number_put(head + 4, height);
	chunk_write(f, "IHDR", head, sizeof(head));
	chunk_write(f, "PLTE", palette, 768);
	chunk_write(f, "IDAT", packed, (u32)n);
	chunk_write(f, "IEND", (const u8 *)"", 0);
}

int png_write(const char *path, const u8 *points, u32 width, u32 height, const u8 *palette,
	      struct why *why)
{
	char temporary[PATH_MAX];
	uLong n;
	u8 *packed = lines_pack(points, width, height, &n);
	bool failed;
	FILE *f;

	if (!packed)
		return why_set(why, ENOMEM, "no memory for the picture");
	snprintf(temporary, sizeof(temporary), "%.*s.%d", PATH_MAX - 16, path, (int)getpid());
	f = fopen(temporary, "wbx");
	if (f) {
		image_write(f, packed, n, width, height, palette);
		failed = ferror(f);
		failed |= fclose(f) != 0;
		if (!failed && rename(temporary, path) == 0) {
			free(packed);
			return 0;
		}
	}
	free(packed);
	why_set(why, errno, "cannot write %s: %s", path, strerror(errno));
	if (f)
		unlink(temporary);
	return -EIO;
}
