/* SPDX-License-Identifier: Apache-2.0 */
/* lose.c - one step of giving a device up: it will never come back.
 *
 *   phase 0   walk over the whole map; entries on the device become lost (or lose that replica)
 *   phase 1   its intents are dropped
 *   phase 2   its record goes, the job is done
 * The device is marked lost, so nothing is allocated on it: one walk finds everything. Where it stands is kept in memory; after a restart it begins
 * again, over what is left. A step looks at map pages until it has found some that are concerned. */
#include "metadata/san/step.h"
#include "src/base/check.h"
#include "src/base/log.h"

enum { PHASE_MAP = 0, PHASE_INTENTS = 1, PHASE_RECORD = 2 };

static void lose_scan_map(struct job_step *st, struct device *d);
static void lose_map_scanned(struct scan *sc);
static int find_pages(struct job_step *st);
static void lose_scan_intents(struct job_step *st, struct device *d);
static void lose_intents_scanned(struct scan *sc);
static enum exec lose_exec(struct san *s, struct san_req *req);
static enum exec lose_entries(struct san *s, struct job_step *st, struct device *d, struct job *job);
static enum exec lose_intents(struct san *s, struct job_step *st, struct device *d, struct job *job);
static enum exec lose_record(struct san *s, struct job_step *st, struct device *d, struct job *job);

void san_device_lose_step(struct san *s, struct san_job_step *r)
{
	struct job_step *st = step_begin(s, r, SAN_JOB_DEVICE_LOSE, lose_exec);
	struct device *d = st ? san_device_of(s, (device_no)st->id) : NULL;

	if (!st)
		return;
	st->phase = d ? d->lose_phase : PHASE_RECORD;
	if (st->phase == PHASE_MAP)
		lose_scan_map(st, d);
	else if (st->phase == PHASE_INTENTS)
		lose_scan_intents(st, d);
	else
		san_op_write(&r->req);
}

/* ---- the map -------------------------------------------------------------------------------------------------------------- */

static void lose_scan_map(struct job_step *st, struct device *d)
{
	struct schema_key prefix = schema_key_table(SCHEMA_MAP);

	scan_start(st->scan, &prefix, d->lose_after.len ? &d->lose_after : NULL, lose_map_scanned,
		   st);
}

static void lose_map_scanned(struct scan *sc)
{
	struct job_step *st = sc->arg;
	struct device *d = san_device_of(st->s, (device_no)st->id);
	int r = sc->m.status ? sc->m.status : find_pages(st);

	if (r) {
		san_op_refuse(&st->r->req, r);
	} else if (!d) {
		san_op_write(&st->r->req);
	} else if (st->set->n > 0) {
		step_load(st);
	} else if (sc->m.more) {
		page_set_free(st->set);
		st->set = NULL;
		scan_next(sc, lose_map_scanned);
	} else {
		d->lose_phase = PHASE_INTENTS;
		page_set_free(st->set);
		st->set = NULL;
		lose_scan_intents(st, d);
	}
}

static bool names_device(const struct map_entry *e, device_no dev)
{
	for (uint32_t i = 0; i < e->replicas_n; i++)
		if (e->replicas[i].dev == dev)
			return true;
	return false;
}

static bool body_names_device(const struct map_body *b, device_no dev)
{
	struct map_entry e;

	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		map_body_get(b, i, &e);
		if (names_device(&e, dev))
			return true;
	}
	return false;
}

/* Of the pages just read, those that name the device. A damaged page is skipped: its entries cannot be told, and the check reports it. */
static int find_pages(struct job_step *st)
{
	const struct scan *sc = st->scan;

	st->set = page_set_new(st->s, sc->m.items_n);
	if (!st->set)
		return -ENOMEM;
	for (uint32_t i = 0; i < sc->m.items_n; i++) {
		struct map_body body = {NULL, NULL, 0};
		layer_id layer;
		uint32_t no;
		int r = schema_map_decode(sc->items[i].key, sc->items[i].value, &body);

		if (r == -ENOMEM)
			return r;
		if (r || !schema_key_get_map(sc->items[i].key, &layer, &no)) {
			log_error("a map page is damaged", "error=%s", err_name(r));
			continue;
		}
		if (body_names_device(&body, (device_no)st->id))
			page_set_add(st->set, layer, no);
		map_body_free(&body);
	}
	return 0;
}

/* ---- the intents ---------------------------------------------------------------------------------------------------------- */

static void lose_scan_intents(struct job_step *st, struct device *d)
{
	struct schema_key prefix = schema_key_dev(SCHEMA_INTENT, d->no);

	st->phase = PHASE_INTENTS;
	st->scan->m.items_max = STEP_CHANGES;
	scan_start(st->scan, &prefix, NULL, lose_intents_scanned, st);
}

static void lose_intents_scanned(struct scan *sc)
{
	struct job_step *st = sc->arg;

	if (sc->m.status)
		san_op_refuse(&st->r->req, sc->m.status);
	else
		san_op_write(&st->r->req);
}

