/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* CPUID of a processor that comes from elsewhere: every feature of it must be one that this device offers. */
#include <errno.h>
#include <stdlib.h>

#include "vmm/save/save.h"

#define ENTRIES_MAX 256u

/* Leaves whose registers are sets of features. */
static const struct feature_row {
	u32 function, index;
	bool eax, ebx, ecx, edx;
} rows[] = {
	{ 1, 0, false, false, true, true },
	{ 7, 0, false, true, true, true },
	{ 7, 1, true, true, true, true },
	{ 0xd, 0, true, false, false, false },
	{ 0xd, 1, true, false, false, false },
	{ 0x80000001, 0, false, false, true, true },
	{ 0x80000008, 0, false, true, false, false },
};

#define OSXSAVE		   BIT(27)
#define DEADLINE_AND_APICS (BIT(24) | BIT(21)) /* depend on the machine's APIC, not on the list */
#define HYPERVISOR	   BIT(31)

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *cpuid, u32 function, u32 index)
{
	for (u32 i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
			return &cpuid->entries[i];
	return NULL;
}

static int register_check(u32 wanted, u32 have, const struct feature_row *row, const char *name,
			  struct why *why)
{
	if (!(wanted & ~have))
		return 0;
	return why_set(why, EINVAL,
		       "the guest's processor has features that this host does not offer: CPUID "
		       "0x%x.%u %s bits 0x%x; start it there with a smaller --cpu",
		       row->function, row->index, name, wanted & ~have);
}

static int row_check(const struct feature_row *row, const struct kvm_cpuid2 *wanted,
		     const struct kvm_cpuid2 *offered, struct why *why)
{
	static const struct kvm_cpuid_entry2 none;
	const struct kvm_cpuid_entry2 *w = find(wanted, row->function, row->index);
	const struct kvm_cpuid_entry2 *o = find(offered, row->function, row->index);
	u32 extra = row->function == 1 ? OSXSAVE | DEADLINE_AND_APICS | HYPERVISOR : 0;
	int r = 0;

	if (!w)
		return 0;
	if (!o)
		o = &none;
	if (row->eax)
		r = register_check(w->eax, o->eax, row, "EAX", why);
	if (r == 0 && row->ebx)
		r = register_check(w->ebx, o->ebx, row, "EBX", why);
	if (r == 0 && row->ecx)
		r = register_check(w->ecx, o->ecx | extra, row, "ECX", why);
	if (r == 0 && row->edx)
		r = register_check(w->edx, o->edx | (row->function == 1 ? BIT(28) : 0), row, "EDX",
				   why);
	return r;
}

int cpuid_check_offered(const struct kvmdev *dev, const struct kvm_cpuid2 *wanted, struct why *why)
{
	struct kvm_cpuid2 *offered =
		calloc(1, sizeof(*offered) + ENTRIES_MAX * sizeof(offered->entries[0]));
	int r;

	if (!offered)
		return why_set(why, ENOMEM, "no memory for the CPUID table");
	offered->nent = ENTRIES_MAX;
	r = kvmdev_ioctl_ptr(dev, dev->fd, KVM_GET_SUPPORTED_CPUID, offered);
	if (r < 0)
		why_set(why, -r, "the device %s refuses KVM_GET_SUPPORTED_CPUID", dev->path);
	for (size_t i = 0; i < ARRAY_SIZE(rows) && r == 0; i++)
		r = row_check(&rows[i], wanted, offered, why);
	free(offered);
	return r;
}
