/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The ways in which a guest resets a PC: port 0xcf9 and the pulse of the keyboard controller. */
#include "vmm/dev/reset.h"

#include <string.h>

#define CONTROL_RST_CPU	 0x04
#define CONTROL_KEPT	 0x0a
#define KBC_PULSE	 0xf0 /* pulse output bits 3-0 that are 0 in the command */
#define KBC_RESET_BIT	 0x01
#define PORT_A_FAST_INIT 0x01
#define PORT_A_A20	 0x02

static u32 control_read(void *self, u16 offset, unsigned size)
{
	const struct reset_control *rc = self;

	(void)offset;
	(void)size;
	return rc->control;
}

/* RST_CPU resets when it goes from 0 to 1. */
static void control_write(void *self, u16 offset, unsigned size, u32 value)
{
	struct reset_control *rc = self;

	(void)offset;
	(void)size;
	rc->control = value & CONTROL_KEPT;
	if (value & CONTROL_RST_CPU)
		rc->end.end(rc->end.owner, VM_RESET);
}

/* There is no keyboard: reads give all ones, and only the reset pulse is served. */
static void keyboard_write(void *self, u16 offset, unsigned size, u32 value)
{
	struct reset_control *rc = self;

	(void)offset;
	(void)size;
	if ((value & KBC_PULSE) == KBC_PULSE && !(value & KBC_RESET_BIT))
		rc->end.end(rc->end.owner, VM_RESET);
}

static u32 port_a_read(void *self, u16 offset, unsigned size)
{
	(void)self;
	(void)offset;
	(void)size;
	return PORT_A_A20;
}

static void port_a_write(void *self, u16 offset, unsigned size, u32 value)
{
	struct reset_control *rc = self;

	(void)offset;
	(void)size;
	if (value & PORT_A_FAST_INIT)
		rc->end.end(rc->end.owner, VM_RESET);
}

static void reset_control_reset(void *self)
{
	struct reset_control *rc = self;

	rc->control = 0;
}

static const struct port_window reset_windows[] = {
	{ RESET_PORT, 1, IO_1, control_read, control_write },
	{ 0x64, 1, IO_1, NULL, keyboard_write },
	{ 0x92, 1, IO_1, port_a_read, port_a_write },
};

static const struct device_field reset_fields[] = {
	DEVICE_FIELD(struct reset_control, control),
};

void reset_control_init(struct reset_control *rc, struct end_request end)
{
	memset(rc, 0, sizeof(*rc));
	rc->end = end;
	rc->device = (struct device){
		.name = "reset",
		.version = 1,
		.windows = reset_windows,
		.window_count = ARRAY_SIZE(reset_windows),
		.reset = reset_control_reset,
		.self = rc,
		.has_lock = false,
		.fields = reset_fields,
		.field_count = ARRAY_SIZE(reset_fields),
	};
}
