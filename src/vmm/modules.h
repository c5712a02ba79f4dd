/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Kernel modules that the builtin initramfs carries: which there are, where they lie, and in what order they load. */
#ifndef VMM_MODULES_H
#define VMM_MODULES_H

#include "vmm/blob.h"

#define MODULES_MAX 32u

struct module_place {
	const char *name;
	const char *folder; /* under lib/modules/VERSION/kernel */
	const char *file;
};

/* All that any device of the board can need; MODULES_MAX at most, the last one's name is NULL. */
extern const struct module_place module_places[];

struct modules {
	struct module {
		const struct module_place *place;
		struct blob file;
	} list[MODULES_MAX]; /* each after those that it depends on */
	unsigned count;
};

/* Add a module of the folder @root (.../kernel), and first what it depends on. 0, -ENOENT where it is not, or -errno. */
int modules_add(struct modules *m, const char *root, const char *name, struct why *why);
void modules_free(struct modules *m);

/* The names that the .modinfo section of a module gives after "depends=", copied to @out. False: no module. */
bool module_depends(const u8 *data, size_t size, char *out, size_t room);

#endif
