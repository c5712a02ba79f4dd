/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm run: from options to a running VM. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cmd/args.h"
#include "cmd/cache.h"
#include "cmd/cmd.h"
#include "cmd/command.h"
#include "cmd/device_options.h"
#include "vmm/blob.h"
#include "vmm/board.h"
#include "vmm/boot/bzimage.h"
#include "vmm/initramfs.h"
#include "vmm/move/incoming.h"
#include "vmm/move/job.h"
#include "vmm/move/snapshot.h"
#include "vmm/move/uri.h"
#include "vmm/ram.h"
#include "vmm/say.h"
#include "vmm/status.h"
#include "vmm/terminal.h"

#define INITRD_MAX     (16ull << 30)
#define INITRD_BUILTIN "builtin"
#define OPTIONS_ENV    "ANYKVM_OPTIONS"

struct run_options {
	const char *kernel, *initrd, *append, *cpu, *engine, *cpu_mask, *device, *name;
	const char *flat, *gdb;
	u32 flat_address;
	u64 memory;
	unsigned cpus;
	const char *incoming;
	bool no_reboot, json, verbose, lazy, follow;
	char text[512]; /* all words, for whoever gets the machine elsewhere */
	char flat_path[PATH_MAX];
	struct vmm_devices devices;
	char *const *command; /* NULL: none */
	struct initramfs_command guest;
};

static int choice(const char *value, const char *const *choices, void *field, struct why *why)
{
	for (unsigned i = 0; choices[i]; i++) {
		if (strcmp(value, choices[i]) == 0) {
			*(const char **)field = value;
			return 0;
		}
	}
	return why_set(why, EINVAL, "'%s' is unknown; give %s", value, choices[0]);
}

static int parse_engine(const char *value, void *field, struct why *why)
{
	static const char *const choices[] = { "checked", "fast", NULL };

	if (choice(value, choices, field, why) == 0)
		return 0;
	return why_set(why, EINVAL, "'%s' is no engine; give checked or fast", value);
}

static int parse_cpu_mask(const char *value, void *field, struct why *why)
{
	static const char *const choices[] = { "none", "x86-64-v2", "x86-64-v3", "x86-64-v4",
					       NULL };

	if (choice(value, choices, field, why) == 0)
		return 0;
	return why_set(why, EINVAL, "'%s' is no mask; give none, x86-64-v2, x86-64-v3 or x86-64-v4",
		       value);
}

/* The command line of a kernel may be empty. */
static int parse_any_text(const char *value, void *field, struct why *why)
{
	(void)why;
	*(const char **)field = value;
	return 0;
}

/* FILE@ADDR; @field is the name of the file within struct run_options, beside the address. */
static int parse_flat(const char *value, void *field, struct why *why)
{
	struct run_options *o =
		(struct run_options *)((char *)field - offsetof(struct run_options, flat));
	const char *at = strrchr(value, '@');
	unsigned long address;
	char *end;

	errno = 0;
	address = at ? strtoul(at + 1, &end, 0) : 0;
	if (!at || at == value || !at[1] || *end || errno)
		return why_set(why, EINVAL,
			       "'%s' is not FILE@ADDR; write for example image.bin@0x1000", value);
	if (address > 0xfffff)
		return why_set(why, EINVAL,
			       "real mode enters below 1 MiB, and 0x%lx is above; give a "
			       "lower address",
			       address);
	if ((size_t)(at - value) >= sizeof(o->flat_path))
		return why_set(why, ENAMETOOLONG, "the path is too long");
	memcpy(o->flat_path, value, (size_t)(at - value));
	o->flat_path[at - value] = 0;
	o->flat = value;
	o->flat_address = (u32)address;
	return 0;
}

#define FIELD(f) offsetof(struct run_options, f)

