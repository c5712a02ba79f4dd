/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ANYKVM_OPTIONS: what may be chosen for the whole process. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kvm/options.h"

#define OPTION_MAX 64

struct option_value {
	const char *name;
	int value;
};

struct option {
	const char *key;
	const struct option_value *values;
	const char *choice; /* for the message */
	void (*set)(struct options *o, const struct option_value *v);
};

/* Hits between two audits. */
enum { AUDIT_STRICT = 100, AUDIT_ON = 20000 };

static void set_engine(struct options *o, const struct option_value *v)
{
	o->form = v->value;
}

static void set_cpu_mask(struct options *o, const struct option_value *v)
{
	snprintf(o->cpu_mask, sizeof(o->cpu_mask), "%s", v->value ? v->name : "");
}

static void set_counters(struct options *o, const struct option_value *v)
{
	o->counters = v->value;
}

static void set_beside(struct options *o, const struct option_value *v)
{
	o->beside = v->value;
}

static void set_dirty(struct options *o, const struct option_value *v)
{
	o->collector = v->value;
}

static void set_ahead(struct options *o, const struct option_value *v)
{
	o->ahead = v->value;
}

static void set_cross(struct options *o, const struct option_value *v)
{
	o->cross = v->value;
}

static void set_loops(struct options *o, const struct option_value *v)
{
	o->loops = v->value;
}

static void set_windows(struct options *o, const struct option_value *v)
{
	o->windows = v->value;
}

static void set_perf_map(struct options *o, const struct option_value *v)
{
	o->perf_map = v->value;
}

static void set_audit(struct options *o, const struct option_value *v)
{
	o->audit = v->value;
	o->audit_strict = v->value == AUDIT_STRICT;
}

static void set_halt_poll(struct options *o, const struct option_value *v)
{
	o->halt_poll = v->value;
}

static void set_exact(struct options *o, const struct option_value *v)
{
	o->exact = v->value;
}

static const struct option_value switch_values[] = { { "off", 0 }, { "on", 1 }, { NULL, 0 } };

static const struct option_value audit_values[] = {
	{ "off", 0 }, { "on", AUDIT_ON }, { "strict", AUDIT_STRICT }, { NULL, 0 }
};

static const struct option_value engine_values[] = {
	{ "checked", ENGINE_CHECKED },
	{ "fast", ENGINE_FAST },
	{ NULL, 0 },
};

static const struct option_value cpu_mask_values[] = {
	{ "none", 0 }, { "x86-64-v2", 2 }, { "x86-64-v3", 3 }, { "x86-64-v4", 4 }, { NULL, 0 },
};

static const struct option_value dirty_values[] = {
	{ "wp", DIRTY_WP },
	{ "pml", DIRTY_PML },
	{ NULL, 0 },
};

static const struct option options[] = {
	{ "engine", engine_values, "checked or fast", set_engine },
	{ "cpu-mask", cpu_mask_values, "none, x86-64-v2, x86-64-v3 or x86-64-v4", set_cpu_mask },
	{ "counters", switch_values, "on or off", set_counters },
	{ "dirty", dirty_values, "wp or pml", set_dirty },
	{ "ahead", switch_values, "on or off", set_ahead },
	{ "loops", switch_values, "on or off", set_loops },
	{ "windows", switch_values, "on or off", set_windows },
	{ "cross", switch_values, "on or off", set_cross },
	{ "beside", switch_values, "on or off", set_beside },
	{ "halt-poll", switch_values, "on or off", set_halt_poll },
	{ "perf-map", switch_values, "on or off", set_perf_map },
	{ "exact", switch_values, "on or off", set_exact },
	{ "audit", audit_values, "off, on or strict", set_audit },
};

void options_default(struct options *o)
{
	o->form = ENGINE_FAST;
	o->counters = false;
	o->collector = DIRTY_WP;
	o->windows = true;
	o->loops = true;
	o->ahead = true;
	o->cross = true;
	o->beside = true;
	o->halt_poll = true;
	o->perf_map = false;
	o->exact = false;
	o->audit = 0;
	o->audit_strict = false;
	o->cpu_mask[0] = 0;
}

/* The keys, for a person. */
static void names_list(char *out, size_t room)
{
	size_t n = 0;

	out[0] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(options) && n < room; i++)
		n += (size_t)snprintf(out + n, room - n, "%s%s", i ? ", " : "", options[i].key);
}

static int option_apply(struct options *o, const char *key, const char *value, char *why,
			size_t why_size)
{
	const struct option_value *v;
	const struct option *opt;
	char names[160];

	for (opt = options; opt < options + ARRAY_SIZE(options); opt++) {
		if (strcmp(opt->key, key))
			continue;
		for (v = opt->values; v->name; v++) {
			if (!strcmp(v->name, value)) {
				opt->set(o, v);
				return 0;
			}
		}
		snprintf(why, why_size, "option %s: \"%s\" is not known; use %s", key, value,
			 opt->choice);
		return -EINVAL;
	}
	names_list(names, sizeof(names));
	snprintf(why, why_size, "option \"%s\" is not known; there are %s", key, names);
	return -EINVAL;
}

int options_parse(struct options *o, const char *text, char *why, size_t why_size)
{
	char item[OPTION_MAX], *value;
	int r;

	while (*text) {
		size_t n = strcspn(text, ",");

		if (n >= sizeof(item)) {
			snprintf(why, why_size, "option \"%.32s...\" is too long", text);
			return -EINVAL;
		}
		memcpy(item, text, n);
		item[n] = 0;
		text += n + (text[n] == ',');
		if (!n)
			continue;
		value = strchr(item, '=');
		if (!value) {
			snprintf(why, why_size, "option \"%s\" has no value; write %s=VALUE", item,
				 item);
			return -EINVAL;
		}
		*value++ = 0;
		r = option_apply(o, item, value, why, why_size);
		if (r)
			return r;
	}
	return 0;
}
