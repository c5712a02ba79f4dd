/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The gdb stub: a thread that answers the packets of one debugger; processors are threads 1 and following. */
/*
 * A processor that comes out with KVM_EXIT_DEBUG writes down why, closes the gate and wakes this thread, which stops the rest
 * and tells the debugger. To go on, each processor gets its debug registers; those that shall stand are held by the gate.
 */
#define _GNU_SOURCE /* accept4 */
#include "vmm/gdb/gdb.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/thread.h"
#include "vmm/gdb/packet.h"
#include "vmm/gdb/target.h"
#include "vmm/say.h"

#define DEBUG_VECTOR 1u
#define MEMORY_MAX   ((PACKET_MAX - 64u) / 2u)
#define DR6_STEP     BIT_ULL(14)
#define SIGNAL_INT   2
#define SIGNAL_TRAP  5

/* Why a processor came out. */
struct stop {
	bool is_new;
	u32 exception;
	u64 pc, dr6;
};

struct gdb {
	struct control *control;
	struct packets packets;
	struct gdb_breakpoints breaks;
	int listener, wake;
	char socket_path[108]; /* to be removed at the end */
	bool is_halted, has_debugger;
	unsigned cpu;	  /* registers and memory are seen from it */
	unsigned step_by; /* an old "s" or "c" is meant for it */
	atomic_bool is_closing;
	pthread_t thread;
	pthread_mutex_t lock; /* stops */
	struct stop stops[VMM_MAX_CPUS];
	char in[PACKET_MAX + 1], out[PACKET_MAX + 1];
};

static void reply(struct gdb *g, const char *text)
{
	packet_send(&g->packets, text, strlen(text));
}

/* -errno becomes E and a number of two digits. */
static void reply_result(struct gdb *g, int r)
{
	if (r == 0) {
		reply(g, "OK");
		return;
	}
	snprintf(g->out, sizeof(g->out), "E%02x", (unsigned)-r & 0xff);
	reply(g, g->out);
}

