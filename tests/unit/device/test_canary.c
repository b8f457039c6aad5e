/* SPDX-License-Identifier: Apache-2.0 */
/* Would the checkers of test_model.c notice? Here the device is a make-believe one, in memory and right by construction, into which one
 * bug at a time is planted. Without a bug every seed passes; each bug must be found within a few seeds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/crc.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "tests/lib/device_workload.h"

enum bug {
	NONE,
	FORGETS_A_WRITE,     /* acknowledged, gone after a kill */
	FLUSH_DOES_NOTHING,  /* and power loss shows it */
	STABLE_IS_NOT,	     /* likewise */
	TEARS_A_FRESH_BLOCK, /* half of a first write survives */
	KEEPS_RESIDUE,	     /* a reused slot shows its last tenant */
	IGNORES_CGEN,
	IGNORES_EPOCH,
	IGNORES_LABELS,
	LOSES_A_REQUEST,
	WRITES_ELSEWHERE, /* one block further */
	MISCOUNTS,
	FORGETS_A_LAYER,
	KEEPS_A_LAYER, /* though it is gone */
	SAYS_NOTHING_OF_POWER_LOSS,
	LEAKS,
	BUGS_N,
};

enum { FAKE_SLOTS = 100, FAKE_BLOCKS_MAX = 1024 };

struct fake_block {
	uint8_t state;
	uint8_t *data; /* NULL: none yet */
};

struct fake_slot {
	struct model_identity id;
	struct fake_block *blocks;
};

/* What is "on the disk": all of it, and the part that power loss leaves. */
static struct {
	enum bug bug;
	uint32_t blocks_n, shift;
	struct fake_slot now[FAKE_SLOTS], durable[FAKE_SLOTS];
	uint64_t epochs[MODEL_VOLUMES + 1], heads[MODEL_VOLUMES + 1];
	struct device_layer layers[MODEL_LAYERS + 1];
	uint64_t incarnation, commit;
	struct uuid boot;
	const char *ring;
	bool clean;
	uint32_t acks;
} disk;

struct device {
	struct ioe *e;
	bool read_only, lost_power, failed;
};

struct fake_op {
	struct ioe_req timer;
	struct device *dev;
	struct chunk_req *r;
	struct device_epoch_req *epoch;
	struct device_layer layer;
	void (*done)(void *arg, int status);
	void *arg;
};

static struct fake_block *block_at(struct fake_slot *s, uint32_t b)
{
	if (!s->blocks)
		s->blocks = calloc(FAKE_BLOCKS_MAX, sizeof(*s->blocks));
	return &s->blocks[b];
}

static void block_set(struct fake_slot *s, uint32_t b, uint8_t state, const void *data)
{
	struct fake_block *blk = block_at(s, b);

	blk->state = state;
	if (!data)
		return;
	if (!blk->data)
		blk->data = malloc(BLOCK_BYTES);
	memmove(blk->data, data, BLOCK_BYTES);
}

static void slot_clear(struct fake_slot *s)
{
	for (uint32_t b = 0; s->blocks && b < FAKE_BLOCKS_MAX; b++) {
		free(s->blocks[b].data);
		s->blocks[b] = (struct fake_block){0};
	}
}

static void block_copy(struct fake_slot *to, struct fake_slot *from, uint32_t b)
{
	block_set(to, b, block_at(from, b)->state, block_at(from, b)->data);
}

static void slot_copy(struct fake_slot *to, struct fake_slot *from)
{
	if (to->id.cgen != from->id.cgen || to->id.open != from->id.open)
		slot_clear(to);
	to->id = from->id;
	for (uint32_t b = 0; from->blocks && b < disk.blocks_n; b++)
		if (from->blocks[b].state || (to->blocks && to->blocks[b].state))
			block_copy(to, from, b);
}

static void make_durable(void)
{
	for (uint32_t s = 0; s < FAKE_SLOTS; s++)
		slot_copy(&disk.durable[s], &disk.now[s]);
}

/* Each block that is not durable is kept or dropped; a slot that is not, with all of them. */
static void lose(struct device *dev)
{
	for (uint32_t s = 0; s < FAKE_SLOTS; s++) {
		struct fake_slot *now = &disk.now[s], *durable = &disk.durable[s];

		if (now->id.open && !durable->id.open && ioe_rand64(dev->e) % 2) {
			slot_clear(now);
			now->id = durable->id;
		}
		for (uint32_t b = 0; now->blocks && b < disk.blocks_n && now->id.open; b++) {
			bool had = durable->id.open && block_at(durable, b)->state != BLOCK_HOLE;

			if (now->blocks[b].state != BLOCK_DATA || ioe_rand64(dev->e) % 2)
				continue;
			if (had)
				block_copy(now, durable, b);
			else if (disk.bug == TEARS_A_FRESH_BLOCK)
				memset(now->blocks[b].data + 2048, 0, 2048);
			else
				now->blocks[b].state = BLOCK_HOLE;
		}
	}
	make_durable();
	disk.incarnation += !dev->read_only;
	dev->lost_power = disk.bug != SAYS_NOTHING_OF_POWER_LOSS;
}

