/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The counters of a trace as two tables, or as JSON. */
#ifndef CMD_SUMMARY_H
#define CMD_SUMMARY_H

#include <stdio.h>

#include "base/trace.h"

/* 0, or -1 when @out cannot be written. */
int summary_print(const struct trace_area *a, FILE *out);
int summary_print_json(const struct trace_area *a, FILE *out);

#endif
