/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A second includer. */
#include <Zydis/Zydis.h>
