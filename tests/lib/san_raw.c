/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/san_raw.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "metadata/san/schema.h"

enum { DEVICES = 16, LAYERS = 64, ITEMS = 64, BUF = 256 << 10 };

struct raw {
	struct schema_device devices[DEVICES]; /* slots_n 0: none */
	uint8_t *used[DEVICES], *freeing[DEVICES], *mapped[DEVICES], *intents[DEVICES];
	bool layers[LAYERS];
	struct schema_usage said[LAYERS], counted[LAYERS];
	uint64_t cgen;
};

struct scan_wait {
	struct metastore_scan r;
	bool is_done;
};

static void scan_done(struct metastore_scan *r)
{
	container_of(r, struct scan_wait, r)->is_done = true;
}

static void for_each(struct store_fixture *st, struct raw *raw, enum schema_table t,
		     void (*fn)(struct raw *raw, const struct metastore_item *i))
{
	struct schema_key prefix = schema_key_table(t), last = {.len = 0};
	struct metastore_item items[ITEMS];
	uint8_t *buf = malloc(BUF);
	struct scan_wait w;

	do {
		w = (struct scan_wait){.r = {.prefix = schema_key_bytes(&prefix),
					     .after = schema_key_bytes(&last),
					     .buf = buf,
					     .buf_max = BUF,
					     .items = items,
					     .items_max = ITEMS,
					     .done = scan_done}};
		metastore_scan(st->s, &w.r);
		sim_run_until(st->sim.w, &w.is_done);
		assert_int_equal(w.r.status, 0);
		for (uint32_t i = 0; i < w.r.items_n; i++)
			fn(raw, &items[i]);
		if (w.r.items_n) {
			last.len = (uint8_t)items[w.r.items_n - 1].key.len;
			memcpy(last.b, items[w.r.items_n - 1].key.data, last.len);
		}
	} while (w.r.more);
	free(buf);
}

static void see_cluster(struct raw *raw, const struct metastore_item *i)
{
	struct schema_cluster c;

	assert_int_equal(schema_cluster_decode(i->key, i->value, &c), 0);
	raw->cgen = c.cgen;
}

static void see_device(struct raw *raw, const struct metastore_item *i)
{
	device_no no;

	assert_true(schema_key_get_dev(i->key, &no));
	assert_true(no < DEVICES);
	assert_int_equal(schema_device_decode(i->key, i->value, &raw->devices[no]), 0);
	raw->used[no] = calloc(1, raw->devices[no].slots_n + SCHEMA_SPACE_SLOTS);
	raw->freeing[no] = calloc(1, raw->devices[no].slots_n + SCHEMA_SPACE_SLOTS);
	raw->mapped[no] = calloc(1, raw->devices[no].slots_n);
	raw->intents[no] = calloc(1, raw->devices[no].slots_n);
}

static void see_space(struct raw *raw, const struct metastore_item *i)
{
	uint64_t used[SCHEMA_SPACE_WORDS], freeing[SCHEMA_SPACE_WORDS];
	device_no no;
	uint32_t page;

	assert_true(schema_key_get_dev_32(i->key, &no, &page));
	assert_true(no < DEVICES && raw->used[no]);
	assert_int_equal(schema_space_decode(i->key, i->value, used, freeing), 0);
	for (uint32_t s = 0; s < SCHEMA_SPACE_SLOTS; s++) {
		uint32_t slot = page * SCHEMA_SPACE_SLOTS + s;

		if (used[s / 64] >> (s % 64) & 1)
			raw->used[no][slot] = 1;
		if (freeing[s / 64] >> (s % 64) & 1)
			raw->freeing[no][slot] = 1;
		if (slot >= raw->devices[no].slots_n)
			assert_true(!raw->used[no][slot] && !raw->freeing[no][slot]);
	}
}

static void see_layer(struct raw *raw, const struct metastore_item *i)
{
	layer_id id;

	assert_true(schema_key_get_32(i->key, &id));
	assert_true(id < LAYERS);
	raw->layers[id] = true;
}

