/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The name of a VM and the places that belong to it. */
#include "vmm/monitor/name.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int name_check(const char *name, struct why *why)
{
	const size_t n = strlen(name);

	for (size_t i = 0; i < n; i++) {
		const char c = name[i];
		const bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
				     (c >= '0' && c <= '9') || c == '_';

		if (!is_word && (i == 0 || (c != '.' && c != '-')))
			return why_set(why, EINVAL,
				       "'%.60s' cannot name a VM; give letters, digits, '_', and "
				       "after the first also '.' and '-'",
				       name);
	}
	if (n == 0 || n > NAME_MAX_BYTES)
		return why_set(why, EINVAL, "the name of a VM has 1 to %u characters",
			       NAME_MAX_BYTES);
	return 0;
}

/* A folder that others can write to is no place for a socket that ends VMs. */
static int folder_check(const char *path, struct why *why)
{
	struct stat st;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return why_set(why, errno, "cannot make the folder %s: %s; set XDG_RUNTIME_DIR",
			       path, strerror(errno));
	if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
	    st.st_mode & 022)
		return why_set(why, EPERM,
			       "%s is not a folder that only this user can write to; remove it, or "
			       "set XDG_RUNTIME_DIR",
			       path);
	return 0;
}

static int paths_make(struct named *n, const char *name, struct why *why)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char folder[sizeof(n->lock_path)];
	int size, r = name_check(name, why);

	n->lock_fd = -1;
	n->address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (r < 0)
		return r;
	if (runtime && runtime[0] == '/')
		size = snprintf(folder, sizeof(folder), "%s/anykvm", runtime);
	else
		size = snprintf(folder, sizeof(folder), "/tmp/anykvm-%u", (unsigned)geteuid());
	if ((size_t)size + 1 + NAME_MAX_BYTES + sizeof(".lock") > sizeof(folder))
		return why_set(why, ENAMETOOLONG, "XDG_RUNTIME_DIR is too long for a socket");
	r = folder_check(folder, why);
	if (r < 0)
		return r;
	snprintf(n->address.sun_path, sizeof(n->address.sun_path), "%.*s/%.*s.sock", size, folder,
		 (int)NAME_MAX_BYTES, name);
	snprintf(n->lock_path, sizeof(n->lock_path), "%.*s/%.*s.lock", size, folder,
		 (int)NAME_MAX_BYTES, name);
	return 0;
}

/* The lock's file is never removed: whoever waited for it would hold a lock that nobody sees. */
int name_take(struct named *n, const char *name, struct why *why)
{
	int r = paths_make(n, name, why);

	if (r < 0)
		return r;
	n->lock_fd = open(n->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (n->lock_fd < 0)
		return why_set(why, errno, "cannot open %s: %s", n->lock_path, strerror(errno));
	if (flock(n->lock_fd, LOCK_EX | LOCK_NB) == 0) {
		unlink(n->address.sun_path);
		return 0;
	}
	r = errno;
	close(n->lock_fd);
	n->lock_fd = -1;
	if (r == EWOULDBLOCK)
		return why_set(why, EBUSY,
			       "a VM named '%s' is running; give another --name, or end it with "
			       "'anykvm ctl %s quit'",
			       name, name);
	return why_set(why, r, "cannot lock %s: %s", n->lock_path, strerror(r));
}

void name_give_back(struct named *n)
{
	if (n->lock_fd < 0)
		return;
	unlink(n->address.sun_path);
	close(n->lock_fd);
	n->lock_fd = -1;
}

int name_connect(const char *name, struct why *why)
{
	struct named n;
	int fd, r = paths_make(&n, name, why);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return why_set(why, errno, "cannot make a socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&n.address, sizeof(n.address)) == 0)
		return fd;
	r = errno;
	close(fd);
	if (r == ENOENT || r == ECONNREFUSED)
		return why_set(why, ENOENT,
			       "there is no VM named '%s'; 'anykvm run --name %s' starts one", name,
			       name);
	return why_set(why, r, "cannot connect to the VM '%s': %s", name, strerror(r));
}
