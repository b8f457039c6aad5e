/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - strata-noded: one machine's devices, volumes and targets, put together.
 *
 *   targets/nbd -> volumes -> node_store -> devices here, or peers (other nodes)
 *                     |                         ^
 *                meta_client -> control         +-- peer_server (for other nodes)
 *
 * Starting: listeners first, so that their addresses can be told in the HELLO; clients that come early wait for the metadata server. Serving
 * is announced when the node has joined and its devices are settled.
 * Ending (SIGTERM), each step waits for the one before: NBD connections finish and close, volumes close, calls to the metadata server end, the
 * control connection, the links of other nodes, the store, the peers, the devices (cleanly). What waits for somebody who is away
 * is given up after GRACE_NS. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io-path/node/control.h"
#include "io-path/node/meta_client.h"
#include "io-path/node/peer.h"
#include "io-path/node/peer_server.h"
#include "io-path/volume/volumes.h"
#include "src/base/config.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/notify.h"
#include "targets/nbd/nbd.h"

enum { ADDRS_MAX = 16 };
#define GRACE_NS (5ULL * 1000000000)

struct options {
	char *name, *data, *key_file, *runtime_dir, *engine;
	struct config_list metad, nbd, peer;
	uint64_t ready_fd, device_wait_ns;
	bool insecure;
};

struct noded {
	struct options opt;
	struct ioe *ioe;
	struct auth_key key;
	bool has_key;
	struct node_store store;
	struct devices devices;
	struct control control;
	struct meta_client meta;
	struct volumes *volumes;
	struct nbd_server *nbd;
	struct peers *peers;
	struct peer_server *peer_server;
	struct node_remote remote;
	node_no *place; /* by device number: the node that has it, 0: not known */
	char nbd_addrs[ADDRS_MAX][IOE_ADDR_MAX], peer_addrs[ADDRS_MAX][IOE_ADDR_MAX];
	const char *nbd_list[ADDRS_MAX], *peer_list[ADDRS_MAX];
	uint32_t nbd_n, peer_n;
	/* ending */
	bool ending, given_up, store_closed;
	int step;
	struct ioe_req grace;
	bool grace_runs;
	int exit_code;
};

static int noded_start(struct noded *n, char errmsg[ERRMSG_LEN]);
static int listen_nbd(struct noded *n, char errmsg[ERRMSG_LEN]);
static int listen_peers(struct noded *n, char errmsg[ERRMSG_LEN]);
static void on_ready(void *arg);
static void on_config(void *arg, const Strata__Config *config);
static void on_stats(void *arg, struct control_metrics *m, volume_id volume);
static bool is_ours(void *arg, device_no dev);
static bool nth_device(void *arg, uint32_t nth, struct peer_server_device *ret_device);
static void on_terminate(void *arg);
static void end_step(void *arg);
static void grace_over(struct ioe_req *r);

/* ---- options -------------------------------------------------------------------------------------------------------------- */

static enum config_verdict read_options(struct options *o, int argc, char **argv,
					char errmsg[ERRMSG_LEN])
{
	struct config_option table[] = {
	    {"name", CONFIG_STRING, &o->name, "NAME", .help = "of this node, unique in the cluster",
	     .required = true},
	    {"data", CONFIG_STRING, &o->data, "DIR",
	     .help = "where the node keeps its identity and the list of its devices",
	     .required = true},
	    {"metad", CONFIG_LIST, &o->metad, "ADDR",
	     .help = "the metadata server: host:port or unix:PATH", .required = true},
	    {"nbd", CONFIG_LIST, &o->nbd, "ADDR", .help = "serve NBD here: host:port or unix:PATH"},
	    {"peer", CONFIG_LIST, &o->peer, "ADDR",
	     .help = "serve other nodes here (unix:DIR/peer.sock)"},
	    {"key-file", CONFIG_STRING, &o->key_file, "FILE",
	     .help = "the cluster's secret, needed for TCP between daemons"},
	    {"runtime-dir", CONFIG_STRING, &o->runtime_dir, "DIR",
	     .help = "for what survives a killed process but not a reboot; a tmpfs "
		     "(/dev/shm/strata-UID)"},
	    {"device-wait", CONFIG_DURATION, &o->device_wait_ns, "TIME",
	     .help = "how long requests wait for a device that is away before they fail (2m)",
	     .min = 0},
	    {"engine", CONFIG_WORD, &o->engine, "uring|aio",
	     .help = "the I/O engine (uring, and aio where the kernel refuses it)",
	     .words = "uring|aio"},
	    {"insecure", CONFIG_FLAG, &o->insecure, NULL,
	     .help = "allow NBD on addresses other than this machine's loopback: anybody who "
		     "reaches them gets in"},
	    {"ready-fd", CONFIG_NUMBER, &o->ready_fd, "N",
	     .help = "write one line to this descriptor when serving (1)", .max = 1 << 20},
	};
	const struct config c = {.program = "strata-noded",
				 .summary = "data-path node: devices, volumes, NBD",
				 .options = table,
				 .options_n = ARRAY_LEN(table)};

	o->ready_fd = 1;
	o->device_wait_ns = 120ULL * 1000000000;
	return config_parse(&c, argc, argv, errmsg);
}

