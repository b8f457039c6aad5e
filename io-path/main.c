/* SPDX-License-Identifier: Apache-2.0 */
/* strata-noded - a data-path node: devices and control (node.h), volumes, and the NBD target over them.
 *
 *   options -> engine -> node -> volumes -> NBD listens -> node dials -> ready ... SIGTERM -> NBD -> volumes -> node -> exit 0
 *
 * On SIGTERM everybody who is connected gets the answers to what was asked. What then still waits for the metadata server or for another node gets
 * five seconds, and fails after that, so that the process ends. Exit 1: failed, 2: used wrongly. */
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io-path/node/node.h"
#include "io-path/volume/bench.h"
#include "io-path/volume/volumes.h"
#include "src/base/config.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/base/units.h"
#include "src/ioe/cpu.h"
#include "src/ioe/limits.h"
#include "src/ioe/notify.h"
#include "targets/nbd/nbd.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };
#define GIVE_UP_NS 5000000000ULL

static char *data, *name, *engine, *key_file, *runtime_dir;
static struct config_list metad, nbd, peer;
static uint64_t ready_fd = UINT64_MAX, wait_ns = 120000000000ULL, map_cache = 64 << 20,
		connections = 256, nbd_memory;
static bool foreground, insecure;

static const char *name_wrong(const char *text)
{
	return name_is_valid(text) ? NULL
				   : "a name: letters, digits, '.', '_' and '-', at most 63, "
				     "the first a letter or digit";
}

static const struct config_option options[] = {
    {"data", CONFIG_STRING, &data, "DIR", .required = true,
     .help = "where the node keeps who it is and its list of devices; made when missing"},
    {"name", CONFIG_STRING, &name, "NAME", .wrong = name_wrong,
     .help = "its name in the cluster; default the host's"},
    {"metad", CONFIG_LIST, &metad, "ADDR", .required = true, .wrong = ioe_addr_wrong,
     .help = "the metadata server: unix:PATH or HOST:PORT"},
    {"nbd", CONFIG_LIST, &nbd, "ADDR", .wrong = ioe_addr_wrong,
     .help = "serve NBD at unix:PATH or HOST:PORT; default unix:DIR/nbd.sock"},
    {"peer", CONFIG_LIST, &peer, "ADDR", .wrong = ioe_addr_wrong,
     .help = "where other nodes reach the devices; default unix:DIR/peer.sock"},
    {"runtime-dir", CONFIG_STRING, &runtime_dir, "DIR",
     .help = "memory that outlives the process (tmpfs); default /dev/shm/strata-UID"},
    {"key-file", CONFIG_STRING, &key_file, "FILE",
     .help = "the cluster's secret, for TCP between daemons"},
    {"insecure", CONFIG_FLAG, &insecure,
     .help = "allow --nbd addresses that other machines can reach: anybody there can write"},
    {"device-wait", CONFIG_DURATION, &wait_ns, "TIME", .min = 1000000,
     .help = "how long requests wait for a device or node that is away; default 2m"},
    {"map-cache", CONFIG_SIZE, &map_cache, "SIZE", .min = 1 << 20,
     .help = "memory for the maps of open volumes; default 64M"},
    {"nbd-connections", CONFIG_NUMBER, &connections, "N", .min = 1, .max = 65536,
     .help = "NBD connections at once; default 256"},
    {"nbd-memory", CONFIG_SIZE, &nbd_memory, "SIZE", .min = 1 << 20,
     .help = "memory for all of them; default 1G, or what so many need at least"},
    {"engine", CONFIG_WORD, &engine, "NAME", .words = "auto|uring|aio",
     .help = "I/O engine: auto, uring or aio; default auto"},
    {"ready-fd", CONFIG_NUMBER, &ready_fd, "FD", .max = 1 << 20,
     .help = "write a line 'ready {...}' there when it serves"},
    {"foreground", CONFIG_FLAG, &foreground, .help = "write that line to stdout"},
};
static const struct config config = {"strata-noded", "A data-path node of a Strata cluster.",
				     options, ARRAY_LEN(options), "strata-metad"};

