/* SPDX-License-Identifier: Apache-2.0 */
/* What each kind of request means, on a device that nothing happens to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "tests/lib/device_fixture.h"

static int setup_with(void **state, bool with_ring)
{
	struct device_fixture *fx = mem_zalloc(sizeof(*fx));

	device_fixture_init(fx, 1);
	fx->with_ring = with_ring;
	*state = fx;
	return fixture_open(fx, false);
}

static int setup(void **state)
{
	return setup_with(state, false);
}

static int setup_ring(void **state)
{
	return setup_with(state, true);
}

static int teardown(void **state)
{
	struct device_fixture *fx = *state;

	device_fixture_free(fx);
	mem_free(fx);
	return 0;
}

static void reopen(struct device_fixture *fx)
{
	assert_int_equal(fixture_close(fx), 0);
	assert_int_equal(fixture_open(fx, false), 0);
}

/* ---- data ------------------------------------------------------------------------------------------------------------- */

static void what_was_written_is_read(void **state)
{
	struct device_fixture *fx = *state;

	assert_int_equal(dev_expect(fx, 3, 5, 0, 256, 0), 0);
	assert_int_equal(dev_write(fx, 3, 5, 10, 4, 1, 0), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 10, 4, 1), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 0, 10, 0), 0);
	assert_int_equal(dev_write(fx, 3, 5, 12, 1, 2, 0), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 12, 1, 2), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 13, 1, 1), 0);
	assert_int_equal(dev_state(fx, 3, 5, 12), BLOCK_DATA);
	assert_int_equal(dev_state(fx, 3, 5, 14), BLOCK_HOLE);
	reopen(fx);
	assert_int_equal(dev_expect(fx, 3, 5, 12, 1, 2), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 13, 1, 1), 0);
	assert_int_equal(dev_expect(fx, 3, 5, 14, 200, 0), 0);
}

static void a_read_over_data_holes_and_zeros_is_one_answer(void **state)
{
	struct device_fixture *fx = *state;
	struct fixture_req *q;

	assert_int_equal(dev_write(fx, 0, 1, 2, 2, 9, 0), 0);
	assert_int_equal(dev_write(fx, 0, 1, 6, 1, 9, 0), 0);
	assert_int_equal(dev_clear(fx, 0, 1, 4, 1, CHUNK_F_ZERO), 0);
	q = req_new(fx, CHUNK_READ, 0, 1, 0, 8);
	req_submit(q);
	assert_int_equal(req_wait(q), 0);
	assert_int_equal(q->r.present_n, 3);
	for (uint32_t i = 0; i < 8; i++) {
		bool data = i == 2 || i == 3 || i == 6;

		assert_int_equal(q->states[i], data	? BLOCK_DATA
					       : i == 4 ? BLOCK_ZERO
							: BLOCK_HOLE);
		assert_int_equal(q->crcs[i] == 0, !data);
	}
	assert_true(bytes_are_zero(q->buf, 2 * BLOCK_BYTES));
	assert_true(bytes_are_zero(q->buf + 4 * BLOCK_BYTES, 2 * BLOCK_BYTES));
	req_free(q);
}

static void the_whole_chunk_goes_in_one_request(void **state)
{
	struct device_fixture *fx = *state;

	assert_int_equal(dev_write(fx, 7, 1, 0, 256, 3, 0), 0);
	assert_int_equal(dev_expect(fx, 7, 1, 0, 256, 3), 0);
	assert_int_equal(dev_write(fx, 7, 1, 0, 256, 4, 0), 0);
	reopen(fx);
	assert_int_equal(dev_expect(fx, 7, 1, 0, 256, 4), 0);
}

