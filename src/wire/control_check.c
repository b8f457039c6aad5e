/* SPDX-License-Identifier: Apache-2.0 */
#include "src/wire/control_check.h"

#include <string.h>

#include "src/base/check.h"
#include "src/wire/control.h"

/* ---- words ------------------------------------------------------------------------------------------------------------------ */

static bool is_uuid(ProtobufCBinaryData b)
{
	return b.len == sizeof(struct uuid);
}

static bool is_uuid_or_none(ProtobufCBinaryData b)
{
	return b.len == 0 || is_uuid(b);
}

static bool fits(const char *text, size_t len_max)
{
	return strnlen(text, len_max + 1) <= len_max;
}

static bool is_device(uint32_t no)
{
	return no >= 1 && no <= DEVICES_MAX;
}

static bool is_device_or_none(uint32_t no)
{
	return no <= DEVICES_MAX;
}

static bool is_name_or_none(const char *text)
{
	return !*text || name_is_valid(text);
}

static bool is_chunk_shift(uint32_t shift)
{
	return shift == CHUNK_SHIFT_FLASH || shift == CHUNK_SHIFT_DISK;
}

static bool addrs_fit(size_t n, char **list)
{
	if (n > CONTROL_ADDRS_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!*list[i] || !fits(list[i], IOE_ADDR_MAX - 1))
			return false;
	return true;
}

static bool error_fits(const char *error, const char *errmsg)
{
	return fits(error, 63) && fits(errmsg, CONTROL_TEXT_MAX);
}

static bool device_info(const Strata__DeviceInfo *d)
{
	/* one that could not even be opened is known by its uuid only */
	return is_uuid(d->uuid) && is_device_or_none(d->number) &&
	       (is_chunk_shift(d->chunk_shift) || (d->failed && !d->chunk_shift)) &&
	       d->slots_open <= d->slots && fits(d->path, CONTROL_PATH_MAX) &&
	       fits(d->errmsg, CONTROL_TEXT_MAX);
}

static bool verdict(const Strata__DeviceVerdict *v)
{
	return is_uuid(v->uuid) && is_device_or_none(v->number) && error_fits(v->error, v->errmsg);
}

static bool map_entry(const struct map_entry *e)
{
	bool has_slots = e->kind == MAP_OPEN || e->kind == MAP_SEALED || e->kind == MAP_PACKED ||
			 e->kind == MAP_CODED;

	if (e->kind > MAP_LOST || (has_slots && e->replicas_n == 0))
		return false;
	for (uint8_t i = 0; i < e->replicas_n; i++)
		if (!is_device(e->replicas[i].dev) || e->replicas[i].cgen == 0)
			return false;
	return true;
}

/* ---- messages --------------------------------------------------------------------------------------------------------------- */

static bool check_hello(const Strata__Hello *m)
{
	if (!fits(m->version, 63) || !is_uuid(m->node) || !name_is_valid(m->name) ||
	    !is_uuid(m->process) || !is_uuid_or_none(m->cluster) || !addrs_fit(m->n_nbd, m->nbd) ||
	    !addrs_fit(m->n_peer, m->peer) || m->n_devices > CONTROL_DEVICES_MAX ||
	    m->n_opening > CONTROL_DEVICES_MAX)
		return false;
	for (size_t i = 0; i < m->n_devices; i++)
		if (!device_info(m->devices[i]))
			return false;
	for (size_t i = 0; i < m->n_opening; i++)
		if (!is_uuid(m->opening[i]))
			return false;
	return true;
}

static bool check_config(const Strata__Config *m)
{
	if (m->n_peers > CONTROL_NODES_MAX || m->n_devices > DEVICES_MAX)
		return false;
	for (size_t i = 0; i < m->n_peers; i++) {
		const Strata__Peer *p = m->peers[i];

		if (!p->node || !is_uuid(p->uuid) || !is_name_or_none(p->name) ||
		    !addrs_fit(p->n_addresses, p->addresses) || !addrs_fit(p->n_nbd, p->nbd))
			return false;
	}
	for (size_t i = 0; i < m->n_devices; i++)
		if (!is_device(m->devices[i]->device))
			return false;
	return true;
}

