/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_REGS, KVM_TRANSLATE. */
#include <string.h>

#include "cpu/x86/access.h"
#include "cpu/x86/mode.h"
#include "kvm/kvm.h"

/* Order of struct kvm_regs, which is not the processor's. */
static const struct {
	u16 offset;
	u8 reg;
} regs_map[] = {
	{ offsetof(struct kvm_regs, rax), RAX }, { offsetof(struct kvm_regs, rbx), RBX },
	{ offsetof(struct kvm_regs, rcx), RCX }, { offsetof(struct kvm_regs, rdx), RDX },
	{ offsetof(struct kvm_regs, rsi), RSI }, { offsetof(struct kvm_regs, rdi), RDI },
	{ offsetof(struct kvm_regs, rsp), RSP }, { offsetof(struct kvm_regs, rbp), RBP },
	{ offsetof(struct kvm_regs, r8), R8 },	 { offsetof(struct kvm_regs, r9), R9 },
	{ offsetof(struct kvm_regs, r10), R10 }, { offsetof(struct kvm_regs, r11), R11 },
	{ offsetof(struct kvm_regs, r12), R12 }, { offsetof(struct kvm_regs, r13), R13 },
	{ offsetof(struct kvm_regs, r14), R14 }, { offsetof(struct kvm_regs, r15), R15 },
};

void regs_get(struct vcpu *v, struct kvm_regs *r)
{
	const struct x86_cpu *cpu = v->cpu;

	for (unsigned i = 0; i < ARRAY_SIZE(regs_map); i++)
		memcpy((u8 *)r + regs_map[i].offset, &cpu->gpr[regs_map[i].reg], sizeof(u64));
	r->rip = cpu->rip;
	r->rflags = x86_rflags(cpu);
}

void regs_set(struct vcpu *v, const struct kvm_regs *r)
{
	struct x86_cpu *cpu = v->cpu;

	if (r->rip != cpu->rip)
		vcpu_replay_drop(v);
	for (unsigned i = 0; i < ARRAY_SIZE(regs_map); i++)
		memcpy(&cpu->gpr[regs_map[i].reg], (const u8 *)r + regs_map[i].offset, sizeof(u64));
	cpu->rip = cpu->next_rip = r->rip;
	x86_rflags_set(cpu, r->rflags);
	vcpu_state_changed(v);
}

long regs_get_call(struct call *c)
{
	regs_get(c->vcpu, c->data);
	return 0;
}

long regs_set_call(struct call *c)
{
	regs_set(c->vcpu, c->data);
	return 0;
}

struct translation {
	struct x86_cpu *cpu;
	gva_t lin;
	struct x86_xlate out;
	bool valid;
};

static enum x86_status translation_walk(void *arg)
{
	struct translation *w = arg;

	w->valid = x86_walk_debug(w->cpu, w->lin, &w->out);
	return X86_OK;
}

/* The kernel tells no more than whether it is mapped, and where; the flags are fixed there too. */
long regs_translate(struct call *c)
{
	struct kvm_translation *t = c->data;
	struct translation w = { .cpu = c->vcpu->cpu, .lin = t->linear_address };

	/* A table whose memory is gone has no entries. */
	(void)engine_guarded(c->vcpu->engine, translation_walk, &w);
	t->valid = w.valid;
	t->physical_address = w.valid ? w.out.gpa : ~0ull;
	t->writeable = 1;
	t->usermode = 0;
	return 0;
}
