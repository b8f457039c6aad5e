/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_cluster.c - nodes, devices, pools, jobs, health, and the metadata itself. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "tools/cli/cli.h"

static const struct print_column device_columns[] = {
    {"NO", "number", PRINT_NUMBER},
    {"NODE", "node_name", PRINT_TEXT},
    {"STATE", "state", PRINT_TEXT},
    {"POOL", "pool", PRINT_TEXT},
    {"CAPACITY", "capacity_bytes", PRINT_SIZE},
    {"USED", "used_bytes", PRINT_SIZE},
    {"PATH", "path", PRINT_TEXT},
    {"REASON", "reason", PRINT_TEXT},
};
static const struct print_column node_columns[] = {
    {"NO", "number", PRINT_NUMBER}, {"NAME", "name", PRINT_TEXT}, {"STATE", "state", PRINT_TEXT},
    {"SINCE", "since", PRINT_TEXT}, {"NBD", "nbd", PRINT_LIST},
};
static const struct print_column pool_columns[] = {
    {"NAME", "name", PRINT_TEXT},
    {"CAPACITY", "capacity_bytes", PRINT_SIZE},
    {"USED", "used_bytes", PRINT_SIZE},
    {"VOLUMES", "volumes", PRINT_NUMBER},
    {"PROMISED", "volumes_bytes", PRINT_SIZE},
    {"MEDIA", "media", PRINT_TEXT},
    {"CHUNK", "chunk_bytes", PRINT_SIZE},
};
static const struct print_column job_columns[] = {
    {"ID", "id", PRINT_NUMBER},		{"KIND", "kind", PRINT_TEXT},
    {"SUBJECT", "subject", PRINT_TEXT}, {"STATE", "state", PRINT_TEXT},
    {"DONE", "done", PRINT_NUMBER},	{"TOTAL", "total", PRINT_NUMBER},
    {"CREATED", "created", PRINT_TEXT}, {"ERROR", "error.message", PRINT_TEXT},
};
static const struct print_column event_columns[] = {
    {"TIME", "time", PRINT_TEXT},
    {"SEVERITY", "severity", PRINT_TEXT},
    {"CODE", "code", PRINT_TEXT},
    {"MESSAGE", "message", PRINT_TEXT},
};

static int show_named(struct cli *c, const char *what, const struct print_column *columns,
		      size_t columns_n)
{
	char *name = api_escape(c->args[0]), *path = mem_printf("/v1/%s/%s", what, name);
	int r;

	check(path);
	r = show_command(c, path, columns, columns_n);
	mem_free(path);
	mem_free(name);
	return r;
}

int cmd_node_list(struct cli *c)
{
	return list_command(c, "/v1/nodes", node_columns, ARRAY_LEN(node_columns));
}

/* DELETE of a thing by name. */
static int remove_named(struct cli *c, const char *what)
{
	char *name = api_escape(c->args[0]), *path = mem_printf("/v1/%s/%s", what, name);
	json_t *answer;
	int r;

	check(path);
	r = api_call(c, "DELETE", path, NULL, &answer);
	mem_free(path);
	mem_free(name);
	if (r)
		return r;
	print_change(c, answer, "removed");
	json_decref(answer);
	return EXIT_OK;
}

int cmd_node_remove(struct cli *c)
{
	return remove_named(c, "nodes");
}

int cmd_pool_create(struct cli *c)
{
	const char *media = cli_option(c, "media"), *chunk = cli_option(c, "chunk");
	json_t *body, *answer;
	uint64_t bytes;
	int r;

	if (!media)
		return cli_usage(c, "--media flash or --media rotational is missing");
	if (chunk && !cli_size(c, "--chunk", chunk, INT64_MAX, &bytes))
		return EXIT_USAGE;
	body = json_pack("{s:s, s:s}", "name", c->args[0], "media", media);
	check(body);
	if (chunk)
		json_object_set_new(body, "chunk_bytes", json_integer((json_int_t)bytes));
	r = api_call(c, "POST", "/v1/pools", body, &answer);
	json_decref(body);
	if (r)
		return r;
	print_change(c, answer, "created");
	json_decref(answer);
	return EXIT_OK;
}

