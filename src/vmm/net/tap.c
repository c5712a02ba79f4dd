/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A tap device of the host: each read and write is one frame. */
#include "vmm/net/link.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/if_tun.h>

#define FRAMES_PER_ROUND 64u

struct tap_link {
	struct net_link link;
	int fd;
	bool is_gone; /* the host has taken the device away */
};

static struct tap_link *tap_of(struct net_link *l)
{
	return container_of(l, struct tap_link, link);
}

/* A frame that the host does not take is lost, as on a wire. */
static void tap_send(struct net_link *l, const u8 *frame, size_t n)
{
	struct tap_link *t = tap_of(l);

	if (write(t->fd, frame, n) < 0 && (errno == EBADFD || errno == ENODEV))
		t->is_gone = true;
}

static void tap_prepare(struct net_link *l, struct loop *loop, bool has_room)
{
	struct tap_link *t = tap_of(l);

	if (has_room && !t->is_gone)
		loop_watch(loop, t->fd, POLLIN);
}

static void tap_dispatch(struct net_link *l, struct loop *loop)
{
	struct tap_link *t = tap_of(l);
	u8 frame[FRAME_MAX];
	ssize_t n = 0;

	if (!loop_came(loop, t->fd))
		return;
	for (unsigned i = 0; i < FRAMES_PER_ROUND; i++) {
		n = read(t->fd, frame, sizeof(frame));
		if (n <= 0)
			break;
		l->receive(l->owner, frame, (size_t)n);
	}
	if (n < 0 && errno != EAGAIN && errno != EINTR && errno != EIO)
		t->is_gone = true;
	else if (loop_came(loop, t->fd) & (POLLERR | POLLNVAL))
		t->is_gone = true;
}

static void tap_close(struct net_link *l)
{
	close(tap_of(l)->fd);
	free(tap_of(l));
}

static const struct net_link_ops tap_ops = { tap_send, tap_prepare, tap_dispatch, tap_close };

static int name_open(const char *name, struct why *why)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	int err;

	if (fd < 0)
		return why_set(why, errno,
			       "cannot open /dev/net/tun: %s; use --net user, or as root "
			       "'modprobe tun'",
			       strerror(errno));
	memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
	if (ioctl(fd, TUNSETIFF, &request) == 0)
		return fd;
	err = errno;
	close(fd);
	return why_set(why, err,
		       "cannot use the tap device '%s': %s; as root: ip tuntap add %s mode tap "
		       "user $USER",
		       name, strerror(err), name);
}

/* A descriptor that the caller has opened: it must be a tap device without packet information. */
static int fd_take(int fd, struct why *why)
{
	struct ifreq request;

	if (ioctl(fd, TUNGETIFF, &request) < 0 || (request.ifr_flags & IFF_TAP) == 0 ||
	    !(request.ifr_flags & IFF_NO_PI) || request.ifr_flags & IFF_VNET_HDR)
		return why_set(why, EINVAL,
			       "descriptor %d is no tap device with IFF_NO_PI and without "
			       "IFF_VNET_HDR; open it so",
			       fd);
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return why_set(why, errno, "cannot use descriptor %d: %s", fd, strerror(errno));
	return fd;
}

int tap_link_open(struct net_link **out, const struct net_config *config, struct why *why)
{
	const int fd =
		config->fd >= 0 ? fd_take(config->fd, why) : name_open(config->interface, why);
	struct tap_link *t;

	if (fd < 0)
		return fd;
	t = calloc(1, sizeof(*t));
	if (!t) {
		close(fd);
		return why_set(why, ENOMEM, "no memory for the network");
	}
	t->link.ops = &tap_ops;
	t->fd = fd;
	*out = &t->link;
	return 0;
}
