/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/cluster/cluster_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/crc.h"
#include "src/base/mem.h"

static const char *const metad_addr = "10.0.0.1:7000";
static const char *const metads[] = {"10.0.0.1:7000"};
static const struct auth_key key = {.bytes = "a key of the cluster", .len = 20};

void cworld_init(struct cworld *w, uint64_t seed)
{
	struct sim_config cfg = {.seed = seed, .recv_split_percent = 20};

	memset(w, 0, sizeof(*w));
	mock_media_clear();
	mem_arena_init(&w->arena);
	mem_arena_use(&w->arena);
	w->sim = sim_world_new(&cfg);
	w->metad_m = sim_machine_new(w->sim, "metad");
	w->image = metastore_mem_image_new();
	for (int k = 1; k <= CWORLD_NODES_MAX; k++) {
		struct cworld_node *n = &w->nodes[k];

		n->w = w;
		n->k = k;
		snprintf(n->name, sizeof(n->name), "node-%d", k);
		snprintf(n->dir, sizeof(n->dir), "/node%d", k);
		snprintf(n->peer, sizeof(n->peer), "10.0.1.%d:8000", k);
		snprintf(n->nbd, sizeof(n->nbd), "10.0.1.%d:10809", k);
		n->peers[0] = n->peer;
		n->nbds[0] = n->nbd;
		n->m = sim_machine_new(w->sim, n->name);
	}
}

void cworld_free(struct cworld *w)
{
	for (int k = 1; k <= CWORLD_NODES_MAX; k++)
		if (w->nodes[k].e)
			cworld_node_stop(w, k);
	if (w->metad_e)
		cworld_metad_stop(w);
	metastore_mem_image_free(w->image);
	assert_true(sim_run(w->sim, UINT64_MAX)); /* nothing goes on by itself */
	sim_world_free(w->sim);
	mem_arena_use(NULL);
	if (!w->killed)
		assert_int_equal(w->arena.live, 0);
	mem_arena_drop(&w->arena);
}

void cworld_run(struct cworld *w, uint64_t ns)
{
	sim_run(w->sim, sim_now_ns(w->sim) + ns);
}

/* ---- the server -------------------------------------------------------------------------------------------------------------------------- */

static void metad_opened(void *arg, int status, const char *errmsg)
{
	struct cworld *w = arg;

	w->metad_open = true;
	w->metad_status = status;
	snprintf(w->metad_errmsg, sizeof(w->metad_errmsg), "%s", errmsg);
}

static void metad_failed(void *arg, int status)
{
	(void)arg;
	fail_msg("the database is out of service: %s", err_name(status));
}

void cworld_metad_begin(struct cworld *w)
{
	struct metad_config cfg = {
	    .rpc = metads,
	    .rpc_n = 1,
	    .key = &key,
	    .opened = metad_opened,
	    .failed = metad_failed,
	    .arg = w,
	};

	(void)metad_addr;
	w->metad_e = sim_process_new(w->metad_m, "metad", NULL, NULL);
	assert_int_equal(metastore_open_mem(w->metad_e, w->image, &w->store), 0);
	cfg.ioe = w->metad_e;
	cfg.store = w->store;
	w->metad = mem_zalloc(sizeof(*w->metad));
	w->metad_open = false;
	metad_open(w->metad, &cfg);
}

void cworld_metad_start(struct cworld *w)
{
	cworld_metad_begin(w);
	cworld_until(w, w->metad_open);
	if (w->metad_status)
		fail_msg("metad: %s", w->metad_errmsg);
}

static void set(void *arg)
{
	*(bool *)arg = true;
}

void cworld_metad_stop(struct cworld *w)
{
	w->metad_closed = w->store_closed = false;
	metad_close(w->metad, set, &w->metad_closed);
	cworld_until(w, w->metad_closed);
	metastore_close(w->store, set, &w->store_closed);
	cworld_until(w, w->store_closed);
	mem_free(w->metad);
	w->metad = NULL;
	ioe_free(w->metad_e);
	w->metad_e = NULL;
}

void cworld_metad_kill(struct cworld *w)
{
	w->killed = true;
	sim_kill(w->metad_e);
	w->metad_e = NULL;
	w->metad = NULL;
}

