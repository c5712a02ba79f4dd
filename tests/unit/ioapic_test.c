/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* I/O APIC: registers, edges, levels and remote IRR, delivery modes, resample, routing, images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "virt/irq/irq.h"
#include "virt/timer.h"

#define LEVEL  0x8000u
#define MASKED 0x10000u

static struct timers *ts;
static struct irqchip *chip;
static struct lapic *l[2];
static unsigned eois, eoi_gsi;
static bool lower_on_eoi;

static void on_eoi(void *owner, unsigned gsi)
{
	(void)owner;
	eois++;
	eoi_gsi = gsi;
	if (lower_on_eoi) /* resample: callable from here */
		irqchip_set_line(chip, gsi, 0, IRQ_SOURCE_RESAMPLE);
}

static void wr(unsigned reg, u32 value)
{
	assert_int_equal(irqchip_mmio(chip, 0xfec00000, &reg, 4, true), 0);
	assert_int_equal(irqchip_mmio(chip, 0xfec00010, &value, 4, true), 0);
}

static u32 rd(unsigned reg)
{
	u32 value = 0;

	assert_int_equal(irqchip_mmio(chip, 0xfec00000, &reg, 4, true), 0);
	assert_int_equal(irqchip_mmio(chip, 0xfec00010, &value, 4, false), 0);
	return value;
}

static void redir(unsigned pin, u32 low, u32 dest)
{
	wr(0x11 + 2 * pin, dest << 24);
	wr(0x10 + 2 * pin, low);
}

static void apic(unsigned cpu, unsigned reg, u32 value)
{
	lapic_mmio(l[cpu], 0xfee00000 + reg, &value, 4, true);
}

static int line(unsigned gsi, int level)
{
	return irqchip_set_line(chip, gsi, level, IRQ_SOURCE_USER);
}

static int setup(void **state)
{
	static const struct irq_ops ops = { .eoi = on_eoi };

	(void)state;
	ts = timers_create();
	chip = irqchip_create(&ops, NULL, ts, true);
	for (unsigned i = 0; i < 2; i++) {
		l[i] = lapic_create(chip, i, i, i == 0);
		apic(i, 0xf0, 0x1ff);
	}
	eois = 0;
	lower_on_eoi = false;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	lapic_destroy(l[0]);
	lapic_destroy(l[1]);
	irqchip_destroy(chip);
	timers_destroy(ts);
	return 0;
}

static void registers(void **state)
{
	u64 v = ~0ull;

	(void)state;
	assert_int_equal(rd(0), 0);
	assert_int_equal(rd(1), 0x170011);
	wr(0, ~0u);
	wr(1, 0);
	wr(2, 0);
	assert_int_equal(rd(0), 0x0f000000);
	assert_int_equal(rd(1), 0x170011);
	assert_int_equal(rd(2), 0x0f000000);
	assert_int_equal(rd(3), ~0u);
	for (unsigned pin = 0; pin < 24; pin++)
		assert_int_equal(rd(0x10 + 2 * pin), MASKED);
	assert_int_equal(rd(0x40), ~0u); /* beyond the table */
	wr(0x40, 0);
	wr(0xff, 0);
	wr(0x10, ~0u);
	assert_int_equal(rd(0x10), ~0x5000u); /* status and remote IRR are read-only */
	assert_int_equal(irqchip_mmio(chip, 0xfec00010, &v, 8, false), 0);
	assert_int_equal(v, ~0x5000u);
	assert_int_equal(irqchip_mmio(chip, 0xfec00020, &v, 4, false), 0);
	assert_int_equal((u32)v, 0);
	assert_int_equal(irqchip_mmio(chip, 0xfec00100, &v, 4, false), 1);
	assert_int_equal(irqchip_mmio(chip, 0xfebfffff, &v, 1, false), 1);
	assert_int_equal(irqchip_mmio(chip, 0xfec00000, &v, 16, false), 1);
}

