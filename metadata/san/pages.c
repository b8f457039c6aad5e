/* SPDX-License-Identifier: Apache-2.0 */
/* pages.c - map pages and space pages: from bytes to memory and back. */
#include <assert.h>
#include <string.h>

#include "metadata/san/record.h"
#include "metadata/san/schema.h"
#include "src/base/check.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum { SPACE_VERSION = 1, MAP_VERSION = 1 };

/* ---- space ---------------------------------------------------------------------------------------------------------------- */

struct space_value {
	struct record_head h;
	struct le32 used_n, freeing_n;
	uint8_t used[SCHEMA_SPACE_SLOTS / 8];
	uint8_t freeing[SCHEMA_SPACE_SLOTS / 8];
};
static_assert(sizeof(struct space_value) == SCHEMA_SPACE_LEN, "no padding");

static uint32_t words_to_bytes(const uint64_t *words, uint8_t *bytes)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SCHEMA_SPACE_WORDS; i++) {
		struct le64 v = to_le64(words[i]);

		memcpy(bytes + i * 8, &v, 8);
		n += (uint32_t)__builtin_popcountll(words[i]);
	}
	return n;
}

static uint32_t bytes_to_words(const uint8_t *bytes, uint64_t *words)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SCHEMA_SPACE_WORDS; i++) {
		struct le64 v;

		memcpy(&v, bytes + i * 8, 8);
		words[i] = get_le64(v);
		n += (uint32_t)__builtin_popcountll(words[i]);
	}
	return n;
}

size_t schema_space_encode(const uint64_t *used, const uint64_t *freeing,
			   const struct schema_key *k, uint8_t *out)
{
	struct space_value *v = (struct space_value *)out;

	v->used_n = to_le32(words_to_bytes(used, v->used));
	v->freeing_n = to_le32(words_to_bytes(freeing, v->freeing));
	record_seal(&v->h, SPACE_VERSION, k, sizeof(*v));
	return sizeof(*v);
}

int schema_space_decode(struct metastore_bytes key, struct metastore_bytes value, uint64_t *used,
			uint64_t *freeing)
{
	const struct space_value *v = value.data;
	int r = record_open(key, value, SPACE_VERSION, sizeof(*v), sizeof(*v));

	if (r)
		return r;
	if (bytes_to_words(v->used, used) != get_le32(v->used_n) ||
	    bytes_to_words(v->freeing, freeing) != get_le32(v->freeing_n))
		return -E_FORMAT;
	for (uint32_t i = 0; i < SCHEMA_SPACE_WORDS; i++)
		if (used[i] & freeing[i])
			return -E_FORMAT;
	return 0;
}

/* ---- map: in memory ------------------------------------------------------------------------------------------------------- */

static uint32_t replicas_of(const struct map_slot *s)
{
	return s->kind_replicas >> 4;
}

void map_body_free(struct map_body *b)
{
	mem_free(b->slots);
	mem_free(b->extra);
	*b = (struct map_body){NULL, NULL, 0};
}

int map_body_reserve(struct map_body *b, uint32_t replicas_n)
{
	if (!b->slots) {
		b->slots = mem_zalloc_array(SCHEMA_MAP_CHUNKS, sizeof(b->slots[0]));
		if (!b->slots)
			return -ENOMEM;
	}
	if (replicas_n > 1 && !b->extra) {
		b->extra = mem_zalloc_array(SCHEMA_MAP_CHUNKS, sizeof(b->extra[0]));
		if (!b->extra)
			return -ENOMEM;
	}
	return 0;
}

void map_body_get(const struct map_body *b, uint32_t i, struct map_entry *ret_entry)
{
	const struct map_slot *s;
	uint32_t n;

	*ret_entry = (struct map_entry){.kind = MAP_UNMAPPED};
	if (!b->slots)
		return;
	s = &b->slots[i];
	n = replicas_of(s);
	ret_entry->kind = s->kind_replicas & 15;
	ret_entry->flags = s->flags;
	ret_entry->replicas_n = (uint8_t)n;
	if (n > 0)
		ret_entry->replicas[0] =
		    (struct replica){.cgen = s->cgen, .slot = s->slot, .dev = s->dev};
	for (uint32_t j = 1; j < n; j++)
		ret_entry->replicas[j] = b->extra[i][j - 1];
}

void map_body_set(struct map_body *b, uint32_t i, const struct map_entry *entry)
{
	struct map_slot *s = &b->slots[i];
	const struct replica *first = &entry->replicas[0];
	bool was = map_body_kind(b, i) != MAP_UNMAPPED;

	check(entry->replicas_n <= REPLICAS_MAX);
	*s = (struct map_slot){
	    .kind_replicas = (uint8_t)(entry->kind | entry->replicas_n << 4),
	    .flags = entry->flags,
	};
	if (entry->replicas_n > 0) {
		s->cgen = first->cgen;
		s->slot = first->slot;
		s->dev = first->dev;
	}
	for (uint32_t j = 1; j < entry->replicas_n; j++)
		b->extra[i][j - 1] = entry->replicas[j];
	b->entries_n += (entry->kind != MAP_UNMAPPED) - was;
}

/* ---- map: in bytes -------------------------------------------------------------------------------------------------------- */

struct map_value {
	struct record_head h;
	struct le64 cgen_base;
	struct le16 entries_n;
	uint8_t cgen_len;
	uint8_t reserved[5];
	uint8_t entries[];
};
static_assert(sizeof(struct map_value) == 24, "no padding");
enum { ENTRY_HEAD = 3, REPLICA_HEAD = 6 };
static_assert(sizeof(struct map_value) +
		      SCHEMA_MAP_CHUNKS * (ENTRY_HEAD + REPLICAS_MAX * (REPLICA_HEAD + 8)) <=
		  SCHEMA_PAGE_MAX,
	      "the longest page");

