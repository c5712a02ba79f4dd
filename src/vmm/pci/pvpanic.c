/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* pvpanic on PCI, as the kernel's Documentation/virt/pvpanic.rst has it: one register of events. */
#include "vmm/pci/pvpanic.h"

#include <string.h>

#define BAR	       0
#define BAR_SIZE       16u
#define EVENT_PANICKED 1u
#define EVENT_CRASH    2u /* a crash kernel takes over: the machine runs on */

static u64 bar_read(struct pci_function *f, unsigned bar, u32 offset, unsigned size)
{
	(void)f;
	(void)bar;
	(void)size;
	return offset == 0 ? EVENT_PANICKED | EVENT_CRASH : 0;
}

static void bar_write(struct pci_function *f, unsigned bar, u32 offset, unsigned size, u64 value)
{
	struct pvpanic *p = container_of(f, struct pvpanic, pci);

	(void)bar;
	(void)size;
	if (offset == 0 && value & EVENT_PANICKED)
		p->panicked(p->owner);
}

static const struct pci_ops pvpanic_ops = { .bar_read = bar_read, .bar_write = bar_write };

static const struct pci_identity pvpanic_identity = {
	.vendor = 0x1b36,
	.device = 0x0011,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.class_code = 0x088000, /* system peripheral, other */
};

static const struct device_field pvpanic_fields[] = {
	DEVICE_FIELD(struct pvpanic, pci.config),
};

int pvpanic_init(struct pvpanic *p, struct pci_bus *bus, void (*panicked)(void *owner), void *owner)
{
	int r;

	memset(p, 0, sizeof(*p));
	p->pci.name = "pvpanic";
	p->pci.ops = &pvpanic_ops;
	p->panicked = panicked;
	p->owner = owner;
	r = pci_add(bus, &p->pci, &pvpanic_identity);
	if (r < 0)
		return r;
	pci_add_bar(&p->pci, BAR, BAR_SIZE);
	p->device = (struct device){ .name = "pvpanic",
				     .instance = p->pci.slot,
				     .version = 1,
				     .self = p,
				     .fields = pvpanic_fields,
				     .field_count = ARRAY_SIZE(pvpanic_fields) };
	return 0;
}
