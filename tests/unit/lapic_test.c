/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Local APIC: registers, priorities, destinations, IPIs, events, timer, images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "virt/irq/irq.h"
#include "virt/timer.h"

#define CPUS 4

static struct {
	struct timers *ts;
	struct irqchip *chip;
	struct lapic *l[CPUS];
	unsigned kicks[CPUS];
	unsigned eois, last_gsi;
} f;

static void on_kick(void *owner, unsigned index)
{
	(void)owner;
	__atomic_fetch_add(&f.kicks[index], 1, __ATOMIC_RELAXED);
}

static u64 on_tsc(void *owner, unsigned index)
{
	(void)owner;
	(void)index;
	return timer_now(); /* 1 GHz */
}

static u32 on_khz(void *owner, unsigned index)
{
	(void)owner;
	(void)index;
	return 1000000;
}

static int setup(void **state)
{
	static const struct irq_ops ops = { .kick = on_kick, .tsc = on_tsc, .tsc_khz = on_khz };

	(void)state;
	memset(&f, 0, sizeof(f));
	f.ts = timers_create();
	f.chip = irqchip_create(&ops, &f, f.ts, true);
	for (unsigned i = 0; i < CPUS; i++)
		f.l[i] = lapic_create(f.chip, i, i, i == 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CPUS; i++)
		lapic_destroy(f.l[i]);
	irqchip_destroy(f.chip);
	timers_destroy(f.ts);
	return 0;
}

static void sleep_ms(unsigned ms)
{
	struct timespec t = { 0, (long)ms * 1000000 };

	nanosleep(&t, NULL);
}

static u32 rd(unsigned cpu, unsigned reg)
{
	u32 v = 0xdeadbeef;

	assert_int_equal(lapic_mmio(f.l[cpu], 0xfee00000ull + reg, &v, 4, false), 0);
	return v;
}

static void wr(unsigned cpu, unsigned reg, u32 v)
{
	assert_int_equal(lapic_mmio(f.l[cpu], 0xfee00000ull + reg, &v, 4, true), 0);
}

static void enable(unsigned cpu)
{
	wr(cpu, 0xf0, 0x1ff);
}

static void x2apic(unsigned cpu)
{
	assert_int_equal(lapic_base_set(f.l[cpu], lapic_base_get(f.l[cpu]) | 0xc00), 0);
}

static void reset_values(void **state)
{
	static const struct {
		unsigned reg;
		u32 bsp, ap;
	} rows[] = {
		{ 0x20, 0, 1u << 24 },
		{ 0x30, 0x50014, 0x50014 },
		{ 0x80, 0, 0 },
		{ 0xd0, 0, 0 },
		{ 0xe0, ~0u, ~0u },
		{ 0xf0, 0xff, 0xff },
		{ 0x320, 0x10000, 0x10000 },
		{ 0x330, 0x10000, 0x10000 },
		{ 0x340, 0x10000, 0x10000 },
		{ 0x350, 0x700, 0x10000 },
		{ 0x360, 0x10000, 0x10000 },
		{ 0x370, 0x10000, 0x10000 },
		{ 0x380, 0, 0 },
		{ 0x390, 0, 0 },
		{ 0x3e0, 0, 0 },
		{ 0x280, 0, 0 },
		{ 0x300, 0, 0 },
		{ 0x310, 0, 0 },
		{ 0x0b0, 0, 0 },
		{ 0x2f0, 0, 0 },
		{ 0x3f0, 0, 0 },
	};

	(void)state;
	assert_int_equal(lapic_base_get(f.l[0]), 0xfee00900);
	assert_int_equal(lapic_base_get(f.l[1]), 0xfee00800);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(rd(0, rows[i].reg), rows[i].bsp);
		assert_int_equal(rd(1, rows[i].reg), rows[i].ap);
	}
}

