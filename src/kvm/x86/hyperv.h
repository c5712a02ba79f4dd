/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Hyper-V's interface for guests that know it: what a VM and a vCPU keep for it, and its entry points. */
#ifndef KVM_X86_HYPERV_H
#define KVM_X86_HYPERV_H

#include <linux/kvm.h>

#include "base/types.h"
#include "cpu/x86/state.h"
#include "virt/timer.h"

struct vm;
struct vcpu;

#define HV_SINTS     16
#define HV_STIMERS   4
#define HV_PORTS_MAX 64
#define HV_ENABLE    BIT_ULL(0) /* of the registers that hold the address of a page */

/* Reasons to leave the guest that a register write has left behind: bits of hv_vcpu.wants. */
#define HV_WANT_EXIT  BIT(0) /* hv_vcpu.exit is filled */
#define HV_WANT_CRASH BIT(1)
#define HV_WANT_RESET BIT(2)
#define HV_WANT_FLUSH BIT(3) /* of every vCPU's translations */

struct hv_port {
	u32 conn_id;
	int fd; /* an eventfd of ours */
};

/* Under vm->clock_lock: a leaf. */
struct hv_vm {
	u64 guest_os_id, hypercall;
	u64 tsc_page; /* MSR_REFERENCE_TSC */
	u64 tsc_scale, tsc_offset;
	u32 tsc_sequence; /* what was written; 0: guests use the register */
	u64 crash[5], crash_ctl;
	u64 reenlightenment, emulation_control, emulation_status;
	u64 syndbg[6]; /* control, status, send, receive, pending page, options */
	struct hv_port port[HV_PORTS_MAX];
	unsigned nports;
};

struct hv_stimer {
	struct vcpu *vcpu;
	struct timer timer;
	u64 config, count, expires; /* in units of 100 ns */
	bool pending;		    /* atomic: to be looked at by the vCPU's thread */
	bool undelivered;	    /* the message slot was full */
};

struct hv_vcpu {
	bool enforce;	 /* KVM_CAP_HYPERV_ENFORCE_CPUID */
	bool active;	 /* the synthetic interrupt controller is on */
	bool keep_pages; /* its pages are not cleared when they are given */
	bool timers;	 /* stimer[].timer are initialised */
	u32 vp_index;
	u32 wants; /* HV_WANT_* */
	u64 assist, control, version, evt_page, msg_page, sint[HV_SINTS];
	s64 runtime_offset;
	struct hv_stimer stimer[HV_STIMERS];
	struct kvm_hyperv_exit exit;
};

/* Guest registers: 0 done, 1 not there or refused. @host: for KVM_GET/SET_MSRS. */
int hv_msr_read(struct vcpu *v, u32 index, u64 *value, bool host);
int hv_msr_write(struct vcpu *v, u32 index, u64 value, bool host);
bool hv_msr_is_ours(u32 index);
unsigned hv_msr_list(u32 *list, unsigned max); /* what is saved */

/* Whether CPUID says that this is Hyper-V; whether VMCALL is its hypercall. */
bool hv_is_shown(const struct vcpu *v);
bool hv_takes_calls(const struct vcpu *v);
/* 0-3: EAX..EDX of leaf @function, 0 when it is not there. */
u32 hv_cpuid(const struct vcpu *v, u32 function, unsigned reg);

/* Time since the VM began, in units of 100 ns. */
u64 hv_time(struct vcpu *v);
void hv_clock_changed(struct vm *vm); /* KVM_SET_CLOCK: the reference page follows */

/* One register of the interrupt controller and of its timers. As hv_msr_*(). */
int hv_synic_read(struct vcpu *v, u32 index, u64 *value, bool host);
int hv_synic_write(struct vcpu *v, u32 index, u64 value, bool host);
int hv_synic_activate(struct vcpu *v, bool keep_pages);
void hv_synic_destroy(struct vcpu *v);
bool hv_timer_waits(const struct vcpu *v); /* one has fired and was not looked at */
void hv_timers_run(struct vcpu *v);	   /* deliver what has expired */

/* For the run loop: 1 go on, 0 exit to user space, after hv_wants() says that there is something. */
long hv_serve(struct vcpu *v);
bool hv_wants(const struct vcpu *v);

/* A hypercall, in platform.c's convention. */
enum x86_status hv_hypercall(struct vcpu *v, u64 *result);

void hv_vm_destroy(struct vm *vm);

#endif
