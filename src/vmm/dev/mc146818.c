/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* MC146818 real-time clock with the CMOS memory of a PC. */
/*
 * DIFFERS: the clock has no alarm, periodic or update interrupt (IRQ 8 stays silent), and an update
 * takes no time, so UIP is never set.
 */
#include "vmm/dev/mc146818.h"

#include <string.h>
#include <time.h>

enum { SECONDS, MINUTES = 2, HOURS = 4, WEEKDAY = 6, DAY, MONTH, YEAR, REG_A, REG_B, REG_C, REG_D };
enum { CENTURY = 0x32, NMI_DISABLE = 0x80 };

#define REG_A_RESET 0x26 /* 32.768 kHz, 1024 Hz */
#define REG_A_UIP   0x80
#define REG_B_SET   0x80 /* the guest sets the time */
#define REG_B_DM    0x04 /* binary, not BCD */
#define REG_B_24H   0x02
#define REG_D_VRT   0x80
#define HOUR_PM	    0x80

s64 mc146818_host_time(void)
{
	return (s64)time(NULL);
}

static u8 encode(const struct mc146818 *rtc, int value)
{
	if (rtc->cmos[REG_B] & REG_B_DM)
		return (u8)value;
	return (u8)(value / 10 << 4 | value % 10);
}

static int decode(const struct mc146818 *rtc, u8 value)
{
	if (rtc->cmos[REG_B] & REG_B_DM)
		return value;
	return (value >> 4) * 10 + (value & 0x0f);
}