static bool is_local_addr(const char *addr)
{
	return !strncmp(addr, "unix:", 5) || !strncmp(addr, "127.", 4) ||
	       !strncmp(addr, "[::1]:", 6);
}

static uint64_t log_clock(void *arg)
{
	return ioe_wall_ns(arg);
}

/* ---- starting -------------------------------------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
	static struct noded n;
	char errmsg[ERRMSG_LEN] = "";
	struct ioe_config ec = {0};
	int r;

	switch (read_options(&n.opt, argc, argv, errmsg)) {
	case CONFIG_DONE:
		return 0;
	case CONFIG_BAD:
		fprintf(stderr, "strata-noded: %s\n", errmsg);
		return 2;
	case CONFIG_GO:
		break;
	}
	log_set_name(n.opt.name);
	if (n.opt.engine)
		ec.kind = strcmp(n.opt.engine, "aio") ? IOE_URING : IOE_AIO;
	r = ioe_new(&ec, &n.ioe);
	if (r) {
		fprintf(stderr, "strata-noded: no I/O engine: %s\n", err_text(r));
		return 1;
	}
	log_set_clock(log_clock, n.ioe);
	r = noded_start(&n, errmsg);
	if (r) {
		fprintf(stderr, "strata-noded: %s: %s\n", *errmsg ? errmsg : "cannot start",
			err_text(r));
		return 1;
	}
	ioe_run(n.ioe);
	return n.exit_code;
}

static int listen_nbd(struct noded *n, char errmsg[ERRMSG_LEN])
{
	for (uint32_t i = 0; i < n->opt.nbd.n; i++) {
		int r;

		if (!is_local_addr(n->opt.nbd.items[i]) && !n->opt.insecure) {
			snprintf(errmsg, ERRMSG_LEN,
				 "--nbd %s is reachable from other machines and asks nobody who "
				 "they are; say --insecure if that is meant",
				 n->opt.nbd.items[i]);
			return -EPERM;
		}
		r = nbd_server_listen(n->nbd, n->opt.nbd.items[i], errmsg);
		if (r)
			return r;
	}
	while (n->nbd_n < ADDRS_MAX && !nbd_server_addr(n->nbd, n->nbd_n, n->nbd_addrs[n->nbd_n])) {
		n->nbd_list[n->nbd_n] = n->nbd_addrs[n->nbd_n];
		n->nbd_n++;
	}
	return 0;
}

static int listen_peers(struct noded *n, char errmsg[ERRMSG_LEN])
{
	char own[IOE_ADDR_MAX];
	const char *only = own;
	const char *const *addrs = n->opt.peer.n ? (const char *const *)n->opt.peer.items : &only;
	uint32_t addrs_n = n->opt.peer.n ? n->opt.peer.n : 1;

	if ((size_t)snprintf(own, sizeof(own), "unix:%s/peer.sock", n->opt.data) >= sizeof(own)) {
		snprintf(errmsg, ERRMSG_LEN, "--data %s is too long for a unix socket in it",
			 n->opt.data);
		return -ENAMETOOLONG;
	}
	for (uint32_t i = 0; i < addrs_n; i++) {
		int r;

		if (strncmp(addrs[i], "unix:", 5) && !n->has_key) {
			snprintf(errmsg, ERRMSG_LEN, "--peer %s is TCP and needs --key-file",
				 addrs[i]);
			return -EINVAL;
		}
		r = peer_server_listen(n->peer_server, addrs[i], errmsg);
		if (r)
			return r;
	}
	while (n->peer_n < ADDRS_MAX &&
	       peer_server_addr(n->peer_server, n->peer_n, n->peer_addrs[n->peer_n])) {
		n->peer_list[n->peer_n] = n->peer_addrs[n->peer_n];
		n->peer_n++;
	}
	return 0;
}

static int make_dirs(struct noded *n, char errmsg[ERRMSG_LEN])
{
	int r;

	if (!n->opt.runtime_dir)
		n->opt.runtime_dir = mem_printf("/dev/shm/strata-%u", (unsigned)getuid());
	if (!n->opt.runtime_dir)
		return -ENOMEM;
	r = ioe_mkdir(n->ioe, n->opt.data, 0700);
	if (r) {
		snprintf(errmsg, ERRMSG_LEN, "--data %s cannot be made", n->opt.data);
		return r;
	}
	r = ioe_mkdir(n->ioe, n->opt.runtime_dir, 0700);
	if (r)
		snprintf(errmsg, ERRMSG_LEN, "--runtime-dir %s cannot be made", n->opt.runtime_dir);
	return r;
}

static int make_targets(struct noded *n)
{
	struct volumes_config vc = {.ioe = n->ioe, .store = &n->store.store, .meta = &n->meta.meta};
	struct nbd_config nc = {.ioe = n->ioe};
	struct peer_server_config pc = {.ioe = n->ioe,
					.start = ioe_uuid(n->ioe),
					.key = n->has_key ? &n->key : NULL,
					.local = &n->store.store,
					.ours = is_ours,
					.device = nth_device,
					.arg = n};
	int r = volumes_new(&vc, &n->volumes);

	nc.volumes = n->volumes;
	if (!r)
		r = nbd_server_new(&nc, &n->nbd);
	if (!r)
		r = peer_server_new(&pc, &n->peer_server);
	n->place = mem_zalloc_array(DEVICES_MAX + 1, sizeof(n->place[0]));
	return r ? r : n->place ? 0 : -ENOMEM;
}

static int noded_start(struct noded *n, char errmsg[ERRMSG_LEN])
{
	struct devices_config dc = {.ioe = n->ioe,
				    .dir = n->opt.data,
				    .store = &n->store,
				    .changed = control_device_changed,
				    .event = control_device_event,
				    .arg = &n->control};
	struct control_config cc = {.ioe = n->ioe,
				    .dir = n->opt.data,
				    .name = n->opt.name,
				    .metad = (const char *const *)n->opt.metad.items,
				    .metad_n = n->opt.metad.n,
				    .nbd = n->nbd_list,
				    .peer = n->peer_list,
				    .devices = &n->devices,
				    .store = &n->store,
				    .ready = on_ready,
				    .config = on_config,
				    .stats = on_stats,
				    .arg = n};
	int r = make_dirs(n, errmsg);

	if (!r && n->opt.key_file) {
		r = auth_key_load(n->ioe, n->opt.key_file, &n->key, errmsg);
		n->has_key = !r;
	}
	dc.runtime_dir = n->opt.runtime_dir;
	cc.key = n->has_key ? &n->key : NULL;
	if (!r)
		r = node_store_init(&n->store, n->ioe, n->opt.device_wait_ns);
	if (!r)
		r = devices_init(&n->devices, &dc, errmsg);
	if (r)
		return r;
	meta_client_init(&n->meta, &n->control);
	r = make_targets(n);
	if (!r)
		r = listen_nbd(n, errmsg);
	if (!r)
		r = listen_peers(n, errmsg);
	cc.nbd_n = n->nbd_n;
	cc.peer_n = n->peer_n;
	if (!r)
		r = ioe_on_terminate(n->ioe, on_terminate, n);
	if (!r)
		r = control_open(&n->control, &cc, errmsg);
	return r;
}

/* Joined, and every device that is here is served or refused. */
static void on_ready(void *arg)
{
	struct noded *n = arg;
	json_t *nbd = json_array(), *line = json_object();
	char *text;

	for (uint32_t i = 0; i < n->nbd_n; i++)
		json_array_append_new(nbd, json_string(n->nbd_addrs[i]));
	json_object_set_new(line, "nbd", nbd);
	text = json_dumps(line, JSON_COMPACT);
	json_decref(line);
	log_info("serving", "node=%u", n->control.number);
	notify_ready((int)n->opt.ready_fd, text ? text : "{}");
	free(text);
}

