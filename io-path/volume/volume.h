/* SPDX-License-Identifier: Apache-2.0 */
/* volume.h - the block-device contract: what a target (NBD, iSCSI, a benchmark) sees of a volume.
 *
 * A node has one runtime per open volume, shared by all its openers; each opener (a connection, an iSCSI session) holds a
 * `struct volume_handle`. All calls are made on the loop; nothing completes inline; each `done` runs exactly once and is the last touch
 * of its struct.
 *
 * Ordering: overlapping requests take effect one after the other, in the order of submission; a read that overlaps a write in flight waits
 * for it. FLUSH covers everything acknowledged on any handle before it was submitted. A request may be larger than a chunk. Requests in
 * flight when the volume is closed finish first.
 *
 * Errors (status): 0; -EINVAL (range, alignment); -EROFS (read-only handle or snapshot); -ENOSPC (the pool is full: reads and overwrites still
 * work); -EIO and the -E_* codes that show as EIO (damage, lost device); -E_NOT_OWNER, -E_STALE_EPOCH (another node has taken the
 * volume over: every further request fails so); -ESHUTDOWN after close began. err_errno() gives the errno for the wire. */
#ifndef STRATA_IO_PATH_VOLUME_VOLUME_H
#define STRATA_IO_PATH_VOLUME_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/err.h"
#include "src/base/list.h"
#include "src/base/uuid.h"
#include "src/model/ids.h"

struct volumes; /* all open volumes of this node: volumes.h makes one */
struct volume_handle;

enum { VOLUME_IO_BYTES_MAX = 32 << 20 };

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

struct volume_open {
	/* given; the strings are copied at the call */
	const char *name;   /* "volume" or "volume@snapshot" */
	const char *client; /* who opens, for people: "nbd unix pid 12", "nbd 127.0.0.1:4711" */
	bool read_only;
	bool exclusive; /* refuse (-E_IN_USE) while somebody else has it open, and refuse others while we have */
	bool remote_client; /* reached over a network that is not this machine: matters for write-cache=auto */
	void (*done)(struct volume_open *op);
	/* results */
	int status; /* -ENOENT, -EINVAL (name), -E_NOT_OWNER (owner_uri set), -E_IN_USE, -E_META_AWAY, -ENOMEM */
	char errmsg[ERRMSG_LEN];
	char owner_uri[ERRMSG_LEN]; /* where to go instead */
	struct volume_handle *handle;
	/* private */
	struct list link;
	uint64_t priv[8];
};
void volume_open(struct volumes *vs, struct volume_open *op);

/* Nobody hears the answers of requests in flight any more, and there will be no others: what a FLUSH would have told of lost writes is for others to hear.
 * volume_close() says so too. */
void volume_left(struct volume_handle *h);

/* Two-phase: requests in flight finish, then done. Later submits on the handle are a bug. The last close lets the runtime go. */
void volume_close(struct volume_handle *h, void (*done)(void *arg), void *arg);

struct volume_geometry {
	uint64_t size_bytes;
	uint32_t sector_bytes;	 /* logical: requests are multiples of it (512 by default) */
	uint32_t physical_bytes; /* 4096: what needs no read-modify-write */
	uint32_t io_bytes_max;	 /* VOLUME_IO_BYTES_MAX */
	uint32_t chunk_bytes;	 /* discards of whole chunks give space back */
	bool read_only;
	bool one_opener;  /* a second one is refused: there is no use in offering it */
	bool write_cache; /* false: every acknowledgement is stable, FLUSH is cheap */
	struct uuid uuid;
	char name[2 * NAME_LEN_MAX + 2];
};
void volume_geometry(struct volume_handle *h, struct volume_geometry *ret_geometry);

/* Called on the loop when the size changed or the volume was taken away (status < 0: no request will succeed any more). NULL removes. */
void volume_on_change(struct volume_handle *h, void (*fn)(void *arg, int status), void *arg);

/* Names of the volumes that may be opened here, in order, a page at a time. */
struct volume_list {
	char after[NAME_LEN_MAX + 1]; /* "" to begin */
	uint32_t names_max;	      /* of `names`; at most 1000 */
	char (*names)[NAME_LEN_MAX + 1];
	void (*done)(struct volume_list *op);
	int status;
	uint32_t names_n; /* < names_max: that was the last page */
	uint64_t priv[8];
};
void volume_list(struct volumes *vs, struct volume_list *op);

/* ---- requests ---------------------------------------------------------------------------------------------------------- */

enum volume_op {
	VOLUME_READ,
	VOLUME_WRITE,
	VOLUME_WRITE_ZEROES,
	VOLUME_DISCARD, /* gives space back where it can; reads as zeros (or the parent's data) where it did, else unchanged */
	VOLUME_FLUSH,	/* off and len do not matter */
	VOLUME_STATUS,	/* extents of [off, off + len) */
};

enum volume_flags {
	VOLUME_F_FUA = 1 << 0, /* WRITE, WRITE_ZEROES, DISCARD: stable before the answer */
	VOLUME_F_NO_HOLE =
	    1 << 1, /* WRITE_ZEROES: space that is allocated stays so; none is allocated */
	VOLUME_F_FAST_ZERO =
	    1 << 2, /* WRITE_ZEROES: -EOPNOTSUPP rather than be as slow as a write */
	VOLUME_F_ONE_EXTENT = 1 << 3, /* STATUS: the first extent is enough */
};

/* Over the whole range extents follow one another without gaps; neighbours differ in flags. */
enum volume_extent_flags {
	VOLUME_EXTENT_HOLE = 1 << 0, /* no space is taken here */
	VOLUME_EXTENT_ZERO = 1 << 1, /* reads as zeros */
};
struct volume_extent {
	uint64_t len_bytes;
	uint32_t flags;
};

struct volume_req {
	/* given */
	enum volume_op op;
	uint32_t flags;
	uint64_t off,
	    len; /* bytes, multiples of sector_bytes, inside the volume; len >= 1 sector except for FLUSH */
	/* READ: filled. WRITE: must not change until done (the target received into it; it is checksummed once and trusted afterwards).
	 * Both: its address is congruent to off modulo BLOCK_BYTES, so that whole blocks are aligned, and the memory of the partial first
	 * and last block around it belongs to the request too: READ and WRITE may change it (they complete those blocks there). */
	void *buf;
	struct volume_extent *extents; /* STATUS: room for extents_max */
	uint32_t extents_max;
	void (*done)(struct volume_req *r);
	/* results */
	int status;
	/* STATUS: at least 1; they may cover less than was asked, when extents_max is reached or there was much to look up: ask again for the
	 * rest. They never cover more. */
	uint32_t extents_n;
	/* private to the runtime while in flight */
	struct list link;
	uint64_t priv[16];
};
void volume_submit(struct volume_handle *h, struct volume_req *r);

#endif
