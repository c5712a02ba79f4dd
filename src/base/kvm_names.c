/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The names of <linux/kvm.h>: ioctls, exit reasons and capabilities, by number and by word. */
#include "base/kvm_names.h"

#include <linux/kvm.h>
#include <strings.h>

/* clang-format off */
const struct kvm_name kvm_names[] = {
#include "base/kvm_names.inc" /* by tools/kvm-names */
};
/* clang-format on */

const unsigned kvm_name_count = ARRAY_SIZE(kvm_names);

const char *kvm_name_of(enum kvm_name_kind kind, u32 value)
{
	for (unsigned i = 0; i < kvm_name_count; i++)
		if (kvm_names[i].kind == kind && kvm_names[i].value == value)
			return kvm_names[i].name;
	return NULL;
}

const struct kvm_name *kvm_name_find(const char *word)
{
	if (strncasecmp(word, "KVM_", 4) == 0)
		word += 4;
	for (unsigned i = 0; i < kvm_name_count; i++)
		if (strcasecmp(kvm_names[i].name + 4, word) == 0)
			return &kvm_names[i];
	return NULL;
}
