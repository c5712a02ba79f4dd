/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a machine is, as JSON. */
#include "vmm/move/describe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/save/save.h"

#define CPUID_MAX    256u
#define CPUID_WORDS  7u
#define FORMAT	     1
#define CPUID_FORMAT "[I,I,I,I,I,I,I]"

static json_t *cpuid_write(const struct kvm_cpuid2 *cpuid)
{
	json_t *list = json_array();

	for (u32 i = 0; i < cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		json_array_append_new(list, json_pack(CPUID_FORMAT, (json_int_t)e->function,
						      (json_int_t)e->index, (json_int_t)e->flags,
						      (json_int_t)e->eax, (json_int_t)e->ebx,
						      (json_int_t)e->ecx, (json_int_t)e->edx));
	}
	return list;
}

char *description_write(const struct control_machine *m, struct why *why)
{
	json_t *cpus = json_array(), *root;
	char *text = NULL;

	for (unsigned i = 0; i < m->config->cpus; i++)
		json_array_append_new(cpus, cpuid_write(m->cpus[i]->cpuid));
	root = json_pack("{s:i,s:I,s:s,s:o}", "format", FORMAT, "memory",
			 (json_int_t)m->config->memory, "options",
			 m->config->options ? m->config->options : "", "cpuid", cpus);
	if (root)
		text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	if (!text)
		why_set(why, ENOMEM, "no memory for the description of the machine");
	return text;
}

static int wrong(const char *what, struct why *why)
{
	return why_set(why, EINVAL, "the description of the machine is wrong: %s", what);
}

static int entry_read(struct kvm_cpuid_entry2 *e, json_t *row, struct why *why)
{
	u32 *const words[CPUID_WORDS] = { &e->function, &e->index, &e->flags, &e->eax,
					  &e->ebx,	&e->ecx,   &e->edx };

	if (json_array_size(row) != CPUID_WORDS)
		return wrong("an entry of CPUID has seven numbers", why);
	for (unsigned i = 0; i < CPUID_WORDS; i++) {
		json_t *word = json_array_get(row, i);
		const json_int_t value = json_integer_value(word);

		if (!json_is_integer(word) || value < 0 || value > 0xffffffffll)
			return wrong("a word of CPUID is not a number of 32 bits", why);
		*words[i] = (u32)value;
	}
	return 0;
}

static int cpuid_read(struct kvm_cpuid2 **out, json_t *list, struct why *why)
{
	const size_t n = json_array_size(list);
	struct kvm_cpuid2 *cpuid;
	int r = 0;

	if (n < 1 || n > CPUID_MAX)
		return wrong("a processor has 1 to 256 entries of CPUID", why);
	cpuid = calloc(1, sizeof(*cpuid) + n * sizeof(cpuid->entries[0]));
	if (!cpuid)
		return why_set(why, ENOMEM, "no memory for the CPUID table");
	cpuid->nent = (u32)n;
	for (size_t i = 0; i < n && r == 0; i++)
		r = entry_read(&cpuid->entries[i], json_array_get(list, i), why);
	*out = cpuid;
	return r;
}

static int fields_read(struct description *d, json_t *root, struct why *why)
{
	json_t *cpus = json_object_get(root, "cpuid"), *memory = json_object_get(root, "memory");
	const char *options = json_string_value(json_object_get(root, "options"));
	int r = 0;

	if (json_integer_value(json_object_get(root, "format")) != FORMAT)
		return wrong("its format is another one", why);
	if (json_object_size(root) != 4 || !options || !json_is_integer(memory))
		return wrong("it has the fields format, memory, options, cpuid, and no other", why);
	d->memory = (u64)json_integer_value(memory);
	d->cpus = (unsigned)json_array_size(cpus);
	if (d->cpus < 1 || json_array_size(cpus) > VMM_MAX_CPUS)
		return wrong("a machine has 1 to 64 processors", why);
	for (size_t i = 0; options[i] && i < sizeof(d->options) - 1; i++)
		d->options[i] = options[i] >= ' ' && options[i] < 127 ? options[i] : '?';
	for (unsigned i = 0; i < d->cpus && r == 0; i++)
		r = cpuid_read(&d->cpuid[i], json_array_get(cpus, i), why);
	return r < 0 ? r : ram_check_size(d->memory, why);
}

int description_read(struct description *d, const char *text, size_t n, struct why *why)
{
	json_error_t error;
	json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
	int r;

	memset(d, 0, sizeof(*d));
	if (!json_is_object(root)) {
		json_decref(root);
		return wrong(root ? "it is no object" : error.text, why);
	}
	r = fields_read(d, root, why);
	json_decref(root);
	if (r < 0)
		description_free(d);
	return r;
}

void description_free(struct description *d)
{
	for (unsigned i = 0; i < VMM_MAX_CPUS; i++)
		free(d->cpuid[i]);
	memset(d, 0, sizeof(*d));
}
