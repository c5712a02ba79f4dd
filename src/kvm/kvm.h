/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The objects behind the descriptors: virtual machine, virtual processor, and one ioctl call. */
#ifndef KVM_KVM_H
#define KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include "cpu/x86/host.h"
#include "cpu/x86/state.h"
#include "engine/engine.h"
#include "kvm/iobuses.h"
#include "kvm/irqfds.h"
#include "kvm/pv.h"
#include "kvm/stats.h"
#include "kvm/x86/hyperv.h"
#include "kvm/x86/xen.h"
#include "mem/mem.h"
#include "virt/i8254.h"
#include "virt/irq/irq.h"
#include "virt/pvclock.h"
#include "virt/timer.h"

/* Newer than some <linux/kvm.h>. */
#ifndef KVM_CAP_MEMORY_FAULT_INFO
#define KVM_CAP_MEMORY_FAULT_INFO 232
#define KVM_EXIT_MEMORY_FAULT	  39
#endif

/* Limits as Linux 6.1 has them on x86. */
#define VM_MAX_VCPUS	  1024
#define VM_MAX_VCPU_IDS	  4096
#define VM_MAX_CPUID	  256
#define VM_MAX_MSRS	  256
#define VM_MCE_BANKS	  32
#define VM_RING_MAX	  (65536u * sizeof(struct kvm_dirty_gfn)) /* bytes */
#define VM_MEM_SLOTS	  32764					  /* KVM_USER_MEM_SLOTS */
#define VM_MANUAL_PROTECT (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET)
/*
 * Quirks that may be turned off (KVM_CAP_DISABLE_QUIRKS2). DIFFERS: two do nothing here: RIP at an exit for port 0x7e is
 * that of the OUT, and CR0.CD and NW have no effect on memory types.
 */
#define VM_QUIRKS                                                                                  \
	(KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_CD_NW_CLEARED |                             \
	 KVM_X86_QUIRK_LAPIC_MMIO_HOLE | KVM_X86_QUIRK_OUT_7E_INC_RIP |                            \
	 KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT | KVM_X86_QUIRK_FIX_HYPERCALL_INSN |                   \
	 KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)

/* struct kvm_run, the page of port data, and the page of coalesced MMIO (see iobus_map_ring()). */
#define RUN_PAGES      3
#define RUN_SIZE       (RUN_PAGES * PAGE_SIZE)
#define RUN_PIO_OFFSET PAGE_SIZE
#define RING_OFFSET    (KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_SIZE)

struct vcpu;
struct msr_filter;

/* What anykvm_open() finds out once. */
struct system {
	struct x86_host host;
	struct engine_options engine;
	u8 collector; /* enum dirty_collector */
	u32 halt_poll_ns;
};

#define HALT_POLL_NS 200000u /* the kernel's default for x86 */

/*
 * Lock order: vcpu->lock, vm->lock, then clock_lock or the locks of mem, irqchip and timers, each alone.
 * A VM lives until every descriptor of it and of its vCPUs is closed; vCPUs die with it.
 */
struct vm {
	u32 refs;	      /* files; atomic */
	pthread_mutex_t lock; /* creation of vCPUs and devices */
	struct mem *mem;
	struct engine *engine;
	struct timers *timers;
	struct irqchip *irqchip; /* NULL: user space has the interrupt controllers */
	bool split;		 /* KVM_CAP_SPLIT_IRQCHIP: irqchip has local APICs only */
	struct i8254 *pit;
	bool hlt_in_guest, pause_in_guest; /* KVM_CAP_X86_DISABLE_EXITS */
	struct irqfds irqfds;
	struct iobuses iobuses;
	struct irq_options irq_options;
	pthread_mutex_t clock_lock; /* a leaf: nothing is taken under it but mem */
	struct pvclock_vm clock;
	const struct system *sys;

	unsigned nvcpus; /* published with release after vcpu[] is filled */
	struct vcpu *vcpu[VM_MAX_VCPUS];
	u32 bsp_id;
	u32 max_vcpu_ids; /* KVM_CAP_MAX_VCPU_ID; 0 not set */
	u32 host_tsc_khz;
	u32 tsc_khz;	/* of vCPUs to be created */
	u64 tsc_base;	/* host's TSC when the VM was made: the guest's starts there */
	u64 tsc_offset; /* of vCPUs to be created, and of those whose TSC user space keeps in step */
	bool exception_payload;
	bool exit_on_emulation_failure;
	bool triple_fault_event;
	bool no_platform_info; /* KVM_CAP_MSR_PLATFORM_INFO was turned off */
	u64 quirks_off;
	u32 msr_exit_mask; /* KVM_CAP_X86_USER_SPACE_MSR */
	pthread_rwlock_t msr_lock;
	struct msr_filter *msr_filter; /* under msr_lock */
	u64 manual_protect;	       /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
	u32 ring_bytes;		       /* of each vCPU's dirty ring; 0: none */
	u32 halt_poll_ns;	       /* KVM_CAP_HALT_POLL: how long a halted vCPU looks at most */