/* ---- the other nodes --------------------------------------------------------------------------------------------------------- */

static bool remote_knows(struct node_remote *remote, device_no dev)
{
	struct noded *n = container_of(remote, struct noded, remote);

	return n->peers && n->place[dev] && n->place[dev] != n->control.number;
}

static void remote_submit(struct node_remote *remote, struct chunk_req *r)
{
	struct noded *n = container_of(remote, struct noded, remote);

	peers_submit(n->peers, n->place[r->dev], r);
}

static bool remote_is_stable(struct node_remote *remote, device_no dev)
{
	struct noded *n = container_of(remote, struct noded, remote);

	return peers_is_stable(n->peers, n->place[dev], dev);
}

static bool is_ours(void *arg, device_no dev)
{
	struct noded *n = arg;

	return n->place[dev] == n->control.number || n->store.local[dev].dev;
}

static bool nth_device(void *arg, uint32_t nth, struct peer_server_device *ret_device)
{
	struct noded *n = arg;
	struct device_info info;

	list_for_each (pos, &n->devices.list) {
		struct node_device *d = list_entry(pos, struct node_device, link);

		if (d->state != NODE_DEVICE_SERVING || nth--)
			continue;
		device_info(d->dev, &info);
		*ret_device = (struct peer_server_device){.uuid = d->uuid,
							  .incarnation = info.incarnation,
							  .lsn = info.lsn,
							  .number = d->no,
							  .is_stable = !info.has_volatile_cache};
		return true;
	}
	return false;
}

