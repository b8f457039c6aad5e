/* SPDX-License-Identifier: Apache-2.0 */
/* noded.c - a node process: node, volumes and the NBD target on top, made and ended in the order of io-path/main.c.
 *
 *   start: node_init -> volumes_new -> nbd_server_new, listen -> node_start
 *   stop:  NBD -> volumes -> node -> free           what waits longer than GIVE_UP_NS for others is given up */
#include <stdio.h>
#include <string.h>

#include "src/base/mem.h"
#include "tests/sim/client.h"
#include "tests/sim/world.h"

#define GIVE_UP_NS (5 * SEC)
#define WAIT_NS	   (3600 * SEC) /* for devices and nodes that are away: longer than anything is */

static const char *const metads[] = {"10.0.0.1:7000"};
static const struct auth_key key = {.bytes = "a key of the cluster", .len = 20};

static void nbd_closed(void *arg);
static void volumes_closed(void *arg);
static void node_closed(void *arg);

void noded_init(struct world *w, uint32_t k)
{
	struct world_node *n = &w->nodes[k];

	n->w = w;
	n->k = k;
	snprintf(n->name, sizeof(n->name), "node-%u", k);
	snprintf(n->dir, sizeof(n->dir), "/node%u", k);
	snprintf(n->peer, sizeof(n->peer), "10.0.1.%u:8000", k);
	snprintf(n->tcp, sizeof(n->tcp), "10.0.1.%u:10809", k);
	snprintf(n->local, sizeof(n->local), "unix:/node%u/nbd.sock", k);
	n->peers[0] = n->peer;
	n->m = sim_machine_new(w->sim, n->name);
	sim_disk_traits(n->m, &w->s.traits[k - 1]);
}

static void on_ready(void *arg)
{
	((struct world_node *)arg)->ready = true;
}

static void killed(void *arg)
{
	struct world_node *n = arg;

	n->state = PROC_DOWN;
	n->e = NULL;
	n->node = NULL;
	n->volumes = NULL;
	n->nbd = NULL;
	n->giving_up = false;
}

static int make(struct world_node *n, char errmsg[ERRMSG_LEN])
{
	struct node_config node = {
	    .ioe = n->e,
	    .dir = n->dir,
	    .runtime_dir = n->w->s.rings ? "/run" : NULL,
	    .name = n->name,
	    .metad = metads,
	    .metad_n = 1,
	    .key = &key,
	    .peer = n->peers,
	    .peer_n = 1,
	    .wait_ns = WAIT_NS,
	    .ready = on_ready,
	    .arg = n,
	};
	struct volumes_config volumes = {
	    .ioe = n->e,
	    .limits = {.pieces_shared = 32,
		       .pieces_per_volume = 4,
		       .scratch_shared = 8,
		       .map_cache_bytes = 1 << 20},
	};
	struct nbd_config nbd = {
	    .ioe = n->e,
	    .limits = {.connections = 64, .requests = DEPTH_MAX, .pool_bytes = (1 << 20) + (1 << 18)},
	};
	const char *addrs[] = {n->tcp, n->local};
	int r;

	n->node = mem_zalloc(sizeof(*n->node));
	r = node_init(n->node, &node, errmsg);
	volumes.store = &n->node->store.store;
	volumes.meta = &n->node->client.meta;
	if (!r)
		r = volumes_new(&volumes, &n->volumes);
	nbd.volumes = n->volumes;
	if (!r)
		r = nbd_server_new(&nbd, &n->nbd);
	for (uint32_t i = 0; i < 2 && !r; i++)
		r = nbd_server_listen(n->nbd, addrs[i], errmsg);
	if (!r)
		r = node_start(n->node, addrs, 1, errmsg);
	return r;
}

void noded_start(struct world_node *n)
{
	char errmsg[ERRMSG_LEN] = "";
	int r;

	check(n->state == PROC_DOWN);
	n->e = sim_process_new(n->m, n->name, killed, n);
	n->state = PROC_UP;
	n->ready = n->closed = false;
	n->serial = ++n->w->last_proc;
	n->w->result->process_starts++;
	world_say(n->w, "%s starts, process %u", n->name, n->serial);
	r = make(n, errmsg);
	if (r)
		world_fail(n->w, "%s does not start: %s: %s", n->name, err_name(r), errmsg);
	client_up(n->client);
}

void noded_kill(struct world_node *n)
{
	world_say(n->w, "%s is killed", n->name);
	sim_kill(n->e);
}

void noded_power_loss(struct world_node *n)
{
	struct world *w = n->w;
	uint64_t now;

	world_say(w, "%s loses power", n->name);
	sim_power_loss(n->m);
	w->power_losses++;
	now = world_moment(w); /* after what was in flight ended with the machine's own clients */
	for (uint32_t v = 0; v < w->s.volumes_n; v++)
		ledger_power_loss(w->volumes[v].ledger, n->k, now);
}

/* ---- the orderly end --------------------------------------------------------------------------------------------------- */

static void give_up(struct ioe_req *r)
{
	struct world_node *n = container_of(r, struct world_node, give_up);

	n->giving_up = false;
	if (n->closed)
		n->state = PROC_STOPPED;
	else
		node_give_up(n->node);
}

void noded_stop(struct world_node *n)
{
	check(n->state == PROC_UP);
	world_say(n->w, "%s is told to end", n->name);
	n->state = PROC_STOPPING;
	memmove(&n->told_to_end[1], &n->told_to_end[0], 3 * sizeof(n->told_to_end[0]));
	n->told_to_end[0] = n->serial;
	n->giving_up = true;
	ioe_timer(n->e, &n->give_up, ioe_now_ns(n->e) + GIVE_UP_NS, give_up);
	nbd_server_close(n->nbd, nbd_closed, n);
}

static void nbd_closed(void *arg)
{
	struct world_node *n = arg;

	n->nbd = NULL;
	volumes_close(n->volumes, volumes_closed, n);
}

static void volumes_closed(void *arg)
{
	struct world_node *n = arg;

	volumes_free(n->volumes);
	n->volumes = NULL;
	node_close(n->node, node_closed, n);
}

static void node_closed(void *arg)
{
	struct world_node *n = arg;

	n->closed = true;
	if (n->giving_up)
		ioe_cancel(n->e, &n->give_up);
	else
		n->state = PROC_STOPPED;
}

void noded_tidy(struct world_node *n)
{
	if (n->state != PROC_STOPPED)
		return;
	node_free(n->node);
	mem_free(n->node);
	ioe_free(n->e);
	killed(n);
	world_say(n->w, "%s ended", n->name);
}
