/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_restore.c - `strata meta restore PATH --data DIR`: a backup becomes the metadata of a stopped cluster.
 *
 *   LOCK (nobody starts it meanwhile) -> COPY to DIR/meta.restoring -> OPEN and READ all of the copy -> DEVICES -> CGEN -> CLOSE -> EXCHANGE
 *
 * DEVICES: none may remember a commit above the backup's. What was allocated after the backup lies there, the backup takes it for free space, and would
 * hand it out again. CGEN: allocations go on above the highest one that any device remembers. EXCHANGE is one rename of two names: before it DIR/meta is what
 * it was and the copy, complete by then, is DIR/meta.replaced; after it they have changed places, so that what was there is kept. Whatever ends this in
 * between leaves one of the two, and the same command again does it all again. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io-path/device/device.h"
#include "metadata/cluster/cluster.h"
#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/cli.h"

enum { SCAN_ITEMS = 1024, SCAN_BYTES = 1 << 20, COPY_BYTES = 1 << 20 };

struct restore {
	struct cli *c;
	const char *from, *dir, *runtime_dir;
	char meta[PATH_MAX], copy[PATH_MAX], replaced[PATH_MAX];
	int meta_lock; /* RocksDB's own, of what is there now; -1: none */
	struct ioe *ioe;
	struct metastore *store;
	struct san_open san;
	struct cluster cluster;
	struct cluster_open registry;
	struct metastore_scan scan;
	struct san_cgen_raise raise;
	struct device_open open;
	bool done;
	bool seen[DEVICES_MAX + 1];
	uint64_t commit, cgen;
	uint32_t devices_n;
};

static int restore_lock(struct restore *r);
static int restore_copy(struct restore *r);
static int restore_open(struct restore *r);
static int restore_read(struct restore *r);
static int restore_device(void *restore, const char *uuid_text, const char *path);
static int restore_missing(struct restore *r);
static int restore_cgen(struct restore *r);
static int restore_close(struct restore *r);
static int restore_exchange(struct restore *r);
static void tree_remove(const char *path);

static bool is_same(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int cmd_meta_restore(struct cli *c)
{
	struct restore *r = mem_zalloc(sizeof(*r));
	struct ioe_config ec = {0};
	char fallback[64];
	int rc;

	check(r);
	r->c = c;
	r->from = c->args[0];
	r->dir = cli_option(c, "data");
	r->runtime_dir = cli_option(c, "runtime-dir");
	if (!r->dir || !*r->dir)
		return cli_usage(
		    c, "--data DIR is missing: where the metadata server keeps its state");
	snprintf(fallback, sizeof(fallback), "/dev/shm/strata-%u", (unsigned)getuid());
	if (!r->runtime_dir)
		r->runtime_dir = fallback;
	if (snprintf(r->meta, PATH_MAX, "%s/meta", r->dir) >= PATH_MAX - 16)
		return cli_fail("%s: %s", r->dir, strerror(ENAMETOOLONG));
	snprintf(r->copy, PATH_MAX, "%s/meta.restoring", r->dir);
	snprintf(r->replaced, PATH_MAX, "%s/meta.replaced", r->dir);
	if (restore_lock(r))
		return EXIT_FAILED;
	rc = ioe_new(&ec, &r->ioe);
	if (rc)
		return cli_fail("no I/O engine: %s", err_text(rc));
	if (is_same(r->from, r->copy))
		return cli_fail("%s is what an attempt that was ended left half made; name the "
				"backup itself",
				r->from);
	tree_remove(r->copy); /* of an attempt that was killed */
	if (restore_copy(r) || restore_open(r) || restore_read(r) ||
	    cli_each_device(r->dir, restore_device, r) || restore_missing(r) || restore_cgen(r) ||
	    restore_close(r) || restore_exchange(r)) {
		tree_remove(r->copy);
		return EXIT_FAILED;
	}
	if (c->json)
		print_json(json_pack("{s:I, s:I, s:i}", "commit", (json_int_t)r->commit, "cgen",
				     (json_int_t)r->cgen, "devices", (int)r->devices_n));
	else
		printf("commit %" PRIu64 " restored; %u devices remember nothing above it\n",
		       r->commit, r->devices_n);
	return EXIT_OK;
}

static void wait_done(struct restore *r)
{
	while (!r->done)
		ioe_poll(r->ioe, UINT64_MAX);
	r->done = false;
}

/* Of `strata up`, and of a metadata server that runs by itself: the lock that RocksDB takes is held until the end. */
static int restore_lock(struct restore *r)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[PATH_MAX + 8], pid[CLI_PID_LEN];
	struct stat st;
	int rc;

	if (stat(r->dir, &st) || !S_ISDIR(st.st_mode))
		return cli_fail("%s is not a directory", r->dir);
	rc = cli_lock_data(r->dir, pid);
	if (rc == -EWOULDBLOCK)
		return cli_fail("the cluster in %s runs (pid %s): stop it first", r->dir, pid);
	if (rc < 0)
		return cli_fail("%s/lock: %s", r->dir, strerror(-rc));
	snprintf(path, sizeof(path), "%s/LOCK", r->meta);
	r->meta_lock = open(path, O_RDWR | O_CLOEXEC);
	if (r->meta_lock >= 0 && fcntl(r->meta_lock, F_SETLK, &whole))
		return cli_fail("%s is in use by another process: stop the metadata server first",
				r->meta);
	return 0;
}

