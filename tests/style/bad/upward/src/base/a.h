/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Base. */
#ifndef A_H
#define A_H
#include "mem/m.h"
#endif
