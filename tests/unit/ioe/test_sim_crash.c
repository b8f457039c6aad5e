/* SPDX-License-Identifier: Apache-2.0 */
/* Random workloads, kills and power losses against an independent model of what a disk may do.
 *
 * Every write fills its sectors with its own number, so the contents of a sector tell which write it came from. The model knows only what
 * the contract lets a process know: when each request was submitted and when its completion was delivered. A sector may show write W
 * if no write X of the sector is known to be there that was submitted after W had completed. "Known to be there" means for a reader:
 * delivered; after a power loss: delivered before an fsync was submitted that then succeeded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/mem.h"
#include "src/base/rand.h"
#include "tests/lib/sim_fixture.h"

enum {
	SECTOR = 512,
	SECTORS = 24,
	CHANGES_MAX = 400,
	REQUESTS_MAX = 12,
	LEN_MAX = 8,
	CASES = 1500
};
#define NEVER UINT64_MAX

struct change {
	uint32_t first, n; /* sectors */
	bool is_punch;
	uint64_t submitted, delivered; /* on the model's clock */
	uint64_t gone; /* had landed or vanished by then, though not delivered: its process died */
	bool is_durable;
};

struct request {
	struct ioe_req req;
	struct model *m;
	uint32_t change;    /* WRITE, PUNCH */
	uint64_t submitted; /* READ, FSYNC */
	bool is_busy;
	_Alignas(SECTOR) uint64_t data[LEN_MAX * SECTOR / 8];
};

struct model {
	struct sim_fixture fx;
	struct ioe_file *f;
	struct rand rnd;
	uint64_t clock;
	struct change changes[CHANGES_MAX]; /* [0]: the zeros a file begins with */
	uint32_t n;
	struct request requests[REQUESTS_MAX];
	uint64_t last_fsync; /* submission of the latest that succeeded */
	bool is_wrong;
};

static struct {
	uint64_t reads, kept, dropped, torn, late_kept, covered;
} seen;

/* ---- the model -------------------------------------------------------------------------------------------------------- */

static bool touches(const struct change *c, uint32_t sector)
{
	return sector >= c->first && sector - c->first < c->n;
}

static uint64_t over(const struct change *c)
{
	return c->delivered < c->gone ? c->delivered : c->gone;
}

/* Is X in the way of seeing W? `at`: X counts if it was delivered before then. */
static bool superseded(const struct model *m, const struct change *w, uint32_t sector, uint64_t at,
		       bool durable_only)
{
	for (uint32_t i = 0; i < m->n; i++) {
		const struct change *x = &m->changes[i];

		if (touches(x, sector) && over(w) < x->submitted &&
		    (durable_only ? x->is_durable : x->delivered < at))
			return true;
	}
	return false;
}

static bool is_legal(const struct model *m, uint32_t sector, uint64_t value, uint64_t at,
		     bool durable_only)
{
	if (value >= m->n)
		return false;
	if (value > 0) {
		const struct change *w = &m->changes[value];

		return !w->is_punch && touches(w, sector) &&
		       !superseded(m, w, sector, at, durable_only);
	}
	for (uint32_t i = 0; i < m->n; i++) {
		const struct change *w = &m->changes[i];

		if (w->is_punch && touches(w, sector) && !superseded(m, w, sector, at, durable_only))
			return true;
	}
	return false;
}

static bool sector_value(const uint64_t *words, uint64_t *ret_value)
{
	for (int i = 1; i < SECTOR / 8; i++)
		if (words[i] != words[0])
			return false;
	*ret_value = words[0];
	return true;
}

static bool contents_legal(struct model *m, const uint64_t *data, uint32_t first, uint32_t n,
			   uint64_t at, bool durable_only)
{
	for (uint32_t i = 0; i < n; i++) {
		uint64_t value;

		if (!sector_value(data + i * (SECTOR / 8), &value) ||
		    !is_legal(m, first + i, value, at, durable_only))
			return false;
	}
	return true;
}