/* ---- changing ------------------------------------------------------------------------------------------------------------- */

static enum exec lose_exec(struct san *s, struct san_req *req)
{
	struct job_step *st = step_of(req);
	struct job *job = step_job(s, req);
	struct device *d = san_device_of(s, (device_no)st->id);

	if (!job)
		return EXEC_DONE;
	if (!txn_fits(s, txn_page_cost(s, &job->obj), DEVICE_SMALLS))
		return EXEC_MORE;
	if (!d) { /* only a damaged database has a job without its device */
		job_finish(s, job, SAN_JOB_FAILED, -ENOENT, "the device is not there");
		st->r->finished = true;
		return EXEC_DONE;
	}
	if (st->phase == PHASE_MAP)
		return lose_entries(s, st, d, job);
	if (st->phase == PHASE_INTENTS && st->scan->m.items_n > 0)
		return lose_intents(s, st, d, job);
	return lose_record(s, st, d, job);
}

static void lose_replicas(struct map_entry *e, device_no dev)
{
	uint8_t n = 0;

	for (uint32_t i = 0; i < e->replicas_n; i++)
		if (e->replicas[i].dev != dev)
			e->replicas[n++] = e->replicas[i];
	e->replicas_n = n;
	if (n == 0)
		*e = (struct map_entry){.kind = MAP_LOST};
}

/* The part of an entry that is on the device, as an entry, for map_unmap_slots. */
static struct map_entry part_on(const struct map_entry *e, device_no dev)
{
	struct map_entry part = {.kind = e->kind};

	for (uint32_t i = 0; i < e->replicas_n; i++)
		if (e->replicas[i].dev == dev)
			part.replicas[part.replicas_n++] = e->replicas[i];
	return part;
}

/* Its changed entries, false when it is not through. */
static bool lose_in_page(struct san *s, struct device *d, struct layer *l, struct map_page *p,
			 struct job *job, uint32_t *left)
{
	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		struct map_entry e, part;

		map_body_get(&p->body, i, &e);
		part = part_on(&e, d->no);
		if (part.replicas_n == 0)
			continue;
		if (*left == 0 || !map_unmap_fits(s, p, l, &part))
			return false;
		(*left)--;
		map_unmap_slots(s, &part);
		lose_replicas(&e, d->no);
		map_set(s, l, p, i, &e);
		job->j.done_n++;
	}
	return true;
}

static enum exec lose_entries(struct san *s, struct job_step *st, struct device *d, struct job *job)
{
	uint32_t left = STEP_CHANGES;

	job->j.state = SAN_JOB_RUNNING;
	job_mark(s, job);
	for (uint32_t i = 0; i < st->set->n; i++) {
		const struct page_ref *ref = &st->set->refs[i];
		struct layer *l = idtab_get(&s->layers, ref->layer);

		/* a layer that went away meanwhile took its entries along */
		if (l && !lose_in_page(s, d, l, ref->page, job, &left))
			return EXEC_DONE; /* the next step finds the rest of it */
		d->lose_after = schema_key_map(ref->layer, ref->no);
	}
	return EXEC_DONE;
}

static enum exec lose_intents(struct san *s, struct job_step *st, struct device *d, struct job *job)
{
	uint64_t done_n = job->j.done_n;

	job->j.state = SAN_JOB_RUNNING;
	job_mark(s, job);
	for (uint32_t i = 0; i < st->scan->m.items_n; i++) {
		device_no dev;
		uint32_t slot;

		if (!schema_key_get_dev_32(st->scan->items[i].key, &dev, &slot) ||
		    slot >= d->slots_n)
			continue;
		if (!txn_fits(s, txn_page_cost(s, &space_page_of(d, slot)->obj), 1))
			return EXEC_DONE;
		frees_intent_delete(s, d, slot);
		if (bit_get(d->freeing, slot))
			space_freed(s, d, slot);
		job->j.done_n++;
	}
	if (job->j.done_n == done_n) {
		st->r->finished = true;
		job_finish(s, job, SAN_JOB_FAILED, -E_FORMAT,
			   "the device's free intents are damaged; run a check");
	}
	return EXEC_DONE;
}

static enum exec lose_record(struct san *s, struct job_step *st, struct device *d, struct job *job)
{
	if (d->used_n || d->freeing_n) {
		log_warn("a lost device still counts slots that nothing refers to",
			 "dev=%u used=%u freeing=%u", d->no, d->used_n, d->freeing_n);
		st->r->finished = true;
		job_finish(
		    s, job, SAN_JOB_FAILED, -E_FORMAT,
		    "slots of the device are in use but nothing refers to them; run a check");
		return EXEC_DONE;
	}
	if (!san_device_leave(s, d)) {
		/* a check or a pull looks at it, which takes its time; or it is part of this very batch */
		st->r->wait = d->pulling || d->touched;
		return EXEC_DONE;
	}
	step_finish(s, &st->r->req, job);
	return EXEC_DONE;
}
