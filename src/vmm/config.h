/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a VM is to be made of. */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "base/types.h"

#define VMM_MAX_CPUS 64u

#define VMM_MAX_DISKS 8u

enum disk_kind { DISK_KIND_ANY, DISK_KIND_RAW, DISK_KIND_QCOW2 };

struct disk_config {
	char path[4096];
	char serial[21];
	enum disk_kind kind;
	bool read_only;
};

#define VMM_MAX_SHARES 8u
#define VMM_TAG_MAX    36u

struct share_config {
	char path[4096];
	char tag[VMM_TAG_MAX + 1];
	bool read_only;
};

#define VMM_MAX_NETS	 4u
#define VMM_MAX_FORWARDS 16u

enum net_kind { NET_USER, NET_TAP };

/* Addresses in host order; 0: any of the host's, the guest's own. */
struct net_forward {
	bool is_udp;
	u32 host_address, guest_address;
	u16 host_port, guest_port;
};

struct net_config {
	enum net_kind kind;
	u8 mac[6];
	bool is_restricted; /* user: nothing but forwards reaches the outside */
	struct net_forward forwards[VMM_MAX_FORWARDS];
	unsigned forward_count;
	char interface[16]; /* tap */
	int fd;		    /* tap: opened by the caller, or -1 */
};

/* The host's programs meet the guest's at unix sockets beginning with @path. */
struct vsock_config {
	u64 cid; /* 0: there is none */
	char path[96];
};

/* What is on the PCI bus. */
struct vmm_devices {
	struct disk_config disks[VMM_MAX_DISKS];
	unsigned disk_count;
	struct share_config shares[VMM_MAX_SHARES];
	unsigned share_count;
	struct net_config nets[VMM_MAX_NETS];
	unsigned net_count;
	struct vsock_config vsock;
	bool has_ports; /* stdin, stdout, stderr and the status of a command */
};

struct incoming;
struct snapshot;

struct vmm_config {
	const char *options;	   /* the words that it was started with; for a person */
	struct snapshot *snapshot; /* NULL: it starts with a kernel */
	struct incoming *incoming; /* NULL: it does not come from another process */
	bool is_lazy;		   /* pages of the snapshot are read when they are used */
	bool is_followed;	   /* the next snapshot may be an increment to it */
	const char *name;	   /* NULL: nobody can ask for it */
	const char *kernel;	   /* path; needed unless flat or a snapshot is given */
	const u8 *initrd;	   /* NULL: none */
	size_t initrd_size;
	const char *append;
	u64 started_ns; /* CLOCK_MONOTONIC, for the report; 0: with the board */
	u64 memory;	/* bytes */
	unsigned cpus;
	const char *cpu;    /* as --cpu */
	const char *device; /* as --device, NULL: ours */
	const char *flat;   /* image for real mode, NULL: boot a kernel */
	u32 flat_address;
	const char *gdb; /* where a debugger is waited for; NULL: none */
	const struct vmm_devices *devices;
	bool is_command; /* the guest runs one program, and its status is ours */
	bool console_is_apart; /* stdin and stdout are the program's: the console goes to stderr if verbose */
	bool no_reboot, json, verbose;
};

#endif
