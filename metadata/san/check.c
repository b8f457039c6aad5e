/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - is everything consistent? Online.
 *
 *   BEGIN (a write: what was executed before it is committed when it is answered)
 *     -> the map* -> intents* -> names* -> the other tables* -> compare -> END        (* reads the database, a piece at a time)
 * From BEGIN on each slot, layer and object that changes is marked and exempt: what the database says of it depends on when it is read. All others have
 * one state from BEGIN to END, so everything found about them is exact:
 *   - a slot is used by exactly one map entry, or freeing with exactly one intent, or free with neither;
 *   - an entry's device, slot, chunk and cgen exist; a layer has as many entries and slots as its usage record says;
 *   - the records of the resident objects are byte for byte what they would be written as. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "metadata/san/check.h"
#include "src/base/check.h"
#include "src/base/mem.h"

static enum exec check_exec(struct san *s, struct san_req *req);
static int bits_new(struct san *s);
static void check_begun(struct san_req *begin);
static void next_table(struct check_run *run);
static void check_map_page(struct check_run *run, const struct metastore_item *i);
static void check_intent(struct check_run *run, const struct metastore_item *i);
static void table_scanned(struct scan *sc);
static void layer_end(struct check_run *run);
static void layers_end(struct check_run *run);
static void compare_slots(struct check_run *run);
static void check_end(struct check_run *run, int status);

static const struct {
	enum schema_table table;
	void (*look)(struct check_run *run, const struct metastore_item *i);
} tables[] = {
    {SCHEMA_MAP, check_map_page},  {SCHEMA_INTENT, check_intent}, {SCHEMA_NAME, check_name},
    {SCHEMA_VOLUME, check_volume}, {SCHEMA_LAYER, check_layer},	  {SCHEMA_USAGE, check_usage},
    {SCHEMA_DEVICE, check_device}, {SCHEMA_SPACE, check_space},
};
enum { TABLES = sizeof(tables) / sizeof(tables[0]), SCAN_ITEMS = 64, SCAN_BYTES = 128 << 10 };

/* ---- begin ---------------------------------------------------------------------------------------------------------------- */

static enum exec nothing_exec(struct san *s, struct san_req *req)
{
	(void)s;
	(void)req;
	return EXEC_DONE;
}

static void check_cleanup(struct san_req *req)
{
	struct check_run *run = container_of(req, struct san_check, req)->priv;

	if (!run)
		return;
	priv_free(run->scan);
	priv_free(run);
}

/* The caller's request stays in flight all the time; a second one of our own goes through the batch. */
void san_check(struct san *s, struct san_check *r)
{
	struct check_run *run;

	r->priv = NULL;
	r->pages_n = r->pages_total = r->volumes_n = r->layers_n = r->entries_n = r->intents_n = 0;
	r->slots_n = r->exempt_n = r->problems_n = 0;
	san_op_begin(s, &r->req, nothing_exec, check_cleanup);
	if (s->check) {
		san_op_refuse(&r->req, -EBUSY);
		return;
	}
	run = r->priv = priv_alloc(s, sizeof(*run));
	if (!run) {
		san_op_refuse(&r->req, -ENOMEM);
		return;
	}
	*run = (struct check_run){.s = s, .r = r};
	run->scan = scan_new(s, SCAN_ITEMS, SCAN_BYTES);
	if (!run->scan) {
		san_op_refuse(&r->req, -ENOMEM);
		return;
	}
	s->check = r;
	run->begin.done = check_begun;
	san_op_begin(s, &run->begin, check_exec, NULL);
	san_op_write(&run->begin);
}

static enum exec check_exec(struct san *s, struct san_req *req)
{
	struct check_run *run = container_of(req, struct check_run, begin);
	struct layer *l;

	run->r->req.status = bits_new(s);
	/* what is in this batch, or in one that comes, has changed since */
	run->seq = s->txn.seq;
	run->layers_gone = s->layers_gone;
	check_records_begin(s);
	idtab_for_each (l, &s->layers) {
		l->touched = txn_has(s, &l->obj);
		l->counted = false;
		run->r->pages_total += l->n.entries_n / SCHEMA_MAP_CHUNKS + (l->n.entries_n > 0);
	}
	return EXEC_DONE;
}

static int bits_new(struct san *s)
{
	struct device *d;

	idtab_for_each (d, &s->devices) {
		size_t words = (size_t)d->pages_n * SCHEMA_SPACE_WORDS;

		d->touched = mem_zalloc_array(words, sizeof(uint64_t));
		d->seen_map = mem_zalloc_array(words, sizeof(uint64_t));
		d->seen_intent = mem_zalloc_array(words, sizeof(uint64_t));
		if (!d->touched || !d->seen_map || !d->seen_intent)
			return -ENOMEM;
		/* freed in this very batch: neither here nor there */
		for (size_t i = 0; i < words; i++)
			d->touched[i] = d->held[i];
	}
	return 0;
}

