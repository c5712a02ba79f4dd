/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET_SUPPORTED_CPUID, KVM_SET_CPUID2 and their relatives. */
#include "cpu/x86/cpuid.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/kvm.h"
#include "kvm/usercopy.h"

_Static_assert(sizeof(struct x86_cpuid_entry) == sizeof(struct kvm_cpuid_entry2), "layout");

#define CPUID_ENTRY_SIZE     sizeof(struct x86_cpuid_entry)
#define FEATURE_LA57	     16
#define FEATURE_X2APIC	     21
#define FEATURE_TSC_DEADLINE 24

/* Entries and then the header: the count is told on success only. */
static long table_out(struct call *c, struct kvm_cpuid2 *head, const struct x86_cpuid_entry *e,
		      unsigned n)
{
	if (user_write(c->arg + sizeof(*head), e, n * CPUID_ENTRY_SIZE))
		return -EFAULT;
	head->nent = n;
	return user_write(c->arg, head, sizeof(*head));
}

long cpuid_supported(struct call *c)
{
	struct x86_cpuid_entry *e;
	struct kvm_cpuid2 head;
	unsigned n, room;
	long r;

	if (user_read(&head, c->arg, sizeof(head)))
		return -EFAULT;
	if (!head.nent)
		return -E2BIG;
	room = head.nent > VM_MAX_CPUID ? VM_MAX_CPUID : head.nent;
	e = calloc(VM_MAX_CPUID, CPUID_ENTRY_SIZE);
	if (!e)
		return -ENOMEM;
	n = x86_cpuid_supported(&c->sys->host, e, VM_MAX_CPUID);
	r = n > room ? -E2BIG : table_out(c, &head, e, n);
	free(e);
	return r;
}

/*
 * DIFFERS: the list names LA57: five levels of page tables are walked on any host, but guests that see the bit would use them, so it is
 * offered only where the host's processor has it. The kernel names MOVBE and RDPID, which its emulator has.
 */
long cpuid_emulated(struct call *c)
{
	static const struct x86_cpuid_entry la57 = { .function = 7,
						     .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
						     .ecx = BIT(FEATURE_LA57) };
	struct kvm_cpuid2 head;

	if (user_read(&head, c->arg, sizeof(head)))
		return -EFAULT;
	return head.nent ? table_out(c, &head, &la57, 1) : -E2BIG;
}

/* A vCPU that has run keeps its CPUID; setting the same again is allowed, whatever follows its state. */
static bool is_same(const struct x86_cpu *cpu, const struct x86_cpuid_entry *e, unsigned n)
{
	if (n != cpu->ncpuid)
		return false;
	for (unsigned i = 0; i < n; i++) {
		struct x86_cpuid_entry a = e[i], b = cpu->cpuid[i];

		x86_cpuid_now(cpu, &a);
		x86_cpuid_now(cpu, &b);
		if (memcmp(&a, &b, offsetof(struct x86_cpuid_entry, padding)))
			return false;
	}
	return true;
}

static long table_set(struct vcpu *v, const struct x86_cpuid_entry *e, unsigned n)
{
	struct x86_cpu *cpu = v->cpu;
	int r;

	if (v->has_run)
		return is_same(cpu, e, n) ? 0 : -EINVAL;
	r = x86_cpuid_set(cpu, e, n);
	if (r)
		return r;
	if (v->lapic)
		lapic_features(v->lapic, x86_cpuid_has(cpu, 1, 0, 2, FEATURE_X2APIC),
			       x86_cpuid_has(cpu, 1, 0, 2, FEATURE_TSC_DEADLINE), cpu->phys_bits);
	vcpu_choices(v);
	vcpu_state_changed(v);
	return 0;
}

long cpuid_set(struct call *c)
{
	struct x86_cpuid_entry *e;
	struct kvm_cpuid2 head;
	long r = -EFAULT;

	if (user_read(&head, c->arg, sizeof(head)))
		return -EFAULT;
	if (head.nent > VM_MAX_CPUID)
		return -E2BIG;
	e = calloc(VM_MAX_CPUID, CPUID_ENTRY_SIZE);
	if (!e)
		return -ENOMEM;
	if (!user_read(e, c->arg + sizeof(head), head.nent * CPUID_ENTRY_SIZE))
		r = table_set(c->vcpu, e, head.nent);
	free(e);
	return r;
}

/* The old form knows no sub-leaves. */
long cpuid_set_old(struct call *c)
{
	struct kvm_cpuid_entry old;
	struct x86_cpuid_entry *e;
	struct kvm_cpuid head;
	long r = 0;

	if (user_read(&head, c->arg, sizeof(head)))
		return -EFAULT;
	if (head.nent > VM_MAX_CPUID)
		return -E2BIG;
	e = calloc(VM_MAX_CPUID, CPUID_ENTRY_SIZE);
	if (!e)
		return -ENOMEM;
	for (unsigned i = 0; !r && i < head.nent; i++) {
		r = user_read(&old, c->arg + sizeof(head) + i * sizeof(old), sizeof(old));
		e[i] = (struct x86_cpuid_entry){ .function = old.function,
						 .eax = old.eax,
						 .ebx = old.ebx,
						 .ecx = old.ecx,
						 .edx = old.edx };
	}
	if (!r)
		r = table_set(c->vcpu, e, head.nent);
	free(e);
	return r;
}

long cpuid_get(struct call *c)
{
	const struct x86_cpu *cpu = c->vcpu->cpu;
	struct x86_cpuid_entry *now;
	struct kvm_cpuid2 head;
	long r;

	if (user_read(&head, c->arg, sizeof(head)))
		return -EFAULT;
	if (head.nent < cpu->ncpuid)
		return -E2BIG;
	now = malloc(sizeof(cpu->cpuid));
	if (!now)
		return -ENOMEM;
	memcpy(now, cpu->cpuid, cpu->ncpuid * sizeof(now[0]));
	for (unsigned i = 0; i < cpu->ncpuid; i++)
		x86_cpuid_now(cpu, &now[i]);
	r = table_out(c, &head, now, cpu->ncpuid);
	free(now);
	return r;
}
