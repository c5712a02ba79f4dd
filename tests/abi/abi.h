/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The KVM API through four functions, so that the same cases run on the library and on a device. */
#ifndef TESTS_ABI_H
#define TESTS_ABI_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct abi_ops {
	const char *name;
	int (*open)(const char *path, int flags);
	int (*ioctl)(int fd, unsigned long request, ...);
	void *(*mmap)(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
	int (*close)(int fd);
};

/* One backend under test: what it answered, in the order of the cases. */
struct abi {
	const struct abi_ops *ops;
	const char *group;
	unsigned n;
	long got[2048];
	int sys;
};

#define ABI_OK 0x7fffffffL /* expected: any value >= 0 */

/* Record one answer: @got as from abi_ioctl(). The first backend's is compared with @expected. */
void abi_case(struct abi *a, const char *name, long expected, long got);

/* >= 0 or -errno. */
long abi_ioctl(struct abi *a, int fd, unsigned long request, unsigned long arg);
#define IOCTL(a, fd, request, arg) abi_ioctl(a, fd, request, (unsigned long)(arg))

/* Ends the program unless it is so. */
void abi_must(bool good, const char *what);

/* A pointer into a page that is not mapped. */
void *abi_bad_pointer(void);

/* A VM and, unless @vcpu is NULL, vCPU 0; ends the program when that fails. */
int abi_vm(struct abi *a, int *vcpu);
void abi_close(struct abi *a, int fd);
struct kvm_run *abi_run_page(struct abi *a, int vcpu);

/* One page of guest memory at 0 with @code, and vCPU 0 in real mode at address 0; returns the page. */
uint8_t *abi_code(struct abi *a, int vm, int vcpu, const void *code, size_t len);

/* A VM with one vCPU, whose code is in a page at 0; see abi_code(). */
struct abi_guest {
	int vm, vcpu;
	struct kvm_run *run;
	uint8_t *page;
	uint8_t *more; /* NULL: none */
	unsigned more_pages;
	int more_fd;
};

void abi_start(struct abi *a, struct abi_guest *g, bool irqchip, const void *code, size_t len);
void abi_stop(struct abi *a, struct abi_guest *g);
/* More memory, in slot 5, of a file of its own (@more_fd). */
void abi_more(struct abi *a, struct abi_guest *g, uint64_t gpa, unsigned pages);
long abi_run(struct abi *a, struct abi_guest *g);
struct kvm_regs abi_regs(struct abi *a, struct abi_guest *g);

#define ABI_CODE(...) ((const uint8_t[]){ __VA_ARGS__ })
#define ABI_START(a, g, irqchip, ...)                                                              \
	abi_start(a, g, irqchip, ABI_CODE(__VA_ARGS__), sizeof(ABI_CODE(__VA_ARGS__)))

long abi_enable(struct abi *a, int fd, unsigned cap, uint64_t arg);
long abi_msr_set(struct abi *a, int vcpu, uint32_t index, uint64_t value);
uint64_t abi_msr_get(struct abi *a, int vcpu, uint32_t index); /* all ones: refused */

/* Attributes of one number, and an event; in abi_xen.c. */
long abi_xen_set(struct abi *a, int vm, unsigned type, uint64_t value);
long abi_xen_vcpu_set(struct abi *a, int vcpu, unsigned type, uint64_t value);
long abi_xen_send(struct abi *a, int vm, uint32_t port, uint32_t vcpu, uint32_t priority);

void abi_system_cases(struct abi *a);
void abi_vm_cases(struct abi *a);
void abi_memory_cases(struct abi *a);
void abi_vcpu_cases(struct abi *a);
void abi_state_cases(struct abi *a);
void abi_chip_cases(struct abi *a);
void abi_event_cases(struct abi *a);
void abi_split_cases(struct abi *a);
void abi_run_cases(struct abi *a);
void abi_x86_cases(struct abi *a);
void abi_hyperv_cases(struct abi *a);
void abi_xen_cases(struct abi *a);
void abi_gone_cases(struct abi *a);
void abi_dirty_cases(struct abi *a);
void abi_errno_cases(struct abi *a);
void abi_table_cases(struct abi *a);
/* Coverage by row of kvm.def: every answer of the library is noted; the report gives the number of rows with holes. */
void abi_table_system(int fd);
void abi_table_note(int fd, unsigned long request, long r);
unsigned abi_table_report(bool print);
/* These need to know that it is the library. */
void abi_library_cases(struct abi *a);

#endif
