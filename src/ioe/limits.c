/* SPDX-License-Identifier: Apache-2.0 */
#include "src/ioe/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/resource.h>

#include "src/base/err.h"
#include "src/base/log.h"

void limits_raise_files(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur == l.rlim_max)
		return;
	l.rlim_cur = l.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &l))
		log_warn("the limit of file descriptors cannot be raised",
			 "limit=%" PRIu64 " error=%s", (uint64_t)l.rlim_max, err_name(-errno));
}
