/* SPDX-License-Identifier: Apache-2.0 */
/* control_private.h - what control.c (the session), control_push.c (what the server pushes for the data path) and control_admin.c (what it pushes for
 * operators) share. */
#ifndef STRATA_IO_PATH_NODE_CONTROL_PRIVATE_H
#define STRATA_IO_PATH_NODE_CONTROL_PRIVATE_H

#include "io-path/node/control.h"

/* A request of the server under way. Embedded first in the operation of its kind. */
struct push {
	struct list link;
	struct control *c;
	uint64_t session, id;
	uint16_t type;
	ProtobufCMessage *msg; /* freed with it */
	int status;
	char errmsg[ERRMSG_LEN];
};

/* Every handler takes p->msg and ends with push_reply() or push_result(), both of which free the operation. */
void push_records(struct control *c, struct push *p);
void push_layer_query(struct control *c, struct push *p);
void push_serve(struct control *c, struct push *p);
void push_free_slots(struct control *c, struct push *p);
void push_config(struct control *c, struct push *p);
void push_volume_changed(struct control *c, struct push *p);
void push_device_add(struct control *c, struct push *p);
void push_device_remove(struct control *c, struct push *p);
void push_slot_query(struct control *c, struct push *p);
void push_stats(struct control *c, struct push *p);
void push_volume_bench(struct control *c, struct push *p);
void push_clients(struct control *c, struct push *p);

/* Answers, if it is still the same session; then the operation is gone. */
void push_reply(struct push *p, const ProtobufCMessage *reply);
void push_result(struct push *p, int status, const char *errmsg);
/* Makes room behind the push: an operation of `bytes` that begins with it. NULL: memory is short, and the push is answered with that. */
void *push_grow(struct push *p, size_t bytes);

void control_describe_device(const struct node_device *d, Strata__DeviceInfo *ret_info,
			     struct device_info *room);
void control_device_told(struct node_device *d, const Strata__DeviceInfo *info);
void control_check_ready(struct control *c);
void control_close_step(struct control *c);

#endif
