/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Vector state of a vCPU: the host's layout, reset, and the images of the ioctls. */
#include "cpu/x86/fpu.h"

#include <errno.h>
#include <linux/kvm.h>

#include "base/bulk.h"
#include "cpu/x86/xstate.h"

static struct xstate_layout layout;
static bool layout_known;

static void cpuid_native(u32 function, u32 index, u32 out[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
			 : "a"(function), "c"(index));
}

static u32 mxcsr_mask_native(void)
{
	u8 area[512] __attribute__((aligned(16)));
	u32 mask;

	bulk_zero(area, sizeof(area));
	__asm__ volatile("fxsave %0" : "+m"(area));
	__builtin_memcpy(&mask, area + XS_MXCSR_MASK, sizeof(mask));
	return mask ? mask : 0xffbf;
}

/* SDM "XCR0": AVX needs SSE, the three parts of AVX-512 come together. */
static u64 xcr0_native(void)
{
	u32 out[4], lo, hi;

	cpuid_native(1, 0, out);
	if (!(out[2] & BIT(27)))
		return XC_LEGACY;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (lo & 0xe7) == 0xe7 ? 0xe7 : (lo & 7) == 7 ? 7 : XC_LEGACY;
}

const struct xstate_layout *xstate_layout(void)
{
	struct xstate_layout l = { 0 };
	u32 out[4];

	if (likely(__atomic_load_n(&layout_known, __ATOMIC_ACQUIRE)))
		return &layout;
	l.xcr0 = xcr0_native();
	l.mxcsr_mask = mxcsr_mask_native();
	for (unsigned i = 2; i < XC_COUNT; i++) {
		if (!(l.xcr0 >> i & 1))
			continue;
		cpuid_native(0xd, i, out);
		if (!out[0] || out[1] < XS_EXTENDED || out[0] + out[1] > X86_XSAVE_MAX) {
			l.xcr0 &= BIT_ULL(i) - 1;
			break;
		}
		l.size[i] = out[0];
		l.offset[i] = out[1];
		l.align64[i] = out[2] & 2;
	}
	/* Two threads may both come here: they store the same bytes. */
	bulk_copy(&layout, &l, sizeof(l));
	__atomic_store_n(&layout_known, true, __ATOMIC_RELEASE);
	return &layout;
}

u64 x86_fpu_host_xcr0(void)
{
	return xstate_layout()->xcr0;
}

u64 x86_fpu_xinuse(const struct x86_cpu *cpu)
{
	return xs_get64(cpu, XS_BV);
}

/* Reserved bits of FCW: bit 6 is 1, the others are 0. */
#define FCW_DEFINED 0x1f3f
#define FCW_ONES    0x40

void xstate_x87_set(struct x86_cpu *cpu, u16 fcw, u16 fsw, u8 ftw)
{
	fcw = (fcw & FCW_DEFINED) | FCW_ONES;
	fsw &= ~(FSW_ES | FSW_B);
	if (fsw & ~fcw & FSW_EXCEPTIONS)
		fsw |= FSW_ES | FSW_B;
	xs_set16(cpu, XS_FCW, fcw);
	xs_set16(cpu, XS_FSW, fsw);
	xs_set16(cpu, XS_FTW, ftw);
	xs_set16(cpu, XS_FOP, 0);
	xs_set64(cpu, XS_FIP, 0);
	xs_set64(cpu, XS_FDP, 0);
}

void xstate_complete(struct x86_cpu *cpu, u64 which)
{
	const struct xstate_layout *l = xstate_layout();

	which &= l->xcr0 & ~xs_get64(cpu, XS_BV);
	if (which & XC_X87) {
		xstate_x87_set(cpu, FCW_INIT, 0, 0);
		bulk_zero(cpu->xsave + XS_ST, 8 * 16);
	}
	if (which & XC_SSE) /* MXCSR is valid in any case */
		bulk_zero(cpu->xsave + XS_XMM, 16 * 16);
	for (unsigned i = 2; i < XC_COUNT; i++)
		if (which >> i & 1)
			bulk_zero(cpu->xsave + l->offset[i], l->size[i]);
}

void x86_fpu_reset(struct x86_cpu *cpu)
{
	bulk_zero(cpu->xsave, sizeof(cpu->xsave));
	xs_set16(cpu, XS_FCW, FCW_INIT);
	xs_set32(cpu, XS_MXCSR, MXCSR_INIT);
	xs_set64(cpu, XS_BV, XC_LEGACY);
}

void x86_fpu_get(const struct x86_cpu *cpu, struct kvm_fpu *fpu)
{
	u64 bv = xs_get64(cpu, XS_BV);

	bulk_zero(fpu, sizeof(*fpu));
	fpu->fcw = FCW_INIT;
	if (bv & XC_X87) {
		bulk_copy(fpu->fpr, cpu->xsave + XS_ST, sizeof(fpu->fpr));
		fpu->fcw = xs_get16(cpu, XS_FCW);
		fpu->fsw = xs_get16(cpu, XS_FSW);
		fpu->ftwx = xs_get16(cpu, XS_FTW);
	}
	if (bv & XC_SSE)
		bulk_copy(fpu->xmm, cpu->xsave + XS_XMM, sizeof(fpu->xmm));
	fpu->mxcsr = xs_get32(cpu, XS_MXCSR);
}

