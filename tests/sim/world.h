/* SPDX-License-Identifier: Apache-2.0 */
/* world.h - a whole cluster in one simulated world, and everything that is known about a run.
 *
 *   machines   "metad"; "node-1" to "node-3", each with a node and a process of local clients (as a hypervisor has); "clients" with the
 *              remote ones
 *   world.c    the world, its metadata server; questions to the administration
 *   noded.c    a node: what io-path/main.c is made of
 *   client.c   connections of NBD clients (client_input.c: what comes in); workload.c: what they ask for; check_ledger.c: whether the answers can be right
 *   operator.c volumes that grow, are released, are deleted; operator_devices.c: disks that come and go
 *   faults.c   what breaks, and what brings it back (faults_disk.c: of disks)
 *   check_slots.c   the map, the devices' slots, and that each refers to the other
 *   run.c      the story of a run
 *
 * A run lives in a process of its own, which ends with it: what killed simulated processes leave behind needs no tidying up, and whoever finds
 * something wrong just ends the run (world_fail). */
#ifndef STRATA_TESTS_SIM_WORLD_H
#define STRATA_TESTS_SIM_WORLD_H

#include <jansson.h>

#include "io-path/node/node.h"
#include "io-path/volume/volumes.h"
#include "metadata/api/metad.h"
#include "src/base/rand.h"
#include "targets/nbd/nbd.h"
#include "tests/sim/check_ledger.h"
#include "tests/sim/swarm.h"

enum { ADDR_LEN = 64, FAIL_LEN = 4096 };

struct world;
struct client;
struct operator_call;

/* A simulated daemon's life. */
enum proc_state {
	PROC_DOWN,
	PROC_UP,
	PROC_STOPPING,
	PROC_STOPPED /* to be freed: outside of its callbacks */
};

struct world_node {
	struct world *w;
	uint32_t k; /* from 1 */
	struct sim_machine *m;
	struct ioe *e;
	enum proc_state state;
	uint32_t serial;	 /* of its process: all that ever were differ */
	uint32_t told_to_end[4]; /* the latest serials that were: their answers may come late */
	struct node *node;
	struct volumes *volumes;
	struct nbd_server *nbd;
	struct ioe_req give_up;
	bool giving_up, closed, ready;
	bool suffered; /* a disk of it failed a request: a device of it may be out of service */
	bool no_power_loss; /* ... a flush */
	uint64_t up_at_ns;  /* DOWN: when it is started again */
	char name[16], dir[16], peer[ADDR_LEN], tcp[ADDR_LEN], local[ADDR_LEN];
	const char *peers[1];
	struct client *client; /* of the machine */
};

enum volume_state { VOLUME_NORMAL, VOLUME_LEAVING, VOLUME_DELETING_IT, VOLUME_CREATING_IT };

struct world_volume {
	struct world *w;
	uint32_t n; /* from 0 */
	char name[16];
	uint64_t uid;
	uint64_t size_bytes; /* as it was last known to be; it may be want_bytes already */
	/* operator.c */
	enum volume_state state;
	uint64_t created_bytes, want_bytes, again_ns;
	struct operator_call *call;
	bool wants_release;
	bool asked_again; /* an earlier question may have been executed without an answer */
	struct ledger *ledger;
	/* who serves it, as far as clients know: raised when it is another process than before. What a former owner says of it then may be old */
	uint32_t owner_serial, owner_proc;
	uint64_t spots[8]; /* sectors */
};

enum extra_state {
	EXTRA_NONE,
	EXTRA_ADDING,
	EXTRA_LOOKING,
	EXTRA_THERE,
	EXTRA_REMOVING,
	EXTRA_GONE
};

/* A disk that the operator adds (operator_devices.c). */
struct world_extra {
	struct world *w;
	enum extra_state state;
	uint32_t k; /* its node */
	char path[16], number[16];
	uint64_t again_ns;
	struct operator_call *call;
	bool asked_again;
};

struct result {
	bool ok, done;
	uint64_t ops, errors, events, virtual_ns, hash;
	uint32_t faults[FAULTS_N];
	uint32_t process_starts;
	char text[FAIL_LEN];
};

struct world {
	struct swarm s;
	struct result *result; /* in memory that outlives the run */
	struct rand rand;      /* the harness's own */
	struct sim_world *sim;
	bool verbose;
	uint64_t moment; /* the histories' clock */
	uint32_t last_proc;
	uint64_t last_uid;

	struct sim_machine *metad_m;
	struct ioe *metad_e;
	enum proc_state metad_state;
	struct metastore_image *image;
	struct metastore *store;
	struct metad *metad;
	bool metad_open;
	uint64_t metad_up_at_ns;

	struct world_node nodes[NODES_MAX + 1]; /* [0] is not used */
	struct world_volume volumes[VOLUMES_MAX];
	struct world_extra extras[EXTRAS_MAX];
	struct client *remote;

	/* the workload */
	bool working, verifying;
	uint64_t last_op, ops, errors;
	uint64_t hash; /* of what clients saw */

	/* what explains an error that a client is told */
	bool disk_errors, disk_full;
	uint32_t power_losses;
};

/* Ends the run. */
void world_fail(struct world *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));
void world_say(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- world.c ---- */
void world_make(struct world *w); /* the swarm is chosen */
uint64_t world_now(struct world *w);
uint64_t world_moment(struct world *w);
/* One event, and what processes that ended need. */
void world_event(struct world *w);
#define world_until(w, condition, limit_ns)                                      \
	do {                                                                     \
		uint64_t end_ = world_now(w) + (limit_ns);                       \
		while (!(condition)) {                                           \
			if (world_now(w) > end_)                                 \
				world_fail(w, "did not happen: %s", #condition); \
			world_event(w);                                          \
		}                                                                \
	} while (0)
void world_run_for(struct world *w, uint64_t ns);

void world_metad_start(struct world *w);
void world_metad_kill(struct world *w);
void world_metad_stop(struct world *w);
bool world_metad_serves(const struct world *w);

void world_volume_new(struct world_volume *v); /* it was created: nobody ever wrote to it */
struct world_volume *world_volume_by_uid(struct world *w, uint64_t uid); /* NULL: it is gone */

/* Asks, and does not wait: r->verb, subject and done are set. */
void world_admin_begin(struct world *w, struct admin_req *r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The HTTP status; the answer or the error (the caller's) unless ret_answer is NULL. Nothing breaks meanwhile. */
int world_admin(struct world *w, enum admin_verb verb, const char *subject, json_t **ret_answer,
		const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* ---- noded.c ---- */
void noded_init(struct world *w, uint32_t k);
void noded_start(struct world_node *n);
void noded_kill(struct world_node *n);
void noded_stop(struct world_node *n); /* as SIGTERM does */
void noded_tidy(struct world_node *n); /* of a process that ended in good order */
void noded_power_loss(struct world_node *n);

/* ---- check_slots.c ---- */
void check_slots(struct world *w);

#endif
