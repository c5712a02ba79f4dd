/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Which pages of a running machine are still to be taken. */
#include "vmm/move/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static size_t words(const struct pages *p)
{
	return (p->count + 63) / 64;
}

/* The bits past the last page stay clear. */
static void all_set(struct pages *p)
{
	memset(p->todo, 0xff, words(p) * sizeof(u64));
	if (p->count % 64)
		p->todo[words(p) - 1] = BIT_ULL(p->count % 64) - 1;
}

int pages_start(struct pages *p, const struct control_machine *m, bool followed, struct why *why)
{
	int r;

	*p = (struct pages){ .m = m, .count = m->ram->size >> PAGE_SHIFT };
	p->todo = calloc(words(p), sizeof(u64));
	p->log = calloc(words(p) + 1, sizeof(u64));
	if (!p->todo || !p->log) {
		pages_stop(p);
		return why_set(why, ENOMEM, "no memory for the log of written pages");
	}
	r = machine_log_dirty(m->machine, true, why);
	if (r < 0) {
		p->m = NULL;
		pages_stop(p);
		return r;
	}
	/* What was written before belongs to who follows; for this one the log begins here. */
	if (pages_harvest(p, why) < 0) {
		pages_stop(p);
		return -EIO;
	}
	if (followed)
		memcpy(p->todo, m->follow->written, words(p) * sizeof(u64));
	else
		all_set(p);
	return 0;
}

void pages_stop(struct pages *p)
{
	struct why why;

	if (p->m && !p->m->follow->written)
		machine_log_dirty(p->m->machine, false, &why);
	free(p->todo);
	free(p->log);
	memset(p, 0, sizeof(*p));
}

s64 pages_harvest(struct pages *p, struct why *why)
{
	const struct ram *ram = p->m->ram;
	u64 left = 0;
	int r = machine_dirty_log(p->m->machine, 0, p->log, why);

	/* The hole begins at a multiple of 64 pages: the second slot's bits begin a word. */
	if (r >= 0 && ram->high)
		r = machine_dirty_log(p->m->machine, 1, p->log + (ram->low >> PAGE_SHIFT) / 64,
				      why);
	if (r < 0)
		return r;
	for (size_t i = 0; i < words(p); i++) {
		const u64 bits = p->log[i] | ram_marks_take(ram, i * 64);

		if (p->m->follow->written)
			p->m->follow->written[i] |= bits;
		p->todo[i] |= bits;
		left += (u64)__builtin_popcountll(p->todo[i]);
	}
	return (s64)left;
}

u64 pages_take(struct pages *p, u64 page)
{
	u64 word;

	if (page >= p->count)
		return p->count;
	word = p->todo[page / 64] & (~0ull << page % 64);
	for (page /= 64; !word;) {
		if (++page == words(p))
			return p->count;
		word = p->todo[page];
	}
	p->todo[page] &= ~(word & -word);
	return page * 64 + (u64)__builtin_ctzll(word);
}

const u8 *page_at(const struct pages *p, u64 page, struct why *why)
{
	const u8 *host = p->m->ram->host + (page << PAGE_SHIFT);

	if (ram_need(p->m->ram, host, PAGE_SIZE))
		return host;
	why_set(why, EIO, "memory of this machine is damaged");
	return NULL;
}

bool page_is_zero(const u8 *page)
{
	const u64 *w = (const u64 *)(const void *)page;

	for (unsigned i = 0; i < PAGE_SIZE / 8; i += 8)
		if (w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] |
		    w[i + 7])
			return false;
	return true;
}
