/* SPDX-License-Identifier: Apache-2.0 */
/* devices.h - the devices of this node: which ones there are, opening them, taking one in, letting one go.
 *
 *   ABSENT --(open)--> OPENING --> OPEN (known to the node, not served) --(devices_serve)--> SERVING
 *     ^                   |                                                                    |
 *     +--(again in 10 s)--+                        any --> FAILED (out of service; stays until it is removed or the process ends)
 *
 * The list is the file DIR/devices: a line "UUID PATH" each, replaced as a whole. A device that cannot be opened (its disk is not there yet, an older
 * process holds it) is tried again every ten seconds. Devices are known by uuid, not by path: when another one is found at a path, nothing is written to
 * it, and if that one is on the list and not where it was either, the two change paths: that is what disks do at a reboot. */
#ifndef STRATA_IO_PATH_NODE_DEVICES_H
#define STRATA_IO_PATH_NODE_DEVICES_H

#include "io-path/device/device.h"
#include "io-path/node/node_store.h"

enum node_device_state {
	NODE_DEVICE_ABSENT,
	NODE_DEVICE_OPENING,
	NODE_DEVICE_OPEN,
	NODE_DEVICE_SERVING,
	NODE_DEVICE_FAILED,
	NODE_DEVICE_CLOSING,
};

struct node_device {
	struct list link;
	struct devices *owner;
	enum node_device_state state;
	struct uuid uuid;
	char *path, *ring_path;
	struct device *dev; /* OPEN, SERVING, CLOSING; FAILED too when it failed after it was open */
	device_no no;	    /* SERVING */
	char errmsg[ERRMSG_LEN]; /* ABSENT, FAILED: why */
	/* control.c's: */
	bool attached;	   /* the metadata server has brought it up to date in this session */
	bool told;	   /* it knows the device in this session, */
	bool told_failed;  /* ... and that it failed */
	bool refused;	   /* by the metadata server; errmsg says why */
	bool admitted;	   /* ... in this session not: what is told to all devices is told to it */
	uint64_t told_lsn; /* stable lsn it was last told */
	bool told_no_space;
	uint64_t told_fs_free_bytes;
	/* private */
	struct device_open *open;
	struct ioe_req retry;
	bool retrying;
	struct uuid found; /* ABSENT: which other device of the cluster was at `path`; zero: none */
	struct devices_remove *remove;
	struct devices_add *add; /* waits for it to be opened at its new path */
};

struct devices_config {
	struct ioe *ioe;
	const char *dir;	 /* where the list is; must live as long */
	const char *runtime_dir; /* for restart rings; NULL: none */
	struct node_store *store;
	/* a device became OPEN, FAILED, was given up, or has no space under it (any more): tell the metadata server. Not called for results of devices_add. */
	void (*changed)(void *arg, struct node_device *d);
	/* what a device had to say: `what` is a stable word */
	void (*event)(void *arg, struct node_device *d, const char *what, const char *text);
	void *arg;
};

struct devices {
	struct devices_config cfg;
	struct uuid cluster; /* zero: not known; then no device is opened */
	struct list list;
	struct list adds; /* being executed */
	uint32_t n;
	uint32_t busy; /* opens, adds, removes and closes under way */
	struct ioe_req nop;
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

enum { DEVICES_HERE_MAX = 1024 };

/* Reads the list. 0, -errno, or -EINVAL with the line in errmsg. */
int devices_init(struct devices *ds, const struct devices_config *cfg, char errmsg[ERRMSG_LEN]);
/* The cluster is known: opens them all. */
void devices_open_all(struct devices *ds, const struct uuid *cluster);
/* True when none is OPENING any more. */
bool devices_settled(const struct devices *ds);

/* Formats the device (takes it as it is when it is a device of this cluster: an earlier attempt was interrupted, or the disk was moved here), opens
 * it and puts it on the list. One that is on the list and not there is looked for at the new path from then on. -EEXIST: it is on the list and open;
 * -E_FOREIGN, -E_IN_USE, ... as device_format(). */
struct devices_add {
	struct list link;
	struct devices *ds;
	char *path; /* mem_*, taken */
	uint64_t size_bytes;
	uint32_t chunk_shift;
	bool force;
	void (*done)(struct devices_add *op);
	void *arg;
	int status;
	char errmsg[ERRMSG_LEN];
	struct node_device *device;
	struct device_format format;
	struct device_open open;
	struct node_device *made;
	struct ioe_req nop;
};
void devices_add(struct devices *ds, struct devices_add *op);

/* Closes it and strikes it off the list. 0 also when it is not there. */
struct devices_remove {
	struct devices *ds;
	struct uuid uuid;
	void (*done)(struct devices_remove *op);
	void *arg;
	int status;
	char errmsg[ERRMSG_LEN];
	struct ioe_req nop;
};
void devices_remove(struct devices *ds, struct devices_remove *op);

/* From now on requests reach it under this number, which is written to it when it has none. -EEXIST: it has another; -E_DEVICE_FAILED;
 * -E_DEVICE_GONE: it is not open here. */
struct devices_serve {
	struct devices *ds;
	struct uuid uuid;
	device_no no;
	void (*done)(struct devices_serve *op);
	void *arg;
	int status;
	struct ioe_req nop;
};
void devices_serve(struct devices *ds, struct devices_serve *op);
/* The metadata server refuses it: not served (any more). */
void devices_withdraw(struct node_device *d);

struct node_device *devices_by_uuid(struct devices *ds, const struct uuid *uuid);
struct node_device *devices_by_no(struct devices *ds,
				  device_no no); /* SERVING, or open with this number */

/* Two-phase: closes them all (cleanly), then done. Requests must have ended before. */
void devices_close(struct devices *ds, void (*done)(void *arg), void *arg);
void devices_free(struct devices *ds);

#endif
