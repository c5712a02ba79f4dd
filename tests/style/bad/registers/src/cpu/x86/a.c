/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A register is read behind the accessors. */
u64 f(struct x86_cpu *cpu)
{
	return cpu->gpr[0];
}
