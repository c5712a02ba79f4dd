/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 82093AA I/O APIC, version 0x11: 24 pins, redirection table, remote IRR. */
#include <string.h>

#include "virt/irq/chip.h"

#define IOAPIC_BASE 0xfec00000ull

#define SELECT_ID      0x00
#define SELECT_VERSION 0x01
#define SELECT_ARB     0x02
#define SELECT_REDIR   0x10
#define VERSION_VALUE  (0x11u | (IOAPIC_PINS - 1) << 16)
#define WINDOW_SELECT  0x00
#define WINDOW_DATA    0x10

/* Redirection entry. */
#define REDIR_LOGICAL	 BIT_ULL(11)
#define REDIR_STATUS	 BIT_ULL(12) /* read-only */
#define REDIR_REMOTE_IRR BIT_ULL(14) /* read-only: level sent, EOI due */
#define REDIR_LEVEL	 BIT_ULL(15)
#define REDIR_MASKED	 BIT_ULL(16)
#define REDIR_READONLY	 (REDIR_STATUS | REDIR_REMOTE_IRR)

void ioapic_init(struct ioapic *io)
{
	memset(io, 0, sizeof(*io));
	io->base = IOAPIC_BASE;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		io->redir[i] = REDIR_MASKED;
}

/* Send a pin's message. -1 masked or waiting for an EOI, else as irq_deliver(). */
static int ioapic_service(struct irqchip *chip, unsigned pin)
{
	struct ioapic *io = &chip->ioapic;
	u64 e = io->redir[pin];
	struct irq_message msg = {
		.dest = (u8)(e >> 56),
		.logical = e & REDIR_LOGICAL,
		.vector = (u8)e,
		.mode = e >> 8 & 7,
		.level_triggered = e & REDIR_LEVEL,
		.assert = true,
	};
	int r;

	if (e & REDIR_MASKED || (e & REDIR_LEVEL && e & REDIR_REMOTE_IRR))
		return -1;
	if (!(e & REDIR_LEVEL))
		io->irr_delivered |= BIT(pin);
	r = irq_deliver(chip, NULL, &msg);
	if (r && e & REDIR_LEVEL)
		io->redir[pin] |= REDIR_REMOTE_IRR;
	return r;
}

/*
 * A change of a pin, by KVM's rules: a repeated high of an edge pin is coalesced; an edge that
 * comes while masked is remembered as irr but not sent by unmasking.
 */
/* DIFFERS: KVM tracks the EOI of IOAPIC pin 8 (RTC), so that KVM_IRQ_LINE_STATUS reports a tick before it as lost; here it is latched as any edge. */
static int ioapic_input(struct irqchip *chip, unsigned pin, bool level)
{
	struct ioapic *io = &chip->ioapic;
	u32 old = io->irr;

	if (!level) {
		io->irr &= ~BIT(pin);
		return 1;
	}
	io->irr |= BIT(pin);
	if (!(io->redir[pin] & REDIR_LEVEL)) {
		io->irr_delivered &= ~BIT(pin);
		if (old == io->irr)
			return 0;
	}
	return ioapic_service(chip, pin);
}

int ioapic_set_line(struct irqchip *chip, unsigned pin, int level, unsigned source)
{
	struct ioapic *io = &chip->ioapic;

	if (level)
		io->lines[pin] |= BIT(source);
	else
		io->lines[pin] &= ~BIT(source);
	return ioapic_input(chip, pin, io->lines[pin]);
}

/* Drops the chip lock for the notification: the line may fall before it is sent again. */
/* DIFFERS: on a level EOI, KVM sends again also on an IOAPIC pin that was switched to edge mode since. */
void ioapic_eoi(struct irqchip *chip, u8 vector, bool level_triggered)
{
	struct ioapic *io = &chip->ioapic;

	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		if ((u8)io->redir[pin] != vector)
			continue;
		chip_notify_eoi(chip, KVM_IRQCHIP_IOAPIC, pin);
		if (!level_triggered || !(io->redir[pin] & REDIR_LEVEL))
			continue;
		io->redir[pin] &= ~REDIR_REMOTE_IRR;
		if (io->irr & BIT(pin))
			ioapic_service(chip, pin);
	}
}

