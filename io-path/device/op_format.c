/* SPDX-License-Identifier: Apache-2.0 */
/* op_format.c - make a device of Strata.
 *
 *   start: probe, open, lock -> read superblocks* -> wipe*, punch* -> reserve -> slot pages* -> registry*, journal* -> flush*
 *         -> superblocks* -> flush* -> finish             (* suspends; any step -> finish on error)
 *
 * Interrupted before the last flush: there is no valid superblock, because what was there is wiped and flushed first and the new ones
 * come last, after a flush of everything they promise. A file that was created here is removed again when it fails. */
#include <stdio.h>

#include "io-path/device/codec.h"
#include "io-path/device/device.h"
#include "io-path/device/geometry.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"

enum { BUF_BYTES = 1 << 20, EDGE_BYTES = 1 << 20 };
/* A disk may take minutes to discard all it has. */
#define PUNCH_BYTES ((uint64_t)64 << 30)
static_assert((int)EDGE_BYTES == (int)FMT_REGISTRY_OFFSET,
	      "both superblocks are in the first edge");

struct format {
	struct device_format *op;
	struct ioe *ioe;
	struct ioe_req io;
	struct ioe_file *file;
	struct geometry geo;
	uint8_t *buf;
	bool created;	    /* the file is ours to remove */
	uint64_t sb_offset; /* being read or written */
	uint64_t punched;   /* discarded up to here */
	uint32_t page_no;   /* next slot-entry page to write */
	uint8_t home;	    /* of it, or half of the registry */
	struct uuid uuid;
	uint64_t wall_ns;
};

static void format_start(struct ioe_req *io);
static int format_open(struct format *f);
static int format_open_file(struct format *f);
static void format_read_sb(struct format *f, uint64_t offset);
static void format_read_sb_done(struct ioe_req *io);
static void format_wipe_head_done(struct ioe_req *io);
static void format_wipe_tail_done(struct ioe_req *io);
static void format_wipe_flushed(struct ioe_req *io);
static void format_punch(struct format *f);
static void format_punched(struct ioe_req *io);
static void format_build(struct format *f);
static int format_reserve(struct format *f);
static void format_slot_pages(struct format *f);
static void format_slot_pages_done(struct ioe_req *io);
static void format_registry(struct format *f);
static void format_registry_done(struct ioe_req *io);
static void format_journal_done(struct ioe_req *io);
static void format_built(struct ioe_req *io);
static void format_write_sb(struct format *f, uint64_t offset);
static void format_write_sb_done(struct ioe_req *io);
static void format_sb_flushed(struct ioe_req *io);
static void format_finish(struct format *f, int status);

#define FORMAT_OF(req) container_of(req, struct format, io)

void device_format(struct device_format *op)
{
	op->errmsg[0] = '\0';
	op->status = 0;
	op->done_bytes = op->all_bytes = 0;
	op->priv = NULL;
	ioe_nop(op->ioe, &op->priv_io, format_start);
}

/* Says what went wrong, unless somebody closer to it has. */
static void say(struct format *f, const char *what)
{
	if (f->op->errmsg[0] == '\0')
		snprintf(f->op->errmsg, ERRMSG_LEN, "%s: %s", f->op->path, what);
}

static void format_start(struct ioe_req *io)
{
	struct device_format *op = container_of(io, struct device_format, priv_io);
	struct format *f = mem_zalloc(sizeof(*f));
	int r;

	if (!f) {
		op->status = -ENOMEM;
		op->done(op);
		return;
	}
	op->priv = f;
	f->op = op;
	f->ioe = op->ioe;
	f->uuid = ioe_uuid(f->ioe);
	f->wall_ns = ioe_wall_ns(f->ioe);
	f->buf = mem_alloc_aligned(FMT_PAGE, BUF_BYTES);
	r = f->buf ? format_open(f) : -ENOMEM;
	if (r)
		format_finish(f, r);
	else if (f->created)
		format_build(f);
	else
		format_read_sb(f, 0);
}

