/* SPDX-License-Identifier: Apache-2.0 */
/* devices_private.h - what devices.c (the list, opening, ending) and devices_change.c (add, remove, serve) share. */
#ifndef STRATA_IO_PATH_NODE_DEVICES_PRIVATE_H
#define STRATA_IO_PATH_NODE_DEVICES_PRIVATE_H

#include "io-path/node/devices.h"

/* path: mem_*, taken also on failure; NULL: memory is short. Not on the list yet. */
struct node_device *node_device_new(struct devices *ds, char *path);
void node_device_free(struct node_device *d);
int node_device_name_ring(struct node_device *d);
void node_device_on_event(void *arg, struct device *dev, const char *what, const char *text);
void node_device_open(struct node_device *d);
/* At once, for one that is ABSENT and waits to be tried again. */
void node_device_open_again(struct node_device *d);
/* d->add: the device is open, or not. */
void devices_add_opened(struct node_device *d, int status);
/* Closes what is open; then node_device_closed(). */
void node_device_close(struct node_device *d);
void node_device_closed(struct node_device *d); /* ends a remove */
int devices_list_save(struct devices *ds);
/* Ends devices_close() when nothing is under way any more. */
void devices_close_step(struct devices *ds);
void devices_nop_done(struct ioe_req *r);

#endif
