/* SPDX-License-Identifier: Apache-2.0 */
/* control.h - the node's end of the control protocol (src/wire/control.proto).
 *
 *   OPENING (devices are replayed, at most a second is waited for) -> DIALING -> HELLO -> JOINED --(link lost)--> DIALING ...
 *
 * Keeps the node's identity (DIR/identity: its uuid, and the cluster's once it has joined one), says hello with the devices, executes what the
 * metadata server pushes, and reports devices that come, fail or move on. The calls of the volume runtime (meta_client.h) use the same
 * connection, while JOINED.
 *
 * Devices are served from the first Serve on, and go on being served while the metadata server is away. A device hears of commit numbers only
 * while it is attached (brought up to date in this session), so that "has heard of commit N" implies "has every record up to N". */
#ifndef STRATA_IO_PATH_NODE_CONTROL_H
#define STRATA_IO_PATH_NODE_CONTROL_H

#include "io-path/node/devices.h"
#include "src/wire/control.h"
#include "src/wire/dial.h"

struct control;
struct control_metrics;
struct control_clients;

/* A load to run on a volume (src/wire/control.proto, VolumeBench). `done` once. */
struct control_bench {
	const Strata__VolumeBench *what;
	void (*done)(struct control_bench *b);
	int status;
	char errmsg[ERRMSG_LEN];
	Strata__VolumeBenched result; /* numbers only */
};

struct meta_client;

struct control_config {
	struct ioe *ioe;
	const char *dir;
	const char *name;
	const char *const *metad; /* addresses of the metadata server */
	uint32_t metad_n;
	const struct auth_key *key; /* NULL: no TCP */
	struct uuid process;	    /* of this start; zero: one is made */
	/* own addresses, as told to others; borrowed */
	const char *const *nbd, *const *peer;
	uint32_t nbd_n, peer_n;
	struct devices *
	    devices; /* its changed and event callbacks must be control_device_changed and _event, arg the control */
	struct node_store *store;
	struct meta_client *client; /* NULL: none */
	/* once: the node has joined and each device that is open is served or refused */
	void (*ready)(void *arg);
	/* the metadata server does not take this node, for a reason that is news; may be NULL */
	void (*refused)(void *arg, const char *errmsg);
	/* who is where: valid during the call */
	void (*config)(void *arg, const Strata__Config *config);
	/* fill in counters with control_metric(); volume 0: everything */
	void (*stats)(void *arg, struct control_metrics *m, volume_id volume);
	/* NULL: this node runs no loads */
	void (*bench)(void *arg, struct control_bench *b);
	/* name all who have volumes open with control_client(); NULL: there are none */
	void (*clients)(void *arg, struct control_clients *cs);
	void *arg;
	uint64_t report_ns; /* how often devices' lsn is reported; 0: 30 s */
	uint64_t keepalive_ns;
};

struct control {
	struct control_config cfg;
	struct uuid node, cluster, process;
	node_no number; /* 0 before the first Welcome */
	enum { CONTROL_OPENING, CONTROL_DIALING, CONTROL_GREETING, CONTROL_JOINED } state;
	struct dialer dialer;
	bool dialing, ready, closing;
	uint64_t session; /* grows with each connection */
	struct conn_call hello;
	struct list pushes;	/* being executed */
	struct list happenings; /* to be told */
	uint32_t happenings_n;
	struct ioe_req timer;
	bool timing;
	char refusal[ERRMSG_LEN]; /* why the metadata server did not welcome us; "" */
	void (*closed)(void *arg);
	void *closed_arg;
};

/* Reads or makes the identity, opens the devices, and begins to dial. */
int control_open(struct control *c, const struct control_config *cfg, char errmsg[ERRMSG_LEN]);
/* Two-phase. What was pushed and is under way on a device finishes first. */
void control_close(struct control *c, void (*done)(void *arg), void *arg);

/* For struct devices_config. */
void control_device_changed(void *arg, struct node_device *d);
void control_device_event(void *arg, struct node_device *d, const char *what, const char *text);

/* An event for the operator: kept (up to a bound) until the metadata server has it. severity: "info", "warning", "error". */
void control_happened(struct control *c, const char *severity, const char *code, device_no dev,
		      const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* A commit number came with an answer: devices that are attached hear of it. */
void control_heard(struct control *c, uint64_t commit);

static inline bool control_is_joined(const struct control *c)
{
	return c->state == CONTROL_JOINED && dialer_is_up(&c->dialer);
}

/* labels: name, value, name, value, ... labels_n of them; everything is copied. Out of memory: left out. */
void control_metric(struct control_metrics *m, const char *name, bool gauge, const char *help,
		    uint64_t value, const char *const *labels, uint32_t labels_n);

/* Somebody who has the volume open; copied. Volumes that were not asked for are left out. */
void control_client(struct control_clients *cs, volume_id volume, const char *name, bool read_only);

#endif
