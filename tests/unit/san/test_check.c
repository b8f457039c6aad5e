/* SPDX-License-Identifier: Apache-2.0 */
/* The online check finds what is wrong and is not confused by what goes on; damaged databases are refused; memory may fail anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "metadata/san/schema.h"
#include "src/base/mem.h"
#include "tests/lib/san_fixture.h"
#include "tests/lib/san_raw.h"

struct checked {
	struct san_fixture fx;
	struct san_volume v;
	uint64_t epoch;
	device_no dev;
	struct san_check op;
};

static int setup(void **state)
{
	struct checked *c = calloc(1, sizeof(*c));

	san_fixture_init(&c->fx, STORE_MEM, 1);
	c->dev = fx_device(&c->fx, 1000);
	c->v = fx_volume(&c->fx, "a", 2000);
	c->epoch = fx_open(&c->fx, "a");
	assert_int_equal(fx_alloc(&c->fx, &c->v, c->epoch, 0, 600, NULL), 0);
	for (uint32_t i = 0; i < 5; i++) {
		struct map_entry e = fx_lookup(&c->fx, &c->v, i);

		assert_int_equal(fx_update(&c->fx, &c->v, c->epoch, i, SAN_UNMAP,
					   e.replicas[0].cgen),
				 0);
	}
	*state = c;
	return 0;
}

static int teardown(void **state)
{
	struct checked *c = *state;

	san_fixture_free(&c->fx);
	free(c);
	assert_int_equal(mem_live(), 0);
	return 0;
}

static void put(struct checked *c, const struct schema_key *k, const uint8_t *bytes, size_t len)
{
	struct metastore_change ch = {schema_key_bytes(k), {bytes, len}};

	assert_int_equal(store_commit(&c->fx.st, NULL, 0, &ch, 1, NULL), 0);
}

/* Runs a check that must find n problems, of which the first says so. */
static void expect(struct checked *c, uint64_t n, const char *text)
{
	struct san_fixture *fx = &c->fx;

	assert_int_equal(SAN_CALL(fx, san_check, &c->op), 0);
	assert_int_equal(c->op.problems_n, n);
	if (n && !strstr(c->op.problems[0], text))
		print_error("got: %s\n", c->op.problems[0]);
	if (n)
		assert_non_null(strstr(c->op.problems[0], text));
}

static void load_body(struct checked *c, uint32_t page, struct map_body *b)
{
	struct map_entry e;

	*b = (struct map_body){NULL, NULL, 0};
	assert_int_equal(map_body_reserve(b, 1), 0);
	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		e = fx_lookup(&c->fx, &c->v, page * SCHEMA_MAP_CHUNKS + i);
		map_body_set(b, i, &e);
	}
}

static void store_body(struct checked *c, uint32_t page, struct map_body *b)
{
	static uint8_t bytes[SCHEMA_PAGE_MAX];
	struct schema_key k = schema_key_map(c->v.head, page);

	put(c, &k, bytes, schema_map_encode(b, &k, bytes));
	map_body_free(b);
}

static void test_counts(void **state)
{
	struct checked *c = *state;

	expect(c, 0, NULL);
	assert_int_equal(c->op.pages_n, 3);
	assert_int_equal(c->op.entries_n, 595);
	assert_int_equal(c->op.intents_n, 5);
	assert_int_equal(c->op.slots_n, 1000);
	assert_int_equal(c->op.volumes_n, 1);
	assert_int_equal(c->op.exempt_n, 0);
	san_raw_check(&c->fx.st);
}

/* ---- what it finds ---------------------------------------------------------------------------------------------------------- */

static void test_entry_lost_from_the_map(void **state)
{
	struct checked *c = *state;
	struct map_entry none = {.kind = MAP_UNMAPPED};
	struct map_body b;

	load_body(c, 1, &b);
	map_body_set(&b, 7, &none);
	store_body(c, 1, &b);
	/* the leaked slot, and the count of the layer */
	expect(c, 2, "usage record");
	assert_non_null(strstr(c->op.problems[1], "no map entry refers to it"));
}

static void test_slot_mapped_twice(void **state)
{
	struct checked *c = *state;
	struct map_entry e;
	struct map_body b;

	load_body(c, 1, &b);
	map_body_get(&b, 7, &e);
	map_body_set(&b, 8, &e);
	store_body(c, 1, &b);
	expect(c, 2, "mapped twice");
	assert_non_null(strstr(c->op.problems[1], "no map entry refers to it"));
}

