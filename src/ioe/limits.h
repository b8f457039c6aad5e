/* SPDX-License-Identifier: Apache-2.0 */
/* limits.h - what the system lets this process have. */
#ifndef STRATA_IOE_LIMITS_H
#define STRATA_IOE_LIMITS_H

/* As many file descriptors as the hard limit allows: the soft one is kept low for programs that use select(2), which ours do not. Each client and
 * each device takes one. */
void limits_raise_files(void);

#endif
