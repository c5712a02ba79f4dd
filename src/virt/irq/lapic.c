/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Local APIC as the guest sees it: MMIO page, x2APIC MSRs, APIC base, and the KVM_GET/SET_LAPIC image. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virt/irq/chip.h"

#define LVT_COUNT     6
#define VERSION_VALUE (0x14u | (LVT_COUNT - 1) << 16)
#define X2APIC_MSR    0x800u
#define PAGE_LENGTH   0x1000u

#define LVT_BITS  (APIC_LVT_MASKED | BIT(12) | 0xffu)
#define LINT_BITS (LVT_BITS | APIC_LVT_MODE | BIT(13) | BIT(14) | APIC_LVT_LEVEL)

/* Writable bits of APIC_LVTT + 0x10 * i; the timer's mode bits depend on CPUID. */
static const u32 lvt_bits[LVT_COUNT] = {
	LVT_BITS, LVT_BITS | APIC_LVT_MODE, LVT_BITS | APIC_LVT_MODE, LINT_BITS, LINT_BITS,
	LVT_BITS,
};

#define REG(offset)   (1ull << ((offset) >> 4))
#define REGS8(offset) (0xffull << ((offset) >> 4))
#define READABLE_X2APIC                                                                            \
	(REG(APIC_ID) | REG(APIC_LVR) | REG(APIC_TPR) | REG(APIC_PPR) | REG(APIC_LDR) |            \
	 REG(APIC_SPIV) | REGS8(APIC_ISR) | REGS8(APIC_TMR) | REGS8(APIC_IRR) | REG(APIC_ESR) |    \
	 REG(APIC_ICR) | REG(APIC_LVTT) | REG(APIC_LVTTHMR) | REG(APIC_LVTPC) | REG(APIC_LVT0) |   \
	 REG(APIC_LVT1) | REG(APIC_LVTERR) | REG(APIC_TMICT) | REG(APIC_TMCCT) | REG(APIC_TDCR))
#define READABLE_XAPIC (READABLE_X2APIC | REG(APIC_APR) | REG(APIC_DFR) | REG(APIC_ICR2))

static u32 x2apic_ldr(u32 id)
{
	return (id >> 4) << 16 | BIT(id & 0xf);
}

static void set_xapic_id(struct lapic *l)
{
	lapic_reg_set(l, APIC_ID, l->id << 24);
}

static void set_x2apic_id(struct lapic *l)
{
	lapic_reg_set(l, APIC_ID, l->id);
	lapic_reg_set(l, APIC_LDR, x2apic_ldr(l->id));
}

static void base_apply(struct lapic *l, u64 value)
{
	u64 changed = l->base ^ value;

	__atomic_store_n(&l->base, value, __ATOMIC_RELAXED);
	if (changed & value & APIC_BASE_ENABLE)
		set_xapic_id(l);
	if (changed & APIC_BASE_X2APIC) {
		if (value & APIC_BASE_X2APIC)
			set_x2apic_id(l);
		else if (value & APIC_BASE_ENABLE)
			set_xapic_id(l);
	}
	lapic_refresh(l);
}

static void set_version(struct lapic *l)
{
	lapic_reg_set(l, APIC_LVR, VERSION_VALUE + (l->has_cmci ? 1u << 16 : 0));
	if (l->has_cmci)
		lapic_reg_set(l, APIC_LVTCMCI, APIC_LVT_MASKED);
}

void lapic_cmci_offer(struct lapic *l, bool on)
{
	chip_lock(l->chip);
	if (l->has_cmci != on) {
		l->has_cmci = on;
		set_version(l);
	}
	chip_unlock(l->chip);
}

void lapic_cmci(struct lapic *l)
{
	chip_lock(l->chip);
	lapic_local(l, APIC_LVTCMCI);
	chip_unlock(l->chip);
}

