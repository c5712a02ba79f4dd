/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the processor could not do itself, as an exit of KVM_RUN; and user space's answer. */
#include <errno.h>
#include <string.h>

#include "base/probe.h"
#include "cpu/x86/access.h"
#include "cpu/x86/control.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/mode.h"
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

	v->stats.io_exits++;
	PROBE(kvm_pio, v->id, e->is_write, e->port, e->size, e->count);
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

	v->stats.mmio_exits++;
	PROBE(kvm_mmio, v->id, e->is_write, e->size, e->gpa);
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

/* kvm_run was filled when the access failed. */
static long exit_msr(struct vcpu *v)
{
	v->run->exit_reason =
		v->cpu->exit.reason == X86_EXIT_RDMSR ? KVM_EXIT_X86_RDMSR : KVM_EXIT_X86_WRMSR;
	v->exit_due = true;
	return 0;
}

/* kvm_run was filled by the interface whose call it is. */
static long exit_hypercall(struct vcpu *v)
{
	v->run->exit_reason = v->cpu->exit.port;
	v->exit_due = true;
	return 0;
}

static void hypercall_complete(struct vcpu *v)
{
	bool xen = v->cpu->exit.port == KVM_EXIT_XEN;
	u64 r = xen ? v->run->xen.u.hcall.result : v->run->hyperv.u.hcall.result;

	x86_gpr_write(v->cpu, RAX, r, x86_is_64(v->cpu) ? 8 : 4);
	if (!xen && !x86_is_64(v->cpu))
		x86_gpr_write(v->cpu, RDX, r >> 32, 4);
	vcpu_skip_instruction(v);
}

static long exit_hlt(struct vcpu *v)
{
	v->stats.halt_exits++;
	if (!v->lapic && v->vm->hlt_in_guest) {
		v->pv.halted = true;
		return 1;
	}
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
	arch->exception = cpu->exit.port;
	arch->pc = cpu->seg[SEG_CS].base + cpu->rip;
	arch->dr6 = DR6_FIXED | cpu->exit.error;
	arch->dr7 = x86_dr7(cpu);
	return 0;
}

#define INSN_MAX 15

struct insn_read {
	struct vcpu *v;
	u8 *bytes;
	unsigned n;
};

static enum x86_status insn_read(void *arg)
{
	struct insn_read *r = arg;
	struct x86_cpu *cpu = r->v->cpu;
	gva_t lin = cpu->seg[SEG_CS].base + cpu->rip;
	struct x86_xlate x;

	for (; r->n < INSN_MAX; r->n++) {
		gva_t at = x86_is_64(cpu) ? lin + r->n : (u32)(lin + r->n);

		if (!x86_walk_debug(cpu, at, &x) ||
		    mem_read(r->v->vm->mem, cpu->space, x.gpa, r->bytes + r->n, 1))
			break;
	}
	return X86_OK;
}

/* The bytes at RIP as far as they are memory; changes nothing in the guest. */
static unsigned insn_bytes(struct vcpu *v, u8 *bytes)
{
	struct insn_read r = { v, bytes, 0 };

	(void)engine_guarded(v->engine, insn_read, &r);
	return r.n;
}

/* An instruction that cannot be executed, or one that is to be fetched from where there is no memory. */
static long exit_internal(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	unsigned n;

	v->stats.insn_emulation_fail++;
	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
	run->emulation_failure.flags = 0;
	memset(run->emulation_failure.insn_bytes, 0x90, sizeof(run->emulation_failure.insn_bytes));
	n = insn_bytes(v, run->emulation_failure.insn_bytes);
	run->emulation_failure.insn_size = n;
	if (n)
		run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
	run->emulation_failure.ndata = n ? 3 : 1; /* in words of 8 bytes: flags, and 16 bytes */
	return 0;
}

/* The part of struct kvm_run, which headers before Linux 6.8 do not have. */
struct memory_fault {
	u64 flags, gpa, size;
};

/*
 * As the kernel when it cannot get a page of the program's: the state is at the start of the instruction.
 * DIFFERS: which page it was is told of all memory; the kernel tells it of memory by guest_memfd.
 */
static long exit_memory(struct vcpu *v)
{
	gpa_t gpa = v->cpu->exit.gpa;
	struct memory_fault *m = (struct memory_fault *)&v->run->hw;

	if (gpa != X86_NO_GPA) {
		v->run->exit_reason = KVM_EXIT_MEMORY_FAULT;
		*m = (struct memory_fault){ .gpa = gpa & PAGE_MASK, .size = PAGE_SIZE };
	}
	return -EFAULT;
}

static long (*const exits[])(struct vcpu *v) = {
	[X86_EXIT_IO] = exit_io,
	[X86_EXIT_MMIO] = exit_mmio,
	[X86_EXIT_HLT] = exit_hlt,
	[X86_EXIT_SHUTDOWN] = exit_shutdown,
	[X86_EXIT_DEBUG] = exit_debug,
	[X86_EXIT_INTERNAL] = exit_internal,
	[X86_EXIT_FETCH] = exit_internal,
	[X86_EXIT_RDMSR] = exit_msr,
	[X86_EXIT_HYPERCALL] = exit_hypercall,
	[X86_EXIT_WRMSR] = exit_msr,
	[X86_EXIT_MEMORY] = exit_memory,
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
	const struct x86_exit *e = &v->cpu->exit;
	const u8 *answer = e->reason == X86_EXIT_IO ? pio_data(v) : v->run->mmio.data;

	v->exit_due = false;
	if (e->reason == X86_EXIT_RDMSR || e->reason == X86_EXIT_WRMSR) {
		vcpu_msr_complete(v);
		return;
	}
	if (e->reason == X86_EXIT_HYPERCALL) {
		hypercall_complete(v);
		return;
	}
	if (!r->waiting || r->n >= X86_REPLAY_MAX)
		return;
	if (!r->frag[r->n].is_write)
		memcpy(r->frag[r->n].data, answer, sizeof(r->frag[r->n].data));
	if (e->reason == X86_EXIT_IO && e->count > 1) {
		v->cpu->ahead.at = 0;
		v->cpu->ahead.end = (e->count - 1) * e->size;
		memcpy(v->cpu->ahead.data, answer + e->size, v->cpu->ahead.end);
	}
	r->n++;
	r->waiting = false;
}
