/* SPDX-License-Identifier: Apache-2.0 */
/* executor.h - executes administration requests (admin.h) on the loop.
 *
 *   exec.c           what is asked of whom, and when; the end
 *   exec_cluster.c   status, nodes, pools
 *   exec_device.c    devices
 *   exec_volume.c    volumes and exports
 *   exec_map.c       where a range of a volume lies, through the three layers
 *   exec_stats.c     counters of volumes and nodes, metrics
 *   exec_bench.c     a load on a volume, run by the node that has it
 *   exec_job.c       jobs, events, check, backup
 *   exec_once.c      requests with a key that an earlier process of the server has done
 *
 * Requests that come before the cluster has settled wait for that; status, events and metrics do not. */
#ifndef STRATA_METADATA_API_EXECUTOR_H
#define STRATA_METADATA_API_EXECUTOR_H

#include "metadata/api/admin.h"
#include "metadata/cluster/cluster.h"

struct admin {
	struct cluster *cluster;
	struct jobs *jobs;
	uint64_t started_wall_ns;
	struct list waiting; /* for the cluster to settle */
	uint32_t running;
	bool stopping;
	void (*stopped)(void *arg);
	void *stopped_arg;
	struct ioe_req nop;
};

void admin_init(struct admin *a, struct cluster *c, struct jobs *j);
/* The cluster has settled: what waited is executed (or refused). */
void admin_settled(struct admin *a);
/* From now on requests are answered `stopping`; `done` when those under way have been answered. */
void admin_stop(struct admin *a, void (*done)(void *arg), void *arg);

#endif