/* ---- the contract ------------------------------------------------------------------------------------------------------------- */

static void format_timer(struct ioe_req *t)
{
	struct fake_op *op = container_of(t, struct fake_op, timer);
	struct device_format *f = op->arg;

	mem_free(op);
	f->status = 0;
	f->done(f);
}

void device_format(struct device_format *f)
{
	struct fake_op *op = mem_zalloc(sizeof(*op));
	enum bug bug = disk.bug;

	for (uint32_t s = 0; s < FAKE_SLOTS; s++) {
		slot_clear(&disk.now[s]);
		slot_clear(&disk.durable[s]);
		free(disk.now[s].blocks);
		free(disk.durable[s].blocks);
	}
	memset(&disk, 0, sizeof(disk));
	disk.bug = bug;
	disk.shift = f->chunk_shift;
	disk.blocks_n = 1u << (f->chunk_shift - BLOCK_SHIFT);
	disk.incarnation = 1;
	disk.clean = true;
	op->arg = f;
	ioe_timer(f->ioe, &op->timer, 0, format_timer);
}

static void open_timer(struct ioe_req *t)
{
	struct fake_op *op = container_of(t, struct fake_op, timer);
	struct device_open *o = op->arg;
	struct device *dev = mem_zalloc(sizeof(*dev));
	struct uuid boot = ioe_boot_id(o->ioe);

	mem_free(op);
	dev->e = o->ioe;
	dev->read_only = o->read_only;
	if (!disk.clean && (!disk.ring || !o->ring_path || strcmp(disk.ring, o->ring_path) ||
			    !uuid_equal(&boot, &disk.boot)))
		lose(dev);
	if (!dev->read_only) {
		disk.boot = boot;
		disk.ring = o->ring_path;
		disk.clean = false;
	}
	o->dev = dev;
	o->status = 0;
	o->done(o);
}

void device_open(struct device_open *o)
{
	struct fake_op *op = mem_zalloc(sizeof(*op));

	op->arg = o;
	ioe_timer(o->ioe, &op->timer, ioe_now_ns(o->ioe) + SIM_LATE_NS, open_timer);
}

static void close_timer(struct ioe_req *t)
{
	struct fake_op *op = container_of(t, struct fake_op, timer);

	if (!op->dev->read_only) {
		make_durable();
		disk.clean = true;
	}
	if (disk.bug != LEAKS)
		mem_free(op->dev);
	op->done(op->arg, 0);
	mem_free(op);
}

void device_close(struct device *dev, void (*done)(void *arg, int status), void *arg)
{
	struct fake_op *op = mem_zalloc(sizeof(*op));

	op->dev = dev;
	op->done = done;
	op->arg = arg;
	ioe_timer(dev->e, &op->timer, ioe_now_ns(dev->e) + 100 * 1000 * 1000, close_timer);
}

static int admit(const struct chunk_req *r)
{
	const struct fake_slot *s = &disk.now[r->slot];
	bool change = r->op == CHUNK_WRITE || r->op == CHUNK_CLEAR;
	bool labels = r->layer == s->id.layer && r->chunk == s->id.chunk;

	if (r->op == CHUNK_FREE)
		return 0;
	if (r->epoch < disk.epochs[r->volume] && disk.bug != IGNORES_EPOCH)
		return -E_STALE_EPOCH;
	disk.epochs[r->volume] = MAX(disk.epochs[r->volume], r->epoch);
	if (r->op == CHUNK_FLUSH)
		return 0;
	if (s->id.open ? r->cgen != s->id.cgen && disk.bug != IGNORES_CGEN : r->cgen <= s->id.cgen)
		return -E_STALE_CGEN;
	if (s->id.open && !labels && disk.bug != IGNORES_LABELS)
		return -E_STALE_CGEN;
	return change && disk.heads[r->volume] && r->layer != disk.heads[r->volume] ? -E_FROZEN : 0;
}

static uint32_t present(struct fake_slot *s)
{
	uint32_t n = 0;

	for (uint32_t b = 0; s->blocks && b < disk.blocks_n; b++)
		n += s->blocks[b].state == BLOCK_DATA;
	return n + (disk.bug == MISCOUNTS && n > 3);
}

