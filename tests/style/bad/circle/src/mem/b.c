/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Closes the circle. */
#include "mem/a.h"
