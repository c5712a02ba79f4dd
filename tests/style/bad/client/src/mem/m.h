/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory. */
#ifndef M_H
#define M_H
#endif
