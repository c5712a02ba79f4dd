/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Which host registers translated code uses for what. */
#ifndef ENGINE_X86_REGS_H
#define ENGINE_X86_REGS_H

#include "cpu/x86/state.h" /* register numbers */

/*
 * Guest registers live in the host registers of the same name, except that three host registers are the
 * translator's: two scratch registers, and one for the guest's RSP, which is never in the host's. The
 * guest registers of those names are in memory. Compilers give out R13-R15 last, so that the loops that
 * matter seldom use them.
 */
#define T0	 R14 /* addresses */
#define T1	 R15
#define HOST_RSP R13 /* the guest's RSP */

#endif
