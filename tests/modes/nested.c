/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Rules of VMX and SVM operands: data for the day on which such guests run; printed, not tried. */
#include "modes.h"

#define VMX_MODES (ALL & ~(REALLIKE | COMPAT))

static const struct nested_rule {
	const char *name, *operand;
	u32 exists;		   /* elsewhere #UD */
	const char *wide, *narrow; /* in 64-bit mode, and where it exists outside */
} nested[] = {
	{ "VMREAD r/m,r", "field encoding", VMX_MODES, "64 bits; bits 63:32 not 0: VMfailValid(12)",
	  "32 bits, the upper half ignored" },
	{ "VMREAD r/m,r", "value", VMX_MODES, "64 bits, a 32-bit field zero-extended",
	  "low 32 bits; the high half of a 64-bit field by encoding + 1" },
	{ "VMWRITE r,r/m", "field encoding", VMX_MODES,
	  "64 bits; bits 63:32 not 0: VMfailValid(12)", "32 bits, the upper half ignored" },
	{ "VMWRITE r,r/m", "value", VMX_MODES, "64 bits", "32 bits, the upper half ignored" },
	{ "VMPTRLD m64", "address", VMX_MODES, "rules_address.c; not canonical: #GP, SS: #SS",
	  "effective address cut, base added, cut to 32 bits; type, limit" },
	{ "VMPTRST m64", "address", VMX_MODES, "as VMPTRLD", "as VMPTRLD" },
	{ "VMCLEAR m64", "address", VMX_MODES, "as VMPTRLD", "as VMPTRLD" },
	{ "VMXON m64", "address", VMX_MODES, "as VMPTRLD", "as VMPTRLD" },
	{ "INVEPT r,m128", "type", VMX_MODES, "64 bits", "32 bits, the upper half ignored" },
	{ "INVVPID r,m128", "type", VMX_MODES, "64 bits", "32 bits, the upper half ignored" },
	{ "INVLPGA", "rAX, ECX", ALL & ~REALLIKE, "RAX, with 67h EAX; ASID is ECX",
	  "EAX or AX by the address size, also in compatibility mode" },
	{ "VMRUN", "rAX", ALL & ~REALLIKE, "RAX, with 67h EAX", "EAX or AX by the address size" },
	{ "VMLOAD", "rAX", ALL & ~REALLIKE, "RAX, with 67h EAX", "EAX or AX by the address size" },
	{ "VMSAVE", "rAX", ALL & ~REALLIKE, "RAX, with 67h EAX", "EAX or AX by the address size" },
};

void nested_print(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(nested); i++)
		printf("# not tried yet: %s, %s: 64-bit mode %s; outside %s\n", nested[i].name,
		       nested[i].operand, nested[i].wide, nested[i].narrow);
}
