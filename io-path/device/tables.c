/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/tables.h"

#include "io-path/device/dev.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum { DIRTY_PAGES_MIN = 256, DIRTY_PAGES_MAX = 64 << 10, EVICT_LOOK_MAX = 64 };
/* Of a small device all tables stay: a quarter more writes than there are pages must not mean a checkpoint for each. */
enum { CACHE_BYTES_MIN = 1 << 20, CACHE_BYTES_DEFAULT_MIN = 16 << 20 };
enum { IDLE_BYTES_MAX = 1 << 20, TRIM_LOOK_MAX = 4096 };
enum { MOVED_BYTES = FMT_VALUES_PER_PAGE * sizeof(uint32_t) };
enum { PAGE_MEM_BYTES = sizeof(struct table_page) + FMT_PAGE };
#define MOVED_SPAN_MAX ((uint64_t)UINT32_MAX / 2)

static bool evict_one(struct device *dev);
static void moves_forget(struct device *dev, struct table_page *p);
static void counts_changed(struct device *dev, struct slot *s, uint32_t present_n, uint32_t bad_n);

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int tables_init(struct device *dev, uint64_t cache_bytes)
{
	struct tables *t = &dev->tables;

	list_init(&t->lru);
	list_init(&t->load_queue);
	if (cache_bytes == 0)
		cache_bytes = MAX(((uint64_t)dev->geo.total.slots << dev->geo.chunk_shift) / 1024,
				  (uint64_t)CACHE_BYTES_DEFAULT_MIN);
	t->bytes_max = MAX(cache_bytes, (uint64_t)CACHE_BYTES_MIN);
	t->dirty_max = (uint32_t)MIN(MAX(t->bytes_max / FMT_PAGE / 2, (uint64_t)DIRTY_PAGES_MIN),
				     (uint64_t)DIRTY_PAGES_MAX);
	for (int i = 0; i < TABLE_LOADS_MAX; i++) {
		t->loads[i].dev = dev;
		list_init(&t->loads[i].pages);
		t->loads[i].buf = mem_alloc_aligned(FMT_PAGE, (size_t)TABLE_LOAD_PAGES * FMT_PAGE);
		if (!t->loads[i].buf)
			return -ENOMEM;
	}
	t->tables = mem_zalloc_array(dev->geo.total.table_pages, sizeof(*t->tables));
	return t->tables ? 0 : -ENOMEM;
}

static void page_free(struct device *dev, struct table_page *p)
{
	struct tables *t = &dev->tables;

	list_del(&p->lru);
	t->tables[p->page_no].page = NULL;
	t->bytes -= PAGE_MEM_BYTES + (p->moved ? MOVED_BYTES : 0);
	mem_free(p->moved);
	mem_free(p);
}

void tables_free(struct device *dev)
{
	struct tables *t = &dev->tables;

	for (uint32_t i = 0; t->tables && i < dev->geo.total.table_pages; i++)
		if (t->tables[i].page)
			page_free(dev, t->tables[i].page);
	for (int i = 0; i < TABLE_LOADS_MAX; i++)
		mem_free(t->loads[i].buf);
	mem_free(t->tables);
}

/* ---- the cache -------------------------------------------------------------------------------------------------------- */

static struct table_page *page_new(struct device *dev, uint32_t page_no)
{
	struct tables *t = &dev->tables;
	struct table_page *p;

	while (t->bytes + PAGE_MEM_BYTES > t->bytes_max && evict_one(dev))
		;
	/* In one piece, and nothing but the lines aligned: first writes to fresh slots make one for every few chunks, and most of what that costs
	 * is touching memory for the first time. */
	p = mem_alloc_aligned(CACHE_LINE_BYTES, PAGE_MEM_BYTES);
	if (!p)
		return NULL;
	memset(p, 0, PAGE_MEM_BYTES);
	p->values = (uint32_t *)(p + 1);
	list_init(&p->lru);
	list_init(&p->waiters);
	list_init(&p->ckpt_link);
	pin_init(&p->pin, PIN_TABLE);
	p->page_no = page_no;
	t->bytes += PAGE_MEM_BYTES;
	t->tables[page_no].page = p;
	if (!tables_are_trim(dev))
		maint_watch(dev);
	return p;
}

struct table_page *tables_get(struct device *dev, uint32_t page_no)
{
	struct table_page *p = dev->tables.tables[page_no].page;

