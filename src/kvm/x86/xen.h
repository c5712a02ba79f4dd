/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Xen's interface for guests that know it: what a VM and a vCPU keep for it, and its entry points. */
#ifndef KVM_X86_XEN_H
#define KVM_X86_XEN_H

#include <linux/kvm.h>
#include <pthread.h>

#include "base/types.h"
#include "cpu/x86/state.h"
#include "virt/irq/irq.h"
#include "virt/timer.h"

/*
 * Event channels of two levels. A guest has one page for the VM (shared info: a bit per channel that is pending, and one
 * that masks it) and a few words per vCPU (vcpu info: which words of these bits to look at, and whether there is
 * anything at all). An event sets the bits from the bottom up, by locked operations and without a lock of ours, so that it may
 * come from any thread and under the lock of the interrupt controllers:
 *
 *	pending[port] ---- masked? ---> pending_sel[port / word] ---> upcall_pending ---> vector
 *
 * The last arrow is either the VM's vector, which is looked at before every entry like the INTR pin of a PIC, or the
 * vCPU's own, sent through its APIC. As in KVM these pages are not logged: whoever migrates takes them for dirty.
 */
#define XEN_NO_PAGE   (~0ull) /* as KVM_XEN_*_ATTR say it */
#define XEN_INFO_SIZE 64
#define XEN_INFO_TIME 0x20 /* in vcpu info: struct pvclock_vcpu_time_info */
#define XEN_CAPABILITY                                                                             \
	(KVM_XEN_HVM_CONFIG_HYPERCALL_MSR | KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL |                   \
	 KVM_XEN_HVM_CONFIG_SHARED_INFO | KVM_XEN_HVM_CONFIG_RUNSTATE |                            \
	 KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND)
#define XEN_RUNSTATES 4
enum xen_runstate { XEN_RUNNING, XEN_RUNNABLE, XEN_BLOCKED, XEN_OFFLINE };

struct vm;
struct vcpu;
struct xen_port;

struct xen_vm {
	struct kvm_xen_hvm_config config; /* under vm->lock; read without */
	u64 shared;			  /* address of the shared info; atomic */
	bool long_mode;			  /* layout of what the guest shares; atomic */
	u8 vector;			  /* 0: none */
	u32 version;			  /* 0: user space answers */
	pthread_mutex_t lock;	/* the next; before the lock of the interrupt controllers */
	struct xen_port **port; /* what the guest sends, by channel; NULL: nothing was assigned */
};

struct xen_vcpu {
	/* Addresses, read by any thread. */
	u64 info, time, runstate;
	u32 id; /* as hypercalls name the vCPU */
	u8 vector;

	/* Set by any thread: to be looked at before entry. */
	bool attention;
	bool timer_due;
	u64 sel_due;  /* bits of pending_sel that could not be written */
	bool polling; /* SCHEDOP_poll has not been ended by an event */

	bool waits;	/* in SCHEDOP_poll */
	s64 poll_port;	/* -1: several */
	u64 poll_until; /* CLOCK_MONOTONIC; 0: for ever */
	struct timer poll_timer;

	bool timers; /* both are initialised */
	struct timer timer;
	u32 timer_port;	   /* 0: the guest has no timer */
	u64 timer_expires; /* guest time; 0: not armed */

	u32 state; /* enum xen_runstate */
	u64 state_since, state_time[XEN_RUNSTATES], last_delay, last_tsc;
};

/* xen_config.c */
void xen_vm_init(struct vm *vm);
void xen_vm_destroy(struct vm *vm);
void xen_vcpu_init(struct vcpu *v);
void xen_vcpu_destroy(struct vcpu *v);
bool vm_xen_takes_calls(const struct vm *vm);
bool vcpu_xen_msr_is(const struct vcpu *v,
		     u32 index); /* the register that asks for the hypercall page */
int vcpu_xen_page_write(struct vcpu *v, u64 value); /* 0 or 1 */

/* xen_call.c */
bool vcpu_xen_takes(const struct vcpu *v, u64 nr); /* whether hypercall @nr is Xen's */
enum x86_status vcpu_xen_hypercall(struct vcpu *v, u64 *result);

/* xen_event.c */
u32 xen_channels(const struct vm *vm);
/* As the interrupt controllers report: >0 delivered, 0 pending already, <0 not. Any thread, no lock. @up: what remains to be sent. */
int xen_event_set(struct vm *vm, u32 vcpu_id, u32 channel, struct irq_upcall *up);
int xen_event_send(struct vm *vm, u32 vcpu_id, u32 channel); /* and sends it */
bool xen_upcall_waits(const struct vcpu *v);		     /* the VM's vector is due */
void xen_sel_deliver(struct vcpu *v);
bool xen_channel_is_pending(const struct vm *vm, u32 channel);
long xen_port_attr(struct vm *vm, const struct kvm_xen_hvm_attr *a);
bool xen_port_send(struct vcpu *v, u32 channel); /* whether somebody has it */
void xen_ports_destroy(struct vm *vm);

/* xen_time.c */
u64 xen_now(struct vm *vm);
void xen_runstate_set(struct vcpu *v, u32 state);
void xen_runstate_enter(struct vcpu *v);   /* the vCPU runs, and the guest is told */
void xen_runstate_refresh(struct vcpu *v); /* before entry */
void xen_run_begin(struct vcpu *v);	   /* KVM_RUN */
void xen_timer_start(struct vcpu *v, u64 expires);
void xen_timer_stop(struct vcpu *v);
void xen_attend(struct vcpu *v);	  /* any thread */
bool xen_has_event(const struct vcpu *v); /* wakes a halted vCPU, whatever its IF */
long xen_serve(struct vcpu *v);		  /* 1, or what vcpu_sleep() returned */

#endif
