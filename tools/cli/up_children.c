/* SPDX-License-Identifier: Apache-2.0 */
/* up_children.c - the daemons of `strata up`: how each is called. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/up.h"

/* The daemons lie beside this program, in the build tree as installed. */
static void program(struct child *c, const char *name)
{
	char self[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[n > 0 ? n : 0] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		slash[1] = '\0';
	child_arg(c, "%s%s", self, name);
}

static void describe(struct up *u, struct child *c, const char *name, const char *binary)
{
	snprintf(c->name, sizeof(c->name), "%s", name);
	c->log_path = mem_printf("%s/log/%s.log", u->dir, name);
	c->pid_path = mem_printf("%s/run/%s.pid", u->dir, name);
	check(c->log_path && c->pid_path);
	program(c, binary);
	if (u->engine) {
		child_arg(c, "--engine");
		child_arg(c, "%s", u->engine);
	}
}

/* An option that goes on to the daemon as it was given, if it was. */
static void pass_on(struct up *u, struct child *c, const char *option)
{
	const char *value = cli_option(u->c, option);

	if (!value)
		return;
	child_arg(c, "--%s", option);
	if (*value)
		child_arg(c, "%s", value);
}

void up_describe_metad(struct up *u)
{
	struct child *c = &u->children[0];

	describe(u, c, "metad", "strata-metad");
	c->stop_group = 0; /* nodes give back to it what they have reserved */
	child_arg(c, "--data");
	child_arg(c, "%s", u->dir);
	child_arg(c, "--rpc");
	child_arg(c, "unix:%s/run/metad.sock", u->dir);
	child_arg(c, "--api");
	child_arg(c, "unix:%s/run/api.sock", u->dir);
	for (int i = 0; i < u->api_n; i++) {
		child_arg(c, "--api");
		child_arg(c, "%s", u->api[i]);
	}
	pass_on(u, c, "api-token-file");
	pass_on(u, c, "takeover-after");
}

void up_describe_node(struct up *u, uint64_t k)
{
	struct child *c = &u->children[k];
	char name[32];

	snprintf(name, sizeof(name), "node-%llu", (unsigned long long)k);
	describe(u, c, name, "strata-noded");
	c->stop_group = 1;
	child_arg(c, "--name");
	child_arg(c, "%s", name);
	child_arg(c, "--data");
	child_arg(c, "%s/node%llu", u->dir, (unsigned long long)k);
	child_arg(c, "--metad");
	child_arg(c, "unix:%s/run/metad.sock", u->dir);
	for (int i = 0; k == 1 && i < u->nbd_n; i++) {
		child_arg(c, "--nbd");
		child_arg(c, "%s", u->nbd[i]);
	}
	if (k > 1 || !u->nbd_n) {
		child_arg(c, "--nbd");
		child_arg(c, "unix:%s/node-%llu.nbd", u->dir, (unsigned long long)k);
	}
	pass_on(u, c, "runtime-dir");
	pass_on(u, c, "device-wait");
	pass_on(u, c, "insecure");
}
