/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Flat images in real mode: a machine of memory and a processor, whose exits and last registers are told. */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/blob.h"
#include "vmm/board.h"
#include "vmm/exits.h"
#include "vmm/report.h"
#include "vmm/say.h"

#define IMAGE_MAX   (64u << 20)
#define RECORDS_MAX 4096u

struct record {
	u32 reason;
	u8 is_write, size;
	u64 address; /* or port */
	u64 value;
};

struct flat {
	const struct vmm_config *config;
	struct kvmdev dev;
	struct ram ram;
	struct machine machine;
	struct processor cpu;
	struct ending ending;
	struct exits exits;
	struct record records[RECORDS_MAX];
	u64 record_count; /* also of those that found no room */
	int end_signal;
};

static struct flat *interrupted; /* for the handler */

static void record_add(struct flat *f, const struct record *r)
{
	if (f->record_count < RECORDS_MAX)
		f->records[f->record_count] = *r;
	f->record_count++;
}

/* Nobody is there: reads give ones. */
static void flat_io(void *owner, const struct kvm_run *run, u8 *data)
{
	struct record r = { KVM_EXIT_IO, run->io.direction == KVM_EXIT_IO_OUT, run->io.size,
			    run->io.port, 0 };

	if (!r.is_write)
		memset(data, 0xff, run->io.size);
	memcpy(&r.value, data, run->io.size);
	record_add(owner, &r);
}

static void flat_mmio(void *owner, struct kvm_run *run)
{
	struct record r = { KVM_EXIT_MMIO, run->mmio.is_write, (u8)run->mmio.len,
			    run->mmio.phys_addr, 0 };

	if (!r.is_write)
		memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
	memcpy(&r.value, run->mmio.data, run->mmio.len <= 8 ? run->mmio.len : 8);
	record_add(owner, &r);
}

static const struct exits_ops flat_exits = { .io = flat_io, .mmio = flat_mmio, .halt_ends = true };

static void interrupt(int signal)
{
	struct flat *f = interrupted;

	f->end_signal = signal;
	ending_set(&f->ending, VM_SIGNAL);
	__atomic_store_n(&f->cpu.run->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

static void signals_take(struct flat *f)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	/* Once: a second one ends the process whatever the processor does. */
	struct sigaction action = { .sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND };

	interrupted = f;
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &action, NULL);
}

struct named {
	const char *name;
	u64 value;
};

#define GENERAL 18

static void general_list(const struct kvm_regs *r, struct named out[GENERAL])
{
	const struct named list[GENERAL] = {
		{ "rax", r->rax }, { "rbx", r->rbx },	    { "rcx", r->rcx }, { "rdx", r->rdx },
		{ "rsi", r->rsi }, { "rdi", r->rdi },	    { "rsp", r->rsp }, { "rbp", r->rbp },
		{ "r8", r->r8 },   { "r9", r->r9 },	    { "r10", r->r10 }, { "r11", r->r11 },
		{ "r12", r->r12 }, { "r13", r->r13 },	    { "r14", r->r14 }, { "r15", r->r15 },
		{ "rip", r->rip }, { "rflags", r->rflags },
	};

	memcpy(out, list, sizeof(list));
}

#define CONTROL 9

static void control_list(const struct kvm_sregs *s, struct named out[CONTROL])
{
	const struct named list[CONTROL] = {
		{ "cr0", s->cr0 },
		{ "cr2", s->cr2 },
		{ "cr3", s->cr3 },
		{ "cr4", s->cr4 },
		{ "efer", s->efer },
		{ "gdt_base", s->gdt.base },
		{ "gdt_limit", s->gdt.limit },
		{ "idt_base", s->idt.base },
		{ "idt_limit", s->idt.limit },
	};

	memcpy(out, list, sizeof(list));
}

#define SEGMENTS 8

struct named_segment {
	const char *name;
	const struct kvm_segment *segment;
};

