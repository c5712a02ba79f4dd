/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The pc board: what a VM is made of, and running it to its end. */
/*
 * Threads: the main one runs the console's loop, and each processor has one. Whoever ends the VM, by a device
 * or a failure, says so in struct ending and kicks the others. A reset throws the machine away and makes
 * a new one: descriptors, memory and registers are then as at power-on by construction.
 */
#include "vmm/board.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmm/acpi.h"
#include "vmm/boot/load.h"
#include "vmm/console.h"
#include "vmm/control.h"
#include "vmm/cpu_model.h"
#include "vmm/dev/acpi_pm.h"
#include "vmm/dev/bus.h"
#include "vmm/dev/i16550.h"
#include "vmm/dev/mc146818.h"
#include "vmm/dev/reset.h"
#include "vmm/dev/silent.h"
#include "vmm/devices.h"
#include "vmm/exits.h"
#include "vmm/gdb/gdb.h"
#include "vmm/manage.h"
#include "vmm/move/incoming.h"
#include "vmm/move/lazy.h"
#include "vmm/move/snapshot.h"
#include "vmm/report.h"
#include "vmm/save/save.h"
#include "vmm/say.h"
#include "vmm/terminal.h"

#define COM1_IRQ    4
#define KICK_SIGNAL SIGUSR1
#define KICK_MS	    10
#define KICK_TRIES  300

struct board;

struct board_cpu {
	struct board *board;
	struct processor processor;
	struct exits exits;
	pthread_t thread;
	atomic_bool started; /* thread is valid */
	atomic_bool done;
};

struct board {
	const struct vmm_config *config;
	struct kvmdev dev;
	struct kernel kernel;
	struct console *console;

	struct i16550 com1;
	struct mc146818 rtc;
	struct acpi_pm pm;
	struct reset_control reset;
	struct bus bus;
	struct devices devices;

	struct ram ram;
	struct machine machine;
	struct board_cpu *cpus; /* config->cpus of them */
	struct ending ending;
	struct control control;
	struct manage manage;
	struct lazy lazy;	 /* of a snapshot that is read while it runs */
	atomic_bool has_entered; /* a processor, for the first time */
	bool is_coming;		 /* from another process; until then it stands */
	struct gdb *gdb;	 /* NULL: no debugger is wanted */
	const struct description
		*description; /* of the machine that comes from elsewhere; NULL: none */
	u8 late_input[1024];  /* came while the machine was being stopped; under control.input */
	size_t late_input_size;

	int end_signal;
	char command_status
		[16]; /* as the guest tells it; the device thread's until it has stopped */
	size_t command_status_size;
	struct report report;
};

static void irq_set(void *owner, unsigned gsi, int level)
{
	struct board *b = owner;

	if (b->machine.fd >= 0)
		machine_irq_line(&b->machine, gsi, level);
}

static void msi_send(void *owner, u64 address, u32 data)
{
	struct board *b = owner;

	if (b->machine.fd >= 0)
		machine_msi(&b->machine, address, data);
}

static void end_from_device(void *owner, enum vm_end how)
{
	struct board *b = owner;

	ending_set(&b->ending, how);
}

static void com1_output(void *owner, u8 byte)
{
	struct board *b = owner;

	console_write(b->console, byte);
}

static size_t console_room(void *owner)
{
	struct board *b = owner;
	size_t room = 0;

	pthread_mutex_lock(&b->control.input);
	if (!b->control.no_input && b->late_input_size) {
		i16550_receive(&b->com1, b->late_input, b->late_input_size);
		b->late_input_size = 0;
	}
	if (!b->control.no_input)
		room = i16550_room(&b->com1);
	pthread_mutex_unlock(&b->control.input);
	return room;
}

