/* SPDX-License-Identifier: Apache-2.0 */
/* owner.c - which node runs a volume, at which epoch.
 *
 *   closed --open--> open(owner, start, epoch) --close--> closed
 * The epoch is a new one unless it is the same process that had it last and gave it up itself (or still has it). */
#include <inttypes.h>
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"

/* ---- open ------------------------------------------------------------------------------------------------------------------ */

static void tell_chain(struct san_volume_open *r, const struct volume *vol)
{
	r->layers_n = 0;
	for (const struct layer *l = vol->head; l && r->layers_n < LAYERS_MAX; l = l->parent)
		r->layers[r->layers_n++] = l->id;
}

static void take_over(struct san *s, struct san_volume_open *r, struct volume *vol)
{
	struct san_volume *v = &vol->v;

	/* whoever gave it up in good order has drained first */
	r->fence = v->epoch > 0 && (v->is_open || v->forced);
	r->fence_node = v->owner;
	r->fence_start = v->owner_start;
	v->epoch++;
	v->epoch_commit = txn_commit_no(s);
	v->owner = r->node;
	v->owner_start = r->start;
}

static enum exec open_exec(struct san *s, struct san_req *req)
{
	struct san_volume_open *r = container_of(req, struct san_volume_open, req);
	struct volume *vol = volume_by_name(s, r->name);
	struct san_volume *v;
	bool same_process;

	if (!txn_fits(s, 0, VOLUME_SMALLS))
		return EXEC_MORE;
	if (!vol)
		return san_op_fail(req, -ENOENT, "there is no volume %.64s", r->name);
	v = &vol->v;
	same_process = v->owner == r->node && uuid_equal(&v->owner_start, &r->start);
	r->fence = false;
	if (v->is_open && v->owner != r->node) {
		volume_fill(vol, &r->volume);
		return san_op_fail(req, -E_NOT_OWNER, "volume %s is open on node %u", v->name,
				   v->owner);
	}
	if (!same_process || v->forced)
		take_over(s, r, vol);
	if (!v->is_open || !same_process) {
		v->is_open = true;
		v->forced = false;
		v->read_only = r->read_only;
		volume_mark(s, vol);
	}
	tell_chain(r, vol);
	volume_fill(vol, &r->volume);
	return EXEC_DONE;
}

void san_volume_open(struct san *s, struct san_volume_open *r)
{
	san_op_begin(s, &r->req, open_exec, NULL);
	if (r->node == 0 || uuid_is_zero(&r->start))
		san_op_refuse(&r->req, -EINVAL);
	else
		san_op_write(&r->req);
}

/* ---- close ----------------------------------------------------------------------------------------------------------------- */

static enum exec close_exec(struct san *s, struct san_req *req)
{
	struct san_volume_close *r = container_of(req, struct san_volume_close, req);
	struct volume *vol = volume_by_id(s, r->volume);

	if (!txn_fits(s, 0, VOLUME_SMALLS))
		return EXEC_MORE;
	if (!vol)
		return san_op_fail(req, -ENOENT, "there is no volume %u", r->volume);
	if (r->epoch && r->epoch != vol->v.epoch)
		return san_op_fail(req, -E_STALE_EPOCH, "volume %s is at epoch %" PRIu64,
				   vol->v.name, vol->v.epoch);
	if (!vol->v.is_open)
		return EXEC_DONE;
	vol->v.is_open = false;
	vol->v.forced = r->forced || r->epoch == 0;
	volume_mark(s, vol);
	return EXEC_DONE;
}

void san_volume_close(struct san *s, struct san_volume_close *r)
{
	san_op_begin(s, &r->req, close_exec, NULL);
	san_op_write(&r->req);
}

/* What was closed does not match any more, so the walk begins anew with each batch. */
static enum exec release_exec(struct san *s, struct san_req *req)
{
	struct san_node_release *r = container_of(req, struct san_node_release, req);
	struct volume *vol;

	idtab_for_each (vol, &s->volumes) {
		struct san_volume *v = &vol->v;

		if (!v->is_open || v->owner != r->node || uuid_equal(&v->owner_start, &r->start))
			continue;
		if (!txn_fits(s, 0, VOLUME_SMALLS))
			return EXEC_MORE;
		v->is_open = false;
		v->forced = true;
		volume_mark(s, vol);
		r->closed_n++;
	}
	return EXEC_DONE;
}

void san_node_release(struct san *s, struct san_node_release *r)
{
	r->closed_n = 0;
	san_op_begin(s, &r->req, release_exec, NULL);
	san_op_write(&r->req);
}

/* ---- leave ----------------------------------------------------------------------------------------------------------------- */

static enum exec leave_exec(struct san *s, struct san_req *req)
{
	struct san_node_leave *r = container_of(req, struct san_node_leave, req);
	struct volume *vol;

	if (!txn_fits(s, 0, r->also_n))
		return EXEC_MORE;
	idtab_for_each (vol, &s->volumes)
		if (vol->v.is_open && vol->v.owner == r->node)
			return san_op_fail(req, -E_IN_USE, "volume %s is open there", vol->v.name);
	records_add(s, r->also, r->also_n);
	return EXEC_DONE;
}

void san_node_leave(struct san *s, struct san_node_leave *r)
{
	san_op_begin(s, &r->req, leave_exec, NULL);
	if (records_ok(r->also, r->also_n))
		san_op_write(&r->req);
	else
		san_op_refuse(&r->req, -EINVAL);
}
