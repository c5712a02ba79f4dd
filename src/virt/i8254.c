/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 8254 interval timer: three channels, channel 0 drives GSI 0, channel 2 the speaker gate. */
#include "virt/i8254.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PIT_HZ	      1193182ull
#define PIT_BASE      0x40
#define PIT_CONTROL   3
#define PIT_SPEAKER   0x61
#define PERIOD_MIN_NS 200000ull /* as KVM's min_timer_period_us */
#define COUNT_MAX     0x10000u
#define PENDING_MAX   100000u
#define GSI	      0

/* Access of a channel: which byte comes next. */
enum rw_state { RW_LSB = 1, RW_MSB, RW_WORD0, RW_WORD1 };

/* Port 0x61. */
#define SPEAKER_GATE	BIT(0)
#define SPEAKER_DATA	BIT(1)
#define SPEAKER_REFRESH BIT(4)
#define SPEAKER_OUT	BIT(5)

/* DIFFERS: as in KVM and unlike hardware, BCD is stored and not counted in, and a low gate does not stop counting. */
/* The image of KVM_GET_PIT2 is the state. */
struct i8254 {
	pthread_mutex_t lock;
	struct irqchip *chip;
	struct timer timer;
	struct kvm_pit_state2 s;
	bool speaker;
	bool periodic;
	u64 period; /* ns, channel 0 */
	u64 target; /* next tick, CLOCK_MONOTONIC; 0 stopped */

	/*
	 * KVM_REINJECT_CONTROL: a tick is sent when the one before was acknowledged; those that came meanwhile wait.
	 * Atomic: the interrupt controllers report an acknowledgement from a vCPU, and an unmasking under their lock.
	 */
	bool reinject, acked;
	u32 pending;
};

static u64 clocks_to_ns(u64 clocks)
{
	return (u64)((u128)clocks * 1000000000 / PIT_HZ);
}

/* PIT clocks since the count was loaded. */
static u64 channel_elapsed(const struct kvm_pit_channel_state *c)
{
	s64 now = (s64)timer_now();

	if (c->count_load_time > now)
		return 0;
	return (u64)((u128)((u64)now - (u64)c->count_load_time) * PIT_HZ / 1000000000);
}

static u32 channel_count(const struct kvm_pit_channel_state *c)
{
	u64 d = channel_elapsed(c);

	switch (c->mode) {
	case 0:
	case 1:
	case 4:
	case 5:
		return (u32)(c->count - d) & 0xffff;
	case 3: /* square wave: down by two, twice a period */
		return (u32)(c->count - 2 * d % c->count);
	default:
		return (u32)(c->count - d % c->count);
	}
}

static bool channel_out(const struct kvm_pit_channel_state *c)
{
	u64 d = channel_elapsed(c);

	switch (c->mode) {
	case 1:
		return d < c->count;
	case 2:
		return d && d % c->count == 0;
	case 3:
		return d % c->count < (c->count + 1ull) >> 1;
	case 4:
	case 5:
		return d == c->count;
	default:
		return d >= c->count;
	}
}

static void latch_count(struct kvm_pit_channel_state *c)
{
	if (c->count_latched)
		return;
	c->latched_count = (u16)channel_count(c);
	c->count_latched = c->rw_mode;
}

static void latch_status(struct kvm_pit_channel_state *c)
{
	if (c->status_latched)
		return;
	c->status = (u8)(channel_out(c) << 7 | c->rw_mode << 4 | c->mode << 1 | c->bcd);
	c->status_latched = 1;
}

/* Ticks that are due, and the timer is armed for the next. Under the lock. */
static u32 ticks_take(struct i8254 *pit)
{
	u64 now = timer_now(), n = 1;

	if (!pit->target || pit->target > now)
		return 0;
	if (!pit->periodic) {
		pit->target = 0;
		return 1;
	}
	n += (now - pit->target) / pit->period;
	pit->target += n * pit->period;
	timer_arm(&pit->timer, pit->target);
	return n > PENDING_MAX ? PENDING_MAX : (u32)n;
}

/* Without reinjection a tick is an edge: one that has not been taken yet swallows the next. */
static void pit_send(struct i8254 *pit)
{
	if (__atomic_load_n(&pit->reinject, __ATOMIC_SEQ_CST) &&
	    !__atomic_exchange_n(&pit->acked, false, __ATOMIC_SEQ_CST))
		return;
	irqchip_set_line(pit->chip, GSI, 1, IRQ_SOURCE_PIT);
	irqchip_set_line(pit->chip, GSI, 0, IRQ_SOURCE_PIT);
	irqchip_pit_nmi(pit->chip);
}

