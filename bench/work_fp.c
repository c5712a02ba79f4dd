// SPDX-License-Identifier: MIT OR Apache-2.0
/* Floating-point workloads: matrices and planets in scalar SSE2, an x87 mix; only operations that IEEE 754 fixes. */
#include <emmintrin.h>
#include <string.h>

#include "gbench.h"

#define N 96

static double a[N][N], b[N][N], c[N][N];

static uint64_t double_bits(double d)
{
	uint64_t bits;

	memcpy(&bits, &d, 8);
	return bits;
}

static void matrices_make(void)
{
	uint64_t seed = 3;

	for (unsigned i = 0; i < N; i++)
		for (unsigned j = 0; j < N; j++) {
			a[i][j] = (double)(next_random(&seed) >> 40) / 65536.0 - 100;
			b[i][j] = (double)(next_random(&seed) >> 40) / 65536.0 - 100;
		}
}

static uint64_t matmul_run(unsigned long reps)
{
	uint64_t sum = 1;

	for (unsigned long n = 0; n < reps; n++) {
		a[n % N][n / N % N] += 1;
		for (unsigned i = 0; i < N; i++)
			for (unsigned j = 0; j < N; j++) {
				double s = 0;

				for (unsigned k = 0; k < N; k++)
					s += a[i][k] * b[k][j];
				c[i][j] = s;
			}
		sum = mix(sum, double_bits(c[n % N][(n * 7) % N]));
	}
	return sum;
}

/* --- Five bodies, as everybody's n-body benchmark. --- */

#define BODIES 5

struct body {
	double x[3], v[3], mass;
};

static double square_root(double d)
{
	return _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(d)));
}

static void pull(struct body *p, struct body *q, double dt)
{
	double d[3], r2 = 0, f;

	for (unsigned k = 0; k < 3; k++) {
		d[k] = p->x[k] - q->x[k];
		r2 += d[k] * d[k];
	}
	f = dt / (r2 * square_root(r2));
	for (unsigned k = 0; k < 3; k++) {
		p->v[k] -= d[k] * q->mass * f;
		q->v[k] += d[k] * p->mass * f;
	}
}

static uint64_t nbody_run(unsigned long reps)
{
	struct body bodies[BODIES];
	uint64_t sum = 1;

	for (unsigned i = 0; i < BODIES; i++)
		for (unsigned k = 0; k < 3; k++) {
			bodies[i].x[k] = 3.0 * i + k * (i % 2 ? 1.5 : -0.75);
			bodies[i].v[k] = 0.25 * k - 0.125 * i;
			bodies[i].mass = i ? 0.01 * i : 39.0;
		}
	for (unsigned long n = 0; n < reps; n++) {
		for (unsigned i = 0; i < BODIES; i++)
			for (unsigned j = i + 1; j < BODIES; j++)
				pull(&bodies[i], &bodies[j], 0.001);
		for (unsigned i = 0; i < BODIES; i++)
			for (unsigned k = 0; k < 3; k++)
				bodies[i].x[k] += 0.001 * bodies[i].v[k];
	}
	for (unsigned i = 0; i < BODIES; i++)
		for (unsigned k = 0; k < 3; k++)
			sum = mix(sum, double_bits(bodies[i].x[k]));
	return sum;
}

/* --- x87: the four operations, square root, conversions with their control-word changes, memory in 80 bits. --- */

static long double x87_root(long double v)
{
	__asm__("fsqrt" : "+t"(v));
	return v;
}

static uint64_t x87_run(unsigned long reps)
{
	static volatile long double memory[16];
	long double x = 0.3L, y = 0.5L, z = 0.25L;
	uint64_t sum = 1, bits;

	for (unsigned long n = 0; n < reps; n++) {
		for (unsigned i = 0; i < 16; i++) {
			x = 3.875L * x * (1.0L - x); /* chaotic, between 0 and 1 */
			y = x87_root(x * x + y * 0.5L);
			z = (x - y) * z + (long double)(int)(n & 1023);
			memory[i] = z;
			z = memory[(i + 5) & 15] / (y + 1.0L);
		}
		sum += (uint64_t)(long long)(z * 1000.0L);
	}
	x += z;
	memcpy(&bits, &x, 8); /* the mantissa */
	return mix(sum, bits);
}

const struct workload fp_works[] = {
	{ .name = "fp.matmul", .run = matmul_run, .reps = 500, .prepare = matrices_make },
	{ .name = "fp.nbody", .run = nbody_run, .reps = 3000000 },
	{ .name = "fp.x87", .run = x87_run, .reps = 1200000 },
	{ 0 },
};
