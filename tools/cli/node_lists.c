/* SPDX-License-Identifier: Apache-2.0 */
/* node_lists.c - the devices of the nodes below a cluster's directory: DIR/node<k>/devices, a line "UUID PATH" each (io-path/node/devices.h). */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"

enum { NODES_MAX = 32 };

static int each_of_list(FILE *in, const char *list,
			int (*each)(void *arg, const char *uuid_text, const char *path), void *arg)
{
	char line[PATH_MAX + 64];
	int r = 0;

	while (!r && fgets(line, sizeof(line), in)) {
		char *end = strchr(line, '\n'), *path = strchr(line, ' ');

		if (end)
			*end = '\0';
		if (!*line || *line == '#')
			continue;
		if (!path || (!end && !feof(in)))
			return cli_fail("%s: a line is not 'UUID PATH': %.80s", list, line);
		*path++ = '\0';
		r = each(arg, line, path);
	}
	return r;
}

int cli_each_device(const char *dir,
		    int (*each)(void *arg, const char *uuid_text, const char *path), void *arg)
{
	int r = 0;

	for (int k = 1; k <= NODES_MAX && !r; k++) {
		char list[PATH_MAX + 32];
		FILE *in;

		snprintf(list, sizeof(list), "%s/node%d/devices", dir, k);
		in = fopen(list, "re");
		if (!in && errno == ENOENT)
			continue;
		if (!in)
			return cli_fail("%s: %s", list, strerror(errno));
		r = each_of_list(in, list, each, arg);
		fclose(in);
	}
	return r;
}
