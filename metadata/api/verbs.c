/* SPDX-License-Identifier: Apache-2.0 */
/* verbs.c - the parameters of every verb, as docs/openapi.yaml has them. */
#include <string.h>

#include "metadata/api/admin.h"
#include "src/base/check.h"
#include "src/model/ids.h"

enum { TEXT_MAX = 255, FILE_PATH_MAX = 4095 };

#define LIMIT                                                                                    \
	{                                                                                        \
		.name = "limit", .in = ADMIN_IN_QUERY, .type = ADMIN_INT, .min = 1, .max = 1000, \
		.fallback = "100"                                                                \
	}
#define AFTER                                                                              \
	{                                                                                  \
		.name = "after", .in = ADMIN_IN_QUERY, .type = ADMIN_TEXT, .max = TEXT_MAX \
	}
#define SUBJECT(what)                                                                    \
	{                                                                                \
		.name = what, .in = ADMIN_IN_PATH, .type = ADMIN_TEXT, .required = true, \
		.max = TEXT_MAX                                                          \
	}
#define JOB                                                                                        \
	{                                                                                          \
		.name = "job", .in = ADMIN_IN_PATH, .type = ADMIN_INT, .required = true, .min = 1, \
		.max = INT64_MAX                                                                   \
	}
#define FLAG(what, where)                                                          \
	{                                                                          \
		.name = what, .in = where, .type = ADMIN_BOOL, .fallback = "false" \
	}
#define VOLUME_SIZE                                                                             \
	{                                                                                       \
		.name = "size_bytes", .in = ADMIN_IN_BODY, .type = ADMIN_INT, .required = true, \
		.min = VOLUME_BYTES_MIN, .max = VOLUME_BYTES_MAX, .unit = BLOCK_BYTES           \
	}
#define POOL                                                                                  \
	{                                                                                     \
		.name = "pool", .in = ADMIN_IN_BODY, .type = ADMIN_NAME, .max = NAME_LEN_MAX, \
		.fallback = "\"default\""                                                     \
	}

static const struct admin_param page[] = {LIMIT, AFTER};
static const struct admin_param node[] = {SUBJECT("node")};
static const struct admin_param device[] = {SUBJECT("device")};
static const struct admin_param pool[] = {SUBJECT("pool")};
static const struct admin_param volume[] = {SUBJECT("volume")};
static const struct admin_param job[] = {JOB};

static const struct admin_param device_list[] = {LIMIT, AFTER, FLAG("all", ADMIN_IN_QUERY)};
static const struct admin_param device_add[] = {
    {.name = "node",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_NUMBER_NAME,
     .required = true,
     .max = NAME_LEN_MAX},
    {.name = "path",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_ABS_PATH,
     .required = true,
     .max = FILE_PATH_MAX},
    {.name = "size_bytes", .in = ADMIN_IN_BODY, .type = ADMIN_INT, .min = 1, .max = INT64_MAX},
    POOL,
    FLAG("force", ADMIN_IN_BODY),
};
static const struct admin_param device_remove[] = {SUBJECT("device"), FLAG("lost", ADMIN_IN_QUERY)};
static const struct admin_param pool_create[] = {
    {.name = "name", .in = ADMIN_IN_BODY, .type = ADMIN_NAME, .required = true, .max = NAME_LEN_MAX},
    {.name = "media",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_TEXT,
     .required = true,
     .max = TEXT_MAX,
     .choices = "flash|rotational"},
    {.name = "chunk_bytes",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_INT,
     .min = 1 << CHUNK_SHIFT_FLASH,
     .max = 1 << CHUNK_SHIFT_DISK,
     .choices = "1048576|4194304"},
};
static const struct admin_param volume_create[] = {
    {.name = "name", .in = ADMIN_IN_BODY, .type = ADMIN_NAME, .required = true, .max = NAME_LEN_MAX},
    VOLUME_SIZE,
    POOL,
    {.name = "sector_bytes",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_INT,
     .min = SECTOR_BYTES,
     .max = BLOCK_BYTES,
     .fallback = "512",
     .choices = "512|4096"},
    {.name = "write_cache",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_TEXT,
     .max = TEXT_MAX,
     .fallback = "\"auto\"",
     .choices = "auto|writeback|writethrough"},
};
static const struct admin_param volume_resize[] = {SUBJECT("volume"), VOLUME_SIZE};
static const struct admin_param export_set[] = {
    SUBJECT("volume"),
    {.name = "exclusive", .in = ADMIN_IN_BODY, .type = ADMIN_BOOL, .required = true},
};
static const struct admin_param volume_map[] = {
    SUBJECT("volume"),
    {.name = "offset", .in = ADMIN_IN_QUERY, .type = ADMIN_INT, .max = INT64_MAX, .fallback = "0"},
    {.name = "length", .in = ADMIN_IN_QUERY, .type = ADMIN_INT, .min = 1, .max = INT64_MAX},
};
static const struct admin_param volume_bench[] = {
    SUBJECT("volume"),
    {.name = "pattern",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_TEXT,
     .max = TEXT_MAX,
     .fallback = "\"randread\"",
     .choices = "read|write|readwrite|randread|randwrite|randrw"},
    {.name = "block_bytes",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_INT,
     .min = SECTOR_BYTES,
     .max = 32 << 20,
     .unit = SECTOR_BYTES,
     .fallback = "4096"},
    {.name = "depth", .in = ADMIN_IN_BODY, .type = ADMIN_INT, .min = 1, .max = 1024, .fallback = "32"},
    {.name = "seconds", .in = ADMIN_IN_BODY, .type = ADMIN_INT, .min = 1, .max = 20, .fallback = "3"},
    {.name = "flush_every",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_INT,
     .max = UINT32_MAX,
     .fallback = "0"},
    {.name = "read_percent", .in = ADMIN_IN_BODY, .type = ADMIN_INT, .max = 100, .fallback = "50"},
    {.name = "size_bytes", .in = ADMIN_IN_BODY, .type = ADMIN_INT, .max = INT64_MAX, .fallback = "0"},
    {.name = "stride_bytes",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_INT,
     .max = INT64_MAX,
     .fallback = "0"},
    {.name = "once", .in = ADMIN_IN_BODY, .type = ADMIN_BOOL, .fallback = "false"},
};
static const struct admin_param event_list[] = {
    LIMIT,
    AFTER,
    {.name = "last",
     .in = ADMIN_IN_QUERY,
     .type = ADMIN_INT,
     .min = 1,
     .max = 1000,
     .excludes = "after"},
};
static const struct admin_param metadata_backup[] = {
    {.name = "path",
     .in = ADMIN_IN_BODY,
     .type = ADMIN_ABS_PATH,
     .required = true,
     .max = FILE_PATH_MAX},
};

