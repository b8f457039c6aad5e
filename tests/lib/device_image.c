/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/device_image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/crc.h"
#include "src/base/math.h"
#include "tests/lib/block_pattern.h"

/* ---- the device ----------------------------------------------------------------------------------------------------------------- */

struct call {
	struct device_format format;
	struct device_open open;
	struct chunk_req req;
	bool done;
};

static void format_done(struct device_format *op)
{
	container_of(op, struct call, format)->done = true;
}

static void open_done(struct device_open *op)
{
	container_of(op, struct call, open)->done = true;
}

static void req_done(struct chunk_req *r)
{
	container_of(r, struct call, req)->done = true;
}

static void close_done(void *arg, int status)
{
	*(bool *)arg = true;
	assert_int_equal(status, 0);
}

void image_init(struct image *im, uint64_t seed, uint32_t chunk_shift)
{
	static struct call c;
	struct fmt_superblock sb;

	memset(im, 0, sizeof(*im));
	sim_fixture_init(&im->fx, seed);
	memset(&im->cluster, 0xc1, sizeof(im->cluster));
	mem_arena_init(&im->arena);
	mem_arena_use(&im->arena);
	c = (struct call){.format = {.ioe = im->fx.e,
				     .path = IMAGE_PATH,
				     .size_bytes = IMAGE_BYTES,
				     .chunk_shift = chunk_shift,
				     .cluster = im->cluster,
				     .done = format_done}};
	device_format(&c.format);
	sim_run_until(im->fx.w, &c.done);
	assert_int_equal(c.format.status, 0);
	im->uuid = c.format.uuid;
	image_peek(im, 0, &sb, sizeof(sb));
	assert_int_equal(geometry_load(&sb, &im->geo), 0);
}

void image_free(struct image *im)
{
	sim_fixture_free(&im->fx);
	mem_arena_drop(&im->arena);
	mem_arena_use(NULL);
}

void image_open(struct image *im, const char *ring)
{
	static struct call c;

	c = (struct call){
	    .open = {.ioe = im->fx.e, .path = IMAGE_PATH, .ring_path = ring, .done = open_done}};
	device_open(&c.open);
	sim_run_until(im->fx.w, &c.done);
	if (c.open.status)
		fail_msg("open: %s", c.open.errmsg);
	im->dev = c.open.dev;
}

void image_close(struct image *im)
{
	static bool done;

	done = false;
	device_close(im->dev, close_done, &done);
	sim_run_until(im->fx.w, &done);
	im->dev = NULL;
}

void image_kill(struct image *im)
{
	sim_fixture_kill(&im->fx);
	mem_arena_drop(&im->arena);
	im->dev = NULL;
	sim_fixture_restart(&im->fx);
}

/* ---- requests --------------------------------------------------------------------------------------------------------------------- */

static void submit(struct image *im, struct call *c, const struct image_chunk *at)
{
	struct chunk_req *r = &c->req;

	if (at) {
		r->slot = at->slot;
		r->cgen = at->cgen;
		r->volume = at->volume;
		r->layer = at->layer;
		r->chunk = at->chunk;
	}
	r->epoch = 1;
	r->done = req_done;
	device_submit(im->dev, r);
	sim_run_until(im->fx.w, &c->done);
	if (r->status)
		fail_msg("request %d on slot %u: %s", r->op, r->slot, err_name(r->status));
}

void image_write(struct image *im, const struct image_chunk *at, uint32_t block, uint32_t n,
		 uint32_t flags)
{
	enum { STEP = 64 };
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, STEP * BLOCK_BYTES);
	uint32_t crcs[STEP];

	assert_non_null(buf);
	for (uint32_t b = block; b < block + n; b += STEP) {
		uint32_t m = MIN((uint32_t)STEP, block + n - b);
		static struct call c;

		for (uint32_t i = 0; i < m; i++) {
			pattern_fill(buf + (size_t)i * BLOCK_BYTES, 1,
				     (uint64_t)at->slot * CHUNK_BLOCKS_MAX + b + i);
			crcs[i] = crc32c(buf + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
		}
		c = (struct call){.req = {.op = CHUNK_WRITE,
					  .flags = flags,
					  .block = b,
					  .blocks_n = m,
					  .buf = buf,
					  .crcs = crcs}};
		submit(im, &c, at);
	}
	free(buf);
}

void image_clear(struct image *im, const struct image_chunk *at, uint32_t block, uint32_t n,
		 uint32_t flags)
{
	static struct call c;

	c = (struct call){.req = {.op = CHUNK_CLEAR, .flags = flags, .block = block, .blocks_n = n}};
	submit(im, &c, at);
}

void image_free_slot(struct image *im, const struct image_chunk *at)
{
	static struct call c;

	c = (struct call){.req = {.op = CHUNK_FREE}};
	submit(im, &c, at);
}

void image_flush(struct image *im)
{
	static struct call c;

	c = (struct call){.req = {.op = CHUNK_FLUSH, .volume = 1}};
	submit(im, &c, NULL);
}

/* ---- raw bytes --------------------------------------------------------------------------------------------------------------------- */

void image_peek(struct image *im, uint64_t off, void *buf, size_t len)
{
	assert_int_equal(sim_disk_peek(im->fx.m, IMAGE_PATH, off, buf, len), 0);
}

void image_poke(struct image *im, uint64_t off, const void *buf, size_t len)
{
	assert_int_equal(sim_disk_poke(im->fx.m, IMAGE_PATH, off, buf, len), 0);
}

void image_flip(struct image *im, uint64_t off)
{
	uint8_t byte;

	image_peek(im, off, &byte, 1);
	byte ^= 0x10;
	image_poke(im, off, &byte, 1);
}

void image_slot_page_get(struct image *im, uint32_t page, uint8_t home, struct fmt_slot_page *ret_p)
{
	image_peek(im, geometry_slot_page_offset(&im->geo, page, home), ret_p, sizeof(*ret_p));
}

void image_slot_page_put(struct image *im, uint32_t page, uint8_t home, struct fmt_slot_page *p)
{
	fmt_slot_page_prepare(p, &(struct fmt_slot_page_id){.device = &im->uuid,
							    .page_no = page,
							    .home = home});
	image_poke(im, geometry_slot_page_offset(&im->geo, page, home), p, sizeof(*p));
}

uint8_t image_slot_page_home(struct image *im, uint32_t page)
{
	uint64_t seq[2];

	for (uint8_t home = 0; home < 2; home++) {
		struct fmt_slot_page p;

		image_slot_page_get(im, page, home, &p);
		seq[home] = fmt_slot_page_check(&p, &(struct fmt_slot_page_id){.device = &im->uuid,
									       .page_no = page,
									       .home = home})
				? 0
				: get_le64(p.seq);
	}
	assert_true(seq[0] || seq[1]);
	return seq[1] > seq[0];
}
