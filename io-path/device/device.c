/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>

#include "io-path/device/dev.h"
#include "src/base/log.h"
#include "src/base/mem.h"

static void turn(struct ioe_hook *h);

/* ---- life ------------------------------------------------------------------------------------------------------------- */

struct device *device_new(struct ioe *ioe)
{
	struct device *dev = mem_zalloc(sizeof(*dev));

	if (!dev)
		return NULL;
	dev->ioe = ioe;
	ioe_hook_init(&dev->turn_hook, turn);
	list_init(&dev->ring.waiters);
	list_init(&dev->controls);
	return dev;
}

int device_init_parts(struct device *dev, const struct device_open *op)
{
	int r = 0;

	flush_init(dev);
	r = r ? r : journal_init(dev);
	r = r ? r : maint_init(dev);
	r = r ? r : tables_init(dev, op->cache_bytes);
	r = r ? r : slots_init(dev);
	r = r ? r : epochs_init(dev);
	r = r ? r : registry_init(dev);
	r = r ? r : ops_init(dev);
	return r;
}

/* Also of one whose parts were not all made. */
void device_free(struct device *dev)
{
	ioe_hook_disarm(&dev->turn_hook);
	verify_free(dev);
	ops_free(dev);
	registry_free(dev);
	epochs_free(dev);
	tables_free(dev);
	slots_free(dev);
	maint_free(dev);
	journal_free(dev);
	ring_free(dev);
	if (dev->file)
		ioe_file_close(dev->ioe, dev->file);
	mem_free(dev->sb);
	mem_free(dev->path);
	mem_free(dev);
}

/* ---- the end of a turn ------------------------------------------------------------------------------------------------ */

static void everybody_is_told(struct device *dev)
{
	ring_fail(dev);
	journal_fail(dev);
	tables_fail(dev);
	maint_fail(dev);
	flush_fail(dev);
	if (dev->state == DEVICE_CLOSING)
		close_step(dev);
}

static void turn(struct ioe_hook *h)
{
	struct device *dev = container_of(h, struct device, turn_hook);

	if (!dev->ops.all) /* an open that failed early */
		return;

	if (dev->failed) {
		everybody_is_told(dev);
		return;
	}
	maint_turn(dev);
	ring_turn(dev);
	tables_turn(dev);
	if (dev->journal_started) {
		flush_kick(dev);
		journal_turn(dev);
	}
	if (dev->state == DEVICE_CLOSING)
		close_step(dev);
}

void device_fail(struct device *dev, const char *what, int status)
{
	if (dev->failed)
		return;
	dev->failed = true;
	device_event(dev, "failed", "out of service: %s: %s", what, err_text(status));
	device_turn_end(dev);
}

void device_event(struct device *dev, const char *what, const char *fmt, ...)
{
	char text[ERRMSG_LEN];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_limited(LOG_WARN, ioe_now_ns(dev->ioe), "device event", "device=%s what=%s text=\"%s\"",
		    dev->path, what, text);
	if (dev->on_event)
		dev->on_event(dev->event_arg, dev, what, text);
}

/* ---- what it is and how it does --------------------------------------------------------------------------------------- */

void device_heard_commit(struct device *dev, uint64_t commit)
{
	if (commit > dev->journal.meta_commit)
		dev->journal.meta_commit = commit;
}

void device_info(struct device *dev, struct device_info *ret_info)
{
	const struct journal *j = &dev->journal;

	*ret_info = dev->info;
	ret_info->uuid = dev->uuid;
	ret_info->cluster = dev->sb->cluster;
	ret_info->number = get_le16(dev->sb->number);
	ret_info->chunk_shift = dev->geo.chunk_shift;
	ret_info->capacity_bytes = (uint64_t)dev->geo.total.slots << dev->geo.chunk_shift;
	ret_info->slots_n = dev->geo.total.slots;
	ret_info->slots_open_n = dev->slots.open_n;
	ret_info->incarnation = j->incarnation;
	ret_info->lsn = j->open_lsn;
	ret_info->stable_lsn = j->stable_lsn;
	ret_info->commit = j->meta_commit;
	ret_info->cgen_highest = dev->cgen_highest;
	ret_info->failed = dev->failed;
	ret_info->dirty = !flush_has(dev, FLUSH_STABLE, j->record_lsn);
	ret_info->has_volatile_cache = dev->file_info.has_volatile_cache;
	ret_info->replayed_power_loss = dev->power_loss;
	ret_info->unresolved_blocks = j->unresolved_blocks;
	ret_info->bad_blocks = dev->bad_blocks;
	ret_info->table_cache_bytes = dev->tables.bytes;
	ret_info->journal_blocks = j->blocks_n;
	ret_info->journal_records = j->records_n;
	ret_info->active_slots = dev->slots.active_n;
}

int device_space(struct device *dev, struct ioe_file_space *ret_space)
{
	return ioe_file_space(dev->ioe, dev->file, ret_space);
}

/* ---- the filesystem under it is full ------------------------------------------------------------------------------------ */

/* Nearly full, writes succeed and fail in turns: it counts as full until none has failed for a while. */
#define SPACE_AGAIN_NS 2000000000ULL

void space_missing(struct device *dev)
{
	dev->info.no_space_errors++;
	dev->no_space_ns = ioe_now_ns(dev->ioe);
	if (dev->info.no_space)
		return;
	dev->info.no_space = true;
	device_event(dev, "no_space",
		     "there is no space left under the device: writes to new places fail");
}

void space_found(struct device *dev)
{
	if (!dev->info.no_space || ioe_now_ns(dev->ioe) - dev->no_space_ns < SPACE_AGAIN_NS)
		return;
	dev->info.no_space = false;
	device_event(dev, "space_again", "there is space under the device again");
}

int device_slot_get(struct device *dev, uint32_t slot, struct device_slot *ret_slot)
{
	const struct slot *s;

	if (slot >= dev->geo.total.slots)
		return -ERANGE;
	s = &dev->slots.slots[slot];
	if (s->lost)
		return -E_FORMAT;
	*ret_slot = (struct device_slot){
	    .cgen = s->cgen,
	    .epoch = s->epoch,
	    .volume = s->volume,
	    .layer = s->layer,
	    .chunk = s->chunk,
	    .present_n = (uint32_t)s->present_n,
	    .state = s->open ? DEVICE_SLOT_OPEN : DEVICE_SLOT_FREE,
	    .active = s->active,
	};
	return 0;
}

uint64_t device_block_offset(struct device *dev, uint32_t slot, uint32_t block)
{
	return geometry_slot_offset(&dev->geo, slot) + (uint64_t)block * BLOCK_BYTES;
}
