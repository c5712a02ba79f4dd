/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Arguments of ioctls, and exits of KVM_RUN, in words. */
#ifndef KVM_TRACE_DECODE_H
#define KVM_TRACE_DECODE_H

#include "kvm/dispatch.h"
#include "kvm/trace/line.h"

/* The argument before the call, and what came back. @row: NULL for a request that is not served. */
void decode_before(struct line *l, const struct ioctl_row *row, unsigned long arg);
void decode_after(struct line *l, const struct ioctl_row *row, unsigned long arg, bool is_success);
/* Whether the structure has something to show after the call. */
bool decode_shows_after(const struct ioctl_row *row);

/* What user space answered to the exit before: " {answer 0x61}"; nothing when it was not asked. */
void decode_answer(struct line *l, const struct vcpu *v);
/* "KVM_EXIT_IO out port=0x3f8 size=1 data=0x41 'A'". */
void decode_exit(struct line *l, const struct vcpu *v);
u64 decode_rip(const struct vcpu *v);

#endif
