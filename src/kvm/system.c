/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Requests on the system descriptor that belong to no processor kind. */
#include <errno.h>
#include <unistd.h>

#include "kvm/file.h"
#include "kvm/kvm.h"

long system_api_version(struct call *c)
{
	(void)c;
	return KVM_API_VERSION;
}

long system_mmap_size(struct call *c)
{
	(void)c;
	return RUN_SIZE;
}

long system_check_extension(struct call *c)
{
	return caps_check(c->sys, NULL, c->arg);
}

long system_create_vm(struct call *c)
{
	struct vm *vm;
	int fd, r;

	if (c->arg) /* machine type: x86 has one */
		return -EINVAL;
	vm = vm_create(c->sys, &r);
	if (!vm)
		return r;
	fd = file_memfd(FILE_VM, 0, true);
	if (fd < 0) {
		vm_put(vm);
		return fd;
	}
	r = file_add(fd, FILE_VM, vm, vm_release);
	if (r) {
		close(fd);
		vm_put(vm);
		return r;
	}
	return fd;
}
