/* SPDX-License-Identifier: Apache-2.0 */
/* check.c
 *
 *   RECORDS* -> MAP* (each mapped chunk: does its device have the slot for it?) -> SLOTS* (each open slot: does the map name it?) -> end
 *
 * Everything goes on meanwhile. So what looks wrong is looked at a second time, map and device both, and counts only if it is still wrong. Devices that
 * could not be asked everything, because they are away or went away meanwhile, are named in the result (devices_away, the first ones, and devices_away_n). */
#include "metadata/cluster/check.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/rpc/session.h"
#include "src/base/mem.h"

enum { PAGE = 256, PLACES = PAGE * REPLICAS_MAX, SLOTS_PAGE = 1024, PROBLEMS = 8, TEXT = 120 };
enum { AWAY_NAMED = 64 };

struct check_place {
	struct replica r;
	layer_id layer;
	uint32_t chunk;
	bool full, again; /* again: it looked wrong once */
};

struct check {
	struct cluster *c;
	struct job_run *run;
	struct san_check records;
	/* MAP */
	struct san_map_walk walk;
	struct san_map_item items[PAGE];
	struct check_place places[PLACES];
	size_t places_n, place_i; /* the page's; the first that was not asked about yet */
	size_t asked_n;
	/* SLOTS */
	device_no dev;
	uint32_t slot;
	uint32_t suspects[SLOTS_PAGE];
	size_t suspects_n;
	bool asking_again;
	struct session_call call;
	/* second looks */
	struct san_map_walk again;
	struct san_map_item again_items[PAGE];
	/* results */
	uint64_t chunks_n, slots_n, problems_n;
	char problems[PROBLEMS][TEXT];
	size_t texts_n;
	uint64_t unchecked[(DEVICES_MAX + 64) / 64]; /* bits: devices */
};

static void check_start(struct job_run *run, void *arg);
static void check_stop(struct job_run *run, void *arg);
static void records_progress(struct san_check *r);
static void records_done(struct san_req *req);
static void map_next(struct check *k);
static void map_got(struct san_req *req);
static void map_ask(struct check *k);
static void map_told(struct session_call *call, int status, const ProtobufCMessage *answer);
static void map_look_again(struct check *k);
static void map_seen_again(struct san_req *req);
static void slots_next_device(struct check *k);
static void slots_ask(struct check *k);
static void slots_told(struct session_call *call, int status, const ProtobufCMessage *answer);
static void check_end(struct check *k, int status);

struct job_kind cluster_check_kind(struct cluster *c)
{
	return (struct job_kind){.kind = SAN_JOB_CHECK,
				 .name = "check",
				 .start = check_start,
				 .stop = check_stop,
				 .arg = c,
				 .alone = true};
}

static void problem(struct check *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct check *k, const char *fmt, ...)
{
	va_list ap;

	k->problems_n++;
	if (k->texts_n == PROBLEMS)
		return;
	va_start(ap, fmt);
	vsnprintf(k->problems[k->texts_n++], TEXT, fmt, ap);
	va_end(ap);
}

static void not_checked(struct check *k, device_no no)
{
	k->unchecked[no / 64] |= 1ULL << no % 64;
}

static bool is_over(const struct check *k)
{
	return k->run->stopping || k->c->state != CLUSTER_SERVING;
}

/* ---- the records --------------------------------------------------------------------------------------------------------------------- */

static void check_start(struct job_run *run, void *arg)
{
	struct check *k = mem_zalloc(sizeof(*k));

	if (!k) {
		job_end(run, -ENOMEM, "memory is short");
		return;
	}
	k->c = arg;
	k->run = run;
	run->priv = k;
	k->records.progress = records_progress;
	k->records.req.done = records_done;
	san_check(k->c->san, &k->records);
}

static void check_stop(struct job_run *run, void *arg)
{
	struct check *k = run->priv;

	(void)arg;
	if (k)
		k->records.cancel = true;
}