static void overlapping_requests_are_executed_in_their_order(void **state)
{
	struct device_fixture *fx = *state;
	struct fixture_req *q[40];

	for (uint32_t i = 0; i < 40; i++) {
		q[i] = req_new(fx, i % 5 == 4 ? CHUNK_READ : CHUNK_WRITE, 1, 1, i % 3, 4);
		if (q[i]->r.op == CHUNK_WRITE)
			req_fill(q[i], i + 1);
		req_submit(q[i]);
	}
	for (uint32_t i = 0; i < 40; i++) {
		assert_int_equal(req_wait(q[i]), 0);
		if (q[i]->r.op == CHUNK_READ) { /* sees the write before it where they overlap */
			uint32_t from =
			    q[i - 1]->r.block > q[i]->r.block ? q[i - 1]->r.block : q[i]->r.block;

			assert_memory_equal(q[i]->buf + (from - q[i]->r.block) * BLOCK_BYTES,
					    q[i - 1]->buf + (from - q[i - 1]->r.block) * BLOCK_BYTES,
					    BLOCK_BYTES);
		}
	}
	for (uint32_t i = 0; i < 40; i++)
		req_free(q[i]);
}

static void more_requests_than_it_executes_at_once_wait(void **state)
{
	struct device_fixture *fx = *state;
	enum { N = 3000 };
	struct fixture_req **q = mem_zalloc_array(N, sizeof(*q));

	for (uint32_t i = 0; i < N; i++) {
		q[i] = req_new(fx, CHUNK_WRITE, i % 50, 1, i / 50, 1);
		req_fill(q[i], i + 1);
		req_submit(q[i]);
	}
	for (uint32_t i = 0; i < N; i++) {
		assert_int_equal(req_wait(q[i]), 0);
		req_free(q[i]);
	}
	for (uint32_t i = 0; i < N; i += 7)
		assert_int_equal(dev_expect(fx, i % 50, 1, i / 50, 1, i + 1), 0);
	mem_free(q);
}

static void a_volatile_acknowledgement_says_so(void **state)
{
	struct device_fixture *fx = *state;
	struct fixture_req *q = req_new(fx, CHUNK_WRITE, 0, 1, 0, 1);

	req_fill(q, 1);
	req_submit(q);
	assert_int_equal(req_wait(q), 0);
	assert_true(q->r.volatile_ack == fx->with_ring);
	q->r.flags = CHUNK_F_STABLE;
	req_submit(q);
	assert_int_equal(req_wait(q), 0);
	assert_false(q->r.volatile_ack);
	req_free(q);
}

/* ---- clear and free --------------------------------------------------------------------------------------------------- */

static uint64_t used_bytes(struct device_fixture *fx)
{
	struct ioe_file *f;
	uint64_t used;

	assert_int_equal(ioe_file_open(fx->sim.e, DEVICE_PATH, IOE_OPEN_RDONLY, &f, NULL), 0);
	used = ioe_file_used_bytes(fx->sim.e, f);
	ioe_file_close(fx->sim.e, f);
	return used;
}

static void cleared_blocks_read_as_nothing_and_give_their_space_back(void **state)
{
	struct device_fixture *fx = *state;
	uint64_t before = used_bytes(fx);

	assert_int_equal(dev_write(fx, 4, 1, 0, 256, 5, 0), 0);
	assert_true(used_bytes(fx) >= before + (1 << 20));
	assert_int_equal(dev_clear(fx, 4, 1, 10, 200, 0), 0);
	assert_int_equal(dev_clear(fx, 4, 1, 20, 1, CHUNK_F_ZERO), 0);
	assert_int_equal(dev_state(fx, 4, 1, 10), BLOCK_HOLE);
	assert_int_equal(dev_state(fx, 4, 1, 20), BLOCK_ZERO);
	assert_int_equal(dev_expect(fx, 4, 1, 10, 200, 0), 0);
	assert_int_equal(dev_expect(fx, 4, 1, 210, 46, 5), 0);
	assert_int_equal(dev_flush(fx), 0);
	sim_sleep(&fx->sim, 100 * 1000 * 1000);
	assert_true(used_bytes(fx) <= before + (56 + 2) * BLOCK_BYTES);
	/* and can be written again */
	assert_int_equal(dev_write(fx, 4, 1, 15, 3, 6, 0), 0);
	sim_sleep(&fx->sim, 100 * 1000 * 1000);
	assert_int_equal(dev_expect(fx, 4, 1, 15, 3, 6), 0);
}

