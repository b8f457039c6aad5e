/* SPDX-License-Identifier: Apache-2.0 */
/* workers.c - `queue`, `queued`, `idle` and `quit` belong to the lock; the rest to the loop's thread. */
#include "src/ioe/workers.h"

#include <pthread.h>
#include <signal.h>

#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/ioe/engine.h"

struct workers {
	struct ioe *e;
	void (*run)(struct ioe_req *r);
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct list queue;
	uint32_t queued, idle;
	bool quit;
	uint32_t threads, threads_max;
	pthread_t ids[];
};

static void *worker_main(void *arg);
static void worker_finish(struct ioe_msg *m);

int workers_new(struct ioe *e, uint32_t threads_max, void (*run)(struct ioe_req *r),
		struct workers **ret_w)
{
	struct workers *w = mem_zalloc(sizeof(*w) + threads_max * sizeof(w->ids[0]));

	if (!w)
		return -ENOMEM;
	w->e = e;
	w->run = run;
	w->threads_max = threads_max;
	list_init(&w->queue);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);
	*ret_w = w;
	return 0;
}

void workers_free(struct workers *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	check(list_empty(&w->queue));
	w->quit = true;
	pthread_cond_broadcast(&w->more);
	pthread_mutex_unlock(&w->lock);
	for (uint32_t i = 0; i < w->threads; i++)
		pthread_join(w->ids[i], NULL);
	pthread_cond_destroy(&w->more);
	pthread_mutex_destroy(&w->lock);
	mem_free(w);
}

/* Signals stay with the threads of the program: a worker inherits a mask with all of them blocked. */
static int thread_start(struct workers *w)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&w->ids[w->threads], NULL, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return -r;
	pthread_setname_np(w->ids[w->threads], "ioe-worker");
	w->threads++;
	return 0;
}

void workers_add(struct workers *w, struct ioe_req *r)
{
	bool want_thread;
	int err = 0;

	r->work.pool = w;
	r->work.msg.fn = worker_finish;
	pthread_mutex_lock(&w->lock);
	list_push(&w->queue, &r->link);
	w->queued++;
	want_thread = w->queued > w->idle;
	pthread_cond_signal(&w->more);
	pthread_mutex_unlock(&w->lock);
	if (want_thread && w->threads < w->threads_max)
		err = thread_start(w);
	if (!err)
		return;
	log_limited(LOG_WARN, ioe_now_ns(w->e), "cannot start a worker thread", "have=%u error=%s",
		    w->threads, err_name(err));
	if (w->threads == 0 && workers_take_back(w, r))
		engine_complete(w->e, r, err);
}

bool workers_take_back(struct workers *w, struct ioe_req *r)
{
	bool mine;

	pthread_mutex_lock(&w->lock);
	mine = !list_empty(&r->link); /* a running one is in no list */
	if (mine) {
		list_del(&r->link);
		w->queued--;
	}
	pthread_mutex_unlock(&w->lock);
	return mine;
}

static void *worker_main(void *arg)
{
	struct workers *w = arg;

	pthread_mutex_lock(&w->lock);
	while (!w->quit) {
		struct list *l = list_pop(&w->queue);
		struct ioe_req *r;

		if (!l) {
			w->idle++;
			pthread_cond_wait(&w->more, &w->lock);
			w->idle--;
			continue;
		}
		w->queued--;
		pthread_mutex_unlock(&w->lock);
		r = list_entry(l, struct ioe_req, link);
		w->run(r);
		ioe_post(w->e, &r->work.msg); /* from here on r is the loop's */
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void worker_finish(struct ioe_msg *m)
{
	struct ioe_req *r = container_of(m, struct ioe_req, work.msg);

	engine_complete(r->work.pool->e, r, r->op == IOE_WORK ? 0 : r->status);
}
