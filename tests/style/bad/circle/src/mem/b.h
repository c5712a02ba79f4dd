/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Other half. */
#ifndef B_H
#define B_H
#endif
