/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes: create, look, list, grow, delete; and who owns them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "metadata/san/schema.h"
#include "src/base/mem.h"
#include "tests/lib/san_fixture.h"

static int setup(void **state)
{
	struct san_fixture *fx = calloc(1, sizeof(*fx));

	san_fixture_init(fx, STORE_MEM, 1);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	san_fixture_free(*state);
	free(*state);
	assert_int_equal(mem_live(), 0);
	return 0;
}

static struct san_volume_create creation(const char *name)
{
	return (struct san_volume_create){
	    .name = name,
	    .size_bytes = 64 << 20,
	    .sector_bytes = 4096,
	    .chunk_shift = CHUNK_SHIFT_FLASH,
	    .pool = 7,
	    .policy = 3,
	    .write_cache = SAN_CACHE_WRITETHROUGH,
	};
}

static int get(struct san_fixture *fx, const char *name, struct san_volume *ret_v)
{
	struct san_volume_get op = {.name = name};
	int r = SAN_CALL(fx, san_volume_get, &op);

	if (r == 0 && ret_v)
		*ret_v = op.volume;
	return r;
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

/* ---- create ---------------------------------------------------------------------------------------------------------------- */

static void test_create_and_get(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume_create op = creation("vm-1.root");
	struct san_volume v;

	assert_int_equal(SAN_CALL(fx, san_volume_create, &op), 0);
	assert_int_equal(op.volume.id, 1);
	assert_int_equal(op.volume.head, 1);
	assert_false(uuid_is_zero(&op.volume.uuid));
	assert_int_equal(fx->told_layers_n, 1);
	assert_int_equal(fx->told_layers[0].layer, 1);
	assert_int_equal(fx->told_layers[0].commit, op.req.commit);
	san_fixture_crash(fx);
	assert_int_equal(get(fx, "vm-1.root", &v), 0);
	assert_memory_equal(&v, &op.volume, sizeof(v));
	assert_int_equal(v.pool, 7);
	assert_int_equal(v.policy, 3);
	assert_int_equal(v.write_cache, SAN_CACHE_WRITETHROUGH);
	assert_int_equal(v.sector_bytes, 4096);
	assert_int_equal(v.epoch, 0);
	assert_false(v.is_open);
	assert_int_equal(get(fx, "vm-1", NULL), -ENOENT);
	fx_check(fx);
}

static void test_create_refusals(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume_create op = creation("a");
	static const char *bad_names[] = {
	    "",
	    ".a",
	    "a/b",
	    "-a",
	    "a b",
	    "a\n",
	    "0123456789012345678901234567890123456789012345678901234567890123"};
	static const uint64_t bad_sizes[] = {0, 1, 4095, 4097, (1ULL << 50) + 4096, UINT64_MAX};

	for (size_t i = 0; i < ARRAY_LEN(bad_names); i++) {
		op = creation(bad_names[i]);
		assert_int_equal(SAN_CALL(fx, san_volume_create, &op), -EINVAL);
		assert_non_null(strstr(op.req.errmsg, "name"));
	}
	for (size_t i = 0; i < ARRAY_LEN(bad_sizes); i++) {
		op = creation("a");
		op.size_bytes = bad_sizes[i];
		assert_int_equal(SAN_CALL(fx, san_volume_create, &op), -EINVAL);
		assert_non_null(strstr(op.req.errmsg, "4096"));
	}
	op = creation("a");
	op.sector_bytes = 1024;
	assert_int_equal(SAN_CALL(fx, san_volume_create, &op), -EINVAL);
	op = creation("a");
	op.chunk_shift = 21;
	assert_int_equal(SAN_CALL(fx, san_volume_create, &op), -EINVAL);
	op = creation("a");
	op.write_cache = 3;
	assert_int_equal(SAN_CALL(fx, san_volume_create, &op), -EINVAL);
	assert_int_equal(san_volumes_n(fx->san), 0);

	op = creation("a");
	assert_int_equal(SAN_CALL(fx, san_volume_create, &op), 0);
	op = creation("a");
	assert_int_equal(SAN_CALL(fx, san_volume_create, &op), -EEXIST);
	assert_non_null(strstr(op.req.errmsg, "a already"));
	op = creation("biggest");
	op.size_bytes = VOLUME_BYTES_MAX;
	assert_int_equal(SAN_CALL(fx, san_volume_create, &op), 0);
	op = creation("smallest");
	op.size_bytes = VOLUME_BYTES_MIN;
	assert_int_equal(SAN_CALL(fx, san_volume_create, &op), 0);
	fx_check(fx);
}

/* Two creations of the same name in one batch: one of them wins. */
static void test_create_race(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume_create a = creation("x"), b = creation("x");

	a.req.done = b.req.done = san_waited;
	san_volume_create(fx->san, &a);
	san_volume_create(fx->san, &b);
	san_wait(fx, &b.req);
	assert_int_equal(a.req.status, 0);
	assert_int_equal(b.req.status, -EEXIST);
	/* the loser was told about a volume that is durable */
	assert_int_equal(a.req.commit, b.req.commit);
	fx_check(fx);
}

/* ---- options and what goes with the registry -------------------------------------------------------------------------------- */

static void test_exclusive_is_kept(void **state)
{
	static const bool yes = true, no = false;
	struct san_fixture *fx = *state;
	struct san_volume_set set = {.name = "x", .write_cache = -1, .exclusive = &yes};
	struct san_volume v;

	fx_volume(fx, "x", 4);
	assert_int_equal(SAN_CALL(fx, san_volume_set, &set), 0);
	assert_true(set.volume.exclusive);
	set.exclusive = NULL; /* something else */
	set.size_bytes = 8 << 20;
	assert_int_equal(SAN_CALL(fx, san_volume_set, &set), 0);
	fx_open(fx, "x");
	san_fixture_crash(fx);
	assert_int_equal(get(fx, "x", &v), 0);
	assert_true(v.exclusive);
	set = (struct san_volume_set){.name = "x", .write_cache = -1, .exclusive = &no};
	assert_int_equal(SAN_CALL(fx, san_volume_set, &set), 0);
	assert_false(set.volume.exclusive);
}

/* The record of a node or pool goes with the look whether it may, in one commit. */
static void test_who_leaves_is_not_needed(void **state)
{
	struct san_fixture *fx = *state;
	struct metastore_change put[] = {{.key = {"N1", 2}, .value = {"n", 1}},
					 {.key = {"P1", 2}, .value = {"p", 1}}};
	struct metastore_change del[] = {{.key = {"N1", 2}}, {.key = {"P1", 2}}};
	struct san_records records = {.changes = put, .changes_n = 2};
	struct san_node_leave node = {.node = FIXTURE_NODE, .also = &del[0], .also_n = 1};
	struct san_pool_leave pool = {.pool = FIXTURE_POOL, .also = &del[1], .also_n = 1};
	struct san_volume_close close = {0};
	struct san_volume_delete delete = {.name = "x"};
	struct san_device_remove remove = {.dev = fx_device(fx, 10)};
	struct san_volume v = fx_volume(fx, "x", 4);

	assert_int_equal(SAN_CALL(fx, san_records, &records), 0);
	assert_int_equal(san_volume_pool(fx->san, v.id), FIXTURE_POOL);
	assert_int_equal(san_volume_pool(fx->san, v.id + 1), 0);
	close.epoch = fx_open(fx, "x");
	close.volume = v.id;
	assert_int_equal(SAN_CALL(fx, san_node_leave, &node), -E_IN_USE);
	assert_string_equal(node.req.errmsg, "volume x is open there");
	node.node++;
	node.also_n = 0;
	assert_int_equal(SAN_CALL(fx, san_node_leave, &node), 0); /* another one */
	node.node--;
	node.also_n = 1;
	assert_int_equal(store_expect(&fx->st, "N1", "n"), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_close, &close), 0);
	assert_int_equal(SAN_CALL(fx, san_node_leave, &node), 0);
	assert_int_equal(store_expect(&fx->st, "N1", NULL), 0);

	assert_true(san_pool_has_volumes(fx->san, FIXTURE_POOL));
	assert_int_equal(SAN_CALL(fx, san_pool_leave, &pool), -ENOTEMPTY);
	assert_string_equal(pool.req.errmsg, "volume x is in it");
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &delete), 0);
	assert_int_equal(SAN_CALL(fx, san_pool_leave, &pool), -ENOTEMPTY);
	assert_string_equal(pool.req.errmsg, "volume x is in it, being deleted");
	fx_run_job(fx, delete.job);
	assert_false(san_pool_has_volumes(fx->san, FIXTURE_POOL));
	assert_int_equal(SAN_CALL(fx, san_pool_leave, &pool), -ENOTEMPTY);
	assert_int_equal(store_expect(&fx->st, "P1", "p"), 0);
	assert_int_equal(SAN_CALL(fx, san_device_remove, &remove), 0);
	assert_int_equal(SAN_CALL(fx, san_pool_leave, &pool), 0);
	assert_int_equal(store_expect(&fx->st, "P1", NULL), 0);
}

