/* SPDX-License-Identifier: Apache-2.0 */
#include "src/wire/auth.h"

#include <ctype.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>

#include "src/base/mem.h"

int auth_key_load(struct ioe *e, const char *path, struct auth_key *ret_key, char errmsg[ERRMSG_LEN])
{
	const char *at;
	char *data;
	size_t len;
	int r = ioe_file_load(e, path, &data, &len);

	if (r) {
		snprintf(errmsg, ERRMSG_LEN, "cannot read the key file %s: %s", path, err_text(r));
		return r;
	}
	at = data;
	while (len && isspace((unsigned char)at[len - 1]))
		len--;
	while (len && isspace((unsigned char)*at)) {
		at++;
		len--;
	}
	if (len < AUTH_KEY_BYTES_MIN || len > AUTH_KEY_BYTES_MAX) {
		snprintf(errmsg, ERRMSG_LEN, "the key file %s must hold %d to %d bytes, not %zu",
			 path, AUTH_KEY_BYTES_MIN, AUTH_KEY_BYTES_MAX, len);
		r = -EINVAL;
	} else {
		memcpy(ret_key->bytes, at, len);
		ret_key->len = len;
	}
	gnutls_memset(data, 0, len);
	mem_free(data);
	return r;
}

int auth_proof(const struct auth_key *key, enum auth_role role,
	       const uint8_t nonce_d[AUTH_NONCE_BYTES], const uint8_t nonce_a[AUTH_NONCE_BYTES],
	       uint8_t ret_proof[AUTH_PROOF_BYTES])
{
	static const char *const words[] = {"strata dialer 1", "strata acceptor 1"};
	uint8_t text[32 + 2 * AUTH_NONCE_BYTES], proof[AUTH_PROOF_BYTES];
	size_t n = strlen(words[role]);

	memcpy(text, words[role], n);
	memcpy(text + n, nonce_d, AUTH_NONCE_BYTES);
	memcpy(text + n + AUTH_NONCE_BYTES, nonce_a, AUTH_NONCE_BYTES);
	n += (size_t)2 * AUTH_NONCE_BYTES;
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, key->bytes, key->len, text, n, proof) < 0)
		return -EIO;
	memcpy(ret_proof, proof, sizeof(proof));
	return 0;
}

bool auth_proof_matches(const struct auth_key *key, enum auth_role role,
			const uint8_t nonce_d[AUTH_NONCE_BYTES],
			const uint8_t nonce_a[AUTH_NONCE_BYTES],
			const uint8_t proof[AUTH_PROOF_BYTES])
{
	uint8_t expected[AUTH_PROOF_BYTES];

	if (auth_proof(key, role, nonce_d, nonce_a, expected))
		return false;
	return gnutls_memcmp(expected, proof, sizeof(expected)) == 0;
}
