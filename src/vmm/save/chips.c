/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The state of the chips that the KVM device has inside: 8259s, IOAPIC, 8254, and the clock of its guests. */
#include "vmm/save/save.h"

#include <string.h>

#define F(member) DEVICE_FIELD(struct saved_chips, member)
#define PIC(i)                                                                                     \
	F(pic[i].last_irr), F(pic[i].irr), F(pic[i].imr), F(pic[i].isr), F(pic[i].priority_add),   \
		F(pic[i].irq_base), F(pic[i].read_reg_select), F(pic[i].poll),                     \
		F(pic[i].special_mask), F(pic[i].init_state), F(pic[i].auto_eoi),                  \
		F(pic[i].rotate_on_auto_eoi), F(pic[i].special_fully_nested_mode),                 \
		F(pic[i].init4), F(pic[i].elcr), F(pic[i].elcr_mask)
#define PIT(i)                                                                                     \
	F(pit.channels[i].count), F(pit.channels[i].latched_count),                                \
		F(pit.channels[i].count_latched), F(pit.channels[i].status_latched),               \
		F(pit.channels[i].status), F(pit.channels[i].read_state),                          \
		F(pit.channels[i].write_state), F(pit.channels[i].write_latch),                    \
		F(pit.channels[i].rw_mode), F(pit.channels[i].mode), F(pit.channels[i].bcd),       \
		F(pit.channels[i].gate)

static const struct device_field chips_fields[] = {
	PIC(0),	      PIC(1),	     F(ioapic.base_address), F(ioapic.ioregsel),
	F(ioapic.id), F(ioapic.irr), F(ioapic.redirtbl),     PIT(0),
	PIT(1),	      PIT(2),	     F(pit.flags),	     F(clock),
};

void saved_chips_init(struct saved_chips *s, const struct machine *vm)
{
	memset(s, 0, sizeof(*s));
	s->vm = vm;
	s->device = (struct device){ .name = "chips",
				     .version = 1,
				     .self = s,
				     .fields = chips_fields,
				     .field_count = ARRAY_SIZE(chips_fields) };
}

static int request(const struct saved_chips *s, unsigned long number, const void *argument,
		   const char *name, struct why *why)
{
	return machine_request(s->vm, s->vm->fd, number, argument, name, why);
}

int saved_chips_fetch(struct saved_chips *s, struct why *why)
{
	struct kvm_irqchip chip;
	struct kvm_clock_data clock = { 0 };
	int r = 0;

	for (u32 i = 0; i < 3 && r >= 0; i++) {
		chip = (struct kvm_irqchip){ .chip_id = i };
		r = request(s, KVM_GET_IRQCHIP, &chip, "KVM_GET_IRQCHIP", why);
		if (i < 2)
			s->pic[i] = chip.chip.pic;
		else
			s->ioapic = chip.chip.ioapic;
	}
	if (r >= 0)
		r = request(s, KVM_GET_PIT2, &s->pit, "KVM_GET_PIT2", why);
	if (r >= 0)
		r = request(s, KVM_GET_CLOCK, &clock, "KVM_GET_CLOCK", why);
	s->clock = clock.clock;
	return r < 0 ? r : 0;
}

int saved_chips_put(const struct saved_chips *s, struct why *why)
{
	const struct kvm_clock_data clock = { .clock = s->clock };
	struct kvm_irqchip chip;
	int r = 0;

	for (u32 i = 0; i < 3 && r >= 0; i++) {
		chip = (struct kvm_irqchip){ .chip_id = i };
		if (i < 2)
			chip.chip.pic = s->pic[i];
		else
			chip.chip.ioapic = s->ioapic;
		r = request(s, KVM_SET_IRQCHIP, &chip, "KVM_SET_IRQCHIP", why);
	}
	if (r >= 0)
		r = request(s, KVM_SET_PIT2, &s->pit, "KVM_SET_PIT2", why);
	if (r >= 0)
		r = request(s, KVM_SET_CLOCK, &clock, "KVM_SET_CLOCK", why);
	return r < 0 ? r : 0;
}
