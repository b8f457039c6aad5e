/* SPDX-License-Identifier: Apache-2.0 */
/* frees.c - the second half of a free: intents are handed to whoever talks to the device, and dropped when the device has freed the slot.
 *
 *   intent in the database --pull--> out --done--> done --commit--> gone        (forget: out -> intent in the database)
 *
 * What is out is remembered with its cgen, so that only an answer to what was asked counts. A pull reads the database while other things go on, and
 * what it read may be older than a done: therefore what is done stays in the table until its commit and until no pull is reading; what is in the table
 * is not handed out. */
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum free_state { FREE_OUT, FREE_DONE, FREE_COMMITTED };

struct free_out {
	struct hnode node; /* key: slot */
	uint64_t cgen;
	enum free_state state;
};

static void pull_scan(struct san_frees_pull *r, struct device *d);
static void pull_scanned(struct scan *sc);
static void pull_take(struct san_frees_pull *r, struct device *d, const struct metastore_item *item);
static void pull_end(struct san_frees_pull *r, struct device *d, int status);

/* ---- intents --------------------------------------------------------------------------------------------------------------- */

void frees_intent_put(struct san *s, struct device *d, uint32_t slot, uint64_t cgen)
{
	struct schema_key k = schema_key_dev_32(SCHEMA_INTENT, d->no, slot);

	txn_take_smalls(s, 1);
	txn_put(s, &k, schema_intent_encode(cgen, &k, txn_value(s)));
	s->tell = true;
}

void frees_intent_delete(struct san *s, struct device *d, uint32_t slot)
{
	struct schema_key k = schema_key_dev_32(SCHEMA_INTENT, d->no, slot);

	txn_take_smalls(s, 1);
	txn_delete(s, &k);
}

/* ---- telling --------------------------------------------------------------------------------------------------------------- */

void frees_tell(struct san *s)
{
	struct device *d;

	if (!s->started || s->starting)
		return;
	s->tell = false;
	for (uint32_t no = 0; (d = idtab_above(&s->devices, no)); no = d->no) {
		if (d->told || d->lose_job || d->freeing_n <= d->out_n)
			continue;
		d->told = true;
		if (s->cb.on_frees)
			s->cb.on_frees(s->cb.arg, d->no);
	}
}

/* ---- pull ------------------------------------------------------------------------------------------------------------------ */

static enum exec pull_exec(struct san *s, struct san_req *req)
{
	(void)s;
	(void)req;
	return EXEC_DONE;
}

static void pull_cleanup(struct san_req *req)
{
	priv_free(container_of(req, struct san_frees_pull, req)->priv);
}

void san_frees_pull(struct san *s, struct san_frees_pull *r)
{
	struct device *d = san_device_of(s, r->dev);
	uint32_t room =
	    d ? SAN_FREES_MAX - (uint32_t)MIN(d->out.count, (uint64_t)SAN_FREES_MAX) : 0;

	r->priv = NULL;
	r->frees_n = 0;
	san_op_begin(s, &r->req, pull_exec, pull_cleanup);
	if (!d) {
		san_op_refuse(&r->req, -ENOENT);
		return;
	}
	if (d->pulling) {
		san_op_refuse(&r->req, -EBUSY);
		return;
	}
	d->told = false;
	room = MIN(room, r->frees_max);
	if (room == 0 || d->lose_job || s->closing) {
		san_op_read(&r->req);
		return;
	}
	r->priv = scan_new(s, room, (size_t)room * (SCHEMA_KEY_MAX + 16));
	if (!r->priv) {
		san_op_refuse(&r->req, -ENOMEM);
		return;
	}
	d->pulling = true;
	r->last_round = d->pull_after == UINT32_MAX;
	pull_scan(r, d);
}

static void pull_scan(struct san_frees_pull *r, struct device *d)
{
	struct schema_key prefix = schema_key_dev(SCHEMA_INTENT, d->no);
	struct schema_key after = schema_key_dev_32(SCHEMA_INTENT, d->no, d->pull_after);

	scan_start(r->priv, &prefix, d->pull_after == UINT32_MAX ? NULL : &after, pull_scanned, r);
}

/* Goes on from where the last pull ended, and once round when there was nothing behind. Everything may be out already, or unreadable: it is the
 * keys that were seen that count, not what was taken. */
