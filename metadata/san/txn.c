/* SPDX-License-Identifier: Apache-2.0 */
/* txn.c - from requests to commits.
 *
 *   turn -> reads are executed and answered
 *        -> no batch in flight: writes are executed until none is waiting or the batch is full -> seal -> commit -> answer -> turn ...
 *
 * One batch is in flight at a time, so what a batch is guarded by (the cluster record as the batch before left it) and the number it will have
 * are known when it is made. A batch that fails, is refused, or gets another number than expected ends the service. */
#include <inttypes.h>
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/log.h"

static void run_refused(struct san *s);
static void run_reads(struct san *s);
static void collect(struct san *s);
static bool is_empty(const struct txn *t);
static void answer(struct san *s, uint64_t commit);
static void seal(struct san *s);
static void commit_done(struct metastore_commit *c);
static void applied(struct san *s);
static void tell_notes(struct san *s);
static void fail(struct san *s, int status);

void txn_init(struct san *s)
{
	struct txn *t = &s->txn;

	t->seq = 1;
	list_init(&t->objs);
	list_init(&t->ops);
}

/* ---- the turn ------------------------------------------------------------------------------------------------------------- */

void txn_turn(struct ioe_hook *h)
{
	struct san *s = container_of(h, struct san, hook);

	if (s->starting)
		san_tell_start(s);
	run_refused(s);
	run_reads(s);
	if (!s->txn.in_flight)
		collect(s);
}

static void run_refused(struct san *s)
{
	struct list batch, *l;

	list_init(&batch);
	list_splice(&batch, &s->refused);
	while ((l = list_pop(&batch))) {
		struct san_req *r = list_entry(l, struct san_req, link);

		r->commit = metastore_last_commit(s->store);
		san_op_end(r);
	}
}

static void run_reads(struct san *s)
{
	struct list batch, *l;

	list_init(&batch);
	list_splice(&batch, &s->reads);
	while ((l = list_pop(&batch))) {
		struct san_req *r = list_entry(l, struct san_req, link);
		struct op *op = san_op_of(r);

		r->commit = metastore_last_commit(s->store);
		if (s->failed)
			r->status = s->failed;
		else
			check(op->exec(s, r) == EXEC_DONE);
		if (op->wait && s->txn.in_flight)
			list_push(&s->txn.ops, &r->link);
		else
			san_op_end(r);
	}
}

/* ---- collecting ----------------------------------------------------------------------------------------------------------- */

static void reset(struct txn *t)
{
	check(list_empty(&t->objs) && list_empty(&t->ops));
	t->pages_n = t->smalls_n = t->executed_n = t->chunks_n = 0;
	t->freed_n = t->notes_n = t->changes_n = 0;
	t->names_deleted = false;
	t->arena_used = 0;
}

static void collect(struct san *s)
{
	struct txn *t = &s->txn;
	struct list *l;

	if (!s->failed)
		reset(t);
	while ((l = s->writes.next) != &s->writes) {
		struct san_req *r = list_entry(l, struct san_req, link);

		if (s->failed) {
			r->status = s->failed;
		} else if (san_op_of(r)->exec(s, r) == EXEC_MORE) {
			check(!is_empty(t)); /* every step fits into an empty batch */
			break;
		}
		t->executed_n++;
		list_del(l);
		list_push(&t->ops, l);
	}
	if (!s->failed)
		event_emit_waiting(s);
	if (s->failed || (is_empty(t) && !(s->cluster_dirty && t->executed_n)))
		answer(s, metastore_last_commit(s->store));
	else
		seal(s);
}

static bool is_empty(const struct txn *t)
{
	return list_empty(&t->objs) && t->changes_n == 0;
}

static void answer(struct san *s, uint64_t commit)
{
	struct list batch, *l;

	list_init(&batch);
	list_splice(&batch, &s->txn.ops);
	while ((l = list_pop(&batch))) {
		struct san_req *r = list_entry(l, struct san_req, link);

		r->commit = commit;
		san_op_end(r);
	}
}

bool txn_fits(const struct san *s, uint32_t pages, uint32_t smalls)
{
	return s->txn.pages_n + pages <= TXN_PAGES_MAX && s->txn.smalls_n + smalls <= TXN_SMALL_MAX;
}

bool txn_has(const struct san *s, const struct txn_obj *o)
{
	return o->seq == s->txn.seq;
}

void txn_mark(struct san *s, struct txn_obj *o)
{
	check(!s->txn.in_flight);
	if (txn_has(s, o))
		return;
	check(txn_fits(s, o->type->is_page, o->type->smalls));
	s->txn.pages_n += o->type->is_page;
	s->txn.smalls_n += o->type->smalls;
	o->seq = s->txn.seq;
	list_push(&s->txn.objs, &o->link);
}

void txn_take_smalls(struct san *s, uint32_t n)
{
	check(!s->txn.in_flight && txn_fits(s, 0, n));
	s->txn.smalls_n += n;
}

void txn_note(struct san *s, enum note what, uint32_t id)
{
	struct txn *t = &s->txn;

	for (uint32_t i = 0; i < t->notes_n; i++)
		if (t->notes[i].what == what && t->notes[i].id == id)
			return; /* so there are no more of them than objects in the batch */
	check(t->notes_n < METASTORE_BATCH_MAX);
	t->notes[t->notes_n].what = what;
	t->notes[t->notes_n++].id = id;
}

