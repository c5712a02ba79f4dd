/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Calls upward past the headers. */
int vm_find(void);
int slot_next(void);

int slot_next(void)
{
	return vm_find() + 1;
}
