/* SPDX-License-Identifier: Apache-2.0 */
/* open.c - open a device.
 *
 *   start: lock* (again and again, while a dying process holds it) -> superblocks* -> parts -> scan* -> load* -> apply* -> resolve*
 *         -> boot* -> serving, verification begins
 *
 * Nothing is read before the lock is held: it ends only with the last request of a killed predecessor. Inspection (read_only) ends after
 * resolve and writes nothing. A failure at any step frees everything and leaves the device as a further open will find it. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "io-path/device/dev.h"
#include "io-path/device/replay.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"

#define LOCK_WAIT_NS  ((uint64_t)10 * 1000 * 1000 * 1000)
#define LOCK_RETRY_NS ((uint64_t)20 * 1000 * 1000)

static void open_start(struct ioe_req *io);
static void open_lock(struct ioe_req *io);
static void open_read_sb(struct replay *rp, uint32_t which);
static void open_read_sb_done(struct ioe_req *io);
static int open_superblock(struct replay *rp);
static void open_scanned(struct replay *rp, int status);
static void open_loaded(struct replay *rp, int status);
static void open_applied(struct replay *rp, int status);
static void open_resolved(struct replay *rp, int status);
static void open_booted(struct replay *rp, int status);
static void open_mended(struct control *c, int status);
static void open_quiet(struct ioe_req *io);
static void open_finish(struct replay *rp, int status);
static void open_end(struct ioe_req *io);

#define REPLAY_OF(req) container_of(req, struct replay, io)

void device_open(struct device_open *op)
{
	op->errmsg[0] = '\0';
	op->status = 0;
	op->found = (struct uuid){{0}};
	op->dev = NULL;
	op->priv = NULL;
	ioe_nop(op->ioe, &op->priv_io, open_start);
}

int replay_fail(struct replay *rp, int status, const char *fmt, ...)
{
	char what[ERRMSG_LEN / 2];
	va_list ap;

	if (rp->op->errmsg[0])
		return status;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	snprintf(rp->op->errmsg, ERRMSG_LEN, "%s: %s", rp->op->path, what);
	return status;
}

void replay_free(struct replay *rp)
{
	struct device *dev = rp->dev;

	if (dev && dev->tables.tables)
		for (size_t i = 0; i < rp->suspects_held; i++) {
			uint32_t page = geometry_table_page_of(&dev->geo, rp->suspects[i].slot);

			tables_put(dev, dev->tables.tables[page].page);
		}
	if (rp->has_ring)
		ring_old_close(dev, &rp->ring);
	mem_free(rp->buf);
	mem_free(rp->buf2);
	mem_free(rp->sb[0]);
	mem_free(rp->sb[1]);
	mem_free(rp->blocks);
	mem_free(rp->table_from_lsn);
	mem_free(rp->candidates);
	mem_free(rp->suspects);
	mem_free(rp->fixes);
	mem_free(rp);
}

/* ---- lock ------------------------------------------------------------------------------------------------------------- */

static bool open_alloc(struct replay *rp)
{
	struct device_open *op = rp->op;
	struct device *dev = rp->dev = device_new(op->ioe);

	if (!dev)
		return false;
	dev->path = mem_strdup(op->path);
	dev->read_only = op->read_only;
	dev->on_event = op->on_event;
	dev->event_arg = op->event_arg;
	rp->buf = mem_alloc_aligned(FMT_PAGE, REPLAY_BUF_BYTES);
	rp->buf2 = mem_alloc_aligned(FMT_PAGE, REPLAY_BUF_BYTES);
	rp->sb[0] = mem_alloc_aligned(FMT_PAGE, FMT_PAGE);
	rp->sb[1] = mem_alloc_aligned(FMT_PAGE, FMT_PAGE);
	if (op->ring_path && ring_paths(dev, op->ring_path))
		return false;
	return dev->path && rp->buf && rp->buf2 && rp->sb[0] && rp->sb[1];
}

