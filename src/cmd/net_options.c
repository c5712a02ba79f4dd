/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* --net: a network of the process's own or a tap device, and forwards of ports. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/device_options.h"
#include "cmd/words.h"

#define LOOPBACK 0x7f000001u

struct net_request {
	struct net_config *net;
	bool has_user_word, has_tap_word;
};

static int number(const char *text, long low, long high, long *value)
{
	char *end;

	errno = 0;
	*value = strtol(text, &end, 10);
	return *text < '0' || *text > '9' || *end || errno || *value < low || *value > high
		       ? -EINVAL
		       : 0;
}

/* [ADDRESS:]PORT, the address may be empty; @fallback stands for none. */
static int endpoint(char *text, u32 fallback, u32 *address, u16 *port)
{
	char *colon = strrchr(text, ':');
	struct in_addr a = { htonl(fallback) };
	long n;

	if (colon)
		*colon = 0;
	if (colon && *text && inet_pton(AF_INET, text, &a) != 1)
		return -EINVAL;
	if (number(colon ? colon + 1 : text, 1, 65535, &n) < 0)
		return -EINVAL;
	*address = ntohl(a.s_addr);
	*port = (u16)n;
	return 0;
}

static int forward_parse(char *text, struct net_forward *f)
{
	char *guest = strchr(text, '-');

	if (strncmp(text, "udp:", 4) == 0 || strncmp(text, "tcp:", 4) == 0) {
		f->is_udp = text[0] == 'u';
		text += 4;
	}
	if (!guest)
		return -EINVAL;
	*guest++ = 0;
	if (endpoint(text, LOOPBACK, &f->host_address, &f->host_port) < 0)
		return -EINVAL;
	return endpoint(guest, 0, &f->guest_address, &f->guest_port);
}

static int net_hostfwd(void *device, const char *value, struct why *why)
{
	struct net_request *r = device;
	struct net_forward f = { .is_udp = false };
	char copy[128];

	r->has_user_word = true;
	if (r->net->forward_count == VMM_MAX_FORWARDS)
		return words_too_many("forwards of one network", VMM_MAX_FORWARDS, why);
	if (strlen(value) < sizeof(copy) && forward_parse(strcpy(copy, value), &f) == 0) {
		r->net->forwards[r->net->forward_count++] = f;
		return 0;
	}
	return why_set(why, EINVAL,
		       "'%.60s' is no forward; write for example hostfwd=2222-22 or "
		       "hostfwd=udp:0.0.0.0:5353-53",
		       value);
}

static int net_restrict(void *device, const char *value, struct why *why)
{
	struct net_request *r = device;

	(void)value;
	(void)why;
	r->has_user_word = true;
	r->net->is_restricted = true;
	return 0;
}

static int net_interface(void *device, const char *value, struct why *why)
{
	struct net_request *r = device;

	r->has_tap_word = true;
	if (strlen(value) >= sizeof(r->net->interface) || strpbrk(value, "/%: \t"))
		return why_set(why, EINVAL,
			       "'%.60s' is no name of an interface; give one like tap0", value);
	strcpy(r->net->interface, value);
	return 0;
}

static int net_fd(void *device, const char *value, struct why *why)
{
	struct net_request *r = device;
	long n;

	r->has_tap_word = true;
	if (number(value, 0, 1 << 20, &n) < 0)
		return why_set(why, EINVAL, "'%.60s' is no descriptor; give a number", value);
	r->net->fd = (int)n;
	return 0;
}

static int net_mac(void *device, const char *value, struct why *why)
{
	struct net_request *r = device;
	u8 *m = r->net->mac;
	char rest;

	if (strlen(value) != 17 || sscanf(value, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", m, m + 1,
					  m + 2, m + 3, m + 4, m + 5, &rest) != 6)
		return why_set(why, EINVAL,
			       "'%.60s' is no MAC address; write for example mac=52:54:00:12:34:56",
			       value);
	if (m[0] & 1 || !(m[0] | m[1] | m[2] | m[3] | m[4] | m[5]))
		return why_set(why, EINVAL,
			       "'%s' is the address of a group or of nobody; give one whose second "
			       "digit is even",
			       value);
	return 0;
}

static const struct word_row net_words[] = {
	{ "hostfwd", net_hostfwd, true }, { "restrict", net_restrict, false },
	{ "if", net_interface, true },	  { "fd", net_fd, true },
	{ "mac", net_mac, true },
};

static int kind_take(struct net_request *r, const char *kind, struct why *why)
{
	struct net_config *net = r->net;

	if (strcmp(kind, "user") == 0) {
		net->kind = NET_USER;
		if (r->has_tap_word)
			return why_set(why, EINVAL, "if= and fd= belong to --net tap; drop them");
		return 0;
	}
	if (strcmp(kind, "tap") != 0)
		return why_set(why, EINVAL, "'%s' is no network; give user or tap", kind);
	net->kind = NET_TAP;
	if (r->has_user_word)
		return why_set(why, EINVAL,
			       "hostfwd= and restrict belong to --net user; the guest of a tap "
			       "device has its own address");
	if (!net->interface[0] == (net->fd < 0))
		return why_set(why, EINVAL,
			       "a tap device is given by its name or a descriptor; write "
			       "--net tap,if=tap0");
	return 0;
}

int parse_net(const char *value, void *field, struct why *why)
{
	struct vmm_devices *all = field;
	struct net_request request = { .net = &all->nets[all->net_count] };
	char kind[16];
	int r;

	if (all->net_count == VMM_MAX_NETS)
		return words_too_many("networks", VMM_MAX_NETS, why);
	*request.net = (struct net_config){
		.mac = { 0x52, 0x54, 0x00, 0x12, 0x34, (u8)(0x56 + all->net_count) },
		.fd = -1,
	};
	r = words_take(net_words, ARRAY_SIZE(net_words), value, kind, sizeof(kind), &request, why);
	if (r == 0)
		r = kind_take(&request, kind, why);
	all->net_count++;
	return r;
}
