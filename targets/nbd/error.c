/* SPDX-License-Identifier: Apache-2.0 */
#include "targets/nbd/error.h"

#include "src/base/err.h"

enum nbd_errno nbd_error_of(int status, bool fast_zero)
{
	switch (err_errno(status)) {
	case 0:
		return NBD_OK;
	case EPERM:
	case EACCES:
	case EROFS:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
	case ERANGE:
	case EOVERFLOW: /* NBD_EOVERFLOW is for a READ with DF that is too long, which never reaches a volume */
		return NBD_EINVAL;
	case ENOSPC: /* a VM can pause on it: it must come through as what it is */
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOPNOTSUPP:
		return fast_zero ? NBD_ENOTSUP : NBD_EINVAL;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}

uint32_t nbd_rep_of(int status)
{
	switch (-status) {
	case E_NOT_OWNER:
	case E_STALE_EPOCH:
	case E_IN_USE:
	case EBUSY:
	case EACCES:
	case EPERM:
		return NBD_REP_ERR_POLICY;
	case ESHUTDOWN:
		return NBD_REP_ERR_SHUTDOWN;
	default: /* "the requested export is not available": no such volume, no metadata server, no memory; the text says which */
		return NBD_REP_ERR_UNKNOWN;
	}
}

bool nbd_is_taken_over(int status)
{
	return status == -E_NOT_OWNER || status == -E_STALE_EPOCH;
}
