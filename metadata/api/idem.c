/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/api/idem.h"

#include <string.h>

#include "src/base/mem.h"

int idem_init(struct idem *t, uint32_t max)
{
	list_init(&t->lru);
	t->n = 0;
	t->max = max;
	return htab_init(&t->by_key, 64);
}

static void idem_forget(struct idem *t, struct idem_entry *e)
{
	check(list_empty(&e->waiting));
	list_del(&e->lru);
	htab_del(&t->by_key, &e->node);
	t->n--;
	reply_free(&e->reply);
	mem_free(e);
}

void idem_free(struct idem *t)
{
	while (!list_empty(&t->lru))
		idem_forget(t, list_first(&t->lru, struct idem_entry, lru));
	check(t->n == 0);
	htab_free(&t->by_key);
}

bool idem_key_is_valid(const char *key)
{
	size_t len = strlen(key);

	for (size_t i = 0; i < len; i++)
		if (key[i] < 0x20 || key[i] > 0x7e)
			return false;
	return len >= 1 && len <= IDEM_KEY_MAX;
}

static struct idem_entry *idem_find(struct idem *t, const char *key, uint64_t hash)
{
	struct idem_entry *e;

	htab_for_each_key (n, &t->by_key, hash) {
		e = container_of(n, struct idem_entry, node);
		if (!strcmp(e->key, key))
			return e;
	}
	return NULL;
}

static struct idem_entry *idem_add(struct idem *t, const char *key, uint64_t hash, uint64_t request)
{
	struct idem_entry *e;

	if (t->n == t->max && list_empty(&t->lru))
		return NULL;
	e = mem_zalloc(sizeof(*e));
	if (!e)
		return NULL;
	if (t->n == t->max)
		idem_forget(t, list_first(&t->lru, struct idem_entry, lru));
	memcpy(e->key, key, strlen(key) + 1);
	e->request = request;
	list_init(&e->lru);
	list_init(&e->waiting);
	htab_add(&t->by_key, &e->node, hash);
	t->n++;
	return e;
}

enum idem_verdict idem_ask(struct idem *t, const char *key, uint64_t request,
			   struct idem_entry **ret_entry)
{
	uint64_t hash = hash_bytes(key, strlen(key));
	struct idem_entry *e = idem_find(t, key, hash);

	check(idem_key_is_valid(key));
	if (!e) {
		e = idem_add(t, key, hash, request);
		if (!e)
			return IDEM_FULL;
		*ret_entry = e;
		return IDEM_FIRST;
	}
	if (e->request != request)
		return IDEM_REUSED;
	*ret_entry = e;
	if (!e->answered)
		return IDEM_RUNNING;
	list_del(&e->lru);
	list_push(&t->lru, &e->lru);
	return IDEM_ANSWERED;
}

void idem_settle(struct idem *t, struct idem_entry *e, const struct reply *reply)
{
	check(!e->answered && list_empty(&e->waiting));
	if (reply->status < 500 && reply->len <= IDEM_REPLY_MAX)
		reply_copy(&e->reply, reply);
	if (!e->reply.body) {
		idem_forget(t, e);
		return;
	}
	e->answered = true;
	list_push(&t->lru, &e->lru);
}
