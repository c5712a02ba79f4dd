/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How a VM ended, and the exit status of the process that tells it. */
#ifndef VMM_STATUS_H
#define VMM_STATUS_H

enum vm_end {
	VM_RUNNING,
	VM_POWEROFF,
	VM_QUIT, /* Ctrl-A x */
	VM_RESET,
	VM_TRIPLE_FAULT,
	VM_MOVED, /* it runs elsewhere */
	VM_PANIC, /* the guest's kernel has told it */
	VM_SIGNAL,
	VM_FAILED, /* the status and the line are with the vCPU */
};

enum exit_status {
	STATUS_OK = 0,
	STATUS_REFUSED = 1,   /* a running VM says no */
	STATUS_USAGE = 2,     /* also bad input: a kernel, an initrd, a size */
	STATUS_PREFLIGHT = 3, /* something needed is missing, or a program cannot be entered */
	STATUS_RESET = 32,
	STATUS_TRIPLE_FAULT = 33,
	STATUS_PANIC = 34,
	STATUS_INTERNAL = 64,	/* KVM_EXIT_INTERNAL_ERROR, or an error of KVM_RUN */
	STATUS_DEVICE = 65,	/* the KVM device cannot be opened or refuses a request */
	STATUS_ENTRY = 66,	/* KVM_EXIT_FAIL_ENTRY */
	STATUS_UNEXPECTED = 67, /* an exit that this board does not know */
	STATUS_CRASHED = 68,	/* the guest reported that it crashed */
	STATUS_OUTPUT = 69,	/* the console cannot be written */
	STATUS_INCOMING = 71,	/* the machine that was to come did not, or not whole */
	STATUS_NO_COMMAND = 70, /* the guest ended without the status of the command */
	STATUS_NOT_RUN = 126,	/* exec: the program cannot be run */
	STATUS_NOT_FOUND = 127, /* exec: there is no such program */
	STATUS_SIGNAL = 128,	/* + number of the signal */
};

#endif
