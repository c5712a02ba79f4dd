/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A small VMM for tests: one vCPU, flat memory, any mode of the processor, over the library or a device. */
#ifndef TESTS_GUEST_VM_H
#define TESTS_GUEST_VM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct vm_ops {
	int (*open)(const char *path, int flags);
	int (*ioctl)(int fd, unsigned long request, ...);
	void *(*mmap)(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
	int (*close)(int fd);
};

/*
 * Guest memory: RAM from 0 to VM_SIZE but for the hole at VM_HOLE; everything else is a device's.
 *
 *	0x00000 IVT of real mode	0x01000 GDT		0x02000 TSS
 *	0x03000 IDT			0x04000 exception stubs	0x05000 stack of CPL 0
 *	0x07000 stack of IST 1		0x08000 code		0x0e000 stack of CPL 3
 *	0x10000 page tables		0x20000 free
 *
 * Every exception and interrupt reaches a stub that does OUT to the port of the vector's number, drops
 * the error code and returns with IRET.
 */
#define VM_SIZE	      0x1000000ul
#define VM_HOLE	      0xa0000ul
#define VM_HOLE_END   0xc0000ul
#define VM_DEVICE     0x10000000ul /* mapped by the page tables, without a slot */
#define VM_GDT	      0x1000
#define VM_TSS	      0x2000
#define VM_IDT	      0x3000
#define VM_STUBS      0x4000
#define VM_STACK      0x7000
#define VM_IST	      0x8000
#define VM_CODE	      0x8000
#define VM_USER_STACK 0xf000
#define VM_TABLES     0x10000
#define VM_PT	      0x13000 /* the first 2 MiB (32-bit paging: 4 MiB) in 4 KiB pages */
#define VM_DATA	      0x20000

/* Selectors, in the order that SYSCALL and SYSRET ask for. */
enum {
	SEL_CODE64 = 0x08,
	SEL_DATA = 0x10,
	SEL_CODE32 = 0x18,
	SEL_USER32 = 0x23,
	SEL_USER_DATA = 0x2b,
	SEL_USER64 = 0x33,
	SEL_CODE16 = 0x38,
	SEL_DATA16 = 0x40,
	SEL_USER16 = 0x4b,
	SEL_USER_DATA16 = 0x53,
	SEL_TSS = 0x58,
};

enum vm_mode {
	VM_REAL,
	VM_PM16,
	VM_PM32,
	VM_PAGED32,
	VM_PAE,
	VM_COMPAT,
	VM_LONG,
	VM_V86,
	VM_MODES,
};
extern const char *const vm_mode_names[VM_MODES];

struct vm {
	const struct vm_ops *ops;
	int sys, fd, vcpu;
	size_t run_size;
	struct kvm_run *run;
	uint8_t *ram;
	enum vm_mode mode;
};

/* What the harness chose: the library in one form, or a device. */
extern const struct vm_ops *vm_ops;
extern bool vm_on_device;

#define VM_IRQCHIP    1 /* interrupt controllers of the kernel's */
#define VM_PIT	      2
#define VM_RING	      4 /* dirty rings of VM_RING_BYTES */
#define VM_RING_BYTES 4096ul

/* Ends the test when anything fails. */
void vm_make(struct vm *vm, unsigned flags);
void vm_destroy(struct vm *vm);
/* As vm_make(), but -1 and errno. */
int vm_try(struct vm *vm, unsigned flags);

/* Tables for @mode, and the vCPU at VM_CODE with @cpl (0 or 3); all of it CPL 0 in real mode, 3 in v8086. */
void vm_enter(struct vm *vm, enum vm_mode mode, unsigned cpl);
/* As vm_enter(), without writing the tables again. */
void vm_cpu_enter(struct vm *vm, enum vm_mode mode, unsigned cpl);
/* Another vCPU, with the number @i, of the VM of @first; ends the test when that fails. To be dropped before the VM. */
void vm_add_cpu(struct vm *cpu, const struct vm *first, unsigned i);
void vm_drop_cpu(struct vm *cpu);
/* 64-bit mode: interrupt or exception @vector goes to @handler on the current stack instead of its stub. */
void vm_gate(struct vm *vm, unsigned vector, uint64_t handler);
void vm_slot(struct vm *vm, unsigned id, unsigned flags, uint64_t gpa, uint64_t size, void *hva);
void vm_load(struct vm *vm, uint64_t gpa, const void *code, size_t len);

