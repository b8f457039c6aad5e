/* SPDX-License-Identifier: Apache-2.0 */
/* operator_private.h - between operator.c (volumes) and operator_devices.c. */
#ifndef STRATA_TESTS_SIM_OPERATOR_PRIVATE_H
#define STRATA_TESTS_SIM_OPERATOR_PRIVATE_H

#include "tests/sim/operator.h"

/* A question to the administration. When the server dies it is forgotten, not freed: its end may still be told to it. */
struct operator_call {
	struct admin_req req;
	bool done;
};

struct operator_call *operator_call_new(const char *subject); /* which outlives it */
void operator_call_free(struct operator_call *c);

void operator_devices_step(struct world *w, bool may_begin);
bool operator_devices_idle(const struct world *w);
void operator_devices_metad_died(struct world *w);

#endif
