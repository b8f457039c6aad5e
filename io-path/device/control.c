/* SPDX-License-Identifier: Apache-2.0 */
/* control.c - the device's number, and records of layers. */
#include "io-path/device/control.h"

#include "io-path/device/dev.h"
#include "src/base/mem.h"

static void number_start(struct control *c);
static void number_written(struct control *c, int status);
static void number_written_twice(struct control *c, int status);
static void layer_reserved(struct waiter *w, int status);
static void layer_stable(struct waiter *w, int status);
static void drop_reserved(struct waiter *w, int status);
static void sb_flushed_before(struct ioe_req *io);
static void sb_written(struct ioe_req *io);
static void sb_flushed_after(struct ioe_req *io);
static void control_end(struct ioe_req *io);

/* ---- one after the other ---------------------------------------------------------------------------------------------- */

struct control *control_new(struct device *dev, void (*done)(void *arg, int status), void *arg)
{
	struct control *c = mem_zalloc(sizeof(*c));

	if (!c)
		return NULL;
	c->dev = dev;
	c->done = done;
	c->arg = arg;
	waiter_init(&c->wait);
	list_init(&c->link);
	list_push(&dev->controls, &c->link);
	return c;
}

/* The superblock has one writer at a time: the first of those who want it. */
static void superblock_next(struct device *dev)
{
	list_for_each (l, &dev->controls) {
		struct control *c = list_entry(l, struct control, link);

		if (!c->start)
			continue;
		if (!c->started) {
			c->started = true;
			c->start(c);
		}
		return;
	}
}

void control_finish(struct control *c, int status)
{
	c->status = status;
	ioe_nop(c->dev->ioe, &c->io, control_end);
}

static void control_end(struct ioe_req *io)
{
	struct control *c = container_of(io, struct control, io);
	struct device *dev = c->dev;
	void (*done)(void *arg, int status) = c->done;
	void *arg = c->arg;
	int status = c->status;

	list_del(&c->link);
	mem_free(c->data);
	mem_free(c);
	superblock_next(dev);
	if (dev->state == DEVICE_CLOSING)
		close_step(dev);
	done(arg, status);
}

/* NULL: the caller was told that there is no memory, or will be told that the device does not take it. */
static struct control *control_begin(struct device *dev, void (*done)(void *arg, int status),
				     void *arg)
{
	struct control *c = control_new(dev, done, arg);
	int status = dev->failed		    ? -E_DEVICE_FAILED
		     : dev->state != DEVICE_SERVING ? -E_DEVICE_GONE
		     : dev->read_only		    ? -EROFS
						    : 0;

	if (!c) {
		done(arg, -ENOMEM);
		return NULL;
	}
	if (!status)
		return c;
	control_finish(c, status);
	return NULL;
}

/* ---- superblock ------------------------------------------------------------------------------------------------------- */

/* What it describes is stable before it is written, and it is stable before anybody relies on it. */
void superblock_write(struct control *c, void (*done)(struct control *c, int status))
{
	c->written = done;
	ioe_fsync(c->dev->ioe, &c->io, c->dev->file, sb_flushed_before);
}

static void sb_flushed_before(struct ioe_req *io)
{
	struct control *c = container_of(io, struct control, io);
	struct device *dev = c->dev;
	struct fmt_superblock *sb = dev->sb;
	uint64_t place = get_le64(sb->own_offset) ? 0 : FMT_SB_B_OFFSET;

	if (io->status || dev->failed) {
		if (io->status)
			device_fail(dev, "device flush", io->status);
		c->written(c, -E_DEVICE_FAILED);
		return;
	}
	sb->sequence = to_le64(get_le64(sb->sequence) + 1);
	fmt_superblock_prepare(sb, place);
	ioe_write(dev->ioe, &c->io, dev->file, place, sb, FMT_PAGE, sb_written);
}

