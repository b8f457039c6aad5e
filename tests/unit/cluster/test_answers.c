/* SPDX-License-Identifier: Apache-2.0 */
/* Every verb of the administration in a cluster of which something is online, away, failed, lost: its answers are what docs/openapi.yaml says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "tests/lib/cluster/cluster_world.h"
#include "tests/lib/cluster/openapi.h"
#include "tests/lib/skip.h"

enum { MIB = 1 << 20 };

static struct cworld w;
static struct openapi spec;

static void ask(int expected, enum admin_verb verb, const char *subject, const char *args)
{
	json_t *answer;
	int status = cworld_admin(&w, verb, subject, args, &answer);

	if (status != expected)
		fail_msg("%s %s: %d instead of %d", admin_verb(verb).name, subject ? subject : "",
			 status, expected);
	openapi_compare(&spec, verb, status, answer);
	json_decref(answer);
}

/* Everything that only looks. */
static void look(void)
{
	ask(200, ADMIN_STATUS, NULL, NULL);
	ask(200, ADMIN_NODE_LIST, NULL, NULL);
	ask(200, ADMIN_NODE_SHOW, "node-1", NULL);
	ask(200, ADMIN_DEVICE_LIST, NULL, "{\"all\": true}");
	ask(200, ADMIN_DEVICE_SHOW, "1", NULL);
	ask(200, ADMIN_POOL_LIST, NULL, NULL);
	ask(200, ADMIN_POOL_SHOW, "default", NULL);
	ask(200, ADMIN_VOLUME_LIST, NULL, NULL);
	ask(200, ADMIN_VOLUME_SHOW, "vm1", NULL);
	ask(200, ADMIN_EXPORT_LIST, NULL, NULL);
	ask(200, ADMIN_EXPORT_SHOW, "vm1", NULL);
	ask(200, ADMIN_JOB_LIST, NULL, NULL);
	ask(200, ADMIN_EVENT_LIST, NULL, NULL);
	ask(200, ADMIN_METRICS, NULL, NULL);
}

/* Each list has a further page. */
static void look_by_pages(void)
{
	static const char one[] = "{\"limit\": 1}";

	ask(200, ADMIN_NODE_LIST, NULL, one);
	ask(200, ADMIN_DEVICE_LIST, NULL, one);
	ask(200, ADMIN_POOL_LIST, NULL, one);
	ask(200, ADMIN_VOLUME_LIST, NULL, one);
	ask(200, ADMIN_EXPORT_LIST, NULL, one);
	ask(200, ADMIN_JOB_LIST, NULL, one);
	ask(200, ADMIN_EVENT_LIST, NULL, one);
	ask(200, ADMIN_VOLUME_MAP, "big", NULL);
}

static void odd_job_created(struct san_req *r)
{
	assert_int_equal(r->status, 0);
}

/* One that fails, as nobody knows its kind. */
static void make_odd_job(struct san_job_create *op)
{
	*op = (struct san_job_create){.kind = 9999, .subject = "odd"};
	op->req.done = odd_job_created;
	san_job_create(w.metad->san, op);
	cworld_run(&w, SEC);
}

static void answers_are_what_openapi_says(void **state)
{
	static const char *const but[] = {
	    "POST /v1/metadata/backup 201", /* the database in memory makes no copies */
	    NULL,
	};
	struct cworld_call *v, *a;
	struct san_job_create odd;

	(void)state;
	if (!openapi_load(&spec))
		skip_because("needs python3-yaml, and the top of the tree as directory");
	cworld_init(&w, 1);
	cworld_metad_start(&w);
	for (int k = 1; k <= 2; k++) {
		cworld_node_start(&w, k);
		cworld_device_add(&w, k, 1);
		cworld_device_add(&w, k, 2);
	}
	ask(201, ADMIN_VOLUME_CREATE, NULL, "{\"name\": \"vm1\", \"size_bytes\": 67108864}");
	ask(201, ADMIN_VOLUME_CREATE, NULL, "{\"name\": \"big\", \"size_bytes\": 1099511627776}");
	ask(409, ADMIN_VOLUME_CREATE, NULL, "{\"name\": \"vm1\", \"size_bytes\": 67108864}");
	ask(201, ADMIN_POOL_CREATE, NULL, "{\"name\": \"slow\", \"media\": \"rotational\"}");
	ask(201, ADMIN_DEVICE_ADD, NULL, "{\"node\": 1, \"path\": \"/d\", \"size_bytes\": 1000000}");
	mock_medium("/n1-disk1")->space = (struct ioe_file_space){7, 1 << 20, 1ULL << 30};
	cworld_run(&w, 40 * SEC);
	look();
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 3, 20, a), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(cworld_write(&w, 1, v, &a->items[i]), 0);
	ask(200, ADMIN_VOLUME_RESIZE, "vm1", "{\"size_bytes\": 134217728}");
	ask(200, ADMIN_VOLUME_MAP, "vm1", NULL);
	ask(200, ADMIN_VOLUME_STATS, "vm1", NULL);
	ask(200, ADMIN_VOLUME_STATS, "big", NULL);
	ask(200, ADMIN_VOLUME_BENCH, "vm1", NULL);
	ask(200, ADMIN_EXPORT_SET, "vm1", "{\"exclusive\": true}");
	look();

	ask(202, ADMIN_CHECK, NULL, NULL);
	ask(200, ADMIN_JOB_CANCEL, "1", NULL);
	mock_medium("/n1-disk1")->slots[200] =
	    (struct device_slot){.state = DEVICE_SLOT_OPEN, .cgen = 77};
	cworld_node_kill(&w, 2);
	cworld_run(&w, SEC);
	ask(202, ADMIN_CHECK, NULL, NULL);
	make_odd_job(&odd);
	cworld_run(&w, 5 * SEC);
	ask(200, ADMIN_JOB_SHOW, "2", NULL);
	ask(200, ADMIN_JOB_SHOW, "3", NULL);
	ask(501, ADMIN_METADATA_BACKUP, NULL, "{\"path\": \"/backup\"}");
	look();
	look_by_pages();

	ask(201, ADMIN_DEVICE_ADD, NULL, "{\"node\": 1, \"path\": \"/e\", \"size_bytes\": 1000000}");
	ask(200, ADMIN_DEVICE_REMOVE, "6", NULL);
	ask(202, ADMIN_DEVICE_REMOVE, "4", "{\"lost\": true}");
	assert_int_equal(cworld_close(&w, 1, v), 0);
	ask(200, ADMIN_VOLUME_RELEASE, "vm1", NULL);
	ask(409, ADMIN_NODE_REMOVE, "node-2", NULL);
	ask(202, ADMIN_DEVICE_REMOVE, "3", "{\"lost\": true}");
	ask(200, ADMIN_NODE_REMOVE, "node-2", NULL);
	ask(202, ADMIN_VOLUME_DELETE, "vm1", NULL);
	ask(400, ADMIN_POOL_REMOVE, "default", NULL);
	ask(200, ADMIN_POOL_REMOVE, "slow", NULL);
	ask(200, ADMIN_VOLUME_LIST, NULL, NULL);
	openapi_complete(&spec, but);
	cworld_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(answers_are_what_openapi_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
