/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* pvpanic on PCI: a guest's kernel tells that it panics. */
#ifndef VMM_PCI_PVPANIC_H
#define VMM_PCI_PVPANIC_H

#include "vmm/pci/pci.h"

struct pvpanic {
	struct device device; /* all that is saved is its configuration space */
	struct pci_function pci;
	void (*panicked)(void *owner); /* a vCPU's thread */
	void *owner;
};

int pvpanic_init(struct pvpanic *p, struct pci_bus *bus, void (*panicked)(void *owner),
		 void *owner); /* 0 or -ENOSPC */

#endif