/* ---- list ------------------------------------------------------------------------------------------------------------------ */

static void test_list_pages(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume volumes[7];
	struct san_volume_list op = {.volumes = volumes, .volumes_max = 7};
	char name[32], last[32] = "";
	uint32_t seen = 0;

	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "v%02d", i * 37 % 50);
		fx_volume(fx, name, 4);
	}
	do {
		assert_int_equal(SAN_CALL(fx, san_volume_list, &op), 0);
		for (uint32_t i = 0; i < op.volumes_n; i++, seen++) {
			snprintf(name, sizeof(name), "v%02u", seen);
			assert_string_equal(volumes[i].name, name);
			assert_true(strcmp(volumes[i].name, last) > 0);
			snprintf(last, sizeof(last), "%s", name);
		}
		snprintf(op.after, sizeof(op.after), "%s", last);
	} while (op.more);
	assert_int_equal(seen, 50);
	op.volumes_max = 0;
	assert_int_equal(SAN_CALL(fx, san_volume_list, &op), -EINVAL);
	op.volumes_max = SAN_LIST_MAX + 1;
	assert_int_equal(SAN_CALL(fx, san_volume_list, &op), -EINVAL);
	op.volumes_max = 7;
	strcpy(op.after, "zzz"); /* check-calls: allow */
	assert_int_equal(SAN_CALL(fx, san_volume_list, &op), 0);
	assert_int_equal(op.volumes_n, 0);
	assert_false(op.more);
}

