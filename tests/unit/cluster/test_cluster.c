/* SPDX-License-Identifier: Apache-2.0 */
/* A metadata server and nodes together: joining, devices, volumes, owners and epochs, and what happens when somebody dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io-path/device/format.h"
#include "src/base/mem.h"
#include "tests/lib/cluster/cluster_world.h"

enum { MIB = 1 << 20 };
#define MS ((uint64_t)1000000)

static struct cworld w;

/* A cluster of n nodes with two devices each. */
static void begin(uint64_t seed, int nodes)
{
	cworld_init(&w, seed);
	cworld_metad_start(&w);
	for (int k = 1; k <= nodes; k++) {
		cworld_node_start(&w, k);
		cworld_device_add(&w, k, 1);
		cworld_device_add(&w, k, 2);
	}
}

static struct mock_medium *medium_of(device_no no)
{
	char path[32];

	snprintf(path, sizeof(path), "/n%d-disk%d", (no + 1) / 2, (no + 1) % 2 + 1);
	assert_int_equal(mock_medium(path)->number, no);
	return mock_medium(path);
}

static uint64_t epoch_on(device_no no, volume_id volume)
{
	return mock_epoch(medium_of(no), volume);
}

static void expect_state(const char *device, const char *state)
{
	json_t *answer;

	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_SHOW, device, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "state"), state);
	json_decref(answer);
}

static void expect_error(int expected_status, const char *code, enum admin_verb verb,
			 const char *subject, const char *args)
{
	json_t *answer;
	int status = cworld_admin(&w, verb, subject, args, &answer);

	if (status != expected_status)
		fail_msg("%d instead of %d", status, expected_status);
	assert_string_equal(cworld_text(answer, "code"), code);
	json_decref(answer);
}

/* ---- joining ------------------------------------------------------------------------------------------------------------------------------ */

static void a_node_joins_and_serves_devices(void **state)
{
	json_t *answer;

	(void)state;
	begin(1, 1);
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_LIST, NULL, NULL, &answer), 200);
	assert_int_equal(cworld_int(answer, "items.0.number"), 1);
	assert_int_equal(cworld_int(answer, "items.1.number"), 2);
	assert_string_equal(cworld_text(answer, "items.1.state"), "ok");
	assert_int_equal(cworld_int(answer, "items.1.slots"), MOCK_SLOTS);
	json_decref(answer);
	assert_int_equal(mock_medium("/n1-disk2")->number, 2);
	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "health"), "ok");
	assert_int_equal(cworld_int(answer, "devices.ok"), 2);
	json_decref(answer);
	cworld_free(&w);
}

static void everybody_finds_everything_again(void **state)
{
	json_t *answer;

	(void)state;
	begin(2, 3);
	for (int round = 0; round < 3; round++) {
		for (int k = 1; k <= 3; k++)
			cworld_node_stop(&w, k);
		cworld_metad_stop(&w);
		cworld_metad_start(&w);
		for (int k = 1; k <= 3; k++)
			cworld_node_begin(&w, k);
		cworld_until(&w, w.nodes[1].ready && w.nodes[2].ready && w.nodes[3].ready);
		cworld_run(&w, SEC); /* and the server knows that they are */
	}
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_LIST, NULL, NULL, &answer), 200);
	assert_int_equal(json_array_size(json_object_get(answer, "items")), 6);
	for (int i = 0; i < 6; i++) {
		char path[32];

		snprintf(path, sizeof(path), "items.%d.state", i);
		assert_string_equal(cworld_text(answer, path), "ok");
		snprintf(path, sizeof(path), "items.%d.node", i);
		assert_int_equal(cworld_int(answer, path), i / 2 + 1);
	}
	json_decref(answer);
	assert_int_equal(cworld_admin(&w, ADMIN_NODE_LIST, NULL, "{\"limit\": 2}", &answer), 200);
	assert_string_equal(cworld_text(answer, "next"), "2");
	json_decref(answer);
	assert_int_equal(cworld_admin(&w, ADMIN_NODE_LIST, NULL, "{\"limit\": 2, \"after\": \"2\"}",
				      &answer),
			 200);
	assert_string_equal(cworld_text(answer, "items.0.name"), "node-3");
	assert_true(json_is_null(json_object_get(answer, "next")));
	json_decref(answer);
	cworld_free(&w);
}

/* Whose node is still away at the start lets the others wait a moment; the end does not wait for that. */
static void a_server_ends_while_hellos_wait(void **state)
{
	(void)state;
	begin(2, 3);
	for (uint64_t ms = 1; ms < 300; ms += 7) {
		cworld_metad_stop(&w);
		if (w.nodes[3].e)
			cworld_node_stop(&w, 3);
		cworld_metad_start(&w);
		cworld_run(&w, ms * SEC / 1000);
	}
	cworld_run(&w, SEC);
	assert_non_null(cluster_node_by_no(&w.metad->cluster, 1)->session);
	cworld_free(&w);
}

static void a_node_of_another_cluster_is_refused(void **state)
{
	(void)state;
	begin(3, 1);
	cworld_node_stop(&w, 1);
	cworld_metad_stop(&w);
	metastore_mem_image_free(w.image); /* a new, empty database: another cluster */
	w.image = metastore_mem_image_new();
	cworld_metad_start(&w);
	cworld_node_begin(&w, 1);
	cworld_run(&w, 5 * SEC);
	assert_false(w.nodes[1].ready);
	assert_non_null(strstr(w.nodes[1].node->control.refusal, "another cluster"));
	cworld_free(&w);
}

/* A copy of a node's directory on another machine: refused while the first one lives, and not a second longer. */
static void a_copy_of_a_node_waits_for_its_end(void **state)
{
	struct uuid first;
	size_t len;
	char *text;

	(void)state;
	begin(5, 1);
	first = w.nodes[1].node->control.process;
	assert_int_equal(ioe_file_load(w.nodes[1].e, "/node1/identity", &text, &len), 0);
	w.nodes[2].e = sim_process_new(w.nodes[2].m, "copy", NULL, NULL);
	assert_int_equal(ioe_mkdir(w.nodes[2].e, "/node2", 0700), 0);
	assert_int_equal(ioe_file_store(w.nodes[2].e, "/node2/identity", text, len, 0600), 0);
	mem_free(text);
	ioe_free(w.nodes[2].e);
	cworld_node_begin(&w, 2);
	cworld_run(&w, 10 * SEC);
	assert_false(w.nodes[2].ready);
	assert_non_null(strstr(w.nodes[2].node->control.refusal, "connected already"));
	expect_state("1", "ok"); /* which noticed nothing */
	assert_true(uuid_equal(&cluster_node_by_no(&w.metad->cluster, 1)->start, &first));
	assert_int_equal(w.nodes[1].node->control.session, 1);
	cworld_node_kill(&w, 1);
	cworld_run(&w, 5 * SEC);
	assert_true(w.nodes[2].ready);
	cworld_free(&w);
}

static void adding_a_device_can_be_repeated(void **state)
{
	json_t *answer;

	(void)state;
	begin(4, 1);
	expect_error(409, "exists", ADMIN_DEVICE_ADD, NULL,
		     "{\"node\": 1, \"path\": \"/n1-disk1\"}");
	mock_medium("/signed")->foreign = true;
	expect_error(409, "foreign", ADMIN_DEVICE_ADD, NULL, "{\"node\": 1, \"path\": \"/signed\"}");
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_ADD, NULL,
				      "{\"node\": \"1\", \"path\": \"/signed\", \"force\": true}",
				      &answer),
			 201);
	assert_int_equal(cworld_int(answer, "number"), 3);
	json_decref(answer);
	expect_error(404, "not_found", ADMIN_DEVICE_ADD, NULL, "{\"node\": 7, \"path\": \"/x\"}");
	expect_error(404, "not_found", ADMIN_DEVICE_ADD, NULL,
		     "{\"node\": 1, \"path\": \"/x\", \"pool\": \"gold\"}");
	cworld_node_stop(&w, 1);
	cworld_run(&w, SEC);
	expect_error(503, "node_away", ADMIN_DEVICE_ADD, NULL, "{\"node\": 1, \"path\": \"/x\"}");
	cworld_free(&w);
}

/* Whoever dies while a device is added: adding it again ends with exactly one device that serves. */
static void a_device_is_added_once_whoever_dies(void **state)
{
	(void)state;
	for (uint64_t us = 0; us < 60000; us += 1500) {
		struct admin_req r = {.verb = ADMIN_DEVICE_ADD};
		json_t *answer;
		bool metad_dies = us / 1500 % 2, node_dies = us / 1500 % 3 == 1 || !metad_dies;

		cworld_init(&w, us + 1);
		cworld_metad_start(&w);
		cworld_node_start(&w, 1);
		cworld_admin_begin(&w, &r,
				   "{\"node\": 1, \"path\": \"/d\", \"size_bytes\": 1000000}");
		cworld_run(&w, us * 1000);
		if (metad_dies)
			cworld_metad_kill(&w);
		if (node_dies)
			cworld_node_kill(&w, 1);
		cworld_run(&w, SEC);
		if (metad_dies)
			cworld_metad_start(&w);
		if (node_dies)
			cworld_node_start(&w, 1);
		cworld_run(&w, 3 * SEC);
		cworld_admin_end(&w, &r, metad_dies);
		if (cworld_admin(&w, ADMIN_DEVICE_ADD, NULL,
				 "{\"node\": 1, \"path\": \"/d\", \"size_bytes\": 1000000}",
				 &answer) != 201)
			assert_string_equal(cworld_text(answer, "code"), "exists");
		json_decref(answer);
		cworld_run(&w, SEC);
		assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_LIST, NULL, NULL, &answer), 200);
		assert_int_equal(json_array_size(json_object_get(answer, "items")), 1);
		assert_string_equal(cworld_text(answer, "items.0.state"), "ok");
		assert_int_equal(cworld_int(answer, "items.0.number"), mock_medium("/d")->number);
		json_decref(answer);
		cworld_free(&w);
	}
}

/* ---- leaving ------------------------------------------------------------------------------------------------------------------------------ */

static void expect_message(int expected_status, const char *part, enum admin_verb verb,
			   const char *subject, const char *args)
{
	json_t *answer;

	assert_int_equal(cworld_admin(&w, verb, subject, args, &answer), expected_status);
	if (!strstr(cworld_text(answer, "message"), part))
		fail_msg("'%s' is not in: %s", part, cworld_text(answer, "message"));
	json_decref(answer);
}