static void sb_written(struct ioe_req *io)
{
	struct control *c = container_of(io, struct control, io);

	if (io->status) {
		device_fail(c->dev, "superblock write", io->status);
		c->written(c, -E_DEVICE_FAILED);
		return;
	}
	ioe_fsync(c->dev->ioe, &c->io, c->dev->file, sb_flushed_after);
}

static void sb_flushed_after(struct ioe_req *io)
{
	struct control *c = container_of(io, struct control, io);

	if (io->status)
		device_fail(c->dev, "device flush", io->status);
	c->written(c, io->status ? -E_DEVICE_FAILED : 0);
}

/* ---- number ----------------------------------------------------------------------------------------------------------- */

void device_set_number(struct device *dev, device_no no, void (*done)(void *arg, int status),
		       void *arg)
{
	struct control *c = control_begin(dev, done, arg);

	if (!c)
		return;
	if (no == 0) {
		control_finish(c, -EINVAL);
		return;
	}
	c->number = no;
	c->start = number_start;
	superblock_next(dev);
}

static void number_start(struct control *c)
{
	device_no now = get_le16(c->dev->sb->number);

	if (now) {
		control_finish(c, now == c->number ? 0 : -EEXIST);
		return;
	}
	c->dev->sb->number = to_le16(c->number);
	superblock_write(c, number_written);
}

/* In both copies, or the rot of one would forget it. */
static void number_written(struct control *c, int status)
{
	if (status)
		number_written_twice(c, status);
	else
		superblock_write(c, number_written_twice);
}

static void number_written_twice(struct control *c, int status)
{
	if (status)
		c->dev->sb->number = to_le16(0);
	control_finish(c, status);
}

/* ---- commits ---------------------------------------------------------------------------------------------------------- */

static void commit_stable(struct waiter *w, int status);

/* The last closed block is never published yet: only a later one can say that it is stable. That one is closed from here on, so its header has the
 * commit, and it is stable when it counts as having published. */
void device_commit_put(struct device *dev, uint64_t commit, void (*done)(void *arg, int status),
		       void *arg)
{
	struct control *c = control_begin(dev, done, arg);

	if (!c)
		return;
	device_heard_commit(dev, commit);
	flush_wait(dev, &c->wait, FLUSH_PUBLISHED, dev->journal.open_lsn - 1, commit_stable);
}

static void commit_stable(struct waiter *w, int status)
{
	control_finish(container_of(w, struct control, wait), status);
}

/* ---- layers ----------------------------------------------------------------------------------------------------------- */

static struct fmt_rec_layer *layer_encode(const struct device_layer *l)
{
	size_t name_len = strlen(l->name), snapshot_len = strlen(l->snapshot);
	uint32_t len = fmt_layer_len((uint32_t)name_len, (uint32_t)snapshot_len);
	struct fmt_rec_layer *rec = mem_zalloc(len);

	if (!rec)
		return NULL;
	rec->h.type = FMT_REC_LAYER;
	rec->h.len_bytes = to_le16((uint16_t)len);
	rec->layer = to_le32(l->layer);
	rec->parent = to_le32(l->parent);
	rec->volume = to_le32(l->volume);
	rec->flags = to_le32(l->flags);
	rec->size_bytes = to_le64(l->size_bytes);
	rec->commit = to_le64(l->commit);
	rec->name_len = (uint8_t)name_len;
	rec->snapshot_len = (uint8_t)snapshot_len;
	memcpy(rec->names, l->name, name_len);
	memcpy(rec->names + name_len, l->snapshot, snapshot_len);
	return rec;
}

static bool layer_is_sane(const struct device_layer *l)
{
	return l->layer && fmt_layer_flags_are_sane(l->flags) && l->name[0] &&
	       memchr(l->name, 0, sizeof(l->name)) && memchr(l->snapshot, 0, sizeof(l->snapshot));
}

