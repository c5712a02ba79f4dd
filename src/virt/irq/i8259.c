/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 8259A interrupt controllers: master at 0x20, slave at 0xa0 on its input 2, trigger modes at 0x4d0. */
#include <string.h>

#include "virt/irq/chip.h"

#define CASCADE 2
#define NONE	(-1)

static unsigned pic_number(const struct i8259_pair *p, const struct kvm_pic_state *s)
{
	return (unsigned)(s - p->pic);
}

/* Inputs 0-2, 8 and 13 of a PC are edge triggered whatever ELCR says. */
void i8259_init(struct i8259_pair *p)
{
	memset(p, 0, sizeof(*p));
	p->pic[0].elcr_mask = 0xf8;
	p->pic[1].elcr_mask = 0xde;
}

/* Distance of the first set bit of @mask from the input with the highest priority; 8: none. */
static unsigned pic_priority(const struct kvm_pic_state *s, u8 mask)
{
	unsigned n = 0;

	if (!mask)
		return 8;
	while (!(mask & BIT((n + s->priority_add) & 7)))
		n++;
	return n;
}

static int pic_irq_at(const struct kvm_pic_state *s, unsigned priority)
{
	return (int)((priority + s->priority_add) & 7);
}

/* The input that the controller signals, or NONE. */
static int pic_wanted(const struct i8259_pair *p, const struct kvm_pic_state *s)
{
	u8 service = s->isr;
	unsigned priority = pic_priority(s, s->irr & (u8)~s->imr);

	if (s->special_fully_nested_mode && s == &p->pic[0])
		service &= (u8)~BIT(CASCADE);
	/* DIFFERS: KVM stores the special mask mode and does not act on it. */
	if (s->special_mask)
		service &= (u8)~s->imr;
	return priority < pic_priority(s, service) ? pic_irq_at(s, priority) : NONE;
}

/* Change of an input. As KVM: 1 new request, 0 coalesced, -1 masked. */
static int pic_input(struct kvm_pic_state *s, unsigned n, bool level)
{
	u8 bit = (u8)BIT(n);
	bool latch = level && (s->elcr & bit || !(s->last_irr & bit));
	int r = 1;

	if (latch) {
		r = !(s->irr & bit);
		s->irr |= bit;
	}
	if (level) {
		s->last_irr |= bit;
	} else {
		s->last_irr &= (u8)~bit;
		if (s->elcr & bit)
			s->irr &= (u8)~bit;
	}
	return s->imr & bit ? -1 : r;
}

static void pic_output(struct irqchip *chip)
{
	struct i8259_pair *p = &chip->pic;
	bool output = pic_wanted(p, &p->pic[0]) != NONE;

	if (output == p->output)
		return;
	p->output = output;
	lapics_refresh(chip);
}

void i8259_update(struct irqchip *chip)
{
	struct i8259_pair *p = &chip->pic;

	if (pic_wanted(p, &p->pic[1]) != NONE) {
		pic_input(&p->pic[0], CASCADE, true);
		pic_input(&p->pic[0], CASCADE, false);
	}
	pic_output(chip);
}

int i8259_set_line(struct irqchip *chip, unsigned pin, int level, unsigned source)
{
	struct i8259_pair *p = &chip->pic;
	int r;

	if (level)
		p->lines[pin] |= BIT(source);
	else
		p->lines[pin] &= ~BIT(source);
	r = pic_input(&p->pic[pin / 8], pin % 8, p->lines[pin]);
	i8259_update(chip);
	return r;
}

static void pic_end(struct irqchip *chip, struct kvm_pic_state *s, unsigned n)
{
	unsigned number = pic_number(&chip->pic, s);

	s->isr &= (u8)~BIT(n);
	chip_notify_eoi(chip, number, n);
}

static void pic_intack(struct irqchip *chip, struct kvm_pic_state *s, unsigned n)
{
	s->isr |= (u8)BIT(n);
	if (!(s->elcr & BIT(n))) /* a level stays requested while it is high */
		s->irr &= (u8)~BIT(n);
	if (!s->auto_eoi)
		return;
	if (s->rotate_on_auto_eoi)
		s->priority_add = (n + 1) & 7;
	pic_end(chip, s, n);
}

/* INTA: the vector; input 7 when the request has gone (spurious). */
int i8259_ack(struct irqchip *chip)
{
	struct kvm_pic_state *master = &chip->pic.pic[0], *slave = &chip->pic.pic[1];
	int n = pic_wanted(&chip->pic, master), vector;

	if (n == CASCADE) {
		int m;

		pic_intack(chip, master, CASCADE);
		m = pic_wanted(&chip->pic, slave);
		if (m != NONE)
			pic_intack(chip, slave, (unsigned)m);
		else
			m = 7;
		vector = slave->irq_base + m;
	} else {
		if (n != NONE)
			pic_intack(chip, master, (unsigned)n);
		else
			n = 7;
		vector = master->irq_base + n;
	}
	i8259_update(chip);
	return vector & 0xff;
}

