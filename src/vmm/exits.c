/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Running one virtual processor: KVM_RUN, and a table of what follows from each exit. */
#include "vmm/exits.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void ending_set(struct ending *e, enum vm_end how)
{
	if (!atomic_exchange(&e->claimed, true))
		atomic_store_explicit(&e->end, (int)how, memory_order_release);
}

void ending_fail(struct ending *e, int status, const char *format, ...)
{
	va_list args;

	if (atomic_exchange(&e->claimed, true))
		return;
	va_start(args, format);
	vsnprintf(e->why.text, sizeof(e->why.text), format, args);
	va_end(args);
	e->status = status;
	atomic_store_explicit(&e->end, VM_FAILED, memory_order_release);
}

static void exit_io(struct exits *x, struct kvm_run *run)
{
	u8 *data = (u8 *)run + run->io.data_offset;

	for (u32 i = 0; i < run->io.count; i++)
		x->ops->io(x->owner, run, data + (size_t)i * run->io.size);
}

static void exit_mmio(struct exits *x, struct kvm_run *run)
{
	x->ops->mmio(x->owner, run);
}

static void exit_hlt(struct exits *x, struct kvm_run *run)
{
	(void)run;
	if (x->ops->halt_ends)
		ending_set(x->ending, VM_POWEROFF);
	else
		ending_fail(x->ending, STATUS_UNEXPECTED,
			    "the device gave KVM_EXIT_HLT although it has the "
			    "interrupt controllers; report this");
}

static void exit_debug(struct exits *x, struct kvm_run *run)
{
	if (x->ops->debug)
		x->ops->debug(x->owner, x->cpu->index, run);
	else
		ending_fail(
			x->ending, STATUS_UNEXPECTED,
			"the device gave KVM_EXIT_DEBUG, and there is no debugger; report this");
}

static void exit_shutdown(struct exits *x, struct kvm_run *run)
{
	(void)run;
	ending_set(x->ending, VM_TRIPLE_FAULT);
}

