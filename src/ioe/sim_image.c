/* SPDX-License-Identifier: Apache-2.0 */
#include "src/ioe/sim_image.h"

#include <string.h>

#include "src/base/math.h"
#include "src/ioe/sim_mem.h"

enum {
	FANOUT_BITS = 6,
	FANOUT = 1 << FANOUT_BITS,
	LEVELS = 5, /* of tree nodes above the groups */
	GROUP_BYTES = FANOUT * SIM_PAGE,
};
static_assert((uint64_t)GROUP_BYTES << (FANOUT_BITS * LEVELS) == SIM_FILE_MAX,
	      "the tree spans the largest file");

struct page {
	uint8_t *durable; /* NULL: the same as current */
	uint64_t newest;  /* number of the last record that touched it */
	bool lost; /* a record that a failed fsync lost touched it: the two states stay apart */
	uint8_t current[SIM_PAGE];
};

struct group {
	uint64_t index;
	uint64_t allocated; /* bit per page: it takes space */
	uint64_t split;	    /* bit per page: durable differs from current */
	struct page *page[FANOUT];
};

struct record {
	struct list link;
	uint64_t number;
	bool is_lost; /* by a failed fsync */
	struct sim_change c;
	uint8_t data[];
};

/* the part of a range that lies in one page */
struct piece {
	uint64_t page; /* index in the file */
	uint32_t start, len;
	const uint8_t *data; /* NULL: zeros */
};

static void record_free(struct record *rec)
{
	list_del(&rec->link);
	sim_free(rec);
}

static void overlapped_settle(struct sim_image *img, const struct sim_change *c);

static const uint8_t zeros[SIM_PAGE]; /* the durable side of a page that was a hole */

void sim_image_init(struct sim_image *img)
{
	*img = (struct sim_image){0};
	list_init(&img->unsynced);
}

/* ---- the tree --------------------------------------------------------------------------------------------------------- */

static unsigned tree_slot(uint64_t index, int level)
{
	return (index >> (FANOUT_BITS * level)) % FANOUT;
}

static struct group *group_find(const struct sim_image *img, uint64_t index)
{
	void *const *node = img->root;

	for (int level = LEVELS - 1; level > 0; level--) {
		node = node[tree_slot(index, level)];
		if (!node)
			return NULL;
	}
	return node[tree_slot(index, 0)];
}

static struct group *subtree_next(void *const *node, int level, uint64_t index)
{
	for (unsigned i = tree_slot(index, level); i < FANOUT; i++) {
		struct group *g = node[i];

		if (g && level > 0)
			g = subtree_next(node[i], level - 1, index);
		if (g)
			return g;
		index = ((index >> (FANOUT_BITS * level)) + 1) << (FANOUT_BITS * level);
	}
	return NULL;
}

/* The first group at or after index. */
static struct group *group_next(const struct sim_image *img, uint64_t index)
{
	if (index >= SIM_FILE_MAX / GROUP_BYTES)
		return NULL;
	return subtree_next(img->root, LEVELS - 1, index);
}

static struct group *group_make(struct sim_image *img, uint64_t index)
{
	void **node = img->root;
	struct group *g;

	check(index < SIM_FILE_MAX / GROUP_BYTES);
	for (int level = LEVELS - 1; level > 0; level--) {
		void **slot = &node[tree_slot(index, level)];

		if (!*slot)
			*slot = sim_zalloc(sizeof(img->root));
		node = *slot;
	}
	g = node[tree_slot(index, 0)];
	if (!g) {
		g = sim_zalloc(sizeof(*g));
		g->index = index;
		node[tree_slot(index, 0)] = g;
	}
	return g;
}

static void page_free(struct page *p)
{
	if (p && p->durable != zeros)
		sim_free(p->durable);
	sim_free(p);
}

static void subtree_free(void **node, int level)
{
	for (unsigned i = 0; i < FANOUT; i++) {
		struct group *g = node[i];

		if (g && level > 0)
			subtree_free(node[i], level - 1);
		else if (g)
			for (unsigned slot = 0; slot < FANOUT; slot++)
				page_free(g->page[slot]);
		sim_free(node[i]);
	}
}

void sim_image_free(struct sim_image *img)
{
	subtree_free(img->root, LEVELS - 1);
	list_for_each_safe (l, tmp, &img->unsynced)
		record_free(list_entry(l, struct record, link));
	sim_image_init(img);
}

