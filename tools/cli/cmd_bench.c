/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_bench.c - `strata bench VOL`: a load inside the node that owns the volume, on the volume runtime itself, without any target: what is left when
 * NBD and its sockets are taken away. It overwrites the volume, so it wants to be told that this is meant. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/cli.h"

enum { DEPTH_MAX = 1024, SECS_MAX = 20 };

static const struct print_column fields[] = {
    {"requests per second", "iops", PRINT_NUMBER},
    {"bytes per second", "bytes_per_second", PRINT_SIZE},
    {"p50 ns", "latency_ns.p50", PRINT_NUMBER},
    {"p99 ns", "latency_ns.p99", PRINT_NUMBER},
    {"p99.9 ns", "latency_ns.p99.9", PRINT_NUMBER},
    {"CPU ns per request", "cpu_ns_per_io", PRINT_NUMBER},
    {"CPU ns, metadata server", "metad_cpu_ns_per_io", PRINT_NUMBER},
    {"requests", "ios", PRINT_NUMBER},
    {"flushes", "flushes", PRINT_NUMBER},
    {"chunks allocated", "chunks_allocated", PRINT_NUMBER},
    {"commits that did", "alloc_commits", PRINT_NUMBER},
};

static bool number_of(struct cli *c, const char *option, uint64_t max, uint64_t fallback,
		      uint64_t *ret)
{
	char what[64];
	const char *text = cli_option(c, option);

	*ret = fallback;
	snprintf(what, sizeof(what), "--%s", option);
	return !text || cli_number(c, what, text, max, ret);
}

static bool pattern_is_known(const char *pattern)
{
	static const char *const known[] = {"read",	"write",     "readwrite",
					    "randread", "randwrite", "randrw"};

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (!strcmp(pattern, known[i]))
			return true;
	return false;
}

int cmd_bench(struct cli *c)
{
	const char *pattern = cli_option(c, "pattern") ?: "randread",
		   *block = cli_option(c, "block-size") ?: "4k", *size = cli_option(c, "size"),
		   *step = cli_option(c, "stride");
	uint64_t block_bytes, depth, secs, flush_every, read_percent, area = 0, stride = 0;
	char *escaped, *path;
	json_t *body, *answer;
	int r;

	if (!cli_size(c, "--block-size", block, INT64_MAX, &block_bytes) ||
	    (size && !cli_size(c, "--size", size, INT64_MAX, &area)) ||
	    (step && !cli_size(c, "--stride", step, INT64_MAX, &stride)) ||
	    !number_of(c, "depth", DEPTH_MAX, 32, &depth) ||
	    !number_of(c, "secs", SECS_MAX, 3, &secs) ||
	    !number_of(c, "flush-every", UINT32_MAX, 0, &flush_every) ||
	    !number_of(c, "read-percent", 100, 50, &read_percent))
		return EXIT_USAGE;
	if (!pattern_is_known(pattern))
		return cli_usage(c,
				 "--pattern is read, write, readwrite, randread, randwrite or "
				 "randrw, not '%s'",
				 pattern);
	if (strcmp(pattern, "read") && strcmp(pattern, "randread") && !cli_option(c, "overwrite"))
		return cli_usage(c, "'%s' overwrites the volume: say --overwrite if that is meant",
				 pattern);
	body = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "pattern", pattern,
			 "block_bytes", (json_int_t)block_bytes, "depth", (json_int_t)depth,
			 "seconds", (json_int_t)secs, "flush_every", (json_int_t)flush_every,
			 "read_percent", (json_int_t)read_percent, "size_bytes", (json_int_t)area,
			 "stride_bytes", (json_int_t)stride, "once", cli_option(c, "once") != NULL);
	escaped = api_escape(c->args[0]);
	path = mem_printf("/v1/volumes/%s/bench", escaped);
	check(body && path);
	r = api_call(c, "POST", path, body, &answer);
	json_decref(body);
	mem_free(path);
	mem_free(escaped);
	if (r)
		return r;
	if (c->json)
		print_json(answer);
	else
		print_fields(answer, fields, ARRAY_LEN(fields));
	json_decref(answer);
	return EXIT_OK;
}