static void segment_list(const struct kvm_sregs *s, struct named_segment out[SEGMENTS])
{
	const struct named_segment list[SEGMENTS] = {
		{ "cs", &s->cs }, { "ds", &s->ds }, { "es", &s->es }, { "fs", &s->fs },
		{ "gs", &s->gs }, { "ss", &s->ss }, { "tr", &s->tr }, { "ldt", &s->ldt },
	};

	memcpy(out, list, sizeof(list));
}

static void print_text(const struct flat *f, const struct kvm_regs *regs,
		       const struct kvm_sregs *sregs)
{
	struct named general[GENERAL], control[CONTROL];
	struct named_segment segments[SEGMENTS];

	for (u64 i = 0; i < f->record_count && i < RECORDS_MAX; i++) {
		const struct record *r = &f->records[i];
		const bool is_io = r->reason == KVM_EXIT_IO;

		printf("exit %s %s %s 0x%llx size %u value 0x%llx\n", exit_name(r->reason),
		       is_io ? (r->is_write ? "out" : "in") : (r->is_write ? "write" : "read"),
		       is_io ? "port" : "address", (unsigned long long)r->address, r->size,
		       (unsigned long long)r->value);
	}
	if (f->record_count > RECORDS_MAX)
		printf("and %llu more\n", (unsigned long long)(f->record_count - RECORDS_MAX));
	printf("exit %s\n", exit_name(f->cpu.run->exit_reason));
	general_list(regs, general);
	for (unsigned i = 0; i < GENERAL; i++)
		printf("%s 0x%llx\n", general[i].name, (unsigned long long)general[i].value);
	segment_list(sregs, segments);
	for (unsigned i = 0; i < SEGMENTS; i++) {
		const struct kvm_segment *s = segments[i].segment;

		printf("%s 0x%x base 0x%llx limit 0x%x type 0x%x s %u dpl %u present %u db %u l %u "
		       "g %u\n",
		       segments[i].name, s->selector, (unsigned long long)s->base, s->limit,
		       s->type, s->s, s->dpl, s->present, s->db, s->l, s->g);
	}
	control_list(sregs, control);
	for (unsigned i = 0; i < CONTROL; i++)
		printf("%s 0x%llx\n", control[i].name, (unsigned long long)control[i].value);
}

/* 64-bit values as strings: JSON's numbers do not hold them everywhere. */
static void set_hex(json_t *object, const char *key, u64 value)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
	json_object_set_new(object, key, json_string(text));
}

static json_t *json_records(const struct flat *f)
{
	json_t *array = json_array();

	for (u64 i = 0; i < f->record_count && i < RECORDS_MAX; i++) {
		const struct record *r = &f->records[i];
		const bool is_io = r->reason == KVM_EXIT_IO;
		json_t *o = json_object();

		json_object_set_new(o, "exit", json_string(exit_name(r->reason)));
		json_object_set_new(o, "write", json_boolean(r->is_write));
		set_hex(o, is_io ? "port" : "address", r->address);
		json_object_set_new(o, "size", json_integer(r->size));
		set_hex(o, "value", r->value);
		json_array_append_new(array, o);
	}
	return array;
}

static json_t *json_segments(const struct kvm_sregs *sregs)
{
	struct named_segment segments[SEGMENTS];
	json_t *all = json_object();

	segment_list(sregs, segments);
	for (unsigned i = 0; i < SEGMENTS; i++) {
		const struct kvm_segment *s = segments[i].segment;
		json_t *o = json_object();

		set_hex(o, "selector", s->selector);
		set_hex(o, "base", s->base);
		set_hex(o, "limit", s->limit);
		set_hex(o, "type", s->type);
		json_object_set_new(o, "s", json_integer(s->s));
		json_object_set_new(o, "dpl", json_integer(s->dpl));
		json_object_set_new(o, "present", json_integer(s->present));
		json_object_set_new(o, "db", json_integer(s->db));
		json_object_set_new(o, "l", json_integer(s->l));
		json_object_set_new(o, "g", json_integer(s->g));
		json_object_set_new(all, segments[i].name, o);
	}
	return all;
}