static struct {
	struct ioe *ioe;
	struct node node;
	struct volumes *volumes;
	struct nbd_server *nbd;
	struct auth_key key;
	bool has_key, terminating, timing, closed;
	struct ioe_req timer;
	struct list benches;
} g;

static void on_ready(void *arg);
static void on_refused(void *arg, const char *errmsg);
static void on_stats(void *arg, struct control_metrics *m, volume_id volume);
static void on_bench(void *arg, struct control_bench *b);
static void on_clients(void *arg, struct control_clients *cs);
static void terminate(void *arg);
static void give_up(struct ioe_req *r);
static void nbd_closed(void *arg);
static void volumes_closed(void *arg);
static void node_closed(void *arg);
static void end(void);

static int complain(const char *what)
{
	fprintf(stderr, "strata-noded: %s\n", what);
	return EXIT_FAILED;
}

static uint64_t wall(void *arg)
{
	return ioe_wall_ns(arg);
}

/* ---- starting ------------------------------------------------------------------------------------------------------------------------ */

static int make_engine(void)
{
	struct ioe_config cfg = {.kind = ioe_kind_of(engine)};

	return ioe_new(&cfg, &g.ioe);
}

static int default_text(char **text, char *made)
{
	if (*text) {
		mem_free(made);
		return 0;
	}
	*text = made;
	return made ? 0 : -ENOMEM;
}

static int default_addr(struct config_list *list, const char *file)
{
	return config_list_default(list, mem_printf("unix:%s/%s", data, file));
}

static int defaults(char errmsg[ERRMSG_LEN])
{
	char host[NAME_LEN_MAX + 1] = "node";
	int r;

	gethostname(host, sizeof(host) - 1);
	host[strcspn(host, ".")] = '\0';
	r = default_text(&name, mem_strdup(host));
	if (!r)
		r = default_text(&runtime_dir, mem_printf("/dev/shm/strata-%u", getuid()));
	if (!r)
		r = ioe_path_make_absolute(&data);
	if (!r)
		r = ioe_path_make_absolute(&runtime_dir);
	if (!r)
		r = ioe_addrs_make_absolute(metad.items, metad.n);
	if (!r)
		r = ioe_addrs_make_absolute(nbd.items, nbd.n);
	if (!r)
		r = ioe_addrs_make_absolute(peer.items, peer.n);
	if (!r)
		r = default_addr(&nbd, "nbd.sock");
	if (!r)
		r = default_addr(&peer, "peer.sock");
	if (r)
		snprintf(errmsg, ERRMSG_LEN, "cannot make the paths absolute: %s", err_text(r));
	if (!r && !name_is_valid(name)) {
		snprintf(errmsg, ERRMSG_LEN,
			 "'%.80s' is no name: letters, digits, '.', '_' and '-', at most %d", name,
			 NAME_LEN_MAX);
		r = -EINVAL;
	}
	return r;
}

/* Options that do not go together: the way to exit status 2. */
static int check_addrs(char errmsg[ERRMSG_LEN])
{
	bool has_key = key_file;

	for (uint32_t i = 0; i < nbd.n; i++) {
		if (ioe_addr_is_local(nbd.items[i]) || insecure)
			continue;
		snprintf(errmsg, ERRMSG_LEN,
			 "--nbd %.100s: anybody who reaches this address can read and write every "
			 "volume; --insecure allows it",
			 nbd.items[i]);
		return -EACCES;
	}
	for (uint32_t i = 0; i < metad.n; i++) {
		if (!strncmp(metad.items[i], "unix:", 5) || has_key)
			continue;
		snprintf(errmsg, ERRMSG_LEN, "--metad %.100s needs --key-file", metad.items[i]);
		return -EACCES;
	}
	for (uint32_t i = 0; i < peer.n; i++) {
		if (!strncmp(peer.items[i], "unix:", 5) || has_key)
			continue;
		snprintf(errmsg, ERRMSG_LEN, "--peer %.100s needs --key-file", peer.items[i]);
		return -EACCES;
	}
	return 0;
}

