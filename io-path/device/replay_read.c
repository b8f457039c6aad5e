/* SPDX-License-Identifier: Apache-2.0 */
/* replay_read.c - reads of metadata that do not give up at once.
 *
 *   the whole stretch* -> (an error) -> page by page*, each a few times -> done
 *
 * A disk that stumbles once must not cost a device its service, and one bad sector not the pages beside it. A page that stays unreadable is all
 * zeros for who reads it, and marked: no kind of page is valid as zeros. */
#include "io-path/device/dev.h"
#include "io-path/device/replay.h"

enum { PAGE_TRIES = 3 };

static void read_whole_done(struct ioe_req *io);
static void read_page(struct replay *rp);
static void read_page_done(struct ioe_req *io);

void replay_read(struct replay *rp, const struct replay_span *span, void (*done)(struct replay *rp))
{
	check(span->pages_n > 0 && span->pages_n <= REPLAY_BUF_PAGES);
	rp->read = (struct replay_reading){.span = *span, .done = done};
	ioe_read(rp->dev->ioe, &rp->io, rp->dev->file, span->offset, span->buf,
		 (uint64_t)span->pages_n * FMT_PAGE, read_whole_done);
}

static void read_whole_done(struct ioe_req *io)
{
	struct replay *rp = container_of(io, struct replay, io);

	if (io->status)
		read_page(rp);
	else
		rp->read.done(rp);
}

static void read_page(struct replay *rp)
{
	const struct replay_reading *rd = &rp->read;

	ioe_read(rp->dev->ioe, &rp->io, rp->dev->file, rd->span.offset + (uint64_t)rd->at * FMT_PAGE,
		 rd->span.buf + (size_t)rd->at * FMT_PAGE, FMT_PAGE, read_page_done);
}

static void read_page_done(struct ioe_req *io)
{
	struct replay *rp = container_of(io, struct replay, io);
	struct replay_reading *rd = &rp->read;

	if (io->status && ++rd->tries < PAGE_TRIES) {
		read_page(rp);
		return;
	}
	if (io->status) {
		memset(rd->span.buf + (size_t)rd->at * FMT_PAGE, 0, FMT_PAGE);
		rd->unreadable[rd->at / 64] |= 1ULL << (rd->at % 64);
	}
	rd->tries = 0;
	if (++rd->at < rd->span.pages_n)
		read_page(rp);
	else
		rd->done(rp);
}
