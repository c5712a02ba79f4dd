/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Task priority and user space: KVM_SET_VAPIC_ADDR, KVM_TPR_ACCESS_REPORTING, and exits that are due after an instruction. */
#include <errno.h>

#include "kvm/kvm.h"
#include "kvm/usercopy.h"

#define APIC_PAGE  0xfffull
#define APIC_TPR   0x80
#define APICBASE_X 0xc00ull /* enabled, x2APIC */
#define XAPIC_ON   0x800ull

/* Before entry: the guest's patched code finds TPR, service and request there. */
void vapic_enter(struct vcpu *v)
{
	u32 word = lapic_vapic_word(v->lapic);

	v->pv.vapic_shown = true;
	(void)mem_write_as(v->vm->mem, v->cpu->writer, 0, v->pv.vapic, &word, sizeof(word));
}

/* After it: the TPR that it left. */
void vapic_leave(struct vcpu *v)
{
	u32 word;

	v->pv.vapic_shown = false;
	if (!mem_read(v->vm->mem, 0, v->pv.vapic, &word, sizeof(word)))
		lapic_tpr_byte_set(v->lapic, (u8)word);
}

long vapic_set_addr(struct call *c)
{
	struct vcpu *v = c->vcpu;
	struct kvm_vapic_addr a;

	if (!v->lapic)
		return -EINVAL;
	if (user_read(&a, c->arg, sizeof(a)))
		return -EFAULT;
	if (a.vapic_addr && !mem_is_writable(v->vm->mem, 0, a.vapic_addr, sizeof(u32)))
		return -EINVAL;
	v->pv.vapic = a.vapic_addr;
	v->pv.vapic_shown = false;
	return 0;
}

long vapic_tpr_reporting(struct call *c)
{
	struct kvm_tpr_access_ctl *t = c->data;

	if (t->flags)
		return -EINVAL;
	c->vcpu->pv.tpr_reports = t->enabled;
	return 0;
}

/* After an access of the APIC's page. */
void vapic_note_access(struct vcpu *v, gpa_t gpa, bool is_write)
{
	if (likely(!v->pv.tpr_reports) || (gpa & APIC_PAGE) != APIC_TPR ||
	    (vcpu_apic_base(v) & APICBASE_X) != XAPIC_ON)
		return;
	v->run->tpr_access.rip = v->cpu->rip;
	v->run->tpr_access.is_write = is_write;
	v->pv.tpr_access = true;
	v->cpu->kick = 1;
}

bool vcpu_late_exit(struct vcpu *v)
{
	int vector;

	if (unlikely(v->pv.tpr_access)) {
		v->pv.tpr_access = false;
		v->run->exit_reason = KVM_EXIT_TPR_ACCESS;
		return true;
	}
	if (unlikely(v->pv.tpr_lowered)) {
		v->pv.tpr_lowered = false;
		v->run->exit_reason = KVM_EXIT_SET_TPR;
		return true;
	}
	vector = v->lapic ? lapic_take_eoi(v->lapic) : -1;
	if (likely(vector < 0))
		return false;
	v->run->exit_reason = KVM_EXIT_IOAPIC_EOI;
	v->run->eoi.vector = (u8)vector;
	return true;
}
