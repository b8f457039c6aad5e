/* SPDX-License-Identifier: Apache-2.0 */
/* mem.c - the metastore of simulations and tests: a map in memory, answering through the clock of the engine.
 *
 * Commits: waiting -> (timer) applied to the image, in order -> (timer) answered. A process killed between the two finds the batch in the image
 * though nobody was told: what a real database does when it dies between its sync and the answer. */
#include <string.h>

#include "metadata/store/backend.h"
#include "metadata/store/image.h"
#include "src/base/check.h"
#include "src/base/mem.h"

struct mem_store {
	struct metastore base;
	struct metastore_image *image;
	bool image_own;
	struct list waiting; /* commits not applied yet */
	struct list applied; /* not answered yet */
	struct ioe_req commit_req;
	bool committing;
};

enum { DELAY_NS_MIN = 5 * 1000, DELAY_NS_SPREAD = 60 * 1000 };

static void mem_commit_apply(struct ioe_req *req);
static void mem_commit_answer(struct ioe_req *req);

static struct mem_store *of(struct metastore *s)
{
	return container_of(s, struct mem_store, base);
}

static void later(struct ioe *e, struct ioe_req *r, void (*done)(struct ioe_req *r))
{
	ioe_timer(e, r, ioe_now_ns(e) + DELAY_NS_MIN + ioe_rand64(e) % DELAY_NS_SPREAD, done);
}

/* ---- reads: the image as it is when the timer expires --------------------------------------------------------------------- */

static void mem_get_run(struct ioe_req *req)
{
	struct metastore_get *r = container_of(req, struct metastore_get, work);
	const struct image_node *n = image_find(of(r->store)->image, r->key);
	int status = !n ? -ENOENT : n->value.len > r->value_max ? -EMSGSIZE : 0;

	if (status == 0) {
		memcpy(r->value, n->value.data, n->value.len);
		r->value_len = n->value.len;
	}
	metastore_get_end(r, status);
}

static void mem_get(struct metastore *s, struct metastore_get *r)
{
	later(s->ioe, &r->work, mem_get_run);
}

static void mem_scan_run(struct ioe_req *req)
{
	struct metastore_scan *r = container_of(req, struct metastore_scan, work);
	const struct metastore_image *m = of(r->store)->image;
	bool from_prefix = r->after.len == 0 || metastore_bytes_cmp(r->after, r->prefix) < 0;
	const struct image_node *n =
	    image_above(m, from_prefix ? r->prefix : r->after, from_prefix);
	size_t used = 0;

	for (; n && metastore_bytes_begin(n->key, r->prefix); n = n->next[0])
		if (!metastore_scan_add(r, n->key, n->value, &used))
			break;
	metastore_scan_end(r, r->items_n == 0 && r->more ? -EMSGSIZE : 0);
}

static void mem_scan(struct metastore *s, struct metastore_scan *r)
{
	later(s->ioe, &r->work, mem_scan_run);
}

/* ---- commits -------------------------------------------------------------------------------------------------------------- */

static void mem_commit(struct metastore *s, struct metastore_commit *r)
{
	struct mem_store *m = of(s);

	list_push(&m->waiting, &r->link);
	if (!m->committing) {
		m->committing = true;
		later(s->ioe, &m->commit_req, mem_commit_apply);
	}
}

static int mem_commit_one(struct metastore_image *image, struct metastore_commit *r)
{
	int status;

	for (uint32_t i = 0; i < r->guards_n; i++)
		if (!image_guard_holds(image, &r->guards[i]))
			return -E_GUARD;
	status = image_apply(image, r->changes, r->changes_n);
	if (status == 0)
		r->commit = ++image->commit;
	return status;
}

static void mem_commit_apply(struct ioe_req *req)
{
	struct mem_store *m = container_of(req, struct mem_store, commit_req);
	struct list *l;

	check(list_empty(&m->applied));
	while ((l = list_pop(&m->waiting))) {
		struct metastore_commit *r = list_entry(l, struct metastore_commit, link);

		r->status = mem_commit_one(m->image, r);
		list_push(&m->applied, l);
	}
	later(m->base.ioe, &m->commit_req, mem_commit_answer);
}

static void mem_commit_answer(struct ioe_req *req)
{
	struct mem_store *m = container_of(req, struct mem_store, commit_req);
	struct list batch, *l;

	list_init(&batch);
	list_splice(&batch, &m->applied);
	m->committing = false;
	if (!list_empty(&m->waiting)) {
		m->committing = true;
		later(m->base.ioe, &m->commit_req, mem_commit_apply);
	}
	while ((l = list_pop(&batch)))
		metastore_commit_end(list_entry(l, struct metastore_commit, link));
}

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

static void mem_backup_run(struct ioe_req *req)
{
	struct metastore_backup *r = container_of(req, struct metastore_backup, work);

	strncpy(r->errmsg, "a database in memory cannot be copied to a directory", ERRMSG_LEN - 1);
	metastore_backup_end(r, -EOPNOTSUPP);
}

static void mem_backup(struct metastore *s, struct metastore_backup *r)
{
	later(s->ioe, &r->work, mem_backup_run);
}

static void mem_close(struct metastore *s)
{
	struct mem_store *m = of(s);

	if (m->image_own)
		metastore_mem_image_free(m->image);
	mem_free(m);
}

static const struct metastore_ops mem_ops = {
    .get = mem_get,
    .scan = mem_scan,
    .commit = mem_commit,
    .backup = mem_backup,
    .free = mem_close,
};

int metastore_open_mem(struct ioe *e, struct metastore_image *image, struct metastore **ret_s)
{
	struct mem_store *m = mem_zalloc(sizeof(*m));

	if (!m)
		return -ENOMEM;
	metastore_init(&m->base, &mem_ops, e);
	list_init(&m->waiting);
	list_init(&m->applied);
	m->image_own = !image;
	m->image = image ? image : metastore_mem_image_new();
	if (!m->image) {
		mem_free(m);
		return -ENOMEM;
	}
	m->base.last_commit = m->image->commit;
	*ret_s = &m->base;
	return 0;
}