static void pull_scanned(struct scan *sc)
{
	struct san_frees_pull *r = sc->arg;
	struct device *d = san_device_of(sc->s, r->dev); /* stays while d->pulling */

	for (uint32_t i = 0; sc->m.status == 0 && i < sc->m.items_n; i++)
		pull_take(r, d, &sc->items[i]);
	if (sc->m.status) {
		pull_end(r, d, sc->m.status);
		return;
	}
	if (!sc->m.more)
		d->pull_after = UINT32_MAX;
	if (r->frees_n > 0 || (r->last_round && !sc->m.more)) {
		pull_end(r, d, 0);
	} else if (sc->m.more) {
		scan_next(sc, pull_scanned);
	} else {
		r->last_round = true;
		pull_scan(r, d);
	}
}

static void pull_take(struct san_frees_pull *r, struct device *d, const struct metastore_item *item)
{
	struct free_out *out;
	device_no dev;
	uint32_t slot;
	uint64_t cgen;

	if (!schema_key_get_dev_32(item->key, &dev, &slot) ||
	    schema_intent_decode(item->key, item->value, &cgen)) {
		log_error("a free intent is damaged", "dev=%u", d->no);
		return;
	}
	d->pull_after = slot;
	if (slot >= d->slots_n || !bit_get(d->freeing, slot) || htab_find(&d->out, slot))
		return;
	out = mem_alloc(sizeof(*out));
	if (!out)
		return; /* a later pull finds it again */
	out->cgen = cgen;
	out->state = FREE_OUT;
	htab_add(&d->out, &out->node, slot);
	d->out_n++;
	r->frees[r->frees_n++] = (struct san_free){.slot = slot, .cgen = cgen};
}

static void drop_committed(struct device *d)
{
	htab_for_each (node, &d->out) {
		struct free_out *out = container_of(node, struct free_out, node);

		if (out->state != FREE_COMMITTED)
			continue;
		htab_del(&d->out, node);
		mem_free(out);
	}
}

static void pull_end(struct san_frees_pull *r, struct device *d, int status)
{
	d->pulling = false;
	drop_committed(d);
	if (status)
		san_op_refuse(&r->req, status);
	else
		san_op_read(&r->req);
}

/* ---- done ------------------------------------------------------------------------------------------------------------------ */

static enum exec done_exec(struct san *s, struct san_req *req)
{
	struct san_frees_done *r = container_of(req, struct san_frees_done, req);
	struct device *d = san_device_of(s, r->dev);

	if (!d)
		return san_op_fail(req, -ENOENT, "there is no device %u", r->dev);
	for (; r->at < r->n; r->at++) {
		const struct san_free *f = &r->frees[r->at];
		struct hnode *node = htab_find(&d->out, f->slot);
		struct free_out *out = node ? container_of(node, struct free_out, node) : NULL;

		if (!out || out->state != FREE_OUT || out->cgen != f->cgen || d->lose_job)
			continue;
		if (!txn_fits(s, txn_page_cost(s, &space_page_of(d, f->slot)->obj), 1))
			return EXEC_MORE;
		out->state = FREE_DONE;
		d->out_n--;
		frees_intent_delete(s, d, f->slot);
		space_freed(s, d, f->slot);
		s->tell = true;
	}
	return EXEC_DONE;
}

void san_frees_done(struct san *s, struct san_frees_done *r)
{
	r->at = 0;
	san_op_begin(s, &r->req, done_exec, NULL);
	if (r->n > SAN_FREES_MAX)
		san_op_refuse(&r->req, -EINVAL);
	else
		san_op_write(&r->req);
}

void frees_committed(struct san *s)
{
	for (uint32_t i = 0; i < s->txn.freed_n; i++) {
		struct device *d = s->txn.freed[i].dev;
		struct hnode *node = htab_find(&d->out, s->txn.freed[i].slot);

		if (!node) /* freed without having been handed out: of a lost device */
			continue;
		if (d->pulling) {
			container_of(node, struct free_out, node)->state = FREE_COMMITTED;
			continue;
		}
		htab_del(&d->out, node);
		mem_free(container_of(node, struct free_out, node));
	}
}

/* ---- forget ---------------------------------------------------------------------------------------------------------------- */

void san_frees_forget(struct san *s, device_no dev)
{
	struct device *d = san_device_of(s, dev);

	if (!d)
		return;
	htab_for_each (node, &d->out) {
		struct free_out *out = container_of(node, struct free_out, node);

		if (out->state != FREE_OUT)
			continue;
		d->out_n--;
		htab_del(&d->out, node);
		mem_free(out);
	}
	d->told = false;
	d->pull_after = UINT32_MAX;
}

void frees_free(struct device *d)
{
	if (!d->out.buckets)
		return;
	htab_for_each (node, &d->out) {
		struct free_out *out = container_of(node, struct free_out, node);

		htab_del(&d->out, node);
		mem_free(out);
	}
	htab_free(&d->out);
}
