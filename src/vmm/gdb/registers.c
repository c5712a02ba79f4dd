/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Registers of an x86-64 processor as gdb numbers and names them. */
#include <stdio.h>
#include <string.h>

#include "vmm/gdb/target.h"

#define IN(member) offsetof(struct gdb_registers, member)
#define GPR(name)                                                                                  \
	{                                                                                          \
#name, 8, 8, IN(regs.name), "int64", CORE                                          \
	}
#define SEGMENT(name)                                                                              \
	{                                                                                          \
#name, 4, 2, IN(sregs.name.selector), "int32", CORE                                \
	}
#define ST(i)                                                                                      \
	{                                                                                          \
		"st" #i, 10, 10, IN(fpu.fpr[i]), "i387_ext", CORE                                  \
	}
#define FPU(name, from)                                                                            \
	{                                                                                          \
		name, 4, sizeof(((struct kvm_fpu *)0)->from), IN(fpu.from), "int", CORE            \
	}
#define XMM(i)                                                                                     \
	{                                                                                          \
		"xmm" #i, 16, 16, IN(fpu.xmm[i]), "uint128", SSE                                   \
	}
#define CONTROL(name)                                                                              \
	{                                                                                          \
#name, 8, 8, IN(sregs.name), "int64", SYSTEM                                       \
	}

enum feature { CORE, SSE, SEGMENTS, SYSTEM, FEATURES };

static const char *const features[FEATURES] = {
	[CORE] = "org.gnu.gdb.i386.core",
	[SSE] = "org.gnu.gdb.i386.sse",
	[SEGMENTS] = "org.gnu.gdb.i386.segments",
	[SYSTEM] = "org.anykvm.system",
};

/* clang-format off */
static const struct register_row {
	const char *name;
	u8 bytes;  /* in the protocol */
	u8 there;  /* in the structure; the rest is zeros */
	u16 offset;
	const char *type;
	enum feature feature;
} rows[] = {
	GPR(rax), GPR(rbx), GPR(rcx), GPR(rdx), GPR(rsi), GPR(rdi), GPR(rbp), GPR(rsp),
	GPR(r8), GPR(r9), GPR(r10), GPR(r11), GPR(r12), GPR(r13), GPR(r14), GPR(r15),
	{ "rip", 8, 8, IN(regs.rip), "code_ptr", CORE },
	{ "eflags", 4, 4, IN(regs.rflags), "int32", CORE },
	SEGMENT(cs), SEGMENT(ss), SEGMENT(ds), SEGMENT(es), SEGMENT(fs), SEGMENT(gs),
	ST(0), ST(1), ST(2), ST(3), ST(4), ST(5), ST(6), ST(7),
	FPU("fctrl", fcw), FPU("fstat", fsw), FPU("ftag", ftwx),
	{ "fiseg", 4, 0, 0, "int", CORE }, { "fioff", 4, 4, IN(fpu.last_ip), "int", CORE },
	{ "foseg", 4, 0, 0, "int", CORE }, { "fooff", 4, 4, IN(fpu.last_dp), "int", CORE },
	FPU("fop", last_opcode),
	XMM(0), XMM(1), XMM(2), XMM(3), XMM(4), XMM(5), XMM(6), XMM(7),
	XMM(8), XMM(9), XMM(10), XMM(11), XMM(12), XMM(13), XMM(14), XMM(15),
	{ "mxcsr", 4, 4, IN(fpu.mxcsr), "int32", SSE },
	{ "fs_base", 8, 8, IN(sregs.fs.base), "int64", SEGMENTS },
	{ "gs_base", 8, 8, IN(sregs.gs.base), "int64", SEGMENTS },
	CONTROL(cr0), CONTROL(cr2), CONTROL(cr3), CONTROL(cr4), CONTROL(cr8), CONTROL(efer),
	CONTROL(apic_base),
};
/* clang-format on */

unsigned gdb_register_read(const struct gdb_registers *r, unsigned i, u8 out[GDB_REGISTER_BYTES])
{
	if (i >= ARRAY_SIZE(rows))
		return 0;
	memset(out, 0, GDB_REGISTER_BYTES);
	memcpy(out, (const u8 *)r + rows[i].offset, rows[i].there);
	return rows[i].bytes;
}

unsigned gdb_register_write(struct gdb_registers *r, unsigned i, const u8 in[GDB_REGISTER_BYTES])
{
	if (i >= ARRAY_SIZE(rows))
		return 0;
	memcpy((u8 *)r + rows[i].offset, in, rows[i].there);
	return rows[i].bytes;
}

static void description_write(FILE *f)
{
	fputs("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
	      "<architecture>i386:x86-64</architecture>",
	      f);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (i == 0 || rows[i].feature != rows[i - 1].feature)
			fprintf(f, "%s<feature name=\"%s\">", i ? "</feature>" : "",
				features[rows[i].feature]);
		fprintf(f, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%zu\"/>",
			rows[i].name, rows[i].bytes * 8u, rows[i].type, i);
	}
	fputs("</feature></target>", f);
}

const char *gdb_description(void)
{
	static char text[8192];
	FILE *f = text[0] ? NULL : fmemopen(text, sizeof(text), "w");

	if (f) {
		description_write(f);
		fclose(f);
	}
	return text;
}

int gdb_registers_get(const struct control_machine *m, unsigned cpu, struct gdb_registers *r)
{
	const int fd = m->cpus[cpu]->fd;
	int err = kvmdev_ioctl_ptr(m->dev, fd, KVM_GET_REGS, &r->regs);

	if (err >= 0)
		err = kvmdev_ioctl_ptr(m->dev, fd, KVM_GET_SREGS, &r->sregs);
	if (err >= 0)
		err = kvmdev_ioctl_ptr(m->dev, fd, KVM_GET_FPU, &r->fpu);
	return err < 0 ? err : 0;
}

/* What has not changed is not set: a set of system registers has checks and effects of its own. */
int gdb_registers_set(const struct control_machine *m, unsigned cpu, const struct gdb_registers *r)
{
	const int fd = m->cpus[cpu]->fd;
	struct gdb_registers now;
	int err = gdb_registers_get(m, cpu, &now);

	if (err == 0 && memcmp(&now.regs, &r->regs, sizeof(now.regs)))
		err = kvmdev_ioctl_ptr(m->dev, fd, KVM_SET_REGS, &r->regs);
	if (err >= 0 && memcmp(&now.fpu, &r->fpu, sizeof(now.fpu)))
		err = kvmdev_ioctl_ptr(m->dev, fd, KVM_SET_FPU, &r->fpu);
	if (err >= 0 && memcmp(&now.sregs, &r->sregs, sizeof(now.sregs)))
		err = kvmdev_ioctl_ptr(m->dev, fd, KVM_SET_SREGS, &r->sregs);
	return err < 0 ? err : 0;
}