static void test_entry_out_of_bounds(void **state)
{
	struct checked *c = *state;
	struct map_entry e = {.kind = MAP_OPEN,
			      .replicas_n = 1,
			      .replicas = {{.cgen = 1, .slot = 5000, .dev = c->dev}}};
	struct map_body b;

	load_body(c, 7, &b); /* chunks 1792 to 2047; the volume has 2000 */
	map_body_set(&b, 0, &e);
	e.replicas[0].dev = 9;
	map_body_set(&b, 1, &e);
	e.replicas[0].cgen = 1ULL << 40;
	map_body_set(&b, 255, &e);
	store_body(c, 7, &b);
	assert_int_equal(SAN_CALL(&c->fx, san_check, &c->op), 0);
	assert_int_equal(c->op.problems_n, 6);
	assert_non_null(strstr(c->op.problems[0], "has no slot 5000"));
	assert_non_null(strstr(c->op.problems[1], "device 9, which is not there"));
	assert_non_null(strstr(c->op.problems[2], "past the end"));
	assert_non_null(strstr(c->op.problems[3], "never given out"));
	assert_non_null(strstr(c->op.problems[5], "usage record"));
}

static void test_intents(void **state)
{
	struct checked *c = *state;
	struct schema_key k = schema_key_dev_32(SCHEMA_INTENT, c->dev, 999);
	uint8_t bytes[SCHEMA_SMALL_MAX];

	put(c, &k, bytes, schema_intent_encode(1, &k, bytes));
	expect(c, 1, "not freeing, but has an intent");

	put(c, &k, NULL, 0);
	expect(c, 0, NULL);
}

static void test_damaged_pages(void **state)
{
	struct checked *c = *state;
	struct schema_key k = schema_key_map(c->v.head, 1);
	struct san_map_item items[4];
	struct san_map look = {
	    .volume = c->v.id, .first = 300, .n = 1, .items = items, .items_max = 4};
	uint8_t junk[100] = {1, 2, 3};
	struct san_fixture *fx = &c->fx;

	put(c, &k, junk, sizeof(junk));
	assert_int_equal(SAN_CALL(fx, san_check, &c->op), 0);
	assert_true(c->op.problems_n > 250); /* each of its slots, too */
	assert_non_null(strstr(c->op.problems[0], "cannot be used"));
	san_fixture_crash(fx);
	/* only this page suffers */
	assert_int_equal(SAN_CALL(fx, san_map, &look), -E_FORMAT);
	assert_int_equal(SAN_CALL(fx, san_map, &look), -E_FORMAT);
	assert_int_equal(fx_alloc(fx, &c->v, c->epoch, 300, 1, NULL), -E_FORMAT);
	look.first = 10;
	assert_int_equal(SAN_CALL(fx, san_map, &look), 0);
	assert_int_equal(fx_alloc(fx, &c->v, c->epoch, 1000, 10, NULL), 0);
}

static void test_records(void **state)
{
	struct checked *c = *state;
	struct schema_key k = schema_key_name("ghost");
	uint8_t bytes[SCHEMA_SMALL_MAX];
	struct san_volume v = c->v;

	put(c, &k, bytes, schema_name_encode(1, &k, bytes));
	expect(c, 1, "the name ghost");
	put(c, &k, NULL, 0);
	k = schema_key_name("a");
	put(c, &k, NULL, 0);
	expect(c, 1, "volume a is not in the index of names");
	put(c, &k, bytes, schema_name_encode(1, &k, bytes));
	expect(c, 0, NULL);
	k = schema_key_32(SCHEMA_VOLUME, 1);
	v.epoch = 77;
	put(c, &k, bytes, schema_volume_encode(&v, &k, bytes));
	expect(c, 1, "record of volume a differs");
	put(c, &k, bytes, schema_volume_encode(&c->v, &k, bytes));
}

/* Each record that something resident has, missing in turn. */
static void test_missing_records(void **state)
{
	struct checked *c = *state;
	const struct {
		struct schema_key key;
		const char *text;
	} missing[] = {
	    {schema_key_32(SCHEMA_VOLUME, 1), "volume 1 has no record"},
	    {schema_key_name("a"), "volume a is not in the index of names"},
	    {schema_key_32(SCHEMA_LAYER, 1), "layer 1 has no record"},
	    {schema_key_32(SCHEMA_USAGE, 1), "layer 1 has no usage record"},
	    {schema_key_dev(SCHEMA_DEVICE, c->dev), "device 1 has no record"},
	    {schema_key_dev_32(SCHEMA_SPACE, c->dev, 0), "space page 0 of device 1 is missing"},
	};
	struct san_raw_value old;

	for (size_t i = 0; i < ARRAY_LEN(missing); i++) {
		san_raw_get(&c->fx.st, &missing[i].key, &old);
		put(c, &missing[i].key, NULL, 0);
		expect(c, 1, missing[i].text);
		put(c, &missing[i].key, old.bytes, old.len);
	}
	expect(c, 0, NULL);
}