static void expect_health(const char *health)
{
	json_t *answer;

	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "health"), health);
	json_decref(answer);
}

static void give_up_devices_of_node_3(void)
{
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_REMOVE, "5", "{\"lost\": true}", NULL), 202);
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_REMOVE, "6", "{\"lost\": true}", NULL), 202);
	cworld_run(&w, 5 * SEC);
}

static void a_node_leaves_for_good(void **state)
{
	struct cworld_call *v;
	struct ioe *e;

	(void)state;
	begin(50, 3);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	assert_int_equal(cworld_open(&w, 3, "vm1", v), 0);
	expect_message(404, "no node nobody", ADMIN_NODE_REMOVE, "nobody", NULL);
	expect_message(409, "node-3 is online", ADMIN_NODE_REMOVE, "node-3", NULL);
	cworld_node_kill(&w, 3);
	cworld_run(&w, SEC);
	expect_message(409, "node-3 has 2 devices: 5 6", ADMIN_NODE_REMOVE, "node-3", NULL);
	give_up_devices_of_node_3();
	expect_message(409, "vm1 is open there", ADMIN_NODE_REMOVE, "node-3", NULL);
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_RELEASE, "vm1", NULL, NULL), 200);
	expect_health("degraded");
	assert_int_equal(cworld_admin(&w, ADMIN_NODE_REMOVE, "3", NULL, NULL), 200);
	cworld_run(&w, SEC);
	assert_int_equal(cworld_events(&w, "node_removed"), 1);
	expect_health("ok");
	expect_message(404, "no node", ADMIN_NODE_REMOVE, "node-3", NULL);
	cworld_metad_kill(&w);
	cworld_metad_start(&w);
	cworld_run(&w, 5 * SEC);
	expect_health("ok");
	expect_state("5", "lost");

	/* another one of that name */
	e = sim_process_new(w.nodes[3].m, "rm", NULL, NULL);
	assert_int_equal(ioe_unlink(e, "/node3/identity"), 0);
	assert_int_equal(ioe_unlink(e, "/node3/devices"), 0);
	ioe_free(e);
	cworld_node_start(&w, 3);
	assert_int_equal(w.nodes[3].node->control.number, 4);
	expect_health("ok");
	cworld_free(&w);
}

/* Whoever dies meanwhile: the node is there, or it is not, and nothing hangs. */
static void a_node_leaves_whoever_dies(void **state)
{
	(void)state;
	for (uint64_t us = 0; us < 12000; us += 400) {
		struct admin_req r = {.verb = ADMIN_NODE_REMOVE, .subject = "node-3"};
		json_t *answer;
		int n;

		begin(us + 1, 2);
		cworld_node_start(&w, 3);
		cworld_node_kill(&w, 3);
		cworld_run(&w, SEC);
		cworld_admin_begin(&w, &r, NULL);
		cworld_node_begin(&w, 3); /* and comes back */
		cworld_run(&w, us * 1000);
		cworld_metad_kill(&w);
		cworld_admin_end(&w, &r, true);
		cworld_metad_start(&w);
		cworld_until(&w, w.nodes[3].ready);
		assert_int_equal(cworld_admin(&w, ADMIN_NODE_LIST, NULL, NULL, &answer), 200);
		n = (int)json_array_size(json_object_get(answer, "items"));
		assert_int_equal(n, 3);
		assert_string_equal(cworld_text(answer, "items.2.name"), "node-3");
		json_decref(answer);
		cworld_free(&w);
	}
}

/* A node that only was cut off, and runs on after it was removed: it is a new one, and hears what it has lost. */
static void a_removed_node_is_told_what_it_lost(void **state)
{
	struct cworld_call *v, *a;

	(void)state;
	begin(51, 3);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 3, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 3, v, 0, 10, a), 0);
	sim_net_cut(w.sim, w.metad_m, w.nodes[3].m, true);
	cworld_run(&w, 100 * SEC);
	give_up_devices_of_node_3();
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_RELEASE, "vm1", NULL, NULL), 200);
	assert_int_equal(cworld_admin(&w, ADMIN_NODE_REMOVE, "node-3", NULL, NULL), 200);
	assert_int_equal(w.nodes[3].lost_volumes, 0);
	sim_net_cut(w.sim, w.metad_m, w.nodes[3].m, false);
	cworld_until(&w, w.nodes[3].lost_volumes == 1);
	cworld_until(&w, w.nodes[3].node->control.number == 4);
	assert_int_equal(cworld_alloc(&w, 3, v, 20, 1, a), -E_STALE_EPOCH);
	mem_free(v);
	mem_free(a);
	cworld_free(&w);
}

static void move_disk(const char *path, int64_t number)
{
	char args[64];
	json_t *answer;

	snprintf(args, sizeof(args), "{\"node\": \"node-1\", \"path\": \"%s\"}", path);
	if (cworld_admin(&w, ADMIN_DEVICE_ADD, NULL, args, &answer) != 201)
		fail_msg("%s", cworld_text(answer, "message"));
	assert_int_equal(cworld_int(answer, "number"), number);
	assert_int_equal(cworld_int(answer, "node"), 1);
	json_decref(answer);
}

/* From a node that is gone, and from one that lives and has lost the disk: neither claims it any more. */
static void a_disk_moves_to_another_node(void **state)
{
	struct cworld_call *v, *a;
	int other = 0;

	(void)state;
	begin(52, 2);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 40, a), 0);
	expect_message(409, "node-2 has this device too", ADMIN_DEVICE_ADD, NULL,
		       "{\"node\": \"node-1\", \"path\": \"/n2-disk1\"}");
	cworld_run(&w, SEC);
	assert_int_equal(w.nodes[1].node->devices.n, 2); /* it does not keep what it may not have */
	cworld_node_kill(&w, 2);
	cworld_run(&w, SEC);
	move_disk("/n2-disk1", 3);
	for (int i = 0; i < 40; i++) {
		if (a->items[i].entry.replicas[0].dev == 4)
			other = i;
		else
			assert_int_equal(cworld_write(&w, 1, v, &a->items[i]), 0);
	}
	mock_medium("/n2-disk1")->unopenable = true; /* there is none at that path any more */
	cworld_node_start(&w, 2);
	cworld_run(&w, SEC);
	assert_int_equal(w.nodes[2].node->devices.n, 1);
	expect_state("3", "ok");

	mock_medium("/n2-disk2")->breaks = true;
	assert_int_equal(cworld_write(&w, 1, v, &a->items[other]), -E_DEVICE_FAILED);
	cworld_run(&w, SEC);
	expect_state("4", "failed");
	move_disk("/n2-disk2", 4);
	cworld_run(&w, SEC);
	assert_int_equal(w.nodes[2].node->devices.n, 0);
	assert_int_equal(cworld_events(&w, "device_moved"), 2);
	assert_int_equal(cworld_write(&w, 1, v, &a->items[other]), 0);
	cworld_node_kill(&w, 2);
	cworld_run(&w, SEC);
	assert_int_equal(cworld_admin(&w, ADMIN_NODE_REMOVE, "node-2", NULL, NULL), 200);
	expect_health("ok");
	cworld_free(&w);
}

/* ---- volumes ------------------------------------------------------------------------------------------------------------------------------ */

static void a_volume_is_opened_and_mapped(void **state)
{
	struct cworld_call *v, *a;
	json_t *answer;

	(void)state;
	begin(5, 2);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	expect_error(409, "exists", ADMIN_VOLUME_CREATE, NULL,
		     "{\"name\": \"vm1\", \"size_bytes\": 1048576}");
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "none", v), -ENOENT);
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(v->open.epoch, 1);
	assert_int_equal(v->open.size_bytes, 64 * MIB);
	assert_int_equal(v->open.devices_n, 4);
	assert_int_equal(v->open.layers_n, 1);
	assert_int_equal(cworld_alloc(&w, 1, v, 3, 20, a), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(a->items[i].chunk, 3 + i);
	for (int i = 0; i < 20; i++) /* local ones and those of the other node */
		assert_int_equal(cworld_write(&w, 1, v, &a->items[i]), 0);

	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_MAP, "vm1",
				      "{\"offset\": 1048576, \"length\": 5242880}", &answer),
			 200);
	assert_string_equal(cworld_text(answer, "segments.0.kind"), "unmapped");
	assert_int_equal(cworld_int(answer, "segments.0.length"), 2 * MIB);
	assert_string_equal(cworld_text(answer, "segments.1.kind"), "open");
	assert_int_equal(cworld_int(answer, "segments.1.offset"), 3 * MIB);
	assert_int_equal(cworld_int(answer, "segments.1.replicas.0.slot"),
			 a->items[0].entry.replicas[0].slot);
	assert_string_equal(cworld_text(answer, "segments.1.replicas.0.slot_state"), "open");
	assert_int_equal(cworld_int(answer, "segments.1.replicas.0.present_blocks"), 1);
	assert_int_equal(cworld_int(answer, "segments.1.replicas.0.device_offset"),
			 (1 << 20) + ((uint64_t)a->items[0].entry.replicas[0].slot << 20));
	json_decref(answer);

	assert_int_equal(cworld_admin(&w, ADMIN_EXPORT_SHOW, "vm1", NULL, &answer), 200);
	assert_int_equal(cworld_int(answer, "owner"), 1);
	assert_string_equal(cworld_text(answer, "uris.0.uri"), "nbd://10.0.1.1:10809/vm1");
	json_decref(answer);
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_STATS, "vm1", NULL, &answer), 200);
	assert_int_equal(cworld_int(answer, "counters.read_requests"), 42);
	json_decref(answer);
	assert_int_equal(cworld_admin(&w, ADMIN_METRICS, NULL, NULL, NULL), 200);

	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_RESIZE, "vm1", "{\"size_bytes\": 134217728}",
				      NULL),
			 200);
	cworld_until(&w, w.nodes[1].changed_size == 128 * MIB);
	expect_error(400, "invalid", ADMIN_VOLUME_RESIZE, "vm1", "{\"size_bytes\": 1048576}");
	expect_error(409, "in_use", ADMIN_VOLUME_DELETE, "vm1", NULL);
	assert_int_equal(cworld_close(&w, 1, v), 0);
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_LIST, NULL, NULL, &answer), 200);
	assert_int_equal(cworld_int(answer, "items.0.used_bytes"), 20 * MIB);
	json_decref(answer);
	mem_free(v);
	mem_free(a);
	cworld_free(&w);
}

