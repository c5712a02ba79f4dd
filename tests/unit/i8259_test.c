/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 8259 pair: initialization, priorities, EOIs, rotation, levels, poll, special masks, images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "virt/irq/irq.h"
#include "virt/timer.h"

static struct timers *ts;
static struct irqchip *chip;
static struct lapic *bsp;
static unsigned eois, eoi_gsi;

static void on_eoi(void *owner, unsigned gsi)
{
	(void)owner;
	eois++;
	eoi_gsi = gsi;
}

static void out(u16 port, u8 value)
{
	assert_int_equal(irqchip_io(chip, port, &value, 1, true), 0);
}

static u8 in(u16 port)
{
	u8 value = 0xaa;

	assert_int_equal(irqchip_io(chip, port, &value, 1, false), 0);
	return value;
}

static int line(unsigned gsi, int level)
{
	return irqchip_set_line(chip, gsi, level, IRQ_SOURCE_USER);
}

static void pulse(unsigned gsi)
{
	line(gsi, 1);
	line(gsi, 0);
}

/* ICW1-4 as a PC's BIOS or Linux gives them. */
static void init(u8 icw4)
{
	static const u16 port[2] = { 0x20, 0xa0 };

	for (unsigned i = 0; i < 2; i++) {
		out(port[i], 0x11);
		out(port[i] + 1, i ? 0x28 : 0x20);
		out(port[i] + 1, i ? 2 : 4);
		out(port[i] + 1, icw4);
		out(port[i] + 1, 0);
	}
}

static int setup(void **state)
{
	static const struct irq_ops ops = { .eoi = on_eoi };

	(void)state;
	ts = timers_create();
	chip = irqchip_create(&ops, NULL, ts, true);
	bsp = lapic_create(chip, 0, 0, true);
	init(1);
	eois = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	lapic_destroy(bsp);
	irqchip_destroy(chip);
	timers_destroy(ts);
	return 0;
}

static void vectors(void **state)
{
	(void)state;
	for (unsigned gsi = 0; gsi < 16; gsi++) {
		if (gsi == 2)
			continue;
		assert_false(lapic_pending(bsp));
		pulse(gsi);
		assert_true(lapic_pending(bsp));
		assert_int_equal(lapic_ack(bsp), 0x20 + gsi);
		if (gsi >= 8)
			out(0xa0, 0x20);
		out(0x20, 0x20);
	}
	assert_int_equal(lapic_ack(bsp), -1);
}

static void priorities(void **state)
{
	(void)state;
	pulse(4);
	assert_int_equal(lapic_ack(bsp), 0x24);
	pulse(6);
	assert_false(lapic_pending(bsp)); /* lower than what is in service */
	pulse(1);
	assert_int_equal(lapic_ack(bsp), 0x21);
	out(0x20, 0x0b); /* read ISR */
	assert_int_equal(in(0x20), 0x12);
	out(0x20, 0x0a); /* read IRR */
	assert_int_equal(in(0x20), 0x40);
	out(0x20, 0x20); /* non-specific EOI: the highest, 1 */
	assert_int_equal(eoi_gsi, 1);
	assert_false(lapic_pending(bsp));
	out(0x20, 0x64); /* specific EOI of 4 */
	assert_int_equal(lapic_ack(bsp), 0x26);
	out(0x20, 0x66);
	/* Set priority: 3 becomes the lowest, so 4 is the highest. */
	out(0x20, 0xc3);
	pulse(3);
	pulse(5);
	assert_int_equal(lapic_ack(bsp), 0x25);
	out(0x20, 0xa0); /* rotate on EOI: 5 the lowest */
	assert_int_equal(lapic_ack(bsp), 0x23);
	out(0x20, 0xe3);
	pulse(3);
	pulse(4);
	assert_int_equal(lapic_ack(bsp), 0x24);
}

static void masks(void **state)
{
	(void)state;
	out(0x21, 0x10);
	assert_int_equal(in(0x21), 0x10);
	assert_int_equal(line(4, 1), -1); /* both chips have it masked */
	assert_false(lapic_pending(bsp));
	out(0x21, 0);
	assert_true(lapic_pending(bsp));
	out(0x21, 0xff);
	assert_false(lapic_pending(bsp));
	out(0x21, 0);
	/* Special mask mode: what is masked does not hold back lower ones. */
	assert_int_equal(lapic_ack(bsp), 0x24);
	pulse(7);
	assert_false(lapic_pending(bsp));
	out(0x21, 0x10);
	out(0x20, 0x68);
	pulse(6);
	assert_int_equal(lapic_ack(bsp), 0x26);
	out(0x20, 0x48);
}

