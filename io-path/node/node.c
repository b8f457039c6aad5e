/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/node/node.h"

#include <stdio.h>
#include <string.h>

#include "src/base/log.h"
#include "src/base/mem.h"

static int lock_take(struct node *n, char errmsg[ERRMSG_LEN]);
static void on_ready(void *arg);
static void on_refused(void *arg, const char *errmsg);
static void on_config(void *arg, const Strata__Config *config);
static void notice_who_left(struct node *n, const Strata__Config *config);
static void on_stats(void *arg, struct control_metrics *m, volume_id volume);
static void peer_metrics(struct node *n, struct control_metrics *m);
static void on_bench(void *arg, struct control_bench *b);
static void on_clients(void *arg, struct control_clients *cs);
static bool is_there(void *arg, node_no node, const struct chunk_req *r);
static void resubmit(void *arg, struct chunk_req *r);
static bool remote_knows(struct node_remote *r, device_no dev);
static void remote_submit(struct node_remote *r, struct chunk_req *req);
static bool remote_is_stable(struct node_remote *r, device_no dev);
static bool server_ours(void *arg, device_no dev);
static bool server_device(void *arg, uint32_t nth, struct peer_server_device *ret_device);
static bool server_take_back(void *arg, struct chunk_req *r);
/* closing, in this order */
static void close_client(struct node *n);
static void close_control(void *arg);
static void close_peer_server(void *arg);
static void close_peers(void *arg);
static void close_store(void *arg);
static void close_devices(void *arg);
static void close_end(void *arg);

int node_init(struct node *n, const struct node_config *cfg, char errmsg[ERRMSG_LEN])
{
	struct devices_config devices = {
	    .ioe = cfg->ioe,
	    .dir = cfg->dir,
	    .runtime_dir = cfg->runtime_dir,
	    .store = &n->store,
	    .changed = control_device_changed,
	    .event = control_device_event,
	    .arg = &n->control,
	};
	struct peer_server_config server = {
	    .ioe = cfg->ioe,
	    .key = cfg->key,
	    .local = &n->store.store,
	    .ours = server_ours,
	    .device = server_device,
	    .take_back = server_take_back,
	    .arg = n,
	};
	int r;

	*n = (struct node){.cfg = *cfg};
	n->remote = (struct node_remote){remote_knows, remote_submit, remote_is_stable};
	n->control.cfg.ioe = cfg->ioe; /* calls may be made before it is opened: they wait */
	list_init(&n->devices.list);
	r = lock_take(n, errmsg); /* before anything that another process may be using */
	if (r)
		return r;
	r = node_store_init(&n->store, cfg->ioe, cfg->wait_ns);
	if (!r) {
		n->places = mem_zalloc_array(DEVICES_MAX + 1, sizeof(*n->places));
		r = n->places ? 0 : -ENOMEM;
	}
	if (!r && cfg->peer_n) {
		server.start = n->control.process = ioe_uuid(cfg->ioe);
		r = peer_server_new(&server, &n->peer_server);
	}
	snprintf(errmsg, ERRMSG_LEN, "memory is short");
	for (uint32_t i = 0; i < cfg->peer_n && !r; i++)
		r = peer_server_listen(n->peer_server, cfg->peer[i], errmsg);
	if (!r)
		r = devices_init(&n->devices, &devices, errmsg);
	if (r)
		return r;
	meta_client_init(&n->client, &n->control);
	return 0;
}

/* DIR/lock, not DIR/identity, which is replaced when it is written. The lock ends with the process, however that ends. */
static int lock_take(struct node *n, char errmsg[ERRMSG_LEN])
{
	const int how = IOE_OPEN_LOCK | IOE_OPEN_WAIT | IOE_OPEN_BUFFERED;
	char *path = mem_printf("%s/lock", n->cfg.dir), why[ERRMSG_LEN] = "";
	int r =
	    path ? ioe_file_open(n->cfg.ioe, path, how | IOE_OPEN_CREATE, &n->lock, why) : -ENOMEM;

	if (r == -EEXIST) {
		why[0] = '\0';
		r = ioe_file_open(n->cfg.ioe, path, how, &n->lock, why);
	}
	mem_free(path);
	if (r == -E_IN_USE)
		snprintf(errmsg, ERRMSG_LEN, "%.190s: another strata-noded runs on this directory",
			 why);
	else if (r)
		snprintf(errmsg, ERRMSG_LEN, "%s", *why ? why : err_text(r));
	return r;
}