static void the_owner_is_named_to_others(void **state)
{
	struct cworld_call *v = NULL, *u;

	(void)state;
	begin(6, 2);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	u = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_open(&w, 2, "vm1", u), -E_NOT_OWNER);
	assert_string_equal(u->open.owner_uri, "nbd://10.0.1.1:10809/vm1");
	assert_int_equal(cworld_open(&w, 1, "vm1", u), 0); /* again: the same */
	assert_int_equal(u->open.epoch, v->open.epoch);
	assert_int_equal(cworld_close(&w, 1, v), 0);
	assert_int_equal(cworld_open(&w, 2, "vm1", u), 0);
	assert_int_equal(u->open.epoch, 2);
	for (device_no d = 1; d <= 4; d++) /* every device knows, before the new owner does */
		assert_int_equal(epoch_on(d, u->open.id), 2);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 1, v), -E_STALE_EPOCH);
	mem_free(v);
	mem_free(u);
	cworld_free(&w);
}

static json_t *export_of(const char *volume)
{
	json_t *answer;

	assert_int_equal(cworld_admin(&w, ADMIN_EXPORT_SHOW, volume, NULL, &answer), 200);
	return answer;
}

/* The node that has a volume open says who its clients are; one that does not answer is not waited for, and "not known" is not "nobody". */
static void clients_are_listed(void **state)
{
	struct cworld_call *v, *u;
	json_t *answer;
	uint64_t before;

	(void)state;
	begin(63, 2);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	cworld_volume_create(&w, "vm2", 64 * MIB);
	v = cworld_call_new();
	u = cworld_call_new();
	answer = export_of("vm1");
	assert_true(json_is_array(json_object_get(answer, "clients")));
	assert_int_equal(json_array_size(json_object_get(answer, "clients")), 0);
	json_decref(answer);
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_open(&w, 2, "vm2", u), 0);
	answer = export_of("vm1");
	assert_int_equal(json_array_size(json_object_get(answer, "clients")), 2);
	assert_string_equal(cworld_text(answer, "clients.0.client"), "nbd 10.9.9.9:4711");
	assert_true(json_is_true(
	    json_object_get(json_array_get(json_object_get(answer, "clients"), 1), "read_only")));
	json_decref(answer);
	sim_net_cut(w.sim, w.metad_m, w.nodes[2].m, true);
	before = sim_now_ns(w.sim);
	assert_int_equal(cworld_admin(&w, ADMIN_EXPORT_LIST, NULL, NULL, &answer), 200);
	assert_in_range(sim_now_ns(w.sim) - before, 2 * SEC, 3 * SEC);
	assert_string_equal(cworld_text(answer, "items.0.clients.1.client"), "nbd 10.9.9.8:4711");
	assert_true(json_is_null(
	    json_object_get(json_array_get(json_object_get(answer, "items"), 1), "clients")));
	json_decref(answer);
	cworld_run(&w, 100 * SEC); /* the connection breaks, and with it what was asked */
	answer = export_of("vm2");
	assert_true(json_is_null(json_object_get(answer, "clients")));
	json_decref(answer);
	mem_free(v);
	mem_free(u);
	cworld_free(&w);
}

/* An option of the export: it is told with the volume, and while it is open. */
static void a_volume_is_exported_to_one_client(void **state)
{
	struct cworld_call *v;
	json_t *answer;

	(void)state;
	begin(64, 1);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	expect_error(404, "not_found", ADMIN_EXPORT_SET, "none", "{\"exclusive\": true}");
	assert_int_equal(cworld_admin(&w, ADMIN_EXPORT_SET, "vm1", "{\"exclusive\": true}", &answer),
			 200);
	assert_true(json_is_true(json_object_get(answer, "exclusive")));
	json_decref(answer);
	cworld_metad_kill(&w);
	cworld_metad_start(&w);
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_true(v->open.one_opener);
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_RESIZE, "vm1", "{\"size_bytes\": 134217728}",
				      NULL),
			 200);
	cworld_until(&w, w.nodes[1].changed_size == 128 * MIB);
	assert_true(w.nodes[1].one_opener);
	assert_int_equal(cworld_admin(&w, ADMIN_EXPORT_SET, "vm1", "{\"exclusive\": false}", NULL),
			 200);
	cworld_until(&w, !w.nodes[1].one_opener);
	answer = export_of("vm1");
	assert_true(json_is_false(json_object_get(answer, "exclusive")));
	json_decref(answer);
	cworld_free(&w);
}

/* An owner that is gone for good: whoever asks gets its volume, after a while by itself, or when an administrator says so. */
static void expect_release(const char *volume, bool released)
{
	json_t *answer;

	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_RELEASE, volume, NULL, &answer), 200);
	assert_int_equal(json_is_true(json_object_get(answer, "released")), released);
	assert_int_equal(json_is_false(json_object_get(answer, "released")), !released);
	json_decref(answer);
}

static void a_dead_owner_is_replaced(void **state)
{
	struct cworld_call *v, *u, *a;

	(void)state;
	begin(30, 3);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	cworld_volume_create(&w, "vm2", 64 * MIB);
	v = cworld_call_new();
	u = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm2", v), 0);
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 40, a), 0);
	expect_error(409, "in_use", ADMIN_VOLUME_RELEASE, "vm1", NULL);
	expect_error(404, "not_found", ADMIN_VOLUME_RELEASE, "none", NULL);
	cworld_node_kill(&w, 1);
	assert_int_equal(cworld_open(&w, 2, "vm1", u), -E_NOT_OWNER);
	cworld_run(&w, 50 * SEC);
	assert_int_equal(cworld_open(&w, 2, "vm1", u), -E_NOT_OWNER);
	cworld_run(&w, 15 * SEC);
	assert_int_equal(cworld_open(&w, 2, "vm1", u), 0);
	assert_int_equal(u->open.epoch, v->open.epoch + 1);
	for (device_no d = 3; d <= 6; d++) /* all that are there */
		assert_int_equal(epoch_on(d, u->open.id), 2);
	assert_int_equal(cworld_open(&w, 3, "vm1", v), -E_NOT_OWNER);
	assert_string_equal(v->open.owner_uri, "nbd://10.0.1.2:10809/vm1");

	expect_release("vm2", true);
	expect_release("vm2", false);
	assert_int_equal(cworld_open(&w, 3, "vm2", v), 0);
	assert_int_equal(v->open.epoch, 2);
	assert_int_equal(cworld_events(&w, "volume_taken"), 2);
	cworld_node_start(&w, 1); /* it finds out, and so do its devices before they serve */
	cworld_until(&w, epoch_on(1, u->open.id) == 2 && epoch_on(2, v->open.id) == 2);
	assert_int_equal(cworld_open(&w, 1, "vm1", v), -E_NOT_OWNER);
	cworld_free(&w);
}

/* One that is only cut off, and comes back as the process it was, is told; its requests are refused from then on. After a restart of the server too. */
static void a_replaced_owner_is_told(void **state)
{
	struct cworld_call *v, *u, *a;

	(void)state;
	for (int restart = 0; restart < 2; restart++) {
		begin(31, 2);
		cworld_volume_create(&w, "vm1", 64 * MIB);
		v = cworld_call_new();
		u = cworld_call_new();
		a = cworld_call_new();
		assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
		assert_int_equal(cworld_alloc(&w, 1, v, 0, 40, a), 0);
		sim_net_cut(w.sim, w.metad_m, w.nodes[1].m, true);
		cworld_run(&w, 100 * SEC);
		assert_int_equal(cworld_open(&w, 2, "vm1", u), 0);
		assert_int_equal(w.nodes[1].lost_volumes, 0);
		for (int i = 0; i < 40; i++) { /* what is elsewhere refuses at once */
			device_no d = a->items[i].entry.replicas[0].dev;

			assert_int_equal(cworld_write(&w, 1, v, &a->items[i]),
					 d <= 2 ? 0 : -E_STALE_EPOCH);
		}
		if (restart) {
			cworld_metad_kill(&w);
			cworld_metad_start(&w);
		}
		sim_net_cut(w.sim, w.metad_m, w.nodes[1].m, false);
		cworld_until(&w, w.nodes[1].lost_volumes == 1);
		cworld_until(&w, epoch_on(1, v->open.id) == 2 && epoch_on(2, v->open.id) == 2);
		for (int i = 0; i < 40; i++)
			assert_int_equal(cworld_write(&w, 1, v, &a->items[i]), -E_STALE_EPOCH);
		assert_int_equal(cworld_alloc(&w, 1, v, 50, 1, a), -E_STALE_EPOCH);
		mem_free(v);
		mem_free(u);
		mem_free(a);
		cworld_free(&w);
	}
}

static void a_restarted_owner_gets_a_new_epoch(void **state)
{
	struct cworld_call *v, *u, *a;

	(void)state;
	begin(7, 2);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	u = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 40, a), 0);
	cworld_node_kill(&w, 1);
	cworld_node_start(&w, 1);
	assert_int_equal(cworld_open(&w, 1, "vm1", u), 0);
	assert_int_equal(u->open.epoch, v->open.epoch + 1);
	for (int i = 0; i < 40; i++)
		assert_int_equal(cworld_write(&w, 1, v, &a->items[i]), -E_STALE_EPOCH);
	assert_int_equal(cworld_write(&w, 1, u, &a->items[0]), 0);
	cworld_free(&w);
}

/* A device that was away learns of the epochs before it serves anybody. */
static void an_away_device_learns_before_it_serves(void **state)
{
	struct cworld_call *v, *u, *a;

	(void)state;
	begin(8, 3);
	cworld_volume_create(&w, "vm1", 200 * MIB);
	v = cworld_call_new();
	u = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 60, a), 0);
	assert_int_equal(cworld_close(&w, 1, v), 0);
	cworld_node_kill(&w, 3);
	cworld_run(&w, SEC);
	expect_state("6", "away");
	assert_int_equal(cworld_open(&w, 2, "vm1", u), 0);
	assert_int_equal(u->open.epoch, 2);
	assert_int_equal(epoch_on(4, u->open.id), 2);
	assert_int_equal(epoch_on(5, u->open.id), 0);
	cworld_node_begin(&w, 3);
	while (!w.nodes[3].ready) { /* at no moment is it served without */
		assert_true(sim_step(w.sim));
		for (device_no d = 5; d <= 6; d++)
			if (w.nodes[3].node->store.local[d].dev)
				assert_int_equal(epoch_on(d, u->open.id), 2);
	}
	cworld_run(&w, SEC);
	expect_state("6", "ok");
	cworld_free(&w);
}

