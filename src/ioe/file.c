/* SPDX-License-Identifier: Apache-2.0 */
/* file.c - opening what a device is: a block device, or a file that stands for one.
 *
 * The order of opening matters: the description is made without O_DIRECT, locked, and only then asked what it is and switched to
 * O_DIRECT. So a file that was created is never left behind half open by a filesystem that refuses O_DIRECT, and nothing is
 * read or written before the lock is held. */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/file.h"

enum { ALIGN_MIN = 512, ALIGN_SAFE = 4096 };

static int description_open(const char *path, int flags, int *ret_fd, char *errmsg);
static int description_examine(struct file *f, const char *path, int flags, uint32_t *ret_align);
static int block_device_examine(struct file *f, const struct stat *st, uint32_t *ret_align);
static bool queue_writes_back(dev_t dev);
static void direct_enable(struct file *f, const char *path, uint32_t *align);
static bool inline_enable(int fd);

int file_open(struct ioe *e, const char *path, int flags, struct ioe_file **ret_f, char *errmsg)
{
	struct file *f;
	uint32_t align;
	int r;

	f = mem_zalloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	r = description_open(path, flags, &f->fd, errmsg);
	if (r)
		goto err_free;
	if (flags & IOE_OPEN_LOCK) {
		r = flags & IOE_OPEN_WAIT ? file_lock_wait(f->fd, path, errmsg)
					  : file_lock(f->fd, path, errmsg);
		if (r)
			goto err_close;
	}
	r = description_examine(f, path, flags, &align);
	if (!r && flags & IOE_OPEN_CREATE)
		r = directory_sync(path);
	if (r)
		goto err_close;
	engine_file_init(e, &f->base, align, flags & IOE_OPEN_RDONLY);
	*ret_f = &f->base;
	return 0;
err_close:
	close(f->fd);
	if ((flags & IOE_OPEN_CREATE) && r != -E_IN_USE)
		unlink(path);
err_free:
	mem_free(f);
	if (errmsg && !errmsg[0])
		snprintf(errmsg, ERRMSG_LEN, "cannot open %s: %s", path, err_text(r));
	return r;
}

