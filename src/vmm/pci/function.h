/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One function of a PCI bus: its configuration space, and what it does. */
#ifndef VMM_PCI_FUNCTION_H
#define VMM_PCI_FUNCTION_H

#include "base/types.h"

#define PCI_BARS	 6u
#define PCI_CONFIG_BYTES 256u
#define PCI_MSIX_MAX	 32u

/* Places in the header, and bits of command and status. */
enum { PCI_AT_VENDOR = 0x00, PCI_AT_DEVICE = 0x02, PCI_AT_COMMAND = 0x04, PCI_AT_STATUS = 0x06 };
enum { PCI_AT_REVISION = 0x08, PCI_AT_CLASS = 0x09, PCI_AT_BAR0 = 0x10 };
enum { PCI_AT_SUBSYSTEM_VENDOR = 0x2c, PCI_AT_SUBSYSTEM = 0x2e, PCI_AT_CAPABILITIES = 0x34 };
enum { PCI_AT_LINE = 0x3c, PCI_AT_PIN = 0x3d };
enum { PCI_COMMAND_MEMORY = 0x0002, PCI_COMMAND_MASTER = 0x0004, PCI_COMMAND_NO_INTX = 0x0400 };
enum { PCI_STATUS_INTX = 0x08, PCI_STATUS_CAPABILITIES = 0x10 }; /* of the low byte */

struct pci_function;
struct pci_bus;

struct pci_ops {
	/* Any vCPU's thread, no lock held. @size 1, 2, 4 or 8; the access is inside the BAR. */
	u64 (*bar_read)(struct pci_function *f, unsigned bar, u32 offset, unsigned size);
	void (*bar_write)(struct pci_function *f, unsigned bar, u32 offset, unsigned size,
			  u64 value);
	/* Optional, for capabilities that do something; called with the bus's lock around the plain access. */
	void (*config_will_read)(struct pci_function *f, unsigned offset, unsigned size);
	void (*config_written)(struct pci_function *f, unsigned offset, unsigned size);
};

/* What the bus needs of the board. */
struct pci_host {
	void (*irq_set)(void *owner, unsigned gsi, int level);
	void (*msi_send)(void *owner, u64 address, u32 data);
	void *owner;
};

struct pci_identity {
	u16 vendor, device, subsystem_vendor, subsystem;
	u32 class_code; /* 24 bits: class, subclass, interface */
	u8 revision;
	bool has_intx;
};

struct msix_entry {
	u32 address_low, address_high, data, control;
};

struct pci_msix {
	unsigned count; /* 0: the function has none */
	u8 capability;	/* its offset */
	struct msix_entry table[PCI_MSIX_MAX];
	u32 pending;
};

struct pci_function {
	const char *name;
	const struct pci_ops *ops;
	struct pci_bus *bus;
	const struct pci_host *host;
	unsigned slot;
	u8 config[PCI_CONFIG_BYTES];
	u8 writable[PCI_CONFIG_BYTES]; /* bits that the guest may change */
	u8 at_reset[PCI_CONFIG_BYTES];
	u32 bar_size[PCI_BARS]; /* powers of two; 0: none */
	u8 capability_last, capability_next;
	bool intx; /* the function asserts its line; under the bus's irq_lock */
	struct pci_msix msix;
};

/* Header and identity; before the function is on a bus. */
void pci_function_init(struct pci_function *f, const struct pci_identity *id);
void pci_add_bar(struct pci_function *f, unsigned bar, u32 size);

/* @size with the two bytes of the header, which are filled in; returns the offset, or 0 when there is no room. */
u8 pci_add_capability(struct pci_function *f, u8 id, const void *body, u8 size);
void pci_set_writable(struct pci_function *f, unsigned offset, unsigned size, u32 mask);

static inline u16 pci_config16(const struct pci_function *f, unsigned offset)
{
	return (u16)(f->config[offset] | f->config[offset + 1] << 8);
}

static inline u32 pci_config32(const struct pci_function *f, unsigned offset)
{
	return pci_config16(f, offset) | (u32)pci_config16(f, offset + 2) << 16;
}

void pci_config_set(u8 *config, unsigned offset, unsigned size, u32 value);

#endif
