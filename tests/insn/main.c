/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Run every form of every row of insn.def on the host and in the guest, and count. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "insn.h"

#define STATES_PER_CASE	   10
#define SHOWN_PER_ROW	   3
#define STATES_FOR_CLASSES 30 /* with fewer, a class may be missed */

static struct options {
	u64 seed;
	unsigned states, shard, shards, shown;
	const char *only;
	bool verbose, table, exact;
} options = { .seed = 1, .states = 100, .shards = 1, .shown = SHOWN_PER_ROW };

u8 image[ARENA_SIZE];
static u64 runs, mismatches, flukes;
static unsigned guests;
static struct {
	char text[96], bytes[48];
	u64 at;
} now; /* for the watchdog */

static void describe(const struct testcase *c)
{
	ZydisFormatter f;

	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterFormatInstruction(&f, &c->zi, c->ops, c->zi.operand_count_visible, now.text,
					sizeof(now.text), c->at, NULL);
	for (unsigned i = 0; i < c->zi.length; i++)
		snprintf(now.bytes + 3 * i, 4, "%02x ", c->bytes[i]);
	now.at = c->at;
}

static void stuck(int sig)
{
	static const char head[] = "Bail out! stuck in ";

	(void)sig;
	if (write(1, head, sizeof(head) - 1) < 0 || write(1, now.bytes, strlen(now.bytes)) < 0 ||
	    write(1, "\n", 1) < 0)
		_exit(3);
	_exit(3);
}

/* Processor time, not that of the clock: the machine may have other work. */
static void watch(void)
{
	struct itimerval t = { .it_value.tv_sec = 30 };
	struct sigaction sa = { .sa_handler = stuck, .sa_flags = SA_ONSTACK };

	sigaction(SIGPROF, &sa, NULL);
	setitimer(ITIMER_PROF, &t, NULL);
}

/* The code as it was at the start of a case: a push may hit it. */
static u8 native_copy[CODE_SIZE], guest_copy[CODE_SIZE];

static void code_write(const struct testcase *c)
{
	native_code(c);
	guest_code(c);
	memcpy(native_copy, native_arena + CODE_OFF, CODE_SIZE);
	memcpy(guest_copy, guest_arena + CODE_OFF, CODE_SIZE);
}

static void code_restore(u8 *arena, const u8 *copy)
{
	if (memcmp(arena + CODE_OFF, copy, CODE_SIZE))
		memcpy(arena + CODE_OFF, copy, CODE_SIZE);
}

static void restore(u8 *arena, const struct start *s)
{
	for (unsigned i = 0; i < s->nwin; i++)
		memcpy(arena + s->win[i].off, image + s->win[i].off, s->win[i].len);
}

static void print_hex(const char *what, const u8 *p, unsigned n)
{
	printf("#     %s", what);
	for (unsigned i = 0; i < n; i++)
		printf(" %02x", p[i]);
	printf("\n");
}

static void report(const struct testcase *c, const struct start *s, const struct outcome *native,
		   const struct outcome *guest, unsigned which, unsigned n)
{
	describe(c);
	printf("# %s: %s  [%s] %s, state %u\n", guest_names[which], now.text, now.bytes,
	       rows[c->form->row].name, n);
	printf("#     host vector %d error %x cr2 %lx\n", native->vector, native->error,
	       native->cr2);
	if (c->nbefore)
		print_hex("before", c->before, c->nbefore);
	if (c->nbehind)
		print_hex("behind", c->behind, c->nbehind);
	if (options.verbose) {
		for (unsigned i = 0; i < 16; i++)
			printf("#     in r%-2u %016lx\n", i, s->st.gpr[i]);
		printf("#     in fcw %02x%02x fsw %02x%02x tags %02x, out fsw %02x%02x\n",
		       s->st.xsave[1], s->st.xsave[0], s->st.xsave[3], s->st.xsave[2],
		       s->st.xsave[4], native->st.xsave[3], native->st.xsave[2]);
		printf("#     in rflags %lx fs %lx gs %lx\n", s->st.rflags, s->st.fs_base,
		       s->st.gs_base);
	}
	outcome_differs(c, s, native, guest, stdout);
	memory_differs(c, s, native, stdout);
}