static void a_write_right_after_a_clear_survives_the_punch(void **state)
{
	struct device_fixture *fx = *state;
	struct fixture_req *c = req_new(fx, CHUNK_CLEAR, 4, 1, 0, 64);
	struct fixture_req *w = req_new(fx, CHUNK_WRITE, 4, 1, 30, 4);

	assert_int_equal(dev_write(fx, 4, 1, 0, 256, 5, 0), 0);
	assert_int_equal(dev_flush(fx), 0);
	req_fill(w, 6);
	req_submit(c);
	req_submit(w);
	assert_int_equal(req_wait(c), 0);
	assert_int_equal(req_wait(w), 0);
	sim_sleep(&fx->sim, 1000 * 1000 * 1000);
	assert_int_equal(dev_expect(fx, 4, 1, 30, 4, 6), 0);
	assert_int_equal(dev_expect(fx, 4, 1, 0, 30, 0), 0);
	req_free(c);
	req_free(w);
}

static void clearing_a_free_slot_does_nothing_unless_to_zero(void **state)
{
	struct device_fixture *fx = *state;
	struct device_slot s;

	assert_int_equal(dev_clear(fx, 6, 3, 0, 256, 0), 0);
	assert_int_equal(device_slot_get(fx->dev, 6, &s), 0);
	assert_int_equal(s.state, DEVICE_SLOT_FREE);
	assert_int_equal(dev_clear(fx, 6, 3, 0, 4, CHUNK_F_ZERO), 0);
	assert_int_equal(device_slot_get(fx->dev, 6, &s), 0);
	assert_int_equal(s.state, DEVICE_SLOT_OPEN);
	assert_int_equal(dev_state(fx, 6, 3, 3), BLOCK_ZERO);
	assert_int_equal(dev_state(fx, 6, 3, 4), BLOCK_HOLE);
}

static void a_freed_slot_takes_only_a_newer_generation(void **state)
{
	struct device_fixture *fx = *state;
	uint64_t before = used_bytes(fx);
	struct device_slot s;

	assert_int_equal(dev_write(fx, 2, 10, 0, 256, 5, 0), 0);
	assert_int_equal(dev_free(fx, 2, 9, 0), 0); /* long ago: no effect */
	assert_int_equal(dev_expect(fx, 2, 10, 0, 256, 5), 0);
	assert_int_equal(dev_free(fx, 2, 10, CHUNK_F_IF_EMPTY), -ENOTEMPTY);
	assert_int_equal(dev_free(fx, 2, 10, 0), 0);
	assert_true(used_bytes(fx) < before + 64 * 1024);
	assert_int_equal(dev_expect(fx, 2, 10, 0, 1, 0), -E_STALE_CGEN);
	assert_int_equal(dev_write(fx, 2, 10, 0, 1, 1, 0), -E_STALE_CGEN);
	assert_int_equal(dev_expect(fx, 2, 11, 0, 256, 0), 0); /* not the old bytes */
	assert_int_equal(dev_free(fx, 2, 20, 0), 0);	       /* it never opened */
	assert_int_equal(dev_write(fx, 2, 20, 0, 1, 1, 0), -E_STALE_CGEN);
	reopen(fx);
	assert_int_equal(device_slot_get(fx->dev, 2, &s), 0);
	assert_int_equal(s.cgen, 20);
	assert_int_equal(dev_write(fx, 2, 21, 5, 1, 7, 0), 0);
	assert_int_equal(dev_expect(fx, 2, 21, 0, 5, 0), 0);
	assert_int_equal(dev_free(fx, 2, 21, CHUNK_F_IF_EMPTY), -ENOTEMPTY);
	assert_int_equal(dev_clear(fx, 2, 21, 5, 1, 0), 0);
	assert_int_equal(dev_free(fx, 2, 21, CHUNK_F_IF_EMPTY), 0);
}

