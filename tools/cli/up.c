/* SPDX-License-Identifier: Apache-2.0 */
/* up.c - `strata up`: a whole cluster on this machine, in the foreground.
 *
 *   DIR/meta/          the metadata server's database
 *   DIR/node<k>/       node k: its list of devices, and the device files disk<j> that were made for it
 *   DIR/run/           sockets and pid files        DIR/log/   one log a process        DIR/key   the cluster's secret
 *
 * LOCK -> DIRS -> OUTLIVE -> METAD -> NODES -> DEVICES -> serve until SIGTERM, then nodes and, after them, metad end. On first use of a node its devices are made; a file DIR/node<k>/setup says
 * how many are wanted until all exist, so an interrupted first start is completed by the next. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io-path/device/device.h"
#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/base/units.h"
#include "src/ioe/ioe.h"
#include "tools/cli/cli.h"
#include "tools/cli/supervise.h"

enum {
	NODES_MAX = 32,
	DEVICES_PER_NODE_MAX = 64,
	SOCKET_PATH_MAX = 107,
	KEY_BYTES = 32,
	HTTP_CONFLICT = 409
};
#define DEVICE_SIZE_DEFAULT (16ULL << 30)

struct up {
	struct cli *c;
	char dir[PATH_MAX]; /* absolute */
	int lock_fd;
	uint64_t nodes_n, devices_n, device_bytes;
	const char *engine;
	const char *const *nbd;
	int nbd_n;
	const char *const *api;
	int api_n;
	struct supervisor sup;
	struct child children[1 + NODES_MAX]; /* metad, then the nodes */
};

static int up_options(struct up *u);
static int up_lock(struct up *u, const char *dir);
static int up_dirs(struct up *u);
static void up_describe_metad(struct up *u);
static void up_describe_node(struct up *u, uint64_t k);
static int up_devices(struct up *u, uint64_t k);
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
	if (up_lock(u, cli_option(c, "data")) || up_dirs(u))
		return EXIT_FAILED;
	up_describe_metad(u);
	for (uint64_t k = 1; k <= u->nodes_n; k++)
		up_describe_node(u, k);
	r = supervisor_init(&u->sup, u->children, (int)(1 + u->nodes_n));
	if (r)
		return cli_fail("cannot watch signals: %s", strerror(-r));
	if (supervisor_outlive(&u->sup))
		return EXIT_OK;
	for (uint64_t i = 0; i <= u->nodes_n; i++) {
		r = supervisor_start(&u->sup, &u->children[i]);
		if (!r && i > 0)
			r = up_devices(u, i);
		if (r) {
			supervisor_stop(&u->sup);
			return r == -EINTR ? EXIT_OK : EXIT_FAILED;
		}
	}
	up_ready(u);
	return supervisor_run(&u->sup) ? EXIT_FAILED : EXIT_OK;
}

static bool addrs_are_right(const struct cli *c, const char *option, const char *const *addrs, int n)
{
	for (int i = 0; i < n; i++)
		if (ioe_addr_wrong(addrs[i])) {
			cli_usage(c, "%s is %s, not '%s'", option, ioe_addr_wrong(addrs[i]),
				  addrs[i]);
			return false;
		}
	return true;
}

static int up_options(struct up *u)
{
	struct cli *c = u->c;
	const char *text;

	u->nodes_n = 0; /* as before, 1 on first use */
	u->devices_n = 1;
	u->device_bytes = DEVICE_SIZE_DEFAULT;
	if (!(text = cli_option(c, "data")) || !*text)
		return cli_usage(c, "--data DIR is missing: where the cluster keeps its state");
	if ((text = cli_option(c, "nodes")) &&
	    !cli_number(c, "--nodes", text, NODES_MAX, &u->nodes_n))
		return EXIT_USAGE;
	if (text && !u->nodes_n)
		return cli_usage(c, "--nodes: at least one");
	if ((text = cli_option(c, "devices")) &&
	    !cli_number(c, "--devices", text, DEVICES_PER_NODE_MAX, &u->devices_n))
		return EXIT_USAGE;
	if ((text = cli_option(c, "device-size")) &&
	    !cli_size(c, "--device-size", text, &u->device_bytes))
		return EXIT_USAGE;
	if (u->device_bytes < DEVICE_BYTES_MIN)
		return cli_usage(c, "--device-size: at least 128M, not '%s'", text);
	u->engine = cli_option(c, "engine");
	if (u->engine && strcmp(u->engine, "uring") && strcmp(u->engine, "aio"))
		return cli_usage(c, "--engine is uring or aio, not '%s'", u->engine);
	u->nbd_n = cli_option_values(c, "nbd", &u->nbd);
	u->api_n = cli_option_values(c, "api", &u->api);
	if (!addrs_are_right(c, "--nbd", u->nbd, u->nbd_n) ||
	    !addrs_are_right(c, "--api", u->api, u->api_n))
		return EXIT_USAGE;
	return EXIT_OK;
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
	if (strlen(u->dir) + strlen("/run/metad.sock") > SOCKET_PATH_MAX)
		return cli_fail("the path %s is too long for unix sockets; use a shorter --data",
				u->dir);
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

static int up_dirs(struct up *u)
{
	static const char *const names[] = {"meta", "run", "log"};
	char path[PATH_MAX + 32];
	uint64_t have = 0;
	struct stat st;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", u->dir, names[i]);
		if (make_dir(path))
			return -1;
	}
	snprintf(path, sizeof(path), "%s/key", u->dir);
	if (make_key(path))
		return -1;
	for (; have < NODES_MAX; have++) {
		snprintf(path, sizeof(path), "%s/node%llu", u->dir, (unsigned long long)have + 1);
		if (stat(path, &st))
			break;
	}
	if (u->nodes_n && u->nodes_n < have)
		return cli_fail("%s has %llu nodes; --nodes may add some but not leave any out",
				u->dir, (unsigned long long)have);
	if (!u->nodes_n)
		u->nodes_n = have ? have : 1;
	for (uint64_t k = 1; k <= u->nodes_n; k++)
		if (make_node_dir(u, k))
			return -1;
	return 0;
}