/* After a difference: both sides start from the same memory again. */
static void resync(void)
{
	memcpy(native_arena + DATA_OFF, image + DATA_OFF, DATA_SIZE);
	memcpy(native_arena + STACK_OFF, image + STACK_OFF, STACK_SIZE);
	memcpy(guest_arena + DATA_OFF, image + DATA_OFF, DATA_SIZE);
	memcpy(guest_arena + RO_OFF, native_arena + RO_OFF, RO_SIZE);
	memcpy(guest_arena + STACK_OFF, image + STACK_OFF, STACK_SIZE);
}

static bool sides_differ(const struct testcase *c, const struct start *s,
			 const struct outcome *native, const struct outcome *guest)
{
	return outcome_differs(c, s, native, guest, NULL) || memory_differs(c, s, native, NULL);
}

#define ASKED_AGAIN 12

static bool bases_differ(const struct outcome *a, const struct outcome *b)
{
	return a->st.fs_base != b->st.fs_base || a->st.gs_base != b->st.gs_base;
}

/*
 * Before some differences count the host is asked again: a hypervisor under load was seen to answer #UD where it never does
 * otherwise, and to run on with RFLAGS.AC lost; a kernel without FSGSBASE can bring back an old base when it preempts a thread with
 * a null selector.
 * A host that sticks to its answer is believed; how often one may change its mind is bounded.
 */
static bool host_takes_back(const struct testcase *c, const struct start *s, struct outcome *native,
			    const struct outcome *guest)
{
	bool lost_ac = native->vector == -1 && guest->vector == VEC_AC;

	if (native->vector != VEC_UD && !lost_ac &&
	    (host_has_fsgsbase() || !bases_differ(native, guest)))
		return false;
	for (unsigned k = 0; k < ASKED_AGAIN; k++) {
		restore(native_arena, s);
		code_restore(native_arena, native_copy);
		native_run(c, &s->st, native);
		if (!sides_differ(c, s, native, guest)) {
			flukes++;
			return true;
		}
	}
	return false;
}

/* One state on all sides. Returns whether the host has the instruction. */
static bool run_state(const struct testcase *c, struct rng *r, unsigned n)
{
	static struct start s;
	static struct outcome native, guest;
	struct row *row = &rows[c->form->row];
	bool all;

	do
		start_make(&s, c, r);
	while (native_is_stray(c, &s.st));
	restore(native_arena, &s);
	code_restore(native_arena, native_copy);
	native_run(c, &s.st, &native);
	row->runs++;
	row->faults += native.vector != -1;
	runs++;
	summary_note(c, &native);
	all = true;
	for (unsigned which = 0; which < guests; which++) {
		restore(guest_arena, &s);
		code_restore(guest_arena, guest_copy);
		guest_run(which, c, &s.st, &guest);
		guest.is_fast = which == 1;
		if (outcome_ignored(c, &native, &guest)) {
			all = false;
			continue;
		}
		if (!sides_differ(c, &s, &native, &guest) ||
		    host_takes_back(c, &s, &native, &guest))
			continue;
		mismatches++;
		if (row->bad++ < options.shown)
			report(c, &s, &native, &guest, which, n);
	}
	if (all)
		classes_note(c, &s, &native);
	if (native.vector >= 0) { /* a part may have been written */
		restore(native_arena, &s);
		restore(guest_arena, &s);
	}
	return native.vector != VEC_UD;
}

static void run_form(const struct form *form)
{
	struct rng r = { form->key ^ options.seed * 0x9e3779b97f4a7c15ull };
	struct row *row = &rows[form->row];
	bool known = false;

	for (unsigned n = 0; n < options.states;) {
		static struct testcase c;
		unsigned before = row->bad;

		if (!n)
			watch();
		testcase_make(&c, form, &r);
		if (!n)
			summary_form(&c);
		describe(&c);
		code_write(&c);
		for (unsigned i = 0; i < STATES_PER_CASE && n < options.states; i++, n++)
			known |= run_state(&c, &r, n);
		if (arena_differs(NULL) && row->bad == before) {
			mismatches++;
			if (row->bad++ < options.shown)
				printf("# memory outside what %s may touch was changed [%s]\n",
				       now.text, now.bytes);
		}
		if (row->bad != before)
			resync();
	}
	row->host_ud += !known;
}

static bool is_chosen(const struct form *form, unsigned i)
{
	if (i % options.shards != options.shard || rows[form->row].reason)
		return false;
	return !options.only || !strcasecmp(options.only, ZydisMnemonicGetString(form->mnemonic)) ||
	       !strcasecmp(options.only, rows[form->row].name);
}