static void reset_registers(struct lapic *l)
{
	set_version(l);
	for (unsigned i = 0; i < LVT_COUNT; i++)
		lapic_reg_set(l, APIC_LVTT + 0x10 * i, APIC_LVT_MASKED);
	if (l->is_bsp && !l->chip->options.no_lint0)
		lapic_reg_set(l, APIC_LVT0, (u32)IRQ_EXTINT << 8); /* virtual wire without a BIOS */
	lapic_reg_set(l, APIC_DFR, 0xffffffff);
	lapic_reg_set(l, APIC_SPIV, 0xff);
	lapic_reg_set(l, APIC_TPR, 0);
	lapic_reg_set(l, APIC_LDR, lapic_is_x2apic(l) ? x2apic_ldr(l->id) : 0);
	lapic_reg_set(l, APIC_ESR, 0);
	lapic_reg_set(l, APIC_ICR, 0);
	lapic_reg_set(l, APIC_ICR2, 0);
	lapic_reg_set(l, APIC_TDCR, 0);
	lapic_reg_set(l, APIC_TMICT, 0);
	for (unsigned i = 0; i < 8; i++) {
		lapic_reg_set(l, APIC_IRR + 0x10 * i, 0);
		lapic_reg_set(l, APIC_ISR + 0x10 * i, 0);
		lapic_reg_set(l, APIC_TMR + 0x10 * i, 0);
	}
}

void lapic_reset(struct lapic *l, bool init)
{
	chip_lock(l->chip);
	if (!init) {
		base_apply(l,
			   APIC_BASE_DEFAULT | APIC_BASE_ENABLE | (l->is_bsp ? APIC_BASE_BSP : 0));
		set_xapic_id(l);
		l->init = l->sipi = false; /* an INIT keeps a SIPI that came after it */
	}
	l->nmi = 0;
	l->smi = false;
	l->pv_eoi = false;
	reset_registers(l);
	lapic_timer_reset(l);
	lapic_refresh(l);
	chip_unlock(l->chip);
}

struct lapic *lapic_create(struct irqchip *chip, unsigned vcpu_index, u32 apic_id, bool is_bsp)
{
	struct lapic *l;
	bool taken;

	if (vcpu_index >= IRQ_MAX_VCPUS)
		return NULL;
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->chip = chip;
	l->index = vcpu_index;
	l->id = apic_id;
	l->is_bsp = is_bsp;
	l->allow_x2apic = l->allow_deadline = true;
	l->phys_bits = 52;
	l->extint = -1;
	if (lapic_timer_init(l)) {
		free(l);
		return NULL;
	}
	lapic_reset(l, false);
	chip_lock(chip);
	taken = chip->lapics[vcpu_index];
	if (!taken) {
		chip->lapics[vcpu_index] = l;
		if (chip->nlapics <= vcpu_index)
			chip->nlapics = vcpu_index + 1;
	}
	chip_unlock(chip);
	if (taken) {
		timer_cancel(&l->timer);
		free(l);
		return NULL;
	}
	return l;
}

void lapic_destroy(struct lapic *l)
{
	if (!l)
		return;
	chip_lock(l->chip);
	l->chip->lapics[l->index] = NULL;
	l->expires = 0; /* fire() must not arm again */
	chip_unlock(l->chip);
	timer_cancel(&l->timer);
	free(l);
}

void lapic_features(struct lapic *l, bool x2apic, bool tsc_deadline, unsigned phys_bits)
{
	chip_lock(l->chip);
	l->allow_x2apic = x2apic;
	l->allow_deadline = tsc_deadline;
	l->phys_bits = (u8)(phys_bits < 32 ? 32 : phys_bits > 52 ? 52 : phys_bits);
	chip_unlock(l->chip);
}

u64 lapic_base_get(const struct lapic *l)
{
	return __atomic_load_n(&l->base, __ATOMIC_RELAXED);
}

static bool base_is_valid(const struct lapic *l, u64 value)
{
	u64 reserved = 0x2ff | ~(BIT_ULL(l->phys_bits) - 1);

	if (!l->allow_x2apic)
		reserved |= APIC_BASE_X2APIC;
	if (value & reserved)
		return false;
	return !(value & APIC_BASE_X2APIC) || value & APIC_BASE_ENABLE;
}

