/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One PCI bus behind a host bridge: configuration space, memory windows of its functions, INTx and MSI-X. */
#ifndef VMM_PCI_PCI_H
#define VMM_PCI_PCI_H

#include <pthread.h>

#include "vmm/dev/device.h"
#include "vmm/pci/function.h"

#define PCI_SLOTS 32u

/* Below 4 GiB, above all RAM: the DSDT tells the guest. */
#define PCI_WINDOW_START 0xc0000000u
#define PCI_WINDOW_SIZE	 0x20000000u
#define PCI_ECAM_START	 0xe0000000u /* bus 0 only; the MCFG tells the guest */
#define PCI_ECAM_SIZE	 0x00100000u
#define PCI_GSI_FIRST	 16u /* INTA of slot n is GSI 16 + n % 4 */
#define PCI_GSI_COUNT	 4u

struct pci_bus {
	struct device device; /* ports 0xcf8 and 0xcfc */
	struct pci_host host;
	pthread_mutex_t lock; /* configuration space */
	u32 address;	      /* the register at 0xcf8 */
	struct pci_function bridge;
	struct pci_function *slots[PCI_SLOTS];

	pthread_mutex_t irq_lock;    /* inside of the above, and of a device's own */
	u32 asserted[PCI_GSI_COUNT]; /* slots that assert the line */
};

void pci_init(struct pci_bus *bus, struct pci_host host);
void pci_destroy(struct pci_bus *bus);

/* A function at the lowest free slot, with a header made from @id; 0 or -ENOSPC. Then BARs and capabilities are added. */
int pci_add(struct pci_bus *bus, struct pci_function *f, const struct pci_identity *id);

/* After the last function: addresses for all BARs, as firmware gives them, kept over a reset. */
void pci_assign(struct pci_bus *bus);

/* A memory access of the guest; false: nobody answers here. @data holds @size bytes, little endian. */
bool pci_mmio_read(struct pci_bus *bus, gpa_t gpa, unsigned size, void *data);
bool pci_mmio_write(struct pci_bus *bus, gpa_t gpa, unsigned size, const void *data);

/* Any thread. */
void pci_intx_set(struct pci_function *f, bool asserted);

#endif
