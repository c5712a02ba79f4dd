/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ANYKVM=auto|force|off: whether /dev/kvm is ours. */
#ifndef FRONT_PRELOAD_MODE_H
#define FRONT_PRELOAD_MODE_H

#include "base/types.h"

/*
 * Decided once, when a program first asks for /dev/kvm: force is ours, off never; auto is the device where it opens read-write,
 * answers API 12 and the processor has VMX or SVM, and ours otherwise.
 */
bool mode_is_ours(void);

#endif
