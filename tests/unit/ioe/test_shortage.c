/* SPDX-License-Identifier: Apache-2.0 */
/* Engines that cannot be had, or had only in part: memory, descriptors, threads, io_uring itself. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "src/ioe/engine.h"
#include "tests/lib/ioe_fixture.h"
#include "tests/lib/skip.h"

static const enum ioe_kind kinds[] = {IOE_URING, IOE_AIO};

static void creation_without_memory(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
		struct ioe_config cfg = {.kind = kinds[k]};
		uint64_t live = mem_live(), n = 0;
		struct ioe *e = NULL;
		int r;

		do {
			mem_fail_at(n++, 1);
			r = ioe_new(&cfg, &e);
			mem_fail_at(UINT64_MAX, 0);
			assert_true(r == 0 || r == -ENOMEM);
			if (r)
				assert_int_equal(mem_live(), live);
		} while (r && n < 20);
		assert_int_equal(r, 0);
		assert_true(n >= 3);
		ioe_free(e);
		assert_int_equal(mem_live(), live);
	}
}

static void creation_without_descriptors(void **state)
{
	struct rlimit old;
	int first = dup(0);

	(void)state;
	close(first);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
		struct ioe_config cfg = {.kind = kinds[k]};
		int r = -1, check_fd;
		struct ioe *e;

		for (int spare = 0; spare < 8 && r; spare++) {
			struct rlimit few = {.rlim_cur = (rlim_t)(first + spare),
					     .rlim_max = old.rlim_max};

			assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
			r = ioe_new(&cfg, &e);
			assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
			if (!r) {
				ioe_free(e);
			} else {
				assert_int_equal(r, -EMFILE);
				check_fd = dup(0); /* nothing was left open */
				assert_int_equal(check_fd, first);
				close(check_fd);
			}
		}
		assert_int_equal(r, 0);
	}
}

/* A child of the program must not hold its devices, locks and connections. */
static void no_descriptor_outlives_an_exec(void **state)
{
	enum { FDS = 256 };
	bool inherited[FDS];
	char path[64], addr[80];

	(void)state;
	for (int fd = 0; fd < FDS; fd++)
		inherited[fd] = fcntl(fd, F_GETFD) >= 0;
	snprintf(path, sizeof(path), "/tmp/strata-ioe-exec.%d", (int)getpid());
	snprintf(addr, sizeof(addr), "unix:%s.sock", path);
	for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
		struct ioe_config cfg = {.kind = kinds[k]};
		struct ioe_wait accepted = {0}, connected = {0}, tcp = {0};
		struct ioe_sock *listener, *tcp_listener;
		struct ioe_file *f;
		struct ioe *e;
		char tcp_addr[IOE_ADDR_MAX];
		int dup_fd, n = 0;

		assert_int_equal(ioe_new(&cfg, &e), 0);
		assert_int_equal(ioe_file_open(e, path, IOE_OPEN_CREATE | IOE_OPEN_LOCK, &f, NULL),
				 0);
		assert_int_equal(ioe_listen(e, addr, &listener, NULL), 0);
		assert_int_equal(ioe_listen(e, "127.0.0.1:0", &tcp_listener, NULL), 0);
		assert_int_equal(ioe_sock_dup(tcp_listener, &dup_fd), 0);
		ioe_sock_addr(tcp_listener, tcp_addr);
		ioe_accept(e, &accepted.req, listener, ioe_wait_done);
		ioe_connect(e, &connected.req, addr, ioe_wait_done);
		ioe_connect(e, &tcp.req, tcp_addr, ioe_wait_done);
		while (!accepted.calls || !connected.calls || !tcp.calls)
			ioe_poll(e, UINT64_MAX);
		for (int fd = 0; fd < FDS; fd++) {
			int flags = inherited[fd] ? -1 : fcntl(fd, F_GETFD);

			n += flags >= 0;
			assert_true(flags < 0 || flags & FD_CLOEXEC);
		}
		assert_true(n >= 8);
		ioe_fd_close(dup_fd);
		ioe_sock_close(e, accepted.req.ret_sock);
		ioe_sock_close(e, connected.req.ret_sock);
		ioe_sock_close(e, tcp.req.ret_sock);
		ioe_sock_close(e, listener);
		ioe_sock_close(e, tcp_listener);
		ioe_file_close(e, f);
		assert_int_equal(ioe_unlink(e, path), 0);
		ioe_free(e);
		for (int fd = 0; fd < FDS; fd++)
			assert_int_equal(fcntl(fd, F_GETFD) >= 0, inherited[fd]);
	}
}

