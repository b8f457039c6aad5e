/* SPDX-License-Identifier: Apache-2.0 */
/* up_options.c - the command line of `strata up`. What the daemons would refuse is refused here, before anything is made. */
#include <string.h>

#include "io-path/device/device.h"
#include "src/ioe/ioe.h"
#include "tools/cli/up.h"

#define DEVICE_SIZE_DEFAULT (16ULL << 30)
#define DEVICE_WAIT_NS_MIN  1000000ULL

static bool addrs_are_right(const struct cli *c, const char *option, const char *const *addrs, int n)
{
	for (int i = 0; i < n; i++)
		if (ioe_addr_wrong(addrs[i])) {
			cli_usage(c, "%s is %s, not '%s'", option, ioe_addr_wrong(addrs[i]),
				  addrs[i]);
			return false;
		}
	return true;
}

/* The first address that other machines can reach. */
static const char *open_addr(const char *const *addrs, int n)
{
	for (int i = 0; i < n; i++)
		if (!ioe_addr_is_local(addrs[i]))
			return addrs[i];
	return NULL;
}

static int addr_options(struct up *u)
{
	struct cli *c = u->c;
	const char *open;

	u->nbd_n = cli_option_values(c, "nbd", &u->nbd);
	u->api_n = cli_option_values(c, "api", &u->api);
	if (!addrs_are_right(c, "--nbd", u->nbd, u->nbd_n) ||
	    !addrs_are_right(c, "--api", u->api, u->api_n))
		return EXIT_USAGE;
	open = open_addr(u->nbd, u->nbd_n);
	if (open && !cli_option(c, "insecure"))
		return cli_usage(c,
				 "--nbd %s: anybody who reaches this address can read and write "
				 "every volume; --insecure allows it",
				 open);
	open = open_addr(u->api, u->api_n);
	if (open && !cli_option(c, "api-token-file"))
		return cli_usage(c,
				 "--api %s can be reached from other machines: --api-token-file "
				 "names what administrators must show there",
				 open);
	return EXIT_OK;
}

static int size_options(struct up *u)
{
	struct cli *c = u->c;
	const char *text;

	u->nodes_n = 0; /* as before, 1 on first use */
	u->devices_n = 1;
	u->device_bytes = DEVICE_SIZE_DEFAULT;
	if ((text = cli_option(c, "nodes")) &&
	    !cli_number(c, "--nodes", text, NODES_MAX, &u->nodes_n))
		return EXIT_USAGE;
	if (text && !u->nodes_n)
		return cli_usage(c, "--nodes: at least one");
	if ((text = cli_option(c, "devices")) &&
	    !cli_number(c, "--devices", text, DEVICES_PER_NODE_MAX, &u->devices_n))
		return EXIT_USAGE;
	if ((text = cli_option(c, "device-size")) &&
	    !cli_size(c, "--device-size", text, INT64_MAX, &u->device_bytes))
		return EXIT_USAGE;
	if (u->device_bytes < DEVICE_BYTES_MIN)
		return cli_usage(c, "--device-size: at least 128M, not '%s'", text);
	return EXIT_OK;
}

int up_options(struct up *u)
{
	struct cli *c = u->c;
	const char *text;

	if (!(text = cli_option(c, "data")) || !*text)
		return cli_usage(c, "--data DIR is missing: where the cluster keeps its state");
	if (size_options(u) || addr_options(u))
		return EXIT_USAGE;
	u->engine = cli_option(c, "engine");
	if (u->engine && strcmp(u->engine, "auto") && strcmp(u->engine, "uring") &&
	    strcmp(u->engine, "aio"))
		return cli_usage(c, "--engine is auto, uring or aio, not '%s'", u->engine);
	if ((text = cli_option(c, "device-wait")) &&
	    !cli_duration(c, "--device-wait", text, DEVICE_WAIT_NS_MIN))
		return EXIT_USAGE;
	if ((text = cli_option(c, "takeover-after")) &&
	    !cli_duration(c, "--takeover-after", text, 0))
		return EXIT_USAGE;
	return EXIT_OK;
}
