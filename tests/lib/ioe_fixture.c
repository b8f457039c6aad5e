/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/ioe_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "src/base/mem.h"
#include "src/ioe/engine.h"
#include "src/ioe/ioe_sim.h"

#define PATIENCE_NS ((uint64_t)20 * 1000 * 1000 * 1000)
enum { TESTS_MAX = 512 };

/* Where a test can run. */
static const struct place {
	const char *name, *dir;
	unsigned engine;
	bool on_tmpfs;
} places[] = {
    {"uring", "/tmp", ON_URING, false},
    {"aio", "/tmp", ON_AIO, false},
    {"uring, tmpfs", "/dev/shm", ON_URING, true},
    {"aio, tmpfs", "/dev/shm", ON_AIO, true},
    {"sim", "", ON_SIM, false},
};

/* ---- suite ------------------------------------------------------------------------------------------------------------ */

static struct ioe *engine_new(struct ioe_fixture *fx)
{
	struct ioe_config cfg = {.kind = fx->engine == ON_URING ? IOE_URING : IOE_AIO,
				 .depth = 16,
				 .workers = 2};
	struct ioe *e = NULL;

	if (fx->engine == ON_SIM)
		return sim_process_new(fx->machine, "p", NULL, NULL);
	return ioe_new(&cfg, &e) ? NULL : e;
}

struct ioe *ioe_fixture_another(struct ioe_fixture *fx)
{
	struct ioe *e = engine_new(fx);

	assert_non_null(e);
	return e;
}

static int setup(void **state)
{
	const struct place *p = *state;
	struct ioe_fixture *fx = mem_zalloc(sizeof(*fx));

	fx->engine = p->engine;
	fx->on_tmpfs = p->on_tmpfs;
	if (fx->engine == ON_SIM) {
		fx->world = sim_world_new(&(struct sim_config){.seed = 1});
		fx->machine = sim_machine_new(fx->world, "m");
		snprintf(fx->dir, sizeof(fx->dir), "/dir");
	} else {
		snprintf(fx->dir, sizeof(fx->dir), "%s/strata-ioe.XXXXXX", p->dir);
		if (!mkdtemp(fx->dir))
			return -1;
	}
	fx->e = engine_new(fx);
	*state = fx;
	return fx->e ? 0 : -1;
}

static int teardown(void **state)
{
	struct ioe_fixture *fx = *state;
	char command[128];

	if (fx->e->in_flight > 0) { /* a failed test: its requests lie on a stack that is gone */
		fprintf(stderr, "requests are still in flight\n");
		return -1;
	}
	ioe_run_for(
	    fx, 1000 * 1000); /* a second completion of anything would trip a check in the engine */
	ioe_free(fx->e);
	if (fx->world) {
		sim_world_free(fx->world);
	} else {
		snprintf(command, sizeof(command), "rm -rf '%s'", fx->dir);
		if (system(command))
			return -1;
	}
	mem_free(fx);
	return 0;
}

static bool place_works(const struct place *p)
{
	struct ioe_fixture fx = {.engine = p->engine};
	struct stat st;
	struct ioe *e;

	if (p->engine == ON_SIM)
		return true;
	e = stat(p->dir, &st) ? NULL : engine_new(&fx);
	if (!e)
		return false;
	ioe_free(e);
	return true;
}

int ioe_suite_run(const struct ioe_test *tests, size_t n)
{
	static struct CMUnitTest units[TESTS_MAX];
	static char names[TESTS_MAX][128];
	size_t k = 0;

	for (size_t p = 0; p < ARRAY_LEN(places); p++) {
		if (!place_works(&places[p])) {
			fprintf(stderr, "skipped: %s is not to be had here\n", places[p].name);
			continue;
		}
		for (size_t t = 0; t < n; t++) {
			if (!(tests[t].where & places[p].engine) ||
			    (places[p].on_tmpfs && !(tests[t].where & ON_TMPFS)))
				continue;
			check(k < TESTS_MAX);
			snprintf(names[k], sizeof(names[k]), "%s: %s", places[p].name,
				 tests[t].name);
			units[k] = (struct CMUnitTest){
			    .name = names[k],
			    .test_func = tests[t].fn,
			    .setup_func = setup,
			    .teardown_func = teardown,
			    .initial_state = (void *)(uintptr_t)&places[p],
			};
			k++;
		}
	}
	return _cmocka_run_group_tests("ioe", units, k, NULL, NULL);
}

const char *ioe_fixture_path(struct ioe_fixture *fx, const char *name)
{
	static char paths[16][128];
	static unsigned next;
	char *path = paths[next++ % 16];

	snprintf(path, sizeof(paths[0]), "%s/%s", fx->dir, name);
	return path;
}

/* ---- waiting ---------------------------------------------------------------------------------------------------------- */

void ioe_wait_done(struct ioe_req *r)
{
	container_of(r, struct ioe_wait, req)->calls++;
}