static void register_masks(void **state)
{
	static const struct {
		unsigned reg;
		u32 value;
	} rows[] = {
		{ 0x20, 0xff000000 },  { 0x30, 0x50014 },  { 0x80, 0xff },
		{ 0xd0, 0xff000000 },  { 0xe0, ~0u },	   { 0x310, 0xff000000 },
		{ 0x320, 0x000710ff }, { 0x330, 0x117ff }, { 0x340, 0x117ff },
		{ 0x350, 0x1f7ff },    { 0x360, 0x1f7ff }, { 0x370, 0x110ff },
		{ 0x3e0, 0xb },	       { 0x280, 0 },
	};

	(void)state;
	enable(1);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		wr(1, rows[i].reg, ~0u);
		assert_int_equal(rd(1, rows[i].reg), rows[i].value);
	}
	wr(1, 0xf0, ~0u);
	assert_int_equal(rd(1, 0xf0), 0x3ff);
	/* Software disable masks all LVTs, and they cannot be unmasked then. */
	wr(1, 0x350, 0x30);
	wr(1, 0xf0, 0xff);
	assert_int_equal(rd(1, 0x350), 0x10030);
	wr(1, 0x350, 0x31);
	assert_int_equal(rd(1, 0x350), 0x10031);
}

static void odd_accesses(void **state)
{
	u8 b[8];
	u32 v;

	(void)state;
	wr(0, 0x80, 0x25);
	memset(b, 0x55, sizeof(b));
	assert_int_equal(lapic_mmio(f.l[0], 0xfee00080, b, 1, false), 0);
	assert_int_equal(b[0], 0x25);
	memset(b, 0x55, sizeof(b));
	assert_int_equal(lapic_mmio(f.l[0], 0xfee00080, b, 8, false), 0); /* too wide: nothing */
	assert_int_equal(b[0], 0);
	v = 0x77;
	lapic_mmio(f.l[0], 0xfee00080, &v, 1, true); /* ignored */
	lapic_mmio(f.l[0], 0xfee00084, &v, 4, true);
	assert_int_equal(rd(0, 0x80), 0x25);
	assert_int_equal(rd(0, 0xff0), 0);
	assert_int_equal(lapic_mmio(f.l[0], 0xfee01000, &v, 4, false), 1);
	assert_int_equal(lapic_mmio(f.l[0], 0xfedff000, &v, 4, false), 1);
}

static void base_transitions(void **state)
{
	static const struct {
		u64 from, to;
		int guest, host;
	} rows[] = {
		{ 0xfee00900, 0xfee00d00, 0, 0 },   /* xAPIC -> x2APIC */
		{ 0xfee00d00, 0xfee00900, -1, 0 },  /* x2APIC -> xAPIC */
		{ 0xfee00d00, 0xfee00100, 0, 0 },   /* x2APIC -> disabled */
		{ 0xfee00100, 0xfee00d00, -1, 0 },  /* disabled -> x2APIC */
		{ 0xfee00900, 0xfee00500, -1, -1 }, /* EXTD without EN */
		{ 0xfee00900, 0xfee00901, -1, -1 }, /* reserved */
		{ 0xfee00900, 0xfee00b00, -1, -1 }, /* bit 9 */
		{ 0xfee00900, 1ull << 52 | 0x900, -1, -1 }, { 0xfee00900, 0x1fee00900, 0, 0 },
	};
	u32 v;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(lapic_base_set_host(f.l[0], 0xfee00900), 0);
		assert_int_equal(lapic_base_set_host(f.l[0], rows[i].from), 0);
		assert_int_equal(lapic_base_set(f.l[0], rows[i].to), rows[i].guest);
		assert_int_equal(lapic_base_set_host(f.l[0], rows[i].from), 0);
		assert_int_equal(lapic_base_set_host(f.l[0], rows[i].to), rows[i].host);
	}
	assert_int_equal(lapic_mmio(f.l[0], 0xfee00030, &v, 4, false), 1); /* moved */
	assert_int_equal(lapic_mmio(f.l[0], 0x1fee00030, &v, 4, false), 0);
	assert_int_equal(v, 0x50014);
	lapic_features(f.l[1], false, false, 40);
	assert_int_equal(lapic_base_set(f.l[1], 0xfee00c00), -1);
	assert_int_equal(lapic_base_set(f.l[1], 1ull << 40 | 0x800), -1);
}

static void disabled_page(void **state)
{
	struct irq_options o = { .no_mmio_hole = true };
	u32 v = 0;

	(void)state;
	assert_int_equal(lapic_base_set(f.l[1], 0xfee00000), 0);
	assert_int_equal(lapic_mmio(f.l[1], 0xfee00030, &v, 4, false), 0);
	assert_int_equal(v, ~0u);
	irqchip_options(f.chip, &o);
	assert_int_equal(lapic_mmio(f.l[1], 0xfee00030, &v, 4, false), 1);
}