/* ---- is it ours to take? ---------------------------------------------------------------------------------------------- */

static int format_open(struct format *f)
{
	struct device_format *op = f->op;
	struct ioe_file_info info;
	uint64_t size_bytes;
	int r = format_open_file(f);

	if (r)
		return r;
	ioe_file_info(f->file, &info);
	size_bytes = op->size_bytes ? round_down(op->size_bytes, FMT_PAGE) : info.size_bytes;
	if (size_bytes > info.size_bytes) {
		if (info.is_block_device) {
			say(f, "the block device is smaller than the size asked for");
			return -EINVAL;
		}
		r = ioe_file_resize(f->ioe, f->file, size_bytes);
		if (r)
			return r;
	}
	r = geometry_plan(size_bytes, op->chunk_shift, &f->geo);
	if (!r)
		op->all_bytes = size_bytes + 2 * (uint64_t)f->geo.total.slot_pages * FMT_PAGE;
	else
		say(f, op->chunk_shift == CHUNK_SHIFT_FLASH || op->chunk_shift == CHUNK_SHIFT_DISK
			   ? "the size must be between 128 MiB and 4 PiB"
			   : "chunks are 1 MiB or 4 MiB");
	return r;
}

static int format_open_file(struct format *f)
{
	struct device_format *op = f->op;
	int r = ioe_probe_signature(f->ioe, op->path, op->errmsg);

	if (r == -E_FOREIGN && !op->force)
		return r;
	op->errmsg[0] = '\0';
	if (r != -ENOENT)
		return ioe_file_open(f->ioe, op->path, IOE_OPEN_LOCK, &f->file, op->errmsg);
	if (op->size_bytes == 0) {
		say(f, "does not exist; a new file needs a size");
		return -ENOENT;
	}
	r = ioe_file_open(f->ioe, op->path, IOE_OPEN_LOCK | IOE_OPEN_CREATE, &f->file, op->errmsg);
	f->created = r == 0;
	return r;
}

static void format_read_sb(struct format *f, uint64_t offset)
{
	f->sb_offset = offset;
	ioe_read(f->ioe, &f->io, f->file, offset, f->buf, FMT_PAGE, format_read_sb_done);
}

static void format_read_sb_done(struct ioe_req *io)
{
	struct format *f = FORMAT_OF(io);
	struct fmt_superblock *sb = (void *)f->buf;

	if (io->status) {
		format_finish(f, io->status);
		return;
	}
	if (!f->op->force && fmt_superblock_check(sb, f->sb_offset) != -E_FORMAT) {
		char text[UUID_TEXT_LEN];

		uuid_format(&sb->device, text);
		snprintf(f->op->errmsg, ERRMSG_LEN, "%s: is already device %s of Strata",
			 f->op->path, text);
		format_finish(f, -E_FOREIGN);
		return;
	}
	if (f->sb_offset == 0) {
		format_read_sb(f, FMT_SB_B_OFFSET);
		return;
	}
	memset(f->buf, 0, BUF_BYTES);
	ioe_write(f->ioe, io, f->file, 0, f->buf, EDGE_BYTES, format_wipe_head_done);
}

/* ---- wipe ------------------------------------------------------------------------------------------------------------- */

/* Signatures live at both ends. */
static void format_wipe_head_done(struct ioe_req *io)
{
	struct format *f = FORMAT_OF(io);

	if (io->status)
		format_finish(f, io->status);
	else
		ioe_write(f->ioe, io, f->file, f->geo.size_bytes - EDGE_BYTES, f->buf, EDGE_BYTES,
			  format_wipe_tail_done);
}

static void format_wipe_tail_done(struct ioe_req *io)
{
	struct format *f = FORMAT_OF(io);

	if (io->status)
		format_finish(f, io->status);
	else
		ioe_fsync(f->ioe, io, f->file, format_wipe_flushed);
}

static void format_wipe_flushed(struct ioe_req *io)
{
	struct format *f = FORMAT_OF(io);

	if (io->status) {
		format_finish(f, io->status);
		return;
	}
	f->punched = EDGE_BYTES;
	format_punch(f);
}

