/* SPDX-License-Identifier: Apache-2.0 */
/* dev.h - the whole device, as its parts see it. Private to io-path/device.
 *
 * One thread, no locks. Parts call each other directly, except where a call could come back to who is in the middle of something: then
 * it is left to device_turn_end(), which runs once at the end of the turn: rooms and slots that became free, table loads, the journal's
 * writes, the next flush. */
#ifndef STRATA_IO_PATH_DEVICE_DEV_H
#define STRATA_IO_PATH_DEVICE_DEV_H

#include "io-path/device/control.h"
#include "io-path/device/device.h"
#include "io-path/device/epochs.h"
#include "io-path/device/flush.h"
#include "io-path/device/geometry.h"
#include "io-path/device/journal.h"
#include "io-path/device/maint.h"
#include "io-path/device/ops.h"
#include "io-path/device/registry.h"
#include "io-path/device/ring.h"
#include "io-path/device/slots.h"
#include "io-path/device/tables.h"
#include "io-path/device/verify.h"

enum device_state { DEVICE_OPENING, DEVICE_SERVING, DEVICE_CLOSING };

struct device {
	struct ioe *ioe;
	struct ioe_file *file;
	struct ioe_file_info file_info;
	char *path;
	struct uuid uuid;
	struct geometry geo;
	enum device_state state;
	bool failed; /* in any state: nothing is written any more */
	bool read_only;
	bool journal_started;	   /* records can be written */
	bool no_punch;		   /* the medium refused one */
	struct fmt_superblock *sb; /* as last read or written, one page, aligned */

	struct journal journal;
	struct flusher flusher;
	struct tables tables;
	struct slots slots;
	struct volumes volumes;
	struct registry registry;
	struct ring ring;
	struct ops ops;
	struct maint maint;
	struct verify verify;

	struct ioe_hook turn_hook;
	struct ioe_hook fail_hook;
	uint32_t values[CHUNK_BLOCKS_MAX]; /* scratch of one step */
	uint64_t cgen_highest, bad_blocks;
	uint64_t last_change_ns; /* when the last record was made for somebody */
	bool power_loss;	 /* is what the replay found */
	uint64_t no_space_ns;	 /* info.no_space: when a write found none last */
	struct device_info info; /* its counters only */

	void (*on_event)(void *arg, struct device *dev, const char *what, const char *text);
	void *event_arg;

	struct list controls; /* struct control */
	struct closing close;
};

/* Runs the end of the turn once more. */
static inline void device_turn_end(struct device *dev)
{
	ioe_hook_arm(dev->ioe, &dev->turn_hook);
}

/* The device is out of service from here on; everybody who waits is told at the end of the turn. */
void device_fail(struct device *dev, const char *what, int status);
void device_event(struct device *dev, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

struct device *device_new(struct ioe *ioe);
void device_free(struct device *dev);
int device_init_parts(struct device *dev,
		      const struct device_open *op); /* once the geometry is known */

/* ---- what parts call at each other, beyond their headers ---------------------------------------------------------------- */

void table_load_start(struct device *dev, struct table_page *p);
void table_load_again(struct device *dev, struct table_page *p); /* of one that is unreadable */
void table_recount(struct device *dev, struct table_page *p);
void punch_failed(struct device *dev, int status);
void space_missing(struct device *dev);		/* a write found none under the device */
void space_found(struct device *dev);		/* one that needed some got it */
bool device_is_quiet(const struct device *dev); /* nothing is in flight, no timer armed */
void close_step(struct device *dev);		/* something ended that a close may wait for */

#endif
