/* SPDX-License-Identifier: Apache-2.0 */
/* notify.h - tells whoever started this process that it serves. */
#ifndef STRATA_IOE_NOTIFY_H
#define STRATA_IOE_NOTIFY_H

/* Writes "ready JSON" and a newline to fd (-1: none) and closes it unless it is one of the standard ones; tells systemd when $NOTIFY_SOCKET is set. */
void notify_ready(int fd, const char *json);

#endif