static bool check_welcome(const Strata__Welcome *m)
{
	if (!error_fits(m->error, m->errmsg) || m->n_devices > CONTROL_DEVICES_MAX)
		return false;
	if (*m->error)
		return true;
	if (!is_uuid(m->cluster) || !m->node || !m->config || !check_config(m->config))
		return false;
	for (size_t i = 0; i < m->n_devices; i++)
		if (!verdict(m->devices[i]))
			return false;
	return true;
}

static bool check_device_report(const Strata__DeviceReport *m)
{
	return m->device && device_info(m->device);
}

static bool check_device_verdict(const Strata__DeviceVerdict *m)
{
	return verdict(m);
}

static bool check_happened(const Strata__Happened *m)
{
	return fits(m->severity, 15) && fits(m->code, 63) && fits(m->text, CONTROL_TEXT_MAX) &&
	       is_device_or_none(m->device) && is_name_or_none(m->volume);
}

static bool check_result(const Strata__Result *m)
{
	return error_fits(m->error, m->errmsg);
}

static bool check_volume_open(const Strata__VolumeOpen *m)
{
	return name_is_valid(m->volume) && is_name_or_none(m->snapshot) &&
	       fits(m->client, CONTROL_TEXT_MAX);
}

static bool check_volume_opened(const Strata__VolumeOpened *m)
{
	if (!error_fits(m->error, m->errmsg) || !fits(m->owner_uri, ERRMSG_LEN - 1))
		return false;
	if (*m->error)
		return true;
	if (!m->id || !is_uuid(m->uuid) || !m->epoch || m->size_bytes < VOLUME_BYTES_MIN ||
	    m->size_bytes > VOLUME_BYTES_MAX || !is_chunk_shift(m->chunk_shift) ||
	    (m->sector_bytes != SECTOR_BYTES && m->sector_bytes != BLOCK_BYTES) ||
	    m->write_cache > 2 || m->n_layers < 1 || m->n_layers > LAYERS_MAX ||
	    m->n_devices > DEVICES_MAX)
		return false;
	for (size_t i = 0; i < m->n_layers; i++)
		if (!m->layers[i])
			return false;
	for (size_t i = 0; i < m->n_devices; i++)
		if (!is_device(m->devices[i]))
			return false;
	return true;
}

static bool check_volume_close(const Strata__VolumeClose *m)
{
	return m->volume && m->epoch;
}

static bool check_map(const Strata__Map *m)
{
	return m->volume && m->epoch && m->layer && m->n >= 1 && m->n <= CONTROL_CHUNKS_MAX &&
	       m->items_max <= CONTROL_ITEMS_MAX && m->first <= UINT32_MAX - m->n;
}

static bool check_alloc(const Strata__Alloc *m)
{
	if (!m->volume || !m->epoch || !m->layer || m->n_chunks < 1 ||
	    m->n_chunks > CONTROL_CHUNKS_MAX || (m->reserved.len && m->reserved.len != m->n_chunks))
		return false;
	for (size_t i = 0; i < m->reserved.len; i++)
		if (m->reserved.data[i] > 1)
			return false;
	return true;
}

static bool check_mapping(const Strata__Mapping *m)
{
	struct cursor c = cursor_of(m->items.data, m->items.len);
	struct control_item item;

	if (!error_fits(m->error, m->errmsg))
		return false;
	for (size_t n = 0; cursor_left(&c); n++)
		if (n == CONTROL_ITEMS_MAX || !control_item_get(&c, &item) ||
		    !map_entry(&item.entry))
			return false;
	return true;
}