static void open_start(struct ioe_req *io)
{
	struct device_open *op = container_of(io, struct device_open, priv_io);
	struct replay *rp = mem_zalloc(sizeof(*rp));

	if (!rp) {
		op->status = -ENOMEM;
		op->done(op);
		return;
	}
	op->priv = rp;
	rp->op = op;
	waiter_init(&rp->wait);
	if (!open_alloc(rp)) {
		open_finish(rp, -ENOMEM);
		return;
	}
	rp->lock_until_ns =
	    ioe_now_ns(op->ioe) + (op->lock_wait_ns ? op->lock_wait_ns : LOCK_WAIT_NS);
	open_lock(&rp->io);
}

static void open_lock(struct ioe_req *io)
{
	struct replay *rp = REPLAY_OF(io);
	struct device_open *op = rp->op;
	struct device *dev = rp->dev;
	int r =
	    ioe_file_open(op->ioe, op->path, IOE_OPEN_LOCK | (op->read_only ? IOE_OPEN_RDONLY : 0),
			  &dev->file, op->errmsg);

	if ((r == -E_IN_USE || r == -EBUSY) && ioe_now_ns(op->ioe) < rp->lock_until_ns) {
		ioe_timer(op->ioe, &rp->io, ioe_now_ns(op->ioe) + LOCK_RETRY_NS, open_lock);
		return;
	}
	if (r) {
		open_finish(rp, r);
		return;
	}
	op->errmsg[0] = '\0';
	ioe_file_info(dev->file, &dev->file_info);
	open_read_sb(rp, 0);
}

/* ---- superblock ------------------------------------------------------------------------------------------------------- */

static void open_read_sb(struct replay *rp, uint32_t which)
{
	rp->sb_place = which ? FMT_SB_B_OFFSET : 0;
	if (!range_inside(rp->sb_place, FMT_PAGE, rp->dev->file_info.size_bytes)) {
		open_finish(rp, replay_fail(rp, -E_FORMAT, "not a device of Strata"));
		return;
	}
	ioe_read(rp->op->ioe, &rp->io, rp->dev->file, rp->sb_place, rp->sb[which], FMT_PAGE,
		 open_read_sb_done);
}

static void open_read_sb_done(struct ioe_req *io)
{
	struct replay *rp = REPLAY_OF(io);
	uint32_t which = rp->sb_place ? 1 : 0;
	int r;

	if (io->status) /* the other copy may be there */
		memset(rp->sb[which], 0, FMT_PAGE);
	if (which == 0) {
		open_read_sb(rp, 1);
		return;
	}
	r = open_superblock(rp);
	if (r)
		open_finish(rp, r);
	else
		replay_scan(rp, open_scanned);
}

/* The valid copy with the higher sequence. */
static int superblock_choose(struct replay *rp)
{
	struct device *dev = rp->dev;
	int r[2] = {fmt_superblock_check(rp->sb[0], 0),
		    fmt_superblock_check(rp->sb[1], FMT_SB_B_OFFSET)};
	uint32_t best;

	if (r[0] == -E_VERSION || r[1] == -E_VERSION)
		return replay_fail(rp, -E_VERSION,
				   "made by an incompatible version of this software");
	if (r[0] && r[1])
		return replay_fail(rp, -E_FORMAT,
				   "not a device of Strata, or both superblocks are damaged");
	rp->sb_is_alone = r[0] || r[1];
	best = r[0] || (!r[1] && get_le64(rp->sb[1]->sequence) > get_le64(rp->sb[0]->sequence));
	dev->sb = rp->sb[best];
	rp->sb[best] = NULL;
	return 0;
}

static int open_superblock(struct replay *rp)
{
	struct device *dev = rp->dev;
	struct device_open *op = rp->op;
	int r = superblock_choose(rp);

	if (r)
		return r;
	dev->uuid = dev->sb->device;
	if (op->cluster && !uuid_equal(op->cluster, &dev->sb->cluster))
		return replay_fail(rp, -E_FOREIGN, "belongs to another cluster");
	op->found = dev->uuid;
	if (op->expected && !uuid_equal(op->expected, &dev->uuid)) {
		char text[UUID_TEXT_LEN];

		uuid_format(&dev->uuid, text);
		return replay_fail(rp, -E_FOREIGN, "another device is there now, %s", text);
	}
	if (get_le64(dev->sb->incompat) || (get_le64(dev->sb->ro_compat) && !op->read_only))
		return replay_fail(rp, -E_VERSION, "has features that this version does not know");
	r = geometry_load(dev->sb, &dev->geo);
	if (r)
		return replay_fail(rp, r, "the superblock describes an impossible layout");
	if (dev->geo.size_bytes > dev->file_info.size_bytes)
		return replay_fail(rp, -E_FORMAT,
				   "is smaller than it was: %" PRIu64 " bytes of %" PRIu64
				   " are there",
				   dev->file_info.size_bytes, dev->geo.size_bytes);
	return device_init_parts(dev, op);
}

