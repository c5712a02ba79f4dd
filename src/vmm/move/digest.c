/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* SHA-256 of all memory. */
#include "vmm/move/digest.h"

#include <errno.h>
#include <stdio.h>

#include <openssl/evp.h>

#include "vmm/late.h"

enum { DIGEST, SHA256, FUNCTIONS };

static const char *const names[FUNCTIONS] = { [DIGEST] = "EVP_Digest", [SHA256] = "EVP_sha256" };
static void *functions[FUNCTIONS];

static struct late libcrypto = { .file = "libcrypto.so.3",
				 .package = "libssl3",
				 .names = names,
				 .functions = functions,
				 .count = FUNCTIONS,
				 .lock = PTHREAD_MUTEX_INITIALIZER };

int ram_digest(const struct ram *ram, u8 digest[32], struct why *why)
{
	unsigned size = 32;
	int r = late_load(&libcrypto, why);

	if (r < 0)
		return r;
	if (!ram_need(ram, ram->host, ram->size))
		return why_set(why, EIO, "memory of this machine is damaged");
	if (LATE(EVP_Digest, functions[DIGEST])(ram->host, ram->size, digest, &size,
						LATE(EVP_sha256, functions[SHA256])(), NULL) == 1)
		return 0;
	return why_set(why, EIO, "SHA-256 cannot be had from libcrypto");
}

void digest_text(const u8 digest[32], char text[65])
{
	for (unsigned i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
}
