/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Paravirtual features of one vCPU: what its MSRs asked for, and the state that goes with it. */
#ifndef KVM_PV_H
#define KVM_PV_H

#include "base/types.h"

struct pv {
	u64 steal_msr;	/* MSR_KVM_STEAL_TIME: address | enable */
	u64 eoi_msr;	/* MSR_KVM_PV_EOI_EN: address | enable */
	bool poll_off;	/* MSR_KVM_POLL_CONTROL is 0: the guest polls itself */
	bool steal_due; /* the structure is to be written before entry */
	u64 last_delay; /* run delay of the thread, ns, that the structure has */
	u64 last_tsc;	/* when it was written */
	int stat_fd;	/* schedstat of the thread *stat_thread; 0: none */
	const void *stat_thread;

	bool vapic_shown; /* the guest may have changed the page since it was written */
	u64 vapic;	  /* KVM_SET_VAPIC_ADDR; 0: none */
	bool tpr_reports; /* KVM_TPR_ACCESS_REPORTING */
	bool tpr_access;  /* an exit of it is due */
	bool tpr_lowered; /* KVM_EXIT_SET_TPR is due */
	bool halted;	  /* HLT without an exit (KVM_CAP_X86_DISABLE_EXITS) and without APIC */
};

#endif
