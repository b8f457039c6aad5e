/* SPDX-License-Identifier: Apache-2.0 */
/* nbd_ramdisk - the NBD target on a real engine, over volumes in memory: what the target itself costs, and something for foreign
 * clients to be tried on.
 *
 *   nbd_ramdisk [-e uring|aio] [-s SPIN_US] ADDR NAME=SIZE...       e.g. nbd_ramdisk unix:/tmp/nbd disk=2G disk@snap=1G
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/units.h"
#include "targets/nbd/nbd.h"
#include "tests/lib/mock_volume/mock_volume.h"

static struct ioe *ioe;
static struct nbd_server *server;

static void closed(void *arg)
{
	(void)arg;
	server = NULL;
	ioe_stop(ioe);
}

static void terminate(void *arg)
{
	(void)arg;
	if (server)
		nbd_server_close(server, closed, NULL);
}

static void usage(void)
{
	fprintf(stderr, "usage: nbd_ramdisk [-e uring|aio] [-s SPIN_US] ADDR NAME=SIZE...\n");
	exit(2);
}

static void add_volume(struct volumes *vs, const char *arg)
{
	const char *eq = strchr(arg, '=');
	char name[2 * NAME_LEN_MAX + 2], volume[NAME_LEN_MAX + 1], snapshot[NAME_LEN_MAX + 1];
	uint64_t size;

	if (!eq || eq - arg >= (long)sizeof(name))
		usage();
	memcpy(name, arg, (size_t)(eq - arg));
	name[eq - arg] = '\0';
	if (name_split(name, volume, snapshot) < 0 || units_parse_size(eq + 1, &size) < 0 ||
	    size % BLOCK_BYTES)
		usage();
	mock_volume_add(vs, name, size);
}

int main(int argc, char **argv)
{
	struct ioe_config cfg = {.kind = IOE_AUTO};
	struct nbd_config nbd = {0};
	char errmsg[ERRMSG_LEN], addr[IOE_ADDR_MAX], uri[NBD_URI_LEN];
	int i = 1, r;

	for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
		if (strcmp(argv[i], "-e") == 0 && strcmp(argv[i + 1], "uring") == 0)
			cfg.kind = IOE_URING;
		else if (strcmp(argv[i], "-e") == 0 && strcmp(argv[i + 1], "aio") == 0)
			cfg.kind = IOE_AIO;
		else if (strcmp(argv[i], "-s") == 0)
			cfg.spin_ns = strtoull(argv[i + 1], NULL, 10) * 1000;
		else
			usage();
	}
	if (argc - i < 2)
		usage();
	r = ioe_new(&cfg, &ioe);
	if (r < 0) {
		fprintf(stderr, "nbd_ramdisk: engine: %s\n", err_text(r));
		return 1;
	}
	nbd.ioe = ioe;
	nbd.volumes = mock_volumes_new(ioe);
	for (int k = i + 1; k < argc; k++)
		add_volume(nbd.volumes, argv[k]);
	r = nbd_server_new(&nbd, &server);
	check(r == 0);
	r = nbd_server_listen(server, argv[i], errmsg);
	if (r < 0) {
		fprintf(stderr, "nbd_ramdisk: %s: %s\n", argv[i], errmsg[0] ? errmsg : err_text(r));
		return 1;
	}
	ioe_on_terminate(ioe, terminate, NULL);
	nbd_server_addr(server, 0, addr);
	nbd_uri(addr, "", uri);
	printf("ready %s %s\n", ioe_name(ioe), uri);
	fflush(stdout);
	ioe_run(ioe);
	mock_volumes_free(nbd.volumes);
	ioe_free(ioe);
	return 0;
}