/* verbs that are not here have none */
static const struct {
	const struct admin_param *list;
	uint32_t n;
} params[ADMIN_VERBS_N] = {
#define SET(verb, set) [ADMIN_##verb] = {set, ARRAY_LEN(set)}
    SET(NODE_LIST, page),
    SET(NODE_SHOW, node),
    SET(NODE_REMOVE, node),
    SET(DEVICE_LIST, device_list),
    SET(DEVICE_ADD, device_add),
    SET(DEVICE_SHOW, device),
    SET(DEVICE_REMOVE, device_remove),
    SET(POOL_LIST, page),
    SET(POOL_CREATE, pool_create),
    SET(POOL_SHOW, pool),
    SET(POOL_REMOVE, pool),
    SET(VOLUME_LIST, page),
    SET(VOLUME_CREATE, volume_create),
    SET(VOLUME_SHOW, volume),
    SET(VOLUME_RESIZE, volume_resize),
    SET(VOLUME_DELETE, volume),
    SET(VOLUME_RELEASE, volume),
    SET(VOLUME_MAP, volume_map),
    SET(VOLUME_STATS, volume),
    SET(VOLUME_BENCH, volume_bench),
    SET(EXPORT_LIST, page),
    SET(EXPORT_SHOW, volume),
    SET(EXPORT_SET, export_set),
    SET(JOB_LIST, page),
    SET(JOB_SHOW, job),
    SET(JOB_CANCEL, job),
    SET(EVENT_LIST, event_list),
    SET(METADATA_BACKUP, metadata_backup),
#undef SET
};

static const struct {
	const char *name, *method, *path;
	bool while_refused;
} verbs[ADMIN_VERBS_N] = {
#define X(verb, method_, path_, refused) {#verb, #method_, path_, refused},
    ADMIN_VERBS(X)
#undef X
};

struct admin_verb_info admin_verb(enum admin_verb verb)
{
	check(verb < ADMIN_VERBS_N);
	return (struct admin_verb_info){
	    .name = verbs[verb].name,
	    .method = verbs[verb].method,
	    .path = verbs[verb].path,
	    .while_refused = verbs[verb].while_refused,
	    .params = params[verb].list,
	    .params_n = params[verb].n,
	};
}

const struct admin_param *admin_param(enum admin_verb verb, const char *name)
{
	check(verb < ADMIN_VERBS_N);
	for (uint32_t i = 0; i < params[verb].n; i++)
		if (!strcmp(params[verb].list[i].name, name))
			return &params[verb].list[i];
	return NULL;
}

static const struct {
	const char *word;
	int status;
} codes[ADMIN_CODES_N] = {{"ok", 200},
#define X(code, word_, status_) {#word_, status_},
			  ADMIN_CODES(X)
#undef X
};

const char *admin_code_word(enum admin_code code)
{
	check(code < ADMIN_CODES_N);
	return codes[code].word;
}

int admin_code_status(enum admin_code code)
{
	check(code < ADMIN_CODES_N);
	return codes[code].status;
}
