/* SPDX-License-Identifier: Apache-2.0 */
/* sim_fixture.h - the smallest simulated world: one machine, one process; and waiting for requests in it.
 *
 *   struct sim_fixture fx;
 *   sim_fixture_init(&fx, seed);
 *   r = sim_write(&fx, file, 0, buf, 4096);           synchronous: runs the world until the request is done
 *   ioe_fsync(fx.e, &w.req, file, sim_wait_done); r = sim_wait(&fx, &w);      or in two steps
 *   sim_fixture_free(&fx);
 *
 * Waiting fails the test when the world has nothing left to do, or ten virtual minutes have passed, before the request is done. */
#ifndef STRATA_TESTS_LIB_SIM_FIXTURE_H
#define STRATA_TESTS_LIB_SIM_FIXTURE_H

#include "src/ioe/ioe_sim.h"

struct sim_fixture {
	struct sim_world *w;
	struct sim_machine *m;
	struct ioe *e; /* NULL after a kill or power loss, until sim_fixture_restart() */
	uint32_t kills;
};

void sim_fixture_init(struct sim_fixture *fx, uint64_t seed);
void sim_fixture_init_config(struct sim_fixture *fx, const struct sim_config *cfg);
void sim_fixture_free(struct sim_fixture *fx);
void sim_fixture_kill(struct sim_fixture *fx);
void sim_fixture_power_loss(struct sim_fixture *fx);
void sim_fixture_restart(struct sim_fixture *fx); /* a new process on the machine */

/* A request that remembers that it is done. Not a stack frame's: it lives until the completion. */
struct sim_wait {
	struct ioe_req req;
	bool is_done;
};
void sim_wait_done(struct ioe_req *r);			     /* the `done` to submit it with */
int sim_wait(struct sim_fixture *fx, struct sim_wait *wait); /* runs until it is done: its status */
/* Runs until *flag; fails the test when that cannot happen. */
void sim_run_until(struct sim_world *w, const bool *flag);

int sim_read(struct sim_fixture *fx, struct ioe_file *f, uint64_t off, void *buf, uint64_t len);
int sim_write(struct sim_fixture *fx, struct ioe_file *f, uint64_t off, const void *buf,
	      uint64_t len);
int sim_fsync(struct sim_fixture *fx, struct ioe_file *f);
int sim_punch(struct sim_fixture *fx, struct ioe_file *f, uint64_t off, uint64_t len);
void sim_sleep(struct sim_fixture *fx, uint64_t ns); /* lets virtual time pass */
/* A new file of this size, opened and locked. */
struct ioe_file *sim_file_make(struct sim_fixture *fx, const char *path, uint64_t size_bytes);

#endif