/* One TAP line per row; a row that nothing ran is a failure unless a reason is known. */
static bool print_rows(void)
{
	unsigned n = 0;
	bool ok = true;

	for (unsigned i = 0; i < nrows; i++) {
		const struct row *w = &rows[i];

		if (options.only && !w->runs)
			continue;
		n++;
		if (w->reason) {
			printf("ok %u - %s # SKIP %s\n", n, w->name, w->reason);
		} else if (!w->forms || (!w->runs && options.shards == 1)) {
			printf("not ok %u - %s: no vector\n", n, w->name);
			ok = false;
		} else if (w->bad) {
			printf("not ok %u - %s: %u of %u runs differ (%u forms)\n", n, w->name,
			       w->bad, w->runs, w->forms);
			ok = false;
		} else if (w->runs && w->host_ud == w->forms) {
			printf("ok %u - %s # SKIP the host's processor has none of its %u forms\n",
			       n, w->name, w->forms);
		} else {
			printf("ok %u - %s: %u forms, %u runs, %u faults\n", n, w->name, w->forms,
			       w->runs, w->faults);
		}
	}
	ok &= classes_print(&n, !options.only && options.shards == 1 &&
					options.states >= STATES_FOR_CLASSES);
	printf("1..%u\n", n);
	return ok;
}

/* More than one answer in 10,000 that does not stand is no accident. */
static bool print_totals(void)
{
	printf("# %lu runs, %lu mismatches, %lu answers that the host took back\n", runs,
	       mismatches, flukes);
	return flukes <= 8 + runs / 10000;
}

static int usage(void)
{
	fprintf(stderr, "usage: insn [--states N] [--seed N] [--only ROW|MNEMONIC] [--shard I/N] "
			"[--shown N] [--verbose] [--table] [--exact]\n");
	return 2;
}

static bool parse(int argc, char **argv)
{
	const char *seed = getenv("ANYKVM_SEED");

	if (seed)
		options.seed = strtoull(seed, NULL, 0);
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i];

		if (!strcmp(name, "--verbose")) {
			options.verbose = true;
			continue;
		}
		if (!strcmp(name, "--table")) {
			options.table = true;
			continue;
		}
		if (!strcmp(name, "--exact")) {
			options.exact = true;
			continue;
		}
		if (++i == argc)
			return false;
		if (!strcmp(name, "--states"))
			options.states = strtoul(argv[i], NULL, 0);
		else if (!strcmp(name, "--seed"))
			options.seed = strtoull(argv[i], NULL, 0);
		else if (!strcmp(name, "--only"))
			options.only = argv[i];
		else if (!strcmp(name, "--shown"))
			options.shown = strtoul(argv[i], NULL, 0);
		else if (strcmp(name, "--shard") ||
			 sscanf(argv[i], "%u/%u", &options.shard, &options.shards) != 2)
			return false;
	}
	return options.shards > 0 && options.shard < options.shards;
}

static const char *prepare(void)
{
	struct rng r = { options.seed };
	const char *why;

	state_init();
	guests = options.exact ? GUESTS_MAX : GUESTS;
	why = guest_init(guests);
	if (!why)
		why = native_init();
	if (why)
		return why;
	for (unsigned i = 0; i < ARENA_SIZE; i++)
		image[i] = rng_next(&r);
	for (unsigned i = 0; i < RO_SIZE; i++) /* TF and AC are clear wherever POPF reads */
		image[RO_OFF + i] &= ~5;
	memcpy(native_arena + RO_OFF, image + RO_OFF, RO_SIZE);
	resync();
	mprotect(native_arena + RO_OFF, RO_SIZE, PROT_READ);
	return NULL;
}

int main(int argc, char **argv)
{
	const char *why;
	bool ok;

	if (!parse(argc, argv))
		return usage();
	why = prepare();
	if (why) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	watch();
	forms_find();
	printf("# %u forms of %u rows, %u states each, seed %lu\n", nforms, nrows, options.states,
	       options.seed);
	for (unsigned i = 0; i < nforms; i++)
		if (is_chosen(&forms[i], i))
			run_form(&forms[i]);
	ok = print_rows();
	ok &= print_totals();
	if (options.table) {
		summary_print();
		loose_print();
	}
	guest_exit();
	return !ok;
}