static int prepare(char errmsg[ERRMSG_LEN])
{
	int r = defaults(errmsg);

	if (r)
		return r;
	if (key_file) {
		r = auth_key_load(g.ioe, key_file, &g.key, errmsg);
		if (r)
			return r;
		g.has_key = true;
	}
	/* from here on something is left behind */
	r = ioe_mkdir(g.ioe, data, 0700);
	if (r) {
		snprintf(errmsg, ERRMSG_LEN, "cannot use %.150s: %s", data, err_text(r));
		return r;
	}
	r = ioe_mkdir(g.ioe, runtime_dir, 0700);
	if (r) {
		snprintf(errmsg, ERRMSG_LEN, "cannot use %.150s: %s", runtime_dir, err_text(r));
		return r;
	}
	return ioe_dir_check_private(g.ioe, runtime_dir, errmsg);
}

static int make_node(char errmsg[ERRMSG_LEN])
{
	struct node_config cfg = {
	    .ioe = g.ioe,
	    .dir = data,
	    .runtime_dir = runtime_dir,
	    .name = name,
	    .metad = (const char *const *)metad.items,
	    .metad_n = metad.n,
	    .key = g.has_key ? &g.key : NULL,
	    .peer = (const char *const *)peer.items,
	    .peer_n = peer.n,
	    .wait_ns = wait_ns,
	    .ready = on_ready,
	    .refused = on_refused,
	    .stats = on_stats,
	    .bench = on_bench,
	    .clients = on_clients,
	};

	return node_init(&g.node, &cfg, errmsg);
}

static int make_volumes(char errmsg[ERRMSG_LEN])
{
	struct volumes_config cfg = {
	    .ioe = g.ioe,
	    .store = &g.node.store.store,
	    .meta = &g.node.client.meta,
	    .limits = {.map_cache_bytes = map_cache},
	};
	int r = volumes_new(&cfg, &g.volumes);

	if (r)
		snprintf(errmsg, ERRMSG_LEN, "the volume runtime does not start: %s", err_text(r));
	return r;
}

static int make_nbd(char errmsg[ERRMSG_LEN])
{
	struct nbd_config cfg = {
	    .ioe = g.ioe,
	    .volumes = g.volumes,
	    .limits = {.connections = (uint32_t)connections, .memory_bytes = nbd_memory},
	};
	uint64_t least = nbd_memory_least(&cfg.limits);
	char size[UNITS_TEXT_LEN];
	int r;

	if (nbd_memory && nbd_memory < least) {
		units_format_size(round_up(least, 1 << 20), size);
		snprintf(errmsg, ERRMSG_LEN,
			 "--nbd-memory must be at least %s for %" PRIu64 " connections", size,
			 connections);
		return -EINVAL;
	}
	r = nbd_server_new(&cfg, &g.nbd);
	if (r)
		snprintf(errmsg, ERRMSG_LEN, "NBD does not start: %s", err_text(r));
	for (uint32_t i = 0; i < nbd.n && !r; i++)
		r = nbd_server_listen(g.nbd, nbd.items[i], errmsg);
	return r;
}

static uint32_t nbd_addrs(char (*addrs)[IOE_ADDR_MAX], const char **list)
{
	uint32_t n = 0;

	while (n < NODE_ADDRS_MAX && nbd_server_addr(g.nbd, n, addrs[n]) == 0) {
		list[n] = addrs[n];
		n++;
	}
	return n;
}

static int start(char errmsg[ERRMSG_LEN])
{
	char addrs[NODE_ADDRS_MAX][IOE_ADDR_MAX];
	const char *list[NODE_ADDRS_MAX];
	int r = prepare(errmsg);

	if (!r)
		r = make_node(errmsg);
	if (!r)
		r = make_volumes(errmsg);
	if (!r)
		r = make_nbd(errmsg);
	if (!r)
		r = node_start(&g.node, list, nbd_addrs(addrs, list), errmsg);
	return r;
}