static void change(struct chunk_req *r, struct fake_slot *s)
{
	bool open = r->op == CHUNK_WRITE || (r->flags & CHUNK_F_ZERO);
	bool stable = r->flags & CHUNK_F_STABLE || !disk.ring;
	uint32_t shift = disk.bug == WRITES_ELSEWHERE && r->blocks_n == 1 &&
			 r->block + 1 < disk.blocks_n && disk.acks % 32 == 31;

	r->volatile_ack = !stable;
	if (!s->id.open && !open)
		return;
	if (!s->id.open) {
		if (disk.bug != KEEPS_RESIDUE)
			slot_clear(s);
		s->id = (struct model_identity){true, r->cgen, r->volume, r->layer, r->chunk};
	}
	if (++disk.acks % 64 == 0 && disk.bug == FORGETS_A_WRITE)
		return;
	for (uint32_t i = 0; i < r->blocks_n; i++)
		block_set(s, r->block + i + shift,
			  r->op == CHUNK_WRITE	    ? BLOCK_DATA
			  : r->flags & CHUNK_F_ZERO ? BLOCK_ZERO
						    : BLOCK_HOLE,
			  r->op == CHUNK_WRITE ? (uint8_t *)r->buf + (size_t)i * BLOCK_BYTES : NULL);
	if (stable && disk.bug != STABLE_IS_NOT) {
		if (!disk.durable[r->slot].id.open)
			slot_clear(&disk.durable[r->slot]);
		disk.durable[r->slot].id = s->id;
		for (uint32_t i = 0; i < r->blocks_n; i++)
			block_copy(&disk.durable[r->slot], s, r->block + i);
	}
}

static void look(struct chunk_req *r, struct fake_slot *s)
{
	for (uint32_t i = 0; i < r->blocks_n; i++) {
		struct fake_block *b = block_at(s, r->block + i);
		uint8_t *to = (uint8_t *)r->buf + (size_t)i * BLOCK_BYTES;

		r->states[i] = s->id.open || disk.bug == KEEPS_RESIDUE ? b->state : BLOCK_HOLE;
		if (r->op == CHUNK_STATUS)
			continue;
		memset(to, 0, BLOCK_BYTES);
		if (r->states[i] == BLOCK_DATA)
			memcpy(to, b->data, BLOCK_BYTES);
		r->crcs[i] = r->states[i] == BLOCK_DATA ? crc32c(to, BLOCK_BYTES) : 0;
	}
}

static int free_slot(struct chunk_req *r, struct fake_slot *s)
{
	if (r->cgen < s->id.cgen)
		return 0;
	if ((r->flags & CHUNK_F_IF_EMPTY) && s->id.open && present(s))
		return -ENOTEMPTY;
	s->id = (struct model_identity){.cgen = r->cgen};
	if (disk.bug != KEEPS_RESIDUE)
		slot_clear(s);
	slot_clear(&disk.durable[r->slot]);
	disk.durable[r->slot].id = s->id;
	return 0;
}

static void request_timer(struct ioe_req *t)
{
	struct fake_op *op = container_of(t, struct fake_op, timer);
	struct chunk_req *r = op->r;
	struct fake_slot *s = &disk.now[r->slot];

	mem_free(op);
	r->status = admit(r);
	r->volatile_ack = false;
	if (r->status == 0 && (r->op == CHUNK_WRITE || r->op == CHUNK_CLEAR))
		change(r, s);
	else if (r->status == 0 && (r->op == CHUNK_READ || r->op == CHUNK_STATUS))
		look(r, s);
	else if (r->status == 0 && r->op == CHUNK_FLUSH && disk.bug != FLUSH_DOES_NOTHING)
		make_durable();
	else if (r->op == CHUNK_FREE)
		r->status = free_slot(r, s);
	r->present_n = present(s);
	r->done(r);
}

void device_submit(struct device *dev, struct chunk_req *r)
{
	struct fake_op *op = mem_zalloc(sizeof(*op));

	op->r = r;
	if (disk.bug == LOSES_A_REQUEST && ioe_rand64(dev->e) % 256 == 0) {
		mem_free(op);
		return;
	}
	ioe_timer(dev->e, &op->timer, ioe_now_ns(dev->e) + ioe_rand64(dev->e) % 2000000,
		  request_timer);
}

static void epoch_timer(struct ioe_req *t)
{
	struct fake_op *op = container_of(t, struct fake_op, timer);
	struct device_epoch_req *r = op->epoch;

	mem_free(op);
	disk.epochs[r->volume] = MAX(disk.epochs[r->volume], r->epoch);
	disk.heads[r->volume] = r->head;
	disk.commit = MAX(disk.commit, r->commit);
	r->status = 0;
	r->done(r);
}

void device_epoch(struct device *dev, struct device_epoch_req *r)
{
	struct fake_op *op = mem_zalloc(sizeof(*op));

	op->epoch = r;
	ioe_timer(dev->e, &op->timer, ioe_now_ns(dev->e) + ioe_rand64(dev->e) % 2000000,
		  epoch_timer);
}