static void exit_fail_entry(struct exits *x, struct kvm_run *run)
{
	ending_fail(x->ending, STATUS_ENTRY,
		    "the processor cannot be entered (KVM_EXIT_FAIL_ENTRY, reason 0x%llx); the "
		    "state that the guest made is invalid",
		    (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
}

/* The bytes of the instruction, where the device tells them. */
static void instruction_text(const struct kvm_run *run, char *text, size_t room)
{
	const u64 flag = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
	size_t n = 0;

	text[0] = 0;
	if (run->emulation_failure.ndata < 1 || !(run->emulation_failure.flags & flag))
		return;
	for (u8 i = 0; i < run->emulation_failure.insn_size && i < 15 && n + 4 < room; i++)
		n += (size_t)snprintf(text + n, room - n, " %02x",
				      run->emulation_failure.insn_bytes[i]);
}

static void exit_internal(struct exits *x, struct kvm_run *run)
{
	const bool is_emulation = run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION;
	struct kvm_regs regs = { 0 };
	char bytes[64] = "";

	kvmdev_ioctl_ptr(x->cpu->machine->dev, x->cpu->fd, KVM_GET_REGS, &regs);
	if (is_emulation)
		instruction_text(run, bytes, sizeof(bytes));
	ending_fail(x->ending, STATUS_INTERNAL,
		    "the device gave up at RIP 0x%llx (KVM_EXIT_INTERNAL_ERROR, suberror %u%s%s)",
		    (unsigned long long)regs.rip, run->internal.suberror,
		    is_emulation ? ": an instruction that it cannot emulate" : "", bytes);
}

static void exit_system_event(struct exits *x, struct kvm_run *run)
{
	switch (run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		ending_set(x->ending, VM_POWEROFF);
		break;
	case KVM_SYSTEM_EVENT_RESET:
		ending_set(x->ending, VM_RESET);
		break;
	default:
		ending_fail(x->ending, STATUS_CRASHED,
			    "the guest reports that it crashed (system event %u)",
			    run->system_event.type);
	}
}

/* Something to look at and go on with: a signal, or a window that was not asked for. */
static void exit_nothing(struct exits *x, struct kvm_run *run)
{
	(void)x;
	(void)run;
}

static const struct exit_row {
	const char *name;
	void (*handle)(struct exits *x, struct kvm_run *run); /* NULL: not expected here */
} exit_rows[EXIT_REASONS] = {
	[KVM_EXIT_UNKNOWN] = { "unknown", NULL },
	[KVM_EXIT_EXCEPTION] = { "exception", NULL },
	[KVM_EXIT_IO] = { "io", exit_io },
	[KVM_EXIT_DEBUG] = { "debug", exit_debug },
	[KVM_EXIT_HLT] = { "hlt", exit_hlt },
	[KVM_EXIT_MMIO] = { "mmio", exit_mmio },
	[KVM_EXIT_IRQ_WINDOW_OPEN] = { "irq-window-open", exit_nothing },
	[KVM_EXIT_SHUTDOWN] = { "shutdown", exit_shutdown },
	[KVM_EXIT_FAIL_ENTRY] = { "fail-entry", exit_fail_entry },
	[KVM_EXIT_INTR] = { "intr", exit_nothing },
	[KVM_EXIT_SET_TPR] = { "set-tpr", exit_nothing },
	[KVM_EXIT_INTERNAL_ERROR] = { "internal-error", exit_internal },
	[KVM_EXIT_SYSTEM_EVENT] = { "system-event", exit_system_event },
	[KVM_EXIT_IOAPIC_EOI] = { "ioapic-eoi", exit_nothing },
	[KVM_EXIT_X86_RDMSR] = { "x86-rdmsr", NULL },
	[KVM_EXIT_X86_WRMSR] = { "x86-wrmsr", NULL },
};

const char *exit_name(u32 reason)
{
	return reason < EXIT_REASONS ? exit_rows[reason].name : NULL;
}

static void exit_serve(struct exits *x)
{
	struct kvm_run *run = x->cpu->run;
	const u32 reason = run->exit_reason;

	if (reason >= EXIT_REASONS || !exit_rows[reason].handle) {
		ending_fail(x->ending, STATUS_UNEXPECTED,
			    "the device gave exit %u (%s), which this board "
			    "does not know",
			    reason, exit_name(reason) ? exit_name(reason) : "?");
		return;
	}
	x->counts[reason]++;
	exit_rows[reason].handle(x, run);
}

/*
 * Interrupted: by the end, by a signal that means nothing, or because the gate was closed. Who closes it does so first and
 * asks for an immediate exit then; here the order is the other way round.
 */
static void interrupted(struct exits *x, bool leaving)
{
	x->signals++;
	__atomic_store_n(&x->cpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	if (leaving)
		gate_pass(x->gate, x->cpu->index);
}

/* With an immediate exit KVM_RUN finishes the last exit and nothing more: only then the state is whole. */
void exits_run(struct exits *x)
{
	const struct kvmdev *dev = x->cpu->machine->dev;

	if (x->gate)
		gate_enter(x->gate, x->cpu->index);
	if (x->ops->enters)
		x->ops->enters(x->owner);
	while (ending_get(x->ending) == VM_RUNNING) {
		const bool leaving = x->gate && gate_is_closed(x->gate, x->cpu->index);
		int r;

		if (leaving)
			__atomic_store_n(&x->cpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		r = kvmdev_ioctl(dev, x->cpu->fd, KVM_RUN, 0);
		if (r == 0)
			exit_serve(x);
		else if (r == -EINTR)
			interrupted(x, leaving);
		else if (r == -EAGAIN)
			x->signals++;
		else
			ending_fail(x->ending, STATUS_INTERNAL, "the device %s refuses KVM_RUN: %s",
				    dev->path, strerror(-r));
	}
	if (x->gate)
		gate_leave(x->gate);
}