static void free_waits_for_what_was_admitted(void **state)
{
	struct device_fixture *fx = *state;
	struct fixture_req *w = req_new(fx, CHUNK_WRITE, 9, 1, 0, 16);
	struct fixture_req *r = req_new(fx, CHUNK_READ, 9, 1, 0, 16);
	struct fixture_req *f = req_new(fx, CHUNK_FREE, 9, 1, 0, 0);
	struct fixture_req *next = req_new(fx, CHUNK_WRITE, 9, 2, 0, 1);

	assert_int_equal(dev_flush(fx),
			 0); /* epoch 1 is known: from now on requests are admitted at once */
	req_fill(w, 1);
	req_fill(next, 2);
	req_submit(w);
	req_submit(r);
	req_submit(f);
	req_submit(next);
	assert_int_equal(req_wait(f), 0);
	assert_true(w->is_done && r->is_done);
	assert_int_equal(w->r.status, 0);
	assert_int_equal(r->r.status, 0);
	assert_int_equal(req_wait(next), 0);
	assert_int_equal(dev_expect(fx, 9, 2, 0, 1, 2), 0);
	assert_int_equal(dev_expect(fx, 9, 2, 1, 15, 0), 0);
	req_free(w);
	req_free(r);
	req_free(f);
	req_free(next);
}

/* ---- who may ---------------------------------------------------------------------------------------------------------- */

static int write_as(struct device_fixture *fx, volume_id volume, uint64_t epoch, layer_id layer)
{
	struct fixture_req *q = req_new(fx, CHUNK_WRITE, 20 + layer, 1, 0, 1);
	int status;

	q->r.volume = volume;
	q->r.epoch = epoch;
	q->r.layer = layer;
	req_fill(q, 1);
	req_submit(q);
	status = req_wait(q);
	req_free(q);
	return status;
}

static void labels_must_be_equal(void **state)
{
	struct device_fixture *fx = *state;
	struct fixture_req *q = req_new(fx, CHUNK_READ, 21, 1, 0, 1);

	assert_int_equal(write_as(fx, 1, 1, 1), 0);
	q->r.chunk = 99;
	req_submit(q);
	assert_int_equal(req_wait(q), -E_STALE_CGEN);
	req_free(q);
}

static void epoch_done(struct device_epoch_req *r)
{
	r->volume = 0;
}

static int raise_epoch(struct device_fixture *fx, uint64_t epoch, layer_id head, uint64_t commit)
{
	struct device_epoch_req r = {
	    .volume = 1, .epoch = epoch, .head = head, .commit = commit, .done = epoch_done};

	list_init(&r.link);
	device_epoch(fx->dev, &r);
	assert_int_equal(r.volume, 1); /* never inline */
	while (r.volume)
		assert_true(sim_step(fx->sim.w));
	return r.status;
}