static void edges(void **state)
{
	(void)state;
	assert_int_equal(line(20, 1), -1); /* masked */
	assert_int_equal(line(20, 1), 0);
	assert_int_equal(line(20, 0), 1);
	redir(20, 0x41, 1);
	assert_int_equal(line(20, 1), 1);
	assert_int_equal(line(20, 1), 0);
	assert_int_equal(line(20, 0), 1);
	assert_int_equal(lapic_ack(l[1]), 0x41);
	assert_false(lapic_pending(l[1]));
	/* An edge during service is kept in IRR. */
	line(20, 1);
	line(20, 0);
	apic(1, 0xb0, 0);
	assert_int_equal(lapic_ack(l[1]), 0x41);
	apic(1, 0xb0, 0);
	/* One that came while masked is not sent by unmasking. */
	redir(20, MASKED | 0x41, 1);
	line(20, 1);
	redir(20, 0x41, 1);
	assert_false(lapic_pending(l[1]));
	/* Nobody there. */
	redir(21, 0x42, 9);
	assert_int_equal(line(21, 1), 0);
}

static void levels(void **state)
{
	(void)state;
	redir(17, LEVEL | 0x51, 0);
	assert_int_equal(line(17, 1), 1);
	assert_int_equal(rd(0x10 + 34) & 0x4000, 0x4000);
	assert_int_equal(line(17, 1), -1); /* remote IRR */
	assert_int_equal(lapic_ack(l[0]), 0x51);
	assert_false(lapic_pending(l[0]));
	apic(0, 0xb0, 0);
	assert_int_equal(eois, 1);
	assert_int_equal(eoi_gsi, 17);
	assert_int_equal(lapic_ack(l[0]), 0x51); /* still high: again */
	line(17, 0);
	apic(0, 0xb0, 0);
	assert_int_equal(rd(0x10 + 34) & 0x4000, 0);
	assert_false(lapic_pending(l[0]));
	/* Masked while high, sent by unmasking. */
	redir(17, LEVEL | MASKED | 0x51, 0);
	line(17, 1);
	assert_false(lapic_pending(l[0]));
	redir(17, LEVEL | 0x51, 0);
	assert_int_equal(lapic_ack(l[0]), 0x51);
	/* Switching to edge clears remote IRR: an EOI by hand. */
	redir(17, 0x51, 0);
	assert_int_equal(rd(0x10 + 34) & 0x4000, 0);
	redir(17, LEVEL | 0x51, 0);
	assert_int_equal(rd(0x10 + 34) & 0x4000, 0x4000);
}

static void resample(void **state)
{
	(void)state;
	lower_on_eoi = true;
	redir(16, LEVEL | 0x61, 0);
	irqchip_set_line(chip, 16, 1, IRQ_SOURCE_RESAMPLE);
	assert_int_equal(lapic_ack(l[0]), 0x61);
	apic(0, 0xb0, 0);
	assert_int_equal(eois, 1);
	assert_false(lapic_pending(l[0])); /* lowered before it was sent again */
	irqchip_set_line(chip, 16, 1, IRQ_SOURCE_RESAMPLE);
	irqchip_set_line(chip, 16, 1, IRQ_SOURCE_USER);
	assert_int_equal(lapic_ack(l[0]), 0x61);
	apic(0, 0xb0, 0);
	assert_true(lapic_pending(l[0])); /* the other source is still high */
}

static void modes(void **state)
{
	(void)state;
	redir(18, 0x400, 1);
	line(18, 1);
	assert_true(lapic_take_nmi(l[1]));
	line(18, 0);
	redir(18, 0x200, 1);
	line(18, 1);
	assert_true(lapic_take_smi(l[1]));
	line(18, 0);
	redir(18, 0x500, 1);
	line(18, 1);
	assert_true(lapic_take_init(l[1]));
	line(18, 0);
	redir(18, 0x700, 1); /* ExtINT comes by the PIC's wire */
	assert_int_equal(line(18, 1), 0);
	line(18, 0);
	apic(0, 0xd0, 1u << 24);
	apic(1, 0xd0, 2u << 24);
	redir(18, 0x900 | 0x43, 3); /* logical, lowest priority */
	assert_int_equal(line(18, 1), 1);
	assert_int_equal(lapic_ack(l[1]), 0x43);
}

