/* SPDX-License-Identifier: Apache-2.0 */
/* up.h - what the parts of `strata up` share. */
#ifndef STRATA_TOOLS_CLI_UP_H
#define STRATA_TOOLS_CLI_UP_H

#include <limits.h>

#include "tools/cli/cli.h"
#include "tools/cli/supervise.h"

enum { NODES_MAX = 32, DEVICES_PER_NODE_MAX = 64 };

struct up {
	struct cli *c;
	char dir[PATH_MAX]; /* absolute */
	int lock_fd;
	uint64_t nodes_n, devices_n, device_bytes;
	const char *engine;
	const char *const *nbd;
	int nbd_n;
	const char *const *api;
	int api_n;
	bool told; /* that it is ready */
	struct supervisor sup;
	struct child children[1 + NODES_MAX]; /* metad, then the nodes */
	/* LATE: refused, or it ended before it served; it may still come. INCOMPLETE: a device of it could not be made, which the next start tries again. */
	enum up_node { NODE_AWAITED, NODE_SERVES, NODE_LATE, NODE_INCOMPLETE } nodes[1 + NODES_MAX];
};

/* up_options.c: EXIT_OK or EXIT_USAGE */
int up_options(struct up *u);
/* up_dir.c: takes the directory for this process, and makes what is missing in it. Not 0 after printing why not. */
int up_dir(struct up *u);
/* The node has never been started to the end: its file `setup` says how many devices it is to have. */
bool up_node_is_new(const struct up *u, uint64_t k);
/* up_children.c: the command lines of the daemons. */
void up_describe_metad(struct up *u);
void up_describe_node(struct up *u, uint64_t k);
/* up_devices.c: makes the devices that a new node is to have. 0, -EINTR when this process is to end, -errno after printing what is wrong. */
int up_devices(struct up *u, uint64_t k);

#endif
