/* SPDX-License-Identifier: Apache-2.0 */
/* format.c - waiting for a device that is being formatted. On a slow disk of many TiB that takes longer than anything else that is asked of the server,
 * so it is not the clock that says when to give up: it is the node, which counts in its metrics how far it is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/cli.h"

enum {
	LOOK_MS = 1000,
	LOOK_TIMEOUT_SECS = 5,
};

static bool go_on(struct api_watch *watch, char errmsg[256]);

void format_watch_init(struct format_watch *w, const char *server, long patience_secs,
		       const char *path)
{
	*w = (struct format_watch){.watch.go_on = go_on,
				   .server = server,
				   .path = path,
				   .patience_secs = patience_secs,
				   .moved_ms = cli_now_ms()};
	w->looked_ms = w->moved_ms;
}

/* As label values are written: backslashes, quotes and line feeds with a backslash. */
static void escape(const char *text, char *out, size_t room)
{
	size_t n = 0;

	for (; *text && n + 3 < room; text++) {
		if (*text == '\\' || *text == '"' || *text == '\n')
			out[n++] = '\\';
		out[n++] = *text == '\n' ? 'n' : *text;
	}
	out[n] = '\0';
}

/* The value of `name{...path="PATH"...}` in the metrics; false: it is not there. */
static bool find(const char *metrics, const char *name, const char *path, uint64_t *ret_value)
{
	char label[8192] = "path=\"";
	size_t len = strlen(label);

	escape(path, label + len, sizeof(label) - len - 1);
	len = strlen(label);
	label[len] = '"';
	label[len + 1] = '\0';
	for (const char *line = metrics; line; line = strchr(line, '\n')) {
		const char *end, *at;

		line += *line == '\n';
		if (strncmp(line, name, strlen(name)) || line[strlen(name)] != '{')
			continue;
		end = strchr(line, '\n');
		at = strstr(line, label);
		if (!at || (end && at > end) || !(at = strstr(at + strlen(label), "} ")))
			continue;
		*ret_value = (uint64_t)strtod(at + 2, NULL);
		return true;
	}
	return false;
}

void format_watch_end(struct format_watch *w)
{
	progress_end(&w->shown);
}

static bool go_on(struct api_watch *watch, char errmsg[256])
{
	struct format_watch *w = container_of(watch, struct format_watch, watch);
	struct api_target to = {.server = w->server, .timeout_secs = LOOK_TIMEOUT_SECS};
	uint64_t now = cli_now_ms(), done = 0, all = 0;
	char *metrics, what[512];

	if (w->stop && w->stop(w->stop_arg)) {
		snprintf(errmsg, 256, "it was not waited for");
		return false;
	}
	if (now - w->looked_ms < LOOK_MS)
		return true;
	w->looked_ms = now;
	metrics = api_text(&to, "/metrics");
	if (metrics && find(metrics, "strata_device_format_done_bytes", w->path, &done) &&
	    find(metrics, "strata_device_format_all_bytes", w->path, &all)) {
		if (done != w->done || all != w->all)
			w->moved_ms = now;
		w->done = done;
		w->all = all;
		snprintf(what, sizeof(what), "formatting %s", w->path);
		progress_show(&w->shown, what, done, all);
	}
	mem_free(metrics);
	if (now - w->moved_ms < (uint64_t)w->patience_secs * 1000)
		return true;
	snprintf(
	    errmsg, 256,
	    "the node has shown no progress with it for %ld s; it may still get there: 'strata "
	    "device list' tells, and --timeout waits longer",
	    w->patience_secs);
	return false;
}