static void bits_free(struct san *s)
{
	struct device *d;

	idtab_for_each (d, &s->devices) {
		mem_free(d->touched);
		mem_free(d->seen_map);
		mem_free(d->seen_intent);
		d->touched = d->seen_map = d->seen_intent = NULL;
	}
}

void check_touched(struct san *s, struct device *d, uint32_t slot)
{
	(void)s;
	if (d->touched)
		bit_set(d->touched, slot);
}

static void check_begun(struct san_req *begin)
{
	struct check_run *run = container_of(begin, struct check_run, begin);

	if (begin->status)
		check_end(run, begin->status);
	else if (run->r->req.status)
		check_end(run, run->r->req.status);
	else
		next_table(run);
}

/* ---- tables --------------------------------------------------------------------------------------------------------------- */

static void next_table(struct check_run *run)
{
	struct schema_key prefix;

	if (run->table == TABLES) {
		compare_slots(run);
		check_records_end(run);
		check_end(run, 0);
		return;
	}
	prefix = schema_key_table(tables[run->table].table);
	scan_start(run->scan, &prefix, NULL, table_scanned, run);
}

static void table_scanned(struct scan *sc)
{
	struct check_run *run = sc->arg;

	if (sc->m.status || run->r->cancel || run->s->failed || run->s->closing) {
		check_end(run, sc->m.status ? sc->m.status : -ECANCELED);
		return;
	}
	for (uint32_t i = 0; i < sc->m.items_n; i++)
		tables[run->table].look(run, &sc->items[i]);
	if (run->status) {
		check_end(run, run->status);
		return;
	}
	if (run->r->progress && tables[run->table].table == SCHEMA_MAP)
		run->r->progress(run->r);
	if (sc->m.more) {
		scan_next(sc, table_scanned);
		return;
	}
	if (tables[run->table].table == SCHEMA_MAP)
		layers_end(run);
	run->table++;
	next_table(run);
}

void check_problem(struct check_run *run, const char *fmt, ...)
{
	struct san_check *r = run->r;
	va_list ap;

	if (r->problems_n < SAN_CHECK_PROBLEMS_MAX) {
		va_start(ap, fmt);
		vsnprintf(r->problems[r->problems_n], SAN_CHECK_TEXT_MAX, fmt, ap);
		va_end(ap);
	}
	r->problems_n++;
}

bool check_changed(const struct check_run *run, const struct txn_obj *o)
{
	return o->seq >= run->seq;
}

bool check_lenient(const struct check_run *run)
{
	return run->s->layers_gone != run->layers_gone;
}

/* ---- the map -------------------------------------------------------------------------------------------------------------- */

/* All pages of the layer were seen. */
static void layer_end(struct check_run *run)
{
	struct layer *l = idtab_get(&run->s->layers, run->layer);

	if (l && !l->touched &&
	    (l->n.entries_n != run->count.entries_n || l->n.chunks_n != run->count.chunks_n))
		check_problem(run,
			      "layer %u has %" PRIu64 " entries and %" PRIu64
			      " slots, its usage record says %" PRIu64 " and %" PRIu64,
			      run->layer, run->count.entries_n, run->count.chunks_n, l->n.entries_n,
			      l->n.chunks_n);
	if (l)
		l->counted = true;
	run->count = (struct schema_usage){0, 0};
}

static void layers_end(struct check_run *run)
{
	struct layer *l;

	layer_end(run);
	idtab_for_each (l, &run->s->layers)
		if (!l->counted && !l->touched && l->n.entries_n > 0)
			check_problem(run,
				      "layer %u has no map pages, its usage record says %" PRIu64
				      " entries",
				      l->id, l->n.entries_n);
}

static void check_replica(struct check_run *run, layer_id layer, uint32_t chunk,
			  const struct replica *rep)
{
	struct device *d = san_device_of(run->s, rep->dev);

	if (rep->cgen > run->s->cluster.cgen)
		check_problem(run, "layer %u chunk %u: cgen %" PRIu64 " was never given out", layer,
			      chunk, rep->cgen);
	if (!d || !d->touched) { /* one that came while we look is exempt; none goes */
		if (!d)
			check_problem(run, "layer %u chunk %u is on device %u, which is not there",
				      layer, chunk, rep->dev);
		return;
	}
	if (rep->slot >= d->slots_n) {
		check_problem(run, "layer %u chunk %u: device %u has no slot %u", layer, chunk,
			      rep->dev, rep->slot);
		return;
	}
	if (bit_get(d->seen_map, rep->slot) && !bit_get(d->touched, rep->slot))
		check_problem(run, "device %u slot %u is mapped twice, also by layer %u chunk %u",
			      rep->dev, rep->slot, layer, chunk);
	bit_set(d->seen_map, rep->slot);
}

