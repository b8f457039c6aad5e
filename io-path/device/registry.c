/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/device/registry.h"

#include "io-path/device/dev.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum {
	PAGE_HEADER = offsetof(struct fmt_registry_page, records),
	PAGE_ROOM = FMT_PAGE - PAGE_HEADER,
	RECORD_MAX = sizeof(struct fmt_rec_layer) + 2 * NAME_LEN_MAX + 4
};

int registry_init(struct device *dev)
{
	pin_init(&dev->registry.pin, PIN_REGISTRY);
	return 0;
}

void registry_free(struct device *dev)
{
	for (uint32_t i = 0; i < dev->registry.layers_n; i++)
		mem_free(dev->registry.layers[i]);
	mem_free(dev->registry.layers);
}

uint32_t registry_pages_max(const struct device *dev)
{
	return (uint32_t)(dev->geo.registry_half_bytes / FMT_PAGE);
}

/* Records are never split over pages: a page may stay empty by as much as the longest record. */
bool registry_has_room(const struct device *dev, enum fmt_record_type type, uint32_t bytes)
{
	const struct registry *g = &dev->registry;
	uint64_t room = (uint64_t)registry_pages_max(dev) * (PAGE_ROOM - RECORD_MAX);

	return g->layers_bytes + g->epochs_bytes + bytes <=
	       (type == FMT_REC_LAYER ? room / 4 * 3 : room);
}

void registry_touch(struct device *dev, uint64_t lsn)
{
	pin_need(&dev->journal.pins, &dev->registry.pin, lsn);
	dev->registry.last_lsn = MAX(dev->registry.last_lsn, lsn);
}

/* ---- layers ----------------------------------------------------------------------------------------------------------- */

