/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counters of a KVM descriptor, as KVM_GET_STATS_FD gives them. */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include "vmm/kvmdev.h"

/* Print each counter that is not zero: "label name value". Nothing where the device has none. */
void stats_print(const struct kvmdev *dev, int fd, const char *label);

#endif
