/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ACPI tables of the pc board, as the ACPI specification 6.3 lays them out. */
#include "vmm/acpi.h"

#include <stddef.h>
#include <string.h>

#include "vmm/aml.h"
#include "vmm/dev/acpi_pm.h"
#include "vmm/dev/reset.h"
#include "vmm/pci/pci.h"

#define PACKED	  __attribute__((packed))
#define OEM_ID	  "ANYKVM"
#define TABLE_ID  "ANYKVMPC"
#define APIC_BASE 0xfee00000u
#define IOAPIC	  0xfec00000u

struct header {
	char signature[4];
	u32 length;
	u8 revision;
	u8 checksum;
	char oem_id[6];
	char oem_table_id[8];
	u32 oem_revision;
	char creator_id[4];
	u32 creator_revision;
} PACKED;

struct rsdp {
	char signature[8];
	u8 checksum; /* of the first 20 bytes */
	char oem_id[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 extended_checksum;
	u8 reserved[3];
} PACKED;

/* Generic Address Structure */
struct gas {
	u8 space; /* 1: system I/O */
	u8 bits;
	u8 offset;
	u8 access;
	u64 address;
} PACKED;

struct fadt {
	struct header header;
	u32 facs, dsdt;
	u8 reserved0, profile;
	u16 sci_interrupt;
	u32 smi_command;
	u8 acpi_enable, acpi_disable, s4bios, pstate;
	u32 pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer, gpe0, gpe1;
	u8 pm1_event_len, pm1_control_len, pm2_control_len, pm_timer_len;
	u8 gpe0_len, gpe1_len, gpe1_base, cst;
	u16 c2_latency, c3_latency, flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, month_alarm, century;
	u16 boot_flags;
	u8 reserved1;
	u32 flags;
	struct gas reset_register;
	u8 reset_value;
	u16 arm_boot_flags;
	u8 minor_revision;
	u64 x_facs, x_dsdt;
	struct gas x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control;
	struct gas x_pm_timer, x_gpe0, x_gpe1, sleep_control, sleep_status;
	u64 hypervisor;
} PACKED;

struct facs {
	char signature[4];
	u32 length, hardware_signature, waking_vector, global_lock, flags;
	u64 x_waking_vector;
	u8 version, reserved[31];
} PACKED;

struct madt {
	struct header header;
	u32 apic_base;
	u32 flags;
} PACKED;

struct madt_lapic {
	u8 type, length, uid, apic_id;
	u32 flags;
} PACKED;

struct madt_ioapic {
	u8 type, length, id, reserved;
	u32 address, gsi_base;
} PACKED;

struct madt_override {
	u8 type, length, bus, source;
	u32 gsi;
	u16 flags;
} PACKED;

struct madt_lapic_nmi {
	u8 type, length, uid;
	u16 flags;
	u8 lint;
} PACKED;

_Static_assert(sizeof(struct header) == 36, "table \"DESCRIPTION_HEADER Fields\"");
_Static_assert(sizeof(struct rsdp) == 36, "table \"RSDP Structure\"");
_Static_assert(sizeof(struct fadt) == 276, "table \"FADT Format\", revision 6");
_Static_assert(sizeof(struct facs) == 64, "table \"FACS\"");
_Static_assert(offsetof(struct fadt, reset_register) == 116, "table \"FADT Format\"");

enum { FLAG_WBINVD = 1 << 0, FLAG_C1 = 1 << 2, FLAG_NO_POWER_BUTTON = 1 << 4 };
enum { FLAG_NO_SLEEP_BUTTON = 1 << 5, FLAG_NO_RTC_WAKE = 1 << 6, FLAG_TIMER_32 = 1 << 8 };
enum { FLAG_RESET = 1 << 10 };
enum { BOOT_LEGACY_DEVICES = 1 << 0, BOOT_NO_VGA = 1 << 2 };
enum { MADT_PCAT = 1, LAPIC_ENABLED = 1, ALL_PROCESSORS = 0xff };
enum { TYPE_LAPIC = 0, TYPE_IOAPIC = 1, TYPE_OVERRIDE = 2, TYPE_LAPIC_NMI = 4 };
enum { INTI_CONFORMS = 0, INTI_LEVEL_HIGH = 0x0d };

struct builder {
	u8 *out;
	size_t size;
	size_t room;
	gpa_t base;
};

static u8 checksum(const void *data, size_t n)
{
	const u8 *p = data;
	u8 sum = 0;

	while (n--)
		sum += *p++;
	return (u8)-sum;
}

static struct header header_make(const char *signature, u8 revision, size_t length)
{
	struct header h = { .length = (u32)length,
			    .revision = revision,
			    .oem_revision = 1,
			    .creator_revision = 1 };

