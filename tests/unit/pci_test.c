/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* PCI: configuration space by both ways, sizing of BARs, decoding, shared INTx, MSI-X masking; device state by fields. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/dev/bus.h"
#include "vmm/dev/state.h"
#include "vmm/pci/msix.h"
#include "vmm/pci/pci.h"

#define BAR_BYTES 0x2000u

static struct pci_bus pci;
static struct bus ports;
static struct pci_function a, b, c;
static int levels[24];
static unsigned changes, msis;
static u64 msi_address;
static u32 msi_data;
static u32 last_offset;
static u64 last_value;

static void irq_set(void *owner, unsigned gsi, int level)
{
	(void)owner;
	levels[gsi] = level;
	changes++;
}

static void msi_send(void *owner, u64 address, u32 data)
{
	(void)owner;
	msi_address = address;
	msi_data = data;
	msis++;
}

static u64 bar_read(struct pci_function *f, unsigned bar, u32 offset, unsigned size)
{
	(void)f;
	(void)size;
	return 0x1122334455667788ull + bar + offset;
}

static void bar_write(struct pci_function *f, unsigned bar, u32 offset, unsigned size, u64 value)
{
	(void)f;
	(void)bar;
	(void)size;
	last_offset = offset;
	last_value = value;
}

static const struct pci_ops ops = { .bar_read = bar_read, .bar_write = bar_write };
static const struct pci_identity identity = {
	.vendor = 0x1234, .device = 0x5678, .class_code = 0x010203, .has_intx = true
};

static int setup(void **state)
{
	struct pci_function *const all[] = { &a, &b, &c };

	(void)state;
	memset(levels, 0, sizeof(levels));
	changes = msis = 0;
	pci_init(&pci, (struct pci_host){ irq_set, msi_send, NULL });
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		memset(all[i], 0, sizeof(*all[i]));
		all[i]->ops = &ops;
		assert_int_equal(pci_add(&pci, all[i], &identity), 0);
		pci_add_bar(all[i], 1, BAR_BYTES);
		assert_int_equal(msix_init(all[i], 3, 1, 0x1000, 0x1800), 0);
	}
	pci_assign(&pci);
	bus_init(&ports);
	assert_int_equal(bus_add(&ports, &pci.device), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bus_destroy(&ports);
	pci_destroy(&pci);
	return 0;
}

static u32 cf_read(unsigned slot, unsigned at, unsigned size)
{
	bus_write(&ports, 0xcf8, 4, 0x80000000u | slot << 11 | (at & 0xfc));
	return bus_read(&ports, (u16)(0xcfc + at % 4), size);
}

static void cf_write(unsigned slot, unsigned at, unsigned size, u32 value)
{
	bus_write(&ports, 0xcf8, 4, 0x80000000u | slot << 11 | (at & 0xfc));
	bus_write(&ports, (u16)(0xcfc + at % 4), size, value);
}

static void test_config(void **state)
{
	u32 value;
	u8 byte;

	(void)state;
	assert_int_equal(cf_read(0, 0, 4), 0x00081b36);
	assert_int_equal(cf_read(1, 0, 4), 0x56781234);
	assert_int_equal(cf_read(1, 2, 2), 0x5678);
	assert_int_equal(cf_read(1, 3, 1), 0x56);
	assert_int_equal(cf_read(4, 0, 4), 0xffffffff);
	/* Read-only bytes stay. */
	cf_write(1, 0, 4, 0);
	assert_int_equal(cf_read(1, 0, 4), 0x56781234);
	/* Functions 1 to 7 and other buses: nobody. */
	bus_write(&ports, 0xcf8, 4, 0x80000900);
	assert_int_equal(bus_read(&ports, 0xcfc, 4), 0xffffffff);
	bus_write(&ports, 0xcf8, 4, 0x80010800);
	assert_int_equal(bus_read(&ports, 0xcfc, 4), 0xffffffff);
	/* Without the enable bit: nobody. */
	bus_write(&ports, 0xcf8, 4, 0x00000800);
	assert_int_equal(bus_read(&ports, 0xcfc, 4), 0xffffffff);
	/* The other way shows the same, and nothing above 256 bytes. */
	assert_true(pci_mmio_read(&pci, PCI_ECAM_START + 0x8000, 4, &value));
	assert_int_equal(value, 0x56781234);
	assert_true(pci_mmio_read(&pci, PCI_ECAM_START + 0x8003, 1, &byte));
	assert_int_equal(byte, 0x56);
	assert_true(pci_mmio_read(&pci, PCI_ECAM_START + 0x8100, 4, &value));
	assert_int_equal(value, 0);
	assert_true(pci_mmio_read(&pci, PCI_ECAM_START + 0x9000, 4, &value));
	assert_int_equal(value, 0xffffffff);
}

