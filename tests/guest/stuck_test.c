/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty logs while a vCPU waits in a host fault, whose page comes from a thread that harvests first. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "anykvm/anykvm.h"
#include "log.h"
#include "vm.h"

#define LOG  KVM_MEM_LOG_DIRTY_PAGES
#define AT   0x8000000ul /* a slot of its own, mapped by the page tables */
#define AT2  0x9000000ul
#define SLOT 5

#define FAR (AT + 0x10000) /* the missing page */
GUEST(stuck_store, 64, "mov $0x8000000, %ebx; movb $1, (%rbx); mov %rax, 0x10008(%rbx); hlt");
GUEST(stuck_load, 64, "mov $0x8000000, %ebx; movb $1, (%rbx); mov 0x10008(%rbx), %rax; hlt");
GUEST(stuck_lock, 64,
      "mov $0x8000000, %ebx; movb $1, (%rbx); mov $1, %eax; lock xadd %rax, 0x10008(%rbx); hlt");
GUEST(stuck_nt, 64, "mov $0x8000000, %ebx; movb $1, (%rbx); movnti %rax, 0x10008(%rbx); hlt");
GUEST(stuck_push, 64,
      "mov $0x8000000, %ebx; movb $1, (%rbx); mov $0x8010ff8, %esp; push %rax; hlt");
GUEST(stuck_call, 64,
      "mov $0x8000000, %ebx; movb $1, (%rbx); mov $0x8010ff8, %esp; call 1f; 1: hlt");
GUEST(stuck_rep, 64,
      "mov $0x8000000, %ebx; movb $1, (%rbx); mov $0x8010008, %edi; mov $8, %ecx; cld; rep stosq; "
      "hlt");
GUEST(stuck_helper, 64, "mov $0x8000000, %ebx; movb $1, (%rbx); sgdt 0x10008(%rbx); hlt");
GUEST(stuck_cross, 64, "mov $0x8000000, %ebx; movb $1, (%rbx); mov %rax, 0xfffc(%rbx); hlt");
static const struct {
	const char *name;
	const uint8_t *code, *end;
	bool writes;
} stuck[] = {
	{ "store", stuck_store, stuck_store_end, true },
	{ "load", stuck_load, stuck_load_end, false },
	{ "locked", stuck_lock, stuck_lock_end, true },
	{ "non-temporal", stuck_nt, stuck_nt_end, true },
	{ "PUSH", stuck_push, stuck_push_end, true },
	{ "CALL", stuck_call, stuck_call_end, true },
	{ "REP STOS", stuck_rep, stuck_rep_end, true },
	{ "helper", stuck_helper, stuck_helper_end, true },
	{ "across pages", stuck_cross, stuck_cross_end, true },
};

/* Faults of user mode only: that needs no privilege. */
static int uffd_open(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		check_skip("no userfaultfd");
	return fd;
}

/* What happens to the log meanwhile. The last two wait for the vCPU, so a thread does them that serves no page. */
enum how { GET, CLEAR, RESET, FLAGS, MOVE, DELETE, HOWS };
static const char *const how_names[HOWS] = { "GET", "CLEAR", "RESET", "flags", "move", "delete" };

#define PAGES 64ul

struct server {
	struct vm *vm;
	int fd;
	enum how how;
	void (*give)(struct server *s, uint64_t address); /* the missing page */
	uint64_t got[2];				  /* harvested while the vCPU waited */
	uint8_t *memory;
	uint8_t copy
		[17]
		[4096]; /* as of the harvest, of what it reported; the missing page is the last */
	struct kvm_dirty_gfn *ring;
	uint32_t fetched;
};

static void zeros_serve(struct server *s, uint64_t address)
{
	struct uffdio_zeropage zero = { .range = { address, 4096 } };

	if (ioctl(s->fd, UFFDIO_ZEROPAGE, &zero))
		check_fatal("UFFDIO_ZEROPAGE", "%s", strerror(errno));
}

