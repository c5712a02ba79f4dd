/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET_STATS_FD of a VM and of a vCPU. */
#include <stdio.h>

#include "kvm/file.h"
#include "kvm/kvm.h"
#include "mem/dirty.h"

#define ID_SIZE 48

void vm_stats_show(struct vm *vm)
{
	u64 pages[LEVELS];

	if (likely(!__atomic_load_n(&vm->stats_file.map, __ATOMIC_ACQUIRE)))
		return;
	mem_level_stats(vm->mem, pages);
	vm->stats.pages_4k = pages[LEVEL_4K];
	vm->stats.pages_2m = pages[LEVEL_2M];
	vm->stats.pages_1g = pages[LEVEL_1G];
	stats_show(&vm->stats_file, &vm->stats, sizeof(vm->stats));
}

long stats_vm_fd(struct call *c)
{
	char id[ID_SIZE];
	long r;

	snprintf(id, sizeof(id), "kvm-%d", (int)file_pid());
	pthread_mutex_lock(&c->vm->lock);
	r = stats_open_vm(&c->vm->stats_file, id, &c->vm->stats);
	vm_stats_show(c->vm);
	pthread_mutex_unlock(&c->vm->lock);
	return r;
}

/* DIFFERS: the values of a vCPU are those of its last exit to user space: the file is a copy. */
long stats_vcpu_fd(struct call *c)
{
	char id[ID_SIZE];

	snprintf(id, sizeof(id), "kvm-%d/vcpu-%u", (int)file_pid(), c->vcpu->id);
	return stats_open_vcpu(&c->vcpu->stats_file, id, &c->vcpu->stats);
}