static void records_progress(struct san_check *r)
{
	struct check *k = container_of(r, struct check, records);

	job_progress(k->run, r->pages_n, 2 * r->pages_total);
}

static void records_done(struct san_req *req)
{
	struct check *k = container_of(req, struct check, records.req);
	struct san_check *r = &k->records;

	if (req->status || is_over(k)) {
		check_end(k, req->status ? req->status : -ECANCELED);
		return;
	}
	for (uint64_t i = 0; i < r->problems_n; i++) {
		if (i < SAN_CHECK_PROBLEMS_MAX)
			problem(k, "%.119s", r->problems[i]);
		else
			k->problems_n++;
	}
	k->walk.layer = 1;
	map_next(k);
}

/* ---- from the map to the devices ------------------------------------------------------------------------------------------------------- */

static void map_next(struct check *k)
{
	k->walk.items = k->items;
	k->walk.items_max = PAGE;
	k->walk.req.done = map_got;
	san_map_walk(k->c->san, &k->walk);
}

static int by_device(const void *a, const void *b)
{
	const struct check_place *p = a, *q = b;

	return p->r.dev - q->r.dev;
}

static void map_got(struct san_req *req)
{
	struct check *k = container_of(req, struct check, walk.req);

	if (req->status || is_over(k)) {
		check_end(k, req->status ? req->status : -ECANCELED);
		return;
	}
	k->places_n = k->place_i = 0;
	for (uint32_t i = 0; i < k->walk.items_n; i++) {
		const struct san_map_item *item = &k->items[i];

		k->chunks_n++;
		for (uint8_t n = 0; n < item->entry.replicas_n; n++)
			k->places[k->places_n++] = (struct check_place){
			    .r = item->entry.replicas[n],
			    .layer = item->layer,
			    .chunk = item->chunk,
			    .full = item->entry.flags & MAP_FULL,
			};
	}
	qsort(k->places, k->places_n, sizeof(k->places[0]), by_device);
	map_ask(k);
}

static struct session *session_of(struct check *k, device_no no)
{
	struct cluster_device *d = cluster_device_by_no(k->c, no);
	struct session *s = d && d->presence == CLUSTER_OK ? cluster_device_session(k->c, d) : NULL;

	return s && session_is_joined(s) ? s : NULL;
}

/* The next run of places on one device that can be asked. */
static void map_ask(struct check *k)
{
	uint32_t slots[PLACES];
	Strata__SlotQuery m = STRATA__SLOT_QUERY__INIT;
	struct session *s = NULL;

	if (is_over(k)) {
		check_end(k, -ECANCELED);
		return;
	}
	while (k->place_i < k->places_n && !(s = session_of(k, k->places[k->place_i].r.dev)))
		not_checked(k, k->places[k->place_i++].r.dev);
	if (!s && k->walk.next_layer) {
		job_progress(k->run, k->records.pages_total + k->chunks_n / PAGE,
			     2 * k->records.pages_total);
		k->walk.layer = k->walk.next_layer;
		k->walk.chunk = k->walk.next_chunk;
		map_next(k);
		return;
	}
	if (!s) {
		slots_next_device(k);
		return;
	}
	for (size_t i = k->place_i; i < k->places_n; i++) {
		if (k->places[i].r.dev != k->places[k->place_i].r.dev)
			break;
		slots[m.n_slots++] = k->places[i].r.slot;
	}
	m.device = k->places[k->place_i].r.dev;
	m.slots = slots;
	k->asked_n = m.n_slots;
	session_ask(s, &k->call, CONTROL_SLOT_QUERY, &m.base, map_told);
}

/* Open for it; or still free, which is a chunk that nobody wrote: all holes. But a full one has none. */
static bool fits(const struct check_place *p, const Strata__SlotState *s)
{
	if (s->state == 1)
		return s->cgen == p->r.cgen && s->layer == p->layer && s->chunk == p->chunk;
	return s->cgen < p->r.cgen && !p->full;
}

