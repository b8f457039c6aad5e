/* SPDX-License-Identifier: Apache-2.0 */
/* meta.c - metadata contexts: LIST_META_CONTEXT and SET_META_CONTEXT.
 *
 * A context is "namespace:leaf". Each namespace has a row below that says which contexts a query means: adding one (qemu:dirty-bitmap:
 * for the changes since a snapshot, say) is a row, a number in enum nbd_context, and how BLOCK_STATUS answers for it. */
#include <stdio.h>
#include <string.h>

#include "targets/nbd/error.h"
#include "targets/nbd/handshake.h"

static void option_meta_context_opened(struct nbd_conn *c, int status);
static uint32_t contexts_of_query(const char *query, uint32_t len, bool listing);
static uint32_t base_query(const char *leaf, uint32_t len, bool listing);
static void put_contexts(struct nbd_conn *c, uint32_t contexts, bool listing);

static const struct {
	const char *name;
	/* The contexts a query of this namespace means; the empty leaf is the wildcard when listing, and nothing when setting. */
	uint32_t (*query)(const char *leaf, uint32_t len, bool listing);
} namespaces[] = {
    {"base:", base_query},
};

static const char *const context_names[CONTEXTS_N] = {
    [CONTEXT_ALLOCATION] = "base:allocation",
};

/* Data: length of the export's name, the name, number of queries, { length, query }*. */
void option_meta_context(struct nbd_conn *c)
{
	struct handshake *hs = c->hs;
	struct cursor data = hs->data, queries;
	char name[EXPORT_NAME_LEN];
	int r = export_name_take(&data, cursor_be32(&data), name);
	uint32_t queries_n = cursor_be32(&data);

	if (hs->option == NBD_OPT_SET_META_CONTEXT) { /* replaces what was set, also when it fails */
		hs->contexts = 0;
		hs->contexts_export[0] = '\0';
	}
	if (!c->structured) {
		option_finish(c, NBD_REP_ERR_INVALID, "structured replies must be negotiated first");
		return;
	}
	queries = data;
	for (uint32_t i = 0; i < queries_n && !data.failed; i++)
		cursor_take(&data, cursor_be32(&data));
	if (data.failed || cursor_left(&data) > 0) {
		option_finish(c, NBD_REP_ERR_INVALID, "the option's data is malformed");
		return;
	}
	if (r < 0) {
		option_finish(c, NBD_REP_ERR_UNKNOWN, "no volume can have such a name");
		return;
	}
	hs->data = queries;
	export_open(c, name, option_meta_context_opened);
}

static void option_meta_context_opened(struct nbd_conn *c, int status)
{
	struct handshake *hs = c->hs;
	struct cursor *queries = &hs->data;
	bool listing = hs->option == NBD_OPT_LIST_META_CONTEXT;
	uint32_t contexts = 0;

	if (status < 0) {
		option_finish(c, nbd_rep_of(status), hs->text);
		return;
	}
	if (listing && cursor_left(queries) == 0)
		contexts = (1u << CONTEXTS_N) - 1;
	while (cursor_left(queries) > 0) {
		uint32_t len = cursor_be32(queries);

		contexts |= contexts_of_query(cursor_take(queries, len), len, listing);
	}
	if (!listing) {
		hs->contexts = contexts;
		memcpy(hs->contexts_export, c->requested, sizeof(hs->contexts_export));
	}
	put_contexts(c, contexts, listing);
	option_finish(c, NBD_REP_ACK, NULL);
}

/* What we do not know selects nothing: another server may know it. */
static uint32_t contexts_of_query(const char *query, uint32_t len, bool listing)
{
	for (size_t i = 0; i < ARRAY_LEN(namespaces); i++) {
		uint32_t n = (uint32_t)strlen(namespaces[i].name);

		if (len >= n && memcmp(query, namespaces[i].name, n) == 0)
			return namespaces[i].query(query + n, len - n, listing);
	}
	return 0;
}

static uint32_t base_query(const char *leaf, uint32_t len, bool listing)
{
	static const char allocation[] = "allocation";

	if (len == 0)
		return listing ? 1u << CONTEXT_ALLOCATION : 0;
	if (len == sizeof(allocation) - 1 && memcmp(leaf, allocation, len) == 0)
		return 1u << CONTEXT_ALLOCATION;
	return 0;
}

static void put_contexts(struct nbd_conn *c, uint32_t contexts, bool listing)
{
	for (uint32_t i = 0; i < CONTEXTS_N; i++) {
		uint32_t len = (uint32_t)strlen(context_names[i]);
		struct be32 id = to_be32(listing ? 0 : i + 1);
		uint8_t *p;

		if (!(contexts & 1u << i))
			continue;
		p = reply_put(c, NBD_REP_META_CONTEXT, (uint32_t)sizeof(id) + len);
		memcpy(p, &id, sizeof(id));
		memcpy(p + sizeof(id), context_names[i], len);
	}
}
