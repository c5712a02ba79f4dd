/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm trace: a KVM program, and a line for each of its requests and exits. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/kvm_names.h"
#include "base/trace.h"
#include "cmd/args.h"
#include "cmd/cmd.h"
#include "cmd/exec.h"
#include "cmd/summary.h"
#include "vmm/say.h"
#include "vmm/status.h"

#define WAIT_MS	  50
#define WORD_ROOM 64

struct trace_options {
	const char *output;
	bool summary, both, json, failed, plain;
	u64 slower_ns;
	struct trace_choice requests, exits;
};

/* Every name of the kind like @word, for "did you mean". */
static const char *nearest(const char *word)
{
	char upper[WORD_ROOM];
	size_t n = strnlen(word, WORD_ROOM - 5);

	memcpy(upper, "KVM_", 4);
	for (size_t i = 0; i < n; i++)
		upper[4 + i] = word[i] >= 'a' && word[i] <= 'z' ? word[i] - 32 : word[i];
	upper[4 + n] = 0;
	return args_nearest(strncmp(upper + 4, "KVM_", 4) ? upper : upper + 4, kvm_names,
			    kvm_name_count, sizeof(kvm_names[0]));
}

static int choice_add(struct trace_options *o, const char *word, bool except, struct why *why)
{
	const struct kvm_name *name = kvm_name_find(word);
	struct trace_choice *c;
	const char *near;

	if (!name || name->kind == KVM_NAME_CAP) {
		near = nearest(word);
		if (near)
			return why_set(why, EINVAL,
				       "there is no ioctl or exit '%s'; did you mean %s?", word,
				       near);
		return why_set(
			why, EINVAL,
			"there is no ioctl or exit '%s'; write for example KVM_RUN, set_msrs "
			"or KVM_EXIT_MMIO",
			word);
	}
	c = name->kind == KVM_NAME_EXIT ? &o->exits : &o->requests;
	if (c->count && c->except != except)
		return why_set(why, EINVAL, "'!' stands before all names of a list or before none");
	if (c->count == TRACE_CHOICES)
		return why_set(why, EINVAL, "at most %u names", TRACE_CHOICES);
	c->except = except;
	c->value[c->count++] = name->value;
	return 0;
}

/* "run,exit_io", or "!run,get_regs": all but these. */
static int parse_only(const char *value, void *field, struct why *why)
{
	bool except = *value == '!';
	int r = 0;

	value += except;
	do {
		char word[WORD_ROOM];
		size_t n = strcspn(value, ",");

		if (!n || n >= sizeof(word))
			return why_set(why, EINVAL,
				       "give names with commas between, as in run,exit_io");
		memcpy(word, value, n);
		word[n] = 0;
		value += n + (value[n] == ',');
		r = choice_add(field, word, except, why);
	} while (!r && *value);
	return r;
}

static int parse_slower(const char *value, void *field, struct why *why)
{
	char *end;
	double ms = strtod(value, &end);

	if (end == value || *end || !(ms >= 0) || ms > 1e9)
		return why_set(why, EINVAL,
			       "'%s' is no time in milliseconds; write for example 2.5", value);
	*(u64 *)field = (u64)(ms * 1e6);
	return 0;
}

#define AT(member) offsetof(struct trace_options, member)
static const struct args_row trace_rows[] = {
	{ "output", 'o', args_text, AT(output), "FILE", "write to FILE, not to stderr" },
	{ "only", 'e', parse_only, 0, "LIST",
	  "only these ioctls and exits (run,exit_io), or all but these (!run)" },
	{ "failed", 'Z', NULL, AT(failed), NULL, "only what failed" },
	{ "slower", 0, parse_slower, AT(slower_ns), "MS", "only what took as many milliseconds" },
	{ "summary", 'c', NULL, AT(summary), NULL, "count and time by ioctl and exit; no lines" },
	{ "both", 'C', NULL, AT(both), NULL, "lines, and the summary at the end" },
	{ "json", 0, NULL, AT(json), NULL, "the summary as JSON, instead of lines" },
	{ "plain", 0, NULL, AT(plain), NULL,
	  "no times, threads and addresses: two runs can be compared" },
};
#undef AT

static const struct args_table trace_table = { trace_rows, ARRAY_SIZE(trace_rows) };

static int help(void)
{
	printf("usage: anykvm trace [OPTIONS] [--] COMMAND [ARGUMENT...]\n\n"
	       "Runs COMMAND as anykvm exec does, and shows each ioctl of KVM with its structure, "
	       "and\n"
	       "each exit of KVM_RUN: thread, time since the start, call, result, <seconds it "
	       "took>.\n\n");
	args_help(&trace_table, stdout);
	printf("\nExit status: as of anykvm exec.\n");
	return STATUS_OK;
}

static u64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

/* The area, and its path for the program in the environment; NULL with a line said. */
static struct trace_area *area_make(const struct trace_options *o)
{
	int fd = memfd_create("anykvm-trace", MFD_CLOEXEC);
	struct trace_area *a = MAP_FAILED;
	char path[64];