static void console_input(void *owner, const u8 *data, size_t n)
{
	struct board *b = owner;

	pthread_mutex_lock(&b->control.input);
	if (b->control.no_input) {
		/* At most one read: there is no room until it goes on. */
		b->late_input_size = n < sizeof(b->late_input) ? n : sizeof(b->late_input);
		memcpy(b->late_input, data, b->late_input_size);
	} else {
		i16550_receive(&b->com1, data, n);
	}
	pthread_mutex_unlock(&b->control.input);
}

static void cpus_kick(struct board *b)
{
	for (unsigned i = 0; i < b->config->cpus; i++) {
		struct board_cpu *cpu = &b->cpus[i];

		if (!atomic_load(&cpu->started) || atomic_load(&cpu->done))
			continue;
		__atomic_store_n(&cpu->processor.run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		pthread_kill(cpu->thread, KICK_SIGNAL);
	}
}

/* Make all threads look at the ending. */
static void kick(struct board *b)
{
	gate_end(&b->control.gate, true);
	cpus_kick(b);
	console_stop(b->console);
}

static void control_kick(void *owner)
{
	cpus_kick(owner);
}

static void control_end(void *owner, enum vm_end how)
{
	struct board *b = owner;

	ending_set(&b->ending, how);
	kick(b);
}

static void control_fail(void *owner, int status, const char *text)
{
	struct board *b = owner;

	ending_fail(&b->ending, status, "%s", text);
	kick(b);
}

static void console_quit(void *owner)
{
	struct board *b = owner;

	ending_set(&b->ending, VM_QUIT);
	kick(b);
}

static void console_signal(void *owner, int signal)
{
	struct board *b = owner;

	b->end_signal = signal;
	ending_set(&b->ending, VM_SIGNAL);
	kick(b);
}

static void console_failed(void *owner, int err)
{
	struct board *b = owner;

	ending_fail(&b->ending, STATUS_OUTPUT, "cannot write the console to stdout: %s",
		    strerror(err));
	kick(b);
}

static void command_told(void *owner, const u8 *text, size_t n)
{
	struct board *b = owner;
	const size_t room = sizeof(b->command_status) - 1 - b->command_status_size;

	if (n > room)
		n = room;
	memcpy(b->command_status + b->command_status_size, text, n);
	b->command_status_size += n;
}

static void panicked(void *owner)
{
	struct board *b = owner;

	ending_set(&b->ending, VM_PANIC);
}

static void ports_failed(void *owner, int err)
{
	if (err == EPIPE)
		console_signal(owner, SIGPIPE);
	else
		console_failed(owner, err);
}

static const struct console_ops console_ops = {
	.room = console_room,
	.input = console_input,
	.quit = console_quit,
	.signal = console_signal,
	.failed = console_failed,
};

static void board_io(void *owner, const struct kvm_run *run, u8 *data)
{
	struct board *b = owner;
	u32 value = 0;

	if (run->io.direction == KVM_EXIT_IO_OUT) {
		memcpy(&value, data, run->io.size);
		bus_write(&b->bus, run->io.port, run->io.size, value);
	} else {
		value = bus_read(&b->bus, run->io.port, run->io.size);
		memcpy(data, &value, run->io.size);
	}
}

/* Where nobody answers, reads give ones, as on a real bus. */
static void board_mmio(void *owner, struct kvm_run *run)
{
	struct board *b = owner;
	struct pci_bus *pci = &b->devices.pci;
	const bool answered =
		run->mmio.is_write
			? pci_mmio_write(pci, run->mmio.phys_addr, run->mmio.len, run->mmio.data)
			: pci_mmio_read(pci, run->mmio.phys_addr, run->mmio.len, run->mmio.data);

	if (answered)
		return;
	__atomic_add_fetch(&b->report.mmio_unclaimed, 1, __ATOMIC_RELAXED);
	if (!run->mmio.is_write)
		memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
}

static void board_debug(void *owner, unsigned cpu, const struct kvm_run *run)
{
	struct board *b = owner;

	if (b->gdb)
		gdb_stopped(b->gdb, cpu, run);
}

/* How long it took to restore is told by the moment of the first instruction, on the clock that everybody can read. */
static void board_enters(void *owner)
{
	struct board *b = owner;
	struct timespec t;

	if (!b->config->verbose || !b->config->snapshot || atomic_exchange(&b->has_entered, true))
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	say("first instruction at %lld.%06ld s (CLOCK_MONOTONIC), %.1f ms after main()",
	    (long long)t.tv_sec, t.tv_nsec / 1000, report_seconds(&b->report) * 1e3);
}

static const struct exits_ops board_exits = {
	.enters = board_enters, .io = board_io, .mmio = board_mmio, .debug = board_debug
};

static int chips_create(struct board *b)
{
	const struct end_request end = { end_from_device, b };
	const struct device *const devices[] = { &b->com1.device, &b->rtc.device,
						 &b->pm.device,	  &b->reset.device,
						 &silent_device,  &b->devices.pci.device };

	bus_init(&b->bus);
	i16550_init(&b->com1, (struct irq_line){ irq_set, b, COM1_IRQ }, com1_output, b);
	mc146818_init(&b->rtc, b->ram.low, b->ram.high, mc146818_host_time);
	acpi_pm_init(&b->pm, end);
	reset_control_init(&b->reset, end);
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		int r = bus_add(&b->bus, devices[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

static void chips_reset(struct board *b)
{
	for (unsigned i = 0; i < b->bus.window_count; i++) {
		const struct device *d = b->bus.windows[i].device;

		if (d->reset)
			d->reset(d->self);
	}
}

static int guest_load(struct board *b, struct boot_entry *entry, struct why *why)
{
	const struct boot_request request = {
		.kernel = &b->kernel,
		.initrd = b->config->initrd,
		.initrd_size = b->config->initrd_size,
		.cmdline = b->config->append,
		.rsdp = RAM_BIOS_START,
		.five_levels = cpu_model_asks(b->config->cpu, "la57"),
	};
	u8 *tables = ram_at(&b->ram, RAM_BIOS_START, ACPI_ROOM);

	if (!tables || !acpi_build(tables, ACPI_ROOM, RAM_BIOS_START, b->config->cpus))
		return why_set(why, EINVAL,
			       "the ACPI tables do not fit into memory; give a larger "
			       "--mem");
	return boot_load(&b->ram, &request, entry, why);
}

static void cpus_destroy(struct board *b)
{
	for (unsigned i = 0; i < b->config->cpus; i++)
		processor_destroy(&b->cpus[i].processor);
}

static int cpu_create(struct board *b, unsigned i, struct why *why)
{
	const struct processor_identity identity = {
		.model = b->config->cpu,
		.cpuid = b->description ? b->description->cpuid[i] : NULL,
	};
	int r = identity.cpuid ? cpuid_check_offered(&b->dev, identity.cpuid, why) : 0;

	return r < 0 ? r
		     : processor_create(&b->cpus[i].processor, &b->machine, i, b->config->cpus,
					identity, why);
}

/* All before the first runs: a guest may look for any of them at once. The others wait for INIT. */
static int cpus_create(struct board *b, const struct boot_entry *entry, struct why *why)
{
	const unsigned count = b->config->cpus;
	int r = 0;

	for (unsigned i = 0; i < count; i++) {
		struct board_cpu *cpu = &b->cpus[i];

		*cpu = (struct board_cpu){ .board = b, .processor = PROCESSOR_NONE };
		cpu->exits = (struct exits){ .ops = &board_exits,
					     .owner = b,
					     .cpu = &cpu->processor,
					     .ending = &b->ending,
					     .gate = &b->control.gate };
	}
	for (unsigned i = 0; i < count && r == 0; i++)
		r = cpu_create(b, i, why);
	if (r == 0 && entry)
		r = processor_enter_kernel(&b->cpus[0].processor, entry, why);
	if (r < 0)
		cpus_destroy(b);
	return r;
}

static void snapshot_damaged(void *owner, const char *text)
{
	control_fail(owner, STATUS_USAGE, text);
}

/* What is in memory at first. */
static int memory_fill(struct board *b, struct boot_entry *entry, struct why *why)
{
	struct snapshot *s = b->config->snapshot;

	if (!b->description)
		return guest_load(b, entry, why);
	if (!s)
		return 0; /* all of it comes later */
	if (b->config->is_lazy) {
		int r = lazy_begin(&b->lazy, s, &b->ram, b->config->device, snapshot_damaged, b,
				   why);

		if (r != -ENOSYS)
			return r;
		say("warning: %s: all of memory is read first", why->text);
	}
	return snapshot_load(s, &b->ram, why);
}

static void memory_drop(struct board *b)
{
	lazy_end(&b->lazy);
	ram_destroy(&b->ram);
}

/* Memory first, so that bad input is told before anything else is made. */
static int machine_power_on(struct board *b, struct why *why)
{
	struct boot_entry entry;
	int r = ram_create(&b->ram, b->config->memory, why);

	b->machine.fd = -1;
	if (r < 0)
		return -STATUS_USAGE;
	if (memory_fill(b, &entry, why) < 0) {
		memory_drop(b);
		return -STATUS_USAGE;
	}
	r = machine_create(&b->machine, &b->dev, &b->ram, true, why);
	if (r < 0)
		goto out_ram;
	r = cpus_create(b, b->description ? NULL : &entry, why);
	if (r < 0)
		goto out_machine;
	return 0;
out_machine:
	machine_destroy(&b->machine);
out_ram:
	memory_drop(b);
	return r == -EINVAL || r == -ENOMEM ? -STATUS_USAGE : -STATUS_DEVICE;
}

static void machine_power_off(struct board *b)
{
	cpus_destroy(b);
	machine_destroy(&b->machine);
	memory_drop(b);
}

static void *processor_thread(void *argument)
{
	struct board_cpu *cpu = argument;

	exits_run(&cpu->exits);
	atomic_store(&cpu->done, true);
	kick(cpu->board);
	return NULL;
}

/* 0 or an errno; those that were started are to be joined in both cases. */
static int cpus_start(struct board *b)
{
	int r = 0;

	for (unsigned i = 0; i < b->config->cpus && r == 0; i++) {
		struct board_cpu *cpu = &b->cpus[i];

		r = pthread_create(&cpu->thread, NULL, processor_thread, cpu);
		atomic_store(&cpu->started, r == 0);
	}
	return r;
}

static bool cpus_done(const struct board *b)
{
	for (unsigned i = 0; i < b->config->cpus; i++)
		if (atomic_load(&b->cpus[i].started) && !atomic_load(&b->cpus[i].done))
			return false;
	return true;
}

/* A kick may come just before KVM_RUN looks: repeat it. False: a processor does not come back. */
static bool cpus_join(struct board *b)
{
	const struct timespec pause = { 0, KICK_MS * 1000000l };

	for (unsigned i = 0; !cpus_done(b) && i < KICK_TRIES; i++) {
		cpus_kick(b);
		nanosleep(&pause, NULL);
	}
	if (!cpus_done(b))
		return false;
	for (unsigned i = 0; i < b->config->cpus; i++)
		if (atomic_load(&b->cpus[i].started))
			pthread_join(b->cpus[i].thread, NULL);
	return true;
}

static void control_give(struct board *b)
{
	struct control_machine m = {
		.config = b->config,
		.dev = &b->dev,
		.machine = &b->machine,
		.ram = &b->ram,
		.devices = &b->devices,
		.chips = { &b->com1.device, &b->rtc.device, &b->pm.device, &b->reset.device },
		.chip_count = 4,
	};

	for (unsigned i = 0; i < b->config->cpus; i++)
		m.cpus[i] = &b->cpus[i].processor;
	control_attach(&b->control, &m);
}

static void counters_print(struct board *b)
{
	kvmdev_print_counters(&b->dev, b->machine.fd);
	for (unsigned i = 0; i < b->config->cpus; i++)
		kvmdev_print_cpu_counters(&b->dev, b->cpus[i].processor.fd, i);
}

/* The state goes into the machine when all of it is there, and before anything of it runs. */
static int state_fill(struct board *b, struct why *why)
{
	const struct snapshot *s = b->config->snapshot;
	const struct control_machine *m;
	int r = 0;

	if (!b->description || !s)
		return 0;
	m = control_hold(&b->control);
	if (b->config->is_followed)
		r = snapshot_follow(m, s, why);
	if (r == 0)
		r = control_restore(&b->control, s->state, s->state_size, why);
	control_release(&b->control);
	if (r < 0) {
		control_detach(&b->control);
		machine_power_off(b);
		return -STATUS_USAGE;
	}
	return 0;
}

/* The machine stands until the other side has committed. */
static int incoming_begin(struct board *b)
{
	struct why why;
	int r = incoming_start(b->config->incoming, &b->control, &why);

	b->is_coming = false;
	return -r;
}

/* From power-on to the end of one machine; 0, or an exit status in negative. */
static int machine_run(struct board *b, struct why *why)
{
	int r;

	b->ending = (struct ending){ .end = VM_RUNNING };
	gate_end(&b->control.gate, false);
	r = machine_power_on(b, why);
	if (r < 0)
		return r;
	control_give(b);
	r = state_fill(b, why);
	if (r < 0)
		return r;
	gdb_machine_begins(b->gdb);
	console_open(b->console);
	r = -(b->is_coming ? 0 : devices_start(&b->devices));
	lazy_runs(&b->lazy);
	if (r == 0)
		r = cpus_start(b);
	if (r == 0 && b->is_coming)
		r = incoming_begin(b);
	if (r)
		ending_fail(&b->ending, STATUS_DEVICE,
			    "cannot start the threads of the machine: %s", strerror(r));
	else
		console_run(b->console);
	control_detach(&b->control);
	manage_machine_ends(&b->manage);
	if (!cpus_join(b)) {
		terminal_restore();
		say("a processor did not stop; leaving without it");
		_exit(b->end_signal ? STATUS_SIGNAL + b->end_signal : STATUS_INTERNAL);
	}
	devices_stop(&b->devices);
	for (unsigned i = 0; i < b->config->cpus; i++)
		report_add(&b->report, &b->cpus[i].exits);
	if (b->config->verbose)
		counters_print(b);
	machine_power_off(b);
	return 0;
}

static bool is_reset(enum vm_end end)
{
	return end == VM_RESET || end == VM_TRIPLE_FAULT;
}

/* The guest has powered off: what the command's end says is the end of all. */
static int command_finish(struct board *b)
{
	char *end = b->command_status;
	const long status = strtol(b->command_status, &end, 10);

	if (end != b->command_status && *end == '\n' && status >= 0 && status <= 255)
		return (int)status;
	say("the guest ended without running the command; -v shows its messages");
	return STATUS_NO_COMMAND;
}

static int board_loop(struct board *b)
{
	struct why why;

	for (;;) {
		const int r = machine_run(b, &why);
		const enum vm_end end = ending_get(&b->ending);

		if (r < 0) {
			terminal_restore();
			say("%s", why.text);
			return -r;
		}
		if (!is_reset(end) || b->config->no_reboot || b->config->is_command ||
		    !b->config->kernel) {
			const int status =
				report_finish(&b->report, b->config, &b->ending, b->end_signal);

			return b->config->is_command && status == STATUS_OK ? command_finish(b)
									    : status;
		}
		if (b->config->verbose)
			say("the guest %s; starting again",
			    end == VM_RESET ? "resets" : "ended in a triple fault");
		b->report.resets++;
		b->description = NULL;
		chips_reset(b);
	}
}

static void kick_nothing(int signal)
{
	(void)signal;
}

/* Console and terminal last: until here Ctrl-C works as ever. */
static int board_start(struct board *b)
{
	/* No SA_RESTART: the signal is there to interrupt KVM_RUN. */
	const struct sigaction action = { .sa_handler = kick_nothing };
	int status;

	sigaction(KICK_SIGNAL, &action, NULL);
	b->console = console_create(&console_ops, b);
	if (!b->console) {
		say("cannot make the console: %s", strerror(errno));
		return STATUS_DEVICE;
	}
	if (b->config->console_is_apart)
		console_detach(b->console, b->config->verbose ? STDERR_FILENO : -1);
	else
		terminal_raw();
	status = board_loop(b);
	terminal_restore();
	console_destroy(b->console);
	return status;
}

/* The sizes that the clock's memory tells; machine_power_on() makes the RAM itself. */
static void sizes_set(struct board *b)
{
	b->ram.low = b->config->memory < RAM_HOLE_START ? b->config->memory : RAM_HOLE_START;
	b->ram.high = b->config->memory - b->ram.low;
}

/* A VM without a place for its socket runs all the same; one whose name is taken does not. */
static int manage_start(struct board *b)
{
	struct why why;
	int r = manage_open(&b->manage, &b->control, b->config->name, b->config->incoming, &why);

	if (r == 0)
		return 0;
	if (r != -EBUSY && r != -EINVAL) {
		say("warning: no monitor: %s", why.text);
		return 0;
	}
	say("%s", why.text);
	return r;
}

int board_run(const struct vmm_config *config)
{
	struct board *b = calloc(1, sizeof(*b));
	struct why why;
	int status = STATUS_USAGE;

	if (b)
		b->cpus = calloc(config->cpus, sizeof(*b->cpus));
	if (!b || !b->cpus) {
		say("no memory for the board");
		free(b);
		return STATUS_USAGE;
	}
	b->config = config;
	b->machine.fd = -1;
	b->dev.fd = -1;
	control_init(&b->control,
		     (struct control_ops){ control_kick, control_end, control_fail, b });
	report_start(&b->report, config->started_ns);
	sizes_set(b);
	if (config->snapshot)
		b->description = &config->snapshot->description;
	if (config->incoming) {
		b->description = &config->incoming->description;
		b->is_coming = true;
		control_expect(&b->control);
	}
	if (config->kernel && kernel_read(&b->kernel, config->kernel, &why) < 0) {
		say("%s", why.text);
		goto out;
	}
	if (devices_create(&b->devices, config->devices, &b->ram,
			   (struct pci_host){ irq_set, msi_send, b },
			   (struct devices_ops){ command_told, ports_failed, panicked, b },
			   b->is_coming, &why) < 0) {
		say("%s", why.text);
		goto out_kernel;
	}
	if (manage_start(b) < 0)
		goto out_devices;
	if (config->gdb && gdb_open(&b->gdb, config->gdb, &b->control, &why) < 0) {
		say("%s", why.text);
		goto out_devices;
	}
	status = STATUS_DEVICE;
	if (kvmdev_open(&b->dev, config->device, &why) < 0) {
		say("%s", why.text);
		goto out_devices;
	}
	if (chips_create(b) == 0)
		status = board_start(b);
	i16550_destroy(&b->com1);
	bus_destroy(&b->bus);
	kvmdev_close(&b->dev);
out_devices:
	gdb_close(b->gdb, status);
	manage_close(&b->manage);
	devices_destroy(&b->devices);
out_kernel:
	kernel_free(&b->kernel);
out:
	control_destroy(&b->control);
	free(b->cpus);
	free(b);
	return status;
}
