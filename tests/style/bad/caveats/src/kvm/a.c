/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A difference. */
/* DIFFERS: it is green,
 * not blue. */