/* The entry of the 4 KiB page of @lin (below 2 MiB), and of the 2 or 4 MiB page. */
uint64_t *vm_pte(struct vm *vm, uint64_t lin);
uint64_t *vm_pde(struct vm *vm, uint64_t lin);

struct kvm_regs vm_regs(struct vm *vm);
void vm_set_regs(struct vm *vm, const struct kvm_regs *regs);
struct kvm_sregs vm_sregs(struct vm *vm);
void vm_set_sregs(struct vm *vm, const struct kvm_sregs *sregs);
void vm_jump(struct vm *vm, uint64_t rip);
/* >= 0 or -errno. */
long vm_ioctl(struct vm *vm, int fd, unsigned long request, unsigned long arg);
uint64_t vm_peek(struct vm *vm, uint64_t gpa, unsigned size);
void vm_poke(struct vm *vm, uint64_t gpa, uint64_t value, unsigned size);
void vm_set_cpuid(struct vm *vm);
/* Whether the guest's processor has the bit of a CPUID register (0 EAX, 1 EBX, 2 ECX, 3 EDX). */
bool vm_has(struct vm *vm, uint32_t leaf, uint32_t index, unsigned reg, unsigned bit);
void vm_msr(struct vm *vm, uint32_t index, uint64_t value);

/* KVM_RUN until an exit: its reason, or -errno. */
int vm_run(struct vm *vm);

/* The frame that the stub of @vector was entered with, in the stub's mode (32 or 64 bits). */
struct vm_frame {
	int vector; /* -1: the exit is no exception */
	uint64_t error, rip, cs, rflags, rsp, ss, cr2;
};
struct vm_frame vm_frame(struct vm *vm);
/* Run, and expect the exception @vector; the frame. */
struct vm_frame vm_fault(struct vm *vm, int vector, const char *where);
#define VM_FAULT(vm, vector) vm_fault(vm, vector, VM_HERE)

/* A line that says how the last run ended. */
const char *vm_exit_text(struct vm *vm, int reason);

/*
 * Code of a guest, assembled for 16, 32 or 64 bits where it is written: name and name_end delimit it.
 * It runs at VM_CODE unless said otherwise, so labels are relative.
 */
#define GUEST(name, bits, text)                                                                    \
	__asm__(".pushsection .rodata\n.globl " #name "\n" #name ":\n.code" #bits "\n" text        \
		"\n.globl " #name "_end\n" #name "_end:\n.code64\n.popsection\n");                 \
	extern const uint8_t name[], name##_end[]
#define VM_LOAD(vm, gpa, name) vm_load(vm, gpa, name, name##_end - name)

/* Enter @mode and @cpl with the code @name at VM_CODE. */
#define VM_START(vm, mode, cpl, name)                                                              \
	do {                                                                                       \
		vm_enter(vm, mode, cpl);                                                           \
		VM_LOAD(vm, VM_CODE, name);                                                        \
	} while (0)

/* Checks: a failure is told and the test goes on, except for CHECK_EXIT. */
#define VM_STR2(x) #x
#define VM_STR(x)  VM_STR2(x)
#define VM_HERE	   __FILE__ ":" VM_STR(__LINE__)
void check_failed(const char *where, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void check_fatal(const char *where, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
_Noreturn void check_skip(const char *reason);
void check_exit(struct vm *vm, int expected, const char *where);
#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what))                                                                       \
			check_failed(VM_HERE, "%s", #what);                                        \
	} while (0)
#define CHECK_EQ(got, expected)                                                                    \
	do {                                                                                       \
		uint64_t got_ = (uint64_t)(got), expected_ = (uint64_t)(expected);                 \
		if (got_ != expected_)                                                             \
			check_failed(VM_HERE, "%s is %#lx, expected %#lx (%s)", #got, got_,        \
				     expected_, #expected);                                        \
	} while (0)
/* Run, and expect that exit; otherwise the test ends. */
#define CHECK_EXIT(vm, reason) check_exit(vm, reason, VM_HERE)

/* One program of tests: each runs in a process of its own, in both forms or on a device. */
struct vm_test {
	const char *name;
	void (*run)(void);
	unsigned seconds; /* 0: 20 */
	bool library_only;
};
extern const struct vm_test vm_tests[];
extern const unsigned vm_ntests;
#define VM_TESTS(...)                                                                              \
	const struct vm_test vm_tests[] = { __VA_ARGS__ };                                         \
	const unsigned vm_ntests = sizeof(vm_tests) / sizeof(vm_tests[0])

/* ANYKVM_SEED, else 1. */
uint64_t vm_seed(void);
uint64_t vm_random(uint64_t *state);

#endif