static void see_usage(struct raw *raw, const struct metastore_item *i)
{
	layer_id id;

	assert_true(schema_key_get_32(i->key, &id));
	assert_true(raw->layers[id]);
	assert_int_equal(schema_usage_decode(i->key, i->value, &raw->said[id]), 0);
}

static void see_map(struct raw *raw, const struct metastore_item *i)
{
	struct map_body body = {NULL, NULL, 0};
	layer_id id;
	uint32_t page;

	assert_true(schema_key_get_map(i->key, &id, &page));
	assert_true(id < LAYERS && raw->layers[id]);
	assert_int_equal(schema_map_decode(i->key, i->value, &body), 0);
	for (uint32_t c = 0; c < SCHEMA_MAP_CHUNKS; c++) {
		struct map_entry e;

		map_body_get(&body, c, &e);
		raw->counted[id].entries_n += e.kind != MAP_UNMAPPED;
		raw->counted[id].chunks_n += e.replicas_n > 0;
		for (uint32_t r = 0; r < e.replicas_n; r++) {
			device_no no = e.replicas[r].dev;

			assert_true(no < DEVICES && raw->used[no]);
			assert_true(e.replicas[r].slot < raw->devices[no].slots_n);
			assert_true(e.replicas[r].cgen <= raw->cgen);
			raw->mapped[no][e.replicas[r].slot]++;
		}
	}
	map_body_free(&body);
}

static void see_intent(struct raw *raw, const struct metastore_item *i)
{
	device_no no;
	uint32_t slot;

	assert_true(schema_key_get_dev_32(i->key, &no, &slot));
	assert_true(no < DEVICES && raw->used[no]);
	assert_true(slot < raw->devices[no].slots_n);
	raw->intents[no][slot]++;
}

struct get_wait {
	struct metastore_get r;
	bool is_done;
};

static void get_done(struct metastore_get *r)
{
	container_of(r, struct get_wait, r)->is_done = true;
}

void san_raw_get(struct store_fixture *st, const struct schema_key *k, struct san_raw_value *ret_v)
{
	struct get_wait w = {.r = {.key = schema_key_bytes(k),
				   .value = ret_v->bytes,
				   .value_max = sizeof(ret_v->bytes),
				   .done = get_done}};

	metastore_get(st->s, &w.r);
	sim_run_until(st->sim.w, &w.is_done);
	assert_int_equal(w.r.status, 0);
	ret_v->len = w.r.value_len;
}

void san_raw_check(struct store_fixture *st)
{
	struct raw *raw = calloc(1, sizeof(*raw));

	for_each(st, raw, SCHEMA_CLUSTER, see_cluster);
	for_each(st, raw, SCHEMA_DEVICE, see_device);
	for_each(st, raw, SCHEMA_SPACE, see_space);
	for_each(st, raw, SCHEMA_LAYER, see_layer);
	for_each(st, raw, SCHEMA_USAGE, see_usage);
	for_each(st, raw, SCHEMA_MAP, see_map);
	for_each(st, raw, SCHEMA_INTENT, see_intent);
	for (uint32_t no = 0; no < DEVICES; no++) {
		for (uint32_t s = 0; s < raw->devices[no].slots_n; s++) {
			assert_int_equal(raw->used[no][s], raw->mapped[no][s]);
			assert_int_equal(raw->freeing[no][s], raw->intents[no][s]);
			assert_true(raw->used[no][s] + raw->freeing[no][s] <= 1);
		}
		free(raw->used[no]);
		free(raw->freeing[no]);
		free(raw->mapped[no]);
		free(raw->intents[no]);
	}
	for (uint32_t id = 0; id < LAYERS; id++) {
		assert_int_equal(raw->said[id].entries_n, raw->counted[id].entries_n);
		assert_int_equal(raw->said[id].chunks_n, raw->counted[id].chunks_n);
	}
	free(raw);
}