/* The volume grows while the devices hear of its new owner: the owner's answer says so, or the news after it. */
static void growing_while_it_is_opened(void **state)
{
	(void)state;
	for (uint64_t us = 0; us < 6000; us += 300) {
		struct admin_req r = {.verb = ADMIN_VOLUME_RESIZE, .subject = "vm1"};
		struct cworld_call *v, *u;
		uint32_t changes;

		begin(us + 1, 2);
		cworld_volume_create(&w, "vm1", 64 * MIB);
		v = cworld_call_new();
		u = cworld_call_new();
		assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
		assert_int_equal(cworld_close(&w, 1, v), 0);
		cworld_open_begin(&w, 2, "vm1", u);
		cworld_run(&w, us * 1000);
		cworld_admin_begin(&w, &r, "{\"size_bytes\": 134217728}");
		cworld_until(&w, u->done);
		assert_int_equal(u->open.req.status, 0);
		changes = w.nodes[2].volume_changes;
		cworld_run(&w, SEC);
		cworld_admin_end(&w, &r, false);
		if (u->open.size_bytes != 128 * MIB) {
			assert_true(w.nodes[2].volume_changes > changes);
			assert_int_equal(w.nodes[2].changed_size, 128 * MIB);
		}
		mem_free(v);
		mem_free(u);
		cworld_free(&w);
	}
}

/* The server is killed at any moment; what the node asked is answered by the next one, once. */
static void a_killed_server_loses_nothing(void **state)
{
	(void)state;
	for (uint64_t us = 0; us < 30000; us += 500) {
		struct cworld_call *v, *a, *b;
		json_t *answer;

		begin(us + 1, 1);
		cworld_volume_create(&w, "vm1", 256 * MIB);
		v = cworld_call_new();
		a = cworld_call_new();
		b = cworld_call_new();
		cworld_open_begin(&w, 1, "vm1", v);
		cworld_run(&w, us * 1000 / 2);
		cworld_metad_kill(&w);
		cworld_run(&w, us * 1000);
		cworld_metad_begin(&w);
		cworld_until(&w, v->done);
		assert_int_equal(v->open.req.status, 0);
		cworld_alloc_begin(&w, 1, v, 0, 30, a);
		cworld_run(&w, us * 1000);
		cworld_metad_kill(&w);
		cworld_metad_begin(&w);
		cworld_until(&w, a->done);
		assert_int_equal(a->alloc.req.status, 0);
		assert_int_equal(cworld_alloc(&w, 1, v, 0, 30, b), 0);
		for (int i = 0; i < 30; i++)
			assert_memory_equal(&a->items[i].entry, &b->items[i].entry,
					    sizeof(a->items[i].entry));
		assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
		assert_int_equal(cworld_int(answer, "used_bytes"), 30 * MIB);
		json_decref(answer);
		cworld_free(&w);
	}
}

static void patience_ends(void **state)
{
	struct cworld_call *v, *a;
	uint64_t before;

	(void)state;
	begin(9, 1);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	cworld_metad_kill(&w);
	before = sim_now_ns(w.sim);
	a->patience_ns = 3 * SEC;
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 1, a), -E_META_AWAY);
	assert_in_range(sim_now_ns(w.sim) - before, 3 * SEC, 3 * SEC + 100 * MS);
	a->patience_ns = 0;
	cworld_alloc_begin(&w, 1, v, 0, 1, a);
	cworld_run(&w, 20 * SEC);
	assert_false(a->done);
	cworld_metad_begin(&w);
	cworld_until(&w, a->done);
	assert_int_equal(a->alloc.req.status, 0);
	cworld_free(&w);
}

/* ---- space ------------------------------------------------------------------------------------------------------------------------------- */

static void slots_come_back_also_when_somebody_dies(void **state)
{
	(void)state;
	for (uint64_t ms = 0; ms < 24; ms++) {
		struct cworld_call *v, *a;
		json_t *answer;

		begin(ms + 1, 1);
		cworld_volume_create(&w, "vm1", 256 * MIB);
		v = cworld_call_new();
		a = cworld_call_new();
		assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
		assert_int_equal(cworld_alloc(&w, 1, v, 0, 50, a), 0);
		for (int i = 0; i < 50; i++)
			assert_int_equal(cworld_write(&w, 1, v, &a->items[i]), 0);
		cworld_unmap_begin(&w, 1, v, a, 50);
		cworld_run(&w, ms * MS);
		if (ms % 3 != 1) {
			cworld_metad_kill(&w);
			cworld_metad_begin(&w);
		}
		if (ms % 3 == 1) {
			cworld_until(&w, a->done);
			cworld_node_kill(&w, 1);
			cworld_node_begin(&w, 1);
		}
		cworld_run(&w, 5 * SEC);
		assert_true(a->done);
		assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
		assert_int_equal(cworld_int(answer, "used_bytes"), 0);
		json_decref(answer);
		assert_true(mock_medium("/n1-disk1")->frees + mock_medium("/n1-disk2")->frees >= 50);
		for (int i = 0; i < MOCK_SLOTS; i++)
			assert_int_equal(mock_medium("/n1-disk1")->slots[i].state, DEVICE_SLOT_FREE);
		cworld_free(&w);
	}
}

/* A node is welcomed while its devices are being opened: what it wants to write meanwhile is not told that the pool is full. That a device fails ends the
 * wait; so does a node that is here, and does not have it. */
static void space_is_waited_for_while_devices_are_opened(void **state)
{
	struct cworld_call *v, *a;

	(void)state;
	begin(25, 2);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	cworld_run(&w, 60 * SEC); /* the server is not young any more */
	cworld_node_stop(&w, 2);
	cworld_node_stop(&w, 1);
	for (int disk = 1; disk <= 2; disk++)
		medium_of((device_no)disk)->open_ns = 30 * SEC;
	medium_of(2)->unopenable = true;
	cworld_node_begin(&w, 1);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	cworld_alloc_begin(&w, 1, v, 0, 1, a);
	cworld_run(&w, 20 * SEC);
	assert_false(a->done);
	cworld_until(&w, a->done);
	assert_int_equal(a->alloc.req.status, 0);

	cworld_node_kill(&w, 1);
	medium_of(1)->unopenable = true;
	cworld_node_begin(&w, 1);
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	cworld_alloc_begin(&w, 1, v, 1, 1, a);
	cworld_run(&w, 20 * SEC);
	assert_false(a->done);
	cworld_run(&w, 15 * SEC);
	assert_true(a->done);
	assert_int_equal(a->alloc.req.status, -ENOSPC);

	/* a server that starts while the node tries once more, for as long: it hears of that one's end, too, though it is no news to the node */
	cworld_run(&w, 10 * SEC);
	cworld_metad_kill(&w);
	cworld_metad_start(&w);
	cworld_run(&w, 15 * SEC);
	cworld_alloc_begin(&w, 1, v, 1, 1, a);
	cworld_run(&w, 1 * SEC);
	assert_false(a->done);
	cworld_run(&w, 30 * SEC);
	assert_true(a->done);
	assert_int_equal(a->alloc.req.status, -ENOSPC);
	expect_state("1", "failed");
	expect_state("3", "away");
	cworld_free(&w);
}

static void a_device_leaves_when_it_is_empty(void **state)
{
	struct cworld_call *v, *a;

	(void)state;
	begin(10, 2);
	cworld_volume_create(&w, "vm1", 256 * MIB);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 100, a), 0);
	expect_error(409, "in_use", ADMIN_DEVICE_REMOVE, "4", NULL);
	expect_state("4", "ok");
	cworld_unmap_begin(&w, 1, v, a, 100);
	cworld_run(&w, 5 * SEC);
	expect_error(409, "in_use", ADMIN_DEVICE_REMOVE, "4", "{\"lost\": true}");
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_REMOVE, "4", NULL, NULL), 200);
	expect_state("4", "removed");
	expect_error(404, "not_found", ADMIN_DEVICE_REMOVE, "4", NULL);
	cworld_run(&w, SEC);
	assert_null(mock_medium("/n2-disk2")->open);
	assert_int_equal(w.nodes[2].node->devices.n, 1);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 100, a), 0);
	for (int i = 0; i < 100; i++)
		assert_int_not_equal(a->items[i].entry.replicas[0].dev, 4);
	mem_free(v);
	mem_free(a);
	cworld_free(&w);
}

/* The node's list cannot be written: the device is let go of all the same, and again after the next start. */
static void a_device_leaves_a_full_filesystem(void **state)
{
	(void)state;
	begin(27, 1);
	sim_disk_quota(w.nodes[1].m, 1);
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_REMOVE, "2", NULL, NULL), 200);
	cworld_run(&w, SEC);
	assert_null(mock_medium("/n1-disk2")->open);
	assert_int_equal(w.nodes[1].node->devices.n, 1);
	sim_disk_quota(w.nodes[1].m, 0);
	for (int i = 0; i < 2; i++) {
		cworld_node_stop(&w, 1);
		cworld_node_start(&w, 1);
		cworld_run(&w, SEC);
		assert_null(mock_medium("/n1-disk2")->open);
		assert_int_equal(w.nodes[1].node->devices.n, 1);
	}
	assert_int_equal(mock_medium("/n1-disk2")->opens, 2);
	cworld_free(&w);
}

/* Each removal writes the records of all devices. */
static void two_devices_leave_at_once(void **state)
{
	struct admin_req r[2] = {{.verb = ADMIN_DEVICE_REMOVE, .subject = "2"},
				 {.verb = ADMIN_DEVICE_REMOVE, .subject = "4"}};

	(void)state;
	begin(26, 2);
	for (int i = 0; i < 2; i++)
		cworld_admin_begin(&w, &r[i], NULL);
	cworld_run(&w, SEC);
	for (int i = 0; i < 2; i++) {
		cworld_admin_end(&w, &r[i], false);
		assert_int_equal(r[i].status, 200);
	}
	cworld_metad_stop(&w);
	cworld_metad_start(&w);
	cworld_run(&w, 5 * SEC);
	expect_state("1", "ok");
	expect_state("2", "removed");
	expect_state("3", "ok");
	expect_state("4", "removed");
	cworld_free(&w);
}

