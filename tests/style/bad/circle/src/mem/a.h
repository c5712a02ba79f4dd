/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One half. */
#ifndef A_H
#define A_H
#include "mem/b.h"
#endif
