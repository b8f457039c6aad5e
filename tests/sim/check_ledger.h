/* SPDX-License-Identifier: Apache-2.0 */
/* check_ledger.h - may a client read what it read? One ledger per volume, one register per sector of 512 bytes.
 *
 * It knows what clients asked for and what they were told, and nothing of the product. Time is a counter of such moments. Every version of
 * a sector takes effect, if at all, between `lo` (it was asked for) and `end` (it was answered, or whoever could still execute it was gone):
 *
 *   a version is dead    when another one certainly took effect after it; who begins to read later must not see it
 *   certain              it was acknowledged, or seen. What failed, was cut off, or was only a wish (TRIM) is not
 *   stable               no power loss takes it away: FUA, write-through, or a FLUSH that came after its acknowledgement
 *   power loss           of a machine that could lose them: unstable versions of it are in doubt, and what they had replaced is possible
 *                        again, back to the newest stable one. What is read afterwards is what the medium holds: it stays so
 *
 * Every conclusion is a necessary one, so a read that is refused here is a violation of linearizability, or of durability, whatever the
 * order in which things happened. */
#ifndef STRATA_TESTS_SIM_CHECK_LEDGER_H
#define STRATA_TESTS_SIM_CHECK_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ledger;

/* Every machine: who may lose what was not acknowledged. */
#define LEDGER_ALL_MACHINES UINT32_MAX

/* A change that a client asked for. */
struct ledger_op {
	uint64_t id; /* from 1; of the data, and to find it again */
	uint64_t sector, sectors_n;
	uint64_t lo;		/* when it was asked for */
	uint32_t proc, machine; /* the process that was asked, and where it runs */
	bool zeros;		/* the sectors become zeros */
};

/* How it ended. */
enum ledger_end {
	LEDGER_DONE,   /* acknowledged */
	LEDGER_STABLE, /* acknowledged, and no power loss takes it away */
	LEDGER_MAYBE,  /* acknowledged, but it need not have had an effect: TRIM */
	LEDGER_FAILED, /* an error, or nobody will answer any more: any part of it may have happened, and nothing more will */
};

/* uid: of this volume among all there ever were; `lossy`: power may be lost. */
struct ledger *ledger_new(uint64_t uid, uint64_t sectors_n, bool lossy);
void ledger_free(struct ledger *h);
void ledger_grow(struct ledger *h, uint64_t sectors_n);
uint64_t ledger_sectors(const struct ledger *h);

void ledger_begin(struct ledger *h, const struct ledger_op *op);
/* machines: whose power loss may take it away, when it was DONE or MAYBE. */
void ledger_finish(struct ledger *h, const struct ledger_op *op, enum ledger_end end,
		   uint32_t machines, uint64_t now);

/* A flush by that process, asked for at `lo`, was acknowledged; or it failed, which reports what that process had acknowledged and lost. */
void ledger_flushed(struct ledger *h, uint32_t proc, uint64_t lo, uint64_t now);
void ledger_flush_failed(struct ledger *h, uint32_t proc);
void ledger_power_loss(struct ledger *h, uint32_t machine, uint64_t now);

/* Fills the data of a write. */
void ledger_fill(const struct ledger *h, uint64_t id, uint64_t sector, uint64_t sectors_n,
		 void *data);
/* Data that were read, asked for at `lo`: true when each sector is one of those that it may be; else *ret_sector is the first that is not. `oldest`:
 * when the oldest request in flight began, no later one can see what was dead before. */
bool ledger_read(struct ledger *h, uint64_t sector, uint64_t sectors_n, const void *data,
		 uint64_t lo, uint64_t now, uint64_t *ret_sector);
void ledger_oldest(struct ledger *h, uint64_t oldest);
/* What is wrong with that sector of what was read, and what is known of it. */
void ledger_explain(const struct ledger *h, uint64_t sector, const void *data, char *text,
		    size_t room);

/* The disk was made to damage the sector: reading it may fail from now on, but not lie. `may_be_old`: or give something that it once was. */
void ledger_damage(struct ledger *h, uint64_t sector, bool may_be_old);
bool ledger_is_damaged(const struct ledger *h, uint64_t sector, uint64_t sectors_n);

/* The first sector at or after `from` that anybody ever wrote; false when there is none. */
bool ledger_next(const struct ledger *h, uint64_t from, uint64_t *ret_sector);

/* Is this a sector of some volume's data? Whose. For the injector of faults, which looks at a disk. */
bool ledger_identify(const void *sector_data, uint64_t *ret_uid, uint64_t *ret_sector);

#endif