static void peers_start(struct noded *n)
{
	struct peers_config pc = {.ioe = n->ioe,
				  .cluster = n->control.cluster,
				  .start = n->control.process,
				  .node = n->control.number,
				  .key = n->has_key ? &n->key : NULL,
				  .wait_ns = n->opt.device_wait_ns};

	if (n->peers || peers_new(&pc, &n->peers))
		return; /* short of memory: remote devices wait, and the next config tries again */
	peer_server_identify(n->peer_server, &n->control.cluster, n->control.number);
	n->remote = (struct node_remote){.knows = remote_knows,
					 .submit = remote_submit,
					 .is_stable = remote_is_stable};
}

static void on_config(void *arg, const Strata__Config *config)
{
	struct noded *n = arg;

	if (n->ending || !n->control.number)
		return;
	peers_start(n);
	if (!n->peers)
		return;
	for (size_t i = 0; i < config->n_peers; i++) {
		const Strata__Peer *p = config->peers[i];
		int addrs_n = (int)MIN(p->n_addresses, (size_t)PEER_ADDRS_MAX);

		if (p->node != n->control.number &&
		    peers_set(n->peers, p->node, (const char *const *)p->addresses, addrs_n))
			log_warn("a node's addresses cannot be used", "node=%u", p->node);
	}
	memset(n->place, 0, (DEVICES_MAX + 1) * sizeof(n->place[0]));
	for (size_t i = 0; i < config->n_devices; i++) {
		const Strata__DevicePlace *d = config->devices[i];

		if (d->device <= DEVICES_MAX &&
		    (d->node == n->control.number || peers_knows(n->peers, d->node)))
			n->place[d->device] = d->node;
	}
	node_store_set_remote(&n->store, &n->remote);
}

/* ---- counters ------------------------------------------------------------------------------------------------------------------ */

struct stats_of {
	struct control_metrics *m;
	volume_id only;
};

static void volume_metrics(void *arg, const struct volume_stats *st)
{
	static const char *const ops[VOLUME_OPS_N] = {"read",	 "write", "write_zeroes",
						      "discard", "flush", "status"};
	struct stats_of *s = arg;

	if (s->only && st->id != s->only)
		return;
	for (int i = 0; i < VOLUME_OPS_N; i++) {
		const char *labels[] = {"volume", st->name, "op", ops[i]};

		control_metric(s->m, "strata_volume_requests_total", false, "completed requests",
			       st->op[i].requests, labels, 2);
		control_metric(s->m, "strata_volume_bytes_total", false,
			       "bytes of completed requests", st->op[i].bytes, labels, 2);
		control_metric(s->m, "strata_volume_errors_total", false, "requests that failed",
			       st->op[i].errors, labels, 2);
	}
}

