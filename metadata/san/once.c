/* SPDX-License-Identifier: Apache-2.0 */
/* once.c - what requests with a key made: a ring of records in the database, resident as well.
 *
 * Numbers begin anew in a database that has none left; nothing refers to them. */
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"

static struct schema_once *place_of(struct san *s, uint64_t seq)
{
	return &s->once[seq % SAN_ONCE_KEPT];
}

bool once_ok(const struct san_once *o)
{
	return !o->key || (o->key[0] && strlen(o->key) <= SAN_ONCE_KEY_MAX);
}

void once_put(struct san *s, const struct san_once *o, enum san_once_what what, uint32_t id)
{
	struct schema_once *rec = place_of(s, s->once_last + 1);
	struct schema_key k;

	if (!o->key)
		return;
	txn_take_smalls(s, ONCE_SMALLS);
	if (rec->seq) {
		k = schema_key_64(SCHEMA_ONCE, rec->seq);
		txn_delete(s, &k);
	}
	*rec = (struct schema_once){
	    .seq = ++s->once_last,
	    .request = o->request,
	    .wall_ns = ioe_wall_ns(s->ioe),
	    .what = what,
	    .id = id,
	};
	memcpy(rec->key, o->key, strlen(o->key));
	k = schema_key_64(SCHEMA_ONCE, rec->seq);
	txn_put(s, &k, schema_once_encode(rec, &k, txn_value(s)));
}

/* They come in order, so of two in one place the later one stays. */
int once_load(struct san *s, const struct schema_once *rec)
{
	*place_of(s, rec->seq) = *rec;
	s->once_last = rec->seq;
	return 0;
}

/* ---- get ------------------------------------------------------------------------------------------------------------------- */

/* The clock may have been set back since: what is from the future is new. */
static bool is_old(const struct schema_once *rec, uint64_t now_ns)
{
	return now_ns > rec->wall_ns && now_ns - rec->wall_ns > SAN_ONCE_KEPT_NS;
}

static enum exec get_exec(struct san *s, struct san_req *req)
{
	struct san_once_get *r = container_of(req, struct san_once_get, req);
	uint64_t now_ns = ioe_wall_ns(s->ioe);

	san_op_of(req)->wait = true;
	for (uint64_t i = 0; i < SAN_ONCE_KEPT && i < s->once_last; i++) { /* the last one first */
		const struct schema_once *rec = place_of(s, s->once_last - i);

		if (rec->seq != s->once_last - i || strcmp(rec->key, r->key) != 0)
			continue;
		if (is_old(rec, now_ns))
			break;
		r->request = rec->request;
		r->what = rec->what;
		r->id = rec->id;
		return EXEC_DONE;
	}
	return san_op_fail(req, -ENOENT, "no request with this key is known");
}

void san_once_get(struct san *s, struct san_once_get *r)
{
	san_op_begin(s, &r->req, get_exec, NULL);
	san_op_read(&r->req);
}