/* ---- change ---------------------------------------------------------------------------------------------------------------- */

static void test_set(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 4);
	struct san_volume_set op = {.name = "a", .size_bytes = 9 << 20, .write_cache = -1};
	uint32_t policy = 5;
	struct san_layer l;

	assert_int_equal(SAN_CALL(fx, san_volume_set, &op), 0);
	assert_int_equal(op.volume.size_bytes, 9 << 20);
	assert_int_equal(fx->told_layers_n, 2);
	assert_int_equal(san_layer_get(fx->san, v.head, &l), 0);
	assert_int_equal(l.size_bytes, 9 << 20);
	assert_int_equal(l.commit, op.req.commit);
	op.size_bytes = 8 << 20;
	assert_int_equal(SAN_CALL(fx, san_volume_set, &op), -EINVAL);
	assert_non_null(strstr(op.req.errmsg, "shrink"));
	op.size_bytes = (9 << 20) + 1;
	assert_int_equal(SAN_CALL(fx, san_volume_set, &op), -EINVAL);
	op.size_bytes = 9 << 20; /* as it is */
	assert_int_equal(SAN_CALL(fx, san_volume_set, &op), 0);
	op.size_bytes = 0;
	op.policy = &policy;
	assert_int_equal(SAN_CALL(fx, san_volume_set, &op), 0);
	assert_int_equal(fx->told_layers_n, 2); /* devices know nothing of policies */
	op.policy = NULL;
	op.write_cache = SAN_CACHE_WRITEBACK;
	assert_int_equal(SAN_CALL(fx, san_volume_set, &op), 0);
	assert_int_equal(fx->told_layers_n, 3);
	assert_int_equal(fx->told_layers[2].layer, v.head);
	assert_int_equal(fx->told_layers[2].commit, op.req.commit);
	assert_int_equal(san_layer_get(fx->san, v.head, &l), 0);
	assert_int_equal(l.write_cache, SAN_CACHE_WRITEBACK);
	assert_int_equal(l.sector_bytes, v.sector_bytes);
	assert_int_equal(l.commit, op.req.commit);
	assert_int_equal(SAN_CALL(fx, san_volume_set, &op), 0); /* as it is */
	assert_int_equal(fx->told_layers_n, 3);
	san_fixture_crash(fx);
	assert_int_equal(san_layer_get(fx->san, v.head, &l), 0);
	assert_int_equal(l.write_cache, SAN_CACHE_WRITEBACK);
	assert_int_equal(l.commit, fx->told_layers[2].commit);
	assert_int_equal(get(fx, "a", &v), 0);
	assert_int_equal(v.size_bytes, 9 << 20);
	assert_int_equal(v.policy, 5);
	assert_int_equal(v.write_cache, SAN_CACHE_WRITEBACK);
	op.name = "b";
	assert_int_equal(SAN_CALL(fx, san_volume_set, &op), -ENOENT);
	fx_check(fx);
}

