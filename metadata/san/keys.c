/* SPDX-License-Identifier: Apache-2.0 */
/* keys.c - keys of the SAN's records: a table letter, then numbers in the order in which they are to be scanned. */
#include <string.h>

#include "metadata/san/schema.h"
#include "src/base/bytes.h"
#include "src/base/check.h"

static void put(struct schema_key *k, const void *bytes, size_t len)
{
	check(k->len + len <= sizeof(k->b));
	memcpy(k->b + k->len, bytes, len);
	k->len = (uint8_t)(k->len + len);
}

static void put_16(struct schema_key *k, uint16_t x)
{
	struct be16 v = to_be16(x);

	put(k, &v, sizeof(v));
}

static void put_32(struct schema_key *k, uint32_t x)
{
	struct be32 v = to_be32(x);

	put(k, &v, sizeof(v));
}

struct schema_key schema_key_table(enum schema_table t)
{
	struct schema_key k = {.len = 1};

	k.b[0] = (uint8_t)t;
	return k;
}

struct schema_key schema_key_32(enum schema_table t, uint32_t id)
{
	struct schema_key k = schema_key_table(t);

	put_32(&k, id);
	return k;
}

struct schema_key schema_key_64(enum schema_table t, uint64_t id)
{
	struct schema_key k = schema_key_table(t);

	put_32(&k, (uint32_t)(id >> 32));
	put_32(&k, (uint32_t)id);
	return k;
}

struct schema_key schema_key_dev(enum schema_table t, device_no dev)
{
	struct schema_key k = schema_key_table(t);

	put_16(&k, dev);
	return k;
}

struct schema_key schema_key_dev_32(enum schema_table t, device_no dev, uint32_t at)
{
	struct schema_key k = schema_key_dev(t, dev);

	put_32(&k, at);
	return k;
}

struct schema_key schema_key_map(layer_id layer, uint32_t page)
{
	struct schema_key k = schema_key_32(SCHEMA_MAP, layer);

	put_32(&k, page);
	return k;
}

struct schema_key schema_key_name(const char *name)
{
	struct schema_key k = schema_key_table(SCHEMA_NAME);

	put(&k, name, strlen(name));
	return k;
}

bool schema_key_get_32(struct metastore_bytes key, uint32_t *ret_id)
{
	struct cursor c = cursor_of(key.data, key.len);

	cursor_take(&c, 1);
	*ret_id = cursor_be32(&c);
	return !c.failed && cursor_left(&c) == 0;
}

bool schema_key_get_64(struct metastore_bytes key, uint64_t *ret_id)
{
	struct cursor c = cursor_of(key.data, key.len);

	cursor_take(&c, 1);
	*ret_id = cursor_be64(&c);
	return !c.failed && cursor_left(&c) == 0;
}

bool schema_key_get_dev(struct metastore_bytes key, device_no *ret_dev)
{
	struct cursor c = cursor_of(key.data, key.len);

	cursor_take(&c, 1);
	*ret_dev = cursor_be16(&c);
	return !c.failed && cursor_left(&c) == 0;
}

bool schema_key_get_dev_32(struct metastore_bytes key, device_no *ret_dev, uint32_t *ret_at)
{
	struct cursor c = cursor_of(key.data, key.len);

	cursor_take(&c, 1);
	*ret_dev = cursor_be16(&c);
	*ret_at = cursor_be32(&c);
	return !c.failed && cursor_left(&c) == 0;
}

bool schema_key_get_map(struct metastore_bytes key, layer_id *ret_layer, uint32_t *ret_page)
{
	struct cursor c = cursor_of(key.data, key.len);

	cursor_take(&c, 1);
	*ret_layer = cursor_be32(&c);
	*ret_page = cursor_be32(&c);
	return !c.failed && cursor_left(&c) == 0;
}

bool schema_key_get_name(struct metastore_bytes key, char ret_name[NAME_LEN_MAX + 1])
{
	if (key.len < 2 || key.len > 1 + NAME_LEN_MAX)
		return false;
	memcpy(ret_name, (const char *)key.data + 1, key.len - 1);
	ret_name[key.len - 1] = '\0';
	return name_is_valid(ret_name);
}