static void x2apic_msrs(void **state)
{
	static const struct {
		u32 msr;
		int r;
		u64 value;
	} reads[] = {
		{ 0x802, 0, 3 },  { 0x803, 0, 0x50014 }, { 0x808, 0, 0 },  { 0x80a, 0, 0 },
		{ 0x80d, 0, 8 },  { 0x80e, -1, 0 },	 { 0x80b, -1, 0 }, { 0x80f, 0, 0x1ff },
		{ 0x809, -1, 0 }, { 0x830, 0, 0 },	 { 0x831, -1, 0 }, { 0x83f, -1, 0 },
		{ 0x82f, -1, 0 }, { 0x8ff, -1, 0 },	 { 0x800, -1, 0 }, { 0x832, 0, 0x10000 },
		{ 0x900, -1, 0 }, { 0x7ff, -1, 0 },
	};
	static const struct {
		u32 msr;
		u64 value;
		int r;
	} writes[] = {
		{ 0x802, 0, -1 },	 { 0x80d, 0, -1 },
		{ 0x80e, 0, -1 },	 { 0x831, 0, -1 },
		{ 0x808, 0x20, 0 },	 { 0x808, 1ull << 32, -1 },
		{ 0x80b, 0, 0 },	 { 0x80b, 1, -1 },
		{ 0x828, 0, 0 },	 { 0x828, 1, -1 },
		{ 0x83f, 0x100, -1 },	 { 0x803, 0, -1 },
		{ 0x830, 1u << 13, -1 }, { 0x830, 1u << 16, -1 },
		{ 0x830, 1u << 20, -1 }, { 0x830, 0x4000000000000ull << 8 | 0x1041, 0 },
		{ 0x838, 0, 0 },	 { 0x839, 0, -1 },
	};
	u64 v;

	(void)state;
	assert_int_equal(lapic_msr_read(f.l[3], 0x802, &v), -1); /* not in x2APIC mode */
	assert_int_equal(lapic_msr_write(f.l[3], 0x808, 0), -1);
	enable(3);
	x2apic(3);
	for (unsigned i = 0; i < ARRAY_SIZE(reads); i++) {
		assert_int_equal(lapic_msr_read(f.l[3], reads[i].msr, &v), reads[i].r);
		if (!reads[i].r)
			assert_int_equal(v, reads[i].value);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(writes); i++)
		assert_int_equal(lapic_msr_write(f.l[3], writes[i].msr, writes[i].value),
				 writes[i].r);
	assert_int_equal(lapic_msr_read(f.l[3], 0x830, &v), 0);
	assert_int_equal(v, 0x4000000000000ull << 8 | 0x41); /* busy is never seen */
	/* Self-IPI. */
	assert_int_equal(lapic_msr_write(f.l[3], 0x808, 0), 0);
	assert_int_equal(lapic_msr_write(f.l[3], 0x83f, 0x66), 0);
	assert_int_equal(lapic_ack(f.l[3]), 0x66);
}

static void priorities(void **state)
{
	(void)state;
	enable(0);
	irqchip_msi(f.chip, 0xfee00000, 0x35);
	assert_true(lapic_pending(f.l[0]));
	assert_int_equal(f.kicks[0], 1);
	irqchip_msi(f.chip, 0xfee00000, 0x52);
	assert_int_equal(lapic_ack(f.l[0]), 0x52);
	assert_int_equal(rd(0, 0xa0), 0x50);
	assert_false(lapic_pending(f.l[0]));
	assert_int_equal(lapic_ack(f.l[0]), -1);
	irqchip_msi(f.chip, 0xfee00000, 0x5f); /* same class: waits */
	assert_false(lapic_pending(f.l[0]));
	irqchip_msi(f.chip, 0xfee00000, 0x60);
	assert_int_equal(lapic_ack(f.l[0]), 0x60); /* nested */
	wr(0, 0xb0, 0);
	assert_int_equal(rd(0, 0xa0), 0x50);
	wr(0, 0xb0, 0);
	assert_int_equal(lapic_ack(f.l[0]), 0x5f);
	wr(0, 0xb0, 0);
	lapic_tpr_set(f.l[0], 3);
	assert_int_equal(lapic_tpr_get(f.l[0]), 3);
	assert_int_equal(rd(0, 0x80), 0x30);
	assert_false(lapic_pending(f.l[0])); /* 0x35 is held back */
	lapic_tpr_set(f.l[0], 2);
	assert_true(lapic_pending(f.l[0]));
	assert_int_equal(lapic_ack(f.l[0]), 0x35);
	wr(0, 0xb0, 0);
	wr(0, 0xb0, 0);			       /* EOI of nothing */
	irqchip_msi(f.chip, 0xfee00000, 0x0f); /* class 0 is never delivered */
	lapic_tpr_set(f.l[0], 0);
	assert_false(lapic_pending(f.l[0]));
}

