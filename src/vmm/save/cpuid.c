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

/* What either list has of the leaf; the machine's own bits as well. */
static struct kvm_cpuid_entry2 have_of(const struct feature_row *row,
				       struct kvm_cpuid2 *const lists[2])
{
	struct kvm_cpuid_entry2 have = { 0 };

	for (unsigned i = 0; i < 2; i++) {
		const struct kvm_cpuid_entry2 *o = find(lists[i], row->function, row->index);

		if (!o)
			continue;
		have.eax |= o->eax;
		have.ebx |= o->ebx;
		have.ecx |= o->ecx;
		have.edx |= o->edx;
	}
	if (row->function == 1) {
		have.ecx |= OSXSAVE | DEADLINE_AND_APICS | HYPERVISOR;
		have.edx |= BIT(28);
	}
	return have;
}

static int row_check(const struct feature_row *row, const struct kvm_cpuid2 *wanted,
		     struct kvm_cpuid2 *const lists[2], struct why *why)
{
	const struct kvm_cpuid_entry2 *w = find(wanted, row->function, row->index);
	const struct kvm_cpuid_entry2 have = have_of(row, lists);
	int r = 0;

	if (!w)
		return 0;
	if (row->eax)
		r = register_check(w->eax, have.eax, row, "EAX", why);
	if (r == 0 && row->ebx)
		r = register_check(w->ebx, have.ebx, row, "EBX", why);
	if (r == 0 && row->ecx)
		r = register_check(w->ecx, have.ecx, row, "ECX", why);
	if (r == 0 && row->edx)
		r = register_check(w->edx, have.edx, row, "EDX", why);
	return r;
}

/* The answer of a request for a list; NULL: no memory. */
static struct kvm_cpuid2 *list_of(const struct kvmdev *dev, unsigned long request, int *r)
{
	struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + ENTRIES_MAX * sizeof(list->entries[0]));

	if (!list)
		return NULL;
	list->nent = ENTRIES_MAX;
	*r = kvmdev_ioctl_ptr(dev, dev->fd, request, list);
	if (*r < 0)
		list->nent = 0;
	return list;
}

int cpuid_check_offered(const struct kvmdev *dev, const struct kvm_cpuid2 *wanted, struct why *why)
{
	int r = 0, emulated = 0;
	struct kvm_cpuid2 *const lists[2] = { list_of(dev, KVM_GET_SUPPORTED_CPUID, &r),
					      list_of(dev, KVM_GET_EMULATED_CPUID, &emulated) };

	if (!lists[0] || !lists[1])
		r = why_set(why, ENOMEM, "no memory for the CPUID table");
	else if (r < 0)
		why_set(why, -r, "the device %s refuses KVM_GET_SUPPORTED_CPUID", dev->path);
	for (size_t i = 0; i < ARRAY_SIZE(rows) && r == 0; i++)
		r = row_check(&rows[i], wanted, lists, why);
	free(lists[0]);
	free(lists[1]);
	return r;
}