	if (p) {
		dev->info.table_cache_hits++;
		if (p->is_unreadable)
			table_load_again(dev, p);
	} else {
		dev->info.table_cache_misses++;
		p = page_new(dev, page_no);
		if (!p)
			return NULL;
		table_load_start(dev, p);
	}
	p->users++;
	p->referenced = true;
	return p;
}

void tables_put(struct device *dev, struct table_page *p)
{
	check(p->users > 0);
	p->users--;
	/* an unreadable one that holds nothing is not in `lru`: nobody else would find it */
	if (p->users == 0 && p->is_unreadable && p->pin.lsn == 0) {
		dev->tables.unreadable_n--;
		page_free(dev, p);
	}
}

void tables_wait(struct table_page *p, struct waiter *w, void (*fn)(struct waiter *w, int status))
{
	check(!p->loaded && !p->is_unreadable);
	waiter_push(&p->waiters, w, fn);
}

static bool is_evictable(struct device *dev, const struct table_page *p)
{
	return p->users == 0 && p->loaded && p->pin.lsn == 0 && !p->in_ckpt &&
	       p->moved_max <= dev->journal.published_lsn;
}

/* Second chance: a page that was used since it was last looked at goes round once more. */
static bool evict_one(struct device *dev)
{
	struct tables *t = &dev->tables;

	for (int i = 0; i < EVICT_LOOK_MAX && !list_empty(&t->lru); i++) {
		struct table_page *p = list_first(&t->lru, struct table_page, lru);

		if (!p->referenced && is_evictable(dev, p)) {
			page_free(dev, p);
			return true;
		}
		p->referenced = false;
		list_del(&p->lru);
		list_push(&t->lru, &p->lru);
	}
	return false;
}

bool tables_are_trim(const struct device *dev)
{
	return dev->tables.bytes <= IDLE_BYTES_MAX;
}

/* The oldest first. Each page is looked at once, and no more than some at a time: others share the thread. */
bool tables_trim(struct device *dev)
{
	struct tables *t = &dev->tables;
	uint32_t looked_n = 0;

	list_for_each_safe (l, tmp, &t->lru) {
		struct table_page *p = list_entry(l, struct table_page, lru);

		if (tables_are_trim(dev))
			return true;
		if (looked_n++ == TRIM_LOOK_MAX)
			return false;
		if (is_evictable(dev, p))
			page_free(dev, p);
	}
	return true;
}

void tables_fail(struct device *dev)
{
	for (uint32_t i = 0; i < dev->geo.total.table_pages; i++)
		if (dev->tables.tables[i].page)
			waiters_wake(&dev->tables.tables[i].page->waiters, -E_DEVICE_FAILED);
}

/* ---- values ----------------------------------------------------------------------------------------------------------- */

static bool is_known(const struct table_page *p, uint32_t at)
{
	return p->loaded || (p->known[at / 64] >> (at % 64) & 1);
}

bool table_knows(const struct table_page *p, uint32_t first, uint32_t n)
{
	if (p->loaded)
		return true;
	for (uint32_t at = first; at < first + n; at++)
		if (!is_known(p, at))
			return false;
	return true;
}

int table_track(struct device *dev, struct table_page *p)
{
	if (p->moved) {
		/* long clean and still in use: what it remembers is counted in 32 bits */
		if (dev->journal.open_lsn - p->moved_base > MOVED_SPAN_MAX)
			moves_forget(dev, p);
		return 0;
	}
	while (dev->tables.bytes + MOVED_BYTES > dev->tables.bytes_max && evict_one(dev))
		;
	p->moved = mem_zalloc(MOVED_BYTES);
	if (!p->moved)
		return -ENOMEM;
	dev->tables.bytes += MOVED_BYTES;
	p->moved_base = dev->journal.tail_stable - 1; /* nothing older will ever be noted */
	return 0;
}

void table_touch(struct device *dev, struct table_page *p, uint64_t lsn)
{
	if (p->pin.lsn == 0)
		dev->tables.dirty_n++;
	pin_need(&dev->journal.pins, &p->pin, lsn);
	p->last_lsn = MAX(p->last_lsn, lsn);
	if (dev->tables.dirty_n > dev->tables.dirty_max / 2)
		maint_kick(dev);
}

