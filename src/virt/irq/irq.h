/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Interrupt controllers of a PC: two 8259, IOAPIC, local APICs, and how they are wired. */
#ifndef VIRT_IRQ_IRQ_H
#define VIRT_IRQ_IRQ_H

#include <linux/kvm.h>

#include "base/types.h"

struct irqchip; /* PIC pair, IOAPIC and the list of local APICs; one lock */
struct lapic;
struct timers;

/* Handed down by the KVM floor. */
struct irq_ops {
	/* Interrupt state of vCPU @index may have changed: kick or wake it. Any thread, chip lock held: must not call back. */
	void (*kick)(void *owner, unsigned vcpu_index);
	/* An EOI reached the IOAPIC or PIC for @gsi (resample). May be NULL. */
	void (*eoi)(void *owner, unsigned gsi);
	/* Guest TSC of a vCPU now, and its frequency in kHz, for the TSC-deadline timer. */
	u64 (*tsc)(void *owner, unsigned vcpu_index);
	u32 (*tsc_khz)(void *owner, unsigned vcpu_index);
};

struct irqchip *irqchip_create(const struct irq_ops *ops, void *owner, struct timers *ts,
			       bool pic_and_ioapic);
void irqchip_destroy(struct irqchip *chip);

/* GSI 0-15: PIC and IOAPIC (GSI 0 to IOAPIC pin 2), 16-23: IOAPIC; @source distinguishes devices sharing a level. Returns as KVM_IRQ_LINE_STATUS: >0 delivered, 0 coalesced, <0 masked. */
int irqchip_set_line(struct irqchip *chip, unsigned gsi, int level, unsigned source);

/* Deliver an MSI (address and data as on the bus). As above. */
int irqchip_msi(struct irqchip *chip, u64 address, u32 data);

/* Ports of PIC and ELCR, MMIO of the IOAPIC: 0 handled, 1 not ours. */
int irqchip_io(struct irqchip *chip, u16 port, void *data, unsigned size, bool is_write);
int irqchip_mmio(struct irqchip *chip, gpa_t gpa, void *data, unsigned size, bool is_write);

/* KVM_GET/SET_IRQCHIP for PIC master, PIC slave, IOAPIC (by chip_id). 0 or -EINVAL. */
int irqchip_get(struct irqchip *chip, struct kvm_irqchip *state);
int irqchip_set(struct irqchip *chip, const struct kvm_irqchip *state);

/* Local APIC of one vCPU. @is_bsp sets the BSP bit of the APIC base MSR. */
struct lapic *lapic_create(struct irqchip *chip, unsigned vcpu_index, u32 apic_id, bool is_bsp);
void lapic_destroy(struct lapic *l);
void lapic_reset(struct lapic *l, bool init);

u64 lapic_base_get(const struct lapic *l);	/* MSR_IA32_APICBASE */
int lapic_base_set(struct lapic *l, u64 value); /* 0 or -1 (#GP) */
int lapic_mmio(struct lapic *l, gpa_t gpa, void *data, unsigned size,
	       bool is_write); /* 0 handled, 1 not ours (disabled, x2APIC or other page) */
int lapic_msr_read(struct lapic *l, u32 index,
		   u64 *value); /* 0x800-0x8ff in x2APIC mode: 0 done, -1 #GP */
int lapic_msr_write(struct lapic *l, u32 index, u64 value);
u64 lapic_tpr_get(const struct lapic *l); /* CR8 */
void lapic_tpr_set(struct lapic *l, u64 cr8);
u64 lapic_deadline_get(const struct lapic *l); /* MSR_IA32_TSC_DEADLINE */
void lapic_deadline_set(struct lapic *l, u64 value);

/*
 * For the vCPU's own thread, before entry. lapic_pending(): is there an interrupt that TPR lets through
 * (PIC ExtINT included)? lapic_ack(): take it (IRR to ISR, or PIC INTA) and return the vector, -1 for none.
 */
bool lapic_pending(struct lapic *l);
int lapic_ack(struct lapic *l);
/* Events other than interrupts: take and clear. */
bool lapic_take_nmi(struct lapic *l);
bool lapic_take_smi(struct lapic *l);
bool lapic_take_init(struct lapic *l);
bool lapic_take_sipi(struct lapic *l, u8 *vector);
bool lapic_has_event(struct lapic *l); /* any of the above: wakes a halted vCPU */

/* KVM_GET/SET_LAPIC: the 1 KiB register page. x2APIC ID format as KVM_CAP_X2APIC_API chooses. */
void lapic_get(struct lapic *l, struct kvm_lapic_state *state);
int lapic_set(struct lapic *l, const struct kvm_lapic_state *state);

#endif