/* The next piece of the change; *at counts the bytes done. Of a punch, pieces where no page can be are passed over. */
static bool piece_next(const struct sim_image *img, const struct sim_change *c, uint64_t *at,
		       struct piece *ret_p)
{
	uint64_t off = c->off + *at;

	if (!c->data && *at < c->len && !group_find(img, off / GROUP_BYTES)) {
		struct group *g = group_next(img, off / GROUP_BYTES);

		*at = g ? MIN(c->len, g->index * GROUP_BYTES - c->off) : c->len;
		off = c->off + *at;
	}
	if (*at == c->len)
		return false;
	ret_p->page = off / SIM_PAGE;
	ret_p->start = off % SIM_PAGE;
	ret_p->len = (uint32_t)MIN(c->len - *at, SIM_PAGE - ret_p->start);
	ret_p->data = c->data ? (const uint8_t *)c->data + *at : NULL;
	*at += ret_p->len;
	return true;
}

static void piece_put(uint8_t *page, const struct piece *p)
{
	if (p->data)
		memcpy(page + p->start, p->data, p->len);
	else
		memset(page + p->start, 0, p->len);
}

/* ---- what readers see ------------------------------------------------------------------------------------------------- */

void sim_image_read(const struct sim_image *img, uint64_t off, void *buf, uint64_t len)
{
	uint8_t *to = buf;

	while (len > 0) {
		const struct group *g = group_find(img, off / GROUP_BYTES);
		const struct page *p = g ? g->page[off / SIM_PAGE % FANOUT] : NULL;
		uint64_t start = off % SIM_PAGE, n = MIN(len, SIM_PAGE - start);

		if (p)
			memcpy(to, p->current + start, n);
		else
			memset(to, 0, n);
		to += n;
		off += n;
		len -= n;
	}
}

uint64_t sim_image_missing(const struct sim_image *img, uint64_t off, uint64_t len)
{
	uint64_t first = off / SIM_PAGE, end = div_up(off + len, SIM_PAGE);
	uint64_t missing = end - first;

	for (struct group *g = group_next(img, first / FANOUT); g && g->index * FANOUT < end;
	     g = group_next(img, g->index + 1)) {
		uint64_t base = g->index * FANOUT;
		uint64_t mask = ~(uint64_t)0;

		if (base < first)
			mask &= ~(uint64_t)0 << (first - base);
		if (end - base < FANOUT)
			mask &= ~(~(uint64_t)0 << (end - base));
		missing -= (uint64_t)__builtin_popcountll(g->allocated & mask);
	}
	return missing;
}

static void group_allocate(struct sim_image *img, struct group *g, unsigned slot, bool allocated)
{
	uint64_t bit = (uint64_t)1 << slot;

	if (!(g->allocated & bit) == !allocated)
		return;
	g->allocated ^= bit;
	img->used_pages += allocated ? 1 : (uint64_t)-1;
}

void sim_image_reserve(struct sim_image *img, uint64_t off, uint64_t len)
{
	for (uint64_t i = off / SIM_PAGE; i < div_up(off + len, SIM_PAGE); i++)
		group_allocate(img, group_make(img, i / FANOUT), i % FANOUT, true);
}

/* ---- changes ---------------------------------------------------------------------------------------------------------- */

static bool page_is_allocated(const struct group *g, unsigned slot)
{
	return g->allocated & (uint64_t)1 << slot;
}

static struct page *page_make(struct group *g, unsigned slot)
{
	if (!g->page[slot])
		g->page[slot] = sim_zalloc(sizeof(struct page));
	return g->page[slot];
}

/* Gives the durable state a buffer of its own; zeros stand for a new page's. */
static void page_split(struct group *g, unsigned slot, bool was_hole)
{
	struct page *p = g->page[slot];

	if (p->durable)
		return;
	p->durable = was_hole ? (uint8_t *)(uintptr_t)zeros
			      : memcpy(sim_alloc(SIM_PAGE), p->current, SIM_PAGE);
	g->split |= (uint64_t)1 << slot;
}