/* ---- while everything goes on ------------------------------------------------------------------------------------------------ */

struct worker {
	struct checked *c;
	struct san_alloc alloc;
	struct san_update update;
	struct san_update_item item;
	struct san_map_item got;
	uint32_t chunk, n;
	bool stop, idle;
};

static void worker_alloc(struct worker *w);

static void worker_updated(struct san_req *r)
{
	struct worker *w = container_of(r, struct worker, update.req);

	if (w->stop)
		w->idle = true;
	else
		worker_alloc(w);
}

static void worker_allocated(struct san_req *r)
{
	struct worker *w = container_of(r, struct worker, alloc.req);

	check(r->status == 0);
	w->n++;
	w->item = (struct san_update_item){w->chunk, SAN_UNMAP, w->got.entry.replicas[0].cgen};
	w->update = (struct san_update){.req.done = worker_updated,
					.volume = w->c->v.id,
					.epoch = w->c->epoch,
					.layer = w->c->v.head,
					.items = &w->item,
					.n = 1};
	san_update(w->c->fx.san, &w->update);
}

static void worker_alloc(struct worker *w)
{
	w->alloc = (struct san_alloc){.req.done = worker_allocated,
				      .volume = w->c->v.id,
				      .epoch = w->c->epoch,
				      .layer = w->c->v.head,
				      .chunks = &w->chunk,
				      .n = 1,
				      .items = &w->got};
	san_alloc(w->c->fx.san, &w->alloc);
}

/* A record is looked at at one moment, its object changes, or goes, at another: for each moment. */
static void test_changes_amid_a_check(void **state)
{
	struct checked *c = *state;
	struct san_fixture *fx = &c->fx;
	bool over = false;

	for (uint32_t n = 0; !over; n++) {
		struct san_volume_close close = {.req.done = san_waited,
						 .volume = c->v.id,
						 .epoch = c->epoch};
		struct san_volume_delete del = {.req.done = san_waited, .name = "gone"};
		uint32_t chunks[1] = {700 + n};
		struct san_map_item item;
		struct san_alloc alloc = {.req.done = san_waited,
					  .volume = c->v.id,
					  .epoch = c->epoch,
					  .layer = c->v.head,
					  .chunks = chunks,
					  .n = 1,
					  .items = &item};

		fx_volume(fx, "gone", 10);
		c->op.req.done = san_waited;
		san_check(fx->san, &c->op);
		for (uint32_t i = 0; i < n; i++)
			sim_step(fx->st.sim.w);
		over = c->op.req.commit != 0;
		san_alloc(fx->san, &alloc);
		san_volume_close(fx->san, &close);
		san_volume_delete(fx->san, &del);
		san_wait(fx, &del.req);
		assert_int_equal(alloc.req.status, 0);
		if (c->op.req.commit == 0)
			san_wait(fx, &c->op.req);
		for (uint64_t i = 0; i < c->op.problems_n; i++)
			print_error("%u: %s\n", n, c->op.problems[i]);
		assert_int_equal(c->op.problems_n, 0);
		fx_run_job(fx, del.job);
		c->epoch = fx_open(fx, "a");
		assert_true(n < 300);
	}
}

/* Not until there is nothing left: there always is. */
static void free_some(struct checked *c)
{
	struct san_fixture *fx = &c->fx;
	struct san_free frees[100];
	struct san_frees_pull pull = {.dev = c->dev, .frees = frees, .frees_max = 100};
	struct san_frees_done done = {.dev = c->dev, .frees = frees};

	assert_int_equal(SAN_CALL(fx, san_frees_pull, &pull), 0);
	done.n = pull.frees_n;
	assert_int_equal(SAN_CALL(fx, san_frees_done, &done), 0);
}

