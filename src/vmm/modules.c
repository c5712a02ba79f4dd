/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Kernel modules that the builtin initramfs carries. */
#include "vmm/modules.h"

#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MODULE_MAX (64u << 20)
#define DEPTH_MAX  8

const struct module_place module_places[] = {
	{ "virtio", "drivers/virtio", "virtio.ko" },
	{ "virtio_ring", "drivers/virtio", "virtio_ring.ko" },
	{ "virtio_pci_modern_dev", "drivers/virtio", "virtio_pci_modern_dev.ko" },
	{ "virtio_pci_legacy_dev", "drivers/virtio", "virtio_pci_legacy_dev.ko" },
	{ "virtio_pci", "drivers/virtio", "virtio_pci.ko" },
	{ "virtio_blk", "drivers/block", "virtio_blk.ko" },
	{ "failover", "net/core", "failover.ko" },
	{ "net_failover", "drivers/net", "net_failover.ko" },
	{ "virtio_net", "drivers/net", "virtio_net.ko" },
	{ "virtio_console", "drivers/char", "virtio_console.ko" },
	{ "virtio_rng", "drivers/char/hw_random", "virtio-rng.ko" },
	{ "vsock", "net/vmw_vsock", "vsock.ko" },
	{ "vmw_vsock_virtio_transport_common", "net/vmw_vsock",
	  "vmw_vsock_virtio_transport_common.ko" },
	{ "vmw_vsock_virtio_transport", "net/vmw_vsock", "vmw_vsock_virtio_transport.ko" },
	{ "fuse", "fs/fuse", "fuse.ko" },
	{ "virtiofs", "fs/fuse", "virtiofs.ko" },
	{ "overlay", "fs/overlayfs", "overlay.ko" },
	{ "pvpanic", "drivers/misc/pvpanic", "pvpanic.ko" },
	{ "pvpanic_pci", "drivers/misc/pvpanic", "pvpanic-pci.ko" },
	{ NULL, NULL, NULL },
};

/* The section header @i, if it and what it names lie in the file. */
static const Elf64_Shdr *section(const u8 *data, size_t size, unsigned i)
{
	const Elf64_Ehdr *e = (const Elf64_Ehdr *)data;
	const Elf64_Shdr *s;

	if (i >= e->e_shnum || e->e_shoff > size || e->e_shoff % 8 ||
	    (size - e->e_shoff) / sizeof(*s) <= i)
		return NULL;
	s = (const Elf64_Shdr *)(data + e->e_shoff) + i;
	if (s->sh_offset > size || s->sh_size > size - s->sh_offset)
		return NULL;
	return s;
}

static const Elf64_Shdr *section_named(const u8 *data, size_t size, const char *name)
{
	const Elf64_Ehdr *e = (const Elf64_Ehdr *)data;
	const Elf64_Shdr *names = section(data, size, e->e_shstrndx);
	const size_t n = strlen(name) + 1;

	for (unsigned i = 0; names && i < e->e_shnum; i++) {
		const Elf64_Shdr *s = section(data, size, i);

		if (s && s->sh_name < names->sh_size && names->sh_size - s->sh_name >= n &&
		    !memcmp(data + names->sh_offset + s->sh_name, name, n))
			return s;
	}
	return NULL;
}

bool module_depends(const u8 *data, size_t size, char *out, size_t room)
{
	static const char key[] = "depends=";
	const Elf64_Shdr *info;
	const char *p, *end;

	if (size < sizeof(Elf64_Ehdr) || memcmp(data, ELFMAG, SELFMAG) != 0)
		return false;
	info = section_named(data, size, ".modinfo");
	if (!info)
		return false;
	out[0] = 0;
	p = (const char *)data + info->sh_offset;
	end = p + info->sh_size;
	while (p < end) {
		const size_t n = strnlen(p, (size_t)(end - p));

		if (n >= sizeof(key) - 1 && !memcmp(p, key, sizeof(key) - 1))
			snprintf(out, room, "%.*s", (int)(n - sizeof(key) + 1),
				 p + sizeof(key) - 1);
		p += n + 1;
	}
	return true;
}

static const struct module_place *place_of(const char *name)
{
	for (const struct module_place *p = module_places; p->name; p++)
		if (strcmp(p->name, name) == 0)
			return p;
	return NULL;
}

static bool has(const struct modules *m, const struct module_place *place)
{
	for (unsigned i = 0; i < m->count; i++)
		if (m->list[i].place == place)
			return true;
	return false;
}

static int add(struct modules *m, const char *root, const char *name, unsigned depth,
	       struct why *why);

static int depends_add(struct modules *m, const char *root, const struct blob *file,
		       const char *name, unsigned depth, struct why *why)
{
	char list[512], *at = list, *one;
	int r = 0;

	if (!module_depends(file->data, file->size, list, sizeof(list)))
		return why_set(why, EINVAL, "%s/%s.ko is no kernel module", root, name);
	while (r == 0 && (one = strsep(&at, ",")))
		if (*one)
			r = add(m, root, one, depth + 1, why);
	return r;
}

static int add(struct modules *m, const char *root, const char *name, unsigned depth,
	       struct why *why)
{
	const struct module_place *place = place_of(name);
	struct blob file;
	char path[PATH_MAX];
	int r;

	if (!place || depth > DEPTH_MAX)
		return why_set(why, EINVAL, "the kernel's modules need '%s', which is unknown here",
			       name);
	if (has(m, place))
		return 0;
	if (snprintf(path, sizeof(path), "%s/%s/%s", root, place->folder, place->file) >= PATH_MAX)
		return why_set(why, ENAMETOOLONG, "the path of the module %s is too long", name);
	if (access(path, F_OK) < 0)
		return why_set(why, ENOENT, "there is no module '%s'", path);
	r = blob_read(&file, path, "kernel module", MODULE_MAX, why);
	if (r < 0)
		return r;
	r = depends_add(m, root, &file, name, depth, why);
	if (r < 0 || m->count == MODULES_MAX) {
		blob_free(&file);
		return r < 0 ? r : why_set(why, ENOSPC, "too many kernel modules");
	}
	m->list[m->count++] = (struct module){ place, file };
	return 0;
}

int modules_add(struct modules *m, const char *root, const char *name, struct why *why)
{
	return add(m, root, name, 0, why);
}

void modules_free(struct modules *m)
{
	for (unsigned i = 0; i < m->count; i++)
		blob_free(&m->list[i].file);
	memset(m, 0, sizeof(*m));
}
