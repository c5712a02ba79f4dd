/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A machine as others than its board may use it while it runs. */
#include "vmm/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/save/save.h"

#define KICK_MS	   10
#define KICK_TRIES 300

/* Everything of a machine that is saved. */
struct whole {
	struct saved_chips chips;
	struct saved_processor *cpus;
	unsigned cpu_count;
	const struct device **list;
	struct state_set set;
};

void control_init(struct control *c, struct control_ops ops)
{
	memset(c, 0, sizeof(*c));
	c->ops = ops;
	gate_init(&c->gate);
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->turn, NULL);
	pthread_mutex_init(&c->input, NULL);
}

void control_expect(struct control *c)
{
	gate_close(&c->gate, GATE_INCOMING);
	c->is_frozen = true;
	c->no_input = true;
}

void control_destroy(struct control *c)
{
	pthread_mutex_destroy(&c->input);
	pthread_mutex_destroy(&c->turn);
	pthread_mutex_destroy(&c->lock);
	gate_destroy(&c->gate);
}

static void input_allow(struct control *c, bool allowed)
{
	pthread_mutex_lock(&c->input);
	c->no_input = !allowed;
	pthread_mutex_unlock(&c->input);
}

void control_attach(struct control *c, const struct control_machine *machine)
{
	pthread_mutex_lock(&c->lock);
	c->machine = *machine;
	c->machine.follow = &c->follow;
	c->is_attached = true;
	c->machines++;
	pthread_mutex_unlock(&c->lock);
}

void control_detach(struct control *c)
{
	pthread_mutex_lock(&c->lock);
	c->is_attached = false;
	c->is_frozen = false;
	follow_end(&c->follow);
	pthread_mutex_unlock(&c->lock);
	input_allow(c, true);
}

/* Who holds it over and over, as a migration does, passes by a turnstile that somebody else may stand in. */
const struct control_machine *control_hold(struct control *c)
{
	pthread_mutex_lock(&c->turn);
	pthread_mutex_lock(&c->lock);
	pthread_mutex_unlock(&c->turn);
	if (c->is_attached)
		return &c->machine;
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

void control_release(struct control *c)
{
	pthread_mutex_unlock(&c->lock);
}

int control_stop(struct control *c, enum gate_reason reason, struct why *why)
{
	bool is_empty = false;

	gate_close(&c->gate, reason);
	/* A kick may come just before KVM_RUN looks: repeat it. */
	for (unsigned i = 0; i < KICK_TRIES && !is_empty; i++) {
		c->ops.kick(c->ops.owner);
		is_empty = gate_wait_empty(&c->gate, KICK_MS);
	}
	if (!is_empty) {
		gate_open(&c->gate, reason);
		return why_set(why, EBUSY,
			       "a processor does not stop; is its console read by anybody?");
	}
	if (c->is_frozen)
		return 0;
	devices_freeze(c->machine.devices);
	input_allow(c, false);
	c->is_frozen = true;
	return 0;
}

int control_go(struct control *c, enum gate_reason reason, struct why *why)
{
	const unsigned others = atomic_load(&c->gate.closed) & ~(unsigned)reason;
	int r;

	/* It is here that the machine goes on, even if it is to stand for something else. */
	if (!others || reason & (GATE_INCOMING | GATE_UNRESOLVED)) {
		r = devices_take_disks(c->machine.devices, why);
		if (r < 0)
			return r;
	}
	if (!others && c->is_frozen) {
		r = devices_thaw(c->machine.devices);
		if (r < 0)
			return why_set(why, -r, "cannot start the device thread: %s", strerror(-r));
		c->is_frozen = false;
		input_allow(c, true);
	}
	gate_open(&c->gate, reason);
	return 0;
}

bool control_is_running(struct control *c)
{
	return !atomic_load(&c->gate.closed);
}

static void whole_free(struct whole *w)
{
	for (unsigned i = 0; i < w->cpu_count && w->cpus; i++)
		saved_processor_free(&w->cpus[i]);
	free(w->cpus);
	free(w->list);
}

static void whole_list(struct whole *w, const struct control_machine *m)
{
	unsigned n = 0;

	w->list[n++] = &w->chips.device;
	for (unsigned i = 0; i < w->cpu_count; i++)
		w->list[n++] = &w->cpus[i].device;
	for (unsigned i = 0; i < m->chip_count; i++)
		w->list[n++] = m->chips[i];
	n += devices_list(m->devices, w->list + n);
	w->set = (struct state_set){ w->list, n };
}

static int whole_init(struct whole *w, const struct control_machine *m, struct why *why)
{
	const unsigned count = m->config->cpus;
	int r = 0;

	memset(w, 0, sizeof(*w));
	w->cpus = calloc(count, sizeof(*w->cpus));
	w->list = calloc(1 + count + CONTROL_CHIPS_MAX + PCI_SLOTS + 2, sizeof(*w->list));
	if (!w->cpus || !w->list) {
		whole_free(w);
		return why_set(why, ENOMEM, "no memory for the state of the machine");
	}
	saved_chips_init(&w->chips, m->machine);
	for (unsigned i = 0; i < count && r == 0; i++) {
		r = saved_processor_init(&w->cpus[i], m->cpus[i], why);
		w->cpu_count += r == 0;
	}
	if (r == 0)
		whole_list(w, m);
	else
		whole_free(w);
	return r;
}

static int whole_fetch(struct whole *w, struct why *why)
{
	int r = saved_chips_fetch(&w->chips, why);

	for (unsigned i = 0; i < w->cpu_count && r == 0; i++)
		r = saved_processor_fetch(&w->cpus[i], why);
	return r;
}

static int whole_put(const struct whole *w, struct why *why)
{
	int r = saved_chips_put(&w->chips, why);

	for (unsigned i = 0; i < w->cpu_count && r == 0; i++)
		r = saved_processor_put(&w->cpus[i], &w->cpus[0], why);
	return r;
}

int control_save(struct control *c, struct control_state *out, struct why *why)
{
	struct whole w;
	int r = whole_init(&w, &c->machine, why);

	if (r < 0)
		return r;
	r = state_movable(&w.set, why);
	if (r == 0)
		r = whole_fetch(&w, why);
	if (r == 0) {
		out->size = state_size(&w.set);
		out->data = malloc(out->size);
		if (!out->data)
			r = why_set(why, ENOMEM, "no memory for the state of the machine");
		else
			state_save(&w.set, out->data, out->size);
	}
	whole_free(&w);
	return r;
}

int control_restore(struct control *c, const void *data, size_t n, struct why *why)
{
	struct whole w;
	int r = whole_init(&w, &c->machine, why);

	if (r < 0)
		return r;
	r = state_restore(&w.set, data, n, why);
	if (r == 0)
		r = whole_put(&w, why);
	whole_free(&w);
	return r;
}

int control_movable(struct control *c, struct why *why)
{
	const struct device *list[PCI_SLOTS + 2];
	const struct state_set set = { list, devices_list(c->machine.devices, list) };

	return state_movable(&set, why);
}