/* Index of the first layer with at least this id. */
static uint32_t layer_index(const struct registry *g, layer_id id)
{
	uint32_t from = 0, to = g->layers_n;

	/* nearly always it is a new one */
	if (to > 0 && get_le32(g->layers[to - 1]->layer) < id)
		return to;
	while (from < to) {
		uint32_t mid = from + (to - from) / 2;

		if (get_le32(g->layers[mid]->layer) < id)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static bool layer_is(const struct registry *g, uint32_t i, layer_id id)
{
	return i < g->layers_n && get_le32(g->layers[i]->layer) == id;
}

static int room_for_one_more(struct registry *g)
{
	uint32_t room = g->layers_room ? 2 * g->layers_room : 16;
	struct fmt_rec_layer **bigger;

	if (g->layers_n < g->layers_room)
		return 0;
	bigger = mem_realloc(g->layers, room, sizeof(struct fmt_rec_layer *));
	if (!bigger)
		return -ENOMEM;
	g->layers = bigger;
	g->layers_room = room;
	return 0;
}

int registry_put_layer(struct device *dev, const struct fmt_rec_layer *rec)
{
	struct registry *g = &dev->registry;
	uint32_t len = get_le16(rec->h.len_bytes), i = layer_index(g, get_le32(rec->layer));
	bool is_new = !layer_is(g, i, get_le32(rec->layer));
	struct fmt_rec_layer *copy;

	if (!is_new && get_le64(rec->commit) < get_le64(g->layers[i]->commit))
		return 0;
	copy = mem_alloc(len);
	if (!copy || (is_new && room_for_one_more(g))) {
		mem_free(copy);
		return -ENOMEM;
	}
	memcpy(copy, rec, len);
	if (is_new) {
		memmove(&g->layers[i + 1], &g->layers[i], (g->layers_n - i) * sizeof(copy));
		g->layers_n++;
	} else {
		g->layers_bytes -= get_le16(g->layers[i]->h.len_bytes);
		mem_free(g->layers[i]);
	}
	g->layers[i] = copy;
	g->layers_bytes += len;
	return 0;
}

bool registry_has_layer(const struct device *dev, layer_id layer, uint64_t commit)
{
	const struct registry *g = &dev->registry;
	uint32_t i = layer_index(g, layer);

	return layer_is(g, i, layer) && get_le64(g->layers[i]->commit) <= commit;
}

void registry_drop_layer(struct device *dev, layer_id layer, uint64_t commit)
{
	struct registry *g = &dev->registry;
	uint32_t i = layer_index(g, layer);

	if (!registry_has_layer(dev, layer, commit))
		return;
	g->layers_bytes -= get_le16(g->layers[i]->h.len_bytes);
	mem_free(g->layers[i]);
	g->layers_n--;
	memmove(&g->layers[i], &g->layers[i + 1], (g->layers_n - i) * sizeof(g->layers[0]));
}

int device_layer_next(struct device *dev, layer_id after, struct device_layer *ret_layer)
{
	struct registry *g = &dev->registry;
	uint32_t i = after == UINT32_MAX ? g->layers_n : layer_index(g, after + 1);
	const struct fmt_rec_layer *rec;

	if (i == g->layers_n)
		return -ENOENT;
	rec = g->layers[i];
	*ret_layer = (struct device_layer){
	    .layer = get_le32(rec->layer),
	    .parent = get_le32(rec->parent),
	    .volume = get_le32(rec->volume),
	    .flags = get_le32(rec->flags),
	    .size_bytes = get_le64(rec->size_bytes),
	    .commit = get_le64(rec->commit),
	};
	memcpy(ret_layer->name, rec->names, rec->name_len);
	memcpy(ret_layer->snapshot, rec->names + rec->name_len, rec->snapshot_len);
	return 0;
}

/* ---- halves ----------------------------------------------------------------------------------------------------------- */

struct encoder {
	uint8_t *buf;
	uint32_t room_pages, pages_n;
	struct fmt_registry_page *page; /* being filled */
	uint32_t used;
};

static bool encode(struct encoder *e, const void *rec, uint32_t len)
{
	if (!e->page || e->used + len > FMT_PAGE) {
		if (e->pages_n == e->room_pages)
			return false;
		e->page = (void *)(e->buf + (size_t)e->pages_n++ * FMT_PAGE);
		e->used = PAGE_HEADER;
	}
	memcpy((uint8_t *)e->page + e->used, rec, len);
	e->used += len;
	e->page->used_bytes = to_le16((uint16_t)e->used);
	return true;
}

static bool encode_all(struct device *dev, struct encoder *e)
{
	struct registry *g = &dev->registry;

	htab_for_each (n, &dev->volumes.by_id) {
		const struct volume *v = container_of(n, struct volume, node);
		/* its raise may not have heard yet of the flush that made the record stable */
		const struct volume_mark *m = volume_recorded(v);
		struct fmt_rec_epoch rec = {
		    .h = {.type = FMT_REC_EPOCH, .len_bytes = to_le16(sizeof(rec))},
		    .volume = to_le32(v->id),
		    .epoch = to_le64(m->epoch),
		    .commit = to_le64(m->commit),
		    .head = to_le32(m->head),
		};

		if (m->epoch && !encode(e, &rec, sizeof(rec)))
			return false;
	}
	for (uint32_t i = 0; i < g->layers_n; i++)
		if (!encode(e, g->layers[i], get_le16(g->layers[i]->h.len_bytes)))
			return false;
	return e->page || encode(e, "", 0);
}

int registry_encode(struct device *dev, uint64_t from_lsn, uint8_t **ret_buf, uint32_t *ret_pages_n)
{
	struct registry *g = &dev->registry;
	struct encoder e = {};

	e.room_pages =
	    (uint32_t)MIN((g->layers_bytes + g->epochs_bytes) / (PAGE_ROOM - RECORD_MAX) + 2,
			  (uint64_t)registry_pages_max(dev));
	e.buf = mem_alloc_aligned(FMT_PAGE, (size_t)e.room_pages * FMT_PAGE);
	if (!e.buf)
		return -ENOMEM;
	memset(e.buf, 0, (size_t)e.room_pages * FMT_PAGE);
	if (!encode_all(dev, &e)) {
		/* registry_has_room() was asked for every record: the medium had more than that */
		mem_free(e.buf);
		return -E_FORMAT;
	}
	for (uint32_t i = 0; i < e.pages_n; i++) {
		struct fmt_registry_page *p = (void *)(e.buf + (size_t)i * FMT_PAGE);

		p->pages_n = to_le32(e.pages_n);
		p->seq = to_le64(g->seq + 1);
		p->from_lsn = to_le64(from_lsn);
	}
	registry_turn(dev, e.buf, e.pages_n);
	*ret_pages_n = e.pages_n;
	*ret_buf = e.buf;
	return 0;
}

void registry_turn(struct device *dev, uint8_t *buf, uint32_t pages_n)
{
	uint8_t half = (uint8_t)!dev->registry.half;

	for (uint32_t i = 0; i < pages_n; i++)
		fmt_registry_page_prepare((void *)(buf + (size_t)i * FMT_PAGE),
					  &(struct fmt_registry_page_id){.device = &dev->uuid,
									 .page_no = i,
									 .half = half});
}

int registry_apply(struct device *dev, const struct fmt_record *rec)
{
	const struct fmt_rec_epoch *e = (const void *)rec;
	const struct fmt_rec_layer_drop *drop = (const void *)rec;
	struct volume_mark m;

	if (rec->type == FMT_REC_LAYER)
		return registry_put_layer(dev, (const void *)rec);
	if (rec->type == FMT_REC_LAYER_DROP) {
		registry_drop_layer(dev, get_le32(drop->layer), get_le64(drop->commit));
		return 0;
	}
	if (rec->type != FMT_REC_EPOCH)
		return -E_FORMAT;
	m = (struct volume_mark){.epoch = get_le64(e->epoch),
				 .commit = get_le64(e->commit),
				 .head = get_le32(e->head)};
	return m.epoch ? volume_replay(dev, get_le32(e->volume), &m) : -E_FORMAT;
}