int cmd_pool_remove(struct cli *c)
{
	return remove_named(c, "pools");
}

int cmd_pool_list(struct cli *c)
{
	return list_command(c, "/v1/pools", pool_columns, ARRAY_LEN(pool_columns));
}

int cmd_pool_show(struct cli *c)
{
	return show_named(c, "pools", pool_columns, ARRAY_LEN(pool_columns));
}

int cmd_device_list(struct cli *c)
{
	return list_command(c, "/v1/devices", device_columns, ARRAY_LEN(device_columns));
}

/* The only node there is, so that small clusters need not name it. */
static int only_node(struct cli *c, json_t **ret_name)
{
	json_t *nodes;
	int r = api_list(c, "/v1/nodes", &nodes);

	if (r)
		return r;
	if (json_array_size(nodes) == 1)
		*ret_name = json_incref(json_object_get(json_array_get(nodes, 0), "name"));
	else if (json_array_size(nodes) == 0)
		r = cli_fail("no node has joined the cluster yet: start strata-noded on the "
			     "machine that has the device");
	else
		r = cli_usage(c, "--node NODE is missing: there are %zu nodes (strata node list)",
			      json_array_size(nodes));
	json_decref(nodes);
	return r;
}

int cmd_device_add(struct cli *c)
{
	const char *node = cli_option(c, "node"), *size = cli_option(c, "size"),
		   *pool = cli_option(c, "pool");
	char *absolute;
	json_t *body, *name = NULL, *answer;
	struct format_watch w;
	uint64_t bytes;
	int r;

	if (size && !cli_size(c, "--size", size, INT64_MAX, &bytes))
		return EXIT_USAGE;
	r = node ? EXIT_OK : only_node(c, &name);
	if (r)
		return r;
	absolute = c->args[0][0] == '/' ? mem_strdup(c->args[0]) : NULL;
	if (!absolute) {
		char *cwd =
		    getcwd(NULL, 0); /* the path is on the node; a relative one means this machine */

		absolute = cwd ? mem_printf("%s/%s", cwd, c->args[0]) : NULL;
		free(cwd);
	}
	check(absolute);
	body = json_pack("{s:o, s:s}", "node", node ? json_string(node) : name, "path", absolute);
	check(body);
	if (size)
		json_object_set_new(body, "size_bytes", json_integer((json_int_t)bytes));
	if (pool)
		json_object_set_new(body, "pool", json_string(pool));
	if (cli_option(c, "force"))
		json_object_set_new(body, "force", json_true());
	format_watch_init(&w, api_server(c), c->timeout_secs, absolute);
	r = api_call_watched(c, &w.watch, "POST", "/v1/devices", body, &answer);
	format_watch_end(&w);
	mem_free(absolute);
	json_decref(body);
	if (r)
		return r;
	if (c->json)
		print_json(answer);
	else
		printf("device %" JSON_INTEGER_FORMAT " added\n",
		       json_integer_value(json_object_get(answer, "number")));
	json_decref(answer);
	return EXIT_OK;
}

int cmd_device_remove(struct cli *c)
{
	char *name = api_escape(c->args[0]),
	     *path =
		 mem_printf("/v1/devices/%s%s", name, cli_option(c, "lost") ? "?lost=true" : "");
	json_t *answer;
	int r;

	check(path);
	r = api_call_job(c, "DELETE", path, NULL, cli_option(c, "async") != NULL, &answer);
	mem_free(path);
	mem_free(name);
	if (r)
		return r;
	print_change(c, answer, "removed");
	json_decref(answer);
	return EXIT_OK;
}

/* ---- jobs -------------------------------------------------------------------------------------------------------------------- */

int cmd_job_list(struct cli *c)
{
	return list_command(c, "/v1/jobs", job_columns, ARRAY_LEN(job_columns));
}

