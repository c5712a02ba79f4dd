/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The PCI devices of the board, as the configuration asks for them, and the thread that serves them. */
#include "vmm/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/virtio/rng.h"

static void add(struct devices *d, struct virtio_device *v)
{
	d->all[d->count++] = v;
}

static int failed(int r, const char *what, struct why *why)
{
	return why_set(why, -r, "cannot make the device %s: %s", what, strerror(-r));
}

static int rng_add(struct devices *d, const struct ram *ram, struct why *why)
{
	int r = rng_create(&d->rng, &d->pci, &d->loop, ram);

	if (r < 0)
		return failed(r, "virtio-rng", why);
	add(d, d->rng);
	return 0;
}

static int disk_add(struct devices *d, unsigned i, const struct disk_config *config,
		    const struct ram *ram, bool is_away, struct why *why)
{
	static const enum disk_format formats[] = {
		[DISK_KIND_ANY] = DISK_ANY,
		[DISK_KIND_RAW] = DISK_RAW,
		[DISK_KIND_QCOW2] = DISK_QCOW2,
	};
	struct disk *disk;
	int r = disk_open(&disk, config->path, formats[config->kind], config->read_only, is_away,
			  why);

	if (r < 0)
		return r;
	r = blk_create(&d->disks[i], disk, config->serial, &d->pci, &d->loop, ram);
	if (r < 0) {
		disk_close(disk);
		return failed(r, "virtio-blk", why);
	}
	add(d, blk_device(d->disks[i]));
	return 0;
}

static int share_add(struct devices *d, unsigned i, const struct share_config *config,
		     const struct ram *ram, struct why *why)
{
	int r = fs_create(&d->shares[i], config->path, config->tag, config->read_only, &d->pci,
			  &d->loop, ram, why);

	if (r == 0)
		add(d, fs_device(d->shares[i]));
	return r;
}

static int net_add(struct devices *d, unsigned i, const struct net_config *config,
		   const struct ram *ram, struct why *why)
{
	struct net_link *link;
	int r = config->kind == NET_TAP ? tap_link_open(&link, config, why)
					: user_link_open(&link, config, why);

	if (r < 0)
		return r;
	r = net_create(&d->nets[i], link, config->mac, &d->pci, &d->loop, ram);
	if (r < 0) {
		link->ops->close(link);
		return failed(r, "virtio-net", why);
	}
	add(d, net_device(d->nets[i]));
	return 0;
}

static int vsock_add(struct devices *d, const struct vsock_config *config, const struct ram *ram,
		     struct why *why)
{
	int r = vsock_create(&d->vsock, config, &d->pci, &d->loop, ram, why);

	if (r == 0)
		add(d, vsock_device(d->vsock));
	return r;
}

static int ports_add(struct devices *d, const struct devices_ops *ops, const struct ram *ram,
		     struct why *why)
{
	const struct port_end ends[] = {
		{ "anykvm.stdin", STDIN_FILENO, -1, NULL, NULL },
		{ "anykvm.stdout", -1, STDOUT_FILENO, NULL, NULL },
		{ "anykvm.stderr", -1, STDERR_FILENO, NULL, NULL },
		{ "anykvm.status", -1, -1, ops->status, ops->owner },
	};
	int r = ports_create(&d->ports, ends, ARRAY_SIZE(ends),
			     (struct ports_ops){ ops->failed, ops->owner }, &d->pci, &d->loop, ram);

	if (r < 0)
		return failed(r, "virtio-console", why);
	add(d, ports_device(d->ports));
	return 0;
}

int devices_create(struct devices *d, const struct vmm_devices *wanted, const struct ram *ram,
		   struct pci_host host, struct devices_ops ops, bool is_coming, struct why *why)
{
	int r = loop_init(&d->loop);