	struct hv_vm hv;
	struct xen_vm xen;
	struct vm_stats stats;
	struct stats_file stats_file;

	struct timer tick; /* looks after vCPUs in guest code, see run.c */
	bool tick_armed;
};

/* What a vCPU without work does; see sleep.c. */
enum vcpu_rest {
	REST_NOT,
	REST_POLLS,  /* looks at the doorbell */
	REST_SLEEPS, /* in a futex wait: a kick must wake */
};

struct vcpu {
	struct vm *vm;
	u32 id;
	unsigned index;
	pthread_mutex_t lock; /* held by every vCPU ioctl */
	struct engine_vcpu *engine;
	struct x86_cpu *cpu;
	struct kvm_run *run; /* our own mapping of the descriptor's pages */
	struct lapic *lapic; /* NULL without interrupt controllers in the VM */
	u64 apic_base;	     /* without lapic only */
	u32 mp_state;
	bool has_run;
	bool exit_due;	   /* an IO or MMIO exit was handed out and is to be completed */
	bool host_access;  /* an MSR is accessed by ioctl, not by the guest */
	bool recheck;	   /* events wait for the end of an instruction in flight */
	bool enforce_pv;   /* KVM_CAP_ENFORCE_PV_FEATURE_CPUID */
	bool triple_fault; /* an event of KVM_SET_VCPU_EVENTS: the next KVM_RUN is a shutdown */

	/* Written by other threads. */
	u8 rest;	  /* enum vcpu_rest */
	bool in_guest;	  /* in engine_run(), or about to be */
	bool cancellable; /* the thread in KVM_RUN looks for its cancellation */
	bool break_off;	  /* now */
	bool unhalted;	  /* KVM_HC_KICK_CPU */
	bool on_bus;	  /* reads vm->iobuses, own thread; see iobuses.h */
	bool clock_stale; /* time page must be written before entry */
	bool wall_due;	  /* and the wall clock; own thread */
	u32 nmi_queued;	  /* KVM_NMI */
	bool smi_queued;  /* KVM_SMI */

	struct hv_vcpu hv;
	struct xen_vcpu xen;
	struct vcpu_stats stats; /* of the vCPU's own thread */
	struct stats_file stats_file;

	struct pv pv;
	u32 halt_poll_ns;  /* it looks so long before it sleeps */
	u32 halt_poll_off; /* not in so many halts */
	bool sipi_due;
	u8 sipi_vector;
	struct pvclock_vcpu clock;
	u64 clock_tsc_offset; /* TSC offset for which the time page was written */
	bool guest_paused;    /* KVM_KVMCLOCK_CTRL */

	bool sigmask_active;
	sigset_t sigmask;
	u64 log_count; /* lines of platform log, for the rate limit */
	u64 log_second;
};

/* Whether the vector of Xen's event channels is due; like the output of a PIC. */
static inline bool vcpu_xen_upcall(const struct vcpu *v)
{
	return unlikely(v->xen.info != XEN_NO_PAGE) && xen_upcall_waits(v);
}

/* One ioctl. Handlers return a value >= 0 or -errno. */
struct call {
	const struct system *sys;
	struct vm *vm;	   /* VM and vCPU requests */
	struct vcpu *vcpu; /* vCPU requests */
	unsigned long arg; /* as passed */
	void *data;	   /* the structure at arg, copied in and out as the row says */
};

/* Handlers, by kvm.def. */
#define KVM_IOCTL(name, kind, pass, type, arch, cap, handler) long handler(struct call *c);
#include "kvm/kvm.def"
#undef KVM_IOCTL

/* caps.c */
int caps_check(const struct system *sys, const struct vm *vm, unsigned long cap);

/* vm.c */
struct vm *vm_create(const struct system *sys, int *err);
void vm_release(void *vm); /* its descriptor was closed */
void vm_put(void *vm);
void vm_counters(struct vm *vm, counter_fn fn, void *arg);
struct vcpu *vm_vcpu_by_apic_id(struct vm *vm, u32 apic_id);
static inline unsigned vm_vcpus(const struct vm *vm)
{
	return __atomic_load_n(&vm->nvcpus, __ATOMIC_ACQUIRE);
}

/* dirty.c */
long dirty_set_manual(struct vm *vm, u64 options);
bool dirty_ring_map_is_valid(const struct vm *vm, size_t length, int prot, int flags, off_t offset);
long dirty_set_ring(struct vm *vm, u64 bytes);
void dirty_counters(struct vm *vm, counter_fn fn, void *arg);

/* vcpu.c */
void vcpu_skip_instruction(struct vcpu *v); /* the one at RIP is complete */
void vcpu_queue_exception(
	struct vcpu *v); /* cpu->exc, to be delivered before the next instruction */
