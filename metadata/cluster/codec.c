/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/cluster/codec.h"

#include <string.h>

#include "src/base/crc.h"
#include "src/base/mem.h"

/* ---- writing ------------------------------------------------------------------------------------------------------------------------ */

static void put(struct codec_record *r, const void *data, size_t n)
{
	check(r->value_len + n <=
	      sizeof(r->value)); /* every field is bounded, and so is their sum */
	memcpy(r->value + r->value_len, data, n);
	r->value_len += n;
}

static void put_u32(struct codec_record *r, uint32_t v)
{
	struct le32 x = to_le32(v);

	put(r, &x, sizeof(x));
}

static void put_u64(struct codec_record *r, uint64_t v)
{
	struct le64 x = to_le64(v);

	put(r, &x, sizeof(x));
}

static void put_text(struct codec_record *r, const char *text)
{
	size_t n = strlen(text);

	put_u32(r, (uint32_t)n);
	put(r, text, n);
}

static void put_addrs(struct codec_record *r, const struct cluster_addrs *a)
{
	put_u32(r, a->n);
	for (uint32_t i = 0; i < a->n; i++)
		put_text(r, a->list[i]);
}

static void begin(struct codec_record *r, char letter, uint32_t number, size_t number_bytes)
{
	struct be32 no = to_be32(number);

	r->key[0] = (uint8_t)letter;
	memcpy(r->key + 1, no.b + 4 - number_bytes, number_bytes);
	r->key_len = 1 + number_bytes;
	r->value_len = 0;
	put_u32(r, CODEC_VERSION);
}

static void finish(struct codec_record *r)
{
	put_u32(r, crc32c(r->value, r->value_len));
}

void codec_put_node(const struct cluster_node *n, struct codec_record *ret_r)
{
	begin(ret_r, 'N', n->no, 4);
	put(ret_r, &n->uuid, sizeof(n->uuid));
	put_text(ret_r, n->name);
	put_text(ret_r, n->version);
	put_addrs(ret_r, &n->nbd);
	put_addrs(ret_r, &n->peer);
	finish(ret_r);
}

void codec_put_device(const struct cluster_device *d, struct codec_record *ret_r)
{
	begin(ret_r, 'D', d->no, 2);
	put(ret_r, &d->uuid, sizeof(d->uuid));
	put_u32(ret_r, d->node);
	put_u32(ret_r, d->pool);
	put_u32(ret_r, d->chunk_shift);
	put_u32(ret_r, d->slots_n);
	put_u32(ret_r, d->member);
	put_u64(ret_r, d->incarnation);
	put_u64(ret_r, d->lsn);
	put_u64(ret_r, d->told_commit);
	put_u64(ret_r, d->layers_commit);
	put_text(ret_r, d->path);
	finish(ret_r);
}

void codec_put_pool(const struct cluster_pool *p, struct codec_record *ret_r)
{
	begin(ret_r, 'P', p->no, 4);
	put_u32(ret_r, p->chunk_shift);
	put_text(ret_r, p->name);
	if (p->media != cluster_media_of(p->chunk_shift))
		put_u32(ret_r, p->media);
	finish(ret_r);
}

struct metastore_change codec_change(const struct codec_record *r)
{
	return (struct metastore_change){.key = {r->key, r->key_len},
					 .value = {r->value, r->value_len}};
}

