/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_SREGS and SREGS2: segments, control registers, EFER and what must fit together. */
#include <errno.h>
#include <string.h>

#include "cpu/x86/control.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/mode.h"
#include "kvm/kvm.h"

#define EFER_KNOWN (EFER_SCE | EFER_LME | EFER_LMA | EFER_NX | EFER_FFXSR | EFER_AUTOIBRS)
/* Without any CPUID the kernel lets user space set whatever the host has. */
#define CR4_BEFORE_CPUID (CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP)

/* The part that both structures share, as pointers into either. */
struct sregs_view {
	struct kvm_segment *seg[SEG_COUNT];
	struct kvm_dtable *gdt, *idt;
	__u64 *cr0, *cr2, *cr3, *cr4, *cr8, *efer, *apic_base;
};

#define SREGS_VIEW(s)                                                                              \
	((struct sregs_view){ .seg = { [SEG_ES] = &(s)->es,                                        \
				       [SEG_CS] = &(s)->cs,                                        \
				       [SEG_SS] = &(s)->ss,                                        \
				       [SEG_DS] = &(s)->ds,                                        \
				       [SEG_FS] = &(s)->fs,                                        \
				       [SEG_GS] = &(s)->gs,                                        \
				       [SEG_LDTR] = &(s)->ldt,                                     \
				       [SEG_TR] = &(s)->tr },                                      \
			      .gdt = &(s)->gdt,                                                    \
			      .idt = &(s)->idt,                                                    \
			      .cr0 = &(s)->cr0,                                                    \
			      .cr2 = &(s)->cr2,                                                    \
			      .cr3 = &(s)->cr3,                                                    \
			      .cr4 = &(s)->cr4,                                                    \
			      .cr8 = &(s)->cr8,                                                    \
			      .efer = &(s)->efer,                                                  \
			      .apic_base = &(s)->apic_base })

static void segment_get(const struct x86_seg *s, struct kvm_segment *k)
{
	*k = (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->sel,
		.type = s->attr & SA_TYPE,
		.present = !!(s->attr & SA_P) && !(s->attr & SA_UNUSABLE),
		.dpl = (s->attr & SA_DPL) >> SA_DPL_SHIFT,
		.db = !!(s->attr & SA_DB),
		.s = !!(s->attr & SA_S),
		.l = !!(s->attr & SA_L),
		.g = !!(s->attr & SA_G),
		.avl = !!(s->attr & SA_AVL),
		.unusable = !!(s->attr & SA_UNUSABLE),
	};
}

static void segment_set(struct x86_seg *s, const struct kvm_segment *k)
{
	s->base = k->base;
	s->limit = k->limit;
	s->sel = k->selector;
	s->attr = (k->type & SA_TYPE) | (k->s ? SA_S : 0) | (k->dpl & 3) << SA_DPL_SHIFT |
		  (k->present ? SA_P : 0) | (k->avl ? SA_AVL : 0) | (k->l ? SA_L : 0) |
		  (k->db ? SA_DB : 0) | (k->g ? SA_G : 0) |
		  (k->unusable || !k->present ? SA_UNUSABLE : 0);
}

static void view_get(struct vcpu *v, const struct sregs_view *w)
{
	const struct x86_cpu *cpu = v->cpu;

	for (unsigned i = 0; i < SEG_COUNT; i++)
		segment_get(&cpu->seg[i], w->seg[i]);
	*w->gdt = (struct kvm_dtable){ .base = cpu->gdt.base, .limit = cpu->gdt.limit };
	*w->idt = (struct kvm_dtable){ .base = cpu->idt.base, .limit = cpu->idt.limit };
	*w->cr0 = cpu->cr0;
	*w->cr2 = cpu->cr2;
	*w->cr3 = cpu->cr3;
	*w->cr4 = cpu->cr4;
	*w->cr8 = v->lapic ? lapic_tpr_get(v->lapic) : cpu->cr8;
	*w->efer = cpu->efer;
	*w->apic_base = vcpu_apic_base(v);
}

static bool cr0_is_valid(u64 cr0)
{
	if (cr0 >> 32)
		return false;
	if (cr0 & CR0_NW && !(cr0 & CR0_CD))
		return false;
	return !(cr0 & CR0_PG) || cr0 & CR0_PE;
}

static bool cr4_is_valid(const struct x86_cpu *cpu, u64 cr4)
{
	return !(cr4 & ~(x86_cr4_allowed(cpu) | (cpu->ncpuid ? 0 : CR4_BEFORE_CPUID)));
}

/* As kvm_is_valid_sregs(). */
static bool view_is_valid(const struct vcpu *v, const struct sregs_view *w)
{
	if (*w->efer & EFER_LME && *w->cr0 & CR0_PG) {
		if (!(*w->cr4 & CR4_PAE) || !(*w->efer & EFER_LMA))
			return false;
		if (*w->cr3 >> v->cpu->phys_bits)
			return false;
	} else if (*w->efer & EFER_LMA || w->seg[SEG_CS]->l) {
		return false;
	}
	return cr4_is_valid(v->cpu, *w->cr4) && cr0_is_valid(*w->cr0);
}

