/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm ctl: one command for the monitor of a running VM. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/args.h"
#include "cmd/cmd.h"
#include "vmm/monitor/client.h"
#include "vmm/say.h"
#include "vmm/status.h"

static const struct args_table ctl_table = { NULL, 0 };

static int help(void)
{
	printf("usage: anykvm ctl NAME COMMAND [ARGUMENTS]\n\n"
	       "Sends COMMAND to the VM that 'anykvm run --name NAME' has started, and prints the\n"
	       "answer. ARGUMENTS is a JSON object. 'query-commands' lists the commands; among "
	       "them\n"
	       "are query-status, stop, cont and quit.\n\n"
	       "Exit status: 0 done, 1 the VM refuses, 2 usage, or there is no such VM.\n");
	return STATUS_OK;
}

static int answer_print(json_t *result)
{
	char *text = json_dumps(result, JSON_COMPACT | JSON_ENCODE_ANY);
	const bool is_printed = text && puts(text) >= 0 && fflush(stdout) == 0;

	free(text);
	if (is_printed)
		return STATUS_OK;
	say("cannot write to stdout: %s", strerror(errno));
	return STATUS_OUTPUT;
}

static int command_send(const char *name, const char *command, json_t *arguments)
{
	struct monitor_client client;
	struct why why;
	json_t *result;
	int status = STATUS_REFUSED;

	if (monitor_client_open(&client, name, &why) < 0) {
		say("%s", why.text);
		json_decref(arguments);
		return STATUS_USAGE;
	}
	if (monitor_client_call(&client, command, arguments, &result, &why) < 0) {
		say("%s", why.text);
	} else {
		status = answer_print(result);
		json_decref(result);
	}
	monitor_client_close(&client);
	return status;
}

int cmd_ctl(int argc, char **argv)
{
	const char *words[3] = { NULL, NULL, NULL };
	json_t *arguments = NULL;
	json_error_t error;
	struct why why;
	const int r = args_parse(&ctl_table, argc, argv, NULL, words, 3, &why);

	if (r == -ENOENT)
		return help();
	if (r < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	if (r < 2) {
		say("ctl needs a name and a command; write for example anykvm ctl NAME "
		    "query-status");
		return STATUS_USAGE;
	}
	if (words[2]) {
		arguments = json_loads(words[2], JSON_REJECT_DUPLICATES, &error);
		if (!json_is_object(arguments)) {
			say("the arguments are no JSON object: %s",
			    arguments ? "write {\"name\": value}" : error.text);
			json_decref(arguments);
			return STATUS_USAGE;
		}
	}
	return command_send(words[0], words[1], arguments);
}