struct dest_row {
	u32 address, data;
	int r;
	unsigned mask; /* who gets it */
};

static unsigned drain(void)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < CPUS; i++) {
		u64 base = lapic_base_get(f.l[i]);

		if (lapic_ack(f.l[i]) < 0)
			continue;
		mask |= BIT(i);
		if (base & 0x400)
			lapic_msr_write(f.l[i], 0x80b, 0);
		else
			wr(i, 0xb0, 0);
	}
	return mask;
}

static void run_dest(const struct dest_row *rows, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(irqchip_msi(f.chip, rows[i].address, rows[i].data), rows[i].r);
		assert_int_equal(drain(), rows[i].mask);
	}
}

static void destinations_xapic(void **state)
{
	static const struct dest_row flat[] = {
		{ 0xfee00000, 0x41, 1, 1 },   { 0xfee03000, 0x41, 1, 8 },
		{ 0xfee07000, 0x41, 0, 0 },   { 0xfeeff000, 0x41, 4, 15 },
		{ 0xfee05004, 0x41, 2, 5 },   { 0xfee0f004, 0x41, 4, 15 },
		{ 0xfee10004, 0x41, 0, 0 },   { 0xfeeff004, 0x41, 4, 15 },
		{ 0xfee0f004, 0x140, 1, 1 },  { 0xfee0f004, 0x141, 1, 2 },
		{ 0xfee0a004, 0x141, 1, 8 },  { 0xfee0f00c, 0x042, 1, 4 },
		{ 0xfeeff000, 0x141, 4, 15 }, { 0xfee00000, 0x4041 | 0x8000, 1, 1 },
		{ 0xfee00000, 0x741, 0, 0 },  { 0xfee00000, 0x341, 0, 0 },
	};
	static const struct dest_row cluster[] = {
		{ 0xfee01004, 0x41, 1, 1 }, { 0xfee03004, 0x41, 2, 3 },
		{ 0xfee11004, 0x41, 1, 4 }, { 0xfee13004, 0x41, 2, 12 },
		{ 0xfee23004, 0x41, 0, 0 }, { 0xfee13004, 0x141, 1, 8 },
	};

	(void)state;
	for (unsigned i = 0; i < CPUS; i++) {
		enable(i);
		wr(i, 0xd0, 1u << (24 + i));
	}
	run_dest(flat, ARRAY_SIZE(flat));
	for (unsigned i = 0; i < CPUS; i++) {
		wr(i, 0xe0, 0);
		wr(i, 0xd0, (i / 2) << 28 | 1u << (24 + i % 2));
	}
	run_dest(cluster, ARRAY_SIZE(cluster));
	/* Software-disabled: fixed is dropped, hardware-disabled: not there at all. */
	wr(1, 0xf0, 0xff);
	assert_int_equal(irqchip_msi(f.chip, 0xfee01000, 0x41), 0);
	assert_int_equal(lapic_base_set(f.l[2], 0xfee00000), 0);
	assert_int_equal(irqchip_msi(f.chip, 0xfeeff000, 0x41), 2);
	assert_int_equal(drain(), 9);
}

