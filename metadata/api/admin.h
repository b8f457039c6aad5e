/* SPDX-License-Identifier: Apache-2.0 */
/* admin.h - the administration of the cluster: what can be asked for, and how a question reaches the loop and its answer comes back.
 *
 * One table (ADMIN_VERBS here, the parameters of each in verbs.c) says what docs/openapi.yaml says; a test compares the two. Routing and
 * validation follow from it: whoever executes a verb gets arguments that are complete, known, of the right type and within their bounds. What needs
 * the cluster to decide (does the volume exist?) is left to it.
 *
 * Nothing in here knows HTTP: a test or a simulation fills an admin_req, or lets admin_args_complete() do it, and submits it. */
#ifndef STRATA_METADATA_API_ADMIN_H
#define STRATA_METADATA_API_ADMIN_H

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/base/err.h"

/* X(VERB, METHOD, path pattern, answered also while the server refuses to work) */
#define ADMIN_VERBS(X)                                                 \
	X(STATUS, GET, "/v1/status", true)                             \
	X(NODE_LIST, GET, "/v1/nodes", false)                          \
	X(NODE_SHOW, GET, "/v1/nodes/{node}", false)                   \
	X(NODE_REMOVE, DELETE, "/v1/nodes/{node}", false)              \
	X(DEVICE_LIST, GET, "/v1/devices", false)                      \
	X(DEVICE_ADD, POST, "/v1/devices", false)                      \
	X(DEVICE_SHOW, GET, "/v1/devices/{device}", false)             \
	X(DEVICE_REMOVE, DELETE, "/v1/devices/{device}", false)        \
	X(POOL_LIST, GET, "/v1/pools", false)                          \
	X(POOL_CREATE, POST, "/v1/pools", false)                       \
	X(POOL_SHOW, GET, "/v1/pools/{pool}", false)                   \
	X(POOL_REMOVE, DELETE, "/v1/pools/{pool}", false)              \
	X(VOLUME_LIST, GET, "/v1/volumes", false)                      \
	X(VOLUME_CREATE, POST, "/v1/volumes", false)                   \
	X(VOLUME_SHOW, GET, "/v1/volumes/{volume}", false)             \
	X(VOLUME_RESIZE, PATCH, "/v1/volumes/{volume}", false)         \
	X(VOLUME_DELETE, DELETE, "/v1/volumes/{volume}", false)        \
	X(VOLUME_RELEASE, POST, "/v1/volumes/{volume}/release", false) \
	X(VOLUME_MAP, GET, "/v1/volumes/{volume}/map", false)          \
	X(VOLUME_STATS, GET, "/v1/volumes/{volume}/stats", false)      \
	X(VOLUME_BENCH, POST, "/v1/volumes/{volume}/bench", false)     \
	X(EXPORT_LIST, GET, "/v1/exports", false)                      \
	X(EXPORT_SHOW, GET, "/v1/exports/{volume}", false)             \
	X(EXPORT_SET, PATCH, "/v1/exports/{volume}", false)            \
	X(JOB_LIST, GET, "/v1/jobs", false)                            \
	X(JOB_SHOW, GET, "/v1/jobs/{job}", false)                      \
	X(JOB_CANCEL, POST, "/v1/jobs/{job}/cancel", false)            \
	X(EVENT_LIST, GET, "/v1/events", true)                         \
	X(CHECK, POST, "/v1/check", false)                             \
	X(METADATA_BACKUP, POST, "/v1/metadata/backup", false)         \
	X(METRICS, GET, "/metrics", true)

/* X(CODE, word on the wire, HTTP status) */
#define ADMIN_CODES(X)                                 \
	X(INVALID, invalid, 400)                       \
	X(NOT_FOUND, not_found, 404)                   \
	X(EXISTS, exists, 409)                         \
	X(IN_USE, in_use, 409)                         \
	X(NO_SPACE, no_space, 507)                     \
	X(READ_ONLY, read_only, 409)                   \
	X(NOT_CANCELLABLE, not_cancellable, 409)       \
	X(KEY_REUSED, key_reused, 422)                 \
	X(UNAUTHORIZED, unauthorized, 401)             \
	X(METHOD_NOT_ALLOWED, method_not_allowed, 405) \
	X(TOO_LARGE, too_large, 413)                   \
	X(NOT_SUPPORTED, not_supported, 501)           \
	X(NODE_AWAY, node_away, 503)                   \
	X(DEVICE_AWAY, device_away, 503)               \
	X(METADATA_AWAY, metadata_away, 503)           \
	X(FOREIGN, foreign, 409)                       \
	X(REFUSED, refused, 503)                       \
	X(BUSY, busy, 503)                             \
	X(TIMEOUT, timeout, 504)                       \
	X(STOPPING, stopping, 503)                     \
	X(INTERNAL, internal, 500)

enum admin_verb {
#define X(verb, ...) ADMIN_##verb,
	ADMIN_VERBS(X)
#undef X
	    ADMIN_VERBS_N
};

enum admin_code {
	ADMIN_OK,
#define X(code, ...) ADMIN_E_##code,
	ADMIN_CODES(X)
#undef X
	    ADMIN_CODES_N
};

