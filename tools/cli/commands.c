/* SPDX-License-Identifier: Apache-2.0 */
/* commands.c - the table of commands: what exists, how it is called, what it is for. Help is made from it, and completion (completion.c). */
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"

#define ASYNC                                                               \
	{                                                                   \
		"async", NULL, "do not wait for the job that does the work" \
	}

const struct cli_command cli_commands[] = {
    {"up",
     "--data DIR [OPTION]...",
     "run a whole cluster on this machine, in the foreground",
     0,
     0,
     cmd_up,
     {{"data", "DIR",
       "where the cluster keeps its state; made on first use, continued from afterwards"},
      {"nodes", "N", "data-path nodes (1 on first use; may grow later)"},
      {"devices", "N", "device files made for each new node (1)"},
      {"device-size", "SIZE", "size of each; sparse (16G)"},
      {"api", "ADDR ...",
       "serve the REST API here too: host:port or unix:PATH (always on DIR/run/api.sock)"},
      {"api-token-file", "FILE",
       "what administrators must show on --api addresses that are not local"},
      {"nbd", "ADDR ...", "where node 1 serves NBD: host:port or unix:PATH (unix:DIR/node-1.nbd)"},
      {"insecure", NULL,
       "allow --nbd addresses that other machines can reach: anybody there can write"},
      {"engine", "auto|uring|aio",
       "the I/O engine (auto: uring, and aio where the kernel refuses it)"},
      {"device-wait", "TIME", "how long requests wait for a device or node that is away (2m)"},
      {"takeover-after", "TIME",
       "how long a node must be away before another may take over its volumes; 0: never (1m)"},
      {"runtime-dir", "DIR",
       "for what survives a killed process but not a reboot; a tmpfs (/dev/shm/strata-UID)"}}},

    {"volume create",
     "NAME --size SIZE",
     "make a thin volume",
     1,
     1,
     cmd_volume_create,
     {{"size", "SIZE", "for example 10G; a multiple of 4 KiB"},
      {"pool", "NAME", "where its data lives (default)"},
      {"sector-size", "512|4096", "logical sector; cannot be changed later (512)"},
      {"write-cache", "auto|writeback|writethrough", "when a write is acknowledged (auto)"}}},
    {"volume list", "", "all volumes", 0, 0, cmd_volume_list, {{0}}},
    {"volume show", "NAME", "one volume", 1, 1, cmd_volume_show, {{0}}},
    {"volume resize",
     "NAME --size SIZE",
     "grow a volume",
     1,
     1,
     cmd_volume_resize,
     {{"size", "SIZE", "the new size"}}},
    {"volume release",
     "NAME",
     "take a volume from a node that is away",
     1,
     1,
     cmd_volume_release,
     {{0}}},
    {"volume delete", "NAME", "delete a volume and its data", 1, 1, cmd_volume_delete, {ASYNC}},
    {"volume stats",
     "NAME",
     "I/O counters and latencies of an open volume",
     1,
     1,
     cmd_volume_stats,
     {{0}}},

    {"device list", "", "devices with their state and space", 0, 0, cmd_device_list, {{0}}},
    {"device add",
     "PATH --node NODE",
     "format a block device or file and add it to the pool",
     1,
     1,
     cmd_device_add,
     {{"node", "NODE", "the node that has it (the only one)"},
      {"size", "SIZE", "of a file that is made new"},
      {"pool", "NAME", "(default)"},
      {"force", NULL, "overwrite whatever is on it"}}},
    {"device remove",
     "DEVICE",
     "take an empty device out, or give up a broken one",
     1,
     1,
     cmd_device_remove,
     {{"lost", NULL, "it will not come back: what it held reads as an error until rewritten"},
      ASYNC}},

    {"node list", "", "data-path nodes", 0, 0, cmd_node_list, {{0}}},
    {"node remove",
     "NODE",
     "forget a node that is gone for good and has no devices any more",
     1,
     1,
     cmd_node_remove,
     {{0}}},
    {"pool list", "", "pools with their space", 0, 0, cmd_pool_list, {{0}}},
    {"pool show", "NAME", "one pool", 1, 1, cmd_pool_show, {{0}}},
    {"pool create",
     "NAME --media flash|rotational",
     "make a pool, to which devices are added then",
     1,
     1,
     cmd_pool_create,
     {{"media", "flash|rotational", "what its disks are"},
      {"chunk", "1M|4M",
       "the unit of placement; cannot be changed later (flash 1M, rotational 4M)"}}},
    {"pool remove",
     "NAME",
     "remove a pool that has neither devices nor volumes",
     1,
     1,
     cmd_pool_remove,
     {{0}}},

    {"export list", "", "what is exported, and who is connected", 0, 0, cmd_export_list, {{0}}},
    {"export show",
     "VOLUME",
     "lines to paste: how to attach the volume",
     1,
     1,
     cmd_export_show,
     {{0}}},
    {"export set",
     "VOLUME --exclusive yes|no",
     "how the volume is exported",
     1,
     1,
     cmd_export_set,
     {{"exclusive", "yes|no", "one client at a time, whoever comes second is refused (no)"}}},

    {"map",
     "VOLUME",
     "where the data of a volume lies: chunk, device, slot, offset",
     1,
     1,
     cmd_map,
     {{"offset", "SIZE", "from here (0)"}, {"length", "SIZE", "this far (to the end)"}}},
    {"check", "", "check the map against the devices, online", 0, 0, cmd_check, {ASYNC}},

    {"bench",
     "VOLUME [OPTION]...",
     "run a load on the volume runtime itself, without any target",
     1,
     1,
     cmd_bench,
     {{"pattern", "PATTERN", "read, write, readwrite, randread, randwrite or randrw (randread)"},
      {"block-size", "SIZE", "of a request (4k)"},
      {"depth", "N", "requests in flight (32)"},
      {"secs", "N", "how long, up to 20 (3)"},
      {"flush-every", "N", "writes between two flushes (none)"},
      {"read-percent", "N", "of mixed patterns (50)"},
      {"size", "SIZE", "from the start of the volume (all of it)"},
      {"stride", "SIZE", "from one position to the next (the block size)"},
      {"once", NULL, "each position once, random patterns in random order"},
      {"overwrite", NULL, "needed for patterns that write"}}},
    {"fsck",
     "--data DIR [OPTION]...",
     "check a stopped cluster: its devices, and the map against them",
     0,
     0,
     cmd_fsck,
     {{"data", "DIR", "where the cluster keeps its state"},
      {"verify-data", NULL, "read every block and compare it with its checksum"},
      {"notes", NULL, "also tell what is harmless"},
      {"runtime-dir", "DIR", "where its restart rings are (/dev/shm/strata-UID)"}}},
    {"meta backup",
     "PATH",
     "keep a consistent copy of the metadata in a new directory on the server",
     1,
     1,
     cmd_meta_backup,
     {{0}}},
    {"meta restore",
     "PATH --data DIR",
     "put a backup of the metadata in place of a stopped cluster's",
     1,
     1,
     cmd_meta_restore,
     {{"data", "DIR", "where the metadata server keeps its state"},
      {"allow-missing", NULL,
       "devices that are not here are only looked at when their node comes back"},
      {"runtime-dir", "DIR", "where its restart rings are (/dev/shm/strata-UID)"}}},

    {"job list", "", "background jobs", 0, 0, cmd_job_list, {{0}}},
    {"job show", "ID", "one job", 1, 1, cmd_job_show, {{0}}},
    {"job cancel", "ID", "stop a job that can be stopped", 1, 1, cmd_job_cancel, {{0}}},

    {"status", "", "the health of the cluster in one word, and why", 0, 0, cmd_status, {{0}}},
    {"events", "", "what happened", 0, 0, cmd_events, {{"last", "N", "only the last N (50)"}}},

    {"help", "[COMMAND]", "this text, or how to use a command", 0, 2, cmd_help, {{0}}},
    {"completion", "bash|zsh", "print a completion script for the shell", 1, 1, cmd_completion, {{0}}},
    {0},
};

