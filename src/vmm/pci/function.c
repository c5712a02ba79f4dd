/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Configuration space of one PCI function: header, BARs, capabilities. */
#include "vmm/pci/function.h"

#include <string.h>

#define CONFIG_HEADER 0x40

void pci_config_set(u8 *config, unsigned offset, unsigned size, u32 value)
{
	for (unsigned i = 0; i < size; i++)
		config[offset + i] = (u8)(value >> (8 * i));
}

void pci_set_writable(struct pci_function *f, unsigned offset, unsigned size, u32 mask)
{
	pci_config_set(f->writable, offset, size, mask);
}

void pci_function_init(struct pci_function *f, const struct pci_identity *id)
{
	f->capability_last =
		PCI_AT_CAPABILITIES - 1; /* the pointer is one byte after an entry's start */
	f->capability_next = CONFIG_HEADER;
	pci_config_set(f->config, PCI_AT_VENDOR, 2, id->vendor);
	pci_config_set(f->config, PCI_AT_DEVICE, 2, id->device);
	pci_config_set(f->config, PCI_AT_REVISION, 1, id->revision);
	pci_config_set(f->config, PCI_AT_CLASS, 3, id->class_code);
	pci_config_set(f->config, PCI_AT_SUBSYSTEM_VENDOR, 2, id->subsystem_vendor);
	pci_config_set(f->config, PCI_AT_SUBSYSTEM, 2, id->subsystem);
	pci_set_writable(f, PCI_AT_COMMAND, 2,
			 PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_NO_INTX);
	pci_set_writable(f, PCI_AT_LINE, 1, 0xff);
	f->config[PCI_AT_PIN] = id->has_intx;
}

void pci_add_bar(struct pci_function *f, unsigned bar, u32 size)
{
	f->bar_size[bar] = size;
	pci_set_writable(f, PCI_AT_BAR0 + 4 * bar, 4, ~(size - 1));
}

u8 pci_add_capability(struct pci_function *f, u8 id, const void *body, u8 size)
{
	const u8 at = f->capability_next;

	if (at + size > (int)PCI_CONFIG_BYTES)
		return 0;
	memcpy(f->config + at, body, size);
	f->config[at] = id;
	f->config[at + 1] = 0;
	f->config[f->capability_last + 1] = at;
	f->config[PCI_AT_STATUS] |= PCI_STATUS_CAPABILITIES;
	f->capability_last = at;
	f->capability_next = (u8)ALIGN_UP(at + size, 4);
	return at;
}
