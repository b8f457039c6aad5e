/* SPDX-License-Identifier: Apache-2.0 */
/* delete.c - one step of deleting a volume.
 *
 *   SCAN* the next map pages of its head -> LOAD* them -> unmap some entries, with intents -> DONE
 *                                        -> none left: the headers go, the job is done -> DONE
 * The volume is in state deleting, so nobody else changes these pages. */
#include "metadata/san/step.h"
#include "src/base/check.h"
#include "src/base/log.h"

static void delete_scanned(struct scan *sc);
static enum exec delete_exec(struct san *s, struct san_req *req);
static enum exec purge(struct san *s, struct job_step *st, struct volume *vol, struct job *job);
static bool purge_page(struct san *s, struct layer *l, struct map_page *p, struct job *job,
		       uint32_t *left);
static enum exec forget(struct san *s, struct job_step *st, struct volume *vol, struct job *job);

void san_volume_delete_step(struct san *s, struct san_job_step *r)
{
	struct job_step *st = step_begin(s, r, SAN_JOB_VOLUME_DELETE, delete_exec);
	struct volume *vol = st ? volume_by_id(s, st->id) : NULL;
	struct schema_key prefix, after;

	if (!st)
		return;
	if (!vol) {
		san_op_write(&r->req);
		return;
	}
	prefix = schema_key_32(SCHEMA_MAP, vol->head->id);
	after = schema_key_map(vol->head->id, vol->purge_page - 1);
	scan_start(st->scan, &prefix, vol->purge_page ? &after : NULL, delete_scanned, st);
}

static void delete_scanned(struct scan *sc)
{
	struct job_step *st = sc->arg;
	layer_id layer;
	uint32_t no;

	if (sc->m.status) {
		san_op_refuse(&st->r->req, sc->m.status);
		return;
	}
	if (sc->m.items_n == 0) {
		san_op_write(&st->r->req);
		return;
	}
	st->set = page_set_new(st->s, sc->m.items_n);
	if (!st->set) {
		san_op_refuse(&st->r->req, -ENOMEM);
		return;
	}
	for (uint32_t i = 0; i < sc->m.items_n; i++)
		if (schema_key_get_map(sc->items[i].key, &layer, &no))
			page_set_add(st->set, layer, no);
	if (st->set->n == 0) /* keys that cannot be read: it would find them for ever */
		san_op_refuse(&st->r->req, -E_FORMAT);
	else
		step_load(st);
}

static enum exec delete_exec(struct san *s, struct san_req *req)
{
	struct job_step *st = step_of(req);
	struct job *job = step_job(s, req);
	struct volume *vol = volume_by_id(s, st->id);

	if (!job)
		return EXEC_DONE;
	if (!txn_fits(s, txn_page_cost(s, &job->obj), VOLUME_SMALLS + LAYER_SMALLS))
		return EXEC_MORE;
	if (!vol) { /* only a damaged database has a job without a volume */
		job_finish(s, job, SAN_JOB_FAILED, -ENOENT, "the volume is not there");
		st->r->finished = true;
		return EXEC_DONE;
	}
	return st->set ? purge(s, st, vol, job) : forget(s, st, vol, job);
}

static enum exec purge(struct san *s, struct job_step *st, struct volume *vol, struct job *job)
{
	uint32_t left = STEP_CHANGES;

	job->j.state = SAN_JOB_RUNNING;
	job_mark(s, job);
	for (uint32_t i = 0; i < st->set->n; i++) {
		if (!purge_page(s, vol->head, st->set->refs[i].page, job, &left))
			break;
		vol->purge_page = st->set->refs[i].no + 1;
	}
	return EXEC_DONE;
}

/* True: the page is empty now. */
static bool purge_page(struct san *s, struct layer *l, struct map_page *p, struct job *job,
		       uint32_t *left)
{
	static const struct map_entry unmapped = {.kind = MAP_UNMAPPED};

	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		struct map_entry e;

		map_body_get(&p->body, i, &e);
		if (e.kind == MAP_UNMAPPED)
			continue;
		if (*left == 0 || !map_unmap_fits(s, p, l, &e))
			return false;
		(*left)--;
		map_unmap_slots(s, &e);
		map_set(s, l, p, i, &unmapped);
		job->j.done_n += e.replicas_n > 0;
	}
	return true;
}

static enum exec forget(struct san *s, struct job_step *st, struct volume *vol, struct job *job)
{
	/* what was unmapped in earlier steps is committed, or the scan would have found its page */
	if (vol->head->n.entries_n != 0)
		log_warn("the usage record of a deleted layer was wrong", "layer=%u entries=%llu",
			 vol->head->id, (unsigned long long)vol->head->n.entries_n);
	volume_forget(s, vol);
	step_finish(s, &st->r->req, job);
	return EXEC_DONE;
}
