/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A typedef. */
typedef struct a {
	int b;
} a_t;
