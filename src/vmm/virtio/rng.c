/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio entropy device, as the specification's chapter "Entropy Device" has it: random bytes of the host. */
#include "vmm/virtio/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include <linux/virtio_ids.h>

#include "vmm/virtio/iov.h"
#include "vmm/virtio/transport.h"

#define REQUEST_MAX                                                                                \
	4096u /* a driver asks for 64 bytes or so; the rest of a greedy one stays as it is */

static void queue_ready(struct virtio_device *d, unsigned queue)
{
	u8 bytes[REQUEST_MAX];
	struct chain c;

	while (virtio_pop(d, queue, &c)) {
		const size_t want = c.in_bytes < REQUEST_MAX ? c.in_bytes : REQUEST_MAX;
		const ssize_t got = getrandom(bytes, want, 0);

		virtqueue_push(&d->queues[queue], &c,
			       got < 0 ? 0
				       : (u32)iov_write(chain_in(&c), c.in, 0, bytes, (size_t)got));
	}
	virtio_interrupt(d, queue);
}

static const struct virtio_ops rng_ops = { .queue_ready = queue_ready };

static const struct virtio_kind rng_kind = {
	.name = "virtio-rng",
	.id = VIRTIO_ID_RNG,
	.class_code = 0x108000, /* encryption, other */
	.queues = 1,
	.ops = &rng_ops,
};

int rng_create(struct virtio_device **out, struct pci_bus *bus, struct loop *loop,
	       const struct ram *ram)
{
	struct virtio_device *d = calloc(1, sizeof(*d));
	int r = d ? virtio_init(d, &rng_kind, bus, loop, ram, NULL, 0, 0) : -ENOMEM;

	if (r < 0)
		free(d);
	else
		*out = d;
	return r;
}