static int description_open(const char *path, int flags, int *ret_fd, char *errmsg)
{
	int how = O_CLOEXEC | (flags & IOE_OPEN_RDONLY ? O_RDONLY : O_RDWR);
	struct stat st = {0};
	int fd;

	if (flags & IOE_OPEN_CREATE)
		how |= O_CREAT | O_EXCL;
	else if (stat(path, &st))
		return -errno;
	else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return -ENOTBLK; /* opening a pipe would wait for its other end */
	/* O_EXCL on a block device is refused while it is mounted, part of a RAID, or opened like this by another. */
	if ((flags & IOE_OPEN_LOCK) && S_ISBLK(st.st_mode))
		how |= O_EXCL;
	fd = open(path, how, 0600);
	if (fd < 0 && errno == EBUSY) {
		if (errmsg)
			snprintf(errmsg, ERRMSG_LEN,
				 "%s is in use: mounted, or held by another program", path);
		return -E_IN_USE;
	}
	if (fd < 0) {
		int r = -errno;

		if (errmsg && r == -EEXIST && stat(path, &st))
			snprintf(errmsg, ERRMSG_LEN, "%s is a link that leads nowhere", path);
		else if (errmsg && r == -ENOENT && flags & IOE_OPEN_CREATE)
			snprintf(errmsg, ERRMSG_LEN, "the directory of %s does not exist", path);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static int description_examine(struct file *f, const char *path, int flags, uint32_t *ret_align)
{
	struct statfs fs;
	struct stat st;
	int r;

	if (fstat(f->fd, &st))
		return -errno;
	*ret_align = flags & IOE_OPEN_BUFFERED ? 1 : ALIGN_MIN;
	f->limit_bytes = UINT64_MAX;
	f->has_volatile_cache = true;
	if (S_ISBLK(st.st_mode)) {
		r = block_device_examine(f, &st, ret_align);
		if (r)
			return r;
	} else if (!S_ISREG(st.st_mode)) {
		return -ENOTBLK;
	} else if (fstatfs(f->fd, &fs)) {
		return -errno;
	} else {
		f->limit_bytes = (uint64_t)st.st_size;
		f->never_blocks = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
	}
	if (f->never_blocks)
		f->ring_moves_inline = inline_enable(f->fd);
	else if (!(flags & IOE_OPEN_BUFFERED))
		direct_enable(f, path, ret_align);
	f->has_volatile_cache |= !f->is_direct; /* the kernel's, whatever the device has */
	return 0;
}

static int block_device_examine(struct file *f, const struct stat *st, uint32_t *ret_align)
{
	int sector_bytes;

	if (ioctl(f->fd, BLKSSZGET, &sector_bytes))
		return -errno;
	if (sector_bytes < ALIGN_MIN || !is_pow2((uint64_t)sector_bytes))
		return -EOPNOTSUPP;
	f->is_block_device = true;
	f->has_volatile_cache = queue_writes_back(st->st_rdev);
	*ret_align = MAX(*ret_align, (uint32_t)sector_bytes);
	return 0;
}

/* Without an answer the cautious one. A partition has no queue of its own: its directory lies in the one of its disk. */
static bool queue_writes_back(dev_t dev)
{
	static const char *const where[] = {"queue", "../queue"};
	char path[96], text[32] = "";

	for (size_t i = 0; i < ARRAY_LEN(where); i++) {
		FILE *f;
		bool got;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/write_cache", major(dev),
			 minor(dev), where[i]);
		f = fopen(path, "re");
		if (!f)
			continue;
		got = fgets(text, sizeof(text), f);
		fclose(f);
		if (got)
			return strncmp(text, "write through", 13) != 0;
	}
	return true;
}

static void direct_enable(struct file *f, const char *path, uint32_t *align)
{
	int how = fcntl(f->fd, F_GETFL);
	uint32_t want;

	if (how < 0 || fcntl(f->fd, F_SETFL, how | O_DIRECT)) {
		log_warn("O_DIRECT is refused, using the page cache", "path=%s", path);
		return;
	}
	want = dio_align(f->fd);
	if (want > ALIGN_SAFE) {
		log_warn("O_DIRECT needs more than 4096 bytes of alignment, using the page cache",
			 "path=%s align=%u", path, want);
		(void)fcntl(f->fd, F_SETFL, how);
		return;
	}
	f->is_direct = true;
	if (!f->is_block_device)
		*align = want ? MAX(want, (uint32_t)ALIGN_MIN) : ALIGN_SAFE;
}

/* io_uring hands a request to one of its own threads unless the file says that it can be tried without blocking. tmpfs does not say so, but
 * never waits either: O_NONBLOCK says it in its place, and O_DIRECT (which changes nothing there, and is refused before Linux 6.6) lets writes
 * pass the same gate. So many requests share one system call. */
static bool inline_enable(int fd)
{
	int how = fcntl(fd, F_GETFL);

	return how >= 0 && !fcntl(fd, F_SETFL, how | O_DIRECT | O_NONBLOCK);
}

void file_close(struct ioe *e, struct ioe_file *base)
{
	struct file *f = file_of(base);

	(void)e;
	close(f->fd);
	mem_free(f);
}

static uint64_t size_now(const struct file *f)
{
	uint64_t bytes = 0;
	struct stat st;

	if (f->is_block_device)
		return ioctl(f->fd, BLKGETSIZE64, &bytes) ? 0 : bytes;
	return fstat(f->fd, &st) ? 0 : (uint64_t)st.st_size;
}

void file_info(struct ioe_file *base, struct ioe_file_info *ret_info)
{
	const struct file *f = file_of(base);

	*ret_info = (struct ioe_file_info){
	    .size_bytes = size_now(f),
	    .io_align = base->io_align,
	    .is_block_device = f->is_block_device,
	    .is_direct = f->is_direct,
	    .has_volatile_cache = f->has_volatile_cache,
	    .never_blocks = f->never_blocks,
	};
}

/* That an error came to light here must not hide it from the fsync that is to tell of the data. */
static int size_sync(struct file *f)
{
	return fsync(f->fd) ? fsync_status(&f->base, -errno) : 0;
}

int file_resize(struct ioe *e, struct ioe_file *base, uint64_t size_bytes)
{
	struct file *f = file_of(base);
	int r;

	(void)e;
	if (f->is_block_device)
		return -EINVAL;
	if (base->read_only)
		return -EBADF;
	do
		r = ftruncate(f->fd, (off_t)size_bytes);
	while (r && errno == EINTR);
	if (r)
		return -errno;
	f->limit_bytes = size_bytes;
	return size_sync(f);
}

int file_reserve(struct ioe *e, struct ioe_file *base, uint64_t off, uint64_t len)
{
	struct file *f = file_of(base);
	int r;

	(void)e;
	if (f->is_block_device)
		return 0;
	do
		r = fallocate(f->fd, FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
	while (r && errno == EINTR);
	return r ? -errno : size_sync(f);
}

uint64_t file_used_bytes(struct ioe *e, struct ioe_file *base)
{
	struct file *f = file_of(base);
	struct stat st;

	(void)e;
	if (f->is_block_device)
		return size_now(f);
	return fstat(f->fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

int file_space(struct ioe *e, struct ioe_file *base, struct ioe_file_space *ret_space)
{
	struct file *f = file_of(base);
	uint64_t size, used;
	struct statfs fs;
	struct stat st;

	(void)e;
	if (f->is_block_device)
		return -EINVAL;
	if (fstat(f->fd, &st) || fstatfs(f->fd, &fs))
		return -errno;
	size = (uint64_t)st.st_size;
	used = (uint64_t)st.st_blocks * 512;
	*ret_space = (struct ioe_file_space){
	    .fs_id = (uint64_t)st.st_dev + 1, /* 0 is a device number, too */
	    .free_bytes = (uint64_t)fs.f_bavail * (uint64_t)(fs.f_frsize ? fs.f_frsize : fs.f_bsize),
	    .owed_bytes = size > used ? size - used : 0,
	};
	return 0;
}