static void durable_put(struct page *p, const struct piece *pc)
{
	if (!pc->data && pc->len == SIM_PAGE) {
		if (p->durable != zeros)
			sim_free(p->durable);
		p->durable = (uint8_t *)(uintptr_t)zeros;
		return;
	}
	if (p->durable == zeros)
		p->durable = sim_zalloc(SIM_PAGE);
	piece_put(p->durable, pc);
}

/* The two states agree: the page needs one buffer, and none when it was punched. */
static void page_join(struct group *g, unsigned slot)
{
	struct page *p = g->page[slot];

	if (p->durable != zeros)
		sim_free(p->durable);
	p->durable = NULL;
	p->lost = false;
	g->split &= ~((uint64_t)1 << slot);
	if (!page_is_allocated(g, slot)) {
		sim_free(p);
		g->page[slot] = NULL;
	}
}

static void page_change(struct sim_image *img, const struct piece *pc, bool durable)
{
	struct group *g = group_make(img, pc->page / FANOUT);
	unsigned slot = pc->page % FANOUT;
	bool was_hole = !g->page[slot], frees = !pc->data && pc->len == SIM_PAGE;
	struct page *p;

	group_allocate(img, g, slot, frees ? false : pc->data || page_is_allocated(g, slot));
	if (was_hole && !pc->data)
		return;
	p = page_make(g, slot);
	if (!durable) {
		page_split(g, slot, was_hole);
		p->newest = img->landed;
	} else if (p->durable) {
		durable_put(p, pc);
	}
	piece_put(p->current, pc);
	if (frees && !p->durable)
		page_join(g, slot);
}

void sim_image_change(struct sim_image *img, const struct sim_change *c, bool durable)
{
	struct record *rec;
	struct piece pc;

	if (durable)
		overlapped_settle(img, c);
	img->landed++;
	for (uint64_t at = 0; piece_next(img, c, &at, &pc);)
		page_change(img, &pc, durable);
	if (durable)
		return;
	rec = sim_alloc(sizeof(*rec) + (c->data ? c->len : 0));
	rec->number = img->landed;
	rec->is_lost = false;
	rec->c = *c;
	if (c->data)
		rec->c.data = memcpy(rec->data, c->data, c->len);
	list_init(&rec->link);
	list_push(&img->unsynced, &rec->link);
}

/* What is durable at once may not be overtaken by an older record: records that overlap it, and all before them, become durable first. */
static void overlapped_settle(struct sim_image *img, const struct sim_change *c)
{
	uint64_t upto = 0;

	list_for_each (l, &img->unsynced) {
		struct record *rec = list_entry(l, struct record, link);

		if (rec->c.off < c->off + c->len && c->off < rec->c.off + rec->c.len)
			upto = rec->number;
	}
	sim_image_fsync(img, upto);
}

void sim_image_resize(struct sim_image *img, uint64_t size_bytes)
{
	check(size_bytes <= SIM_FILE_MAX);
	if (size_bytes < img->size_bytes) {
		struct sim_change cut = {.off = size_bytes, .len = img->size_bytes - size_bytes};

		sim_image_change(img, &cut, true);
	}
	img->size_bytes = size_bytes;
}

/* ---- what lasts ------------------------------------------------------------------------------------------------------- */

/* The record becomes durable: in pages that nothing younger touched, the two states agree now. */
static void record_settle(struct sim_image *img, struct record *rec)
{
	struct piece pc;

	for (uint64_t at = 0; piece_next(img, &rec->c, &at, &pc);) {
		struct group *g = group_find(img, pc.page / FANOUT);
		unsigned slot = pc.page % FANOUT;
		struct page *p = g ? g->page[slot] : NULL;

		if (!p || !p->durable)
			continue;
		if (p->newest <= rec->number && !p->lost)
			page_join(g, slot);
		else
			durable_put(p, &pc);
	}
	record_free(rec);
}

void sim_image_fsync(struct sim_image *img, uint64_t upto)
{
	list_for_each_safe (l, tmp, &img->unsynced) {
		struct record *rec = list_entry(l, struct record, link);

		if (rec->number > upto)
			break;
		if (!rec->is_lost)
			record_settle(img, rec);
	}
}

