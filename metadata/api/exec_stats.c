/* SPDX-License-Identifier: Apache-2.0 */
/* exec_stats.c - counters: of one volume, from the node that has it open; and everything, as Prometheus wants it.
 *
 * A node that does not answer within two seconds is left out of the metrics (strata_node_up says so), not waited for. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "metadata/api/exec.h"
#include "metadata/api/metrics.h"
#include "metadata/rpc/session.h"
#include "src/base/mem.h"

#define PATIENCE_NS 2000000000ULL

/* ---- one volume ------------------------------------------------------------------------------------------------------------------------ */

struct exec_volume_stats {
	struct exec x;
	struct san_volume_get get;
	struct session_call call;
};

static void stats_got(struct san_req *req);
static void stats_told(struct session_call *call, int status, const ProtobufCMessage *answer);

void exec_volume_stats(struct exec *x)
{
	struct exec_volume_stats *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->get.name = op->x.r->subject;
	op->get.req.done = stats_got;
	san_volume_get(op->x.a->cluster->san, &op->get);
}

static void stats_got(struct san_req *req)
{
	struct exec_volume_stats *op = container_of(req, struct exec_volume_stats, get.req);
	const struct san_volume *v = &op->get.volume;
	struct cluster_node *n;
	Strata__StatsQuery m = STRATA__STATS_QUERY__INIT;

	if (req->status == -ENOENT) {
		exec_fail(&op->x, ADMIN_E_NOT_FOUND, "'strata volume list' shows them.",
			  "there is no volume %s", op->x.r->subject);
		return;
	}
	if (req->status) {
		exec_fail_status(&op->x, req->status, "", req->errmsg);
		return;
	}
	if (!v->is_open) {
		exec_answer(&op->x, 200,
			    json_pack("{s:s, s:n, s:{}}", "volume", v->name, "node", "counters"));
		return;
	}
	n = cluster_node_by_no(op->x.a->cluster, v->owner);
	if (!n || !n->session) {
		exec_fail(&op->x, ADMIN_E_NODE_AWAY, "", "node %s, which has it open, is away",
			  n ? n->name : "?");
		return;
	}
	m.volume = v->id;
	session_ask(n->session, &op->call, CONTROL_STATS, &m.base, stats_told);
}

/* "strata_volume_requests_total" {op="read"} becomes "read_requests". */
static void counter_name(const Strata__Metric *v, char *text, size_t room)
{
	static const char prefix[] = "strata_volume_", suffix[] = "_total";
	const char *base = v->name;
	size_t n = 0, len;

	text[0] = '\0';
	for (size_t i = 0; i < v->n_labels && n < room; i++)
		if (strcmp(v->labels[i]->name, "volume"))
			n += (size_t)snprintf(text + n, room - n, "%s_", v->labels[i]->value);
	if (!strncmp(base, prefix, sizeof(prefix) - 1))
		base += sizeof(prefix) - 1;
	len = strlen(base);
	if (len > sizeof(suffix) - 1 && !strcmp(base + len - (sizeof(suffix) - 1), suffix))
		len -= sizeof(suffix) - 1;
	if (n < room)
		snprintf(text + n, room - n, "%.*s", (int)len, base);
}

static void stats_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct exec_volume_stats *op = container_of(call, struct exec_volume_stats, call);
	const Strata__Stats *m = (const Strata__Stats *)answer;
	json_t *counters;

	if (status) {
		exec_fail_status(&op->x, -ENOTCONN, "", "the node went away");
		return;
	}
	if (*m->error) {
		exec_fail_status(&op->x, err_by_name(m->error), "", m->errmsg);
		return;
	}
	counters = json_object();
	for (size_t i = 0; i < m->n_metrics; i++) {
		char name[256];

		counter_name(m->metrics[i], name, sizeof(name));
		json_object_set_new(counters, name, json_integer((json_int_t)m->metrics[i]->value));
	}
	exec_answer(&op->x, 200,
		    json_pack("{s:s, s:i, s:o}", "volume", op->get.volume.name, "node",
			      (int)op->get.volume.owner, "counters", counters));
}