void ioe_wait_count(struct ioe_fixture *fx, const int *n, int want)
{
	uint64_t end_ns = ioe_now_ns(fx->e) + PATIENCE_NS;

	while (*n < want) {
		ioe_poll(fx->e, end_ns);
		if (*n < want && ioe_now_ns(fx->e) >= end_ns)
			fail_msg("%d of %d things happened", *n, want);
	}
	/* the end of the wait is a turn too: what should have woken the loop is found then */
	if (ioe_now_ns(fx->e) >= end_ns)
		fail_msg("a wake was lost");
}

int ioe_wait_for(struct ioe_fixture *fx, struct ioe_wait *w)
{
	ioe_wait_count(fx, &w->calls, 1);
	assert_int_equal(w->calls, 1);
	return w->req.status;
}

void ioe_run_for(struct ioe_fixture *fx, uint64_t ns)
{
	uint64_t end_ns = ioe_now_ns(fx->e) + ns;

	while (ioe_now_ns(fx->e) < end_ns)
		ioe_poll(fx->e, end_ns);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

int ioe_sync_read(struct ioe_fixture *fx, struct ioe_file *f, uint64_t off, void *buf, uint64_t len)
{
	struct ioe_wait w = {0};

	ioe_read(fx->e, &w.req, f, off, buf, len, ioe_wait_done);
	return ioe_wait_for(fx, &w);
}

int ioe_sync_write(struct ioe_fixture *fx, struct ioe_file *f, uint64_t off, const void *buf,
		   uint64_t len)
{
	struct ioe_wait w = {0};

	ioe_write(fx->e, &w.req, f, off, buf, len, ioe_wait_done);
	return ioe_wait_for(fx, &w);
}

int ioe_sync_fsync(struct ioe_fixture *fx, struct ioe_file *f)
{
	struct ioe_wait w = {0};

	ioe_fsync(fx->e, &w.req, f, ioe_wait_done);
	return ioe_wait_for(fx, &w);
}

int ioe_sync_punch(struct ioe_fixture *fx, struct ioe_file *f, uint64_t off, uint64_t len)
{
	struct ioe_wait w = {0};

	ioe_punch(fx->e, &w.req, f, off, len, ioe_wait_done);
	return ioe_wait_for(fx, &w);
}

int ioe_sync_send(struct ioe_fixture *fx, struct ioe_sock *s, const void *data, size_t len)
{
	struct iovec iov = {(void *)(uintptr_t)data, len};
	struct ioe_wait w = {0};

	ioe_send(fx->e, &w.req, s, &iov, 1, ioe_wait_done);
	return ioe_wait_for(fx, &w);
}

int64_t ioe_sync_recv(struct ioe_fixture *fx, struct ioe_sock *s, void *buf, size_t len)
{
	size_t have = 0;

	while (have < len) {
		struct iovec iov = {(char *)buf + have, len - have};
		struct ioe_wait w = {0};

		ioe_recv(fx->e, &w.req, s, &iov, 1, ioe_wait_done);
		if (ioe_wait_for(fx, &w))
			return w.req.status;
		if (w.req.got == 0)
			break;
		have += w.req.got;
	}
	return (int64_t)have;
}

int ioe_sync_connect(struct ioe_fixture *fx, const char *addr, struct ioe_sock **ret_s)
{
	struct ioe_wait w = {0};
	int r;

	ioe_connect(fx->e, &w.req, addr, ioe_wait_done);
	r = ioe_wait_for(fx, &w);
	if (!r)
		*ret_s = w.req.ret_sock;
	return r;
}

struct ioe_file *ioe_fixture_file(struct ioe_fixture *fx, const char *name, uint64_t size_bytes)
{
	char errmsg[ERRMSG_LEN];
	struct ioe_file *f = NULL;

	if (ioe_file_open(fx->e, ioe_fixture_path(fx, name), IOE_OPEN_CREATE, &f, errmsg))
		fail_msg("%s", errmsg);
	assert_int_equal(ioe_file_resize(fx->e, f, size_bytes), 0);
	return f;
}

void ioe_fixture_pair(struct ioe_fixture *fx, const char *addr, struct ioe_sock *ret_ends[2])
{
	char where[IOE_ADDR_MAX], errmsg[ERRMSG_LEN];
	struct ioe_wait accepted = {0}, connected = {0};
	struct ioe_sock *listener;

	if (!strcmp(addr, "unix"))
		snprintf(where, sizeof(where), "unix:%s/pair", fx->dir);
	else
		snprintf(where, sizeof(where), "%s", addr);
	if (ioe_listen(fx->e, where, &listener, errmsg))
		fail_msg("%s", errmsg);
	ioe_sock_addr(listener, where);
	ioe_accept(fx->e, &accepted.req, listener, ioe_wait_done);
	ioe_connect(fx->e, &connected.req, where, ioe_wait_done);
	assert_int_equal(ioe_wait_for(fx, &connected), 0);
	assert_int_equal(ioe_wait_for(fx, &accepted), 0);
	ret_ends[0] = connected.req.ret_sock;
	ret_ends[1] = accepted.req.ret_sock;
	ioe_sock_close(fx->e, listener);
}
