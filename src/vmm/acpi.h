/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ACPI tables of the pc board. */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include "base/types.h"

#define ACPI_ROOM 0x10000u

/*
 * Build RSDP, XSDT, FADT, FACS, MADT and DSDT for @cpus processors into @out, which the guest sees at @base
 * (below 4 GiB, 64-byte aligned). The RSDP comes first. Returns the number of bytes, or 0 when @room is too small.
 */
size_t acpi_build(void *out, size_t room, gpa_t base, unsigned cpus);

#endif
