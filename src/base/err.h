/* SPDX-License-Identifier: Apache-2.0 */
/* err.h - the one table of errors.
 *
 * A function returns 0 or a negative code: -errno, or one of ours below for what errno cannot name. A count never travels in
 * the same value. The protocol edges map codes to the wire (NBD, SCSI sense) with the columns here, and a test walks the table. */
#ifndef STRATA_BASE_ERR_H
#define STRATA_BASE_ERR_H

#include <errno.h>

/* ours: above every errno Linux has (4095 is its own limit), so that both live in one int */
enum { ERR_BASE = 5000 };

/* X(NAME, errno that a foreign interface shows instead, text). Nodes tell one another the numbers: new ones go to the end. */
#define ERR_TABLE(X)                                                                           \
	X(STALE_EPOCH, EIO, "the volume has a newer owner")                                    \
	X(STALE_CGEN, EIO,                                                                     \
	  "the slot holds another generation of the chunk; the mapping must be fetched again") \
	X(CHECKSUM, EIO, "the data does not match its checksum")                               \
	X(BAD_BLOCK, EIO, "the block is known to be damaged and has not been rewritten since") \
	X(LOST, EIO, "the device that held this chunk was removed as lost")                    \
	X(UNFLUSHED_LOST, EIO,                                                                 \
	  "acknowledged writes that were not flushed were lost with a device's power")         \
	X(NOT_OWNER, EACCES, "another node owns this volume")                                  \
	X(DEVICE_FAILED, EIO, "the device is out of service after an I/O error")               \
	X(DEVICE_GONE, EIO, "the device or its node is away")                                  \
	X(FORMAT, EIO, "the on-disk structure is damaged")                                     \
	X(VERSION, EOPNOTSUPP, "made by an incompatible version of this software")             \
	X(FOREIGN, EEXIST, "the device carries the signature of something else")               \
	X(WENT_BACK, ESTALE, "this is an older copy than one that has been seen before")       \
	X(PROTOCOL, EPROTO, "the peer broke the protocol")                                     \
	X(GUARD, EAGAIN, "somebody else changed the record first")                             \
	X(FROZEN, EROFS, "the layer is frozen")                                                \
	X(IN_USE, EBUSY, "in use")                                                             \
	X(META_AWAY, EIO, "the metadata server did not answer in time")

enum err_code {
	ERR_FIRST_ = ERR_BASE,
#define X(name, wire, text) E_##name,
	ERR_TABLE(X)
#undef X
	    ERR_END_
};

/* Text for 0, -errno and -E_*: never NULL. */
const char *err_text(int err);

/* The name, e.g. "ENOSPC" or "E_STALE_EPOCH"; never NULL. */
const char *err_name(int err);

/* The code of a name that err_name() gave; 0 for "" and "OK"; -EPROTO for a name nobody knows (a later version's). For wires between our own
 * programs: names outlive the numbers. */
int err_by_name(const char *name);

/* The positive errno that an interface which knows only errno shows for `err` (0 for 0). */
int err_errno(int err);

/* errmsg buffers of control-plane requests */
enum { ERRMSG_LEN = 256 };

#endif
