/* SPDX-License-Identifier: Apache-2.0 */
/* up.c - `strata up`: a whole cluster on this machine, in the foreground.
 *
 *   DIR/meta/          the metadata server's database
 *   DIR/node<k>/       node k: its list of devices, and the device files disk<j> that were made for it
 *   DIR/run/           sockets and pid files        DIR/log/   one log a process        DIR/key   the cluster's secret
 *
 * DIR -> OUTLIVE -> METAD -> NODES (the new ones get their devices) -> ready, serve until SIGTERM -> nodes and, after them, metad end
 *
 * It serves with the nodes it has. One that is refused, or cannot be started, or gets no device, is reported and does not stop the others; as long as
 * the metadata server refuses a node there is somebody to ask why, so that alone ends nothing. Without any node that serves, or may yet, it ends. */
#include <errno.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/up.h"

static int up_run(struct up *u);
static int up_start_metad(struct up *u);
static int up_start_nodes(struct up *u);
static int up_settle(struct up *u, uint64_t k);
static int up_verdict(struct up *u);
static int up_late(struct up *u);
static void up_ready(struct up *u);

int cmd_up(struct cli *c)
{
	struct up *u = mem_zalloc(sizeof(*u));
	int r;

	check(u);
	u->c = c;
	r = up_options(u);
	if (r)
		return r;
	if (up_dir(u))
		return EXIT_FAILED;
	up_describe_metad(u);
	for (uint64_t k = 1; k <= u->nodes_n; k++)
		up_describe_node(u, k);
	r = supervisor_init(&u->sup, u->children, (int)(1 + u->nodes_n));
	if (r)
		return cli_fail("cannot watch signals: %s", strerror(-r));
	if (supervisor_outlive(&u->sup))
		return EXIT_OK;
	r = up_run(u);
	supervisor_stop(&u->sup);
	return r == -EINTR ? EXIT_OK : EXIT_FAILED;
}

static int up_run(struct up *u)
{
	int r = up_start_metad(u);

	if (!r)
		r = up_start_nodes(u);
	if (!r)
		r = up_verdict(u);
	while (!r) {
		r = supervisor_wait(&u->sup);
		if (!r)
			r = up_late(u);
	}
	return r;
}

static int up_start_metad(struct up *u)
{
	struct child *c = &u->children[0];
	int r = child_start(c);

	if (!r)
		r = supervisor_await(&u->sup, c);
	if (r && r != -EINTR)
		cli_fail("%s did not start", c->name);
	return r;
}

/* New ones come one after the other, so that numbers follow names; the others all at once, so that none waits for one that takes long. */
static int up_start_nodes(struct up *u)
{
	bool was_new[1 + NODES_MAX];
	int r = 0;

	for (uint64_t k = 1; k <= u->nodes_n && !r; k++) {
		was_new[k] = up_node_is_new(u, k);
		child_start(&u->children[k]);
		if (was_new[k])
			r = up_settle(u, k);
	}
	for (uint64_t k = 1; k <= u->nodes_n && !r; k++)
		if (!was_new[k])
			r = up_settle(u, k);
	return r;
}

/* Waits until it is known what is to be had of a node. Not 0 when this process is to end. */
static int up_settle(struct up *u, uint64_t k)
{
	int r = supervisor_await(&u->sup, &u->children[k]);

	if (r == -EPERM || r == -ECHILD) {
		u->nodes[k] = NODE_LATE;
		return 0;
	}
	if (!r)
		r = up_devices(u, k);
	u->nodes[k] = r ? NODE_INCOMPLETE : NODE_SERVES;
	return r == -EINTR || u->sup.stopping ? -EINTR : 0;
}

static uint64_t count(const struct up *u, enum up_node what)
{
	uint64_t n = 0;

	for (uint64_t k = 1; k <= u->nodes_n; k++)
		n += u->nodes[k] == what;
	return n;
}

static bool some_node_is_refused(const struct up *u)
{
	for (uint64_t k = 1; k <= u->nodes_n; k++)
		if (u->children[k].refused)
			return true;
	return false;
}

static int up_verdict(struct up *u)
{
	uint64_t serve = count(u, NODE_SERVES);

	if (!serve && !some_node_is_refused(u)) {
		if (u->nodes_n == 1 && u->nodes[1] == NODE_LATE)
			cli_fail("%s did not start", u->children[1].name);
		else if (u->nodes_n == 1)
			cli_fail("%s did not get its devices", u->children[1].name);
		else
			cli_fail("none of the %llu nodes started with its devices",
				 (unsigned long long)u->nodes_n);
		return -ECHILD;
	}
	if (serve < u->nodes_n)
		fprintf(stderr,
			"strata: %llu of %llu nodes serve; 'strata --server unix:%s/run/api.sock "
			"status' tells what is missing\n",
			(unsigned long long)serve, (unsigned long long)u->nodes_n, u->dir);
	if (serve)
		up_ready(u);
	return 0;
}

/* A node that was late has come. */
static int up_late(struct up *u)
{
	for (uint64_t k = 1; k <= u->nodes_n; k++) {
		int r;

		if (u->nodes[k] != NODE_LATE || !u->children[k].serving)
			continue;
		r = up_settle(u, k);
		if (r)
			return r;
		if (u->nodes[k] != NODE_SERVES)
			continue;
		fprintf(stderr, "strata: %s serves\n", u->children[k].name);
		if (!u->told)
			up_ready(u);
	}
	return 0;
}

/* ready {"api":...,"nbd":[[...] per node],"pids":{...}} */
static void up_ready(struct up *u)
{
	json_t *line = json_object(), *nbd = json_array(), *nodes = json_array(), *pids, *api;
	char text[PATH_MAX + 32], *dump;

	for (uint64_t k = 1; k <= u->nodes_n; k++) {
		json_t *list = json_object_get(u->children[k].ready, "nbd");

		json_array_append_new(nbd, list ? json_incref(list) : json_array());
		json_array_append_new(nodes, json_integer(u->children[k].pid));
	}
	snprintf(text, sizeof(text), "unix:%s/run/api.sock", u->dir);
	api = json_object_get(u->children[0].ready, "api");
	json_object_set_new(line, "api",
			    u->api_n && json_array_size(api)
				? json_incref(json_array_get(api, json_array_size(api) - 1))
				: json_string(text));
	json_object_set_new(line, "nbd", nbd);
	pids = json_pack("{s:i, s:i, s:o}", "up", (int)getpid(), "metad", (int)u->children[0].pid,
			 "nodes", nodes);
	json_object_set_new(line, "pids", pids);
	dump = json_dumps(line, JSON_COMPACT);
	check(dump);
	printf("ready %s\n", dump);
	if (fflush(stdout)) { /* it serves all the same, and ends well */
		fprintf(stderr, "strata: cannot write the ready line: %s\n", strerror(errno));
		__fpurge(stdout);
		clearerr(stdout);
	}
	fprintf(stderr, "strata: ready; for other terminals: export STRATA_SERVER=%s\n", text);
	u->told = true;
	free(dump);
	json_decref(line);
}
