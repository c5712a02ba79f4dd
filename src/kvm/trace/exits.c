/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Exits of KVM_RUN in words, and what user space answered. */
#include "base/kvm_names.h"
#include "kvm/trace/decode.h"

static void port_io(struct line *l, const struct kvm_run *run)
{
	const u8 *data = (const u8 *)run + RUN_PIO_OFFSET;
	bool out = run->io.direction == KVM_EXIT_IO_OUT;

	line_add(l, " %s port=%#x size=%u", out ? "out" : "in", run->io.port, run->io.size);
	if (run->io.count != 1)
		line_add(l, " count=%u", run->io.count);
	if (out) {
		line_add(l, " data=");
		line_data(l, data, run->io.size * run->io.count);
	}
}

static unsigned mmio_len(const struct kvm_run *run)
{
	return run->mmio.len < sizeof(run->mmio.data) ? run->mmio.len : sizeof(run->mmio.data);
}

static void mmio(struct line *l, const struct kvm_run *run)
{
	line_add(l, " %s gpa=%#llx len=%u", run->mmio.is_write ? "write" : "read",
		 (unsigned long long)run->mmio.phys_addr, run->mmio.len);
	if (run->mmio.is_write) {
		line_add(l, " data=");
		line_data(l, run->mmio.data, mmio_len(run));
	}
}

static void msr(struct line *l, const struct kvm_run *run)
{
	line_add(l, " msr=");
	line_msr(l, run->msr.index);
	if (run->exit_reason == KVM_EXIT_X86_WRMSR) {
		line_add(l, " data=");
		line_hex(l, run->msr.data);
	}
	line_add(l, " reason=%#x", run->msr.reason);
}

static void debug(struct line *l, const struct kvm_run *run)
{
	line_add(l, " exception=%u pc=%#llx dr6=%#llx", run->debug.arch.exception,
		 (unsigned long long)run->debug.arch.pc, (unsigned long long)run->debug.arch.dr6);
}

static void internal(struct line *l, const struct kvm_run *run)
{
	line_add(l, " suberror=%u", run->internal.suberror);
	if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION ||
	    !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
		return;
	line_add(l, " insn=");
	for (unsigned i = 0;
	     i < run->emulation_failure.insn_size && i < sizeof(run->emulation_failure.insn_bytes);
	     i++)
		line_add(l, "%02x", run->emulation_failure.insn_bytes[i]);
}

static void system_event(struct line *l, const struct kvm_run *run)
{
	static const struct line_name types[] = { { KVM_SYSTEM_EVENT_SHUTDOWN, "SHUTDOWN" },
						  { KVM_SYSTEM_EVENT_RESET, "RESET" },
						  { KVM_SYSTEM_EVENT_CRASH, "CRASH" },
						  { 0, NULL } };

	line_add(l, " type=");
	line_enum(l, types, run->system_event.type);
}

static void hyperv(struct line *l, const struct kvm_run *run)
{
	if (run->hyperv.type == KVM_EXIT_HYPERV_HCALL)
		line_add(l, " hypercall input=%#llx",
			 (unsigned long long)run->hyperv.u.hcall.input);
	else
		line_add(l, " type=%u", run->hyperv.type);
}

static void xen(struct line *l, const struct kvm_run *run)
{
	line_add(l, " hypercall %llu cpl=%u params=%#llx, %#llx",
		 (unsigned long long)run->xen.u.hcall.input, run->xen.u.hcall.cpl,
		 (unsigned long long)run->xen.u.hcall.params[0],
		 (unsigned long long)run->xen.u.hcall.params[1]);
}

static void fail_entry(struct line *l, const struct kvm_run *run)
{
	line_add(l, " hardware_reason=%#llx",
		 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
}

static void tpr_access(struct line *l, const struct kvm_run *run)
{
	line_add(l, " %s rip=%#llx", run->tpr_access.is_write ? "write" : "read",
		 (unsigned long long)run->tpr_access.rip);
}

static void eoi(struct line *l, const struct kvm_run *run)
{
	line_add(l, " vector=%#x", run->eoi.vector);
}

static void (*const details[])(struct line *l, const struct kvm_run *run) = {
	[KVM_EXIT_IO] = port_io,
	[KVM_EXIT_MMIO] = mmio,
	[KVM_EXIT_X86_RDMSR] = msr,
	[KVM_EXIT_X86_WRMSR] = msr,
	[KVM_EXIT_DEBUG] = debug,
	[KVM_EXIT_INTERNAL_ERROR] = internal,
	[KVM_EXIT_SYSTEM_EVENT] = system_event,
	[KVM_EXIT_HYPERV] = hyperv,
	[KVM_EXIT_XEN] = xen,
	[KVM_EXIT_FAIL_ENTRY] = fail_entry,
	[KVM_EXIT_TPR_ACCESS] = tpr_access,
	[KVM_EXIT_IOAPIC_EOI] = eoi,
};

u64 decode_rip(const struct vcpu *v)
{
	/* Who sets registers of a vCPU that runs in another thread sees either value here. */
	return __atomic_load_n(&v->cpu->rip, __ATOMIC_RELAXED);
}

void decode_exit(struct line *l, const struct vcpu *v)
{
	const struct kvm_run *run = v->run;
	const u32 reason = run->exit_reason;
	const char *name = kvm_name_of(KVM_NAME_EXIT, reason);

	if (name)
		line_add(l, "%s", name);
	else
		line_add(l, "exit %u", reason);
	if (reason < ARRAY_SIZE(details) && details[reason])
		details[reason](l, run);
	line_add(l, " rip=%#llx", (unsigned long long)decode_rip(v));
}

void decode_answer(struct line *l, const struct vcpu *v)
{
	const struct kvm_run *run = v->run;

	if (run->immediate_exit)
		line_add(l, " {immediate_exit}");
	if (run->request_interrupt_window)
		line_add(l, " {interrupt window}");
	if (!v->exit_due)
		return;
	if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN) {
		line_add(l, " {answer ");
		line_data(l, (const u8 *)run + RUN_PIO_OFFSET, run->io.size * run->io.count);
		line_add(l, "}");
	} else if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write) {
		line_add(l, " {answer ");
		line_data(l, run->mmio.data, mmio_len(run));
		line_add(l, "}");
	} else if (run->exit_reason == KVM_EXIT_X86_RDMSR && !run->msr.error) {
		line_add(l, " {answer %#llx}", (unsigned long long)run->msr.data);
	} else if (run->exit_reason == KVM_EXIT_X86_RDMSR ||
		   run->exit_reason == KVM_EXIT_X86_WRMSR) {
		line_add(l, " {%s}", run->msr.error ? "refused" : "accepted");
	}
}
