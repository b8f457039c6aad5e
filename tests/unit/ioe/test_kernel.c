/* SPDX-License-Identifier: Apache-2.0 */
/* What a kernel may answer and seldom does: transfers in part, "try again", "interrupted", no room, errors of an fsync. A pipe in the place
 * of a file gives such answers to both engines; libaio's and epoll's calls are this program's own. */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/file.h"
#include "tests/lib/ioe_fixture.h"
#include "tests/lib/skip.h"

enum { KIB = 1024, MIB = 1024 * KIB, BLOCK = 4096 };

/* ---- libaio and epoll as they might be --------------------------------------------------------------------------------- */

static int (*submit_answer)(long nr); /* so many are taken, or -errno; NULL: all */
static int epoll_add_error;
static unsigned submits, submits_refused;

int io_submit(io_context_t ctx, long nr, struct iocb **iocbs)
{
	int n = submit_answer ? submit_answer(nr) : (int)nr;
	long r;

	submits++;
	submits_refused += n < nr;
	if (n <= 0)
		return n;
	r = syscall(SYS_io_submit, ctx, (long)n, iocbs);
	return r < 0 ? -errno : (int)r;
}

int epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *ev)
{
	if (op == EPOLL_CTL_ADD && epoll_add_error) {
		errno = epoll_add_error;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epoll_fd, op, fd, ev);
}

/* 0: as they are; else plain reads and writes move at most so many bytes, and each third is interrupted */
static size_t plain_most;
static atomic_uint plain_calls;

static bool plain_interrupted(size_t *len)
{
	if (!plain_most)
		return false;
	*len = *len < plain_most ? *len : plain_most;
	errno = EINTR;
	return atomic_fetch_add(&plain_calls, 1) % 3 == 2;
}

ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
	return plain_interrupted(&len) ? -1 : syscall(SYS_pread64, fd, buf, len, off);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	return plain_interrupted(&len) ? -1 : syscall(SYS_pwrite64, fd, buf, len, off);
}

/* Not 0: the next completion says that so many bytes were moved. */
static unsigned long moved_once;

int io_getevents(io_context_t ctx, long min, long nr, struct io_event *events, struct timespec *wait)
{
	long r = syscall(SYS_io_getevents, ctx, min, nr, events, wait);

	if (r > 0 && moved_once) {
		events[0].res = moved_once;
		moved_once = 0;
	}
	return r < 0 ? -errno : (int)r;
}

static int one_at_a_time(long nr)
{
	return nr > 0;
}

static int now_and_then_again(long nr)
{
	switch (submits % 4) {
	case 0:
		return -EAGAIN;
	case 1:
		return -EINTR;
	case 2:
		return 0;
	default:
		return (int)(nr + 1) / 2;
	}
}

static int never(long nr)
{
	(void)nr;
	return -EAGAIN;
}

static int refuses_the_third(long nr)
{
	return submits == 0 ? 2 : submits == 1 ? -EOPNOTSUPP : (int)nr;
}

/* ---- files ------------------------------------------------------------------------------------------------------------ */

/* Both, so that a request is made as one of a real disk. */
static void direct_pretend(struct ioe_file *f)
{
	file_of(f)->is_direct = true;
	file_of(f)->never_blocks = false;
	f->io_align = 512;
}

/* The file's descriptor becomes this one. */
static int fd_replace(struct ioe_file *f, int fd)
{
	int kept = dup(file_of(f)->fd);

	assert_true(kept >= 0);
	assert_true(dup2(fd, file_of(f)->fd) >= 0);
	return kept;
}

static void fd_bring_back(struct ioe_file *f, int kept)
{
	assert_true(dup2(kept, file_of(f)->fd) >= 0);
	close(kept);
}

static uint8_t *pattern(size_t len)
{
	uint8_t *p = mem_alloc_aligned(BLOCK, len);

	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i / 512 * 7 + i);
	return p;
}