/* A node that dies while its device is taken out has it or not, as the server says: it does not keep what it is refused. */
static void a_device_leaves_though_its_node_was_away(void **state)
{
	uint32_t left_n = 0;

	(void)state;
	for (uint64_t us = 0; us < 8000; us += 500) {
		struct admin_req r = {.verb = ADMIN_DEVICE_REMOVE, .subject = "2"};
		json_t *answer;
		bool has_left;

		begin(us + 1, 1);
		cworld_admin_begin(&w, &r, NULL);
		cworld_run(&w, us * 1000);
		cworld_node_kill(&w, 1);
		cworld_run(&w, SEC);
		cworld_node_start(&w, 1);
		cworld_run(&w, SEC);
		cworld_admin_end(&w, &r, false);
		assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_SHOW, "2", NULL, &answer), 200);
		has_left = strcmp(cworld_text(answer, "state"), "removed") == 0;
		json_decref(answer);
		assert_int_equal(w.nodes[1].node->devices.n, has_left ? 1 : 2);
		cworld_node_stop(&w, 1);
		cworld_node_start(&w, 1);
		assert_int_equal(w.nodes[1].node->devices.n, has_left ? 1 : 2);
		left_n += has_left;
		cworld_free(&w);
	}
	assert_true(left_n > 0);
}

struct flush_wait {
	struct chunk_req r;
	bool done;
};

static void flush_done(struct chunk_req *r)
{
	container_of(r, struct flush_wait, r)->done = true;
}

static int flush(int node, const struct cworld_call *opened, device_no dev, uint64_t incarnation)
{
	struct flush_wait wait = {.r = {.op = CHUNK_FLUSH,
					.dev = dev,
					.volume = opened->open.id,
					.epoch = opened->open.epoch,
					.incarnation = incarnation,
					.done = flush_done}};

	chunk_store_submit(&w.nodes[node].node->store.store, &wait.r);
	cworld_until(&w, wait.done);
	return wait.r.status;
}

/* A volume is open while a device is given up: what its owner knows of the map is old then, and it is told so, at once. */
static void a_lost_device_makes_mappings_stale(void **state)
{
	struct cworld_call *v, *a, *b;
	uint64_t before;

	(void)state;
	begin(33, 2);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	a = cworld_call_new();
	b = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 40, a), 0);
	cworld_node_kill(&w, 2);
	cworld_run(&w, 5 * SEC);
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_REMOVE, "3", "{\"lost\": true}", NULL), 202);
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_REMOVE, "4", "{\"lost\": true}", NULL), 202);
	cworld_run(&w, 5 * SEC);
	before = sim_now_ns(w.sim);
	for (int i = 0; i < 40; i++)
		assert_int_equal(cworld_write(&w, 1, v, &a->items[i]),
				 a->items[i].entry.replicas[0].dev <= 2 ? 0 : -E_STALE_CGEN);
	assert_int_equal(flush(1, v, 1, 0), 0);
	assert_int_equal(flush(1, v, 3, 0), 0); /* nothing is owed */
	assert_int_equal(flush(1, v, 3, 7), -E_UNFLUSHED_LOST);
	assert_true(sim_now_ns(w.sim) - before < SEC);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 40, b),
			 0); /* and what is asked for anew is elsewhere */
	for (int i = 0; i < 40; i++)
		assert_int_equal(cworld_write(&w, 1, v, &b->items[i]), 0);
	cworld_free(&w);
}

/* The filesystem under a device is full: told at once, and when a write finds space again. */
static void a_full_filesystem_is_told(void **state)
{
	struct cworld_call *v, *a;
	json_t *answer;

	(void)state;
	begin(65, 1);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 1, a), 0);
	mock_medium("/n1-disk1")->is_full = mock_medium("/n1-disk2")->is_full = true;
	assert_int_equal(cworld_write(&w, 1, v, &a->items[0]), -ENOSPC);
	cworld_run(&w, SEC);
	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "health"), "failed");
	assert_string_equal(cworld_text(answer, "reasons.0.code"), "no_space");
	assert_non_null(strstr(cworld_text(answer, "reasons.0.message"), "no space left under"));
	json_decref(answer);
	assert_int_equal(cworld_events(&w, "no_space"), 1);
	mock_medium("/n1-disk1")->is_full = mock_medium("/n1-disk2")->is_full = false;
	assert_int_equal(cworld_write(&w, 1, v, &a->items[0]), 0);
	cworld_run(&w, SEC);
	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "health"), "ok");
	json_decref(answer);
	assert_int_equal(cworld_events(&w, "space_again"), 1);
	mem_free(v);
	mem_free(a);
	cworld_free(&w);
}

static void expect_warnings(size_t n, const char *part)
{
	json_t *answer;

	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "health"), "ok");
	assert_int_equal(json_array_size(json_object_get(answer, "warnings")), n);
	if (n)
		assert_non_null(strstr(cworld_text(answer, "warnings.0.message"), part));
	json_decref(answer);
}

/* Two files on one filesystem: each would fit. */
static void files_that_promise_too_much(void **state)
{
	struct mock_medium *a, *b;

	(void)state;
	begin(66, 2);
	a = mock_medium("/n1-disk1");
	b = mock_medium("/n1-disk2");
	expect_warnings(0, NULL);
	a->space = b->space = (struct ioe_file_space){7, 1000 * (uint64_t)MIB, 600 * (uint64_t)MIB};
	/* of another machine */
	mock_medium("/n2-disk1")->space = a->space;
	cworld_run(&w, 40 * SEC);
	expect_warnings(
	    1, "device 1 (/n1-disk1 on node node-1) and others has 1000 MiB free, and 1.1 GiB");
	b->space.fs_id = 8;
	cworld_node_stop(&w, 1);
	cworld_node_start(&w, 1);
	cworld_run(&w, SEC);
	expect_warnings(0, NULL);
	a->space.free_bytes = 500 * (uint64_t)MIB; /* somebody else takes it */
	cworld_run(&w, 40 * SEC);
	expect_warnings(1, "device 1 (/n1-disk1 on node node-1) has 500 MiB free, and 600 MiB");
	cworld_free(&w);
}

/* ---- pools ------------------------------------------------------------------------------------------------------------------------------- */

static int64_t ask_int(enum admin_verb verb, const char *subject, const char *path)
{
	json_t *answer;
	int64_t v;

	assert_int_equal(cworld_admin(&w, verb, subject, NULL, &answer), 200);
	v = cworld_int(answer, path);
	json_decref(answer);
	return v;
}

static void expect_pool(const char *name, const char *media, int64_t chunk_bytes)
{
	json_t *answer;

	assert_int_equal(cworld_admin(&w, ADMIN_POOL_SHOW, name, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "media"), media);
	assert_int_equal(cworld_int(answer, "chunk_bytes"), chunk_bytes);
	json_decref(answer);
}

/* Chunks of 4 MiB go to the devices of the pool that has such, and nowhere else; so do those of another pool with chunks of 1 MiB. */
static void pools_are_apart(void **state)
{
	static const struct {
		const char *create, *volume, *device;
	} pools[] = {
	    {"{\"name\": \"slow\", \"media\": \"rotational\"}",
	     "{\"name\": \"big\", \"size_bytes\": 268435456, \"pool\": \"slow\"}",
	     "{\"node\": 2, \"path\": \"/slow\", \"pool\": \"slow\"}"},
	    {"{\"name\": \"gold\", \"media\": \"rotational\", \"chunk_bytes\": 1048576}",
	     "{\"name\": \"vm2\", \"size_bytes\": 67108864, \"pool\": \"gold\"}",
	     "{\"node\": 1, \"path\": \"/gold\", \"pool\": \"gold\"}"},
	};
	struct cworld_call *v, *a;

	(void)state;
	begin(60, 2);
	for (size_t i = 0; i < ARRAY_LEN(pools); i++) {
		assert_int_equal(cworld_admin(&w, ADMIN_POOL_CREATE, NULL, pools[i].create, NULL),
				 201);
		expect_message(409, "already", ADMIN_POOL_CREATE, NULL, pools[i].create);
		expect_health("ok"); /* nobody has asked for space in it yet */
		assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_CREATE, NULL, pools[i].volume, NULL),
				 201);
		expect_health("degraded");
		assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_ADD, NULL, pools[i].device, NULL),
				 201);
		expect_health("ok");
	}
	expect_message(404, "no pool none", ADMIN_VOLUME_CREATE, NULL,
		       "{\"name\": \"x\", \"size_bytes\": 4096, \"pool\": \"none\"}");
	expect_message(404, "no pool none", ADMIN_POOL_REMOVE, "none", NULL);
	cworld_metad_kill(&w);
	cworld_metad_start(&w);
	cworld_run(&w, 5 * SEC);
	expect_pool("default", "flash", MIB);
	expect_pool("slow", "rotational", 4 * MIB);
	expect_pool("gold", "rotational", MIB);
	assert_int_equal(mock_medium("/slow")->chunk_shift, CHUNK_SHIFT_DISK);
	assert_int_equal(ask_int(ADMIN_VOLUME_SHOW, "big", "chunk_bytes"), 4 * MIB);

	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "big", v), 0);
	assert_int_equal(v->open.chunk_shift, CHUNK_SHIFT_DISK);
	assert_int_equal(v->open.devices_n, 1);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 64, a), 0);
	for (int i = 0; i < 64; i++) {
		assert_int_equal(a->items[i].entry.replicas[0].dev, 5);
		assert_int_equal(cworld_write(&w, 1, v, &a->items[i]), 0);
	}
	assert_int_equal(cworld_alloc(&w, 1, v, 64, 1, a), -EINVAL); /* past the end */
	assert_int_equal(ask_int(ADMIN_POOL_SHOW, "slow", "used_bytes"), 256 * MIB);
	assert_int_equal(ask_int(ADMIN_POOL_SHOW, "default", "used_bytes"), 0);
	assert_int_equal(cworld_open(&w, 2, "vm2", v), 0);
	assert_int_equal(cworld_alloc(&w, 2, v, 0, 64, a), 0);
	for (int i = 0; i < 64; i++)
		assert_int_equal(a->items[i].entry.replicas[0].dev, 6);
	cworld_free(&w);
}