static void edges_and_levels(void **state)
{
	(void)state;
	assert_int_equal(line(5, 1), 1);
	assert_int_equal(line(5, 1), 1); /* no edge: as KVM, not told apart from a new one */
	assert_int_equal(lapic_ack(bsp), 0x25);
	out(0x20, 0x20);
	assert_false(lapic_pending(bsp)); /* still high, but no edge */
	line(5, 0);
	out(0x4d0, 0xff);
	out(0x4d1, 0xff);
	assert_int_equal(in(0x4d0), 0xf8);
	assert_int_equal(in(0x4d1), 0xde);
	line(5, 1);
	assert_int_equal(lapic_ack(bsp), 0x25);
	out(0x20, 0x20);
	assert_int_equal(lapic_ack(bsp), 0x25); /* high: again */
	line(5, 0);
	out(0x20, 0x20);
	assert_false(lapic_pending(bsp));
	/* Two sources share a level. */
	irqchip_set_line(chip, 10, 1, 0);
	irqchip_set_line(chip, 10, 1, 1);
	irqchip_set_line(chip, 10, 0, 0);
	assert_int_equal(lapic_ack(bsp), 0x2a);
	irqchip_set_line(chip, 10, 0, 1);
	out(0xa0, 0x20);
	out(0x20, 0x20);
	assert_false(lapic_pending(bsp));
	assert_int_equal(irqchip_set_line(chip, 10, 1, 32), -1);
	assert_int_equal(irqchip_set_line(chip, 4000, 1, 0), -1);
	assert_int_equal(irqchip_set_line(chip, ~0u, 1, 0), -1);
}

static void spurious(void **state)
{
	(void)state;
	out(0x4d1, 0x04); /* input 10 by level */
	line(10, 1);
	line(10, 0); /* gone before the slave is asked; the master has latched its edge */
	assert_int_equal(lapic_ack(bsp), 0x2f);
	out(0x20, 0x0b);
	assert_int_equal(in(0x20), 4);
	out(0xa0, 0x0b);
	assert_int_equal(in(0xa0), 0);
}

static void auto_eoi(void **state)
{
	(void)state;
	init(3);
	pulse(3);
	assert_int_equal(lapic_ack(bsp), 0x23);
	assert_int_equal(eois, 1);
	assert_int_equal(eoi_gsi, 3);
	out(0x20, 0x0b);
	assert_int_equal(in(0x20), 0);
	out(0x20, 0x80); /* and rotate */
	pulse(0);
	assert_int_equal(lapic_ack(bsp), 0x20);
	pulse(0);
	pulse(1);
	assert_int_equal(lapic_ack(bsp), 0x21);
	assert_int_equal(lapic_ack(bsp), 0x20);
}

static void poll(void **state)
{
	(void)state;
	out(0x20, 0x0c);
	assert_int_equal(in(0x20), 0x07);
	pulse(3);
	out(0x20, 0x0c);
	assert_int_equal(in(0x20), 0x83);
	assert_int_equal(in(0x20), 0); /* poll mode is for one read */
	assert_false(lapic_pending(bsp));
	pulse(12);
	out(0xa0, 0x0c);
	assert_int_equal(in(0xa0), 0x84);
	assert_false(lapic_pending(bsp));
}

static void odd_accesses(void **state)
{
	u16 v = 0x5555;

	(void)state;
	assert_int_equal(irqchip_io(chip, 0x21, &v, 2, false), 0);
	assert_int_equal(v, 0);
	v = 0xffff;
	assert_int_equal(irqchip_io(chip, 0x21, &v, 2, true), 0);
	assert_int_equal(in(0x21), 0);
	assert_int_equal(irqchip_io(chip, 0x22, &v, 1, false), 1);
	assert_int_equal(irqchip_io(chip, 0x4d2, &v, 1, true), 1);
}

static void images(void **state)
{
	struct kvm_irqchip s = { .chip_id = KVM_IRQCHIP_PIC_SLAVE };

	(void)state;
	out(0xa1, 0x0f);
	pulse(13);
	assert_int_equal(irqchip_get(chip, &s), 0);
	assert_int_equal(s.chip.pic.irr, 0x20);
	assert_int_equal(s.chip.pic.imr, 0x0f);
	assert_int_equal(s.chip.pic.irq_base, 0x28);
	assert_int_equal(s.chip.pic.init4, 1);
	assert_int_equal(s.chip.pic.elcr_mask, 0xde);
	s.chip.pic.irr = 0x40;
	assert_int_equal(irqchip_set(chip, &s), 0);
	assert_int_equal(lapic_ack(bsp), 0x2e);
	s.chip_id = 3;
	assert_int_equal(irqchip_get(chip, &s), -EINVAL);
	assert_int_equal(irqchip_set(chip, &s), -EINVAL);
	/* Garbage does no harm. */
	for (unsigned i = 0; i < 200; i++) {
		memset(&s.chip.pic, (int)(i * 37), sizeof(s.chip.pic));
		s.chip_id = i & 1;
		irqchip_set(chip, &s);
		lapic_ack(bsp);
		out(0x20, (u8)(i * 13));
		out(0xa1, (u8)i);
		(void)in(0xa0);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(vectors),  T(priorities), T(masks),	     T(edges_and_levels), T(spurious),
		T(auto_eoi), T(poll),	    T(odd_accesses), T(images),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