static void harvest(struct server *s, uint64_t got[2])
{
	got[0] = got[1] = 0;
	if (s->how == RESET) {
		unsigned n = ring_fetch(s->ring, &s->fetched, SLOT, got, PAGES);

		CHECK_EQ(vm_ioctl(s->vm, s->vm->fd, KVM_RESET_DIRTY_RINGS, 0), n);
		return;
	}
	CHECK_EQ(log_get(s->vm, SLOT, got), 0);
	if (s->how == CLEAR)
		CHECK_EQ(log_clear(s->vm, SLOT, PAGES, got), 0);
}

static void copy_take(struct server *s, uint64_t which)
{
	for (unsigned i = 0; i < 17; i++)
		if (which >> i & 1)
			memcpy(s->copy[i], s->memory + (i << 12), 4096);
}

static void slot_set(struct server *s, uint64_t at, unsigned flags, bool there)
{
	vm_slot(s->vm, SLOT, flags, at, there ? PAGES << 12 : 0, s->memory);
}

static void *slot_change(void *arg)
{
	struct server *s = arg;

	if (s->how == MOVE) { /* the log goes along */
		slot_set(s, AT2, LOG, true);
		slot_set(s, AT, LOG, true);
		return NULL;
	}
	slot_set(s, AT, 0, false);
	slot_set(s, AT, LOG, true);
	copy_take(s, 0x1ffff);
	s->got[0] = 0x1ffff;
	return NULL;
}

static void *serve(void *arg)
{
	struct server *s = arg;
	struct uffd_msg msg;
	pthread_t changer;

	if (read(s->fd, &msg, sizeof(msg)) != sizeof(msg))
		check_fatal("userfaultfd", "no event");
	usleep(1000);
	if (s->how >= MOVE) {
		if (pthread_create(&changer, NULL, slot_change, s))
			check_fatal("pthread_create", "failed");
		usleep(2000);
	} else if (s->how == FLAGS) { /* what is written between is in no log */
		slot_set(s, AT, 0, true);
		slot_set(s, AT, LOG, true);
		s->got[0] = 0xffff;
		copy_take(s, s->got[0]);
	} else {
		harvest(s, s->got);
		copy_take(s, s->got[0] & 0xffff);
	}
	s->give(s, msg.arg.pagefault.address & ~4095ul);
	if (s->how >= MOVE)
		pthread_join(changer, NULL);
	return NULL;
}

struct stuck_vm {
	struct vm vm;
	struct server server;
	uint8_t *memory;
};

static void stuck_make(struct stuck_vm *t, const uint8_t *code, const uint8_t *end, enum how how,
		       void (*give)(struct server *s, uint64_t address))
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	memset(t, 0, sizeof(*t));
	t->memory =
		mmap(NULL, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	t->server = (struct server){
		.vm = &t->vm, .fd = uffd_open(), .how = how, .give = give, .memory = t->memory
	};
	vm_make(&t->vm, how == RESET ? VM_RING : 0);
	vm_enter(&t->vm, VM_LONG, 0);
	if (how == CLEAR)
		log_manual(&t->vm, 1);
	if (how == RESET)
		t->server.ring = ring_map(&t->vm);
	vm_load(&t->vm, VM_CODE, code, end - code);
	memset(t->memory, 0, 16 << 12);
	vm_slot(&t->vm, SLOT, LOG, AT, PAGES << 12, t->memory);
	reg.range.start = (uintptr_t)t->memory + 0x10000;
	reg.range.len = 4096;
	if (ioctl(t->server.fd, UFFDIO_REGISTER, &reg))
		check_fatal("UFFDIO_REGISTER", "%s", strerror(errno));
}