int cmd_job_show(struct cli *c)
{
	static const struct print_column fields[] = {
	    {"id", "id", PRINT_NUMBER},
	    {"kind", "kind", PRINT_TEXT},
	    {"subject", "subject", PRINT_TEXT},
	    {"state", "state", PRINT_TEXT},
	    {"done", "done", PRINT_NUMBER},
	    {"total", "total", PRINT_NUMBER},
	    {"created", "created", PRINT_TEXT},
	    {"ended", "ended", PRINT_TEXT},
	    {"error", "error.message", PRINT_TEXT},
	};
	char *name = api_escape(c->args[0]), *path = mem_printf("/v1/jobs/%s", name);
	json_t *answer, *result;
	int r;

	check(path);
	r = api_call(c, "GET", path, NULL, &answer);
	mem_free(path);
	mem_free(name);
	if (r)
		return r;
	result = json_object_get(answer, "result");
	if (c->json)
		print_json(answer);
	else
		print_fields(answer, fields, ARRAY_LEN(fields));
	if (!c->json && json_is_object(result)) {
		printf("result   ");
		json_dumpf(result, stdout, 0);
		printf("\n");
	}
	json_decref(answer);
	return EXIT_OK;
}

int cmd_job_cancel(struct cli *c)
{
	char *name = api_escape(c->args[0]), *path = mem_printf("/v1/jobs/%s/cancel", name);
	json_t *answer;
	int r;

	check(path);
	r = api_call(c, "POST", path, NULL, &answer);
	mem_free(path);
	mem_free(name);
	if (r)
		return r;
	if (c->json)
		print_json(answer);
	else
		printf("%s\n", json_string_value(json_object_get(answer, "state")) ?: "asked");
	json_decref(answer);
	return EXIT_OK;
}

/* ---- health ------------------------------------------------------------------------------------------------------------------ */

static void print_notes(const char *mark, json_t *list)
{
	json_t *note;
	size_t i;

	json_array_foreach (list, i, note) {
		const char *hint = json_string_value(json_object_get(note, "hint"));

		printf("  %s%s%s%s\n", mark,
		       json_string_value(json_object_get(note, "message")) ?: "?",
		       hint && *hint ? " - " : "", hint ? hint : "");
	}
}

int cmd_status(struct cli *c)
{
	static const struct print_column fields[] = {
	    {"state", "state", PRINT_TEXT},
	    {"version", "version", PRINT_TEXT},
	    {"cluster", "cluster", PRINT_TEXT},
	    {"nodes online", "nodes.online", PRINT_NUMBER},
	    {"nodes", "nodes.total", PRINT_NUMBER},
	    {"devices ok", "devices.ok", PRINT_NUMBER},
	    {"devices", "devices.total", PRINT_NUMBER},
	    {"volumes", "volumes", PRINT_NUMBER},
	    {"capacity", "capacity_bytes", PRINT_SIZE},
	    {"used", "used_bytes", PRINT_SIZE},
	    {"jobs running", "jobs", PRINT_NUMBER},
	};
	const char *health;
	json_t *answer;
	int r = api_call(c, "GET", "/v1/status", NULL, &answer);

	if (r)
		return r;
	health = json_string_value(json_object_get(answer, "health")) ?: "unknown";
	r = strcmp(health, "ok") ? EXIT_UNHEALTHY : EXIT_OK;
	if (c->json) {
		print_json(answer);
	} else {
		printf("%s\n", health);
		print_notes("- ", json_object_get(answer, "reasons"));
		print_notes("warning: ", json_object_get(answer, "warnings"));
		print_fields(answer, fields, ARRAY_LEN(fields));
	}
	json_decref(answer);
	return r;
}

