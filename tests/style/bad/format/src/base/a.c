/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Not formatted. */
int f( void );
