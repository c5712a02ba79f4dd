/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* State shared by the files of the interrupt controllers, and what they offer each other. */
#ifndef VIRT_IRQ_CHIP_H
#define VIRT_IRQ_CHIP_H

#include <pthread.h>

#include "virt/irq/irq.h"
#include "virt/timer.h"

/*
 * Calls between the files go down this list only:
 *
 *   irqchip.c       lock, ports, MMIO, images
 *   lapic.c         registers, MSRs, base, images    route.c  GSI table
 *   lapic_timer.c                                    ioapic.c
 *   i8259.c                                          deliver.c  destinations, MSI, IPI
 *   lapic_intr.c    IRR, ISR, PPR, events, hints and kicks
 */

/* Register offsets, SDM "Local APIC Register Address Map". */
enum lapic_reg {
	APIC_ID = 0x020,
	APIC_LVR = 0x030,
	APIC_TPR = 0x080,
	APIC_APR = 0x090,
	APIC_PPR = 0x0a0,
	APIC_EOI = 0x0b0,
	APIC_LDR = 0x0d0,
	APIC_DFR = 0x0e0,
	APIC_SPIV = 0x0f0,
	APIC_ISR = 0x100,
	APIC_TMR = 0x180,
	APIC_IRR = 0x200,
	APIC_ESR = 0x280,
	APIC_ICR = 0x300,
	APIC_ICR2 = 0x310,
	APIC_LVTCMCI = 0x2f0, /* with MCG_CAP.CMCI_P */
	APIC_LVTT = 0x320,
	APIC_LVTTHMR = 0x330,
	APIC_LVTPC = 0x340,
	APIC_LVT0 = 0x350,
	APIC_LVT1 = 0x360,
	APIC_LVTERR = 0x370,
	APIC_TMICT = 0x380,
	APIC_TMCCT = 0x390,
	APIC_TDCR = 0x3e0,
	APIC_SELF_IPI = 0x3f0,
};
#define APIC_REGS_SIZE 0x400

#define APIC_BASE_DEFAULT 0xfee00000ull
#define APIC_BASE_BSP	  BIT_ULL(8)
#define APIC_BASE_X2APIC  BIT_ULL(10)
#define APIC_BASE_ENABLE  BIT_ULL(11)

#define APIC_SPIV_ENABLE BIT(8)

#define APIC_LVT_MASKED	    BIT(16)
#define APIC_LVT_LEVEL	    BIT(15)
#define APIC_LVT_MODE	    0x700u
#define APIC_LVT_TIMER	    (3u << 17)
#define APIC_TIMER_ONESHOT  (0u << 17)
#define APIC_TIMER_PERIODIC (1u << 17)
#define APIC_TIMER_DEADLINE (2u << 17)
#define APIC_ICR_LOGICAL    BIT(11)
#define APIC_ICR_BUSY	    BIT(12)
#define APIC_ICR_ASSERT	    BIT(14)
#define APIC_ICR_LEVEL	    BIT(15)
#define APIC_BROADCAST	    0xffu
#define X2APIC_BROADCAST    0xffffffffu
#define X2APIC_ICR_RESERVED 0xfff32000ull /* bits 31-20, 17-16, 13 */

/* Delivery modes as in bits 8-10 of ICR, LVT, redirection entry and MSI data. */
enum irq_mode {
	IRQ_FIXED,
	IRQ_LOWEST,
	IRQ_SMI,
	IRQ_REMRD,
	IRQ_NMI,
	IRQ_INIT,
	IRQ_STARTUP,
	IRQ_EXTINT,
};

enum irq_shorthand { IRQ_DEST_FIELD, IRQ_DEST_SELF, IRQ_DEST_ALL, IRQ_DEST_OTHERS };

/* A message on the APIC bus. */
struct irq_message {
	u32 dest;
	u8 vector;
	u8 mode;      /* enum irq_mode */
	u8 shorthand; /* enum irq_shorthand; only with a source */
	bool logical, level_triggered, assert;
	bool redirect; /* redirection hint: lowest priority among the destinations */
};