/* Forbids system calls to this process by seccomp, as container runtimes do. */
static void forbid(const int *calls, size_t n)
{
	struct sock_filter code[32] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0)};
	struct sock_fprog prog = {.filter = code};
	unsigned short len = 1;

	for (size_t i = 0; i < n; i++) {
		code[len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
							   (unsigned)calls[i], 0, 1);
		code[len++] =
		    (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	}
	code[len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	prog.len = len;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(77);
}

static void file_round_trip(struct ioe *e)
{
	static _Alignas(4096) char a[8192], b[8192];
	char path[64];
	struct ioe_wait w[4] = {0};
	uint64_t deadline_ns;
	struct ioe_file *f;
	int turns = 0;

	snprintf(path, sizeof(path), "/tmp/strata-ioe-shortage.%d", (int)getpid());
	memset(a, 'a', sizeof(a));
	check(ioe_file_open(e, path, IOE_OPEN_CREATE, &f, NULL) == 0);
	check(ioe_unlink(e, path) == 0);
	check(ioe_file_resize(e, f, sizeof(a)) == 0);
	ioe_write(e, &w[0].req, f, 0, a, sizeof(a), ioe_wait_done);
	while (!w[0].calls)
		ioe_poll(e, UINT64_MAX);
	ioe_fsync(e, &w[1].req, f, ioe_wait_done);
	ioe_read(e, &w[2].req, f, 0, b, sizeof(b), ioe_wait_done);
	while (!w[1].calls || !w[2].calls)
		ioe_poll(e, UINT64_MAX);
	check(w[0].req.status == 0 && w[1].req.status == 0 && w[2].req.status == 0);
	check(!memcmp(a, b, sizeof(a)));
	deadline_ns = ioe_now_ns(e) + 5 * 1000 * 1000;
	ioe_timer(e, &w[3].req, deadline_ns, ioe_wait_done);
	while (!w[3].calls)
		turns += ioe_poll(e, UINT64_MAX) >= 0;
	check(ioe_now_ns(e) >= deadline_ns && turns == 1);
	ioe_file_close(e, f);
}

static void in_child(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip_because("system calls cannot be forbidden here (seccomp)");
	assert_int_equal(status, 0);
}

static void child_without_uring(void)
{
	static const int calls[] = {SYS_io_uring_setup};
	struct ioe *e;

	forbid(calls, ARRAY_LEN(calls));
	check(ioe_new(&(struct ioe_config){.kind = IOE_URING}, &e) == -ENOSYS);
	check(ioe_new(&(struct ioe_config){.kind = IOE_AUTO}, &e) == 0);
	check(!strcmp(ioe_name(e), "aio"));
	file_round_trip(e);
	ioe_free(e);
}

static void without_io_uring_there_is_aio(void **state)
{
	(void)state;
	in_child(child_without_uring);
}

static void child_without_aio(void)
{
	static const int calls[] = {SYS_io_uring_setup, SYS_io_setup, SYS_epoll_pwait2};
	struct ioe *e;

	forbid(calls, ARRAY_LEN(calls));
	check(ioe_new(&(struct ioe_config){.kind = IOE_AUTO}, &e) == 0);
	file_round_trip(e);
	ioe_free(e);
}

static void without_libaio_there_are_threads(void **state)
{
	(void)state;
	in_child(child_without_aio);
}

static void nothing(struct ioe_req *r)
{
	(void)r;
}

static void child_without_threads(void)
{
	static const int calls[] = {SYS_clone, SYS_clone3};

	forbid(calls, ARRAY_LEN(calls));
	for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
		struct ioe_wait w = {0};
		struct ioe *e;

		check(ioe_new(&(struct ioe_config){.kind = kinds[k]}, &e) == 0);
		ioe_work(e, &w.req, nothing, ioe_wait_done);
		check(w.calls == 0);
		while (!w.calls)
			ioe_poll(e, UINT64_MAX);
		check(w.req.status < 0);
		ioe_free(e);
	}
}

static void work_without_threads_fails(void **state)
{
	(void)state;
	in_child(child_without_threads);
}

static void auto_takes_io_uring_when_there_is_one(void **state)
{
	struct ioe *e;

	(void)state;
	if (ioe_new(&(struct ioe_config){.kind = IOE_URING}, &e))
		skip_because("io_uring is not to be had here");
	ioe_free(e);
	assert_int_equal(ioe_new(&(struct ioe_config){0}, &e), 0);
	assert_string_equal(ioe_name(e), "uring");
	ioe_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(creation_without_memory),
	    cmocka_unit_test(creation_without_descriptors),
	    cmocka_unit_test(no_descriptor_outlives_an_exec),
	    cmocka_unit_test(without_io_uring_there_is_aio),
	    cmocka_unit_test(without_libaio_there_are_threads),
	    cmocka_unit_test(work_without_threads_fails),
	    cmocka_unit_test(auto_takes_io_uring_when_there_is_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