static void map_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct check *k = container_of(call, struct check, call);
	const Strata__SlotStates *m = (const Strata__SlotStates *)answer;
	bool is_answer = !status && !*m->error && m->n_slots == k->asked_n;
	size_t kept = k->place_i;

	if (!is_answer)
		not_checked(k, k->places[k->place_i].r.dev);
	/* what fits is done; what does not is kept for a second look, or is a problem */
	for (size_t i = 0; i < k->asked_n && is_answer; i++) {
		struct check_place p = k->places[k->place_i + i];
		const Strata__SlotState *s = m->slots[i];

		k->slots_n += !p.again;
		if (fits(&p, s))
			continue;
		if (!p.again) {
			p.again = true;
			k->places[kept++] = p;
			continue;
		}
		problem(k,
			"device %u slot %u: the map has layer %u chunk %u cgen %" PRIu64
			", the device %s cgen %" PRIu64,
			p.r.dev, p.r.slot, p.layer, p.chunk, p.r.cgen,
			s->state == 1 ? "holds" : "is free above", s->cgen);
	}
	if (kept == k->place_i) {
		k->place_i += k->asked_n;
		map_ask(k);
		return;
	}
	/* only the suspects stay in front of the rest */
	memmove(&k->places[kept], &k->places[k->place_i + k->asked_n],
		(k->places_n - k->place_i - k->asked_n) * sizeof(k->places[0]));
	k->places_n -= k->asked_n - (kept - k->place_i);
	k->asked_n = kept - k->place_i;
	map_look_again(k);
}

/* One suspect after the other: does the map still say so? If not, it changed under us and is fine. */
static void map_look_again(struct check *k)
{
	while (k->asked_n && !k->places[k->place_i + k->asked_n - 1].again)
		k->asked_n--;
	if (!k->asked_n) {
		map_ask(k);
		return;
	}
	k->again.layer = k->places[k->place_i + k->asked_n - 1].layer;
	k->again.chunk = k->places[k->place_i + k->asked_n - 1].chunk;
	k->again.items = k->again_items;
	k->again.items_max = PAGE;
	k->again.req.done = map_seen_again;
	san_map_walk(k->c->san, &k->again);
}

static void map_seen_again(struct san_req *req)
{
	struct check *k = container_of(req, struct check, again.req);
	size_t at = k->place_i + k->asked_n - 1;
	struct check_place *p = &k->places[at];
	bool still = false;

	if (req->status || is_over(k)) {
		check_end(k, req->status ? req->status : -ECANCELED);
		return;
	}
	for (uint8_t n = 0; k->again.items_n && n < k->again_items[0].entry.replicas_n; n++) {
		const struct san_map_item *item = &k->again_items[0];

		if (item->layer == p->layer && item->chunk == p->chunk &&
		    item->entry.replicas[n].dev == p->r.dev &&
		    item->entry.replicas[n].cgen == p->r.cgen) {
			still = true;
			p->full = item->entry.flags & MAP_FULL;
		}
	}
	if (!still) {
		memmove(p, p + 1, (k->places_n - at - 1) * sizeof(*p));
		k->places_n--;
	}
	k->asked_n--;
	map_look_again(k);
}

/* ---- from the devices to the map ---------------------------------------------------------------------------------------------------------- */

static void slots_next_device(struct check *k)
{
	device_no next = 0;

	list_for_each (l, &k->c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (d->no > k->dev && (!next || d->no < next) && session_of(k, d->no))
			next = d->no;
	}
	if (!next) {
		check_end(k, 0);
		return;
	}
	k->dev = next;
	k->slot = 0;
	k->asking_again = false;
	slots_ask(k);
}