/* What waits at a local APIC; published in lapic->hint for readers without the lock. */
#define HINT_IRQ  BIT(0)
#define HINT_NMI  BIT(1)
#define HINT_SMI  BIT(2)
#define HINT_INIT BIT(3)
#define HINT_SIPI BIT(4)

struct lapic {
	u8 hint; /* HINT_*, atomic */
	u8 nmi;	 /* NMIs that wait: 0-2 */
	bool smi, init, sipi;
	u8 sipi_vector;
	bool is_bsp, allow_x2apic, allow_deadline, has_cmci;
	u8 phys_bits;
	unsigned index;
	u32 id;	  /* of the vCPU: x2APIC ID, and xAPIC ID at reset */
	u64 base; /* MSR_IA32_APICBASE; written under the lock, atomic */
	struct irqchip *chip;

	/* Timer. Armed: expires != 0. */
	struct timer timer;
	u32 timer_mode;	 /* APIC_TIMER_* in force */
	u32 divide;	 /* 1-128 */
	u64 period;	 /* ns; 0 stopped */
	u64 expires;	 /* ns, CLOCK_MONOTONIC */
	u64 target;	 /* end of the current count, kept after a one-shot has fired */
	u64 tscdeadline; /* MSR; 0 disarmed */

	/* EOIs that user space's IOAPIC waits for; the vCPU's own thread only. */
	bool eoi_due;
	u32 eoi_vectors[8];
	s16 extint;  /* vector from user space's PIC; -1 none */
	bool pv_eoi; /* the guest may end the interrupt in service by a bit in its memory */

	u32 regs[APIC_REGS_SIZE / 4]; /* KVM_GET_LAPIC image */
};

struct i8259_pair {
	struct kvm_pic_state pic[2];
	bool output;   /* INTR of the master */
	u32 lines[16]; /* per pin: bitmap of sources */
};

#define IOAPIC_PINS 24

struct ioapic {
	u64 base;
	u32 select, id;
	u32 irr;	   /* per pin: level seen by the pin */
	u32 irr_delivered; /* edges in irr that were sent: not saved as pending */
	u64 redir[IOAPIC_PINS];
	u32 lines[IOAPIC_PINS];
};

struct irq_route {
	u32 gsi;
	u8 type; /* KVM_IRQ_ROUTING_IRQCHIP, _MSI, or _XEN_EVTCHN: vCPU in address, channel in data */
	u8 chip_id; /* KVM_IRQCHIP_* */
	u8 pin;
	u32 data;
	u64 address;
};

struct irqchip {
	pthread_mutex_t lock;
	struct irq_ops ops;
	void *owner;
	struct timers *timers;
	bool pic_and_ioapic;
	unsigned reserved; /* GSIs below are pins of user space's IOAPIC */
	struct irq_options options;
	struct i8259_pair pic;
	struct ioapic ioapic;
	struct irq_route *routes; /* sorted by gsi */
	unsigned nroutes;
	unsigned nlapics; /* highest index in use + 1 */
	struct lapic *lapics[IRQ_MAX_VCPUS];
};

static inline void chip_lock(struct irqchip *chip)
{
	pthread_mutex_lock(&chip->lock);
}

static inline void chip_unlock(struct irqchip *chip)
{
	pthread_mutex_unlock(&chip->lock);
}

/*
 * Report an EOI for every GSI routed to a pin. Drops the chip lock around the callback: the
 * caller keeps no copy of state across it.
 */
void chip_notify_eoi(struct irqchip *chip, unsigned chip_id, unsigned pin);

/* Report that a pin was unmasked, for every GSI routed to it. Keeps the lock. */
void chip_notify_unmask(struct irqchip *chip, unsigned chip_id, unsigned pin);

static inline u32 lapic_reg(const struct lapic *l, unsigned offset)
{
	return __atomic_load_n(&l->regs[offset / 4], __ATOMIC_RELAXED);
}

