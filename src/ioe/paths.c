/* SPDX-License-Identifier: Apache-2.0 */
/* paths.c - names of files, and small files as a whole. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/ioe/file.h"

int directory_sync(const char *path)
{
	size_t len = strlen(path);
	const char *slash;
	char *dir;
	int fd, r;

	while (len > 1 && path[len - 1] == '/')
		len--;
	slash = memrchr(path, '/', len);
	dir =
	    slash ? mem_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : mem_strdup(".");
	if (!dir)
		return -ENOMEM;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	mem_free(dir);
	if (fd < 0)
		return -errno;
	r = fsync(fd) ? -errno : 0;
	close(fd);
	return r;
}

int path_unlink(struct ioe *e, const char *path)
{
	(void)e;
	return unlink(path) ? -errno : directory_sync(path);
}

int path_rename(struct ioe *e, const char *from, const char *to)
{
	int r;

	(void)e;
	if (rename(from, to))
		return -errno;
	r = directory_sync(to); /* first: a crash may leave both names, never none */
	return r ? r : directory_sync(from);
}

static int absolute(char **text, size_t prefix)
{
	char dir[4096], *made;
	const char *path;

	if (!*text || (*text)[prefix] == '/')
		return 0;
	if (!getcwd(dir, sizeof(dir)))
		return -errno;
	path = *text + prefix;
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	if (!strcmp(path, "."))
		path = "";
	made = mem_printf("%.*s%s%s%s", (int)prefix, *text, strcmp(dir, "/") ? dir : "",
			  *path ? "/" : "", path);
	if (!made)
		return -ENOMEM;
	mem_free(*text);
	*text = made;
	return 0;
}

int ioe_path_make_absolute(char **path)
{
	return absolute(path, 0);
}

int ioe_addrs_make_absolute(char **addrs, uint32_t n)
{
	int r = 0;

	for (uint32_t i = 0; i < n && !r; i++)
		if (!strncmp(addrs[i], "unix:", 5))
			r = absolute(&addrs[i], 5);
	return r;
}

/* The name itself must be ours too: a link of somebody else's leads wherever he likes, and later elsewhere. */
int path_check_private(struct ioe *e, const char *path, char *errmsg)
{
	uint32_t euid = geteuid();
	struct stat name, dir;

	(void)e;
	if (lstat(path, &name) || stat(path, &dir)) {
		int r = -errno;

		snprintf(errmsg, ERRMSG_LEN, "cannot use %.150s: %s", path, err_text(r));
		return r;
	}
	if (!S_ISDIR(dir.st_mode)) {
		snprintf(errmsg, ERRMSG_LEN, "%.180s is no directory", path);
		return -ENOTDIR;
	}
	if (name.st_uid != euid || dir.st_uid != euid) {
		snprintf(errmsg, ERRMSG_LEN, "%.150s belongs to user %u, not to %u who runs this",
			 path, name.st_uid != euid ? name.st_uid : dir.st_uid, euid);
		return -EPERM;
	}
	if (dir.st_mode & (S_IWGRP | S_IWOTH)) {
		snprintf(errmsg, ERRMSG_LEN,
			 "others can write to %.150s (mode %04o): chmod 700 makes it private", path,
			 dir.st_mode & 07777);
		return -EPERM;
	}
	return 0;
}

bool path_same(struct ioe *e, const char *a, const char *b)
{
	struct stat x, y;

	(void)e;
	if (stat(a, &x) || stat(b, &y) || (x.st_mode & S_IFMT) != (y.st_mode & S_IFMT))
		return false;
	if (S_ISBLK(x.st_mode)) /* each may have its own node */
		return x.st_rdev == y.st_rdev;
	return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int path_mkdir(struct ioe *e, const char *path, uint32_t mode)
{
	struct stat st;
	int r;

	(void)e;
	if (!mkdir(path, (mode_t)mode))
		return directory_sync(path);
	if (errno != EEXIST)
		return -errno;
	if (stat(path, &st))
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -EEXIST;
	r = directory_sync(path); /* whoever made it may have ended before that */
	return r == -EACCES ? 0
			    : r; /* in a directory that is not ours to read it is not ours either */
}

/* ---- load ------------------------------------------------------------------------------------------------------------- */

/* Up to cap bytes; fewer only at the end of the file. */
static int read_all(int fd, char *buf, size_t cap, size_t *ret_len)
{
	size_t len = 0;

	while (len < cap) {
		ssize_t n = read(fd, buf + len, cap - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*ret_len = len;
	return 0;
}

int small_file_load(struct ioe *e, const char *path, char **ret_data, size_t *ret_len)
{
	const size_t cap = IOE_SMALL_FILE_MAX + 1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *data, *fit;
	size_t len = 0;
	int r;

	(void)e;
	if (fd < 0)
		return -errno;
	data = mem_alloc(cap);
	r = data ? read_all(fd, data, cap, &len) : -ENOMEM;
	close(fd);
	if (!r && len > IOE_SMALL_FILE_MAX)
		r = -EFBIG;
	if (r) {
		mem_free(data);
		return r;
	}
	fit = mem_realloc(data, len + 1, 1);
	data = fit ? fit : data;
	data[len] = '\0';
	*ret_data = data;
	*ret_len = len;
	return 0;
}

/* ---- store ------------------------------------------------------------------------------------------------------------ */

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int temporary_write(const char *temporary, const void *data, size_t len, uint32_t mode)
{
	int fd, r;

	if (unlink(temporary) && errno != ENOENT) /* of a crash */
		return -errno;
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
	if (fd < 0)
		return -errno;
	r = write_all(fd, data, len);
	if (!r && fsync(fd))
		r = -errno;
	if (close(fd) && !r)
		r = -errno;
	return r;
}

/* A crash leaves the old contents or the new, whole; and maybe the temporary, which the next store removes. */
int small_file_store(struct ioe *e, const char *path, const void *data, size_t len, uint32_t mode)
{
	char *temporary = mem_printf("%s.new", path);
	int r;

	(void)e;
	if (!temporary)
		return -ENOMEM;
	r = temporary_write(temporary, data, len, mode);
	if (!r && rename(temporary, path))
		r = -errno;
	if (r)
		unlink(temporary);
	else
		r = directory_sync(path);
	mem_free(temporary);
	return r;
}
