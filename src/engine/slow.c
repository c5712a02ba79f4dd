/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The slow paths of translated code: memory misses and helpers. Leaf code. */
#include "base/probe.h"
#include "cpu/x86/align.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/event.h"
#include "cpu/x86/ops.h"
#include "engine/vcpu.h"
#include "mem/dirty.h"

typedef enum x86_status (*op_fn)(struct x86_cpu *cpu, const struct x86_insn *insn);

#define CONTEXT_LEAF false
#define CONTEXT_FULL true
static const struct {
	op_fn fn;
	bool full;
} op_table[X86_OP_COUNT] = {
#define X86_OP(name, context) [X86_OP_##name] = { x86_op_##name, CONTEXT_##context },
#include "cpu/x86/ops.def"
#undef X86_OP
};

static void set_rip(struct engine_vcpu *v, const struct x86_insn *insn)
{
	struct x86_cpu *cpu = &v->cpu;

	cpu->rip = x86_rip_mask(cpu, v->rip_page + insn->page_off);
	cpu->next_rip = x86_rip_mask(cpu, cpu->rip + insn->len);
}

/* The instruction did not happen: nor did its data accesses. A debugger may want the #DB. */
bool engine_debug_fault(struct engine_vcpu *v)
{
	struct x86_cpu *cpu = &v->cpu;

	cpu->watch = 0;
	if (likely(cpu->exc.vector != VEC_DB || !x86_debugger_has_db(cpu)))
		return false;
	x86_debug_exit(cpu, VEC_DB, cpu->exc.has_payload ? cpu->exc.payload : 0);
	v->reason = LEAVE_EXIT;
	return true;
}

/* Deliver cpu.exc; what remains to be done is left in v->reason. */
void engine_fault(struct engine_vcpu *v)
{
	v->stats.faults++;
	v->step = STEP_NONE;
	if (engine_debug_fault(v))
		return;
	switch (x86_deliver_exception(&v->cpu)) {
	case X86_FULL:
		v->reason = LEAVE_FAULT;
		break;
	case X86_EXIT:
		v->reason = LEAVE_EXIT;
		break;
	default:
		break;
	}
}

static bool is_canonical(const struct x86_cpu *cpu, u64 a)
{
	unsigned shift = cpu->cr4 & CR4_LA57 ? 7 : 16;

	return (u64)((s64)(a << shift) >> shift) == a;
}

/* How much of the guest's page around the access is one piece of host memory. */
static u64 range_of(struct engine_vcpu *v, const struct x86_xlate *xl)
{
	const struct slot *s = v->cpu.slot_hint;

	for (u64 span = xl->span; span > PAGE_SIZE;
	     span = span > 2ull << 20 ? 2ull << 20 : PAGE_SIZE) {
		gfn_t first = (xl->gpa & ~(span - 1)) >> PAGE_SHIFT;

		if (s && slot_has(s, xl->gpa >> PAGE_SHIFT) && slot_has(s, first) &&
		    slot_has(s, first + (span >> PAGE_SHIFT) - 1))
			return span;
	}
	return PAGE_SIZE;
}

bool engine_misaligned(struct engine_vcpu *v, const struct x86_insn *insn)
{
	struct x86_cpu *cpu = &v->cpu;
	u64 base = x86_is_64(cpu) && insn->seg != SEG_FS && insn->seg != SEG_GS
			   ? 0
			   : cpu->seg[insn->seg].base;

	if (!insn->align || !((x86_effective(cpu, insn) + base) & (insn->align - 1)))
		return false;
	x86_raise_error(cpu, VEC_GP, 0);
	return true;
}

/*
 * A store beside code: the next ones need no walk, while this vCPU is the only one. Others would have to be told of code
 * that they translate meanwhile; so whoever makes the second asks the first to drop what it may write.
 */
static void beside_fill(struct engine_vcpu *v, gva_t lin, u8 *host, const struct x86_xlate *xl)
{
	struct code_page *p =
		cache_page_find(&v->cache, cache_key(v->cpu.space, xl->gpa & PAGE_MASK));

	if (p && p->live && v->engine->options.beside &&
	    __atomic_load_n(&v->engine->nvcpus, __ATOMIC_RELAXED) == 1)
		tlb_fill_beside(v, lin, host, xl, range_of(v, xl), p);
}

/* A store to a page of code: whether the other stores of its window, which nobody will look at, hit none. */
static bool window_is_free(struct engine_vcpu *v, const struct x86_insn *insn, gva_t lin,
			   const struct x86_xlate *xl)
{
	const struct code_page *p =
		cache_page_find(&v->cache, cache_key(v->cpu.space, xl->gpa & PAGE_MASK));
	unsigned off = (lin - insn->window) & (PAGE_SIZE - 1);

	if (!insn->reach)
		return true;
	return p && __atomic_load_n(&v->engine->nvcpus, __ATOMIC_RELAXED) == 1 &&
	       !cache_has_code(p, off, insn->reach);
}