void x86_fpu_set(struct x86_cpu *cpu, const struct kvm_fpu *fpu)
{
	/*
	 * DIFFERS: last_ip, last_dp and last_opcode are not kept: the host's would be shown in their place. Reserved bits of FCW and
	 * the error summary become what the processor makes of them at once, not when the vCPU runs.
	 */
	xstate_x87_set(cpu, fpu->fcw, fpu->fsw, fpu->ftwx);
	bulk_copy(cpu->xsave + XS_ST, fpu->fpr, sizeof(fpu->fpr));
	bulk_copy(cpu->xsave + XS_XMM, fpu->xmm, sizeof(fpu->xmm));
	xs_set32(cpu, XS_MXCSR, fpu->mxcsr & xstate_layout()->mxcsr_mask);
	xs_set64(cpu, XS_BV, xs_get64(cpu, XS_BV) | XC_LEGACY);
}

/* Copy [from, from + n) of the state to the same place of an image of @size bytes. */
static void image_copy(u8 *image, size_t size, const u8 *state, size_t from, size_t n)
{
	if (from >= size)
		return;
	bulk_copy(image + from, state + from, n < size - from ? n : size - from);
}

void x86_xsave_get(const struct x86_cpu *cpu, void *image, size_t size)
{
	const struct xstate_layout *l = xstate_layout();
	u64 bv = (xs_get64(cpu, XS_BV) & l->xcr0) | XC_LEGACY;
	struct x86_cpu *c = (struct x86_cpu *)cpu;
	u8 head[XS_EXTENDED];

	/* Initial components become explicit, which changes no state. */
	xstate_complete(c, XC_LEGACY);
	bulk_zero(image, size);
	bulk_zero(head, sizeof(head));
	bulk_copy(head, cpu->xsave, XS_LEGACY);
	bulk_zero(head + XS_FOP, XS_MXCSR - XS_FOP);
	__builtin_memcpy(head + XS_MXCSR_MASK, &l->mxcsr_mask, 4);
	__builtin_memcpy(head + XS_BV, &bv, sizeof(bv));
	image_copy(image, size, head, 0, sizeof(head));
	for (unsigned i = 2; i < XC_COUNT; i++)
		if (bv >> i & 1)
			image_copy(image, size, cpu->xsave, l->offset[i], l->size[i]);
}

/* What KVM_SET_XSAVE refuses. */
static bool image_is_valid(const struct x86_cpu *cpu, const u8 *image, size_t size)
{
	const struct xstate_layout *l = xstate_layout();
	u64 allowed = cpu->xcr0_host ? cpu->xcr0_host & l->xcr0 : l->xcr0;
	u64 header[8];
	u32 mxcsr;

	if (size < XS_EXTENDED)
		return false;
	bulk_copy(header, image + XS_HEADER, sizeof(header));
	if (header[0] & ~(allowed | XC_LEGACY))
		return false;
	for (unsigned i = 1; i < 8; i++)
		if (header[i])
			return false;
	__builtin_memcpy(&mxcsr, image + XS_MXCSR, 4);
	if (header[0] & (XC_SSE | XC_AVX) && mxcsr & ~l->mxcsr_mask)
		return false;
	for (unsigned i = 2; i < XC_COUNT; i++)
		if (header[0] >> i & 1 && (size_t)l->offset[i] + l->size[i] > size)
			return false;
	return true;
}

int x86_xsave_set(struct x86_cpu *cpu, const void *image, size_t size)
{
	const struct xstate_layout *l = xstate_layout();
	const u8 *from = image;
	u64 bv;

	if (!image_is_valid(cpu, from, size))
		return -EINVAL;
	__builtin_memcpy(&bv, from + XS_BV, sizeof(bv));
	x86_fpu_reset(cpu);
	if (bv & XC_X87) {
		bulk_copy(cpu->xsave, from, 6);
		bulk_copy(cpu->xsave + XS_ST, from + XS_ST, 8 * 16);
	}
	if (bv & XC_SSE)
		bulk_copy(cpu->xsave + XS_XMM, from + XS_XMM, 16 * 16);
	if (bv & (XC_SSE | XC_AVX))
		bulk_copy(cpu->xsave + XS_MXCSR, from + XS_MXCSR, 4);
	for (unsigned i = 2; i < XC_COUNT; i++)
		if (bv >> i & 1)
			bulk_copy(cpu->xsave + l->offset[i], from + l->offset[i], l->size[i]);
	/* x87 and SSE stay explicit: a host with FXSAVE alone has no other form. */
	xs_set64(cpu, XS_BV, bv | XC_LEGACY);
	return 0;
}
