/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_fsck.c - `strata fsck --data DIR`: a stopped cluster of this machine, its devices against themselves and against the metadata. Nothing that they
 * hold is changed.
 *
 * LOCK (nobody starts it meanwhile) -> database -> registry -> the database against itself -> the whole map, sorted by device -> each device of each node
 * -> devices that are missing
 *
 * A device that cannot be looked at is no proof of anything: exit code 1, unless something else is wrong (4). */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/fsck_run.h"

enum { TOLD_MAX = 200 };

static int fsck_lock(struct fsck_run *f);
static bool layer_exists(void *arg, layer_id layer)
{
	struct fsck_run *f = arg;
	struct san_layer l;

	return san_layer_get(f->san.san, layer, &l) == 0;
}

static int fsck_one(void *run, const char *uuid_text, const char *path);
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
	if (!f->dir || !*f->dir)
		return cli_usage(c, "--data DIR is missing: where the cluster keeps its state");
	if (!f->runtime_dir) {
		snprintf(fallback, sizeof(fallback), "/dev/shm/strata-%u", (unsigned)getuid());
		f->runtime_dir = fallback;
	}
	f->findings = json_array();
	f->shares = mem_zalloc_array(DEVICES_MAX + 1, sizeof(f->shares[0]));
	check(f->findings && f->shares);
	for (uint32_t no = 0; no <= DEVICES_MAX; no++)
		list_init(&f->shares[no].pages);
	if (fsck_lock(f))
		return EXIT_FAILED;
	r = ioe_new(&ec, &f->ioe);
	if (r)
		return cli_fail("no I/O engine: %s", err_text(r));
	if (fsck_meta_open(f) || fsck_meta_records(f) || fsck_meta_map(f) ||
	    cli_each_device(f->dir, fsck_one, f))
		return EXIT_FAILED;
	fsck_missing(f);
	return fsck_report(f);
}

void fsck_run_wait(struct fsck_run *f)
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

	if ((size_t)snprintf(path, sizeof(path), "%s/meta", f->dir) >= sizeof(path) - 64)
		return cli_fail("%s: %s", f->dir, strerror(ENAMETOOLONG));
	if (stat(path, &st))
		return cli_fail("%s holds no cluster: %s: %s; --data is what 'strata up' or "
				"strata-metad was given",
				f->dir, path, strerror(errno));
	r = cli_lock_data(f->dir, pid);
	if (r == -EWOULDBLOCK)
		return cli_fail("the cluster in %s runs (pid %s): stop it first, or check it "
				"online with 'strata check'",
				f->dir, pid);
	return r < 0 ? cli_fail("%s/lock: %s", f->dir, strerror(-r)) : 0;
}

/* ---- findings ---------------------------------------------------------------------------------------------------------------- */

/* How often this kind of finding was told of this device. */
static uint32_t *times_told(struct fsck_run *f, const char *what)
{
	size_t i = 0;

	while (i + 1 < ARRAY_LEN(f->told) && f->told[i].what && strcmp(f->told[i].what, what))
		i++;
	f->told[i].what = what;
	return &f->told[i].n;
}

