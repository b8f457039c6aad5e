/* SPDX-License-Identifier: Apache-2.0 */
#include "src/wire/control.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/wire/control_check.h"

/* a Mapping's items on the wire */
struct item_head {
	struct le32 chunk, layer;
	uint8_t kind, flags, replicas_n;
};
struct item_replica {
	struct le64 cgen;
	struct le32 slot;
	struct le16 dev;
};
static_assert(sizeof(struct item_head) + REPLICAS_MAX * sizeof(struct item_replica) ==
		  CONTROL_ITEM_BYTES_MAX,
	      "no padding");

struct row {
	const char *name;
	const ProtobufCMessageDescriptor *messages[2]; /* request, reply */
};

static const struct row rows[] = {
#define X(name, number, request, reply) \
	[number] = {#name, {&strata__##request##__descriptor, &strata__##reply##__descriptor}},
    CONTROL_TABLE(X)
#undef X
};

static const struct row *row_of(uint16_t type)
{
	return type < ARRAY_LEN(rows) && rows[type].name ? &rows[type] : NULL;
}

const char *control_name(uint16_t type)
{
	const struct row *row = row_of(type);

	return row ? row->name : "?";
}

const char *control_error(int status)
{
	return status ? err_name(status) : "";
}

/* ---- unpacking ------------------------------------------------------------------------------------------------------------ */

/* A message of n bytes on the wire may ask for so much memory, and no more: small sub-messages take several times their bytes. */
enum { EXPAND = 48, EXPAND_BASE = 4096 };

/* A message may have hundreds of small parts. All parts of a message lie in a few blocks, which are freed together. The message itself is the first
 * thing that is taken, so it lies right behind the head of the first block, and control_free() finds that by it. */
enum { BLOCK_USUAL_EXPAND = 8, BLOCK_BYTES_MIN = 1024 };

struct arena_block {
	struct arena_block *next;
	size_t used, len;
	_Alignas(16) uint8_t bytes[];
};

struct arena {
	ProtobufCAllocator allocator;
	struct arena_block *first; /* its `next`: the others, youngest first */
	size_t left;
};

static struct arena_block *block_new(size_t len)
{
	struct arena_block *b = mem_alloc(sizeof(*b) + len);

	if (b)
		*b = (struct arena_block){.len = len};
	return b;
}

static void *block_take(struct arena_block *b, size_t n)
{
	void *p = b->bytes + b->used;

	if (n > b->len - b->used)
		return NULL;
	b->used += n;
	return p;
}

static void *arena_alloc(void *arg, size_t n)
{
	struct arena *a = arg;
	struct arena_block *young = a->first->next ? a->first->next : a->first, *b;
	void *p;

	if (n > a->left)
		return NULL;
	n = round_up(n, 16);
	a->left -= MIN(n, a->left);
	p = block_take(young, n);
	if (p)
		return p;
	b = block_new(MAX(n, young->len));
	if (!b)
		return NULL;
	b->next = a->first->next;
	a->first->next = b;
	return block_take(b, n);
}

static void arena_free_nothing(void *arg, void *p)
{
	(void)arg;
	(void)p;
}

static void arena_free(struct arena_block *first)
{
	struct arena_block *next;

	for (struct arena_block *b = first; b; b = next) {
		next = b->next;
		mem_free(b);
	}
}

int control_unpack(uint16_t type, bool reply, const void *body, size_t body_bytes,
		   ProtobufCMessage **ret_msg)
{
	const struct row *row = row_of(type);
	struct arena a = {
	    .allocator = {.alloc = arena_alloc, .free = arena_free_nothing, .allocator_data = &a},
	    .left = EXPAND_BASE + EXPAND * body_bytes,
	};
	ProtobufCMessage *msg;

	if (!row)
		return -EOPNOTSUPP;
	a.first = block_new(BLOCK_BYTES_MIN + BLOCK_USUAL_EXPAND * body_bytes);
	msg = a.first
		  ? protobuf_c_message_unpack(row->messages[reply], &a.allocator, body_bytes, body)
		  : NULL;
	if (!msg ||
	    !control_check(
		msg)) { /* memory may also be short: the library does not tell, and the answer is the same */
		arena_free(a.first);
		return -E_PROTOCOL;
	}
	check((uint8_t *)msg == a.first->bytes);
	*ret_msg = msg;
	return 0;
}

void control_free(ProtobufCMessage *msg)
{
	if (msg)
		arena_free(
		    (struct arena_block *)((uint8_t *)msg - offsetof(struct arena_block, bytes)));
}

/* ---- packing -------------------------------------------------------------------------------------------------------------- */

int control_send(struct conn *c, uint16_t type, uint8_t flags, uint64_t id,
		 const ProtobufCMessage *msg)
{
	const struct row *row = row_of(type);
	size_t n = protobuf_c_message_get_packed_size(msg);
	struct frame f = {.type = type, .flags = flags, .id = id};
	struct link_copy *copy;

	check(row && msg->descriptor == row->messages[!!(flags & FRAME_F_REPLY)]);
	copy = n > FRAME_BODY_MAX ? NULL : link_copy_new(n);
	if (!copy) {
		int r = n > FRAME_BODY_MAX ? -EMSGSIZE : -ENOMEM;

		conn_break(c, r);
		return r;
	}
	f.body_bytes = (uint32_t)protobuf_c_message_pack(msg, copy->body);
	return link_copy_send(&c->link, copy, &f);
}

/* ---- mappings ------------------------------------------------------------------------------------------------------------- */

size_t control_item_put(uint8_t *at, const struct control_item *item)
{
	const struct map_entry *e = &item->entry;
	struct item_head h = {
	    .chunk = to_le32(item->chunk),
	    .layer = to_le32(item->layer),
	    .kind = e->kind,
	    .flags = e->flags,
	    .replicas_n = e->replicas_n,
	};
	uint8_t *begin = at;

	check(e->replicas_n <= REPLICAS_MAX);
	memcpy(at, &h, sizeof(h));
	at += sizeof(h);
	for (uint8_t i = 0; i < e->replicas_n; i++) {
		struct item_replica r = {
		    .cgen = to_le64(e->replicas[i].cgen),
		    .slot = to_le32(e->replicas[i].slot),
		    .dev = to_le16(e->replicas[i].dev),
		};

		memcpy(at, &r, sizeof(r));
		at += sizeof(r);
	}
	return (size_t)(at - begin);
}

bool control_item_get(struct cursor *c, struct control_item *ret_item)
{
	const void *head = cursor_take(c, sizeof(struct item_head));
	struct item_head h;

	if (!head)
		return false;
	memcpy(&h, head, sizeof(h));
	if (h.replicas_n > REPLICAS_MAX) {
		c->failed = true;
		return false;
	}
	memset(ret_item, 0, sizeof(*ret_item)); /* padding too: entries are compared as memory */
	ret_item->chunk = get_le32(h.chunk);
	ret_item->layer = get_le32(h.layer);
	ret_item->entry.kind = h.kind;
	ret_item->entry.flags = h.flags;
	ret_item->entry.replicas_n = h.replicas_n;
	for (uint8_t i = 0; i < h.replicas_n; i++) {
		const void *p = cursor_take(c, sizeof(struct item_replica));
		struct item_replica r;

		if (!p)
			return false;
		memcpy(&r, p, sizeof(r));
		ret_item->entry.replicas[i].cgen = get_le64(r.cgen);
		ret_item->entry.replicas[i].slot = get_le32(r.slot);
		ret_item->entry.replicas[i].dev = get_le16(r.dev);
	}
	return true;
}