static void a_read_in_pieces_is_one_read(void **state)
{
	enum { LEN = 8 * KIB };
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *a = pattern(LEN), *b = mem_alloc_aligned(BLOCK, LEN);
	struct ioe_wait w = {0};
	int ends[2], kept;

	assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
	direct_pretend(f);
	kept = fd_replace(f, ends[0]);
	ioe_read(fx->e, &w.req, f, 0, b, LEN, ioe_wait_done);
	for (size_t at = 0; at < LEN; at += 512) {
		ioe_poll(fx->e, 0);
		ioe_poll(fx->e, 0);
		assert_int_equal(w.calls, 0);
		assert_int_equal(write(ends[1], a + at, 512), 512);
	}
	assert_int_equal(ioe_wait_for(fx, &w), 0);
	assert_memory_equal(a, b, LEN);
	fd_bring_back(f, kept);
	ioe_file_close(fx->e, f);
	close(ends[0]);
	close(ends[1]);
	mem_free(a);
	mem_free(b);
}

/* A part that is no multiple of the alignment: a direct read has met the end of the file there. */
static void a_direct_read_that_ends_amid_a_sector_fails(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *b = mem_alloc_aligned(BLOCK, BLOCK);
	struct ioe_wait w = {0};
	int ends[2], kept;

	assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
	direct_pretend(f);
	kept = fd_replace(f, ends[0]);
	assert_int_equal(write(ends[1], b, 700), 700);
	ioe_read(fx->e, &w.req, f, 0, b, BLOCK, ioe_wait_done);
	assert_int_equal(ioe_wait_for(fx, &w), -EIO);
	w.calls = 0;
	close(ends[1]);
	ioe_read(fx->e, &w.req, f, 0, b, BLOCK, ioe_wait_done);
	assert_int_equal(ioe_wait_for(fx, &w), -EIO); /* no bytes at all */
	fd_bring_back(f, kept);
	ioe_file_close(fx->e, f);
	close(ends[0]);
	mem_free(b);
}

static void a_write_in_pieces_is_one_write(void **state)
{
	enum { LEN = 64 * KIB };
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *a = pattern(LEN), *b = mem_alloc(LEN);
	struct ioe_wait w = {0};
	size_t have = 0;
	int ends[2], kept;

	assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
	assert_true(fcntl(ends[1], F_SETPIPE_SZ, BLOCK) >= BLOCK);
	direct_pretend(f);
	kept = fd_replace(f, ends[1]);
	ioe_write(fx->e, &w.req, f, 0, a, LEN, ioe_wait_done);
	for (int i = 0; i < 10000 && have < LEN; i++) {
		ssize_t n;

		ioe_poll(fx->e, 0);
		n = read(ends[0], b + have, LEN - have);
		have += n > 0 ? (size_t)n : 0;
	}
	assert_int_equal(ioe_wait_for(fx, &w), 0);
	assert_int_equal(have, LEN);
	assert_memory_equal(a, b, LEN);
	fd_bring_back(f, kept);
	ioe_file_close(fx->e, f);
	close(ends[0]);
	close(ends[1]);
	mem_free(a);
	mem_free(b);
}

/* A pipe cannot be synced. What was asked of it then holds for the file. */
static void an_fsync_that_failed_stays_failed(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	struct ioe_wait w[3] = {0};
	int ends[2], kept;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	kept = fd_replace(f, ends[0]);
	for (int i = 0; i < 3; i++)
		ioe_fsync(fx->e, &w[i].req, f, ioe_wait_done);
	for (int i = 0; i < 3; i++)
		assert_int_equal(ioe_wait_for(fx, &w[i]), -EINVAL);
	fd_bring_back(f, kept);
	assert_int_equal(ioe_sync_fsync(fx, f), -EINVAL);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_open(fx->e, ioe_fixture_path(fx, "f"), 0, &f, NULL), 0);
	assert_int_equal(ioe_sync_fsync(fx, f), 0);
	ioe_file_close(fx->e, f);
	close(ends[0]);
	close(ends[1]);
}

/* Those that wait for another can be cancelled, and the others go on. */
static void many_fsyncs_each_end_once(void **state)
{
	enum { N = 40 };
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *a = pattern(BLOCK);

	for (int round = 0; round < 4; round++) {
		struct ioe_wait w[N] = {0}, wr = {0};

		ioe_write(fx->e, &wr.req, f, 0, a, BLOCK, ioe_wait_done);
		for (int i = 0; i < N; i++)
			ioe_fsync(fx->e, &w[i].req, f, ioe_wait_done);
		for (int i = 0; i < round; i++)
			ioe_poll(fx->e, 0);
		for (int i = 0; i < N; i += 3)
			ioe_cancel(fx->e, &w[i].req);
		for (int i = 0; i < N; i++) {
			int r = ioe_wait_for(fx, &w[i]);

			assert_true(r == 0 || (i % 3 == 0 && r == -ECANCELED));
		}
		assert_int_equal(ioe_wait_for(fx, &wr), 0);
	}
	assert_int_equal(ioe_sync_fsync(fx, f), 0);
	ioe_file_close(fx->e, f);
	mem_free(a);
}

