/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "tests/sim/client.h"
#include "tests/sim/operator.h"

static const char *const rpc[] = {"10.0.0.1:7000"};
static const struct auth_key key = {.bytes = "a key of the cluster", .len = 20};

/* ---- the run ---------------------------------------------------------------------------------------------------------- */

void world_fail(struct world *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->result->text, sizeof(w->result->text), fmt, ap);
	va_end(ap);
	world_say(w, "FAILED: %s", w->result->text);
	_exit(1);
}

void world_say(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (!w->verbose)
		return;
	fprintf(stderr, "%12.6f  ", (double)(w->sim ? world_now(w) : 0) / 1e9);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

uint64_t world_now(struct world *w)
{
	return sim_now_ns(w->sim);
}

uint64_t world_moment(struct world *w)
{
	return ++w->moment;
}

static void metad_tidy(struct world *w);

void world_event(struct world *w)
{
	if (!sim_step(w->sim))
		world_fail(w, "nothing is left to happen");
	for (uint32_t k = 1; k <= w->s.nodes_n; k++)
		noded_tidy(&w->nodes[k]);
	metad_tidy(w);
}

void world_run_for(struct world *w, uint64_t ns)
{
	uint64_t end_ns = world_now(w) + ns;

	while (world_now(w) < end_ns)
		world_event(w);
}

/* ---- the metadata server ------------------------------------------------------------------------------------------------ */

static void metad_opened(void *arg, int status, const char *errmsg)
{
	struct world *w = arg;

	w->metad_open = status == 0;
	if (status)
		world_fail(w, "the metadata server does not open: %s: %s", err_name(status), errmsg);
}

static void metad_failed(void *arg, int status)
{
	world_fail(arg, "the metadata server's database is out of service: %s", err_name(status));
}

static void metad_killed(void *arg)
{
	struct world *w = arg;

	w->metad_state = PROC_DOWN;
	w->metad_e = NULL;
	w->metad = NULL;
	w->store = NULL;
	w->metad_open = false;
	operator_metad_died(w);
}

void world_metad_start(struct world *w)
{
	struct metad_config cfg = {
	    .rpc = rpc,
	    .rpc_n = 1,
	    .key = &key,
	    .takeover_ns = w->s.takeover_ns,
	    .opened = metad_opened,
	    .failed = metad_failed,
	    .arg = w,
	};

	check(w->metad_state == PROC_DOWN);
	world_say(w, "metad starts");
	w->metad_e = sim_process_new(w->metad_m, "metad", metad_killed, w);
	w->metad_state = PROC_UP;
	w->result->process_starts++;
	if (metastore_open_mem(w->metad_e, w->image, &w->store))
		world_fail(w, "no memory for a database");
	cfg.ioe = w->metad_e;
	cfg.store = w->store;
	w->metad = mem_zalloc(sizeof(*w->metad));
	metad_open(w->metad, &cfg);
}

void world_metad_kill(struct world *w)
{
	world_say(w, "metad is killed");
	sim_kill(w->metad_e);
}

static void store_closed(void *arg)
{
	((struct world *)arg)->metad_state = PROC_STOPPED;
}

static void metad_closed(void *arg)
{
	struct world *w = arg;

	metastore_close(w->store, store_closed, w);
}

void world_metad_stop(struct world *w)
{
	world_say(w, "metad is told to end");
	w->metad_state = PROC_STOPPING;
	metad_close(w->metad, metad_closed, w);
}

static void metad_tidy(struct world *w)
{
	if (w->metad_state != PROC_STOPPED)
		return;
	mem_free(w->metad);
	ioe_free(w->metad_e);
	metad_killed(w);
	world_say(w, "metad ended");
}

bool world_metad_serves(const struct world *w)
{
	return w->metad_state == PROC_UP && w->metad_open &&
	       w->metad->cluster.state == CLUSTER_SERVING;
}

/* ---- administration ----------------------------------------------------------------------------------------------------- */

static void admin_done(struct admin_req *r)
{
	*(bool *)r->priv = true;
}

static void admin_args(struct world *w, struct admin_req *r, const char *fmt, va_list ap)
{
	const struct admin_verb_info info = admin_verb(r->verb);
	struct admin_error e;
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	r->args = json_loads(text, 0, NULL);
	check(r->args);
	for (uint32_t i = 0; i < info.params_n; i++) {
		const struct admin_param *p = &info.params[i];

		if (p->in == ADMIN_IN_PATH)
			json_object_set_new(r->args, p->name,
					    p->type == ADMIN_INT
						? json_integer(strtoll(r->subject, NULL, 10))
						: json_string(r->subject));
	}
	if (admin_args_complete(r->verb, r->args, &e))
		world_fail(w, "a wrong question: %s", e.message);
}

void world_admin_begin(struct world *w, struct admin_req *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	admin_args(w, r, fmt, ap);
	va_end(ap);
	admin_submit(&w->metad->admin, r);
}

int world_admin(struct world *w, enum admin_verb verb, const char *subject, json_t **ret_answer,
		const char *fmt, ...)
{
	bool done = false;
	struct admin_req r = {.verb = verb, .subject = subject, .done = admin_done, .priv = &done};
	va_list ap;

	va_start(ap, fmt);
	admin_args(w, &r, fmt, ap);
	va_end(ap);
	admin_submit(&w->metad->admin, &r);
	world_until(w, done, 120 * SEC);
	json_decref(r.args);
	mem_free(r.text);
	if (r.status >= 400)
		r.answer = admin_error_json(&r.error);
	if (ret_answer)
		*ret_answer = r.answer;
	else
		json_decref(r.answer);
	return r.status;
}

static void admin_must(struct world *w, int want, enum admin_verb verb, const char *args)
{
	json_t *answer;
	int status = world_admin(w, verb, NULL, &answer, "%s", args);

	if (status != want)
		world_fail(w, "%s: %d %s", args, status,
			   json_string_value(json_object_get(answer, "message")));
	json_decref(answer);
}

/* ---- making it ---------------------------------------------------------------------------------------------------------- */

static void make_devices(struct world *w, struct world_node *n)
{
	char args[256];

	noded_start(n);
	world_until(w, n->ready, 120 * SEC);
	for (uint32_t d = 1; d <= w->s.disks_n; d++) {
		snprintf(args, sizeof(args),
			 "{\"node\": \"%s\", \"path\": \"/disk%u-%u\", \"size_bytes\": %" PRIu64 "}",
			 n->name, n->k, d, w->s.disk_bytes);
		admin_must(w, 201, ADMIN_DEVICE_ADD, args);
	}
}

void world_volume_new(struct world_volume *v)
{
	struct world *w = v->w;

	v->uid = ++w->last_uid;
	v->ledger =
	    ledger_new(v->uid, v->size_bytes / SECTOR_BYTES, w->s.faults[FAULT_POWER_NODE] > 0);
	for (uint32_t k = 0; k < w->s.spots_n; k++)
		v->spots[k] = rand_below(&w->rand, v->size_bytes / SECTOR_BYTES);
	/* chunk borders are where it is interesting */
	if (v->size_bytes > 2 << 20)
		v->spots[0] = (1 + rand_below(&w->rand, (v->size_bytes >> 20) - 1)) << 11;
	v->owner_proc = 0;
	v->created_bytes = v->want_bytes = v->size_bytes;
}

struct world_volume *world_volume_by_uid(struct world *w, uint64_t uid)
{
	for (uint32_t v = 0; v < w->s.volumes_n; v++)
		if (w->volumes[v].uid == uid)
			return &w->volumes[v];
	return NULL;
}

static void make_volume(struct world *w, uint32_t i)
{
	struct world_volume *v = &w->volumes[i];
	char args[256];

	v->w = w;
	v->n = i;
	v->size_bytes = w->s.volume_bytes[i];
	snprintf(v->name, sizeof(v->name), "vol-%u", i + 1);
	snprintf(args, sizeof(args),
		 "{\"name\": \"%s\", \"size_bytes\": %" PRIu64 ", \"write_cache\": \"%s\"}",
		 v->name, v->size_bytes, w->s.write_cache[i]);
	admin_must(w, 201, ADMIN_VOLUME_CREATE, args);
	world_volume_new(v);
}

void world_make(struct world *w)
{
	struct swarm *s = &w->s;

	rand_seed(&w->rand, s->seed ^ 0x5eed5eed);
	w->sim = sim_world_new(&s->sim);
	w->image = metastore_mem_image_new();
	w->metad_m = sim_machine_new(w->sim, "metad");
	for (uint32_t k = 1; k <= s->nodes_n; k++)
		noded_init(w, k);
	clients_make(w);
	world_metad_start(w);
	world_until(w, world_metad_serves(w), 60 * SEC);
	for (uint32_t k = 1; k <= s->nodes_n; k++)
		make_devices(w, &w->nodes[k]);
	for (uint32_t v = 0; v < s->volumes_n; v++)
		make_volume(w, v);
}