/* ---- delete ---------------------------------------------------------------------------------------------------------------- */

static void test_delete(void **state)
{
	struct san_fixture *fx = *state;
	device_no dev = fx_device(fx, 2000);
	struct san_volume v = fx_volume(fx, "a", 1500), w;
	struct san_volume_delete del = {.name = "a"};
	struct san_volume_get by_id = {.id = v.id};
	struct san_device d;
	struct san_layer l;
	uint64_t epoch = fx_open(fx, "a");
	struct san_volume_close cl = {.volume = v.id, .epoch = epoch};

	assert_int_equal(fx_alloc(fx, &v, epoch, 0, 700, NULL), 0);
	assert_int_equal(fx_alloc(fx, &v, epoch, 1000, 500, NULL), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), -E_IN_USE);
	assert_int_equal(SAN_CALL(fx, san_volume_close, &cl), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), 0);
	assert_int_equal(del.job, 1);
	assert_int_equal(fx->told_jobs_n, 1);
	assert_int_equal(fx->told_jobs[0], 1);
	assert_false(fx->told_layers[fx->told_layers_n - 1].gone);
	assert_int_equal(san_layer_get(fx->san, v.head, &l), 0);
	assert_true(l.deleted);
	assert_string_equal(l.name, "a");
	assert_int_equal(l.commit, fx->told_layers[fx->told_layers_n - 1].commit);

	/* gone by name, there by id; again gives the same job; the name is free */
	assert_int_equal(get(fx, "a", NULL), -ENOENT);
	assert_int_equal(SAN_CALL(fx, san_volume_get, &by_id), 0);
	assert_int_equal(by_id.volume.state, SAN_VOLUME_DELETING);
	assert_int_equal(by_id.volume.delete_job, 1);
	del.name = NULL;
	del.id = v.id;
	assert_int_equal(SAN_CALL(fx, san_volume_delete, &del), 0);
	assert_int_equal(del.job, 1);
	w = fx_volume(fx, "a", 10);
	assert_int_not_equal(w.id, v.id);

	/* interrupted after two steps */
	struct san_job_step step = {.job = 1};
	struct san_job_get jg = {.id = 1};

	assert_int_equal(SAN_CALL(fx, san_volume_delete_step, &step), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_delete_step, &step), 0);
	assert_false(step.finished);
	san_fixture_crash(fx);
	sim_sleep(&fx->st.sim, 1000 * 1000);
	assert_int_equal(fx->told_jobs_n, 1);
	assert_int_equal(fx->told_frees_n, 1);
	fx_check(fx);
	assert_int_equal(SAN_CALL(fx, san_job_get, &jg), 0);
	assert_int_equal(jg.job.state, SAN_JOB_RUNNING);
	assert_int_equal(jg.job.total_n, 1200);
	assert_true(jg.job.done_n > 0 && jg.job.done_n < 1200);
	fx->told_layers_n = 0;
	fx_run_job(fx, 1);
	assert_int_equal(fx->told_layers_n, 1);
	assert_int_equal(fx->told_layers[0].layer, v.head);
	assert_true(fx->told_layers[0].gone);
	assert_int_equal(san_layer_get(fx->san, v.head, &l), -ENOENT);
	assert_int_equal(SAN_CALL(fx, san_job_get, &jg), 0);
	assert_int_equal(jg.job.done_n, 1200);
	assert_string_equal(jg.job.subject, "a");
	assert_int_equal(SAN_CALL(fx, san_volume_get, &by_id), -ENOENT);
	assert_int_equal(san_device_get(fx->san, dev, &d), 0);
	assert_int_equal(d.used_n, 0);
	assert_int_equal(d.freeing_n, 1200);
	fx_check(fx);
	assert_int_equal(fx_free_all(fx, dev), 1200);
	assert_int_equal(san_device_get(fx->san, dev, &d), 0);
	assert_int_equal(d.freeing_n, 0);
	san_fixture_crash(fx);
	fx_check(fx);
	assert_int_equal(get(fx, "a", &w), 0);
}

