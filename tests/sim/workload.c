/* SPDX-License-Identifier: Apache-2.0 */
/* workload.c - what clients ask for, and whether they may be told what they are told. */
#include <inttypes.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/math.h"
#include "tests/sim/client.h"

enum { SECTORS_PER_BLOCK = BLOCK_BYTES / SECTOR_BYTES, LARGE_ONE_IN = 16 };

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

static uint16_t choose_command(struct world *w)
{
	const struct swarm *s = &w->s;
	uint64_t x = rand_below(&w->rand, s->read + s->write + s->zero + s->trim + s->flush);

	if (x < s->read)
		return NBD_CMD_READ;
	x -= s->read;
	if (x < s->write)
		return NBD_CMD_WRITE;
	x -= s->write;
	if (x < s->zero)
		return NBD_CMD_WRITE_ZEROES;
	return x - s->zero < s->trim ? NBD_CMD_TRIM : NBD_CMD_FLUSH;
}

static uint64_t choose_length(struct world *w, bool odd)
{
	uint64_t bytes = odd ? SECTOR_BYTES : BLOCK_BYTES, most = 4 * BLOCK_BYTES;

	if (rand_below(&w->rand, LARGE_ONE_IN) == 0)
		most = w->s.large_bytes;
	return rand_between(&w->rand, 1, most / bytes) * (bytes / SECTOR_BYTES);
}

/* Mostly near one of a few places, so that requests meet. */
static void choose_range(struct user *c, uint64_t *ret_sector, uint64_t *ret_n)
{
	struct world *w = c->c->w;
	uint64_t size = c->line->size_bytes / SECTOR_BYTES, at, n;
	bool odd = rand_percent(&w->rand, w->s.odd_percent);

	n = MIN(choose_length(w, odd), size);
	if (rand_percent(&w->rand, w->s.spot_percent)) {
		at = c->v->spots[rand_below(&w->rand, w->s.spots_n)] + rand_below(&w->rand, 128);
		at -= MIN(at, rand_below(&w->rand, 64));
	} else {
		at = rand_below(&w->rand, size);
	}
	if (!odd)
		at = round_down(at, SECTORS_PER_BLOCK);
	*ret_sector = MIN(at, size - n);
	*ret_n = n;
}

static void ask(struct user *c)
{
	struct world *w = c->c->w;
	uint16_t cmd = choose_command(w), flags = 0;
	uint64_t sector = 0, n = 0;

	if (cmd != NBD_CMD_FLUSH)
		choose_range(c, &sector, &n);
	if (cmd != NBD_CMD_READ && cmd != NBD_CMD_FLUSH && rand_percent(&w->rand, w->s.fua_percent))
		flags |= NBD_CMD_FLAG_FUA;
	if (cmd == NBD_CMD_WRITE_ZEROES && rand_percent(&w->rand, 30))
		flags |= NBD_CMD_FLAG_NO_HOLE;
	user_submit(c, cmd, flags, sector, n);
}

void workload_go(struct user *c)
{
	struct world *w = c->c->w;

	if (!w->working || !user_is_ready(c) || c->v->state != VOLUME_NORMAL)
		return;
	if (c->in_flight == 0 && rand_below(&w->rand, 400) == 0) {
		user_leave(c);
		return;
	}
	while (c->in_flight < w->s.depth && rand_percent(&w->rand, 90))
		ask(c);
}

/* ---- judging ----------------------------------------------------------------------------------------------------------- */

static bool is_deposed(const struct user *c)
{
	return c->line->owner_serial != c->v->owner_serial;
}

/* Whose loss of power takes away what was acknowledged just now (design: auto keeps only local clients' writes to local devices volatile). */
static enum ledger_end acknowledged(const struct user *c, const struct op *op,
				    uint32_t *ret_machines)
{
	const char *cache = c->c->w->s.write_cache[c->v->n];
	bool is_auto = strcmp(cache, "auto") == 0;
	bool stable = op->flags & NBD_CMD_FLAG_FUA || strcmp(cache, "writethrough") == 0 ||
		      (is_auto && c->remote);

	*ret_machines = stable ? 0 : is_auto ? 1u << c->line->k : LEDGER_ALL_MACHINES;
	if (is_deposed(c)) /* the new owner's flushes do not cover it */
		return LEDGER_FAILED;
	if (op->cmd == NBD_CMD_TRIM)
		return LEDGER_MAYBE;
	return stable ? LEDGER_STABLE : LEDGER_DONE;
}

struct overlap {
	const struct user *c;
	uint64_t from, to; /* sectors, whole blocks */
	bool found;
};

static bool overlaps(const struct line *l, const struct overlap *o)
{
	list_for_each (i, &l->ops) {
		const struct op *op = list_entry(i, struct op, link);

		if (op->cmd == NBD_CMD_WRITE && op->sector < o->to &&
		    op->sector + op->sectors_n > o->from)
			return true;
	}
	return false;
}

static bool note_overlap(struct user *c, void *arg)
{
	struct overlap *o = arg;

	if (c->v != o->c->v)
		return true;
	if (c->line && overlaps(c->line, o))
		o->found = true;
	list_for_each (l, &c->zombies)
		if (overlaps(list_entry(l, struct line, zombie), o))
			o->found = true;
	return !o->found;
}