int vcpu_create(struct vm *vm, u32 id, struct vcpu **out, int *fd);
void vcpu_destroy(struct vcpu *v);
void vcpu_release(void *vcpu);		 /* its last descriptor was closed */
void vcpu_kick(struct vcpu *v);		 /* any thread: look at your events */
void vcpu_ring(struct vcpu *v);		 /* the same, in a signal handler of its own thread */
void vcpu_state_changed(struct vcpu *v); /* registers were set from outside */
/* Forget the answered part of an unfinished device access; @rip: only when it moves away. */
void vcpu_replay_drop(struct vcpu *v);

/* run.c */
long vcpu_run(struct vcpu *v);
long vcpu_interrupted(struct vcpu *v); /* 1, or -EINTR when KVM_RUN must end for a signal */

/* sleep.c */
long vcpu_sleep(struct vcpu *v, bool (*done)(struct vcpu *v)); /* 1, or -EINTR */
void vcpu_wake(struct vcpu *v);
void vcpu_doorbell(struct vcpu *v); /* a wait that is about to begin does not */

/* x86/pv.c: before and after guest code runs, before a sleep; MSRs 0 or 1 (#GP). */
static inline bool
pv_is_active(const struct vcpu *v) /* one of the first two may have something to do */
{
	return v->pv.steal_msr || v->pv.eoi_msr || v->pv.vapic || v->pv.vapic_shown;
}
void pv_enter(struct vcpu *v);
void pv_leave(struct vcpu *v);
void pv_sleep(struct vcpu *v);
int pv_wrmsr(struct vcpu *v, u32 index, u64 value);
int pv_rdmsr(const struct vcpu *v, u32 index, u64 *value);
void pv_destroy(struct vcpu *v);
u64 pv_run_delay(struct vcpu *v); /* ns that this thread waited for a CPU */

/* x86/vapic.c */
void vapic_enter(struct vcpu *v);
void vapic_leave(struct vcpu *v);
void vapic_note_access(struct vcpu *v, gpa_t gpa, bool is_write);
bool vcpu_late_exit(
	struct vcpu *v); /* what an instruction left for user space to know: kvm_run is filled */

/* tick.c */
int vm_tick_init(struct vm *vm);
void vm_tick_start(struct vm *vm);

/* inject.c */
void vcpu_accept_events(struct vcpu *v); /* INIT, SIPI, NMI from the APIC */
bool vcpu_has_wakeup(struct vcpu *v);
bool vcpu_is_quiet(
	struct
	vcpu *v); /* nothing is to be injected or written before entry: vcpu_inject() is not needed */
enum x86_status vcpu_inject(struct vcpu *v);
bool vcpu_irq_window_open(const struct vcpu *v);

/* x86/irqchip.c: KVM_CAP_SPLIT_IRQCHIP, under vm->lock */
long irqchip_split(struct vm *vm, u64 pins);

/* exit.c */
long vcpu_exit(struct vcpu *v); /* cpu->exit to kvm_run: 0 to user space, 1 continue */
void vcpu_exit_complete(struct vcpu *v);

/* x86/msr_filter.c */
void msr_filter_free(struct msr_filter *f);
bool vcpu_msr_allowed(void *vcpu, u32 index, bool is_write);
bool vcpu_msr_ask(void *vcpu, u32 index, u64 value, bool is_write, enum x86_msr_why why);
void vcpu_msr_complete(struct vcpu *v); /* user space has answered */
void vm_msr_exits_changed(struct vm *vm);

/* stats_fd.c */
void vm_stats_show(struct vm *vm); /* refresh what KVM_GET_STATS_FD gave; cheap when nobody asked */

/* x86/tsc.c */
u64 tsc_ratio(const struct vm *vm, u32 khz);	 /* for cpu->tsc_ratio */
bool tsc_set_by_user(struct vcpu *v, u64 value); /* KVM_SET_MSRS */

/* x86/vmcaps.c */
long vm_enable_x86_cap(struct vm *vm, const struct kvm_enable_cap *e);
long vcpu_enable_x86_cap(struct vcpu *v, const struct kvm_enable_cap *e);
void vcpu_choices(struct vcpu *v); /* follow what was chosen for the VM */

/* platform.c */
extern const struct x86_platform vcpu_platform;
bool vcpu_pv_has(const struct vcpu *v, unsigned feature); /* KVM_CPUID_FEATURES, when enforced */
u64 vcpu_apic_base(const struct vcpu *v);
int vcpu_apic_base_set(struct vcpu *v, u64 value, bool host); /* 0 or -1 */
void vcpu_clock_write(struct vcpu *v);			      /* own thread, before entry */

/* Shared by ioctls and KVM_CAP_SYNC_REGS. */
void regs_get(struct vcpu *v, struct kvm_regs *r);
void regs_set(struct vcpu *v, const struct kvm_regs *r);
void sregs_get(struct vcpu *v, struct kvm_sregs *s);
int sregs_set(struct vcpu *v, const struct kvm_sregs *s);
void events_get(struct vcpu *v, struct kvm_vcpu_events *e);
int events_set(struct vcpu *v, const struct kvm_vcpu_events *e);
void mce_init(struct vcpu *v);

#endif
