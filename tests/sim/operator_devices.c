/* SPDX-License-Identifier: Apache-2.0 */
/* operator_devices.c - disks that are added while everything is used, and taken out again when nothing is on them.
 *
 *   NONE -> ADDING -> LOOKING (what number has it) -> THERE <-> REMOVING -> GONE          (REMOVING -> THERE: it holds data)
 *
 * What fails because something is broken is asked for again; that it comes about in the end is a matter of progress. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "tests/sim/operator_private.h"

#define AGAIN_NS (500 * MS)

static void begin(struct world_extra *x);
static void ask(struct world_extra *x);
static void answered(struct world_extra *x);

static bool wants_something(const struct world_extra *x)
{
	return x->state == EXTRA_ADDING || x->state == EXTRA_LOOKING || x->state == EXTRA_REMOVING;
}

bool operator_devices_idle(const struct world *w)
{
	for (uint32_t i = 0; i < EXTRAS_MAX; i++)
		if (wants_something(&w->extras[i]))
			return false;
	return true;
}

uint32_t operator_devices_n(const struct world *w)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < EXTRAS_MAX; i++)
		n += w->extras[i].state == EXTRA_THERE;
	return n;
}

void operator_devices_step(struct world *w, bool may_begin)
{
	for (uint32_t i = 0; i < EXTRAS_MAX; i++) {
		struct world_extra *x = &w->extras[i];

		x->w = w;
		if (x->call && x->call->done)
			answered(x);
		if (!x->call && wants_something(x) && world_metad_serves(w) &&
		    world_now(w) >= x->again_ns)
			ask(x);
	}
	if (may_begin)
		begin(&w->extras[rand_below(&w->rand, EXTRAS_MAX)]);
}

static void begin(struct world_extra *x)
{
	struct world *w = x->w;

	if (x->state == EXTRA_NONE) {
		x->k = 1 + (uint32_t)rand_below(&w->rand, w->s.nodes_n);
		snprintf(x->path, sizeof(x->path), "/extra%u", (uint32_t)(x - w->extras));
		world_say(w, "node-%u is to get %s", x->k, x->path);
		x->state = EXTRA_ADDING;
	} else if (x->state == EXTRA_THERE) {
		world_say(w, "%s is to be taken out", x->path);
		x->state = EXTRA_REMOVING;
	}
}

static void ask(struct world_extra *x)
{
	struct world *w = x->w;

	x->call = operator_call_new(NULL);
	switch (x->state) {
	case EXTRA_ADDING:
		x->call->req.verb = ADMIN_DEVICE_ADD;
		world_admin_begin(
		    w, &x->call->req,
		    "{\"node\": \"node-%u\", \"path\": \"%s\", \"size_bytes\": %" PRIu64 "}", x->k,
		    x->path, w->s.disk_bytes);
		break;
	case EXTRA_LOOKING:
		x->call->req.verb = ADMIN_DEVICE_LIST;
		world_admin_begin(w, &x->call->req, "{}");
		break;
	default:
		x->call->req.verb = ADMIN_DEVICE_REMOVE;
		x->call->req.subject = x->number;
		world_admin_begin(w, &x->call->req, "{}");
	}
}

void operator_devices_metad_died(struct world *w)
{
	for (uint32_t i = 0; i < EXTRAS_MAX; i++) {
		if (w->extras[i].call)
			w->extras[i].asked_again = true;
		w->extras[i].call = NULL;
	}
}

/* ---- answers ----------------------------------------------------------------------------------------------------------- */

static void looked(struct world_extra *x, const json_t *answer)
{
	size_t i;
	json_t *item;

	x->state = EXTRA_ADDING; /* its node, which has it on its list, is away */
	json_array_foreach (json_object_get(answer, "items"), i, item) {
		const char *path = json_string_value(json_object_get(item, "path"));
		json_int_t number = json_integer_value(json_object_get(item, "number"));

		if (strcmp(path, x->path) != 0)
			continue;
		snprintf(x->number, sizeof(x->number), "%" JSON_INTEGER_FORMAT, number);
		x->state = EXTRA_THERE;
		world_say(x->w, "%s is device %s", x->path, x->number);
	}
}

static void removed(struct world_extra *x, const struct admin_req *r, bool again)
{
	if (r->status == 200 || (r->status == 404 && again)) {
		world_say(x->w, "%s is taken out", x->path);
		x->state = EXTRA_GONE;
	} else if (r->status == 404) {
		world_fail(x->w, "%s is not known as device %s: %s", x->path, x->number,
			   r->error.message);
	} else if (r->error.code == ADMIN_E_IN_USE) {
		x->state = EXTRA_THERE;
	}
}

static void answered(struct world_extra *x)
{
	struct operator_call *c = x->call;
	const struct admin_req *r = &c->req;
	bool again = x->asked_again;

	x->call = NULL;
	x->asked_again = r->status >= 500; /* a timeout may have come after it was done */
	x->again_ns = world_now(x->w) + AGAIN_NS;
	if (r->status >= 400)
		world_say(x->w, "%s of %s: %d %s", admin_verb(r->verb).name, x->path, r->status,
			  r->error.message);
	if (r->verb == ADMIN_DEVICE_ADD) {
		if (r->status == 201 || r->error.code == ADMIN_E_EXISTS)
			x->state = EXTRA_LOOKING;
	} else if (r->verb == ADMIN_DEVICE_LIST) {
		if (r->status == 200)
			looked(x, r->answer);
	} else {
		removed(x, r, again);
	}
	operator_call_free(c);
}