/* A disk that is damaged everywhere has something to say of each slot: the first ones of a kind are told, all are counted. */
static void tell_omitted(struct fsck_run *f)
{
	progress_end(&f->progress);
	for (size_t i = 0; i < ARRAY_LEN(f->told) && f->told[i].what; i++) {
		if (f->told[i].n <= TOLD_MAX)
			continue;
		f->omitted_n += f->told[i].n - TOLD_MAX;
		if (!f->c->json)
			printf("%s: %s: and %u more\n", f->device, f->told[i].what,
			       f->told[i].n - TOLD_MAX);
	}
	memset(f->told, 0, sizeof(f->told));
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
	if (++*times_told(f, finding->what) > TOLD_MAX)
		return;
	if (!f->c->json) {
		progress_end(&f->progress);
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

void fsck_run_say(struct fsck_run *f, enum fsck_severity severity, const char *what,
		  const char *fmt, ...)
{
	char text[512];
	struct fsck_finding finding = {.severity = severity, .what = what, .text = text};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	found(f, &finding);
}

static void show_progress(void *arg, uint64_t done_bytes, uint64_t all_bytes)
{
	struct fsck_run *f = arg;
	char what[PATH_MAX + 16];

	if (!f->progress.began_ms)
		f->progress.began_ms = f->progress.told_ms = cli_now_ms();
	snprintf(what, sizeof(what), "checking %s", f->device);
	progress_show(&f->progress, what, done_bytes, all_bytes);
}

/* ---- the devices ------------------------------------------------------------------------------------------------------------- */

/* What only the registry knows of the device. */
static void compare_device(struct fsck_run *f, const struct cluster_device *d,
			   const struct fsck_result *res)
{
	uint64_t commit = metastore_last_commit(f->store);

	if (res->is_open && res->commit > commit)
		fsck_run_say(f, FSCK_ERROR, "metadata-old",
			     "it has heard of commit %" PRIu64 ", the metadata ends at %" PRIu64
			     ": an older copy of the metadata is in place",
			     res->commit, commit);
	if (!d && res->number)
		fsck_run_say(f, FSCK_ERROR, "device-unknown",
			     "it is device %u of this cluster, which the metadata does not know",
			     res->number);
	if (!d && !res->number)
		fsck_run_say(f, FSCK_NOTE, "device-unknown",
			     "it was made and has not been taken into the cluster yet");
	if (!d || d->member != CLUSTER_MEMBER)
		return;
	if (res->number && res->number != d->no)
		fsck_run_say(f, FSCK_ERROR, "device-number",
			     "it says that it is device %u, the metadata that it is %u",
			     res->number, d->no);
	if (res->is_open && res->slots_n < d->slots_n)
		fsck_run_say(f, FSCK_ERROR, "device-size",
			     "it has %u slots, the metadata allocates from %u", res->slots_n,
			     d->slots_n);
	if (res->is_open && res->commit < d->told_commit)
		fsck_run_say(f, FSCK_ERROR, "device-old",
			     "it was told of commit %" PRIu64 " and has heard of %" PRIu64
			     ": this is an older copy of the device",
			     d->told_commit, res->commit);
}

static void print_summary(struct fsck_run *f, const struct fsck_result *res, uint32_t errors,
			  uint32_t warnings)
{
	char freeing[48] = "";

	if (f->c->json)
		return;
	if (res->slots_freeing_n)
		snprintf(freeing, sizeof(freeing), ", %u of them being freed", res->slots_freeing_n);
	printf("%s: %u of %u slots in use%s, %" PRIu64 " blocks present: %u errors, %u warnings\n",
	       f->device, res->slots_open_n, res->slots_n, freeing, res->blocks_present, errors,
	       warnings);
}

static void not_checked(struct fsck_run *f, const struct fsck_share *share, int r,
			const char *errmsg)
{
	if (r == -ENOENT && share && share->n) {
		fsck_run_say(f, FSCK_ERROR, "device-missing",
			     "it is not there, and %" PRIu64 " chunks are on it", share->n);
		return;
	}
	f->unchecked_n++;
	if (f->c->json)
		json_array_append_new(f->findings,
				      json_pack("{s:s, s:s, s:s, s:s}", "device", f->device,
						"severity", "unchecked", "what", "cannot-check",
						"message", *errmsg ? errmsg : err_text(r)));
	else
		printf("%s: not checked: %s\n", f->device, *errmsg ? errmsg : err_text(r));
}

static int fsck_one(void *run, const char *uuid_text, const char *path)
{
	struct fsck_run *f = run;
	struct uuid uuid, cluster = san_cluster(f->san.san);
	struct cluster_device *d;
	struct fsck_share *share;
	char ring[PATH_MAX + 64], errmsg[ERRMSG_LEN] = "";
	uint32_t errors = f->errors, warnings = f->warnings;
	struct fsck_result result;
	struct fsck_options o = {.ioe = f->ioe,
				 .path = path,
				 .ring_path = ring,
				 .cluster = &cluster,
				 .device = &uuid,
				 .data = cli_option(f->c, "verify-data") != NULL,
				 .layer_exists = layer_exists,
				 .layer_arg = f,
				 .found = found,
				 .found_arg = f,
				 .progress = show_progress,
				 .progress_arg = f};
	int r;

	if (uuid_parse(uuid_text, &uuid))
		return cli_fail("'%s' is not the uuid of a device", uuid_text);
	snprintf(ring, sizeof(ring), "%s/%s.ring", f->runtime_dir, uuid_text);
	d = cluster_device_by_uuid(&f->cluster, &uuid);
	share = d && d->member == CLUSTER_MEMBER ? &f->shares[d->no] : NULL;
	f->device = path;
	f->progress = (struct progress){0};
	f->devices_n++;
	if (share && share->used_n++) {
		fsck_run_say(f, FSCK_ERROR, "device-twice",
			     "device %u is on the nodes' lists twice: only one can be it", d->no);
	} else if (share) {
		fsck_frees_of(f, d->no);
		o.map_next = fsck_share_next;
		o.map_arg = share;
		o.freeing_next = fsck_frees_next;
		o.freeing_arg = &f->frees;
	}
	r = fsck_device(&o, &result, errmsg);
	if (r)
		not_checked(f, share, r, errmsg);
	else
		compare_device(f, d, &result);
	if (share)
		fsck_share_free(share);
	tell_omitted(f);
	if (!r)
		print_summary(f, &result, f->errors - errors, f->warnings - warnings);
	return r == -ENOMEM ? cli_fail("%s: %s", path, errmsg) : 0;
}

/* Devices that hold something and are on no node's list. Lost ones hold nothing any more. */
static void fsck_missing(struct fsck_run *f)
{
	for (uint32_t no = 1; no <= DEVICES_MAX; no++) {
		const struct fsck_share *s = &f->shares[no];
		struct cluster_device *d;

		if (!s->n || s->used_n)
			continue;
		d = cluster_device_by_no(&f->cluster, (device_no)no);
		f->device = d && d->path ? d->path : "?";
		if (d && d->member == CLUSTER_MEMBER)
			fsck_run_say(f, FSCK_ERROR, "device-missing",
				     "device %u holds %" PRIu64
				     " chunks and is on no list %s/node*/devices",
				     no, s->n, f->dir);
		else
			fsck_run_say(f, FSCK_ERROR, "device-unknown",
				     "the map puts %" PRIu64 " chunks on device %u, which %s", s->n,
				     no, d ? "was removed" : "does not exist");
	}
	tell_omitted(f);
}

static int fsck_report(struct fsck_run *f)
{
	if (f->c->json) {
		print_json(json_pack("{s:o, s:i, s:I, s:I, s:i, s:i, s:i, s:I}", "findings",
				     f->findings, "devices", (int)f->devices_n, "chunks",
				     (json_int_t)f->chunks_n, "freeing",
				     (json_int_t)f->records.intents_n, "errors", (int)f->errors,
				     "warnings", (int)f->warnings, "unchecked", (int)f->unchecked_n,
				     "omitted", (json_int_t)f->omitted_n));
	} else {
		printf("%u devices, %" PRIu64 " chunks mapped", f->devices_n, f->chunks_n);
		if (f->records.intents_n)
			printf(", %" PRIu64 " slots to be freed", f->records.intents_n);
		printf(": %s\n", f->errors	  ? "NOT consistent"
				 : f->unchecked_n ? "consistent as far as it was checked"
						  : "consistent");
	}
	if (f->errors)
		return EXIT_UNHEALTHY;
	return f->unchecked_n
		   ? cli_fail("%u devices could not be checked: what they hold is not known",
			      f->unchecked_n)
		   : EXIT_OK;
}
