/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* MC146818 real-time clock with the CMOS memory of a PC. */
#ifndef VMM_DEV_MC146818_H
#define VMM_DEV_MC146818_H

#include "vmm/dev/device.h"

#define MC146818_BYTES 128

struct mc146818 {
	struct device device;
	u8 index;
	u8 cmos[MC146818_BYTES];
	s64 offset;	  /* guest's clock minus the host's, seconds */
	s64 (*now)(void); /* the host's clock, seconds since 1970 */
	u64 low, high;	  /* RAM below and above 4 GiB */
};

void mc146818_init(struct mc146818 *rtc, u64 low, u64 high, s64 (*now)(void));
s64 mc146818_host_time(void);

#endif