static void layer_timer(struct ioe_req *t)
{
	struct fake_op *op = container_of(t, struct fake_op, timer);
	struct fake_op copy = *op;

	mem_free(op);
	disk.commit = MAX(disk.commit, copy.layer.commit);
	if (!copy.layer.name[0] && disk.bug != KEEPS_A_LAYER)
		disk.layers[copy.layer.layer] = (struct device_layer){0};
	if (copy.layer.name[0] && (disk.bug != FORGETS_A_LAYER || copy.layer.layer % 4))
		disk.layers[copy.layer.layer] = copy.layer;
	copy.done(copy.arg, 0);
}

void device_layer_put(struct device *dev, const struct device_layer *layer,
		      void (*done)(void *arg, int status), void *arg)
{
	struct fake_op *op = mem_zalloc(sizeof(*op));

	op->layer = *layer;
	op->done = done;
	op->arg = arg;
	ioe_timer(dev->e, &op->timer, ioe_now_ns(dev->e) + 1000, layer_timer);
}

void device_layer_drop(struct device *dev, layer_id layer, uint64_t commit,
		       void (*done)(void *arg, int status), void *arg)
{
	struct fake_op *op = mem_zalloc(sizeof(*op));

	op->layer = (struct device_layer){.layer = layer, .commit = commit};
	op->done = done;
	op->arg = arg;
	ioe_timer(dev->e, &op->timer, ioe_now_ns(dev->e) + 1000, layer_timer);
}

int device_layer_next(struct device *dev, layer_id after, struct device_layer *ret_layer)
{
	(void)dev;
	for (layer_id l = after + 1; l <= MODEL_LAYERS; l++)
		if (disk.layers[l].layer) {
			*ret_layer = disk.layers[l];
			return 0;
		}
	return -ENOENT;
}

void device_heard_commit(struct device *dev, uint64_t commit)
{
	(void)dev;
	disk.commit = MAX(disk.commit, commit);
}

void device_info(struct device *dev, struct device_info *ret_info)
{
	*ret_info = (struct device_info){.chunk_shift = disk.shift,
					 .slots_n = FAKE_SLOTS,
					 .incarnation = disk.incarnation,
					 .commit = disk.commit,
					 .replayed_power_loss = dev->lost_power,
					 .failed = dev->failed};
	for (uint32_t s = 0; s < FAKE_SLOTS; s++) {
		ret_info->slots_open_n += disk.now[s].id.open;
		ret_info->cgen_highest = MAX(ret_info->cgen_highest, disk.now[s].id.cgen);
	}
}

int device_slot_get(struct device *dev, uint32_t slot, struct device_slot *ret_slot)
{
	const struct model_identity *id = &disk.now[slot].id;

	(void)dev;
	*ret_slot = (struct device_slot){.cgen = id->cgen,
					 .volume = id->volume,
					 .layer = id->layer,
					 .chunk = id->chunk,
					 .state = id->open ? DEVICE_SLOT_OPEN : DEVICE_SLOT_FREE};
	return 0;
}

uint64_t device_block_offset(struct device *dev, uint32_t slot, uint32_t block)
{
	(void)dev;
	return ((uint64_t)32 << 20) + ((uint64_t)slot << disk.shift) + (uint64_t)block * BLOCK_BYTES;
}

/* ---- the tests ------------------------------------------------------------------------------------------------------------------ */

static bool seed_passes(uint64_t seed, bool show)
{
	struct device_workload *wl = calloc(1, sizeof(*wl));
	struct workload_profile p;
	bool ok;

	assert_non_null(wl);
	workload_profile_random(seed, &p);
	p.fault_permille = 0;
	p.steps = MIN(p.steps, 600u);
	wl->verbose = getenv("STRATA_SEED") != NULL;
	ok = workload_run(wl, &p)[0] == '\0';
	if (!ok && show) {
		workload_print_log(wl);
		fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, wl->dw.model->error);
	}
	workload_free(wl);
	return ok;
}

static void a_device_without_bugs_passes(void **state)
{
	(void)state;
	disk.bug = NONE;
	for (uint64_t seed = 1; seed <= 40; seed++)
		assert_true(seed_passes(seed, true));
}

static void every_planted_bug_is_found(void **state)
{
	(void)state;
	for (int bug = NONE + 1; bug < BUGS_N; bug++) {
		uint64_t seed = 1;

		disk.bug = (enum bug)bug;
		while (seed <= 60 && seed_passes(seed, false))
			seed++;
		printf("bug %d: found by seed %llu\n", bug, (unsigned long long)seed);
		assert_true(seed <= 60);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_device_without_bugs_passes),
	    cmocka_unit_test(every_planted_bug_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