/* ---- nodes -------------------------------------------------------------------------------------------------------------------------------- */

static void node_ready(void *arg)
{
	((struct cworld_node *)arg)->ready = true;
}

static void node_stats(void *arg, struct control_metrics *m, volume_id volume)
{
	static const char *const labels[] = {"volume", "v", "op", "read"};

	(void)arg;
	if (volume)
		control_metric(m, "strata_volume_requests_total", false, "Requests", 42, labels, 4);
}

/* Volume 1 has two clients, and some volume a third. */
static void node_clients(void *arg, struct control_clients *cs)
{
	const struct cworld_node *n = arg;

	if (n->no_clients)
		return;
	control_client(cs, 1, "nbd 10.9.9.9:4711", false);
	control_client(cs, 1, "nbd 10.9.9.8:4711", true);
	control_client(cs, 77, "nbd 10.9.9.7:4711", false);
}

/* Runs nothing, and has an answer. */
static void node_bench(void *arg, struct control_bench *b)
{
	(void)arg;
	b->result.ios = 1000;
	b->result.bytes = 4096000;
	b->result.elapsed_ns = 1000000;
	b->done(b);
}

static void node_volume(void *arg, const struct meta_news *news)
{
	struct cworld_node *n = arg;

	n->lost_volumes += news->status < 0;
	n->volume_changes++;
	n->changed_size = news->size_bytes;
	n->one_opener = news->one_opener;
}

void cworld_node_begin(struct cworld *w, int k)
{
	struct cworld_node *n = &w->nodes[k];
	struct node_config cfg = {
	    .dir = n->dir,
	    .name = n->name,
	    .metad = metads,
	    .metad_n = 1,
	    .key = &key,
	    .peer = n->peers,
	    .peer_n = 1,
	    .ready = node_ready,
	    .stats = node_stats,
	    .bench = node_bench,
	    .clients = node_clients,
	    .arg = n,
	};
	char errmsg[ERRMSG_LEN];

	n->e = sim_process_new(n->m, n->name, NULL, NULL);
	cfg.ioe = n->e;
	n->ready = n->closed = false;
	n->node = mem_zalloc(sizeof(*n->node));
	if (node_init(n->node, &cfg, errmsg))
		fail_msg("node: %s", errmsg);
	n->node->client.meta.on_volume = node_volume;
	n->node->client.meta.on_volume_arg = n;
	if (node_start(n->node, n->nbds, 1, errmsg))
		fail_msg("node: %s", errmsg);
}

void cworld_node_start(struct cworld *w, int k)
{
	cworld_node_begin(w, k);
	cworld_until(w, w->nodes[k].ready);
}

void cworld_node_stop(struct cworld *w, int k)
{
	struct cworld_node *n = &w->nodes[k];

	node_give_up(n->node);
	cworld_run(w, SEC / 10);
	node_close(n->node, set, &n->closed);
	cworld_until(w, n->closed);
	node_free(n->node);
	mem_free(n->node);
	n->node = NULL;
	ioe_free(n->e);
	n->e = NULL;
}

void cworld_node_kill(struct cworld *w, int k)
{
	struct cworld_node *n = &w->nodes[k];

	w->killed = true;
	sim_kill(n->e);
	n->e = NULL;
	n->node = NULL;
}

/* ---- administration ------------------------------------------------------------------------------------------------------------------------ */

static void admin_done(struct admin_req *r)
{
	*(bool *)r->priv = true;
}

static void admin_args(struct admin_req *r, const char *args)
{
	const struct admin_verb_info info = admin_verb(r->verb);
	struct admin_error e;

	r->args = json_loads(args ? args : "{}", 0, NULL);
	assert_non_null(r->args);
	for (uint32_t i = 0; i < info.params_n; i++) {
		const struct admin_param *p = &info.params[i];

		if (p->in == ADMIN_IN_PATH)
			json_object_set_new(r->args, p->name,
					    p->type == ADMIN_INT
						? json_integer(strtoll(r->subject, NULL, 10))
						: json_string(r->subject));
	}
	if (admin_args_complete(r->verb, r->args, &e))
		fail_msg("%s", e.message);
}