static void model_reset(struct model *m)
{
	m->n = 1;
	m->changes[0] =
	    (struct change){.n = SECTORS, .is_punch = true, .gone = NEVER, .is_durable = true};
	m->changes[0].delivered = m->clock++;
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static void fsynced(struct model *m, uint64_t submitted)
{
	for (uint32_t i = 0; i < m->n; i++)
		m->changes[i].is_durable |= m->changes[i].delivered < submitted;
	seen.covered++;
}

static void done(struct ioe_req *r)
{
	struct request *q = container_of(r, struct request, req);
	struct model *m = q->m;

	q->is_busy = false;
	m->clock++;
	if (r->status != 0)
		m->is_wrong = true;
	if (r->op == IOE_FSYNC)
		fsynced(m, q->submitted);
	else if (r->op == IOE_WRITE || r->op == IOE_PUNCH)
		m->changes[q->change].delivered = m->clock;
	else if (!contents_legal(m, q->data, (uint32_t)(r->off / SECTOR),
				 (uint32_t)(r->len / SECTOR), q->submitted, false))
		m->is_wrong = true;
	seen.reads += r->op == IOE_READ;
}

static void submit_change(struct model *m, struct request *q, bool is_punch, uint32_t first,
			  uint32_t n)
{
	uint64_t off = (uint64_t)first * SECTOR, len = (uint64_t)n * SECTOR;

	q->change = m->n++;
	m->changes[q->change] = (struct change){.first = first,
						.n = n,
						.is_punch = is_punch,
						.submitted = m->clock,
						.delivered = NEVER,
						.gone = NEVER};
	for (uint32_t i = 0; i < len / 8; i++)
		q->data[i] = q->change;
	if (is_punch)
		ioe_punch(m->fx.e, &q->req, m->f, off, len, done);
	else
		ioe_write(m->fx.e, &q->req, m->f, off, q->data, len, done);
}

static void submit_one(struct model *m, struct request *q)
{
	uint32_t n = 1 + (uint32_t)rand_below(&m->rnd, LEN_MAX);
	uint32_t first = (uint32_t)rand_below(&m->rnd, SECTORS - n + 1);
	uint32_t what = (uint32_t)rand_below(&m->rnd, 10);

	q->m = m;
	q->is_busy = true;
	q->submitted = ++m->clock;
	if (what < 6)
		submit_change(m, q, what == 5, first, n);
	else if (what < 8)
		ioe_fsync(m->fx.e, &q->req, m->f, done);
	else
		ioe_read(m->fx.e, &q->req, m->f, (uint64_t)first * SECTOR, q->data,
			 (uint64_t)n * SECTOR, done);
}

static void workload(struct model *m)
{
	uint64_t steps = rand_below(&m->rnd, 60);

	while (steps-- > 0 && m->n < CHANGES_MAX - REQUESTS_MAX) {
		struct request *q = &m->requests[rand_below(&m->rnd, REQUESTS_MAX)];

		if (!q->is_busy)
			submit_one(m, q);
		for (uint64_t i = rand_below(&m->rnd, 4); i > 0; i--)
			sim_step(m->fx.w);
	}
}

/* ---- crashes ---------------------------------------------------------------------------------------------------------- */

static void reopen(struct model *m)
{
	int r;

	for (int i = 0; i < REQUESTS_MAX; i++)
		m->requests[i].is_busy = false;
	sim_fixture_restart(&m->fx);
	while ((r = ioe_file_open(m->fx.e, "disk", IOE_OPEN_LOCK, &m->f, NULL)) == -E_IN_USE)
		sim_sleep(&m->fx, 5 * 1000 * 1000);
	assert_int_equal(r, 0);
	m->clock++;
}

static void peek_all(struct model *m, uint64_t *words)
{
	assert_int_equal(sim_disk_peek(m->fx.m, "disk", 0, words, SECTORS * SECTOR), 0);
}

static void crash_by_kill(struct model *m)
{
	uint64_t words[SECTORS * SECTOR / 8];

	sim_fixture_kill(&m->fx);
	reopen(m);
	for (uint32_t i = 0; i < m->n; i++)
		if (m->changes[i].delivered == NEVER && m->changes[i].gone == NEVER)
			m->changes[i].gone = m->clock;
	m->clock++;
	peek_all(m, words);
	assert_true(contents_legal(m, words, 0, SECTORS, m->clock, false));
	for (uint32_t s = 0; s < SECTORS; s++)
		seen.late_kept += words[s * (SECTOR / 8)] > 0 &&
				  m->changes[words[s * (SECTOR / 8)]].gone != NEVER;
}

static void count_fates(const struct model *m, const uint64_t *words)
{
	for (uint32_t i = 1; i < m->n; i++) {
		const struct change *c = &m->changes[i];
		uint32_t there = 0;

		if (c->is_punch || c->is_durable)
			continue;
		for (uint32_t s = c->first; s < c->first + c->n; s++)
			there += words[s * (SECTOR / 8)] == i;
		seen.kept += there == c->n;
		seen.dropped += there == 0;
		seen.torn += there > 0 && there < c->n;
	}
}

static void crash_by_power(struct model *m)
{
	uint64_t words[SECTORS * SECTOR / 8];
	static const uint64_t zeros[SECTORS * SECTOR / 8];

	sim_fixture_power_loss(&m->fx);
	peek_all(m, words);
	assert_true(contents_legal(m, words, 0, SECTORS, NEVER, true));
	count_fates(m, words);
	reopen(m);
	assert_int_equal(sim_disk_poke(m->fx.m, "disk", 0, zeros, sizeof(zeros)), 0);
	model_reset(m);
}

static void run_case(uint64_t seed)
{
	static struct model m;

	memset(&m, 0, sizeof(m));
	rand_seed(&m.rnd, seed);
	sim_fixture_init(&m.fx, seed);
	m.f = sim_file_make(&m.fx, "disk", SECTORS * SECTOR);
	model_reset(&m);
	for (int round = 0; round < 3; round++) {
		workload(&m);
		if (rand_percent(&m.rnd, 40))
			crash_by_kill(&m);
		else
			crash_by_power(&m);
	}
	if (m.is_wrong)
		fail_msg("seed %llu: a request failed or read what it may not",
			 (unsigned long long)seed);
	sim_fixture_free(&m.fx);
}

static void everything_a_crash_leaves_is_explained(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= CASES; seed++)
		run_case(seed);
	print_message("reads %llu fsyncs %llu; undurable writes kept %llu dropped %llu torn %llu; "
		      "sectors landed late %llu\n",
		      (unsigned long long)seen.reads, (unsigned long long)seen.covered,
		      (unsigned long long)seen.kept, (unsigned long long)seen.dropped,
		      (unsigned long long)seen.torn, (unsigned long long)seen.late_kept);
	assert_true(seen.reads > 0 && seen.covered > 0 && seen.kept > 0 && seen.dropped > 0 &&
		    seen.torn > 0 && seen.late_kept > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(everything_a_crash_leaves_is_explained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
