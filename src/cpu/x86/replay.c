/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Accesses to devices, restartable: what was answered is remembered until the instruction is complete. */
#include "cpu/x86/access.h"
#include "cpu/x86/debug.h"

#define SUBERROR_EMULATION 1 /* KVM_INTERNAL_ERROR_EMULATION */

struct device_access {
	gpa_t addr;
	u8 size;
	bool is_write, is_io;
};

static void data_copy(void *dst, const void *src, unsigned size)
{
	u8 *d = dst;
	const u8 *s = src;
	unsigned i;

	for (i = 0; i < size; i++)
		d[i] = s[i];
}

/* Take over user space's answer to the exit that was handed out last. */
static void answer_take(struct x86_cpu *cpu)
{
	struct x86_replay *r = &cpu->replay;

	if (!r->waiting)
		return;
	r->waiting = false;
	if (!r->frag[r->n].is_write)
		data_copy(r->frag[r->n].data, cpu->exit.data, sizeof(cpu->exit.data));
	r->n++;
}

/* The next remembered fragment, when it is this access. */
static bool fragment_match(struct x86_replay *r, const struct device_access *a)
{
	if (r->next >= r->n)
		return false;
	if (r->frag[r->next].addr == a->addr && r->frag[r->next].size == a->size &&
	    r->frag[r->next].is_write == a->is_write && r->frag[r->next].is_io == a->is_io)
		return true;
	/* Another processor changed the operand's address or mapping meanwhile: the rest is void. */
	r->n = r->next;
	return false;
}

static int platform_ask(struct x86_cpu *cpu, const struct device_access *a, void *data)
{
	const struct x86_platform *p = cpu->platform;

	if (!p)
		return 1;
	if (a->is_io)
		return p->io ? p->io(cpu->owner, (u16)a->addr, data, a->size, a->is_write) : 1;
	return p->mmio ? p->mmio(cpu->owner, a->addr, data, a->size, a->is_write) : 1;
}

static enum x86_status exit_hand_out(struct x86_cpu *cpu, const struct device_access *a,
				     const void *data)
{
	struct x86_exit *e = &cpu->exit;

	*e = (struct x86_exit){
		.reason = a->is_io ? X86_EXIT_IO : X86_EXIT_MMIO,
		.is_write = a->is_write,
		.size = a->size,
		.count = 1,
		.port = a->is_io ? (u16)a->addr : 0,
		.gpa = a->is_io ? 0 : a->addr,
	};
	if (a->is_write)
		data_copy(e->data, data, a->size);
	cpu->replay.waiting = true;
	x86_replay_restart(cpu);
	return X86_EXIT;
}

static enum x86_status device_access(struct x86_cpu *cpu, const struct device_access *a, void *data)
{
	struct x86_replay *r = &cpu->replay;

	if (!cpu->full)
		return X86_FULL;
	answer_take(cpu);
	if (fragment_match(r, a)) {
		if (!a->is_write)
			data_copy(data, r->frag[r->next].data, a->size);
		r->next++;
		return X86_OK;
	}
	if (r->n == X86_REPLAY_MAX) {
		cpu->exit = (struct x86_exit){
			.reason = X86_EXIT_INTERNAL,
			.error = SUBERROR_EMULATION,
			.gpa = a->addr,
		};
		x86_replay_restart(cpu);
		return X86_EXIT;
	}
	r->frag[r->n].addr = a->addr;
	r->frag[r->n].size = a->size;
	r->frag[r->n].is_write = a->is_write;
	r->frag[r->n].is_io = a->is_io;
	if (platform_ask(cpu, a, data))
		return exit_hand_out(cpu, a, data);
	if (!a->is_write)
		data_copy(r->frag[r->n].data, data, a->size);
	r->next = ++r->n;
	return X86_OK;
}

enum x86_status x86_mmio(struct x86_cpu *cpu, gpa_t gpa, void *data, unsigned size, bool is_write)
{
	unsigned done;

	/* As KVM: eight bytes at a time, counted from where the operand begins in the page. */
	for (done = 0; done < size; done += 8) {
		struct device_access a = {
			.addr = gpa + done,
			.size = size - done < 8 ? size - done : 8,
			.is_write = is_write,
		};
		enum x86_status st = device_access(cpu, &a, (u8 *)data + done);

		if (st)
			return st;
	}
	return X86_OK;
}

enum x86_status x86_io(struct x86_cpu *cpu, u16 port, void *data, unsigned size, bool is_write)
{
	struct device_access a = {
		.addr = port, .size = size, .is_write = is_write, .is_io = true
	};

	if (unlikely(x86_dr7(cpu) & DR7_ENABLES))
		x86_watch_note_io(cpu, port, size);
	return device_access(cpu, &a, data);
}