static inline void lapic_reg_set(struct lapic *l, unsigned offset, u32 value)
{
	__atomic_store_n(&l->regs[offset / 4], value, __ATOMIC_RELAXED);
}

static inline bool lapic_hw_enabled(const struct lapic *l)
{
	return l->base & APIC_BASE_ENABLE;
}

static inline bool lapic_sw_enabled(const struct lapic *l)
{
	return lapic_reg(l, APIC_SPIV) & APIC_SPIV_ENABLE;
}

static inline bool lapic_is_x2apic(const struct lapic *l)
{
	return (l->base & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) ==
	       (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
}

/* Everything below: chip lock held. */

/* lapic_intr.c */
int lapic_accept(struct lapic *l, const struct irq_message *msg); /* 1 accepted, 0 dropped */
int lapic_local(struct lapic *l, unsigned lvt);			  /* the event of an LVT register */
void lapic_refresh(struct lapic *l);				  /* PPR, hint, kick */
bool lapic_takes_pic(const struct lapic *l);
bool lapic_has_extint(const struct lapic *l); /* PIC or user space, and the APIC lets it through */
bool lapic_has_irr(const struct lapic *l);
bool lapic_has_vector(const struct lapic *l, unsigned bank, unsigned vector);
int lapic_next(const struct lapic *l);	       /* vector to be delivered next, -1 */
int lapic_finish(struct lapic *l);	       /* EOI: end the highest ISR, return it, -1 none */
void lapic_begin(struct lapic *l, int vector); /* IRR to ISR */
void lapics_refresh(struct irqchip *chip);

/* deliver.c */
int irq_deliver(struct irqchip *chip, const struct lapic *source, const struct irq_message *msg);
int irq_deliver_msi(struct irqchip *chip, u64 address, u32 data);
int irq_deliver_physical(struct irqchip *chip, u32 id, u32 icr); /* see irqchip_ipi() */
void irq_deliver_upcall(struct irqchip *chip, const struct irq_upcall *up);
bool irq_msi_reaches(const struct lapic *l, u64 address, u32 data);
void irq_deliver_icr(struct lapic *source, u32 low, u32 high);

/* i8259.c */
void i8259_init(struct i8259_pair *p);
int i8259_set_line(struct irqchip *chip, unsigned pin, int level, unsigned source);
int i8259_ack(struct irqchip *chip);
int i8259_io(struct irqchip *chip, u16 port, u8 *data, bool is_write);
void i8259_update(struct irqchip *chip);

/* ioapic.c */
void ioapic_init(struct ioapic *io);
int ioapic_set_line(struct irqchip *chip, unsigned pin, int level, unsigned source);
void ioapic_eoi(struct irqchip *chip, u8 vector, bool level_triggered);
u32 ioapic_read(struct ioapic *io, u32 offset);
void ioapic_write(struct irqchip *chip, u32 offset, u32 value);
void ioapic_get(const struct ioapic *io, struct kvm_ioapic_state *s);
bool ioapic_has_vector(const struct ioapic *io, u8 vector);
void ioapic_set(struct irqchip *chip, const struct kvm_ioapic_state *s);

/* route.c */
int route_set(struct irqchip *chip, const struct kvm_irq_routing_entry *entries, unsigned n);
int route_set_default(struct irqchip *chip);
/* Whether @vector at @l is a level of user space's IOAPIC, by the reserved routes. */
bool route_is_split_level(const struct lapic *l, u8 vector);
int route_line(struct irqchip *chip, unsigned gsi, int level, unsigned source);

/* lapic_timer.c */
int lapic_timer_init(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
void lapic_timer_set_mode(struct lapic *l);	       /* LVTT was written */
void lapic_timer_start(struct lapic *l, unsigned reg); /* from APIC_TMICT or APIC_TMCCT */
void lapic_timer_set_divide(struct lapic *l, bool rescale);
u32 lapic_timer_count(const struct lapic *l);
void lapic_timer_deadline(struct lapic *l, u64 value);

#endif