static void on_ready(void *arg)
{
	char addrs[NODE_ADDRS_MAX][IOE_ADDR_MAX], *text;
	const char *list[NODE_ADDRS_MAX];
	json_t *uris, *line;
	uint32_t n;

	(void)arg;
	if (g.terminating) /* NBD may be gone */
		return;
	n = nbd_addrs(addrs, list);
	uris = json_array();
	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(uris, json_string(list[i]));
	line = json_pack("{s:i, s:o}", "node", (int)g.node.control.number, "nbd", uris);
	text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	log_info("serving", "%s", text ? text : "");
	if (foreground)
		printf("ready %s\n", text ? text : "{}");
	fflush(stdout);
	notify_ready(ready_fd == UINT64_MAX ? -1 : (int)ready_fd, text ? text : "{}");
	ready_fd = UINT64_MAX; /* that was all there is to say */
	free(text);
	json_decref(line);
}

static void on_refused(void *arg, const char *errmsg)
{
	(void)arg;
	notify_refused(ready_fd == UINT64_MAX ? -1 : (int)ready_fd, errmsg);
}

/* ---- loads that an operator asks for: open -> run -> close -> answer ------------------------------------------------------- */

struct bench {
	struct list link;
	struct control_bench *asked;
	struct volume_open open;
	struct volume_bench run;
	uint64_t cpu_ns;
};

static void bench_opened(struct volume_open *op);
static void bench_ran(struct volume_bench *run);
static void bench_closed(void *arg);

static void bench_fail(struct control_bench *asked, int status, const char *errmsg)
{
	asked->status = status;
	snprintf(asked->errmsg, sizeof(asked->errmsg), "%s", *errmsg ? errmsg : err_text(status));
	asked->done(asked);
}

static void on_bench(void *arg, struct control_bench *asked)
{
	struct bench *b = mem_zalloc(sizeof(*b));

	(void)arg;
	if (!b || g.terminating) {
		mem_free(b);
		bench_fail(asked, b ? -ESHUTDOWN : -ENOMEM, "");
		return;
	}
	b->asked = asked;
	list_push(&g.benches, &b->link);
	b->open = (struct volume_open){.name = asked->what->volume,
				       .client = "bench",
				       .done = bench_opened};
	volume_open(g.volumes, &b->open);
}

static void bench_opened(struct volume_open *op)
{
	struct bench *b = container_of(op, struct bench, open);
	const Strata__VolumeBench *what = b->asked->what;

	if (op->status) {
		list_del(&b->link);
		bench_fail(b->asked, op->status, op->errmsg);
		mem_free(b);
		return;
	}
	b->cpu_ns = cpu_process_ns();
	b->run = (struct volume_bench){.ioe = g.ioe,
				       .handle = op->handle,
				       .random = what->random,
				       .read_percent = what->read_percent,
				       .depth = what->depth,
				       .io_bytes = what->io_bytes,
				       .flush_every = what->flush_every,
				       .len = what->length,
				       .stride_bytes = what->stride,
				       .once = what->once,
				       .duration_ns = g.terminating ? 0 : what->duration_ns,
				       .done = bench_ran};
	volume_bench_start(&b->run);
}

static void bench_ran(struct volume_bench *run)
{
	struct bench *b = container_of(run, struct bench, run);
	const struct volume_bench_result *r = &run->result;
	Strata__VolumeBenched *out = &b->asked->result;
	struct hist all = r->read_ns;

	hist_merge(&all, &r->write_ns);
	out->ios = r->reads + r->writes;
	out->flushes = r->flushes;
	out->bytes = r->bytes;
	out->elapsed_ns = r->elapsed_ns;
	out->cpu_ns = cpu_process_ns() - b->cpu_ns;
	out->p50_ns = hist_permille(&all, 500);
	out->p99_ns = hist_permille(&all, 990);
	out->p999_ns = hist_permille(&all, 999);
	b->asked->status = run->status;
	snprintf(b->asked->errmsg, sizeof(b->asked->errmsg), "%s",
		 *run->errmsg ? run->errmsg : err_text(run->status));
	volume_close(b->open.handle, bench_closed, b);
}

static void bench_closed(void *arg)
{
	struct bench *b = arg;

	list_del(&b->link);
	b->asked->done(b->asked);
	mem_free(b);
}

