/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The payload of a bzImage: format found by its magic, unpacked by the format's own library. */
#include "vmm/boot/decompress.h"

#include <errno.h>
#include <string.h>

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "vmm/boot/elf.h"

#define UNPACKED_MAX (1u << 30)

/* What is wanted: a stream that ends, or as many of its first bytes as there is room for. */
enum extent { WHOLE, HEAD };

/* Unpack @in to @out, at most @room bytes: the number of bytes, or -1. */
typedef ssize_t (*unpack_fn)(const u8 *in, size_t size, u8 *out, size_t room, enum extent extent);

static ssize_t stream_result(size_t done, size_t room, bool has_ended, enum extent extent)
{
	return has_ended || (extent == HEAD && done == room) ? (ssize_t)done : -1;
}

static ssize_t unpack_gzip(const u8 *in, size_t size, u8 *out, size_t room, enum extent extent)
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
	return stream_result(z.total_out, room, r == Z_STREAM_END, extent);
}

static ssize_t lzma_run(lzma_stream *z, lzma_ret ready, const u8 *in, size_t size, u8 *out,
			size_t room, enum extent extent)
{
	lzma_ret r = ready;

	z->next_in = in;
	z->avail_in = size;
	z->next_out = out;
	z->avail_out = room;
	if (r == LZMA_OK)
		r = lzma_code(z, LZMA_FINISH);
	lzma_end(z);
	return stream_result(z->total_out, room, r == LZMA_STREAM_END, extent);
}

static ssize_t unpack_xz(const u8 *in, size_t size, u8 *out, size_t room, enum extent extent)
{
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_ret r = lzma_stream_decoder(&z, UINT64_MAX, 0);

	return lzma_run(&z, r, in, size, out, room, extent);
}

static ssize_t unpack_lzma(const u8 *in, size_t size, u8 *out, size_t room, enum extent extent)
{
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_ret r = lzma_alone_decoder(&z, UINT64_MAX);

	return lzma_run(&z, r, in, size, out, room, extent);
}

static int lz4_block(const u8 *in, size_t size, u8 *out, size_t room, enum extent extent)
{
	if (extent == WHOLE)
		return LZ4_decompress_safe((const char *)in, (char *)out, (int)size, (int)room);
	return LZ4_decompress_safe_partial((const char *)in, (char *)out, (int)size, (int)room,
					   (int)room);
}

/* The legacy frame: magic, then blocks of {size, data}. What stays at the end is the appended size. */
static ssize_t unpack_lz4(const u8 *in, size_t size, u8 *out, size_t room, enum extent extent)
{
	size_t at = 4, done = 0;

	while (size - at > 4 && !(extent == HEAD && done == room)) {
		u32 packed;
		int n;

		memcpy(&packed, in + at, 4);
		at += 4;
		if (packed == 0 || packed > size - at || packed > LZ4_MAX_INPUT_SIZE)
			return -1;
		n = lz4_block(in + at, packed, out + done, room - done, extent);
		if (n < 0)
			return -1;
		at += packed;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* At once, so that the library copies from what it has written and keeps no window of its own. */
static ssize_t zstd_whole(ZSTD_DCtx *z, const u8 *in, size_t size, u8 *out, size_t room)
{
	const size_t frame = ZSTD_findFrameCompressedSize(in, size);
	size_t n;

	if (ZSTD_isError(frame))
		return -1;
	n = ZSTD_decompressDCtx(z, out, room, in, frame);
	return ZSTD_isError(n) ? -1 : (ssize_t)n;
}

static ssize_t zstd_head(ZSTD_DCtx *z, const u8 *in, size_t size, u8 *out, size_t room)
{
	ZSTD_inBuffer from = { in, size, 0 };
	ZSTD_outBuffer to = { out, room, 0 };
	size_t r = 1;

	/* Kernels are packed with windows larger than the library's default limit. */
	ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, 31);
	while (r > 0 && !ZSTD_isError(r) && to.pos < room) {
		const size_t before = from.pos + to.pos;

		r = ZSTD_decompressStream(z, &to, &from);
		if (r > 0 && from.pos + to.pos == before)
			break; /* wants what is not there */
	}
	return stream_result(to.pos, room, r == 0, HEAD);
}

static ssize_t unpack_zstd(const u8 *in, size_t size, u8 *out, size_t room, enum extent extent)
{
	ZSTD_DCtx *z = ZSTD_createDCtx();
	ssize_t n;

	if (!z)
		return -1;
	n = extent == WHOLE ? zstd_whole(z, in, size, out, room)
			    : zstd_head(z, in, size, out, room);
	ZSTD_freeDCtx(z);
	return n;
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

static int damaged(const struct packed *packed, struct why *why)
{
	return why_set(why, EINVAL,
		       "its %s data is truncated or damaged; copy or download "
		       "the file again",
		       packed->format->name);
}

int packed_open(struct packed *packed, const u8 *data, size_t size, struct why *why)
{
	const struct format *f = format_find(data, size);
	u32 unpacked;

	*packed = (struct packed){ .data = data, .size = size, .unpacked = size };
	if (elf_is(data, size))
		return 0;
	if (!f || !f->unpack || size < 12)
		return why_set(why, EINVAL,
			       "its kernel is packed as %s, and gzip, xz, lzma, lz4 and zstd are "
			       "known here; give the unpacked vmlinux",
			       f ? f->name : "something unknown");
	memcpy(&unpacked, data + size - 4, 4);
	packed->format = f;
	packed->unpacked = unpacked;
	if (unpacked == 0 || unpacked > UNPACKED_MAX)
		return damaged(packed, why);
	return 0;
}

int packed_head(const struct packed *packed, u8 *out, size_t n, struct why *why)
{
	if (!packed->format)
		memcpy(out, packed->data, n);
	else if (packed->format->unpack(packed->data, packed->size, out, n, HEAD) != (ssize_t)n)
		return damaged(packed, why);
	return 0;
}

int packed_unpack(const struct packed *packed, u8 *out, struct why *why)
{
	const size_t room = packed->unpacked;

	if (!packed->format)
		memcpy(out, packed->data, room);
	else if (packed->format->unpack(packed->data, packed->size, out, room, WHOLE) !=
		 (ssize_t)room)
		return damaged(packed, why);
	return 0;
}