static void device_metrics(struct control_metrics *m, struct node_device *d)
{
	struct device_info info;
	char no[8];
	const char *labels[] = {"device", no};

	if (!d->dev)
		return;
	device_info(d->dev, &info);
	snprintf(no, sizeof(no), "%u", d->no);
	control_metric(m, "strata_device_slots", true, "places for chunks", info.slots_n, labels,
		       1);
	control_metric(m, "strata_device_slots_open", true, "places that hold a chunk",
		       info.slots_open_n, labels, 1);
	control_metric(m, "strata_device_table_cache_bytes", true,
		       "memory of the block table cache", info.table_cache_bytes, labels, 1);
	control_metric(m, "strata_device_table_cache_misses_total", false, "block tables read",
		       info.table_cache_misses, labels, 1);
	control_metric(m, "strata_device_journal_blocks_total", false, "journal blocks written",
		       info.journal_blocks, labels, 1);
	control_metric(m, "strata_device_flushes_total", false, "flushes of the device",
		       info.flushes, labels, 1);
	control_metric(m, "strata_device_read_bytes_total", false, "data read", info.read_bytes,
		       labels, 1);
	control_metric(m, "strata_device_write_bytes_total", false, "data written",
		       info.write_bytes, labels, 1);
	control_metric(m, "strata_device_bad_blocks", true, "blocks known to be damaged",
		       info.bad_blocks, labels, 1);
	control_metric(m, "strata_device_unresolved_blocks_total", false,
		       "unfinished writes accepted after power loss", info.unresolved_blocks,
		       labels, 1);
}

static void on_stats(void *arg, struct control_metrics *m, volume_id volume)
{
	struct noded *n = arg;
	struct stats_of s = {.m = m, .only = volume};
	struct nbd_server_info nbd;

	volumes_stats(n->volumes, volume_metrics, &s);
	if (volume)
		return;
	nbd_server_info(n->nbd, &nbd);
	control_metric(m, "strata_nbd_connections", true, "NBD connections", nbd.connections, NULL,
		       0);
	control_metric(m, "strata_nbd_broken_total", false,
		       "NBD connections closed because the client broke the protocol", nbd.broken,
		       NULL, 0);
	list_for_each (pos, &n->devices.list)
		device_metrics(m, list_entry(pos, struct node_device, link));
}

/* ---- ending -------------------------------------------------------------------------------------------------------------------- */

static void on_terminate(void *arg)
{
	struct noded *n = arg;

	if (n->ending)
		return;
	n->ending = true;
	log_info("ending", "grace_s=%d", (int)(GRACE_NS / 1000000000));
	n->grace_runs = true;
	ioe_timer(n->ioe, &n->grace, ioe_now_ns(n->ioe) + GRACE_NS, grace_over);
	end_step(n);
}

static void grace_over(struct ioe_req *r)
{
	struct noded *n = container_of(r, struct noded, grace);

	n->grace_runs = false;
	if (r->status) { /* cancelled: everything else is done */
		ioe_stop(n->ioe);
		return;
	}
	log_warn("not waiting any longer for who is away", "step=%d", n->step);
	n->given_up = true;
	meta_client_give_up(&n->meta);
	if (n->peers)
		peers_give_up(n->peers);
	node_store_give_up(&n->store);
}

static void volumes_closed(void *arg)
{
	struct noded *n = arg;

	volumes_free(n->volumes);
	end_step(n);
}

static void end_step(void *arg)
{
	struct noded *n = arg;

	switch (n->step++) {
	case 0:
		nbd_server_close(n->nbd, end_step, n);
		break;
	case 1:
		volumes_close(n->volumes, volumes_closed, n);
		break;
	case 2:
		meta_client_close(&n->meta, end_step, n);
		break;
	case 3:
		control_close(&n->control, end_step, n);
		break;
	case 4:
		peer_server_close(n->peer_server, end_step, n);
		break;
	case 5:
		node_store_close(&n->store, end_step, n);
		break;
	case 6:
		if (n->peers) {
			peers_close(n->peers, end_step, n);
			break;
		}
		n->step++;
		__attribute__((fallthrough));
	case 7:
		devices_close(&n->devices, end_step, n);
		break;
	default:
		devices_free(&n->devices);
		node_store_free(&n->store);
		log_info("ended", "");
		if (n->grace_runs)
			ioe_cancel(n->ioe, &n->grace);
		else
			ioe_stop(n->ioe);
	}
}