/* A part comes from, or goes to, a pipe; then the real file is there again: the rest must be its bytes at the right place. */
static void the_rest_goes_on_where_the_part_ended(void **state)
{
	enum { LEN = 2 * BLOCK };
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *a = pattern(LEN), *b = mem_alloc_aligned(BLOCK, LEN);
	struct ioe_wait rd = {0}, wr = {0};
	int ends[2], kept;

	assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
	assert_int_equal(fcntl(ends[1], F_SETPIPE_SZ, BLOCK), BLOCK);
	direct_pretend(f);
	kept = fd_replace(f, ends[1]);
	ioe_write(fx->e, &wr.req, f, 3 * BLOCK, a, LEN, ioe_wait_done);
	ioe_poll(fx->e, 0);
	fd_bring_back(f, kept);
	assert_int_equal(ioe_wait_for(fx, &wr), 0);
	assert_int_equal(read(ends[0], b, LEN), BLOCK);
	assert_memory_equal(a, b, BLOCK);
	assert_int_equal(ioe_sync_read(fx, f, 3 * BLOCK, b, LEN), 0);
	assert_int_equal(b[0], 0);
	assert_memory_equal(b + BLOCK, a + BLOCK, BLOCK);

	kept = fd_replace(f, ends[0]);
	assert_int_equal(write(ends[1], a, BLOCK), BLOCK);
	memset(b, 0, LEN);
	ioe_read(fx->e, &rd.req, f, 3 * BLOCK, b, LEN, ioe_wait_done);
	ioe_poll(fx->e, 0);
	fd_bring_back(f, kept);
	assert_int_equal(ioe_wait_for(fx, &rd), 0);
	assert_memory_equal(a, b, LEN);
	ioe_file_close(fx->e, f);
	close(ends[0]);
	close(ends[1]);
	mem_free(a);
	mem_free(b);
}

/* What the loop or a worker does by plain calls: tmpfs, and the page cache without io_uring. */
static void plain_calls_go_on_too(void **state)
{
	enum { LEN = 64 * KIB };
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *a = pattern(LEN), *b = mem_alloc_aligned(BLOCK, LEN);

	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_file_open(fx->e, ioe_fixture_path(fx, "f"), IOE_OPEN_BUFFERED, &f,
				       NULL),
			 0);
	plain_calls = 0;
	plain_most = 7000;
	assert_int_equal(ioe_sync_write(fx, f, 100, a, LEN), 0);
	assert_int_equal(ioe_sync_read(fx, f, 100, b, LEN), 0);
	plain_most = 0;
	assert_true(plain_calls > 2 * LEN / 7000);
	assert_memory_equal(a, b, LEN);
	ioe_file_close(fx->e, f);
	mem_free(a);
	mem_free(b);
}

/* ---- the ring --------------------------------------------------------------------------------------------------------- */

enum { RING_ENTRIES = 512, PACKETS = RING_ENTRIES / 2, PACKET = 512 };

/* A pipe that gives one packet per read. */
static int packets_write(int fd)
{
	static const uint8_t packet[PACKET];
	int n = 0;

	while (n < PACKETS && write(fd, packet, PACKET) == PACKET)
		n++;
	return n;
}

static void *packets_write_later(void *fd)
{
	usleep(20 * 1000);
	return packets_write(*(int *)fd) == PACKETS ? fd : NULL;
}

/* The ring is full to its last entry when the turn wants one more. What the kernel gives back unfinished then must be tried again before
 * anybody sleeps: half of the reads get a first packet, the others, of another pipe, get nothing for a long time. */
