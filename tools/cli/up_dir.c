/* SPDX-License-Identifier: Apache-2.0 */
/* up_dir.c - the directory of `strata up`.
 *
 * LOCK -> NODES (how many are there, how many shall be) -> can it be used? -> what is missing is made: meta, run, log, key, node directories */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/check.h"
#include "src/base/math.h"
#include "tools/cli/up.h"

enum { SOCKET_PATH_MAX = 107, KEY_BYTES = 32 };

static int up_lock(struct up *u, const char *dir);
static int up_nodes(struct up *u);
static int up_paths_fit(const struct up *u);
static int up_metadata_is_there(const struct up *u);
static int up_make(struct up *u);
static void up_note_idle_options(const struct up *u);

int up_dir(struct up *u)
{
	return up_lock(u, cli_option(u->c, "data")) || up_nodes(u) || up_paths_fit(u) ||
	       up_metadata_is_there(u) || up_make(u);
}

static bool exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

static void node_path(const struct up *u, uint64_t k, const char *file, char path[PATH_MAX + 64])
{
	snprintf(path, PATH_MAX + 64, "%s/node%llu%s", u->dir, (unsigned long long)k, file);
}

bool up_node_is_new(const struct up *u, uint64_t k)
{
	char path[PATH_MAX + 64];

	node_path(u, k, "/setup", path);
	return exists(path);
}

static int make_dir(const char *path)
{
	struct stat st;

	if (mkdir(path, 0700) == 0)
		return 0;
	if (errno == ENOENT)
		return cli_fail("cannot make %s: the directory it is to be in does not exist", path);
	if (errno != EEXIST)
		return cli_fail("cannot make %s: %s", path, strerror(errno));
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return 0;
	return cli_fail("%s is there and is not a directory", path);
}

static int up_lock(struct up *u, const char *dir)
{
	char pid[CLI_PID_LEN];

	if (make_dir(dir))
		return -1;
	if (!realpath(dir, u->dir))
		return cli_fail("%s: %s", dir, strerror(errno));
	u->lock_fd = cli_lock_data(u->dir, pid);
	if (u->lock_fd == -EWOULDBLOCK)
		return cli_fail("%s is in use by 'strata up', pid %s: stop that one first, or give "
				"this one another --data",
				u->dir, pid);
	snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (u->lock_fd >= 0 &&
	    (ftruncate(u->lock_fd, 0) || pwrite(u->lock_fd, pid, strlen(pid), 0) < 0))
		u->lock_fd = -errno;
	return u->lock_fd < 0 ? cli_fail("%s/lock: %s", u->dir, strerror(-u->lock_fd)) : 0;
}

/* All there were, also when the directory of one of them is lost. */
static int up_nodes(struct up *u)
{
	char path[PATH_MAX + 64];
	uint64_t have = 0;

	for (uint64_t k = 1; k <= NODES_MAX; k++) {
		node_path(u, k, "", path);
		if (exists(path))
			have = k;
	}
	if (u->nodes_n && u->nodes_n < have)
		return cli_fail("%s has %llu nodes; --nodes may add some but not leave any out",
				u->dir, (unsigned long long)have);
	if (!u->nodes_n)
		u->nodes_n = MAX(have, (uint64_t)1);
	return 0;
}

static int up_paths_fit(const struct up *u)
{
	char path[PATH_MAX + 64];
	size_t longest;

	node_path(u, u->nodes_n, "/peer.sock", path);
	longest = MAX(strlen(path), strlen(u->dir) + strlen("/run/metad.sock"));
	if (longest <= SOCKET_PATH_MAX)
		return 0;
	return cli_fail("the path %s is too long for the unix sockets in it, by %zu bytes; use a "
			"shorter --data",
			u->dir, longest - SOCKET_PATH_MAX);
}

