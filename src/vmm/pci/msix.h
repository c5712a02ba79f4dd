/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* MSI-X of a PCI function: table, pending bits, sending. The owner's lock is around every call. */
#ifndef VMM_PCI_MSIX_H
#define VMM_PCI_MSIX_H

#include "vmm/pci/function.h"

#define MSIX_NO_VECTOR		0xffffu
#define MSIX_TABLE_BYTES(count) ((count)*16u)

/* @count vectors whose table and pending bits lie in @bar. 0 or -ENOSPC. */
int msix_init(struct pci_function *f, unsigned count, unsigned bar, u32 table, u32 pending);

u64 msix_table_read(struct pci_function *f, u32 offset, unsigned size);
void msix_table_write(struct pci_function *f, u32 offset, unsigned size, u64 value);
u64 msix_pending_read(struct pci_function *f, u32 offset, unsigned size);

bool msix_is_enabled(const struct pci_function *f);

/* Now, or when the vector is unmasked. @vector may be anything that a guest has written. */
void msix_signal(struct pci_function *f, unsigned vector);

/* After a write to the message control: what has waited is sent. */
void msix_flush(struct pci_function *f);
void msix_reset(struct pci_function *f);

#endif