/* A full pool says so at once, though a device of another one is being opened. */
static void a_full_pool_waits_for_its_own_devices(void **state)
{
	struct cworld_call *v, *a;

	(void)state;
	begin(67, 1);
	assert_int_equal(cworld_admin(&w, ADMIN_POOL_CREATE, NULL,
				      "{\"name\": \"slow\", \"media\": \"rotational\"}", NULL),
			 201);
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_ADD, NULL,
				      "{\"node\": 1, \"path\": \"/slow\", \"pool\": \"slow\"}",
				      NULL),
			 201);
	cworld_volume_create(&w, "vm1", (2 * MOCK_SLOTS + 10) * (uint64_t)MIB);
	cworld_node_stop(&w, 1);
	mock_medium("/slow")->open_ns = 100 * SEC;
	cworld_node_begin(&w, 1);
	cworld_run(&w, 20 * SEC);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 2 * MOCK_SLOTS, a), 0);
	cworld_alloc_begin(&w, 1, v, 2 * MOCK_SLOTS, 1, a);
	cworld_run(&w, SEC);
	assert_true(a->done);
	assert_int_equal(a->alloc.req.status, -ENOSPC);
	mem_free(v);
	mem_free(a);
	cworld_free(&w);
}

static void a_pool_goes_when_it_is_empty(void **state)
{
	(void)state;
	begin(61, 1);
	expect_message(400, "default stays", ADMIN_POOL_REMOVE, "default", NULL);
	assert_int_equal(cworld_admin(&w, ADMIN_POOL_CREATE, NULL,
				      "{\"name\": \"slow\", \"media\": \"rotational\"}", NULL),
			 201);
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_ADD, NULL,
				      "{\"node\": 1, \"path\": \"/slow\", \"pool\": \"slow\"}",
				      NULL),
			 201);
	assert_int_equal(
	    cworld_admin(&w, ADMIN_VOLUME_CREATE, NULL,
			 "{\"name\": \"v\", \"size_bytes\": 8388608, \"pool\": \"slow\"}", NULL),
	    201);
	expect_message(409, "volume v is in it", ADMIN_POOL_REMOVE, "slow", NULL);
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_DELETE, "v", NULL, NULL), 202);
	cworld_run(&w, 5 * SEC);
	expect_message(409, "it has device 3", ADMIN_POOL_REMOVE, "slow", NULL);
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_REMOVE, "3", NULL, NULL), 200);
	assert_int_equal(cworld_admin(&w, ADMIN_POOL_REMOVE, "slow", NULL, NULL), 200);
	expect_message(404, "no pool", ADMIN_POOL_SHOW, "slow", NULL);
	/* the removed device was in it */
	cworld_run(&w, SEC);
	cworld_metad_kill(&w);
	cworld_metad_start(&w);
	cworld_run(&w, 5 * SEC);
	expect_state("3", "removed");
	expect_health("ok");
	assert_int_equal(cworld_admin(&w, ADMIN_POOL_CREATE, NULL,
				      "{\"name\": \"slow\", \"media\": \"flash\"}", NULL),
			 201);
	expect_pool("slow", "flash", MIB);
	cworld_free(&w);
}

/* Two who ask at once: one pool; and nothing gets into one that leaves. */
static void pools_come_and_go_side_by_side(void **state)
{
	struct admin_req r[4] = {
	    {.verb = ADMIN_POOL_CREATE},
	    {.verb = ADMIN_POOL_CREATE},
	    {.verb = ADMIN_POOL_REMOVE, .subject = "slow"},
	    {.verb = ADMIN_VOLUME_CREATE},
	};
	static const char create[] = "{\"name\": \"slow\", \"media\": \"rotational\"}";

	(void)state;
	begin(62, 1);
	cworld_admin_begin(&w, &r[0], create);
	cworld_admin_begin(&w, &r[1], create);
	cworld_admin_end(&w, &r[0], false);
	cworld_admin_end(&w, &r[1], false);
	assert_int_equal(r[0].status, 201);
	assert_int_equal(r[1].status, 409);
	cworld_admin_begin(&w, &r[2], NULL);
	cworld_admin_begin(&w, &r[3], "{\"name\": \"v\", \"size_bytes\": 4096, \"pool\": \"slow\"}");
	cworld_admin_end(&w, &r[2], false);
	cworld_admin_end(&w, &r[3], false);
	assert_int_equal(r[2].status, 200);
	assert_int_equal(r[3].status, 404);
	cworld_free(&w);
}

/* ---- what must not be served -------------------------------------------------------------------------------------------------------------- */

static void an_old_image_of_a_device_is_refused(void **state)
{
	static struct mock_medium old;
	struct cworld_call *v, *a;

	(void)state;
	begin(11, 1);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	old = *mock_medium("/n1-disk1");
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 10, a), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(cworld_write(&w, 1, v, &a->items[i]), 0);
	cworld_run(&w, 40 * SEC); /* a report tells how far it is */
	cworld_node_kill(&w, 1);
	old.open = NULL;
	*mock_medium("/n1-disk1") = old;
	cworld_node_start(&w, 1); /* ready: served or refused */
	cworld_run(&w, SEC);
	expect_state("1", "refused");
	expect_state("2", "ok");
	assert_null(w.nodes[1].node->store.local[1].dev);
	assert_int_equal(cworld_events(&w, "device_went_back"), 1);
	cworld_free(&w);
}

/* No report was due between the copy and the stop, and the refused copy is opened again and again: it never catches up. */
static void an_old_image_never_catches_up(void **state)
{
	static struct mock_medium old;
	struct cworld_call *v, *a;

	(void)state;
	begin(21, 1);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	cworld_node_stop(&w, 1);
	old = *mock_medium("/n1-disk1");
	old.open = NULL;
	cworld_node_start(&w, 1);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 2, a), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(cworld_write(&w, 1, v, &a->items[i]), 0);
	cworld_node_stop(&w, 1);
	mem_free(a);
	mem_free(v);
	*mock_medium("/n1-disk1") = old;
	for (int i = 0; i < 5; i++) {
		cworld_node_start(&w, 1);
		cworld_run(&w, SEC);
		expect_state("1", "refused");
		expect_state("2", "ok");
		assert_null(w.nodes[1].node->store.local[1].dev);
		mock_medium("/n1-disk1")->lsn += 1000000; /* its own journal goes on, of course */
		/* what is told to all devices is not told to it */
		v = cworld_call_new();
		assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
		cworld_node_stop(&w, 1);
		mem_free(v);
	}
	cworld_free(&w);
}

static void a_database_that_went_back_in_time_is_refused(void **state)
{
	json_t *answer;

	(void)state;
	begin(12, 2);
	cworld_node_stop(&w, 2);
	cworld_metad_stop(&w);
	mock_medium("/n2-disk1")->commit = 1000000;
	cworld_metad_start(&w);
	cworld_node_begin(&w, 2);
	cworld_run(&w, 5 * SEC);
	assert_false(w.nodes[2].ready);
	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "health"), "failed");
	assert_string_equal(cworld_text(answer, "state"), "refused");
	assert_non_null(strstr(cworld_text(answer, "reasons.0.message"), "1000000"));
	json_decref(answer);
	expect_error(503, "refused", ADMIN_VOLUME_LIST, NULL, NULL);
	cworld_free(&w);
}

/* A volume with some hundred chunks whose deletion has just begun. */
static void begin_deletion(uint64_t seed)
{
	struct cworld_call *v, *a;

	begin(seed, 1);
	cworld_volume_create(&w, "vm1", 1024 * (uint64_t)MIB);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 500, a), 0);
	assert_int_equal(cworld_close(&w, 1, v), 0);
	cworld_run(&w, SEC);
	mem_free(a);
	mem_free(v);
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_DELETE, "vm1", NULL, NULL), 202);
}

/* A job that goes on after a start commits; were it to do so before the nodes have said hello, the database would catch up with what they remember. */
static void no_job_hides_that_it_went_back(void **state)
{
	json_t *answer;
	uint64_t last;

	(void)state;
	begin_deletion(31);
	cworld_metad_kill(&w);
	cworld_node_kill(&w, 1);
	cworld_metad_start(&w);
	last = metastore_last_commit(w.store);
	mock_medium("/n1-disk1")->commit = last + 2;
	cworld_run(&w, 300 * MS);
	assert_int_equal(metastore_last_commit(w.store), last);
	cworld_node_begin(&w, 1);
	cworld_run(&w, 5 * SEC);
	assert_false(w.nodes[1].ready);
	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "state"), "refused");
	json_decref(answer);
	assert_int_equal(metastore_last_commit(w.store), last);
	cworld_free(&w);
}

static void odd_job_created(struct san_req *r)
{
	assert_int_equal(r->status, 0);
}

/* A node that comes late finds that the server has made more commits since than its database had lost. */
static void a_late_node_notices_that_it_went_back(void **state)
{
	json_t *answer;
	uint64_t last;
	char name[32];

	(void)state;
	begin(34, 2);
	cworld_run(&w, SEC);
	cworld_node_stop(&w, 2);
	cworld_run(&w, SEC);
	cworld_metad_stop(&w);
	cworld_metad_start(&w);
	last = metastore_last_commit(w.store);
	mock_medium("/n2-disk1")->commit = last + 3;
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "vm%d", i);
		cworld_volume_create(&w, name, 16 * MIB);
	}
	assert_true(metastore_last_commit(w.store) > last + 10);
	cworld_node_begin(&w, 2);
	cworld_run(&w, 5 * SEC);
	assert_false(w.nodes[2].ready);
	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "state"), "refused");
	json_decref(answer);
	cworld_free(&w);
}

/* Also a device that its node could not open at first. */
static void a_late_device_notices_that_it_went_back(void **state)
{
	json_t *answer;

	(void)state;
	begin(37, 1);
	cworld_node_stop(&w, 1);
	mock_medium("/n1-disk2")->unopenable = true;
	cworld_node_start(&w, 1);
	cworld_run(&w, SEC);
	expect_state("2", "failed");
	mock_medium("/n1-disk2")->commit = 1000000;
	mock_medium("/n1-disk2")->unopenable = false;
	cworld_run(&w, 15 * SEC);
	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "state"), "refused");
	assert_non_null(strstr(cworld_text(answer, "reasons.0.message"), "1000000"));
	json_decref(answer);
	cworld_free(&w);
}

