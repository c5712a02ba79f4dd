/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Values of options that are a name or path and then words after commas. */
#include "cmd/words.h"

#include <errno.h>
#include <string.h>

#include "cmd/args.h"

static int word_take(const struct word_row *rows, unsigned count, char *word, void *device,
		     struct why *why)
{
	char *value = strchr(word, '=');
	const char *near;

	if (value)
		*value++ = 0;
	for (unsigned i = 0; i < count; i++) {
		if (strcmp(rows[i].name, word) != 0)
			continue;
		if (rows[i].has_value && (!value || !*value))
			return why_set(why, EINVAL, "%s needs a value; write %s=VALUE", word, word);
		if (!rows[i].has_value && value)
			return why_set(why, EINVAL, "%s takes no value; write it alone", word);
		return rows[i].take(device, value, why);
	}
	near = args_nearest(word, rows, count, sizeof(rows[0]));
	return why_set(why, EINVAL, "there is no word '%.60s'; %s%s%s", word,
		       near ? "did you mean " : "the manual page anykvm-run lists them",
		       near ? near : "", near ? "?" : "");
}

int words_take(const struct word_row *rows, unsigned count, const char *text, char *first,
	       size_t room, void *device, struct why *why)
{
	char copy[8192], *at = copy, *word;
	int r = 0;

	if (strlen(text) >= sizeof(copy))
		return why_set(why, ENAMETOOLONG, "the value is too long");
	strcpy(copy, text);
	word = strsep(&at, ",");
	if (!*word)
		return why_set(why, EINVAL, "'%.60s' begins with nothing; see --help", text);
	if (strlen(word) >= room)
		return why_set(why, ENAMETOOLONG, "'%.60s...' is too long", word);
	strcpy(first, word);
	while (r == 0 && (word = strsep(&at, ",")))
		r = word_take(rows, count, word, device, why);
	return r;
}

int words_too_many(const char *what, unsigned max, struct why *why)
{
	return why_set(why, EINVAL, "a machine has at most %u %s; give fewer", max, what);
}
