/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Hyper-V's hypercalls: TLB flushes, IPIs, events; and what leaves the guest for user space. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "cpu/x86/mode.h"
#include "cpu/x86/raise.h"
#include "cpu/x86/xstate.h"
#include "kvm/kvm.h"

enum { EAX, EBX, ECX, EDX };

enum hv_code {
	HV_FLUSH_SPACE = 0x02,
	HV_FLUSH_LIST = 0x03,
	HV_SPIN_WAIT = 0x08,
	HV_SEND_IPI = 0x0b,
	HV_FLUSH_SPACE_EX = 0x13,
	HV_FLUSH_LIST_EX = 0x14,
	HV_SEND_IPI_EX = 0x15,
	HV_POST_MESSAGE = 0x5c,
	HV_SIGNAL_EVENT = 0x5d,
	HV_POST_DEBUG_DATA = 0x69,
	HV_RETRIEVE_DEBUG_DATA = 0x6a,
	HV_RESET_DEBUG_SESSION = 0x6b,
};

enum hv_status {
	HV_SUCCESS = 0,
	HV_INVALID_CODE = 2,
	HV_INVALID_INPUT = 3,
	HV_INVALID_ALIGNMENT = 4,
	HV_INVALID_PARAMETER = 5,
	HV_ACCESS_DENIED = 6,
	HV_OPERATION_DENIED = 8,
	HV_INVALID_PORT = 17,
	HV_EXIT = 0x10000, /* not a status: user space answers */
};

#define INPUT_RESERVED	 0xf000f000f8000000ull
#define INPUT_FAST	 BIT_ULL(16)
#define INPUT_REPS_SHIFT 32
#define FLUSH_ALL	 BIT_ULL(0)
#define SET_SPARSE	 0
#define SET_ALL		 1
#define BANKS		 64
#define VECTOR_FIRST	 0x10
#define VECTOR_LAST	 0xff
#define MSI_ADDRESS	 0xfee00000ull
#define MSI_ID_SHIFT	 12
#define SYNDBG_CALLS	 BIT(2)
#define FLAG_NUMBER	 0xffff00000000ull

struct hv_call {
	u64 input, in, out; /* with FAST, in and out are parameters themselves */
	u16 code;
	bool fast;
	u16 var; /* words of a variable header */
	u16 reps, rep;
	u64 xmm[12];
};

/* A set of virtual processors. */
struct hv_set {
	u64 valid; /* banks that follow */
	u64 bank[BANKS];
	bool all;
};

bool hv_takes_calls(const struct vcpu *v)
{
	return v->vm->hv.guest_os_id && hv_is_shown(v);
}

static bool debugger_is_shown(const struct vcpu *v)
{
	return hv_cpuid(v, 0x40000082, EAX) & BIT(1);
}

/* The bit of CPUID by which a guest knows that it may make the call. */
static bool is_allowed(const struct vcpu *v, u16 code)
{
	u32 advice = hv_cpuid(v, 0x40000004, EAX), spin = hv_cpuid(v, 0x40000004, EBX);
	u32 features = hv_cpuid(v, 0x40000003, EBX);
	bool larger = advice & BIT(11);

	if (!v->hv.enforce)
		return true;
	switch (code) {
	case HV_SPIN_WAIT:
		return spin && spin != ~0u;
	case HV_POST_MESSAGE:
		return features & BIT(4);
	case HV_SIGNAL_EVENT:
		return features & BIT(5);
	case HV_POST_DEBUG_DATA:
	case HV_RETRIEVE_DEBUG_DATA:
	case HV_RESET_DEBUG_SESSION:
		return !debugger_is_shown(v) || features & BIT(11);
	case HV_FLUSH_LIST_EX:
	case HV_FLUSH_SPACE_EX:
		return larger && advice & BIT(2);
	case HV_FLUSH_LIST:
	case HV_FLUSH_SPACE:
		return advice & BIT(2);
	case HV_SEND_IPI_EX:
		return larger && advice & BIT(10);
	case HV_SEND_IPI:
		return advice & BIT(10);
	default:
		return true;
	}
}

static bool takes_xmm(u16 code)
{
	return code == HV_FLUSH_LIST || code == HV_FLUSH_SPACE || code == HV_FLUSH_LIST_EX ||
	       code == HV_FLUSH_SPACE_EX || code == HV_SEND_IPI_EX;
}

