/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The payload of a bzImage: format found by its magic, unpacked by the format's own library. */
#include "vmm/boot/decompress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "vmm/blob.h"

#define UNPACKED_MAX (1u << 30)

/* Unpack all of @in to @out, at most @room bytes: the number of bytes, or -1. */
typedef ssize_t (*unpack_fn)(const u8 *in, size_t size, u8 *out, size_t room);

static ssize_t unpack_gzip(const u8 *in, size_t size, u8 *out, size_t room)
{
	z_stream z = { .next_in = (u8 *)in,
		       .avail_in = (uInt)size,
		       .next_out = out,
		       .avail_out = (uInt)room };
	int r;

	if (inflateInit2(&z, MAX_WBITS + 16) != Z_OK)
		return -1;
	r = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return r == Z_STREAM_END ? (ssize_t)z.total_out : -1;
}

static ssize_t lzma_run(lzma_stream *z, lzma_ret ready, const u8 *in, size_t size, u8 *out,
			size_t room)
{
	lzma_ret r = ready;

	z->next_in = in;
	z->avail_in = size;
	z->next_out = out;
	z->avail_out = room;
	if (r == LZMA_OK)
		r = lzma_code(z, LZMA_FINISH);
	lzma_end(z);
	return r == LZMA_STREAM_END ? (ssize_t)z->total_out : -1;
}

static ssize_t unpack_xz(const u8 *in, size_t size, u8 *out, size_t room)
{
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_ret r = lzma_stream_decoder(&z, UINT64_MAX, 0);

	return lzma_run(&z, r, in, size, out, room);
}

static ssize_t unpack_lzma(const u8 *in, size_t size, u8 *out, size_t room)
{
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_ret r = lzma_alone_decoder(&z, UINT64_MAX);

	return lzma_run(&z, r, in, size, out, room);
}

/* The legacy frame: magic, then blocks of {size, data}. What stays at the end is the appended size. */
static ssize_t unpack_lz4(const u8 *in, size_t size, u8 *out, size_t room)
{
	size_t at = 4, done = 0;

	while (size - at > 4) {
		u32 packed;
		int n;

		memcpy(&packed, in + at, 4);
		at += 4;
		if (packed == 0 || packed > size - at || packed > LZ4_MAX_INPUT_SIZE)
			return -1;
		n = LZ4_decompress_safe((const char *)in + at, (char *)out + done, (int)packed,
					(int)(room - done));
		if (n < 0)
			return -1;
		at += packed;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static ssize_t unpack_zstd(const u8 *in, size_t size, u8 *out, size_t room)
{
	ZSTD_inBuffer from = { in, size, 0 };
	ZSTD_outBuffer to = { out, room, 0 };
	ZSTD_DStream *z = ZSTD_createDStream();
	size_t r = 1;

	if (!z)
		return -1;
	/* Kernels are packed with windows larger than the library's default limit. */
	ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, 31);
	while (r > 0 && !ZSTD_isError(r)) {
		const size_t before = from.pos + to.pos;

		r = ZSTD_decompressStream(z, &to, &from);
		if (r > 0 && from.pos + to.pos == before)
			break; /* wants what is not there */
	}
	ZSTD_freeDStream(z);
	return r == 0 ? (ssize_t)to.pos : -1;
}

static const struct format {
	const char *name;
	u8 magic[6];
	u8 magic_size;
	unpack_fn unpack; /* NULL: known, not served */
} formats[] = {
	{ "gzip", { 0x1f, 0x8b, 0x08 }, 3, unpack_gzip },
	{ "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, unpack_xz },
	{ "lz4", { 0x02, 0x21, 0x4c, 0x18 }, 4, unpack_lz4 },
	{ "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4, unpack_zstd },
	{ "lzma", { 0x5d, 0x00, 0x00 }, 3, unpack_lzma },
	{ "bzip2", { 'B', 'Z', 'h' }, 3, NULL },
	{ "lzo", { 0x89, 'L', 'Z', 'O' }, 4, NULL },
};

static const struct format *format_find(const u8 *in, size_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (size >= formats[i].magic_size &&
		    memcmp(in, formats[i].magic, formats[i].magic_size) == 0)
			return &formats[i];
	return NULL;
}

static int copy_plain(const u8 *in, size_t size, u8 **out, size_t *out_size, struct why *why)
{
	*out = blob_room(size);
	if (!*out)
		return why_set(why, ENOMEM, "no memory for the kernel of %zu bytes", size);
	memcpy(*out, in, size);
	*out_size = size;
	return 0;
}

int decompress(const u8 *in, size_t size, u8 **out, size_t *out_size, struct why *why)
{
	const struct format *f = format_find(in, size);
	u32 expected;
	ssize_t n;

	*out = NULL;
	if (size >= 4 && memcmp(in, "\177ELF", 4) == 0)
		return copy_plain(in, size, out, out_size, why);
	if (!f || !f->unpack || size < 12)
		return why_set(why, EINVAL,
			       "its kernel is packed as %s, and gzip, xz, lzma, lz4 and zstd are "
			       "known here; give the unpacked vmlinux",
			       f ? f->name : "something unknown");
	memcpy(&expected, in + size - 4, 4);
	if (expected == 0 || expected > UNPACKED_MAX)
		return why_set(why, EINVAL,
			       "its %s data is truncated or damaged; copy or download "
			       "the file again",
			       f->name);
	*out = blob_room(expected);
	if (!*out)
		return why_set(why, ENOMEM, "no memory to unpack a kernel of %u bytes", expected);
	n = f->unpack(in, size, *out, expected);
	if (n != (ssize_t)expected) {
		free(*out);
		*out = NULL;
		return why_set(why, EINVAL,
			       "its %s data is truncated or damaged; copy or download "
			       "the file again",
			       f->name);
	}
	*out_size = expected;
	return 0;
}
