/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Includes nothing. */
#ifndef A_H
#define A_H
int f(size_t n);
#endif
