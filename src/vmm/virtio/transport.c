/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The registers of a virtio device, as the specification's chapter "Virtio Over PCI Bus" places them. */
#include "vmm/virtio/transport.h"

#include <errno.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "vmm/pci/msix.h"

/* One BAR for all of it, a page each so that a guest may map them apart. */
#define BAR		  0
#define BAR_SIZE	  0x8000u
#define AT_COMMON	  0x0000u
#define AT_ISR		  0x1000u
#define AT_DEVICE	  0x2000u
#define AT_NOTIFY	  0x3000u
#define AT_MSIX		  0x4000u
#define AT_PENDING	  0x5000u
#define PART_SIZE	  0x1000u
#define NOTIFY_MULTIPLIER 4u

#define VENDOR_VIRTIO	  0x1af4
#define DEVICE_MODERN	  0x1040 /* + the virtio device's number */
#define CAPABILITY_VENDOR 0x09
#define CFG_DATA_OFFSET	  16u /* pci_cfg_data in its capability */

static u64 low_high(u64 old, unsigned offset, u64 value)
{
	return offset ? (old & 0xffffffff) | value << 32 : (old & ~0xffffffffull) | value;
}

static const struct virtqueue *selected(const struct virtio_device *d)
{
	return &d->queues[d->queue_select];
}

static u64 common_read(const struct virtio_device *d, u32 offset)
{
	const struct virtqueue *q = selected(d);

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return d->device_feature_select;
	case VIRTIO_PCI_COMMON_DF:
		return d->device_feature_select < 2 ? d->offered >> 32 * d->device_feature_select
						    : 0;
	case VIRTIO_PCI_COMMON_GFSELECT:
		return d->driver_feature_select;
	case VIRTIO_PCI_COMMON_GF:
		return d->driver_feature_select < 2 ? d->agreed >> 32 * d->driver_feature_select
						    : 0;
	case VIRTIO_PCI_COMMON_MSIX:
		return d->config_vector;
	case VIRTIO_PCI_COMMON_NUMQ:
		return d->kind->queues;
	case VIRTIO_PCI_COMMON_STATUS:
		return d->status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return d->config_generation;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return d->queue_select;
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return q->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return q->vector;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return q->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return d->queue_select;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return q->desc_at >> 8 * (offset - VIRTIO_PCI_COMMON_Q_DESCLO);
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return q->avail_at >> 8 * (offset - VIRTIO_PCI_COMMON_Q_AVAILLO);
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return q->used_at >> 8 * (offset - VIRTIO_PCI_COMMON_Q_USEDLO);
	default:
		return 0;
	}
}

/* A vector that the table does not have reads back as none: so the driver sees that it failed. */
static u16 vector_of(const struct virtio_device *d, u64 value)
{
	return value < d->pci.msix.count ? (u16)value : MSIX_NO_VECTOR;
}