static void help_option(const struct cli_option *o, int width)
{
	char left[64];

	snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
	printf("  %-*s  %s\n", width, left, o->help);
}

static void help_overview(void)
{
	printf("Strata %s: thin volumes for virtual machines on the disks of many machines.\n\n"
	       "usage: strata [--server ADDR] [--json] COMMAND [ARGUMENT]...\n\ncommands:\n",
	       STRATA_VERSION);
	for (const struct cli_command *cmd = cli_commands; cmd->name; cmd++)
		printf("  %-16s %s\n", cmd->name, cmd->help);
	printf("\nbefore or after any command:\n");
	for (const struct cli_option *o = cli_global_options; o->name; o++)
		help_option(o, 16);
	printf(
	    "\n'strata help COMMAND' shows its options. $STRATA_TOKEN is the bearer token for a "
	    "server that asks for one.\n"
	    "Exit codes: 0 done, 1 failed, 2 used wrongly (also when the server says so), 3 server "
	    "not reached, 4 not healthy (status, check, fsck).\n");
}

static void help_command(const struct cli_command *cmd)
{
	printf("strata %s - %s\n\nusage: strata %s%s%s\n", cmd->name, cmd->help, cmd->name,
	       *cmd->usage ? " " : "", cmd->usage);
	for (int i = 0; i < CLI_OPTIONS_MAX && cmd->options[i].name; i++) {
		printf("%s", i ? "" : "\noptions:\n");
		help_option(&cmd->options[i], 24);
	}
}

int cmd_help(struct cli *c)
{
	char name[128] = "";
	int shown = 0;

	if (c->args_n == 0) {
		help_overview();
		return EXIT_OK;
	}
	snprintf(name, sizeof(name), c->args_n == 2 ? "%s %s" : "%s", c->args[0],
		 c->args_n == 2 ? c->args[1] : "");
	for (const struct cli_command *cmd = cli_commands; cmd->name; cmd++)
		if (!strcmp(cmd->name, name) ||
		    (!strncmp(cmd->name, name, strlen(name)) && cmd->name[strlen(name)] == ' ')) {
			if (shown++)
				printf("\n");
			help_command(cmd);
		}
	return shown ? EXIT_OK : cli_usage(c, "there is no command '%s'", name);
}