	if (r < 0)
		return failed(r, "thread", why);
	pci_init(&d->pci, host);
	d->is_created = true;
	r = rng_add(d, ram, why);
	if (r == 0 && pvpanic_init(&d->pvpanic, &d->pci, ops.panicked, ops.owner) < 0)
		r = failed(-ENOSPC, "pvpanic", why);
	for (unsigned i = 0; i < wanted->disk_count && r == 0; i++)
		r = disk_add(d, i, &wanted->disks[i], ram, is_coming, why);
	for (unsigned i = 0; i < wanted->share_count && r == 0; i++)
		r = share_add(d, i, &wanted->shares[i], ram, why);
	for (unsigned i = 0; i < wanted->net_count && r == 0; i++)
		r = net_add(d, i, &wanted->nets[i], ram, why);
	if (r == 0 && wanted->vsock.cid)
		r = vsock_add(d, &wanted->vsock, ram, why);
	if (r == 0 && wanted->has_ports)
		r = ports_add(d, &ops, ram, why);
	if (r == 0)
		pci_assign(&d->pci);
	else
		devices_destroy(d);
	return r;
}

void devices_destroy(struct devices *d)
{
	if (!d->is_created)
		return;
	for (unsigned i = 0; i < VMM_MAX_DISKS; i++)
		if (d->disks[i])
			blk_destroy(d->disks[i]);
	for (unsigned i = 0; i < VMM_MAX_SHARES; i++)
		if (d->shares[i])
			fs_destroy(d->shares[i]);
	for (unsigned i = 0; i < VMM_MAX_NETS; i++)
		if (d->nets[i])
			net_destroy(d->nets[i]);
	if (d->vsock)
		vsock_destroy(d->vsock);
	if (d->ports)
		ports_destroy(d->ports);
	if (d->rng)
		virtio_destroy(d->rng);
	free(d->rng);
	pci_destroy(&d->pci);
	loop_destroy(&d->loop);
	memset(d, 0, sizeof(*d));
}

int devices_start(struct devices *d)
{
	return loop_start(&d->loop);
}

void devices_freeze(struct devices *d)
{
	loop_stop(&d->loop);
	for (unsigned i = 0; i < d->count; i++)
		virtio_quiesce(d->all[i]);
}

int devices_thaw(struct devices *d)
{
	return loop_start(&d->loop);
}

void devices_flush(struct devices *d)
{
	for (unsigned i = 0; i < VMM_MAX_DISKS; i++)
		if (d->disks[i] && !blk_disk(d->disks[i])->is_read_only)
			disk_file_flush(blk_disk(d->disks[i])->fd);
}

static int each_disk(struct devices *d, int (*fn)(struct disk *disk, struct why *why),
		     struct why *why)
{
	int r = 0;

	for (unsigned i = 0; i < VMM_MAX_DISKS && r == 0; i++)
		if (d->disks[i])
			r = fn(blk_disk(d->disks[i]), why);
	return r;
}

int devices_settle(struct devices *d, struct why *why)
{
	return each_disk(d, disk_settle, why);
}

int devices_check_disks(struct devices *d, struct why *why)
{
	return each_disk(d, disk_check, why);
}

int devices_take_disks(struct devices *d, struct why *why)
{
	return each_disk(d, disk_take, why);
}

void devices_release_disks(struct devices *d)
{
	for (unsigned i = 0; i < VMM_MAX_DISKS; i++)
		if (d->disks[i])
			disk_release(blk_disk(d->disks[i]));
}

unsigned devices_list(const struct devices *d, const struct device **out)
{
	unsigned n = 0;

	out[n++] = &d->pci.device;
	out[n++] = &d->pvpanic.device;
	for (unsigned i = 0; i < d->count; i++)
		out[n++] = &d->all[i]->device;
	return n;
}

void devices_stop(struct devices *d)
{
	loop_stop(&d->loop);
	for (unsigned i = 0; i < d->count; i++)
		d->all[i]->device.reset(d->all[i]->device.self);
}