/* What finds no slot is a device's, and stores nothing. */
static void stuck_go(struct stuck_vm *t, uint64_t after[2])
{
	pthread_t thread;
	int end;

	if (pthread_create(&thread, NULL, serve, &t->server))
		check_fatal("pthread_create", "failed");
	do
		end = vm_run(&t->vm);
	while (end == KVM_EXIT_MMIO && t->server.how >= MOVE);
	CHECK_EQ(end, KVM_EXIT_HLT);
	pthread_join(thread, NULL);
	harvest(&t->server, after);
}

static void stuck_free(struct stuck_vm *t)
{
	if (t->server.ring)
		munmap(t->server.ring, VM_RING_BYTES);
	vm_destroy(&t->vm);
	close(t->server.fd);
	munmap(t->memory, PAGES << 12);
}

static void stuck_run(unsigned i, enum how how)
{
	uint64_t before, after[2];
	struct stuck_vm t;

	stuck_make(&t, stuck[i].code, stuck[i].end, how, zeros_serve);
	stuck_go(&t, after);
	before = t.server.got[0];
	if (!((before | after[0]) & 1))
		check_failed(stuck[i].name, "%s: the page written before is not in the log",
			     how_names[how]);
	for (unsigned page = 0; page < 17; page++)
		if (memcmp(t.memory + (page << 12), t.server.copy[page], 4096) != 0 &&
		    !(after[0] >> page & 1))
			check_failed(stuck[i].name,
				     "%s: a store to page %u is in no log: %#lx, then %#lx",
				     how_names[how], page, before, after[0]);
	/* The store came after the harvest, so it has to be in the next log, whatever was in the first. */
	if (stuck[i].writes && how < MOVE && !(after[0] >> 16 & 1))
		check_failed(stuck[i].name, "%s: the store is in no log: %#lx, then %#lx",
			     how_names[how], before, after[0]);
	if (!stuck[i].writes && how < MOVE && after[0])
		check_failed(stuck[i].name, "%s: a load is in the log: %#lx", how_names[how],
			     after[0]);
	stuck_free(&t);
}

static void stuck_all(void)
{
	for (enum how how = 0; how < HOWS; how++)
		for (unsigned i = 0; i < sizeof(stuck) / sizeof(stuck[0]); i++)
			stuck_run(i, how);
}

/*
 * A store through an address that was checked before an access in the same block that waits: the harvest comes between.
 * What waits is the walk, for a page table in the missing page.
 */
#define FAR_LIN 0xa000000ul
GUEST(stuck_window, 64,
      "mov $0x8000000, %ebx; mov $0xa000000, %r9d; xor %r10d, %r10d; movb $1, (%rbx); jmp 1f; 1: "
      "mov %rax, (%rbx); mov (%r9,%r10), %rcx; mov %rax, 8(%rbx); hlt");

static void table_serve(struct server *s, uint64_t address)
{
	static uint64_t table[512] = { 0x50063 };
	struct uffdio_copy copy = { .dst = address, .src = (uintptr_t)table, .len = 4096 };

	if (ioctl(s->fd, UFFDIO_COPY, &copy))
		check_fatal("UFFDIO_COPY", "%s", strerror(errno));
}

static void stuck_between(void)
{
	struct stuck_vm t;
	uint64_t after[2];

	stuck_make(&t, stuck_window, stuck_window_end, GET, table_serve);
	*vm_pde(&t.vm, FAR_LIN) = FAR | 0x63;
	stuck_go(&t, after);
	if (!(t.server.got[0] & 1))
		check_failed("window", "the page written before is not in the log");
	if (!(after[0] & 1))
		check_failed("window", "the store is in no log: %#lx, then %#lx", t.server.got[0],
			     after[0]);
	stuck_free(&t);
}

/*
 * Slots come and go while a vCPU waits in a host fault, by a thread that does not serve it: this lasts no longer than until the
 * page is there. The waiting store goes to where it was going, or begins again and finds no memory.
 */
