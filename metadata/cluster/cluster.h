/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.h - who is in the cluster: the registry of nodes, devices and pools, and what is going on with them now.
 *
 * The registry is durable through the SAN's store (records "N", "D", "P": codec.h) and resident here. Presence is not durable: after a start
 * everything is away until its node says hello.
 *
 *   join.c     a node says hello: numbers for it and its devices, verdicts
 *   attach.c   brings devices up to date (epochs, layers) and has them served
 *   takeover.c a volume whose owner is gone is taken from it
 *   fence.c    a volume has a new owner: every device that is reachable learns the epoch before the owner does
 *   layers.c   names and parents of layers, kept on two devices each as long as the layer exists
 *   frees.c    slots that left the map are freed on their devices
 *   change.c   adding and removing devices
 *   leave.c    a node leaves for good
 *   pool.c     pools come and go
 *
 * A device's presence:  AWAY -> ATTACHING -> OK     any -> FAILED (its node says so)     AWAY -> REFUSED (an older copy came back)
 * Allocations go to devices that are OK. */
#ifndef STRATA_METADATA_CLUSTER_CLUSTER_H
#define STRATA_METADATA_CLUSTER_CLUSTER_H

#include "metadata/jobs/jobs.h"
#include "metadata/san/san.h"
#include "src/base/hash.h"
#include "src/wire/control.h"

struct session;
struct session_call;
struct cluster_attach;
struct codec_record;

enum {
	CLUSTER_ADDRS_MAX = CONTROL_ADDRS_MAX,
	CLUSTER_LAYER_COPIES = 2,
	CLUSTER_POOLS_MAX = 1000,
};
#define CLUSTER_POOL_DEFAULT "default"

/* ---- what is registered -------------------------------------------------------------------------------------------------------- */

enum cluster_media { CLUSTER_FLASH = 1, CLUSTER_ROTATIONAL = 2 }; /* durable */
enum cluster_pool_state { CLUSTER_POOL_READY, CLUSTER_POOL_MAKING, CLUSTER_POOL_LEAVING };

struct cluster_pool {
	struct list link;
	uint32_t no;
	char name[NAME_LEN_MAX + 1];
	enum cluster_media media;
	uint32_t chunk_shift;
	/* not durable */
	enum cluster_pool_state state;
	uint32_t users; /* devices that are being added to it */
};

struct cluster_addrs {
	uint32_t n;
	char list[CLUSTER_ADDRS_MAX][IOE_ADDR_MAX];
};

struct cluster_node {
	struct list link; /* by number */
	node_no no;
	struct uuid uuid;
	char name[NAME_LEN_MAX + 1];
	char version[64];
	struct cluster_addrs nbd, peer;
	/* not durable */
	uint32_t users; /* operations that point to it */
	bool removing;	/* it leaves, or is gone once that has committed */
	bool met; /* it joined since this server started: its devices may know commits of ours */
	struct session *session; /* joined; NULL: away */
	struct uuid start;	 /* of the process that joined last */
	uint64_t since_wall_ns;	 /* of being online or away */
	uint64_t away_ns;	 /* away: since then, at least; of the engine's clock */
	uint64_t away_commit;	 /* away: what the database had at that time; 0: not known */
};

enum cluster_member { CLUSTER_MEMBER = 1, CLUSTER_REMOVED = 2, CLUSTER_LOST = 3 }; /* durable */
enum cluster_presence {
	CLUSTER_AWAY,
	CLUSTER_ATTACHING,
	CLUSTER_OK,
	CLUSTER_FAILED,
	CLUSTER_REFUSED,
};

struct cluster_device {
	struct list link; /* by number */
	device_no no;
	struct uuid uuid;
	node_no node;
	uint32_t pool, chunk_shift, slots_n;
	char *path; /* mem_* */
	enum cluster_member member;
	uint64_t incarnation, lsn; /* highest seen; lsn: of what survives power loss */
	uint64_t told_commit; /* it remembers this one for good: one that does not is an older copy */
	uint64_t layers_commit; /* LAYER records of its share up to here are on it */
	/* not durable */
	enum cluster_presence presence;
	char reason[ERRMSG_LEN]; /* why it is not OK */
	node_no opening; /* AWAY: this node is opening it, and will tell what comes of it; 0: none is */
	uint64_t commit; /* highest it heard of, as of the hello */
	bool no_space;	 /* writes to new places find none under it */
	uint64_t fs, fs_free_bytes,
	    fs_owed_bytes; /* a file: as the node said last; fs 0: not known */
	bool wants_attach, attaching;
	uint32_t layers_pending; /* records under way */
	uint64_t layers_sent;	 /* highest commit of those */
	bool layers_failed;	 /* one did not arrive: the next attach sends them again */
	bool layers_sweeping;	 /* going on */
	bool frees_running, frees_again;
	bool leaving;  /* its removal is being written: nobody else writes its record meanwhile, */
	bool save_due; /* ... but somebody wanted to */
};

