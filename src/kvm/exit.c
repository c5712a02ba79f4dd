/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the processor could not do itself, as an exit of KVM_RUN; and user space's answer. */
#include <string.h>

#include "kvm/kvm.h"

static u8 *pio_data(struct vcpu *v)
{
	return (u8 *)v->run + RUN_PIO_OFFSET;
}

static long exit_io(struct vcpu *v)
{
	const struct x86_exit *e = &v->cpu->exit;
	struct kvm_run *run = v->run;
	u32 bytes = e->size * e->count;

	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = e->is_write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
	run->io.size = e->size;
	run->io.port = e->port;
	run->io.count = e->count;
	run->io.data_offset = RUN_PIO_OFFSET;
	if (e->is_write)
		memcpy(pio_data(v), e->data, bytes > sizeof(e->data) ? sizeof(e->data) : bytes);
	v->exit_due = true;
	return 0;
}

static long exit_mmio(struct vcpu *v)
{
	const struct x86_exit *e = &v->cpu->exit;
	struct kvm_run *run = v->run;

	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = e->gpa;
	run->mmio.len = e->size;
	run->mmio.is_write = e->is_write;
	memset(run->mmio.data, 0, sizeof(run->mmio.data));
	if (e->is_write)
		memcpy(run->mmio.data, e->data, sizeof(run->mmio.data));
	v->exit_due = true;
	return 0;
}

static long exit_hlt(struct vcpu *v)
{
	if (!v->lapic) {
		v->run->exit_reason = KVM_EXIT_HLT;
		return 0;
	}
	v->mp_state = KVM_MP_STATE_HALTED;
	return 1;
}

static long exit_shutdown(struct vcpu *v)
{
	v->run->exit_reason = KVM_EXIT_SHUTDOWN;
	return 0;
}

static long exit_debug(struct vcpu *v)
{
	const struct x86_cpu *cpu = v->cpu;
	struct kvm_debug_exit_arch *arch = &v->run->debug.arch;

	v->run->exit_reason = KVM_EXIT_DEBUG;
	arch->exception = cpu->exc.vector;
	arch->pc = cpu->seg[SEG_CS].base + cpu->rip;
	arch->dr6 = cpu->dr6;
	arch->dr7 = cpu->dr7;
	return 0;
}

/* An instruction that cannot be executed, or one that is to be fetched from where there is no memory. */
static long exit_internal(struct vcpu *v)
{
	v->run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	v->run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
	v->run->internal.ndata = 0;
	return 0;
}

static long (*const exits[])(struct vcpu *v) = {
	[X86_EXIT_IO] = exit_io,	  [X86_EXIT_MMIO] = exit_mmio,
	[X86_EXIT_HLT] = exit_hlt,	  [X86_EXIT_SHUTDOWN] = exit_shutdown,
	[X86_EXIT_DEBUG] = exit_debug,	  [X86_EXIT_INTERNAL] = exit_internal,
	[X86_EXIT_FETCH] = exit_internal,
};

long vcpu_exit(struct vcpu *v)
{
	u8 reason = v->cpu->exit.reason;

	if (reason < ARRAY_SIZE(exits) && exits[reason])
		return exits[reason](v);
	return exit_internal(v);
}

/*
 * The answer becomes a fragment of the replay, which the processor takes when the instruction runs
 * again; with a fragment there the engine holds a kick back until that instruction is complete.
 */
void vcpu_exit_complete(struct vcpu *v)
{
	struct x86_replay *r = &v->cpu->replay;
	const u8 *answer = v->cpu->exit.reason == X86_EXIT_IO ? pio_data(v) : v->run->mmio.data;

	v->exit_due = false;
	if (!r->waiting || r->n >= X86_REPLAY_MAX)
		return;
	if (!r->frag[r->n].is_write)
		memcpy(r->frag[r->n].data, answer, sizeof(r->frag[r->n].data));
	r->n++;
	r->waiting = false;
}