/*
 * Where a guest's MAXPHYADDR is below the host's, KVM has to emulate what uses the bits between, and its emulator
 * knows neither x87 nor vectors: user space that has enabled KVM_CAP_EXIT_ON_EMULATION_FAILURE gets them.
 */
static bool emulator_lacks(struct engine_vcpu *v, const struct x86_insn *insn)
{
	struct x86_cpu *cpu = &v->cpu;

	if (!insn->vector || cpu->exc.vector != VEC_PF || !(cpu->exc.error & PF_RSVD))
		return false;
	cpu->exit = (struct x86_exit){ .reason = X86_EXIT_INTERNAL };
	v->reason = LEAVE_EXIT;
	return true;
}

/* Linear address to host address for @insn's operand; NULL when the block cannot go on. */
static void *mem_host(struct engine_vcpu *v, const struct x86_insn *insn, gva_t lin)
{
	struct x86_cpu *cpu = &v->cpu;
	bool write = insn->access & INSN_WRITE, tag;
	struct x86_xlate xl;
	void *host;
	enum x86_status st;

	/* Elements that the mask leaves out may be anywhere. */
	if (insn->mask_kind && x86_is_64(cpu) &&
	    !(is_canonical(cpu, lin) && is_canonical(cpu, lin + insn->memsize - 1)))
		goto bounce;
	st = x86_host(cpu, lin, insn->memsize, (write ? ACC_WRITE : ACC_READ) | ACC_UNALIGNED,
		      &host, &tag, &xl);
	if (st == X86_OK && host && v->smc &&
	    ((insn->form <= FORM_CHECKED && v->npending) ||
	     (insn->form == FORM_FAST && engine_smc_is_near(v)))) {
		/* The store hits translated code, perhaps this very block, or others must be told after it: run it alone. */
		v->single = true;
		return NULL;
	}
	if (st == X86_OK && host) {
		PROBE(kvm_page_fault, cpu->rip, xl.gpa, write);
		v->smc = false;
		if (tag && insn->form == FORM_FAST)
			tlb_fill(v, lin, host, write, &xl, range_of(v, &xl));
		else if (write && insn->form == FORM_FAST)
			beside_fill(v, lin, host, &xl);
		if (write && !tag && !window_is_free(v, insn, lin, &xl)) {
			v->narrow = true;
			return NULL;
		}
		return host;
	}
	if (st == X86_FAULT && unlikely(cpu->rsvd_exits) && emulator_lacks(v, insn))
		return NULL;
	if (st == X86_FAULT && !insn->mask_kind) {
		engine_misaligned(v, insn);
		engine_fault(v);
		return NULL;
	}
bounce:
	v->insn = insn;
	v->reason = LEAVE_BOUNCE;
	return NULL;
}

/*
 * The dirty ring is full but for its reserve: nothing is written before user space has made room. The instruction has
 * done nothing yet, unless a device has answered a part of it.
 */
static bool ring_stops(struct engine_vcpu *v)
{
	v->cpu.writer->nopen = 0;
	if (likely(!mem_writer_is_full(v->cpu.writer)) || v->cpu.replay.n)
		return false;
	v->reason = LEAVE_KICK;
	return true;
}

void *engine_mem_slow(struct engine_vcpu *v, const struct x86_insn *insn, gva_t lin)
{
	u8 *host;

	v->stats.mem_slow++;
	set_rip(v, insn); /* also for who leaves after it: see make_call() */
	lin += insn->window;
	if (insn->access & INSN_WRITE &&
	    __atomic_load_n(&v->engine->nvcpus, __ATOMIC_RELAXED) == 1) {
		host = tlb_beside(v, insn, lin);
		if (host)
			return host - insn->window;
	}
	if (insn->access & INSN_WRITE && ring_stops(v))
		return NULL;
	if (!is_canonical(&v->cpu, lin) && !insn->mask_kind) {
		x86_raise_error(&v->cpu, insn->stack || insn->seg == SEG_SS ? VEC_SS : VEC_GP, 0);
		engine_misaligned(v, insn);
		engine_fault(v);
		return NULL;
	}
	host = mem_host(v, insn, lin);
	return host ? host - insn->window : NULL;
}

/* Bytes by which a register bit offset moves the operand of BT, BTS, BTR, BTC. */
static s64 bit_bias(const struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 r = x86_gpr_sized(cpu, insn->reg, insn->opsize);

	switch (insn->opsize) {
	case 2:
		return ((s16)r >> 4) * 2;
	case 4:
		return ((s32)r >> 5) * 4;
	default:
		return ((s64)r >> 6) * 8;
	}
}