static void check_entries(struct check_run *run, const struct layer *l, uint32_t no,
			  const struct map_body *body)
{
	struct map_entry e;

	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		uint32_t chunk = (no << SCHEMA_MAP_SHIFT) + i;

		map_body_get(body, i, &e);
		if (e.kind == MAP_UNMAPPED)
			continue;
		run->r->entries_n++;
		run->count.entries_n++;
		run->count.chunks_n += e.replicas_n > 0;
		if ((uint64_t)chunk << l->volume->v.chunk_shift >= l->size_bytes)
			check_problem(run, "layer %u chunk %u is past the end", l->id, chunk);
		for (uint32_t j = 0; j < e.replicas_n; j++)
			check_replica(run, l->id, chunk, &e.replicas[j]);
	}
}

static void check_map_page(struct check_run *run, const struct metastore_item *i)
{
	struct map_body body = {NULL, NULL, 0};
	const struct layer *l;
	layer_id layer;
	uint32_t no;
	int r;

	run->r->pages_n++;
	if (!schema_key_get_map(i->key, &layer, &no) || no > SCHEMA_MAP_PAGE_LAST) {
		check_problem(run, "a map page has an impossible key");
		return;
	}
	if (layer != run->layer)
		layer_end(run);
	run->layer = layer;
	l = idtab_get(&run->s->layers, layer);
	if (!l && !check_lenient(run)) {
		check_problem(run, "map page %u belongs to layer %u, which is not there", no, layer);
		return;
	}
	if (!l)
		return;
	r = schema_map_decode(i->key, i->value, &body);
	if (r == -ENOMEM) { /* says nothing about the page */
		run->status = r;
		return;
	}
	if (r) {
		check_problem(run, "map page %u of layer %u cannot be used: %s", no, layer,
			      err_text(r));
		return;
	}
	check_entries(run, l, no, &body);
	map_body_free(&body);
}

/* ---- slots ---------------------------------------------------------------------------------------------------------------- */

static void check_intent(struct check_run *run, const struct metastore_item *i)
{
	struct device *d;
	device_no dev;
	uint32_t slot;
	uint64_t cgen;

	run->r->intents_n++;
	if (!schema_key_get_dev_32(i->key, &dev, &slot) ||
	    schema_intent_decode(i->key, i->value, &cgen)) {
		check_problem(run, "a free intent is damaged");
		return;
	}
	d = san_device_of(run->s, dev);

	if (!d || slot >= d->slots_n)
		check_problem(run, "an intent names slot %u of device %u, which is not there", slot,
			      dev);
	else if (d->touched)
		bit_set(d->seen_intent, slot);
}

static void compare_slot(struct check_run *run, const struct device *d, uint32_t i)
{
	bool used = bit_get(d->used, i), freeing = bit_get(d->freeing, i);
	bool mapped = bit_get(d->seen_map, i), intent = bit_get(d->seen_intent, i);

	if (used != mapped)
		check_problem(run, "device %u slot %u is %s, but %s", d->no, i,
			      used ? "used" : "not used",
			      mapped ? "the map refers to it" : "no map entry refers to it");
	if (freeing != intent)
		check_problem(run, "device %u slot %u is %s, but %s", d->no, i,
			      freeing ? "freeing" : "not freeing",
			      intent ? "has an intent" : "has no intent");
}

static void compare_slots(struct check_run *run)
{
	struct device *d;

	idtab_for_each (d, &run->s->devices) {
		if (!d->touched)
			continue;
		run->r->slots_n += d->slots_n;
		for (uint32_t w = 0; w < d->pages_n * SCHEMA_SPACE_WORDS; w++) {
			uint64_t differ =
			    (d->used[w] ^ d->seen_map[w]) | (d->freeing[w] ^ d->seen_intent[w]);

			run->r->exempt_n += (uint64_t)__builtin_popcountll(d->touched[w]);
			for (differ &= ~d->touched[w]; differ; differ &= differ - 1)
				compare_slot(run, d, w * 64 + (uint32_t)__builtin_ctzll(differ));
		}
	}
}

/* ---- end ------------------------------------------------------------------------------------------------------------------ */

static void check_end(struct check_run *run, int status)
{
	struct san *s = run->s;

	bits_free(s);
	s->check = NULL;
	run->r->volumes_n = s->volumes.n;
	run->r->layers_n = s->layers.n;
	san_op_refuse(&run->r->req, status);
}
