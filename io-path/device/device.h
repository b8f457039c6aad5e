/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - a formatted device: slots that hold chunks, with presence, checksums and crash safety.
 *
 * The format and the orderings are described in format.h and docs/device-format.md; the files that keep them:
 *   journal.c     the ring of journal blocks: group commit, stable_lsn, tail
 *   slots.c       slot entries in memory, admission by epoch and cgen, activation and retirement
 *   tables.c      the cache of block tables, and which record made a block what it is
 *   checkpoint.c  two homes: writing table pages, slot-entry pages and registry halves out, so that the journal's tail can move
 *   replay.c      from a device of unknown state to one that may be served
 *   ring.c        the restart ring: memory that outlives this process
 *   op_*.c        one request kind each
 * States of a device:  OPENING -> SERVING -> CLOSING -> closed;  any -> FAILED on a flush or journal error (never retried into success:
 * every request then ends with -E_DEVICE_FAILED; close still works). */
#ifndef STRATA_IO_PATH_DEVICE_DEVICE_H
#define STRATA_IO_PATH_DEVICE_DEVICE_H

#include "io-path/device/chunk.h"
#include "src/base/err.h"
#include "src/ioe/ioe.h"

struct device;

/* ---- format ---------------------------------------------------------------------------------------------------------- */

struct device_format {
	/* given */
	struct ioe *ioe;
	const char *
	    path; /* a block device, or a file: created (sparse) with size_bytes when it does not exist */
	uint64_t size_bytes; /* files: 0 takes the existing size; block devices: 0, or less than the whole */
	uint32_t chunk_shift; /* CHUNK_SHIFT_FLASH or CHUNK_SHIFT_DISK */
	struct uuid cluster;
	bool force; /* overwrite a foreign signature, or a device of Strata; never a device that is in use */
	void (*done)(struct device_format *op);
	/* results */
	int status; /* -E_FOREIGN, -E_IN_USE, -EINVAL (too small), I/O errors */
	char errmsg[ERRMSG_LEN];
	struct uuid uuid;
	/* how far it is, for whoever looks meanwhile: bytes discarded and written, and of how many; all_bytes 0: not begun */
	uint64_t done_bytes, all_bytes;
	/* private */
	void *priv;
	struct ioe_req priv_io;
};
/* Writes every structure, flushes, and the superblocks last: an interrupted format leaves what is not a Strata device. */
void device_format(struct device_format *op);

enum { DEVICE_BYTES_MIN = 128 << 20 };

/* ---- open and close --------------------------------------------------------------------------------------------------- */

struct device_open {
	/* given */
	struct ioe *ioe;
	const char *path;
	const char *
	    ring_path; /* restart ring (design section 5 rule 6); NULL: none, and every acknowledgement is made stable first */
	const struct uuid *cluster; /* refuse a device of another one; NULL: any (inspection) */
	const struct uuid *
	    expected; /* refuse another device, before its ring is touched or anything is written; NULL: any */
	bool read_only; /* replay in memory, write nothing, serve READ and STATUS: for fsck and inspection */
	uint64_t cache_bytes; /* bound of the table cache; 0: 1/1024 of the capacity, at least 16 MiB */
	uint64_t lock_wait_ns; /* how long to wait for a dying predecessor's lock; 0: 10 s */
	/* power loss, damage, failure: `what` is a stable word, `text` a sentence; may be NULL */
	void (*on_event)(void *arg, struct device *dev, const char *what, const char *text);
	void *event_arg;
	void (*done)(struct device_open *op);
	/* results */
	int status;
	char errmsg[ERRMSG_LEN];
	struct uuid
	    found; /* the device of this cluster that is there, also when it is not the expected one; zero: none */
	struct device *dev;
	/* private */
	void *priv;
	struct ioe_req priv_io;
};
void device_open(struct device_open *op);

/* Two-phase: new requests fail, those in flight finish, what is dirty is checkpointed, CLEAN is written, the lock given up, then done. */
void device_close(struct device *dev, void (*done)(void *arg, int status), void *arg);

/* Gives the device the number that the metadata server chose for it, kept in the superblock. Once set it never changes (-EEXIST).
 * `done` runs from the loop, except with -ENOMEM, which may come at once. */
void device_set_number(struct device *dev, device_no no, void (*done)(void *arg, int status),
		       void *arg);

