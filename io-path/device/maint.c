/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/maint.h"

#include "io-path/device/dev.h"
#include "src/base/math.h"
#include "src/base/mem.h"

static void round_begin(struct device *dev);
static void tables_step(struct device *dev);
static void tables_written(struct device *dev);
static void tables_flushed(struct waiter *w, int status);
static void tables_reserved(struct waiter *w, int status);
static void publish_step(struct device *dev);
static void published(struct waiter *w, int status);
static void retire_step(struct device *dev);
static void slots_step(struct device *dev);
static void slots_stable(struct waiter *w, int status);
static void slots_written(struct device *dev);
static void slots_flushed(struct waiter *w, int status);
static void slots_written_twice(struct device *dev);
static void slots_flushed_twice(struct waiter *w, int status);
static void registry_step(struct device *dev);
static void registry_stable(struct waiter *w, int status);
static void registry_write(struct device *dev, void (*done)(struct ioe_req *io));
static void registry_written(struct ioe_req *io);
static void registry_flushed(struct waiter *w, int status);
static void registry_written_twice(struct ioe_req *io);
static void registry_flushed_twice(struct waiter *w, int status);
static void tail_step(struct device *dev);
static void tail_over(struct waiter *w, int status);
static void round_end(struct device *dev);
static void tick(struct ioe_req *io);

#define DEV_OF(waiter) container_of(waiter, struct device, maint.wait)

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int maint_init(struct device *dev)
{
	struct maint *m = &dev->maint;

	list_init(&m->unpublished);
	list_init(&m->waiters);
	waiter_init(&m->wait);
	return 0;
}

void maint_free(struct device *dev)
{
	mem_free(dev->maint.ckpt.buf);
	mem_free(dev->maint.registry_buf);
}

bool maint_is_idle(const struct device *dev)
{
	return dev->maint.step == MAINT_IDLE && !dev->maint.timer_armed;
}

bool maint_is_tidy(const struct device *dev)
{
	return dev->tables.dirty_n == 0 && dev->slots.pinned_n == 0 && dev->registry.pin.lsn == 0 &&
	       dev->slots.active_n == dev->slots.doubtful_n &&
	       flush_has(dev, FLUSH_STABLE, dev->journal.record_lsn);
}

/* ---- who asks --------------------------------------------------------------------------------------------------------- */

void maint_kick(struct device *dev)
{
	if (dev->maint.wanted)
		return;
	dev->maint.wanted = true;
	device_turn_end(dev);
}

void maint_everything(struct device *dev)
{
	dev->maint.everything = true;
	dev->maint.retire_all = true;
	maint_kick(dev);
}

void maint_wait(struct device *dev, struct waiter *w, void (*fn)(struct waiter *w, int status))
{
	waiter_push(&dev->maint.waiters, w, fn);
	maint_kick(dev);
	device_turn_end(dev);
}

void maint_freed(struct device *dev)
{
	if (list_empty(&dev->maint.waiters))
		return;
	dev->maint.freed = true;
	device_turn_end(dev);
}

void maint_turn(struct device *dev)
{
	struct maint *m = &dev->maint;

	if (m->freed) {
		m->freed = false;
		waiters_wake(&m->waiters, 0);
	}
	if (m->wanted && m->step == MAINT_IDLE && dev->journal_started && !dev->failed &&
	    !dev->read_only)
		round_begin(dev);
}

void maint_flushed(struct device *dev)
{
	ckpt_tables_published(dev);
	if (!list_empty(&dev->journal.room_waiters) || !list_empty(&dev->maint.waiters))
		maint_kick(dev);
}

void maint_fail(struct device *dev)
{
	struct maint *m = &dev->maint;

	waiters_wake(&m->waiters, -E_DEVICE_FAILED);
	maint_stop(dev);
	/* what waits in other queues was told there; what is being written comes back first */
	if (m->ckpt.writes_n == 0 && list_empty(&m->wait.link) && !m->registry_busy)
		m->step = MAINT_IDLE;
}

void maint_stop(struct device *dev)
{
	if (dev->maint.timer_armed)
		ioe_cancel(dev->ioe, &dev->maint.timer);
}

/* ---- the tick: an idle device tidies up, slots that are not written any more retire, memory is given back ---------------- */

void maint_used(struct device *dev)
{
	dev->last_change_ns = ioe_now_ns(dev->ioe);
	maint_watch(dev);
}

void maint_watch(struct device *dev)
{
	struct maint *m = &dev->maint;

	if (m->timer_armed || dev->state != DEVICE_SERVING || dev->failed || dev->read_only)
		return;
	m->timer_armed = true;
	ioe_timer(dev->ioe, &m->timer, ioe_now_ns(dev->ioe) + MAINT_TICK_NS, tick);
}