/* But one that was in touch with this very server may know what it has committed since it started. */
static void who_was_in_touch_is_welcome_back(void **state)
{
	char name[32];

	(void)state;
	begin(35, 2);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 10; i++) {
			snprintf(name, sizeof(name), "vm%d-%d", round, i);
			cworld_volume_create(&w, name, 16 * MIB);
		}
		cworld_run(&w, SEC);
		cworld_node_kill(&w, 2);
		cworld_run(&w, SEC);
		cworld_node_start(&w, 2);
		cworld_run(&w, SEC);
		expect_state("3", "ok");
		cworld_metad_kill(&w);
		cworld_metad_start(&w);
		cworld_run(&w, 5 * SEC);
		expect_state("1", "ok");
		expect_state("3", "ok");
	}
	cworld_free(&w);
}

static void expect_job(const char *job, const char *expected)
{
	json_t *answer;

	assert_int_equal(cworld_admin(&w, ADMIN_JOB_SHOW, job, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "state"), expected);
	json_decref(answer);
}

/* Whether the server is stopped or dies, at whatever moment. */
static void jobs_go_on_after_a_restart(void **state)
{
	(void)state;
	for (int i = 0; i < 12; i++) {
		json_t *answer;

		begin_deletion(40 + (uint64_t)i);
		assert_int_equal(cworld_admin(&w, ADMIN_CHECK, NULL, NULL, &answer), 202);
		assert_int_equal(cworld_int(answer, "job"), 2);
		json_decref(answer);
		for (int step = 0; step < i * 7; step++)
			sim_step(w.sim);
		if (i % 3) {
			cworld_metad_stop(&w);
		} else {
			cworld_metad_kill(&w);
		}
		cworld_metad_start(&w);
		cworld_run(&w, 20 * SEC);
		expect_job("1", "done");
		expect_job("2", "done");
		cworld_free(&w);
	}
}

/* A creation whose answer was lost with the server is found by the next process. */
static void a_repeated_request_makes_nothing_again(void **state)
{
	static const char args[] = "{\"name\": \"vm1\", \"size_bytes\": 1048576}";
	struct admin_req first = {.verb = ADMIN_VOLUME_CREATE, .key = "k", .request = 1};
	struct admin_req other = {.verb = ADMIN_VOLUME_CREATE, .key = "other", .request = 1};
	struct admin_req reused = {.verb = ADMIN_VOLUME_CREATE, .key = "k", .request = 2};
	struct admin_req check1 = {.verb = ADMIN_CHECK, .key = "c", .request = 3}, check2 = check1;
	struct admin_req again;
	int64_t id, job;

	(void)state;
	again = first;
	begin(32, 1);
	cworld_admin_begin(&w, &first, args);
	cworld_until(&w, first.status);
	assert_int_equal(first.status, 201);
	id = cworld_int(first.answer, "id");
	cworld_admin_end(&w, &first, false);
	cworld_admin_begin(&w, &check1, NULL);
	cworld_until(&w, check1.status);
	assert_int_equal(check1.status, 202);
	job = cworld_int(check1.answer, "job");
	cworld_admin_end(&w, &check1, false);

	cworld_metad_kill(&w);
	cworld_metad_start(&w);
	cworld_run(&w, SEC);
	cworld_admin_begin(&w, &again, args);
	cworld_until(&w, again.status);
	assert_int_equal(again.status, 201);
	assert_int_equal(cworld_int(again.answer, "id"), id);
	assert_string_equal(cworld_text(again.answer, "name"), "vm1");
	cworld_admin_end(&w, &again, false);
	cworld_admin_begin(&w, &check2, NULL);
	cworld_until(&w, check2.status);
	assert_int_equal(check2.status, 202);
	assert_int_equal(cworld_int(check2.answer, "job"), job);
	cworld_admin_end(&w, &check2, false);
	/* another key, or another request with this one */
	cworld_admin_begin(&w, &other, args);
	cworld_admin_end(&w, &other, false);
	assert_int_equal(other.status, 409);
	cworld_admin_begin(&w, &reused, args);
	cworld_admin_end(&w, &reused, false);
	assert_int_equal(reused.status, 422);
	assert_int_equal(reused.error.code, ADMIN_E_KEY_REUSED);
	/* what it made is gone again */
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_DELETE, "vm1", NULL, NULL), 202);
	cworld_run(&w, SEC);
	again = (struct admin_req){.verb = ADMIN_VOLUME_CREATE, .key = "k", .request = 1};
	cworld_admin_begin(&w, &again, args);
	cworld_admin_end(&w, &again, false);
	assert_int_equal(again.status, 404);
	cworld_free(&w);
}

/* Texts that are no UTF-8 (from a node, or cut in the middle of a character) are shown as well as they can be. */
static void odd_texts_are_shown(void **state)
{
	struct san_job_create op = {.kind = 9999, .subject = "\xc3"};
	json_t *answer;
	size_t n;

	(void)state;
	begin(33, 1);
	san_event(w.metad->san, SAN_WARNING, "odd", "a \xff b");
	op.req.done = odd_job_created;
	san_job_create(w.metad->san, &op);
	cworld_run(&w, SEC);
	assert_int_equal(cworld_admin(&w, ADMIN_EVENT_LIST, NULL, NULL, &answer), 200);
	n = json_array_size(json_object_get(answer, "items"));
	for (size_t i = 0; i < n; i++) {
		const json_t *e = json_array_get(json_object_get(answer, "items"), i);

		if (!strcmp(cworld_text(e, "code"), "odd"))
			assert_string_equal(cworld_text(e, "message"), "a ? b");
	}
	assert_int_equal(cworld_int(json_array_get(json_object_get(answer, "items"), n - 1), "id"),
			 n);
	json_decref(answer);
	assert_int_equal(cworld_events(&w, "odd"), 1);
	assert_int_equal(cworld_admin(&w, ADMIN_JOB_SHOW, "1", NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "subject"), "?");
	assert_string_equal(cworld_text(answer, "state"), "failed");
	json_decref(answer);
	cworld_free(&w);
}

/* A slot on a device that nobody knows of: the check says so, in its result and to whoever reads the events. */
static void a_check_tells_what_it_finds(void **state)
{
	struct device_slot *slot;
	json_t *answer;

	(void)state;
	begin(36, 1);
	slot = &mock_medium("/n1-disk1")->slots[200];
	assert_int_equal(cworld_admin(&w, ADMIN_CHECK, NULL, NULL, NULL), 202);
	cworld_run(&w, 5 * SEC);
	expect_job("1", "done");
	assert_int_equal(cworld_events(&w, "check_problems"), 0);
	*slot = (struct device_slot){.state = DEVICE_SLOT_OPEN, .cgen = 77};
	assert_int_equal(cworld_admin(&w, ADMIN_CHECK, NULL, NULL, NULL), 202);
	cworld_run(&w, 5 * SEC);
	assert_int_equal(cworld_admin(&w, ADMIN_JOB_SHOW, "2", NULL, &answer), 200);
	assert_int_equal(cworld_int(answer, "result.problems_n"), 1);
	assert_non_null(strstr(cworld_text(answer, "result.problems.0"), "device 1 slot 200"));
	json_decref(answer);
	assert_int_equal(cworld_events(&w, "check_problems"), 1);
	cworld_free(&w);
}

static void expect_unchecked(const char *job, const char *devices)
{
	json_t *answer;
	char *away;

	cworld_run(&w, 5 * SEC);
	assert_int_equal(cworld_admin(&w, ADMIN_JOB_SHOW, job, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "state"), "done");
	assert_int_equal(cworld_int(answer, "result.problems_n"), 0);
	away = json_dumps(json_object_get(json_object_get(answer, "result"), "devices_away"),
			  JSON_COMPACT);
	assert_string_equal(away, devices);
	free(away);
	json_decref(answer);
}

/* A check that could look at nothing has found nothing, and says why: devices that were away from the beginning, that went away while it ran, that
 * fail. */
static void a_check_names_what_it_could_not_look_at(void **state)
{
	struct cworld_call *v, *a;

	(void)state;
	begin(37, 2);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 20, a), 0);
	assert_int_equal(cworld_admin(&w, ADMIN_CHECK, NULL, NULL, NULL), 202);
	expect_unchecked("1", "[]");
	assert_int_equal(cworld_admin(&w, ADMIN_CHECK, NULL, NULL, NULL), 202);
	cworld_node_kill(&w, 2);
	expect_unchecked("2", "[3,4]");
	assert_int_equal(cworld_admin(&w, ADMIN_CHECK, NULL, NULL, NULL), 202);
	expect_unchecked("3", "[3,4]");
	mock_medium("/n1-disk1")->breaks = mock_medium("/n1-disk2")->breaks = true;
	for (int i = 0; i < 20; i++) /* each of them on one of the devices */
		if (a->items[i].entry.replicas[0].dev <= 2)
			cworld_write(&w, 1, v, &a->items[i]);
	cworld_run(&w, SEC);
	assert_int_equal(cworld_admin(&w, ADMIN_CHECK, NULL, NULL, NULL), 202);
	expect_unchecked("4", "[1,2,3,4]");
	mem_free(v);
	mem_free(a);
	cworld_free(&w);
}

static void a_device_that_fails_is_told(void **state)
{
	struct cworld_call *v, *a;
	json_t *answer;

	(void)state;
	begin(13, 1);
	cworld_volume_create(&w, "vm1", 64 * MIB);
	v = cworld_call_new();
	a = cworld_call_new();
	assert_int_equal(cworld_open(&w, 1, "vm1", v), 0);
	assert_int_equal(cworld_alloc(&w, 1, v, 0, 10, a), 0);
	mock_medium("/n1-disk1")->breaks = mock_medium("/n1-disk2")->breaks = true;
	assert_int_equal(cworld_write(&w, 1, v, &a->items[0]), -E_DEVICE_FAILED);
	cworld_run(&w, SEC);
	assert_int_equal(cworld_admin(&w, ADMIN_STATUS, NULL, NULL, &answer), 200);
	assert_string_equal(cworld_text(answer, "health"), "failed");
	assert_int_equal(cworld_int(answer, "devices.failed"), 1);
	json_decref(answer);
	assert_true(cworld_events(&w, "device_failed") >= 1);
	mem_free(v);
	mem_free(a);
	cworld_free(&w);
}

