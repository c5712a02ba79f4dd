/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the monitor of a VM is asked: the commands, on a machine under control. */
#ifndef VMM_MANAGE_H
#define VMM_MANAGE_H

#include "vmm/control.h"
#include "vmm/monitor/monitor.h"
#include "vmm/move/incoming.h"
#include "vmm/move/job.h"
#include "vmm/move/measure.h"
#include "vmm/sampler.h"

struct manage {
	struct control *control;
	struct monitor *monitor; /* NULL: the VM has no name */
	const char *name;
	struct move_job job;
	struct sampler sampler;
	struct measure measure;
	struct incoming *incoming; /* NULL: the machine did not come from another process */
};

/* @name: NULL gives no monitor. 0, -EBUSY when the name is taken, or another -errno with one line. */
int manage_open(struct manage *m, struct control *control, const char *name,
		struct incoming *incoming, struct why *why);
void manage_close(struct manage *m); /* also one of zeros */

/* Detached already: whatever is under way with the machine ends. */
void manage_machine_ends(struct manage *m);

#endif
