/* SPDX-License-Identifier: Apache-2.0 */
/* exec_map.c - where a range of a volume lies.
 *
 *   GET* (volume) -> MAP* (SAN layer: chunk -> device, slot, cgen) -> ASK* (node and device layer: each device says what the slot is) -> answer
 *
 * Devices that are away are answered for by the map alone: their third layer is null. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/api/exec.h"
#include "metadata/rpc/session.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum { CHUNKS = 1024, ITEMS = 4096 };

/* a replica that the map names, and what its device says of it */
struct place {
	uint32_t item;
	uint8_t replica;
	bool is_known;
	struct replica r;
	uint64_t offset, cgen;
	uint32_t state, present;
};

struct exec_map {
	struct exec x;
	struct san_volume_get get;
	struct san_map map;
	uint64_t offset, end; /* of the answer, bytes */
	struct place *places;
	size_t places_n;
	uint32_t pending;
	struct san_map_item items[ITEMS];
};

struct map_query {
	struct session_call call;
	struct exec_map *op;
	size_t first, n; /* of op->places */
};

static void map_got(struct san_req *req);
static void map_fetch(struct exec_map *op);
static void map_done(struct san_req *req);
static int map_places(struct exec_map *op);
static void map_ask(struct exec_map *op);
static void map_told(struct session_call *call, int status, const ProtobufCMessage *answer);
static void map_answer(struct exec_map *op);

void exec_volume_map(struct exec *x)
{
	struct exec_map *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->get.name = op->x.r->subject;
	op->get.req.done = map_got;
	san_volume_get(op->x.a->cluster->san, &op->get);
}

static void map_got(struct san_req *req)
{
	struct exec_map *op = container_of(req, struct exec_map, get.req);
	const struct san_volume *v = &op->get.volume;
	uint64_t length;

	if (req->status == -ENOENT) {
		exec_fail(&op->x, ADMIN_E_NOT_FOUND, "'strata volume list' shows them.",
			  "there is no volume %s", op->x.r->subject);
		return;
	}
	if (req->status) {
		exec_fail_status(&op->x, req->status, "", req->errmsg);
		return;
	}
	op->offset = (uint64_t)admin_int(op->x.r, "offset");
	length = admin_has(op->x.r, "length") ? (uint64_t)admin_int(op->x.r, "length")
					      : v->size_bytes - MIN(op->offset, v->size_bytes);
	if (!range_inside(op->offset, length, v->size_bytes)) {
		exec_fail(&op->x, ADMIN_E_INVALID, "",
			  "the range ends behind the volume, which has %" PRIu64 " bytes",
			  v->size_bytes);
		return;
	}
	op->end = op->offset + length;
	op->map.volume = v->id;
	op->map.first = (uint32_t)(op->offset >> v->chunk_shift);
	op->map.n = (uint32_t)MIN(div_up(op->end, 1ULL << v->chunk_shift) - op->map.first,
				  (uint64_t)CHUNKS);
	if (op->map.n == 0)
		map_answer(op);
	else
		map_fetch(op);
}

static void map_fetch(struct exec_map *op)
{
	op->map.items = op->items;
	op->map.items_max = ITEMS;
	op->map.req.done = map_done;
	san_map(op->x.a->cluster->san, &op->map);
}

static void map_done(struct san_req *req)
{
	struct exec_map *op = container_of(req, struct exec_map, map.req);
	uint64_t covered;

	if (req->status == -E2BIG && op->map.n > 1) { /* deep chains: fewer chunks at a time */
		op->map.n /= 2;
		map_fetch(op);
		return;
	}
	if (req->status) {
		exec_fail_status(&op->x, req->status, "", req->errmsg);
		return;
	}
	covered = (uint64_t)(op->map.first + op->map.n) << op->get.volume.chunk_shift;
	op->end = MIN(op->end, covered);
	if (map_places(op))
		exec_answer(&op->x, 200, NULL); /* short of memory */
	else
		map_ask(op);
}

/* ---- the devices' part -------------------------------------------------------------------------------------------------------------- */

static int by_device(const void *a, const void *b)
{
	const struct place *p = a, *q = b;

	return p->r.dev - q->r.dev;
}

