/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* kvmclock: guest time, and the structures in guest memory that carry it. */
#include "virt/pvclock.h"

#include <errno.h>
#include <time.h>

#define PVCLOCK_TSC_STABLE    BIT(0)
#define PVCLOCK_GUEST_STOPPED BIT(1)
#define MSR_ENABLED	      1ull
#define NSEC_PER_SEC	      1000000000ull

/* The line may be off by as much before a new one is drawn. */
#define DRIFT_MAX_NS 1000000ull

/* Layouts of the ABI. */
struct time_info {
	u32 version;
	u32 pad0;
	u64 tsc_timestamp;
	u64 system_time;
	u32 tsc_to_system_mul;
	s8 tsc_shift;
	u8 flags;
	u8 pad[2];
};
_Static_assert(sizeof(struct time_info) == 32, "pvclock_vcpu_time_info");

struct wall_clock {
	u32 version, sec, nsec;
};
_Static_assert(sizeof(struct wall_clock) == 12, "pvclock_wall_clock");

static u64 clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (u64)ts.tv_sec * NSEC_PER_SEC + (u64)ts.tv_nsec;
}

u64 pvclock_now(const struct pvclock_vm *vm)
{
	return clock_ns(CLOCK_MONOTONIC_RAW) + (u64)vm->offset_ns;
}

void pvclock_set(struct pvclock_vm *vm, u64 guest_ns)
{
	vm->offset_ns = (s64)(guest_ns - clock_ns(CLOCK_MONOTONIC_RAW));
	vm->line_khz = 0;
}

/* Bring the frequency to 1-2 GHz by shifts: then the multiplier uses all of its 32 bits. */
void pvclock_scale(u32 tsc_khz, u32 *mult, s8 *shift)
{
	u128 hz = (u128)tsc_khz * 1000, one = (u128)NSEC_PER_SEC << 32;
	int s = 0;

	while (hz << s <= NSEC_PER_SEC)
		s++;
	while (s <= 0 && hz > (u128)(2 * NSEC_PER_SEC) << -s)
		s--;
	*mult = (u32)(s < 0 ? (one << -s) / hz : one / (hz << s));
	*shift = (s8)s;
}

static u64 scale_tsc(u64 tsc, u32 khz)
{
	u32 mult;
	s8 shift;

	pvclock_scale(khz, &mult, &shift);
	tsc = shift < 0 ? tsc >> -shift : tsc << shift;
	return (u64)((u128)tsc * mult >> 32);
}

static void line_update(struct pvclock_vm *vm, u64 tsc, u32 khz)
{
	u64 now = pvclock_now(vm), on_line;

	if (vm->line_khz == khz && tsc >= vm->line_tsc) {
		on_line = vm->line_ns + scale_tsc(tsc - vm->line_tsc, khz);
		if (on_line - now + DRIFT_MAX_NS <= 2 * DRIFT_MAX_NS)
			return;
	}
	vm->line_tsc = tsc;
	vm->line_ns = now;
	vm->line_khz = khz;
}

/* An update is announced by an odd version and ended by an even one. */
static u32 version_odd(u32 version)
{
	return version + 1 + (version & 1);
}

u64 pvclock_boot(const struct pvclock_vm *vm)
{
	return clock_ns(CLOCK_REALTIME) - pvclock_now(vm);
}

int pvclock_write_wall(const struct pvclock_vm *vm, struct mem *mem, gpa_t gpa)
{
	struct wall_clock w;
	u64 boot;
	int err;

	err = mem_read(mem, 0, gpa, &w.version, sizeof(w.version));
	if (err)
		return err;
	boot = pvclock_boot(vm);
	w.version = version_odd(w.version);
	w.sec = (u32)(boot / NSEC_PER_SEC);
	w.nsec = (u32)(boot % NSEC_PER_SEC);
	err = mem_write(mem, 0, gpa, &w.version, sizeof(w.version));
	if (!err)
		err = mem_write(mem, 0, gpa, &w, sizeof(w));
	w.version++;
	if (!err)
		err = mem_write(mem, 0, gpa, &w.version, sizeof(w.version));
	return err;
}

int pvclock_write_time(struct pvclock_vm *vm, struct pvclock_vcpu *v, struct mem *mem, u64 tsc,
		       u32 tsc_khz, bool guest_paused)
{
	gpa_t gpa = v->msr & ~MSR_ENABLED;
	struct time_info old, t = { 0 };
	int err;

	if (!(v->msr & MSR_ENABLED))
		return 0;
	if (!tsc_khz)
		return -EINVAL;
	err = mem_read(mem, 0, gpa, &old, sizeof(old));
	if (err)
		return err;
	line_update(vm, tsc - v->tsc_ahead, tsc_khz);
	t.version = version_odd(old.version);
	t.tsc_timestamp = vm->line_tsc + v->tsc_ahead;
	t.system_time = vm->line_ns;
	pvclock_scale(tsc_khz, &t.tsc_to_system_mul, &t.tsc_shift);
	t.flags = PVCLOCK_TSC_STABLE | (old.flags & PVCLOCK_GUEST_STOPPED);
	if (guest_paused)
		t.flags |= PVCLOCK_GUEST_STOPPED;
	err = mem_write(mem, 0, gpa, &t.version, sizeof(t.version));
	if (!err)
		err = mem_write(mem, 0, gpa, &t, sizeof(t));
	t.version++;
	if (!err)
		err = mem_write(mem, 0, gpa, &t.version, sizeof(t.version));
	v->version = t.version;
	return err;
}
