/* SPDX-License-Identifier: Apache-2.0 */
/* file_lock.c - the exclusive lock of a device, and the name of who has it.
 *
 * flock() belongs to the open file description. The kernel keeps a description as long as a request on it is in flight, also when the
 * process that made it is dead: whoever gets the lock knows that nothing of the former owner will land any more. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "src/ioe/file.h"

/* A line of /proc/locks: "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; numbers of the device in hex. 0 when nobody is found. */
static int lock_holder(int fd)
{
	char line[256];
	struct stat st;
	int holder = 0;
	FILE *f;

	if (fstat(fd, &st))
		return 0;
	f = fopen("/proc/locks", "re");
	if (!f)
		return 0;
	while (!holder && fgets(line, sizeof(line), f)) {
		unsigned maj, min;
		uint64_t ino;
		int pid;

		if (sscanf(line, "%*s FLOCK %*s WRITE %d %x:%x:%" SCNu64, &pid, &maj, &min, &ino) ==
			4 &&
		    maj == major(st.st_dev) && min == minor(st.st_dev) && ino == st.st_ino)
			holder = pid;
	}
	fclose(f);
	return holder;
}

int file_lock(int fd, const char *path, char *errmsg)
{
	int r, pid;

	do
		r = flock(fd, LOCK_EX | LOCK_NB);
	while (r && errno == EINTR);
	if (!r)
		return 0;
	if (errno != EWOULDBLOCK)
		return -errno;
	pid = lock_holder(fd);
	if (errmsg && pid > 0)
		snprintf(errmsg, ERRMSG_LEN, "%s is in use by pid %d", path, pid);
	else if (errmsg)
		snprintf(errmsg, ERRMSG_LEN, "%s is in use by another process", path);
	return -E_IN_USE;
}

int file_lock_wait(int fd, const char *path, char *errmsg)
{
	const struct timespec pause = {.tv_nsec = 10000000};
	int r = file_lock(fd, path, errmsg);

	for (int tries = 0; r == -E_IN_USE && tries < 100; tries++) {
		nanosleep(&pause, NULL);
		r = file_lock(fd, path, errmsg);
	}
	if (!r && errmsg)
		errmsg[0] = '\0';
	return r;
}