static void features_write(struct virtio_device *d, u64 value)
{
	const unsigned shift = 32 * d->driver_feature_select;

	if (d->driver_feature_select > 1 || d->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	d->agreed = (d->agreed & ~(0xffffffffull << shift)) | (value & 0xffffffff) << shift;
}

/* Registers of the selected queue; a queue that runs keeps its place and size. */
static void queue_write(struct virtio_device *d, u32 offset, u64 value)
{
	struct virtqueue *q = &d->queues[d->queue_select];

	if (d->queue_select >= d->kind->queues)
		return;
	if (offset == VIRTIO_PCI_COMMON_Q_MSIX) {
		q->vector = vector_of(d, value);
		return;
	}
	if (q->enabled)
		return;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		q->size = (u16)value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (value == 1)
			virtio_queue_enable(d);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		q->desc_at = low_high(q->desc_at, offset - VIRTIO_PCI_COMMON_Q_DESCLO, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		q->avail_at = low_high(q->avail_at, offset - VIRTIO_PCI_COMMON_Q_AVAILLO, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		q->used_at = low_high(q->used_at, offset - VIRTIO_PCI_COMMON_Q_USEDLO, value);
		break;
	default:
		break;
	}
}

static void common_write(struct virtio_device *d, u32 offset, u64 value)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		d->device_feature_select = (u32)value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		d->driver_feature_select = (u32)value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		features_write(d, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		d->config_vector = vector_of(d, value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		virtio_status_write(d, (u8)value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		/* One past the last stands for all that do not exist: its size is 0. */
		d->queue_select = value < d->kind->queues ? (u16)value : (u16)d->kind->queues;
		break;
	default:
		queue_write(d, offset, value);
	}
}

static u64 config_read(const struct virtio_device *d, u32 offset, unsigned size)
{
	u64 value = 0;

	if (offset < d->config_size)
		memcpy(&value, (const u8 *)d->config + offset,
		       size < d->config_size - offset ? size : d->config_size - offset);
	return value;
}

static void config_write(struct virtio_device *d, u32 offset, unsigned size, u64 value)
{
	if (offset >= d->config_writable || size > d->config_writable - offset)
		return;
	memcpy((u8 *)d->config + offset, &value, size);
	if (d->kind->ops->config_written)
		d->kind->ops->config_written(d);
}

static u64 part_read(struct virtio_device *d, u32 part, u32 offset, unsigned size)
{
	switch (part) {
	case AT_COMMON:
		return common_read(d, offset);
	case AT_DEVICE:
		return config_read(d, offset, size);
	case AT_MSIX:
		return msix_table_read(&d->pci, offset, size);
	case AT_PENDING:
		return msix_pending_read(&d->pci, offset, size);
	default:
		return 0;
	}
}

/* Reading it takes it away, and the line with it. */
static u64 isr_read(struct virtio_device *d)
{
	const u64 isr = atomic_exchange(&d->isr, 0);

	if (isr)
		pci_intx_set(&d->pci, false);
	return isr;
}

static u64 bar_read(struct pci_function *f, unsigned bar, u32 offset, unsigned size)
{
	struct virtio_device *d = container_of(f, struct virtio_device, pci);
	const u32 part = ALIGN_DOWN(offset, PART_SIZE);
	u64 value;

	(void)bar;
	pthread_mutex_lock(&d->lock);
	value = offset == AT_ISR ? isr_read(d) : part_read(d, part, offset - part, size);
	pthread_mutex_unlock(&d->lock);
	return value;
}

static void bar_write(struct pci_function *f, unsigned bar, u32 offset, unsigned size, u64 value)
{
	struct virtio_device *d = container_of(f, struct virtio_device, pci);
	const u32 part = ALIGN_DOWN(offset, PART_SIZE);

	(void)bar;
	if (part == AT_NOTIFY) {
		if ((offset - part) / NOTIFY_MULTIPLIER < d->kind->queues)
			virtio_kick(d, BIT((offset - part) / NOTIFY_MULTIPLIER));
		return;
	}
	pthread_mutex_lock(&d->lock);
	if (part == AT_COMMON)
		common_write(d, offset - part, value);
	else if (part == AT_DEVICE)
		config_write(d, offset - part, size, value);
	else if (part == AT_MSIX)
		msix_table_write(f, offset - part, size, value);
	pthread_mutex_unlock(&d->lock);
}

/* The window in configuration space: where it points is what the driver wrote. */
static bool window_of(const struct pci_function *f, u32 *offset, u32 *size)
{
	const unsigned at = f->capability_last;

	*offset = pci_config32(f, at + offsetof(struct virtio_pci_cap, offset));
	*size = pci_config32(f, at + offsetof(struct virtio_pci_cap, length));
	return f->config[at + offsetof(struct virtio_pci_cap, bar)] == BAR &&
	       (*size == 1 || *size == 2 || *size == 4) && *offset % *size == 0 &&
	       *offset <= BAR_SIZE - *size;
}

static bool is_window_data(const struct pci_function *f, unsigned offset)
{
	return offset >= f->capability_last + CFG_DATA_OFFSET &&
	       offset < f->capability_last + CFG_DATA_OFFSET + 4;
}

static void config_will_read(struct pci_function *f, unsigned offset, unsigned size)
{
	u32 at, n;

	(void)size;
	if (is_window_data(f, offset) && window_of(f, &at, &n))
		pci_config_set(f->config, f->capability_last + CFG_DATA_OFFSET, n,
			       (u32)bar_read(f, BAR, at, n));
}

static void config_written(struct pci_function *f, unsigned offset, unsigned size)
{
	struct virtio_device *d = container_of(f, struct virtio_device, pci);
	const unsigned control = f->msix.capability + 2u;
	u32 at, n;

	if (is_window_data(f, offset) && window_of(f, &at, &n))
		bar_write(f, BAR, at, n,
			  pci_config32(f, f->capability_last + CFG_DATA_OFFSET) &
				  (n == 4 ? ~0u : BIT(8 * n) - 1));
	if (offset >= control + 2 || offset + size <= control)
		return;
	pthread_mutex_lock(&d->lock);
	msix_flush(f);
	pthread_mutex_unlock(&d->lock);
}

static const struct pci_ops transport_ops = {
	.bar_read = bar_read,
	.bar_write = bar_write,
	.config_will_read = config_will_read,
	.config_written = config_written,
};

static const struct part_row {
	u8 type;
	u32 offset, length;
} parts[] = {
	{ VIRTIO_PCI_CAP_COMMON_CFG, AT_COMMON, 56 },
	{ VIRTIO_PCI_CAP_ISR_CFG, AT_ISR, 1 },
	{ VIRTIO_PCI_CAP_DEVICE_CFG, AT_DEVICE, PART_SIZE },
	{ VIRTIO_PCI_CAP_NOTIFY_CFG, AT_NOTIFY, NOTIFY_MULTIPLIER *VIRTIO_QUEUES_MAX },
};

/* The last capability is the window in configuration space, with its four bytes of data. */
static int capabilities_add(struct pci_function *f)
{
	u8 body[sizeof(struct virtio_pci_cap) + 4] = { 0 };
	struct virtio_pci_cap *cap = (struct virtio_pci_cap *)body;
	u8 at = 0;

	cap->cap_len = sizeof(body);
	cap->bar = BAR;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		cap->cfg_type = parts[i].type;
		cap->offset = parts[i].offset;
		cap->length = parts[i].length;
		pci_config_set(body, sizeof(*cap), 4,
			       parts[i].type == VIRTIO_PCI_CAP_NOTIFY_CFG ? NOTIFY_MULTIPLIER : 0);
		if (!pci_add_capability(f, CAPABILITY_VENDOR, body, sizeof(body)))
			return -ENOSPC;
	}
	memset(body, 0, sizeof(body));
	cap->cap_len = sizeof(body);
	cap->cfg_type = VIRTIO_PCI_CAP_PCI_CFG;
	at = pci_add_capability(f, CAPABILITY_VENDOR, body, sizeof(body));
	if (!at)
		return -ENOSPC;
	pci_set_writable(f, at + offsetof(struct virtio_pci_cap, bar), 1, 0xff);
	pci_set_writable(f, at + offsetof(struct virtio_pci_cap, offset), 4, ~0u);
	pci_set_writable(f, at + offsetof(struct virtio_pci_cap, length), 4, ~0u);
	pci_set_writable(f, at + CFG_DATA_OFFSET, 4, ~0u);
	return 0;
}

static int function_add(struct virtio_device *d, struct pci_bus *bus)
{
	const struct pci_identity id = {
		.vendor = VENDOR_VIRTIO,
		.device = (u16)(DEVICE_MODERN + d->kind->id),
		.subsystem_vendor = VENDOR_VIRTIO,
		.subsystem = 0x1100,
		.class_code = d->kind->class_code,
		.revision = 1,
		.has_intx = true,
	};
	struct pci_function *f = &d->pci;
	int r;

	f->name = d->kind->name;
	f->ops = &transport_ops;
	r = pci_add(bus, f, &id);
	if (r < 0)
		return r;
	d->device.instance = f->slot;
	pci_add_bar(f, BAR, BAR_SIZE);
	r = msix_init(f, d->kind->queues + 1, BAR, AT_MSIX, AT_PENDING);
	return r < 0 ? r : capabilities_add(f);
}

int virtio_init(struct virtio_device *d, const struct virtio_kind *kind, struct pci_bus *bus,
		struct loop *loop, const struct ram *ram, void *config, u32 config_size,
		u32 writable)
{
	int r = virtio_core_init(d, kind, loop, ram, config, config_size, writable);

	if (r < 0)
		return r;
	r = function_add(d, bus);
	if (r < 0)
		virtio_destroy(d);
	return r;
}