enum x86_status engine_linear(struct engine_vcpu *v, const struct x86_insn *insn, gva_t *lin)
{
	u64 ea = x86_effective(&v->cpu, insn);

	if (insn->bit_offset) {
		ea += bit_bias(&v->cpu, insn);
		ea = insn->adsize == 8 ? ea : insn->adsize == 4 ? (u32)ea : (u16)ea;
	}
	if (insn->mask_kind && x86_is_64(&v->cpu)) { /* checked where it is active */
		*lin = ea + (insn->seg == SEG_FS || insn->seg == SEG_GS ? v->cpu.seg[insn->seg].base
									: 0);
		return X86_OK;
	}
	return x86_linear(&v->cpu, insn->seg, ea, insn->memsize,
			  insn->access & INSN_WRITE ? ACC_WRITE : ACC_READ, lin);
}

void *engine_mem_call(struct engine_vcpu *v, const struct x86_insn *insn)
{
	gva_t lin;

	v->stats.mem_calls++;
	set_rip(v, insn);
	if (insn->access & INSN_WRITE && ring_stops(v))
		return NULL;
	if (engine_linear(v, insn, &lin) != X86_OK) {
		engine_misaligned(v, insn);
		engine_fault(v);
		return NULL;
	}
	switch (x86_align_operand(&v->cpu, insn, lin)) {
	case X86_OK:
		return mem_host(v, insn, lin);
	case X86_FULL: /* the mask decides */
		v->insn = insn;
		v->reason = LEAVE_BOUNCE;
		return NULL;
	default:
		engine_fault(v);
		return NULL;
	}
}

/* Most are stepped when TF was set before them. These go by TF as they leave it: INT clears it, SYSRET may set it. */
static void step_after(struct engine_vcpu *v, const struct x86_insn *insn)
{
	switch (insn->op) {
	case X86_OP_int_n:
	case X86_OP_int3:
	case X86_OP_int1:
	case X86_OP_into:
	case X86_OP_syscall:
	case X86_OP_sysret:
		v->step_tf = v->cpu.f.tf;
		if (v->step_tf)
			v->step = STEP_RUNNING;
		break;
	default:
		break;
	}
}

bool engine_commit(struct engine_vcpu *v, const struct x86_insn *insn, enum x86_status status)
{
	switch (status) {
	case X86_OK:
		v->cpu.rip = v->cpu.next_rip;
		if (unlikely(v->step || v->cpu.f.tf))
			step_after(v, insn);
		return true;
	case X86_FAULT:
		engine_fault(v);
		break;
	case X86_FULL:
		v->insn = insn;
		v->reason = LEAVE_FULL;
		break;
	case X86_EXIT:
		if (v->cpu.exit.reason == X86_EXIT_DEBUG) /* it has not run */
			v->step = STEP_NONE;
		v->reason = LEAVE_EXIT;
		break;
	}
	return false;
}

/* Row of the instructions that only raise: .imm is the vector, .imm2 whether no row knows the encoding. */
static enum x86_status op_raise(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 bytes = 0;

	if (!insn->imm2)
		return x86_raise(cpu, insn->imm);
	if (!cpu->full)
		return X86_FULL;
	for (unsigned i = 0; i < insn->len && i < 8; i++)
		bytes = bytes << 8 | insn->bytes[i];
	cpu->unknown_insns++;
	if (cpu->platform && cpu->platform->log)
		cpu->platform->log(cpu->owner, "unknown instruction: bytes, rip", bytes, cpu->rip);
	return x86_raise_ud(cpu);
}

enum x86_status engine_op_call(struct engine_vcpu *v, const struct x86_insn *insn)
{
	if (insn->op == X86_OP_NONE)
		return op_raise(&v->cpu, insn);
	return op_table[insn->op].fn(&v->cpu, insn);
}

u64 engine_op(struct engine_vcpu *v, const struct x86_insn *insn)
{
	struct x86_cpu *cpu = &v->cpu;
	u64 sequel;

	v->stats.ops++;
	v->op_calls[insn->op]++;
	set_rip(v, insn);
	sequel = cpu->next_rip;
	if (ring_stops(v))
		return 0;
	if (op_table[insn->op].full) {
		v->insn = insn;
		v->reason = LEAVE_FULL;
		return 0;
	}
	if (!engine_commit(v, insn, engine_op_call(v, insn)))
		return 0;
	if (x86_flush_wanted(&cpu->flush)) {
		/* The page that runs may be mapped otherwise now: fetch again. */
		tlb_flush(v);
		v->stats.ops_left++;
		return 0;
	}
	if (insn->form != FORM_FAST || cpu->next_rip != sequel || cpu->kick || cpu->request ||
	    cpu->shadow || v->smc || engine_mode_key(v) != v->mode_seen || cpu->f.tf) {
		v->stats.ops_left++;
		return 0;
	}
	tlb_select(v);
	return 1;
}
