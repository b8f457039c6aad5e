/* SPDX-License-Identifier: Apache-2.0 */
/* cluster_world.h - a metadata server and nodes in one simulated world: real code but for the devices (mock_device.h) and the database (mem).
 *
 * Each process runs on a machine of its own and speaks TCP with a key. Processes can be killed at any moment and started again; the database and
 * the media stay. What a killed process had allocated is given back at the end. Requests are made through the contracts: meta.h of a node,
 * admin.h of the server. Waiting fails the test after two virtual minutes. */
#ifndef STRATA_TESTS_LIB_CLUSTER_CLUSTER_WORLD_H
#define STRATA_TESTS_LIB_CLUSTER_CLUSTER_WORLD_H

#include "io-path/node/node.h"
#include "metadata/api/metad.h"
#include "metadata/rpc/session.h"
#include "src/ioe/ioe_sim.h"
#include "tests/lib/mem_arena.h"
#include "tests/lib/mock_device/mock_device.h"

enum { CWORLD_NODES_MAX = 3 };

struct cworld_node {
	struct cworld *w;
	int k; /* from 1 */
	struct sim_machine *m;
	struct ioe *e; /* NULL: not running */
	struct node *node;
	bool ready, closed;
	char dir[32], name[24], peer[32], nbd[32];
	const char *peers[1], *nbds[1];
	uint32_t volume_changes, lost_volumes;
	uint64_t changed_size;
	bool one_opener; /* as the last news said */
	bool no_clients; /* of its volumes */
};

struct cworld {
	struct sim_world *sim;
	struct sim_machine *metad_m;
	struct ioe *metad_e; /* NULL: not running */
	struct metastore_image *image;
	struct metastore *store;
	struct metad *metad;
	bool metad_open, metad_closed, store_closed;
	int metad_status;
	char metad_errmsg[ERRMSG_LEN];
	struct cworld_node nodes[CWORLD_NODES_MAX + 1]; /* [0] is not used */
	struct admin_req admin_req;
	bool admin_done;
	struct mem_arena arena;
	bool killed; /* something was: memory is not expected to be given back by itself */
};

void cworld_init(struct cworld *w, uint64_t seed);
/* Stops what runs, and checks that nothing is left. */
void cworld_free(struct cworld *w);

void cworld_metad_start(struct cworld *w); /* and waits until it listens */
void cworld_metad_begin(struct cworld *w); /* does not wait */
void cworld_metad_stop(struct cworld *w);
void cworld_metad_kill(struct cworld *w);
void cworld_node_start(struct cworld *w, int k); /* and waits until it is ready */
void cworld_node_begin(struct cworld *w, int k);
void cworld_node_stop(struct cworld *w, int k);
void cworld_node_kill(struct cworld *w, int k);

void cworld_run(struct cworld *w, uint64_t ns);
/* Steps until the condition holds. */
#define cworld_until(w, condition)                                              \
	do {                                                                    \
		uint64_t end_ = sim_now_ns((w)->sim) + CWORLD_PATIENCE_NS;      \
		while (!(condition)) {                                          \
			if (!sim_step((w)->sim) || sim_now_ns((w)->sim) > end_) \
				fail_msg("did not happen: %s", #condition);     \
		}                                                               \
	} while (0)
#define CWORLD_PATIENCE_NS ((uint64_t)120 * 1000000000)
#define SEC		   ((uint64_t)1000000000)

/* One request to the administration: the HTTP status; the answer or the error object in *ret_json (may be NULL; else the caller's). args: "{...}"
 * or NULL. */
int cworld_admin(struct cworld *w, enum admin_verb verb, const char *subject, const char *args,
		 json_t **ret_json);
/* An integer of an answer by path, "items.0.size_bytes". Fails the test when there is none. */
int64_t cworld_int(const json_t *json, const char *path);
const char *cworld_text(const json_t *json, const char *path);
/* Adds a device of MOCK_SLOTS slots at "/disk<n>" of a node. */
void cworld_device_add(struct cworld *w, int node, int disk);
void cworld_volume_create(struct cworld *w, const char *name, uint64_t size_bytes);
/* How many events have this code. */
int cworld_events(struct cworld *w, const char *code);

/* The same in two steps: r.verb is set, subject too. In the end the arguments and the answer are freed; `lost`: the server was killed meanwhile, there
 * may be no answer. */
void cworld_admin_begin(struct cworld *w, struct admin_req *r, const char *args);
void cworld_admin_end(struct cworld *w, struct admin_req *r, bool lost);

/* Requests of a node's runtime. */
struct cworld_call {
	struct meta_open open;
	struct meta_close close;
	struct meta_alloc alloc;
	struct meta_map map;
	struct meta_update update;
	struct meta_map_item items[META_CHUNKS_MAX];
	uint32_t chunks[META_CHUNKS_MAX];
	struct meta_update_item changes[META_CHUNKS_MAX];
	uint64_t patience_ns; /* 0: none */
	bool done;
};
/* A new one; the world's arena frees it in the end. */
struct cworld_call *cworld_call_new(void);
int cworld_open(struct cworld *w, int node, const char *volume, struct cworld_call *c);
/* ..._begin: does not wait for c->done */
void cworld_open_begin(struct cworld *w, int node, const char *volume, struct cworld_call *c);
void cworld_alloc_begin(struct cworld *w, int node, const struct cworld_call *opened,
			uint32_t first, uint32_t n, struct cworld_call *c);
/* Unmaps the first n chunks that c allocated. */
void cworld_unmap_begin(struct cworld *w, int node, const struct cworld_call *opened,
			struct cworld_call *c, uint32_t n);
int cworld_close(struct cworld *w, int node, struct cworld_call *opened);
void cworld_close_begin(struct cworld *w, int node, struct cworld_call *opened);
int cworld_alloc(struct cworld *w, int node, const struct cworld_call *opened, uint32_t first,
		 uint32_t n, struct cworld_call *c);
/* A write of one block to a mapped chunk, on the node that has it. */
int cworld_write(struct cworld *w, int node, const struct cworld_call *opened,
		 const struct meta_map_item *item);

#endif
