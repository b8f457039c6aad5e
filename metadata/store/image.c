/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/store/image.h"

#include <string.h>

#include "metadata/store/backend.h"
#include "src/base/hash.h"
#include "src/base/mem.h"

struct metastore_image *metastore_mem_image_new(void)
{
	return mem_zalloc(sizeof(struct metastore_image));
}

void metastore_mem_image_free(struct metastore_image *m)
{
	struct image_node *n, *next;

	if (!m)
		return;
	for (n = m->first[0]; n; n = next) {
		next = n->next[0];
		mem_free(n);
	}
	mem_free(m);
}

/* at[i]: the link on level i that leads to the first node not below key */
static void find_links(struct metastore_image *m, struct metastore_bytes key,
		       struct image_node **at[IMAGE_LEVELS])
{
	struct image_node **links = m->first;

	for (int i = IMAGE_LEVELS - 1; i >= 0; i--) {
		while (links[i] && metastore_bytes_cmp(links[i]->key, key) < 0)
			links = links[i]->next;
		at[i] = &links[i];
	}
}

const struct image_node *image_above(const struct metastore_image *m, struct metastore_bytes key,
				     bool equal)
{
	struct image_node **at[IMAGE_LEVELS];
	const struct image_node *n;

	find_links((struct metastore_image *)(uintptr_t)m, key, at);
	n = *at[0];
	if (n && !equal && metastore_bytes_cmp(n->key, key) == 0)
		n = n->next[0];
	return n;
}

const struct image_node *image_find(const struct metastore_image *m, struct metastore_bytes key)
{
	const struct image_node *n = image_above(m, key, true);

	return n && metastore_bytes_cmp(n->key, key) == 0 ? n : NULL;
}

bool image_guard_holds(const struct metastore_image *m, const struct metastore_guard *g)
{
	const struct image_node *n = image_find(m, g->key);

	if (!n || !g->expected.data)
		return !n && !g->expected.data;
	return metastore_bytes_cmp(n->value, g->expected) == 0;
}

static struct image_node *node_new(const struct metastore_change *c)
{
	uint64_t h = hash_bytes(c->key.data, c->key.len);
	uint32_t levels = 1;
	struct image_node *n;
	uint8_t *bytes;

	while (levels < IMAGE_LEVELS && (h & 3) == 0) {
		levels++;
		h >>= 2;
	}
	n = mem_alloc(sizeof(*n) + levels * sizeof(n->next[0]) + c->key.len + c->value.len);
	if (!n)
		return NULL;
	n->levels = levels;
	bytes = (uint8_t *)&n->next[levels];
	memcpy(bytes, c->key.data, c->key.len);
	if (c->value.len)
		memcpy(bytes + c->key.len, c->value.data, c->value.len);
	n->key = (struct metastore_bytes){bytes, c->key.len};
	n->value = (struct metastore_bytes){bytes + c->key.len, c->value.len};
	return n;
}

static void delete_key(struct metastore_image *m, struct metastore_bytes key)
{
	struct image_node **at[IMAGE_LEVELS], *n;

	find_links(m, key, at);
	n = *at[0];
	if (!n || metastore_bytes_cmp(n->key, key) != 0)
		return;
	for (uint32_t i = 0; i < n->levels; i++)
		*at[i] = n->next[i];
	mem_free(n);
	m->keys_n--;
}

static void insert(struct metastore_image *m, struct image_node *n)
{
	struct image_node **at[IMAGE_LEVELS];

	delete_key(m, n->key);
	find_links(m, n->key, at);
	for (uint32_t i = 0; i < n->levels; i++) {
		n->next[i] = *at[i];
		*at[i] = n;
	}
	m->keys_n++;
}

int image_apply(struct metastore_image *m, const struct metastore_change *changes, uint32_t n)
{
	struct image_node *nodes[METASTORE_BATCH_MAX];

	/* everything that can fail comes first */
	for (uint32_t i = 0; i < n; i++) {
		nodes[i] = NULL;
		if (!changes[i].value.data)
			continue;
		nodes[i] = node_new(&changes[i]);
		if (!nodes[i]) {
			while (i-- > 0)
				mem_free(nodes[i]);
			return -ENOMEM;
		}
	}
	for (uint32_t i = 0; i < n; i++) {
		if (nodes[i])
			insert(m, nodes[i]);
		else
			delete_key(m, changes[i].key);
	}
	return 0;
}
