/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/journal.h"

#include "io-path/device/dev.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum { HEADER_BYTES = offsetof(struct fmt_journal_block, records) };

static void journal_room_changed(struct device *dev);
static void journal_push(struct device *dev);
static void journal_write_done(struct ioe_req *io);
static void journal_advance(struct device *dev);
static void journal_timer_fired(struct ioe_req *io);

static struct journal_block *block_at(struct journal *j, uint64_t lsn)
{
	return &j->blocks[lsn % JOURNAL_STAGING_BLOCKS];
}

static struct fmt_journal_block *bytes_at(struct journal *j, uint64_t lsn)
{
	return (void *)(j->staging + lsn % JOURNAL_STAGING_BLOCKS * FMT_PAGE);
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int journal_init(struct device *dev)
{
	struct journal *j = &dev->journal;

	list_init(&j->room_waiters);
	list_init(&j->written_waiters);
	for (int i = 0; i < JOURNAL_WRITES_MAX; i++)
		j->writes[i].dev = dev;
	j->ring_blocks = dev->geo.ring_blocks;
	j->staging = mem_alloc_aligned(FMT_PAGE, JOURNAL_STAGING_BLOCKS * FMT_PAGE);
	return j->staging ? 0 : -ENOMEM;
}

void journal_free(struct device *dev)
{
	mem_free(dev->journal.staging);
}

static void block_open(struct journal *j, uint64_t lsn)
{
	struct journal_block *b = block_at(j, lsn);

	check(lsn - j->complete_lsn <= JOURNAL_STAGING_BLOCKS);
	check(lsn - j->tail_stable < j->ring_blocks);
	*b = (struct journal_block){.state = JBLOCK_OPEN};
	memset(bytes_at(j, lsn), 0, FMT_PAGE);
	j->open_lsn = lsn;
	j->open_used = HEADER_BYTES;
	j->open_last = 0;
}

void journal_start(struct device *dev, const struct journal_state *s)
{
	struct journal *j = &dev->journal;
	uint64_t last = s->next_lsn - 1;

	j->pushed_lsn = j->written_lsn = j->complete_lsn = j->record_lsn = last;
	j->stable_lsn = j->published_lsn = s->stable_lsn;
	j->tail_stable = s->tail;
	j->said_stable = s->stable_lsn;
	j->said_tail = s->tail;
	j->said_crc = s->prev_crc;
	j->incarnation = s->incarnation;
	j->meta_commit = s->meta_commit;
	j->unresolved_blocks = s->unresolved_blocks;
	block_open(j, s->next_lsn);
}

bool journal_is_idle(const struct device *dev)
{
	const struct journal *j = &dev->journal;

	for (int i = 0; i < JOURNAL_WRITES_MAX; i++)
		if (j->writes[i].blocks_n)
			return false;
	return !j->timer_armed;
}

/* ---- room ------------------------------------------------------------------------------------------------------------- */

static uint64_t ring_limit(const struct journal *j, enum journal_level level)
{
	switch (level) {
	case JOURNAL_WRITE:
		return j->ring_blocks / 4ULL * 3;
	case JOURNAL_FREE:
		return j->ring_blocks / 8ULL * 7;
	case JOURNAL_MAINT:
		return j->ring_blocks / 16ULL * 15;
	}
	check_unreachable("level");
}

/* Blocks in memory that are left to the lower levels and to blocks that a flush closes half empty. */
static uint64_t staging_limit(enum journal_level level)
{
	return JOURNAL_STAGING_BLOCKS - (level == JOURNAL_WRITE	 ? 24
					 : level == JOURNAL_FREE ? 16
								 : 8);
}

static bool has_room(const struct journal *j, enum journal_level level, uint64_t bytes)
{
	uint64_t blocks = div_up(j->reserved_bytes + bytes, JOURNAL_BLOCK_BYTES);

	return j->open_lsn - j->complete_lsn + blocks <= staging_limit(level) &&
	       j->open_lsn - j->tail_stable + blocks <= ring_limit(j, level);
}

/* Those of the same level who wait already come first, or they might wait for ever. */
static bool somebody_waits(const struct journal *j, enum journal_level level)
{
	list_for_each (l, &j->room_waiters)
		if (list_entry(l, struct waiter, link)->kind == level)
			return true;
	return false;
}

bool journal_reserve(struct device *dev, enum journal_level level, uint32_t bytes)
{
	struct journal *j = &dev->journal;

	if (somebody_waits(j, level) || !has_room(j, level, bytes))
		return false;
	j->reserved_bytes += bytes;
	return true;
}

void journal_unreserve(struct device *dev, uint32_t bytes)
{
	struct journal *j = &dev->journal;

	check(j->reserved_bytes >= bytes);
	j->reserved_bytes -= bytes;
	if (bytes && !list_empty(&j->room_waiters))
		device_turn_end(dev);
}

void journal_wait_room(struct device *dev, struct waiter *w, enum journal_level level,
		       uint32_t bytes, void (*fn)(struct waiter *w, int status))
{
	w->kind = (uint8_t)level;
	w->bytes = bytes;
	waiter_push(&dev->journal.room_waiters, w, fn);
	maint_kick(dev);
}

/* The first of each level that does not fit stops those behind it. */
static void journal_room_changed(struct device *dev)
{
	struct journal *j = &dev->journal;
	struct list now = LIST_INIT(now), *l;
	bool stopped[JOURNAL_MAINT + 1] = {};

	list_for_each_safe (l2, tmp, &j->room_waiters) {
		struct waiter *w = list_entry(l2, struct waiter, link);

		if (stopped[w->kind])
			continue;
		if (!has_room(j, w->kind, w->bytes)) {
			stopped[w->kind] = true;
			continue;
		}
		j->reserved_bytes += w->bytes;
		list_del(&w->link);
		list_push(&now, &w->link);
	}
	while ((l = list_pop(&now))) {
		struct waiter *w = list_entry(l, struct waiter, link);

		w->fn(w, 0);
	}
}

bool journal_is_over(const struct device *dev, uint32_t part, uint32_t of)
{
	const struct journal *j = &dev->journal;

	return (j->open_lsn - j->tail_stable) * of > (uint64_t)j->ring_blocks * part;
}

/* ---- records ---------------------------------------------------------------------------------------------------------- */

static void *record_space(struct device *dev, uint32_t len)
{
	struct journal *j = &dev->journal;
	void *at;

	if (j->open_used + len > FMT_PAGE)
		journal_close_block(dev);
	if (j->open_last == 0) {
		j->open_since_ns = ioe_now_ns(dev->ioe);
		journal_commit_soon(dev);
	}
	at = (uint8_t *)bytes_at(j, j->open_lsn) + j->open_used;
	j->open_last = j->open_used;
	j->open_used += len;
	j->record_lsn = j->open_lsn;
	j->records_n++;
	return at;
}

uint64_t journal_add(struct device *dev, const void *rec, uint32_t len)
{
	check(fmt_record_check(rec, len) == 0);
	memcpy(record_space(dev, len), rec, len);
	journal_unreserve(dev, len);
	return dev->journal.open_lsn;
}

/* A run that goes on where the last record ended becomes part of it. */
static struct fmt_rec_blocks *extensible(struct journal *j, const struct journal_blocks *b)
{
	struct fmt_rec_blocks *last = (void *)((uint8_t *)bytes_at(j, j->open_lsn) + j->open_last);

