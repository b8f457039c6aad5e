/* SPDX-License-Identifier: Apache-2.0 */
/* error.h - what a status of ours is called in NBD. The only place where that is decided. */
#ifndef STRATA_TARGETS_NBD_ERROR_H
#define STRATA_TARGETS_NBD_ERROR_H

#include <stdbool.h>
#include <stdint.h>

#include "targets/nbd/proto.h"

/* The error field of a reply to a request that ended with `status` (0, -errno or -E_*). NBD_OK for 0 only. `fast_zero`: the request was
 * a WRITE_ZEROES with NBD_CMD_FLAG_FAST_ZERO, the one that may be told NBD_ENOTSUP. */
enum nbd_errno nbd_error_of(int status, bool fast_zero);

/* The reply type (NBD_REP_ERR_*) to an option whose export could not be opened or listed because of `status` < 0. */
uint32_t nbd_rep_of(int status);

/* Does `status` say that this node has lost the volume to another one? */
bool nbd_is_taken_over(int status);

#endif
