/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_fsck.c - `strata fsck --data DIR`: a stopped cluster of this machine, its devices against themselves and against the metadata. Nothing is written.
 *
 * LOCK (nobody starts it meanwhile) -> database -> registry -> the whole map, sorted by device -> each device of each node -> devices that are missing */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "metadata/cluster/cluster.h"
#include "metadata/san/san.h"
#include "metadata/store/metastore.h"
#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/cli.h"
#include "tools/fsck/fsck.h"

enum { NODES_MAX = 32, WALK_ITEMS = 4096 };

/* What the map says lies on one device. */
struct share {
	struct fsck_mapping *items;
	size_t n, room, at;
	bool seen;
};

struct fsck_run {
	struct cli *c;
	const char *dir, *runtime_dir;
	struct ioe *ioe;
	struct metastore *store;
	struct san_open san;
	struct cluster cluster;
	struct cluster_open registry;
	struct san_map_walk walk;
	struct share *shares; /* by device number */
	bool done;
	uint32_t errors, warnings, devices_n;
	uint64_t chunks_n;
	const char *device; /* path of the one being checked */
	json_t *findings;
};

static int fsck_lock(struct fsck_run *f);
static int fsck_metadata(struct fsck_run *f);
static int fsck_map(struct fsck_run *f);
static int fsck_nodes(struct fsck_run *f);
static int fsck_node(struct fsck_run *f, const char *list);
static int fsck_one(struct fsck_run *f, const char *uuid_text, const char *path);
static void fsck_missing(struct fsck_run *f);
static int fsck_report(struct fsck_run *f);

int cmd_fsck(struct cli *c)
{
	struct fsck_run *f = mem_zalloc(sizeof(*f));
	char fallback[64];
	struct ioe_config ec = {0};
	int r;

	check(f);
	f->c = c;
	f->dir = cli_option(c, "data");
	f->runtime_dir = cli_option(c, "runtime-dir");
	if (!f->dir)
		return cli_usage(c, "--data DIR is missing: where the cluster keeps its state");
	if (!f->runtime_dir) {
		snprintf(fallback, sizeof(fallback), "/dev/shm/strata-%u", (unsigned)getuid());
		f->runtime_dir = fallback;
	}
	f->findings = json_array();
	f->shares = mem_zalloc_array(DEVICES_MAX + 1, sizeof(f->shares[0]));
	check(f->findings && f->shares);
	if (fsck_lock(f))
		return EXIT_FAILED;
	r = ioe_new(&ec, &f->ioe);
	if (r)
		return cli_fail("no I/O engine: %s", err_text(r));
	if (fsck_metadata(f) || fsck_map(f) || fsck_nodes(f))
		return EXIT_FAILED;
	fsck_missing(f);
	return fsck_report(f);
}

static void wait_done(struct fsck_run *f)
{
	while (!f->done)
		ioe_poll(f->ioe, UINT64_MAX);
	f->done = false;
}

static int fsck_lock(struct fsck_run *f)
{
	char path[PATH_MAX], pid[CLI_PID_LEN];
	struct stat st;
	int r;

	snprintf(path, sizeof(path), "%s/meta", f->dir);
	if (stat(path, &st))
		return cli_fail("%s holds no cluster: %s: %s", f->dir, path, strerror(errno));
	r = cli_lock_data(f->dir, pid);
	if (r == -EWOULDBLOCK)
		return cli_fail("the cluster in %s runs (pid %s): stop it first, or check it "
				"online with 'strata check'",
				f->dir, pid);
	return r < 0 ? cli_fail("%s/lock: %s", f->dir, strerror(-r)) : 0;
}

/* ---- the metadata ---------------------------------------------------------------------------------------------------------- */

static void san_opened(struct san_open *op)
{
	container_of(op, struct fsck_run, san)->done = true;
}

static void registry_opened(struct cluster_open *op)
{
	container_of(op, struct fsck_run, registry)->done = true;
}

