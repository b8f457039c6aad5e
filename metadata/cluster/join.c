/* SPDX-License-Identifier: Apache-2.0 */
/* join.c - a node says hello.
 *
 *   CHECK (at once) -> QUEUED -> NODE* -> RELEASE* -> DEVICES* -> WELCOME -> attach            (* commits; any -> refused)
 *                        ^         |
 *                        +-- RIVAL +  (another process with this identity is connected: the one that lives stays)
 *
 * RIVAL: a process that was killed, stopped or cut off leaves a connection behind that looks like one that works, and its successor shall not wait for
 * that to time out; but a second process, or a copy of the node's directory, must not push out the first, or the two do so for ever. So the connection is
 * asked for a sign of life. If none comes within a second it ends, and the newcomer takes the place. The same process that dials again needs no asking.
 *
 * One at a time, so that a node that dials twice is registered once. CHECK looks for a database that went back in time before anything is
 * answered to anybody; until the cluster has settled hellos only queue. RELEASE closes what earlier processes of the node had open: their
 * requests ended with them (design section 5, rule 7). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "metadata/cluster/codec.h"
#include "metadata/rpc/session.h"
#include "src/base/log.h"
#include "src/base/mem.h"

#define RIVAL_NS      1000000000ULL
#define RIVAL_LOOK_NS 20000000ULL

struct join {
	struct list link;
	struct cluster *c;
	struct session *s;
	uint64_t id;
	Strata__Hello *msg;
	struct cluster_node *node;
	bool node_is_new;
	struct san_records records;
	struct metastore_change change;
	struct codec_record record;
	struct san_node_release release;
	/* rival */
	struct session *rival;
	uint64_t rival_received_bytes, rival_until_ns;
	struct ioe_req timer;
	/* devices */
	struct cluster_admit admit;
	size_t device_i;
	bool in_loop,
	    went_on; /* a verdict that comes inline goes on by the loop, not by recursion */
	Strata__DeviceVerdict *verdicts, **verdict_list;
	char (*errmsgs)[ERRMSG_LEN];
	bool *moved; /* to another node meanwhile */
};

static int join_check(struct cluster *c, const Strata__Hello *m, char errmsg[ERRMSG_LEN]);
static void join_next(struct cluster *c);
static void join_node(struct join *j);
static void join_rival(struct join *j, struct session *rival);
static void join_rival_look(struct ioe_req *req);
static void join_rival_done(struct join *j, bool lives);
static void join_node_done(struct san_req *req);
static void join_release(struct join *j);
static void join_release_done(struct san_req *req);
static void join_devices(struct join *j);
static void join_device_done(struct cluster_admit *op);
static void join_welcome(struct join *j);
static void join_refuse(struct join *j, int status, const char *errmsg);
static void join_free(struct join *j);

void cluster_hello(struct cluster *c, struct session *s, uint64_t id, Strata__Hello *msg)
{
	char errmsg[ERRMSG_LEN];
	int r = join_check(c, msg, errmsg);
	struct join *j = r ? NULL : mem_zalloc(sizeof(*j));

	if (!r && !j) {
		r = -ENOMEM;
		snprintf(errmsg, sizeof(errmsg), "memory is short");
	}
	if (r) {
		session_refuse(s, id, r, errmsg);
		control_free(&msg->base);
		return;
	}
	cluster_op_begin(c);
	j->c = c;
	j->s = session_get(s);
	j->id = id;
	j->msg = msg;
	list_push(&c->joins, &j->link);
	if (c->state == CLUSTER_STARTING && cluster_all_said_hello(c))
		cluster_settled(c);
	else
		join_next(c);
}

