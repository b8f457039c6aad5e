/* SPDX-License-Identifier: Apache-2.0 */
/* nbd_hostile.h - throws bytes at the NBD target: what the fuzzer and the deterministic generator of hostile cases share.
 *
 * A case is one connection: a prefix that is in order, bytes that are not, and the end of the client. What must hold: nothing crashes,
 * what the server says is well-formed to the last message, and a moment later nothing of the connection is left. */
#ifndef STRATA_TESTS_LIB_NBD_HOSTILE_H
#define STRATA_TESTS_LIB_NBD_HOSTILE_H

#include "tests/lib/nbd/nbd_peer.h"

enum nbd_hostile_prefix {
	NBD_HOSTILE_NOTHING, /* the bytes begin with the client flags */
	NBD_HOSTILE_FLAGS,   /* ... with the first option */
	NBD_HOSTILE_STRUCTURED, /* ... with the first request, after STRUCTURED_REPLY, SET_META_CONTEXT and GO */
	NBD_HOSTILE_SIMPLE, /* ... with the first request, after EXPORT_NAME */
	NBD_HOSTILE_PREFIXES_N,
};

struct nbd_hostile {
	struct nbd_fixture fx;
	struct nbd_peer p;
	uint64_t cases, answers; /* well-formed messages seen */
};

void nbd_hostile_init(struct nbd_hostile *h, uint64_t seed);
void nbd_hostile_free(struct nbd_hostile *h);
/* `cut`: so many of the bytes come first, the rest later. */
void nbd_hostile_feed(struct nbd_hostile *h, enum nbd_hostile_prefix prefix, const uint8_t *bytes,
		      size_t len, size_t cut);

/* The bytes of case number `seed`, the same on every machine. */
enum { NBD_HOSTILE_BYTES_MAX = 16 << 10 };
size_t nbd_hostile_generate(uint64_t seed, uint8_t out[NBD_HOSTILE_BYTES_MAX],
			    enum nbd_hostile_prefix *ret_prefix, size_t *ret_cut);

#endif