static int fsck_metadata(struct fsck_run *f)
{
	char path[PATH_MAX], errmsg[ERRMSG_LEN] = "";
	int r;

	snprintf(path, sizeof(path), "%s/meta", f->dir);
	r = metastore_open_rocksdb(f->ioe, path, &f->store, errmsg);
	if (r)
		return cli_fail("%s: %s", *errmsg ? errmsg : path, err_text(r));
	f->san = (struct san_open){.cfg = {.ioe = f->ioe, .store = f->store}, .done = san_opened};
	san_open(&f->san);
	wait_done(f);
	if (f->san.status)
		return cli_fail("the metadata cannot be read: %s",
				f->san.errmsg[0] ? f->san.errmsg : err_text(f->san.status));
	f->registry = (struct cluster_open){.c = &f->cluster,
					    .ioe = f->ioe,
					    .san = f->san.san,
					    .store = f->store,
					    .done = registry_opened};
	cluster_open(&f->registry);
	wait_done(f);
	if (f->registry.status)
		return cli_fail("the registry cannot be read: %s",
				f->registry.errmsg[0] ? f->registry.errmsg
						      : err_text(f->registry.status));
	return 0;
}

static void walked(struct san_req *req)
{
	container_of(req, struct fsck_run, walk.req)->done = true;
}

static void share_add(struct share *s, const struct fsck_mapping *m)
{
	if (s->n == s->room) {
		s->room = s->room ? 2 * s->room : 1024;
		s->items = mem_realloc(s->items, s->room, sizeof(s->items[0]));
		check(s->items);
	}
	s->items[s->n++] = *m;
}

static void take_items(struct fsck_run *f)
{
	struct san_layer layer = {0};

	for (uint32_t i = 0; i < f->walk.items_n; i++) {
		const struct san_map_item *item = &f->walk.items[i];

		if (layer.layer != item->layer && san_layer_get(f->san.san, item->layer, &layer))
			layer = (struct san_layer){.layer = item->layer};
		for (int k = 0; k < item->entry.replicas_n; k++) {
			const struct replica *rep = &item->entry.replicas[k];
			struct fsck_mapping m = {.slot = rep->slot,
						 .cgen = rep->cgen,
						 .volume = layer.volume,
						 .layer = item->layer,
						 .chunk = item->chunk,
						 .full = item->entry.flags & MAP_FULL};

			share_add(&f->shares[rep->dev], &m);
			f->chunks_n++;
		}
	}
}

static int fsck_map(struct fsck_run *f)
{
	struct san_map_item *items = mem_zalloc_array(WALK_ITEMS, sizeof(items[0]));
	layer_id layer = 1;
	uint32_t chunk = 0;

	check(items);
	while (layer) {
		f->walk = (struct san_map_walk){.req = {.done = walked},
						.layer = layer,
						.chunk = chunk,
						.items = items,
						.items_max = WALK_ITEMS};
		san_map_walk(f->san.san, &f->walk);
		wait_done(f);
		if (f->walk.req.status)
			return cli_fail("the map cannot be read: %s", err_text(f->walk.req.status));
		take_items(f);
		layer = f->walk.next_layer;
		chunk = f->walk.next_chunk;
	}
	mem_free(items);
	return 0;
}

/* ---- the devices ------------------------------------------------------------------------------------------------------------- */

static int fsck_nodes(struct fsck_run *f)
{
	for (int k = 1; k <= NODES_MAX; k++) {
		char list[PATH_MAX];

		snprintf(list, sizeof(list), "%s/node%d/devices", f->dir, k);
		if (access(list, F_OK) == 0 && fsck_node(f, list))
			return -1;
	}
	return 0;
}

/* The node's list: a line "UUID PATH" each (io-path/node/devices.h). */
static int fsck_node(struct fsck_run *f, const char *list)
{
	FILE *in = fopen(list, "re");
	char line[PATH_MAX];
	int r = 0;

	if (!in)
		return cli_fail("%s: %s", list, strerror(errno));
	while (!r && fgets(line, sizeof(line), in)) {
		char *path = strchr(line, ' ');

		line[strcspn(line, "\n")] = '\0';
		if (!*line || *line == '#')
			continue;
		if (!path)
			r = cli_fail("%s: a line is not 'UUID PATH': %s", list, line);
		else
			*path++ = '\0';
		if (!r)
			r = fsck_one(f, line, path);
	}
	fclose(in);
	return r;
}

