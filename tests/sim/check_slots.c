/* SPDX-License-Identifier: Apache-2.0 */
/* check_slots.c - the map on the bare database against the slots of the devices, when nothing is going on any more:
 *
 *   a slot is in exactly one of {free, used by one map entry}; none is being freed still, and no intent is left
 *   what the map refers to is there for it: the slot is open with that cgen, layer and chunk, or free and never used with it
 *   what a device has open is in the map: nothing leaked
 *
 * The product's own check job must agree. */
#include <inttypes.h>
#include <stdlib.h>

#include "metadata/san/schema.h"
#include "metadata/store/backend.h"
#include "metadata/store/image.h"
#include "tests/sim/operator.h"

enum { DEVICES = NODES_MAX * DISKS_MAX + EXTRAS_MAX + 1, SLOTS = SCHEMA_SPACE_SLOTS };

struct mapped {
	uint64_t cgen; /* 0: no entry refers to it */
	layer_id layer;
	uint32_t chunk;
	bool full;
};

struct slots {
	struct world *w;
	uint32_t slots_n[DEVICES];
	struct mapped *mapped[DEVICES];
	uint8_t *used[DEVICES];
	uint64_t intents_n, entries_n;
};

static void for_each(struct slots *c, enum schema_table t,
		     void (*fn)(struct slots *c, const struct image_node *n))
{
	struct schema_key prefix = schema_key_table(t);
	struct metastore_bytes p = schema_key_bytes(&prefix);
	const struct image_node *n = image_above(c->w->image, p, true);

	for (; n && metastore_bytes_begin(n->key, p); n = n->next[0])
		fn(c, n);
}

static void see_device(struct slots *c, const struct image_node *n)
{
	struct schema_device d;
	device_no no;

	if (!schema_key_get_dev(n->key, &no) || no >= DEVICES ||
	    schema_device_decode(n->key, n->value, &d))
		world_fail(c->w, "a device's record cannot be read");
	c->slots_n[no] = d.slots_n;
	c->mapped[no] = calloc(SLOTS, sizeof(*c->mapped[no]));
	c->used[no] = calloc(SLOTS, 1);
}

static void see_space(struct slots *c, const struct image_node *n)
{
	uint64_t used[SCHEMA_SPACE_WORDS], freeing[SCHEMA_SPACE_WORDS];
	device_no no;
	uint32_t page;

	if (!schema_key_get_dev_32(n->key, &no, &page) || no >= DEVICES || page ||
	    schema_space_decode(n->key, n->value, used, freeing))
		world_fail(c->w, "a space page cannot be read");
	for (uint32_t s = 0; s < SLOTS; s++) {
		if (freeing[s / 64] >> (s % 64) & 1)
			world_fail(c->w, "device %u slot %u is still being freed", no, s);
		c->used[no][s] = used[s / 64] >> (s % 64) & 1;
	}
}

static void see_replica(struct slots *c, layer_id layer, uint32_t chunk, const struct map_entry *e)
{
	const struct replica *r = &e->replicas[0];
	struct mapped *m;

	if (r->dev >= DEVICES || r->slot >= c->slots_n[r->dev])
		world_fail(c->w, "layer %u chunk %u is on device %u slot %u, which is not there",
			   layer, chunk, r->dev, r->slot);
	m = &c->mapped[r->dev][r->slot];
	if (m->cgen)
		world_fail(
		    c->w, "device %u slot %u is mapped twice: by layer %u chunk %u and %u chunk %u",
		    r->dev, r->slot, m->layer, m->chunk, layer, chunk);
	*m = (struct mapped){r->cgen, layer, chunk, e->flags & MAP_FULL};
	c->entries_n++;
}

static void see_map(struct slots *c, const struct image_node *n)
{
	struct map_body body = {NULL, NULL, 0};
	layer_id layer;
	uint32_t page;

	if (!schema_key_get_map(n->key, &layer, &page) || schema_map_decode(n->key, n->value, &body))
		world_fail(c->w, "a map page cannot be read");
	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		struct map_entry e;

		map_body_get(&body, i, &e);
		if (e.replicas_n > 1)
			world_fail(c->w, "layer %u chunk %u has replicas", layer, i);
		if (e.replicas_n)
			see_replica(c, layer, page * SCHEMA_MAP_CHUNKS + i, &e);
	}
	map_body_free(&body);
}

static void see_intent(struct slots *c, const struct image_node *n)
{
	(void)n;
	c->intents_n++;
}

