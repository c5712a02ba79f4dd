/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Ports that a PC's firmware or kernel touches and that need no device: they are not counted as unclaimed. */
#include "vmm/dev/silent.h"

static const struct port_window silent_windows[] = {
	{ 0x80, 1, IO_1, NULL, NULL },	/* POST codes, and the delay of old drivers */
	{ 0xe9, 1, IO_1, NULL, NULL },	/* debug console of emulators */
	{ 0xed, 1, IO_1, NULL, NULL },	/* the other delay port */
	{ 0x60, 1, IO_1, NULL, NULL },	/* keyboard data: no keyboard */
	{ 0x2f8, 8, IO_1, NULL, NULL }, /* COM2, COM3, COM4: no port */
	{ 0x3e8, 8, IO_1, NULL, NULL }, { 0x2e8, 8, IO_1, NULL, NULL },
};

const struct device silent_device = {
	.name = "silent",
	.windows = silent_windows,
	.window_count = ARRAY_SIZE(silent_windows),
};
