/* SPDX-License-Identifier: Apache-2.0 */
/* workers.h - threads that run what blocks. A request is handed over, run, and comes back to the loop as a message.
 *
 * Threads start when there is more work than idle threads, up to the maximum, and end only with the pool. They take no signals. */
#ifndef STRATA_IOE_WORKERS_H
#define STRATA_IOE_WORKERS_H

#include "src/ioe/ioe.h"

struct workers;

int workers_new(struct ioe *e, uint32_t threads_max, void (*run)(struct ioe_req *r),
		struct workers **ret_w);
void workers_free(struct workers *w); /* NULL is fine; nothing may be queued or running */
/* The pool's run(r) on a thread, which sets r->status; then r completes. Completes with an error when not even one thread can be
 * started. */
void workers_add(struct workers *w, struct ioe_req *r);
/* True: r had not begun and is the caller's again. False: it runs and will complete by itself. */
bool workers_take_back(struct workers *w, struct ioe_req *r);

#endif