/* ---- replay ----------------------------------------------------------------------------------------------------------- */

static void open_scanned(struct replay *rp, int status)
{
	if (status)
		open_finish(rp, status);
	else
		replay_load(rp, open_loaded);
}

static void open_loaded(struct replay *rp, int status)
{
	if (status)
		open_finish(rp, status);
	else
		replay_apply(rp, open_applied);
}

static void open_applied(struct replay *rp, int status)
{
	if (status)
		open_finish(rp, status);
	else
		replay_resolve(rp, open_resolved);
}

/* Of a device that is only looked at, the journal in memory just shows where it is. */
static void inspect(struct replay *rp)
{
	struct journal *j = &rp->dev->journal;

	j->incarnation = rp->incarnation;
	j->meta_commit = rp->meta_commit;
	j->unresolved_blocks = rp->unresolved_blocks;
	j->open_lsn = rp->next_lsn;
	j->stable_lsn = j->published_lsn = rp->stable_lsn;
	j->record_lsn = rp->stable_lsn;
	open_finish(rp, 0);
}

static void open_resolved(struct replay *rp, int status)
{
	struct device *dev = rp->dev;

	if (status) {
		open_finish(rp, status);
		return;
	}
	dev->power_loss = rp->mode == REPLAY_POWER_LOSS;
	if (dev->power_loss)
		device_event(
		    dev, "power_loss",
		    "came back without its memory: %u slots are verified, %zu blocks were in doubt",
		    dev->slots.doubtful_n, rp->candidates_n);
	if (dev->read_only)
		inspect(rp);
	else
		replay_boot(rp, open_booted);
}

static void open_booted(struct replay *rp, int status)
{
	struct device *dev = rp->dev;

	if (status) {
		open_finish(rp, status);
		return;
	}
	ring_remove_old(dev);
	if (!rp->sb_is_alone) {
		open_finish(rp, 0);
		return;
	}
	device_event(dev, "superblock_mended", "%s superblock was damaged; the other one is good",
		     get_le64(dev->sb->own_offset) ? "the first" : "the second");
	rp->sb_write.dev = dev;
	superblock_write(&rp->sb_write, open_mended);
}

static void open_mended(struct control *c, int status)
{
	open_finish(container_of(c, struct replay, sb_write), status);
}

/* ---- finish ----------------------------------------------------------------------------------------------------------- */

/* A failed one may have requests in flight: it becomes quiet first. */
static void open_quiet(struct ioe_req *io)
{
	struct replay *rp = REPLAY_OF(io);
	struct device *dev = rp->dev;

	if (dev && !device_is_quiet(dev)) {
		ioe_timer(rp->op->ioe, &rp->io, ioe_now_ns(rp->op->ioe) + 1000 * 1000, open_quiet);
		return;
	}
	open_end(io);
}

static void open_finish(struct replay *rp, int status)
{
	struct device_open *op = rp->op;

	op->status = status;
	if (status && rp->dev) {
		if (!op->errmsg[0])
			replay_fail(rp, status, "%s", err_text(status));
		rp->dev->failed = true; /* nothing new is begun */
		device_turn_end(rp->dev);
	}
	ioe_nop(op->ioe, &rp->io, status ? open_quiet : open_end);
}

static void open_end(struct ioe_req *io)
{
	struct replay *rp = REPLAY_OF(io);
	struct device_open *op = rp->op;
	struct device *dev = rp->dev;

	replay_free(rp);
	op->priv = NULL;
	if (op->status) {
		if (dev)
			device_free(dev);
	} else {
		dev->state = DEVICE_SERVING;
		op->dev = dev;
		if (!dev->read_only) {
			verify_start(dev);
			maint_used(dev);
		}
	}
	op->done(op);
}