/* Whether a node has been in a cluster: its file `identity` has a line for that. */
static bool node_has_joined(const struct up *u, uint64_t k)
{
	char path[PATH_MAX + 64], line[128];
	bool joined = false;
	FILE *f;

	node_path(u, k, "/identity", path);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		joined = joined || !strncmp(line, "cluster ", 8);
	if (f)
		fclose(f);
	return joined;
}

/* A new database is another cluster: it would refuse these nodes, and what they hold. */
static int up_metadata_is_there(const struct up *u)
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/meta/CURRENT", u->dir);
	if (exists(path))
		return 0;
	for (uint64_t k = 1; k <= u->nodes_n; k++)
		if (node_has_joined(u, k))
			return cli_error(
			    EXIT_FAILED, "failed",
			    "Put it back: 'strata meta restore BACKUP --data DIR'. To begin "
			    "anew without what the nodes hold, remove the whole directory.",
			    "the metadata is gone: there is no database in %s/meta, but "
			    "%s/node%llu belongs to a cluster",
			    u->dir, u->dir, (unsigned long long)k);
	return 0;
}

/* Writes a file that is whole or not there, whatever ends us. */
static int make_file(const char *path, const char *text)
{
	char made[PATH_MAX + 80];
	size_t len = strlen(text);
	int fd;

	snprintf(made, sizeof(made), "%s.new", path);
	fd = open(made, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return cli_fail("cannot make %s: %s", path, strerror(errno));
	if (write(fd, text, len) != (ssize_t)len || fsync(fd) || rename(made, path)) {
		int r = cli_fail("cannot make %s: %s", path, strerror(errno));

		close(fd);
		return r;
	}
	close(fd);
	return 0;
}

static int make_key(const char *path)
{
	unsigned char key[KEY_BYTES];
	char text[2 * KEY_BYTES + 2] = "";
	struct stat st;

	if (stat(path, &st) == 0)
		return 0;
	if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key))
		return cli_fail("no random bytes: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(key); i++)
		snprintf(text + 2 * i, 3, "%02x", key[i]);
	text[2 * KEY_BYTES] = '\n';
	return make_file(path, text);
}

/* A node directory appears with the wish for its devices in it. */
static int make_node_dir(struct up *u, uint64_t k)
{
	char path[PATH_MAX + 32], made[PATH_MAX + 40], setup[PATH_MAX + 64], text[64];
	struct stat st;

	snprintf(path, sizeof(path), "%s/node%llu", u->dir, (unsigned long long)k);
	if (stat(path, &st) == 0)
		return 0;
	snprintf(made, sizeof(made), "%s.new", path);
	snprintf(setup, sizeof(setup), "%s/setup", made);
	snprintf(text, sizeof(text), "%llu %llu\n", (unsigned long long)u->devices_n,
		 (unsigned long long)u->device_bytes);
	if (make_dir(made) || make_file(setup, text))
		return -1;
	return rename(made, path) ? cli_fail("%s: %s", path, strerror(errno)) : 0;
}

static int up_make(struct up *u)
{
	static const char *const names[] = {"meta", "run", "log"};
	char path[PATH_MAX + 32];
	uint64_t made = 0;

	up_note_idle_options(u);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", u->dir, names[i]);
		if (make_dir(path))
			return -1;
	}
	snprintf(path, sizeof(path), "%s/key", u->dir);
	if (make_key(path))
		return -1;
	for (uint64_t k = 1; k <= u->nodes_n; k++)
		made += make_node_dir(u, k) == 0;
	/* what is wrong with one is no reason to leave the others alone */
	return made ? 0 : -1;
}

/* They are for nodes that are made now. One that was interrupted has its own wish. */
static void up_note_idle_options(const struct up *u)
{
	static const char *const names[] = {"devices", "device-size"};
	char path[PATH_MAX + 64];

	for (uint64_t k = 1; k <= u->nodes_n; k++) {
		node_path(u, k, "", path);
		if (!exists(path))
			return;
	}
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (cli_option(u->c, names[i]))
			fprintf(stderr,
				"strata: --%s has no effect: it is for nodes that are made now; "
				"'strata device add' makes more devices\n",
				names[i]);
}
