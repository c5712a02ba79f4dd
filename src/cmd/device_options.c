/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Options of 'anykvm run' that add a device: a name or path, then words after commas. */
#include "cmd/device_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/words.h"

static int disk_ro(void *device, const char *value, struct why *why)
{
	struct disk_config *d = device;

	(void)value;
	(void)why;
	d->read_only = true;
	return 0;
}

static int disk_format(void *device, const char *value, struct why *why)
{
	struct disk_config *d = device;

	if (strcmp(value, "raw") == 0)
		d->kind = DISK_KIND_RAW;
	else if (strcmp(value, "qcow2") == 0)
		d->kind = DISK_KIND_QCOW2;
	else
		return why_set(why, EINVAL, "'%.60s' is no format; give raw or qcow2", value);
	return 0;
}

static int disk_serial(void *device, const char *value, struct why *why)
{
	struct disk_config *d = device;

	if (strlen(value) >= sizeof(d->serial))
		return why_set(why, EINVAL, "a serial number has at most 20 characters");
	strcpy(d->serial, value);
	return 0;
}

static const struct word_row disk_words[] = {
	{ "ro", disk_ro, false },
	{ "format", disk_format, true },
	{ "serial", disk_serial, true },
};

int parse_disk(const char *value, void *field, struct why *why)
{
	struct vmm_devices *all = field;
	struct disk_config *d = &all->disks[all->disk_count];

	if (all->disk_count == VMM_MAX_DISKS)
		return words_too_many("disks", VMM_MAX_DISKS, why);
	memset(d, 0, sizeof(*d));
	snprintf(d->serial, sizeof(d->serial), "disk%u", all->disk_count);
	all->disk_count++;
	return words_take(disk_words, ARRAY_SIZE(disk_words), value, d->path, sizeof(d->path), d,
			  why);
}

static int share_ro(void *device, const char *value, struct why *why)
{
	struct share_config *s = device;

	(void)value;
	(void)why;
	s->read_only = true;
	return 0;
}

static const struct word_row share_words[] = { { "ro", share_ro, false } };

/* The tag is a name of a folder below /mnt, and a word of a shell. */
static int tag_take(struct share_config *s, const char *tag, struct why *why)
{
	const size_t n = strlen(tag);

	if (!n || n > VMM_TAG_MAX || tag[0] == '.' || tag[0] == '-' ||
	    strspn(tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != n)
		return why_set(why, EINVAL,
			       "'%.60s' is no tag; give up to %u letters, digits, '.', '_' and '-'",
			       tag, VMM_TAG_MAX);
	strcpy(s->tag, tag);
	return 0;
}

/* DIR[=TAG][,ro] */
int parse_share(const char *value, void *field, struct why *why)
{
	struct vmm_devices *all = field;
	struct share_config *s = &all->shares[all->share_count];
	char *tag, name[24];
	int r;

	if (all->share_count == VMM_MAX_SHARES)
		return words_too_many("shares", VMM_MAX_SHARES, why);
	memset(s, 0, sizeof(*s));
	r = words_take(share_words, ARRAY_SIZE(share_words), value, s->path, sizeof(s->path), s,
		       why);
	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "share%u", all->share_count);
	tag = strrchr(s->path, '=');
	if (tag)
		*tag++ = 0;
	r = tag_take(s, tag ? tag : name, why);
	for (unsigned i = 0; i < all->share_count && r == 0; i++)
		if (strcmp(all->shares[i].tag, s->tag) == 0)
			r = why_set(why, EINVAL, "the tag '%s' is given twice; write DIR=TAG",
				    s->tag);
	all->share_count++;
	return r;
}

static int vsock_uds(void *device, const char *value, struct why *why)
{
	struct vsock_config *v = device;

	if (!*value || strlen(value) >= sizeof(v->path))
		return why_set(why, EINVAL, "the path of a socket has 1 to %zu characters here",
			       sizeof(v->path) - 1);
	strcpy(v->path, value);
	return 0;
}

static const struct word_row vsock_words[] = { { "uds", vsock_uds, true } };

/* CID[,uds=PATH]: 0 to 2 are hypervisor, local and host, the last is any. */
int parse_vsock(const char *value, void *field, struct why *why)
{
	struct vmm_devices *all = field;
	struct vsock_config *v = &all->vsock;
	char number[32], *end;
	int r;

	if (v->cid)
		return why_set(why, EINVAL, "a guest has one; give the option once");
	snprintf(v->path, sizeof(v->path), "vsock.sock");
	r = words_take(vsock_words, ARRAY_SIZE(vsock_words), value, number, sizeof(number), v, why);
	if (r < 0)
		return r;
	v->cid = strtoull(number, &end, 10);
	if (number[0] < '0' || number[0] > '9' || *end || v->cid < 3 || v->cid > 0xfffffffe) {
		v->cid = 0;
		return why_set(why, EINVAL, "'%s' is no address of a guest; give a number from 3",
			       number);
	}
	return 0;
}

bool devices_any(const struct vmm_devices *d)
{
	return d->disk_count || d->share_count || d->net_count || d->vsock.cid || d->has_ports;
}

int device_modules(struct modules *modules, const struct vmm_devices *d, const char *root,
		   struct why *why)
{
	const struct {
		const char *module;
		bool is_wanted;
	} wishes[] = {
		{ "virtio_pci", true },
		{ "virtio_rng", true },
		{ "pvpanic_pci", true },
		{ "virtio_blk", d->disk_count },
		{ "virtio_net", d->net_count },
		{ "virtiofs", d->share_count },
		{ "vmw_vsock_virtio_transport", d->vsock.cid },
		{ "overlay", d->has_ports },
		{ "virtio_console", d->has_ports },
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(wishes) && r == 0; i++)
		if (wishes[i].is_wanted)
			r = modules_add(modules, root, wishes[i].module, why);
	return r;
}