static bool somebody_is_old(struct device *dev)
{
	const struct slot_run *oldest;

	if (list_empty(&dev->slots.active))
		return false;
	oldest = list_first(&dev->slots.active, struct slot_run, link);
	return oldest->last_ns + SLOT_RETIRE_AGE_NS <= ioe_now_ns(dev->ioe);
}

static bool is_quiet(struct device *dev)
{
	struct maint *m = &dev->maint;
	uint64_t lookups_n = dev->info.table_cache_hits + dev->info.table_cache_misses;

	m->quiet_ticks = lookups_n == m->lookups_n ? m->quiet_ticks + 1 : 0;
	m->lookups_n = lookups_n;
	return m->quiet_ticks >= MAINT_QUIET_TICKS;
}

/* True: the device has no more memory than it needs. */
static bool trim(struct device *dev)
{
	if (tables_are_trim(dev) && slots_are_trim(&dev->slots))
		return true;
	if (!is_quiet(dev) || !tables_trim(dev))
		return false;
	slots_trim(dev);
	mem_trim();
	return true;
}

static void tick(struct ioe_req *io)
{
	struct device *dev = container_of(io, struct device, maint.timer);
	struct maint *m = &dev->maint;

	m->timer_armed = false;
	if (dev->failed || dev->state != DEVICE_SERVING) {
		device_turn_end(dev);
		if (dev->state == DEVICE_CLOSING)
			close_step(dev);
		return;
	}
	if (ioe_now_ns(dev->ioe) >= dev->last_change_ns + MAINT_TICK_NS)
		m->everything = true;
	if (m->everything || somebody_is_old(dev))
		maint_kick(dev);
	if (!trim(dev) || !maint_is_tidy(dev))
		maint_watch(dev);
}

/* ---- a round ---------------------------------------------------------------------------------------------------------- */

static bool many_are_active(const struct device *dev)
{
	return dev->slots.active_n > dev->slots.active_max / 8 * 7;
}

static bool many_are_dirty(const struct device *dev)
{
	return dev->tables.dirty_n > dev->tables.dirty_max / 4 * 3;
}

static void round_begin(struct device *dev)
{
	struct maint *m = &dev->maint;
	struct journal *j = &dev->journal;
	bool full = journal_is_over(dev, 1, 2);

	m->wanted = false;
	m->did = false;
	m->all = m->everything;
	m->everything = false;
	m->pressed = full || many_are_dirty(dev) || many_are_active(dev) ||
		     !list_empty(&j->room_waiters) || !list_empty(&m->waiters);
	m->below_lsn = m->all ? UINT64_MAX : full ? j->open_lsn - j->ring_blocks / 4 : 0;
	m->ckpt_lsn = 0;
	if (!m->all && !m->pressed && !somebody_is_old(dev))
		return;
	m->step = MAINT_TABLES;
	tables_step(dev);
}

/* ---- table pages ------------------------------------------------------------------------------------------------------ */

static bool may_checkpoint(const struct table_page *p)
{
	return p && p->pin.lsn && p->loaded && !p->in_ckpt && !p->picked;
}

static bool pick_table(struct device *dev, struct table_page *p)
{
	if (dev->maint.ckpt.n >= dev->maint.tables_max)
		return false;
	if (p && p->pin.lsn && p->is_unreadable)
		table_load_again(dev, p);
	if (may_checkpoint(p)) {
		p->picked = true;
		ckpt_add(dev, p->page_no);
	}
	return true;
}

static bool pick_pinned_table(void *arg, struct pin *pin)
{
	return pin->kind != PIN_TABLE || pick_table(arg, container_of(pin, struct table_page, pin));
}

/* Who should retire: the ones not written for a long time, all, or when there are too many the eighth that was longest not written. */
static uint32_t retire_wanted(struct device *dev)
{
	if (dev->maint.retire_all)
		return UINT32_MAX;
	return many_are_active(dev) ? dev->slots.active_max / 8 : 0;
}

static bool should_retire(struct device *dev, const struct slot_run *run, uint32_t rank)
{
	return !run->doubt && (rank < retire_wanted(dev) ||
			       run->last_ns + SLOT_RETIRE_AGE_NS <= ioe_now_ns(dev->ioe));
}

static struct table_page *page_of(struct device *dev, uint32_t slot)
{
	return dev->tables.tables[geometry_table_page_of(&dev->geo, slot)].page;
}

