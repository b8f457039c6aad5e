/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/sim_fixture.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define WAIT_NS ((uint64_t)600 * 1000 * 1000 * 1000)

static void on_kill(void *arg)
{
	struct sim_fixture *fx = arg;

	fx->e = NULL;
	fx->kills++;
}

void sim_fixture_init_config(struct sim_fixture *fx, const struct sim_config *cfg)
{
	fx->w = sim_world_new(cfg);
	fx->m = sim_machine_new(fx->w, "m1");
	fx->kills = 0;
	sim_fixture_restart(fx);
}

void sim_fixture_init(struct sim_fixture *fx, uint64_t seed)
{
	sim_fixture_init_config(fx, &(struct sim_config){.seed = seed});
}

void sim_fixture_free(struct sim_fixture *fx)
{
	sim_world_free(fx->w);
}

void sim_fixture_kill(struct sim_fixture *fx)
{
	sim_kill(fx->e);
}

void sim_fixture_power_loss(struct sim_fixture *fx)
{
	sim_power_loss(fx->m);
}

void sim_fixture_restart(struct sim_fixture *fx)
{
	fx->e = sim_process_new(fx->m, "p", on_kill, fx);
}

void sim_wait_done(struct ioe_req *r)
{
	container_of(r, struct sim_wait, req)->is_done = true;
}

void sim_run_until(struct sim_world *w, const bool *flag)
{
	uint64_t end_ns = sim_now_ns(w) + WAIT_NS;

	while (!*flag) {
		if (!sim_step(w))
			fail_msg("the world came to rest before it happened");
		if (sim_now_ns(w) > end_ns)
			fail_msg("it did not happen in ten virtual minutes");
	}
}

int sim_wait(struct sim_fixture *fx, struct sim_wait *wait)
{
	sim_run_until(fx->w, &wait->is_done);
	wait->is_done = false;
	return wait->req.status;
}

int sim_read(struct sim_fixture *fx, struct ioe_file *f, uint64_t off, void *buf, uint64_t len)
{
	struct sim_wait wait = {0};

	ioe_read(fx->e, &wait.req, f, off, buf, len, sim_wait_done);
	return sim_wait(fx, &wait);
}

int sim_write(struct sim_fixture *fx, struct ioe_file *f, uint64_t off, const void *buf,
	      uint64_t len)
{
	struct sim_wait wait = {0};

	ioe_write(fx->e, &wait.req, f, off, buf, len, sim_wait_done);
	return sim_wait(fx, &wait);
}

int sim_fsync(struct sim_fixture *fx, struct ioe_file *f)
{
	struct sim_wait wait = {0};

	ioe_fsync(fx->e, &wait.req, f, sim_wait_done);
	return sim_wait(fx, &wait);
}

int sim_punch(struct sim_fixture *fx, struct ioe_file *f, uint64_t off, uint64_t len)
{
	struct sim_wait wait = {0};

	ioe_punch(fx->e, &wait.req, f, off, len, sim_wait_done);
	return sim_wait(fx, &wait);
}

void sim_sleep(struct sim_fixture *fx, uint64_t ns)
{
	struct sim_wait wait = {0};

	ioe_timer(fx->e, &wait.req, ioe_now_ns(fx->e) + ns, sim_wait_done);
	sim_wait(fx, &wait);
}

struct ioe_file *sim_file_make(struct sim_fixture *fx, const char *path, uint64_t size_bytes)
{
	char errmsg[ERRMSG_LEN];
	struct ioe_file *f = NULL;

	if (ioe_file_open(fx->e, path, IOE_OPEN_CREATE | IOE_OPEN_LOCK, &f, errmsg))
		fail_msg("%s", errmsg);
	assert_int_equal(ioe_file_resize(fx->e, f, size_bytes), 0);
	return f;
}