static int by_item(const void *a, const void *b)
{
	const struct place *p = a, *q = b;

	if (p->item != q->item)
		return p->item < q->item ? -1 : 1;
	return p->replica - q->replica;
}

/* Only the first item of a chunk's stack is shown, so only its replicas are asked about. */
static bool is_top(const struct exec_map *op, uint32_t i)
{
	return i == 0 || op->items[i].chunk != op->items[i - 1].chunk;
}

static int map_places(struct exec_map *op)
{
	size_t n = 0;

	for (uint32_t i = 0; i < op->map.items_n; i++)
		n += is_top(op, i) ? op->items[i].entry.replicas_n : 0;
	op->places = mem_zalloc_array(n, sizeof(*op->places));
	if (!op->places)
		return -ENOMEM;
	for (uint32_t i = 0; i < op->map.items_n; i++) {
		for (uint8_t k = 0; is_top(op, i) && k < op->items[i].entry.replicas_n; k++)
			op->places[op->places_n++] =
			    (struct place){.item = i,
					   .replica = k,
					   .r = op->items[i].entry.replicas[k]};
	}
	qsort(op->places, op->places_n, sizeof(*op->places), by_device);
	return 0;
}

static void ask_device(struct exec_map *op, size_t first, size_t n)
{
	struct cluster *c = op->x.a->cluster;
	struct cluster_device *d = cluster_device_by_no(c, op->places[first].r.dev);
	struct session *s = d ? cluster_device_session(c, d) : NULL;
	uint32_t slots[CHUNKS * REPLICAS_MAX];
	Strata__SlotQuery m = STRATA__SLOT_QUERY__INIT;
	struct map_query *q;

	if (!s || d->member != CLUSTER_MEMBER || d->presence == CLUSTER_REFUSED ||
	    !(q = mem_zalloc(sizeof(*q))))
		return;
	q->op = op;
	q->first = first;
	q->n = n;
	for (size_t i = 0; i < n; i++)
		slots[i] = op->places[first + i].r.slot;
	m.device = d->no;
	m.slots = slots;
	m.n_slots = n;
	op->pending++;
	session_ask(s, &q->call, CONTROL_SLOT_QUERY, &m.base, map_told);
}

static void map_ask(struct exec_map *op)
{
	op->pending = 1;
	for (size_t i = 0, n; i < op->places_n; i += n) {
		for (n = 1; i + n < op->places_n && op->places[i + n].r.dev == op->places[i].r.dev;)
			n++;
		ask_device(op, i, n);
	}
	if (--op->pending == 0)
		map_answer(op);
}

static void map_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct map_query *q = container_of(call, struct map_query, call);
	struct exec_map *op = q->op;
	const Strata__SlotStates *m = (const Strata__SlotStates *)answer;

	for (size_t i = 0; !status && !*m->error && m->n_slots == q->n && i < q->n; i++) {
		struct place *p = &op->places[q->first + i];
		const Strata__SlotState *s = m->slots[i];

		if (s->slot != p->r.slot)
			continue;
		p->is_known = true;
		p->state = s->state;
		p->cgen = s->cgen;
		p->present = s->present;
		p->offset = s->offset;
	}
	mem_free(q);
	if (--op->pending == 0)
		map_answer(op);
}

/* ---- the answer ---------------------------------------------------------------------------------------------------------------------- */

/* open: as the map says. free: the device has not opened it yet, all its blocks are holes. stale: it holds something else. */
static const char *slot_word(const struct place *p)
{
	if (!p->is_known)
		return "unknown";
	if (p->state == 1)
		return p->cgen == p->r.cgen ? "open" : "stale";
	return p->cgen < p->r.cgen ? "free" : "stale";
}

static json_t *place_json(struct exec_map *op, const struct place *p, uint64_t in_chunk)
{
	struct cluster *c = op->x.a->cluster;
	struct cluster_device *d = cluster_device_by_no(c, p->r.dev);
	struct cluster_node *n = d ? cluster_node_by_no(c, d->node) : NULL;

	return json_pack("{s:i, s:o, s:o, s:I, s:s, s:I, s:I, s:o, s:s, s:o}", "device",
			 (int)p->r.dev, "device_uuid", d ? exec_uuid(&d->uuid) : json_null(),
			 "path", exec_text(d ? d->path : ""), "node", (json_int_t)(n ? n->no : 0),
			 "node_name", n ? n->name : "", "slot", (json_int_t)p->r.slot, "cgen",
			 (json_int_t)p->r.cgen, "device_offset",
			 p->is_known ? json_integer((json_int_t)(p->offset + in_chunk))
				     : json_null(),
			 "slot_state", slot_word(p), "present_blocks",
			 p->is_known ? json_integer(p->present) : json_null());
}