/* Piece by piece, so that it is seen to get on. */
static void format_punch(struct format *f)
{
	ioe_punch(f->ioe, &f->io, f->file, f->punched,
		  MIN(PUNCH_BYTES, f->geo.size_bytes - f->punched), format_punched);
}

static void format_punched(struct ioe_req *io)
{
	struct format *f = FORMAT_OF(io);

	/* It only gives space back; what a slot holds before its first write is never looked at. */
	if (io->status && io->status != -EOPNOTSUPP)
		log_warn("old contents could not be discarded", "device=%s error=%s", f->op->path,
			 err_name(io->status));
	if (!io->status) {
		f->punched += MIN(PUNCH_BYTES, f->geo.size_bytes - f->punched);
		f->op->done_bytes = f->punched;
	}
	if (!io->status && f->punched < f->geo.size_bytes)
		format_punch(f);
	else
		format_build(f);
}

/* ---- build ------------------------------------------------------------------------------------------------------------ */

static void format_build(struct format *f)
{
	int r = format_reserve(f);

	f->op->done_bytes = f->geo.size_bytes;
	if (r) {
		say(f, "no space for the metadata area");
		format_finish(f, r);
		return;
	}
	format_slot_pages(f);
}

/* Metadata must never meet ENOSPC. */
static int format_reserve(struct format *f)
{
	struct geometry *geo = &f->geo;
	int r = ioe_file_reserve(f->ioe, f->file, 0, geo->journal_offset + geo->journal_bytes);

	for (uint32_t page = 0; page < geo->total.slot_pages && !r;) {
		struct geo_group g = geometry_group_of_slot_page(geo, page);

		r = ioe_file_reserve(f->ioe, f->file, g.offset,
				     geometry_group_metadata_bytes(geo, &g));
		page = g.base.slot_pages + g.n.slot_pages;
	}
	return r;
}

static uint32_t slot_pages_per_write(const struct format *f)
{
	struct geo_group g = geometry_group_of_slot_page(&f->geo, f->page_no);

	return MIN((uint32_t)(BUF_BYTES / FMT_PAGE),
		   g.base.slot_pages + g.n.slot_pages - f->page_no);
}

/* Both homes of the slot-entry pages, all slots free. As many per write as lie together. */
static void format_slot_pages(struct format *f)
{
	uint32_t n = slot_pages_per_write(f);

	memset(f->buf, 0, (size_t)n * FMT_PAGE);
	for (uint32_t i = 0; i < n; i++) {
		struct fmt_slot_page *p = (void *)(f->buf + (size_t)i * FMT_PAGE);

		p->seq = to_le64(1);
		p->from_lsn = to_le64(1);
		fmt_slot_page_prepare(p, &(struct fmt_slot_page_id){.device = &f->uuid,
								    .page_no = f->page_no + i,
								    .home = f->home});
	}
	ioe_write(f->ioe, &f->io, f->file, geometry_slot_page_offset(&f->geo, f->page_no, f->home),
		  f->buf, (uint64_t)n * FMT_PAGE, format_slot_pages_done);
}

static void format_slot_pages_done(struct ioe_req *io)
{
	struct format *f = FORMAT_OF(io);

	if (io->status) {
		format_finish(f, io->status);
		return;
	}
	f->op->done_bytes += io->len;
	if (f->home == 1)
		f->page_no += slot_pages_per_write(f);
	f->home = !f->home;
	if (f->page_no < f->geo.total.slot_pages)
		format_slot_pages(f);
	else
		format_registry(f);
}

static void format_registry(struct format *f)
{
	struct fmt_registry_page *p = (void *)f->buf;

	memset(p, 0, FMT_PAGE);
	p->used_bytes = to_le16(offsetof(struct fmt_registry_page, records));
	p->pages_n = to_le32(1);
	p->seq = to_le64(1);
	p->from_lsn = to_le64(1);
	fmt_registry_page_prepare(p, &(struct fmt_registry_page_id){.device = &f->uuid,
								    .half = f->home});
	ioe_write(f->ioe, &f->io, f->file, geometry_registry_offset(&f->geo, f->home), p, FMT_PAGE,
		  format_registry_done);
}