static const struct args_row run_rows[] = {
	{ "kernel", 'k', args_text, FIELD(kernel), "FILE",
	  "vmlinuz or PVH vmlinux; default: Debian's cloud kernel from the cache" },
	{ "initrd", 'i', args_text, FIELD(initrd), "FILE",
	  "initrd, or 'builtin': busybox with a shell, or a demo when stdin is no terminal" },
	{ "append", 'a', parse_any_text, FIELD(append), "TEXT",
	  "the whole kernel command line; default: console=ttyS0" },
	{ "mem", 'm', args_size, FIELD(memory), "SIZE", "memory, MiB without a unit; default: 1G" },
	{ "cpus", 'c', args_count, FIELD(cpus), "N", "processors, 1 to 64; default: 1" },
	{ "cpu", 0, args_text, FIELD(cpu), "MODEL", "host, intel or amd, then ,+flag or ,-flag" },
	{ "engine", 'e', parse_engine, FIELD(engine), "FORM", "checked or fast" },
	{ "cpu-mask", 0, parse_cpu_mask, FIELD(cpu_mask), "LEVEL",
	  "use only this much of the host: x86-64-v2, -v3, -v4" },
	{ "device", 'd', args_text, FIELD(device), "FILE",
	  "a real KVM device, for example /dev/kvm, instead of the built-in one" },
	{ "disk", 0, parse_disk, FIELD(devices), "FILE[,WORD...]",
	  "a virtio disk; words: ro, format=raw or qcow2, serial=TEXT" },
	{ "share", 0, parse_share, FIELD(devices), "DIR[=TAG][,ro]",
	  "a folder of the host by virtiofs; the builtin initrd mounts it at /mnt/TAG" },
	{ "net", 0, parse_net, FIELD(devices), "user|tap[,WORD...]",
	  "a virtio network; words: hostfwd=[udp:][ADDR:]PORT-[ADDR:]PORT, restrict, if=NAME, "
	  "fd=N, "
	  "mac=M" },
	{ "vsock", 0, parse_vsock, FIELD(devices), "CID[,uds=PATH]",
	  "virtio sockets: the guest's port P is 'CONNECT P' at PATH, the host's is PATH_P" },
	{ "gdb", 0, args_text, FIELD(gdb), "PLACE",
	  "wait for gdb at tcp:PORT, tcp:ADDRESS:PORT or unix:PATH; it starts the machine" },
	{ "flat", 0, parse_flat, FIELD(flat), "FILE@ADDR",
	  "run FILE in real mode at ADDR, then print exits and registers" },
	{ "name", 'n', args_text, FIELD(name), "NAME",
	  "name of the VM: for 'anykvm ctl NAME', and in messages" },
	{ "incoming", 0, args_text, FIELD(incoming), "URI",
	  "wait for 'anykvm migrate' at unix:PATH or tcp:HOST:PORT; needs --name" },
	{ "no-reboot", 0, NULL, FIELD(no_reboot), NULL,
	  "a reset ends with status 32, a triple fault with 33" },
	{ "json", 0, NULL, FIELD(json), NULL, "the end as JSON: on stderr, with --flat on stdout" },
	{ "verbose", 'v', NULL, FIELD(verbose), NULL, "print counters after the end" },
};

static const struct args_row restore_rows[] = {
	{ "lazy", 'l', NULL, FIELD(lazy), NULL,
	  "start at once: memory is read when it is used, and checked meanwhile" },
	{ "follow", 0, NULL, FIELD(follow), NULL,
	  "remember what it writes: 'anykvm snapshot --base FILE' takes an increment" },
	{ "engine", 'e', parse_engine, FIELD(engine), "FORM", "checked or fast" },
	{ "device", 'd', args_text, FIELD(device), "FILE",
	  "a real KVM device, for example /dev/kvm, instead of the built-in one" },
	{ "disk", 0, parse_disk, FIELD(devices), "FILE[,WORD...]",
	  "as it was given to 'anykvm run'; so with the other devices" },
	{ "vsock", 0, parse_vsock, FIELD(devices), "CID[,uds=PATH]", "as of 'anykvm run'" },
	{ "name", 'n', args_text, FIELD(name), "NAME", "name of the VM" },
	{ "json", 0, NULL, FIELD(json), NULL, "the end as JSON on stderr" },
	{ "verbose", 'v', NULL, FIELD(verbose), NULL, "print times and counters" },
};

static const struct args_table restore_table = { restore_rows, ARRAY_SIZE(restore_rows) };

static const struct args_table run_table = { run_rows, ARRAY_SIZE(run_rows) };