int cworld_admin(struct cworld *w, enum admin_verb verb, const char *subject, const char *args,
		 json_t **ret_json)
{
	struct admin_req *r = &w->admin_req;

	*r = (struct admin_req){.verb = verb,
				.subject = subject,
				.done = admin_done,
				.priv = &w->admin_done};
	w->admin_done = false;
	admin_args(r, args);
	admin_submit(&w->metad->admin, r);
	cworld_until(w, w->admin_done);
	json_decref(r->args);
	mem_free(r->text);
	if (r->status >= 400)
		r->answer = admin_error_json(&r->error);
	if (ret_json)
		*ret_json = r->answer;
	else
		json_decref(r->answer);
	return r->status;
}

static void begun_done(struct admin_req *r)
{
	(void)r;
}

void cworld_admin_begin(struct cworld *w, struct admin_req *r, const char *args)
{
	r->done = begun_done;
	admin_args(r, args);
	admin_submit(&w->metad->admin, r);
}

void cworld_admin_end(struct cworld *w, struct admin_req *r, bool lost)
{
	if (!lost)
		cworld_until(w, r->status != 0);
	json_decref(r->args);
	json_decref(r->answer);
}

static const json_t *walk(const json_t *json, const char *path)
{
	char copy[128], *at = copy, *word;

	snprintf(copy, sizeof(copy), "%s", path);
	while (json && (word = strsep(&at, "."))) {
		if (json_is_array(json))
			json = json_array_get(json, (size_t)strtoul(word, NULL, 10));
		else
			json = json_object_get(json, word);
	}
	if (!json)
		fail_msg("the answer has no %s", path);
	return json;
}

int64_t cworld_int(const json_t *json, const char *path)
{
	return json_integer_value(walk(json, path));
}

const char *cworld_text(const json_t *json, const char *path)
{
	return json_string_value(walk(json, path));
}

void cworld_device_add(struct cworld *w, int node, int disk)
{
	char args[128];
	json_t *answer;
	int status;

	snprintf(args, sizeof(args),
		 "{\"node\": \"node-%d\", \"path\": \"/n%d-disk%d\", \"size_bytes\": 268435456}",
		 node, node, disk);
	status = cworld_admin(w, ADMIN_DEVICE_ADD, NULL, args, &answer);
	if (status != 201)
		fail_msg("device add: %d %s", status, cworld_text(answer, "message"));
	json_decref(answer);
}

void cworld_volume_create(struct cworld *w, const char *name, uint64_t size_bytes)
{
	char args[128];
	json_t *answer;
	int status;

	snprintf(args, sizeof(args), "{\"name\": \"%s\", \"size_bytes\": %llu}", name,
		 (unsigned long long)size_bytes);
	status = cworld_admin(w, ADMIN_VOLUME_CREATE, NULL, args, &answer);
	if (status != 201)
		fail_msg("volume create: %d %s", status, cworld_text(answer, "message"));
	json_decref(answer);
}

int cworld_events(struct cworld *w, const char *code)
{
	json_t *answer, *e;
	size_t i;
	int n = 0;

	assert_int_equal(cworld_admin(w, ADMIN_EVENT_LIST, NULL, "{\"limit\": 1000}", &answer), 200);
	json_array_foreach (json_object_get(answer, "items"), i, e) {
		n += strcmp(json_string_value(json_object_get(e, "code")), code) == 0;
	}
	json_decref(answer);
	return n;
}

/* ---- what the volume runtime asks ------------------------------------------------------------------------------------------------------------ */

struct cworld_call *cworld_call_new(void)
{
	struct cworld_call *c = mem_zalloc(sizeof(*c));

	assert_non_null(c);
	return c;
}

#define DONE(name)                                                          \
	static void name##_done(struct meta_req *r)                         \
	{                                                                   \
		container_of(r, struct cworld_call, name.req)->done = true; \
	}
DONE(open)
DONE(close)
DONE(alloc)
DONE(update)
#undef DONE

static struct meta *meta_of(struct cworld *w, int node)
{
	return &w->nodes[node].node->client.meta;
}