static void slots_ask(struct check *k)
{
	Strata__SlotQuery m = STRATA__SLOT_QUERY__INIT;
	struct session *s = session_of(k, k->dev);

	if (is_over(k)) {
		check_end(k, -ECANCELED);
		return;
	}
	if (!s) { /* it went away: the others */
		not_checked(k, k->dev);
		slots_next_device(k);
		return;
	}
	m.device = k->dev;
	if (k->asking_again) {
		m.slots = k->suspects;
		m.n_slots = k->suspects_n;
	} else {
		m.first = k->slot;
		m.max = SLOTS_PAGE;
	}
	session_ask(s, &k->call, CONTROL_SLOT_QUERY, &m.base, slots_told);
}

static void slots_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct check *k = container_of(call, struct check, call);
	const Strata__SlotStates *m = (const Strata__SlotStates *)answer;
	bool was_again = k->asking_again;
	size_t n;

	if (status || *m->error) {
		not_checked(k, k->dev);
		slots_next_device(k);
		return;
	}
	n = m->n_slots;
	k->suspects_n = 0;
	for (size_t i = 0; i < n && k->suspects_n < SLOTS_PAGE; i++) {
		enum san_slot_state state;

		if (m->slots[i]->state != 1 ||
		    san_slot_state(k->c->san, k->dev, m->slots[i]->slot, &state) ||
		    state != SAN_SLOT_FREE)
			continue;
		if (was_again)
			problem(k,
				"device %u slot %u: the device holds cgen %" PRIu64
				", the map nothing",
				k->dev, m->slots[i]->slot, m->slots[i]->cgen);
		else
			k->suspects[k->suspects_n++] = m->slots[i]->slot;
	}
	k->asking_again = !was_again && k->suspects_n;
	if (!was_again)
		k->slot += (uint32_t)n;
	if (!was_again && n < SLOTS_PAGE && !k->asking_again)
		slots_next_device(k);
	else
		slots_ask(k);
}

/* ---- the end -------------------------------------------------------------------------------------------------------------------------------- */

/* Those that were away all the time have not been met on the way if nothing is mapped there. */
static json_t *devices_away(struct check *k, json_int_t *ret_n)
{
	json_t *away = json_array();

	list_for_each (l, &k->c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);

		if (d->member == CLUSTER_MEMBER && !session_of(k, d->no))
			not_checked(k, d->no);
	}
	*ret_n = 0;
	for (uint32_t no = 0; no <= DEVICES_MAX; no++)
		if (k->unchecked[no / 64] & 1ULL << no % 64 && (*ret_n)++ < AWAY_NAMED)
			json_array_append_new(away, json_integer(no));
	return away;
}

static void check_end(struct check *k, int status)
{
	struct job_run *run = k->run;
	json_int_t away_n;
	json_t *problems = json_array(), *away = devices_away(k, &away_n), *result;
	char *text = NULL;

	for (size_t i = 0; i < k->texts_n; i++)
		json_array_append_new(problems, json_string(k->problems[i]));
	if (!status)
		job_progress(run, 2 * k->records.pages_total, 2 * k->records.pages_total);
	result = json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I}", "problems", problems,
			   "problems_n", (json_int_t)k->problems_n, "volumes",
			   (json_int_t)k->records.volumes_n, "layers",
			   (json_int_t)k->records.layers_n, "chunks", (json_int_t)k->chunks_n,
			   "intents", (json_int_t)k->records.intents_n, "slots",
			   (json_int_t)k->slots_n, "devices_away", away, "devices_away_n", away_n);
	if (!status && result)
		text = json_dumps(result, JSON_COMPACT);
	json_decref(result);
	if (status == -ECANCELED && k->c->state == CLUSTER_REFUSING)
		status = -E_WENT_BACK; /* nobody cancelled it */
	if (!status && k->problems_n)
		san_event(k->c->san, SAN_ERROR, "check_problems",
			  "The check found %" PRIu64 " problems; the first: %s", k->problems_n,
			  k->problems[0]);
	run->priv = NULL;
	mem_free(k);
	if (status)
		job_end(run, status, status == -ECANCELED ? "it was cancelled" : err_text(status));
	else
		job_end(run, text ? 0 : -ENOMEM, text ? text : "memory is short");
	free(text);
}