/* SDM "x2APIC State Transitions": from x2APIC only to disabled, from disabled only to xAPIC. */
static bool base_may_follow(u64 old, u64 value)
{
	bool x2apic = value & APIC_BASE_X2APIC;

	if (old & APIC_BASE_X2APIC)
		return x2apic || !(value & APIC_BASE_ENABLE);
	return old & APIC_BASE_ENABLE || !x2apic;
}

static int base_set(struct lapic *l, u64 value, bool host)
{
	int r = -1;

	chip_lock(l->chip);
	if (l->base == value) {
		r = 0;
	} else if (base_is_valid(l, value) && (host || base_may_follow(l->base, value))) {
		base_apply(l, value);
		r = 0;
	}
	chip_unlock(l->chip);
	return r;
}

int lapic_base_set(struct lapic *l, u64 value)
{
	return base_set(l, value, false);
}

int lapic_base_set_host(struct lapic *l, u64 value)
{
	return base_set(l, value, true);
}

static int reg_read(struct lapic *l, unsigned offset, u32 *value)
{
	u64 readable = (lapic_is_x2apic(l) ? READABLE_X2APIC : READABLE_XAPIC) |
		       (l->has_cmci ? REG(APIC_LVTCMCI) : 0);

	*value = 0;
	if (offset >= APIC_REGS_SIZE || !(readable & REG(offset)))
		return -1;
	offset &= ~0xfu;
	if (offset == APIC_TMCCT)
		*value = lapic_timer_count(l);
	else if (offset != APIC_APR)
		*value = lapic_reg(l, offset);
	return 0;
}

static void write_spiv(struct lapic *l, u32 value)
{
	lapic_reg_set(l, APIC_SPIV, value & 0x3ff);
	if (value & APIC_SPIV_ENABLE)
		return;
	for (unsigned i = 0; i < LVT_COUNT; i++) {
		unsigned lvt = APIC_LVTT + 0x10 * i;

		lapic_reg_set(l, lvt, lapic_reg(l, lvt) | APIC_LVT_MASKED);
	}
	if (l->has_cmci)
		lapic_reg_set(l, APIC_LVTCMCI, lapic_reg(l, APIC_LVTCMCI) | APIC_LVT_MASKED);
}

static void write_lvt(struct lapic *l, unsigned offset, u32 value)
{
	u32 bits = offset == APIC_LVTCMCI ? LVT_BITS | APIC_LVT_MODE
					  : lvt_bits[(offset - APIC_LVTT) / 0x10];

	if (offset == APIC_LVTT)
		bits |= l->allow_deadline ? APIC_LVT_TIMER : APIC_TIMER_PERIODIC;
	if (!lapic_sw_enabled(l))
		value |= APIC_LVT_MASKED;
	lapic_reg_set(l, offset, value & bits);
	if (offset == APIC_LVTT)
		lapic_timer_set_mode(l);
}

/* Last act of a register write: the notification may drop the chip lock. */
static void write_eoi(struct lapic *l)
{
	int vector = lapic_finish(l);

	if (vector < 0)
		return;
	if (l->chip->pic_and_ioapic) {
		ioapic_eoi(l->chip, (u8)vector, lapic_has_vector(l, APIC_TMR, (unsigned)vector));
	} else if (route_is_split_level(l, (u8)vector)) {
		l->eoi_vectors[vector / 32] |= BIT(vector % 32);
		l->eoi_due = true;
	}
}

static void write_icr(struct lapic *l, u32 value)
{
	value &= ~APIC_ICR_BUSY; /* delivery takes no time */
	lapic_reg_set(l, APIC_ICR, value);
	irq_deliver_icr(l, value, lapic_reg(l, APIC_ICR2));
}