/* ---- requests --------------------------------------------------------------------------------------------------------- */

void device_submit(struct device *dev, struct chunk_req *r);

/* Makes {volume, epoch} durable; answers when every admitted request of an older epoch has finished in the kernel. Lower or equal: done. */
struct device_epoch_req {
	volume_id volume;
	uint64_t epoch;
	layer_id head;
	uint64_t commit; /* metadata commit that it belongs to */
	void (*done)(struct device_epoch_req *r);
	int status;
	struct list link;
	uint64_t priv[4];
};
void device_epoch(struct device *dev, struct device_epoch_req *r);

/* Keeps a copy of a volume's or layer's small record, for rebuild. The newest (by commit) per layer counts. */
struct device_layer {
	layer_id layer, parent;
	volume_id volume;
	uint32_t flags; /* FMT_LAYER_* of format.h; others: -EINVAL */
	uint64_t size_bytes, commit;
	char name[NAME_LEN_MAX + 1];	 /* of the volume */
	char snapshot[NAME_LEN_MAX + 1]; /* "" for a head */
};
/* -ENOSPC when the registry is full. The record is copied at the call. */
void device_layer_put(struct device *dev, const struct device_layer *layer,
		      void (*done)(void *arg, int status), void *arg);
/* The layer is gone: its record is forgotten, if it is no younger than `commit`. 0 also when there is none; answers when even a power loss does not
 * bring it back. It needs no room in the registry. */
void device_layer_drop(struct device *dev, layer_id layer, uint64_t commit,
		       void (*done)(void *arg, int status), void *arg);
int device_layer_next(struct device *dev, layer_id after,
		      struct device_layer *ret_layer); /* smallest above `after`; -ENOENT at the end */

/* The device remembers the highest metadata commit it heard of (in its journal blocks, with the next one written). */
void device_heard_commit(struct device *dev, uint64_t commit);
/* The same, and `done` (from the loop; with -ENOMEM it may come at once) when even a power loss does not make it forget. */
void device_commit_put(struct device *dev, uint64_t commit, void (*done)(void *arg, int status),
		       void *arg);

/* ---- what it is and how it does --------------------------------------------------------------------------------------- */

struct device_info {
	struct uuid uuid, cluster;
	device_no number; /* 0: none yet */
	uint32_t chunk_shift;
	uint64_t capacity_bytes; /* of the slots together */
	uint32_t slots_n, slots_open_n;
	uint64_t incarnation, lsn, commit; /* commit: highest heard */
	uint64_t stable_lsn; /* survives power loss; the metadata server refuses a device that comes back below it */
	uint64_t cgen_highest; /* that any slot remembers */
	bool failed, dirty, has_volatile_cache, replayed_power_loss;
	uint64_t unresolved_blocks,
	    bad_blocks; /* since format: accepted as unfinished writes; known damaged now */
	/* gauges and counters since open */
	uint64_t table_cache_bytes, table_cache_hits, table_cache_misses;
	uint64_t journal_blocks, journal_records, flushes, checkpoints, active_slots;
	uint64_t reads, writes, clears, frees, read_bytes, write_bytes;
	uint64_t read_errors, write_errors; /* of the medium, as requests met them */
	uint64_t no_space_errors;	    /* writes that found no space under the device */
	bool no_space; /* the last that needed some found none: events no_space, and space_again when one finds some */
};
void device_info(struct device *dev, struct device_info *ret_info);

/* Of a device that is a file: what is under it (ioe_file_space()). -EINVAL: it is none. */
int device_space(struct device *dev, struct ioe_file_space *ret_space);

enum device_slot_state { DEVICE_SLOT_FREE = 0, DEVICE_SLOT_OPEN = 1 };
struct device_slot {
	uint64_t cgen; /* open: its identity; free: the highest ever named */
	uint64_t epoch;
	volume_id volume;
	layer_id layer;
	uint32_t chunk;
	uint32_t present_n;
	enum device_slot_state state;
	bool active;
};
int device_slot_get(
    struct device *dev, uint32_t slot,
    struct device_slot *ret_slot); /* -ERANGE; inspection: -E_FORMAT when its entry is damaged */
/* Where a block of a slot lies on the medium. */
uint64_t device_block_offset(struct device *dev, uint32_t slot, uint32_t block);

#endif
