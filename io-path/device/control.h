/* SPDX-License-Identifier: Apache-2.0 */
/* control.h - rare requests to the device as a whole: its number, its layers' records, its end. One struct each, in dev->controls until
 * it is over. */
#ifndef STRATA_IO_PATH_DEVICE_CONTROL_H
#define STRATA_IO_PATH_DEVICE_CONTROL_H

#include <stdbool.h>

#include "io-path/device/waiter.h"
#include "src/ioe/ioe.h"
#include "src/model/ids.h"

struct device;

struct control {
	struct list
	    link; /* dev->controls, in the order they came; the superblock is written by the first only */
	struct device *dev;
	void (*done)(void *arg, int status);
	void *arg;
	int status;
	struct waiter wait;
	struct ioe_req io;
	void (*start)(
	    struct control *c); /* its turn with the superblock has come; NULL: it needs none */
	bool started;
	void (*written)(struct control *c, int status);
	device_no number;
	void *data; /* freed at the end */
};

/* NULL: no memory; then the caller has to be told on the spot. */
struct control *control_new(struct device *dev, void (*done)(void *arg, int status), void *arg);
/* close.c */
struct closing {
	void (*done)(void *arg, int status);
	void *arg;
	enum { CLOSE_REQUESTS, CLOSE_TIDY, CLOSE_SUPERBLOCK, CLOSE_CLEAN, CLOSE_QUIET } step;
	int status;
	uint32_t rounds_in_vain;
	bool is_waiting;   /* for the superblock or CLEAN */
	bool is_scheduled; /* it is going to look how far things are */
	struct ioe_req io;
	struct control sb;
	struct waiter wait;
};

void control_finish(struct control *c, int status); /* from the loop */

/* Writes the device's superblock, as it is in dev->sb, to the older of its two places: flush, write, flush. */
void superblock_write(struct control *c, void (*done)(struct control *c, int status));

#endif
