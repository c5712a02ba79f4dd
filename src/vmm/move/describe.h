/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a machine is, as JSON: it goes before the state, so that the other side makes one like it or says why it cannot. */
#ifndef VMM_MOVE_DESCRIBE_H
#define VMM_MOVE_DESCRIBE_H

#include <jansson.h>

#include "vmm/control.h"

#define DESCRIPTION_MAX (8u << 20) /* bytes of text */

struct description {
	u64 memory;
	unsigned cpus;
	char options[512]; /* how the machine was started; for a person */
	struct kvm_cpuid2 *cpuid[VMM_MAX_CPUS];
};

/* Held. Text that the caller frees, or NULL with one line. */
char *description_write(const struct control_machine *m, struct why *why);

/* @text comes from outside. 0, or -EINVAL with the place and the reason. */
int description_read(struct description *d, const char *text, size_t n, struct why *why);
void description_free(struct description *d); /* also one of zeros */

#endif
