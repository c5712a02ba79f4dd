/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory and breakpoints of a machine that stands. */
#include "vmm/gdb/target.h"

#include <errno.h>
#include <string.h>

#define INT3 0xcc

int gdb_memory(const struct control_machine *m, unsigned cpu, u64 at, void *data, size_t n,
	       bool is_write)
{
	u8 *bytes = data;

	while (n) {
		struct kvm_translation t = { .linear_address = at };
		const size_t rest = (size_t)(PAGE_SIZE - at % PAGE_SIZE);
		const size_t part = n < rest ? n : rest;
		u8 *host;

		if (kvmdev_ioctl_ptr(m->dev, m->cpus[cpu]->fd, KVM_TRANSLATE, &t) < 0 || !t.valid)
			return -EFAULT;
		host = ram_at(m->ram, t.physical_address, part);
		if (!host)
			return -EFAULT;
		memcpy(is_write ? host : bytes, is_write ? bytes : host, part);
		if (is_write)
			ram_mark(m->ram, host, part);
		bytes += part;
		at += part;
		n -= part;
	}
	return 0;
}

static struct gdb_breakpoint *find(struct gdb_breakpoint *list, unsigned count, u64 at, u8 kind)
{
	for (unsigned i = 0; i < count; i++)
		if (list[i].size && list[i].at == at && list[i].kind == kind)
			return &list[i];
	return NULL;
}

static struct gdb_breakpoint *room(struct gdb_breakpoint *list, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!list[i].size)
			return &list[i];
	return NULL;
}

static int soft_add(struct gdb_breakpoints *b, const struct control_machine *m, unsigned cpu,
		    u64 at)
{
	struct gdb_breakpoint *p = room(b->soft, GDB_SOFT_MAX);
	u8 trap = INT3, saved;
	int r;

	if (find(b->soft, GDB_SOFT_MAX, at, GDB_SOFT))
		return 0;
	if (!p)
		return -ENOSPC;
	r = gdb_memory(m, cpu, at, &saved, 1, false);
	if (r == 0)
		r = gdb_memory(m, cpu, at, &trap, 1, true);
	if (r == 0)
		*p = (struct gdb_breakpoint){ at, 1, GDB_SOFT, saved };
	return r;
}

int gdb_break_add(struct gdb_breakpoints *b, const struct control_machine *m, unsigned cpu, u8 kind,
		  u64 at, u64 size)
{
	struct gdb_breakpoint *p = room(b->hard, GDB_HARD_MAX);

	if (kind == GDB_SOFT)
		return soft_add(b, m, cpu, at);
	if (kind == GDB_HARD)
		size = 1;
	if (kind >= GDB_KINDS || (size != 1 && size != 2 && size != 4 && size != 8) || at % size)
		return -EINVAL;
	if (find(b->hard, GDB_HARD_MAX, at, kind))
		return 0;
	if (!p)
		return -ENOSPC;
	*p = (struct gdb_breakpoint){ at, (u32)size, kind, 0 };
	return 0;
}

/* A byte that the guest has changed meanwhile stays as the guest wants it. */
static int soft_remove(struct gdb_breakpoint *p, const struct control_machine *m, unsigned cpu)
{
	u8 now;
	int r = gdb_memory(m, cpu, p->at, &now, 1, false);

	p->size = 0;
	return r == 0 && now == INT3 ? gdb_memory(m, cpu, p->at, &p->saved, 1, true) : r;
}

int gdb_break_remove(struct gdb_breakpoints *b, const struct control_machine *m, unsigned cpu,
		     u8 kind, u64 at)
{
	struct gdb_breakpoint *p = kind == GDB_SOFT ? find(b->soft, GDB_SOFT_MAX, at, kind)
						    : find(b->hard, GDB_HARD_MAX, at, kind);

	if (!p)
		return -ENOENT;
	if (kind == GDB_SOFT)
		return soft_remove(p, m, cpu);
	p->size = 0;
	return 0;
}

void gdb_breaks_clear(struct gdb_breakpoints *b, const struct control_machine *m, unsigned cpu)
{
	for (unsigned i = 0; i < GDB_SOFT_MAX; i++)
		if (b->soft[i].size && m)
			soft_remove(&b->soft[i], m, cpu);
	memset(b, 0, sizeof(*b));
}

bool gdb_is_soft(const struct gdb_breakpoints *b, u64 at)
{
	for (unsigned i = 0; i < GDB_SOFT_MAX; i++)
		if (b->soft[i].size && b->soft[i].at == at)
			return true;
	return false;
}

/* DR7: an enable bit, what it watches, and its length, for each. A watch of reads is one of both: no processor has the former. */
static bool hard_set(const struct gdb_breakpoints *b, struct kvm_guest_debug *d)
{
	static const u8 what[GDB_KINDS] = { [GDB_WRITE] = 1, [GDB_READ] = 3, [GDB_ACCESS] = 3 };
	static const u8 length[9] = { [1] = 0, [2] = 1, [4] = 3, [8] = 2 };
	bool any = false;

	d->arch.debugreg[7] = 0x400;
	for (unsigned i = 0; i < GDB_HARD_MAX; i++) {
		const struct gdb_breakpoint *p = &b->hard[i];

		if (!p->size)
			continue;
		any = true;
		d->arch.debugreg[i] = p->at;
		d->arch.debugreg[7] |= 2ull << 2 * i | (u64)what[p->kind] << (16 + 4 * i) |
				       (u64)length[p->size] << (18 + 4 * i);
	}
	return any;
}

int gdb_debug_set(const struct gdb_breakpoints *b, const struct control_machine *m, unsigned cpu,
		  enum gdb_run how)
{
	struct kvm_guest_debug d = { .control = 0 };
	int r;

	if (how != GDB_FREE)
		d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
	if (how != GDB_FREE && hard_set(b, &d))
		d.control |= KVM_GUESTDBG_USE_HW_BP;
	if (how == GDB_STEP)
		d.control |= KVM_GUESTDBG_SINGLESTEP;
	if (how == GDB_STEP &&
	    kvmdev_ioctl(m->dev, m->dev->fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2) &
		    KVM_GUESTDBG_BLOCKIRQ)
		d.control |= KVM_GUESTDBG_BLOCKIRQ;
	if (how == GDB_INJECT)
		d.control |= KVM_GUESTDBG_INJECT_BP;
	r = kvmdev_ioctl_ptr(m->dev, m->cpus[cpu]->fd, KVM_SET_GUEST_DEBUG, &d);
	return r < 0 ? r : 0;
}