/* ICW1: level requests stay, latched edges are lost (and acknowledged, if somebody listens). */
static void pic_init_start(struct irqchip *chip, struct kvm_pic_state *s, u8 value)
{
	u8 edges = s->irr & (u8)~s->elcr;
	bool heard = false;

	s->init4 = value & 1;
	s->last_irr = 0;
	s->irr &= s->elcr;
	s->imr = 0;
	s->priority_add = 0;
	s->special_mask = 0;
	s->read_reg_select = 0;
	if (!s->init4) {
		s->special_fully_nested_mode = 0;
		s->auto_eoi = 0;
	}
	s->init_state = 1;
	for (unsigned i = 0; i < chip->nlapics; i++)
		heard |= chip->lapics[i] && lapic_takes_pic(chip->lapics[i]);
	for (unsigned n = 0; heard && n < 8; n++)
		if (edges & BIT(n))
			pic_end(chip, s, n);
	pic_output(chip); /* the slave's request is latched again by the next change only */
}

static void pic_ocw3(struct kvm_pic_state *s, u8 value)
{
	if (value & 0x04)
		s->poll = 1;
	if (value & 0x02)
		s->read_reg_select = value & 1;
	if (value & 0x40)
		s->special_mask = value >> 5 & 1;
}

static void pic_ocw2(struct irqchip *chip, struct kvm_pic_state *s, u8 value)
{
	unsigned n = value & 7, priority;

	switch (value >> 5) {
	case 0: /* rotate on auto-EOI off, on */
	case 4:
		s->rotate_on_auto_eoi = value >> 7;
		return;
	case 1: /* EOI of the highest in service; 5: and make it the lowest */
	case 5:
		priority = pic_priority(s, s->isr);
		if (priority == 8)
			return;
		n = (unsigned)pic_irq_at(s, priority);
		if (value >> 5 == 5)
			s->priority_add = (n + 1) & 7;
		pic_end(chip, s, n);
		break;
	case 3: /* EOI of one input */
		pic_end(chip, s, n);
		break;
	case 6: /* set priority */
		s->priority_add = (n + 1) & 7;
		break;
	case 7: /* EOI of one input and make it the lowest */
		s->priority_add = (n + 1) & 7;
		pic_end(chip, s, n);
		break;
	default:
		return;
	}
	i8259_update(chip);
}

static void pic_write_data(struct irqchip *chip, struct kvm_pic_state *s, u8 value)
{
	switch (s->init_state) {
	case 0: /* OCW1 */
		for (unsigned n = 0; n < 8; n++)
			if (s->imr & (u8)~value & BIT(n))
				chip_notify_unmask(chip, pic_number(&chip->pic, s), n);
		s->imr = value;
		i8259_update(chip);
		break;
	case 1: /* ICW2 */
		s->irq_base = value & 0xf8;
		s->init_state = 2;
		break;
	case 2: /* ICW3: the wiring is fixed */
		s->init_state = s->init4 ? 3 : 0;
		break;
	default: /* ICW4 */
		s->special_fully_nested_mode = value >> 4 & 1;
		s->auto_eoi = value >> 1 & 1;
		s->init_state = 0;
		break;
	}
}

static void pic_write(struct irqchip *chip, struct kvm_pic_state *s, bool data, u8 value)
{
	if (data)
		pic_write_data(chip, s, value);
	else if (value & 0x10)
		pic_init_start(chip, s, value);
	else if (value & 0x08)
		pic_ocw3(s, value);
	else
		pic_ocw2(chip, s, value);
}

/* Poll command: the read acts as INTA with EOI. Bit 7: there was a request. */
static u8 pic_poll(struct irqchip *chip, struct kvm_pic_state *s)
{
	struct kvm_pic_state *master = &chip->pic.pic[0];
	int n = pic_wanted(&chip->pic, s);

	if (n != NONE) {
		if (s != master) {
			master->isr &= (u8)~BIT(CASCADE);
			master->irr &= (u8)~BIT(CASCADE);
		}
		s->irr &= (u8)~BIT(n);
		pic_end(chip, s, (unsigned)n);
	}
	if (s == master && n == CASCADE)
		pic_output(chip); /* the slave is to be polled next */
	else
		i8259_update(chip);
	return n == NONE ? 0x07 : (u8)(0x80 | n);
}

static u8 pic_read(struct irqchip *chip, struct kvm_pic_state *s, bool data)
{
	if (s->poll) {
		u8 value = pic_poll(chip, s);

		s->poll = 0;
		return value;
	}
	if (data)
		return s->imr;
	return s->read_reg_select ? s->isr : s->irr;
}

int i8259_io(struct irqchip *chip, u16 port, u8 *data, bool is_write)
{
	struct kvm_pic_state *s;

	switch (port) {
	case 0x20:
	case 0x21:
	case 0xa0:
	case 0xa1:
		s = &chip->pic.pic[port >> 7];
		if (is_write)
			pic_write(chip, s, port & 1, *data);
		else
			*data = pic_read(chip, s, port & 1);
		return 0;
	case 0x4d0:
	case 0x4d1:
		s = &chip->pic.pic[port & 1];
		if (is_write)
			s->elcr = *data & s->elcr_mask;
		else
			*data = s->elcr;
		return 0;
	default:
		return 1;
	}
}