static void call_take(const struct x86_cpu *cpu, struct hv_call *c)
{
	bool sse = xs_get64(cpu, XS_BV) & BIT(1);

	if (x86_is_64(cpu)) {
		c->input = x86_gpr(cpu, RCX);
		c->in = x86_gpr(cpu, RDX);
		c->out = x86_gpr(cpu, R8);
	} else {
		c->input = x86_edx_eax(cpu);
		c->in = x86_gpr(cpu, RBX) << 32 | x86_gpr(cpu, RCX);
		c->out = x86_gpr(cpu, RDI) << 32 | x86_gpr(cpu, RSI);
	}
	c->code = (u16)c->input;
	c->fast = c->input & INPUT_FAST;
	c->var = c->input >> 17 & 0x3ff;
	c->reps = c->input >> INPUT_REPS_SHIFT & 0xfff;
	c->rep = c->input >> 48 & 0xfff;
	for (unsigned i = 0; i < ARRAY_SIZE(c->xmm); i++)
		c->xmm[i] = sse ? xs_get64(cpu, XS_XMM + 8 * i) : 0;
}

/* The words of the parameter block from @first on: in memory, or in registers. */
static int words_take(struct vcpu *v, const struct hv_call *c, unsigned first, u64 *out, unsigned n)
{
	u64 fast[2 + ARRAY_SIZE(c->xmm)];

	if (!c->fast)
		return mem_read(v->vm->mem, 0, c->in + 8ull * first, out, 8ul * n);
	fast[0] = c->in;
	fast[1] = c->out;
	memcpy(fast + 2, c->xmm, sizeof(c->xmm));
	if (first + n > ARRAY_SIZE(fast))
		return -EFAULT;
	memcpy(out, fast + first, 8ul * n);
	return 0;
}

/* The variable part of a set, which begins at word @first. */
static int set_take(struct vcpu *v, const struct hv_call *c, unsigned first, struct hv_set *s)
{
	u64 words[BANKS];
	unsigned k = 0;

	if (c->var > BANKS || words_take(v, c, first, words, c->var))
		return -EFAULT;
	memset(s->bank, 0, sizeof(s->bank));
	for (unsigned i = 0; i < BANKS; i++) {
		if (s->valid >> i & 1)
			s->bank[i] = words[k++];
	}
	return 0;
}

static bool set_has(const struct hv_set *s, u32 vp)
{
	return s->all || (vp / 64 < BANKS && s->bank[vp / 64] >> (vp % 64) & 1);
}

/* Address spaces are not looked at: everybody's translations go before the guest's next instruction. */
static u64 flush(struct vcpu *v, const struct hv_call *c)
{
	bool larger = c->code == HV_FLUSH_SPACE_EX || c->code == HV_FLUSH_LIST_EX;
	bool list = c->code == HV_FLUSH_LIST || c->code == HV_FLUSH_LIST_EX;
	struct hv_set s = { 0 };
	u64 w[4]; /* address space, flags, mask; or valid banks, format */

	if ((!larger && c->var) || (list ? !c->reps || c->rep : c->reps || c->rep))
		return HV_INVALID_INPUT;
	if (words_take(v, c, 0, w, larger ? 4 : 3))
		return HV_INVALID_INPUT;
	if (larger && c->var != __builtin_popcountll(w[2]))
		return HV_INVALID_INPUT;
	s.valid = larger ? w[2] : 1;
	if (larger && w[3] == SET_SPARSE && c->var && set_take(v, c, 4, &s))
		return HV_INVALID_INPUT;
	if (!larger || w[3] != SET_SPARSE || c->var) {
		v->hv.wants |= HV_WANT_FLUSH;
		v->cpu->kick = 1;
	}
	return HV_SUCCESS | (u64)c->reps << INPUT_REPS_SHIFT;
}

static void ipi_send(struct vcpu *v, const struct hv_set *s, u32 vector)
{
	struct vm *vm = v->vm;

	for (unsigned i = 0, n = vm_vcpus(vm); i < n; i++) {
		const struct vcpu *to = vm->vcpu[i];

		if (set_has(s, to->hv.vp_index) && to->id <= 0xfe)
			irqchip_msi(vm->irqchip, MSI_ADDRESS | (u64)to->id << MSI_ID_SHIFT, vector);
	}
}

