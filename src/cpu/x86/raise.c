/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Exceptions on their way: what a fault leaves in cpu->exc. */
#include "cpu/x86/raise.h"

enum x86_status x86_raise(struct x86_cpu *cpu, unsigned vector)
{
	cpu->exc = (struct x86_exception){ .vector = vector };
	return X86_FAULT;
}

enum x86_status x86_raise_error(struct x86_cpu *cpu, unsigned vector, u32 error)
{
	cpu->exc = (struct x86_exception){ .vector = vector, .has_error = true, .error = error };
	return X86_FAULT;
}

enum x86_status x86_raise_gp(struct x86_cpu *cpu, u32 error)
{
	return x86_raise_error(cpu, VEC_GP, error);
}

enum x86_status x86_raise_ud(struct x86_cpu *cpu)
{
	return x86_raise(cpu, VEC_UD);
}

enum x86_status x86_raise_pf(struct x86_cpu *cpu, u32 error, gva_t address)
{
	cpu->exc = (struct x86_exception){
		.vector = VEC_PF,
		.has_error = true,
		.has_payload = true,
		.error = error,
		.payload = address,
	};
	return X86_FAULT;
}

enum x86_status x86_raise_db(struct x86_cpu *cpu, u64 dr6_bits)
{
	cpu->exc = (struct x86_exception){
		.vector = VEC_DB,
		.has_payload = true,
		.payload = dr6_bits,
	};
	return X86_FAULT;
}
