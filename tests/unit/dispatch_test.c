/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The ioctl table: every row is found, once, and nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kvm/dispatch.h"

static void finds_every_row(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ioctl_row_count; i++)
		assert_ptr_equal(dispatch_find(ioctl_rows[i].kind, ioctl_rows[i].request),
				 &ioctl_rows[i]);
}

static void rows_are_different(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ioctl_row_count; i++) {
		for (unsigned k = i + 1; k < ioctl_row_count; k++)
			assert_false(ioctl_rows[i].kind == ioctl_rows[k].kind &&
				     ioctl_rows[i].request == ioctl_rows[k].request);
	}
}

static void finds_nothing_else(void **state)
{
	unsigned found = 0;

	(void)state;
	for (unsigned kind = 0; kind < FILE_KINDS; kind++) {
		for (unsigned nr = 0; nr < 256; nr++)
			found += dispatch_find(kind, _IOC(_IOC_READ | _IOC_WRITE, 'K', nr, 1)) !=
				 NULL;
	}
	assert_int_equal(found, 0);
	/* The kernel takes an int: bits above it do not matter. */
	assert_non_null(dispatch_find(FILE_VCPU, KVM_GET_REGS | 1ul << 40));
}

/* A capability that a row names is one that KVM_CHECK_EXTENSION offers, but for the two TSC ones. */
static void capabilities_are_offered(void **state)
{
	static struct system sys = { .host.xsave = true };

	(void)state;
	for (unsigned i = 0; i < ioctl_row_count; i++) {
		const struct ioctl_row *row = &ioctl_rows[i];

		if (!row->cap || row->cap == KVM_CAP_TSC_CONTROL ||
		    row->cap == KVM_CAP_VM_TSC_CONTROL)
			continue;
		if (!caps_check(&sys, NULL, row->cap))
			fail_msg("%s names capability %u", row->name, row->cap);
	}
}

static int setup(void **state)
{
	(void)state;
	dispatch_init();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_every_row),
		cmocka_unit_test(rows_are_different),
		cmocka_unit_test(finds_nothing_else),
		cmocka_unit_test(capabilities_are_offered),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