static void wake(struct gdb *g)
{
	const u64 one = 1;

	while (write(g->wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void gdb_stopped(struct gdb *g, unsigned cpu, const struct kvm_run *run)
{
	pthread_mutex_lock(&g->lock);
	g->stops[cpu] = (struct stop){ true, run->debug.arch.exception, run->debug.arch.pc,
				       run->debug.arch.dr6 };
	pthread_mutex_unlock(&g->lock);
	gate_close(&g->control->gate, GATE_DEBUG);
	wake(g);
}

static void thread_told(struct gdb *g, int signal, unsigned cpu, const char *why)
{
	snprintf(g->out, sizeof(g->out), "T%02xthread:%x;%s", (unsigned)signal, cpu + 1, why);
	reply(g, g->out);
}

/* The first watchpoint that DR6 names, as gdb wants to hear it. */
static const char *watch_text(const struct gdb *g, u64 dr6, char *text, size_t room)
{
	static const char *const names[GDB_KINDS] = {
		[GDB_WRITE] = "watch", [GDB_READ] = "rwatch", [GDB_ACCESS] = "awatch"
	};

	text[0] = 0;
	for (unsigned i = 0; i < GDB_HARD_MAX; i++) {
		const struct gdb_breakpoint *p = &g->breaks.hard[i];

		if (dr6 >> i & 1 && p->size && names[p->kind]) {
			snprintf(text, room, "%s:%llx;", names[p->kind], (unsigned long long)p->at);
			break;
		}
		if (dr6 >> i & 1 && p->size)
			snprintf(text, room, "hwbreak:;");
	}
	return text;
}

/* Takes the next stop that was written down; false: there is none. */
static bool stop_take(struct gdb *g, unsigned count, unsigned *cpu, struct stop *stop)
{
	bool found = false;

	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < count && !found; i++) {
		if (!g->stops[i].is_new)
			continue;
		found = true;
		*cpu = i;
		*stop = g->stops[i];
		g->stops[i].is_new = false;
	}
	pthread_mutex_unlock(&g->lock);
	return found;
}

static void go(struct gdb *g, const struct control_machine *m, const enum gdb_run *how, u64 held)
{
	struct why why;

	for (unsigned i = 0; i < m->config->cpus; i++)
		if (!(held >> i & 1))
			gdb_debug_set(&g->breaks, m, i, how[i]);
	gate_hold(&g->control->gate, held);
	g->is_halted = false;
	if (control_go(g->control, GATE_DEBUG, &why) < 0)
		say("%s", why.text);
}

static void go_all(struct gdb *g, const struct control_machine *m, enum gdb_run how)
{
	enum gdb_run all[VMM_MAX_CPUS];

	for (unsigned i = 0; i < VMM_MAX_CPUS; i++)
		all[i] = how;
	go(g, m, all, 0);
}

/* A processor has come out: tell it. An INT3 of the guest's own is the guest's. */
static void stop_tell(struct gdb *g, const struct control_machine *m)
{
	enum gdb_run how[VMM_MAX_CPUS] = { GDB_RUN };
	struct stop stop;
	char text[64];
	unsigned cpu;

	if (!stop_take(g, m->config->cpus, &cpu, &stop))
		return;
	if (stop.exception != DEBUG_VECTOR && !gdb_is_soft(&g->breaks, stop.pc)) {
		how[cpu] = GDB_INJECT;
		go(g, m, how, 0);
		return;
	}
	g->cpu = g->step_by = cpu;
	thread_told(g, SIGNAL_TRAP, cpu,
		    stop.exception == DEBUG_VECTOR ? watch_text(g, stop.dr6, text, sizeof(text))
						   : "swbreak:;");
}

/* The machine stands after it; false: it does not, or there is none. */
static bool halt(struct gdb *g)
{
	struct why why;

	if (g->is_halted)
		return true;
	gate_close(&g->control->gate, GATE_DEBUG);
	gate_hold(&g->control->gate, 0);
	if (control_stop(g->control, GATE_DEBUG, &why) < 0)
		return false;
	g->is_halted = true;
	return true;
}

static void stops_forget(struct gdb *g)
{
	pthread_mutex_lock(&g->lock);
	memset(g->stops, 0, sizeof(g->stops));
	pthread_mutex_unlock(&g->lock);
}

static void debugger_leave(struct gdb *g, const struct control_machine *m)
{
	if (m && halt(g)) {
		gdb_breaks_clear(&g->breaks, m, 0);
		stops_forget(g);
		go_all(g, m, GDB_FREE);
	}
	close(g->packets.fd);
	g->packets.fd = -1;
	g->has_debugger = false;
}

static void registers_read(struct gdb *g, const struct control_machine *m)
{
	struct gdb_registers r;
	u8 bytes[GDB_REGISTER_BYTES];
	char *at = g->out;
	unsigned n;
	int err = gdb_registers_get(m, g->cpu, &r);

	if (err < 0) {
		reply_result(g, err);
		return;
	}
	for (unsigned i = 0; (n = gdb_register_read(&r, i, bytes)) != 0; i++) {
		hex_write(at, bytes, n);
		at += 2 * n;
	}
	reply(g, g->out);
}

static void registers_write(struct gdb *g, const struct control_machine *m, const char *text)
{
	struct gdb_registers r;
	u8 bytes[GDB_REGISTER_BYTES];
	unsigned n;
	int err = gdb_registers_get(m, g->cpu, &r);

	for (unsigned i = 0; err == 0 && (n = gdb_register_read(&r, i, bytes)) != 0; i++) {
		if (!hex_read(text, bytes, n))
			err = -EINVAL;
		else
			gdb_register_write(&r, i, bytes);
		text += 2 * n;
	}
	reply_result(g, err < 0 ? err : gdb_registers_set(m, g->cpu, &r));
}

/* "p12" or "P12=value" */
static void register_one(struct gdb *g, const struct control_machine *m, const char *text,
			 bool is_write)
{
	struct gdb_registers r;
	u8 bytes[GDB_REGISTER_BYTES];
	char *end;
	const unsigned long i = strtoul(text, &end, 16);
	int err = gdb_registers_get(m, g->cpu, &r);
	const unsigned n = err == 0 && i < 4096 ? gdb_register_read(&r, (unsigned)i, bytes) : 0;

	if (!n) {
		reply_result(g, err < 0 ? err : -EINVAL);
	} else if (!is_write) {
		hex_write(g->out, bytes, n);
		reply(g, g->out);
	} else if (*end != '=' || !hex_read(end + 1, bytes, n)) {
		reply_result(g, -EINVAL);
	} else {
		gdb_register_write(&r, (unsigned)i, bytes);
		reply_result(g, gdb_registers_set(m, g->cpu, &r));
	}
}

/* "ADDRESS,LENGTH" and what follows it, or NULL. */
static const char *range_read(const char *text, u64 *at, u64 *n)
{
	char *end;

	*at = strtoull(text, &end, 16);
	if (end == text || *end != ',')
		return NULL;
	text = end + 1;
	*n = strtoull(text, &end, 16);
	return end == text ? NULL : end;
}

static void memory_packet(struct gdb *g, const struct control_machine *m, size_t packet_size)
{
	static u8 bytes[MEMORY_MAX];
	const char kind = g->in[0];
	u64 at, n;
	const char *rest = range_read(g->in + 1, &at, &n);
	int r = -EINVAL;

	if (!rest || n > MEMORY_MAX) {
		reply_result(g, -EINVAL);
		return;
	}
	if (kind == 'm') {
		/* What can be read of it, as gdb asks for more than there is. */
		r = gdb_memory(m, g->cpu, at, bytes, n, false);
		if (r == 0) {
			hex_write(g->out, bytes, n);
			reply(g, g->out);
			return;
		}
	} else if (kind == 'M' && *rest == ':' && hex_read(rest + 1, bytes, n)) {
		r = gdb_memory(m, g->cpu, at, bytes, n, true);
	} else if (kind == 'X' && *rest == ':' && packet_size - (size_t)(rest + 1 - g->in) == n) {
		memcpy(bytes, rest + 1, n);
		r = gdb_memory(m, g->cpu, at, bytes, n, true);
	}
	reply_result(g, r);
}

static void break_packet(struct gdb *g, const struct control_machine *m)
{
	const u8 kind = (u8)(g->in[1] - '0');
	u64 at, size;

	if (kind >= GDB_KINDS) {
		reply(g, "");
		return;
	}
	if (g->in[2] != ',' || !range_read(g->in + 3, &at, &size)) {
		reply_result(g, -EINVAL);
		return;
	}
	reply_result(g, g->in[0] == 'Z' ? gdb_break_add(&g->breaks, m, g->cpu, kind, at, size)
					: gdb_break_remove(&g->breaks, m, g->cpu, kind, at));
}

/* A thread's number: 1 and following; 0 is any, "-1" all. False: there is no such. */
static bool thread_read(const char *text, const struct control_machine *m, int *cpu)
{
	char *end;
	long n = strtol(text, &end, 16);

	if (end == text || n < -1 || n > (long)m->config->cpus)
		return false;
	*cpu = n < 0 ? -1 : n ? (int)n - 1 : 0;
	return true;
}

/* What came out while the machine was being stopped is told first. */
static bool stop_waits(struct gdb *g, const struct control_machine *m)
{
	bool waits = false;

	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < m->config->cpus; i++)
		waits |= g->stops[i].is_new && g->stops[i].exception == DEBUG_VECTOR &&
			 !(g->stops[i].dr6 & DR6_STEP);
	pthread_mutex_unlock(&g->lock);
	return waits;
}

/* "vCont;s:1;c": the first action that names a thread is its own; who has none stands. */
static void cont_packet(struct gdb *g, const struct control_machine *m, char *text)
{
	enum gdb_run how[VMM_MAX_CPUS] = { GDB_RUN };
	u64 held = m->config->cpus < 64 ? BIT_ULL(m->config->cpus) - 1 : ~0ull;
	char *action;

	while ((action = strsep(&text, ";"))) {
		const char *colon = strchr(action, ':');
		int cpu = -1;

		if (!*action)
			continue;
		if (!strchr("cCsS", *action) || (colon && !thread_read(colon + 1, m, &cpu))) {
			reply_result(g, -EINVAL);
			return;
		}
		for (unsigned i = 0; i < m->config->cpus; i++) {
			if (!(held >> i & 1) || (cpu >= 0 && (unsigned)cpu != i))
				continue;
			held &= ~BIT_ULL(i);
			how[i] = *action == 's' || *action == 'S' ? GDB_STEP : GDB_RUN;
		}
	}
	if (stop_waits(g, m)) {
		stop_tell(g, m);
		return;
	}
	stops_forget(g);
	go(g, m, how, held);
}

/* "c", "s", and with a signal, which a processor has none of; all others run meanwhile. */
static void resume(struct gdb *g, const struct control_machine *m, bool is_step)
{
	char text[32];

	snprintf(text, sizeof(text), is_step ? "s:%x;c" : "c", g->step_by + 1);
	cont_packet(g, m, text);
}

/* A part of the description: "m" and more follows, or "l" and the last. */
static void description_packet(struct gdb *g, const char *text)
{
	const char *xml = gdb_description();
	const size_t size = strlen(xml);
	u64 at, n;

	if (!range_read(text, &at, &n) || at > size) {
		reply_result(g, -EINVAL);
		return;
	}
	if (n > PACKET_MAX / 2)
		n = PACKET_MAX / 2;
	if (n > size - at)
		n = size - at;
	g->out[0] = at + n < size ? 'm' : 'l';
	memcpy(g->out + 1, xml + at, n);
	packet_send(&g->packets, g->out, n + 1);
}

static void threads_packet(struct gdb *g, const struct control_machine *m)
{
	size_t n = (size_t)snprintf(g->out, sizeof(g->out), "m1");

	for (unsigned i = 1; i < m->config->cpus; i++)
		n += (size_t)snprintf(g->out + n, sizeof(g->out) - n, ",%x", i + 1);
	reply(g, g->out);
}

static void name_packet(struct gdb *g, const struct control_machine *m, const char *text)
{
	char name[32];
	int cpu;

	if (!thread_read(text, m, &cpu) || cpu < 0) {
		reply_result(g, -EINVAL);
		return;
	}
	snprintf(name, sizeof(name), "processor %d", cpu);
	hex_write(g->out, name, strlen(name));
	reply(g, g->out);
}

static bool starts(const char *text, const char *word)
{
	return strncmp(text, word, strlen(word)) == 0;
}

static void query_packet(struct gdb *g, const struct control_machine *m, const char *q)
{
	static const char description[] = "qXfer:features:read:target.xml:";

	if (starts(q, "qSupported")) {
		snprintf(g->out, sizeof(g->out),
			 "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;"
			 "swbreak+;hwbreak+",
			 PACKET_MAX - 64);
		reply(g, g->out);
	} else if (starts(q, description)) {
		description_packet(g, q + sizeof(description) - 1);
	} else if (strcmp(q, "QStartNoAckMode") == 0) {
		reply(g, "OK");
		g->packets.no_ack = true;
	} else if (strcmp(q, "qfThreadInfo") == 0) {
		threads_packet(g, m);
	} else if (strcmp(q, "qsThreadInfo") == 0) {
		reply(g, "l");
	} else if (starts(q, "qThreadExtraInfo,")) {
		name_packet(g, m, q + 17);
	} else if (strcmp(q, "qC") == 0) {
		snprintf(g->out, sizeof(g->out), "QC%x", g->cpu + 1);
		reply(g, g->out);
	} else if (starts(q, "qAttached")) {
		reply(g, "1");
	} else {
		reply(g, "");
	}
}

static void end(struct gdb *g)
{
	g->control->ops.end(g->control->ops.owner, VM_QUIT);
}

static void v_packet(struct gdb *g, const struct control_machine *m, char *text)
{
	if (strcmp(text, "vCont?") == 0) {
		reply(g, "vCont;c;C;s;S");
	} else if (starts(text, "vCont;")) {
		cont_packet(g, m, text + 6);
	} else if (starts(text, "vKill")) {
		reply(g, "OK");
		end(g);
	} else {
		reply(g, "");
	}
}

/* "Hg2", "Hc-1": whose registers are meant, and who steps. */
static void thread_packet(struct gdb *g, const struct control_machine *m)
{
	int cpu;

	if (!thread_read(g->in + 2, m, &cpu)) {
		reply_result(g, -EINVAL);
		return;
	}
	if (g->in[1] == 'g' && cpu >= 0)
		g->cpu = (unsigned)cpu;
	else if (g->in[1] == 'c' && cpu >= 0)
		g->step_by = (unsigned)cpu;
	reply(g, "OK");
}

static void packet_serve(struct gdb *g, const struct control_machine *m, size_t n)
{
	int cpu;

	switch (g->in[0]) {
	case '?':
		thread_told(g, SIGNAL_TRAP, g->cpu, "");
		break;
	case 'g':
		registers_read(g, m);
		break;
	case 'G':
		registers_write(g, m, g->in + 1);
		break;
	case 'p':
	case 'P':
		register_one(g, m, g->in + 1, g->in[0] == 'P');
		break;
	case 'm':
	case 'M':
	case 'X':
		memory_packet(g, m, n);
		break;
	case 'Z':
	case 'z':
		break_packet(g, m);
		break;
	case 'c':
	case 'C':
	case 's':
	case 'S':
		resume(g, m, g->in[0] == 's' || g->in[0] == 'S');
		break;
	case 'H':
		thread_packet(g, m);
		break;
	case 'T':
		reply_result(g, thread_read(g->in + 1, m, &cpu) ? 0 : -ESRCH);
		break;
	case 'q':
	case 'Q':
		query_packet(g, m, g->in);
		break;
	case 'v':
		v_packet(g, m, g->in);
		break;
	case 'D':
		reply(g, "OK");
		debugger_leave(g, m);
		break;
	case 'k':
		end(g);
		break;
	default:
		reply(g, "");
	}
}

/* While the machine runs, nothing but a break is listened to. */
static void input_serve(struct gdb *g, const struct control_machine *m)
{
	enum packet_kind kind;
	size_t n;

	if (!packets_fill(&g->packets)) {
		debugger_leave(g, m);
		return;
	}
	while (g->packets.fd >= 0 && (kind = packet_next(&g->packets, g->in, &n)) != PACKET_NONE) {
		if (kind == PACKET_BREAK && !g->is_halted && halt(g)) {
			stops_forget(g);
			thread_told(g, SIGNAL_INT, g->cpu, "");
		} else if (kind == PACKET_DATA && g->is_halted) {
			packet_serve(g, m, n);
		} else if (kind == PACKET_DATA) {
			reply_result(g, -EBUSY);
		}
	}
}

static void debugger_accept(struct gdb *g)
{
	const int fd = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	/* One at a time. */
	if (g->packets.fd >= 0) {
		close(fd);
		return;
	}
	g->packets.fd = fd;
	g->packets.no_ack = false;
	g->packets.in_size = g->packets.last_size = 0;
	g->has_debugger = true;
	halt(g);
}

static void round_run(struct gdb *g)
{
	struct pollfd fds[] = {
		{ g->listener, POLLIN, 0 },
		{ g->wake, POLLIN, 0 },
		{ g->packets.fd, POLLIN, 0 },
	};
	const struct control_machine *m;
	u64 count;

	if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		return;
	if (fds[1].revents && read(g->wake, &count, sizeof(count)) < 0)
		return;
	m = control_hold(g->control);
	if (!m) {
		/* Between two machines: what was asked meanwhile is asked again by the poll. */
		usleep(1000);
		return;
	}
	if (fds[1].revents && !g->is_halted && halt(g))
		stop_tell(g, m);
	/* A debugger that has gone makes room for the one that has come. */
	if (g->packets.fd >= 0 && fds[2].revents)
		input_serve(g, m);
	if (fds[0].revents)
		debugger_accept(g);
	control_release(g->control);
}

static void *gdb_thread(void *argument)
{
	struct gdb *g = argument;

	while (!atomic_load(&g->is_closing))
		round_run(g);
	return NULL;
}

/* Memory and descriptors are new: software breakpoints are gone with the old memory, the others are set anew. */
void gdb_machine_begins(struct gdb *g)
{
	const struct control_machine *m = g ? control_hold(g->control) : NULL;

	if (!m)
		return;
	memset(g->breaks.soft, 0, sizeof(g->breaks.soft));
	g->cpu = g->step_by = 0;
	stops_forget(g);
	for (unsigned i = 0; i < m->config->cpus; i++)
		gdb_debug_set(&g->breaks, m, i, g->has_debugger ? GDB_RUN : GDB_FREE);
	control_release(g->control);
}

static int stub_begin(struct gdb *g)
{
	int r;

	r = thread_start(&g->thread, gdb_thread, g);
	return -r;
}

int gdb_open(struct gdb **out, const char *where, struct control *control, struct why *why)
{
	struct gdb *g = calloc(1, sizeof(*g));
	char place[128];
	int r;

	if (!g)
		return why_set(why, ENOMEM, "no memory for the debugger");
	g->control = control;
	g->packets.fd = -1;
	g->is_halted = true;
	pthread_mutex_init(&g->lock, NULL);
	g->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->listener = packet_listen(where, place, sizeof(place), why);
	if (g->listener < 0) {
		r = g->listener;
		goto out;
	}
	if (strncmp(where, "unix:", 5) == 0)
		snprintf(g->socket_path, sizeof(g->socket_path), "%s", where + 5);
	gate_close(&control->gate, GATE_DEBUG);
	r = g->wake < 0 ? -errno : stub_begin(g);
	if (r == 0) {
		say("waiting for gdb: target remote %s", place);
		*out = g;
		return 0;
	}
	why_set(why, -r, "cannot start the thread of the debugger: %s", strerror(-r));
	close(g->listener);
out:
	if (g->wake >= 0)
		close(g->wake);
	pthread_mutex_destroy(&g->lock);
	free(g);
	return r;
}

void gdb_close(struct gdb *g, int status)
{
	char text[8];

	if (!g)
		return;
	atomic_store(&g->is_closing, true);
	wake(g);
	pthread_join(g->thread, NULL);
	if (g->packets.fd >= 0) {
		snprintf(text, sizeof(text), "W%02x", (unsigned)status & 0xff);
		reply(g, text);
		close(g->packets.fd);
	}
	close(g->listener);
	if (g->socket_path[0])
		unlink(g->socket_path);
	close(g->wake);
	pthread_mutex_destroy(&g->lock);
	free(g);
}
