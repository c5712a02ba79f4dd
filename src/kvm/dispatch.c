/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* From a request number to the row of kvm.def and its handler. */
#include <errno.h>
#include <string.h>

#include "kvm/dispatch.h"
#include "kvm/usercopy.h"

#define SIZE_OF(type) _Generic((type *)0, void * : 0, default : sizeof(type))

/* clang-format off */
const struct ioctl_row ioctl_rows[] = {
#define KVM_IOCTL(name, kind, pass, type, arch, cap, handler) \
	{ "KVM_" #name, KVM_##name, FILE_##kind, PASS_##pass, ARCH_##arch, SIZE_OF(type), cap, handler },
#include "kvm/kvm.def"
#undef KVM_IOCTL
};
/* clang-format on */

const unsigned ioctl_row_count = ARRAY_SIZE(ioctl_rows);

/* A copied structure must be what the request number says. */
#define KVM_IOCTL(name, kind, pass, type, arch, cap, handler)                                      \
	_Static_assert(PASS_##pass < PASS_IN || SIZE_OF(type) == _IOC_SIZE(KVM_##name),            \
		       "KVM_" #name);
#include "kvm/kvm.def"
#undef KVM_IOCTL

/* The largest is struct kvm_xsave. */
#define DATA_MAX sizeof(struct kvm_xsave)

/* Open addressing over (kind, request); twice the size of the table at least. */
#define HASH_BITS 8
#define HASH_SIZE (1u << HASH_BITS)
_Static_assert(ARRAY_SIZE(ioctl_rows) * 2 <= HASH_SIZE, "hash table too small");

static u8 hash[HASH_SIZE]; /* index + 1, 0: empty */

static u32 hash_of(enum file_kind kind, unsigned long request)
{
	u32 v = ((u32)request ^ (u32)kind << 12) * 2654435761u;

	return v >> (32 - HASH_BITS);
}

void dispatch_init(void)
{
	memset(hash, 0, sizeof(hash));
	for (unsigned i = 0; i < ARRAY_SIZE(ioctl_rows); i++) {
		u32 h = hash_of(ioctl_rows[i].kind, ioctl_rows[i].request);

		while (hash[h])
			h = (h + 1) % HASH_SIZE;
		hash[h] = i + 1;
	}
}

const struct ioctl_row *dispatch_find(enum file_kind kind, unsigned long request)
{
	u32 h;

	/* The kernel too looks at 32 bits only. */
	for (h = hash_of(kind, request); hash[h]; h = (h + 1) % HASH_SIZE) {
		const struct ioctl_row *row = &ioctl_rows[hash[h] - 1];

		if (row->kind == kind && (u32)row->request == (u32)request)
			return row;
	}
	return NULL;
}

/* What the kernel answers to a number that it does not know; measured, and different by descriptor. */
static long unknown_request(enum file_kind kind)
{
	return kind == FILE_VM ? -ENOTTY : -EINVAL;
}

long dispatch(enum file_kind kind, unsigned long request, struct call *c)
{
	const struct ioctl_row *row = dispatch_find(kind, request);
	u8 data[DATA_MAX] __attribute__((aligned(64)));
	long r;

	if (!row)
		return unknown_request(kind);
	if (row->pass == PASS_NONE && c->arg)
		return -EINVAL;
	c->data = data;
	if (row->pass == PASS_IN || row->pass == PASS_INOUT) {
		if (user_read(data, c->arg, row->size))
			return -EFAULT;
	} else if (row->pass == PASS_OUT) {
		memset(data, 0, row->size);
	}
	r = row->handler(c);
	if (r >= 0 && row->pass >= PASS_OUT && user_write(c->arg, data, row->size))
		return -EFAULT;
	return r;
}