	if (j->open_last == 0 || last->h.type != FMT_REC_BLOCKS ||
	    get_le32(last->slot) != b->slot || get_le64(last->cgen) != b->cgen ||
	    (uint32_t)get_le16(last->first) + get_le16(last->n) != b->first ||
	    get_le16(last->n) >= FMT_REC_BLOCKS_N_MAX || j->open_used + 4 > FMT_PAGE)
		return NULL;
	return last;
}

uint64_t journal_add_blocks(struct device *dev, const struct journal_blocks *b, uint32_t *ret_n)
{
	struct journal *j = &dev->journal;
	struct fmt_rec_blocks *rec = extensible(j, b);
	uint32_t had, n, len;

	check(b->n > 0 && b->first + b->n <= dev->geo.blocks_per_chunk);
	if (!rec) {
		if (j->open_used + fmt_blocks_len(1) > FMT_PAGE)
			journal_close_block(dev);
		rec = record_space(dev, sizeof(*rec));
		rec->h.type = FMT_REC_BLOCKS;
		rec->slot = to_le32(b->slot);
		rec->cgen = to_le64(b->cgen);
		rec->first = to_le16((uint16_t)b->first);
	}
	had = get_le16(rec->n);
	n = MIN(b->n, FMT_REC_BLOCKS_N_MAX - had);
	n = MIN(n, (FMT_PAGE - j->open_used) / 4);
	for (uint32_t i = 0; i < n; i++)
		rec->values[had + i] = to_le32(b->values[i]);
	j->open_used += 4 * n;
	len = fmt_blocks_len(had + n);
	rec->n = to_le16((uint16_t)(had + n));
	rec->h.len_bytes = to_le16((uint16_t)len);
	*ret_n = n;
	return j->open_lsn;
}

void journal_data_begin(struct device *dev, uint64_t lsn)
{
	check(lsn > dev->journal.complete_lsn && lsn <= dev->journal.open_lsn);
	block_at(&dev->journal, lsn)->data_pending++;
}

void journal_data_end(struct device *dev, uint64_t lsn)
{
	struct journal_block *b = block_at(&dev->journal, lsn);

	check(lsn > dev->journal.complete_lsn && b->data_pending > 0);
	if (--b->data_pending == 0)
		journal_advance(dev);
}

/* ---- blocks ----------------------------------------------------------------------------------------------------------- */

bool journal_open_is_empty(const struct device *dev)
{
	return dev->journal.open_last == 0;
}

void journal_close_block(struct device *dev)
{
	struct journal *j = &dev->journal;
	struct fmt_journal_block *b = bytes_at(j, j->open_lsn);

	/* The block that the tail names must be there whenever this one is, also when power is lost while several are on their way: a replay begins
	 * with it. */
	j->said_stable = j->stable_lsn;
	j->said_tail = pins_tail(&j->pins, j->stable_lsn);
	b->used_bytes = to_le16((uint16_t)j->open_used);
	b->prev_crc = to_le32(j->said_crc);
	b->incarnation = to_le64(j->incarnation);
	b->lsn = to_le64(j->open_lsn);
	b->tail = to_le64(j->said_tail);
	b->stable_lsn = to_le64(j->said_stable);
	b->meta_commit = to_le64(j->meta_commit);
	b->unresolved_blocks = to_le64(j->unresolved_blocks);
	b->ring_nonce = j->ring_nonce;
	fmt_journal_block_prepare(b, &dev->uuid);
	j->said_crc = get_le32(b->crc);
	block_at(j, j->open_lsn)->state = JBLOCK_CLOSED;
	j->blocks_n++;
	block_open(j, j->open_lsn + 1);
	device_turn_end(dev);
}

static struct journal_write *write_idle(struct journal *j)
{
	for (int i = 0; i < JOURNAL_WRITES_MAX; i++)
		if (j->writes[i].blocks_n == 0)
			return &j->writes[i];
	return NULL;
}

static void journal_push(struct device *dev)
{
	struct journal *j = &dev->journal;
	struct journal_write *w;

	while (j->pushed_lsn + 1 < j->open_lsn && !dev->failed && (w = write_idle(j))) {
		uint64_t first = j->pushed_lsn + 1;
		uint64_t n = MIN(j->open_lsn - first, (uint64_t)JOURNAL_WRITE_BLOCKS_MAX);

		/* one piece of memory, one piece of the ring */
		n = MIN(n, JOURNAL_STAGING_BLOCKS - first % JOURNAL_STAGING_BLOCKS);
		n = MIN(n, j->ring_blocks - first % j->ring_blocks);
		w->first_lsn = first;
		w->blocks_n = (uint32_t)n;
		j->pushed_lsn += n;
		ioe_write(dev->ioe, &w->io, dev->file, geometry_journal_offset(&dev->geo, first),
			  bytes_at(j, first), n * FMT_PAGE, journal_write_done);
	}
}

static void journal_write_done(struct ioe_req *io)
{
	struct journal_write *w = container_of(io, struct journal_write, io);
	struct device *dev = w->dev;

	for (uint32_t i = 0; i < w->blocks_n; i++) {
		struct journal_block *b = block_at(&dev->journal, w->first_lsn + i);

		check(b->state == JBLOCK_CLOSED);
		if (!io->status)
			b->state = JBLOCK_WRITTEN;
	}
	w->blocks_n = 0;
	if (io->status)
		device_fail(dev, "journal write", io->status);
	if (dev->failed) {
		device_turn_end(dev); /* a close may have waited for this */
		return;
	}
	journal_push(dev);
	journal_advance(dev);
}

static void written_wake(struct device *dev)
{
	struct journal *j = &dev->journal;
	struct list now = LIST_INIT(now);

	list_for_each_safe (l, tmp, &j->written_waiters) {
		struct waiter *w = list_entry(l, struct waiter, link);

		if (w->lsn <= j->written_lsn) {
			list_del(l);
			list_push(&now, l);
		}
	}
	waiters_wake(&now, 0);
}

static void journal_advance(struct device *dev)
{
	struct journal *j = &dev->journal;
	uint64_t written = j->written_lsn, complete = j->complete_lsn;

	while (j->written_lsn < j->pushed_lsn &&
	       block_at(j, j->written_lsn + 1)->state == JBLOCK_WRITTEN)
		j->written_lsn++;
	while (j->complete_lsn < j->written_lsn &&
	       block_at(j, j->complete_lsn + 1)->data_pending == 0)
		j->complete_lsn++;
	if (j->written_lsn != written) {
		ring_released(dev);
		written_wake(dev);
	}
	/* who was woken may have moved it already */
	if (j->complete_lsn != complete || j->written_lsn != written)
		device_turn_end(dev);
}

/* At the end of a turn */
void journal_turn(struct device *dev)
{
	struct journal *j = &dev->journal;

	if (!list_empty(&j->room_waiters))
		journal_room_changed(dev);
	journal_push(dev);
}

void journal_wait_written(struct device *dev, struct waiter *w, uint64_t lsn,
			  void (*fn)(struct waiter *w, int status))
{
	check(lsn > dev->journal.written_lsn);
	w->lsn = lsn;
	waiter_push(&dev->journal.written_waiters, w, fn);
	if (lsn == dev->journal.open_lsn)
		journal_close_block(dev);
}

void journal_flushed(struct device *dev, uint64_t lsn, uint64_t said_stable, uint64_t said_tail)
{
	struct journal *j = &dev->journal;

	check(lsn >= j->stable_lsn && lsn <= j->complete_lsn);
	check(said_stable >= j->published_lsn && said_tail >= j->tail_stable);
	j->stable_lsn = lsn;
	j->published_lsn = said_stable;
	j->tail_stable = said_tail;
	check(j->published_lsn <= j->stable_lsn);
	device_turn_end(dev);
}

/* ---- commit timer ----------------------------------------------------------------------------------------------------- */

void journal_commit_soon(struct device *dev)
{
	struct journal *j = &dev->journal;

	if (j->timer_armed || dev->failed)
		return;
	j->timer_armed = true;
	ioe_timer(dev->ioe, &j->timer, j->open_since_ns + JOURNAL_COMMIT_NS, journal_timer_fired);
}

static void journal_timer_fired(struct ioe_req *io)
{
	struct device *dev = container_of(io, struct device, journal.timer);
	struct journal *j = &dev->journal;

	j->timer_armed = false;
	if (journal_open_is_empty(dev) || dev->failed) {
		device_turn_end(dev);
		return;
	}
	/* Half empty blocks may not fill the memory when the disk is slow. */
	if (ioe_now_ns(dev->ioe) >= j->open_since_ns + JOURNAL_COMMIT_NS &&
	    j->open_lsn - j->complete_lsn < JOURNAL_STAGING_BLOCKS / 4)
		journal_close_block(dev);
	else if (ioe_now_ns(dev->ioe) >= j->open_since_ns + JOURNAL_COMMIT_NS)
		j->open_since_ns = ioe_now_ns(dev->ioe);
	if (!journal_open_is_empty(dev))
		journal_commit_soon(dev);
}

void journal_fail(struct device *dev)
{
	struct journal *j = &dev->journal;

	waiters_wake(&j->room_waiters, -E_DEVICE_FAILED);
	waiters_wake(&j->written_waiters, -E_DEVICE_FAILED);
	journal_stop(dev);
}

void journal_stop(struct device *dev)
{
	if (dev->journal.timer_armed)
		ioe_cancel(dev->ioe, &dev->journal.timer);
}
