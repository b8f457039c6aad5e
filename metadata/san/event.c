/* SPDX-License-Identifier: Apache-2.0 */
/* event.c - what an operator should know: a ring of records in the database. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"
#include "src/base/log.h"

enum { EVENT_SMALLS = 2 }; /* the new one, and the old one that goes */

/* Gives the event its number; there must be room. */
static void event_put(struct san *s, struct san_event *e)
{
	struct schema_key k;

	e->seq = ++s->cluster.event;
	s->cluster_dirty = true;
	k = schema_key_64(SCHEMA_EVENT, e->seq);
	txn_take_smalls(s, EVENT_SMALLS);
	txn_put(s, &k, schema_event_encode(e, &k, txn_value(s)));
	if (e->seq > SAN_EVENTS_KEPT) {
		k = schema_key_64(SCHEMA_EVENT, e->seq - SAN_EVENTS_KEPT);
		txn_delete(s, &k);
	}
}

static void event_fill(struct san *s, struct san_event *e, enum san_severity severity,
		       const char *code)
{
	*e = (struct san_event){.wall_ns = ioe_wall_ns(s->ioe), .severity = severity};
	snprintf(e->code, sizeof(e->code), "%s", code);
}

/* ---- nobody waits for it --------------------------------------------------------------------------------------------------- */

void san_event(struct san *s, enum san_severity severity, const char *code, const char *fmt, ...)
{
	struct event_queue *q = &s->events;
	struct san_event *e;
	va_list ap;

	if (q->n == SAN_EVENTS_WAITING_MAX || s->failed) {
		q->dropped++;
		log_limited(LOG_WARN, ioe_now_ns(s->ioe), "events were dropped",
			    "code=%s dropped=%" PRIu64, code, q->dropped);
		return;
	}
	e = &q->events[q->n++];
	event_fill(s, e, severity, code);
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	ioe_hook_arm(s->ioe, &s->hook);
}

void event_emit_waiting(struct san *s)
{
	struct event_queue *q = &s->events;
	uint32_t n = 0;

	while (n < q->n && txn_fits(s, 0, EVENT_SMALLS))
		event_put(s, &q->events[n++]);
	q->n -= n;
	memmove(q->events, q->events + n, q->n * sizeof(q->events[0]));
}

/* ---- somebody does --------------------------------------------------------------------------------------------------------- */

static enum exec add_exec(struct san *s, struct san_req *req)
{
	struct san_event_add *r = container_of(req, struct san_event_add, req);
	struct san_event e;

	if (!txn_fits(s, 0, EVENT_SMALLS))
		return EXEC_MORE;
	event_fill(s, &e, r->severity, r->code);
	snprintf(e.text, sizeof(e.text), "%s", r->text);
	event_put(s, &e);
	return EXEC_DONE;
}

void san_event_add(struct san *s, struct san_event_add *r)
{
	san_op_begin(s, &r->req, add_exec, NULL);
	if (r->severity < SAN_INFO || r->severity > SAN_ERROR)
		san_op_refuse(&r->req, -EINVAL);
	else
		san_op_write(&r->req);
}

/* ---- list ------------------------------------------------------------------------------------------------------------------ */

static enum exec list_exec(struct san *s, struct san_req *req)
{
	struct san_event_list *r = container_of(req, struct san_event_list, req);
	const struct scan *sc = r->priv;

	(void)s;
	for (uint32_t i = 0; i < sc->m.items_n; i++) {
		int ret = schema_event_decode(sc->items[i].key, sc->items[i].value,
					      &r->events[r->events_n]);

		if (ret)
			return san_op_fail(req, ret, "an event's record is damaged");
		r->events_n++;
	}
	r->more = sc->m.more;
	return EXEC_DONE;
}

static void list_cleanup(struct san_req *req)
{
	priv_free(container_of(req, struct san_event_list, req)->priv);
}

static void list_scanned(struct scan *sc)
{
	struct san_req *r = sc->arg;

	if (sc->m.status)
		san_op_refuse(r, sc->m.status);
	else
		san_op_read(r);
}

void san_event_list(struct san *s, struct san_event_list *r)
{
	struct schema_key prefix = schema_key_table(SCHEMA_EVENT);
	struct schema_key after = schema_key_64(SCHEMA_EVENT, r->after);

	r->priv = NULL;
	r->events_n = 0;
	r->more = false;
	san_op_begin(s, &r->req, list_exec, list_cleanup);
	if (r->events_max == 0 || r->events_max > SAN_LIST_MAX) {
		san_op_refuse(&r->req, -EINVAL);
		return;
	}
	r->priv =
	    scan_new(s, r->events_max, (size_t)r->events_max * (SCHEMA_SMALL_MAX + SCHEMA_KEY_MAX));
	if (r->priv)
		scan_start(r->priv, &prefix, &after, list_scanned, &r->req);
	else
		san_op_refuse(&r->req, -ENOMEM);
}

uint64_t san_event_last(const struct san *s)
{
	return s->cluster.event;
}
