/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Arguments of ioctls in words: structures by the rows of fields.def, lists by functions. */
#include "kvm/trace/decode.h"

#include <string.h>

#include "base/kvm_names.h"
#include "kvm/usercopy.h"

/* More of a list than this is "...". */
#define LIST_SHOWN 8
#define LIST_ROOM  (LIST_SHOWN + 1)

#define NAMED(x)                                                                                   \
	{                                                                                          \
		x, #x                                                                              \
	}

static const struct line_name memory_flags[] = { NAMED(KVM_MEM_LOG_DIRTY_PAGES),
						 NAMED(KVM_MEM_READONLY),
						 { 0, NULL } };
static const struct line_name irqfd_flags[] = { NAMED(KVM_IRQFD_FLAG_DEASSIGN),
						NAMED(KVM_IRQFD_FLAG_RESAMPLE),
						{ 0, NULL } };
static const struct line_name ioeventfd_flags[] = { NAMED(KVM_IOEVENTFD_FLAG_DATAMATCH),
						    NAMED(KVM_IOEVENTFD_FLAG_PIO),
						    NAMED(KVM_IOEVENTFD_FLAG_DEASSIGN),
						    { 0, NULL } };
static const struct line_name clock_flags[] = { NAMED(KVM_CLOCK_TSC_STABLE),
						NAMED(KVM_CLOCK_REALTIME),
						NAMED(KVM_CLOCK_HOST_TSC),
						{ 0, NULL } };
static const struct line_name debug_flags[] = {
	NAMED(KVM_GUESTDBG_ENABLE),    NAMED(KVM_GUESTDBG_SINGLESTEP),
	NAMED(KVM_GUESTDBG_USE_SW_BP), NAMED(KVM_GUESTDBG_USE_HW_BP),
	NAMED(KVM_GUESTDBG_INJECT_DB), NAMED(KVM_GUESTDBG_INJECT_BP),
	NAMED(KVM_GUESTDBG_BLOCKIRQ),  { 0, NULL }
};
static const struct line_name irqchips[] = { NAMED(KVM_IRQCHIP_PIC_MASTER),
					     NAMED(KVM_IRQCHIP_PIC_SLAVE),
					     NAMED(KVM_IRQCHIP_IOAPIC),
					     { 0, NULL } };
static const struct line_name mp_states[] = { NAMED(KVM_MP_STATE_RUNNABLE),
					      NAMED(KVM_MP_STATE_UNINITIALIZED),
					      NAMED(KVM_MP_STATE_INIT_RECEIVED),
					      NAMED(KVM_MP_STATE_HALTED),
					      NAMED(KVM_MP_STATE_SIPI_RECEIVED),
					      NAMED(KVM_MP_STATE_AP_RESET_HOLD),
					      { 0, NULL } };

typedef void (*how_fn)(struct line *l, u64 value);

static void show_DEC(struct line *l, u64 value)
{
	line_add(l, "%llu", (unsigned long long)value);
}

/* 32 bits wide where it is used. */
static void show_SIGNED(struct line *l, u64 value)
{
	line_add(l, "%d", (s32)value);
}

static void show_HEX(struct line *l, u64 value)
{
	line_hex(l, value);
}

static void show_USER(struct line *l, u64 value)
{
	line_user(l, value);
}

static void show_MSR(struct line *l, u64 value)
{
	line_msr(l, (u32)value);
}

static void show_CAP(struct line *l, u64 value)
{
	const char *name = value <= ~0u ? kvm_name_of(KVM_NAME_CAP, (u32)value) : NULL;

	if (name)
		line_add(l, "%s", name);
	else
		line_hex(l, value);
}

#define SHOW(how, names)                                                                           \
	static void show_##names(struct line *l, u64 value)                                        \
	{                                                                                          \
		line_##how(l, names, value);                                                       \
	}
SHOW(flags, memory_flags)
SHOW(flags, irqfd_flags)
SHOW(flags, ioeventfd_flags)
SHOW(flags, clock_flags)
SHOW(flags, debug_flags)
SHOW(enum, irqchips)
SHOW(enum, mp_states)

static const struct field {
	u32 request;
	u16 offset, size;
	const char *name;
	how_fn show;
} fields[] = {
/* clang-format off */
#define FIELD(request, type, member, how) \
	{ (u32)KVM_##request, offsetof(type, member), sizeof(((type *)0)->member), #member, show_##how },
#include "kvm/trace/fields.def"
#undef FIELD
	/* clang-format on */
};

/* Whether there was one. */
static bool show_fields(struct line *l, u32 request, const u8 *data)
{
	bool any = false;

	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
		const struct field *f = &fields[i];
		u64 value = 0;

		if (f->request != request)
			continue;
		if (!any)
			line_open(l);
		any = true;
		memcpy(&value, data + f->offset, f->size);
		line_field(l, f->name);
		f->show(l, value);
	}
	if (any)
		line_close(l);
	return any;
}