/* The daemons lie beside this program, in the build tree as installed. */
static void program(struct child *c, const char *name)
{
	char self[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[n > 0 ? n : 0] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		slash[1] = '\0';
	child_arg(c, "%s%s", self, name);
}

static void describe(struct up *u, struct child *c, const char *name, const char *binary)
{
	snprintf(c->name, sizeof(c->name), "%s", name);
	c->log_path = mem_printf("%s/log/%s.log", u->dir, name);
	c->pid_path = mem_printf("%s/run/%s.pid", u->dir, name);
	check(c->log_path && c->pid_path);
	program(c, binary);
	if (u->engine) {
		child_arg(c, "--engine");
		child_arg(c, "%s", u->engine);
	}
}

static void up_describe_metad(struct up *u)
{
	struct child *c = &u->children[0];

	describe(u, c, "metad", "strata-metad");
	c->stop_group = 0; /* nodes give back to it what they have reserved */
	child_arg(c, "--data");
	child_arg(c, "%s", u->dir);
	child_arg(c, "--rpc");
	child_arg(c, "unix:%s/run/metad.sock", u->dir);
	child_arg(c, "--api");
	child_arg(c, "unix:%s/run/api.sock", u->dir);
	for (int i = 0; i < u->api_n; i++) {
		child_arg(c, "--api");
		child_arg(c, "%s", u->api[i]);
	}
}

static void up_describe_node(struct up *u, uint64_t k)
{
	struct child *c = &u->children[k];
	char name[32];

	snprintf(name, sizeof(name), "node-%llu", (unsigned long long)k);
	describe(u, c, name, "strata-noded");
	c->stop_group = 1;
	child_arg(c, "--name");
	child_arg(c, "%s", name);
	child_arg(c, "--data");
	child_arg(c, "%s/node%llu", u->dir, (unsigned long long)k);
	child_arg(c, "--metad");
	child_arg(c, "unix:%s/run/metad.sock", u->dir);
	for (int i = 0; k == 1 && i < u->nbd_n; i++) {
		child_arg(c, "--nbd");
		child_arg(c, "%s", u->nbd[i]);
	}
	if (k > 1 || !u->nbd_n) {
		child_arg(c, "--nbd");
		child_arg(c, "unix:%s/node-%llu.nbd", u->dir, (unsigned long long)k);
	}
	if (cli_option(u->c, "runtime-dir")) {
		child_arg(c, "--runtime-dir");
		child_arg(c, "%s", cli_option(u->c, "runtime-dir"));
	}
}

static bool is_ending(void *arg)
{
	return !supervisor_look(arg);
}

static int add_device(struct up *u, uint64_t k, uint64_t j, uint64_t bytes)
{
	char server[PATH_MAX + 32], errmsg[256], node[32], path[PATH_MAX + 64];
	struct format_watch w;
	struct api_target to = {.server = server, .watch = &w.watch};
	json_t *body, *answer;
	long http;

	snprintf(server, sizeof(server), "unix:%s/run/api.sock", u->dir);
	snprintf(node, sizeof(node), "node-%llu", (unsigned long long)k);
	snprintf(path, sizeof(path), "%s/node%llu/disk%llu", u->dir, (unsigned long long)k,
		 (unsigned long long)j);
	body = json_pack("{s:s, s:s, s:I}", "node", node, "path", path, "size_bytes",
			 (json_int_t)bytes);
	check(body);
	format_watch_init(&w, server, u->c->timeout_secs, path);
	w.stop = is_ending;
	w.stop_arg = &u->sup;
	http = api_raw(&to, "POST", "/v1/devices", body, &answer, errmsg);
	format_watch_end(&w);
	json_decref(body);
	json_decref(answer);
	if (u->sup.stopping)
		return -EINTR;
	if (http == HTTP_CONFLICT) /* made before an earlier first start was interrupted */
		return 0;
	if (http == 0 || http >= 400) {
		cli_fail(
		    "cannot make the device %s: %s\nWhen that is mended, the same command goes "
		    "on from here.",
		    path, errmsg);
		return -EIO;
	}
	return 0;
}

static int up_devices(struct up *u, uint64_t k)
{
	char setup[PATH_MAX + 64];
	unsigned long long n, bytes;
	FILE *f;
	int got;

	snprintf(setup, sizeof(setup), "%s/node%llu/setup", u->dir, (unsigned long long)k);
	f = fopen(setup, "re");
	if (!f)
		return 0;
	got = fscanf(f, "%llu %llu", &n, &bytes);
	fclose(f);
	if (got != 2 || n > DEVICES_PER_NODE_MAX) {
		cli_fail("%s is damaged; delete it to go on without making devices", setup);
		return -EINVAL;
	}
	for (uint64_t j = 1; j <= n; j++) {
		int r = add_device(u, k, j, bytes);

		if (r)
			return r;
	}
	unlink(setup);
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
	fflush(stdout);
	free(dump);
	json_decref(line);
}