/* Created and deleted, and created again, all in one turn. */
static void test_delete_and_create_in_one_turn(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume_create a = creation("x"), b = creation("x");
	struct san_volume_delete del = {.name = "x"};
	struct san_volume v;

	a.req.done = b.req.done = del.req.done = san_waited;
	san_volume_create(fx->san, &a);
	san_volume_delete(fx->san, &del);
	san_volume_create(fx->san, &b);
	san_wait(fx, &b.req);
	assert_int_equal(a.req.status, 0);
	assert_int_equal(del.req.status, 0);
	assert_int_equal(b.req.status, 0);
	fx_check(fx);
	fx_run_job(fx, del.job);
	fx_check(fx);
	san_fixture_crash(fx);
	assert_int_equal(get(fx, "x", &v), 0);
	assert_int_equal(v.id, b.volume.id);
	fx_check(fx);
}

/* ---- owners ---------------------------------------------------------------------------------------------------------------- */

static struct san_volume_open *opening(node_no node, uint8_t start)
{
	static struct san_volume_open op;

	op = (struct san_volume_open){.name = "a", .node = node, .start = {{start}}};
	return &op;
}

static void test_owner(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume v = fx_volume(fx, "a", 4);
	struct san_volume_open *op = opening(1, 1);
	struct san_volume_close cl = {.volume = v.id};

	assert_int_equal(SAN_CALL(fx, san_volume_open, op), 0);
	assert_int_equal(op->volume.epoch, 1);
	assert_int_equal(op->volume.epoch_commit, op->req.commit);
	assert_false(op->fence);
	assert_int_equal(op->layers_n, 1);
	assert_int_equal(op->layers[0], v.head);
	/* asking again is harmless, also after a crash of the server */
	san_fixture_crash(fx);
	op = opening(1, 1);
	assert_int_equal(SAN_CALL(fx, san_volume_open, op), 0);
	assert_int_equal(op->volume.epoch, 1);
	/* another node is told who has it */
	op = opening(2, 9);
	assert_int_equal(SAN_CALL(fx, san_volume_open, op), -E_NOT_OWNER);
	assert_int_equal(op->volume.owner, 1);
	/* the owner restarted */
	op = opening(1, 2);
	assert_int_equal(SAN_CALL(fx, san_volume_open, op), 0);
	assert_int_equal(op->volume.epoch, 2);
	assert_true(op->fence);
	assert_int_equal(op->fence_node, 1);
	assert_int_equal(op->fence_start.b[0], 1);
	/* a late close of the old process */
	cl.epoch = 1;
	assert_int_equal(SAN_CALL(fx, san_volume_close, &cl), -E_STALE_EPOCH);
	cl.epoch = 2;
	assert_int_equal(SAN_CALL(fx, san_volume_close, &cl), 0);
	assert_int_equal(SAN_CALL(fx, san_volume_close, &cl), 0);
	/* the same process again: the same epoch */
	op = opening(1, 2);
	assert_int_equal(SAN_CALL(fx, san_volume_open, op), 0);
	assert_int_equal(op->volume.epoch, 2);
	assert_int_equal(SAN_CALL(fx, san_volume_close, &cl), 0);
	/* another node after an orderly close: a new epoch, nobody to fence */
	op = opening(2, 9);
	assert_int_equal(SAN_CALL(fx, san_volume_open, op), 0);
	assert_int_equal(op->volume.epoch, 3);
	assert_false(op->fence);
	/* by force */
	cl.epoch = 0;
	assert_int_equal(SAN_CALL(fx, san_volume_close, &cl), 0);
	san_fixture_crash(fx);
	op = opening(2, 9);
	assert_int_equal(SAN_CALL(fx, san_volume_open, op), 0);
	assert_int_equal(op->volume.epoch, 4);
	assert_true(op->fence);
	assert_int_equal(op->fence_node, 2);
	cl.volume = 99;
	assert_int_equal(SAN_CALL(fx, san_volume_close, &cl), -ENOENT);
	fx_check(fx);
}

