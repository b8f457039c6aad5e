/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/node/meta_messages.h"

#include <stdio.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/mem.h"

int meta_message_error(struct meta_req *r, int status, const char *errmsg)
{
	if (status && !*r->errmsg)
		snprintf(r->errmsg, sizeof(r->errmsg), "%.255s",
			 *errmsg ? errmsg : err_text(status));
	return status;
}

static char *borrowed(const char *text)
{
	return (char *)(uintptr_t)text;
}

/* ---- open -------------------------------------------------------------------------------------------------------------------------- */

static int open_send(struct meta_req *req, struct conn *c, uint64_t id)
{
	struct meta_open *r = container_of(req, struct meta_open, req);
	Strata__VolumeOpen m = STRATA__VOLUME_OPEN__INIT;

	m.volume = borrowed(r->volume);
	m.snapshot = borrowed(r->snapshot);
	m.exclusive = r->exclusive;
	m.read_only = r->read_only;
	m.client = borrowed(r->client ? r->client : "");
	return control_send(c, CONTROL_VOLUME_OPEN, 0, id, &m.base);
}

static int open_answer(struct meta_req *req, const ProtobufCMessage *msg, uint64_t *ret_commit)
{
	struct meta_open *r = container_of(req, struct meta_open, req);
	const Strata__VolumeOpened *m = (const Strata__VolumeOpened *)msg;
	int status = err_by_name(m->error);

	snprintf(r->owner_uri, sizeof(r->owner_uri), "%.255s", m->owner_uri);
	if (status)
		return meta_message_error(req, status, m->errmsg);
	if (m->n_devices > META_DEVICES_MAX)
		return meta_message_error(req, -E2BIG,
					  "the pool has more devices than a node can flush");
	r->id = m->id;
	r->uuid = control_get_uuid(m->uuid);
	r->epoch = m->epoch;
	r->size_bytes = m->size_bytes;
	r->sector_bytes = m->sector_bytes;
	r->chunk_shift = m->chunk_shift;
	r->write_cache = (enum meta_write_cache)m->write_cache;
	r->frozen = m->frozen;
	r->one_opener = m->one_opener;
	r->layers_n = (uint32_t)m->n_layers;
	for (uint32_t i = 0; i < r->layers_n; i++)
		r->layers[i] = m->layers[i];
	r->devices_n = (uint32_t)m->n_devices;
	for (uint32_t i = 0; i < r->devices_n; i++)
		r->devices[i] = (device_no)m->devices[i];
	*ret_commit = m->commit;
	return 0;
}

const struct meta_message meta_message_open = {CONTROL_VOLUME_OPEN, open_send, open_answer};

/* ---- close ------------------------------------------------------------------------------------------------------------------------- */

static int close_send(struct meta_req *req, struct conn *c, uint64_t id)
{
	struct meta_close *r = container_of(req, struct meta_close, req);
	Strata__VolumeClose m = STRATA__VOLUME_CLOSE__INIT;

	m.volume = r->volume;
	m.epoch = r->epoch;
	return control_send(c, CONTROL_VOLUME_CLOSE, 0, id, &m.base);
}

static int result_answer(struct meta_req *req, const ProtobufCMessage *msg, uint64_t *ret_commit)
{
	const Strata__Result *m = (const Strata__Result *)msg;

	(void)ret_commit;
	return meta_message_error(req, err_by_name(m->error), m->errmsg);
}

const struct meta_message meta_message_close = {CONTROL_VOLUME_CLOSE, close_send, result_answer};

/* ---- map --------------------------------------------------------------------------------------------------------------------------- */

static int map_send(struct meta_req *req, struct conn *c, uint64_t id)
{
	struct meta_map *r = container_of(req, struct meta_map, req);
	Strata__Map m = STRATA__MAP__INIT;

	m.volume = r->volume;
	m.epoch = r->epoch;
	m.layer = r->layer;
	m.first = r->first;
	m.n = r->n;
	m.items_max = r->items_max < CONTROL_ITEMS_MAX ? r->items_max : CONTROL_ITEMS_MAX;
	return control_send(c, CONTROL_MAP, 0, id, &m.base);
}

/* False: that was the last. */
static bool item_next(struct cursor *c, struct meta_map_item *ret_item)
{
	struct control_item item;

	if (!cursor_left(c))
		return false;
	check(control_item_get(c, &item)); /* the message was checked when it came */
	ret_item->chunk = item.chunk;
	ret_item->layer = item.layer;
	memcpy(&ret_item->entry, &item.entry, sizeof(item.entry));
	return true;
}

static int map_answer(struct meta_req *req, const ProtobufCMessage *msg, uint64_t *ret_commit)
{
	struct meta_map *r = container_of(req, struct meta_map, req);
	const Strata__Mapping *m = (const Strata__Mapping *)msg;
	struct cursor c = cursor_of(m->items.data, m->items.len);
	int status = err_by_name(m->error);
	struct meta_map_item item;
	uint32_t n = 0;

	if (status)
		return meta_message_error(req, status, m->errmsg);
	while (item_next(&c, &item)) {
		if (n == r->items_max)
			return meta_message_error(req, -E2BIG, "");
		if (item.chunk < r->first || item.chunk - r->first >= r->n ||
		    (n && item.chunk < r->items[n - 1].chunk))
			return meta_message_error(req, -E_PROTOCOL, "a mapping nobody asked for");
		memcpy(&r->items[n++], &item, sizeof(item));
	}
	r->items_n = n;
	*ret_commit = m->commit;
	return 0;
}

