/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A machine as others than its board may use it while it runs: stop it, go on, save all of it, restore it, end it. */
/*
 * Threads: the board attaches a machine before it runs and detaches it before it goes; the monitor and a migration use it
 * between control_hold() and control_release(), which gives nothing when there is none. A machine that stands has all
 * processors outside the gate, the device thread gone, nothing in flight, and no input.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include "vmm/config.h"
#include "vmm/dev/state.h"
#include "vmm/devices.h"
#include "vmm/follow.h"
#include "vmm/gate.h"
#include "vmm/machine.h"
#include "vmm/status.h"

#define CONTROL_CHIPS_MAX 8u

struct control_ops {
	void (*kick)(void *owner); /* the processors look at the gate */
	void (*end)(void *owner, enum vm_end how);
	void (*fail)(void *owner, int status, const char *text);
	void *owner;
};

/* What a machine is made of. */
struct control_machine {
	const struct vmm_config *config;
	const struct kvmdev *dev;
	const struct machine *machine;
	const struct processor *cpus[VMM_MAX_CPUS];
	const struct ram *ram;
	struct devices *devices;
	const struct device *chips[CONTROL_CHIPS_MAX];
	unsigned chip_count;
	struct follow *follow; /* the control's */
};

struct control {
	struct gate gate;
	struct control_ops ops;
	pthread_mutex_t turn; /* before lock, for a moment */
	pthread_mutex_t lock; /* the machine stays meanwhile */
	struct control_machine machine;
	struct follow follow;
	bool is_attached;
	u64 machines;	/* attached so far: the serial number of this one */
	bool is_frozen; /* under lock */
	pthread_mutex_t
		input; /* inside of the above: whoever gives the guest input looks at no_input under it */
	bool no_input;
};

void control_init(struct control *c, struct control_ops ops);
/* Before it is attached: its state comes from elsewhere, and it stands until control_go(GATE_INCOMING). */
void control_expect(struct control *c);
void control_destroy(struct control *c);

/* The board's thread. Detach waits until nobody holds it. */
void control_attach(struct control *c, const struct control_machine *machine);
void control_detach(struct control *c);

/* NULL: there is no machine now. */
const struct control_machine *control_hold(struct control *c);
void control_release(struct control *c);

/* Held. 0, or -EBUSY with one line when a processor does not come out: the machine goes on then. */
int control_stop(struct control *c, enum gate_reason reason, struct why *why);
/* The disks are taken, if they are not here, with the last reason or when it is known that it goes on here. */
int control_go(struct control *c, enum gate_reason reason, struct why *why);
bool control_is_running(struct control *c);

struct control_state {
	u8 *data;
	size_t size;
};

/* Held, and the machine stands. 0 or -errno with one line; the caller frees data. */
int control_save(struct control *c, struct control_state *out, struct why *why);

/* Held, and the machine has never run. Nothing is changed unless all of it fits. */
int control_restore(struct control *c, const void *data, size_t n, struct why *why);

/* Held: 0, or -EBUSY with the device that cannot be moved. */
int control_movable(struct control *c, struct why *why);

#endif
