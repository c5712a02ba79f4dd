/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The initramfs of 'anykvm run' without --initrd: busybox, and an /init that is a shell or a demo. */
#include "vmm/initramfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vmm/blob.h"

#define BUSYBOX_MAX (64u << 20)

/* The numbers 1 to 100000, a line each: what sha256sum says of them on any machine. */
#define STREAM	   "seq 1 100000"
#define STREAM_SUM "b2bc7d3f8b652d2ec96865b68ad8f80e22cca174abe1aed7889e242a747d590f"

/* The proc file system is there before the first line, so that it can say when. */
static const char init_start[] = "#!/bin/sh\n"
				 "export PATH=/bin HOME=/root TERM=${TERM:-linux}\n"
				 "mount -t proc proc /proc\n"
				 "read up idle < /proc/uptime\n"
				 "echo \"" INITRAMFS_MARKER " after $up s of guest time\"\n"
				 "mount -t sysfs sysfs /sys\n"
				 "mount -t devtmpfs devtmpfs /dev\n";

static const char init_demo[] =
	"uname -a\n"
	"grep -m 1 'model name' /proc/cpuinfo\n"
	"free\n"
	"want=" STREAM_SUM "\n"
	"sum=$(" STREAM " | sha256sum)\n"
	"if [ \"${sum%% *}\" = $want ]; then verdict=right; else verdict=\"WRONG, not $want\"; fi\n"
	"echo \"sha256 of '" STREAM "': ${sum%% *} ($verdict)\"\n"
	"read up idle < /proc/uptime\n"
	"echo \"anykvm: demo done after $up s of guest time; powering off\"\n"
	"poweroff -f\n";

static const char init_shell[] =
	"busybox --install -s /bin\n"
	"hostname anykvm\n"
	"echo \"Linux $(uname -r) on $(uname -m). 'poweroff -f' or Ctrl-A x ends the VM.\"\n"
	"cd /root\n"
	"setsid cttyhack sh -l\n"
	"poweroff -f\n";

/* What the demo and a first look need; the shell adds the rest. */
static const char *const applets[] = {
	"sh",	     "mount",	 "echo", "uname", "grep",  "free",     "seq",
	"sha256sum", "poweroff", "cat",	 "ls",	  "dmesg", "hostname", "stty",
	"setsid",    "cttyhack", "awk",	 "gzip",  "sort",  "dd",       "sleep",
	"test",	     "reboot",	 "halt", "ps",	  "top",   "vi",       "insmod",
};

static const char *const directories[] = {
	"bin", "dev", "proc", "sys", "root", "tmp", "etc", "modules", "mnt",
};

static const struct node {
	const char *path;
	unsigned major, minor;
} nodes[] = {
	{ "dev/console", 5, 1 },
	{ "dev/null", 1, 3 },
	{ "dev/tty", 5, 0 },
	{ "dev/ttyS0", 4, 64 },
};

static void script_write(const struct initramfs_request *request, FILE *f)
{
	fputs(init_start, f);
	for (unsigned i = 0; request->modules && i < request->modules->count; i++)
		fprintf(f, "insmod /modules/%s\n", request->modules->list[i].place->file);
	if (request->shell && request->rows)
		fprintf(f, "stty rows %u columns %u\n", request->rows, request->columns);
	fputs(request->shell ? init_shell : init_demo, f);
}

static void init_add(struct cpio *c, const struct initramfs_request *request)
{
	char *script = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&script, &n);

	if (!f) {
		c->failed = true;
		return;
	}
	script_write(request, f);
	if (fclose(f) != 0)
		c->failed = true;
	else
		cpio_add(c, "init", S_IFREG | 0755, script, n);
	free(script);
}

static void modules_store(struct cpio *c, const struct modules *m)
{
	char path[64];

	for (unsigned i = 0; m && i < m->count; i++) {
		snprintf(path, sizeof(path), "modules/%s", m->list[i].place->file);
		cpio_add(c, path, S_IFREG | 0644, m->list[i].file.data, m->list[i].file.size);
	}
}

int initramfs_make(struct cpio *out, const struct initramfs_request *request, struct why *why)
{
	struct blob busybox;
	char path[64];
	int r;

	memset(out, 0, sizeof(*out));
	r = blob_read(&busybox, request->busybox, "busybox", BUSYBOX_MAX, why);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(directories); i++)
		cpio_add_directory(out, directories[i]);
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
		cpio_add_device(out, nodes[i].path, S_IFCHR | 0600, nodes[i].major, nodes[i].minor);
	cpio_add(out, "bin/busybox", S_IFREG | 0755, busybox.data, busybox.size);
	for (size_t i = 0; i < ARRAY_SIZE(applets); i++) {
		snprintf(path, sizeof(path), "bin/%s", applets[i]);
		cpio_add_link(out, path, "busybox");
	}
	modules_store(out, request->modules);
	init_add(out, request);
	blob_free(&busybox);
	r = cpio_finish(out);
	if (r < 0) {
		cpio_free(out);
		return why_set(why, -r, "no memory for the initramfs");
	}
	return 0;
}