/* ---- metrics --------------------------------------------------------------------------------------------------------------------------- */

enum { LABELS = 10 };

/* One number, with its strings; they live until the text is made. */
struct sample {
	struct list link;
	struct metric m;
	struct metric_label labels[LABELS];
	char text[];
};

/* Outlives its request when a node answers late. */
struct gather {
	struct exec *x; /* NULL: answered */
	struct cluster *c;
	struct list samples;
	size_t n;
	uint32_t refs; /* nodes asked, and the timer */
	uint32_t missing;
	struct ioe_req timer;
};

struct gather_node {
	struct session_call call;
	struct gather *g;
	char name[NAME_LEN_MAX + 1];
	bool answered;
};

static void gather_told(struct session_call *call, int status, const ProtobufCMessage *answer);
static void gather_late(struct ioe_req *req);
static void gather_own(struct gather *g);
static void gather_answer(struct gather *g);
static void gather_put(struct gather *g);

static const char *put_text(char **at, const char *text)
{
	size_t n = strlen(text) + 1;
	char *start = *at;

	memcpy(start, text, n);
	*at += n;
	return start;
}

/* labels: name, value, ...; copied */
static void sample(struct gather *g, const char *name, bool gauge, const char *help, double value,
		   const char *const *labels, uint32_t labels_n)
{
	size_t bytes = strlen(name) + strlen(help) + 2;
	struct sample *s;
	char *at;

	check(labels_n % 2 == 0 && labels_n / 2 <= LABELS);
	for (uint32_t i = 0; i < labels_n; i++)
		bytes += strlen(labels[i]) + 1;
	s = mem_zalloc(sizeof(*s) + bytes);
	if (!s)
		return;
	at = s->text;
	s->m.name = put_text(&at, name);
	s->m.help = put_text(&at, help);
	for (uint32_t i = 0; i < labels_n; i += 2) {
		s->labels[i / 2].name = put_text(&at, labels[i]);
		s->labels[i / 2].value = put_text(&at, labels[i + 1]);
	}
	s->m.labels = s->labels;
	s->m.labels_n = labels_n / 2;
	s->m.gauge = gauge;
	s->m.value = value;
	list_push(&g->samples, &s->link);
	g->n++;
}

static void gather_ask(struct gather *g, struct cluster_node *n)
{
	Strata__StatsQuery m = STRATA__STATS_QUERY__INIT;
	struct gather_node *q = n->session ? mem_zalloc(sizeof(*q)) : NULL;

	if (!q)
		return;
	q->g = g;
	memcpy(q->name, n->name, sizeof(q->name));
	g->refs++;
	g->missing++;
	session_ask(n->session, &q->call, CONTROL_STATS, &m.base, gather_told);
}

void exec_metrics(struct exec *x)
{
	struct gather *g = mem_zalloc(sizeof(*g));

	if (!g) {
		exec_answer_text(x, NULL);
		return;
	}
	g->x = x;
	g->c = x->a->cluster;
	list_init(&g->samples);
	cluster_op_begin(g->c);
	gather_own(g);
	g->refs = 1;
	list_for_each (l, &g->c->nodes)
		gather_ask(g, list_entry(l, struct cluster_node, link));
	ioe_timer(g->c->ioe, &g->timer, g->missing ? ioe_now_ns(g->c->ioe) + PATIENCE_NS : 0,
		  gather_late);
}

static void gather_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct gather_node *q = container_of(call, struct gather_node, call);
	struct gather *g = q->g;
	const Strata__Stats *m = (const Strata__Stats *)answer;

	for (size_t i = 0; g->x && !status && !*m->error && i < m->n_metrics; i++) {
		const Strata__Metric *v = m->metrics[i];
		const char *labels[2 * LABELS] = {"node", q->name};
		uint32_t n = 2;

		for (size_t k = 0; k < v->n_labels; k++) {
			labels[n++] = v->labels[k]->name;
			labels[n++] = v->labels[k]->value;
		}
		sample(g, v->name, v->gauge, v->help, (double)v->value, labels, n);
	}
	if (g->x && --g->missing == 0)
		ioe_cancel(g->c->ioe, &g->timer);
	mem_free(q);
	gather_put(g);
}

