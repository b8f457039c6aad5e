/* SPDX-License-Identifier: Apache-2.0 */
/* exec_export.c - exports: volumes, where they are reached, and who has them open.
 *
 *   VOLUMES* (one, or a page of them) -> CLIENTS* (each node that has some of them open is asked) -> answer
 *
 * A node that does not answer within two seconds is not waited for: the clients of its volumes are then null, which is not the same as none. So an
 * operation may outlive its request. */
#include <stdio.h>
#include <string.h>

#include "metadata/api/exec.h"
#include "metadata/rpc/session.h"
#include "src/base/mem.h"

#define PATIENCE_NS 2000000000ULL

struct exports {
	struct exec *x; /* NULL: answered */
	struct cluster *c;
	bool is_list, more;
	uint32_t refs; /* nodes asked, and the timer */
	uint32_t missing;
	struct ioe_req timer;
	struct san_volume_list list;
	struct san_volume_get get;
	struct san_volume_set set;
	json_t **clients; /* by volume: arrays; NULL: not known */
	uint32_t volumes_n;
	struct san_volume volumes[];
};

struct exports_node {
	struct session_call call;
	struct exports *e;
	node_no node;
};

static void show(struct exports *e);
static void show_got(struct san_req *req);
static void set_done(struct san_req *req);
static void list_got(struct san_req *req);
static void clients_ask(struct exports *e);
static void clients_told(struct session_call *call, int status, const ProtobufCMessage *answer);
static void clients_late(struct ioe_req *req);
static void answer(struct exports *e);
static void end(struct exports *e);

static struct exports *exports_new(struct exec *x, uint32_t volumes_max)
{
	struct exports *e = mem_zalloc(sizeof(*e) + volumes_max * sizeof(e->volumes[0]));

	if (e)
		e->clients = mem_zalloc_array(volumes_max, sizeof(e->clients[0]));
	if (!e || !e->clients) {
		mem_free(e);
		exec_answer(x, 200, NULL); /* short of memory */
		return NULL;
	}
	e->x = x;
	e->c = x->a->cluster;
	e->refs = 1;
	cluster_op_begin(e->c);
	return e;
}

/* ---- volumes ------------------------------------------------------------------------------------------------------------------------ */

void exec_export_show(struct exec *x)
{
	struct exports *e = exports_new(x, 1);

	if (e)
		show(e);
}

static void show(struct exports *e)
{
	e->get.name = e->x->r->subject;
	e->get.req.done = show_got;
	san_volume_get(e->c->san, &e->get);
}

static void refuse(struct exports *e, const struct san_req *req)
{
	exec_no_volume(e->x, req->status, req->errmsg);
	end(e);
}

static void show_got(struct san_req *req)
{
	struct exports *e = container_of(req, struct exports, get.req);

	if (req->status) {
		refuse(e, req);
		return;
	}
	e->volumes[0] = e->get.volume;
	e->volumes_n = 1;
	clients_ask(e);
}

void exec_export_set(struct exec *x)
{
	struct exports *e = exports_new(x, 1);
	static const bool values[] = {false, true};

	if (!e)
		return;
	e->set.name = x->r->subject;
	e->set.write_cache = -1;
	e->set.exclusive = &values[admin_bool(x->r, "exclusive")];
	e->set.req.done = set_done;
	san_volume_set(e->c->san, &e->set);
}

static void set_done(struct san_req *req)
{
	struct exports *e = container_of(req, struct exports, set.req);

	if (req->status) {
		refuse(e, req);
		return;
	}
	cluster_volume_news(e->c, &e->set.volume);
	e->volumes[0] = e->set.volume;
	e->volumes_n = 1;
	clients_ask(e);
}

void exec_export_list(struct exec *x)
{
	const char *after = admin_text(x->r, "after");
	uint32_t limit = (uint32_t)admin_int(x->r, "limit");
	struct exports *e;

	if (after && strlen(after) > NAME_LEN_MAX) {
		exec_fail(x, ADMIN_E_INVALID, "Pass the 'next' of the page before.",
			  "after is longer than a name");
		return;
	}
	e = exports_new(x, limit);
	if (!e)
		return;
	e->is_list = true;
	snprintf(e->list.after, sizeof(e->list.after), "%s", after ? after : "");
	e->list.volumes = e->volumes;
	e->list.volumes_max = limit;
	e->list.req.done = list_got;
	san_volume_list(e->c->san, &e->list);
}

static void list_got(struct san_req *req)
{
	struct exports *e = container_of(req, struct exports, list.req);

	if (req->status) {
		exec_fail_status(e->x, req->status, "", req->errmsg);
		end(e);
		return;
	}
	e->volumes_n = e->list.volumes_n;
	e->more = e->list.more && e->volumes_n;
	clients_ask(e);
}

/* ---- clients ------------------------------------------------------------------------------------------------------------------------- */