void cworld_open_begin(struct cworld *w, int node, const char *volume, struct cworld_call *c)
{
	struct meta *m = meta_of(w, node);

	c->done = false;
	c->open = (struct meta_open){
	    .req = {.done = open_done, .timeout_ns = c->patience_ns},
	    .volume = volume,
	    .snapshot = "",
	    .client = "a test",
	};
	m->ops->open(m, &c->open);
}

int cworld_open(struct cworld *w, int node, const char *volume, struct cworld_call *c)
{
	cworld_open_begin(w, node, volume, c);
	cworld_until(w, c->done);
	return c->open.req.status;
}

void cworld_close_begin(struct cworld *w, int node, struct cworld_call *opened)
{
	struct meta *m = meta_of(w, node);

	opened->done = false;
	opened->close = (struct meta_close){.req.done = close_done,
					    .volume = opened->open.id,
					    .epoch = opened->open.epoch};
	m->ops->close(m, &opened->close);
}

int cworld_close(struct cworld *w, int node, struct cworld_call *opened)
{
	cworld_close_begin(w, node, opened);
	cworld_until(w, opened->done);
	return opened->close.req.status;
}

void cworld_alloc_begin(struct cworld *w, int node, const struct cworld_call *opened,
			uint32_t first, uint32_t n, struct cworld_call *c)
{
	struct meta *m = meta_of(w, node);

	for (uint32_t i = 0; i < n; i++)
		c->chunks[i] = first + i;
	c->done = false;
	c->alloc = (struct meta_alloc){
	    .req = {.done = alloc_done, .timeout_ns = c->patience_ns},
	    .volume = opened->open.id,
	    .epoch = opened->open.epoch,
	    .layer = opened->open.layers[0],
	    .chunks = c->chunks,
	    .n = n,
	    .items = c->items,
	};
	m->ops->alloc(m, &c->alloc);
}

int cworld_alloc(struct cworld *w, int node, const struct cworld_call *opened, uint32_t first,
		 uint32_t n, struct cworld_call *c)
{
	cworld_alloc_begin(w, node, opened, first, n, c);
	cworld_until(w, c->done);
	return c->alloc.req.status;
}

void cworld_unmap_begin(struct cworld *w, int node, const struct cworld_call *opened,
			struct cworld_call *c, uint32_t n)
{
	struct meta *m = meta_of(w, node);

	for (uint32_t i = 0; i < n; i++)
		c->changes[i] =
		    (struct meta_update_item){.chunk = c->items[i].chunk,
					      .change = META_UNMAP,
					      .cgen = c->items[i].entry.replicas[0].cgen};
	c->done = false;
	c->update = (struct meta_update){
	    .req = {.done = update_done},
	    .volume = opened->open.id,
	    .epoch = opened->open.epoch,
	    .layer = opened->open.layers[0],
	    .items = c->changes,
	    .n = n,
	};
	m->ops->update(m, &c->update);
}

struct write_wait {
	struct chunk_req r;
	bool done;
};

static void write_done(struct chunk_req *r)
{
	container_of(r, struct write_wait, r)->done = true;
}

int cworld_write(struct cworld *w, int node, const struct cworld_call *opened,
		 const struct meta_map_item *item)
{
	struct chunk_store *store = &w->nodes[node].node->store.store;
	static uint8_t _Alignas(BLOCK_BYTES) data[BLOCK_BYTES];
	static uint32_t crc;
	static struct write_wait wait;

	crc = crc32c(data, sizeof(data));
	wait = (struct write_wait){.r = {.op = CHUNK_WRITE,
					 .dev = item->entry.replicas[0].dev,
					 .slot = item->entry.replicas[0].slot,
					 .cgen = item->entry.replicas[0].cgen,
					 .volume = opened->open.id,
					 .epoch = opened->open.epoch,
					 .layer = item->layer,
					 .chunk = item->chunk,
					 .blocks_n = 1,
					 .buf = data,
					 .crcs = &crc,
					 .done = write_done}};
	chunk_store_submit(store, &wait.r);
	cworld_until(w, wait.done);
	return wait.r.status;
}
