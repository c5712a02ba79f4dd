/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where a machine goes to or comes from: unix:PATH, tcp:HOST:PORT, tcp:[V6]:PORT. */
#ifndef VMM_MOVE_URI_H
#define VMM_MOVE_URI_H

#include "vmm/why.h"

/* A connected socket, or -errno with one line. */
int uri_connect(const char *uri, struct why *why);

/* Wait for one connection and take no other. A unix socket is made anew and removed again. */
int uri_accept(const char *uri, struct why *why);

int uri_check(const char *uri, struct why *why); /* 0 or -EINVAL */

#endif
