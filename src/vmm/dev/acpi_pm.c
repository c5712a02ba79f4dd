/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ACPI fixed hardware, as the ACPI specification's chapter "ACPI Hardware Specification" describes it. */
/* DIFFERS: no fixed event ever happens (no button, timer overflow is not signalled): the SCI stays silent. */
#include "vmm/dev/acpi_pm.h"

#include <string.h>
#include <time.h>

#define TIMER_HZ	   3579545ull
#define NS_PER_S	   1000000000ull
#define CONTROL_SCI_EN	   0x0001
#define CONTROL_SLP_TYP(c) ((c) >> 10 & 7)
#define CONTROL_SLP_EN	   0x2000
#define CONTROL_KEPT	   0x1c06 /* SLP_TYP, GBL_RLS, BM_RLD */
#define ENABLE_DEFINED	   0x4721

/* Status at 0, enable at 2; a status bit is cleared by writing it, and none is ever set. */
static u32 event_read(void *self, u16 offset, unsigned size)
{
	const struct acpi_pm *pm = self;

	(void)size;
	return ((u32)pm->enable << 16) >> (8 * offset);
}

static void event_write(void *self, u16 offset, unsigned size, u32 value)
{
	struct acpi_pm *pm = self;
	const u32 mask = (size == 4 ? ~0u : BIT(8 * size) - 1) << (8 * offset);
	const u32 both = (u32)pm->enable << 16;

	pm->enable =
		(u16)(((both & ~mask) | (value << (8 * offset) & mask)) >> 16) & ENABLE_DEFINED;
}

static u32 control_read(void *self, u16 offset, unsigned size)
{
	const struct acpi_pm *pm = self;

	(void)size;
	/* There is no SMI to leave legacy mode with: ACPI is always on. */
	return (u32)(pm->control | CONTROL_SCI_EN) >> (8 * offset);
}

static void control_write(void *self, u16 offset, unsigned size, u32 value)
{
	struct acpi_pm *pm = self;
	const u32 mask = (BIT(8 * size) - 1) << (8 * offset);
	const u32 next = (pm->control & ~mask) | (value << (8 * offset) & mask);

	pm->control = next & CONTROL_KEPT;
	if (next & CONTROL_SLP_EN && CONTROL_SLP_TYP(next) == ACPI_PM_S5_TYPE)
		pm->end.end(pm->end.owner, VM_POWEROFF);
}

static u64 timer_now(const struct acpi_pm *pm)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * NS_PER_S + (u64)now.tv_nsec + (u64)pm->timer_offset;
}

static u32 timer_read(void *self, u16 offset, unsigned size)
{
	const u64 ns = timer_now(self);
	const u64 ticks = ns / NS_PER_S * TIMER_HZ + ns % NS_PER_S * TIMER_HZ / NS_PER_S;

	(void)size;
	return (u32)ticks >> (8 * offset);
}

static void acpi_pm_saving(void *self)
{
	struct acpi_pm *pm = self;

	pm->timer = timer_now(pm);
}

static void acpi_pm_restored(void *self)
{
	struct acpi_pm *pm = self;

	pm->timer_offset += (s64)(pm->timer - timer_now(pm));
}

static void acpi_pm_reset(void *self)
{
	struct acpi_pm *pm = self;

	pm->enable = 0;
	pm->control = 0;
}

static const struct port_window acpi_pm_windows[] = {
	{ ACPI_PM_EVENT_PORT, 4, IO_1 | IO_2 | IO_4, event_read, event_write },
	{ ACPI_PM_CONTROL_PORT, 2, IO_1 | IO_2, control_read, control_write },
	{ ACPI_PM_TIMER_PORT, 4, IO_1 | IO_2 | IO_4, timer_read, NULL },
};

static const struct device_field acpi_pm_fields[] = {
	DEVICE_FIELD(struct acpi_pm, enable),
	DEVICE_FIELD(struct acpi_pm, control),
	DEVICE_FIELD(struct acpi_pm, timer),
};

void acpi_pm_init(struct acpi_pm *pm, struct end_request end)
{
	memset(pm, 0, sizeof(*pm));
	pm->end = end;
	pm->device = (struct device){
		.name = "acpi-pm",
		.version = 1,
		.windows = acpi_pm_windows,
		.window_count = ARRAY_SIZE(acpi_pm_windows),
		.reset = acpi_pm_reset,
		.saving = acpi_pm_saving,
		.restored = acpi_pm_restored,
		.self = pm,
		.has_lock = false,
		.fields = acpi_pm_fields,
		.field_count = ARRAY_SIZE(acpi_pm_fields),
	};
}