struct metastore_change codec_delete(const struct codec_record *r)
{
	return (struct metastore_change){.key = {r->key, r->key_len}};
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------------- */

static bool get(struct cursor *c, void *to, size_t n)
{
	const void *p = cursor_take(c, n);

	if (p)
		memcpy(to, p, n);
	return p != NULL;
}

static bool get_text(struct cursor *c, char *to, size_t room)
{
	uint32_t n = cursor_le32(c);

	if (n >= room) {
		c->failed = true;
		return false;
	}
	to[n] = '\0';
	return get(c, to, n) && strlen(to) == n;
}

static bool get_addrs(struct cursor *c, struct cluster_addrs *a)
{
	a->n = cursor_le32(c);
	if (a->n > CLUSTER_ADDRS_MAX)
		c->failed = true;
	for (uint32_t i = 0; i < a->n && !c->failed; i++)
		get_text(c, a->list[i], sizeof(a->list[i]));
	return !c->failed;
}

/* Key, version and CRC. */
static int open_record(const struct metastore_item *item, char letter, size_t number_bytes,
		       uint32_t *ret_number, struct cursor *ret_c)
{
	const uint8_t *key = item->key.data;
	struct cursor c = cursor_of(item->value.data, item->value.len);
	struct be32 no = {{0}};
	struct le32 crc, version;

	if (item->key.len != 1 + number_bytes || key[0] != (uint8_t)letter ||
	    item->value.len < sizeof(crc) + sizeof(version))
		return -E_FORMAT;
	memcpy(no.b + 4 - number_bytes, key + 1, number_bytes);
	memcpy(&version, item->value.data, sizeof(version));
	memcpy(&crc, (const uint8_t *)item->value.data + item->value.len - sizeof(crc), sizeof(crc));
	if (get_le32(crc) != crc32c(item->value.data, item->value.len - sizeof(crc)))
		return -E_FORMAT;
	if (get_le32(version) != CODEC_VERSION)
		return -E_VERSION;
	c = cursor_of((const uint8_t *)item->value.data + sizeof(version),
		      item->value.len - sizeof(version) - sizeof(crc));
	*ret_number = get_be32(no);
	*ret_c = c;
	return *ret_number ? 0 : -E_FORMAT;
}

static int close_record(const struct cursor *c)
{
	return c->failed || cursor_left(c) ? -E_FORMAT : 0;
}

int codec_get_node(const struct metastore_item *item, struct cluster_node *ret_n)
{
	struct cursor c;
	int r = open_record(item, 'N', 4, &ret_n->no, &c);

	if (r)
		return r;
	get(&c, &ret_n->uuid, sizeof(ret_n->uuid));
	get_text(&c, ret_n->name, sizeof(ret_n->name));
	get_text(&c, ret_n->version, sizeof(ret_n->version));
	get_addrs(&c, &ret_n->nbd);
	get_addrs(&c, &ret_n->peer);
	return close_record(&c);
}

int codec_get_device(const struct metastore_item *item, struct cluster_device *ret_d)
{
	char path[CONTROL_PATH_MAX + 1];
	uint32_t no, member;
	struct cursor c;
	int r = open_record(item, 'D', 2, &no, &c);

	if (r)
		return r;
	ret_d->no = (device_no)no;
	get(&c, &ret_d->uuid, sizeof(ret_d->uuid));
	ret_d->node = cursor_le32(&c);
	ret_d->pool = cursor_le32(&c);
	ret_d->chunk_shift = cursor_le32(&c);
	ret_d->slots_n = cursor_le32(&c);
	member = cursor_le32(&c);
	ret_d->incarnation = cursor_le64(&c);
	ret_d->lsn = cursor_le64(&c);
	ret_d->told_commit = cursor_le64(&c);
	ret_d->layers_commit = cursor_le64(&c);
	get_text(&c, path, sizeof(path));
	r = close_record(&c);
	if (!r && (member < CLUSTER_MEMBER || member > CLUSTER_LOST))
		r = -E_FORMAT;
	if (r)
		return r;
	ret_d->member = (enum cluster_member)member;
	ret_d->path = mem_strdup(path);
	return ret_d->path ? 0 : -ENOMEM;
}

int codec_get_pool(const struct metastore_item *item, struct cluster_pool *ret_p)
{
	uint32_t media, implied;
	struct cursor c;
	int r = open_record(item, 'P', 4, &ret_p->no, &c);

	if (r)
		return r;
	ret_p->chunk_shift = cursor_le32(&c);
	get_text(&c, ret_p->name, sizeof(ret_p->name));
	media = implied = cluster_media_of(ret_p->chunk_shift);
	if (cursor_left(&c)) {
		media = cursor_le32(&c);
		if (media == implied || media < CLUSTER_FLASH || media > CLUSTER_ROTATIONAL)
			return -E_FORMAT;
	}
	ret_p->media = (enum cluster_media)media;
	r = close_record(&c);
	if (!r && ret_p->chunk_shift != CHUNK_SHIFT_FLASH && ret_p->chunk_shift != CHUNK_SHIFT_DISK)
		r = -E_FORMAT;
	return r;
}
