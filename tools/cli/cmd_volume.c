/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_volume.c - volumes, their exports, and where their data lies. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/base/units.h"
#include "src/model/ids.h"
#include "tools/cli/cli.h"

static const struct print_column volume_columns[] = {
    {"NAME", "name", PRINT_TEXT},	{"SIZE", "size_bytes", PRINT_SIZE},
    {"USED", "used_bytes", PRINT_SIZE}, {"POOL", "pool", PRINT_TEXT},
    {"OPEN", "open", PRINT_TEXT},	{"OWNER", "owner_name", PRINT_TEXT},
    {"STATE", "state", PRINT_TEXT},
};
static const struct print_column volume_fields[] = {
    {"name", "name", PRINT_TEXT},	  {"uuid", "uuid", PRINT_TEXT},
    {"size", "size_bytes", PRINT_SIZE},	  {"used", "used_bytes", PRINT_SIZE},
    {"pool", "pool", PRINT_TEXT},	  {"state", "state", PRINT_TEXT},
    {"open", "open", PRINT_TEXT},	  {"owner", "owner_name", PRINT_TEXT},
    {"epoch", "epoch", PRINT_NUMBER},	  {"sector", "sector_bytes", PRINT_SIZE},
    {"chunk", "chunk_bytes", PRINT_SIZE}, {"write cache", "write_cache", PRINT_TEXT},
    {"created", "created", PRINT_TEXT},
};

/* "/v1/<what>/<name><tail>", the name escaped; mem_free */
static char *path_of(const char *what, const char *name, const char *tail)
{
	char *escaped = api_escape(name), *path = mem_printf("/v1/%s/%s%s", what, escaped, tail);

	mem_free(escaped);
	check(path);
	return path;
}

/* Calls and prints the answer: JSON, or the line for people. */
static int change(struct cli *c, const char *method, char *path, json_t *body, bool async,
		  const char *done)
{
	json_t *answer;
	int r = api_call_job(c, method, path, body, async, &answer);

	mem_free(path);
	json_decref(body);
	if (r)
		return r;
	print_change(c, answer, done);
	json_decref(answer);
	return EXIT_OK;
}

int cmd_volume_create(struct cli *c)
{
	const char *size = cli_option(c, "size"), *sector = cli_option(c, "sector-size"),
		   *cache = cli_option(c, "write-cache");
	const char *pool = cli_option(c, "pool");
	uint64_t bytes, sector_bytes;
	json_t *body;

	if (!size)
		return cli_usage(c, "--size SIZE is missing, for example --size 10G");
	if (!cli_size(c, "--size", size, VOLUME_BYTES_MAX, &bytes))
		return EXIT_USAGE;
	body = json_pack("{s:s, s:I}", "name", c->args[0], "size_bytes", (json_int_t)bytes);
	check(body);
	if (pool)
		json_object_set_new(body, "pool", json_string(pool));
	if (cache)
		json_object_set_new(body, "write_cache", json_string(cache));
	if (sector) {
		if (!cli_size(c, "--sector-size", sector, INT64_MAX, &sector_bytes)) {
			json_decref(body);
			return EXIT_USAGE;
		}
		json_object_set_new(body, "sector_bytes", json_integer((json_int_t)sector_bytes));
	}
	return change(c, "POST", mem_strdup("/v1/volumes"), body, false, "created");
}

int cmd_volume_list(struct cli *c)
{
	return list_command(c, "/v1/volumes", volume_columns, ARRAY_LEN(volume_columns));
}

int cmd_volume_show(struct cli *c)
{
	char *path = path_of("volumes", c->args[0], "");
	int r = show_command(c, path, volume_fields, ARRAY_LEN(volume_fields));

	mem_free(path);
	return r;
}

int cmd_volume_resize(struct cli *c)
{
	const char *size = cli_option(c, "size");
	uint64_t bytes;

	if (!size)
		return cli_usage(c, "--size SIZE is missing");
	if (!cli_size(c, "--size", size, VOLUME_BYTES_MAX, &bytes))
		return EXIT_USAGE;
	return change(c, "PATCH", path_of("volumes", c->args[0], ""),
		      json_pack("{s:I}", "size_bytes", (json_int_t)bytes), false, "resized");
}

int cmd_volume_release(struct cli *c)
{
	char *path = path_of("volumes", c->args[0], "/release");
	json_t *answer;
	int r = api_call(c, "POST", path, NULL, &answer);

	mem_free(path);
	if (r)
		return r;
	print_change(c, answer,
		     json_is_false(json_object_get(answer, "released"))
			 ? "nobody had the volume open"
			 : "released");
	json_decref(answer);
	return EXIT_OK;
}

int cmd_volume_delete(struct cli *c)
{
	return change(c, "DELETE", path_of("volumes", c->args[0], ""), NULL,
		      cli_option(c, "async") != NULL, "deleted");
}

