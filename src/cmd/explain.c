/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm explain: what the code of a message means, and what to do. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/types.h"
#include "cmd/args.h"
#include "cmd/cmd.h"
#include "vmm/say.h"
#include "vmm/status.h"

static const struct code {
	const char *name; /* first: args_nearest() looks there */
	const char *what, *why, *todo;
} codes[] = {
#define CODE(name, what, why, todo) { name, what, why, todo },
#include "cmd/codes.def"
#undef CODE
};

static const struct args_table explain_table = { NULL, 0 };

/* Words of @text from column @at on, broken at 78. */
static void print_wrapped(const char *label, const char *text)
{
	size_t column = (size_t)printf("%-8s", label);

	while (*text) {
		size_t n = strcspn(text, " ");

		if (column + n > 78) {
			printf("\n%8s", "");
			column = 8;
		}
		column += (size_t)printf("%.*s ", (int)n, text);
		text += n + (text[n] == ' ');
	}
	printf("\n");
}

static int help(void)
{
	printf("usage: anykvm explain [CODE]\n\n"
	       "Explains the code at the end of a message: what happened, why, and what to do.\n"
	       "Without a code, lists all.\n");
	return STATUS_OK;
}

static int list(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		printf("%s  %s\n", codes[i].name, codes[i].what);
	return STATUS_OK;
}

static int explain(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		if (strcasecmp(codes[i].name, name) != 0)
			continue;
		printf("%s: %s.\n\n", codes[i].name, codes[i].what);
		print_wrapped("Why:", codes[i].why);
		print_wrapped("To do:", codes[i].todo);
		return STATUS_OK;
	}
	say("there is no code '%.40s'; 'anykvm explain' lists them", name);
	return STATUS_USAGE;
}

int cmd_explain(int argc, char **argv)
{
	const char *name = NULL;
	struct why why;
	int status, r = args_parse(&explain_table, argc, argv, NULL, &name, 1, &why);

	if (r < 0 && r != -ENOENT) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	status = r == -ENOENT ? help() : r ? explain(name) : list();
	if (status == STATUS_OK && fflush(stdout)) {
		say("cannot write to stdout: %s", strerror(errno));
		return STATUS_OUTPUT;
	}
	return status;
}
