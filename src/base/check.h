/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - assertions that stay on in every build.
 *
 * A failed check is a bug in this program and aborts it. What comes from a peer, a disk, the kernel or an operator is never
 * checked this way: it is handled. */
#ifndef STRATA_BASE_CHECK_H
#define STRATA_BASE_CHECK_H

#include <assert.h>

__attribute__((noreturn, cold)) void check_failed(const char *cond, const char *file, int line,
						  const char *func);

#define check(cond)                              \
	(__builtin_expect(!!(cond), 1) ? (void)0 \
				       : check_failed(#cond, __FILE__, __LINE__, __func__))
#define check_unreachable(what) check_failed(what, __FILE__, __LINE__, __func__)

#define ARRAY_LEN(a)			(sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#include <stddef.h>

#endif
