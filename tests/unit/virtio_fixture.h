/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A driver for one virtio device without a VM: its registers through the BAR, its rings in a little RAM. */
#ifndef TESTS_UNIT_VIRTIO_FIXTURE_H
#define TESTS_UNIT_VIRTIO_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "vmm/virtio/transport.h"

#define RING_SIZE	 16u
#define RAM_BYTES	 0x100000u
#define DESC_AT(q)	 (0x1000u + (q)*0x3000u)
#define AVAIL_AT(q)	 (DESC_AT(q) + 0x1000u)
#define USED_AT(q)	 (DESC_AT(q) + 0x2000u)
#define DATA_AT		 0x40000u
#define WAIT_ROUNDS	 20000u /* of 100 us */
#define STATUS_NEEDS_RST 0x40u

struct piece {
	u64 at;
	u32 n;
	u16 flags, next;
};

static struct ram ram;
static struct pci_bus pci;
static struct loop loop;
static struct virtio_device *device;
static u16 offered[VIRTIO_QUEUES_MAX];
static unsigned interrupts;

static void fixture_irq(void *owner, unsigned gsi, int level)
{
	(void)owner;
	(void)gsi;
	__atomic_add_fetch(&interrupts, (unsigned)level, __ATOMIC_RELAXED);
}

static void fixture_msi(void *owner, u64 address, u32 data)
{
	(void)owner;
	(void)address;
	(void)data;
}

/* RAM, bus and loop; then the test makes its device. */
static void fixture_begin(void)
{
	ram = (struct ram){ .size = RAM_BYTES, .low = RAM_BYTES };
	ram.host = calloc(1, RAM_BYTES);
	assert_non_null(ram.host);
	pci_init(&pci, (struct pci_host){ fixture_irq, fixture_msi, NULL });
	assert_int_equal(loop_init(&loop), 0);
}

static void fixture_end(void)
{
	loop_stop(&loop);
	pci_destroy(&pci);
	loop_destroy(&loop);
	free(ram.host);
}

static void common_write(u32 at, unsigned size, u64 value)
{
	device->pci.ops->bar_write(&device->pci, 0, at, size, value);
}

static u64 common_read(u32 at, unsigned size)
{
	return device->pci.ops->bar_read(&device->pci, 0, at, size);
}

static void queue_set(unsigned q)
{
	memset(ram.host + DESC_AT(q), 0, 0x3000);
	offered[q] = 0;
	common_write(VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	common_write(VIRTIO_PCI_COMMON_Q_SIZE, 2, RING_SIZE);
	common_write(VIRTIO_PCI_COMMON_Q_DESCLO, 4, DESC_AT(q));
	common_write(VIRTIO_PCI_COMMON_Q_AVAILLO, 4, AVAIL_AT(q));
	common_write(VIRTIO_PCI_COMMON_Q_USEDLO, 4, USED_AT(q));
	common_write(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static u8 status_get(void)
{
	return (u8)common_read(VIRTIO_PCI_COMMON_STATUS, 1);
}

/* What a driver does from a reset to DRIVER_OK. */
static void driver_start(void)
{
	common_write(VIRTIO_PCI_COMMON_STATUS, 1, 0);
	for (unsigned i = 0; i < WAIT_ROUNDS && status_get(); i++)
		usleep(100);
	assert_int_equal(status_get(), 0);
	common_write(VIRTIO_PCI_COMMON_STATUS, 1, 3);
	common_write(VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	common_write(VIRTIO_PCI_COMMON_GF, 4, 1); /* VERSION_1, and nothing else */
	common_write(VIRTIO_PCI_COMMON_STATUS, 1, 11);
	assert_int_equal(status_get(), 11);
	for (unsigned q = 0; q < device->kind->queues; q++)
		queue_set(q);
	common_write(VIRTIO_PCI_COMMON_STATUS, 1, 15);
}

static u16 ring16(gpa_t at)
{
	return __atomic_load_n((u16 *)(void *)(ram.host + at), __ATOMIC_ACQUIRE);
}

static u16 used_count(unsigned q)
{
	return ring16(USED_AT(q) + 2);
}

static u32 used_bytes(unsigned q, unsigned entry)
{
	u32 n;

	memcpy(&n, ram.host + USED_AT(q) + 8 + 8 * entry, 4);
	return n;
}

static void desc_set(unsigned q, unsigned i, const struct piece *p)
{
	const struct vring_desc d = { p->at, p->n, p->flags, p->next };

	memcpy(ram.host + DESC_AT(q) + 16 * i, &d, sizeof(d));
}

/* The chain that begins at descriptor @head, without a notification. */
static void offer(unsigned q, u16 head)
{
	memcpy(ram.host + AVAIL_AT(q) + 4 + 2 * (offered[q] % RING_SIZE), &head, 2);
	__atomic_store_n((u16 *)(void *)(ram.host + AVAIL_AT(q) + 2), ++offered[q],
			 __ATOMIC_RELEASE);
}

static void notify(unsigned q)
{
	device->pci.ops->bar_write(&device->pci, 0, 0x3000 + 4 * q, 2, q);
}

/* One piece as a chain of its own. */
static void offer_one(unsigned q, u16 i, u64 at, u32 n, bool is_in)
{
	const struct piece p = { at, n, is_in ? VRING_DESC_F_WRITE : 0, 0 };

	desc_set(q, i, &p);
	offer(q, i);
	notify(q);
}

static bool used_reach(unsigned q, u16 count)
{
	for (unsigned i = 0; i < WAIT_ROUNDS && used_count(q) != count; i++)
		usleep(100);
	return used_count(q) == count;
}

static bool breaks(void)
{
	for (unsigned i = 0; i < WAIT_ROUNDS && !(status_get() & STATUS_NEEDS_RST); i++)
		usleep(100);
	return status_get() & STATUS_NEEDS_RST;
}

#endif