static u64 send_ipi(struct vcpu *v, const struct hv_call *c)
{
	bool larger = c->code == HV_SEND_IPI_EX;
	struct hv_set s = { .valid = 1 };
	u64 w[3]; /* vector, mask; or format, valid banks */
	u32 vector;

	if ((!larger && c->var) || c->reps || c->rep || !v->lapic)
		return HV_INVALID_INPUT;
	if (words_take(v, c, 0, w, larger ? 3 : 2) || (!larger && c->fast && w[0] >> 32))
		return HV_INVALID_INPUT;
	vector = (u32)w[0];
	s.bank[0] = w[1];
	if (larger) {
		s.valid = w[2];
		s.bank[0] = 0;
		s.all = w[1] == SET_ALL;
		if (c->var != __builtin_popcountll(s.valid))
			return HV_INVALID_INPUT;
		if (!s.all && !c->var)
			return HV_SUCCESS;
		if (!s.all && set_take(v, c, 3, &s))
			return HV_INVALID_INPUT;
	}
	if (vector < VECTOR_FIRST || vector > VECTOR_LAST)
		return HV_INVALID_INPUT;
	ipi_send(v, &s, vector);
	return HV_SUCCESS;
}

static bool port_signal(struct vm *vm, u64 conn)
{
	u64 one = 1;
	bool found = false;

	pthread_mutex_lock(&vm->clock_lock);
	for (unsigned i = 0; !found && i < vm->hv.nports; i++) {
		struct pollfd p = { .fd = vm->hv.port[i].fd, .events = POLLOUT };

		found = vm->hv.port[i].conn_id == conn;
		/* A counter that is full is signalled already. */
		if (found && poll(&p, 1, 0) > 0 && write(p.fd, &one, sizeof(one)) < 0)
			found = false;
	}
	pthread_mutex_unlock(&vm->clock_lock);
	return found;
}

static u64 signal_event(struct vcpu *v, const struct hv_call *c)
{
	u64 conn = c->in;

	if (!c->fast && (c->in & 7 || mem_read(v->vm->mem, 0, c->in, &conn, sizeof(conn))))
		return HV_INVALID_ALIGNMENT;
	if (conn & FLAG_NUMBER)
		return HV_INVALID_PORT;
	if (conn & ~(u64)KVM_HYPERV_CONN_ID_MASK)
		return HV_INVALID_INPUT;
	return port_signal(v->vm, conn) ? HV_SUCCESS : HV_INVALID_PORT;
}

static u64 to_user(struct vcpu *v, const struct hv_call *c)
{
	struct kvm_hyperv_exit *e = &v->run->hyperv;

	memset(e, 0, sizeof(*e));
	e->type = KVM_EXIT_HYPERV_HCALL;
	e->u.hcall.input = c->input;
	e->u.hcall.params[0] = c->in;
	e->u.hcall.params[1] = c->out;
	return HV_EXIT;
}

static u64 message(struct vcpu *v, const struct hv_call *c)
{
	u64 r;

	if (c->reps || c->rep || c->var)
		return HV_INVALID_INPUT;
	if (c->code == HV_SIGNAL_EVENT) {
		r = signal_event(v, c);
		if (r != HV_INVALID_PORT)
			return r;
	}
	return v->hv.active ? to_user(v, c) : HV_INVALID_INPUT;
}

static u64 debug_call(struct vcpu *v, const struct hv_call *c)
{
	if (c->code != HV_RESET_DEBUG_SESSION && c->fast)
		return HV_INVALID_PARAMETER;
	if (!debugger_is_shown(v))
		return HV_INVALID_CODE;
	return v->vm->hv.syndbg[5] & SYNDBG_CALLS ? to_user(v, c) : HV_OPERATION_DENIED;
}

static u64 run(struct vcpu *v, const struct hv_call *c)
{
	switch (c->code) {
	case HV_SPIN_WAIT:
		if (c->reps || c->rep || c->var)
			return HV_INVALID_INPUT;
		sched_yield();
		return HV_SUCCESS;
	case HV_SIGNAL_EVENT:
	case HV_POST_MESSAGE:
		return message(v, c);
	case HV_FLUSH_SPACE:
	case HV_FLUSH_LIST:
	case HV_FLUSH_SPACE_EX:
	case HV_FLUSH_LIST_EX:
		return flush(v, c);
	case HV_SEND_IPI:
	case HV_SEND_IPI_EX:
		return send_ipi(v, c);
	case HV_POST_DEBUG_DATA:
	case HV_RETRIEVE_DEBUG_DATA:
	case HV_RESET_DEBUG_SESSION:
		return debug_call(v, c);
	default:
		return HV_INVALID_CODE;
	}
}

