/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/node/meta_client.h"

#include "src/base/check.h"
#include "src/base/log.h"

#include "io-path/node/meta_messages.h"

/* What the client keeps in a request while it has it. */
struct call {
	struct conn_call call;
	struct meta_client *m;
	const struct meta_message *kind;
	uint64_t deadline_ns; /* 0: none */
	bool sent;	      /* under way in this session */
	bool ever_sent;
};
static_assert(sizeof(struct call) <= sizeof(((struct meta_req *)0)->priv), "fits");

static void begin(struct meta *meta, struct meta_req *r, const struct meta_message *kind);
static void call_send(struct meta_client *m, struct meta_req *r);
static int answered(struct conn_call *call, int status, const struct frame *f, const void *body,
		    void **ret_data);
static int answer(struct meta_client *m, struct meta_req *r, const struct frame *f,
		  const void *body);
static void timer_consider(struct meta_client *m, uint64_t at_ns);
static void timer_done(struct ioe_req *req);
static void expire(struct meta_client *m, uint64_t now_ns);
static void fail_later(struct meta_client *m, struct meta_req *r, int status);
static void fail_now(struct ioe_hook *h);

static struct call *call_of(struct meta_req *r)
{
	return (struct call *)r->priv;
}

static struct meta_req *req_of(struct conn_call *call)
{
	return (struct meta_req *)((char *)call - offsetof(struct meta_req, priv));
}

