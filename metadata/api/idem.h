/* SPDX-License-Identifier: Apache-2.0 */
/* idem.h - Idempotency-Key: which requests were seen before, and what they were answered. The loop's alone.
 *
 *   unknown -> RUNNING (others with the same key wait on it) -> ANSWERED -> forgotten, the least recently asked for first
 *                                                            -> unknown: the answer was 500 or above, or very long
 *
 * An answer of 500 and above says that the request was not done, or that nobody knows; asking again with the same key is asking again. */
#ifndef STRATA_METADATA_API_IDEM_H
#define STRATA_METADATA_API_IDEM_H

#include "metadata/api/reply.h"
#include "src/base/hash.h"
#include "src/base/list.h"

enum { IDEM_KEY_MAX = 64, IDEM_ENTRIES_MAX = 1024, IDEM_REPLY_MAX = 16 * 1024 };

struct idem {
	struct htab by_key;
	struct list lru; /* answered ones, the next to be forgotten first */
	uint32_t n, max;
};

struct idem_entry {
	struct hnode node;
	struct list lru;
	char key[IDEM_KEY_MAX + 1];
	uint64_t request;    /* hash of method, address and body */
	struct list waiting; /* RUNNING: the repetitions, links of the caller's */
	bool answered;
	struct reply reply;
};

enum idem_verdict {
	IDEM_FIRST,    /* execute it, then idem_settle() */
	IDEM_RUNNING,  /* push a link to entry->waiting */
	IDEM_ANSWERED, /* entry->reply */
	IDEM_REUSED,   /* the key belongs to another request */
	IDEM_FULL,     /* as many are running as can be remembered, or memory is short */
};

int idem_init(struct idem *t, uint32_t max);
void idem_free(struct idem *t); /* none is running */

bool idem_key_is_valid(const char *key); /* 1 to 64 printable ASCII characters */
enum idem_verdict idem_ask(struct idem *t, const char *key, uint64_t request,
			   struct idem_entry **ret_entry);
/* The answer of an entry that was FIRST; nothing waits on it any more. It may be forgotten at once. */
void idem_settle(struct idem *t, struct idem_entry *e, const struct reply *reply);

#endif
