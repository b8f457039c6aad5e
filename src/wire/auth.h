/* SPDX-License-Identifier: Apache-2.0 */
/* auth.h - how the two ends of a TCP connection between daemons prove to each other that they hold the cluster's key.
 *
 *   dialer                                             acceptor
 *   CHALLENGE {nonce_d}                        ->
 *                                              <-      ANSWER {nonce_a, proof(acceptor, nonce_d, nonce_a)}
 *   PROOF {proof(dialer, nonce_d, nonce_a)}    ->
 *
 *   proof(role, nonce_d, nonce_a) = HMAC-SHA256(key, "strata " role " 1" || nonce_d || nonce_a)
 *
 * The role in the text keeps a proof from being reflected; fresh nonces of both sides keep it from being replayed. It does not hide or
 * protect what follows: that is TLS's affair. */
#ifndef STRATA_WIRE_AUTH_H
#define STRATA_WIRE_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/ioe/ioe.h"

enum {
	AUTH_NONCE_BYTES = 32,
	AUTH_PROOF_BYTES = 32,
	AUTH_KEY_BYTES_MIN = 16,
	AUTH_KEY_BYTES_MAX = 256
};

struct auth_key {
	uint8_t bytes[AUTH_KEY_BYTES_MAX];
	size_t len;
};

/* The file's contents without white space at the ends. 0, -errno, or -EINVAL (too short or long); errmsg says which. */
int auth_key_load(struct ioe *e, const char *path, struct auth_key *ret_key,
		  char errmsg[ERRMSG_LEN]);

enum auth_role { AUTH_DIALER, AUTH_ACCEPTOR };

/* 0 or -EIO when the library refuses. */
int auth_proof(const struct auth_key *key, enum auth_role role,
	       const uint8_t nonce_d[AUTH_NONCE_BYTES], const uint8_t nonce_a[AUTH_NONCE_BYTES],
	       uint8_t ret_proof[AUTH_PROOF_BYTES]);
/* In constant time. */
bool auth_proof_matches(const struct auth_key *key, enum auth_role role,
			const uint8_t nonce_d[AUTH_NONCE_BYTES],
			const uint8_t nonce_a[AUTH_NONCE_BYTES],
			const uint8_t proof[AUTH_PROOF_BYTES]);

#endif
