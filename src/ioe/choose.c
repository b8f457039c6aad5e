/* SPDX-License-Identifier: Apache-2.0 */
/* choose.c - which engine a process gets. */
#include <string.h>

#include "src/base/log.h"
#include "src/ioe/engine.h"

enum ioe_kind ioe_kind_of(const char *word)
{
	if (word && !strcmp(word, "uring"))
		return IOE_URING;
	if (word && !strcmp(word, "aio"))
		return IOE_AIO;
	return IOE_AUTO;
}

int ioe_new(const struct ioe_config *cfg, struct ioe **ret_e)
{
	int r;

	if (cfg->kind == IOE_AIO)
		return aio_new(cfg, ret_e);
	r = uring_new(cfg, ret_e);
	if (r == -ENOSYS && cfg->kind == IOE_AUTO) {
		log_warn("the kernel does not offer io_uring to this process, using aio and epoll");
		return aio_new(cfg, ret_e);
	}
	return r;
}