/* A write that is under way to a full disk, or has failed already and is about to say so, may have torn a block of it. */
static bool is_torn_now(const struct user *c, const struct op *op)
{
	struct overlap o = {c, round_down(op->sector, SECTORS_PER_BLOCK),
			    round_up(op->sector + op->sectors_n, SECTORS_PER_BLOCK), false};

	clients_each(c->c->w, note_overlap, &o);
	return c->c->w->disk_full && o.found;
}

/* An error is a violation, unless something that was done to the world explains it. */
static bool is_explained(const struct user *c, const struct op *op)
{
	struct world *w = c->c->w;
	const struct world_node *n = &w->nodes[c->line->k];

	if (w->disk_errors)
		return true;
	for (uint32_t i = 0; i < ARRAY_LEN(n->told_to_end); i++)
		if (n->told_to_end[i] == c->line->proc)
			return true;
	switch (op->error) {
	case NBD_EIO:
		if (op->cmd == NBD_CMD_FLUSH)
			return w->power_losses > 0;
		if (op->cmd == NBD_CMD_READ && is_torn_now(c, op))
			return true;
		return op->sectors_n &&
		       ledger_is_damaged(c->v->ledger, round_down(op->sector, SECTORS_PER_BLOCK),
					 MIN(round_up(op->sector + op->sectors_n, SECTORS_PER_BLOCK),
					     ledger_sectors(c->v->ledger)) -
					     round_down(op->sector, SECTORS_PER_BLOCK));
	case NBD_ENOSPC:
		return w->disk_full;
	default:
		return false;
	}
}

static const char *command_name(uint16_t cmd)
{
	static const char *const names[] = {"READ", "WRITE", "DISC", "FLUSH",
					    "TRIM", "CACHE", "ZERO"};

	return names[cmd];
}

static void read_answered(struct user *c, struct op *op, uint64_t now)
{
	struct world *w = c->c->w;
	char text[FAIL_LEN / 2];
	uint64_t at;

	if (op->got != op->sectors_n * SECTOR_BYTES)
		world_fail(w, "request %" PRIu64 " on %s gives %" PRIu64 " bytes of %" PRIu64,
			   op->cookie, c->v->name, op->got, op->sectors_n * SECTOR_BYTES);
	/* who lost the volume to another node may have an old map of it; nothing of what it writes there counts */
	if (is_deposed(c) ||
	    ledger_read(c->v->ledger, op->sector, op->sectors_n, op->data, op->lo, now, &at))
		return;
	ledger_explain(c->v->ledger, at, op->data + (at - op->sector) * SECTOR_BYTES, text,
		       sizeof(text));
	world_fail(w,
		   "%s, connection %u to node-%u: request %" PRIu64 " from %" PRIu64 " to %" PRIu64
		   " reads sectors %" PRIu64 "+%" PRIu64 "\n  %s",
		   c->v->name, c->n, c->line->k, op->cookie, op->lo, now, op->sector, op->sectors_n,
		   text);
}

static void done(struct user *c, struct op *op, uint64_t now)
{
	uint32_t machines;
	enum ledger_end end;

	switch (op->cmd) {
	case NBD_CMD_READ:
		read_answered(c, op, now);
		break;
	case NBD_CMD_FLUSH:
		if (!is_deposed(c))
			ledger_flushed(c->v->ledger, c->line->proc, op->lo, now);
		break;
	default:
		end = acknowledged(c, op, &machines);
		ledger_finish(c->v->ledger, &op->change, end, machines, now);
	}
	c->done++;
}

/* A disk that failed a write, or was full amid it, may have torn a block: then that cannot be read until it is written again. */
void workload_may_be_bad(struct user *c, const struct op *op)
{
	uint64_t end = round_up(op->sector + op->sectors_n, SECTORS_PER_BLOCK);

	for (uint64_t s = round_down(op->sector, SECTORS_PER_BLOCK); s < end; s++)
		ledger_damage(c->v->ledger, s, false);
}

static void failed(struct user *c, struct op *op, uint64_t now)
{
	struct world *w = c->c->w;

	w->errors++;
	if (!is_explained(c, op))
		world_fail(w,
			   "%s, connection %u to node-%u: request %" PRIu64 " (%s of %" PRIu64
			   "+%" PRIu64 ") ends with error %u, which nothing explains",
			   c->v->name, c->n, c->line->k, op->cookie, command_name(op->cmd),
			   op->sector, op->sectors_n, op->error);
	if (op->cmd == NBD_CMD_WRITE)
		workload_may_be_bad(c, op);
	if (op->cmd == NBD_CMD_FLUSH)
		ledger_flush_failed(c->v->ledger, c->line->proc);
	else if (op->cmd != NBD_CMD_READ)
		ledger_finish(c->v->ledger, &op->change, LEDGER_FAILED, 0, now);
}

void workload_answered(struct user *c, struct op *op)
{
	struct world *w = c->c->w;
	uint64_t now = world_moment(w);

	world_say(w, "%s.%u %s%s %" PRIu64 "+%" PRIu64 " #%" PRIu64 " -> %u", c->v->name, c->n,
		  command_name(op->cmd), op->flags & NBD_CMD_FLAG_FUA ? " FUA" : "", op->sector,
		  op->sectors_n, op->cookie, op->error);
	w->ops++;
	w->hash = hash_u64(w->hash ^ op->cookie ^ (uint64_t)op->error << 32 ^ world_now(w));
	if (op->error)
		failed(c, op, now);
	else
		done(c, op, now);
}