static bool check_update(const Strata__Update *m)
{
	if (!m->volume || !m->epoch || !m->layer || m->n_items < 1 ||
	    m->n_items > CONTROL_CHUNKS_MAX)
		return false;
	for (size_t i = 0; i < m->n_items; i++)
		if (m->items[i]->change > 3)
			return false;
	return true;
}

static bool check_names(const Strata__Names *m)
{
	return is_name_or_none(m->after) && m->max >= 1 && m->max <= CONTROL_NAMES_MAX;
}

static bool check_name_list(const Strata__NameList *m)
{
	if (!error_fits(m->error, m->errmsg) || m->n_names > CONTROL_NAMES_MAX)
		return false;
	for (size_t i = 0; i < m->n_names; i++)
		if (!name_is_valid(m->names[i]))
			return false;
	return true;
}

static bool check_records(const Strata__Records *m)
{
	if (m->n_devices > CONTROL_DEVICES_MAX || m->n_epochs + m->n_layers > CONTROL_RECORDS_MAX)
		return false;
	for (size_t i = 0; i < m->n_devices; i++)
		if (!is_device(m->devices[i]))
			return false;
	if (m->n_uuids != m->n_devices)
		return false;
	for (size_t i = 0; i < m->n_uuids; i++)
		if (!is_uuid(m->uuids[i]))
			return false;
	for (size_t i = 0; i < m->n_epochs; i++)
		if (!m->epochs[i]->volume || !m->epochs[i]->epoch)
			return false;
	for (size_t i = 0; i < m->n_layers; i++)
		if (!m->layers[i]->layer || !is_name_or_none(m->layers[i]->name) ||
		    !is_name_or_none(m->layers[i]->snapshot))
			return false;
	return true;
}

static bool check_layer_query(const Strata__LayerQuery *m)
{
	return is_uuid(m->uuid) && m->max >= 1 && m->max <= CONTROL_LAYERS_MAX;
}

static bool check_layer_ids(const Strata__LayerIds *m)
{
	if (!error_fits(m->error, m->errmsg) || m->n_layers > CONTROL_LAYERS_MAX)
		return false;
	for (size_t i = 0; i < m->n_layers; i++)
		if (m->layers[i] <= (i ? m->layers[i - 1] : 0))
			return false;
	return true;
}

static bool check_serve(const Strata__Serve *m)
{
	return is_uuid(m->uuid) && is_device(m->number);
}

static bool check_free(const Strata__Free *m)
{
	if (m->n_items > CONTROL_FREES_MAX)
		return false;
	for (size_t i = 0; i < m->n_items; i++)
		if (!is_device(m->items[i]->device) || !m->items[i]->cgen)
			return false;
	return true;
}

static bool check_freed(const Strata__Freed *m)
{
	if (!error_fits(m->error, m->errmsg) || m->n_errors > CONTROL_FREES_MAX)
		return false;
	for (size_t i = 0; i < m->n_errors; i++)
		if (!fits(m->errors[i], 63))
			return false;
	return true;
}

static bool check_volume_changed(const Strata__VolumeChanged *m)
{
	return m->volume && m->size_bytes <= VOLUME_BYTES_MAX && fits(m->error, 63);
}

static bool check_device_add(const Strata__DeviceAdd *m)
{
	return m->path[0] == '/' && fits(m->path, CONTROL_PATH_MAX) &&
	       is_chunk_shift(m->chunk_shift) && m->size_bytes <= INT64_MAX;
}

static bool check_device_added(const Strata__DeviceAdded *m)
{
	return error_fits(m->error, m->errmsg) &&
	       (*m->error || (m->device && device_info(m->device)));
}

static bool check_device_remove(const Strata__DeviceRemove *m)
{
	return is_uuid(m->uuid);
}

static bool check_slot_query(const Strata__SlotQuery *m)
{
	return is_device(m->device) && m->n_slots <= CONTROL_SLOTS_MAX &&
	       m->max <= CONTROL_SLOTS_MAX;
}

