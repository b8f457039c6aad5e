/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/volume_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "src/base/math.h"
#include "src/base/mem.h"

static void on_event(void *arg, const char *volume, const char *what, const char *text)
{
	struct volume_fixture *fx = arg;

	(void)volume;
	(void)text;
	fx->events_n++;
	snprintf(fx->event, sizeof(fx->event), "%s", what);
}

void volume_fixture_init(struct volume_fixture *fx, const struct volume_fixture_config *cfg)
{
	uint32_t shift = cfg->chunk_shift ? cfg->chunk_shift : CHUNK_SHIFT_FLASH;
	struct volumes_config vc = {.limits = cfg->limits, .on_event = on_event, .event_arg = fx};

	memset(fx, 0, sizeof(*fx));
	fx->mem_live = mem_live();
	sim_fixture_init(&fx->sim, cfg->seed);
	mock_store_init(&fx->store, fx->sim.e, cfg->seed + 1, VF_DEVICES,
			cfg->slots_n ? cfg->slots_n : 64, shift);
	mock_meta_init(&fx->meta, fx->sim.e, cfg->seed + 2, &fx->store, VF_DEVICES, shift);
	fx->vol = mock_meta_volume(&fx->meta, "vol", cfg->size_bytes ? cfg->size_bytes : 8 << 20);
	vc.ioe = fx->sim.e;
	vc.store = &fx->store.store;
	vc.meta = &fx->meta.meta;
	assert_int_equal(volumes_new(&vc, &fx->vs), 0);
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

void volume_fixture_free(struct volume_fixture *fx)
{
	bool closed = false;

	for (int i = 0; i < VF_HANDLES_MAX; i++)
		if (fx->handles[i])
			vf_close(fx, fx->handles[i]);
	volumes_close(fx->vs, set_flag, &closed);
	sim_run_until(fx->sim.w, &closed);
	volumes_free(fx->vs);
	assert_true(sim_run(fx->sim.w, UINT64_MAX));
	mock_meta_free(&fx->meta);
	mock_store_free(&fx->store);
	ioe_free(fx->sim.e);
	sim_fixture_free(&fx->sim);
	if (fx->store.violations)
		fail_msg("%u violations: %s", fx->store.violations, fx->store.violation);
	assert_int_equal(mem_live(), fx->mem_live);
}

/* ---- open and close --------------------------------------------------------------------------------------------------- */

static void open_done(struct volume_open *op)
{
	struct vf_open *o = container_of(op, struct vf_open, op);

	assert_false(o->is_done);
	o->is_done = true;
}

void vf_open_start(struct volume_fixture *fx, struct vf_open *o)
{
	o->is_done = false;
	o->op.done = open_done;
	if (!o->op.client)
		o->op.client = "a test";
	volume_open(fx->vs, &o->op);
	assert_false(o->is_done);
}

int vf_open_wait(struct volume_fixture *fx, struct vf_open *o)
{
	sim_run_until(fx->sim.w, &o->is_done);
	for (int i = 0; o->op.status == 0 && i < VF_HANDLES_MAX; i++)
		if (!fx->handles[i]) {
			fx->handles[i] = o->op.handle;
			break;
		}
	return o->op.status;
}

struct volume_handle *vf_open(struct volume_fixture *fx, const char *name)
{
	struct vf_open o = {.op = {.name = name}};

	vf_open_start(fx, &o);
	if (vf_open_wait(fx, &o))
		fail_msg("%s: %s", name, o.op.errmsg);
	return o.op.handle;
}

void vf_close(struct volume_fixture *fx, struct volume_handle *h)
{
	bool closed = false;

	for (int i = 0; i < VF_HANDLES_MAX; i++)
		if (fx->handles[i] == h)
			fx->handles[i] = NULL;
	volume_close(h, set_flag, &closed);
	assert_false(closed);
	sim_run_until(fx->sim.w, &closed);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

void vf_pattern(uint8_t sector[SECTOR_BYTES], uint64_t off, uint32_t id)
{
	uint64_t word[SECTOR_BYTES / 8];

	for (unsigned i = 0; i < ARRAY_LEN(word); i++)
		word[i] = id == 0 ? 0 : (off / SECTOR_BYTES) << 32 | id;
	memcpy(sector, word, SECTOR_BYTES);
}

uint32_t vf_pattern_id(const uint8_t sector[SECTOR_BYTES], uint64_t off)
{
	uint8_t want[SECTOR_BYTES];
	uint64_t word;

	memcpy(&word, sector, sizeof(word));
	vf_pattern(want, off, (uint32_t)word);
	return memcmp(sector, want, SECTOR_BYTES) == 0 ? (uint32_t)word : UINT32_MAX;
}

static void io_done(struct volume_req *r)
{
	struct vf_io *io = container_of(r, struct vf_io, r);

	assert_false(io->is_done);
	io->is_done = true;
}

void vf_io_prepare(struct vf_io *io, enum volume_op op, uint64_t off, uint64_t len, uint32_t flags,
		   uint32_t id)
{
	uint64_t first = round_down(off, BLOCK_BYTES), end = round_up(off + len, BLOCK_BYTES);

	memset(io, 0, sizeof(*io));
	memset(io->r.priv, 0xa5, sizeof(io->r.priv));
	io->r.op = op;
	io->r.off = off;
	io->r.len = len;
	io->r.flags = flags;
	io->r.done = io_done;
	io->r.extents = io->extents;
	io->r.extents_max = ARRAY_LEN(io->extents);
	if (op == VOLUME_READ || op == VOLUME_WRITE) {
		io->block = mem_alloc_aligned(BLOCK_BYTES, end - first);
		assert_non_null(io->block);
		memset(io->block, 0x5a, end - first);
		io->r.buf = io->block + (off - first);
	}
	for (uint64_t at = 0; op == VOLUME_WRITE && at < len; at += SECTOR_BYTES)
		vf_pattern((uint8_t *)io->r.buf + at, off + at, id);
}

void vf_io_start(struct volume_fixture *fx, struct volume_handle *h, struct vf_io *io,
		 enum volume_op op, uint64_t off, uint64_t len, uint32_t flags, uint32_t id)
{
	(void)fx;
	vf_io_prepare(io, op, off, len, flags, id);
	volume_submit(h, &io->r);
	assert_false(io->is_done);
}

int vf_io_wait(struct volume_fixture *fx, struct vf_io *io)
{
	sim_run_until(fx->sim.w, &io->is_done);
	return io->r.status;
}

void vf_io_end(struct vf_io *io)
{
	mem_free(io->block);
	io->block = NULL;
}

static int whole(struct volume_fixture *fx, struct volume_handle *h, enum volume_op op,
		 uint64_t off, uint64_t len, uint32_t flags, uint32_t id)
{
	struct vf_io io;
	int status;

	vf_io_start(fx, h, &io, op, off, len, flags, id);
	status = vf_io_wait(fx, &io);
	vf_io_end(&io);
	return status;
}

int vf_do(struct volume_fixture *fx, struct volume_handle *h, enum volume_op op, uint64_t off,
	  uint64_t len, uint32_t flags)
{
	return whole(fx, h, op, off, len, flags, 0);
}

int vf_write(struct volume_fixture *fx, struct volume_handle *h, uint64_t off, uint64_t len,
	     uint32_t id)
{
	return whole(fx, h, VOLUME_WRITE, off, len, 0, id);
}

int vf_flush(struct volume_fixture *fx, struct volume_handle *h)
{
	return whole(fx, h, VOLUME_FLUSH, 0, 0, 0, 0);
}

bool vf_reads(struct volume_fixture *fx, struct volume_handle *h, uint64_t off, uint64_t len,
	      uint32_t id)
{
	struct vf_io io;
	bool same = true;

	vf_io_start(fx, h, &io, VOLUME_READ, off, len, 0, 0);
	assert_int_equal(vf_io_wait(fx, &io), 0);
	for (uint64_t at = 0; same && at < len; at += SECTOR_BYTES)
		if (vf_pattern_id((uint8_t *)io.r.buf + at, off + at) != id) {
			print_message("at %llu: id %u, not %u\n", (unsigned long long)(off + at),
				      vf_pattern_id((uint8_t *)io.r.buf + at, off + at), id);
			same = false;
		}
	vf_io_end(&io);
	return same;
}

/* ---- counters --------------------------------------------------------------------------------------------------------- */

struct stats_wanted {
	const char *name;
	struct volume_stats *st;
	bool found;
};

static void take_stats(void *arg, const struct volume_stats *st)
{
	struct stats_wanted *w = arg;

	if (strcmp(st->name, w->name))
		return;
	*w->st = *st;
	w->found = true;
}

const struct volume_stats *vf_stats(struct volume_fixture *fx, const char *name)
{
	static struct volume_stats st;
	struct stats_wanted w = {.name = name, .st = &st};

	volumes_stats(fx->vs, take_stats, &w);
	assert_true(w.found);
	return &st;
}