static void pit_tick(struct timer *t)
{
	struct i8254 *pit = container_of(t, struct i8254, timer);
	u32 n;

	pthread_mutex_lock(&pit->lock);
	n = ticks_take(pit);
	pthread_mutex_unlock(&pit->lock);
	if (!n)
		return;
	if (__atomic_load_n(&pit->reinject, __ATOMIC_SEQ_CST))
		__atomic_add_fetch(&pit->pending, n, __ATOMIC_SEQ_CST);
	pit_send(pit);
}

/* What waited is the next tick's. */
void i8254_acked(struct i8254 *pit)
{
	u32 n = __atomic_load_n(&pit->pending, __ATOMIC_SEQ_CST);

	__atomic_store_n(&pit->acked, true, __ATOMIC_SEQ_CST);
	while (n && !__atomic_compare_exchange_n(&pit->pending, &n, n - 1, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
		;
	if (n > 1 && __atomic_load_n(&pit->reinject, __ATOMIC_SEQ_CST))
		pit_send(pit);
}

void i8254_unmasked(struct i8254 *pit)
{
	__atomic_store_n(&pit->pending, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&pit->acked, true, __ATOMIC_SEQ_CST);
}

void i8254_reinject(struct i8254 *pit, bool on)
{
	if (__atomic_exchange_n(&pit->reinject, on, __ATOMIC_SEQ_CST) != on && on)
		i8254_unmasked(pit);
}

static void pit_stop(struct i8254 *pit)
{
	pit->target = 0;
	timer_stop(&pit->timer);
}

static void pit_start(struct i8254 *pit, u32 count)
{
	u64 ns = clocks_to_ns(count), now = timer_now();

	if (pit->s.flags & KVM_PIT_FLAGS_HPET_LEGACY) {
		pit_stop(pit);
		return;
	}
	pit->periodic = pit->s.channels[0].mode == 2 || pit->s.channels[0].mode == 3;
	pit->period = pit->periodic && ns < PERIOD_MIN_NS ? PERIOD_MIN_NS : ns;
	pit->target = now + ns;
	i8254_unmasked(pit); /* what the guest missed of another frequency is nothing to it */
	timer_arm(&pit->timer, pit->target);
}

static void load_count(struct i8254 *pit, unsigned n, u32 count)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[n];

	c->count = count ? count : COUNT_MAX;
	c->count_load_time = (s64)timer_now();
	if (n)
		return;
	switch (c->mode) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
		pit_start(pit, c->count);
		break;
	default:
		pit_stop(pit);
		break;
	}
}

static void write_control(struct i8254 *pit, u8 value)
{
	unsigned n = value >> 6;
	struct kvm_pit_channel_state *c;

	if (n == 3) { /* read-back */
		for (n = 0; n < 3; n++) {
			c = &pit->s.channels[n];
			if (value & 2u << n && !(value & 0x20))
				latch_count(c);
			if (value & 2u << n && !(value & 0x10))
				latch_status(c);
		}
		return;
	}
	c = &pit->s.channels[n];
	if (!(value & 0x30)) {
		latch_count(c);
		return;
	}
	c->rw_mode = c->read_state = c->write_state = value >> 4 & 3;
	c->mode = value >> 1 & 7;
	if (c->mode > 5) /* bit 2 of modes 2 and 3 is not looked at */
		c->mode -= 4;
	c->bcd = value & 1;
}

static void write_count(struct i8254 *pit, unsigned n, u8 value)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[n];

	switch (c->write_state) {
	case RW_MSB:
		load_count(pit, n, (u32)value << 8);
		break;
	case RW_WORD0:
		c->write_latch = value;
		c->write_state = RW_WORD1;
		break;
	case RW_WORD1:
		load_count(pit, n, c->write_latch | (u32)value << 8);
		c->write_state = RW_WORD0;
		break;
	default:
		load_count(pit, n, value);
		break;
	}
}

static u8 read_latched(struct kvm_pit_channel_state *c)
{
	u8 value = (u8)c->latched_count;

	switch (c->count_latched) {
	case RW_MSB:
		value = (u8)(c->latched_count >> 8);
		c->count_latched = 0;
		break;
	case RW_WORD0:
		c->count_latched = RW_MSB;
		break;
	default:
		c->count_latched = 0;
		break;
	}
	return value;
}