static void destinations_x2apic(void **state)
{
	static const struct dest_row rows[] = {
		{ 0xfee02000, 0x41, 1, 4 },  { 0xfeeff000, 0x41, 4, 15 },
		{ 0xfee0a004, 0x41, 2, 10 }, { 0xfee05000, 0x41, 0, 0 },
		{ 0xfee0f004, 0x142, 1, 4 },
	};
	struct irq_options o = { .ids32 = true, .no_broadcast = true };

	(void)state;
	for (unsigned i = 0; i < CPUS; i++) {
		enable(i);
		x2apic(i);
	}
	run_dest(rows, ARRAY_SIZE(rows));
	/* IPIs: physical, logical, broadcast. */
	lapic_msr_write(f.l[0], 0x830, 2ull << 32 | 0x4041);
	assert_int_equal(drain(), 4);
	lapic_msr_write(f.l[0], 0x830, 6ull << 32 | 0x4841);
	assert_int_equal(drain(), 6);
	lapic_msr_write(f.l[0], 0x830, 0x10006ull << 32 | 0x4841);
	assert_int_equal(drain(), 0);
	lapic_msr_write(f.l[0], 0x830, 0xffffffffull << 32 | 0x4041);
	assert_int_equal(drain(), 15);
	lapic_msr_write(f.l[0], 0x830, 0xffull << 32 | 0x4041);
	assert_int_equal(drain(), 0);
	irqchip_options(f.chip, &o);
	assert_int_equal(irqchip_msi(f.chip, 0xfeeff000, 0x41), -1);
	assert_int_equal(irqchip_msi(f.chip, 0x100fee00000ull, 0x41), 0);
	assert_int_equal(irqchip_msi(f.chip, 0x1fee00000ull, 0x41), -EINVAL);
}

static void ipis(void **state)
{
	static const struct {
		u32 high, low;
		unsigned mask;
	} rows[] = {
		{ 1u << 24, 0x4041, 2 }, { 0, 0x44041, 1 },	      { 0, 0x84041, 15 },
		{ 0, 0xc4041, 14 },	 { 0xffu << 24, 0x4041, 15 }, { 9u << 24, 0x4041, 0 },
		{ 1u << 24, 0x8041, 0 }, /* level de-assert */
	};

	(void)state;
	for (unsigned i = 0; i < CPUS; i++)
		enable(i);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		wr(0, 0x310, rows[i].high);
		wr(0, 0x300, rows[i].low | 0x1000);
		assert_int_equal(rd(0, 0x300), rows[i].low);
		assert_int_equal(drain(), rows[i].mask);
	}
}

static void events(void **state)
{
	u8 vector = 0;

	(void)state;
	assert_false(lapic_has_event(f.l[1]));
	wr(0, 0x310, 1u << 24);
	wr(0, 0x300, 0x4500); /* INIT, although software-disabled */
	assert_true(lapic_has_event(f.l[1]));
	assert_false(lapic_pending(f.l[1]));
	assert_int_equal(f.kicks[1], 1);
	wr(0, 0x300, 0x8500); /* INIT de-assert */
	assert_true(lapic_take_init(f.l[1]));
	assert_false(lapic_take_init(f.l[1]));
	lapic_reset(f.l[1], true);
	wr(0, 0x300, 0x4699);
	assert_true(lapic_take_sipi(f.l[1], &vector));
	assert_int_equal(vector, 0x99);
	assert_false(lapic_take_sipi(f.l[1], &vector));
	wr(0, 0x300, 0x4611);
	wr(0, 0x300, 0x4500); /* INIT forgets an older SIPI */
	assert_false(lapic_take_sipi(f.l[1], &vector));
	assert_true(lapic_take_init(f.l[1]));
	for (unsigned i = 0; i < 3; i++)
		wr(0, 0x300, 0x4400);
	assert_true(lapic_take_nmi(f.l[1]));
	assert_true(lapic_take_nmi(f.l[1]));
	assert_false(lapic_take_nmi(f.l[1]));
	wr(0, 0x300, 0x4200);
	assert_true(lapic_take_smi(f.l[1]));
	assert_false(lapic_take_smi(f.l[1]));
	lapic_nmi(f.l[2]);
	lapic_smi(f.l[2]);
	assert_true(lapic_has_event(f.l[2]));
	lapic_reset(f.l[2], false);
	assert_false(lapic_has_event(f.l[2]));
	/* LINT0 as NMI: the watchdog's virtual wire. */
	enable(1);
	wr(1, 0x350, 0x400);
	irqchip_pit_nmi(f.chip);
	assert_true(lapic_take_nmi(f.l[1]));
	assert_false(lapic_has_event(f.l[0]));
}

static int wait_ack(unsigned cpu, unsigned ms)
{
	u64 end = timer_now() + ms * 1000000ull;

	while (timer_now() < end)
		if (lapic_pending(f.l[cpu]))
			return lapic_ack(f.l[cpu]);
	return -1;
}

