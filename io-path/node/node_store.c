/* SPDX-License-Identifier: Apache-2.0 */
#include "io-path/node/node_store.h"

#include "src/base/mem.h"

#define WAIT_NS 60000000000ULL

static void submit(struct chunk_store *store, struct chunk_req *r);
static bool route(struct node_store *s, struct chunk_req *r);
static void wait_begin(struct node_store *s, struct chunk_req *r);
static void refused_first(struct node_store *s, device_no no);
static int expired_status(const struct node_store *s, const struct chunk_req *r);
static void timer_set(struct node_store *s);
static void timer_done(struct ioe_req *r);
static void expire(struct node_store *s, uint64_t now_ns);
static bool is_stable(struct chunk_store *store, device_no dev);
static bool is_local(struct chunk_store *store, device_no dev);

/* what a waiting request keeps in its own struct */
static uint64_t *deadline_of(struct chunk_req *r)
{
	return &r->priv[0];
}

static struct node_store *of(struct chunk_store *store)
{
	return container_of(store, struct node_store, store);
}

int node_store_init(struct node_store *s, struct ioe *e, uint64_t wait_ns)
{
	*s = (struct node_store){
	    .store = {.submit = submit, .is_stable = is_stable, .is_local = is_local},
	    .ioe = e,
	    .wait_ns = wait_ns ? wait_ns : WAIT_NS,
	};
	list_init(&s->waiting);
	s->local = mem_zalloc_array(DEVICES_MAX + 1, sizeof(*s->local));
	return s->local ? 0 : -ENOMEM;
}

void node_store_free(struct node_store *s)
{
	check(list_empty(&s->waiting) && !s->timing);
	mem_free(s->local);
	s->local = NULL;
}

static void submit(struct chunk_store *store, struct chunk_req *r)
{
	struct node_store *s = of(store);

	if (!route(s, r))
		wait_begin(s, r);
}

static bool route(struct node_store *s, struct chunk_req *r)
{
	struct node_store_local *l = &s->local[r->dev];

	if (l->dev)
		device_submit(l->dev, r);
	else if (s->remote && s->remote->knows(s->remote, r->dev))
		s->remote->submit(s->remote, r);
	else
		return false;
	return true;
}

static bool is_stable(struct chunk_store *store, device_no dev)
{
	struct node_store *s = of(store);

	if (s->local[dev].dev)
		return s->local[dev].is_stable;
	return s->remote && s->remote->knows(s->remote, dev) && s->remote->is_stable(s->remote, dev);
}

static bool is_local(struct chunk_store *store, device_no dev)
{
	return of(store)->local[dev].dev != NULL;
}

/* ---- waiting -------------------------------------------------------------------------------------------------------------- */

static void wait_begin(struct node_store *s, struct chunk_req *r)
{
	*deadline_of(r) = ioe_now_ns(s->ioe) + (s->giving_up ? 0 : s->wait_ns);
	list_push(&s->waiting, &r->link);
	s->waiting_n++;
	if (s->local[r->dev].refused || s->local[r->dev].left)
		refused_first(s, r->dev);
	else if (!s->timing)
		timer_set(s);
}

/* There is nothing to wait for: they are due now. */
static void refused_first(struct node_store *s, device_no no)
{
	bool any = false;

	list_for_each_safe (l, next, &s->waiting) {
		struct chunk_req *r = list_entry(l, struct chunk_req, link);

		if (r->dev != no || *deadline_of(r) == 0)
			continue;
		any = true;
		*deadline_of(r) = 0;
		list_del(l);
		list_push_front(&s->waiting, l);
	}
	if (any && s->timing)
		ioe_cancel(s->ioe, &s->timer);
	else if (any)
		timer_set(s);
}

/* All wait equally long, so the first is the next to give up; in the end everybody is due. */
static void timer_set(struct node_store *s)
{
	struct chunk_req *first = list_first(&s->waiting, struct chunk_req, link);

	s->timing = true;
	ioe_timer(s->ioe, &s->timer, s->giving_up ? 0 : *deadline_of(first), timer_done);
}

static void timer_done(struct ioe_req *r)
{
	struct node_store *s = container_of(r, struct node_store, timer);

	s->timing = false;
	expire(s, s->giving_up ? UINT64_MAX : ioe_now_ns(s->ioe));
	if (s->timing)
		return;
	if (!list_empty(&s->waiting)) {
		timer_set(s);
	} else if (s->closed) {
		void (*closed)(void *arg) = s->closed;

		s->closed = NULL;
		closed(s->closed_arg);
	}
}

static void expire(struct node_store *s, uint64_t now_ns)
{
	struct list due;
	struct list *n;

	list_init(&due);
	while (!list_empty(&s->waiting)) {
		struct chunk_req *r = list_first(&s->waiting, struct chunk_req, link);

		if (*deadline_of(r) > now_ns)
			break;
		list_del(&r->link);
		list_push(&due, &r->link);
		s->waiting_n--;
	}
	while ((n = list_pop(&due))) {
		struct chunk_req *r = list_entry(n, struct chunk_req, link);

		r->status = expired_status(s, r);
		r->done(r);
	}
}

/* A device that left takes along what it held: whoever asks for that has an old map. */
static int expired_status(const struct node_store *s, const struct chunk_req *r)
{
	if (!s->local[r->dev].left || s->giving_up)
		return -E_DEVICE_GONE;
	if (r->op == CHUNK_FLUSH)
		return r->incarnation ? -E_UNFLUSHED_LOST : 0;
	return -E_STALE_CGEN;
}

void node_store_retry(struct node_store *s)
{
	struct list all;
	struct list *n;

	list_init(&all);
	list_splice(&all, &s->waiting);
	while ((n = list_pop(&all))) {
		struct chunk_req *r = list_entry(n, struct chunk_req, link);
		uint64_t deadline_ns = *deadline_of(r);

		s->waiting_n--;
		if (route(s, r))
			continue;
		*deadline_of(r) = deadline_ns;
		list_push(&s->waiting, &r->link);
		s->waiting_n++;
	}
}

/* The timer stays: it finds the next to give up, or none. */
bool node_store_take_back(struct node_store *s, struct chunk_req *r)
{
	list_for_each (l, &s->waiting) {
		if (list_entry(l, struct chunk_req, link) != r)
			continue;
		list_del(l);
		s->waiting_n--;
		return true;
	}
	return false;
}

void node_store_serve(struct node_store *s, device_no no, struct device *dev)
{
	struct device_info info;

	device_info(dev, &info);
	s->local[no] = (struct node_store_local){.dev = dev, .is_stable = !info.has_volatile_cache};
	node_store_retry(s);
}

void node_store_withdraw(struct node_store *s, device_no no)
{
	s->local[no] = (struct node_store_local){.left = s->local[no].left};
}

void node_store_refuse(struct node_store *s, device_no no)
{
	s->local[no] = (struct node_store_local){.refused = true, .left = s->local[no].left};
	refused_first(s, no);
}

void node_store_left(struct node_store *s, device_no no)
{
	s->local[no].left = true;
	refused_first(s, no);
}

void node_store_set_remote(struct node_store *s, struct node_remote *remote)
{
	s->remote = remote;
	node_store_retry(s);
}

void node_store_give_up(struct node_store *s)
{
	s->giving_up = true;
	if (s->timing)
		ioe_cancel(s->ioe, &s->timer);
}

void node_store_close(struct node_store *s, void (*done)(void *arg), void *arg)
{
	check(!s->closing);
	s->closing = true;
	s->closed = done;
	s->closed_arg = arg;
	node_store_give_up(s);
	if (!s->timing)
		timer_set(s);
}
