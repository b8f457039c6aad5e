/* SPDX-License-Identifier: Apache-2.0 */
/* nbd_peer.h - an NBD client of bytes, on any engine, and a server of mock volumes in a simulated world for it to talk to.
 *
 * The client sends what it is told, right or wrong, and takes answers apart. Waiting functions run the world; they abort when what is
 * waited for can not happen any more, and the *_eof ones when it ends differently. */
#ifndef STRATA_TESTS_LIB_NBD_PEER_H
#define STRATA_TESTS_LIB_NBD_PEER_H

#include "src/ioe/ioe_sim.h"
#include "targets/nbd/nbd.h"
#include "targets/nbd/proto.h"
#include "tests/lib/mock_volume/mock_volume.h"

struct nbd_fixture {
	struct sim_world *w;
	struct sim_machine *m;
	struct ioe *e, *client; /* the server's process, and one for all clients */
	struct volumes *vs;
	struct nbd_server *server;
	uint64_t mem_live; /* before */
	bool closed;
};
#define NBD_FIXTURE_ADDR "unix:/run/nbd"
#define NBD_FIXTURE_TCP	 "10.0.0.1:10809"

void nbd_fixture_init(struct nbd_fixture *fx, uint64_t seed, const struct nbd_limits *limits);
void nbd_fixture_init_config(struct nbd_fixture *fx, const struct sim_config *cfg,
			     const struct nbd_limits *limits);
/* Closes the server, and checks that nothing of anything is left. */
void nbd_fixture_free(struct nbd_fixture *fx);
void nbd_fixture_close_begin(struct nbd_fixture *fx); /* the server only; `closed` tells */
/* Lets the world go on for some virtual time. */
void nbd_fixture_run(struct nbd_fixture *fx, uint64_t ns);
uint32_t nbd_fixture_conns(struct nbd_fixture *fx);

struct nbd_peer {
	struct sim_world *w;
	struct ioe *e;
	struct ioe_sock *sock;
	struct ioe_req connect, recv, send;
	struct iovec recv_iov, send_iov;
	bool connecting, recv_busy, send_busy, reading, eof, broken;
	int connect_status;
	uint8_t *in, *out, *sending; /* received and not taken: [in_at, in_len) */
	size_t in_len, in_at, in_cap, out_len, out_cap, sending_len;
	/* after a handshake */
	bool structured;
	uint64_t size_bytes;
	uint16_t flags;
};

/* ---- bytes ------------------------------------------------------------------------------------------------------------ */

void nbd_peer_connect_begin(struct nbd_peer *p, struct sim_world *w, struct ioe *e,
			    const char *addr);
void nbd_peer_connect(struct nbd_peer *p,
		      struct nbd_fixture *fx);	 /* waits; a greeting is still to be read */
void nbd_peer_close(struct nbd_peer *p);	 /* whatever state it is in */
void nbd_peer_read(struct nbd_peer *p, bool on); /* stop reading, and go on */
void nbd_peer_send(struct nbd_peer *p, const void *data, size_t len); /* queued and copied */
bool nbd_peer_has(struct nbd_peer *p,
		  size_t n); /* runs until n bytes are there (true) or will never be */
const uint8_t *nbd_peer_take(struct nbd_peer *p, size_t n); /* waits; valid until the next call */
bool nbd_peer_is_eof(
    struct nbd_peer *
	p); /* runs until the server closed (true), or nothing more arrives within a virtual second */

/* ---- handshake -------------------------------------------------------------------------------------------------------- */

void nbd_peer_greet(struct nbd_peer *p,
		    uint32_t client_flags); /* reads the greeting, sends the flags */
void nbd_peer_option(struct nbd_peer *p, uint32_t option, const void *data, size_t len);
struct nbd_peer_reply {
	uint32_t option, type, len;
	const uint8_t *data; /* NUL behind it for texts; valid until the next call */
};
struct nbd_peer_reply nbd_peer_reply(struct nbd_peer *p);
/* An option with its data, whose one reply is the last one: its type. */
uint32_t nbd_peer_ask(struct nbd_peer *p, uint32_t option, const void *data, size_t len);
/* Data of INFO and GO: returns its length. */
size_t nbd_peer_info_data(uint8_t *out, const char *name, const uint16_t *infos, uint16_t infos_n);
/* Data of LIST_META_CONTEXT and SET_META_CONTEXT; queries end with NULL. */
size_t nbd_peer_meta_data(uint8_t *out, const char *name, const char *const *queries);
/* Connect, greet, STRUCTURED_REPLY and base:allocation if asked, GO: ready for requests. */
void nbd_peer_go(struct nbd_peer *p, struct nbd_fixture *fx, const char *name, bool structured);

/* ---- transmission ----------------------------------------------------------------------------------------------------- */

struct nbd_request_header nbd_peer_header(uint16_t cmd, uint16_t flags, uint64_t cookie,
					  uint64_t off, uint32_t len);
void nbd_peer_request(struct nbd_peer *p, uint16_t cmd, uint16_t flags, uint64_t cookie,
		      uint64_t off, uint32_t len);
void nbd_peer_write(struct nbd_peer *p, uint16_t flags, uint64_t cookie, uint64_t off,
		    const void *data, uint32_t len);

/* The next message: a simple reply (type -1; read_len bytes follow a success) or a chunk. */
struct nbd_peer_answer {
	uint64_t cookie;
	int type; /* -1, or enum nbd_reply_type */
	bool done;
	uint32_t error;	     /* simple reply or error chunk */
	uint64_t off;	     /* OFFSET_DATA, OFFSET_HOLE */
	uint32_t len;	     /* of data; of the hole; of the text; number of extents */
	const uint8_t *data; /* valid until the next call */
};
struct nbd_peer_answer nbd_peer_answer(struct nbd_peer *p, uint32_t read_len);
struct nbd_extent nbd_peer_extent(const struct nbd_peer_answer *a, uint32_t i);

/* Whole exchanges: the error. */
uint32_t nbd_peer_do(struct nbd_peer *p, uint16_t cmd, uint16_t flags, uint64_t off, uint32_t len);
uint32_t nbd_peer_do_write(struct nbd_peer *p, uint16_t flags, uint64_t off, const void *data,
			   uint32_t len);
uint32_t nbd_peer_do_read(struct nbd_peer *p, uint16_t flags, uint64_t off, void *data,
			  uint32_t len);

#endif
