/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Packets of gdb's remote serial protocol on a socket: $data#checksum, acknowledged by + until that is switched off. */
#ifndef VMM_GDB_PACKET_H
#define VMM_GDB_PACKET_H

#include "base/types.h"
#include "vmm/why.h"

#define PACKET_MAX 16384u

struct packets {
	int fd; /* -1: nobody is connected */
	bool no_ack;
	u8 in[PACKET_MAX];
	size_t in_size;
	char last[PACKET_MAX + 8]; /* sent, and perhaps wanted again */
	size_t last_size;
};

enum packet_kind { PACKET_NONE, PACKET_DATA, PACKET_BREAK, PACKET_GONE };

/* Take what has come; false: the other side is gone. */
bool packets_fill(struct packets *p);

/* The next one, its data with a NUL after it in @out, which has room for PACKET_MAX. */
enum packet_kind packet_next(struct packets *p, char *out, size_t *n);

/* @data as it is, escaped where it must be. */
void packet_send(struct packets *p, const char *data, size_t n);

/* A listening socket, and its place in words for a person. */
int packet_listen(const char *where, char *place, size_t room, struct why *why);

/* Hexadecimal digits: @n bytes as 2 * @n characters and a NUL; back again, false where there are none. */
void hex_write(char *out, const void *data, size_t n);
bool hex_read(const char *text, void *data, size_t n);

#endif