static void routing(void **state)
{
	struct kvm_irq_routing_entry e[3] = {
		{ .gsi = 0,
		  .type = KVM_IRQ_ROUTING_IRQCHIP,
		  .u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC, .pin = 2 } },
		{ .gsi = 0,
		  .type = KVM_IRQ_ROUTING_IRQCHIP,
		  .u.irqchip = { .irqchip = KVM_IRQCHIP_PIC_MASTER, .pin = 0 } },
		{ .gsi = 24,
		  .type = KVM_IRQ_ROUTING_MSI,
		  .u.msi = { .address_lo = 0xfee01000, .data = 0x77 } },
	};
	static const struct {
		unsigned type, chip, pin, gsi, flags;
	} bad[] = {
		{ 1, 2, 24, 5, 0 }, { 1, 0, 8, 5, 0 }, { 1, 3, 0, 5, 0 },    { 9, 0, 0, 5, 0 },
		{ 1, 2, 3, 0, 0 },  { 2, 0, 0, 0, 0 }, { 1, 2, 3, 4096, 0 }, { 1, 2, 3, 5, 1 },
	};

	(void)state;
	redir(0, 0x40, 0); /* default: GSI 0 to pin 0 */
	redir(2, 0x42, 0);
	apic(0, 0x350, 0x10700);
	assert_int_equal(line(0, 1), 2);
	assert_int_equal(lapic_ack(l[0]), 0x40);
	apic(0, 0xb0, 0);
	line(0, 0);
	assert_int_equal(irqchip_set_routing(chip, e, 3), 0);
	line(0, 1);
	assert_int_equal(lapic_ack(l[0]), 0x42);
	apic(0, 0xb0, 0);
	line(0, 0);
	assert_int_equal(eoi_gsi, 0); /* pin 2 is GSI 0 now */
	assert_int_equal(line(24, 1), 1);
	assert_int_equal(line(24, 0), -1);
	assert_int_equal(lapic_ack(l[1]), 0x77);
	assert_int_equal(line(5, 1), -1); /* no route */
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(&e[2], 0, sizeof(e[2]));
		e[2].type = bad[i].type;
		e[2].gsi = bad[i].gsi;
		e[2].flags = bad[i].flags;
		e[2].u.irqchip.irqchip = bad[i].chip;
		e[2].u.irqchip.pin = bad[i].pin;
		assert_int_equal(irqchip_set_routing(chip, e, 3), -EINVAL);
	}
	assert_int_equal(line(24, 1), 1); /* the old table is still there */
	assert_int_equal(irqchip_set_routing(chip, NULL, 0), 0);
	assert_int_equal(line(24, 1), -1);
	assert_int_equal(irqchip_set_routing(chip, e, 5000), -EINVAL);
}

static void images(void **state)
{
	struct kvm_irqchip s = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_ioapic_state *io = &s.chip.ioapic;

	(void)state;
	assert_int_equal(irqchip_get(chip, &s), 0);
	assert_int_equal(io->base_address, 0xfec00000);
	assert_int_equal(io->irr, 0);
	assert_int_equal(io->redirtbl[23].bits, MASKED);
	line(22, 1); /* masked: pending in the image */
	redir(21, 0x45, 0);
	line(21, 1); /* delivered: not */
	irqchip_get(chip, &s);
	assert_int_equal(io->irr, 1u << 22);
	assert_int_equal(lapic_ack(l[0]), 0x45);
	apic(0, 0xb0, 0);
	io->redirtbl[22].bits = 0x46;
	assert_int_equal(irqchip_set(chip, &s), 0);
	assert_int_equal(lapic_ack(l[0]), 0x46); /* raised anew */
	irqchip_get(chip, &s);
	assert_int_equal(io->irr, 0);
	/* Garbage does no harm. */
	for (unsigned i = 0; i < 256; i++) {
		memset(io, (int)i, sizeof(*io));
		io->base_address = 0xfec00000;
		irqchip_set(chip, &s);
		for (unsigned gsi = 0; gsi < 26; gsi++)
			line(gsi, i & 1);
		(void)rd(i);
		wr(i, i * 0x1010101u);
		lapic_ack(l[0]);
		apic(0, 0xb0, 0);
	}
}

static void split(void **state)
{
	static const struct irq_ops none;
	struct irqchip *c = irqchip_create(&none, NULL, ts, false);
	u32 v;

	(void)state;
	assert_int_equal(irqchip_mmio(c, 0xfec00000, &v, 4, false), 1);
	assert_int_equal(irqchip_io(c, 0x20, &v, 1, false), 1);
	assert_int_equal(irqchip_set_line(c, 4, 1, 0), -1);
	irqchip_destroy(c);
	irqchip_destroy(NULL);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(registers), T(edges),	  T(levels), T(resample),
		T(modes),     T(routing), T(images), T(split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
