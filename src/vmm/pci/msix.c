/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* MSI-X of a PCI function, as the PCI Local Bus Specification's chapter "MSI-X Capability and Table Structure" has it. */
#include "vmm/pci/msix.h"

#include <errno.h>
#include <string.h>

#define CAPABILITY_MSIX	 0x11
#define CONTROL_AT	 2 /* in the capability */
#define CONTROL_ENABLE	 0x8000
#define CONTROL_MASK_ALL 0x4000
#define ENTRY_MASKED	 1u

int msix_init(struct pci_function *f, unsigned count, unsigned bar, u32 table, u32 pending)
{
	u8 body[12] = { 0 };
	u8 at;

	pci_config_set(body, CONTROL_AT, 2, count - 1);
	pci_config_set(body, 4, 4, table | bar);
	pci_config_set(body, 8, 4, pending | bar);
	at = pci_add_capability(f, CAPABILITY_MSIX, body, sizeof(body));
	if (!at || count > PCI_MSIX_MAX)
		return -ENOSPC;
	pci_set_writable(f, at + CONTROL_AT, 2, CONTROL_ENABLE | CONTROL_MASK_ALL);
	f->msix.count = count;
	f->msix.capability = at;
	msix_reset(f);
	return 0;
}

void msix_reset(struct pci_function *f)
{
	memset(f->msix.table, 0, sizeof(f->msix.table));
	for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
		f->msix.table[i].control = ENTRY_MASKED;
	f->msix.pending = 0;
}

static u16 control_of(const struct pci_function *f)
{
	return pci_config16(f, f->msix.capability + CONTROL_AT);
}

bool msix_is_enabled(const struct pci_function *f)
{
	return f->msix.count && control_of(f) & CONTROL_ENABLE;
}

static bool is_masked(const struct pci_function *f, unsigned vector)
{
	return control_of(f) & CONTROL_MASK_ALL || f->msix.table[vector].control & ENTRY_MASKED;
}

static void send(struct pci_function *f, unsigned vector)
{
	const struct msix_entry *e = &f->msix.table[vector];

	f->host->msi_send(f->host->owner, (u64)e->address_high << 32 | e->address_low, e->data);
}

void msix_signal(struct pci_function *f, unsigned vector)
{
	if (vector >= f->msix.count || !msix_is_enabled(f))
		return;
	if (is_masked(f, vector))
		f->msix.pending |= BIT(vector);
	else
		send(f, vector);
}

void msix_flush(struct pci_function *f)
{
	for (unsigned i = 0; i < f->msix.count && msix_is_enabled(f); i++) {
		if (f->msix.pending & BIT(i) && !is_masked(f, i)) {
			f->msix.pending &= ~BIT(i);
			send(f, i);
		}
	}
}

/* Software reads and writes the table by aligned 4 or 8 bytes; anything else is undefined there and nothing here. */
static u32 *field_at(struct pci_function *f, u32 offset)
{
	struct msix_entry *e = &f->msix.table[offset / 16];
	u32 *const fields[4] = { &e->address_low, &e->address_high, &e->data, &e->control };

	return fields[offset / 4 % 4];
}

u64 msix_table_read(struct pci_function *f, u32 offset, unsigned size)
{
	u64 value;

	if (size < 4 || offset % size || offset + size > MSIX_TABLE_BYTES(f->msix.count))
		return 0;
	value = *field_at(f, offset);
	return size == 4 ? value : value | (u64)*field_at(f, offset + 4) << 32;
}

void msix_table_write(struct pci_function *f, u32 offset, unsigned size, u64 value)
{
	if (size < 4 || offset % size || offset + size > MSIX_TABLE_BYTES(f->msix.count))
		return;
	*field_at(f, offset) = (u32)value;
	if (size == 8)
		*field_at(f, offset + 4) = (u32)(value >> 32);
	msix_flush(f);
}

u64 msix_pending_read(struct pci_function *f, u32 offset, unsigned size)
{
	return offset < 4 && size >= 4 ? f->msix.pending : 0;
}