#define OP(name)                                                        \
	static void op_##name(struct meta *meta, struct meta_##name *r) \
	{                                                               \
		begin(meta, &r->req, &meta_message_##name);             \
	}
OP(open)
OP(close)
OP(map)
OP(alloc)
OP(update)
OP(names)
#undef OP

static const struct meta_ops ops = {op_open, op_close, op_map, op_alloc, op_update, op_names};

void meta_client_init(struct meta_client *m, struct control *c)
{
	*m = (struct meta_client){.meta = {.ops = &ops}, .control = c};
	list_init(&m->calls);
	list_init(&m->failing);
	ioe_hook_init(&m->hook, fail_now);
}

/* ---- a call ------------------------------------------------------------------------------------------------------------------------ */

static void begin(struct meta *meta, struct meta_req *r, const struct meta_message *kind)
{
	struct meta_client *m = container_of(meta, struct meta_client, meta);
	struct call *k = call_of(r);

	*k = (struct call){.m = m, .kind = kind};
	r->status = 0;
	r->errmsg[0] = '\0';
	m->calls_n++;
	list_push(&m->calls, &r->link);
	if (m->closing) {
		fail_later(m, r, -E_META_AWAY);
		return;
	}
	if (r->timeout_ns) {
		k->deadline_ns = ioe_now_ns(m->control->cfg.ioe) + r->timeout_ns;
		timer_consider(m, k->deadline_ns);
	}
	if (control_is_joined(m->control))
		call_send(m, r);
}

static void call_send(struct meta_client *m, struct meta_req *r)
{
	struct conn *conn = &m->control->dialer.conn;
	struct call *k = call_of(r);
	uint64_t id = conn_call_begin(conn, &k->call, answered);
	int status = k->kind->send(r, conn, id);

	k->sent = k->ever_sent = true;
	m->sent_n++;
	if (status != -ENOMEM || !conn_is_up(conn))
		return; /* under way, or the connection broke and it will be sent again */
	conn_call_forget(conn, &k->call);
	k->sent = false;
	fail_later(m, r, status);
}

void meta_client_joined(struct meta_client *m)
{
	list_for_each_safe (l, next, &m->calls) {
		struct meta_req *r = list_entry(l, struct meta_req, link);

		if (!control_is_joined(m->control))
			return;
		if (!call_of(r)->sent)
			call_send(m, r);
	}
}

static int answered(struct conn_call *call, int status, const struct frame *f, const void *body,
		    void **ret_data)
{
	struct meta_req *r = req_of(call);
	struct call *k = call_of(r);

	(void)ret_data;
	check(k->sent);
	k->sent = false;
	if (status)
		return 0; /* the connection is lost: it goes out again with the next one */
	return answer(k->m, r, f, body);
}

static int answer(struct meta_client *m, struct meta_req *r, const struct frame *f, const void *body)
{
	const struct meta_message *kind = call_of(r)->kind;
	ProtobufCMessage *msg;
	uint64_t commit = 0;
	int status;

	status = f->type == kind->type ? control_unpack(f->type, true, body, f->body_bytes, &msg)
				       : -E_PROTOCOL;
	if (status)
		return status; /* breaks the connection; r is asked again */
	status = kind->answer(r, msg, &commit);
	control_free(msg);
	if (status == -ESHUTDOWN) /* the server is ending: the next one will answer */
		return 0;
	control_heard(m->control, commit);
	list_del(&r->link);
	r->status = status;
	r->done(r);
	return 0;
}

void meta_client_volume_changed(struct meta_client *m, const Strata__VolumeChanged *msg)
{
	struct meta_news news = {
	    .volume = msg->volume,
	    .epoch = msg->epoch,
	    .status = err_by_name(msg->error),
	    .size_bytes = msg->size_bytes,
	    .one_opener = msg->one_opener,
	};

	if (m->meta.on_volume)
		m->meta.on_volume(m->meta.on_volume_arg, &news);
}

/* ---- patience ----------------------------------------------------------------------------------------------------------------------- */

/* One timer, for the earliest deadline. */
static void timer_consider(struct meta_client *m, uint64_t at_ns)
{
	if (m->timing && m->timer_at_ns <= at_ns)
		return;
	m->timer_at_ns = at_ns;
	if (m->timing) {
		ioe_cancel(m->control->cfg.ioe, &m->timer); /* set again when it is back */
		return;
	}
	m->timing = true;
	ioe_timer(m->control->cfg.ioe, &m->timer, at_ns, timer_done);
}

static void timer_done(struct ioe_req *req)
{
	struct meta_client *m = container_of(req, struct meta_client, timer);
	uint64_t next_ns = UINT64_MAX;

	m->timing = false;
	if (m->closed) {
		m->closed(m->closed_arg);
		return;
	}
	expire(m, ioe_now_ns(m->control->cfg.ioe));
	list_for_each (l, &m->calls) {
		uint64_t at_ns = call_of(list_entry(l, struct meta_req, link))->deadline_ns;

		if (at_ns && at_ns < next_ns)
			next_ns = at_ns;
	}
	if (next_ns != UINT64_MAX)
		timer_consider(m, next_ns);
}

static void forget(struct meta_client *m, struct meta_req *r)
{
	struct call *k = call_of(r);

	if (k->sent)
		conn_call_forget(&m->control->dialer.conn, &k->call);
	k->sent = false;
}

static void expire(struct meta_client *m, uint64_t now_ns)
{
	list_for_each_safe (l, next, &m->calls) {
		struct meta_req *r = list_entry(l, struct meta_req, link);
		struct call *k = call_of(r);

		if (!k->deadline_ns || k->deadline_ns > now_ns)
			continue;
		if (k->ever_sent && r->hears_out) {
			k->deadline_ns = 0;
			continue;
		}
		forget(m, r);
		m->timeouts_n++;
		fail_later(m, r, -E_META_AWAY);
	}
}

static void fail_later(struct meta_client *m, struct meta_req *r, int status)
{
	r->status = status;
	list_del(&r->link);
	list_push(&m->failing, &r->link);
	ioe_hook_arm(m->control->cfg.ioe, &m->hook);
}

static void fail_now(struct ioe_hook *h)
{
	struct meta_client *m = container_of(h, struct meta_client, hook);
	struct list batch;
	struct list *l;

	list_init(&batch);
	list_splice(&batch, &m->failing);
	while ((l = list_pop(&batch))) {
		struct meta_req *r = list_entry(l, struct meta_req, link);

		meta_message_error(r, r->status, "");
		r->done(r);
	}
}

/* ---- ending -------------------------------------------------------------------------------------------------------------------------- */

void meta_client_give_up(struct meta_client *m)
{
	m->closing = true;
	list_for_each_safe (l, next, &m->calls) {
		struct meta_req *r = list_entry(l, struct meta_req, link);

		forget(m, r);
		fail_later(m, r, -E_META_AWAY);
	}
}

void meta_client_close(struct meta_client *m, void (*done)(void *arg), void *arg)
{
	struct ioe *e = m->control->cfg.ioe;

	check(list_empty(&m->calls) && list_empty(&m->failing) && !m->closed);
	m->closing = true;
	m->closed = done;
	m->closed_arg = arg;
	if (m->timing) {
		ioe_cancel(e, &m->timer);
		return;
	}
	m->timing = true; /* not inline */
	ioe_nop(e, &m->timer, timer_done);
}
