/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The stream of a migration: frames with type, number, size and checksum, in both directions over one socket. */
/*
 *	source                                   target
 *	HELLO  description, wishes        ->
 *	                                  <-     WELCOME, or REFUSE with a reason (at any later time, too)
 *	PAGES, ZEROS ...                  ->
 *	ROUND                             ->
 *	                                  <-     ROUND_DONE            (how fast the link is)
 *	... rounds; then the source stands
 *	PAGES, ZEROS, STATE, END          ->     checks all of it, puts it into its machine
 *	                                  <-     READY                 the commit exchange begins
 *	COMMIT                            ->     the machine runs here
 *	                                  <-     RUNNING
 *
 * Until the source has written COMMIT it goes on when anything fails, and the target ends. Once it has begun to write COMMIT it
 * never runs again by itself: RUNNING ends it, and anything else leaves it standing until somebody resolves it. A target that
 * has sent READY and hears nothing stands, too. So never do two sides run, whatever byte is the last one that arrives.
 */
#ifndef VMM_MOVE_WIRE_H
#define VMM_MOVE_WIRE_H

#include "base/types.h"
#include "vmm/why.h"

enum frame_type {
	FRAME_HELLO = 1,
	FRAME_WELCOME,
	FRAME_REFUSE,
	FRAME_PAGES, /* u64 numbers[n], n pages */
	FRAME_ZEROS, /* u64 first, u64 count, any number of times */
	FRAME_ROUND,
	FRAME_ROUND_DONE,
	FRAME_STATE,
	FRAME_END,   /* SHA-256 of all memory, or nothing */
	FRAME_READY, /* u64 microseconds that the SHA-256 took there, or nothing */
	FRAME_COMMIT,
	FRAME_RUNNING,
	FRAME_TYPES,
};

#define WIRE_PAGES   64u /* of one frame */
#define SHA256_BYTES 32u

struct wire {
	int fd;
	u32 sent, received; /* frames */
	u64 bytes;	    /* sent */
	u8 *data;	    /* of the frame that came last */
	size_t size, room;
	enum frame_type type;
};

void wire_init(struct wire *w, int fd);
void wire_close(struct wire *w);

/* 0, or -errno with one line. */
int wire_send(struct wire *w, enum frame_type type, const void *data, size_t n, struct why *why);

/* The next frame is in type, data and size. REFUSE of the other side is an error with its reason. */
int wire_receive(struct wire *w, struct why *why);

/* The same, when only one type may come. */
int wire_expect(struct wire *w, enum frame_type type, struct why *why);

#endif
