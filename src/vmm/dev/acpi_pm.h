/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ACPI fixed hardware: PM1 event and control registers, the PM timer. */
#ifndef VMM_DEV_ACPI_PM_H
#define VMM_DEV_ACPI_PM_H

#include "vmm/dev/device.h"

/* The FADT tells the guest these places, the DSDT this value for S5. */
#define ACPI_PM_EVENT_PORT   0x600
#define ACPI_PM_CONTROL_PORT 0x604
#define ACPI_PM_TIMER_PORT   0x608
#define ACPI_PM_SCI	     9
#define ACPI_PM_S5_TYPE	     5

struct acpi_pm {
	struct device device;
	struct end_request end;
	s64 timer_offset; /* of the timer to the host's clock, nanoseconds: it goes on where it was */
	u64 timer;	  /* nanoseconds that it has counted; set for saving */
	u16 enable;
	u16 control;
};

void acpi_pm_init(struct acpi_pm *pm, struct end_request end);

#endif