/* ---- counters ------------------------------------------------------------------------------------------------------------------------ */

struct stats_out {
	struct control_metrics *m;
	volume_id volume;
};

static void volume_metrics(void *arg, const struct volume_stats *st)
{
	static const char *const ops[VOLUME_OPS_N] = {"read",	 "write", "write_zeroes",
						      "discard", "flush", "status"};
	struct stats_out *out = arg;
	const char *labels[] = {"volume", st->name, "op", ""};

	if (out->volume && out->volume != st->id)
		return;
	for (int i = 0; i < VOLUME_OPS_N; i++) {
		const struct volume_op_stats *o = &st->op[i];

		labels[3] = ops[i];
#define OP(what, help, value) \
	control_metric(out->m, "strata_volume_" what "_total", false, help, value, labels, 4);
		OP("requests", "Requests completed", o->requests)
		OP("bytes", "Bytes of completed requests", o->bytes)
		OP("errors", "Requests that failed", o->errors)
		OP("latency_ns", "Nanoseconds that completed requests took together",
		   o->latency_ns.sum)
		control_metric(out->m, "strata_volume_latency_p99_ns", true,
			       "99 of 100 requests took no longer",
			       hist_permille(&o->latency_ns, 990), labels, 4);
#undef OP
	}
#define GAUGE(what, help, value) \
	control_metric(out->m, "strata_volume_" what, true, help, value, labels, 2);
#define COUNTER(what, help, value) \
	control_metric(out->m, "strata_volume_" what "_total", false, help, value, labels, 2);
	GAUGE("size_bytes", "Size of the volume", st->size_bytes)
	GAUGE("handles", "Openers", st->handles)
	GAUGE("in_flight", "Requests under way", st->in_flight)
	COUNTER("lock_waits", "Requests that waited for an overlapping one", st->lock_waits)
	COUNTER("pool_waits", "Requests that waited for memory", st->pool_waits)
	COUNTER("rmw", "Partial blocks completed by reading", st->rmw)
	COUNTER("map_hits", "Map lookups answered from memory", st->map_hits)
	COUNTER("map_loads", "Map pages fetched", st->map_loads)
	COUNTER("stale", "Mappings that had to be fetched again", st->stale)
	COUNTER("alloc_commits", "Allocation requests to the metadata server", st->alloc_commits)
	COUNTER("alloc_chunks", "Chunks allocated", st->alloc_chunks)
	COUNTER("runahead_chunks", "Chunks allocated ahead", st->runahead_chunks)
	COUNTER("runahead_returned", "Of those, returned", st->runahead_returned)
	COUNTER("reclaimed_chunks", "Chunks given back after discards", st->reclaimed_chunks)
	COUNTER("device_flushes", "Flushes of devices", st->device_flushes)
	COUNTER("unflushed_lost", "Flushes that had to report lost writes", st->unflushed_lost)
#undef GAUGE
#undef COUNTER
}

static void nbd_metrics(struct control_metrics *m)
{
	struct nbd_server_info i;

	nbd_server_info(g.nbd, &i);
	control_metric(m, "strata_nbd_connections", true, "Connections", i.connections, NULL, 0);
	control_metric(m, "strata_nbd_accepted_total", false, "Connections taken", i.accepted, NULL,
		       0);
	control_metric(m, "strata_nbd_refused_total", false, "Connections over the limit",
		       i.refused, NULL, 0);
	control_metric(m, "strata_nbd_gave_way_total", false,
		       "Connections closed in their handshake because newer ones wanted the place",
		       i.gave_way, NULL, 0);
	control_metric(m, "strata_nbd_memory_bytes", true, "What NBD connections may use together",
		       i.memory_bytes, NULL, 0);
	control_metric(m, "strata_nbd_memory_used_bytes", true,
		       "Of that, what is set aside for those there are, or used beyond it",
		       i.memory_used_bytes, NULL, 0);
	control_metric(m, "strata_nbd_memory_waiting", true, "Connections that wait for some",
		       i.memory_waiting, NULL, 0);
	control_metric(m, "strata_nbd_memory_waits_total", false, "How often one had to wait",
		       i.memory_waits, NULL, 0);
	control_metric(m, "strata_nbd_broken_total", false,
		       "Connections closed because the peer broke the protocol", i.broken, NULL, 0);
	control_metric(m, "strata_nbd_requests_total", false, "Requests", i.requests, NULL, 0);
	control_metric(m, "strata_nbd_errors_total", false, "Requests answered with an error",
		       i.errors, NULL, 0);
	control_metric(m, "strata_nbd_read_bytes_total", false, "Bytes read", i.read_bytes, NULL, 0);
	control_metric(m, "strata_nbd_written_bytes_total", false, "Bytes written", i.written_bytes,
		       NULL, 0);
}

