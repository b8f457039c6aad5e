/* SPDX-License-Identifier: Apache-2.0 */
/* chunk_msg.h - the node protocol: chunk requests from the owner of a volume to the node that has the device.
 *
 *   dialer (owner's node)                          acceptor (device's node)
 *   HELLO {cluster, node, process start, session}  ->
 *                                                  <-  HELLO_REPLY {node, process start, devices[]}
 *   REQUEST {op, dev, slot, cgen, volume, epoch, layer, chunk, blocks} [crcs] | data   ->      (many at once)
 *                                                  <-  REPLY {status, present} [crcs] [states] | data      (in any order)
 *
 * All are frames of frame.h whose bodies are the fixed little-endian structs below, followed by tables of blocks_n entries: the frame's CRC covers
 * both. The data is covered by the per-block CRC32Cs of the table, which whoever receives it verifies.
 *
 * Sessions (design section 5 rule 7). A dialer numbers its links. An acceptor answers HELLO only when every request of this process's earlier
 * links has finished in its kernel or was dropped before submit, so that nothing old lands after something new; a dialer whose link broke
 * sends what was unanswered again on the next one: every request may be executed twice. */
#ifndef STRATA_WIRE_CHUNK_MSG_H
#define STRATA_WIRE_CHUNK_MSG_H

#include "src/base/bytes.h"
#include "src/base/check.h"
#include "src/base/uuid.h"
#include "src/model/ids.h"
#include "src/wire/frame.h"

enum chunk_msg_type {
	CHUNK_MSG_HELLO = FRAME_TYPE_NODE,
	CHUNK_MSG_REQUEST,
};

enum { CHUNK_MSG_VERSION = 1, CHUNK_MSG_DEVICES_MAX = 256 };

struct chunk_msg_hello {
	struct le32 version;
	struct le32 node;	    /* node_no of the dialer */
	struct uuid cluster, start; /* start: of the dialer's process */
	struct le64 session;	    /* grows with each link of the process */
};
static_assert(sizeof(struct chunk_msg_hello) == 48, "no padding");

struct chunk_msg_hello_reply {
	struct le32 status; /* err_code as a positive number, 0: welcome */
	struct le32 node;
	struct uuid start;
	struct le32 devices_n;
	struct le32 reserved;
	struct chunk_msg_device {
		struct uuid uuid;
		struct le64 incarnation, lsn;
		struct le16 number;
		uint8_t is_stable; /* no volatile cache behind it */
		uint8_t reserved[5];
	} devices[];
};
static_assert(sizeof(struct chunk_msg_hello_reply) == 32, "no padding");
static_assert(sizeof(struct chunk_msg_device) == 40, "no padding");

/* crcs[blocks_n] follow for a WRITE. Numbers of op and flags are those of enum chunk_op and chunk_flags. */
struct chunk_msg_request {
	uint8_t op;
	uint8_t want; /* enum chunk_msg_want */
	struct le16 dev;
	struct le32 flags;
	struct le32 volume, layer, chunk, slot;
	struct le64 cgen, epoch, incarnation;
	struct le16 block, blocks_n;
	struct le32 reserved;
};
static_assert(sizeof(struct chunk_msg_request) == 56, "no padding");

enum chunk_msg_want {
	CHUNK_WANT_CRCS = 1 << 0,
	CHUNK_WANT_STATES = 1 << 1,
};

/* crcs[blocks_n] follow when a READ has data (always then) and states[blocks_n] when they were asked for and status allows. The data of a READ
 * is all its blocks, or nothing when none of them has any (CHUNK_REPLY_ALL_ZERO). */
struct chunk_msg_reply {
	struct le32 status; /* positive */
	struct le32 present_n;
	struct le64 incarnation;
	struct le16 blocks_n;
	uint8_t flags; /* enum chunk_msg_reply_flags */
	uint8_t reserved[5];
};
static_assert(sizeof(struct chunk_msg_reply) == 24, "no padding");

enum chunk_msg_reply_flags {
	CHUNK_REPLY_VOLATILE = 1 << 0, /* acknowledged, not yet stable */
	CHUNK_REPLY_CRCS = 1 << 1,
	CHUNK_REPLY_STATES = 1 << 2,
	CHUNK_REPLY_ALL_ZERO = 1 << 3,
	CHUNK_REPLY_FLAGS = (1 << 4) - 1, /* all of them */
};

/* A request, decoded. crcs points into the body. */
struct chunk_msg {
	uint8_t op;
	uint32_t flags;
	device_no dev;
	volume_id volume;
	layer_id layer;
	uint32_t chunk, slot;
	uint64_t cgen, epoch, incarnation;
	uint32_t block, blocks_n;
	bool want_crcs, want_states;
	const struct le32 *crcs; /* WRITE */
};
/* 0 or -E_PROTOCOL: sizes, reserved bytes, ranges (block + blocks_n within the largest chunk), data length. Whether op and flags are known ones is for
 * the caller to say. `has_data`: WRITE brings blocks_n * BLOCK_BYTES of data, any other op none. */
int chunk_msg_decode(const void *body, uint32_t body_bytes, uint32_t data_bytes,
		     bool (*op_has_data)(uint8_t op), struct chunk_msg *ret_m);

enum {
	CHUNK_MSG_REQUEST_MAX = sizeof(struct chunk_msg_request) + 4 * CHUNK_BLOCKS_MAX,
	CHUNK_MSG_REPLY_MAX = sizeof(struct chunk_msg_reply) + 5 * CHUNK_BLOCKS_MAX
};

#endif
