// SPDX-License-Identifier: MIT OR Apache-2.0
/* Control-flow workloads: calls through a table, a bytecode interpreter, deep recursion. */
#include "gbench.h"

typedef uint64_t (*step_fn)(uint64_t);

#define STEP(n)                                                                                    \
	static __attribute__((noinline)) uint64_t step_##n(uint64_t x)                             \
	{                                                                                          \
		return (x ^ (x >> (n + 3))) * (2 * n + 0x10001) + n;                               \
	}
STEP(0)
STEP(1)
STEP(2)
STEP(3)
STEP(4)
STEP(5)
STEP(6)
STEP(7)
STEP(8)
STEP(9)
STEP(10)
STEP(11)
STEP(12)
STEP(13)
STEP(14)
STEP(15)

static step_fn steps[16] = { step_0, step_1, step_2,  step_3,  step_4,	step_5,	 step_6,  step_7,
			     step_8, step_9, step_10, step_11, step_12, step_13, step_14, step_15 };

static uint64_t indirect_run(unsigned long reps)
{
	uint64_t x = 1;

	for (unsigned long n = 0; n < reps; n++) {
		step_fn *table = steps;

		OPAQUE(table);
		/* A pattern with a period that predictors learn, and now and then the unforeseen. */
		x = table[n & 31 ? n * 7 & 15 : x >> 20 & 15](x);
	}
	return x;
}

/* --- A stack machine that counts the steps of the Collatz sequences. --- */

enum op { PUSH, LOAD, STORE, ADD, SUB, MUL3, HALF, AND1, JZ, JMP, LESS, END };

static const int16_t program[] = {
	/* 0: i = 1 */ PUSH,
	1,
	STORE,
	0,
	/* 4: if !(i < limit) end */ LOAD,
	0,
	LOAD,
	3,
	LESS,
	JZ,
	51,
	/* 11: x = i */ LOAD,
	0,
	STORE,
	1,
	/* 15: if !(1 < x) goto 44 */ PUSH,
	1,
	LOAD,
	1,
	LESS,
	JZ,
	44,
	/* 22: count++ */ LOAD,
	2,
	PUSH,
	1,
	ADD,
	STORE,
	2,
	/* 29: x odd? */ LOAD,
	1,
	AND1,
	JZ,
	39,
	/* 34: x = 3x + 1, in two */ LOAD,
	1,
	MUL3,
	STORE,
	1,
	/* 39: */ LOAD,
	1,
	HALF,
	STORE,
	1,
	/* 44: next, by way of 15 while x > 1 */ LOAD,
	1,
	JMP,
	52,
	0,
	0,
	0,
	/* 51: */ END,
	/* 52: (x on the stack) */ PUSH,
	1,
	SUB,
	JZ,
	59,
	JMP,
	15,
	/* 59: i++ */ LOAD,
	0,
	PUSH,
	1,
	ADD,
	STORE,
	0,
	JMP,
	4,
};

static __attribute__((noinline)) uint64_t interpret(const int16_t *code, uint64_t limit)
{
	uint64_t stack[16], slot[4] = { 0, 0, 0, limit }, steps_done = 0;
	unsigned top = 0, pc = 0;

	for (;; steps_done++) {
		switch (code[pc++]) {
		case PUSH:
			stack[top++ & 15] = (uint64_t)code[pc++];
			break;
		case LOAD:
			stack[top++ & 15] = slot[code[pc++] & 3];
			break;
		case STORE:
			slot[code[pc++] & 3] = stack[--top & 15];
			break;
		case ADD:
			top--;
			stack[(top - 1) & 15] += stack[top & 15];
			break;
		case SUB:
			top--;
			stack[(top - 1) & 15] -= stack[top & 15];
			break;
		case MUL3:
			stack[(top - 1) & 15] = stack[(top - 1) & 15] * 3 + 1;
			break;
		case HALF:
			stack[(top - 1) & 15] >>= 1;
			break;
		case AND1:
			stack[(top - 1) & 15] &= 1;
			break;
		case LESS:
			top--;
			stack[(top - 1) & 15] = stack[(top - 1) & 15] < stack[top & 15];
			break;
		case JZ:
			pc = stack[--top & 15] ? pc + 1 : (unsigned)code[pc];
			break;
		case JMP:
			pc = (unsigned)code[pc];
			break;
		default:
			return mix(slot[2], steps_done);
		}
	}
}

static uint64_t interpreter_run(unsigned long reps)
{
	return interpret(program, reps);
}

static __attribute__((noinline)) unsigned takeuchi(unsigned x, unsigned y, unsigned z)
{
	if (y >= x)
		return z;
	return takeuchi(takeuchi(x - 1, y, z), takeuchi(y - 1, z, x), takeuchi(z - 1, x, y));
}

static uint64_t recursion_run(unsigned long reps)
{
	uint64_t sum = 1;

	for (unsigned long n = 0; n < reps; n++)
		sum = mix(sum, takeuchi(18, 12, (unsigned)(6 + (n & 1))));
	return sum;
}

const struct workload branch_works[] = {
	{ .name = "br.indirect", .run = indirect_run, .reps = 80000000 },
	{ .name = "br.interp", .run = interpreter_run, .reps = 100000 },
	{ .name = "br.recurse", .run = recursion_run, .reps = 3000 },
	{ 0 },
};