static void test_node_release(void **state)
{
	struct san_fixture *fx = *state;
	struct san_node_release rel = {.node = FIXTURE_NODE, .start = fx->start};
	struct san_volume_open *op;
	char name[16];

	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "v%d", i);
		fx_volume(fx, name, 1);
		if (i % 2 == 0)
			fx_open(fx, name);
	}
	fx_volume(fx, "a", 1);
	op = opening(2, 7);
	assert_int_equal(SAN_CALL(fx, san_volume_open, op), 0);
	/* the process itself says hello again: nothing */
	assert_int_equal(SAN_CALL(fx, san_node_release, &rel), 0);
	assert_int_equal(rel.closed_n, 0);
	/* a new one: everything of the old, in more than one batch */
	rel.start.b[0] = 77;
	assert_int_equal(SAN_CALL(fx, san_node_release, &rel), 0);
	assert_int_equal(rel.closed_n, 100);
	san_fixture_crash(fx);
	op = opening(1, 77);
	op->name = "v4";
	assert_int_equal(SAN_CALL(fx, san_volume_open, op), 0);
	assert_int_equal(op->volume.epoch, 2);
	assert_true(op->fence);
	op = opening(1, 77);
	assert_int_equal(SAN_CALL(fx, san_volume_open, op), -E_NOT_OWNER);
	fx_check(fx);
}

/* ---- numbers --------------------------------------------------------------------------------------------------------------- */

static void test_numbers_and_records(void **state)
{
	struct san_fixture *fx = *state;
	struct metastore_change c = {bytes_of("Nnode"), bytes_of("x")};
	struct san_records rec = {.changes = &c, .changes_n = 1};
	struct san_cgen_raise raise = {.cgen = 1000};
	struct uuid cluster = san_cluster(fx->san);

	assert_int_equal(san_number_take(fx->san, SAN_NUMBER_NODE), 1);
	assert_int_equal(san_number_take(fx->san, SAN_NUMBER_NODE), 2);
	assert_int_equal(san_number_take(fx->san, SAN_NUMBER_POLICY), 1);
	assert_int_equal(SAN_CALL(fx, san_records, &rec), 0);
	assert_int_equal(SAN_CALL(fx, san_cgen_raise, &raise), 0);
	san_fixture_crash(fx);
	assert_int_equal(san_number_take(fx->san, SAN_NUMBER_NODE), 3);
	assert_int_equal(san_cgen(fx->san), 1000);
	struct uuid again = san_cluster(fx->san);
	assert_true(uuid_equal(&cluster, &again));
	assert_int_equal(store_expect(&fx->st, "Nnode", "x"), 0);
	raise.cgen = 10;
	assert_int_equal(SAN_CALL(fx, san_cgen_raise, &raise), 0);
	assert_int_equal(san_cgen(fx->san), 1000);
	/* not into the SAN's own tables */
	c.key = bytes_of("v1234");
	assert_int_equal(SAN_CALL(fx, san_records, &rec), -EINVAL);
}

/* ---- once ------------------------------------------------------------------------------------------------------------------ */

static int once(struct san_fixture *fx, const char *key, struct san_once_get *ret_op)
{
	*ret_op = (struct san_once_get){.key = key};
	return SAN_CALL(fx, san_once_get, ret_op);
}

static void sleep_long(struct san_fixture *fx, uint64_t ns)
{
	const uint64_t most = 500000000000;

	for (; ns > most; ns -= most)
		sim_sleep(&fx->st.sim, most);
	sim_sleep(&fx->st.sim, ns);
}