static int join_check(struct cluster *c, const Strata__Hello *m, char errmsg[ERRMSG_LEN])
{
	struct uuid cluster = san_cluster(c->san), theirs = control_get_uuid(m->cluster);
	struct uuid uuid = control_get_uuid(m->node);
	const struct cluster_node *node = cluster_node_by_uuid(c, &uuid);

	if (m->cluster.len && !uuid_equal(&cluster, &theirs)) {
		snprintf(errmsg, ERRMSG_LEN, "node %s belongs to another cluster", m->name);
		return -EPERM;
	}
	for (size_t i = 0; i < m->n_devices; i++)
		(void)cluster_knows_commit(c, node, m->name, m->devices[i]);
	if (c->state == CLUSTER_REFUSING) {
		memcpy(errmsg, c->refusal, ERRMSG_LEN);
		return -E_WENT_BACK;
	}
	if (c->state == CLUSTER_STOPPING) {
		snprintf(errmsg, ERRMSG_LEN, "the metadata server is stopping");
		return -ESHUTDOWN;
	}
	return 0;
}

/* Commits of this very process count only for who was in touch with it: else a database that went back would pass as soon as it has made as many new commits
 * as it lost old ones. A node that was removed may have been. */
static uint64_t commit_max(struct cluster *c, const struct cluster_node *node,
			   const struct cluster_device *d)
{
	const struct cluster_node *before = d ? cluster_node_by_no(c, d->node) : NULL;

	if (!d || !before || before->met || (node && node->met))
		return metastore_last_commit(c->store);
	return c->start_commit;
}

bool cluster_knows_commit(struct cluster *c, const struct cluster_node *node, const char *name,
			  const Strata__DeviceInfo *i)
{
	struct uuid uuid = control_get_uuid(i->uuid);
	uint64_t last = commit_max(c, node, cluster_device_by_uuid(c, &uuid));

	if (i->commit <= last)
		return true;
	cluster_refuse(c,
		       "The metadata went back in time: it ends at commit %" PRIu64
		       ", but device %u of node %s has heard of commit %" PRIu64
		       ". Stop the server, then put the newest database back: "
		       "strata meta restore.",
		       last, i->number, name, i->commit);
	return false;
}

bool cluster_all_said_hello(const struct cluster *c)
{
	list_for_each (l, &c->nodes) {
		const struct cluster_node *n = list_entry(l, struct cluster_node, link);
		bool found = false;

		list_for_each (k, &c->joins) {
			struct uuid u =
			    control_get_uuid(list_entry(k, struct join, link)->msg->node);

			found = found || uuid_equal(&u, &n->uuid);
		}
		if (!found)
			return false;
	}
	return true;
}

void cluster_settled(struct cluster *c)
{
	if (c->state == CLUSTER_STARTING)
		c->state = CLUSTER_SERVING;
	join_next(c); /* also when another hello made the server refuse everybody */
}

void cluster_stopping(struct cluster *c)
{
	c->state = CLUSTER_STOPPING;
	join_next(c);
}

static void join_next(struct cluster *c)
{
	while (!c->joining && c->state != CLUSTER_STARTING && !list_empty(&c->joins)) {
		struct join *j = list_first(&c->joins, struct join, link);

		list_del(&j->link);
		c->joining = j;
		if (c->state == CLUSTER_SERVING && conn_is_up(&j->s->conn))
			join_node(j);
		else
			join_refuse(j, -ESHUTDOWN, "");
	}
}

/* ---- node ---------------------------------------------------------------------------------------------------------------------------------- */

static void addrs_set(struct cluster_addrs *a, size_t n, char **list)
{
	memset(a, 0, sizeof(*a));
	a->n = (uint32_t)n;
	for (size_t i = 0; i < n; i++)
		snprintf(a->list[i], sizeof(a->list[i]), "%s", list[i]);
}