static void gather_late(struct ioe_req *req)
{
	struct gather *g = container_of(req, struct gather, timer);

	gather_answer(g);
	gather_put(g);
}

static void gather_own(struct gather *g)
{
	struct cluster *c = g->c;
	struct san_stats st;

	san_stats(c->san, &st);
#define OWN(name, gauge, help, value) \
	sample(g, "strata_metad_" name, gauge, help, (double)(value), NULL, 0)
	OWN("up", true, "1 while the metadata server serves", c->state == CLUSTER_SERVING);
	OWN("commit", true, "Number of the last commit", metastore_last_commit(c->store));
	OWN("volumes", true, "Volumes", san_volumes_n(c->san));
	OWN("commits_total", false, "Commits", st.commits);
	OWN("commit_pages_total", false, "Pages in commits", st.commit_pages);
	OWN("commit_bytes_total", false, "Bytes in commits", st.commit_bytes);
	OWN("allocs_total", false, "Allocation requests", st.allocs);
	OWN("alloc_chunks_total", false, "Chunks allocated", st.alloc_chunks);
	OWN("alloc_commits_total", false, "Commits with allocations", st.alloc_commits);
	OWN("unmap_chunks_total", false, "Slots that left the map", st.unmap_chunks);
	OWN("frees_total", false, "Slots that became free", st.frees);
	OWN("map_requests_total", false, "Map lookups", st.map_requests);
	OWN("cache_hits_total", false, "Map pages found in memory", st.cache_hits);
	OWN("cache_misses_total", false, "Map pages read", st.cache_misses);
	OWN("cache_bytes", true, "Map pages in memory", st.cache_bytes);
	OWN("requests_waiting", true, "Requests in flight", st.waiting);
#undef OWN
	list_for_each (l, &c->nodes) {
		struct cluster_node *n = list_entry(l, struct cluster_node, link);
		const char *labels[] = {"node", n->name};

		sample(g, "strata_node_up", true, "1 while the node is online", n->session != NULL,
		       labels, 2);
	}
	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);
		char no[8];
		const char *labels[] = {"device", no, "state", cluster_presence_name(d)};

		snprintf(no, sizeof(no), "%u", d->no);
		if (d->member == CLUSTER_MEMBER)
			sample(g, "strata_device_state", true, "1: the device is in this state", 1,
			       labels, 4);
	}
	list_for_each (l, &c->pools) {
		struct cluster_pool *p = list_entry(l, struct cluster_pool, link);
		const char *labels[] = {"pool", p->name};
		struct san_pool_space s;

		san_pool_space(c->san, p->no, &s);
		sample(g, "strata_pool_capacity_bytes", true, "Bytes of all slots",
		       (double)(s.slots_n << p->chunk_shift), labels, 2);
		sample(g, "strata_pool_used_bytes", true, "Bytes of slots that are taken",
		       (double)((s.used_n + s.freeing_n) << p->chunk_shift), labels, 2);
		sample(g, "strata_pool_free_bytes", true, "Bytes that can be allocated now",
		       (double)(s.free_usable_n << p->chunk_shift), labels, 2);
	}
}

static void gather_answer(struct gather *g)
{
	struct exec *x = g->x;
	struct metric *list = mem_zalloc_array(g->n, sizeof(*list));
	char *text = NULL;
	size_t n = 0;

	g->x = NULL;
	if (list) {
		list_for_each (l, &g->samples) {
			list[n++] = list_entry(l, struct sample, link)->m;
		}
		text = metrics_render(list, n);
	}
	mem_free(list);
	exec_answer_text(x, text);
}

static void gather_put(struct gather *g)
{
	struct cluster *c = g->c;
	struct list *l;

	if (--g->refs)
		return;
	while ((l = list_pop(&g->samples)))
		mem_free(list_entry(l, struct sample, link));
	mem_free(g);
	cluster_op_end(c);
}