void device_layer_put(struct device *dev, const struct device_layer *layer,
		      void (*done)(void *arg, int status), void *arg)
{
	struct control *c = control_begin(dev, done, arg);
	bool is_sane = c && layer_is_sane(layer);
	struct fmt_rec_layer *rec = is_sane ? layer_encode(layer) : NULL;
	uint32_t len;

	if (!c)
		return;
	if (!rec) {
		control_finish(c, is_sane ? -ENOMEM : -EINVAL);
		return;
	}
	c->data = rec;
	device_heard_commit(dev, layer->commit);
	len = get_le16(rec->h.len_bytes);
	if (!registry_has_room(dev, FMT_REC_LAYER, len))
		control_finish(c, -ENOSPC);
	else if (journal_reserve(dev, JOURNAL_FREE, len))
		layer_reserved(&c->wait, 0);
	else
		journal_wait_room(dev, &c->wait, JOURNAL_FREE, len, layer_reserved);
}

static void layer_reserved(struct waiter *w, int status)
{
	struct control *c = container_of(w, struct control, wait);
	const struct fmt_rec_layer *rec = c->data;
	struct device *dev = c->dev;
	uint64_t lsn;

	if (status) {
		control_finish(c, status);
		return;
	}
	/* others that waited too may have taken the room */
	status = registry_has_room(dev, FMT_REC_LAYER, get_le16(rec->h.len_bytes))
		     ? registry_put_layer(dev, rec)
		     : -ENOSPC;
	if (status) {
		journal_unreserve(dev, get_le16(rec->h.len_bytes));
		control_finish(c, status);
		return;
	}
	lsn = journal_add(dev, rec, get_le16(rec->h.len_bytes));
	registry_touch(dev, lsn);
	maint_used(dev);
	flush_wait(dev, w, FLUSH_STABLE, lsn, layer_stable);
}

static void layer_stable(struct waiter *w, int status)
{
	control_finish(container_of(w, struct control, wait), status);
}

/* It waits for room behind the records that were put before it, so it finds them. */
void device_layer_drop(struct device *dev, layer_id layer, uint64_t commit,
		       void (*done)(void *arg, int status), void *arg)
{
	struct control *c = control_begin(dev, done, arg);
	struct fmt_rec_layer_drop *rec = c && layer ? mem_zalloc(sizeof(*rec)) : NULL;

	if (!c)
		return;
	if (!rec) {
		control_finish(c, layer ? -ENOMEM : -EINVAL);
		return;
	}
	c->data = rec;
	rec->h.type = FMT_REC_LAYER_DROP;
	rec->h.len_bytes = to_le16(sizeof(*rec));
	rec->layer = to_le32(layer);
	rec->commit = to_le64(commit);
	device_heard_commit(dev, commit);
	if (journal_reserve(dev, JOURNAL_FREE, sizeof(*rec)))
		drop_reserved(&c->wait, 0);
	else
		journal_wait_room(dev, &c->wait, JOURNAL_FREE, sizeof(*rec), drop_reserved);
}

static void drop_reserved(struct waiter *w, int status)
{
	struct control *c = container_of(w, struct control, wait);
	const struct fmt_rec_layer_drop *rec = c->data;
	struct device *dev = c->dev;
	uint64_t lsn =
	    dev->registry.last_lsn; /* none there: perhaps because of a drop that is not stable yet */

	if (status) {
		control_finish(c, status);
		return;
	}
	if (registry_has_layer(dev, get_le32(rec->layer), get_le64(rec->commit))) {
		registry_drop_layer(dev, get_le32(rec->layer), get_le64(rec->commit));
		lsn = journal_add(dev, rec, sizeof(*rec));
		registry_touch(dev, lsn);
		maint_used(dev);
	} else {
		journal_unreserve(dev, sizeof(*rec));
	}
	if (flush_has(dev, FLUSH_STABLE, lsn))
		control_finish(c, 0);
	else
		flush_wait(dev, w, FLUSH_STABLE, lsn, layer_stable);
}