static void a_full_ring_that_gives_back_does_not_sleep(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f[2] = {ioe_fixture_file(fx, "f", MIB), ioe_fixture_file(fx, "g", MIB)};
	struct ioe_config cfg = {.kind = IOE_URING, .depth = 2 * RING_ENTRIES};
	struct ioe_wait *w = mem_zalloc_array(RING_ENTRIES, sizeof(*w));
	uint8_t *b = mem_alloc_aligned(BLOCK, 2 * PACKET * RING_ENTRIES);
	int ends[2][2], kept[2], done = 0;
	uint64_t end_ns, at_ns;
	pthread_t id;
	struct ioe *e;
	void *ok;

	assert_int_equal(ioe_new(&cfg, &e), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pipe2(ends[i], O_DIRECT | O_CLOEXEC), 0);
		assert_true(fcntl(ends[i][1], F_SETPIPE_SZ, PACKETS * BLOCK) >= PACKETS * BLOCK);
		direct_pretend(f[i]);
		kept[i] = fd_replace(f[i], ends[i][0]);
	}
	assert_int_equal(packets_write(ends[0][1]), PACKETS);
	for (int i = 0; i < RING_ENTRIES; i++)
		ioe_read(e, &w[i].req, f[i / PACKETS], 0, b + i * 2 * PACKET, 2 * PACKET,
			 ioe_wait_done);
	assert_int_equal(pthread_create(&id, NULL, packets_write_later, &ends[0][1]), 0);
	end_ns = ioe_now_ns(e) + 5ULL * 1000 * 1000 * 1000;
	while (done < PACKETS && ioe_now_ns(e) < end_ns)
		done += ioe_poll(e, end_ns);
	at_ns = ioe_now_ns(e);
	pthread_join(id, &ok);
	/* nothing may be left in flight, whatever came before */
	assert_int_equal(fcntl(ends[1][1], F_SETFL, O_DIRECT | O_NONBLOCK), 0);
	while (done < RING_ENTRIES) {
		packets_write(ends[1][1]);
		done += ioe_poll(e, ioe_now_ns(e) + 1000 * 1000);
	}
	assert_ptr_equal(ok, &ends[0][1]);
	assert_true(at_ns < end_ns);
	for (int i = 0; i < RING_ENTRIES; i++)
		assert_int_equal(w[i].req.status, 0);
	for (int i = 0; i < 2; i++) {
		fd_bring_back(f[i], kept[i]);
		ioe_file_close(fx->e, f[i]);
		close(ends[i][0]);
		close(ends[i][1]);
	}
	ioe_free(e);
	mem_free(w);
	mem_free(b);
}

/* What is more than cfg.depth waits inside, and takes its turn. */
static void the_kernel_holds_no_more_than_it_was_to(void **state)
{
	enum { DEPTH = 16, N = 40 }; /* DEPTH: the fixture's */
	static const uint8_t zeros[N * PACKET];
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *b = mem_alloc_aligned(BLOCK, N * PACKET);
	struct ioe_wait w[N] = {0};
	int ends[2], kept, held = 0;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	direct_pretend(f);
	kept = fd_replace(f, ends[0]);
	for (int i = 0; i < N; i++)
		ioe_read(fx->e, &w[i].req, f, 0, b + i * PACKET, PACKET, ioe_wait_done);
	ioe_poll(fx->e, 0);
	ioe_poll(fx->e, 0);
	for (int i = 0; i < N; i++)
		held += w[i].req.stage == FILE_IN_KERNEL;
	assert_int_equal(write(ends[1], zeros, sizeof(zeros)), sizeof(zeros));
	for (int i = 0; i < N; i++)
		assert_int_equal(ioe_wait_for(fx, &w[i]), 0);
	assert_int_equal(held, DEPTH);
	fd_bring_back(f, kept);
	ioe_file_close(fx->e, f);
	close(ends[0]);
	close(ends[1]);
	mem_free(b);
}