void table_pin_move(struct device *dev, struct table_page *p, uint64_t lsn)
{
	if (p->pin.lsn && lsn == 0) {
		dev->tables.dirty_n--;
		maint_freed(dev);
	}
	pin_move(&dev->journal.pins, &p->pin, lsn);
}

/* What is said of a block that was unknown before: that it moved; table_load.c takes it back if it did not. */
static void note_move(struct table_page *p, uint32_t at, bool was_data, bool is_data, uint64_t lsn)
{
	if (is_known(p, at) && was_data == is_data)
		return;
	check(p->moved && lsn > p->moved_base && lsn - p->moved_base <= UINT32_MAX);
	p->moved[at] = (uint32_t)(lsn - p->moved_base);
	p->moved_max = MAX(p->moved_max, lsn);
}

void table_set(struct device *dev, struct table_page *p, uint32_t slot, uint32_t block, uint32_t n,
	       const uint32_t *values, uint64_t lsn)
{
	struct slot *s = &dev->slots.slots[slot];
	uint32_t base = geometry_table_value_of(&dev->geo, slot) + block;
	int present = 0, bad = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = base + i, was = p->values[at], is = values[i];

		note_move(p, at, table_is_data(was), table_is_data(is), lsn);
		if (is_known(p, at)) {
			present += (is >= FMT_BLOCK_BAD) - (was >= FMT_BLOCK_BAD);
			bad += (is == FMT_BLOCK_BAD) - (was == FMT_BLOCK_BAD);
		}
		p->values[at] = is;
		if (!p->loaded)
			p->known[at / 64] |= 1ULL << (at % 64);
	}
	/* of a page that is not loaded yet the counts follow when it is */
	if (p->loaded && (present || bad))
		counts_changed(dev, s, (uint32_t)(s->present_n + present),
			       (uint32_t)(s->bad_n + bad));
}

void table_clear_slot(struct device *dev, struct table_page *p, uint32_t slot)
{
	uint32_t base = geometry_table_value_of(&dev->geo, slot), n = dev->geo.blocks_per_chunk;

	memset(p->values + base, 0, n * sizeof(uint32_t));
	if (p->moved)
		memset(p->moved + base, 0, n * sizeof(uint32_t));
	for (uint32_t at = base; at < base + n; at += 64)
		p->known[at / 64] = UINT64_MAX;
	counts_changed(dev, &dev->slots.slots[slot], 0, 0);
	dev->slots.slots[slot].uncounted = false;
}

void table_sweep(struct device *dev, struct table_page *p)
{
	if (!p->moved)
		return;
	if (p->moved_max > dev->journal.published_lsn || p->users > 0) {
		moves_forget(dev, p); /* somebody counts on the memory */
		return;
	}
	mem_free(p->moved);
	p->moved = NULL;
	dev->tables.bytes -= MOVED_BYTES;
}

/* Those that are published count as long ago; the memory stays. */
static void moves_forget(struct device *dev, struct table_page *p)
{
	uint64_t published = dev->journal.published_lsn;
	uint64_t shift = published > p->moved_base ? published - p->moved_base : 0;

	for (uint32_t at = 0; at < FMT_VALUES_PER_PAGE; at++)
		p->moved[at] = p->moved[at] > shift ? (uint32_t)(p->moved[at] - shift) : 0;
	p->moved_base += shift;
}

/* ---- counts ----------------------------------------------------------------------------------------------------------- */

static void counts_changed(struct device *dev, struct slot *s, uint32_t present_n, uint32_t bad_n)
{
	check(present_n <= dev->geo.blocks_per_chunk && bad_n <= present_n);
	dev->bad_blocks += bad_n;
	dev->bad_blocks -= s->bad_n;
	slot_counts_set(s, present_n, bad_n);
}

void table_recount(struct device *dev, struct table_page *p)
{
	struct geo_range r = geometry_table_page_slots(&dev->geo, p->page_no);
	uint32_t at = 0;

	for (uint32_t slot = r.first; slot < r.first + r.n; slot++) {
		struct slot *s = &dev->slots.slots[slot];
		uint32_t present_n = 0, bad_n = 0;

		for (uint32_t i = 0; i < dev->geo.blocks_per_chunk; i++, at++) {
			present_n += p->values[at] >= FMT_BLOCK_BAD;
			bad_n += p->values[at] == FMT_BLOCK_BAD;
		}
		if (!s->open)
			continue;
		counts_changed(dev, s, present_n, bad_n);
		s->uncounted = false;
	}
}
