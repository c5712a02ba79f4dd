/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One PCI bus behind a host bridge, as the PCI Local Bus Specification and the PCI Firmware Specification describe it. */
#include "vmm/pci/pci.h"

#include <errno.h>
#include <string.h>

#include "vmm/pci/msix.h"

#define ADDRESS_PORT   0xcf8
#define DATA_PORT      0xcfc
#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_KEPT   0x80fffffcu

static const struct pci_identity bridge_identity = {
	.vendor = 0x1b36, /* Red Hat's, as the "generic PCIe host bridge" of virtual machines */
	.device = 0x0008,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.class_code = 0x060000,
};

int pci_add(struct pci_bus *bus, struct pci_function *f, const struct pci_identity *id)
{
	unsigned slot = 0;

	while (slot < PCI_SLOTS && bus->slots[slot])
		slot++;
	if (slot == PCI_SLOTS)
		return -ENOSPC;
	pci_function_init(f, id);
	f->bus = bus;
	f->host = &bus->host;
	f->slot = slot;
	if (id->has_intx)
		f->config[PCI_AT_LINE] = (u8)(PCI_GSI_FIRST + slot % PCI_GSI_COUNT);
	bus->slots[slot] = f;
	return 0;
}

/* Largest first would pack better; there is room. */
void pci_assign(struct pci_bus *bus)
{
	u32 next = PCI_WINDOW_START;

	for (unsigned s = 0; s < PCI_SLOTS; s++) {
		struct pci_function *f = bus->slots[s];

		if (!f)
			continue;
		for (unsigned b = 0; b < PCI_BARS; b++) {
			if (!f->bar_size[b])
				continue;
			next = ALIGN_UP(next, f->bar_size[b]);
			pci_config_set(f->config, PCI_AT_BAR0 + 4 * b, 4, next);
			next += f->bar_size[b];
		}
		memcpy(f->at_reset, f->config, sizeof(f->config));
	}
}

/* The line is the OR of its functions, and told to the board only when it changes. */
static void line_update(struct pci_function *f)
{
	struct pci_bus *bus = f->bus;
	const unsigned pin = f->slot % PCI_GSI_COUNT;
	const bool was = bus->asserted[pin];

	if (f->intx && !(pci_config16(f, PCI_AT_COMMAND) & PCI_COMMAND_NO_INTX))
		bus->asserted[pin] |= BIT(f->slot);
	else
		bus->asserted[pin] &= ~BIT(f->slot);
	if (was != !!bus->asserted[pin])
		bus->host.irq_set(bus->host.owner, PCI_GSI_FIRST + pin, !was);
}

void pci_intx_set(struct pci_function *f, bool asserted)
{
	pthread_mutex_lock(&f->bus->irq_lock);
	f->intx = asserted;
	line_update(f);
	pthread_mutex_unlock(&f->bus->irq_lock);
}

static u32 ones(unsigned size)
{
	return size == 4 ? ~0u : BIT(size * 8) - 1;
}

/* A naturally aligned access of up to four bytes. */
static u32 config_read(struct pci_bus *bus, unsigned slot, unsigned offset, unsigned size)
{
	struct pci_function *f = slot < PCI_SLOTS ? bus->slots[slot] : NULL;
	u32 value = 0;

	if (!f)
		return ones(size);
	if (offset + size > PCI_CONFIG_BYTES)
		return 0; /* no extended capability */
	pthread_mutex_lock(&bus->lock);
	if (f->ops && f->ops->config_will_read)
		f->ops->config_will_read(f, offset, size);
	for (unsigned i = 0; i < size; i++)
		value |= (u32)f->config[offset + i] << (8 * i);
	pthread_mutex_unlock(&bus->lock);
	if (offset <= PCI_AT_STATUS && offset + size > PCI_AT_STATUS && f->intx)
		value |= (u32)PCI_STATUS_INTX << (8 * (PCI_AT_STATUS - offset));
	return value;
}

static void config_write(struct pci_bus *bus, unsigned slot, unsigned offset, unsigned size,
			 u32 value)
{
	struct pci_function *f = slot < PCI_SLOTS ? bus->slots[slot] : NULL;

	if (!f || offset + size > PCI_CONFIG_BYTES)
		return;
	pthread_mutex_lock(&bus->lock);
	for (unsigned i = 0; i < size; i++) {
		const u8 mask = f->writable[offset + i];

		f->config[offset + i] =
			(u8)((f->config[offset + i] & ~mask) | (value >> (8 * i) & mask));
	}
	if (f->ops && f->ops->config_written)
		f->ops->config_written(f, offset, size);
	pthread_mutex_unlock(&bus->lock);
	if (offset <= PCI_AT_COMMAND + 1 && offset + size > PCI_AT_COMMAND) {
		pthread_mutex_lock(&bus->irq_lock);
		line_update(f);
		pthread_mutex_unlock(&bus->irq_lock);
	}
}

static u32 address_read(void *self, u16 offset, unsigned size)
{
	const struct pci_bus *bus = self;

	(void)offset;
	(void)size;
	return __atomic_load_n(&bus->address, __ATOMIC_RELAXED);
}

static void address_write(void *self, u16 offset, unsigned size, u32 value)
{
	struct pci_bus *bus = self;

	(void)offset;
	(void)size;
	__atomic_store_n(&bus->address, value & ADDRESS_KEPT, __ATOMIC_RELAXED);
}