static int help(void)
{
	printf("usage: anykvm run [OPTIONS] [-- CMD...]\n\n"
	       "Runs a VM with its serial console on stdin and stdout; Ctrl-A x quits. With CMD "
	       "the guest\n"
	       "runs this program over the host's files: the current folder read-write, all else "
	       "read-only\n"
	       "with changes that vanish; input, output and status are passed through.\n\n");
	args_help(&run_table, stdout);
	printf("\nExit status: 0 power-off or Ctrl-A x, 2 usage or bad input, 32 reset and 33 "
	       "triple\n"
	       "fault with --no-reboot, 64 and above a failure of the VM, 128+n signal n.\n");
	return STATUS_OK;
}

static int options_check(const struct run_options *o, struct why *why)
{
	if (o->incoming && (o->flat || o->command))
		return why_set(why, EINVAL, "--flat and a command do not come from elsewhere");
	if (o->incoming && !o->name)
		return why_set(why, EINVAL,
			       "--incoming needs --name, so that the machine can be asked about");
	if (o->incoming && uri_check(o->incoming, why) < 0)
		return -EINVAL;
	if (o->cpus > VMM_MAX_CPUS)
		return why_set(why, EINVAL,
			       "--cpus %u: a VM has at most %u processors; give a smaller number",
			       o->cpus, VMM_MAX_CPUS);
	if (o->flat && o->gdb)
		return why_set(why, EINVAL, "--flat has no debugger; drop --gdb");
	if (o->flat && o->cpus > 1)
		return why_set(why, EINVAL, "--flat runs one processor; drop --cpus");
	if (o->flat && (o->kernel || o->initrd || o->append))
		return why_set(why, EINVAL,
			       "--flat runs an image instead of a kernel; drop --kernel, "
			       "--initrd and --append");
	if (o->command && (o->flat || o->initrd))
		return why_set(why, EINVAL,
			       "a command needs the builtin initrd; drop --flat and --initrd");
	if (o->device && strcmp(o->device, "anykvm") != 0 && (o->engine || o->cpu_mask))
		return why_set(why, EINVAL,
			       "--engine and --cpu-mask belong to the built-in processor; "
			       "drop them or --device");
	return ram_check_size(o->memory, why);
}

/* The options reach the library as they do in any other program: later ones win. */
static int library_options_set(const struct run_options *o, struct why *why)
{
	const char *old = getenv(OPTIONS_ENV);
	char text[512];
	int n = snprintf(text, sizeof(text), "%s%s%s%s%s%s", old ? old : "",
			 o->engine ? ",engine=" : "", o->engine ? o->engine : "",
			 o->cpu_mask ? ",cpu-mask=" : "", o->cpu_mask ? o->cpu_mask : "",
			 o->verbose ? ",counters=on" : "");

	if (n >= (int)sizeof(text))
		return why_set(why, E2BIG, OPTIONS_ENV " is too long; shorten it");
	if (!o->engine && !o->cpu_mask && !o->verbose)
		return 0;
	setenv(OPTIONS_ENV, text[0] == ',' ? text + 1 : text, 1);
	return 0;
}

/* The head of a kernel says which modules are its own. */
static bool kernel_release(const char *path, char *release, size_t room)
{
	static u8 head[65536];
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof(head));

	if (fd >= 0)
		close(fd);
	return n > 0 && bzimage_release(head, (size_t)n, release, room);
}

/* A kernel without modules may have its drivers inside: so that they are not found is a warning. */
static void modules_find(struct modules *modules, const char *kernel, const struct vmm_devices *d)
{
	char release[128], root[PATH_MAX];
	struct why why;

	if (!devices_any(d) || !kernel_release(kernel, release, sizeof(release)))
		return;
	if (cache_modules(release, root, &why) < 0 || device_modules(modules, d, root, &why) < 0)
		say("warning: %s", why.text);
}

/* Those of a command are mounted elsewhere. */
static bool is_own_tag(const char *tag)
{
	return strcmp(tag, INITRAMFS_ROOT_TAG) == 0 || strcmp(tag, INITRAMFS_FOLDER_TAG) == 0;
}