int cmd_volume_stats(struct cli *c)
{
	char *path = path_of("volumes", c->args[0], "/stats");
	json_t *answer, *value;
	const char *key;
	int r = api_call(c, "GET", path, NULL, &answer);

	mem_free(path);
	if (r)
		return r;
	if (c->json) {
		print_json(answer);
	} else if (json_is_null(json_object_get(answer, "node"))) {
		printf("nobody has the volume open\n");
	} else {
		json_object_foreach (json_object_get(answer, "counters"), key, value)
			printf("%-28s %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(value));
	}
	json_decref(answer);
	return EXIT_OK;
}

/* ---- map: an address through the three layers ----------------------------------------------------------------------------- */

static void print_segment(json_t *segment)
{
	json_t *replicas = json_object_get(segment, "replicas"), *rep;
	size_t i;

	printf("%14" JSON_INTEGER_FORMAT " %12" JSON_INTEGER_FORMAT "  %-8s",
	       json_integer_value(json_object_get(segment, "offset")),
	       json_integer_value(json_object_get(segment, "length")),
	       json_string_value(json_object_get(segment, "kind")));
	if (!json_array_size(replicas)) {
		printf("\n");
		return;
	}
	printf("  chunk %" JSON_INTEGER_FORMAT " layer %" JSON_INTEGER_FORMAT,
	       json_integer_value(json_object_get(segment, "chunk")),
	       json_integer_value(json_object_get(segment, "layer")));
	json_array_foreach (replicas, i, rep) {
		json_t *at = json_object_get(rep, "device_offset"),
		       *present = json_object_get(rep, "present_blocks");

		printf("  %s device %" JSON_INTEGER_FORMAT " slot %" JSON_INTEGER_FORMAT,
		       json_string_value(json_object_get(rep, "node_name")) ?: "?",
		       json_integer_value(json_object_get(rep, "device")),
		       json_integer_value(json_object_get(rep, "slot")));
		if (json_is_integer(at))
			printf(" offset %" JSON_INTEGER_FORMAT, json_integer_value(at));
		else
			printf(" (away)");
		if (json_is_integer(present))
			printf(" blocks %" JSON_INTEGER_FORMAT, json_integer_value(present));
		if (json_string_value(json_object_get(rep, "path")))
			printf("  %s", json_string_value(json_object_get(rep, "path")));
	}
	printf("\n");
}

/* The server answers page by page, so one unmapped stretch may come in several: they are joined, as are those of JSON. */
static void take_segment(json_t *all, json_t *segment)
{
	json_t *last = json_array_get(all, json_array_size(all) - 1);
	const char *kind = json_string_value(json_object_get(segment, "kind"));
	json_int_t last_len = json_integer_value(json_object_get(last, "length"));

	if (!last || !kind || strcmp(kind, "unmapped") ||
	    strcmp(json_string_value(json_object_get(last, "kind")), "unmapped") ||
	    json_integer_value(json_object_get(last, "offset")) + last_len !=
		json_integer_value(json_object_get(segment, "offset"))) {
		json_array_append(all, segment);
		return;
	}
	json_object_set_new(last, "length",
			    json_integer(last_len +
					 json_integer_value(json_object_get(segment, "length"))));
}

/* Prints all but the last, which the next page may lengthen. */
static void print_settled(json_t *all)
{
	while (json_array_size(all) > 1) {
		print_segment(json_array_get(all, 0));
		json_array_remove(all, 0);
	}
}

int cmd_map(struct cli *c)
{
	const char *text;
	uint64_t off = 0, len = UINT64_MAX, end;
	json_t *all = json_array(), *answer = NULL, *segments, *segment, *next;
	char *escaped;
	bool more, titled = c->json;
	size_t i;
	int r;

	if ((text = cli_option(c, "offset")) && !cli_size(c, "--offset", text, INT64_MAX, &off))
		return EXIT_USAGE;
	if ((text = cli_option(c, "length")) && !cli_size(c, "--length", text, INT64_MAX, &len))
		return EXIT_USAGE;
	end = len > UINT64_MAX - off ? UINT64_MAX : off + len;
	escaped = api_escape(c->args[0]);
	for (;;) {
		char *path =
		    end == UINT64_MAX
			? mem_printf("/v1/volumes/%s/map?offset=%" PRIu64, escaped, off)
			: mem_printf("/v1/volumes/%s/map?offset=%" PRIu64 "&length=%" PRIu64,
				     escaped, off, end - off);

		check(path);
		r = api_call(c, "GET", path, NULL, &answer);
		mem_free(path);
		if (r)
			break;
		if (!titled)
			printf("%14s %12s  %-8s\n", "OFFSET", "LENGTH", "KIND");
		titled = true;
		segments = json_object_get(answer, "segments");
		json_array_foreach (segments, i, segment) {
			take_segment(all, segment);
			if (!c->json)
				print_settled(all);
		}
		next = json_object_get(answer, "next_offset");
		more = json_is_integer(next) && (uint64_t)json_integer_value(next) < end;
		off = more ? (uint64_t)json_integer_value(next) : end;
		json_decref(answer);
		if (!more)
			break;
	}
	if (c->json && !r)
		print_json(all);
	else if (!c->json && json_array_size(all))
		print_segment(json_array_get(all, 0));
	json_decref(all);
	mem_free(escaped);
	return r;
}

/* ---- exports ------------------------------------------------------------------------------------------------------------------ */

int cmd_export_list(struct cli *c)
{
	static const struct print_column columns[] = {{"VOLUME", "volume", PRINT_TEXT},
						      {"SIZE", "size_bytes", PRINT_SIZE},
						      {"OPEN", "open", PRINT_TEXT},
						      {"OWNER", "owner_name", PRINT_TEXT},
						      {"CLIENTS", "clients_n", PRINT_NUMBER},
						      {"EXCLUSIVE", "exclusive", PRINT_TEXT},
						      {"URI", "uri", PRINT_TEXT}};
	json_t *items, *item;
	size_t i;
	int r = api_list(c, "/v1/exports", &items);

	if (r)
		return r;
	if (c->json) {
		print_json(items);
	} else {
		json_array_foreach (items, i, item) {
			json_t *clients = json_object_get(item, "clients");

			json_object_set(
			    item, "uri",
			    json_object_get(json_array_get(json_object_get(item, "uris"), 0),
					    "uri"));
			if (json_is_array(clients))
				json_object_set_new(item, "clients_n",
						    json_integer(
							(json_int_t)json_array_size(clients)));
		}
		print_table(items, columns, ARRAY_LEN(columns));
	}
	json_decref(items);
	return EXIT_OK;
}

static void print_clients(json_t *clients)
{
	json_t *k;
	size_t i;

	if (!json_is_array(clients))
		printf("who is connected is not known: its node does not answer\n");
	json_array_foreach (clients, i, k)
		printf("connected: %s%s\n", json_string_value(json_object_get(k, "client")) ?: "?",
		       json_is_true(json_object_get(k, "read_only")) ? " (read-only)" : "");
}

static void print_attach(const char *node, const char *uri)
{
	printf("\n%s: %s\n"
	       "  QEMU      qemu-system-x86_64 ... -drive "
	       "'file=%s,format=raw,if=virtio,cache=none,discard=unmap'\n"
	       "  fio       fio --name=test --ioengine=nbd '--uri=%s' --rw=randwrite --bs=4k "
	       "--iodepth=32 --size=1G\n"
	       "  copy in   nbdcopy disk.raw '%s'\n"
	       "  copy out  nbdcopy '%s' disk.raw\n"
	       "  convert   qemu-img convert -n -t none -T none disk.qcow2 '%s'\n"
	       "  look      nbdinfo '%s'\n",
	       node, uri, uri, uri, uri, uri, uri, uri);
}

int cmd_export_show(struct cli *c)
{
	char *path = path_of("exports", c->args[0], "");
	json_t *answer, *uris, *u;
	const char *owner;
	size_t i;
	int r = api_call(c, "GET", path, NULL, &answer);

	mem_free(path);
	if (r)
		return r;
	uris = json_object_get(answer, "uris");
	owner = json_string_value(json_object_get(answer, "owner_name"));
	if (c->json) {
		print_json(answer);
	} else {
		if (owner)
			printf(
			    "volume %s is open on %s; other nodes refuse it until it is closed\n",
			    c->args[0], owner);
		else
			printf("volume %s is open nowhere; each of these addresses serves it\n",
			       c->args[0]);
		if (json_is_true(json_object_get(answer, "exclusive")))
			printf("one client at a time (export set --exclusive)\n");
		print_clients(json_object_get(answer, "clients"));
		json_array_foreach (uris, i, u)
			if (!owner || json_equal(json_object_get(u, "node"),
						 json_object_get(answer, "owner")))
				print_attach(json_string_value(json_object_get(u, "node_name"))
						 ?: "?",
					     json_string_value(json_object_get(u, "uri")) ?: "?");
		if (!json_array_size(uris))
			printf("no node is online: 'strata status' tells more\n");
	}
	json_decref(answer);
	return EXIT_OK;
}

int cmd_export_set(struct cli *c)
{
	const char *exclusive = cli_option(c, "exclusive");

	if (!exclusive)
		return cli_usage(c, "--exclusive yes or --exclusive no is missing");
	if (strcmp(exclusive, "yes") && strcmp(exclusive, "no"))
		return cli_usage(c, "--exclusive: yes or no, not '%s'", exclusive);
	return change(c, "PATCH", path_of("exports", c->args[0], ""),
		      json_pack("{s:b}", "exclusive", !strcmp(exclusive, "yes")), false, "set");
}