static void timer_oneshot(void **state)
{
	u64 start;

	(void)state;
	enable(0);
	wr(0, 0x3e0, 0xb);
	wr(0, 0x320, 0xe1);
	start = timer_now();
	wr(0, 0x380, 20000000);
	assert_true(rd(0, 0x390) > 1000000 && rd(0, 0x390) <= 20000000);
	assert_int_equal(wait_ack(0, 2000), 0xe1);
	assert_true(timer_now() - start >= 20000000);
	assert_int_equal(rd(0, 0x390), 0);
	wr(0, 0xb0, 0);
	assert_int_equal(wait_ack(0, 30), -1); /* once */
	wr(0, 0x380, 20000000);
	wr(0, 0x380, 0); /* stopped */
	assert_int_equal(wait_ack(0, 40), -1);
	wr(0, 0x320, 0x100e1); /* masked: counts, says nothing */
	wr(0, 0x380, 1000000);
	assert_int_equal(wait_ack(0, 10), -1);
	wr(0, 0x320, 0xe1);
	wr(0, 0x3e0, 0); /* divide by 2 */
	wr(0, 0x380, 100000000);
	wr(0, 0x3e0, 0xa); /* by 128 */
	assert_true(rd(0, 0x390) > 90000000);
	wr(0, 0x380, 0);
}

static void timer_periodic(void **state)
{
	u64 start;

	(void)state;
	enable(0);
	wr(0, 0x3e0, 0xb);
	wr(0, 0x320, 0x200e1);
	start = timer_now();
	wr(0, 0x380, 5000000);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(wait_ack(0, 2000), 0xe1);
		wr(0, 0xb0, 0);
	}
	assert_true(timer_now() - start >= 30000000);
	sleep_ms(30); /* missed ticks do not pile up */
	assert_int_equal(lapic_ack(f.l[0]), 0xe1);
	wr(0, 0xb0, 0);
	wr(0, 0x320, 0x300e1);
	assert_int_equal(wait_ack(0, 20), -1);
	wr(0, 0x380, 0);
	wr(0, 0x320, 0x200e1);
	wr(0, 0x380, 1); /* a nanosecond: limited to 200 us */
	sleep_ms(20);
	assert_true(__atomic_load_n(&f.kicks[0], __ATOMIC_RELAXED) < 20);
	wr(0, 0x380, 0);
}

static void timer_deadline(void **state)
{
	u64 now;

	(void)state;
	enable(0);
	lapic_deadline_set(f.l[0], 1); /* not in this mode */
	assert_int_equal(lapic_deadline_get(f.l[0]), 0);
	wr(0, 0x320, 0x400e1);
	wr(0, 0x380, 1000); /* ignored in this mode */
	assert_int_equal(rd(0, 0x380), 0);
	now = timer_now();
	lapic_deadline_set(f.l[0], now + 15000000);
	assert_int_equal(lapic_deadline_get(f.l[0]), now + 15000000);
	assert_int_equal(wait_ack(0, 2000), 0xe1);
	assert_true(timer_now() >= now + 15000000);
	assert_int_equal(lapic_deadline_get(f.l[0]), 0);
	wr(0, 0xb0, 0);
	lapic_deadline_set(f.l[0], 5); /* long past: at once */
	assert_int_equal(lapic_ack(f.l[0]), 0xe1);
	wr(0, 0xb0, 0);
	lapic_deadline_set(f.l[0], timer_now() + 10000000);
	lapic_deadline_set(f.l[0], 0);
	assert_int_equal(wait_ack(0, 20), -1);
	lapic_deadline_set(f.l[0], ~0ull); /* never, and no overflow */
	assert_int_equal(wait_ack(0, 5), -1);
	wr(0, 0x320, 0xe1); /* leaving the mode disarms */
	assert_int_equal(lapic_deadline_get(f.l[0]), 0);
	lapic_features(f.l[1], true, false, 48);
	enable(1);
	wr(1, 0x320, 0x400e1);
	assert_int_equal(rd(1, 0x320), 0xe1);
}