static int builtin_initrd(struct cpio *initramfs, const char *kernel, const struct run_options *o,
			  struct why *why)
{
	struct initramfs_request request = { .shell = isatty(STDIN_FILENO) };
	const char *tags[VMM_MAX_SHARES];
	struct modules modules = { .count = 0 };
	char busybox[PATH_MAX];
	int r = cache_busybox(busybox, why);

	if (r < 0)
		return r;
	modules_find(&modules, kernel, &o->devices);
	request.busybox = busybox;
	request.modules = &modules;
	request.command = o->command ? &o->guest : NULL;
	request.tags = tags;
	request.net_count = o->devices.net_count;
	for (unsigned i = 0; i < o->devices.share_count; i++)
		if (!is_own_tag(o->devices.shares[i].tag))
			tags[request.tag_count++] = o->devices.shares[i].tag;
	if (!terminal_size(&request.rows, &request.columns))
		request.rows = 0;
	r = initramfs_make(initramfs, &request, why);
	modules_free(&modules);
	return r;
}

static void print_equivalent(const struct run_options *o, const struct vmm_config *c)
{
	if (c->flat)
		say("# anykvm run --flat %s@0x%x --mem %lluK", c->flat, c->flat_address,
		    (unsigned long long)(c->memory >> 10));
	else
		say("# anykvm run --kernel '%s' %s%s --append '%s' --mem %lluK --cpus %u --cpu "
		    "%s%s%s",
		    c->kernel, c->initrd ? "--initrd " : "",
		    !c->initrd ? "" : (o->initrd ? o->initrd : INITRD_BUILTIN), c->append,
		    (unsigned long long)(c->memory >> 10), c->cpus, c->cpu,
		    c->device ? " --device " : "", c->device ? c->device : "");
}

/* The machine that comes must be the one that was asked for here. */
static int incoming_check(const struct description *d, const struct vmm_config *config,
			  struct why *why)
{
	if (d->memory == config->memory && d->cpus == config->cpus)
		return 0;
	return why_set(why, EINVAL,
		       "the machine that comes has --mem %lluK --cpus %u, and here are --mem %lluK "
		       "--cpus %u",
		       (unsigned long long)d->memory >> 10, d->cpus,
		       (unsigned long long)config->memory >> 10, config->cpus);
}

static int run_incoming(const struct run_options *o, struct vmm_config *config)
{
	struct incoming incoming;
	struct why why;
	int status = STATUS_INCOMING;
	int r = incoming_open(&incoming, o->incoming, &why);

	if (r == 0) {
		r = incoming_check(&incoming.description, config, &why);
		if (r < 0)
			incoming_refuse(&incoming, why.text);
	}
	if (r < 0) {
		say("%s", why.text);
	} else {
		config->incoming = &incoming;
		status = board_run(config);
		if (!incoming.control)
			incoming_refuse(&incoming,
					"it cannot make such a machine; what it printed says why");
	}
	incoming_free(&incoming);
	return status;
}

static int run_kernel(const struct run_options *o, struct vmm_config *config)
{
	const bool is_builtin =
		o->initrd ? strcmp(o->initrd, INITRD_BUILTIN) == 0 : !o->kernel || o->command;
	struct cpio initramfs = { .data = NULL };
	struct blob file = { .data = NULL };
	char kernel[PATH_MAX];
	struct why why;
	int status = STATUS_USAGE;
	int r = 0;

	config->kernel = o->kernel;
	if (!o->kernel) {
		r = cache_kernel(CACHE_DEFAULT_KERNEL, false, kernel, &why);
		config->kernel = kernel;
	}
	if (r == 0 && is_builtin)
		r = builtin_initrd(&initramfs, config->kernel, o, &why);
	else if (r == 0 && o->initrd)
		r = blob_read(&file, o->initrd, "initrd", INITRD_MAX, &why);
	if (r < 0) {
		say("%s", why.text);
	} else {
		config->initrd = is_builtin ? initramfs.data : file.data;
		config->initrd_size = is_builtin ? initramfs.size : file.size;
		if (config->verbose)
			print_equivalent(o, config);
		/* Nothing is started from here on. */
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		status = o->incoming ? run_incoming(o, config) : board_run(config);
	}
	cpio_free(&initramfs);
	blob_free(&file);
	return status;
}

