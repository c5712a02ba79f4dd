/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Copies from and to pointers that the program passed: a bad one gives -EFAULT, not a crash. */
#ifndef KVM_USERCOPY_H
#define KVM_USERCOPY_H

#include "base/types.h"

/* Before memory of the program or of a slot is accessed by another way than these: once per thread, faults are let through. */
void user_prepare(void);

/* 0 or -EFAULT. */
int user_read(void *dst, hva_t src, size_t len);
int user_write(hva_t dst, const void *src, size_t len);

#endif
