/* SPDX-License-Identifier: Apache-2.0 */
/* operator.h - who administers the cluster meanwhile: volumes grow while they are used, or are released from a node that is away; others are deleted, and
 * made again under the same name. Disks come, and go again (operator_devices.c).
 *
 *   NORMAL -> (grow: asked for until it is done; release: once) -> NORMAL
 *   NORMAL -> LEAVING (its clients do) -> DELETING -> CREATING -> NORMAL
 *
 * A question that died with the metadata server is asked again: it was executed or not. */
#ifndef STRATA_TESTS_SIM_OPERATOR_H
#define STRATA_TESTS_SIM_OPERATOR_H

#include "tests/sim/world.h"

void operator_step(struct world *w, bool may_begin); /* before each event */
bool operator_is_idle(const struct world *w);
uint32_t operator_devices_n(const struct world *w); /* that it added, and did not take out */
void operator_metad_died(struct world *w);

#endif
