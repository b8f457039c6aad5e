/* SPDX-License-Identifier: Apache-2.0 */
/* control.h - the messages of control.proto in frames: which type carries which, packing, and unpacking of what a peer sent.
 *
 * A frame's type names the request; the reply has the same type and FRAME_F_REPLY. What control_unpack() gives has been validated: lengths of
 * uuids, ranges of numbers and enums, counts of lists are as ids.h and the table of limits below say. Memory for a message is bounded by a
 * multiple of its length on the wire. */
#ifndef STRATA_WIRE_CONTROL_H
#define STRATA_WIRE_CONTROL_H

#include "src/base/uuid.h"
#include "src/model/ids.h"
#include "src/wire/conn.h"
#include "src/wire/control.pb-c.h"

/* X(NAME, frame type, request, reply) by the names of the generated functions */
#define CONTROL_TABLE(X)                                    \
	/* node -> server */                                \
	X(HELLO, 16, hello, welcome)                        \
	X(DEVICE_REPORT, 17, device_report, device_verdict) \
	X(HAPPENED, 18, happened, result)                   \
	X(VOLUME_OPEN, 19, volume_open, volume_opened)      \
	X(VOLUME_CLOSE, 20, volume_close, result)           \
	X(MAP, 21, map, mapping)                            \
	X(ALLOC, 22, alloc, mapping)                        \
	X(UPDATE, 23, update, result)                       \
	X(NAMES, 24, names, name_list)                      \
	/* server -> node */                                \
	X(RECORDS, 64, records, result)                     \
	X(SERVE, 65, serve, result)                         \
	X(FREE, 66, free, freed)                            \
	X(CONFIG, 67, config, result)                       \
	X(VOLUME_CHANGED, 68, volume_changed, result)       \
	X(DEVICE_ADD, 69, device_add, device_added)         \
	X(DEVICE_REMOVE, 70, device_remove, result)         \
	X(SLOT_QUERY, 71, slot_query, slot_states)          \
	X(STATS, 72, stats_query, stats)                    \
	X(VOLUME_BENCH, 73, volume_bench, volume_benched)   \
	X(LAYER_QUERY, 74, layer_query, layer_ids)          \
	X(CLIENTS, 75, clients_query, clients)

enum control_type {
#define X(name, number, request, reply) CONTROL_##name = number,
	CONTROL_TABLE(X)
#undef X
};

enum {
	CONTROL_CHUNKS_MAX = 1024,  /* in one Map, Alloc or Update */
	CONTROL_ITEMS_MAX = 16384,  /* of a Mapping */
	CONTROL_RECORDS_MAX = 4096, /* epochs and layers in one Records */
	CONTROL_LAYERS_MAX = 1024,  /* ids in one LayerIds */
	CONTROL_FREES_MAX = 1024,
	CONTROL_SLOTS_MAX = 4096,
	CONTROL_NAMES_MAX = 1000,
	CONTROL_DEVICES_MAX = 1024, /* of one node */
	CONTROL_NODES_MAX = 1024,
	CONTROL_METRICS_MAX = 65536,
	CONTROL_CLIENTS_MAX = 65536,
	CONTROL_ADDRS_MAX = 16,
	CONTROL_PATH_MAX = 4095,
	CONTROL_TEXT_MAX = 1023,
	CONTROL_BENCH_SECONDS_MAX =
	    20, /* a node that owes an answer for longer than half a minute is cut off */
};

/* flags of a LayerRecord; the device format's own (io-path/device/format.h) */
enum {
	CONTROL_LAYER_DELETED = 1 << 0,
	CONTROL_LAYER_FROZEN = 1 << 1,
	CONTROL_LAYER_SECTOR_512 = 1 << 2,
	CONTROL_LAYER_GONE =
	    1 << 3, /* never on a device: its record is to be dropped; only layer and commit count */
	CONTROL_LAYER_CACHE_SHIFT = 4,
};

const char *control_name(uint16_t type); /* "HELLO"; "?" for an unknown one */

/* 0; -EOPNOTSUPP (unknown type), -E_PROTOCOL (malformed), -ENOMEM */
int control_unpack(uint16_t type, bool reply, const void *body, size_t body_bytes,
		   ProtobufCMessage **ret_msg);
void control_free(ProtobufCMessage *msg); /* NULL is fine */

/* Packs msg, the kind that `type` and `flags` call for, and queues it. 0; -ENOMEM (the connection breaks: an answer that cannot be given must
 * not leave the peer waiting), -EMSGSIZE (likewise), or what link_copy_send() says. */
int control_send(struct conn *c, uint16_t type, uint8_t flags, uint64_t id,
		 const ProtobufCMessage *msg);

/* Fields that need a word of explanation. */
static inline ProtobufCBinaryData control_uuid(const struct uuid *u)
{
	return (ProtobufCBinaryData){.len = sizeof(u->b), .data = (uint8_t *)(uintptr_t)u->b};
}
static inline struct uuid control_get_uuid(ProtobufCBinaryData b)
{
	struct uuid u = {{0}};

	if (b.len == sizeof(u.b))
		memcpy(u.b, b.data, sizeof(u.b));
	return u;
}
/* "" for 0, else the name: what `error` fields hold */
const char *control_error(int status);

/* ---- mappings ------------------------------------------------------------------------------------------------------------ */

/* What a Mapping's `items` are made of (control.proto). */
struct control_item {
	uint32_t chunk;
	layer_id layer;
	struct map_entry entry;
};
enum { CONTROL_ITEM_BYTES_MAX = 11 + REPLICAS_MAX * 14 };
/* Puts it down; returns how many bytes it took, at most CONTROL_ITEM_BYTES_MAX. */
size_t control_item_put(uint8_t *at, const struct control_item *item);
/* Takes the next one off. False: it is none, and the cursor has failed. */
bool control_item_get(struct cursor *c, struct control_item *ret_item);

#endif
