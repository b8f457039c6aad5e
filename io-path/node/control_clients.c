/* SPDX-License-Identifier: Apache-2.0 */
/* control_clients.c - who has volumes open here: asked of whoever has the volumes, and told to the server. */
#include "io-path/node/control_private.h"

#include <string.h>

#include "src/base/mem.h"

enum { CLIENTS_BYTES_MAX = 3 << 20 /* well inside a frame */ };

struct client {
	struct list link;
	Strata__Client m;
	char name[];
};

struct control_clients {
	const Strata__ClientsQuery *query;
	struct list list;
	size_t n, bytes;
	int status;
};

static bool is_asked_for(const Strata__ClientsQuery *q, volume_id volume)
{
	for (size_t i = 0; i < q->n_volumes; i++)
		if (q->volumes[i] == volume)
			return true;
	return false;
}

void control_client(struct control_clients *cs, volume_id volume, const char *name, bool read_only)
{
	size_t len = strlen(name) + 1;
	struct client *k;

	if (cs->status || !is_asked_for(cs->query, volume))
		return;
	cs->bytes += len + 16; /* about what it takes on the wire */
	if (cs->n == CONTROL_CLIENTS_MAX || cs->bytes > CLIENTS_BYTES_MAX) {
		cs->status = -E2BIG;
		return;
	}
	k = mem_zalloc(sizeof(*k) + len);
	if (!k) {
		cs->status = -ENOMEM;
		return;
	}
	memcpy(k->name, name, len);
	strata__client__init(&k->m);
	k->m.volume = volume;
	k->m.name = k->name;
	k->m.read_only = read_only;
	list_push(&cs->list, &k->link);
	cs->n++;
}

void push_clients(struct control *c, struct push *p)
{
	struct control_clients cs = {.query = (const Strata__ClientsQuery *)p->msg};
	Strata__Clients reply = STRATA__CLIENTS__INIT;
	Strata__Client **list;
	struct list *l;

	list_init(&cs.list);
	if (c->cfg.clients)
		c->cfg.clients(c->cfg.arg, &cs);
	list = mem_zalloc_array(cs.n, sizeof(*list));
	if (!list)
		cs.status = -ENOMEM;
	reply.error = (char *)(uintptr_t)control_error(cs.status);
	reply.errmsg = (char *)(uintptr_t)(cs.status ? err_text(cs.status) : "");
	if (!cs.status) {
		list_for_each (at, &cs.list)
			list[reply.n_clients++] = &list_entry(at, struct client, link)->m;
	}
	reply.clients = list;
	push_reply(p, &reply.base);
	while ((l = list_pop(&cs.list)))
		mem_free(list_entry(l, struct client, link));
	mem_free(list);
}