int node_start(struct node *n, const char *const *nbd, uint32_t nbd_n, char errmsg[ERRMSG_LEN])
{
	struct control_config control = {
	    .ioe = n->cfg.ioe,
	    .dir = n->cfg.dir,
	    .name = n->cfg.name,
	    .metad = n->cfg.metad,
	    .metad_n = n->cfg.metad_n,
	    .key = n->cfg.key,
	    .process = n->control.process,
	    .nbd = n->nbd_list,
	    .peer = n->peer_list,
	    .devices = &n->devices,
	    .store = &n->store,
	    .client = &n->client,
	    .ready = on_ready,
	    .refused = n->cfg.refused ? on_refused : NULL,
	    .config = on_config,
	    .stats = on_stats,
	    .bench = n->cfg.bench ? on_bench : NULL,
	    .clients = n->cfg.clients ? on_clients : NULL,
	    .arg = n,
	    .keepalive_ns = n->cfg.keepalive_ns,
	};
	int r;

	for (uint32_t i = 0; i < nbd_n && i < NODE_ADDRS_MAX; i++) {
		snprintf(n->nbd_addrs[i], IOE_ADDR_MAX, "%s", nbd[i]);
		n->nbd_list[control.nbd_n++] = n->nbd_addrs[i];
	}
	while (n->peer_server && control.peer_n < NODE_ADDRS_MAX &&
	       peer_server_addr(n->peer_server, control.peer_n, n->peer_addrs[control.peer_n])) {
		n->peer_list[control.peer_n] = n->peer_addrs[control.peer_n];
		control.peer_n++;
	}
	r = control_open(&n->control, &control, errmsg);
	n->started = r == 0;
	return r;
}

static void on_ready(void *arg)
{
	struct node *n = arg;

	n->cfg.ready(n->cfg.arg);
}

static void on_refused(void *arg, const char *errmsg)
{
	struct node *n = arg;

	n->cfg.refused(n->cfg.arg, errmsg);
}

static void on_bench(void *arg, struct control_bench *b)
{
	struct node *n = arg;

	n->cfg.bench(n->cfg.arg, b);
}

static void on_clients(void *arg, struct control_clients *cs)
{
	struct node *n = arg;

	n->cfg.clients(n->cfg.arg, cs);
}

static void on_stats(void *arg, struct control_metrics *m, volume_id volume)
{
	struct node *n = arg;

	if (!volume)
		peer_metrics(n, m);
	if (n->cfg.stats)
		n->cfg.stats(n->cfg.arg, m, volume);
}

/* Chunk requests to other nodes, by node, and those that others sent here. */
static void peer_metrics(struct node *n, struct control_metrics *m)
{
	struct peer_stats p = {.node = 0};
	struct peer_server_stats s;
	char text[12];
	const char *labels[] = {"peer", text};

	while (n->peers && peers_stats_next(n->peers, p.node, &p) == 0) {
		snprintf(text, sizeof(text), "%u", p.node);
		control_metric(m, "strata_peer_up", true, "1 while the link to that node is up",
			       p.up, labels, 2);
		control_metric(m, "strata_peer_waiting", true, "Chunk requests that wait for it",
			       p.waiting, labels, 2);
#define COUNTER(what, help, value) \
	control_metric(m, "strata_peer_" what "_total", false, help, value, labels, 2);
		COUNTER("links", "Links made", p.links)
		COUNTER("sent", "Chunk requests sent", p.sent)
		COUNTER("resent", "Of those, sent again after a link broke", p.resent)
		COUNTER("received", "Answers", p.received)
#undef COUNTER
	}
	if (!n->peer_server)
		return;
	peer_server_stats(n->peer_server, &s);
#define COUNTER(what, help, value) \
	control_metric(m, "strata_peer_served_" what "_total", false, help, value, NULL, 0);
	COUNTER("links", "Links of other nodes taken", s.links)
	COUNTER("refused", "Links of other nodes refused", s.refused)
	COUNTER("requests", "Chunk requests of other nodes", s.requests)
	COUNTER("read_bytes", "Bytes read for other nodes", s.bytes_read)
	COUNTER("write_bytes", "Bytes written for other nodes", s.bytes_written)
#undef COUNTER
}

/* ---- other nodes ----------------------------------------------------------------------------------------------------------------------- */

static int peers_begin(struct node *n)
{
	struct peers_config cfg = {
	    .ioe = n->cfg.ioe,
	    .cluster = n->control.cluster,
	    .start = n->control.process,
	    .node = n->control.number,
	    .key = n->cfg.key,
	    .wait_ns = n->cfg.wait_ns,
	};
	int r = n->peers ? 0 : peers_new(&cfg, &n->peers);

	if (!r && n->peer_server)
		peer_server_identify(n->peer_server, &n->control.cluster, n->control.number);
	return r;
}

/* Where everybody is. What cannot be taken in for want of memory comes again with the next change. */
static void on_config(void *arg, const Strata__Config *config)
{
	struct node *n = arg;

	if (peers_begin(n)) {
		log_warn("the other nodes are not reachable: memory is short");
		return;
	}
	for (size_t i = 0; i < config->n_peers; i++) {
		const Strata__Peer *p = config->peers[i];
		size_t addrs_n = p->n_addresses < PEER_ADDRS_MAX ? p->n_addresses : PEER_ADDRS_MAX;

		if (p->node == n->control.number || !addrs_n)
			continue;
		if (peers_set(n->peers, p->node, (const char *const *)p->addresses, (int)addrs_n))
			log_warn("a node is not reachable: memory is short", "node=%u", p->node);
	}
	memset(n->places, 0, (DEVICES_MAX + 1) * sizeof(*n->places));
	for (size_t i = 0; i < config->n_devices; i++) {
		const Strata__DevicePlace *d = config->devices[i];

		if (d->node == n->control.number || peers_knows(n->peers, d->node))
			n->places[d->device] = d->node;
	}
	node_store_set_remote(&n->store, &n->remote);
	peers_reroute(n->peers, is_there, resubmit, n);
	notice_who_left(n, config);
}