static void found(void *arg, const struct fsck_finding *finding)
{
	static const char *const words[] = {
	    [FSCK_NOTE] = "note", [FSCK_WARNING] = "warning", [FSCK_ERROR] = "error"};
	struct fsck_run *f = arg;
	json_t *j;

	if (finding->severity == FSCK_NOTE && !cli_option(f->c, "notes"))
		return;
	f->errors += finding->severity == FSCK_ERROR;
	f->warnings += finding->severity == FSCK_WARNING;
	if (!f->c->json) {
		printf("%s: %s: %s: %s\n", f->device, words[finding->severity], finding->what,
		       finding->text);
		return;
	}
	j = json_pack("{s:s, s:s, s:s, s:s}", "device", f->device, "severity",
		      words[finding->severity], "what", finding->what, "message", finding->text);
	if (finding->slot)
		json_object_set_new(j, "slot", json_integer((json_int_t)*finding->slot));
	json_array_append_new(f->findings, j);
}

static int map_next(void *arg, struct fsck_mapping *ret_m)
{
	struct share *s = arg;

	if (s->at == s->n)
		return -ENOENT;
	*ret_m = s->items[s->at++];
	return 0;
}

static int fsck_one(struct fsck_run *f, const char *uuid_text, const char *path)
{
	struct uuid uuid, cluster = san_cluster(f->san.san);
	struct cluster_device *d;
	char ring[PATH_MAX + 64], errmsg[ERRMSG_LEN] = "";
	struct fsck_result result;
	struct fsck_options o = {.ioe = f->ioe,
				 .path = path,
				 .ring_path = ring,
				 .cluster = &cluster,
				 .data = cli_option(f->c, "verify-data") != NULL,
				 .found = found,
				 .found_arg = f};
	int r;

	if (uuid_parse(uuid_text, &uuid))
		return cli_fail("'%s' is not the uuid of a device", uuid_text);
	snprintf(ring, sizeof(ring), "%s/%s.ring", f->runtime_dir, uuid_text);
	d = cluster_device_by_uuid(&f->cluster, &uuid);
	if (d) {
		o.map_next = map_next;
		o.map_arg = &f->shares[d->no];
		f->shares[d->no].seen = true;
	}
	f->device = path;
	f->devices_n++;
	r = fsck_device(&o, &result, errmsg);
	if (r) {
		struct fsck_finding cannot = {.severity = FSCK_ERROR,
					      .what = "cannot-check",
					      .text = *errmsg ? errmsg : err_text(r)};

		found(f, &cannot);
	} else if (!f->c->json) {
		printf("%s: %u of %u slots in use, %llu blocks present: %u errors, %u warnings\n",
		       path, result.slots_open_n, result.slots_n,
		       (unsigned long long)result.blocks_present, result.errors, result.warnings);
	}
	return 0;
}

/* Devices that hold something and are on no node's list. Lost ones hold nothing any more. */
static void fsck_missing(struct fsck_run *f)
{
	for (uint32_t no = 1; no <= DEVICES_MAX; no++) {
		struct cluster_device *d;
		char text[128];
		struct fsck_finding missing = {.severity = FSCK_ERROR,
					       .what = "device-missing",
					       .text = text};

		if (!f->shares[no].n || f->shares[no].seen)
			continue;
		d = cluster_device_by_no(&f->cluster, (device_no)no);
		f->device = d && d->path ? d->path : "?";
		snprintf(text, sizeof(text), "device %u holds %zu chunks and is on no node's list",
			 no, f->shares[no].n);
		found(f, &missing);
	}
}

static int fsck_report(struct fsck_run *f)
{
	if (f->c->json)
		print_json(json_pack("{s:o, s:i, s:I, s:i, s:i}", "findings", f->findings, "devices",
				     (int)f->devices_n, "chunks", (json_int_t)f->chunks_n, "errors",
				     (int)f->errors, "warnings", (int)f->warnings));
	else
		printf("%u devices, %llu chunks mapped: %s\n", f->devices_n,
		       (unsigned long long)f->chunks_n, f->errors ? "NOT consistent" : "consistent");
	return f->errors ? EXIT_UNHEALTHY : EXIT_OK;
}
