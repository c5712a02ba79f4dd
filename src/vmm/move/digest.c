/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* SHA-256 of all memory. */
#include "vmm/move/digest.h"

#include <errno.h>
#include <stdio.h>

#include <openssl/evp.h>

int ram_digest(const struct ram *ram, u8 digest[32], struct why *why)
{
	unsigned size = 32;

	if (EVP_Digest(ram->host, ram->size, digest, &size, EVP_sha256(), NULL) == 1)
		return 0;
	return why_set(why, EIO, "SHA-256 cannot be had from libcrypto");
}

void digest_text(const u8 digest[32], char text[65])
{
	for (unsigned i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
}