static u8 read_count(struct kvm_pit_channel_state *c)
{
	u32 count;

	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	if (c->count_latched)
		return read_latched(c);
	count = channel_count(c);
	switch (c->read_state) {
	case RW_MSB:
		return (u8)(count >> 8);
	case RW_WORD0:
		c->read_state = RW_WORD1;
		return (u8)count;
	case RW_WORD1:
		c->read_state = RW_WORD0;
		return (u8)(count >> 8);
	default:
		return (u8)count;
	}
}

static void speaker_write(struct i8254 *pit, u8 value)
{
	struct kvm_pit_channel_state *c = &pit->s.channels[2];
	bool gate = value & SPEAKER_GATE;

	if (value & SPEAKER_DATA)
		pit->s.flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	else
		pit->s.flags &= ~(u32)KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	/* A rising gate restarts the modes that it triggers. */
	if (gate && !c->gate && (c->mode == 1 || c->mode == 2 || c->mode == 3 || c->mode == 5))
		c->count_load_time = (s64)timer_now();
	c->gate = gate;
}

static u8 speaker_read(struct i8254 *pit)
{
	u8 value = 0;

	if (pit->s.channels[2].gate)
		value |= SPEAKER_GATE;
	if (pit->s.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON)
		value |= SPEAKER_DATA;
	if (timer_now() >> 14 & 1) /* memory refresh: toggles every 15 us, about */
		value |= SPEAKER_REFRESH;
	if (channel_out(&pit->s.channels[2]))
		value |= SPEAKER_OUT;
	return value;
}

int i8254_io(struct i8254 *pit, u16 port, void *data, unsigned size, bool is_write)
{
	unsigned n = port - PIT_BASE;
	u8 value = 0;

	if (!size || (n > PIT_CONTROL && (port != PIT_SPEAKER || !pit->speaker)))
		return 1;
	if (is_write)
		value = *(u8 *)data;
	pthread_mutex_lock(&pit->lock);
	if (port == PIT_SPEAKER && is_write)
		speaker_write(pit, value);
	else if (port == PIT_SPEAKER)
		value = speaker_read(pit);
	else if (is_write && n == PIT_CONTROL)
		write_control(pit, value);
	else if (is_write)
		write_count(pit, n, value);
	else if (n != PIT_CONTROL) /* the control word cannot be read */
		value = read_count(&pit->s.channels[n]);
	pthread_mutex_unlock(&pit->lock);
	if (!is_write) {
		memset(data, 0, size);
		*(u8 *)data = value;
	}
	return 0;
}

struct i8254 *i8254_create(struct irqchip *chip, struct timers *ts, bool speaker_dummy)
{
	struct i8254 *pit = calloc(1, sizeof(*pit));

	if (!pit)
		return NULL;
	pit->chip = chip;
	pit->speaker = speaker_dummy;
	pit->reinject = true;
	if (timer_init(&pit->timer, ts, pit_tick)) {
		free(pit);
		return NULL;
	}
	pthread_mutex_init(&pit->lock, NULL);
	for (unsigned n = 0; n < 3; n++) {
		pit->s.channels[n].mode = 0xff;
		pit->s.channels[n].gate = n != 2;
		load_count(pit, n, 0);
	}
	return pit;
}

void i8254_destroy(struct i8254 *pit)
{
	if (!pit)
		return;
	pthread_mutex_lock(&pit->lock);
	pit_stop(pit);
	pthread_mutex_unlock(&pit->lock);
	timer_cancel(&pit->timer);
	pthread_mutex_destroy(&pit->lock);
	free(pit);
}

void i8254_get(struct i8254 *pit, struct kvm_pit_state2 *state)
{
	pthread_mutex_lock(&pit->lock);
	*state = pit->s;
	pthread_mutex_unlock(&pit->lock);
}

/* An HPET that takes over the tick keeps the count and stops the timer. */
int i8254_set(struct i8254 *pit, const struct kvm_pit_state2 *state)
{
	pthread_mutex_lock(&pit->lock);
	pit->s = *state;
	for (unsigned n = 0; n < 3; n++) {
		struct kvm_pit_channel_state *c = &pit->s.channels[n];

		if (!c->count) /* a divisor */
			c->count = COUNT_MAX;
	}
	load_count(pit, 0, pit->s.channels[0].count);
	pthread_mutex_unlock(&pit->lock);
	return 0;
}
