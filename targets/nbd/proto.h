/* SPDX-License-Identifier: Apache-2.0 */
/* proto.h - the NBD protocol's numbers and messages, as doc/proto.md of the NetworkBlockDevice project names them. Big-endian. */
#ifndef STRATA_TARGETS_NBD_PROTO_H
#define STRATA_TARGETS_NBD_PROTO_H

#include "src/base/bytes.h"
#include "src/base/check.h"

/* ---- handshake -------------------------------------------------------------------------------------------------------- */

#define NBD_MAGIC	 0x4e42444d41474943ULL /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC 0x49484156454f5054ULL /* "IHAVEOPT" */
#define NBD_REP_MAGIC	 0x0003e889045565a9ULL

enum nbd_handshake_flags { NBD_FLAG_FIXED_NEWSTYLE = 1 << 0, NBD_FLAG_NO_ZEROES = 1 << 1 };
enum nbd_client_flags { NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0, NBD_FLAG_C_NO_ZEROES = 1 << 1 };

struct nbd_greeting {
	struct be64 magic, option_magic;
	struct be16 flags;
};
static_assert(sizeof(struct nbd_greeting) == 18, "no padding");

struct nbd_option {
	struct be64 magic;
	struct be32 option, len;
};
static_assert(sizeof(struct nbd_option) == 16, "no padding");

enum nbd_opt {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

struct nbd_option_reply {
	struct be64 magic;
	struct be32 option, type, len;
};
static_assert(sizeof(struct nbd_option_reply) == 20, "no padding");

enum nbd_rep {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER = 2,
	NBD_REP_INFO = 3,
	NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP	    0x80000001u
#define NBD_REP_ERR_POLICY	    0x80000002u
#define NBD_REP_ERR_INVALID	    0x80000003u
#define NBD_REP_ERR_PLATFORM	    0x80000004u
#define NBD_REP_ERR_TLS_REQD	    0x80000005u
#define NBD_REP_ERR_UNKNOWN	    0x80000006u
#define NBD_REP_ERR_SHUTDOWN	    0x80000007u
#define NBD_REP_ERR_BLOCK_SIZE_REQD 0x80000008u
#define NBD_REP_ERR_TOO_BIG	    0x80000009u

enum nbd_info {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};
struct nbd_info_export {
	struct be16 type;
	struct be64 size_bytes;
	struct be16 flags;
};
static_assert(sizeof(struct nbd_info_export) == 12, "no padding");
struct nbd_info_block_size {
	struct be16 type;
	struct be32 min, preferred, max;
};
static_assert(sizeof(struct nbd_info_block_size) == 14, "no padding");

/* the answer to EXPORT_NAME */
struct nbd_export_name_reply {
	struct be64 size_bytes;
	struct be16 flags;
	uint8_t zeroes[124]; /* not sent after NBD_FLAG_C_NO_ZEROES */
};
static_assert(sizeof(struct nbd_export_name_reply) == 134, "no padding");

enum { NBD_STRING_MAX = 4096 };

/* ---- transmission ----------------------------------------------------------------------------------------------------- */

enum nbd_transmission_flags {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_FUA = 1 << 3,
	NBD_FLAG_ROTATIONAL = 1 << 4,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_SEND_DF = 1 << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
	NBD_FLAG_SEND_CACHE = 1 << 10,
	NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

#define NBD_REQUEST_MAGIC	   0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC	   0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu

enum nbd_cmd {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};
enum nbd_cmd_flags {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
};

/* 8 bytes that the client chose and gets back */
struct nbd_cookie {
	uint8_t b[8];
};

struct nbd_request_header {
	struct be32 magic;
	struct be16 flags, cmd;
	struct nbd_cookie cookie;
	struct be64 off;
	struct be32 len;
};
static_assert(sizeof(struct nbd_request_header) == 28, "no padding");

struct nbd_simple_reply {
	struct be32 magic, error;
	struct nbd_cookie cookie;
};
static_assert(sizeof(struct nbd_simple_reply) == 16, "no padding");

struct nbd_chunk {
	struct be32 magic;
	struct be16 flags, type;
	struct nbd_cookie cookie;
	struct be32 len;
};
static_assert(sizeof(struct nbd_chunk) == 20, "no padding");

enum { NBD_REPLY_FLAG_DONE = 1 << 0 };
enum nbd_reply_type {
	NBD_REPLY_TYPE_NONE = 0,
	NBD_REPLY_TYPE_OFFSET_DATA = 1,
	NBD_REPLY_TYPE_OFFSET_HOLE = 2,
	NBD_REPLY_TYPE_BLOCK_STATUS = 5,
	NBD_REPLY_TYPE_ERROR = 0x8001,
	NBD_REPLY_TYPE_ERROR_OFFSET = 0x8002,
};

struct nbd_chunk_data {
	struct nbd_chunk h;
	struct be64 off; /* then the data */
};
static_assert(sizeof(struct nbd_chunk_data) == 28, "no padding");
struct nbd_chunk_hole {
	struct nbd_chunk h;
	struct be64 off;
	struct be32 len;
};
static_assert(sizeof(struct nbd_chunk_hole) == 32, "no padding");
struct nbd_chunk_status {
	struct nbd_chunk h;
	struct be32 context; /* then the extents */
};
static_assert(sizeof(struct nbd_chunk_status) == 24, "no padding");
struct nbd_extent {
	struct be32 len, flags;
};
static_assert(sizeof(struct nbd_extent) == 8, "no padding");
struct nbd_chunk_error {
	struct nbd_chunk h;
	struct be32 error;
	struct be16 text_len; /* then the text */
};
static_assert(sizeof(struct nbd_chunk_error) == 26, "no padding");

enum nbd_state_flags { NBD_STATE_HOLE = 1 << 0, NBD_STATE_ZERO = 1 << 1 };

/* The only errors that travel. The values are the protocol's, whatever this system's errno are. */
enum nbd_errno {
	NBD_OK = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

#endif