/* Reads that a disk has finished all at once: the most that end in one turn. */
static int most_in_a_turn(struct ioe_fixture *fx, bool moves_inline)
{
	enum { N = 16 };
	static const uint8_t zeros[N * PACKET];
	struct ioe_file *f = ioe_fixture_file(fx, "f", MIB);
	uint8_t *b = mem_alloc_aligned(BLOCK, N * PACKET);
	struct ioe_wait w[N] = {0};
	int ends[2], kept, most = 0, before = 0;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	direct_pretend(f);
	file_of(f)->ring_moves_inline = moves_inline;
	kept = fd_replace(f, ends[0]);
	for (int i = 0; i < N; i++)
		ioe_read(fx->e, &w[i].req, f, 0, b + i * PACKET, PACKET, ioe_wait_done);
	ioe_poll(fx->e, 0);
	assert_int_equal(write(ends[1], zeros, sizeof(zeros)), sizeof(zeros));
	while (before < N) {
		int ended = 0;

		ioe_poll(fx->e, ioe_now_ns(fx->e) + 10000000000ULL);
		for (int i = 0; i < N; i++)
			ended += w[i].calls;
		assert_true(ended > before); /* else the rest was forgotten */
		most = MAX(most, ended - before);
		before = ended;
	}
	fd_bring_back(f, kept);
	ioe_file_close(fx->e, f);
	close(ends[0]);
	close(ends[1]);
	mem_free(b);
	unlink(ioe_fixture_path(fx, "f"));
	return most;
}

static void what_disks_have_finished_is_taken_a_few_at_a_time(void **state)
{
	assert_int_equal(most_in_a_turn(*state, false), 8);
	assert_true(most_in_a_turn(*state, true) > 8);
}

/* ---- libaio ------------------------------------------------------------------------------------------------------------ */

/* Writes and reads of many blocks while io_submit() answers like this. */
static void round_trip(struct ioe_fixture *fx, int (*answer)(long nr))
{
	enum { N = 100 };
	struct ioe_file *f = ioe_fixture_file(fx, "f", N * BLOCK);
	uint8_t *a = pattern(N * BLOCK), *b = mem_alloc_aligned(BLOCK, N * BLOCK);
	struct ioe_wait w[N];

	if (!file_of(f)->is_direct) {
		mem_free(a);
		mem_free(b);
		ioe_file_close(fx->e, f);
		skip_because("no direct I/O in the directory of the test");
	}
	submits = submits_refused = 0;
	submit_answer = answer;
	for (int is_read = 0; is_read < 2; is_read++) {
		memset(w, 0, sizeof(w));
		for (size_t i = 0; i < N; i++) {
			if (is_read)
				ioe_read(fx->e, &w[i].req, f, i * BLOCK, b + i * BLOCK, BLOCK,
					 ioe_wait_done);
			else
				ioe_write(fx->e, &w[i].req, f, i * BLOCK, a + i * BLOCK, BLOCK,
					  ioe_wait_done);
		}
		for (int i = 0; i < N; i++)
			assert_int_equal(ioe_wait_for(fx, &w[i]), 0);
	}
	submit_answer = NULL;
	assert_true(submits_refused > 0);
	assert_memory_equal(a, b, N * BLOCK);
	ioe_file_close(fx->e, f);
	assert_int_equal(ioe_unlink(fx->e, ioe_fixture_path(fx, "f")), 0);
	mem_free(a);
	mem_free(b);
}

static void what_io_submit_does_not_take_is_submitted_again(void **state)
{
	round_trip(*state, one_at_a_time);
	round_trip(*state, now_and_then_again);
	round_trip(*state, never);
}

static void what_io_submit_refuses_fails_alone(void **state)
{
	enum { N = 5 };
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", N * BLOCK);
	uint8_t *a = pattern(BLOCK);
	struct ioe_wait w[N] = {0};

	if (!file_of(f)->is_direct) {
		mem_free(a);
		ioe_file_close(fx->e, f);
		skip_because("no direct I/O in the directory of the test");
	}
	submits = 0;
	submit_answer = refuses_the_third;
	for (size_t i = 0; i < N; i++)
		ioe_write(fx->e, &w[i].req, f, i * BLOCK, a, BLOCK, ioe_wait_done);
	for (int i = 0; i < N; i++)
		assert_int_equal(ioe_wait_for(fx, &w[i]), i == 2 ? -EOPNOTSUPP : 0);
	submit_answer = NULL;
	ioe_file_close(fx->e, f);
	mem_free(a);
}

