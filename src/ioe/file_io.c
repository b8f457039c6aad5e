/* SPDX-License-Identifier: Apache-2.0 */
/* file_io.c - one file request as system calls, and what a partial result of any engine means. */
#include <fcntl.h>
#include <unistd.h>

#include "src/base/math.h"
#include "src/ioe/file.h"

int file_progress(struct ioe_req *r, int64_t res)
{
	bool direct = file_of(r->file)->is_direct;

	if (res == -EINTR || res == -EAGAIN)
		return 1;
	if (res < 0)
		return (int)res;
	/* O_DIRECT goes on at an aligned place only. A read that ends elsewhere has met the end of the file; a write repeats a part. */
	if (direct && res % r->file->io_align) {
		if (r->op == IOE_READ)
			return -EIO;
		res -= res % r->file->io_align;
	}
	if (res == 0)
		return -EIO; /* read: past the end; write: the file takes nothing any more and gives no reason */
	r->got += (size_t)res;
	check(r->got <= r->len);
	return r->got < r->len;
}

static int64_t transfer_once(struct ioe_req *r)
{
	size_t n = MIN(r->len - r->got, (uint64_t)FILE_PIECE_BYTES_MAX);
	int fd = file_of(r->file)->fd;
	char *at = (char *)r->buf + r->got;
	off_t off = (off_t)(r->off + r->got);
	ssize_t res = r->op == IOE_READ ? pread(fd, at, n, off) : pwrite(fd, at, n, off);

	return res < 0 ? -errno : res;
}

static int transfer(struct ioe_req *r)
{
	int go;

	do
		go = file_progress(r, transfer_once(r));
	while (go == 1);
	return go;
}

static int punch(struct ioe_req *r)
{
	int res;

	do
		res = fallocate(file_of(r->file)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)r->off, (off_t)r->len);
	while (res && errno == EINTR);
	return res ? -errno : 0;
}

static int sync_data(struct ioe_req *r)
{
	int res;

	do
		res = fdatasync(file_of(r->file)->fd);
	while (res && errno == EINTR); /* any other error stands: asking again would say success */
	return res ? -errno : 0;
}

void file_run(struct ioe_req *r)
{
	switch (r->op) {
	case IOE_READ:
	case IOE_WRITE:
		r->status = transfer(r);
		return;
	case IOE_FSYNC:
		r->status = sync_data(r);
		return;
	case IOE_PUNCH:
		r->status = punch(r);
		return;
	default:
		check_unreachable("not a file request");
	}
}