const struct meta_message meta_message_map = {CONTROL_MAP, map_send, map_answer};

/* ---- alloc ------------------------------------------------------------------------------------------------------------------------- */

static int alloc_send(struct meta_req *req, struct conn *c, uint64_t id)
{
	struct meta_alloc *r = container_of(req, struct meta_alloc, req);
	Strata__Alloc m = STRATA__ALLOC__INIT;
	uint8_t reserved[META_CHUNKS_MAX];

	check(r->n <= META_CHUNKS_MAX);
	m.volume = r->volume;
	m.epoch = r->epoch;
	m.layer = r->layer;
	m.chunks = (uint32_t *)(uintptr_t)r->chunks;
	m.n_chunks = r->n;
	if (r->reserved) {
		for (uint32_t i = 0; i < r->n; i++)
			reserved[i] = r->reserved[i];
		m.reserved = (ProtobufCBinaryData){.len = r->n, .data = reserved};
	}
	return control_send(c, CONTROL_ALLOC, 0, id, &m.base);
}

static int alloc_answer(struct meta_req *req, const ProtobufCMessage *msg, uint64_t *ret_commit)
{
	struct meta_alloc *r = container_of(req, struct meta_alloc, req);
	const Strata__Mapping *m = (const Strata__Mapping *)msg;
	struct cursor c = cursor_of(m->items.data, m->items.len);
	int status = err_by_name(m->error);
	struct meta_map_item item;
	uint32_t n = 0;

	if (status)
		return meta_message_error(req, status, m->errmsg);
	for (; item_next(&c, &item); n++) {
		if (n == r->n || item.chunk != r->chunks[n] || item.entry.replicas_n == 0)
			return meta_message_error(req, -E_PROTOCOL, "a mapping nobody asked for");
		memcpy(&r->items[n], &item, sizeof(item));
	}
	if (n != r->n)
		return meta_message_error(req, -E_PROTOCOL,
					  "not as many mappings as were asked for");
	*ret_commit = m->commit;
	return 0;
}

const struct meta_message meta_message_alloc = {CONTROL_ALLOC, alloc_send, alloc_answer};

/* ---- update ------------------------------------------------------------------------------------------------------------------------ */

static int update_send(struct meta_req *req, struct conn *c, uint64_t id)
{
	struct meta_update *r = container_of(req, struct meta_update, req);
	Strata__Update m = STRATA__UPDATE__INIT;
	Strata__UpdateItem *items = mem_zalloc_array(r->n, sizeof(*items));
	Strata__UpdateItem **list = mem_zalloc_array(r->n, sizeof(*list));
	int status = -ENOMEM;

	check(r->n <= META_CHUNKS_MAX);
	if (!items || !list)
		goto out;
	for (uint32_t i = 0; i < r->n; i++) {
		strata__update_item__init(&items[i]);
		items[i].chunk = r->items[i].chunk;
		items[i].change = r->items[i].change;
		items[i].cgen = r->items[i].cgen;
		list[i] = &items[i];
	}
	m.volume = r->volume;
	m.epoch = r->epoch;
	m.layer = r->layer;
	m.items = list;
	m.n_items = r->n;
	status = control_send(c, CONTROL_UPDATE, 0, id, &m.base);
out:
	mem_free(items);
	mem_free(list);
	return status;
}

const struct meta_message meta_message_update = {CONTROL_UPDATE, update_send, result_answer};

/* ---- names ------------------------------------------------------------------------------------------------------------------------- */

static int names_send(struct meta_req *req, struct conn *c, uint64_t id)
{
	struct meta_names *r = container_of(req, struct meta_names, req);
	Strata__Names m = STRATA__NAMES__INIT;

	m.after = r->after;
	m.max = r->names_max < CONTROL_NAMES_MAX ? r->names_max : CONTROL_NAMES_MAX;
	return control_send(c, CONTROL_NAMES, 0, id, &m.base);
}

static int names_answer(struct meta_req *req, const ProtobufCMessage *msg, uint64_t *ret_commit)
{
	struct meta_names *r = container_of(req, struct meta_names, req);
	const Strata__NameList *m = (const Strata__NameList *)msg;
	int status = err_by_name(m->error);

	(void)ret_commit;
	if (status)
		return meta_message_error(req, status, m->errmsg);
	if (m->n_names > r->names_max)
		return meta_message_error(req, -E_PROTOCOL, "more names than were asked for");
	for (size_t i = 0; i < m->n_names; i++)
		snprintf(r->names[i], sizeof(r->names[i]), "%s", m->names[i]);
	r->names_n = (uint32_t)m->n_names;
	return 0;
}

const struct meta_message meta_message_names = {CONTROL_NAMES, names_send, names_answer};