/* What a hello says of the node itself; true when that is news. */
static bool node_describe(struct cluster_node *n, const Strata__Hello *m)
{
	struct cluster_node before = *n;

	memset(n->name, 0, sizeof(n->name));
	memset(n->version, 0, sizeof(n->version));
	snprintf(n->name, sizeof(n->name), "%s", m->name);
	snprintf(n->version, sizeof(n->version), "%s", m->version);
	addrs_set(&n->nbd, m->n_nbd, m->nbd);
	addrs_set(&n->peer, m->n_peer, m->peer);
	return strcmp(n->name, before.name) || strcmp(n->version, before.version) ||
	       memcmp(&n->nbd, &before.nbd, sizeof(n->nbd)) ||
	       memcmp(&n->peer, &before.peer, sizeof(n->peer));
}

static void join_node_set(struct join *j, struct cluster_node *n)
{
	j->node = n;
	n->users++;
}

static void join_node(struct join *j)
{
	struct cluster *c = j->c;
	struct uuid uuid = control_get_uuid(j->msg->node);
	struct cluster_node *n = cluster_node_by_uuid(c, &uuid);
	struct cluster_node *namesake = cluster_node_by_name(c, j->msg->name);
	char errmsg[ERRMSG_LEN];

	if (namesake && namesake != n) {
		snprintf(errmsg, sizeof(errmsg),
			 "another node is called %s: take another name, or, if that node is gone "
			 "for good, remove it (strata node remove)",
			 j->msg->name);
		join_refuse(j, -EEXIST, errmsg);
		return;
	}
	if (n && n->removing) {
		snprintf(errmsg, sizeof(errmsg), "node %s is being removed", n->name);
		join_refuse(j, -EAGAIN, errmsg);
		return;
	}
	if (n) {
		struct session *old = n->session;
		struct uuid start = control_get_uuid(j->msg->process);

		if (old && conn_is_up(&old->conn) && !uuid_equal(&start, &n->start)) {
			join_rival(j, old);
			return;
		}
		if (old) { /* it dialed again before we noticed that the old link was gone */
			cluster_node_lost(c, n);
			old->node = NULL;
			session_break(old, -ECONNRESET);
		}
		join_node_set(j, n);
		if (node_describe(n, j->msg))
			cluster_node_save(c, n);
		join_release(j);
		return;
	}
	if (c->nodes_n >= CONTROL_NODES_MAX) {
		join_refuse(j, -EMFILE, "the cluster has as many nodes as it can");
		return;
	}
	n = mem_zalloc(sizeof(*n));
	if (!n) {
		join_refuse(j, -ENOMEM, "memory is short");
		return;
	}
	n->no = san_number_take(c->san, SAN_NUMBER_NODE);
	n->uuid = uuid;
	list_init(&n->link);
	node_describe(n, j->msg);
	join_node_set(j, n);
	j->node_is_new = true;
	codec_put_node(n, &j->record);
	j->change = codec_change(&j->record);
	j->records.changes = &j->change;
	j->records.changes_n = 1;
	j->records.req.done = join_node_done;
	san_records(c->san, &j->records);
}

/* Others join meanwhile. */
static void join_rival(struct join *j, struct session *rival)
{
	struct cluster *c = j->c;

	j->rival = session_get(rival);
	j->rival_received_bytes = j->rival->conn.link.received_bytes;
	j->rival_until_ns = ioe_now_ns(c->ioe) + RIVAL_NS;
	conn_probe(&j->rival->conn);
	ioe_timer(c->ioe, &j->timer, ioe_now_ns(c->ioe) + RIVAL_LOOK_NS, join_rival_look);
	c->joining = NULL;
	join_next(c);
}

static void join_rival_look(struct ioe_req *req)
{
	struct join *j = container_of(req, struct join, timer);
	struct cluster *c = j->c;
	struct conn *rival = &j->rival->conn;
	uint64_t now_ns = ioe_now_ns(c->ioe);

	if (session_is_joined(j->rival) && c->state == CLUSTER_SERVING &&
	    rival->link.received_bytes == j->rival_received_bytes && now_ns < j->rival_until_ns) {
		ioe_timer(c->ioe, &j->timer, now_ns + RIVAL_LOOK_NS, join_rival_look);
		return;
	}
	join_rival_done(j, session_is_joined(j->rival) &&
			       rival->link.received_bytes != j->rival_received_bytes);
}

