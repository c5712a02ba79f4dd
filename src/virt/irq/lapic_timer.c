/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The timer of a local APIC: one-shot, periodic, TSC-deadline. */
#include "virt/irq/chip.h"

/* As KVM's min_timer_period_us: a guest cannot keep the helper thread busy. */
#define PERIOD_MIN_NS 200000ull
/* Far enough for anything, near enough that sums do not overflow. */
#define NEVER_NS (1ull << 62)

/* The bus clock is 1 GHz, as KVM's: a count is a nanosecond times the divisor. */
static u64 count_to_ns(const struct lapic *l, u32 count)
{
	return (u64)count * l->divide;
}

static void timer_set(struct lapic *l, u64 expires)
{
	l->expires = expires ? expires : 1;
	timer_arm(&l->timer, l->expires);
}

static void timer_clear(struct lapic *l)
{
	l->expires = 0;
	timer_stop(&l->timer);
}

static void limit_period(struct lapic *l)
{
	if (l->timer_mode == APIC_TIMER_PERIODIC && l->period && l->period < PERIOD_MIN_NS)
		l->period = PERIOD_MIN_NS;
}

/* Nanoseconds until the guest's TSC reaches the deadline; 0: reached. */
static u64 deadline_left(const struct lapic *l)
{
	const struct irq_ops *ops = &l->chip->ops;
	u64 tsc = ops->tsc(l->chip->owner, l->index);
	u32 khz = ops->tsc_khz(l->chip->owner, l->index);
	u128 ns;

	if (tsc >= l->tscdeadline)
		return 0;
	if (!khz)
		return NEVER_NS;
	ns = ((u128)(l->tscdeadline - tsc) * 1000000 + khz - 1) / khz;
	return ns > NEVER_NS ? NEVER_NS : (u64)ns;
}

static void deadline_start(struct lapic *l)
{
	u64 left;

	timer_clear(l);
	if (!l->tscdeadline || !l->chip->ops.tsc || !l->chip->ops.tsc_khz)
		return;
	left = deadline_left(l);
	if (left) {
		timer_set(l, timer_now() + left);
		return;
	}
	l->tscdeadline = 0;
	lapic_local(l, APIC_LVTT);
}

/* Keep the phase: ticks that were missed are left out, the next one is where it always was. */
static void period_advance(struct lapic *l, u64 now)
{
	l->target += l->period;
	if (l->target <= now)
		l->target += ((now - l->target) / l->period + 1) * l->period;
	timer_set(l, l->target);
}

static void count_expired(struct lapic *l, u64 now)
{
	if (l->timer_mode == APIC_TIMER_PERIODIC && l->period)
		period_advance(l, now);
	else
		timer_clear(l);
	lapic_local(l, APIC_LVTT);
}

/* The register file may have changed since the timer was armed: only l->expires counts. */
static void lapic_timer_fire(struct timer *t)
{
	struct lapic *l = container_of(t, struct lapic, timer);
	struct irqchip *chip = l->chip;
	u64 now;

	chip_lock(chip);
	now = timer_now();
	if (l->expires && l->expires <= now) {
		if (l->timer_mode == APIC_TIMER_DEADLINE)
			deadline_start(l);
		else
			count_expired(l, now);
	}
	chip_unlock(chip);
}

int lapic_timer_init(struct lapic *l)
{
	l->divide = 2;
	return timer_init(&l->timer, l->chip->timers, lapic_timer_fire);
}

void lapic_timer_reset(struct lapic *l)
{
	timer_clear(l);
	l->timer_mode = APIC_TIMER_ONESHOT;
	l->period = l->target = l->tscdeadline = 0;
	lapic_timer_set_divide(l, false);
}

void lapic_timer_set_mode(struct lapic *l)
{
	u32 mode = lapic_reg(l, APIC_LVTT) & APIC_LVT_TIMER;

	if (!l->allow_deadline)
		mode &= APIC_TIMER_PERIODIC;
	if (mode == l->timer_mode)
		return;
	if ((mode == APIC_TIMER_DEADLINE) != (l->timer_mode == APIC_TIMER_DEADLINE)) {
		timer_clear(l);
		lapic_reg_set(l, APIC_TMICT, 0);
		l->period = l->target = l->tscdeadline = 0;
	}
	l->timer_mode = mode;
	limit_period(l);
}

/*
 * Start from the initial count, or (an image being restored) from the current count; a current
 * count above the initial one is taken for the initial one. A restored one-shot with count 0 fires
 * at once, as in KVM: it may have been about to.
 */
void lapic_timer_start(struct lapic *l, unsigned reg)
{
	u64 ns, now = timer_now();

	timer_clear(l);
	if (l->timer_mode == APIC_TIMER_DEADLINE) {
		deadline_start(l);
		return;
	}
	l->period = count_to_ns(l, lapic_reg(l, APIC_TMICT));
	l->target = 0;
	if (!l->period)
		return;
	limit_period(l);
	ns = l->period;
	if (reg == APIC_TMCCT) {
		ns = count_to_ns(l, lapic_reg(l, APIC_TMCCT));
		if (ns > l->period || (!ns && l->timer_mode == APIC_TIMER_PERIODIC))
			ns = l->period;
	}
	l->target = now + ns;
	if (ns)
		timer_set(l, l->target);
	else
		count_expired(l, now);
}

/* SDM "Divide Configuration Register": bits 3, 1, 0. */
void lapic_timer_set_divide(struct lapic *l, bool rescale)
{
	u32 tdcr = lapic_reg(l, APIC_TDCR), old = l->divide;
	u64 now = timer_now(), left;

	l->divide = 1u << (((tdcr & 3) + (tdcr >> 1 & 4) + 1) & 7);
	if (!rescale || old == l->divide || !l->period)
		return;
	l->period = count_to_ns(l, lapic_reg(l, APIC_TMICT));
	limit_period(l);
	if (!l->expires)
		return;
	left = l->target > now ? l->target - now : 0;
	l->target = now + (u64)((u128)left * l->divide / old);
	timer_set(l, l->target);
}

u32 lapic_timer_count(const struct lapic *l)
{
	u64 now;

	if (l->timer_mode == APIC_TIMER_DEADLINE || !l->period || !lapic_reg(l, APIC_TMICT))
		return 0;
	now = timer_now();
	if (l->target <= now)
		return 0;
	return (u32)((l->target - now) % l->period / l->divide);
}

void lapic_timer_deadline(struct lapic *l, u64 value)
{
	l->tscdeadline = value;
	deadline_start(l);
}
