/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Packers of every format that a kernel may have inside, and a bzImage around it. */
#ifndef TESTS_UNIT_PACKED_FIXTURE_H
#define TESTS_UNIT_PACKED_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <asm/bootparam.h>
#include <lz4.h>
#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/types.h"

#define SETUP	   (5 * 512)
#define PAYLOAD_AT (SETUP + 100)

/* Packs @n bytes and appends their number: the bytes written. */
typedef size_t (*pack_fn)(u8 *out, size_t room, const u8 *data, size_t n);

static inline size_t size_append(u8 *out, size_t at, size_t n)
{
	const u32 size = (u32)n;

	memcpy(out + at, &size, 4);
	return at + 4;
}

static inline size_t pack_gzip(u8 *out, size_t room, const u8 *data, size_t n)
{
	z_stream z = {
		.next_in = (u8 *)data, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)room
	};

	deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out; /* ends with the size already */
}

static inline size_t pack_xz(u8 *out, size_t room, const u8 *data, size_t n)
{
	size_t at = 0;

	assert_int_equal(
		lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, NULL, data, n, out, &at, room),
		LZMA_OK);
	return size_append(out, at, n);
}

static inline size_t pack_lzma(u8 *out, size_t room, const u8 *data, size_t n)
{
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_options_lzma options;

	lzma_lzma_preset(&options, 0);
	assert_int_equal(lzma_alone_encoder(&z, &options), LZMA_OK);
	z.next_in = data;
	z.avail_in = n;
	z.next_out = out;
	z.avail_out = room;
	assert_int_equal(lzma_code(&z, LZMA_FINISH), LZMA_STREAM_END);
	lzma_end(&z);
	return size_append(out, z.total_out, n);
}

/* The kernel's build packs a pipe: the frame does not tell how much is in it. */
static inline size_t pack_zstd(u8 *out, size_t room, const u8 *data, size_t n)
{
	ZSTD_CCtx *z = ZSTD_createCCtx();
	size_t at;

	ZSTD_CCtx_setParameter(z, ZSTD_c_contentSizeFlag, 0);
	at = ZSTD_compress2(z, out, room, data, n);
	ZSTD_freeCCtx(z);
	assert_false(ZSTD_isError(at));
	return size_append(out, at, n);
}

static inline size_t pack_zstd_sized(u8 *out, size_t room, const u8 *data, size_t n)
{
	const size_t at = ZSTD_compress(out, room, data, n, 3);

	assert_false(ZSTD_isError(at));
	return size_append(out, at, n);
}

/* Two blocks, as the legacy frame has them after each 8 MiB. */
static inline size_t pack_lz4(u8 *out, size_t room, const u8 *data, size_t n)
{
	static const u8 magic[4] = { 2, 0x21, 0x4c, 0x18 };
	const size_t half = n / 2;
	size_t at = 4;

	memcpy(out, magic, 4);
	for (unsigned i = 0; i < 2; i++) {
		const int m =
			LZ4_compress_default((const char *)data + i * half, (char *)out + at + 4,
					     (int)(i ? n - half : half), (int)(room - at - 4));

		memcpy(out + at, &m, 4);
		at += 4 + (size_t)m;
	}
	return size_append(out, at, n);
}

static inline size_t pack_none(u8 *out, size_t room, const u8 *data, size_t n)
{
	assert_true(room >= n);
	memcpy(out, data, n);
	return n;
}

static const pack_fn packers[] = { pack_gzip,	    pack_xz,  pack_lzma, pack_zstd,
				   pack_zstd_sized, pack_lz4, pack_none };

static inline size_t image_make(u8 *out, size_t room, pack_fn pack, const u8 *data, size_t n)
{
	struct setup_header h = { .setup_sects = 4,
				  .boot_flag = 0xaa55,
				  .jump = 0x66eb,
				  .header = 0x53726448,
				  .version = 0x20f,
				  .loadflags = LOADED_HIGH,
				  .payload_offset = PAYLOAD_AT - SETUP };
	const size_t packed = pack(out + PAYLOAD_AT, room - PAYLOAD_AT, data, n);

	memset(out, 0, PAYLOAD_AT);
	h.payload_length = (u32)packed;
	memcpy(out + 0x1f1, &h, sizeof(h));
	return PAYLOAD_AT + packed;
}

#endif
