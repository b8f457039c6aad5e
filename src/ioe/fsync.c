/* SPDX-License-Identifier: Apache-2.0 */
/* fsync.c - what an IOE_FSYNC says about its file.
 *
 * The kernel remembers an error of writing back until somebody asks, and tells it once. Of two fsyncs under way at the same time one hears
 * of it and the other may say success, about the same lost writes; and whoever asks again is told that all is well. So the engine has one
 * of a file at a time, and after one that failed none succeeds. A failure that ioe_file_resize() or ioe_file_reserve() met counts too.
 *
 * Those that wait look to an engine's cancel like what it has queued and not begun: stage 0, and no private data. */
#include "src/ioe/engine.h"

void fsync_submit(struct ioe *e, struct ioe_req *r)
{
	struct ioe_file *f = r->file;

	r->stage = 0;
	r->priv[REQ_PRIV_ENGINE] = 0;
	if (f->fsync_error) {
		engine_complete(e, r, f->fsync_error);
	} else if (f->fsync) {
		list_push(&f->fsyncs, &r->link);
	} else {
		f->fsync = r;
		e->ops->submit(e, r);
	}
}

int fsync_status(struct ioe_file *f, int status)
{
	if (status && status != -ECANCELED && !f->fsync_error)
		f->fsync_error = status;
	return status ? status : f->fsync_error;
}

void fsync_completed(struct ioe *e, struct ioe_req *r)
{
	struct ioe_file *f = r->file;
	struct list *l;

	if (r == f->fsync)
		f->fsync = NULL;
	while (!f->fsync && (l = list_pop(&f->fsyncs)))
		fsync_submit(e, list_entry(l, struct ioe_req, link));
}
