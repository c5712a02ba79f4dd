/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* From a request number to the row of kvm.def and its handler. */
#ifndef KVM_DISPATCH_H
#define KVM_DISPATCH_H

#include "kvm/file.h"
#include "kvm/kvm.h"

/* How the argument is passed. */
enum ioctl_pass { PASS_VALUE, PASS_NONE, PASS_RAW, PASS_IN, PASS_OUT, PASS_INOUT };

enum ioctl_arch { ARCH_X86 = BIT(0), ARCH_ARM64 = BIT(1), ARCH_ANY = ARCH_X86 | ARCH_ARM64 };

struct ioctl_row {
	const char *name; /* "KVM_GET_REGS" */
	unsigned long request;
	u8 kind; /* enum file_kind */
	u8 pass; /* enum ioctl_pass */
	u8 arch; /* enum ioctl_arch */
	u16 size;
	u16 cap; /* 0: always there */
	long (*handler)(struct call *c);
};

/* All rows, in the order of kvm.def. */
extern const struct ioctl_row ioctl_rows[];
extern const unsigned ioctl_row_count;

/* To be called once before the first dispatch. */
void dispatch_init(void);

/* The row or NULL. */
const struct ioctl_row *dispatch_find(enum file_kind kind, unsigned long request);

/* Find the row, copy the argument in, call, copy out. >= 0 or -errno. c->vm, c->vcpu and c->arg are set. */
long dispatch(enum file_kind kind, unsigned long request, struct call *c);

#endif