enum x86_status hv_hypercall(struct vcpu *v, u64 *result)
{
	struct x86_cpu *cpu = v->cpu;
	struct hv_call c;

	if (cpu->cpl || !(cpu->cr0 & CR0_PE))
		return x86_raise_ud(cpu);
	call_take(cpu, &c);
	if (!is_allowed(v, c.code)) {
		*result = HV_ACCESS_DENIED;
	} else if (c.input & INPUT_RESERVED) {
		*result = HV_INVALID_INPUT;
	} else if (c.fast && takes_xmm(c.code) && v->hv.enforce &&
		   !(hv_cpuid(v, 0x40000003, EDX) & BIT(4))) {
		return x86_raise_ud(cpu);
	} else {
		*result = run(v, &c);
	}
	if (*result == HV_EXIT) {
		cpu->exit =
			(struct x86_exit){ .reason = X86_EXIT_HYPERCALL, .port = KVM_EXIT_HYPERV };
		return X86_EXIT;
	}
	if (!x86_is_64(cpu))
		x86_gpr_write(cpu, RDX, *result >> 32, 4);
	return X86_OK;
}

bool hv_wants(const struct vcpu *v)
{
	return v->hv.wants || (v->hv.active && hv_timer_waits(v));
}

static long system_event(struct vcpu *v, u32 type)
{
	v->run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
	v->run->system_event.type = type;
	v->run->system_event.ndata = 0;
	return 0;
}

long hv_serve(struct vcpu *v)
{
	u32 wants = v->hv.wants;

	v->hv.wants = 0;
	if (wants & HV_WANT_FLUSH)
		engine_flush_all(v->vm->engine);
	if (v->hv.active)
		hv_timers_run(v);
	if (wants & HV_WANT_CRASH)
		return system_event(v, KVM_SYSTEM_EVENT_CRASH);
	if (wants & HV_WANT_RESET)
		return system_event(v, KVM_SYSTEM_EVENT_RESET);
	if (wants & HV_WANT_EXIT) {
		v->run->exit_reason = KVM_EXIT_HYPERV;
		v->run->hyperv = v->hv.exit;
		return 0;
	}
	return 1;
}

static long port_add(struct hv_vm *hv, u32 conn, int fd)
{
	int own;

	for (unsigned i = 0; i < hv->nports; i++) {
		if (hv->port[i].conn_id == conn)
			return -EEXIST;
	}
	if (hv->nports == HV_PORTS_MAX)
		return -ENOSPC;
	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return -EBADF;
	hv->port[hv->nports++] = (struct hv_port){ conn, own };
	return 0;
}

static long port_drop(struct hv_vm *hv, u32 conn)
{
	for (unsigned i = 0; i < hv->nports; i++) {
		if (hv->port[i].conn_id != conn)
			continue;
		close(hv->port[i].fd);
		hv->port[i] = hv->port[--hv->nports];
		return 0;
	}
	return -ENOENT;
}

/* KVM_HYPERV_EVENTFD. DIFFERS: at most 64 connections, and that the descriptor is an eventfd is not checked. */
long hv_eventfd(struct call *c)
{
	const struct kvm_hyperv_eventfd *e = c->data;
	long r;

	if (e->flags & ~(u32)KVM_HYPERV_EVENTFD_DEASSIGN || e->conn_id & ~KVM_HYPERV_CONN_ID_MASK)
		return -EINVAL;
	pthread_mutex_lock(&c->vm->clock_lock);
	r = e->flags & KVM_HYPERV_EVENTFD_DEASSIGN ? port_drop(&c->vm->hv, e->conn_id)
						   : port_add(&c->vm->hv, e->conn_id, e->fd);
	pthread_mutex_unlock(&c->vm->clock_lock);
	return r;
}

void hv_vm_destroy(struct vm *vm)
{
	for (unsigned i = 0; i < vm->hv.nports; i++)
		close(vm->hv.port[i].fd);
}