static void test_check_under_load(void **state)
{
	struct checked *c = *state;
	struct san_fixture *fx = &c->fx;
	struct worker w[2] = {{.c = c, .chunk = 700}, {.c = c, .chunk = 1900}};
	struct san_volume_delete del;
	struct san_check second = {.req.done = san_waited};
	struct san_device_remove rem = {.dev = c->dev};
	uint32_t rounds = 0;

	worker_alloc(&w[0]);
	worker_alloc(&w[1]);
	while (w[0].n < 60) {
		fx_volume(fx, "temp", 10);
		del = (struct san_volume_delete){.req.done = san_waited, .name = "temp"};
		c->op.req.done = san_waited;
		san_check(fx->san, &c->op);
		san_check(fx->san, &second);
		san_volume_delete(fx->san, &del);
		san_wait(fx, &del.req);
		assert_int_equal(second.req.status, -EBUSY);
		fx_run_job(fx, del.job);
		if (c->op.req.commit == 0)
			san_wait(fx, &c->op.req);
		assert_int_equal(c->op.req.status, 0);
		for (uint64_t i = 0; i < c->op.problems_n; i++)
			print_error("%s\n", c->op.problems[i]);
		assert_int_equal(c->op.problems_n, 0);
		rounds++;
		free_some(c);
	}
	assert_true(rounds > 3);
	assert_true(c->op.exempt_n > 0);
	w[0].stop = w[1].stop = true;
	while (!w[0].idle || !w[1].idle)
		sim_step(fx->st.sim.w);
	assert_int_equal(SAN_CALL(fx, san_device_remove, &rem), -ENOTEMPTY);
	fx_check(fx);
	/* cancelled, and closed in the middle */
	c->op.cancel = true;
	assert_int_equal(SAN_CALL(fx, san_check, &c->op), -ECANCELED);
	c->op.cancel = false;
	san_check(fx->san, &c->op);
}

/* ---- opening ------------------------------------------------------------------------------------------------------------------ */

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static int reopen(struct checked *c, char errmsg[ERRMSG_LEN])
{
	bool closed = false;

	if (c->fx.san) {
		san_close(c->fx.san, set_flag, &closed);
		sim_run_until(c->fx.st.sim.w, &closed);
		c->fx.san = NULL;
	}
	return san_fixture_open(&c->fx, errmsg);
}

/* Each record damaged in turn, then put back. */
static void test_damaged_records_are_refused(void **state)
{
	struct checked *c = *state;
	struct san_volume_delete del = {.name = "b"};
	struct schema_key keys[] = {
	    schema_key_table(SCHEMA_CLUSTER),
	    schema_key_dev(SCHEMA_DEVICE, c->dev),
	    schema_key_dev_32(SCHEMA_SPACE, c->dev, 0),
	    schema_key_32(SCHEMA_VOLUME, 1),
	    schema_key_32(SCHEMA_LAYER, 1),
	    schema_key_32(SCHEMA_USAGE, 1),
	    schema_key_32(SCHEMA_JOB, 1),
	};
	char errmsg[ERRMSG_LEN];
	struct san_fixture *fx = &c->fx;

	fx_volume(fx, "b", 1);
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), 0);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		struct san_raw_value old;

		san_raw_get(&fx->st, &keys[i], &old);
		old.bytes[old.len / 2] ^= 4;
		put(c, &keys[i], old.bytes, old.len);
		assert_int_equal(reopen(c, errmsg), -E_FORMAT);
		assert_true(strlen(errmsg) > 10);
		old.bytes[old.len / 2] ^= 4;
		put(c, &keys[i], old.bytes, old.len);
		assert_int_equal(reopen(c, errmsg), 0);
		if (i == 0 || keys[i].b[0] == SCHEMA_USAGE || keys[i].b[0] == SCHEMA_SPACE ||
		    keys[i].b[0] == SCHEMA_JOB)
			continue;
		/* missing altogether: others refer to it */
		put(c, &keys[i], NULL, 0);
		assert_int_equal(reopen(c, errmsg), -E_FORMAT);
		put(c, &keys[i], old.bytes, old.len);
		assert_int_equal(reopen(c, errmsg), 0);
	}
	put(c, &keys[0], NULL, 0);
	assert_int_equal(reopen(c, errmsg), -E_FORMAT);
	assert_non_null(strstr(errmsg, "cluster is missing"));
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------- */