	if (fd >= 0 && !ftruncate(fd, sizeof(*a)))
		a = mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (a == MAP_FAILED) {
		say("no memory for the trace: %s", strerror(errno));
		return NULL;
	}
	a->magic = TRACE_MAGIC;
	a->version = TRACE_VERSION;
	a->size = sizeof(*a);
	a->wants_lines = !o->summary && !o->json;
	a->wants_counts = o->summary || o->both || o->json;
	a->is_plain = o->plain;
	a->only_failed = o->failed;
	a->slower_ns = o->slower_ns;
	a->requests = o->requests;
	a->exits = o->exits;
	a->start_ns = now_ns();
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd);
	setenv(TRACE_ENV, path, 1);
	return a;
}

static volatile sig_atomic_t child;

/* The terminal sends its signals to the program too; those of kill(1) are passed on. */
static void pass_on(int sig)
{
	if (child > 0)
		kill(child, sig);
}

static void signals_set(void)
{
	struct sigaction sa = { .sa_handler = pass_on };

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
}

static void drain(struct trace_area *a, FILE *out, unsigned ms)
{
	static char text[65536];
	size_t n;

	while ((n = trace_read(a, text, sizeof(text), ms)) > 0) {
		fwrite(text, 1, n, out);
		ms = 0;
	}
	fflush(out);
}

/* Calls that have begun and will not end: the program is gone. */
static void unfinished_print(struct trace_area *a, FILE *out)
{
	for (unsigned i = 0; i < TRACE_THREADS; i++) {
		const struct trace_thread *t = &a->thread[i];

		if (t->busy)
			fprintf(out, "%.*s <unfinished ...>\n", TRACE_LINE - 1, t->line);
	}
}

/* Read until the program has ended; its exit status. */
static int follow(struct trace_area *a, FILE *out)
{
	int status;

	while (waitpid(child, &status, WNOHANG) == 0)
		drain(a, out, WAIT_MS);
	drain(a, out, 0);
	/* What it left in the background writes no more. */
	__atomic_store_n(&a->closed, 1, __ATOMIC_RELAXED);
	return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNAL + WTERMSIG(status);
}

static int command_trace(const struct program *program, char **command, struct trace_area *a,
			 const struct trace_options *o, FILE *out)
{
	int status, r = 0;

	child = fork();
	if (child < 0) {
		say("no process for the program: %s", strerror(errno));
		return STATUS_NOT_RUN;
	}
	if (child == 0) {
		execv(program->path, command);
		say("%s: %s", program->path, strerror(errno));
		_exit(STATUS_NOT_RUN);
	}
	signals_set();
	status = follow(a, out);
	if (a->wants_lines)
		unfinished_print(a, out);
	if (o->json)
		r = summary_print_json(a, out);
	else if (a->wants_counts)
		r = summary_print(a, out);
	if (r || ferror(out) || fflush(out)) {
		say("cannot write the trace: %s", strerror(errno));
		return STATUS_OUTPUT;
	}
	return status;
}

static int options_check(const struct trace_options *o)
{
	const bool restricts =
		o->requests.count || o->exits.count || o->failed || o->slower_ns || o->plain;

	if (restricts && (o->summary || o->json)) {
		say("--only, --failed, --slower and --plain are about lines; with --both there are "
		    "lines and a summary");
		return STATUS_USAGE;
	}
	if (o->both && (o->summary || o->json)) {
		say("--both has lines, --summary and --json have none; give one of them");
		return STATUS_USAGE;
	}
	return STATUS_OK;
}

static int trace_run(const struct trace_options *o, char **command)
{
	FILE *out = stderr;
	struct program program;
	struct trace_area *a;
	int status = exec_prepare(&program, command);

	if (status != STATUS_OK)
		return status;
	if (o->output)
		out = fopen(o->output, "we");
	if (!out) {
		say("%s: %s; give another file with -o", o->output, strerror(errno));
		return STATUS_OUTPUT;
	}
	a = area_make(o);
	status = a ? command_trace(&program, command, a, o, out) : STATUS_PREFLIGHT;
	if (out != stderr && fclose(out) != 0 && status != STATUS_OUTPUT) {
		say("%s: %s", o->output, strerror(errno));
		status = STATUS_OUTPUT;
	}
	return status;
}

int cmd_trace(int argc, char **argv)
{
	struct trace_options o = { .output = NULL };
	struct why why;
	int end = 1, r, status;

	/* Options and their values end before the first other word, which begins the command. */
	while (end < argc && argv[end][0] == '-' && argv[end][1] && strcmp(argv[end], "--") != 0) {
		const bool takes = !strcmp(argv[end], "-o") || !strcmp(argv[end], "-e") ||
				   !strcmp(argv[end], "--output") || !strcmp(argv[end], "--only") ||
				   !strcmp(argv[end], "--slower");

		end += 1 + (takes && end + 1 < argc);
	}
	r = args_parse(&trace_table, end, argv, &o, NULL, 0, &why);
	if (r == -ENOENT)
		return help();
	if (r < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	status = options_check(&o);
	if (status != STATUS_OK)
		return status;
	if (end < argc && strcmp(argv[end], "--") == 0)
		end++;
	if (end >= argc) {
		say("trace needs a command; write anykvm trace -- COMMAND");
		return STATUS_USAGE;
	}
	return trace_run(&o, argv + end);
}