/* ---- the copy --------------------------------------------------------------------------------------------------------------- */

static int write_all(int fd, const char *buf, ssize_t n)
{
	for (ssize_t done = 0, got; done < n; done += got) {
		got = write(fd, buf + done, (size_t)(n - done));
		if (got < 0)
			return -1;
	}
	return 0;
}

static int copy_file(struct restore *r, int from_dir, int to_dir, const char *name)
{
	static char buf[COPY_BYTES];
	int from = openat(from_dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int to =
	    from < 0 ? -1 : openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ssize_t n = -1;

	while (from >= 0 && to >= 0 && (n = read(from, buf, sizeof(buf))) > 0)
		if (write_all(to, buf, n)) {
			n = -1;
			break;
		}
	if (n == 0 && fsync(to))
		n = -1;
	if (n)
		cli_fail("%s/%s cannot be copied to %s: %s; nothing was changed", r->from, name,
			 r->copy, strerror(errno));
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return n ? EXIT_FAILED : 0;
}

static int restore_copy(struct restore *r)
{
	DIR *d = opendir(r->from);
	struct dirent *de;
	int to, rc = 0;

	if (!d)
		return cli_fail("%s: %s; a backup is a directory that 'strata meta backup' made",
				r->from, strerror(errno));
	if (faccessat(dirfd(d), "CURRENT", R_OK, 0)) {
		closedir(d);
		return cli_fail("%s is not a backup: it has no file CURRENT", r->from);
	}
	if (mkdir(r->copy, 0700)) {
		closedir(d);
		return cli_fail("%s: %s", r->copy, strerror(errno));
	}
	to = open(r->copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (!rc && to >= 0 && (de = readdir(d))) {
		struct stat st;

		if (!strcmp(de->d_name, "LOCK") || fstatat(dirfd(d), de->d_name, &st, 0) ||
		    !S_ISREG(st.st_mode))
			continue;
		rc = copy_file(r, dirfd(d), to, de->d_name);
	}
	if (!rc && (to < 0 || fsync(to)))
		rc = cli_fail("%s: %s", r->copy, strerror(errno));
	if (to >= 0)
		close(to);
	closedir(d);
	return rc;
}

static void tree_remove(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *de;

	while (d && (de = readdir(d)))
		unlinkat(dirfd(d), de->d_name, 0); /* there are files only */
	if (d)
		closedir(d);
	rmdir(path);
}

/* ---- is it whole? ------------------------------------------------------------------------------------------------------------- */

static void san_opened(struct san_open *op)
{
	container_of(op, struct restore, san)->done = true;
}

static void registry_opened(struct cluster_open *op)
{
	container_of(op, struct restore, registry)->done = true;
}

static int restore_open(struct restore *r)
{
	char errmsg[ERRMSG_LEN] = "";
	int rc = metastore_open_rocksdb(r->ioe, r->copy, &r->store, errmsg);

	if (rc)
		return cli_fail("the backup %s cannot be used (%s), nothing was changed: %s",
				r->from, err_text(rc), errmsg);
	r->commit = metastore_last_commit(r->store);
	if (!r->commit)
		return cli_fail("%s is not a backup: the database in it is empty", r->from);
	return 0;
}

static void scanned(struct metastore_scan *scan)
{
	container_of(scan, struct restore, scan)->done = true;
}

/* Every key once: that compares all checksums. Then what the keys mean. */
static int restore_read(struct restore *r)
{
	char after[METASTORE_KEY_MAX];

	r->scan =
	    (struct metastore_scan){.buf = mem_zalloc(SCAN_BYTES),
				    .items = mem_zalloc_array(SCAN_ITEMS, sizeof(r->scan.items[0])),
				    .items_max = SCAN_ITEMS,
				    .buf_max = SCAN_BYTES,
				    .done = scanned};
	check(r->scan.buf && r->scan.items);
	do {
		metastore_scan(r->store, &r->scan);
		wait_done(r);
		if (r->scan.status)
			return cli_fail("the backup %s is damaged, nothing was changed: %s",
					r->from, err_text(r->scan.status));
		if (!r->scan.items_n)
			break;
		r->scan.after = r->scan.items[r->scan.items_n - 1].key;
		memcpy(after, r->scan.after.data, r->scan.after.len);
		r->scan.after.data = after;
	} while (r->scan.more);
	r->san = (struct san_open){.cfg = {.ioe = r->ioe, .store = r->store}, .done = san_opened};
	san_open(&r->san);
	wait_done(r);
	if (r->san.status)
		return cli_fail("the backup %s is damaged, nothing was changed: %s", r->from,
				*r->san.errmsg ? r->san.errmsg : err_text(r->san.status));
	r->registry = (struct cluster_open){.c = &r->cluster,
					    .ioe = r->ioe,
					    .san = r->san.san,
					    .store = r->store,
					    .done = registry_opened};
	cluster_open(&r->registry);
	wait_done(r);
	if (r->registry.status)
		return cli_fail("the backup %s is damaged, nothing was changed: %s", r->from,
				r->registry.errmsg);
	return 0;
}

/* ---- the devices ---------------------------------------------------------------------------------------------------------------- */

static void device_opened(struct device_open *op)
{
	container_of(op, struct restore, open)->done = true;
}

static void device_closed(void *arg, int status)
{
	struct restore *r = arg;

	(void)status;
	r->done = true;
}

/* Another cluster's device says that the backup is not this cluster's: nothing to be allowed. */
static int not_opened(struct restore *r, const char *path)
{
	const char *why = *r->open.errmsg ? r->open.errmsg : err_text(r->open.status);

	if (cli_option(r->c, "allow-missing") && r->open.status != -E_FOREIGN) {
		fprintf(stderr, "strata: %s was not looked at: %s\n", path, why);
		return 0;
	}
	return cli_fail("%s cannot be opened, so what it remembers is not known: %s\nNothing was "
			"changed. %s",
			path, why,
			r->open.status == -E_FOREIGN
			    ? "Is it the backup of another cluster?"
			    : "Bring it back, or leave it to the metadata server with "
			      "--allow-missing.");
}

static int restore_device(void *restore, const char *uuid_text, const char *path)
{
	struct restore *r = restore;
	struct uuid cluster = san_cluster(r->san.san);
	char ring[PATH_MAX + 64];
	struct cluster_device *d;
	struct device_info info;

	snprintf(ring, sizeof(ring), "%s/%s.ring", r->runtime_dir, uuid_text);
	r->open = (struct device_open){.ioe = r->ioe,
				       .path = path,
				       .ring_path = ring,
				       .cluster = &cluster,
				       .read_only = true,
				       .done = device_opened};
	device_open(&r->open);
	wait_done(r);
	if (r->open.status)
		return not_opened(r, path);
	device_info(r->open.dev, &info);
	device_close(r->open.dev, device_closed, r);
	wait_done(r);
	d = cluster_device_by_uuid(&r->cluster, &info.uuid);
	if (info.commit > r->commit)
		return cli_fail("the backup is of commit %" PRIu64 ", but device %u (%s) has heard "
				"of commit %" PRIu64 ": what was allocated since lies on it and "
				"would be overwritten. Restore a newer backup. (Rebuilding the map "
				"from the devices is not possible with this version.) Nothing was "
				"changed.",
				r->commit, info.number, path, info.commit);
	if (!d && info.number)
		return cli_fail(
		    "the backup was made before device %u (%s) was added: it would take "
		    "what lies there for nothing. Restore a newer backup. Nothing was "
		    "changed.",
		    info.number, path);
	if (info.cgen_highest > r->cgen)
		r->cgen = info.cgen_highest;
	if (d)
		r->seen[d->no] = true;
	r->devices_n++;
	return 0;
}

static int restore_missing(struct restore *r)
{
	for (uint32_t no = 1; no <= DEVICES_MAX; no++) {
		struct cluster_device *d = cluster_device_by_no(&r->cluster, (device_no)no);

		if (!d || d->member != CLUSTER_MEMBER || r->seen[no])
			continue;
		if (!cli_option(r->c, "allow-missing"))
			return cli_fail("device %u (%s) of the backup is not among those in "
					"%s/node*: what it remembers is not known. "
					"--allow-missing leaves it to the metadata server, which "
					"refuses to serve if the device has heard of a later "
					"commit. Nothing was changed.",
					no, d->path, r->dir);
	}
	return 0;
}

/* ---- in its place --------------------------------------------------------------------------------------------------------------- */

static void raised(struct san_req *req)
{
	container_of(req, struct restore, raise.req)->done = true;
}

static int restore_cgen(struct restore *r)
{
	if (r->cgen > san_cgen(r->san.san)) {
		r->raise = (struct san_cgen_raise){.req.done = raised, .cgen = r->cgen};
		san_cgen_raise(r->san.san, &r->raise);
		wait_done(r);
		if (r->raise.req.status)
			return cli_fail("the copy cannot be written: %s",
					err_text(r->raise.req.status));
	}
	r->cgen = san_cgen(r->san.san);
	return 0;
}

static void closed(void *arg)
{
	struct restore *r = arg;

	r->done = true;
}

static int restore_close(struct restore *r)
{
	san_close(r->san.san, closed, r);
	wait_done(r);
	metastore_close(r->store, closed, r);
	wait_done(r);
	return 0;
}

/* The copy waits under the name that what it replaces is to have: so one rename is all it takes. */
static int restore_exchange(struct restore *r)
{
	int dir = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int copy = open(r->copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool had = access(r->meta, F_OK) == 0;
	int rc = dir < 0 || copy < 0 || fsync(copy) ? -errno : 0;

	if (!rc && had) {
		tree_remove(r->replaced);
		if (rename(r->copy, r->replaced) || fsync(dir) ||
		    renameat2(AT_FDCWD, r->replaced, AT_FDCWD, r->meta, RENAME_EXCHANGE))
			rc = -errno;
	} else if (!rc && renameat2(AT_FDCWD, r->copy, AT_FDCWD, r->meta, RENAME_NOREPLACE)) {
		rc = -errno;
	}
	if (!rc && fsync(dir))
		fprintf(stderr, "strata: %s: %s\n", r->dir, strerror(errno));
	if (copy >= 0)
		close(copy);
	if (dir >= 0)
		close(dir);
	return rc ? cli_fail("%s cannot be put in place: %s; it is what it was before", r->meta,
			     strerror(-rc))
		  : 0;
}