static void pic_wire(void **state)
{
	u8 b;

	(void)state;
	/* The 8259 has base 0 and nothing masked after reset. */
	irqchip_set_line(f.chip, 4, 1, 0);
	assert_true(lapic_pending(f.l[0])); /* BSP: LINT0 is ExtINT */
	assert_false(lapic_pending(f.l[1]));
	assert_int_equal(lapic_base_set(f.l[1], 0xfee00000), 0);
	assert_true(lapic_pending(f.l[1])); /* no APIC: INTR */
	assert_int_equal(lapic_base_set(f.l[1], 0xfee00800), 0);
	assert_false(lapic_pending(f.l[1]));
	enable(0);
	wr(0, 0x350, 0x10700);
	assert_false(lapic_pending(f.l[0]));
	wr(0, 0x350, 0x700);
	lapic_tpr_set(f.l[0], 15); /* ExtINT does not care */
	assert_true(lapic_pending(f.l[0]));
	assert_int_equal(lapic_ack(f.l[0]), 4);
	assert_false(lapic_pending(f.l[0]));
	b = 0x20;
	irqchip_io(f.chip, 0x20, &b, 1, true);
}

static void images(void **state)
{
	struct kvm_lapic_state s, t;
	struct irq_options o = { .ids32 = true };
	u32 *r = (u32 *)(void *)s.regs;

	(void)state;
	enable(2);
	irqchip_msi(f.chip, 0xfee02000, 0x41);
	wr(2, 0x3e0, 0xb);
	wr(2, 0x320, 0x200e1);
	wr(2, 0x380, 1000000000);
	lapic_get(f.l[2], &s);
	assert_int_equal(r[0x20 / 4], 2u << 24);
	assert_int_equal(r[0x220 / 4], 2);
	assert_true(r[0x390 / 4] > 900000000);
	r[0x390 / 4] = 500000000;
	r[0x30 / 4] = 0x12345678; /* the version is ours */
	lapic_reset(f.l[2], false);
	assert_int_equal(lapic_set(f.l[2], &s), 0);
	assert_int_equal(rd(2, 0x30), 0x50014);
	assert_true(rd(2, 0x390) > 400000000 && rd(2, 0x390) <= 500000000);
	assert_int_equal(lapic_ack(f.l[2]), 0x41);
	/* A restored one-shot that was about to fire. */
	r[0x320 / 4] = 0xe2;
	r[0x390 / 4] = 0;
	assert_int_equal(lapic_set(f.l[2], &s), 0);
	assert_int_equal(lapic_ack(f.l[2]), 0xe2);
	/* x2APIC: ID formats. */
	x2apic(2);
	lapic_get(f.l[2], &s);
	assert_int_equal(r[0x20 / 4], 2u << 24);
	assert_int_equal(r[0xd0 / 4], 4);
	r[0x20 / 4] = 7u << 24;
	r[0xd0 / 4] = 0;
	assert_int_equal(lapic_set(f.l[2], &s), 0);
	lapic_get(f.l[2], &t);
	assert_int_equal(*(u32 *)(void *)(t.regs + 0x20), 2u << 24);
	assert_int_equal(*(u32 *)(void *)(t.regs + 0xd0), 4);
	irqchip_options(f.chip, &o);
	assert_int_equal(lapic_set(f.l[2], &s), -EINVAL);
	lapic_get(f.l[2], &s);
	assert_int_equal(r[0x20 / 4], 2);
	assert_int_equal(lapic_set(f.l[2], &s), 0);
	/* Garbage does no harm. */
	for (unsigned seed = 1; seed < 50; seed++) {
		u32 x = seed;

		for (unsigned i = 0; i < sizeof(s.regs); i++) {
			x = x * 1664525 + 1013904223;
			s.regs[i] = (char)(x >> 24);
		}
		lapic_set(f.l[3], &s);
		lapic_ack(f.l[3]);
		wr(3, 0xb0, 0);
		(void)rd(3, 0x390);
	}
}

static void creation(void **state)
{
	(void)state;
	assert_null(lapic_create(f.chip, 1, 1, false)); /* taken */
	assert_null(lapic_create(f.chip, IRQ_MAX_VCPUS, 1, false));
	lapic_destroy(NULL);
	lapic_destroy(f.l[1]);
	f.l[1] = lapic_create(f.chip, 1, 1, false);
	assert_non_null(f.l[1]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(reset_values),
		T(register_masks),
		T(odd_accesses),
		T(base_transitions),
		T(disabled_page),
		T(x2apic_msrs),
		T(priorities),
		T(destinations_xapic),
		T(destinations_x2apic),
		T(ipis),
		T(events),
		T(timer_oneshot),
		T(timer_periodic),
		T(timer_deadline),
		T(pic_wire),
		T(images),
		T(creation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