/* One that is gone meanwhile answers too, with an error. */
static void clients_ask_node(struct exports *e, const struct cluster_node *n, uint32_t *ids)
{
	Strata__ClientsQuery m = STRATA__CLIENTS_QUERY__INIT;
	struct exports_node *q;

	m.volumes = ids;
	for (uint32_t i = 0; i < e->volumes_n; i++)
		if (e->volumes[i].is_open && e->volumes[i].owner == n->no)
			ids[m.n_volumes++] = e->volumes[i].id;
	if (!m.n_volumes || !n->session || !(q = mem_zalloc(sizeof(*q))))
		return;
	q->e = e;
	q->node = n->no;
	e->refs++;
	e->missing++;
	session_ask(n->session, &q->call, CONTROL_CLIENTS, &m.base, clients_told);
}

static void clients_ask(struct exports *e)
{
	uint32_t *ids = mem_zalloc_array(e->volumes_n, sizeof(*ids));

	for (uint32_t i = 0; i < e->volumes_n; i++)
		if (!e->volumes[i].is_open)
			e->clients[i] = json_array();
	if (ids)
		list_for_each (l, &e->c->nodes)
			clients_ask_node(e, list_entry(l, struct cluster_node, link), ids);
	mem_free(ids);
	ioe_timer(e->c->ioe, &e->timer, e->missing ? ioe_now_ns(e->c->ioe) + PATIENCE_NS : 0,
		  clients_late);
}

static void add_client(struct exports *e, node_no node, const Strata__Client *k)
{
	for (uint32_t i = 0; i < e->volumes_n; i++)
		if (e->volumes[i].id == k->volume && e->volumes[i].owner == node)
			json_array_append_new(e->clients[i],
					      json_pack("{s:o, s:b}", "client", exec_text(k->name),
							"read_only", (int)k->read_only));
}

static void clients_told(struct session_call *call, int status, const ProtobufCMessage *message)
{
	struct exports_node *q = container_of(call, struct exports_node, call);
	struct exports *e = q->e;
	const Strata__Clients *m = (const Strata__Clients *)message;

	if (e->x && !status && !*m->error) {
		for (uint32_t i = 0; i < e->volumes_n; i++)
			if (e->volumes[i].is_open && e->volumes[i].owner == q->node)
				e->clients[i] = json_array();
		for (size_t i = 0; i < m->n_clients; i++)
			add_client(e, q->node, m->clients[i]);
	}
	if (e->x && --e->missing == 0)
		ioe_cancel(e->c->ioe, &e->timer);
	mem_free(q);
	end(e);
}

static void clients_late(struct ioe_req *req)
{
	struct exports *e = container_of(req, struct exports, timer);

	answer(e);
	end(e);
}

/* ---- answer -------------------------------------------------------------------------------------------------------------------------- */

static void add_uris(json_t *uris, const struct cluster_node *n, const char *volume)
{
	for (uint32_t i = 0; i < n->nbd.n; i++) {
		char uri[CLUSTER_URI_LEN];

		cluster_nbd_uri(n->nbd.list[i], volume, uri);
		json_array_append_new(uris, json_pack("{s:i, s:s, s:o}", "node", (int)n->no,
						      "node_name", n->name, "uri", exec_text(uri)));
	}
}

/* The owner first: it alone serves the volume while it has it open. Then whoever is online. */
static json_t *export_json(struct exports *e, uint32_t i)
{
	const struct san_volume *v = &e->volumes[i];
	struct cluster_node *owner = exec_owner(e->x->a, v);
	json_t *uris = json_array(), *clients = e->clients[i];

	e->clients[i] = NULL;
	if (owner)
		add_uris(uris, owner, v->name);
	list_for_each (l, &e->c->nodes) {
		struct cluster_node *n = list_entry(l, struct cluster_node, link);

		if (n != owner && n->session)
			add_uris(uris, n, v->name);
	}
	return json_pack("{s:s, s:I, s:b, s:o, s:s?, s:b, s:o, s:o}", "volume", v->name,
			 "size_bytes", (json_int_t)v->size_bytes, "exclusive", (int)v->exclusive,
			 "owner", owner ? json_integer(owner->no) : json_null(), "owner_name",
			 owner ? owner->name : NULL, "open", (int)v->is_open, "clients",
			 clients ? clients : json_null(), "uris", uris);
}

static void answer(struct exports *e)
{
	struct exec *x = e->x;
	json_t *items;

	if (!e->is_list) {
		items = export_json(e, 0);
		e->x = NULL;
		exec_answer(x, 200, items);
		return;
	}
	items = json_array();
	for (uint32_t i = 0; i < e->volumes_n; i++)
		json_array_append_new(items, export_json(e, i));
	e->x = NULL;
	exec_answer_page(x, items, e->more ? e->volumes[e->volumes_n - 1].name : NULL);
}

static void end(struct exports *e)
{
	struct cluster *c = e->c;

	if (--e->refs)
		return;
	for (uint32_t i = 0; i < e->volumes_n; i++)
		json_decref(e->clients[i]);
	mem_free(e->clients);
	mem_free(e);
	cluster_op_end(c);
}
