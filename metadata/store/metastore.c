/* SPDX-License-Identifier: Apache-2.0 */
/* metastore.c - the public side of the metastore: refusing what is malformed on any backend, counting, two-phase close. */
#include "metadata/store/metastore.h"

#include <stdio.h>
#include <string.h>

#include "metadata/store/backend.h"
#include "src/base/check.h"
#include "src/base/math.h"

static void commit_refuse(struct metastore *s, struct metastore_commit *r, int status);
static void refused_run(struct ioe_req *req);
static void ended(struct metastore *s);
static void close_run(struct ioe_req *req);

/* ---- what is malformed --------------------------------------------------------------------------------------------------- */

static bool key_ok(struct metastore_bytes key)
{
	return key.len > 0 && key.len <= METASTORE_KEY_MAX &&
	       *(const uint8_t *)key.data != METASTORE_KEY_OWN;
}

static bool commit_ok(const struct metastore_commit *r)
{
	if (r->guards_n > METASTORE_BATCH_MAX || r->changes_n > METASTORE_BATCH_MAX)
		return false;
	for (uint32_t i = 0; i < r->guards_n; i++)
		if (!key_ok(r->guards[i].key) || r->guards[i].expected.len > METASTORE_VALUE_MAX)
			return false;
	for (uint32_t i = 0; i < r->changes_n; i++)
		if (!key_ok(r->changes[i].key) || r->changes[i].value.len > METASTORE_VALUE_MAX)
			return false;
	return true;
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

static void get_refused(struct ioe_req *req)
{
	struct metastore_get *r = container_of(req, struct metastore_get, work);

	metastore_get_end(r, r->store->closing ? -ESHUTDOWN : -EINVAL);
}

void metastore_get(struct metastore *s, struct metastore_get *r)
{
	r->store = s;
	r->value_len = 0;
	s->in_flight++;
	if (s->closing || !key_ok(r->key))
		ioe_nop(s->ioe, &r->work, get_refused);
	else
		s->ops->get(s, r);
}

static void scan_refused(struct ioe_req *req)
{
	struct metastore_scan *r = container_of(req, struct metastore_scan, work);

	metastore_scan_end(r, r->store->closing ? -ESHUTDOWN : -EINVAL);
}

void metastore_scan(struct metastore *s, struct metastore_scan *r)
{
	r->store = s;
	r->items_n = 0;
	r->more = false;
	s->in_flight++;
	if (s->closing || r->prefix.len > METASTORE_KEY_MAX || r->after.len > METASTORE_KEY_MAX)
		ioe_nop(s->ioe, &r->work, scan_refused);
	else
		s->ops->scan(s, r);
}

static void backup_refused(struct ioe_req *req)
{
	struct metastore_backup *r = container_of(req, struct metastore_backup, work);

	r->status = r->store->closing ? -ESHUTDOWN : -EBUSY;
	r->done(r);
	ended(r->store);
}

void metastore_backup(struct metastore *s, struct metastore_backup *r)
{
	r->store = s;
	r->commit = 0;
	r->errmsg[0] = '\0';
	s->in_flight++;
	if (s->closing || s->backing_up) {
		if (!s->closing)
			snprintf(r->errmsg, ERRMSG_LEN, "another backup is being made");
		ioe_nop(s->ioe, &r->work, backup_refused);
		return;
	}
	s->backing_up = true;
	s->ops->backup(s, r);
}

void metastore_commit(struct metastore *s, struct metastore_commit *r)
{
	r->store = s;
	r->status = 0;
	r->commit = 0;
	s->in_flight++;
	if (s->closing || !commit_ok(r))
		commit_refuse(s, r, s->closing ? -ESHUTDOWN : -EINVAL);
	else
		s->ops->commit(s, r);
}

static void commit_refuse(struct metastore *s, struct metastore_commit *r, int status)
{
	r->status = status;
	list_push(&s->refused, &r->link);
	if (!s->refusing) {
		s->refusing = true;
		ioe_nop(s->ioe, &s->refuse_req, refused_run);
	}
}

static void refused_run(struct ioe_req *req)
{
	struct metastore *s = container_of(req, struct metastore, refuse_req);
	struct list batch, *l;

	list_init(&batch);
	list_splice(&batch, &s->refused);
	s->refusing = false;
	while ((l = list_pop(&batch)))
		metastore_commit_end(list_entry(l, struct metastore_commit, link));
}

uint64_t metastore_last_commit(struct metastore *s)
{
	return s->last_commit;
}

/* ---- ends ---------------------------------------------------------------------------------------------------------------- */

void metastore_get_end(struct metastore_get *r, int status)
{
	struct metastore *s = r->store;

	r->status = status;
	r->done(r);
	ended(s);
}

void metastore_scan_end(struct metastore_scan *r, int status)
{
	struct metastore *s = r->store;

	r->status = status;
	r->done(r);
	ended(s);
}

void metastore_backup_end(struct metastore_backup *r, int status)
{
	struct metastore *s = r->store;

	s->backing_up = false;
	r->status = status;
	r->done(r);
	ended(s);
}

void metastore_commit_end(struct metastore_commit *r)
{
	struct metastore *s = r->store;

	if (r->status == 0) {
		check(r->commit > s->last_commit);
		s->last_commit = r->commit;
	}
	r->done(r);
	ended(s);
}

/* A request counts until its callback has returned, so a close from inside the callback waits for it. */
static void ended(struct metastore *s)
{
	check(s->in_flight > 0);
	if (--s->in_flight == 0 && s->closing)
		ioe_nop(s->ioe, &s->close_req, close_run);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

void metastore_init(struct metastore *s, const struct metastore_ops *ops, struct ioe *e)
{
	*s = (struct metastore){.ops = ops, .ioe = e};
	list_init(&s->refused);
}

void metastore_close(struct metastore *s, void (*done)(void *arg), void *arg)
{
	check(!s->closing);
	s->closing = true;
	s->closed = done;
	s->closed_arg = arg;
	if (s->in_flight == 0)
		ioe_nop(s->ioe, &s->close_req, close_run);
}

static void close_run(struct ioe_req *req)
{
	struct metastore *s = container_of(req, struct metastore, close_req);
	void (*closed)(void *arg) = s->closed;
	void *arg = s->closed_arg;

	/* a request that came after the close was accepted only to be refused: its end comes back here */
	if (s->in_flight > 0)
		return;
	s->ops->free(s);
	closed(arg);
}

void metastore_abandon(struct metastore *s)
{
	s->ops->free(s);
}

/* ---- bytes --------------------------------------------------------------------------------------------------------------- */

int metastore_bytes_cmp(struct metastore_bytes a, struct metastore_bytes b)
{
	size_t n = MIN(a.len, b.len);
	int r = n ? memcmp(a.data, b.data, n) : 0;

	return r ? r : (a.len > b.len) - (a.len < b.len);
}

bool metastore_bytes_begin(struct metastore_bytes b, struct metastore_bytes prefix)
{
	return b.len >= prefix.len &&
	       (prefix.len == 0 || memcmp(b.data, prefix.data, prefix.len) == 0);
}

bool metastore_scan_add(struct metastore_scan *r, struct metastore_bytes key,
			struct metastore_bytes value, size_t *used)
{
	char *at = (char *)r->buf + *used;

	if (r->items_n == r->items_max || key.len + value.len > r->buf_max - *used) {
		r->more = true;
		return false;
	}
	memcpy(at, key.data, key.len);
	if (value.len)
		memcpy(at + key.len, value.data, value.len);
	r->items[r->items_n++] = (struct metastore_item){
	    .key = {at, key.len},
	    .value = {at + key.len, value.len},
	};
	*used += key.len + value.len;
	return true;
}
