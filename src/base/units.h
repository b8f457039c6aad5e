/* SPDX-License-Identifier: Apache-2.0 */
/* units.h - sizes as people write them. */
#ifndef STRATA_BASE_UNITS_H
#define STRATA_BASE_UNITS_H

#include <stdint.h>

/* "4096", "64K", "10GiB", "1.5T": binary suffixes K M G T P E, optionally followed by "iB" or "B", any case. A fraction must give a
 * whole number of bytes. 0, -EINVAL for text that is no size, -ERANGE past 2^63 - 1. */
int units_parse_size(const char *text, uint64_t *ret_bytes);

enum { UNITS_TEXT_LEN = 48 }; /* more than needed: what the compiler can prove */
/* "10 GiB", "1.5 TiB", "512 B": at most one decimal. */
void units_format_size(uint64_t bytes, char text[UNITS_TEXT_LEN]);

/* "250ms", "30s", "5m", "2h"; without a unit seconds: 0, -EINVAL or -ERANGE */
int units_parse_duration(const char *text, uint64_t *ret_ns);
/* "250ms", "30s", "2h": in the largest unit that leaves no fraction. */
void units_format_duration(uint64_t ns, char text[UNITS_TEXT_LEN]);

#endif
