/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counters of a KVM descriptor, as KVM_GET_STATS_FD gives them. */
#ifndef VMM_STATS_H
#define VMM_STATS_H

/* @fd: what KVM_GET_STATS_FD gave. Print each counter that is not zero: "label name value". */
void stats_print(int fd, const char *label);

#endif