static void join_rival_done(struct join *j, bool lives)
{
	struct cluster *c = j->c;
	struct session *rival = j->rival;
	char errmsg[ERRMSG_LEN];

	snprintf(errmsg, sizeof(errmsg),
		 "node %s is connected already, from %.60s: two processes, or a copy of its data "
		 "directory, use one identity",
		 j->msg->name, rival->peer);
	j->rival = NULL;
	if (!lives) { /* from the beginning: somebody else may have taken the place meanwhile */
		session_break(rival, -ETIMEDOUT);
		list_push_front(&c->joins, &j->link);
	}
	session_put(rival);
	if (!lives) {
		join_next(c);
		return;
	}
	join_refuse(j, -E_IN_USE, errmsg);
}

static void join_node_done(struct san_req *req)
{
	struct join *j = container_of(req, struct join, records.req);
	struct cluster *c = j->c;

	if (req->status) {
		mem_free(j->node);
		j->node = NULL;
		join_refuse(j, req->status, req->errmsg);
		return;
	}
	list_push(&c->nodes, &j->node->link);
	c->nodes_n++;
	log_info("node registered", "node=%u name=%s", j->node->no, j->node->name);
	san_event(c->san, SAN_INFO, "node_added", "Node %s joined the cluster as number %u.",
		  j->node->name, j->node->no);
	join_release(j);
}

static void join_release(struct join *j)
{
	j->release.node = j->node->no;
	j->release.start = control_get_uuid(j->msg->process);
	j->release.req.done = join_release_done;
	san_node_release(j->c->san, &j->release);
}

static void join_release_done(struct san_req *req)
{
	struct join *j = container_of(req, struct join, release.req);
	size_t n = j->msg->n_devices;

	if (req->status) {
		join_refuse(j, req->status, req->errmsg);
		return;
	}
	j->verdicts = mem_zalloc_array(n, sizeof(*j->verdicts));
	j->verdict_list = mem_zalloc_array(n, sizeof(*j->verdict_list));
	j->errmsgs = mem_zalloc_array(n, sizeof(*j->errmsgs));
	j->moved = mem_zalloc_array(n, sizeof(*j->moved));
	if (!j->verdicts || !j->verdict_list || !j->errmsgs || !j->moved)
		join_refuse(j, -ENOMEM, "memory is short");
	else
		join_devices(j);
}

/* ---- devices -------------------------------------------------------------------------------------------------------------------------------- */

static void join_devices(struct join *j)
{
	j->in_loop = true;
	do {
		if (j->device_i == j->msg->n_devices) {
			j->in_loop = false;
			join_welcome(j);
			return;
		}
		j->went_on = false;
		j->admit = (struct cluster_admit){
		    .c = j->c,
		    .node = j->node,
		    .info = j->msg->devices[j->device_i],
		    .done = join_device_done,
		};
		cluster_admit(&j->admit);
	} while (j->went_on);
	j->in_loop = false;
}

static void join_device_done(struct cluster_admit *op)
{
	struct join *j = container_of(op, struct join, admit);
	size_t i = j->device_i++;
	Strata__DeviceVerdict *v = &j->verdicts[i];

	strata__device_verdict__init(v);
	memcpy(j->errmsgs[i], op->errmsg, ERRMSG_LEN);
	v->uuid = op->info->uuid;
	v->number = op->device ? op->device->no : 0;
	v->error = (char *)(uintptr_t)control_error(op->status);
	v->errmsg = j->errmsgs[i];
	j->moved[i] = cluster_was_moved(op);
	j->verdict_list[i] = v;
	j->went_on = true;
	if (!j->in_loop)
		join_devices(j);
}