static void test_once(void **state)
{
	struct san_fixture *fx = *state;
	static const char longest[] =
	    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	struct san_volume_create vol = creation("a");
	struct san_job_create job = {.kind = SAN_JOB_OTHER,
				     .subject = "",
				     .once = {longest, UINT64_MAX}};
	struct san_once_get op;

	vol.once = (struct san_once){"k 1", 77};
	assert_int_equal(SAN_CALL(fx, san_volume_create, &vol), 0);
	assert_int_equal(SAN_CALL(fx, san_job_create, &job), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(once(fx, "k 1", &op), 0);
		assert_int_equal(op.what, SAN_ONCE_VOLUME);
		assert_int_equal(op.id, vol.volume.id);
		assert_int_equal(op.request, 77);
		assert_int_equal(once(fx, longest, &op), 0);
		assert_int_equal(op.what, SAN_ONCE_JOB);
		assert_int_equal(op.id, job.job);
		assert_true(op.request == UINT64_MAX);
		assert_int_equal(once(fx, "k", &op), -ENOENT);
		san_fixture_crash(fx);
	}
	/* what was refused made nothing */
	vol.once.key = "k 2";
	assert_int_equal(SAN_CALL(fx, san_volume_create, &vol), -EEXIST);
	assert_int_equal(once(fx, "k 2", &op), -ENOENT);
	vol = creation("b");
	vol.once.key = "";
	assert_int_equal(SAN_CALL(fx, san_volume_create, &vol), -EINVAL);
	job.once.key = "10123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	assert_int_equal(SAN_CALL(fx, san_job_create, &job), -EINVAL);
	/* for a day, and then the key may stand for something else */
	sleep_long(fx, SAN_ONCE_KEPT_NS - 1000000000);
	assert_int_equal(once(fx, "k 1", &op), 0);
	sleep_long(fx, 2000000000);
	assert_int_equal(once(fx, "k 1", &op), -ENOENT);
	vol.once = (struct san_once){"k 1", 78};
	assert_int_equal(SAN_CALL(fx, san_volume_create, &vol), 0);
	assert_int_equal(once(fx, "k 1", &op), 0);
	assert_int_equal(op.request, 78);
	fx_check(fx);
}

/* As many as are kept, and no more; what goes leaves the database too. */
static void test_once_is_bounded(void **state)
{
	struct san_fixture *fx = *state;
	struct schema_key k = schema_key_64(SCHEMA_ONCE, 9);
	struct metastore_guard gone = {schema_key_bytes(&k), {NULL, 0}};
	struct san_once_get op;
	char name[32];

	for (int i = 1; i <= SAN_ONCE_KEPT + 9; i++) {
		struct san_volume_create vol = creation(name);

		snprintf(name, sizeof(name), "v%d", i);
		vol.once = (struct san_once){name, (uint64_t)i};
		assert_int_equal(SAN_CALL(fx, san_volume_create, &vol), 0);
		if (i == SAN_ONCE_KEPT / 2)
			san_fixture_crash(fx);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(once(fx, "v9", &op), -ENOENT);
		assert_int_equal(once(fx, "v10", &op), 0);
		assert_int_equal(op.id, 10);
		assert_int_equal(once(fx, name, &op), 0);
		assert_int_equal(op.id, SAN_ONCE_KEPT + 9);
		san_fixture_crash(fx);
	}
	assert_int_equal(store_commit(&fx->st, &gone, 1, NULL, 0, NULL), 0);
	k = schema_key_64(SCHEMA_ONCE, 10);
	assert_int_equal(store_commit(&fx->st, &gone, 1, NULL, 0, NULL), -E_GUARD);
}

/* However often one object changes in a batch, it is one object: told once. */
static void test_many_changes_in_one_batch(void **state)
{
	enum { CHANGES = METASTORE_BATCH_MAX + 50 };
	struct san_fixture *fx = *state;
	static struct san_volume_set ops[CHANGES];
	struct san_volume v;

	fx_volume(fx, "a", 1);
	fx->told_layers_n = 0;
	for (uint32_t i = 0; i < CHANGES; i++) {
		ops[i] = (struct san_volume_set){.req.done = san_waited,
						 .name = "a",
						 .size_bytes = (2ULL + i) << 20,
						 .write_cache = -1};
		san_volume_set(fx->san, &ops[i]);
	}
	san_wait(fx, &ops[CHANGES - 1].req);
	for (uint32_t i = 0; i < CHANGES; i++)
		assert_int_equal(ops[i].req.status, 0);
	sim_sleep(&fx->st.sim, 1000000);
	assert_int_equal(fx->told_layers_n, 1);
	assert_int_equal(get(fx, "a", &v), 0);
	assert_int_equal(v.size_bytes, (1ULL + CHANGES) << 20);
}