static void test_bars(void **state)
{
	const u32 base = cf_read(1, 0x14, 4);
	u64 value = 0;

	(void)state;
	assert_int_equal(base, PCI_WINDOW_START);
	assert_int_equal(cf_read(2, 0x14, 4), base + BAR_BYTES);
	cf_write(1, 0x14, 4, 0xffffffff);
	assert_int_equal(cf_read(1, 0x14, 4), ~(BAR_BYTES - 1));
	cf_write(1, 0x10, 4, 0xffffffff);
	assert_int_equal(cf_read(1, 0x10, 4), 0);
	cf_write(1, 0x14, 4, 0xd0000000);
	/* Decoding only with the memory bit, and only inside. */
	assert_false(pci_mmio_read(&pci, 0xd0000000, 8, &value));
	cf_write(1, 0x04, 2, 0xffff);
	assert_int_equal(cf_read(1, 0x04, 2), 0x0406);
	assert_true(pci_mmio_read(&pci, 0xd0000010, 8, &value));
	assert_int_equal(value, 0x1122334455667788ull + 1 + 0x10);
	assert_false(pci_mmio_read(&pci, 0xd0000000 + BAR_BYTES - 4, 8, &value));
	assert_false(pci_mmio_read(&pci, 0xd0000000 + BAR_BYTES, 1, &value));
	assert_false(pci_mmio_read(&pci, 0xcfffffff, 1, &value));
	assert_false(pci_mmio_read(&pci, ~0ull - 3, 4, &value));
	value = 0xab;
	assert_true(pci_mmio_write(&pci, 0xd0000123, 1, &value));
	assert_int_equal(last_offset, 0x123);
	assert_int_equal(last_value, 0xab);
	/* Reset gives back what firmware has set. */
	pci.device.reset(&pci);
	assert_int_equal(cf_read(1, 0x14, 4), base);
	assert_int_equal(cf_read(1, 0x04, 2), 0);
}

/* Slots 1 to 3 have lines of their own; the OR of a line needs slots four apart. */
static void test_intx(void **state)
{
	static struct pci_function e, f;

	(void)state;
	memset(&e, 0, sizeof(e));
	memset(&f, 0, sizeof(f));
	pci_add(&pci, &e, &identity);
	pci_add(&pci, &f, &identity);
	assert_int_equal(f.slot, 5);
	assert_int_equal(f.config[0x3c], a.config[0x3c]);
	pci_intx_set(&a, true);
	assert_int_equal(levels[17], 1);
	pci_intx_set(&f, true);
	pci_intx_set(&a, false);
	assert_int_equal(levels[17], 1);
	assert_int_equal(changes, 1);
	pci_intx_set(&f, false);
	assert_int_equal(levels[17], 0);
	/* The disable bit takes the line away and gives it back; the status bit does not care. */
	pci_intx_set(&b, true);
	cf_write(2, 0x04, 2, 0x0400);
	assert_int_equal(levels[18], 0);
	assert_true(cf_read(2, 0x06, 2) & 8);
	cf_write(2, 0x04, 2, 0);
	assert_int_equal(levels[18], 1);
}

static void test_msix(void **state)
{
	const unsigned control = c.msix.capability + 2u;

	(void)state;
	msix_signal(&c, 0);
	assert_int_equal(msis, 0);
	cf_write(3, control, 2, 0x8000);
	msix_table_write(&c, 0, 4, 0xfee01000);
	msix_table_write(&c, 8, 4, 0x41);
	msix_signal(&c, 0); /* masked: waits */
	assert_int_equal(msis, 0);
	assert_int_equal(msix_pending_read(&c, 0, 8), 1);
	msix_table_write(&c, 12, 4, 0);
	assert_int_equal(msis, 1);
	assert_int_equal(msi_address, 0xfee01000);
	assert_int_equal(msi_data, 0x41);
	assert_int_equal(msix_pending_read(&c, 0, 8), 0);
	msix_signal(&c, 0);
	assert_int_equal(msis, 2);
	/* Vectors that a guest makes up, places outside the table, sizes that are not allowed. */
	msix_signal(&c, 3);
	msix_signal(&c, MSIX_NO_VECTOR);
	msix_table_write(&c, 48, 4, 1);
	msix_table_write(&c, 44, 8, 1);
	msix_table_write(&c, 0xffffffff, 4, 1);
	msix_table_write(&c, 1, 1, 1);
	assert_int_equal(msix_table_read(&c, 0, 8), 0xfee01000);
	assert_int_equal(msix_table_read(&c, 48, 4), 0);
	assert_int_equal(msis, 2);
}

static void test_state(void **state)
{
	u8 saved[1024], broken[1024];
	const size_t n = device_state_size(&pci.device);
	struct why why;

	(void)state;
	cf_write(1, 0x3c, 1, 7);
	assert_true(n > 0 && n <= sizeof(saved));
	assert_int_equal(device_save(&pci.device, saved, n - 1), 0);
	assert_int_equal(device_save(&pci.device, saved, sizeof(saved)), n);
	pci.address = 0;
	assert_int_equal(device_restore(&pci.device, 0, saved, n, &why), 0);
	assert_int_equal(pci.address, 0x8000083c);
	/* Each prefix is refused, and nothing is taken over. */
	pci.address = 5;
	for (size_t cut = 0; cut < n; cut++)
		assert_true(device_restore(&pci.device, 0, saved, cut, &why) < 0);
	for (size_t i = 0; i < 1 + saved[0] + 4u; i++) {
		memcpy(broken, saved, n);
		broken[i] ^= 0x40;
		assert_true(device_restore(&pci.device, 0, broken, n, &why) < 0);
	}
	assert_int_equal(pci.address, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_config, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bars, setup, teardown),
		cmocka_unit_test_setup_teardown(test_intx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