static void show_segment(struct line *l, const char *name, const struct kvm_segment *s)
{
	line_field(l, name);
	line_add(l, "{selector=%#x, base=%#llx, limit=%#x, type=%u, dpl=%u, db=%u, l=%u}",
		 s->selector, (unsigned long long)s->base, s->limit, s->type, s->dpl, s->db, s->l);
}

/* The head, and LIST_SHOWN entries; false: not readable. */
#define LIST(head, entries, type)                                                                  \
	struct {                                                                                   \
		struct head head;                                                                  \
		type entry[LIST_ROOM];                                                             \
	} list;                                                                                    \
	unsigned n;                                                                                \
	if (user_read(&list.head, arg, sizeof(list.head)))                                         \
		return false;                                                                      \
	n = list.head.entries < LIST_ROOM ? list.head.entries : LIST_ROOM;                         \
	if (user_read(list.entry, arg + sizeof(list.head), n * sizeof(type)))                      \
		n = 0;                                                                             \
	line_open(l);                                                                              \
	line_field(l, #entries);                                                                   \
	line_add(l, "%u, [", list.head.entries);                                                   \
	l->gap = ""

static void list_end(struct line *l, unsigned n)
{
	line_add(l, n > LIST_SHOWN ? ", ...]}" : "]}");
}

static bool show_msrs(struct line *l, unsigned long arg)
{
	LIST(kvm_msrs, nmsrs, struct kvm_msr_entry);
	for (unsigned i = 0; i < n && i < LIST_SHOWN; i++) {
		line_add(l, "%s", i ? ", " : "");
		line_msr(l, list.entry[i].index);
		line_add(l, "=");
		line_hex(l, list.entry[i].data);
	}
	list_end(l, n);
	return true;
}

static bool show_msr_list(struct line *l, unsigned long arg)
{
	LIST(kvm_msr_list, nmsrs, u32);
	for (unsigned i = 0; i < n && i < LIST_SHOWN; i++) {
		line_add(l, "%s", i ? ", " : "");
		line_msr(l, list.entry[i]);
	}
	list_end(l, n);
	return true;
}

static bool show_cpuid(struct line *l, unsigned long arg)
{
	LIST(kvm_cpuid2, nent, struct kvm_cpuid_entry2);
	for (unsigned i = 0; i < n && i < LIST_SHOWN; i++) {
		const struct kvm_cpuid_entry2 *e = &list.entry[i];

		line_add(l, "%s%#x", i ? ", " : "", e->function);
		if (e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)
			line_add(l, ".%u", e->index);
		line_add(l, "={%#x, %#x, %#x, %#x}", e->eax, e->ebx, e->ecx, e->edx);
	}
	list_end(l, n);
	return true;
}

static void show_route(struct line *l, const struct kvm_irq_routing_entry *e)
{
	line_add(l, "{gsi=%u, ", e->gsi);
	switch (e->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		line_enum(l, irqchips, e->u.irqchip.irqchip);
		line_add(l, " pin=%u}", e->u.irqchip.pin);
		break;
	case KVM_IRQ_ROUTING_MSI:
		line_add(l, "MSI address=%#llx data=%#x}",
			 (unsigned long long)e->u.msi.address_hi << 32 | e->u.msi.address_lo,
			 e->u.msi.data);
		break;
	case KVM_IRQ_ROUTING_HV_SINT:
		line_add(l, "SINT vcpu=%u sint=%u}", e->u.hv_sint.vcpu, e->u.hv_sint.sint);
		break;
	case KVM_IRQ_ROUTING_XEN_EVTCHN:
		line_add(l, "XEN port=%u vcpu=%u}", e->u.xen_evtchn.port, e->u.xen_evtchn.vcpu);
		break;
	default:
		line_add(l, "type=%u}", e->type);
	}
}

static bool show_routing(struct line *l, unsigned long arg)
{
	LIST(kvm_irq_routing, nr, struct kvm_irq_routing_entry);
	for (unsigned i = 0; i < n && i < LIST_SHOWN; i++) {
		line_add(l, "%s", i ? ", " : "");
		show_route(l, &list.entry[i]);
	}
	list_end(l, n);
	return true;
}

/* Numbers of the signals that are blocked. */
static bool show_sigmask(struct line *l, unsigned long arg)
{
	struct {
		struct kvm_signal_mask head;
		u64 set;
	} __attribute__((packed)) m = { .set = 0 };
	const char *gap = "";

	if (!arg || user_read(&m, arg, sizeof(m)))
		return false;
	line_add(l, "{len=%u, blocked=[", m.head.len);
	for (unsigned i = 0; i < 64; i++) {
		if (!(m.set >> i & 1))
			continue;
		line_add(l, "%s%u", gap, i + 1);
		gap = " ";
	}
	line_add(l, "]}");
	return true;
}

static bool show_lapic(struct line *l, unsigned long arg)
{
	struct kvm_lapic_state s;
	u32 id, tpr, svr;

	if (user_read(&s, arg, sizeof(s)))
		return false;
	memcpy(&id, s.regs + 0x20, 4);
	memcpy(&tpr, s.regs + 0x80, 4);
	memcpy(&svr, s.regs + 0xf0, 4);
	line_add(l, "{id=%#x, tpr=%#x, svr=%#x}", id, tpr, svr);
	return true;
}

static bool show_sregs(struct line *l, unsigned long arg, u32 request)
{
	union {
		struct kvm_sregs s;
		struct kvm_sregs2 s2;
	} u;

	/* The segments lie alike in both. */
	if (user_read(&u, arg, _IOC_SIZE(request)))
		return false;
	show_fields(l, request, (const u8 *)&u);
	l->n -= l->n < l->room; /* the brace */
	show_segment(l, "cs", &u.s.cs);
	show_segment(l, "ss", &u.s.ss);
	show_segment(l, "tr", &u.s.tr);
	line_close(l);
	return true;
}

static bool show_number(struct line *l, unsigned long arg)
{
	u64 value;

	if (user_read(&value, arg, sizeof(value)))
		return false;
	line_add(l, "[");
	line_hex(l, value);
	line_add(l, "]");
	return true;
}

/* Structures that are more than the rows of fields.def. */
static bool show_list(struct line *l, u32 request, unsigned long arg, bool *was_list)
{
	*was_list = true;
	switch (request) {
	case (u32)KVM_GET_MSRS:
	case (u32)KVM_SET_MSRS:
		return show_msrs(l, arg);
	case (u32)KVM_GET_MSR_INDEX_LIST:
	case (u32)KVM_GET_MSR_FEATURE_INDEX_LIST:
		return show_msr_list(l, arg);
	case (u32)KVM_GET_SUPPORTED_CPUID:
	case (u32)KVM_GET_EMULATED_CPUID:
	case (u32)KVM_GET_SUPPORTED_HV_CPUID:
	case (u32)KVM_GET_CPUID2:
	case (u32)KVM_SET_CPUID2:
		return show_cpuid(l, arg);
	case (u32)KVM_SET_GSI_ROUTING:
		return show_routing(l, arg);
	case (u32)KVM_SET_SIGNAL_MASK:
		return show_sigmask(l, arg);
	case (u32)KVM_GET_LAPIC:
	case (u32)KVM_SET_LAPIC:
		return show_lapic(l, arg);
	case (u32)KVM_GET_SREGS:
	case (u32)KVM_SET_SREGS:
	case (u32)KVM_GET_SREGS2:
	case (u32)KVM_SET_SREGS2:
		return show_sregs(l, arg, request);
	case (u32)KVM_SET_IDENTITY_MAP_ADDR:
	case (u32)KVM_X86_SETUP_MCE:
	case (u32)KVM_X86_GET_MCE_CAP_SUPPORTED:
		return show_number(l, arg);
	default:
		*was_list = false;
		return false;
	}
}

static void show_structure(struct line *l, const struct ioctl_row *row, unsigned long arg)
{
	u8 data[sizeof(struct kvm_xsave)] __attribute__((aligned(8)));
	const size_t size = _IOC_SIZE(row->request);
	bool was_list;

	if (show_list(l, row->request, arg, &was_list))
		return;
	if (was_list || size > sizeof(data) || user_read(data, arg, size) ||
	    !show_fields(l, row->request, data))
		line_user(l, arg);
}

static bool is_structure(const struct ioctl_row *row)
{
	return row->pass != PASS_VALUE && row->pass != PASS_NONE;
}

bool decode_shows_after(const struct ioctl_row *row)
{
	return row && is_structure(row) && _IOC_DIR(row->request) & _IOC_READ;
}

/* What has its meaning after the call only stands there. */
void decode_before(struct line *l, const struct ioctl_row *row, unsigned long arg)
{
	if (!row)
		line_hex(l, arg);
	else if (is_structure(row) && (!decode_shows_after(row) || row->pass == PASS_INOUT))
		show_structure(l, row, arg);
	else if (!is_structure(row) && row->request == KVM_CHECK_EXTENSION)
		show_CAP(l, arg);
	else if (!is_structure(row))
		line_hex(l, arg);
}

void decode_after(struct line *l, const struct ioctl_row *row, unsigned long arg, bool is_success)
{
	if (row->pass == PASS_INOUT && is_success)
		line_add(l, " => ");
	if (is_success)
		show_structure(l, row, arg);
	else if (row->pass != PASS_INOUT)
		line_user(l, arg);
}