/* O_DIRECT goes on at a whole sector only: what is over that is written once more. */
static void a_direct_write_that_ends_amid_a_sector_repeats_it(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_file *f = ioe_fixture_file(fx, "f", 4 * BLOCK);
	uint8_t *a = pattern(2 * BLOCK), *b = mem_alloc_aligned(BLOCK, 2 * BLOCK);

	if (!file_of(f)->is_direct) {
		mem_free(a);
		mem_free(b);
		ioe_file_close(fx->e, f);
		skip_because("no direct I/O in the directory of the test");
	}
	moved_once = f->io_align + 100;
	assert_int_equal(ioe_sync_write(fx, f, BLOCK, a, 2 * BLOCK), 0);
	assert_int_equal(moved_once, 0);
	assert_int_equal(ioe_sync_read(fx, f, BLOCK, b, 2 * BLOCK), 0);
	assert_memory_equal(a, b, 2 * BLOCK);
	moved_once = 100; /* less than one: nothing has moved, and without a reason */
	assert_int_equal(ioe_sync_write(fx, f, BLOCK, a, BLOCK), -EIO);
	ioe_file_close(fx->e, f);
	mem_free(a);
	mem_free(b);
}

/* ---- epoll ------------------------------------------------------------------------------------------------------------- */

static void a_socket_that_cannot_be_watched_is_an_error(void **state)
{
	struct ioe_fixture *fx = *state;
	struct ioe_sock *ends[2];
	struct ioe_wait w = {0};
	char c;
	struct iovec iov = {&c, 1};

	ioe_fixture_pair(fx, "unix", ends);
	epoll_add_error = ENOSPC;
	ioe_recv(fx->e, &w.req, ends[0], &iov, 1, ioe_wait_done);
	assert_int_equal(ioe_wait_for(fx, &w), -ENOSPC);
	epoll_add_error = 0;
	ioe_sock_close(fx->e, ends[0]);
	ioe_sock_close(fx->e, ends[1]);
}

static void count(void *arg)
{
	++*(int *)arg;
}

/* The program hears of it and does not end: it may say so, and try once more. */
static void signals_that_cannot_be_watched_are_an_error(void **state)
{
	struct ioe_fixture *fx = *state;
	pid_t pid;
	int status, n = 0;

	pid = fork();
	if (pid == 0) {
		struct ioe_config cfg = {.kind = IOE_AIO};
		struct ioe *e;

		if (ioe_new(&cfg, &e))
			_exit(2);
		epoll_add_error = ENOSPC;
		if (ioe_on_terminate(e, count, &n) != -ENOSPC)
			_exit(3);
		ioe_poll(e, 0);
		epoll_add_error = 0;
		if (ioe_on_terminate(e, count, &n))
			_exit(4);
		kill(getpid(), SIGTERM);
		while (n == 0)
			ioe_poll(e, UINT64_MAX);
		ioe_free(e);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	(void)fx;
}

int main(void)
{
	static const struct ioe_test tests[] = {
	    {"a read in pieces is one read", a_read_in_pieces_is_one_read, ON_REAL},
	    {"a direct read that ends amid a sector", a_direct_read_that_ends_amid_a_sector_fails,
	     ON_REAL},
	    {"a write in pieces is one write", a_write_in_pieces_is_one_write, ON_REAL},
	    {"an fsync that failed stays failed", an_fsync_that_failed_stays_failed,
	     ON_REAL | ON_TMPFS},
	    {"many fsyncs each end once", many_fsyncs_each_end_once, ON_ALL | ON_TMPFS},
	    {"the rest goes on where the part ended", the_rest_goes_on_where_the_part_ended,
	     ON_REAL},
	    {"plain calls go on too", plain_calls_go_on_too, ON_AIO | ON_TMPFS},
	    {"the kernel holds no more than it was to", the_kernel_holds_no_more_than_it_was_to,
	     ON_URING},
	    {"a full ring that gives back", a_full_ring_that_gives_back_does_not_sleep, ON_URING},
	    {"what disks have finished is taken a few at a time",
	     what_disks_have_finished_is_taken_a_few_at_a_time, ON_URING},
	    {"what io_submit does not take", what_io_submit_does_not_take_is_submitted_again,
	     ON_AIO},
	    {"what io_submit refuses fails alone", what_io_submit_refuses_fails_alone, ON_AIO},
	    {"a direct write that ends amid a sector",
	     a_direct_write_that_ends_amid_a_sector_repeats_it, ON_AIO},
	    {"a socket that cannot be watched", a_socket_that_cannot_be_watched_is_an_error, ON_AIO},
	    {"signals that cannot be watched", signals_that_cannot_be_watched_are_an_error, ON_AIO},
	};

	return ioe_suite_run(tests, ARRAY_LEN(tests));
}