static void on_stats(void *arg, struct control_metrics *m, volume_id volume)
{
	struct stats_out out = {.m = m, .volume = volume};

	(void)arg;
	if (g.terminating)
		return;
	volumes_stats(g.volumes, volume_metrics, &out);
	if (!volume)
		nbd_metrics(m);
}

static void add_client(void *arg, const struct volume_client *k)
{
	control_client(arg, k->volume, k->name, k->read_only);
}

static void on_clients(void *arg, struct control_clients *cs)
{
	(void)arg;
	if (g.volumes)
		volumes_clients(g.volumes, add_client, cs);
}

/* ---- ending -------------------------------------------------------------------------------------------------------------------------- */

static void terminate(void *arg)
{
	(void)arg;
	g.terminating = true;
	log_info("ending");
	g.timing = true;
	ioe_timer(g.ioe, &g.timer, ioe_now_ns(g.ioe) + GIVE_UP_NS, give_up);
	list_for_each (l, &g.benches)
		volume_bench_stop(&list_entry(l, struct bench, link)->run);
	nbd_server_close(g.nbd, nbd_closed, NULL);
}

static void give_up(struct ioe_req *r)
{
	g.timing = false;
	if (g.closed) {
		end();
		return;
	}
	if (!r->status)
		log_warn("requests still wait for the metadata server or for other nodes: giving "
			 "them up");
	node_give_up(&g.node);
}

static void nbd_closed(void *arg)
{
	(void)arg;
	g.nbd = NULL;
	volumes_close(g.volumes, volumes_closed, NULL);
}

static void volumes_closed(void *arg)
{
	(void)arg;
	volumes_free(g.volumes);
	g.volumes = NULL;
	node_close(&g.node, node_closed, NULL);
}

static void node_closed(void *arg)
{
	(void)arg;
	g.closed = true;
	if (g.timing)
		ioe_cancel(g.ioe, &g.timer);
	else
		end();
}

static void end(void)
{
	node_free(&g.node);
	ioe_stop(g.ioe);
}

int main(int argc, char **argv)
{
	char errmsg[ERRMSG_LEN];
	int r;

	switch (config_parse(&config, argc, argv, errmsg)) {
	case CONFIG_DONE:
		return EXIT_SUCCESS;
	case CONFIG_BAD:
		complain(errmsg);
		return EXIT_USAGE;
	case CONFIG_GO:
		break;
	}
	if (check_addrs(errmsg)) {
		complain(errmsg);
		return EXIT_USAGE;
	}
	mem_tune();
	log_set_name(name ? name : "noded");
	limits_raise_files();
	list_init(&g.benches);
	r = make_engine();
	if (r) {
		snprintf(errmsg, sizeof(errmsg), "there is no I/O engine: %s", err_text(r));
		return complain(errmsg);
	}
	log_set_clock(wall, g.ioe);
	r = start(errmsg);
	if (!r) {
		r = ioe_on_terminate(g.ioe, terminate, NULL);
		if (r)
			snprintf(errmsg, sizeof(errmsg), "cannot watch signals: %s", err_text(r));
	}
	if (r)
		return complain(errmsg);
	ioe_run(g.ioe);
	log_set_clock(NULL, NULL);
	ioe_free(g.ioe);
	config_free(&config);
	return EXIT_SUCCESS;
}