const char *admin_code_word(enum admin_code code); /* "ok" for ADMIN_OK */
int admin_code_status(enum admin_code code);	   /* HTTP */

/* ---- parameters (verbs.c) --------------------------------------------------------------------------------------------------------- */

enum admin_in { ADMIN_IN_PATH, ADMIN_IN_QUERY, ADMIN_IN_BODY };
enum admin_type {
	ADMIN_TEXT,	   /* 1 to `max` bytes of UTF-8 without control characters */
	ADMIN_NAME,	   /* name_is_valid() */
	ADMIN_ABS_PATH,	   /* a text that begins with "/" */
	ADMIN_NUMBER_NAME, /* a number from 1 on, or a text */
	ADMIN_INT,	   /* between min and max, a multiple of unit */
	ADMIN_BOOL,
};

struct admin_param {
	const char *name;
	enum admin_in in;
	enum admin_type type;
	bool required;
	int64_t min, max;     /* INT; max of the others: bytes */
	int64_t unit;	      /* INT: 0 is 1 */
	const char *fallback; /* JSON of what stands for it when it is left out; NULL: it stays out */
	const char *choices;  /* "a|b|c"; NULL: any */
	const char *excludes; /* the parameter that cannot be given together with it */
};

struct admin_verb_info {
	const char *name; /* "VOLUME_CREATE", for logs */
	const char *method;
	const char *path;
	bool while_refused;
	const struct admin_param *params;
	uint32_t params_n;
};
struct admin_verb_info admin_verb(enum admin_verb verb);
const struct admin_param *admin_param(enum admin_verb verb,
				      const char *name); /* NULL: it has none of that name */

/* ---- requests ------------------------------------------------------------------------------------------------------------------------ */

enum { ADMIN_MESSAGE_LEN = 512 };

struct admin_error {
	enum admin_code code;
	char message[ADMIN_MESSAGE_LEN]; /* for people; UTF-8, cut at a whole character */
	char hint[ADMIN_MESSAGE_LEN];	 /* what to do next; may be empty */
};

void admin_error_set(struct admin_error *e, enum admin_code code, const char *hint, const char *fmt,
		     ...) __attribute__((format(printf, 4, 5)));
void admin_error_vset(struct admin_error *e, enum admin_code code, const char *hint,
		      const char *fmt, va_list ap) __attribute__((format(printf, 4, 0)));
json_t *admin_error_json(const struct admin_error *e); /* {code, message, hint}, or NULL */

/* The submitter owns the struct, subject and args, and keeps them until `done`; whoever executes only reads them. `done` is called once, on
 * the loop, and is the last touch of the request. The answer is then the submitter's. */
struct admin_req {
	enum admin_verb verb;
	const char *
	    subject; /* from the path: the name or number of the volume, device, node, pool or job; NULL when the path has none */
	json_t *args; /* object: path, query and body by name; what was left out has its default, or is not there */
	/* Idempotency-Key, and a hash of what it stands for that is the same in every process; NULL: none. Two with the same key are not under way at once */
	const char *key;
	uint64_t request;
	void (*done)(struct admin_req *r);

	/* results, by admin_answer(), admin_answer_text() or admin_fail() */
	int status;	/* HTTP: 200, 201, 202, or that of error.code */
	json_t *answer; /* owned; NULL on failure */
	char *text;	/* owned (mem_free): METRICS only, instead of answer */
	struct admin_error error;

	void *priv; /* of who executes it */
};

/* The executor. Completes r from the loop, maybe inline. What is submitted after the executor began to stop is answered `stopping`; what
 * is under way then is finished or failed, so that a close of the HTTP side ends. */
struct admin;
void admin_submit(struct admin *a, struct admin_req *r);

/* The three ways to end a request: exactly one of them, once; each calls r->done last. `answer` and `text` are taken, also NULL, which is
 * answered as `internal` (out of memory): so a chain of json_pack() needs no checks of its own. */
void admin_answer(struct admin_req *r, int status, json_t *answer);
void admin_answer_text(struct admin_req *r, char *text);
/* hint: "" for none. Codes for what err.h names: admin_code_of(). */
void admin_fail(struct admin_req *r, enum admin_code code, const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The code that fits -errno or -E_*. */
enum admin_code admin_code_of(int err);

/* Arguments. Asking for one that the verb does not have, or as another type, is a bug. */
bool admin_has(const struct admin_req *r, const char *name);
/* TEXT, NAME, ABS_PATH; NULL when it was left out. A NUMBER_NAME given as a number: NULL, and admin_int() has it. */
const char *admin_text(const struct admin_req *r, const char *name);
int64_t admin_int(const struct admin_req *r, const char *name); /* 0 when it was left out */
bool admin_bool(const struct admin_req *r, const char *name);	/* false when it was left out */

/* Checks args against the verb's table and adds the defaults. 0; -EINVAL with the error filled, which names the member; -ENOMEM also. */
int admin_args_complete(enum admin_verb verb, json_t *args, struct admin_error *ret_error);

#endif