/* User space that resets a vCPU may not say that it runs: as the kernel does for old programs. */
static void runs_after_reset(struct vcpu *v)
{
	const struct x86_seg *cs = &v->cpu->seg[SEG_CS];

	if (v->id == v->vm->bsp_id && v->cpu->rip == 0xfff0 && cs->sel == 0xf000 &&
	    cs->base == 0xffff0000 && !(v->cpu->cr0 & CR0_PE))
		v->mp_state = KVM_MP_STATE_RUNNABLE;
}

/* 0 or -EINVAL; @pdptrs NULL: load them from memory if the mode has them. */
static int view_set(struct vcpu *v, const struct sregs_view *w, const __u64 *pdptrs)
{
	struct x86_cpu *cpu = v->cpu;
	u64 old_cs = cpu->seg[SEG_CS].base;

	if (!view_is_valid(v, w) || vcpu_apic_base_set(v, *w->apic_base, true))
		return -EINVAL;
	cpu->gdt = (struct x86_dtable){ .base = w->gdt->base, .limit = w->gdt->limit };
	cpu->idt = (struct x86_dtable){ .base = w->idt->base, .limit = w->idt->limit };
	cpu->cr0 = *w->cr0 | CR0_ET;
	cpu->cr2 = *w->cr2;
	cpu->cr3 = *w->cr3;
	cpu->cr4 = *w->cr4;
	cpu->efer = *w->efer & EFER_KNOWN;
	if (v->lapic)
		lapic_tpr_set(v->lapic, *w->cr8 & 0xf);
	else
		cpu->cr8 = *w->cr8 & 0xf;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		segment_set(&cpu->seg[i], w->seg[i]);
	if (old_cs != cpu->seg[SEG_CS].base)
		vcpu_replay_drop(v);
	x86_flush_all(cpu);
	x86_mode_update(cpu);
	if (pdptrs)
		memcpy(cpu->pdptr, pdptrs, sizeof(cpu->pdptr));
	else if (cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE && !(cpu->efer & EFER_LMA))
		(void)x86_load_pdptrs(cpu, cpu->cr3); /* bad ones fault when they are used */
	runs_after_reset(v);
	vcpu_state_changed(v);
	return 0;
}

void sregs_get(struct vcpu *v, struct kvm_sregs *s)
{
	struct sregs_view w = SREGS_VIEW(s);
	unsigned vector = v->cpu->event.vector;

	view_get(v, &w);
	memset(s->interrupt_bitmap, 0, sizeof(s->interrupt_bitmap));
	if (v->cpu->event.interrupt && !v->cpu->event.soft)
		s->interrupt_bitmap[vector / 64] |= 1ull << (vector % 64);
}

int sregs_set(struct vcpu *v, const struct kvm_sregs *s)
{
	struct kvm_sregs copy = *s;
	struct sregs_view w = SREGS_VIEW(&copy);
	int r = view_set(v, &w, NULL);

	for (unsigned i = 0; !r && i < ARRAY_SIZE(copy.interrupt_bitmap); i++) {
		if (!copy.interrupt_bitmap[i])
			continue;
		v->cpu->event.interrupt = true;
		v->cpu->event.soft = false;
		v->cpu->event.vector = i * 64 + __builtin_ctzll(copy.interrupt_bitmap[i]);
		break;
	}
	return r;
}

long sregs_get_call(struct call *c)
{
	sregs_get(c->vcpu, c->data);
	return 0;
}

long sregs_set_call(struct call *c)
{
	return sregs_set(c->vcpu, c->data);
}

static bool paging_is_pae(u64 cr0, u64 cr4, u64 efer)
{
	return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LMA);
}

long sregs2_get_call(struct call *c)
{
	const struct x86_cpu *cpu = c->vcpu->cpu;
	struct kvm_sregs2 *s = c->data;
	struct sregs_view w = SREGS_VIEW(s);

	view_get(c->vcpu, &w);
	if (paging_is_pae(cpu->cr0, cpu->cr4, cpu->efer)) {
		memcpy(s->pdptrs, cpu->pdptr, sizeof(s->pdptrs));
		s->flags |= KVM_SREGS2_FLAGS_PDPTRS_VALID;
	}
	return 0;
}

long sregs2_set_call(struct call *c)
{
	struct kvm_sregs2 *s = c->data;
	struct sregs_view w = SREGS_VIEW(s);
	bool valid = s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;

	if (s->flags & ~(__u64)KVM_SREGS2_FLAGS_PDPTRS_VALID)
		return -EINVAL;
	if (valid && !paging_is_pae(s->cr0, s->cr4, s->efer))
		return -EINVAL;
	return view_set(c->vcpu, &w, valid ? s->pdptrs : NULL);
}
