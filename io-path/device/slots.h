/* SPDX-License-Identifier: Apache-2.0 */
/* slots.h - what is resident of every slot, and what is known of those that are busy.
 *
 * A slot is active from ALLOC or ACTIVATE to RETIRE: only then may data that a flush covers be overwritten in it. A slot that is active or
 * has requests in it has a `slot_run`; the requests of a slot are in its list in the order they came, and one that overlaps an earlier
 * one waits for it, unless both only read. */
#ifndef STRATA_IO_PATH_DEVICE_SLOTS_H
#define STRATA_IO_PATH_DEVICE_SLOTS_H

#include <stdbool.h>

#include "io-path/device/format.h"
#include "io-path/device/pins.h"
#include "io-path/device/waiter.h"
#include "src/base/math.h"

struct device;
struct table_page;

/* At most this much data is verified after a power loss. */
#define SLOTS_ACTIVE_BYTES_MAX ((uint64_t)64 << 30)
#define SLOT_RETIRE_AGE_NS     ((uint64_t)30 * 1000 * 1000 * 1000)
#define SLOTS_ORDER_NS	       ((uint64_t)1000 * 1000 * 1000)

struct slot {
	uint64_t cgen;
	uint64_t epoch;
	uint64_t wgen : 37;
	uint64_t present_n : 11;
	uint64_t bad_n : 11;
	uint64_t open : 1;
	uint64_t active : 1;
	uint64_t uncounted : 1; /* present_n and bad_n are hints until the table was loaded */
	uint64_t lost : 1;	/* inspection: its slot-entry page is damaged */
	uint64_t fresh : 1; /* opened since the current home of its table page was written: there it is all holes */
	uint32_t volume, layer, chunk;
	uint32_t reserved;
	struct slot_run *run;
};
static_assert(sizeof(struct slot) <= 48, "a promise of the design");

static inline void slot_wgen_set(struct slot *s, uint64_t wgen)
{
	s->wgen = wgen & ((1ULL << 37) - 1);
}

static inline void slot_counts_set(struct slot *s, uint32_t present_n, uint32_t bad_n)
{
	s->present_n = present_n & 2047;
	s->bad_n = bad_n & 2047;
}

struct slot_run {
	/* what every request looks at, in one cache line */
	_Alignas(CACHE_LINE_BYTES) struct list ops; /* struct op, in order of arrival */
	uint32_t blocked_n;			    /* of them wait for another */
	uint32_t exclusive_n;			    /* of them change something */
	uint64_t *doubt; /* after a power loss: blocks that are not verified yet; NULL: none */
	uint32_t doubt_n;
	uint32_t slot;
	bool punch_busy; /* waits for the flush, or punches */
	/* what writes look at */
	uint64_t active_lsn; /* of ALLOC or ACTIVATE; 0: long ago */
	uint64_t last_lsn;   /* of its youngest record */
	uint64_t last_ns;    /* of its last write */
	/* in slots.active, the one whose last write is oldest first, to within SLOTS_ORDER_NS; else in slots.runs_free or nowhere */
	struct list link;
	uint64_t linked_ns; /* when it was put at the end of slots.active */
	struct device *dev;
	/* cleared and not yet punched: blocks [punch_from, punch_to), by records up to punch_lsn */
	uint32_t punch_from, punch_to;
	uint64_t punch_lsn;
	struct waiter punch_wait;
	uint32_t verify_from; /* verify.c looked at those before it */
};

/* What is resident of every slot-entry page */
struct slot_page {
	uint64_t seq;
	uint64_t last_lsn; /* of the youngest record about its slots or their table pages */
	struct pin pin;
	uint8_t home;  /* the one that was written first, or that alone was good */
	bool is_alone; /* the other one does not say the same: written again soon */
	bool in_ckpt;
};

struct slots {
	struct slot *slots;
	struct slot_page *pages;
	uint32_t open_n;
	struct list active;
	uint32_t active_n, active_max;
	struct list runs_free;
	struct list slabs;
	uint32_t runs_n;     /* in use */
	uint32_t pinned_n;   /* slot-entry pages that pin the journal */
	uint32_t doubtful_n; /* runs with doubt */
	uint32_t punching_n; /* runs with punch_busy */
};

int slots_init(struct device *dev);
void slots_free(struct device *dev);

static inline bool slot_is_busy(const struct slot_run *run)
{
	return !list_empty(&run->ops) || run->punch_busy;
}

/* The slot's run, made if there is none. NULL: no memory. */
struct slot_run *slot_run_get(struct device *dev, uint32_t slot);
/* Lets it go if it has become idle and inactive. */
void slot_run_put(struct device *dev, struct slot_run *run);

/* Gives the memory of runs back, if none is in use. */
void slots_trim(struct device *dev);
static inline bool slots_are_trim(const struct slots *s)
{
	return s->runs_n > 0 || list_empty(&s->slabs);
}

/* A record about the slot's entry, or a CKPT of its table page, is in the journal at lsn. */
void slot_page_touch(struct device *dev, uint32_t slot_page, uint64_t lsn);
void slot_page_pin_move(struct device *dev, uint32_t slot_page, uint64_t lsn); /* 0: no more */

enum slot_verdict {
	SLOT_OPEN,  /* it is the one */
	SLOT_FRESH, /* free, and the cgen is new: holes */
	SLOT_STALE,
};
struct slot_claim {
	uint64_t cgen;
	uint32_t volume, layer, chunk;
};
enum slot_verdict slot_admit(const struct slot *s, const struct slot_claim *c);

/* Is there room for one more active slot? If not: wait. */
bool slots_may_activate(const struct device *dev);
/* Records and their effects. The bytes of the record are reserved, the run exists, room for an active slot was found. */
void slot_alloc(struct device *dev, struct table_page *p, uint32_t slot, const struct slot_claim *c,
		uint64_t epoch);
void slot_activate(struct device *dev, uint32_t slot);
void slot_retire(struct device *dev, uint32_t slot);
uint64_t slot_free(struct device *dev, uint32_t slot, uint64_t cgen);	   /* lsn */
void slot_written(struct device *dev, struct slot_run *run, uint64_t lsn); /* it was used just now */

/* Replay: the slot is active, without a record. 0 or -ENOMEM */
int slot_set_active(struct device *dev, uint32_t slot);

/* ---- doubt (after a power loss) ---------------------------------------------------------------------------------------- */

int slot_doubt_begin(struct device *dev, struct slot_run *run); /* all its blocks. 0 or -ENOMEM */
int slot_doubt_add(struct device *dev, struct slot_run *run, uint32_t block); /* this one too */
static inline bool slot_doubts(const struct slot_run *run, uint32_t block)
{
	return run->doubt && (run->doubt[block / 64] >> (block % 64) & 1);
}
void slot_doubt_clear(struct device *dev, struct slot_run *run, uint32_t block, uint32_t n);

#endif
