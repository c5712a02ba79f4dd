/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The names of <linux/kvm.h>: ioctls, exit reasons and capabilities, by number and by word. */
#ifndef BASE_KVM_NAMES_H
#define BASE_KVM_NAMES_H

#include "base/types.h"

enum kvm_name_kind { KVM_NAME_IOCTL, KVM_NAME_EXIT, KVM_NAME_CAP };

struct kvm_name {
	const char *name; /* "KVM_GET_REGS", "KVM_EXIT_IO", "KVM_CAP_IRQCHIP" */
	u32 kind;	  /* enum kvm_name_kind */
	u32 value;	  /* for an ioctl the whole request number */
};

/* Made from the header that the build finds: requests that are not served have names too. */
extern const struct kvm_name kvm_names[];
extern const unsigned kvm_name_count;

/* NULL: no name. */
const char *kvm_name_of(enum kvm_name_kind kind, u32 value);

/*
 * The row that a person means: "KVM_GET_REGS", "get_regs"; "KVM_EXIT_IO", "exit_io"; "KVM_CAP_XEN_HVM". Case does not
 * matter. NULL: there is none.
 */
const struct kvm_name *kvm_name_find(const char *word);

#endif
