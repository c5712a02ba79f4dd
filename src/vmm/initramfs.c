/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The initramfs of 'anykvm run' without --initrd: busybox, and an /init that is a shell, a demo or one command. */
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
				 "mount -t proc proc /proc\n";

static const char init_marker[] = "read up idle < /proc/uptime\n"
				  "echo \"" INITRAMFS_MARKER " after $up s of guest time\"\n";

static const char init_mounts[] = "mount -t sysfs sysfs /sys\n"
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

/* The host's files below, a layer of memory above; what belongs to a running system is the guest's own. */
static const char init_root[] =
	"mkdir /lower /over /new\n"
	"mount -t virtiofs -o ro " INITRAMFS_ROOT_TAG " /lower\n"
	"mount -t tmpfs tmpfs /over\n"
	"mkdir /over/upper /over/work\n"
	"mount -t overlay -o lowerdir=/lower,upperdir=/over/upper,workdir=/over/work overlay /new\n"
	"mount -t proc proc /new/proc\n"
	"mount -t sysfs sysfs /new/sys\n"
	"mount -t devtmpfs devtmpfs /new/dev\n"
	"mkdir -p /new/dev/pts /new/dev/shm\n"
	"mount -t devpts -o mode=620,ptmxmode=666 devpts /new/dev/pts\n"
	"mount -t tmpfs -o mode=1777 tmpfs /new/dev/shm\n"
	"ln -sf /proc/self/fd /new/dev/fd\n"
	"ln -sf /proc/self/fd/0 /new/dev/stdin\n"
	"ln -sf /proc/self/fd/1 /new/dev/stdout\n"
	"ln -sf /proc/self/fd/2 /new/dev/stderr\n"
	"mount -t tmpfs -o mode=755 tmpfs /new/run\n"
	"mkdir /new/run/anykvm\n"
	"cat /command > /new/run/anykvm/command\n"
	"ifconfig lo up\n";

static const char init_net[] = "ifconfig lo up\n"
			       "for i in /sys/class/net/eth*; do\n"
			       "\ti=${i##*/}\n"
			       "\tifconfig $i up 2>/dev/null && udhcpc -q -f -n -t 3 -T 1 -i $i -s "
			       "/dhcp >/dev/null 2>&1 ||\n"
			       "\t\techo \"anykvm: no DHCP server answers on $i\" >&2\n"
			       "done\n";

/* What udhcpc calls when it has an address. */
static const char dhcp_script[] = "#!/bin/sh\n"
				  "[ \"$1\" = bound ] || exit 0\n"
				  "ifconfig $interface $ip netmask ${subnet:-255.255.255.0}\n"
				  "for r in $router; do\n"
				  "\troute add default gw $r dev $interface\n"
				  "\tbreak\n"
				  "done\n"
				  "for n in $dns; do\n"
				  "\techo \"nameserver $n\"\n"
				  "done >> /etc/resolv.conf\n";

/* A name server of the guest's network is no file of the host. */
static const char init_resolv[] = "rm -f /new/etc/resolv.conf\n"
				  "cat /etc/resolv.conf > /new/etc/resolv.conf\n";

/* The driver makes the ports one after the other; the number of the device in their names is any. */
static const char init_ports[] = "n=0\n"
				 "while [ $n -lt 500 ] && ! ls /dev/vport*p3 >/dev/null 2>&1; do "
				 "sleep 0.02; n=$((n + 1)); done\n"
				 "ports=$(echo /dev/vport*p3)\n"
				 "ports=${ports%3}\n";

static const char init_status[] = "echo $? > ${ports}3\n"
				  "sync\n"
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

/* A path of the host as a word for the shell. */
static void word_write(FILE *f, const char *before, const char *text)
{
	fprintf(f, "'%s", before);
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", f);
		else
			fputc(*text, f);
	}
	fputc('\'', f);
}

static void command_write(const struct initramfs_request *request, FILE *f)
{
	const struct initramfs_command *c = request->command;

	fputs(init_root, f);
	if (request->net_count)
		fputs(init_resolv, f);
	if (strcmp(c->folder, "/") != 0) {
		fputs("mkdir -p ", f);
		word_write(f, "/new", c->folder);
		fputs("\nmount -t virtiofs " INITRAMFS_FOLDER_TAG " ", f);
		word_write(f, "/new", c->folder);
		fputc('\n', f);
	}
	fputs(init_ports, f);
	if (c->is_terminal)
		fputs("setsid cttyhack ", f);
	fputs("chroot /new ", f);
	if (c->uid || c->gid)
		fprintf(f, "/usr/sbin/chroot --userspec=%u:%u --groups=%u / ", c->uid, c->gid,
			c->gid);
	fputs("/bin/sh /run/anykvm/command", f);
	if (!c->is_terminal)
		fputs(" < ${ports}0 > ${ports}1 2> ${ports}2", f);
	fputc('\n', f);
	fputs(init_status, f);
}

static void script_write(const struct initramfs_request *request, FILE *f)
{
	fputs(init_start, f);
	if (!request->command)
		fputs(init_marker, f);
	fputs(init_mounts, f);
	for (unsigned i = 0; request->modules && i < request->modules->count; i++)
		fprintf(f, "insmod /modules/%s\n", request->modules->list[i].place->file);
	for (unsigned i = 0; i < request->tag_count; i++)
		fprintf(f, "mkdir /mnt/%s && mount -t virtiofs %s /mnt/%s\n", request->tags[i],
			request->tags[i], request->tags[i]);
	if (request->net_count)
		fputs(init_net, f);
	if ((request->shell || request->command) && request->rows)
		fprintf(f, "stty rows %u columns %u\n", request->rows, request->columns);
	if (request->command)
		command_write(request, f);
	else
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
	if (request->command)
		cpio_add(out, "command", S_IFREG | 0755, request->command->script,
			 strlen(request->command->script));
	if (request->net_count)
		cpio_add(out, "dhcp", S_IFREG | 0755, dhcp_script, sizeof(dhcp_script) - 1);
	init_add(out, request);
	blob_free(&busybox);
	r = cpio_finish(out);
	if (r < 0) {
		cpio_free(out);
		return why_set(why, -r, "no memory for the initramfs");
	}
	return 0;
}