/* Where "--" is, or @argc. */
static int command_at(int argc, char **argv)
{
	int i = 1;

	while (i < argc && strcmp(argv[i], "--") != 0)
		i++;
	return i;
}

static void words_join(char *text, size_t room, int argc, char **argv)
{
	size_t n = 0;

	text[0] = 0;
	for (int i = 1; i < argc && n < room; i++)
		n += (size_t)snprintf(text + n, room - n, "%s%s", i > 1 ? " " : "", argv[i]);
}

int cmd_run(int argc, char **argv)
{
	struct run_options o = { .memory = 1ull << 30, .cpus = 1, .cpu = "host", .append = NULL };
	struct vmm_config config;
	struct why why;
	const int words = command_at(argc, argv);
	int r = args_parse(&run_table, words, argv, &o, NULL, 0, &why);

	if (r == -ENOENT)
		return help();
	if (r == 0 && words < argc) {
		o.command = argv + words + 1;
		r = command_prepare(&o.devices, &o.guest, o.command, &why);
	}
	if (r == 0)
		r = options_check(&o, &why);
	if (r == 0)
		r = library_options_set(&o, &why);
	if (r < 0) {
		say("%s", why.text);
		free(o.guest.script);
		return STATUS_USAGE;
	}
	words_join(o.text, sizeof(o.text), argc, argv);
	say_set_name(o.name);
	config = (struct vmm_config){
		.name = o.name,
		.options = o.text,
		.append = o.append    ? o.append
			  : o.command ? "console=ttyS0 quiet loglevel=3"
				      : "console=ttyS0",
		.is_command = o.command,
		.console_is_apart = o.command && !o.guest.is_terminal,
		.memory = o.memory,
		.cpus = o.cpus,
		.cpu = o.cpu,
		.device = o.device,
		.devices = &o.devices,
		.flat = o.flat ? o.flat_path : NULL,
		.gdb = o.gdb,
		.flat_address = o.flat_address,
		.no_reboot = o.no_reboot,
		.json = o.json,
		.verbose = o.verbose,
	};
	if (!o.flat) {
		r = run_kernel(&o, &config);
		free(o.guest.script);
		return r;
	}
	if (o.verbose)
		print_equivalent(&o, &config);
	return flat_run(&config);
}

static int restore_help(void)
{
	printf("usage: anykvm restore FILE [OPTIONS]\n\n"
	       "Runs the VM that 'anykvm snapshot' has written to FILE. Memory, processors and "
	       "all\n"
	       "state come from the file; devices are given as they were to 'anykvm run'. A guest\n"
	       "that resets ends, since no kernel is in the file.\n\n");
	args_help(&restore_table, stdout);
	return STATUS_OK;
}

static int restore_run(const struct run_options *o, struct snapshot *snapshot, u64 started_ns)
{
	const struct vmm_config config = {
		.name = o->name,
		.options = snapshot->description.options,
		.snapshot = snapshot,
		.is_lazy = o->lazy,
		.is_followed = o->follow,
		.started_ns = started_ns,
		.memory = snapshot->description.memory,
		.cpus = snapshot->description.cpus,
		.cpu = o->cpu,
		.device = o->device,
		.devices = &o->devices,
		.no_reboot = true,
		.json = o->json,
		.verbose = o->verbose,
	};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return board_run(&config);
}

int cmd_restore(int argc, char **argv)
{
	struct run_options o = { .cpu = "host" };
	struct snapshot snapshot = { .fd = -1 };
	const u64 started_ns = move_now_us() * 1000;
	const char *file = NULL;
	struct why why;
	int status, r = args_parse(&restore_table, argc, argv, &o, &file, 1, &why);

	if (r == -ENOENT)
		return restore_help();
	if (r == 0)
		r = why_set(&why, EINVAL, "restore needs a file; write anykvm restore FILE");
	if (r > 0)
		r = library_options_set(&o, &why);
	say_set_name(o.name);
	if (r >= 0)
		r = snapshot_open(&snapshot, file, &why);
	if (r < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	status = restore_run(&o, &snapshot, started_ns);
	if (status == STATUS_USAGE && snapshot.description.options[0])
		say("it was started as: anykvm run %s", snapshot.description.options);
	snapshot_close(&snapshot);
	return status;
}
