/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The pc board: what a VM is made of, and running it to its end. */
/*
 * Two threads: the main one runs the console's loop, the other the processor. A reset throws the machine
 * away and makes a new one: descriptors, memory and registers are then as at power-on by construction.
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
#include "vmm/dev/acpi_pm.h"
#include "vmm/dev/bus.h"
#include "vmm/dev/i16550.h"
#include "vmm/dev/mc146818.h"
#include "vmm/dev/reset.h"
#include "vmm/dev/silent.h"
#include "vmm/exits.h"
#include "vmm/report.h"
#include "vmm/say.h"
#include "vmm/terminal.h"

#define COM1_IRQ    4
#define KICK_SIGNAL SIGUSR1
#define KICK_MS	    10
#define KICK_TRIES  300

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

	struct ram ram;
	struct machine machine;
	struct processor cpu;
	struct exits exits;
	pthread_t thread;
	atomic_bool thread_done;

	int end_signal;
	struct report report;
};

static void irq_set(void *owner, unsigned gsi, int level)
{
	struct board *b = owner;

	if (b->machine.fd >= 0)
		machine_irq_line(&b->machine, gsi, level);
}

static void end_from_device(void *owner, enum vm_end how)
{
	struct board *b = owner;

	exits_end(&b->exits, how);
}

static void com1_output(void *owner, u8 byte)
{
	struct board *b = owner;

	console_write(b->console, byte);
}

static size_t console_room(void *owner)
{
	struct board *b = owner;

	return i16550_room(&b->com1);
}

static void console_input(void *owner, const u8 *data, size_t n)
{
	struct board *b = owner;

	i16550_receive(&b->com1, data, n);
}

/* From the console's loop: make the processor's thread look at exits.end. */
static void kick(struct board *b)
{
	__atomic_store_n(&b->cpu.run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	pthread_kill(b->thread, KICK_SIGNAL);
	console_stop(b->console);
}

static void console_quit(void *owner)
{
	struct board *b = owner;

	exits_end(&b->exits, VM_QUIT);
	kick(b);
}

static void console_signal(void *owner, int signal)
{
	struct board *b = owner;

	b->end_signal = signal;
	exits_end(&b->exits, VM_SIGNAL);
	kick(b);
}

static void console_failed(void *owner, int err)
{
	struct board *b = owner;

	exits_fail(&b->exits, STATUS_OUTPUT, "cannot write the console to stdout: %s",
		   strerror(err));
	kick(b);
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

/* No device has a memory window yet: as on a bus where nobody answers. */
static void board_mmio(void *owner, struct kvm_run *run)
{
	struct board *b = owner;

	b->report.mmio_unclaimed++;
	if (!run->mmio.is_write)
		memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
}

static const struct exits_ops board_exits = { board_io, board_mmio, false };

static int devices_create(struct board *b)
{
	const struct end_request end = { end_from_device, b };
	const struct device *const devices[] = { &b->com1.device, &b->rtc.device, &b->pm.device,
						 &b->reset.device, &silent_device };

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

static void devices_reset(struct board *b)
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
	};
	u8 *tables = ram_at(&b->ram, RAM_BIOS_START, ACPI_ROOM);

	if (!tables || !acpi_build(tables, ACPI_ROOM, RAM_BIOS_START, b->config->cpus))
		return why_set(why, EINVAL,
			       "the ACPI tables do not fit into memory; give a larger "
			       "--mem");
	return boot_load(&b->ram, &request, entry, why);
}

/* Memory first, so that bad input is told before anything else is made. */
static int machine_power_on(struct board *b, struct why *why)
{
	struct boot_entry entry;
	int r = ram_create(&b->ram, b->config->memory, why);

	b->machine.fd = -1;
	if (r < 0)
		return -STATUS_USAGE;
	if (guest_load(b, &entry, why) < 0) {
		ram_destroy(&b->ram);
		return -STATUS_USAGE;
	}
	r = machine_create(&b->machine, &b->dev, &b->ram, true, why);
	if (r < 0)
		goto out_ram;
	r = processor_create(&b->cpu, &b->machine, 0, b->config->cpus, b->config->cpu, why);
	if (r < 0)
		goto out_machine;
	r = processor_enter_kernel(&b->cpu, &entry, why);
	if (r < 0)
		goto out_cpu;
	return 0;
out_cpu:
	processor_destroy(&b->cpu);
out_machine:
	machine_destroy(&b->machine);
out_ram:
	ram_destroy(&b->ram);
	return r == -EINVAL || r == -ENOMEM ? -STATUS_USAGE : -STATUS_DEVICE;
}

static void machine_power_off(struct board *b)
{
	processor_destroy(&b->cpu);
	machine_destroy(&b->machine);
	ram_destroy(&b->ram);
}

static void *processor_thread(void *argument)
{
	struct board *b = argument;

	exits_run(&b->exits);
	atomic_store(&b->thread_done, true);
	console_stop(b->console);
	return NULL;
}

/* A kick may come just before KVM_RUN looks: repeat it. False: the processor does not come back. */
static bool processor_join(struct board *b)
{
	const struct timespec pause = { 0, KICK_MS * 1000000l };

	for (unsigned i = 0; !atomic_load(&b->thread_done) && i < KICK_TRIES; i++) {
		__atomic_store_n(&b->cpu.run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		pthread_kill(b->thread, KICK_SIGNAL);
		nanosleep(&pause, NULL);
	}
	if (!atomic_load(&b->thread_done))
		return false;
	pthread_join(b->thread, NULL);
	return true;
}

/* From power-on to the end of one machine; 0, or an exit status in negative. */
static int machine_run(struct board *b, struct why *why)
{
	int r = machine_power_on(b, why);

	if (r < 0)
		return r;
	b->exits = (struct exits){ .ops = &board_exits, .owner = b, .cpu = &b->cpu };
	atomic_store(&b->thread_done, false);
	console_open(b->console);
	r = pthread_create(&b->thread, NULL, processor_thread, b);
	if (r) {
		machine_power_off(b);
		why_set(why, r, "cannot start a thread for the processor: %s", strerror(r));
		return -STATUS_DEVICE;
	}
	console_run(b->console);
	if (!processor_join(b)) {
		terminal_restore();
		say("the processor did not stop; leaving without it");
		_exit(b->end_signal ? STATUS_SIGNAL + b->end_signal : STATUS_INTERNAL);
	}
	report_add(&b->report, &b->exits);
	if (b->config->verbose)
		kvmdev_print_counters(&b->dev, b->machine.fd, b->cpu.fd);
	machine_power_off(b);
	return 0;
}

static bool is_reset(enum vm_end end)
{
	return end == VM_RESET || end == VM_TRIPLE_FAULT;
}

static int board_loop(struct board *b)
{
	struct why why;

	for (;;) {
		const int r = machine_run(b, &why);
		const enum vm_end end = (enum vm_end)atomic_load(&b->exits.end);

		if (r < 0) {
			terminal_restore();
			say("%s", why.text);
			return -r;
		}
		if (!is_reset(end) || b->config->no_reboot)
			return report_finish(&b->report, b->config, &b->exits, b->end_signal);
		if (b->config->verbose)
			say("the guest %s; starting again",
			    end == VM_RESET ? "resets" : "ended in a triple fault");
		b->report.resets++;
		devices_reset(b);
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

int board_run(const struct vmm_config *config)
{
	struct board *b = calloc(1, sizeof(*b));
	struct why why;
	int status = STATUS_USAGE;

	if (!b) {
		say("no memory for the board");
		return STATUS_USAGE;
	}
	b->config = config;
	b->machine.fd = -1;
	b->dev.fd = -1;
	report_start(&b->report);
	sizes_set(b);
	if (kernel_read(&b->kernel, config->kernel, &why) < 0) {
		say("%s", why.text);
		goto out;
	}
	status = STATUS_DEVICE;
	if (kvmdev_open(&b->dev, config->device, &why) < 0) {
		say("%s", why.text);
		goto out_kernel;
	}
	if (devices_create(b) == 0)
		status = board_start(b);
	i16550_destroy(&b->com1);
	kvmdev_close(&b->dev);
out_kernel:
	kernel_free(&b->kernel);
out:
	free(b);
	return status;
}