static void pick_retiring_tables(struct device *dev)
{
	uint32_t rank = 0;

	list_for_each (l, &dev->slots.active) {
		const struct slot_run *run = list_entry(l, struct slot_run, link);

		if (run->doubt)
			continue;
		if (!should_retire(dev, run, rank++) || !pick_table(dev, page_of(dev, run->slot)))
			break;
	}
}

/* The longer a page stays dirty the more changes one write of it brings home: when it is only that there are many, and nobody waits, the oldest
 * eighth will do. */
static uint32_t dirty_wanted(const struct device *dev)
{
	const struct maint *m = &dev->maint;

	if (m->below_lsn || !list_empty(&m->waiters) || !list_empty(&dev->journal.room_waiters))
		return CKPT_PAGES_MAX;
	return MIN(dev->tables.dirty_max / 8, (uint32_t)CKPT_PAGES_MAX);
}

static void tables_step(struct device *dev)
{
	struct maint *m = &dev->maint;
	uint64_t below = many_are_dirty(dev) ? UINT64_MAX : m->below_lsn;

	m->ckpt.n = 0;
	m->tables_max = CKPT_PAGES_MAX;
	pick_retiring_tables(dev);
	m->tables_max = MAX(m->ckpt.n, dirty_wanted(dev));
	pins_each_below(&dev->journal.pins, below, pick_pinned_table, dev);
	for (uint32_t i = 0; i < m->ckpt.n; i++)
		dev->tables.tables[m->ckpt.pages[i]].page->picked = false;
	if (m->ckpt.n == 0 || ckpt_start(dev, ckpt_table_fill, ckpt_table_offset, tables_written))
		publish_step(dev);
}

static void tables_written(struct device *dev)
{
	flush_wait(dev, &dev->maint.wait, FLUSH_MEDIUM, 0, tables_flushed);
}

static void tables_flushed(struct waiter *w, int status)
{
	struct device *dev = DEV_OF(w);
	uint32_t bytes = dev->maint.ckpt.n * (uint32_t)sizeof(struct fmt_rec_ckpt);

	if (status)
		round_end(dev);
	else if (journal_reserve(dev, JOURNAL_MAINT, bytes))
		tables_reserved(w, 0);
	else
		journal_wait_room(dev, w, JOURNAL_MAINT, bytes, tables_reserved);
}

static void tables_reserved(struct waiter *w, int status)
{
	struct device *dev = DEV_OF(w);
	struct ckpt *c = &dev->maint.ckpt;

	if (status) {
		round_end(dev);
		return;
	}
	for (uint32_t i = 0; i < c->n; i++)
		ckpt_table_record(dev, c->pages[i], ckpt_copy(c, i));
	mem_free(c->buf);
	c->buf = NULL;
	dev->maint.did = true;
	publish_step(dev);
}

static void publish_step(struct device *dev)
{
	struct maint *m = &dev->maint;

	m->step = MAINT_PUBLISH;
	if (flush_has(dev, FLUSH_PUBLISHED, m->ckpt_lsn))
		retire_step(dev);
	else
		flush_wait(dev, &m->wait, FLUSH_PUBLISHED, m->ckpt_lsn, published);
}

static void published(struct waiter *w, int status)
{
	struct device *dev = DEV_OF(w);

	if (status) {
		round_end(dev);
		return;
	}
	ckpt_tables_published(dev);
	retire_step(dev);
}

/* ---- retire ----------------------------------------------------------------------------------------------------------- */

/* Nothing of it is in the journal alone, and nobody is writing. */
static bool may_retire(struct device *dev, const struct slot_run *run)
{
	const struct table_page *p = page_of(dev, run->slot);

	if (run->exclusive_n > 0 || dev->slots.slots[run->slot].uncounted ||
	    !flush_has(dev, FLUSH_STABLE, run->last_lsn))
		return false;
	return !p || p->pin.lsn == 0 || run->last_lsn < p->home_from_lsn;
}

/* To count it, its table has to be read once. */
static void count_soon(struct device *dev, uint32_t slot)
{
	struct table_page *p = tables_get(dev, geometry_table_page_of(&dev->geo, slot));

	if (p)
		tables_put(dev, p);
}

static void retire_step(struct device *dev)
{
	uint32_t rank = 0;

	dev->maint.step = MAINT_RETIRE;
	list_for_each_safe (l, tmp, &dev->slots.active) {
		struct slot_run *run = list_entry(l, struct slot_run, link);

		if (run->doubt)
			continue;
		if (!should_retire(dev, run, rank++))
			break;
		if (dev->slots.slots[run->slot].uncounted)
			count_soon(dev, run->slot);
		if (!may_retire(dev, run))
			continue;
		if (!journal_reserve(dev, JOURNAL_MAINT, sizeof(struct fmt_rec_retire)))
			break;
		slot_retire(dev, run->slot);
		slot_run_put(dev, run);
		dev->maint.did = true;
	}
	slots_step(dev);
}

