/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm run -- CMD: one program in a guest over the host's files. */
#include "cmd/command.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

/* What means something only on the host: its loader, its sockets, and the options of this program. */
static const char *const host_only[] = {
	"LD_",	    "ANYKVM",	"DBUS_",  "SSH_", "XDG_RUNTIME_DIR=",
	"DISPLAY=", "WAYLAND_", "SHLVL=", "PWD=",
};

/* For the shell: 'text', and each quote in it as '\''. */
static void quote(FILE *f, const char *text)
{
	fputc('\'', f);
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", f);
		else
			fputc(*text, f);
	}
	fputc('\'', f);
}

static bool is_passed(const char *variable)
{
	const size_t name = strcspn(variable, "=");

	for (size_t i = 0; i < ARRAY_SIZE(host_only); i++)
		if (strncmp(variable, host_only[i], strlen(host_only[i])) == 0)
			return false;
	for (size_t i = 0; i < name; i++)
		if (variable[i] != '_' && !isalnum((unsigned char)variable[i]))
			return false;
	return name && variable[name] && !isdigit((unsigned char)variable[0]);
}

static void script_write(FILE *f, const char *folder, char *const argv[])
{
	for (char **e = environ; *e; e++) {
		const size_t name = strcspn(*e, "=");

		if (!is_passed(*e))
			continue;
		fprintf(f, "export %.*s=", (int)name, *e);
		quote(f, *e + name + 1);
		fputc('\n', f);
	}
	fputs("cd ", f);
	quote(f, folder);
	fputs(" || exit 125\nexec", f);
	for (; *argv; argv++) {
		fputc(' ', f);
		quote(f, *argv);
	}
	fputc('\n', f);
}

static int share_add(struct vmm_devices *d, const char *path, const char *tag, bool read_only,
		     struct why *why)
{
	struct share_config *s = &d->shares[d->share_count];

	if (d->share_count == VMM_MAX_SHARES)
		return why_set(why, EINVAL, "a machine has at most %u shares, and '--' needs two",
			       VMM_MAX_SHARES);
	snprintf(s->path, sizeof(s->path), "%s", path);
	snprintf(s->tag, sizeof(s->tag), "%s", tag);
	s->read_only = read_only;
	d->share_count++;
	return 0;
}

int command_prepare(struct vmm_devices *devices, struct initramfs_command *guest,
		    char *const argv[], struct why *why)
{
	size_t n = 0;
	FILE *f;
	int r;

	if (!argv[0])
		return why_set(why, EINVAL, "nothing follows '--'; write for example -- uname -a");
	if (!getcwd(guest->folder, sizeof(guest->folder)))
		return why_set(why, errno,
			       "the current folder cannot be told: %s; go to another one",
			       strerror(errno));
	f = open_memstream(&guest->script, &n);
	if (!f)
		return why_set(why, ENOMEM, "no memory for the command");
	script_write(f, guest->folder, argv);
	if (fclose(f) != 0)
		return why_set(why, ENOMEM, "no memory for the command");
	guest->is_terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	guest->uid = geteuid();
	guest->gid = getegid();
	devices->has_ports = true;
	r = share_add(devices, "/", INITRAMFS_ROOT_TAG, true, why);
	if (r == 0 && strcmp(guest->folder, "/") != 0)
		r = share_add(devices, guest->folder, INITRAMFS_FOLDER_TAG, false, why);
	return r;
}
