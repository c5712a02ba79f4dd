/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Interrupt controllers of a PC: two 8259, IOAPIC, local APICs, and how they are wired. */
#ifndef VIRT_IRQ_IRQ_H
#define VIRT_IRQ_IRQ_H

#include <linux/kvm.h>

#include "base/types.h"

/*
 * Threads and locks
 *
 *   One lock per VM, the chip lock, covers the PIC pair, the IOAPIC, the routing table and all
 *   local APICs. Every function below takes it unless it says otherwise, so none may be called from
 *   irq_ops.kick, .tsc or .tsc_khz. Lock order: lock of a device -> chip lock -> heap lock of timers.
 *   A caller's lock that .kick takes (say, a vCPU's sleep lock) must not be held while calling here.
 *
 *   Any thread:          irqchip_*(), lapic_nmi(), lapic_smi(), lapic_pending(), lapic_has_event()
 *   The vCPU's thread:   lapic_*() else; also ioctls that hold the vCPU
 *   Without the lock:    lapic_pending(), lapic_has_event(), lapic_tpr_get(), lapic_base_get(): one atomic load
 *   Creation:            lapic_create() before the vCPU runs; destroy LAPICs, then the chip, then the timers
 */
struct irqchip; /* PIC pair, IOAPIC and the list of local APICs; one lock */
struct lapic;
struct timers;

/* A vector that is to be delivered to one local APIC; 0: nothing. */
struct irq_upcall {
	unsigned vcpu_index;
	u8 vector;
};

/* Handed down by the KVM floor. */
struct irq_ops {
	/* Interrupt state of vCPU @index may have changed: kick or wake it. Any thread, chip lock held: must not call back. */
	void (*kick)(void *owner, unsigned vcpu_index);
	/*
	 * An EOI reached the IOAPIC or PIC for @gsi (resample). May be NULL. Called without the chip lock:
	 * it may call irqchip_set_line(); a line lowered here is seen before the IOAPIC sends again.
	 */
	void (*eoi)(void *owner, unsigned gsi);
	/* A pin that @gsi goes to was unmasked. May be NULL. Chip lock held: must not call back. */
	void (*unmask)(void *owner, unsigned gsi);
	/*
	 * A GSI that is routed to an event channel of Xen's was raised. Returns as irqchip_set_line(); what is left for
	 * the APIC to deliver goes to @up. May be NULL. Chip lock held: must not call back.
	 */
	int (*event)(void *owner, u32 vcpu_id, u32 channel, struct irq_upcall *up);
	/* Guest TSC of a vCPU now, and its frequency in kHz, for the TSC-deadline timer. Any thread, chip lock held. */
	u64 (*tsc)(void *owner, unsigned vcpu_index);
	u32 (*tsc_khz)(void *owner, unsigned vcpu_index);
};

#define IRQ_MAX_VCPUS 1024

/* @source of irqchip_set_line(): 0-31, the devices that share a line are OR'ed. */
#define IRQ_SOURCE_USER	    0 /* KVM_IRQ_LINE */
#define IRQ_SOURCE_RESAMPLE 1 /* irqfd with resample */
#define IRQ_SOURCE_PIT	    2

struct irqchip *irqchip_create(const struct irq_ops *ops, void *owner, struct timers *ts,
			       bool pic_and_ioapic);
void irqchip_destroy(struct irqchip *chip);

/* Split: PIC and IOAPIC are user space's; GSIs below @pins are the pins of its IOAPIC, routed as MSIs. */
void irqchip_reserve(struct irqchip *chip, unsigned pins);

/*
 * Behaviour that a program chooses by KVM_ENABLE_CAP; all false at creation. @ids32 and @no_broadcast are the flags of
 * KVM_CAP_X2APIC_API; the other two turn off quirks (KVM_CAP_DISABLE_QUIRKS).
 */
struct irq_options {
	bool ids32;	   /* 32-bit IDs in KVM_GET/SET_LAPIC and in MSI addresses */
	bool no_broadcast; /* destination 0xff of a device is no broadcast in x2APIC mode */
	bool no_mmio_hole; /* accesses to a disabled or x2APIC page go to user space */
	bool no_lint0;	   /* LINT0 of the BSP is masked at reset */
};
void irqchip_options(struct irqchip *chip, const struct irq_options *options);

/*
 * KVM_SET_GSI_ROUTING: replaces the table. At creation it is KVM's: GSI 0-15 to the same pin of PIC
 * and IOAPIC, 16-23 to the IOAPIC (so a PC board that wants GSI 0 at IOAPIC pin 2 says so here or
 * has no interrupt source override). Entries of type IRQCHIP, MSI and XEN_EVTCHN. 0, -EINVAL or -ENOMEM.
 */
int irqchip_set_routing(struct irqchip *chip, const struct kvm_irq_routing_entry *entries,
			unsigned n);

/* By the routing table. Returns as KVM_IRQ_LINE_STATUS: >0 delivered, 0 coalesced, <0 masked or not routed. */
int irqchip_set_line(struct irqchip *chip, unsigned gsi, int level, unsigned source);

/*
 * An eventfd was signalled: an edge, or the rise of a level that stays (@hold). Returns as above, but -EAGAIN with
 * @try when the chip lock is taken: then it may be called from a signal handler.
 */
int irqchip_raise(struct irqchip *chip, unsigned gsi, unsigned source, bool hold, bool try);

/* Deliver a fixed interrupt to one vCPU. */
void irqchip_upcall(struct irqchip *chip, const struct irq_upcall *up);

/* Deliver an MSI (address and data as on the bus). As above; -EINVAL for a bad address with ids32. */
int irqchip_msi(struct irqchip *chip, u64 address, u32 data);