/* ---- the end --------------------------------------------------------------------------------------------------------------------------------- */

/* Devices of a node that went away again meanwhile. */
static void devices_away(struct cluster *c, const struct cluster_node *n)
{
	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (d->opening == n->no)
			d->opening = 0;
		if (d->node != n->no || d->member != CLUSTER_MEMBER)
			continue;
		d->presence = CLUSTER_AWAY;
		d->wants_attach = false;
		snprintf(d->reason, sizeof(d->reason), "node %s is away", n->name);
		san_device_usable(c->san, d->no, false);
		san_frees_forget(c->san, d->no);
		cluster_device_decided(c, d);
	}
}

/* Who wants space waits for those. */
static void devices_opening(struct cluster *c, const struct cluster_node *n, const Strata__Hello *m)
{
	for (size_t i = 0; i < m->n_opening; i++) {
		struct uuid uuid = control_get_uuid(m->opening[i]);
		struct cluster_device *d = cluster_device_by_uuid(c, &uuid);

		if (d)
			d->opening = n->no;
	}
}

static void join_welcome(struct join *j)
{
	struct cluster *c = j->c;
	struct cluster_node *n = j->node;
	struct uuid cluster = san_cluster(c->san);
	Strata__Welcome m = STRATA__WELCOME__INIT;

	if (c->state != CLUSTER_SERVING || !conn_is_up(&j->s->conn)) {
		join_refuse(j, -ESHUTDOWN, "");
		return;
	}
	m.cluster = control_uuid(&cluster);
	m.node = n->no;
	m.devices = j->verdict_list;
	m.n_devices = j->msg->n_devices;
	m.config = cluster_config_new(c);
	if (!m.config) {
		join_refuse(j, -ENOMEM, "memory is short");
		return;
	}
	n->met = true;
	n->start = control_get_uuid(j->msg->process);
	n->since_wall_ns = ioe_wall_ns(c->ioe);
	j->s->pid = j->msg->pid;
	devices_opening(c, n, j->msg);
	session_welcome(j->s, n, j->id, &m);
	for (size_t i = 0; i < j->msg->n_devices; i++) {
		struct uuid uuid = control_get_uuid(j->msg->devices[i]->uuid);

		if (j->moved[i])
			cluster_device_disown(j->s, &uuid);
	}
	cluster_config_free(m.config);
	log_info("node online", "node=%u name=%s version=%s", n->no, n->name, n->version);
	if (!j->node_is_new)
		san_event(c->san, SAN_INFO, "node_online", "Node %s is online.", n->name);
	cluster_config_push(c);
	cluster_attach(c, n);
	join_free(j);
}

static void join_refuse(struct join *j, int status, const char *errmsg)
{
	if (j->node && !list_empty(&j->node->link))
		devices_away(j->c, j->node);
	session_refuse(j->s, j->id, status, errmsg);
	join_free(j);
}

static void join_free(struct join *j)
{
	struct cluster *c = j->c;

	if (c->joining == j)
		c->joining = NULL;
	if (j->node)
		j->node->users--;
	control_free(&j->msg->base);
	session_put(j->s);
	mem_free(j->verdicts);
	mem_free(j->verdict_list);
	mem_free(j->errmsgs);
	mem_free(j->moved);
	mem_free(j);
	join_next(c);
	cluster_op_end(c);
}

void cluster_node_lost(struct cluster *c, struct cluster_node *n)
{
	check(n->session);
	n->session = NULL;
	n->since_wall_ns = ioe_wall_ns(c->ioe);
	n->away_ns = ioe_now_ns(c->ioe);
	n->away_commit = metastore_last_commit(c->store);
	devices_away(c, n);
	if (c->state == CLUSTER_STOPPING)
		return;
	log_warn("node away", "node=%u name=%s", n->no, n->name);
	san_event(c->san, SAN_WARNING, "node_away", "Node %s is away.", n->name);
	cluster_config_push(c);
}