/* ---- slot-entry pages ------------------------------------------------------------------------------------------------- */

/* Both homes get the same, one after the other, before the journal may forget what is in them: so each of them is enough, with the journal,
 * and the rot of one costs nothing. Were the older home left as it is, a replay that finds the newer one damaged could not tell that from a
 * write that was cut short, and would believe the older. */

static bool pick_slot_page(void *arg, struct pin *pin)
{
	struct device *dev = arg;
	struct slot_page *sp = container_of(pin, struct slot_page, pin);

	if (pin->kind != PIN_SLOTS)
		return true;
	if (dev->maint.ckpt.n == CKPT_PAGES_MAX)
		return false;
	check(!sp->in_ckpt);
	ckpt_add(dev, (uint32_t)(sp - dev->slots.pages));
	return true;
}

static void slots_step(struct device *dev)
{
	struct maint *m = &dev->maint;
	uint64_t last_lsn = 0;

	m->step = MAINT_SLOTS;
	m->ckpt.n = 0;
	pins_each_below(&dev->journal.pins, m->below_lsn, pick_slot_page, dev);
	for (uint32_t i = 0; i < m->ckpt.n; i++)
		last_lsn = MAX(last_lsn, dev->slots.pages[m->ckpt.pages[i]].last_lsn);
	if (m->ckpt.n == 0)
		registry_step(dev);
	else if (flush_has(dev, FLUSH_STABLE, last_lsn))
		slots_stable(&m->wait, 0);
	else
		flush_wait(dev, &m->wait, FLUSH_STABLE, last_lsn, slots_stable);
}

static void slots_stable(struct waiter *w, int status)
{
	struct device *dev = DEV_OF(w);
	struct maint *m = &dev->maint;
	uint32_t n = 0;

	if (status) {
		round_end(dev);
		return;
	}
	/* those that changed meanwhile come with the next round */
	for (uint32_t i = 0; i < m->ckpt.n; i++)
		if (flush_has(dev, FLUSH_STABLE, dev->slots.pages[m->ckpt.pages[i]].last_lsn))
			m->ckpt.pages[n++] = m->ckpt.pages[i];
	m->ckpt.n = n;
	m->from_lsn = dev->journal.stable_lsn + 1;
	if (n == 0 || ckpt_start(dev, ckpt_slots_fill, ckpt_slots_offset, slots_written))
		registry_step(dev);
}

static void slots_written(struct device *dev)
{
	flush_wait(dev, &dev->maint.wait, FLUSH_MEDIUM, 0, slots_flushed);
}

static void slots_flushed(struct waiter *w, int status)
{
	struct device *dev = DEV_OF(w);
	struct ckpt *c = &dev->maint.ckpt;

	if (status) {
		round_end(dev);
		return;
	}
	for (uint32_t i = 0; i < c->n; i++)
		ckpt_slots_turn(dev, c->pages[i], ckpt_copy(c, i));
	ckpt_write(dev, slots_written_twice);
}

static void slots_written_twice(struct device *dev)
{
	flush_wait(dev, &dev->maint.wait, FLUSH_MEDIUM, 0, slots_flushed_twice);
}

static void slots_flushed_twice(struct waiter *w, int status)
{
	struct device *dev = DEV_OF(w);
	struct ckpt *c = &dev->maint.ckpt;

	if (status) {
		round_end(dev);
		return;
	}
	for (uint32_t i = 0; i < c->n; i++)
		ckpt_slots_done(dev, c->pages[i]);
	mem_free(c->buf);
	c->buf = NULL;
	dev->maint.did = true;
	registry_step(dev);
}

/* ---- registry --------------------------------------------------------------------------------------------------------- */

static void registry_step(struct device *dev)
{
	struct maint *m = &dev->maint;
	struct registry *g = &dev->registry;

	m->step = MAINT_REGISTRY;
	if (g->pin.lsn == 0 || g->pin.lsn >= m->below_lsn)
		tail_step(dev);
	else if (flush_has(dev, FLUSH_STABLE, g->last_lsn))
		registry_stable(&m->wait, 0);
	else
		flush_wait(dev, &m->wait, FLUSH_STABLE, g->last_lsn, registry_stable);
}

