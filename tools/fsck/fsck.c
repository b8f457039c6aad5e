/* SPDX-License-Identifier: Apache-2.0 */
/* fsck.c - the order of the check, and how findings are told. */
#include "tools/fsck/fsck.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "src/base/mem.h"
#include "tools/fsck/check.h"

#define LOCK_RETRY_NS ((uint64_t)50 * 1000 * 1000)
#define LOCK_WAIT_NS  ((uint64_t)10 * 1000 * 1000 * 1000)

static int check_raw(struct fsck *k);
static int open_raw(struct fsck *k);

int fsck_device(const struct fsck_options *o, struct fsck_result *ret_result, char *errmsg)
{
	struct fsck k = {.o = o, .res = ret_result, .ioe = o->ioe, .errmsg = errmsg};
	int r;

	*ret_result = (struct fsck_result){0};
	errmsg[0] = '\0';
	k.io = mem_alloc_aligned(FMT_PAGE, FSCK_IO_BYTES);
	r = k.io ? check_raw(&k) : fsck_error(&k, -ENOMEM, "no memory");
	if (!r && !k.stop)
		r = fsck_opened(&k);
	mem_free(k.ring);
	mem_free(k.slots);
	mem_free(k.tables);
	mem_free(k.pages);
	mem_free(k.io);
	return r;
}

static int check_raw(struct fsck *k)
{
	static int (*const steps[])(
	    struct fsck * k) = {fsck_superblocks,   fsck_journal_scan,	   fsck_slot_pages,
				fsck_journal_apply, fsck_slot_pages_judge, fsck_registry,
				fsck_tables};
	int r = open_raw(k);

	if (r)
		return r;
	for (size_t i = 0; i < ARRAY_LEN(steps) && !r && !k->stop; i++)
		r = steps[i](k);
	ioe_file_close(k->ioe, k->file); /* opening it for inspection takes the lock again */
	k->file = NULL;
	/* the slots are compared with the opened device; the rest has said what it had to say */
	mem_free(k->ring);
	mem_free(k->tables);
	mem_free(k->pages);
	k->ring = NULL;
	k->tables = NULL;
	k->pages = NULL;
	return r;
}

/* ---- the file ------------------------------------------------------------------------------------------------------------- */

static void on_slept(struct ioe_req *r)
{
	r->got = 1;
}

static void sleep_ns(struct fsck *k, uint64_t ns)
{
	struct ioe_req r = {0};

	ioe_timer(k->ioe, &r, ioe_now_ns(k->ioe) + ns, on_slept);
	while (!r.got)
		ioe_poll(k->ioe, UINT64_MAX);
}

static int open_raw(struct fsck *k)
{
	uint64_t wait_ns = k->o->lock_wait_ns ? k->o->lock_wait_ns : LOCK_WAIT_NS;
	uint64_t end_ns = ioe_now_ns(k->ioe) + wait_ns;
	struct ioe_file_info info;
	int r;

	while ((r = ioe_file_open(k->ioe, k->o->path, IOE_OPEN_RDONLY | IOE_OPEN_LOCK, &k->file,
				  k->errmsg)) == -E_IN_USE &&
	       ioe_now_ns(k->ioe) < end_ns)
		sleep_ns(k, LOCK_RETRY_NS);
	if (r)
		return r;
	ioe_file_info(k->file, &info);
	k->file_bytes = info.size_bytes;
	return 0;
}

struct reading {
	struct ioe_req r;
	bool done;
};

static void on_read(struct ioe_req *r)
{
	container_of(r, struct reading, r)->done = true;
}

int fsck_read(struct fsck *k, uint64_t off, void *buf, uint64_t len)
{
	struct reading rd = {0};

	ioe_read(k->ioe, &rd.r, k->file, off, buf, len, on_read);
	while (!rd.done)
		ioe_poll(k->ioe, UINT64_MAX);
	return rd.r.status;
}

/* ---- findings --------------------------------------------------------------------------------------------------------------- */

static void say(struct fsck *k, const struct fsck_finding *f)
{
	uint32_t *const counts[] = {&k->res->notes, &k->res->warnings, &k->res->errors};

	(*counts[f->severity])++;
	if (k->o->found)
		k->o->found(k->o->found_arg, f);
}

void fsck_say(struct fsck *k, enum fsck_severity severity, const char *what, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	say(k, &(struct fsck_finding){.severity = severity, .what = what, .text = text});
}

void fsck_say_slot(struct fsck *k, enum fsck_severity severity, const char *what, uint32_t slot,
		   const char *fmt, ...)
{
	uint64_t number = slot;
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	say(k, &(struct fsck_finding){
		   .severity = severity, .what = what, .text = text, .slot = &number});
}

int fsck_error(struct fsck *k, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(k->errmsg, ERRMSG_LEN, fmt, ap);
	va_end(ap);
	return err;
}