/* Two servers on one database: the guard stops the one whose picture is old, for good. */
static void test_second_writer(void **state)
{
	struct san_fixture *fx = *state, other = {.st = fx->st};
	struct san_volume_create op = creation("c"), late = creation("d");
	struct san_volume_get g = {.name = "a"};
	char errmsg[ERRMSG_LEN];
	bool closed = false;

	fx_volume(fx, "a", 1);
	assert_int_equal(san_fixture_open(&other, errmsg), 0);
	assert_int_equal(SAN_CALL(&other, san_volume_get, &g), 0);
	fx_volume(fx, "b", 1);
	late.req.done = san_waited;
	san_volume_create(other.san, &late);
	assert_int_equal(SAN_CALL(&other, san_volume_create, &op), -E_GUARD);
	assert_int_equal(late.req.status, -E_GUARD);
	assert_int_equal(other.failed, -E_GUARD);
	/* nothing is served from an old picture any more */
	assert_int_equal(SAN_CALL(&other, san_volume_get, &g), -E_GUARD);
	assert_int_equal(SAN_CALL(&other, san_volume_create, &op), -E_GUARD);
	san_event(other.san, SAN_INFO, "late", "nobody hears it");
	san_close(other.san, set_flag, &closed);
	sim_run_until(fx->st.sim.w, &closed);
	/* the other one never noticed */
	fx_volume(fx, "c", 1);
	fx_check(fx);
}

/* An answer never shows what is not durable: a look at what is just being committed is answered with it. */
static void test_no_look_ahead(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume_create create = creation("a");
	struct san_volume_get g = {.name = "a"};

	create.req.done = san_waited;
	san_volume_create(fx->san, &create);
	while (san_volumes_n(fx->san) == 0)
		assert_true(sim_step(fx->st.sim.w));
	assert_int_equal(create.req.commit, 0); /* executed, not answered */
	assert_int_equal(SAN_CALL(fx, san_volume_get, &g), 0);
	assert_true(create.req.commit > 0);
	assert_int_equal(g.req.commit, create.req.commit);
}

static void foreign_done(struct metastore_commit *r)
{
	(void)r;
}

/* A commit that is not ours, and touches nothing of ours, is noticed by its number. */
static void test_foreign_commit(void **state)
{
	struct san_fixture *fx = *state;
	struct metastore_change change = {bytes_of("Zone"), bytes_of("x")};
	struct metastore_commit foreign = {.changes = &change, .changes_n = 1, .done = foreign_done};
	struct san_volume_create create = creation("a");

	metastore_commit(fx->st.s, &foreign);
	assert_int_equal(SAN_CALL(fx, san_volume_create, &create), -E_GUARD);
	assert_int_equal(fx->failed, -E_GUARD);
}

/* Requests in flight finish, later ones are refused. */
static void test_close(void **state)
{
	struct san_fixture *fx = *state;
	struct san_volume_create a = creation("a"), b = creation("b");
	struct san_volume_list list = {.volumes_max = 1, .volumes = &a.volume};
	bool closed = false;

	a.req.done = b.req.done = list.req.done = san_waited;
	san_volume_create(fx->san, &a);
	san_volume_list(fx->san, &list);
	san_event(fx->san, SAN_WARNING, "last", "words");
	san_close(fx->san, set_flag, &closed);
	san_volume_create(fx->san, &b);
	sim_run_until(fx->st.sim.w, &closed);
	assert_int_equal(a.req.status, 0);
	assert_int_equal(list.req.status, 0);
	assert_int_equal(b.req.status, -ESHUTDOWN);
	assert_int_equal(san_fixture_open(fx, b.req.errmsg), 0);
	assert_int_equal(get(fx, "a", NULL), 0);
	assert_int_equal(san_event_last(fx->san), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_create_and_get),
	    T(test_create_refusals),
	    T(test_create_race),
	    T(test_exclusive_is_kept),
	    T(test_who_leaves_is_not_needed),
	    T(test_list_pages),
	    T(test_set),
	    T(test_delete),
	    T(test_delete_and_create_in_one_turn),
	    T(test_owner),
	    T(test_node_release),
	    T(test_numbers_and_records),
	    T(test_once),
	    T(test_once_is_bounded),
	    T(test_many_changes_in_one_batch),
	    T(test_second_writer),
	    T(test_no_look_ahead),
	    T(test_foreign_commit),
	    T(test_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
