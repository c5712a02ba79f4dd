/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* bzImage files, as Documentation/x86/boot.rst "The Real-Mode Kernel Header" tells. */
#include "vmm/boot/bzimage.h"

#include <errno.h>
#include <string.h>

#define HEADER_AT     0x1f1
#define HEADER_MAGIC  0x53726448 /* "HdrS" */
#define BOOT_FLAG     0xaa55
#define HEADER_JUMP   0x200 /* the short jump there tells how long the header is */
#define FIRST_PAYLOAD 0x208 /* the version that brought payload_offset */
#define SETUP_DEFAULT 4

bool bzimage_is(const u8 *data, size_t size)
{
	u32 magic;

	if (size < 0x206)
		return false;
	memcpy(&magic, data + 0x202, 4);
	return data[0x1fe] == (BOOT_FLAG & 0xff) && data[0x1ff] == BOOT_FLAG >> 8 &&
	       magic == HEADER_MAGIC;
}

static void header_read(struct bzimage *image, const u8 *data, size_t size)
{
	size_t n = HEADER_JUMP + 2 + data[HEADER_JUMP + 1] - HEADER_AT;

	memset(&image->header, 0, sizeof(image->header));
	if (n > sizeof(image->header))
		n = sizeof(image->header);
	if (n > size - HEADER_AT)
		n = size - HEADER_AT;
	memcpy(&image->header, data + HEADER_AT, n);
}

int bzimage_parse(struct bzimage *image, const u8 *data, size_t size, struct why *why)
{
	const struct setup_header *h = &image->header;
	size_t setup, payload;

	if (!bzimage_is(data, size))
		return why_set(why, EINVAL,
			       "it is neither a bzImage nor an ELF file; give a "
			       "vmlinuz or a vmlinux");
	header_read(image, data, size);
	if (h->version < FIRST_PAYLOAD || !(h->loadflags & LOADED_HIGH))
		return why_set(why, EINVAL,
			       "its boot protocol %u.%02u is too old, 2.08 is needed; "
			       "give a newer kernel",
			       h->version >> 8, h->version & 0xff);
	setup = ((h->setup_sects ? h->setup_sects : SETUP_DEFAULT) + 1u) * 512u;
	payload = setup + (size_t)h->payload_offset;
	if (h->payload_length == 0 || payload > size || h->payload_length > size - payload)
		return why_set(why, EINVAL,
			       "the file is truncated: %zu bytes of at least %zu; copy "
			       "or download it again",
			       size, payload + h->payload_length);
	image->payload = data + payload;
	image->payload_size = h->payload_length;
	return 0;
}

bool bzimage_release(const u8 *data, size_t size, char *out, size_t room)
{
	struct bzimage image;
	size_t at, n;

	if (!bzimage_is(data, size))
		return false;
	header_read(&image, data, size);
	at = image.header.kernel_version + 0x200u;
	if (!image.header.kernel_version || at >= size)
		return false;
	n = strnlen((const char *)data + at, size - at < 128 ? size - at : 128);
	for (size_t i = 0; i < n; i++)
		if (data[at + i] == ' ' || data[at + i] == '/')
			n = i;
	if (!n || n >= room)
		return false;
	memcpy(out, data + at, n);
	out[n] = 0;
	return true;
}