/* Registers that exist in one of the modes only. 0, or -1. */
static int reg_write_mode(struct lapic *l, unsigned offset, u32 value)
{
	if (lapic_is_x2apic(l)) {
		if (offset != APIC_SELF_IPI || value & ~0xffu)
			return -1;
		irq_deliver_icr(l, (u32)IRQ_DEST_SELF << 18 | APIC_ICR_ASSERT | value, 0);
		return 0;
	}
	switch (offset) {
	case APIC_ID:
		lapic_reg_set(l, APIC_ID, value & 0xff000000);
		return 0;
	case APIC_LDR:
		lapic_reg_set(l, APIC_LDR, value & 0xff000000);
		return 0;
	case APIC_DFR:
		lapic_reg_set(l, APIC_DFR, value | 0x0fffffff);
		return 0;
	case APIC_ICR2:
		lapic_reg_set(l, APIC_ICR2, value & 0xff000000);
		return 0;
	default:
		return -1;
	}
}

/* 0, or -1 where an MSR write is #GP; MMIO ignores it. ICR in x2APIC mode is msr_write_icr(). */
static int reg_write(struct lapic *l, unsigned offset, u32 value)
{
	switch (offset) {
	case APIC_TPR:
		lapic_reg_set(l, APIC_TPR, value & 0xff);
		break;
	case APIC_EOI:
		/* DIFFERS: KVM accepts any value in x2APIC mode; hardware only 0. */
		if (value && lapic_is_x2apic(l))
			return -1;
		write_eoi(l);
		break;
	case APIC_SPIV:
		write_spiv(l, value);
		break;
	case APIC_ICR:
		write_icr(l, value);
		break;
	case APIC_LVTCMCI:
		if (!l->has_cmci)
			return -1;
		write_lvt(l, offset, value);
		break;
	case APIC_LVTT:
	case APIC_LVTTHMR:
	case APIC_LVTPC:
	case APIC_LVT0:
	case APIC_LVT1:
	case APIC_LVTERR:
		write_lvt(l, offset, value);
		break;
	case APIC_TMICT:
		if (l->timer_mode != APIC_TIMER_DEADLINE) {
			lapic_reg_set(l, APIC_TMICT, value);
			lapic_timer_start(l, APIC_TMICT);
		}
		break;
	case APIC_TDCR:
		lapic_reg_set(l, APIC_TDCR, value & 0xb);
		lapic_timer_set_divide(l, true);
		break;
	case APIC_ESR:
		/* DIFFERS: no error is ever recorded, as in KVM; hardware reports illegal vectors here. */
		if (value && lapic_is_x2apic(l))
			return -1;
		break;
	default:
		return reg_write_mode(l, offset, value);
	}
	lapic_refresh(l);
	return 0;
}

static void mmio_access(struct lapic *l, unsigned offset, void *data, unsigned size, bool is_write)
{
	u32 value = 0;

	if (is_write) {
		if (size != 4 || offset & 0xf)
			return;
		memcpy(&value, data, 4);
		reg_write(l, offset, value);
		return;
	}
	memset(data, 0, size);
	if ((offset & 0xf) + size > 4 || reg_read(l, offset, &value))
		return;
	memcpy(data, (u8 *)&value + (offset & 0xf), size);
}

int lapic_mmio(struct lapic *l, gpa_t gpa, void *data, unsigned size, bool is_write)
{
	u64 base = lapic_base_get(l);
	int r = 0;

	if (gpa - (base & ~(u64)(PAGE_LENGTH - 1)) >= PAGE_LENGTH)
		return 1;
	chip_lock(l->chip);
	if (lapic_hw_enabled(l) && !lapic_is_x2apic(l))
		mmio_access(l, (unsigned)(gpa & (PAGE_LENGTH - 1)), data, size, is_write);
	else if (l->chip->options.no_mmio_hole)
		r = 1;
	else if (!is_write)
		memset(data, 0xff, size);
	chip_unlock(l->chip);
	return r;
}

int lapic_msr_read(struct lapic *l, u32 index, u64 *value)
{
	unsigned offset = (index - X2APIC_MSR) << 4;
	u32 low = 0;
	int r = -1;

	if (index - X2APIC_MSR > 0xff)
		return -1;
	chip_lock(l->chip);
	if (lapic_is_x2apic(l))
		r = reg_read(l, offset, &low);
	*value = low;
	if (!r && offset == APIC_ICR)
		*value |= (u64)lapic_reg(l, APIC_ICR2) << 32;
	chip_unlock(l->chip);
	return r;
}