static void *slots_change(void *arg)
{
	struct stuck_vm *t = arg;

	vm_slot(&t->vm, SLOT + 1, 0, AT + (64 << 12), 4096, t->memory);
	vm_slot(&t->vm, SLOT + 1, 0, AT + (64 << 12), 0, t->memory);
	vm_slot(&t->vm, SLOT, 0, AT, 0, t->memory);
	return NULL;
}

static void *serve_late(void *arg)
{
	struct stuck_vm *t = arg;
	struct uffd_msg msg;
	pthread_t changer;

	if (read(t->server.fd, &msg, sizeof(msg)) != sizeof(msg))
		check_fatal("userfaultfd", "no event");
	if (pthread_create(&changer, NULL, slots_change, t))
		check_fatal("pthread_create", "failed");
	usleep(20000);
	zeros_serve(&t->server, msg.arg.pagefault.address & ~4095ul);
	pthread_join(changer, NULL);
	return NULL;
}

GUEST(stuck_slots, 64, "mov $0x8000000, %ebx; mov $0x1234, %eax; mov %rax, 0x10008(%rbx); hlt");

static void stuck_slot_changes(void)
{
	struct stuck_vm t;
	pthread_t thread;
	int r;

	stuck_make(&t, stuck_slots, stuck_slots_end, GET, NULL);
	if (pthread_create(&thread, NULL, serve_late, &t))
		check_fatal("pthread_create", "failed");
	r = vm_run(&t.vm);
	pthread_join(thread, NULL);
	if (r == KVM_EXIT_MMIO) {
		CHECK_EQ(t.vm.run->mmio.phys_addr, FAR + 8);
		CHECK_EQ(*(uint64_t *)(t.memory + 0x10008), 0);
		CHECK_EXIT(&t.vm, KVM_EXIT_HLT);
	} else {
		CHECK_EQ(r, KVM_EXIT_HLT);
		CHECK_EQ(*(uint64_t *)(t.memory + 0x10008), 0x1234);
	}
	vm_jump(&t.vm, VM_CODE);
	CHECK_EXIT(&t.vm, KVM_EXIT_MMIO);
	stuck_free(&t);
}

/*
 * The vCPU waits in a fault that has a request pending of being watched, whose own reader waits for nobody: it must be fetched for
 * the dirty log all the same, or the thread that provides the page, and harvests first, waits for ever.
 */
static void *serve_watched(void *arg)
{
	struct stuck_vm *t = arg;
	struct uffd_msg msg;

	if (read(t->server.fd, &msg, sizeof(msg)) != sizeof(msg))
		check_fatal("userfaultfd", "no event");
	usleep(1000);
	CHECK_EQ(anykvm_watch(t->vm.fd, 1), 0);
	harvest(&t->server, t->server.got);
	zeros_serve(&t->server, msg.arg.pagefault.address & ~4095ul);
	return NULL;
}

static void stuck_watched(void)
{
	struct stuck_vm t;
	uint64_t after[2];
	pthread_t thread;

	if (vm_on_device)
		check_skip("of the library only");
	for (unsigned i = 0; i < sizeof(stuck) / sizeof(stuck[0]); i++) {
		stuck_make(&t, stuck[i].code, stuck[i].end, GET, NULL);
		if (pthread_create(&thread, NULL, serve_watched, &t))
			check_fatal("pthread_create", "failed");
		CHECK_EXIT(&t.vm, KVM_EXIT_HLT);
		pthread_join(thread, NULL);
		harvest(&t.server, after);
		CHECK(t.server.got[0] & 1);
		CHECK(!stuck[i].writes || after[0] >> 16 & 1);
		CHECK_EQ(anykvm_watch(t.vm.fd, 0), 0);
		stuck_free(&t);
	}
}

VM_TESTS({ .name = "each kind of access", .run = stuck_all },
	 { .name = "between check and store", .run = stuck_between },
	 { .name = "slots change meanwhile", .run = stuck_slot_changes },
	 { .name = "with a request to be watched", .run = stuck_watched });
