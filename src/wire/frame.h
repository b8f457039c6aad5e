/* SPDX-License-Identifier: Apache-2.0 */
/* frame.h - what travels between the processes of a cluster: frames, one after the other on a stream.
 *
 *   header (32 bytes) | body (body_bytes) | data (data_bytes)
 *
 * The body is a message (control.h: protobuf; the node protocol: fixed structs). The data is the payload of a chunk request: it is received
 * straight into the buffer it is for, and carries its own checksums in the body, block by block. The frame's CRC32C covers the header (with
 * the crc field as zero) and the body. Lengths are checked against the connection's limits before anything is allocated for them. */
#ifndef STRATA_WIRE_FRAME_H
#define STRATA_WIRE_FRAME_H

#include <stdbool.h>

#include "src/base/bytes.h"
#include "src/base/check.h"

#define FRAME_MAGIC 0x4d524653u /* "SFRM" */

enum {
	FRAME_VERSION = 1,
	FRAME_HEADER_BYTES = 32,
	FRAME_BODY_MAX = 4 << 20,
	FRAME_DATA_MAX = 4 << 20, /* the largest chunk */
};

enum frame_flags {
	FRAME_F_REPLY = 1 << 0, /* id is that of the request */
};

/* Types below 16 are the connection's own (conn.c), up to 255 control messages (control.h), from 256 on the node protocol. */
enum frame_type {
	FRAME_AUTH_CHALLENGE = 1,
	FRAME_AUTH_ANSWER = 2,
	FRAME_AUTH_PROOF = 3,
	FRAME_PING = 4,
	FRAME_PONG = 5,
	FRAME_TYPE_CONTROL = 16,
	FRAME_TYPE_NODE = 256,
};

struct frame_header {
	struct le32 magic;
	uint8_t version;
	uint8_t flags; /* enum frame_flags; others are refused */
	struct le16 type;
	struct le32 body_bytes, data_bytes;
	struct le64 id;
	struct le32 crc;
	struct le32 reserved;
};
static_assert(sizeof(struct frame_header) == FRAME_HEADER_BYTES, "no padding");

struct frame {
	uint16_t type;
	uint8_t flags;
	uint32_t body_bytes, data_bytes;
	uint64_t id;
};

/* body: f->body_bytes of them, contiguous */
void frame_encode(struct frame_header *h, const struct frame *f, const void *body);

/* What can be told from the header alone: magic, version, flags, limits. 0, -E_PROTOCOL, -E_VERSION or -EMSGSIZE. */
int frame_decode(const struct frame_header *h, uint32_t body_max, uint32_t data_max,
		 struct frame *ret_f);
/* Then, with the whole body there: */
bool frame_crc_matches(const struct frame_header *h, const void *body, uint32_t body_bytes);

#endif
