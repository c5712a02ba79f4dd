/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Uses the memory floor past the API. */
#include "mem/m.h"