	memcpy(h.signature, signature, 4);
	memcpy(h.oem_id, OEM_ID, 6);
	memcpy(h.oem_table_id, TABLE_ID, 8);
	memcpy(h.creator_id, "AKVM", 4);
	return h;
}

/* Append @n bytes at a multiple of @align; returns where the guest sees them, 0 when they do not fit. */
static gpa_t place(struct builder *b, const void *data, size_t n, size_t align)
{
	const size_t at = ALIGN_UP(b->size, align);

	if (at > b->room || n > b->room - at)
		return 0;
	memset(b->out + b->size, 0, at - b->size);
	memcpy(b->out + at, data, n);
	b->size = at + n;
	return b->base + at;
}

/* A table whose header is complete but for the checksum. */
static gpa_t table_place(struct builder *b, void *table, size_t n)
{
	struct header *h = table;

	h->length = (u32)n;
	h->checksum = 0;
	h->checksum = checksum(table, n);
	return place(b, table, n, 16);
}

static void device_add(struct aml *a, const char *name, const char *id, u64 uid, u16 port, u8 ports,
		       unsigned irq)
{
	const size_t mark = aml_device_begin(a, name);
	u8 resources[16];
	size_t n;

	aml_name(a, "_HID");
	aml_eisa_id(a, id);
	aml_name(a, "_UID");
	aml_integer(a, uid);
	aml_name(a, "_STA");
	aml_integer(a, 0x0f);
	aml_name(a, "_CRS");
	n = resource_io(resources, port, ports);
	n += resource_irq(resources + n, irq);
	aml_resources(a, resources, n);
	aml_end(a, mark);
}

/* What the bridge passes on. */
static void bridge_resources(struct aml *a)
{
	u8 r[128];
	size_t n = resource_bus(r, 0, 0);

	n += resource_io(r + n, 0xcf8, 8);
	n += resource_io_window(r + n, 0x1000, 0xffff);
	n += resource_memory_window(r + n, PCI_WINDOW_START, PCI_WINDOW_SIZE);
	aml_name(a, "_CRS");
	aml_resources(a, r, n);
}

/* Pin A of every slot, by number of its GSI: no link devices. */
static void bridge_routing(struct aml *a)
{
	size_t all, one;

	aml_name(a, "_PRT");
	all = aml_package_begin(a, PCI_SLOTS);
	for (u32 slot = 0; slot < PCI_SLOTS; slot++) {
		one = aml_package_begin(a, 4);
		aml_integer(a, slot << 16 | 0xffff);
		aml_integer(a, 0);
		aml_integer(a, 0);
		aml_integer(a, PCI_GSI_FIRST + slot % PCI_GSI_COUNT);
		aml_end(a, one);
	}
	aml_end(a, all);
}

static void bridge_add(struct aml *a)
{
	const size_t mark = aml_device_begin(a, "PCI0");

	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0A08");
	aml_name(a, "_CID");
	aml_eisa_id(a, "PNP0A03");
	aml_name(a, "_UID");
	aml_integer(a, 0);
	bridge_resources(a);
	bridge_routing(a);
	aml_end(a, mark);
}

/* Guests trust the MCFG only where a motherboard resource or the memory map reserves its range. */
static void ecam_reserve(struct aml *a)
{
	const size_t mark = aml_device_begin(a, "ECAM");
	u8 r[16];

	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0C02");
	aml_name(a, "_UID");
	aml_integer(a, 1);
	aml_name(a, "_CRS");
	aml_resources(a, r, resource_memory(r, PCI_ECAM_START, PCI_ECAM_SIZE));
	aml_end(a, mark);
}

static gpa_t dsdt_place(struct builder *b)
{
	const struct header h = header_make("DSDT", 2, 0);
	u8 table[2048];
	struct aml a = { table, 0, sizeof(table), false };
	size_t mark;

	aml_bytes(&a, &h, sizeof(h));
	aml_name(&a, "\\_S5");
	mark = aml_package_begin(&a, 4);
	aml_integer(&a, ACPI_PM_S5_TYPE);
	aml_integer(&a, ACPI_PM_S5_TYPE);
	aml_integer(&a, 0);
	aml_integer(&a, 0);
	aml_end(&a, mark);
	mark = aml_scope_begin(&a, "\\_SB");
	device_add(&a, "COM1", "PNP0501", 1, 0x3f8, 8, 4);
	device_add(&a, "RTC0", "PNP0B00", 0, 0x70, 2, 8);
	ecam_reserve(&a);
	bridge_add(&a);
	aml_end(&a, mark);
	return a.overflow ? 0 : table_place(b, table, a.size);
}

static struct gas gas_io(u16 port, u8 bytes)
{
	return (struct gas){ .space = 1,
			     .bits = (u8)(bytes * 8),
			     .access = bytes == 4 ? 3 : bytes,
			     .address = port };
}

static gpa_t fadt_place(struct builder *b, gpa_t facs, gpa_t dsdt)
{
	struct fadt f = {
		.header = header_make("FACP", 6, sizeof(f)),
		.facs = (u32)facs,
		.dsdt = (u32)dsdt,
		.sci_interrupt = ACPI_PM_SCI,
		.pm1a_event = ACPI_PM_EVENT_PORT,
		.pm1a_control = ACPI_PM_CONTROL_PORT,
		.pm_timer = ACPI_PM_TIMER_PORT,
		.pm1_event_len = 4,
		.pm1_control_len = 2,
		.pm_timer_len = 4,
		.c2_latency = 0x0fff, /* more than 100 and 1000: no C2, no C3 */
		.c3_latency = 0x0fff,
		.century = 0x32,
		/* No 8042, no VGA: kernels then do not look for them. */
		.boot_flags = BOOT_LEGACY_DEVICES | BOOT_NO_VGA,
		.flags = FLAG_WBINVD | FLAG_C1 | FLAG_NO_POWER_BUTTON | FLAG_NO_SLEEP_BUTTON |
			 FLAG_NO_RTC_WAKE | FLAG_TIMER_32 | FLAG_RESET,
		.reset_register = gas_io(RESET_PORT, 1),
		.reset_value = RESET_VALUE,
		.minor_revision = 3,
		.x_dsdt = dsdt,
		.x_pm1a_event = gas_io(ACPI_PM_EVENT_PORT, 4),
		.x_pm1a_control = gas_io(ACPI_PM_CONTROL_PORT, 2),
		.x_pm_timer = gas_io(ACPI_PM_TIMER_PORT, 4),
	};

	return table_place(b, &f, sizeof(f));
}

static gpa_t facs_place(struct builder *b)
{
	struct facs f = { .signature = "FACS", .length = sizeof(f), .version = 2 };

	return place(b, &f, sizeof(f), 64);
}

static gpa_t madt_place(struct builder *b, unsigned cpus)
{
	const struct madt head = { header_make("APIC", 5, 0), APIC_BASE, MADT_PCAT };
	const struct madt_ioapic ioapic = { TYPE_IOAPIC, sizeof(ioapic), (u8)cpus, 0, IOAPIC, 0 };
	const struct madt_override timer = { TYPE_OVERRIDE, sizeof(timer), 0, 0, 2, INTI_CONFORMS };
	const struct madt_override sci = { TYPE_OVERRIDE, sizeof(sci), 0,
					   ACPI_PM_SCI,	  ACPI_PM_SCI, INTI_LEVEL_HIGH };
	const struct madt_lapic_nmi nmi = { TYPE_LAPIC_NMI, sizeof(nmi), ALL_PROCESSORS,
					    INTI_CONFORMS, 1 };
	u8 table[4096];
	struct aml a = { table, 0, sizeof(table), false }; /* only as a growing buffer */

	aml_bytes(&a, &head, sizeof(head));
	for (unsigned i = 0; i < cpus; i++) {
		const struct madt_lapic lapic = { TYPE_LAPIC, sizeof(lapic), (u8)i, (u8)i,
						  LAPIC_ENABLED };

		aml_bytes(&a, &lapic, sizeof(lapic));
	}
	aml_bytes(&a, &ioapic, sizeof(ioapic));
	aml_bytes(&a, &timer, sizeof(timer));
	aml_bytes(&a, &sci, sizeof(sci));
	aml_bytes(&a, &nmi, sizeof(nmi));
	return a.overflow ? 0 : table_place(b, table, a.size);
}

static gpa_t mcfg_place(struct builder *b)
{
	struct {
		struct header header;
		u64 reserved;
		u64 base;
		u16 segment;
		u8 first_bus, last_bus;
		u32 reserved2;
	} PACKED m = { .header = header_make("MCFG", 1, sizeof(m)), .base = PCI_ECAM_START };

	return table_place(b, &m, sizeof(m));
}

static gpa_t xsdt_place(struct builder *b, gpa_t fadt, gpa_t madt, gpa_t mcfg)
{
	struct {
		struct header header;
		u64 tables[3];
	} PACKED x = { header_make("XSDT", 1, sizeof(x)), { fadt, madt, mcfg } };

	return table_place(b, &x, sizeof(x));
}

static void rsdp_write(struct builder *b, gpa_t xsdt)
{
	struct rsdp r = { .signature = { 'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ' },
			  .revision = 2,
			  .length = sizeof(r),
			  .xsdt = xsdt };

	memcpy(r.oem_id, OEM_ID, 6);
	r.checksum = checksum(&r, 20);
	r.extended_checksum = checksum(&r, sizeof(r));
	memcpy(b->out, &r, sizeof(r));
}

size_t acpi_build(void *out, size_t room, gpa_t base, unsigned cpus)
{
	struct builder b = { out, sizeof(struct rsdp), room, base };
	gpa_t facs, dsdt, fadt, madt, mcfg, xsdt;

	if (room < sizeof(struct rsdp) || cpus == 0 || cpus > 254)
		return 0;
	facs = facs_place(&b);
	dsdt = dsdt_place(&b);
	fadt = fadt_place(&b, facs, dsdt);
	madt = madt_place(&b, cpus);
	mcfg = mcfg_place(&b);
	xsdt = xsdt_place(&b, fadt, madt, mcfg);
	if (!facs || !dsdt || !fadt || !madt || !mcfg || !xsdt)
		return 0;
	rsdp_write(&b, xsdt);
	return b.size;
}