static void registry_stable(struct waiter *w, int status)
{
	struct device *dev = DEV_OF(w);
	struct maint *m = &dev->maint;
	struct registry *g = &dev->registry;
	int r;

	if (status) {
		round_end(dev);
		return;
	}
	if (!flush_has(dev, FLUSH_STABLE, g->last_lsn)) { /* one more came: with the next round */
		tail_step(dev);
		return;
	}
	m->from_lsn = dev->journal.stable_lsn + 1;
	r = registry_encode(dev, m->from_lsn, &m->registry_buf, &m->registry_pages_n);
	if (r == -E_FORMAT)
		device_fail(dev, "registry", r);
	if (r) {
		tail_step(dev);
		return;
	}
	registry_write(dev, registry_written);
}

static void registry_write(struct device *dev, void (*done)(struct ioe_req *io))
{
	struct maint *m = &dev->maint;

	m->registry_busy = true;
	ioe_write(dev->ioe, &m->ckpt.writes[0].io, dev->file,
		  geometry_registry_offset(&dev->geo, !dev->registry.half), m->registry_buf,
		  (uint64_t)m->registry_pages_n * FMT_PAGE, done);
}

/* Also when it failed: then the waiter is told so at once. */
static void registry_flush(struct ioe_req *io, void (*done)(struct waiter *w, int status))
{
	struct device *dev = container_of(io, struct device, maint.ckpt.writes[0].io);

	dev->maint.registry_busy = false;
	if (io->status)
		device_fail(dev, "registry write", io->status);
	flush_wait(dev, &dev->maint.wait, FLUSH_MEDIUM, 0, done);
}

static void registry_written(struct ioe_req *io)
{
	registry_flush(io, registry_flushed);
}

static void registry_flushed(struct waiter *w, int status)
{
	struct device *dev = DEV_OF(w);
	struct registry *g = &dev->registry;

	if (status) {
		round_end(dev);
		return;
	}
	g->half = !g->half;
	g->seq++;
	registry_turn(dev, dev->maint.registry_buf, dev->maint.registry_pages_n);
	registry_write(dev, registry_written_twice);
}

static void registry_written_twice(struct ioe_req *io)
{
	registry_flush(io, registry_flushed_twice);
}

static void registry_flushed_twice(struct waiter *w, int status)
{
	struct device *dev = DEV_OF(w);
	struct registry *g = &dev->registry;
	uint64_t from_lsn = dev->maint.from_lsn;

	if (status) {
		round_end(dev);
		return;
	}
	mem_free(dev->maint.registry_buf);
	dev->maint.registry_buf = NULL;
	g->is_alone = false;
	pin_move(&dev->journal.pins, &g->pin, g->last_lsn >= from_lsn ? from_lsn : 0);
	dev->maint.did = true;
	dev->info.checkpoints++;
	tail_step(dev);
}

/* ---- tail ------------------------------------------------------------------------------------------------------------- */

/* The blocks that became free are reused only when a stable block says so. An idle device also publishes what the last flush covered. */
static void tail_step(struct device *dev)
{
	struct maint *m = &dev->maint;
	struct journal *j = &dev->journal;

	m->step = MAINT_TAIL;
	if (dev->failed) {
		round_end(dev);
	} else if (m->pressed && m->did) {
		journal_close_block(dev);
		flush_wait(dev, &m->wait, FLUSH_STABLE, j->open_lsn - 1, tail_over);
	} else if (m->all && !flush_has(dev, FLUSH_PUBLISHED, j->record_lsn)) {
		flush_wait(dev, &m->wait, FLUSH_PUBLISHED, j->record_lsn, tail_over);
	} else {
		round_end(dev);
	}
}

static void tail_over(struct waiter *w, int status)
{
	(void)status;
	round_end(DEV_OF(w));
}

static void round_end(struct device *dev)
{
	struct maint *m = &dev->maint;

	m->step = MAINT_IDLE;
	mem_free(m->ckpt.buf);
	m->ckpt.buf = NULL;
	mem_free(m->registry_buf);
	m->registry_buf = NULL;
	if (dev->failed) {
		device_turn_end(dev);
		return;
	}
	/* As long as it helps, and is needed; else whatever makes it possible again kicks. */
	if (m->did && (journal_is_over(dev, 3, 8) || many_are_dirty(dev) || many_are_active(dev)))
		maint_kick(dev);
	if (m->all && m->did && !maint_is_tidy(dev) && !m->wanted) {
		m->everything = true;
		maint_kick(dev);
	}
	if (dev->state == DEVICE_CLOSING)
		close_step(dev);
	device_turn_end(dev);
}
