/* SPDX-License-Identifier: Apache-2.0 */
/* notify.h - tells whoever started this process that it serves. */
#ifndef STRATA_IOE_NOTIFY_H
#define STRATA_IOE_NOTIFY_H

/* Why this process does not serve yet, in a line of text, as often as that changes: "refused TEXT" and a newline to fd (-1: none), and systemd's
 * STATUS. */
void notify_refused(int fd, const char *text);
/* Writes "ready JSON" and a newline to fd (-1: none) and closes it unless it is one of the standard ones; tells systemd when $NOTIFY_SOCKET is set. */
void notify_ready(int fd, const char *json);

#endif
