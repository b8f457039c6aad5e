/* SPDX-License-Identifier: Apache-2.0 */
/* link.h - a stream socket that carries frames.
 *
 * Sending queues; at the end of the loop's turn everything queued goes out in one send, and while a send is under way more collects for the
 * next. Receiving parses frame by frame out of one buffer, and receives data of frames straight to where they belong.
 *
 *   OPEN --(error, end of stream, link_break)--> BREAKING --(nothing in flight)--> DOWN --(link_close)--> closed
 *
 * `down` is called once, when the socket has let go of every buffer; each frame that was queued has had its `sent` by then. link_close() may be
 * called in any state and any callback; after it only `sent` callbacks and its own `done` are made. Nothing is called inline, except
 * `frame` and `data` from the receive path. The struct is the caller's and must live until close is done. */
#ifndef STRATA_WIRE_LINK_H
#define STRATA_WIRE_LINK_H

#include "src/ioe/ioe.h"
#include "src/wire/frame.h"

struct link;

struct link_ops {
	/* A frame whose CRC matches; body is valid during the call. With data_bytes != 0 it must say where they go (*ret_data); the buffer
	 * belongs to the link until `data` or `down`. Negative: the peer broke the protocol, the link goes down with that status. */
	int (*frame)(struct link *l, const struct frame *f, const void *body, void **ret_data);
	/* The data of the frame before is complete; may be NULL where data_max is 0. */
	int (*data)(struct link *l);
	void (*down)(struct link *l, int status);
};

struct link_config {
	struct ioe *ioe;
	const struct link_ops *ops;
	uint32_t body_max, data_max;
	uint32_t buf_bytes; /* receive buffer to begin with; 0: 16 KiB */
	uint64_t queue_bytes_max; /* of copies waiting to be sent; 0: 16 MiB. A peer that lets more pile up is cut off */
};

/* A frame to send. The caller's, with body and data, until `sent`, which is the last touch. */
struct link_out {
	struct list link;
	struct frame_header header;
	struct iovec iov[3];
	int iov_n;
	uint64_t bytes;
	void (*sent)(struct link_out *o, int status);
};

enum { LINK_IOV_N = 96 };

struct link {
	struct ioe *ioe;
	struct ioe_sock *sock;
	const struct link_ops *ops;
	uint32_t body_max, data_max;
	uint64_t queue_bytes_max;
	/* receiving: [start, end) of buf is there and not parsed yet */
	enum { LINK_RX_HEADER, LINK_RX_BODY, LINK_RX_DATA } rx_state;
	uint8_t *buf;
	size_t buf_bytes, start, end;
	size_t buf_min; /* the buffer becomes that large with the next receive; 0 or set by the owner */
	struct frame frame;
	uint8_t *data;
	size_t data_left;
	struct iovec rx_iov[2];
	struct ioe_req rx_req;
	bool rx_busy, paused;
	uint64_t received_bytes, sent_bytes;
	/* sending */
	struct list queue, sending;
	uint64_t queued_bytes;
	struct iovec tx_iov[LINK_IOV_N];
	struct ioe_req tx_req;
	bool tx_busy;
	struct ioe_hook hook;
	/* ending */
	int failure; /* 0 while OPEN */
	bool down_told;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* Takes the socket. -ENOMEM: the socket stays the caller's. */
int link_open(struct link *l, const struct link_config *cfg, struct ioe_sock *sock);
void link_break(struct link *l, int status); /* idempotent; status < 0 */
/* Two-phase; frames still queued are dropped. */
void link_close(struct link *l, void (*done)(void *arg), void *arg);

/* A link that is not OPEN takes it too, and answers with its failure. data may be NULL when f->data_bytes is 0. */
void link_send(struct link *l, struct link_out *o, const struct frame *f, const void *body,
	       const void *data, void (*sent)(struct link_out *o, int status));

/* A frame in memory of its own, freed when it was sent: link_copy_new(), fill body, link_copy_send(). NULL when memory is short. */
struct link_copy {
	struct link_out out;
	struct link *l;
	uint8_t body[];
};
struct link_copy *link_copy_new(size_t body_bytes);
/* Frees it on failure too: -ENOBUFS when too much is queued (the link breaks), -ENOTCONN when the link is not OPEN. */
int link_copy_send(struct link *l, struct link_copy *c, const struct frame *f);

/* Back-pressure: no further frame is delivered until link_resume(), which is harmless at any time. */
void link_pause(struct link *l);
void link_resume(struct link *l);

#endif