struct cgen_range {
	uint64_t min, max;
};

static void range_add(struct cgen_range *range, uint64_t cgen)
{
	range->min = MIN(range->min, cgen);
	range->max = MAX(range->max, cgen);
}

static struct cgen_range cgen_range_of(const struct map_body *b)
{
	struct cgen_range range = {UINT64_MAX, 0};

	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		uint32_t n = replicas_of(&b->slots[i]);

		if (n > 0)
			range_add(&range, b->slots[i].cgen);
		for (uint32_t j = 1; j < n; j++)
			range_add(&range, b->extra[i][j - 1].cgen);
	}
	return range.min > range.max ? (struct cgen_range){0, 0} : range;
}

static uint8_t *put_replica(uint8_t *out, const struct replica *r, uint64_t base, uint8_t cgen_len)
{
	struct le16 dev = to_le16(r->dev);
	struct le32 slot = to_le32(r->slot);
	struct le64 cgen = to_le64(r->cgen - base);

	memcpy(out, &dev, 2);
	memcpy(out + 2, &slot, 4);
	memcpy(out + REPLICA_HEAD, &cgen, cgen_len);
	return out + REPLICA_HEAD + cgen_len;
}

size_t schema_map_encode(const struct map_body *b, const struct schema_key *k, uint8_t *out)
{
	struct map_value *v = (struct map_value *)out;
	struct cgen_range range = cgen_range_of(b);
	uint64_t span = range.max - range.min;
	uint8_t cgen_len = (uint8_t)((64 - __builtin_clzll(span | 1) + 7) / 8);
	uint8_t *at = v->entries;

	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		const struct map_slot *s = &b->slots[i];
		uint32_t n = replicas_of(s);

		if ((s->kind_replicas & 15) == MAP_UNMAPPED)
			continue;
		*at++ = (uint8_t)i;
		*at++ = s->kind_replicas;
		*at++ = s->flags;
		if (n > 0)
			at = put_replica(at, &(struct replica){s->cgen, s->slot, s->dev}, range.min,
					 cgen_len);
		for (uint32_t j = 1; j < n; j++)
			at = put_replica(at, &b->extra[i][j - 1], range.min, cgen_len);
	}
	v->cgen_base = to_le64(range.min);
	v->entries_n = to_le16((uint16_t)b->entries_n);
	v->cgen_len = cgen_len;
	memset(v->reserved, 0, sizeof(v->reserved));
	record_seal(&v->h, MAP_VERSION, k, (size_t)(at - out));
	return (size_t)(at - out);
}

static bool kind_fits(uint8_t kind, uint32_t replicas_n, uint8_t flags)
{
	if (flags & ~(MAP_FULL | MAP_RESERVED | MAP_OPAQUE))
		return false;
	switch (kind) {
	case MAP_ZERO:
	case MAP_LOST:
		return replicas_n == 0 && flags == 0;
	case MAP_OPEN:
	case MAP_SEALED:
	case MAP_PACKED:
	case MAP_CODED:
		return replicas_n >= 1 && replicas_n <= REPLICAS_MAX;
	default:
		return false;
	}
}

static bool take_replica(struct cursor *c, uint64_t base, uint8_t cgen_len, struct replica *ret_r)
{
	struct le64 diff = to_le64(0);
	const void *p;

	ret_r->dev = cursor_le16(c);
	ret_r->slot = cursor_le32(c);
	p = cursor_take(c, cgen_len);
	if (!p)
		return false;
	memcpy(&diff, p, cgen_len);
	return add_ok(base, get_le64(diff), &ret_r->cgen) && ret_r->cgen != 0 && ret_r->dev != 0;
}

static int take_entries(struct cursor *c, const struct map_value *v, struct map_body *b)
{
	uint64_t base = get_le64(v->cgen_base);
	int last = -1;

	for (uint32_t left = get_le16(v->entries_n); left > 0; left--) {
		const uint8_t *head = cursor_take(c, ENTRY_HEAD);
		struct map_entry e = {0};

		if (!head || head[0] <= last)
			return -E_FORMAT;
		last = head[0];
		e.kind = head[1] & 15;
		e.replicas_n = head[1] >> 4;
		e.flags = head[2];
		if (!kind_fits(e.kind, e.replicas_n, e.flags))
			return -E_FORMAT;
		for (uint32_t j = 0; j < e.replicas_n; j++)
			if (!take_replica(c, base, v->cgen_len, &e.replicas[j]))
				return -E_FORMAT;
		if (map_body_reserve(b, e.replicas_n))
			return -ENOMEM;
		map_body_set(b, (uint32_t)last, &e);
	}
	return cursor_left(c) == 0 && !c->failed ? 0 : -E_FORMAT;
}

int schema_map_decode(struct metastore_bytes key, struct metastore_bytes value, struct map_body *b)
{
	const struct map_value *v = value.data;
	struct cursor c = cursor_of(value.data, value.len);
	int r = record_open(key, value, MAP_VERSION, sizeof(*v), SCHEMA_PAGE_MAX);

	if (r)
		return r;
	cursor_take(&c, sizeof(*v));
	if (v->cgen_len < 1 || v->cgen_len > 8 || get_le16(v->entries_n) == 0 ||
	    get_le16(v->entries_n) > SCHEMA_MAP_CHUNKS ||
	    !bytes_are_zero(v->reserved, sizeof(v->reserved)))
		return -E_FORMAT;
	r = take_entries(&c, v, b);
	if (r)
		map_body_free(b);
	return r;
}