/* ---- the cluster --------------------------------------------------------------------------------------------------------------------- */

enum cluster_state {
	CLUSTER_STARTING, /* nodes are given a moment to say hello, so that a database that went back in time is noticed first */
	CLUSTER_SERVING,
	CLUSTER_REFUSING, /* it did: nothing is served */
	CLUSTER_STOPPING,
};

struct cluster {
	struct ioe *ioe;
	struct san *san;
	struct metastore *store;
	enum cluster_state state;
	char refusal[ERRMSG_LEN]; /* REFUSING: why */
	struct list nodes, devices, pools;
	uint32_t nodes_n, devices_n; /* devices: all that ever were */
	uint64_t config_revision;
	uint64_t started_ns;
	uint64_t start_commit; /* the last one when this server started */
	uint64_t takeover_ns; /* how long an owner must be away before another node gets its volume; UINT64_MAX: never by itself */
	struct list sessions; /* of server.c; joined or not */
	struct list
	    joins; /* hellos, the first is being answered once the cluster is not STARTING any more */
	struct list admits;   /* devices that wait their turn */
	struct list adds;     /* that wait for their device to serve */
	struct list removes;  /* that wait their turn */
	struct join *joining; /* who is being answered */
	bool admitting, removing;
	uint32_t ops; /* asynchronous work of this module under way */
	void (*stopped)(void *arg);
	void *stopped_arg;
};

/* Reads the registry; makes the pool `default` in a new cluster. */
struct cluster_open {
	struct cluster *c; /* zeroed by the caller, lives as long as it is used */
	struct ioe *ioe;
	struct san *san;
	struct metastore *store;
	void (*done)(struct cluster_open *op);
	void *arg;
	int status;
	char errmsg[ERRMSG_LEN];
	void *priv;
};
void cluster_open(struct cluster_open *op);
/* Sessions are gone and no request comes any more: waits for what is under way, then `done`. */
void cluster_stop(struct cluster *c, void (*done)(void *arg), void *arg);
void cluster_free(
    struct cluster *c); /* the memory; nothing is under way, or the (simulated) process was killed */

void cluster_op_begin(struct cluster *c);
void cluster_op_end(struct cluster *c);