uint64_t txn_commit_no(const struct san *s)
{
	return metastore_last_commit(s->store) + 1;
}

/* ---- the batch ------------------------------------------------------------------------------------------------------------ */

uint8_t *txn_value(struct san *s)
{
	return s->txn.arena + s->txn.arena_used;
}

static struct metastore_change *change_new(struct san *s)
{
	check(s->txn.changes_n < METASTORE_BATCH_MAX);
	return &s->txn.changes[s->txn.changes_n++];
}

static struct metastore_change *change_at(struct san *s, const struct schema_key *k)
{
	struct schema_key *key = &s->txn.keys[s->txn.changes_n];
	struct metastore_change *c = change_new(s);

	*key = *k;
	c->key = schema_key_bytes(key);
	return c;
}

void txn_put(struct san *s, const struct schema_key *k, size_t len)
{
	struct txn *t = &s->txn;

	check(t->arena_used + len <= TXN_ARENA_LEN);
	change_at(s, k)->value = (struct metastore_bytes){t->arena + t->arena_used, len};
	t->arena_used += len;
}

void txn_delete(struct san *s, const struct schema_key *k)
{
	change_at(s, k)->value = (struct metastore_bytes){NULL, 0};
}

void txn_change(struct san *s, const struct metastore_change *c)
{
	*change_new(s) = *c;
}

static void seal(struct san *s)
{
	struct txn *t = &s->txn;

	list_for_each (l, &t->objs) {
		struct txn_obj *o = list_entry(l, struct txn_obj, link);

		o->type->emit(s, o);
	}
	t->cluster_key = cluster_key();
	t->cluster_len = schema_cluster_encode(&s->cluster, &t->cluster_key, t->cluster);
	t->guard = (struct metastore_guard){schema_key_bytes(&t->cluster_key), {NULL, 0}};
	if (s->cluster_now_len)
		t->guard.expected = (struct metastore_bytes){s->cluster_now, s->cluster_now_len};
	if (s->cluster_dirty || s->cluster_now_len == 0)
		*change_new(s) =
		    (struct metastore_change){t->guard.key, {t->cluster, t->cluster_len}};
	s->cluster_dirty = false;

	t->in_flight = true;
	t->commit_no = txn_commit_no(s);
	t->commit = (struct metastore_commit){
	    .guards = &t->guard,
	    .guards_n = 1,
	    .changes = t->changes,
	    .changes_n = t->changes_n,
	    .done = commit_done,
	};
	metastore_commit(s->store, &t->commit);
}

static void commit_done(struct metastore_commit *c)
{
	struct san *s = container_of(c, struct san, txn.commit);
	struct txn *t = &s->txn;

	if (c->status ||
	    c->commit != t->commit_no) { /* a foreign commit in between is a second writer */
		fail(s, c->status == 0 || c->status == -E_GUARD ? -E_GUARD : -EIO);
		return;
	}
	applied(s);
	t->in_flight = false;
	ioe_hook_arm(s->ioe, &s->hook);
	answer(s, c->commit);
	tell_notes(s);
	if (s->tell)
		frees_tell(s);
}

static void applied(struct san *s)
{
	struct txn *t = &s->txn;
	struct list *l;

	memcpy(s->cluster_now, t->cluster, t->cluster_len);
	s->cluster_now_len = t->cluster_len;
	s->stats.commits++;
	s->stats.commit_pages += t->pages_n;
	s->stats.commit_bytes += t->arena_used;
	s->stats.alloc_chunks += t->chunks_n;
	s->stats.alloc_commits += t->chunks_n > 0;
	space_committed(s);
	frees_committed(s);
	while ((l = list_pop(&t->objs))) {
		struct txn_obj *o = list_entry(l, struct txn_obj, link);

		if (o->type->committed)
			o->type->committed(s, o);
	}
	t->seq++;
}

static void tell_notes(struct san *s)
{
	struct txn *t = &s->txn;

	for (uint32_t i = 0; i < t->notes_n && s->started; i++) {
		uint32_t id = t->notes[i].id;

		if (t->notes[i].what == NOTE_JOB) {
			if (s->cb.on_job)
				s->cb.on_job(s->cb.arg, id);
		} else if (s->cb.on_layer) {
			s->cb.on_layer(s->cb.arg, id, t->commit.commit,
				       t->notes[i].what == NOTE_LAYER_GONE);
		}
	}
	t->notes_n = 0;
}

/* Whether the batch took effect is not known, so neither is what the resident state should be: nothing is answered from it any more. The batch's
 * objects stay marked, for san_free. */
static void fail(struct san *s, int status)
{
	struct list batch, *l;

	log_error("the SAN is out of service: its database did not accept a commit", "error=%s",
		  err_name(status));
	s->failed = status;
	s->txn.in_flight = false;
	list_init(&batch);
	list_splice(&batch, &s->txn.ops);
	while ((l = list_pop(&batch))) {
		struct san_req *r = list_entry(l, struct san_req, link);

		r->status = status;
		san_op_end(r);
	}
	ioe_hook_arm(s->ioe, &s->hook);
	if (s->cb.on_failed)
		s->cb.on_failed(s->cb.arg, status);
}
