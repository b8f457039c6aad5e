/* SPDX-License-Identifier: Apache-2.0 */
/* ioe_fixture.h - one set of tests for all engines: each test runs once per engine it names, with a loop and a directory of its own.
 *
 *   static void writes_are_read_back(void **state) { struct ioe_fixture *fx = *state; ... }
 *   static const struct ioe_test tests[] = {{"writes are read back", writes_are_read_back, ON_ALL | ON_TMPFS}};
 *   int main(void) { return ioe_suite_run(tests, ARRAY_LEN(tests)); }
 *
 * At the end of each test nothing may be in flight; the fixture runs the loop a little and checks that no request completed twice. */
#ifndef STRATA_TESTS_LIB_IOE_FIXTURE_H
#define STRATA_TESTS_LIB_IOE_FIXTURE_H

#include "src/ioe/ioe.h"

enum {
	ON_URING = 1 << 0,
	ON_AIO = 1 << 1,
	ON_SIM = 1 << 2,
	ON_TMPFS = 1 << 3, /* once more with a directory on tmpfs, on the real engines named */
	ON_REAL = ON_URING | ON_AIO,
	ON_ALL = ON_REAL | ON_SIM,
};

struct ioe_test {
	const char *name;
	void (*fn)(void **state);
	unsigned where;
};
int ioe_suite_run(const struct ioe_test *tests, size_t n);

struct ioe_fixture {
	struct ioe *e;
	unsigned engine; /* ON_URING, ON_AIO or ON_SIM */
	bool on_tmpfs;
	char dir[64]; /* of this test alone; removed afterwards with what is in it */
	struct sim_world *world;
	struct sim_machine *machine;
};

/* A second loop of the same engine; in simulation another process on the same machine. Freed by ioe_free(). */
struct ioe *ioe_fixture_another(struct ioe_fixture *fx);
/* DIR/name, in one of a few static buffers */
const char *ioe_fixture_path(struct ioe_fixture *fx, const char *name);

/* A request that counts its completions. */
struct ioe_wait {
	struct ioe_req req;
	int calls;
};
void ioe_wait_done(struct ioe_req *r);
/* Runs the loop until the request has completed once: its status. Fails the test after 20 s, or when it never will. */
int ioe_wait_for(struct ioe_fixture *fx, struct ioe_wait *w);
/* Runs the loop until *n >= want. */
void ioe_wait_count(struct ioe_fixture *fx, const int *n, int want);
/* Runs the loop for so long, whatever happens. */
void ioe_run_for(struct ioe_fixture *fx, uint64_t ns);

/* One request, from submit to status. */
int ioe_sync_read(struct ioe_fixture *fx, struct ioe_file *f, uint64_t off, void *buf, uint64_t len);
int ioe_sync_write(struct ioe_fixture *fx, struct ioe_file *f, uint64_t off, const void *buf,
		   uint64_t len);
int ioe_sync_fsync(struct ioe_fixture *fx, struct ioe_file *f);
int ioe_sync_punch(struct ioe_fixture *fx, struct ioe_file *f, uint64_t off, uint64_t len);
int ioe_sync_send(struct ioe_fixture *fx, struct ioe_sock *s, const void *data, size_t len);
/* Receives until len bytes are there or the stream ends: bytes, or -errno */
int64_t ioe_sync_recv(struct ioe_fixture *fx, struct ioe_sock *s, void *buf, size_t len);
int ioe_sync_connect(struct ioe_fixture *fx, const char *addr, struct ioe_sock **ret_s);

/* A new file of this size in the test's directory, open for reading and writing. */
struct ioe_file *ioe_fixture_file(struct ioe_fixture *fx, const char *name, uint64_t size_bytes);
/* Two ends of a connection to a listener on addr ("unix" stands for a socket in the test's directory). */
void ioe_fixture_pair(struct ioe_fixture *fx, const char *addr, struct ioe_sock *ret_ends[2]);

#endif