static void compare_slot(struct slots *c, device_no no, uint32_t slot, const struct device_slot *s)
{
	const struct mapped *m = &c->mapped[no][slot];
	struct world *w = c->w;

	if (!m->cgen != !c->used[no][slot])
		world_fail(w, "device %u slot %u is %s, but %s", no, slot,
			   m->cgen ? "mapped" : "not mapped", m->cgen ? "not used" : "used");
	if (s->state == DEVICE_SLOT_OPEN && !m->cgen)
		world_fail(w,
			   "device %u slot %u leaked: it is open with cgen %" PRIu64
			   " for layer %u chunk %u, and no map entry refers to it",
			   no, slot, s->cgen, s->layer, s->chunk);
	if (s->state == DEVICE_SLOT_OPEN &&
	    (s->cgen != m->cgen || s->layer != m->layer || s->chunk != m->chunk))
		world_fail(w,
			   "device %u slot %u: the map has cgen %" PRIu64
			   " of layer %u chunk %u, the device %" PRIu64 " of %u chunk %u",
			   no, slot, m->cgen, m->layer, m->chunk, s->cgen, s->layer, s->chunk);
	if (s->state == DEVICE_SLOT_FREE && m->cgen && (s->cgen >= m->cgen || m->full))
		world_fail(w,
			   "device %u slot %u is free above cgen %" PRIu64
			   ", and the map has %" PRIu64 "%s",
			   no, slot, s->cgen, m->cgen, m->full ? ", full" : "");
}

static uint32_t compare_node(struct slots *c, struct world_node *n)
{
	uint32_t devices_n = 0;

	list_for_each (l, &n->node->devices.list) {
		struct node_device *d = list_entry(l, struct node_device, link);
		struct device_slot s;

		if (d->state != NODE_DEVICE_SERVING)
			world_fail(c->w, "%s: %s is not served: %s", n->name, d->path, d->errmsg);
		devices_n++;
		for (uint32_t i = 0; i < c->slots_n[d->no]; i++) {
			if (device_slot_get(d->dev, i, &s))
				world_fail(c->w, "device %u slot %u cannot be looked at", d->no, i);
			compare_slot(c, d->no, i, &s);
		}
	}
	return devices_n;
}

static void compare_free(struct slots *c)
{
	for (device_no no = 0; no < DEVICES; no++) {
		free(c->mapped[no]);
		free(c->used[no]);
	}
}

/* ---- the product's own ------------------------------------------------------------------------------------------------ */

static json_t *job_of(struct world *w, json_int_t id)
{
	char subject[32];
	json_t *job;
	int status;

	snprintf(subject, sizeof(subject), "%" PRId64, (int64_t)id);
	status = world_admin(w, ADMIN_JOB_SHOW, subject, &job, "{}");
	if (status != 200)
		world_fail(w, "job %s: %d", subject, status);
	return job;
}

static void run_check(struct world *w)
{
	json_t *answer, *job, *result;
	const char *state;
	char *text;

	if (world_admin(w, ADMIN_CHECK, NULL, &answer, "{}") != 202)
		world_fail(w, "a check does not begin");
	for (;;) {
		world_run_for(w, 100 * MS);
		job = job_of(w, json_integer_value(json_object_get(answer, "job")));
		state = json_string_value(json_object_get(job, "state"));
		if (strcmp(state, "done") == 0 || strcmp(state, "failed") == 0)
			break;
		json_decref(job);
	}
	result = json_object_get(job, "result");
	text = json_dumps(job, JSON_COMPACT);
	if (strcmp(state, "done") != 0 ||
	    json_integer_value(json_object_get(result, "problems_n")) != 0 ||
	    json_array_size(json_object_get(result, "devices_away")) != 0)
		world_fail(w, "the check finds: %.2000s", text);
	free(text);
	json_decref(job);
	json_decref(answer);
}

void check_slots(struct world *w)
{
	struct slots c = {.w = w};
	uint32_t devices_n = 0;

	for_each(&c, SCHEMA_DEVICE, see_device);
	for_each(&c, SCHEMA_SPACE, see_space);
	for_each(&c, SCHEMA_MAP, see_map);
	for_each(&c, SCHEMA_INTENT, see_intent);
	if (c.intents_n)
		world_fail(w, "%" PRIu64 " intents to free are left", c.intents_n);
	for (uint32_t k = 1; k <= w->s.nodes_n; k++)
		devices_n += compare_node(&c, &w->nodes[k]);
	if (devices_n != w->s.nodes_n * w->s.disks_n + operator_devices_n(w))
		world_fail(w, "%u devices are served", devices_n);
	world_say(w, "%" PRIu64 " map entries and the slots of %u devices agree", c.entries_n,
		  devices_n);
	compare_free(&c);
	run_check(w);
}
