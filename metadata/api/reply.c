/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/api/reply.h"

#include <string.h>

#include "metadata/api/text.h"
#include "src/base/mem.h"

static int dump_part(const char *part, size_t len, void *arg)
{
	struct text *t = arg;

	text_add(t, part, len);
	return t->failed ? -1 : 0;
}

static void reply_json(struct reply *ret_r, int status, const json_t *json)
{
	struct text t = {0};

	memset(ret_r, 0, sizeof(*ret_r));
	ret_r->status = status;
	ret_r->type = "application/json";
	if (!json || json_dump_callback(json, dump_part, &t, JSON_COMPACT))
		t.failed = true;
	text_adds(&t, "\n");
	ret_r->body = text_take(&t, &ret_r->len);
}

void reply_from_error(struct reply *ret_r, const struct admin_error *e)
{
	json_t *json = admin_error_json(e);

	reply_json(ret_r, admin_code_status(e->code), json);
	json_decref(json);
}

void reply_error(struct reply *ret_r, enum admin_code code, const char *hint, const char *message)
{
	struct admin_error e;

	admin_error_set(&e, code, hint, "%s", message);
	reply_from_error(ret_r, &e);
}

void reply_from_req(struct reply *ret_r, const struct admin_req *req)
{
	if (req->error.code != ADMIN_OK) {
		reply_from_error(ret_r, &req->error);
	} else if (req->text) {
		memset(ret_r, 0, sizeof(*ret_r));
		ret_r->status = req->status;
		ret_r->type = "text/plain; version=0.0.4; charset=utf-8";
		ret_r->body = mem_strdup(req->text);
		ret_r->len = strlen(req->text);
	} else {
		reply_json(ret_r, req->status, req->answer);
	}
}

void reply_copy(struct reply *ret_r, const struct reply *from)
{
	*ret_r = *from;
	if (from->body)
		ret_r->body = mem_strndup(from->body, from->len);
}

void reply_free(struct reply *r)
{
	mem_free(r->body);
	r->body = NULL;
}