/* The journal begins with one block that says: nothing happened before, and nothing is open. */
static void format_registry_done(struct ioe_req *io)
{
	struct format *f = FORMAT_OF(io);
	struct fmt_journal_block *b = (void *)f->buf;
	struct fmt_rec_boot boot = {
	    .h = {.type = FMT_REC_BOOT, .len_bytes = to_le16(sizeof(boot))},
	    .reason = to_le32(FMT_BOOT_FORMAT),
	    .incarnation = to_le64(1),
	    .boot_id = ioe_boot_id(f->ioe),
	    .wall_ns = to_le64(f->wall_ns),
	};
	struct fmt_rec_clean clean = {
	    .h = {.type = FMT_REC_CLEAN, .len_bytes = to_le16(sizeof(clean))},
	};

	if (io->status) {
		format_finish(f, io->status);
		return;
	}
	if (f->home == 0) {
		f->home = 1;
		format_registry(f);
		return;
	}
	memset(b, 0, FMT_PAGE);
	memcpy(b->records, &boot, sizeof(boot));
	memcpy(b->records + sizeof(boot), &clean, sizeof(clean));
	b->used_bytes = to_le16(
	    (uint16_t)(offsetof(struct fmt_journal_block, records) + sizeof(boot) + sizeof(clean)));
	b->incarnation = to_le64(1);
	b->lsn = to_le64(1);
	b->tail = to_le64(1);
	fmt_journal_block_prepare(b, &f->uuid);
	ioe_write(f->ioe, io, f->file, geometry_journal_offset(&f->geo, 1), b, FMT_PAGE,
		  format_journal_done);
}

static void format_journal_done(struct ioe_req *io)
{
	struct format *f = FORMAT_OF(io);

	if (io->status)
		format_finish(f, io->status);
	else
		ioe_fsync(f->ioe, io, f->file, format_built);
}

/* ---- superblocks ------------------------------------------------------------------------------------------------------ */

static void format_built(struct ioe_req *io)
{
	struct format *f = FORMAT_OF(io);

	if (io->status)
		format_finish(f, io->status);
	else
		format_write_sb(f, 0);
}

static void format_write_sb(struct format *f, uint64_t offset)
{
	struct fmt_superblock *sb = (void *)f->buf;

	memset(sb, 0, sizeof(*sb));
	geometry_store(&f->geo, sb);
	sb->sequence = to_le64(offset ? 2 : 1);
	sb->device = f->uuid;
	sb->cluster = f->op->cluster;
	sb->created_wall_ns = to_le64(f->wall_ns);
	fmt_superblock_prepare(sb, offset);
	f->sb_offset = offset;
	ioe_write(f->ioe, &f->io, f->file, offset, sb, FMT_PAGE, format_write_sb_done);
}

static void format_write_sb_done(struct ioe_req *io)
{
	struct format *f = FORMAT_OF(io);

	if (io->status)
		format_finish(f, io->status);
	else if (f->sb_offset == 0)
		format_write_sb(f, FMT_SB_B_OFFSET);
	else
		ioe_fsync(f->ioe, io, f->file, format_sb_flushed);
}

static void format_sb_flushed(struct ioe_req *io)
{
	format_finish(FORMAT_OF(io), io->status);
}

static void format_finish(struct format *f, int status)
{
	struct device_format *op = f->op;

	if (f->file)
		ioe_file_close(f->ioe, f->file);
	if (status) {
		say(f, err_text(status));
		if (f->created)
			ioe_unlink(f->ioe, op->path);
	} else {
		op->errmsg[0] = '\0';
		op->uuid = f->uuid;
	}
	mem_free(f->buf);
	mem_free(f);
	op->priv = NULL;
	op->status = status;
	op->done(op);
}
