/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Libraries that few runs need: loaded when one does. */
#include "vmm/late.h"

#include <dlfcn.h>
#include <errno.h>

static int load_locked(const struct late *l, struct why *why)
{
	void *library = dlopen(l->file, RTLD_NOW | RTLD_LOCAL);

	for (size_t i = 0; library && i < l->count; i++) {
		l->functions[i] = dlsym(library, l->names[i]);
		if (!l->functions[i])
			library = NULL;
	}
	return library ? 0
		       : why_set(why, ENOENT, "cannot load %s: %.200s; install the package %s",
				 l->file, dlerror(), l->package);
}

int late_load(struct late *l, struct why *why)
{
	int r = 0;

	pthread_mutex_lock(&l->lock);
	if (!l->is_loaded)
		r = load_locked(l, why);
	l->is_loaded = r == 0;
	pthread_mutex_unlock(&l->lock);
	return r;
}
