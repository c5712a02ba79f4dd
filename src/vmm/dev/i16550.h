/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 16550A serial port. */
#ifndef VMM_DEV_I16550_H
#define VMM_DEV_I16550_H

#include <pthread.h>

#include "vmm/dev/device.h"

#define I16550_FIFO  16
#define I16550_QUEUE 4096

struct i16550 {
	struct device device;
	struct irq_line irq;
	void (*output)(void *owner, u8 byte); /* called without the lock */
	void *owner;

	pthread_mutex_t lock; /* the vCPUs and the input thread */
	u8 ier, fcr, lcr, mcr, lsr, scr, dll, dlm;
	bool thre_pending; /* the transmitter-empty interrupt is due */
	int level;	   /* of the interrupt line */
	u8 fifo[I16550_FIFO];
	unsigned fifo_at, fifo_count;
	u8 queue[I16550_QUEUE]; /* what the host sent and the FIFO could not take */
	unsigned queue_at, queue_count;
};

void i16550_init(struct i16550 *uart, struct irq_line irq, void (*output)(void *owner, u8 byte),
		 void *owner);
void i16550_destroy(struct i16550 *uart);

/* From the input thread: takes at most @n bytes and returns how many. */
size_t i16550_receive(struct i16550 *uart, const u8 *data, size_t n);
size_t i16550_room(struct i16550 *uart);

#endif
