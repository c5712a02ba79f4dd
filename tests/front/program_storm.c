/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* SIGALRM every millisecond: while the guest exits, and while it computes in 64-bit mode, where each result is checked. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "program.h"

#define TABLES	  0x4000 /* PML4, PDPT, PD */
#define ROUNDS	  500000
#define EXIT_LOOP 2000
#define FACTOR	  6364136223846793005ull
#define ADDEND	  1442695040888963407ull

/* RAX, RBX go on from round to round; RSI is a ring of 256 words that the result passes through, R10 the steps of a round. */
extern const unsigned char storm_code[], storm_code_end[];
__asm__(".pushsection .rodata\n"
	"storm_code:\n"
	"	mov %r10d, %ecx\n"
	"1:	imul %rdi, %rax\n"
	"	add %rdx, %rax\n"
	"	movzbl %al, %r8d\n"
	"	xor (%rsi,%r8,8), %rbx\n"
	"	mov %rax, (%rsi,%r8,8)\n"
	"	push %rbx\n"
	"	rol $7, %rbx\n"
	"	add (%rsp), %rbx\n"
	"	pop %r9\n"
	"	dec %ecx\n"
	"	jnz 1b\n"
	"	out %al, $0x10\n"
	"	jmp storm_code\n"
	"storm_code_end:\n"
	".popsection\n");

struct storm {
	unsigned long exits, results, interrupted;
	uint64_t a, b, ring[256];
};

static volatile unsigned long signals;

static void count_it(int sig)
{
	(void)sig;
	signals++;
}

static void every_ms(bool on)
{
	const suseconds_t us = on ? 1000 : 0;
	const struct itimerval t = { { 0, us }, { 0, us } };

	CHECK(!setitimer(ITIMER_REAL, &t, NULL));
}

/* What one round of storm_code does. */
static void storm_expect(struct storm *s)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t old;

		s->a = s->a * FACTOR + ADDEND;
		s->b ^= s->ring[s->a & 255];
		s->ring[s->a & 255] = s->a;
		old = s->b;
		s->b = (s->b << 7 | s->b >> 57) + old;
	}
}

/* The first 2 MiB as they are. */
static void long_mode(struct machine *m)
{
	const struct kvm_segment code = {
		.selector = 8, .limit = ~0u, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	const struct kvm_segment data = {
		.selector = 16, .limit = ~0u, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1
	};
	const uint64_t entry[3] = { TABLES + 0x1003, TABLES + 0x2003, 0x83 };
	struct kvm_sregs s;

	for (unsigned i = 0; i < 3; i++)
		memcpy(m->memory + TABLES + i * 0x1000, &entry[i], 8);
	CHECK(!ioctl(m->vcpu, KVM_GET_SREGS, &s));
	s.cs = code;
	s.ds = s.es = s.ss = data;
	s.cr3 = TABLES;
	s.cr4 |= 0x20;
	s.cr0 |= 0x80000001;
	s.efer |= 0x500;
	CHECK(!ioctl(m->vcpu, KVM_SET_SREGS, &s));
}

/* One KVM_RUN: true when the guest has exited. */
static bool go(struct machine *m, struct storm *s)
{
	if (ioctl(m->vcpu, KVM_RUN, 0)) {
		CHECK(errno == EINTR && m->run->exit_reason == KVM_EXIT_INTR);
		s->interrupted++;
		return false;
	}
	CHECK(m->run->exit_reason == KVM_EXIT_IO && m->run->io.port == 0x10);
	return true;
}

static void compute(struct machine *m, struct storm *s)
{
	struct kvm_regs r;

	while (!go(m, s))
		;
	storm_expect(s);
	CHECK(!ioctl(m->vcpu, KVM_GET_REGS, &r));
	CHECK(r.rax == s->a && r.rbx == s->b && r.rsp == 0x3000);
	CHECK(!memcmp(m->memory + 0x2000, s->ring, sizeof(s->ring)));
	s->results++;
}

/* Since the last call, but time in which the process was stopped. */
static double seconds_more(struct timespec *last)
{
	const struct timespec then = *last;
	double more;

	clock_gettime(CLOCK_MONOTONIC, last);
	more = (last->tv_sec - then.tv_sec) + (last->tv_nsec - then.tv_nsec) / 1e9;
	return more < 1 ? more : 1;
}

static void test_storm(void)
{
	const char *seconds = getenv("ANYKVM_STORM_SECONDS");
	const struct kvm_regs regs = { .rip = CODE_AT,
				       .rsp = 0x3000,
				       .rsi = 0x2000,
				       .rax = 1,
				       .rbx = 2,
				       .rdi = FACTOR,
				       .rdx = ADDEND,
				       .r10 = ROUNDS,
				       .rflags = 2 };
	struct sigaction sa = { .sa_handler = count_it };
	struct storm s = { .a = 1, .b = 2 };
	struct machine real, fast;
	struct timespec last;
	double ran = 0;

	machine_make(&real);
	machine_code(&real, CODE_OUT, 4);
	machine_make(&fast);
	machine_code(&fast, storm_code, storm_code_end - storm_code);
	long_mode(&fast);
	CHECK(!ioctl(fast.vcpu, KVM_SET_REGS, &regs));
	CHECK(!sigaction(SIGALRM, &sa, NULL));
	every_ms(true);
	clock_gettime(CLOCK_MONOTONIC, &last);
	do {
		for (unsigned i = 0; i < EXIT_LOOP; i++)
			s.exits += go(&real, &s);
		compute(&fast, &s);
		ran += seconds_more(&last);
	} while (ran < (seconds ? atoi(seconds) : 2));
	every_ms(false);
	CHECK(signals && s.interrupted && s.interrupted <= signals);
	if (seconds)
		printf("%.0f s: %lu signals, %lu KVM_RUN interrupted, %lu exits, %lu results of %u "
		       "steps "
		       "each, all right\n",
		       ran, signals, s.interrupted, s.exits, s.results, ROUNDS);
	machine_close(&real);
	machine_close(&fast);
}

const struct test storm_tests[] = {
	{ "storm", test_storm },
	{ NULL, NULL },
};
