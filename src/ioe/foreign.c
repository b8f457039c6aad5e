/* SPDX-License-Identifier: Apache-2.0 */
#include "src/ioe/foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int foreign_file_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;
	int r = 0;

	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	if (n < 0)
		r = -errno;
	else
		text[n] = '\0';
	close(fd);
	return r;
}

int foreign_file_bytes(const char *path, uint64_t *ret_bytes)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

int foreign_file_sync(const char *path, uint64_t *ret_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	int r = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || fdatasync(fd))
		r = -errno;
	else
		*ret_bytes = (uint64_t)st.st_size;
	close(fd);
	return r;
}
