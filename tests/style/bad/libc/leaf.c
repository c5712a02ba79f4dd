/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Calls libc and adds doubles. */
#include <string.h>

double f(double a, char *p);
double f(double a, char *p)
{
	return a + (double)strlen(p);
}
