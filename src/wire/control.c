/* SPDX-License-Identifier: Apache-2.0 */
#include "src/wire/control.h"

#include <stddef.h>

#include "src/base/check.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/wire/control_check.h"

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

/* A mapping has hundreds of small parts. All parts of a message lie in a few blocks, which are freed together. The message itself is the first
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

int control_items_new(size_t n, struct control_items *ret_items)
{
	struct control_items c = {
	    .list = mem_zalloc_array(n, sizeof(*c.list)),
	    .items = mem_zalloc_array(n, sizeof(*c.items)),
	    .replica_list = mem_zalloc_array(n, REPLICAS_MAX * sizeof(Strata__Replica *)),
	    .replicas = mem_zalloc_array(n, REPLICAS_MAX * sizeof(Strata__Replica)),
	};

	if (!c.list || !c.items || !c.replica_list || !c.replicas) {
		control_items_free(&c);
		return -ENOMEM;
	}
	*ret_items = c;
	return 0;
}

void control_items_free(struct control_items *items)
{
	mem_free(items->list);
	mem_free(items->items);
	mem_free(items->replica_list);
	mem_free(items->replicas);
	*items = (struct control_items){0};
}

void control_items_set(struct control_items *items, size_t i, uint32_t chunk, layer_id layer,
		       const struct map_entry *entry)
{
	Strata__MapItem *m = &items->items[i];

	strata__map_item__init(m);
	items->list[i] = m;
	m->chunk = chunk;
	m->layer = layer;
	m->kind = entry->kind;
	m->flags = entry->flags;
	m->n_replicas = entry->replicas_n;
	m->replicas = &items->replica_list[i * REPLICAS_MAX];
	for (uint8_t k = 0; k < entry->replicas_n; k++) {
		Strata__Replica *r = &items->replicas[i * REPLICAS_MAX + k];

		strata__replica__init(r);
		r->device = entry->replicas[k].dev;
		r->slot = entry->replicas[k].slot;
		r->cgen = entry->replicas[k].cgen;
		m->replicas[k] = r;
	}
}

void control_get_entry(const Strata__MapItem *item, struct map_entry *ret_entry)
{
	*ret_entry = (struct map_entry){
	    .kind = (uint8_t)item->kind,
	    .flags = (uint8_t)item->flags,
	    .replicas_n = (uint8_t)item->n_replicas,
	};
	for (size_t k = 0; k < item->n_replicas; k++)
		ret_entry->replicas[k] = (struct replica){
		    .cgen = item->replicas[k]->cgen,
		    .slot = item->replicas[k]->slot,
		    .dev = (device_no)item->replicas[k]->device,
		};
}
