/* SPDX-License-Identifier: Apache-2.0 */
/* config.c - what every node is told of the others: where they are, and who has which device. */
#include "metadata/rpc/session.h"
#include "src/base/mem.h"

/* One message with what it points to; addresses and names are borrowed from the registry. */
struct config {
	Strata__Config m;
	Strata__Peer *peers;
	Strata__DevicePlace *places;
	char **addrs;
};

static size_t members_n(struct cluster *c)
{
	size_t n = 0;

	list_for_each (l, &c->devices) {
		n += list_entry(l, struct cluster_device, link)->member == CLUSTER_MEMBER;
	}
	return n;
}

static char **borrow(struct config *cfg, size_t *at, const struct cluster_addrs *a)
{
	char **first = &cfg->addrs[*at];

	for (uint32_t i = 0; i < a->n; i++)
		cfg->addrs[(*at)++] = (char *)(uintptr_t)a->list[i];
	return first;
}

static void fill_peers(struct cluster *c, struct config *cfg)
{
	size_t at = 0;

	list_for_each (l, &c->nodes) {
		struct cluster_node *n = list_entry(l, struct cluster_node, link);
		Strata__Peer *p = &cfg->peers[cfg->m.n_peers];

		strata__peer__init(p);
		p->node = n->no;
		p->uuid = control_uuid(&n->uuid);
		p->name = n->name;
		p->n_addresses = n->peer.n;
		p->addresses = borrow(cfg, &at, &n->peer);
		p->n_nbd = n->nbd.n;
		p->nbd = borrow(cfg, &at, &n->nbd);
		cfg->m.peers[cfg->m.n_peers++] = p;
	}
}

static void fill_places(struct cluster *c, struct config *cfg)
{
	list_for_each (l, &c->devices) {
		struct cluster_device *d = list_entry(l, struct cluster_device, link);
		Strata__DevicePlace *p = &cfg->places[cfg->m.n_devices];

		if (d->member != CLUSTER_MEMBER)
			continue;
		strata__device_place__init(p);
		p->device = d->no;
		p->node = d->node;
		cfg->m.devices[cfg->m.n_devices++] = p;
	}
}

Strata__Config *cluster_config_new(struct cluster *c)
{
	size_t devices_n = members_n(c);
	struct config *cfg = mem_zalloc(sizeof(*cfg));

	if (!cfg)
		return NULL;
	strata__config__init(&cfg->m);
	cfg->peers = mem_zalloc_array(c->nodes_n, sizeof(*cfg->peers));
	cfg->places = mem_zalloc_array(devices_n, sizeof(*cfg->places));
	cfg->addrs = mem_zalloc_array((size_t)c->nodes_n * 2, CLUSTER_ADDRS_MAX * sizeof(char *));
	cfg->m.peers = mem_zalloc_array(c->nodes_n, sizeof(*cfg->m.peers));
	cfg->m.devices = mem_zalloc_array(devices_n, sizeof(*cfg->m.devices));
	if (!cfg->peers || !cfg->places || !cfg->addrs || !cfg->m.peers || !cfg->m.devices) {
		cluster_config_free(&cfg->m);
		return NULL;
	}
	cfg->m.revision = ++c->config_revision;
	fill_peers(c, cfg);
	fill_places(c, cfg);
	return &cfg->m;
}

void cluster_config_free(Strata__Config *m)
{
	struct config *cfg = container_of(m, struct config, m);

	mem_free(cfg->peers);
	mem_free(cfg->places);
	mem_free(cfg->addrs);
	mem_free(cfg->m.peers);
	mem_free(cfg->m.devices);
	mem_free(cfg);
}

static void told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	(void)status; /* who did not get it gets a newer one with the next welcome */
	(void)answer;
	mem_free(call);
}

void cluster_config_push(struct cluster *c)
{
	Strata__Config *m = NULL;

	if (c->state != CLUSTER_SERVING)
		return;
	list_for_each (l, &c->sessions) {
		struct session *s = list_entry(l, struct session, link);
		struct session_call *call;

		if (!session_is_joined(s))
			continue;
		if (!m && !(m = cluster_config_new(c)))
			return;
		call = mem_zalloc(sizeof(*call));
		if (call)
			session_ask(s, call, CONTROL_CONFIG, &m->base, told);
		else
			session_break(s, -ENOMEM); /* and gets it with the next welcome */
	}
	if (m)
		cluster_config_free(m);
}