static bool check_slot_states(const Strata__SlotStates *m)
{
	if (!error_fits(m->error, m->errmsg) || m->n_slots > CONTROL_SLOTS_MAX)
		return false;
	for (size_t i = 0; i < m->n_slots; i++)
		if (m->slots[i]->state > 1 || m->slots[i]->present > CHUNK_BLOCKS_MAX)
			return false;
	return true;
}

static bool check_stats_query(const Strata__StatsQuery *m)
{
	(void)m;
	return true;
}

/* Letters, digits and underscores, as Prometheus wants names. */
static bool is_metric_name(const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");

	return n >= 1 && n <= 127 && !text[n] && !strchr("0123456789", text[0]);
}

static bool check_stats(const Strata__Stats *m)
{
	if (!error_fits(m->error, m->errmsg) || m->n_metrics > CONTROL_METRICS_MAX)
		return false;
	for (size_t i = 0; i < m->n_metrics; i++) {
		const Strata__Metric *v = m->metrics[i];

		if (!is_metric_name(v->name) || v->n_labels > 8 || !fits(v->help, 255))
			return false;
		for (size_t k = 0; k < v->n_labels; k++)
			if (!is_metric_name(v->labels[k]->name) || !fits(v->labels[k]->value, 255))
				return false;
	}
	return true;
}

static bool check_clients_query(const Strata__ClientsQuery *m)
{
	return m->n_volumes <= CONTROL_NAMES_MAX;
}

static bool check_clients(const Strata__Clients *m)
{
	if (!error_fits(m->error, m->errmsg) || m->n_clients > CONTROL_CLIENTS_MAX)
		return false;
	for (size_t i = 0; i < m->n_clients; i++)
		if (!m->clients[i]->volume || !fits(m->clients[i]->name, CONTROL_TEXT_MAX))
			return false;
	return true;
}

static bool check_volume_bench(const Strata__VolumeBench *m)
{
	return name_is_valid(m->volume) && m->read_percent <= 100 && m->depth >= 1 &&
	       m->depth <= 1024 && m->io_bytes >= SECTOR_BYTES && m->io_bytes <= 32 << 20 &&
	       m->duration_ns <= CONTROL_BENCH_SECONDS_MAX * 1000000000ULL;
}

static bool check_volume_benched(const Strata__VolumeBenched *m)
{
	return error_fits(m->error, m->errmsg);
}

/* ---- which ------------------------------------------------------------------------------------------------------------------ */

#define ROW(message, type)                                       \
	if (msg->descriptor == &strata__##message##__descriptor) \
		return check_##message((const Strata__##type *)msg);

bool control_check(const ProtobufCMessage *msg)
{
	ROW(hello, Hello)
	ROW(welcome, Welcome)
	ROW(device_report, DeviceReport)
	ROW(device_verdict, DeviceVerdict)
	ROW(happened, Happened)
	ROW(result, Result)
	ROW(volume_open, VolumeOpen)
	ROW(volume_opened, VolumeOpened)
	ROW(volume_close, VolumeClose)
	ROW(map, Map)
	ROW(alloc, Alloc)
	ROW(mapping, Mapping)
	ROW(update, Update)
	ROW(names, Names)
	ROW(name_list, NameList)
	ROW(records, Records)
	ROW(layer_query, LayerQuery)
	ROW(layer_ids, LayerIds)
	ROW(serve, Serve)
	ROW(free, Free)
	ROW(freed, Freed)
	ROW(config, Config)
	ROW(volume_changed, VolumeChanged)
	ROW(device_add, DeviceAdd)
	ROW(device_added, DeviceAdded)
	ROW(device_remove, DeviceRemove)
	ROW(slot_query, SlotQuery)
	ROW(slot_states, SlotStates)
	ROW(stats_query, StatsQuery)
	ROW(stats, Stats)
	ROW(clients_query, ClientsQuery)
	ROW(clients, Clients)
	ROW(volume_bench, VolumeBench)
	ROW(volume_benched, VolumeBenched)
	check_unreachable("a message in the table without a check");
}