static int msr_write_icr(struct lapic *l, u64 value)
{
	if (value & X2APIC_ICR_RESERVED)
		return -1;
	lapic_reg_set(l, APIC_ICR2, (u32)(value >> 32));
	write_icr(l, (u32)value);
	return 0;
}

int lapic_msr_write(struct lapic *l, u32 index, u64 value)
{
	unsigned offset = (index - X2APIC_MSR) << 4;
	int r = -1;

	if (index - X2APIC_MSR > 0xff)
		return -1;
	chip_lock(l->chip);
	if (lapic_is_x2apic(l)) {
		if (offset == APIC_ICR)
			r = msr_write_icr(l, value);
		else if (!(value >> 32))
			r = reg_write(l, offset, (u32)value);
	}
	chip_unlock(l->chip);
	return r;
}

u64 lapic_tpr_get(const struct lapic *l)
{
	return lapic_reg(l, APIC_TPR) >> 4 & 0xf;
}

void lapic_tpr_byte_set(struct lapic *l, u8 tpr)
{
	if (lapic_reg(l, APIC_TPR) == tpr)
		return;
	chip_lock(l->chip);
	lapic_reg_set(l, APIC_TPR, tpr);
	lapic_refresh(l);
	chip_unlock(l->chip);
}

void lapic_tpr_set(struct lapic *l, u64 cr8)
{
	chip_lock(l->chip);
	lapic_reg_set(l, APIC_TPR, (u32)(cr8 & 0xf) << 4);
	lapic_refresh(l);
	chip_unlock(l->chip);
}

u64 lapic_deadline_get(struct lapic *l)
{
	u64 value = 0;

	chip_lock(l->chip);
	if (lapic_hw_enabled(l) && l->timer_mode == APIC_TIMER_DEADLINE)
		value = l->tscdeadline;
	chip_unlock(l->chip);
	return value;
}

void lapic_deadline_set(struct lapic *l, u64 value)
{
	chip_lock(l->chip);
	if (lapic_hw_enabled(l) && l->timer_mode == APIC_TIMER_DEADLINE)
		lapic_timer_deadline(l, value);
	chip_unlock(l->chip);
}

/* An ID is stored as the mode has it; the image has it in bits 24-31 unless ids32. */
void lapic_get(struct lapic *l, struct kvm_lapic_state *state)
{
	u32 *image = (u32 *)(void *)state->regs;

	chip_lock(l->chip);
	memcpy(image, l->regs, sizeof(l->regs));
	image[APIC_TMCCT / 4] = lapic_timer_count(l);
	if (lapic_is_x2apic(l) && !l->chip->options.ids32)
		image[APIC_ID / 4] = l->id << 24;
	chip_unlock(l->chip);
}

int lapic_set(struct lapic *l, const struct kvm_lapic_state *state)
{
	u32 image[APIC_REGS_SIZE / 4];
	int r = 0;

	memcpy(image, state->regs, sizeof(image));
	chip_lock(l->chip);
	if (lapic_is_x2apic(l)) {
		if (l->chip->options.ids32 && image[APIC_ID / 4] != l->id) {
			r = -EINVAL;
			goto out;
		}
		image[APIC_ID / 4] = l->id;
		image[APIC_LDR / 4] = x2apic_ldr(l->id);
	}
	image[APIC_LVR / 4] = VERSION_VALUE;
	for (unsigned i = 0; i < ARRAY_SIZE(image); i++)
		lapic_reg_set(l, i * 4, image[i]);
	lapic_timer_set_mode(l);
	lapic_timer_set_divide(l, false);
	lapic_timer_start(l, APIC_TMCCT);
	lapic_reg_set(l, APIC_TMCCT, 0);
	lapic_refresh(l);
out:
	chip_unlock(l->chip);
	return r;
}