static void a_device_that_cannot_be_opened_is_tried_again(void **state)
{
	(void)state;
	begin(14, 1);
	cworld_node_stop(&w, 1);
	mock_medium("/n1-disk2")->unopenable = true;
	cworld_node_start(&w, 1);
	cworld_run(&w, SEC);
	expect_state("1", "ok");
	expect_state("2", "failed");
	mock_medium("/n1-disk2")->unopenable = false;
	cworld_run(&w, 15 * SEC);
	expect_state("2", "ok");
	cworld_free(&w);
}

/* ---- names on the devices ------------------------------------------------------------------------------------------------------------------ */

static int copies_of(const char *name, int disks)
{
	int n = 0;

	for (int i = 0; i < disks; i++) {
		char path[32];
		struct mock_medium *m;

		snprintf(path, sizeof(path), "/n%d-disk%d", i / 2 + 1, i % 2 + 1);
		m = mock_medium(path);
		for (uint32_t k = 0; k < m->layers_n; k++)
			n += !strcmp(m->layers[k].name, name);
	}
	return n;
}

static void names_are_kept_on_two_devices(void **state)
{
	char name[32];

	(void)state;
	begin(15, 2);
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "vm%d", i);
		cworld_volume_create(&w, name, 16 * MIB);
	}
	cworld_run(&w, SEC);
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "vm%d", i);
		assert_int_equal(copies_of(name, 4), 2);
	}
	/* the share of a device that leaves goes to others */
	assert_int_equal(cworld_admin(&w, ADMIN_DEVICE_REMOVE, "2", NULL, NULL), 200);
	mock_medium("/n1-disk2")->layers_n = 0;
	cworld_run(&w, 2 * SEC);
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "vm%d", i);
		assert_true(copies_of(name, 4) >= 2);
	}
	/* a device that was away gets what it missed */
	cworld_node_stop(&w, 2);
	cworld_run(&w, SEC);
	cworld_volume_create(&w, "late", 16 * MIB);
	cworld_node_start(&w, 2);
	cworld_run(&w, SEC);
	assert_int_equal(copies_of("late", 4), 2);
	cworld_free(&w);
}

static void delete_volume(const char *name)
{
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_DELETE, name, NULL, NULL), 202);
}

static bool has_layer(const struct mock_medium *m, const char *name)
{
	for (uint32_t k = 0; k < m->layers_n; k++)
		if (!strcmp(m->layers[k].name, name))
			return true;
	return false;
}

/* Else they would fill the registry of every device for ever. */
static void records_of_deleted_volumes_are_dropped(void **state)
{
	struct mock_medium *m;

	(void)state;
	begin(17, 2);
	cworld_volume_create(&w, "a", 16 * MIB);
	cworld_volume_create(&w, "b", 16 * MIB);
	cworld_volume_create(&w, "c", 16 * MIB);
	cworld_run(&w, SEC);
	delete_volume("a");
	cworld_run(&w, SEC);
	assert_int_equal(copies_of("a", 4), 0);
	assert_int_equal(copies_of("b", 4), 2);
	/* while a node is away that has one, also from when it was to keep that layer's */
	cworld_node_stop(&w, 2);
	m = mock_medium("/n2-disk1");
	if (!has_layer(m, "b"))
		m->layers[m->layers_n++] =
		    (struct device_layer){.layer = 2, .commit = 1, .name = "b"};
	cworld_run(&w, SEC);
	delete_volume("b");
	cworld_run(&w, SEC);
	/* and what a server that was killed never said; more than it asks for at a time */
	for (layer_id id = 1000; id < 1200; id++)
		m->layers[m->layers_n++] =
		    (struct device_layer){.layer = id, .commit = 1, .name = "gone"};
	cworld_node_start(&w, 2);
	cworld_run(&w, 2 * SEC);
	assert_int_equal(copies_of("b", 4), 0);
	assert_int_equal(copies_of("gone", 4), 0);
	assert_int_equal(copies_of("c", 4), 2);
	/* everybody at once: the server is killed amid a deletion */
	delete_volume("c");
	cworld_metad_kill(&w);
	cworld_metad_start(&w);
	cworld_run(&w, 20 * SEC);
	assert_int_equal(copies_of("c", 4), 0);
	cworld_free(&w);
}

/* What a volume is like must be on the devices too, or they alone could not bring it back. */
static uint32_t flags_on_devices(const char *name, int disks)
{
	uint32_t flags = UINT32_MAX;

	for (int i = 0; i < disks; i++) {
		char path[32];
		struct mock_medium *m;

		snprintf(path, sizeof(path), "/n%d-disk%d", i / 2 + 1, i % 2 + 1);
		m = mock_medium(path);
		for (uint32_t k = 0; k < m->layers_n; k++) {
			if (strcmp(m->layers[k].name, name))
				continue;
			assert_true(flags == UINT32_MAX || flags == m->layers[k].flags);
			flags = m->layers[k].flags;
		}
	}
	return flags;
}

static void devices_know_what_a_volume_is_like(void **state)
{
	(void)state;
	begin(16, 1);
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_CREATE, NULL,
				      "{\"name\": \"a\", \"size_bytes\": 16777216, "
				      "\"sector_bytes\": 512, \"write_cache\": \"writethrough\"}",
				      NULL),
			 201);
	assert_int_equal(cworld_admin(&w, ADMIN_VOLUME_CREATE, NULL,
				      "{\"name\": \"b\", \"size_bytes\": 16777216, "
				      "\"sector_bytes\": 4096, \"write_cache\": \"writeback\"}",
				      NULL),
			 201);
	cworld_run(&w, SEC);
	assert_int_equal(flags_on_devices("a", 2),
			 FMT_LAYER_SECTOR_512 | 2 << FMT_LAYER_CACHE_SHIFT);
	assert_int_equal(flags_on_devices("b", 2), 1 << FMT_LAYER_CACHE_SHIFT);
	cworld_free(&w);
}

/* Several devices have news at the same time, and what the first would say finds no memory: the connection is made again, and everything told. */
static void news_without_memory(void **state)
{
	(void)state;
	begin(26, 1);
	for (uint64_t n = 0; n < 10; n++) {
		struct node *node = w.nodes[1].node;
		struct control *c = &node->control;

		cworld_until(&w, control_is_joined(c) && c->timing);
		list_for_each (l, &node->devices.list) {
			struct node_device *d = list_entry(l, struct node_device, link);

			d->told_lsn = UINT64_MAX - n; /* is not so any more */
		}
		while (ioe_now_ns(w.nodes[1].e) + SEC / 100 < c->timer.deadline_ns)
			sim_step(w.sim);
		mem_fail_at(n, 1);
		cworld_run(&w, SEC / 10);
		mem_fail_at(UINT64_MAX, 0);
		cworld_until(&w, control_is_joined(c));
	}
	cworld_run(&w, SEC);
	expect_state("1", "ok");
	expect_state("2", "ok");
	cworld_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_node_joins_and_serves_devices),
	    cmocka_unit_test(everybody_finds_everything_again),
	    cmocka_unit_test(a_server_ends_while_hellos_wait),
	    cmocka_unit_test(a_node_of_another_cluster_is_refused),
	    cmocka_unit_test(a_copy_of_a_node_waits_for_its_end),
	    cmocka_unit_test(adding_a_device_can_be_repeated),
	    cmocka_unit_test(a_device_is_added_once_whoever_dies),
	    cmocka_unit_test(a_node_leaves_for_good),
	    cmocka_unit_test(a_node_leaves_whoever_dies),
	    cmocka_unit_test(a_removed_node_is_told_what_it_lost),
	    cmocka_unit_test(a_disk_moves_to_another_node),
	    cmocka_unit_test(a_volume_is_opened_and_mapped),
	    cmocka_unit_test(the_owner_is_named_to_others),
	    cmocka_unit_test(clients_are_listed),
	    cmocka_unit_test(a_volume_is_exported_to_one_client),
	    cmocka_unit_test(a_dead_owner_is_replaced),
	    cmocka_unit_test(a_replaced_owner_is_told),
	    cmocka_unit_test(a_restarted_owner_gets_a_new_epoch),
	    cmocka_unit_test(an_away_device_learns_before_it_serves),
	    cmocka_unit_test(growing_while_it_is_opened),
	    cmocka_unit_test(a_killed_server_loses_nothing),
	    cmocka_unit_test(patience_ends),
	    cmocka_unit_test(slots_come_back_also_when_somebody_dies),
	    cmocka_unit_test(space_is_waited_for_while_devices_are_opened),
	    cmocka_unit_test(a_device_leaves_when_it_is_empty),
	    cmocka_unit_test(two_devices_leave_at_once),
	    cmocka_unit_test(a_device_leaves_a_full_filesystem),
	    cmocka_unit_test(a_device_leaves_though_its_node_was_away),
	    cmocka_unit_test(a_lost_device_makes_mappings_stale),
	    cmocka_unit_test(a_full_filesystem_is_told),
	    cmocka_unit_test(files_that_promise_too_much),
	    cmocka_unit_test(pools_are_apart),
	    cmocka_unit_test(a_full_pool_waits_for_its_own_devices),
	    cmocka_unit_test(a_pool_goes_when_it_is_empty),
	    cmocka_unit_test(pools_come_and_go_side_by_side),
	    cmocka_unit_test(an_old_image_of_a_device_is_refused),
	    cmocka_unit_test(an_old_image_never_catches_up),
	    cmocka_unit_test(a_database_that_went_back_in_time_is_refused),
	    cmocka_unit_test(no_job_hides_that_it_went_back),
	    cmocka_unit_test(a_late_node_notices_that_it_went_back),
	    cmocka_unit_test(a_late_device_notices_that_it_went_back),
	    cmocka_unit_test(who_was_in_touch_is_welcome_back),
	    cmocka_unit_test(jobs_go_on_after_a_restart),
	    cmocka_unit_test(a_repeated_request_makes_nothing_again),
	    cmocka_unit_test(odd_texts_are_shown),
	    cmocka_unit_test(a_check_tells_what_it_finds),
	    cmocka_unit_test(a_check_names_what_it_could_not_look_at),
	    cmocka_unit_test(a_device_that_fails_is_told),
	    cmocka_unit_test(a_device_that_cannot_be_opened_is_tried_again),
	    cmocka_unit_test(names_are_kept_on_two_devices),
	    cmocka_unit_test(records_of_deleted_volumes_are_dropped),
	    cmocka_unit_test(devices_know_what_a_volume_is_like),
	    cmocka_unit_test(news_without_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