/* Those that were in the list and are not any more: one that never was may be too new for this list. */
static void notice_who_left(struct node *n, const Strata__Config *config)
{
	uint64_t listed[ARRAY_LEN(n->listed)] = {0};

	for (size_t i = 0; i < config->n_devices; i++)
		listed[config->devices[i]->device / 64] |= 1ULL << config->devices[i]->device % 64;
	for (uint32_t no = 1; no <= DEVICES_MAX; no++)
		if (n->listed[no / 64] & ~listed[no / 64] & 1ULL << no % 64)
			node_store_left(&n->store, (device_no)no);
	memcpy(n->listed, listed, sizeof(listed));
}

static bool is_there(void *arg, node_no node, const struct chunk_req *r)
{
	struct node *n = arg;

	return n->places[r->dev] == node && !n->store.local[r->dev].dev;
}

static void resubmit(void *arg, struct chunk_req *r)
{
	struct node *n = arg;

	chunk_store_submit(&n->store.store, r);
}

static bool remote_knows(struct node_remote *r, device_no dev)
{
	struct node *n = container_of(r, struct node, remote);

	return n->places[dev] && n->places[dev] != n->control.number;
}

static void remote_submit(struct node_remote *r, struct chunk_req *req)
{
	struct node *n = container_of(r, struct node, remote);

	peers_submit(n->peers, n->places[req->dev], req);
}

static bool remote_is_stable(struct node_remote *r, device_no dev)
{
	struct node *n = container_of(r, struct node, remote);

	return peers_is_stable(n->peers, n->places[dev], dev);
}

static bool server_ours(void *arg, device_no dev)
{
	struct node *n = arg;

	/* one that is about to be served counts: requests for it wait */
	return n->store.local[dev].dev || n->places[dev] == n->control.number;
}

static bool server_take_back(void *arg, struct chunk_req *r)
{
	struct node *n = arg;

	return node_store_take_back(&n->store, r);
}

static bool server_device(void *arg, uint32_t nth, struct peer_server_device *ret_device)
{
	struct node *n = arg;

	list_for_each (l, &n->devices.list) {
		struct node_device *d = list_entry(l, struct node_device, link);
		struct device_info info;

		if (d->state != NODE_DEVICE_SERVING || nth-- > 0)
			continue;
		device_info(d->dev, &info);
		*ret_device = (struct peer_server_device){
		    .uuid = d->uuid,
		    .incarnation = info.incarnation,
		    .lsn = info.lsn,
		    .number = d->no,
		    .is_stable = !info.has_volatile_cache,
		};
		return true;
	}
	return false;
}

/* ---- closing --------------------------------------------------------------------------------------------------------------------------- */

void node_give_up(struct node *n)
{
	meta_client_give_up(&n->client);
	if (n->peer_server) /* first: what fails now is this node's affair, and not an answer for others */
		peer_server_refuse(n->peer_server);
	node_store_give_up(&n->store);
	if (n->peers)
		peers_give_up(n->peers);
}

static void start_nop_done(struct ioe_req *r)
{
	close_client(container_of(r, struct node, nop));
}

void node_close(struct node *n, void (*done)(void *arg), void *arg)
{
	check(!n->closed);
	n->closed = done;
	n->closed_arg = arg;
	ioe_nop(n->cfg.ioe, &n->nop, start_nop_done);
}

static void close_client(struct node *n)
{
	if (n->started)
		meta_client_close(&n->client, close_control, n);
	else
		close_peer_server(n);
}

static void close_control(void *arg)
{
	struct node *n = arg;

	control_close(&n->control, close_peer_server, n);
}

static void close_peer_server(void *arg)
{
	struct node *n = arg;

	if (n->peer_server)
		peer_server_close(n->peer_server, close_peers, n);
	else
		close_peers(n);
}

static void close_peers(void *arg)
{
	struct node *n = arg;

	n->peer_server = NULL;
	if (n->peers)
		peers_close(n->peers, close_store, n);
	else
		close_store(n);
}

static void close_store(void *arg)
{
	struct node *n = arg;

	n->peers = NULL;
	n->store.remote = NULL;
	node_store_close(&n->store, close_devices, n);
}

static void close_devices(void *arg)
{
	struct node *n = arg;

	devices_close(&n->devices, close_end, n);
}

static void close_end(void *arg)
{
	struct node *n = arg;

	n->closed(n->closed_arg);
}

void node_free(struct node *n)
{
	devices_free(&n->devices);
	if (n->store.local)
		node_store_free(&n->store);
	mem_free(n->places);
	n->places = NULL;
	if (n->lock) /* last: until here something of ours may be written */
		ioe_file_close(n->cfg.ioe, n->lock);
	n->lock = NULL;
}
