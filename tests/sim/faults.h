/* SPDX-License-Identifier: Apache-2.0 */
/* faults.h - what breaks, and what brings it back.
 *
 * Faults come after a random number of events of the world, so that they hit whatever is going on; what ends by itself (a process comes back, a
 * partition heals) does so after a random time. Everything chosen here comes from the harness's generator. */
#ifndef STRATA_TESTS_SIM_FAULTS_H
#define STRATA_TESTS_SIM_FAULTS_H

#include "tests/sim/world.h"

void faults_begin(struct world *w); /* the cluster is made: disks begin to ask */
/* Before each event. */
void faults_step(struct world *w);
/* Nothing breaks any more, everything that is down or cut comes back; what suffered is started again. Then client requests must succeed. */
void faults_heal(struct world *w);

/* ---- between faults.c and faults_disk.c ---- */
struct world_node *faults_node(struct world *w); /* any one */
uint64_t faults_down_ns(struct world *w);	 /* how long something is to last */
/* The time in ns from now; something happens then, so that what is due is noticed. */
uint64_t faults_until(struct world *w, uint64_t ns);

void faults_disk_begin(struct world *w);
bool faults_disk_do(struct world *w, enum fault kind); /* false: not now */
void faults_disk_ends(struct world *w);
void faults_disk_heal(struct world *w);

#endif
