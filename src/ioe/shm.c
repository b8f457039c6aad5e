/* SPDX-License-Identifier: Apache-2.0 */
/* shm.c - memory that outlives the process: a file on tmpfs, mapped. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/ioe/file.h"

static int map(int fd, size_t len_bytes, struct ioe_shm *ret_shm)
{
	void *p = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	*ret_shm = (struct ioe_shm){.base = p, .len_bytes = len_bytes};
	return 0;
}

/* The pages are taken now: a full tmpfs is an error here and not a SIGBUS at the first store. */
int shm_create(struct ioe *e, const char *path, size_t len_bytes, struct ioe_shm *ret_shm)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	(void)e;
	if (fd < 0)
		return -errno;
	do
		r = -posix_fallocate(fd, 0, (off_t)len_bytes);
	while (r == -EINTR);
	if (!r)
		r = map(fd, len_bytes, ret_shm);
	close(fd);
	if (r)
		unlink(path);
	return r;
}

int shm_map(struct ioe *e, const char *path, struct ioe_shm *ret_shm)
{
	int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	int r;

	(void)e;
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		r = -errno;
	else if (!S_ISREG(st.st_mode) || st.st_size == 0)
		r = -EINVAL; /* of a creator that was killed half way */
	else
		r = map(fd, (size_t)st.st_size, ret_shm);
	close(fd);
	return r;
}

void shm_unmap(struct ioe *e, struct ioe_shm *shm)
{
	(void)e;
	munmap(shm->base, shm->len_bytes);
	*shm = (struct ioe_shm){0};
}