static void print_json(const struct flat *f, const struct kvm_regs *regs,
		       const struct kvm_sregs *sregs, int status)
{
	struct named general[GENERAL], control[CONTROL];
	json_t *root = json_object(), *o;

	json_object_set_new(root, "exits", json_records(f));
	json_object_set_new(root, "exits_total", json_integer((json_int_t)f->record_count));
	json_object_set_new(root, "end", json_string(exit_name(f->cpu.run->exit_reason)));
	json_object_set_new(root, "status", json_integer(status));
	general_list(regs, general);
	o = json_object();
	for (unsigned i = 0; i < GENERAL; i++)
		set_hex(o, general[i].name, general[i].value);
	json_object_set_new(root, "registers", o);
	json_object_set_new(root, "segments", json_segments(sregs));
	control_list(sregs, control);
	o = json_object();
	for (unsigned i = 0; i < CONTROL; i++)
		set_hex(o, control[i].name, control[i].value);
	json_object_set_new(root, "control", o);
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
}

static int flat_tell(struct flat *f)
{
	const int status = report_status(&f->ending, f->end_signal);
	struct kvm_regs regs = { 0 };
	struct kvm_sregs sregs = { 0 };

	kvmdev_ioctl_ptr(&f->dev, f->cpu.fd, KVM_GET_REGS, &regs);
	kvmdev_ioctl_ptr(&f->dev, f->cpu.fd, KVM_GET_SREGS, &sregs);
	if (f->config->json)
		print_json(f, &regs, &sregs, status);
	else
		print_text(f, &regs, &sregs);
	fflush(stdout);
	if (ending_get(&f->ending) == VM_FAILED)
		say("%s", f->ending.why.text);
	if (f->config->verbose)
		kvmdev_print_counters(&f->dev, f->machine.fd);
	return status;
}

static int image_load(struct flat *f, struct why *why)
{
	struct blob image;
	int r = ram_create(&f->ram, f->config->memory, why);

	if (r == 0)
		r = blob_read(&image, f->config->flat, "flat image", IMAGE_MAX, why);
	if (r < 0)
		return r;
	r = ram_write(&f->ram, f->config->flat_address, image.data, image.size);
	if (r < 0)
		why_set(why, EINVAL,
			"the flat image of %zu bytes does not fit at 0x%x; give a "
			"larger --mem or a lower address",
			image.size, f->config->flat_address);
	blob_free(&image);
	return r;
}

static int flat_start(struct flat *f, struct why *why)
{
	int r = kvmdev_open(&f->dev, f->config->device, why);

	if (r == 0)
		r = machine_create(&f->machine, &f->dev, &f->ram, false, why);
	if (r == 0)
		r = processor_create(&f->cpu, &f->machine, 0, 1,
				     (struct processor_identity){ .model = f->config->cpu }, why);
	if (r == 0)
		r = processor_enter_flat(&f->cpu, f->config->flat_address, why);
	return r;
}

int flat_run(const struct vmm_config *config)
{
	struct flat *f = calloc(1, sizeof(*f));
	struct why why = { "no memory" };
	int status = STATUS_USAGE;
	int r = -ENOMEM;

	if (f) {
		f->config = config;
		f->dev.fd = -1;
		f->machine.fd = -1;
		f->cpu.fd = -1;
		r = image_load(f, &why);
	}
	if (r == 0) {
		r = flat_start(f, &why);
		status = r == -EINVAL ? STATUS_USAGE : STATUS_DEVICE;
	}
	if (r == 0) {
		f->exits.ops = &flat_exits;
		f->exits.owner = f;
		f->exits.cpu = &f->cpu;
		f->exits.ending = &f->ending;
		signals_take(f);
		exits_run(&f->exits);
		status = flat_tell(f);
	} else {
		say("%s", why.text);
	}
	if (f && f->cpu.fd >= 0)
		processor_destroy(&f->cpu);
	if (f && f->machine.fd >= 0)
		machine_destroy(&f->machine);
	if (f && f->dev.fd >= 0)
		kvmdev_close(&f->dev);
	if (f)
		ram_destroy(&f->ram);
	free(f);
	return status;
}
