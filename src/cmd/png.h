/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Pictures as PNG files: eight bits of a palette per point. */
#ifndef CMD_PNG_H
#define CMD_PNG_H

#include "base/types.h"
#include "vmm/why.h"

/* @points: @width times @height, line by line; @palette: 256 times red, green, blue. The file is there whole or not at all. 0 or -errno. */
int png_write(const char *path, const u8 *points, u32 width, u32 height, const u8 *palette,
	      struct why *why);

#endif