static u8 encode_hour(const struct mc146818 *rtc, int hour)
{
	if (rtc->cmos[REG_B] & REG_B_24H)
		return encode(rtc, hour);
	return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static int decode_hour(const struct mc146818 *rtc, u8 value)
{
	if (rtc->cmos[REG_B] & REG_B_24H)
		return decode(rtc, value);
	return decode(rtc, value & ~HOUR_PM) % 12 + (value & HOUR_PM ? 12 : 0);
}

/* The time registers show the clock, unless the guest has stopped it to set them. */
static void clock_show(struct mc146818 *rtc)
{
	const time_t t = (time_t)(rtc->now() + rtc->offset);
	struct tm tm;
	int year;

	if (rtc->cmos[REG_B] & REG_B_SET || !gmtime_r(&t, &tm))
		return;
	rtc->cmos[SECONDS] = encode(rtc, tm.tm_sec);
	rtc->cmos[MINUTES] = encode(rtc, tm.tm_min);
	rtc->cmos[HOURS] = encode_hour(rtc, tm.tm_hour);
	rtc->cmos[WEEKDAY] = encode(rtc, tm.tm_wday + 1);
	rtc->cmos[DAY] = encode(rtc, tm.tm_mday);
	rtc->cmos[MONTH] = encode(rtc, tm.tm_mon + 1);
	/* A guest may have set nonsense, also before the year 0. */
	year = ((1900 + tm.tm_year) % 10000 + 10000) % 10000;
	rtc->cmos[YEAR] = encode(rtc, year % 100);
	rtc->cmos[CENTURY] = encode(rtc, year / 100);
}

static void clock_set(struct mc146818 *rtc)
{
	struct tm tm = {
		.tm_sec = decode(rtc, rtc->cmos[SECONDS]),
		.tm_min = decode(rtc, rtc->cmos[MINUTES]),
		.tm_hour = decode_hour(rtc, rtc->cmos[HOURS]),
		.tm_mday = decode(rtc, rtc->cmos[DAY]),
		.tm_mon = decode(rtc, rtc->cmos[MONTH]) - 1,
		.tm_year =
			(decode(rtc, rtc->cmos[CENTURY]) - 19) * 100 + decode(rtc, rtc->cmos[YEAR]),
	};

	rtc->offset = (s64)timegm(&tm) - rtc->now();
}

static bool is_time(u8 index)
{
	return (index <= YEAR && index != 1 && index != 3 && index != 5) || index == CENTURY;
}

static void data_write(struct mc146818 *rtc, u8 value)
{
	const u8 index = rtc->index;
	const u8 old_b = rtc->cmos[REG_B];

	if (index == REG_C || index == REG_D)
		return;
	clock_show(rtc);
	rtc->cmos[index] = index == REG_A ? value & ~REG_A_UIP : value;
	if (index == REG_B && old_b & REG_B_SET && !(value & REG_B_SET))
		clock_set(rtc);
	else if (is_time(index) && !(old_b & REG_B_SET))
		clock_set(rtc);
}

static u32 mc146818_read(void *self, u16 offset, unsigned size)
{
	struct mc146818 *rtc = self;

	(void)size;
	if (offset == 0)
		return 0xff; /* the index is write-only */
	if (is_time(rtc->index))
		clock_show(rtc);
	return rtc->cmos[rtc->index];
}

static void mc146818_write(void *self, u16 offset, unsigned size, u32 value)
{
	struct mc146818 *rtc = self;

	(void)size;
	if (offset == 0)
		rtc->index = value & ~NMI_DISABLE & (MC146818_BYTES - 1);
	else
		data_write(rtc, (u8)value);
}

/* The places where a PC's firmware leaves the memory sizes, saturating. */
static void memory_store(struct mc146818 *rtc)
{
	const u64 mib = 1 << 20;
	const u64 above_1m = rtc->low > mib ? (rtc->low - mib) >> 10 : 0;
	const u64 above_16m = rtc->low > 16 * mib ? (rtc->low - 16 * mib) >> 16 : 0;
	const u64 above_4g = rtc->high >> 16;
	const u16 ext_kib = above_1m > 0xffff ? 0xffff : (u16)above_1m;
	const u16 ext_64k = above_16m > 0xffff ? 0xffff : (u16)above_16m;

	rtc->cmos[0x15] = 640 & 0xff;
	rtc->cmos[0x16] = 640 >> 8;
	rtc->cmos[0x17] = rtc->cmos[0x30] = ext_kib & 0xff;
	rtc->cmos[0x18] = rtc->cmos[0x31] = ext_kib >> 8;
	rtc->cmos[0x34] = ext_64k & 0xff;
	rtc->cmos[0x35] = ext_64k >> 8;
	for (unsigned i = 0; i < 3; i++)
		rtc->cmos[0x5b + i] = (u8)(above_4g >> (8 * i));
}

/* A battery keeps the time and the memory: reset stops what could interrupt. */
static void mc146818_reset(void *self)
{
	struct mc146818 *rtc = self;

	rtc->index = 0;
	rtc->cmos[REG_B] &= REG_B_DM | REG_B_24H;
	rtc->cmos[REG_C] = 0;
}

static void mc146818_restored(void *self)
{
	struct mc146818 *rtc = self;

	rtc->index %= MC146818_BYTES;
}

static const struct port_window mc146818_windows[] = {
	{ 0x70, 2, IO_1, mc146818_read, mc146818_write },
};

static const struct device_field mc146818_fields[] = {
	DEVICE_FIELD(struct mc146818, index),
	DEVICE_FIELD(struct mc146818, cmos),
	DEVICE_FIELD(struct mc146818, offset),
};

void mc146818_init(struct mc146818 *rtc, u64 low, u64 high, s64 (*now)(void))
{
	memset(rtc, 0, sizeof(*rtc));
	rtc->device = (struct device){
		.name = "mc146818",
		.version = 1,
		.windows = mc146818_windows,
		.window_count = ARRAY_SIZE(mc146818_windows),
		.reset = mc146818_reset,
		.self = rtc,
		.has_lock = false,
		.fields = mc146818_fields,
		.field_count = ARRAY_SIZE(mc146818_fields),
		.restored = mc146818_restored,
	};
	rtc->now = now;
	rtc->low = low;
	rtc->high = high;
	rtc->cmos[REG_A] = REG_A_RESET;
	rtc->cmos[REG_B] = REG_B_24H;
	rtc->cmos[REG_D] = REG_D_VRT;
	memory_store(rtc);
	mc146818_reset(rtc);
}