int cmd_events(struct cli *c)
{
	const char *text = cli_option(c, "last");
	char path[64];
	uint64_t n = 50;
	json_t *answer;
	int r;

	if (text && !cli_number(c, "--last", text, 1000, &n))
		return EXIT_USAGE;
	if (!n)
		return cli_usage(c, "--last: how many events? 1 to 1000");
	snprintf(path, sizeof(path), "/v1/events?last=%" PRIu64, n);
	r = api_call(c, "GET", path, NULL, &answer);
	if (r)
		return r;
	if (c->json)
		print_json(json_object_get(answer, "items"));
	else
		print_table(json_object_get(answer, "items"), event_columns,
			    ARRAY_LEN(event_columns));
	json_decref(answer);
	return EXIT_OK;
}

/* "device 3", or "devices 1, 2, 5 and 7 more" */
static void name_devices(json_t *numbers, json_int_t n, char *text, size_t room)
{
	size_t i, used = (size_t)snprintf(text, room, n == 1 ? "device" : "devices");
	json_t *no;

	json_array_foreach (numbers, i, no)
		if (used + 24 < room)
			used +=
			    (size_t)snprintf(text + used, room - used, "%s %" JSON_INTEGER_FORMAT,
					     i ? "," : "", json_integer_value(no));
		else
			break;
	if (n > (json_int_t)i)
		snprintf(text + used, room - used, " and %" JSON_INTEGER_FORMAT " more",
			 n - (json_int_t)i);
}

/* A check that could not look at everything is no proof of anything: exit code 1, unless something is wrong (4). */
static int check_report(const struct cli *c, json_t *result)
{
	json_t *problems = json_object_get(result, "problems"),
	       *away = json_object_get(result, "devices_away"), *p;
	json_int_t problems_n = json_integer_value(json_object_get(result, "problems_n")),
		   away_n = json_integer_value(json_object_get(result, "devices_away_n"));
	char names[256];
	size_t i;

	if (!c->json) {
		json_array_foreach (problems, i, p)
			printf("%s\n", json_string_value(p) ?: "?");
		if (problems_n > (json_int_t)json_array_size(problems))
			printf("and %" JSON_INTEGER_FORMAT " more\n",
			       problems_n - (json_int_t)json_array_size(problems));
		printf("%" JSON_INTEGER_FORMAT " chunks, %" JSON_INTEGER_FORMAT
		       " slots: %" JSON_INTEGER_FORMAT " problems%s\n",
		       json_integer_value(json_object_get(result, "chunks")),
		       json_integer_value(json_object_get(result, "slots")), problems_n,
		       away_n ? " in what could be checked" : "");
	}
	if (away_n) {
		name_devices(away, away_n, names, sizeof(names));
		cli_error(EXIT_FAILED, "device_away",
			  "'strata status' and 'strata device list' tell why.",
			  "not checked: %s: what the map has there is not known to be right", names);
	}
	if (problems_n)
		return EXIT_UNHEALTHY;
	return away_n ? EXIT_FAILED : EXIT_OK;
}

int cmd_check(struct cli *c)
{
	bool async = cli_option(c, "async") != NULL;
	json_t *answer;
	int r = api_call_job(c, "POST", "/v1/check", NULL, async, &answer);

	if (r)
		return r;
	if (async) {
		print_change(c, answer, "");
	} else {
		if (c->json)
			print_json(answer);
		r = check_report(c, json_object_get(answer, "result"));
	}
	json_decref(answer);
	return r;
}

int cmd_meta_backup(struct cli *c)
{
	json_t *body, *answer;
	int r;

	if (c->args[0][0] != '/')
		return cli_usage(
		    c, "the backup's path is on the server's machine and must be absolute");
	body = json_pack("{s:s}", "path", c->args[0]);
	check(body);
	r = api_call(c, "POST", "/v1/metadata/backup", body, &answer);
	json_decref(body);
	if (r)
		return r;
	if (c->json)
		print_json(answer);
	else
		printf("commit %" JSON_INTEGER_FORMAT " kept in %s\n",
		       json_integer_value(json_object_get(answer, "commit")), c->args[0]);
	json_decref(answer);
	return EXIT_OK;
}