/*
 * Deliver vector, mode, level and trigger of an APIC's interrupt command to the APIC with that ID, and to no other: a number that
 * means all elsewhere is an ID here. The number of those that accepted.
 */
int irqchip_ipi(struct irqchip *chip, u32 id, u32 icr);

/* Ports of PIC and ELCR, MMIO of the IOAPIC: 0 handled, 1 not ours. */
int irqchip_io(struct irqchip *chip, u16 port, void *data, unsigned size, bool is_write);
int irqchip_mmio(struct irqchip *chip, gpa_t gpa, void *data, unsigned size, bool is_write);

/* KVM_GET/SET_IRQCHIP for PIC master, PIC slave, IOAPIC (by chip_id). 0 or -EINVAL. */
int irqchip_get(struct irqchip *chip, struct kvm_irqchip *state);
int irqchip_set(struct irqchip *chip, const struct kvm_irqchip *state);

/* Virtual wire of the 8254: its tick as NMI to every LAPIC whose LINT0 is in NMI mode. */
void irqchip_pit_nmi(struct irqchip *chip);

/* Local APIC of one vCPU. @is_bsp sets the BSP bit of the APIC base MSR. NULL: no memory or thread, or index taken. */
struct lapic *lapic_create(struct irqchip *chip, unsigned vcpu_index, u32 apic_id, bool is_bsp);
void lapic_destroy(struct lapic *l);
void lapic_reset(struct lapic *l, bool init);

/* What the guest's CPUID allows; at creation all of it, with 52 bits of address. */
void lapic_features(struct lapic *l, bool x2apic, bool tsc_deadline, unsigned phys_bits);

u64 lapic_base_get(const struct lapic *l);	     /* MSR_IA32_APICBASE */
int lapic_base_set(struct lapic *l, u64 value);	     /* WRMSR: 0 or -1 (#GP) */
int lapic_base_set_host(struct lapic *l, u64 value); /* ioctls: any valid mode may follow any */
int lapic_mmio(struct lapic *l, gpa_t gpa, void *data, unsigned size,
	       bool is_write); /* 0 handled, 1 not ours (other page, or no_mmio_hole) */
int lapic_msr_read(struct lapic *l, u32 index,
		   u64 *value); /* 0x800-0x8ff in x2APIC mode: 0 done, -1 #GP */
int lapic_msr_write(struct lapic *l, u32 index, u64 value);
u64 lapic_tpr_get(const struct lapic *l); /* CR8 */
void lapic_tpr_set(struct lapic *l, u64 cr8);
void lapic_tpr_byte_set(struct lapic *l, u8 tpr); /* as the register's page has it */
u64 lapic_deadline_get(struct lapic *l);	  /* MSR_IA32_TSC_DEADLINE */
void lapic_deadline_set(struct lapic *l, u64 value);

/*
 * For the vCPU's own thread, before entry. lapic_pending(): is there an interrupt that TPR lets through
 * (PIC ExtINT included)? lapic_ack(): take it (IRR to ISR, or PIC INTA) and return the vector, -1 for none.
 */
bool lapic_pending(struct lapic *l);
int lapic_ack(struct lapic *l);

/* Corrected machine checks: whether their LVT entry is there, and its event. */
void lapic_cmci_offer(struct lapic *l, bool on);
void lapic_cmci(struct lapic *l);

/* Split: the vector of user space's PIC (KVM_INTERRUPT): 0, or -EEXIST while one waits. */
int lapic_extint(struct lapic *l, u8 vector);
bool lapic_takes_extint(struct lapic *l);

/* Split: a level interrupt that the guest has ended and user space's IOAPIC is to be told of; -1 none. Own thread. */
int lapic_take_eoi(struct lapic *l);
bool lapic_eoi_due(const struct lapic *l);

/*
 * KVM_FEATURE_PV_EOI, own thread. lapic_pv_eoi_offer(): whether the guest may end what is in service by clearing a bit instead of
 * writing the register; while it may, every new request counts as pending. lapic_pv_eoi_end(): no longer; @ended: it did.
 */
bool lapic_pv_eoi_offer(struct lapic *l);
bool lapic_pv_eoi_offered(const struct lapic *l);
void lapic_pv_eoi_end(struct lapic *l, bool ended);

/* TPR, highest vector in service and requested, as the APIC page of KVM_SET_VAPIC_ADDR has them. */
u32 lapic_vapic_word(struct lapic *l);

/* KVM_NMI and KVM_SMI. */
void lapic_nmi(struct lapic *l);
void lapic_smi(struct lapic *l);

/* Events other than interrupts: take and clear. At most two NMIs wait, as in KVM. An INIT forgets an older SIPI. */
bool lapic_take_nmi(struct lapic *l);
bool lapic_take_smi(struct lapic *l);
bool lapic_take_init(struct lapic *l);
bool lapic_init_waits(struct lapic *l); /* latched, in SMM; saved and restored by these two */
void lapic_init_latch(struct lapic *l, bool waits);
bool lapic_take_sipi(struct lapic *l, u8 *vector);
bool lapic_has_event(struct lapic *l); /* any of the four above: wakes a halted vCPU */

/*
 * KVM_GET/SET_LAPIC: the 1 KiB register page. In x2APIC mode the ID is in bits 24-31 unless ids32;
 * then set() refuses a foreign ID with -EINVAL. set() restarts the timer from the current count.
 */
void lapic_get(struct lapic *l, struct kvm_lapic_state *state);
int lapic_set(struct lapic *l, const struct kvm_lapic_state *state);

#endif