static const char *kind_word(uint8_t kind)
{
	static const char *const words[] = {"unmapped", "zero",	 "open", "sealed",
					    "packed",	"coded", "lost"};

	return words[kind < ARRAY_LEN(words) ? kind : 0];
}

struct segment {
	uint64_t from, to; /* bytes of the volume */
	uint32_t chunk;
	const struct san_map_item *item; /* NULL: nobody has it */
	size_t item_i;
};

static void add_segment(struct exec_map *op, json_t *list, const struct segment *g, size_t *place)
{
	uint64_t from = MAX(g->from, op->offset), to = MIN(g->to, op->end);
	const struct map_entry *e = g->item ? &g->item->entry : NULL;
	json_t *replicas = json_array();

	while (e && *place < op->places_n && op->places[*place].item < g->item_i)
		(*place)++;
	for (; e && *place < op->places_n && op->places[*place].item == g->item_i; (*place)++)
		json_array_append_new(replicas, place_json(op, &op->places[*place], from - g->from));
	json_array_append_new(
	    list, json_pack("{s:I, s:I, s:s, s:I, s:I, s:b, s:b, s:o}", "offset", (json_int_t)from,
			    "length", (json_int_t)(to - from), "kind", kind_word(e ? e->kind : 0),
			    "chunk", (json_int_t)g->chunk, "layer",
			    (json_int_t)(g->item ? g->item->layer : op->get.volume.head), "full",
			    e && e->flags & MAP_FULL ? 1 : 0, "reserved",
			    e && e->flags & MAP_RESERVED ? 1 : 0, "replicas", replicas));
}

static bool is_plain(const struct segment *g)
{
	return !g->item || g->item->entry.kind == MAP_ZERO;
}

/* Runs of chunks that nobody has, or that are zeros of one layer, are one segment. */
static json_t *segments_json(struct exec_map *op)
{
	uint32_t shift = op->get.volume.chunk_shift, i = 0;
	struct segment run = {0};
	json_t *list = json_array();
	size_t place = 0;

	qsort(op->places, op->places_n, sizeof(*op->places), by_item);
	for (uint32_t k = 0; k < op->map.n; k++) {
		uint32_t chunk = op->map.first + k;
		struct segment g = {.from = (uint64_t)chunk << shift,
				    .to = ((uint64_t)chunk + 1) << shift,
				    .chunk = chunk};

		if (i < op->map.items_n && op->items[i].chunk == chunk) {
			g.item = &op->items[i];
			g.item_i = i;
		}
		while (i < op->map.items_n && op->items[i].chunk == chunk)
			i++;
		if (run.to && is_plain(&run) && is_plain(&g) && !run.item == !g.item &&
		    (!g.item || g.item->layer == run.item->layer)) {
			run.to = g.to;
			continue;
		}
		if (run.to)
			add_segment(op, list, &run, &place);
		run = g;
	}
	if (run.to)
		add_segment(op, list, &run, &place);
	return list;
}

static void map_answer(struct exec_map *op)
{
	const struct san_volume *v = &op->get.volume;
	uint64_t asked_end = admin_has(op->x.r, "length")
				 ? op->offset + (uint64_t)admin_int(op->x.r, "length")
				 : v->size_bytes;
	json_t *segments = segments_json(op);

	mem_free(op->places);
	exec_answer(&op->x, 200,
		    json_pack("{s:s, s:I, s:I, s:o, s:o}", "volume", v->name, "size_bytes",
			      (json_int_t)v->size_bytes, "chunk_bytes",
			      (json_int_t)(1 << v->chunk_shift), "segments", segments, "next_offset",
			      op->end < asked_end ? json_integer((json_int_t)op->end)
						  : json_null()));
}