void sim_image_fsync_failed(struct sim_image *img, uint64_t upto, struct rand *rnd)
{
	struct piece pc;

	list_for_each (l, &img->unsynced) {
		struct record *rec = list_entry(l, struct record, link);

		if (rec->number > upto)
			break;
		if (rec->is_lost || rand_percent(rnd, 50))
			continue;
		rec->is_lost = true;
		for (uint64_t at = 0; piece_next(img, &rec->c, &at, &pc);) {
			struct group *g = group_find(img, pc.page / FANOUT);
			struct page *p = g ? g->page[pc.page % FANOUT] : NULL;

			if (p && p->durable)
				p->lost = true;
		}
	}
}

/* ---- power loss ------------------------------------------------------------------------------------------------------- */

static void durable_change(struct sim_image *img, const struct sim_change *c)
{
	struct piece pc;

	for (uint64_t at = 0; piece_next(img, c, &at, &pc);) {
		struct group *g = group_make(img, pc.page / FANOUT);
		unsigned slot = pc.page % FANOUT;
		bool was_hole = !g->page[slot];

		if (was_hole && !pc.data)
			continue;
		page_make(g, slot);
		page_split(g, slot, was_hole);
		durable_put(g->page[slot], &pc);
	}
}

/* Some sectors of the write: half of the time the first ones, as when a transfer is cut off, otherwise any. */
static void durable_tear(struct sim_image *img, const struct sim_change *c, struct rand *rnd)
{
	uint64_t first = c->off / SIM_SECTOR, end = div_up(c->off + c->len, SIM_SECTOR), bits = 0;
	bool in_order = rand_percent(rnd, 50);

	if (in_order)
		end = first + rand_below(rnd, end - first + 1);
	for (uint64_t s = first; s < end; s++) {
		uint64_t from = MAX(c->off, s * SIM_SECTOR);
		uint64_t to = MIN(c->off + c->len, (s + 1) * SIM_SECTOR);
		struct sim_change one = {.off = from,
					 .len = to - from,
					 .data = (const uint8_t *)c->data + (from - c->off)};

		if ((s - first) % 64 == 0)
			bits = rand_u64(rnd);
		if (in_order || bits >> ((s - first) % 64) & 1)
			durable_change(img, &one);
	}
}

/* Some pages of the punch: a filesystem frees the extents of a range in several transactions. */
static void durable_tear_punch(struct sim_image *img, const struct sim_change *c, struct rand *rnd)
{
	bool in_order = rand_percent(rnd, 50);
	uint64_t end = in_order ? rand_below(rnd, c->len + 1) : c->len;
	struct piece pc;

	for (uint64_t at = 0; piece_next(img, c, &at, &pc) && at <= end;) {
		struct sim_change one = {.off = pc.page * SIM_PAGE + pc.start, .len = pc.len};

		if (in_order || rand_percent(rnd, 50))
			durable_change(img, &one);
	}
}

static void change_survives(struct sim_image *img, const struct sim_change *c, struct rand *rnd)
{
	enum { KEPT, DROPPED, TORN, FATES } fate = (int)rand_below(rnd, FATES);

	if (fate == KEPT)
		durable_change(img, c);
	else if (fate == TORN && c->data)
		durable_tear(img, c, rnd);
	else if (fate == TORN)
		durable_tear_punch(img, c, rnd);
}

/* The durable state becomes the current one. Space once allocated stays so; a punch that was dropped takes its space again. */
static void page_revert(struct sim_image *img, struct group *g, unsigned slot)
{
	struct page *p = g->page[slot];

	if (p->durable == zeros) {
		sim_free(p);
		g->page[slot] = NULL;
		g->split &= ~((uint64_t)1 << slot);
		return;
	}
	memcpy(p->current, p->durable, SIM_PAGE);
	group_allocate(img, g, slot, true);
	page_join(g, slot);
}

void sim_image_power_loss(struct sim_image *img, struct rand *rnd,
			  const struct sim_change *in_flight, size_t n)
{
	list_for_each_safe (l, tmp, &img->unsynced) {
		struct record *rec = list_entry(l, struct record, link);

		if (!rec->is_lost)
			change_survives(img, &rec->c, rnd);
		record_free(rec);
	}
	for (size_t i = 0; i < n; i++)
		change_survives(img, &in_flight[i], rnd);
	for (struct group *g = group_next(img, 0); g; g = group_next(img, g->index + 1))
		for (unsigned slot = 0; g->split && slot < FANOUT; slot++)
			if (g->split & (uint64_t)1 << slot)
				page_revert(img, g, slot);
}
