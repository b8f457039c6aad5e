/* SPDX-License-Identifier: Apache-2.0 */
/* up_devices.c - the devices of a node of `strata up` that is new. DIR/node<k>/setup says how many are wanted until all exist. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/base/check.h"
#include "tools/cli/up.h"

static bool is_ending(void *arg)
{
	return !supervisor_look(arg);
}

static int add_device(struct up *u, uint64_t k, uint64_t j, uint64_t bytes)
{
	char server[PATH_MAX + 32], node[32], path[PATH_MAX + 64];
	struct api_error why;
	struct format_watch w;
	struct api_target to = {.server = server, .watch = &w.watch};
	json_t *body, *answer;
	long http;

	snprintf(server, sizeof(server), "unix:%s/run/api.sock", u->dir);
	snprintf(node, sizeof(node), "node-%llu", (unsigned long long)k);
	snprintf(path, sizeof(path), "%s/node%llu/disk%llu", u->dir, (unsigned long long)k,
		 (unsigned long long)j);
	body = json_pack("{s:s, s:s, s:I}", "node", node, "path", path, "size_bytes",
			 (json_int_t)bytes);
	check(body);
	format_watch_init(&w, server, u->c->timeout_secs, path);
	w.stop = is_ending;
	w.stop_arg = &u->sup;
	http = api_raw(&to, "POST", "/v1/devices", body, &answer, &why);
	format_watch_end(&w);
	json_decref(body);
	json_decref(answer);
	if (u->sup.stopping)
		return -EINTR;
	if (http > 0 && (http < 400 || !strcmp(why.code, "exists")))
		return 0; /* maybe made before an earlier first start was interrupted */
	fprintf(stderr,
		"strata: cannot make the device %s: %s\n%s%sWhen that is mended, the same command "
		"goes on from here.\n",
		path, why.message, why.hint, *why.hint ? "\n" : "");
	return -EIO;
}

int up_devices(struct up *u, uint64_t k)
{
	char setup[PATH_MAX + 64];
	unsigned long long n, bytes;
	FILE *f;
	int got;

	snprintf(setup, sizeof(setup), "%s/node%llu/setup", u->dir, (unsigned long long)k);
	f = fopen(setup, "re");
	if (!f)
		return 0;
	got = fscanf(f, "%llu %llu", &n, &bytes);
	fclose(f);
	if (got != 2 || n > DEVICES_PER_NODE_MAX) {
		fprintf(stderr,
			"strata: %s is damaged; delete it to go on without making devices\n", setup);
		return -EINVAL;
	}
	for (uint64_t j = 1; j <= n; j++) {
		int r = add_device(u, k, j, bytes);

		if (r)
			return r;
	}
	unlink(setup);
	return 0;
}
