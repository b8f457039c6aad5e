/* SPDX-License-Identifier: Apache-2.0 */

#include <inttypes.h>
#include <stdlib.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "tests/sim/client.h"
#include "tests/sim/operator_private.h"

enum { LOOK_EVERY = 32 };
#define AGAIN_NS    (100 * MS)
#define GROWN_MAX   ((uint64_t)48 << 20)
#define GROW_BY_MAX ((uint64_t)4 << 20)

static void begin(struct world_volume *v);
static void ask(struct world_volume *v);
static void answered(struct world_volume *v);

/* ---- what next --------------------------------------------------------------------------------------------------------- */

static bool wants_something(const struct world_volume *v)
{
	return v->want_bytes > v->size_bytes || v->wants_release ||
	       v->state == VOLUME_DELETING_IT || v->state == VOLUME_CREATING_IT;
}

bool operator_is_idle(const struct world *w)
{
	for (uint32_t i = 0; i < w->s.volumes_n; i++)
		if (w->volumes[i].state != VOLUME_NORMAL || wants_something(&w->volumes[i]))
			return false;
	return operator_devices_idle(w);
}

static bool has_left(struct user *c, void *arg)
{
	return c->v != arg || (!c->line && list_empty(&c->zombies));
}

static void volume_step(struct world_volume *v)
{
	struct world *w = v->w;

	if (v->call && v->call->done)
		answered(v);
	if (v->state == VOLUME_LEAVING && clients_each(w, has_left, v))
		v->state = VOLUME_DELETING_IT;
	if (!v->call && wants_something(v) && world_metad_serves(w) && world_now(w) >= v->again_ns)
		ask(v);
}

void operator_step(struct world *w, bool may_begin)
{
	bool now = may_begin && w->s.operate_every && sim_events(w->sim) % LOOK_EVERY == 0 &&
		   rand_below(&w->rand, w->s.operate_every / LOOK_EVERY + 1) == 0;
	bool devices = now && rand_percent(&w->rand, 25);

	if (sim_events(w->sim) % LOOK_EVERY)
		return;
	for (uint32_t i = 0; i < w->s.volumes_n; i++)
		volume_step(&w->volumes[i]);
	operator_devices_step(w, devices);
	if (now && !devices)
		begin(&w->volumes[rand_below(&w->rand, w->s.volumes_n)]);
}

static void begin(struct world_volume *v)
{
	struct world *w = v->w;
	uint64_t bytes =
	    v->size_bytes + rand_between(&w->rand, 1, GROW_BY_MAX / BLOCK_BYTES) * BLOCK_BYTES;

	if (v->state != VOLUME_NORMAL || wants_something(v))
		return;
	if (rand_percent(&w->rand, 40)) {
		world_say(w, "%s is to be deleted", v->name);
		v->state = VOLUME_LEAVING;
	} else if (rand_percent(&w->rand, 30)) {
		v->wants_release = true; /* from a node that is away; else it is refused */
	} else if (bytes <= GROWN_MAX) {
		world_say(w, "%s is to grow to %" PRIu64, v->name, bytes);
		v->want_bytes = bytes;
		ledger_grow(v->ledger, bytes / SECTOR_BYTES);
	}
}

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

static void call_done(struct admin_req *r)
{
	container_of(r, struct operator_call, req)->done = true;
}

struct operator_call *operator_call_new(const char *subject)
{
	struct operator_call *c = calloc(1, sizeof(*c));

	check(c);
	c->req = (struct admin_req){.subject = subject, .done = call_done};
	return c;
}

void operator_call_free(struct operator_call *c)
{
	json_decref(c->req.args);
	json_decref(c->req.answer);
	mem_free(c->req.text);
	free(c);
}

static void ask(struct world_volume *v)
{
	struct operator_call *c = operator_call_new(v->name);

	v->call = c;
	switch (v->state) {
	case VOLUME_DELETING_IT:
		c->req.verb = ADMIN_VOLUME_DELETE;
		world_admin_begin(v->w, &c->req, "{}");
		break;
	case VOLUME_CREATING_IT:
		c->req.verb = ADMIN_VOLUME_CREATE;
		c->req.subject = NULL;
		world_admin_begin(v->w, &c->req,
				  "{\"name\": \"%s\", \"size_bytes\": %" PRIu64
				  ", \"write_cache\": \"%s\"}",
				  v->name, v->size_bytes, v->w->s.write_cache[v->n]);
		break;
	case VOLUME_NORMAL:
	case VOLUME_LEAVING:
		c->req.verb = v->wants_release ? ADMIN_VOLUME_RELEASE : ADMIN_VOLUME_RESIZE;
		if (v->wants_release)
			world_admin_begin(v->w, &c->req, "{}");
		else
			world_admin_begin(v->w, &c->req, "{\"size_bytes\": %" PRIu64 "}",
					  v->want_bytes);
		break;
	}
}

/* The server will not answer any more; its memory is gone, and ours of the question may be looked at by nobody. */
void operator_metad_died(struct world *w)
{
	for (uint32_t i = 0; i < w->s.volumes_n; i++) {
		struct world_volume *v = &w->volumes[i];

		if (v->call)
			v->asked_again = true;
		v->call = NULL;
	}
	operator_devices_metad_died(w);
}

/* ---- answers ----------------------------------------------------------------------------------------------------------- */

static void deleted(struct world_volume *v)
{
	world_say(v->w, "%s is deleted", v->name);
	v->state = VOLUME_CREATING_IT;
}

/* Another one of the same name. */
static void created(struct world_volume *v)
{
	world_say(v->w, "%s is new", v->name);
	ledger_free(v->ledger);
	world_volume_new(v);
	v->state = VOLUME_NORMAL;
}

static bool is_passing(int status)
{
	return status == 503 || status == 504;
}

static void refused(struct world_volume *v, const struct admin_req *r)
{
	if (!is_passing(r->status))
		world_fail(v->w, "%s of %s: %d %s", admin_verb(r->verb).name, v->name, r->status,
			   r->error.message);
	v->asked_again = true; /* a timeout may have come after it was done */
}

static void answered(struct world_volume *v)
{
	struct operator_call *c = v->call;
	int status = c->req.status;
	bool again = v->asked_again;

	v->call = NULL;
	v->asked_again = false;
	v->again_ns = world_now(v->w) + AGAIN_NS;
	switch (c->req.verb) {
	case ADMIN_VOLUME_DELETE:
		if (status == 200 || status == 202 || (status == 404 && again))
			deleted(v);
		else if (c->req.error.code != ADMIN_E_IN_USE) /* its node still has it open */
			refused(v, &c->req);
		else
			v->asked_again = again;
		break;
	case ADMIN_VOLUME_CREATE:
		if (status == 201 || (c->req.error.code == ADMIN_E_EXISTS && again))
			created(v);
		else
			refused(v, &c->req);
		break;
	case ADMIN_VOLUME_RELEASE:
		v->wants_release = false;
		if (status == 200)
			world_say(v->w, "%s is released", v->name);
		else if (c->req.error.code != ADMIN_E_IN_USE)
			refused(v, &c->req);
		break;
	default:
		if (status == 200)
			v->size_bytes = v->want_bytes;
		else
			refused(v, &c->req);
	}
	operator_call_free(c);
}