/* The slot that the address register names; PCI_SLOTS: nobody. */
static unsigned addressed_slot(u32 address)
{
	const bool is_here = address & ADDRESS_ENABLE && !(address & 0x00ff0700);

	return is_here ? address >> 11 & 31 : PCI_SLOTS;
}

static u32 data_read(void *self, u16 offset, unsigned size)
{
	struct pci_bus *bus = self;
	const u32 address = address_read(self, 0, 4);

	return config_read(bus, addressed_slot(address), (address & 0xfc) + offset, size);
}

static void data_write(void *self, u16 offset, unsigned size, u32 value)
{
	struct pci_bus *bus = self;
	const u32 address = address_read(self, 0, 4);

	config_write(bus, addressed_slot(address), (address & 0xfc) + offset, size, value);
}

/* The function whose window holds the whole access. */
static struct pci_function *decode(struct pci_bus *bus, gpa_t gpa, unsigned size, unsigned *bar,
				   u32 *offset)
{
	struct pci_function *found = NULL;

	pthread_mutex_lock(&bus->lock);
	for (unsigned s = 0; s < PCI_SLOTS && !found; s++) {
		struct pci_function *f = bus->slots[s];

		if (!f || !f->ops || !(pci_config16(f, PCI_AT_COMMAND) & PCI_COMMAND_MEMORY))
			continue;
		for (unsigned b = 0; b < PCI_BARS && !found; b++) {
			const u64 base = pci_config32(f, PCI_AT_BAR0 + 4 * b) & ~15u;

			if (!f->bar_size[b] || gpa < base || gpa - base >= f->bar_size[b] ||
			    gpa - base + size > f->bar_size[b])
				continue;
			*bar = b;
			*offset = (u32)(gpa - base);
			found = f;
		}
	}
	pthread_mutex_unlock(&bus->lock);
	return found;
}

static bool is_ecam(gpa_t gpa, unsigned size)
{
	return gpa >= PCI_ECAM_START && gpa < PCI_ECAM_START + PCI_ECAM_SIZE && size <= 4 &&
	       gpa % size == 0;
}

/* One function per slot: the bits of the function number name nobody. */
static unsigned ecam_slot(gpa_t gpa)
{
	return gpa & 0x7000 ? PCI_SLOTS : gpa >> 15 & 31;
}

bool pci_mmio_read(struct pci_bus *bus, gpa_t gpa, unsigned size, void *data)
{
	struct pci_function *f;
	unsigned bar;
	u32 offset;
	u64 value;

	if (is_ecam(gpa, size)) {
		value = config_read(bus, ecam_slot(gpa), gpa & 0xfff, size);
	} else {
		f = decode(bus, gpa, size, &bar, &offset);
		if (!f)
			return false;
		value = f->ops->bar_read(f, bar, offset, size);
	}
	memcpy(data, &value, size);
	return true;
}

bool pci_mmio_write(struct pci_bus *bus, gpa_t gpa, unsigned size, const void *data)
{
	struct pci_function *f;
	unsigned bar;
	u32 offset;
	u64 value = 0;

	memcpy(&value, data, size);
	if (is_ecam(gpa, size)) {
		config_write(bus, ecam_slot(gpa), gpa & 0xfff, size, (u32)value);
		return true;
	}
	f = decode(bus, gpa, size, &bar, &offset);
	if (!f)
		return false;
	f->ops->bar_write(f, bar, offset, size, value);
	return true;
}

static void pci_reset(void *self)
{
	struct pci_bus *bus = self;

	bus->address = 0;
	for (unsigned s = 0; s < PCI_SLOTS; s++) {
		struct pci_function *f = bus->slots[s];

		if (!f)
			continue;
		pci_intx_set(f, false);
		memcpy(f->config, f->at_reset, sizeof(f->config));
		msix_reset(f);
	}
}

/* The port 0xcf9 between is the reset register: only accesses of four bytes are meant here. */
static const struct port_window pci_windows[] = {
	{ ADDRESS_PORT, 1, IO_4 | IO_REACH, address_read, address_write },
	{ DATA_PORT, 4, IO_1 | IO_2 | IO_4, data_read, data_write },
};

static const struct device_field pci_fields[] = {
	DEVICE_FIELD(struct pci_bus, address),
	DEVICE_FIELD(struct pci_bus, bridge.config),
};

void pci_init(struct pci_bus *bus, struct pci_host host)
{
	memset(bus, 0, sizeof(*bus));
	bus->host = host;
	pthread_mutex_init(&bus->lock, NULL);
	pthread_mutex_init(&bus->irq_lock, NULL);
	bus->device = (struct device){
		.name = "pci",
		.version = 1,
		.windows = pci_windows,
		.window_count = ARRAY_SIZE(pci_windows),
		.reset = pci_reset,
		.self = bus,
		.has_lock = true,
		.fields = pci_fields,
		.field_count = ARRAY_SIZE(pci_fields),
	};
	bus->bridge.name = "host-bridge";
	pci_add(bus, &bus->bridge, &bridge_identity);
}

void pci_destroy(struct pci_bus *bus)
{
	pthread_mutex_destroy(&bus->irq_lock);
	pthread_mutex_destroy(&bus->lock);
}