bool ioapic_has_vector(const struct ioapic *io, u8 vector)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		if ((u8)io->redir[pin] == vector)
			return true;
	return false;
}

static u32 ioapic_read_selected(const struct ioapic *io)
{
	unsigned pin = (io->select - SELECT_REDIR) / 2;
	u64 e;

	switch (io->select) {
	case SELECT_ID:
	case SELECT_ARB:
		return (io->id & 0xf) << 24;
	case SELECT_VERSION:
		return VERSION_VALUE;
	default:
		e = pin < IOAPIC_PINS ? io->redir[pin] : ~0ull;
		return (u32)(io->select & 1 ? e >> 32 : e);
	}
}

/* A level that was lowered while nobody could acknowledge it shows up here: ask before sending. */
static void ioapic_unmasked(struct irqchip *chip, unsigned pin)
{
	chip_notify_eoi(chip, KVM_IRQCHIP_IOAPIC, pin);
	if (chip->ioapic.irr & BIT(pin))
		ioapic_service(chip, pin);
}

static void ioapic_write_redir(struct irqchip *chip, unsigned pin, bool high, u32 value)
{
	struct ioapic *io = &chip->ioapic;
	u64 old = io->redir[pin], e;

	if (high)
		e = (u32)old | (u64)value << 32;
	else
		e = (old & 0xffffffff00000000ull) | value;
	e = (e & ~REDIR_READONLY) | (old & REDIR_READONLY);
	if (!(e & REDIR_LEVEL)) /* guests without an EOI register switch to edge and back */
		e &= ~REDIR_REMOTE_IRR;
	io->redir[pin] = e;
	if (old & REDIR_MASKED && !(e & REDIR_MASKED))
		chip_notify_unmask(chip, KVM_IRQCHIP_IOAPIC, pin);
	if (e & REDIR_LEVEL && io->irr & BIT(pin) && !(e & (REDIR_MASKED | REDIR_REMOTE_IRR)))
		ioapic_unmasked(chip, pin);
}

static void ioapic_write_selected(struct irqchip *chip, u32 value)
{
	struct ioapic *io = &chip->ioapic;
	unsigned pin = (io->select - SELECT_REDIR) / 2;

	if (io->select == SELECT_ID)
		io->id = value >> 24 & 0xf;
	else if (io->select >= SELECT_REDIR && pin < IOAPIC_PINS)
		ioapic_write_redir(chip, pin, io->select & 1, value);
}

u32 ioapic_read(struct ioapic *io, u32 offset)
{
	switch (offset) {
	case WINDOW_SELECT:
		return io->select;
	case WINDOW_DATA:
		return ioapic_read_selected(io);
	default:
		return 0;
	}
}

void ioapic_write(struct irqchip *chip, u32 offset, u32 value)
{
	if (offset == WINDOW_SELECT)
		chip->ioapic.select = value & 0xff;
	else if (offset == WINDOW_DATA)
		ioapic_write_selected(chip, value);
}

void ioapic_get(const struct ioapic *io, struct kvm_ioapic_state *s)
{
	s->base_address = io->base;
	s->ioregsel = io->select;
	s->id = io->id;
	s->irr = io->irr & ~io->irr_delivered;
	s->pad = 0;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		s->redirtbl[i].bits = io->redir[i];
}

/* What was pending in the image is raised anew. */
void ioapic_set(struct irqchip *chip, const struct kvm_ioapic_state *s)
{
	struct ioapic *io = &chip->ioapic;

	io->base = s->base_address;
	io->select = s->ioregsel & 0xff;
	io->id = s->id;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		io->redir[i] = s->redirtbl[i].bits;
	io->irr = io->irr_delivered = 0;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		if (s->irr & BIT(i))
			ioapic_input(chip, i, true);
}