static void older_epochs_are_refused_for_good(void **state)
{
	struct device_fixture *fx = *state;

	assert_int_equal(write_as(fx, 1, 5, 1), 0);
	assert_int_equal(write_as(fx, 1, 4, 1), -E_STALE_EPOCH);
	assert_int_equal(raise_epoch(fx, 7, 1, 100), 0);
	assert_int_equal(write_as(fx, 1, 5, 1), -E_STALE_EPOCH);
	assert_int_equal(raise_epoch(fx, 6, 1, 100), 0); /* lower: done */
	assert_int_equal(write_as(fx, 1, 6, 1), -E_STALE_EPOCH);
	assert_int_equal(write_as(fx, 2, 1, 2), 0); /* another volume's own affair */
	fixture_power_loss(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_int_equal(write_as(fx, 1, 6, 1), -E_STALE_EPOCH);
	assert_int_equal(write_as(fx, 1, 7, 1), 0);
}

static void a_raise_waits_for_older_requests_and_newer_ones_wait_for_it(void **state)
{
	struct device_fixture *fx = *state;
	struct fixture_req *old = req_new(fx, CHUNK_WRITE, 1, 1, 0, 64);
	struct fixture_req *new = req_new(fx, CHUNK_WRITE, 1, 1, 100, 1);
	struct device_epoch_req r = {.volume = 1, .epoch = 2, .done = epoch_done};

	list_init(&r.link);
	assert_int_equal(dev_flush(fx), 0); /* epoch 1 is known */
	req_fill(old, 1);
	req_fill(new, 2);
	new->r.epoch = 2;
	req_submit(old);
	device_epoch(fx->dev, &r);
	req_submit(new);
	assert_int_equal(dev_write(fx, 1, 1, 200, 1, 1, 0), -E_STALE_EPOCH);
	while (r.volume) {
		assert_false(new->is_done);
		assert_true(sim_step(fx->sim.w));
	}
	assert_true(old->is_done);
	assert_int_equal(old->r.status, 0);
	assert_int_equal(req_wait(new), 0);
	req_free(old);
	req_free(new);
}

static void frozen_layers_are_not_written(void **state)
{
	struct device_fixture *fx = *state;

	assert_int_equal(write_as(fx, 1, 1, 1), 0);
	assert_int_equal(raise_epoch(fx, 1, 2, 50), 0); /* a snapshot: same owner, new head */
	assert_int_equal(write_as(fx, 1, 1, 1), -E_FROZEN);
	assert_int_equal(write_as(fx, 1, 1, 2), 0);
	assert_int_equal(write_as(fx, 1, 3, 1), -E_FROZEN); /* a new owner does not thaw it */
	reopen(fx);
	assert_int_equal(write_as(fx, 1, 3, 1), -E_FROZEN);
	assert_int_equal(raise_epoch(fx, 3, 1, 49), 0); /* older news */
	assert_int_equal(write_as(fx, 1, 3, 1), -E_FROZEN);
}

static void nonsense_is_invalid(void **state)
{
	struct device_fixture *fx = *state;
	struct device_info info;

	device_info(fx->dev, &info);
	assert_int_equal(dev_write(fx, info.slots_n, 1, 0, 1, 1, 0), -EINVAL);
	assert_int_equal(dev_write(fx, UINT32_MAX, 1, 0, 1, 1, 0), -EINVAL);
	assert_int_equal(dev_write(fx, 0, 1, 256, 1, 1, 0), -EINVAL);
	assert_int_equal(dev_write(fx, 0, 1, 255, 2, 1, 0), -EINVAL);
	assert_int_equal(dev_write(fx, 0, 1, UINT32_MAX, 1, 1, 0), -EINVAL);
	assert_int_equal(dev_write(fx, 0, 0, 0, 1, 1, 0), -EINVAL);
	assert_int_equal(dev_write(fx, 0, 1, 0, 1, 1, CHUNK_F_IF_EMPTY), -EINVAL);
	assert_int_equal(dev_write(fx, 0, 1, 0, 1, 1, 1 << 20), -EINVAL);
	assert_int_equal(dev_free(fx, info.slots_n, 1, 0), -EINVAL);
	assert_int_equal(dev_expect(fx, 0, 1, 0, 0, 0), -EINVAL);
	assert_int_equal(device_slot_get(fx->dev, info.slots_n, &(struct device_slot){}), -ERANGE);
}

/* ---- the medium fails ------------------------------------------------------------------------------------------------- */

static int fault_status;
static enum ioe_op fault_op;
static uint64_t fault_from;

static int data_fault(void *arg, const char *path, const struct ioe_req *r)
{
	(void)arg;
	(void)path;
	return r->op == fault_op && (r->op == IOE_FSYNC || r->off >= fault_from) ? fault_status : 0;
}

static void fail_data(struct device_fixture *fx, enum ioe_op op, int status)
{
	fault_op = op;
	fault_status = status;
	fault_from = device_block_offset(fx->dev, 0, 0);
	sim_disk_fault(fx->sim.m, data_fault, NULL);
}

static void heal(struct device_fixture *fx)
{
	sim_disk_fault(fx->sim.m, NULL, NULL);
}

static void a_failed_write_leaves_bad_blocks_until_rewritten(void **state)
{
	struct device_fixture *fx = *state;
	struct device_info info;

	assert_int_equal(dev_write(fx, 1, 1, 0, 8, 1, 0), 0);
	fail_data(fx, IOE_WRITE, -EIO);
	assert_int_equal(dev_write(fx, 1, 1, 2, 2, 2, 0), -EIO);
	heal(fx);
	assert_int_equal(dev_expect(fx, 1, 1, 2, 1, 1), -E_BAD_BLOCK);
	assert_int_equal(dev_expect(fx, 1, 1, 0, 2, 1), 0);
	assert_int_equal(dev_expect(fx, 1, 1, 4, 4, 1), 0);
	reopen(fx);
	assert_int_equal(dev_state(fx, 1, 1, 3), BLOCK_BAD);
	device_info(fx->dev, &info);
	assert_int_equal(info.bad_blocks, 2);
	assert_int_equal(dev_write(fx, 1, 1, 2, 2, 3, 0), 0);
	assert_int_equal(dev_expect(fx, 1, 1, 2, 2, 3), 0);
	device_info(fx->dev, &info);
	assert_int_equal(info.bad_blocks, 0);
}

static void a_full_backing_changes_nothing(void **state)
{
	struct device_fixture *fx = *state;

	assert_int_equal(dev_write(fx, 1, 1, 0, 8, 1, 0), 0);
	fail_data(fx, IOE_WRITE, -ENOSPC);
	assert_int_equal(dev_write(fx, 1, 1, 2, 8, 2, 0), -ENOSPC);
	assert_int_equal(dev_write(fx, 1, 1, 2, 8, 2, CHUNK_F_STABLE), -ENOSPC);
	assert_int_equal(dev_write(fx, 5, 1, 0, 1, 2, 0), -ENOSPC);
	heal(fx);
	assert_int_equal(dev_expect(fx, 1, 1, 0, 8, 1), 0);
	assert_int_equal(dev_expect(fx, 1, 1, 8, 2, 0), 0);
	assert_int_equal(dev_expect(fx, 5, 1, 0, 1, 0), 0);
	assert_int_equal(dev_flush(fx), 0);
	fixture_power_loss(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_int_equal(dev_expect(fx, 1, 1, 0, 8, 1), 0);
	assert_int_equal(dev_expect(fx, 1, 1, 8, 2, 0), 0);
}

static void a_failed_flush_ends_the_service(void **state)
{
	struct device_fixture *fx = *state;
	struct device_info info;

	fail_data(fx, IOE_FSYNC, -EIO);
	assert_int_equal(dev_write(fx, 1, 1, 0, 8, 1, CHUNK_F_STABLE), -E_DEVICE_FAILED);
	heal(fx);
	assert_int_equal(dev_write(fx, 1, 1, 0, 8, 1, 0), -E_DEVICE_FAILED);
	assert_int_equal(dev_flush(fx), -E_DEVICE_FAILED);
	assert_int_equal(dev_expect(fx, 1, 1, 0, 1, 0), -E_DEVICE_FAILED);
	assert_int_equal(raise_epoch(fx, 9, 1, 1), -E_DEVICE_FAILED);
	device_info(fx->dev, &info);
	assert_true(info.failed);
	assert_int_equal(fixture_close(fx), -E_DEVICE_FAILED);
	assert_int_equal(fixture_open(fx, false), 0);
	assert_int_equal(dev_write(fx, 1, 1, 0, 8, 2, 0), 0);
}

static void rot_is_found_and_stays_found(void **state)
{
	struct device_fixture *fx = *state;
	uint8_t byte;
	uint64_t at;

	assert_int_equal(dev_write(fx, 1, 1, 0, 8, 1, 0), 0);
	assert_int_equal(dev_flush(fx), 0);
	at = device_block_offset(fx->dev, 1, 3) + 100;
	assert_int_equal(sim_disk_peek(fx->sim.m, DEVICE_PATH, at, &byte, 1), 0);
	byte ^= 1;
	assert_int_equal(sim_disk_poke(fx->sim.m, DEVICE_PATH, at, &byte, 1), 0);
	assert_int_equal(dev_expect(fx, 1, 1, 0, 8, 1), -E_CHECKSUM);
	assert_string_equal(fx->last_event, "damage");
	assert_int_equal(dev_state(fx, 1, 1, 3), BLOCK_BAD);
	assert_int_equal(dev_expect(fx, 1, 1, 3, 1, 1), -E_BAD_BLOCK);
	assert_int_equal(dev_expect(fx, 1, 1, 4, 4, 1), 0);
	reopen(fx);
	assert_int_equal(dev_expect(fx, 1, 1, 3, 1, 1), -E_BAD_BLOCK);
	assert_int_equal(dev_write(fx, 1, 1, 3, 1, 1, 0), 0);
	assert_int_equal(dev_expect(fx, 1, 1, 0, 8, 1), 0);
}

/* ---- number and layers ------------------------------------------------------------------------------------------------ */

static void ctl_done(void *arg, int status)
{
	*(int *)arg = status;
}

static int wait_ctl(struct device_fixture *fx, const int *status)
{
	while (*status == 1)
		assert_true(sim_step(fx->sim.w));
	return *status;
}

static int set_number(struct device_fixture *fx, device_no no)
{
	int status = 1;

	device_set_number(fx->dev, no, ctl_done, &status);
	assert_int_equal(status, 1);
	return wait_ctl(fx, &status);
}

static void the_number_never_changes(void **state)
{
	struct device_fixture *fx = *state;
	struct device_info info;

	assert_int_equal(set_number(fx, 0), -EINVAL);
	assert_int_equal(set_number(fx, 42), 0);
	assert_int_equal(set_number(fx, 43), -EEXIST);
	assert_int_equal(set_number(fx, 42), 0);
	fixture_power_loss(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	device_info(fx->dev, &info);
	assert_int_equal(info.number, 42);
	/* whichever superblock rots */
	fixture_power_loss(fx);
	for (uint32_t which = 0; which < 2; which++) {
		uint64_t at = (which ? 64 << 10 : 0) + 100;
		uint8_t byte;

		assert_int_equal(sim_disk_peek(fx->sim.m, DEVICE_PATH, at, &byte, 1), 0);
		byte ^= 1;
		assert_int_equal(sim_disk_poke(fx->sim.m, DEVICE_PATH, at, &byte, 1), 0);
		assert_int_equal(fixture_open(fx, true), 0);
		device_info(fx->dev, &info);
		assert_int_equal(info.number, 42);
		assert_int_equal(fixture_close(fx), 0);
		byte ^= 1;
		assert_int_equal(sim_disk_poke(fx->sim.m, DEVICE_PATH, at, &byte, 1), 0);
	}
	assert_int_equal(fixture_open(fx, false), 0);
}

static int put_layer(struct device_fixture *fx, layer_id id, uint64_t commit, const char *name)
{
	struct device_layer l = {
	    .layer = id, .parent = id / 2, .volume = 7, .size_bytes = 1 << 30, .commit = commit};
	int status = 1;

	snprintf(l.name, sizeof(l.name), "%s", name);
	snprintf(l.snapshot, sizeof(l.snapshot), "%s", id % 2 ? "snap" : "");
	device_layer_put(fx->dev, &l, ctl_done, &status);
	return wait_ctl(fx, &status);
}

static void layers_are_kept_and_the_newest_counts(void **state)
{
	struct device_fixture *fx = *state;
	struct device_layer l = {};
	uint32_t n = 0;

	for (uint32_t i = 1; i <= 300; i++)
		assert_int_equal(put_layer(fx, 301 - i, 10, "old"), 0);
	assert_int_equal(put_layer(fx, 5, 12, "new"), 0);
	assert_int_equal(put_layer(fx, 5, 11, "middle"), 0);
	assert_int_equal(put_layer(fx, 6, 12, ""), -EINVAL);
	reopen(fx);
	fixture_power_loss(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	while (device_layer_next(fx->dev, l.layer, &l) == 0) {
		assert_int_equal(l.layer, ++n);
		assert_int_equal(l.parent, n / 2);
		assert_string_equal(l.name, n == 5 ? "new" : "old");
		assert_string_equal(l.snapshot, n % 2 ? "snap" : "");
	}
	assert_int_equal(n, 300);
	assert_int_equal(device_layer_next(fx->dev, UINT32_MAX, &l), -ENOENT);
}

static void the_highest_commit_is_remembered(void **state)
{
	struct device_fixture *fx = *state;
	struct device_info info;

	device_heard_commit(fx->dev, 77);
	device_heard_commit(fx->dev, 76);
	assert_int_equal(dev_write(fx, 0, 9, 0, 1, 1, CHUNK_F_STABLE), 0);
	fixture_power_loss(fx);
	assert_int_equal(fixture_open(fx, false), 0);
	device_info(fx->dev, &info);
	assert_int_equal(info.commit, 77);
	assert_int_equal(info.cgen_highest, 9);
}

/* Put, it needs no later write to survive power loss. */
static void a_commit_that_was_put_survives_power_loss(void **state)
{
	struct device_fixture *fx = *state;
	struct device_info info;

	for (uint64_t commit = 100; commit < 110; commit++) {
		int status = 1;

		device_commit_put(fx->dev, commit, ctl_done, &status);
		assert_int_equal(wait_ctl(fx, &status), 0);
		if (commit % 2)
			assert_int_equal(dev_write(fx, 0, 9, 0, 1, 1, 0), 0);
		fixture_power_loss(fx);
		assert_int_equal(fixture_open(fx, false), 0);
		device_info(fx->dev, &info);
		assert_int_equal(info.commit, commit);
	}
}

#define BOTH(test)                                                \
	cmocka_unit_test_setup_teardown(test, setup, teardown),   \
	{                                                         \
#test " (ring)", test, setup_ring, teardown, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    BOTH(what_was_written_is_read),
	    BOTH(a_read_over_data_holes_and_zeros_is_one_answer),
	    BOTH(the_whole_chunk_goes_in_one_request),
	    BOTH(overlapping_requests_are_executed_in_their_order),
	    BOTH(more_requests_than_it_executes_at_once_wait),
	    BOTH(a_volatile_acknowledgement_says_so),
	    BOTH(cleared_blocks_read_as_nothing_and_give_their_space_back),
	    BOTH(a_write_right_after_a_clear_survives_the_punch),
	    BOTH(clearing_a_free_slot_does_nothing_unless_to_zero),
	    BOTH(a_freed_slot_takes_only_a_newer_generation),
	    BOTH(free_waits_for_what_was_admitted),
	    BOTH(labels_must_be_equal),
	    BOTH(older_epochs_are_refused_for_good),
	    BOTH(a_raise_waits_for_older_requests_and_newer_ones_wait_for_it),
	    BOTH(frozen_layers_are_not_written),
	    BOTH(nonsense_is_invalid),
	    BOTH(a_failed_write_leaves_bad_blocks_until_rewritten),
	    BOTH(a_full_backing_changes_nothing),
	    BOTH(a_failed_flush_ends_the_service),
	    BOTH(rot_is_found_and_stays_found),
	    BOTH(the_number_never_changes),
	    BOTH(layers_are_kept_and_the_newest_counts),
	    BOTH(the_highest_commit_is_remembered),
	    BOTH(a_commit_that_was_put_survives_power_loss),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
