/* SPDX-License-Identifier: Apache-2.0 */
/* dio_align.c - a file of its own because the kernel's struct statx (which has the field) and glibc's do not go together. */
#include <fcntl.h>
#include <linux/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/base/math.h"
#include "src/ioe/file.h"

uint32_t dio_align(int fd)
{
	struct statx st = {0};

	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) ||
	    !(st.stx_mask & STATX_DIOALIGN))
		return 0;
	return MAX(st.stx_dio_offset_align, st.stx_dio_mem_align);
}
