/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* All 64 bits of a register are read without a reason. */
u64 f(struct x86_cpu *cpu)
{
	return x86_gpr_raw(cpu, 0);
}
