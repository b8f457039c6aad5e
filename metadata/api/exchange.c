/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c - a request on the loop: the key first, then the executor, then the answer to whoever waits for it. */
#include "metadata/api/exchange.h"

#include <string.h>

#include "src/base/mem.h"

static bool exchange_key(struct exchange *x);
static void exchange_submit(struct exchange *x);
static void exchange_done(struct admin_req *r);
static void exchange_answer(struct exchange *x);

static void answer_error(struct exchange *x, enum admin_code code, const char *hint,
			 const char *message)
{
	reply_error(&x->reply, code, hint, message);
	exchange_answer(x);
}

void exchange_arrive(struct ioe_msg *m)
{
	struct exchange *x = container_of(m, struct exchange, msg);

	if (!x->key[0] || exchange_key(x))
		exchange_submit(x);
}

/* True: the first with its key. */
static bool exchange_key(struct exchange *x)
{
	switch (idem_ask(&x->http->idem, x->key, x->request, &x->entry)) {
	case IDEM_FIRST:
		return true;
	case IDEM_RUNNING:
		list_push(&x->entry->waiting, &x->waiting);
		return false;
	case IDEM_ANSWERED:
		reply_copy(&x->reply, &x->entry->reply);
		exchange_answer(x);
		return false;
	case IDEM_REUSED:
		answer_error(x, ADMIN_E_KEY_REUSED, "Use a new key for a new request.",
			     "this Idempotency-Key was used for another request");
		return false;
	case IDEM_FULL:
		answer_error(x, ADMIN_E_BUSY, "Try again in a moment.",
			     "too many requests with an Idempotency-Key are under way");
		return false;
	}
	check_unreachable("idem_ask");
}

static void exchange_submit(struct exchange *x)
{
	x->req = (struct admin_req){
	    .verb = x->route.verb,
	    .subject = x->route.subject,
	    .args = x->route.args,
	    .key = x->key[0] ? x->key : NULL,
	    .request = x->request,
	    .done = exchange_done,
	};
	x->http->cfg.submit(x->http->cfg.submit_arg, &x->req);
}

static void exchange_done(struct admin_req *r)
{
	struct exchange *x = container_of(r, struct exchange, req), *other;
	struct list waiting;

	reply_from_req(&x->reply, r);
	json_decref(r->answer);
	mem_free(r->text);
	list_init(&waiting);
	if (x->entry) {
		list_splice(&waiting, &x->entry->waiting);
		idem_settle(&x->http->idem, x->entry, &x->reply);
	}
	while (!list_empty(&waiting)) {
		other = list_first(&waiting, struct exchange, waiting);
		list_del(&other->waiting);
		reply_copy(&other->reply, &x->reply);
		exchange_answer(other);
	}
	exchange_answer(x);
}

/* Back to the HTTP thread: x is not ours after that. */
static void exchange_answer(struct exchange *x)
{
	struct http *h = x->http;
	struct MHD_Connection *conn = x->conn;

	x->answered = true;
	pthread_mutex_lock(&h->gate.lock);
	check(h->gate.waiting > 0);
	h->gate.waiting--;
	pthread_mutex_unlock(&h->gate.lock);
	MHD_resume_connection(conn);
	if (h->overdue)
		http_all_answered(h);
}
