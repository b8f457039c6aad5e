/* SPDX-License-Identifier: Apache-2.0 */
/* admin.c - how a request ends, and how its arguments are read. */
#include "metadata/api/admin.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "metadata/api/text.h"
#include "src/base/check.h"

/* ---- ends -------------------------------------------------------------------------------------------------------------------------- */

void admin_error_set(struct admin_error *e, enum admin_code code, const char *hint, const char *fmt,
		     ...)
{
	va_list ap;

	va_start(ap, fmt);
	admin_error_vset(e, code, hint, fmt, ap);
	va_end(ap);
}

void admin_error_vset(struct admin_error *e, enum admin_code code, const char *hint,
		      const char *fmt, va_list ap)
{
	check(code > ADMIN_OK && code < ADMIN_CODES_N);
	e->code = code;
	vsnprintf(e->message, sizeof(e->message), fmt, ap);
	snprintf(e->hint, sizeof(e->hint), "%s", hint);
	text_clean(e->message);
	text_clean(e->hint);
}

json_t *admin_error_json(const struct admin_error *e)
{
	return json_pack("{s:s, s:s, s:s}", "code", admin_code_word(e->code), "message", e->message,
			 "hint", e->hint);
}

static void end_short_of_memory(struct admin_req *r)
{
	admin_fail(r, ADMIN_E_INTERNAL, "Try again later.",
		   "the metadata server is short of memory");
}

void admin_answer(struct admin_req *r, int status, json_t *answer)
{
	check(status >= 200 && status < 300 && !r->answer && !r->text);
	if (!answer) {
		end_short_of_memory(r);
		return;
	}
	r->status = status;
	r->answer = answer;
	r->done(r);
}

void admin_answer_text(struct admin_req *r, char *text)
{
	check(!r->answer && !r->text);
	if (!text) {
		end_short_of_memory(r);
		return;
	}
	r->status = 200;
	r->text = text;
	r->done(r);
}

void admin_fail(struct admin_req *r, enum admin_code code, const char *hint, const char *fmt, ...)
{
	va_list ap;

	check(!r->answer && !r->text);
	va_start(ap, fmt);
	admin_error_vset(&r->error, code, hint, fmt, ap);
	va_end(ap);
	r->status = admin_code_status(code);
	r->done(r);
}

enum admin_code admin_code_of(int err)
{
	switch (err) {
	case 0:
		return ADMIN_OK;
	case -EINVAL:
	case -ERANGE:
	case -EDOM:
	case -E2BIG:
	case -ENAMETOOLONG:
	case -ENOTBLK:
	case -EISDIR:
	case -ENOTDIR:
		return ADMIN_E_INVALID;
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		return ADMIN_E_NOT_FOUND;
	case -EEXIST:
		return ADMIN_E_EXISTS;
	case -EBUSY:
	case -ENOTEMPTY:
	case -E_IN_USE:
	case -E_NOT_OWNER:
		return ADMIN_E_IN_USE;
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		return ADMIN_E_NO_SPACE;
	case -EROFS:
	case -E_FROZEN:
		return ADMIN_E_READ_ONLY;
	case -EACCES:
	case -EPERM:
		return ADMIN_E_INVALID; /* what the daemon may not open, not who asks */
	case -EOPNOTSUPP:
	case -ENOSYS:
	case -E_VERSION:
		return ADMIN_E_NOT_SUPPORTED;
	case -ENOTCONN:
	case -ECONNRESET:
	case -ECONNREFUSED:
	case -EPIPE:
	case -EHOSTUNREACH:
		return ADMIN_E_NODE_AWAY;
	case -E_DEVICE_GONE:
	case -E_DEVICE_FAILED:
		return ADMIN_E_DEVICE_AWAY;
	case -E_META_AWAY:
		return ADMIN_E_METADATA_AWAY;
	case -E_FOREIGN:
		return ADMIN_E_FOREIGN;
	case -E_WENT_BACK:
		return ADMIN_E_REFUSED;
	case -EAGAIN:
	case -E_GUARD:
		return ADMIN_E_BUSY;
	case -ETIMEDOUT:
		return ADMIN_E_TIMEOUT;
	case -ESHUTDOWN:
	case -ECANCELED:
		return ADMIN_E_STOPPING;
	default:
		return ADMIN_E_INTERNAL;
	}
}

/* ---- arguments -------------------------------------------------------------------------------------------------------------------- */

static json_t *arg_of(const struct admin_req *r, const char *name, unsigned types)
{
	const struct admin_param *p = admin_param(r->verb, name);

	check(p && (types & 1u << p->type));
	return json_object_get(r->args, name);
}

bool admin_has(const struct admin_req *r, const char *name)
{
	return arg_of(r, name, ~0u) != NULL;
}

const char *admin_text(const struct admin_req *r, const char *name)
{
	return json_string_value(arg_of(r, name,
					1u << ADMIN_TEXT | 1u << ADMIN_NAME | 1u << ADMIN_ABS_PATH |
					    1u << ADMIN_NUMBER_NAME));
}

int64_t admin_int(const struct admin_req *r, const char *name)
{
	return json_integer_value(arg_of(r, name, 1u << ADMIN_INT | 1u << ADMIN_NUMBER_NAME));
}

bool admin_bool(const struct admin_req *r, const char *name)
{
	return json_is_true(arg_of(r, name, 1u << ADMIN_BOOL));
}
