/* SPDX-License-Identifier: Apache-2.0 */
/* block_history.h - what a block of a device may hold, by the contract alone.
 *
 * A history is the list of versions from the newest one known to be durable up to the newest one begun. A version is *live* while the
 * block may hold it now. Without a crash exactly one is live; what narrows or widens that:
 *
 *   begin, ack        a version is in flight, then the only live one
 *   doubt             its request failed: old, new or bad
 *   kill              memory is gone, what was acknowledged is not: the one in flight may or may not have happened
 *   lose              power (or the restart ring) is gone: every version since the durable one is possible again. A block that was being
 *                     overwritten may be torn: each sector from any of them
 *   flush             an acknowledged version becomes durable, older ones leave the list
 *   see               an answer of the device is held against the live versions: none fits: violation; one fits: it is the only live one.
 *                     What was seen after a loss is what the medium holds: it is durable.
 * At most one version is in flight (the caller of a device orders overlapping requests). */
#ifndef STRATA_TESTS_LIB_BLOCK_HISTORY_H
#define STRATA_TESTS_LIB_BLOCK_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/model/ids.h"
#include "tests/lib/block_pattern.h"

struct block_version {
	uint64_t id;	/* DATA: of the write (block_pattern.h); 0 when torn */
	uint64_t seq;	/* when it was acknowledged or seen; 0: not yet */
	uint64_t *torn; /* DATA: the ids of its sectors, when they differ */
	uint8_t kind;	/* enum block_state */
	bool live;
	bool gone; /* a later look showed that the medium does not hold it */
};

struct block_history {
	struct block_version *v; /* NULL: a durable hole */
	uint16_t n, room;
	uint16_t lost_n; /* versions that were there at the last loss and have not been seen since: the first ones */
	bool in_flight; /* the last version */
	bool listed;	/* in the list of histories that somebody keeps; a reset leaves it */
	bool torn_ok;	/* may be a mixture of the first lost_n */
};

void history_reset(struct block_history *h); /* a durable hole */
void history_begin(struct block_history *h, enum block_state kind, uint64_t id);
void history_ack(struct block_history *h, uint64_t seq, bool stable);
void history_cancel(struct block_history *h); /* what was in flight did not happen */
void history_doubt(struct block_history *h, bool may_be_bad);
void history_kill(struct block_history *h);
void history_lose(struct block_history *h);
void history_flush(struct block_history *h,
		   uint64_t seq); /* what was acknowledged before `seq` is durable */

/* Does `state`, and if ids is not NULL the content, fit? If so narrows the history. */
bool history_see(struct block_history *h, uint64_t seq, enum block_state state,
		 const struct pattern_ids *ids);
bool history_may_be(const struct block_history *h, enum block_state state);
/* Is the block present (data or bad): 1, 0, or -1 when that is not known. */
int history_present(const struct block_history *h);
bool history_is_torn(const struct block_history *h); /* what is live is a mixture */

/* "hole durable | write 7 | write 9 live" for a message; the text is cut to fit. */
void history_text(const struct block_history *h, char *text, size_t room);

#endif
