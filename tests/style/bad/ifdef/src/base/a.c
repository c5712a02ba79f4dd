/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Conditional. */
int f(void)
{
#ifdef A
	return 1;
#endif
	return 0;
}