static int everything(struct checked *c, char name[NAME_LEN_MAX + 1])
{
	struct san_fixture *fx = &c->fx;
	struct san_volume_create create = {.name = name,
					   .size_bytes = 1 << 30,
					   .sector_bytes = 512,
					   .chunk_shift = CHUNK_SHIFT_FLASH,
					   .pool = FIXTURE_POOL};
	struct san_volume volumes[3];
	struct san_volume_list list = {.volumes = volumes, .volumes_max = 3};
	struct san_volume_delete del = {.name = name};
	struct san_device_add add = {.dev = 2,
				     .pool = FIXTURE_POOL,
				     .chunk_shift = CHUNK_SHIFT_FLASH,
				     .slots_n = 10};
	struct san_device_remove rem = {.dev = 2};
	struct san_event events[2];
	struct san_event_list el = {.events = events, .events_max = 2};
	struct san_free frees[10];
	struct san_frees_pull pull = {.dev = c->dev, .frees = frees, .frees_max = 10};
	struct san_map_item items[256];
	struct san_map look = {
	    .volume = c->v.id, .first = 700, .n = 1, .items = items, .items_max = 4};
	struct san_map_walk walk = {.items = items, .items_max = 256};
	struct san_job_step step;
	struct map_entry e;
	int r;

	if ((r = SAN_CALL(fx, san_volume_create, &create)) ||
	    (r = SAN_CALL(fx, san_volume_list, &list)) ||
	    (r = SAN_CALL(fx, san_volume_delete, &del)))
		return r;
	step = (struct san_job_step){.job = del.job};
	do
		r = SAN_CALL(fx, san_volume_delete_step, &step);
	while (r == 0 && !step.finished);
	if (r || (r = SAN_CALL(fx, san_device_add, &add)) ||
	    (r = SAN_CALL(fx, san_device_remove, &rem)) || (r = SAN_CALL(fx, san_event_list, &el)) ||
	    (r = fx_alloc(fx, &c->v, c->epoch, 700, 1, NULL)) || (r = SAN_CALL(fx, san_map, &look)))
		return r;
	e = items[0].entry;
	if ((r = fx_update(fx, &c->v, c->epoch, 700, SAN_UNMAP, e.replicas[0].cgen)) ||
	    (r = SAN_CALL(fx, san_frees_pull, &pull)) || (r = SAN_CALL(fx, san_map_walk, &walk)) ||
	    (r = SAN_CALL(fx, san_check, &c->op)))
		return r;
	san_frees_forget(fx->san, c->dev);
	return c->op.problems_n ? -EUCLEAN : 0;
}

/* The Nth allocation fails, for each N: a clean error, a consistent state, and the same again succeeds. Failures inside the stand-in database end the
 * service (a real one has no such failure that leaves anything known); then the process starts again. */
static void test_no_memory(void **state)
{
	struct checked *c = *state;
	char name[NAME_LEN_MAX + 1];
	uint32_t failures = 0;
	int r = -ENOMEM;

	san_number_take(c->fx.san, SAN_NUMBER_DEVICE);
	for (uint64_t n = 0; r; n++) {
		snprintf(name, sizeof(name), "v%d", (int)n);
		c->fx.cache_bytes = 1; /* so that pages are read again */
		mem_fail_at(n, 1);
		r = everything(c, name);
		mem_fail_at(UINT64_MAX, 0);
		failures += r != 0;
		assert_true(r == 0 || r == -ENOMEM || c->fx.failed);
		c->fx.failed = 0;
		san_fixture_crash(&c->fx);
		fx_check(&c->fx);
		san_raw_check(&c->fx.st);
	}
	assert_true(failures > 30);
}

static void test_no_memory_at_open(void **state)
{
	struct checked *c = *state;
	char errmsg[ERRMSG_LEN];
	int r = -ENOMEM;

	for (uint64_t n = 0; r; n++) {
		if (c->fx.san) {
			san_abandon(c->fx.san);
			c->fx.san = NULL;
		}
		mem_fail_at(n, 1);
		r = san_fixture_open(&c->fx, errmsg);
		mem_fail_at(UINT64_MAX, 0);
		assert_true(r == 0 || r == -ENOMEM);
		assert_true(n < 100);
	}
	fx_check(&c->fx);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_counts),
	    T(test_entry_lost_from_the_map),
	    T(test_slot_mapped_twice),
	    T(test_entry_out_of_bounds),
	    T(test_intents),
	    T(test_damaged_pages),
	    T(test_records),
	    T(test_missing_records),
	    T(test_changes_amid_a_check),
	    T(test_check_under_load),
	    T(test_damaged_records_are_refused),
	    T(test_no_memory),
	    T(test_no_memory_at_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