/* A device has heard of commits this database does not have. */
void cluster_refuse(struct cluster *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- looking (registry.c) -------------------------------------------------------------------------------------------------------------- */

struct cluster_node *cluster_node_by_no(struct cluster *c, node_no no);
struct cluster_node *cluster_node_by_uuid(struct cluster *c, const struct uuid *uuid);
struct cluster_node *cluster_node_by_name(struct cluster *c, const char *name);
struct cluster_device *cluster_device_by_no(struct cluster *c, device_no no);
struct cluster_device *cluster_device_by_uuid(struct cluster *c, const struct uuid *uuid);
struct cluster_pool *cluster_pool_by_no(struct cluster *c, uint32_t no);
/* One that something can be put into. */
struct cluster_pool *cluster_pool_by_name(struct cluster *c, const char *name);

/* How many devices it has that are not removed or lost. */
uint32_t cluster_node_devices_n(struct cluster *c, const struct cluster_node *n);
/* The session of the node that has it; NULL: away. */
struct session *cluster_device_session(struct cluster *c, const struct cluster_device *d);
const char *cluster_presence_name(
    const struct cluster_device *d); /* "ok", "away", "failed", "refused", "removed", "lost" */

/* Writes the record in the background (the SAN being out of service is noticed elsewhere). */
void cluster_node_save(struct cluster *c, const struct cluster_node *n);
void cluster_device_save(struct cluster *c, struct cluster_device *d);

/* Is a device of the pool about to serve, or may one be: it is being opened, or its node has not been back since this server started, and that is not long ago? */
bool cluster_space_may_come(struct cluster *c, uint32_t pool);

/* The address of an export for clients: "nbd://HOST:PORT/NAME" or "nbd+unix:///NAME?socket=PATH". */
enum { CLUSTER_URI_LEN = 4 * IOE_ADDR_MAX + NAME_LEN_MAX + 32 };
void cluster_nbd_uri(const char *addr, const char *volume, char ret_uri[CLUSTER_URI_LEN]);

/* ---- joining (join.c) -------------------------------------------------------------------------------------------------------------------- */

/* A hello. msg is taken. The session is welcomed or refused, in its turn. */
void cluster_hello(struct cluster *c, struct session *s, uint64_t id, Strata__Hello *msg);
/* Can the device of this node (NULL: a new one) have heard of that commit? If not the database went back in time, and nothing is served any more. */
bool cluster_knows_commit(struct cluster *c, const struct cluster_node *node, const char *name,
			  const Strata__DeviceInfo *i);
/* The nodes had their moment: hellos are answered from now on. */
void cluster_settled(struct cluster *c);
/* Nobody is welcomed any more: hellos that wait are refused, so that their sessions can end. */
void cluster_stopping(struct cluster *c);
/* True when every node that the registry knows has said hello: no need to wait longer. */
bool cluster_all_said_hello(const struct cluster *c);
/* A joined session is lost. */
void cluster_node_lost(struct cluster *c, struct cluster_node *n);

/* What the server makes of one device that a node has: one after the other, so that none gets two numbers. `done` from the loop, maybe inline. On
 * success the device is ATTACHING, and wants to be attached, unless it was OK. */
struct cluster_admit {
	struct list link;
	struct cluster *c;
	struct cluster_node *node;
	const Strata__DeviceInfo *info; /* must live until done */
	struct cluster_pool
	    *pool; /* for a new one; NULL: the first with its chunk size. Not removed until done */
	void (*done)(struct cluster_admit *op);
	int status; /* the verdict */
	char errmsg[ERRMSG_LEN];
	struct cluster_device *device; /* NULL: not registered */
	/* private */
	struct san_device_add add;
	struct san_cgen_raise raise;
	struct metastore_change change;
	struct codec_record *record;
};
void cluster_admit(struct cluster_admit *op);

/* The node's picture of the others, to be freed with cluster_config_free(). */
Strata__Config *cluster_config_new(struct cluster *c);
void cluster_config_free(Strata__Config *m);
void cluster_config_push(struct cluster *c); /* to all that joined */

/* ---- keeping devices up to date -------------------------------------------------------------------------------------------------------- */

/* The devices of the node that want to be attached are. */
void cluster_attach(struct cluster *c, struct cluster_node *n);

/* Every device that can be reached knows {volume, epoch, head} when done runs (from the loop, not inline). */
struct cluster_fence {
	struct cluster *c;
	struct san_volume volume;
	void (*done)(struct cluster_fence *op);
	uint32_t pending;
	struct ioe_req nop;
};
void cluster_fence(struct cluster_fence *op);

/* Takes a volume from an owner that is away: it is closed in its name, and the next open gets a new epoch, which every device learns before it executes
 * anything of that epoch (fence.c, attach.c, or by the request itself). An owner that is only cut off from here goes on at the old epoch with those
 * devices that have not heard of the new one, and with nobody else's consent: nothing that the new owner wrote is touched by it, because both reach
 * a block through the one device that has it. `done` from the loop, not inline. */
struct cluster_takeover {
	struct cluster *c;
	volume_id volume;
	uint64_t min_away_ns; /* -E_IN_USE while the owner has not been away that long, or is online */
	void (*done)(struct cluster_takeover *op);
	int status; /* 0 too when nobody had it open; -ENOENT, -E_IN_USE, what the SAN says */
	char errmsg[ERRMSG_LEN];
	struct san_volume was; /* as it was when its owner was looked at */
	/* private */
	struct san_volume_get get;
	struct san_volume_close close;
};
void cluster_takeover(struct cluster_takeover *op);

/* The volume changed (its size): its owner is told, now or when it joins. */
void cluster_volume_news(struct cluster *c, const struct san_volume *v);

/* A layer's header changed, or is gone (san_callbacks.on_layer). */
void cluster_layer_changed(struct cluster *c, layer_id layer, uint64_t commit, bool gone);
/* Drops the records of layers that are gone from a device that serves: it may have missed that. At most one sweep of a device at a time. */
void cluster_layers_sweep(struct cluster *c, struct cluster_device *d);
/* The devices that keep a layer's record: up to two of the members, chosen by hash so that few change when devices come and go. */
uint32_t cluster_layer_holders(struct cluster *c, layer_id layer,
			       struct cluster_device *ret_holders[CLUSTER_LAYER_COPIES]);

void cluster_layer_describe(const struct san_layer *l, Strata__LayerRecord *ret_r);

/* The device has something to free (san_callbacks.on_frees), or has become OK. */
void cluster_frees(struct cluster *c, device_no dev);

/* ---- changing (change.c) ---------------------------------------------------------------------------------------------------------------- */

struct cluster_device_add {
	struct cluster *c;
	struct cluster_node *node;
	struct cluster_pool *pool;
	const char *path; /* until done */
	uint64_t size_bytes;
	bool force;
	void (*done)(struct cluster_device_add *op);
	int status; /* -E_DEVICE_GONE: the node is away */
	char errmsg[ERRMSG_LEN];
	struct cluster_device *device;
	/* private */
	struct list link;
	Strata__DeviceInfo info;
	struct uuid uuid;
	struct session *session;
	struct session_call *call;
	struct cluster_admit admit;
	struct ioe_req nop;
};
/* Formats it on its node, registers it, and waits until it serves. */
void cluster_device_add(struct cluster_device_add *op);
/* Tells a node to let go of a device and strike it off its list: it was removed, or another node has it. */
void cluster_device_disown(struct session *s, const struct uuid *uuid);
/* What a node that is told so does not need to say again: the device is missing there because it was moved. */
static inline bool cluster_was_moved(const struct cluster_admit *a)
{
	return a->status == -EEXIST && a->info->failed;
}
/* The presence of a device is decided: whoever waits for it goes on. */
void cluster_device_decided(struct cluster *c, struct cluster_device *d);

struct cluster_device_remove {
	struct cluster *c;
	struct cluster_device *device;
	bool lost;
	void (*done)(struct cluster_device_remove *op);
	int status; /* -ENOTEMPTY; -EBUSY (lost: it works; else: it is away); what the SAN says */
	char errmsg[ERRMSG_LEN];
	uint32_t job; /* lost: the job */
	/* private */
	struct list link;
	struct san_device_remove remove;
	struct san_device_lose lose;
	struct metastore_change also[SAN_RECORDS_MAX];
	struct codec_record *records;
	struct ioe_req nop;
};
void cluster_device_remove(struct cluster_device_remove *op);

/* ---- leaving (leave.c) ------------------------------------------------------------------------------------------------------------------ */

struct cluster_node_remove {
	struct cluster *c;
	struct cluster_node *node; /* gone after `done` of a removal that succeeded */
	void (*done)(struct cluster_node_remove *op);
	int status; /* -E_IN_USE: it is online, or has a volume open; -ENOTEMPTY: it has devices; -EAGAIN; what the SAN says */
	char errmsg[ERRMSG_LEN];
	/* private */
	struct san_node_leave leave;
	struct metastore_change change;
	struct codec_record *record;
	struct ioe_req nop;
};
void cluster_node_remove(struct cluster_node_remove *op);

/* ---- pools (pool.c) --------------------------------------------------------------------------------------------------------------------- */

/* The chunk size that suits a kind of disk, and the other way round. */
uint32_t cluster_media_chunk_shift(enum cluster_media media);
enum cluster_media cluster_media_of(uint32_t chunk_shift);

struct cluster_pool_create {
	struct cluster *c;
	const char *name; /* a valid one; until done */
	enum cluster_media media;
	uint32_t chunk_shift;
	void (*done)(struct cluster_pool_create *op);
	int status; /* -EEXIST; -EBUSY: there are CLUSTER_POOLS_MAX; what the SAN says */
	char errmsg[ERRMSG_LEN];
	struct cluster_pool *pool;
	/* private */
	struct san_records records;
	struct metastore_change change;
	struct codec_record *record;
	struct ioe_req nop;
};
void cluster_pool_create(struct cluster_pool_create *op);

struct cluster_pool_remove {
	struct cluster *c;
	struct cluster_pool *pool; /* gone after `done` of a removal that succeeded */
	void (*done)(struct cluster_pool_remove *op);
	int status; /* -ENOTEMPTY; -EBUSY; -EINVAL: it is the default one; what the SAN says */
	char errmsg[ERRMSG_LEN];
	/* private */
	struct san_pool_leave leave;
	struct metastore_change change;
	struct codec_record *record;
	struct ioe_req nop;
};
void cluster_pool_remove(struct cluster_pool_remove *op);

#endif
