/* SPDX-License-Identifier: Apache-2.0 */
/* strata-metad - the metadata server: the database, the server over it (metad.h), and HTTP.
 *
 *   options -> engine -> database -> server -> HTTP -> ready ... SIGTERM -> HTTP and server -> database -> exit 0
 *
 * When the database goes out of service the process ends at once with exit status 1, without tidying up: what is in memory may differ from
 * what is durable. Whoever supervises it starts it again. Exit 2: used wrongly. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "metadata/api/http.h"
#include "metadata/api/metad.h"
#include "src/base/config.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/ioe/limits.h"
#include "src/ioe/notify.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, ADDR_TEXT = 512 };

static char *data, *engine, *key_file, *token_file;
static struct config_list api, rpc;
static uint64_t ready_fd = UINT64_MAX, takeover_after_ns = 60000000000ULL;
static bool foreground;

static const struct config_option options[] = {
    {"data", CONFIG_STRING, &data, "DIR", .required = true,
     .help = "where the database is (DIR/meta); made when it does not exist"},
    {"api", CONFIG_LIST, &api, "ADDR", .wrong = ioe_addr_wrong,
     .help = "serve HTTP at unix:PATH or HOST:PORT; default unix:DIR/run/api.sock"},
    {"rpc", CONFIG_LIST, &rpc, "ADDR", .wrong = ioe_addr_wrong,
     .help = "where nodes connect: unix:PATH or HOST:PORT; default unix:DIR/run/metad.sock"},
    {"key-file", CONFIG_STRING, &key_file, "FILE",
     .help = "the cluster's secret, for nodes that connect by TCP; default DIR/key if it exists"},
    {"api-token-file", CONFIG_STRING, &token_file, "FILE",
     .help = "what administrators must show on --api addresses that are not local"},
    {"engine", CONFIG_WORD, &engine, "NAME", .words = "auto|uring|aio",
     .help = "I/O engine: auto, uring or aio; default auto"},
    {"takeover-after", CONFIG_DURATION, &takeover_after_ns, "TIME",
     .help = "how long a node must be away before another one that is asked for a volume takes "
	     "it over; 0: only by 'strata volume release'; default 1m"},
    {"ready-fd", CONFIG_NUMBER, &ready_fd, "FD", .max = 1 << 20,
     .help = "write a line 'ready {...}' there when it serves"},
    {"foreground", CONFIG_FLAG, &foreground, .help = "write that line to stdout"},
};
static const struct config config = {"strata-metad", "The metadata server of a Strata cluster.",
				     options, ARRAY_LEN(options), "strata-noded"};

static struct {
	struct ioe *ioe;
	struct metastore *store;
	struct metad metad;
	struct http *http;
	struct auth_key key;
	bool has_key, opened, terminating;
	char *token;
	uint32_t ending;
	int exit_status;
} g;

static void start_opened(void *arg, int status, const char *errmsg);
static void failed(void *arg, int status);
static int serve_http(void);
static void ready(void);
static void terminate(void *arg);
static void front_closed(void *arg);
static void store_closed(void *arg);

static int complain(const char *what)
{
	fprintf(stderr, "strata-metad: %s\n", what);
	return EXIT_FAILED;
}

static uint64_t wall(void *arg)
{
	return ioe_wall_ns(arg);
}

/* ---- starting ------------------------------------------------------------------------------------------------------------------------ */

static int make_engine(void)
{
	struct ioe_config cfg = {.kind = ioe_kind_of(engine)};

	return ioe_new(&cfg, &g.ioe);
}

static int default_addr(struct config_list *list, const char *name)
{
	return config_list_default(list, mem_printf("unix:%s/run/%s", data, name));
}

static int load_key(char errmsg[ERRMSG_LEN])
{
	char path[ADDR_TEXT];
	int r;

	snprintf(path, sizeof(path), "%s/key", data);
	r = auth_key_load(g.ioe, key_file ? key_file : path, &g.key, errmsg);
	g.has_key = r == 0;
	return r == -ENOENT && !key_file ? 0 : r;
}

/* Options that do not go together: the way to exit status 2. */
static int check_options(char errmsg[ERRMSG_LEN])
{
	for (uint32_t i = 0; i < api.n; i++) {
		if (token_file || ioe_addr_is_local(api.items[i]))
			continue;
		snprintf(errmsg, ERRMSG_LEN,
			 "--api %.100s can be reached from other machines: --api-token-file names "
			 "what administrators must show there",
			 api.items[i]);
		return -EACCES;
	}
	return 0;
}

/* What the server would say when everything is made. */
static int check_addrs(char errmsg[ERRMSG_LEN])
{
	for (uint32_t i = 0; i < rpc.n; i++) {
		if (!strncmp(rpc.items[i], "unix:", 5) || g.has_key)
			continue;
		snprintf(errmsg, ERRMSG_LEN,
			 "--rpc %.100s: nodes that connect by TCP must prove who they are, and "
			 "there is no key file",
			 rpc.items[i]);
		return -EACCES;
	}
	return 0;
}

static int load_token(char errmsg[ERRMSG_LEN])
{
	size_t len;
	int r;

	if (!token_file)
		return 0;
	r = ioe_file_load(g.ioe, token_file, &g.token, &len);
	if (r) {
		snprintf(errmsg, ERRMSG_LEN, "cannot read the token file %.150s: %s", token_file,
			 err_text(r));
		return r;
	}
	g.token[strcspn(g.token, "\r\n")] = '\0';
	if (strlen(g.token) >= 16)
		return 0;
	snprintf(errmsg, ERRMSG_LEN, "the token in %.150s is shorter than 16 characters",
		 token_file);
	return -EINVAL;
}

/* DIR, DIR/meta's parent, DIR/run, the key. */
static int prepare(char errmsg[ERRMSG_LEN])
{
	char path[ADDR_TEXT];
	int r = ioe_path_make_absolute(&data);

	if (!r)
		r = ioe_addrs_make_absolute(api.items, api.n);
	if (!r)
		r = ioe_addrs_make_absolute(rpc.items, rpc.n);
	if (r)
		snprintf(errmsg, ERRMSG_LEN, "cannot make the paths absolute: %s", err_text(r));
	if (!r)
		r = load_key(errmsg);
	if (!r)
		r = load_token(errmsg);
	if (!r)
		r = check_addrs(errmsg);
	if (r)
		return r;
	/* from here on something is left behind */
	r = ioe_mkdir(g.ioe, data, 0700);
	snprintf(path, sizeof(path), "%s/run", data);
	if (!r && (!api.n || !rpc.n))
		r = ioe_mkdir(g.ioe, path, 0700);
	if (!r)
		r = default_addr(&api, "api.sock");
	if (!r)
		r = default_addr(&rpc, "metad.sock");
	if (r)
		snprintf(errmsg, ERRMSG_LEN, "cannot use %.150s: %s", data, err_text(r));
	return r;
}

static int start(char errmsg[ERRMSG_LEN])
{
	struct metad_config cfg = {
	    .ioe = g.ioe,
	    .rpc = (const char *const *)rpc.items,
	    .takeover_ns = takeover_after_ns ? takeover_after_ns : UINT64_MAX,
	    .opened = start_opened,
	    .failed = failed,
	};
	char path[ADDR_TEXT];
	int r = prepare(errmsg);

	if (r)
		return r;
	snprintf(path, sizeof(path), "%s/meta", data);
	r = metastore_open_rocksdb(g.ioe, path, &g.store, errmsg);
	if (r)
		return r;
	cfg.store = g.store;
	cfg.rpc_n = rpc.n;
	cfg.key = g.has_key ? &g.key : NULL;
	metad_open(&g.metad, &cfg);
	return 0;
}

static void start_opened(void *arg, int status, const char *errmsg)
{
	(void)arg;
	if (status)
		complain(errmsg);
	g.opened = status == 0;
	if (status || serve_http()) {
		g.exit_status = EXIT_FAILED;
		terminate(NULL);
		return;
	}
	ready();
}

static void submit(void *arg, struct admin_req *r)
{
	admin_submit(arg, r);
}

static int serve_http(void)
{
	struct http_config cfg = {
	    .ioe = g.ioe,
	    .addrs = (const char *const *)api.items,
	    .addrs_n = api.n,
	    .token = g.token,
	    .submit = submit,
	    .submit_arg = &g.metad.admin,
	};
	char errmsg[ERRMSG_LEN];
	int r = http_open(&cfg, &g.http, errmsg);

	if (r)
		complain(errmsg);
	return r;
}

static void ready(void)
{
	json_t *apis = json_array(), *rpcs = json_array(), *line;
	char addr[IOE_ADDR_MAX], *text;

	for (uint32_t i = 0; i < api.n; i++) {
		http_addr(g.http, i, addr);
		json_array_append_new(apis, json_string(addr));
	}
	for (uint32_t i = 0; i < g.metad.server.listeners_n; i++)
		json_array_append_new(rpcs, json_string(g.metad.server.listeners[i].addr));
	line = json_pack("{s:o, s:o}", "api", apis, "rpc", rpcs);
	text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	log_info("serving", "%s", text ? text : "");
	if (foreground)
		printf("ready %s\n", text ? text : "{}");
	fflush(stdout);
	notify_ready(ready_fd == UINT64_MAX ? -1 : (int)ready_fd, text ? text : "{}");
	free(text);
	json_decref(line);
}

/* ---- ending -------------------------------------------------------------------------------------------------------------------------- */

static void failed(void *arg, int status)
{
	(void)arg;
	(void)status; /* metad.c said it */
	_exit(EXIT_FAILED);
}

static void terminate(void *arg)
{
	(void)arg;
	if (g.terminating) /* a signal, while we end because the start failed */
		return;
	g.terminating = true;
	log_info("ending");
	g.ending = 1;
	if (g.http) {
		g.ending++;
		http_close(g.http, front_closed, NULL);
	}
	metad_close(&g.metad, front_closed, NULL);
}

static void front_closed(void *arg)
{
	(void)arg;
	if (--g.ending == 0)
		metastore_close(g.store, store_closed, NULL);
}

static void store_closed(void *arg)
{
	(void)arg;
	ioe_stop(g.ioe);
}

int main(int argc, char **argv)
{
	char errmsg[ERRMSG_LEN];
	int r;

	switch (config_parse(&config, argc, argv, errmsg)) {
	case CONFIG_DONE:
		return EXIT_SUCCESS;
	case CONFIG_BAD:
		complain(errmsg);
		return EXIT_USAGE;
	case CONFIG_GO:
		break;
	}
	if (check_options(errmsg)) {
		complain(errmsg);
		return EXIT_USAGE;
	}
	mem_tune();
	log_set_name("metad");
	limits_raise_files();
	r = make_engine();
	if (r) {
		snprintf(errmsg, sizeof(errmsg), "there is no I/O engine: %s", err_text(r));
		return complain(errmsg);
	}
	log_set_clock(wall, g.ioe);
	r = ioe_on_terminate(g.ioe, terminate, NULL);
	if (r)
		snprintf(errmsg, sizeof(errmsg), "cannot watch signals: %s", err_text(r));
	else
		r = start(errmsg);
	if (r)
		return complain(errmsg);
	ioe_run(g.ioe);
	log_set_clock(NULL, NULL);
	ioe_free(g.ioe);
	mem_free(g.token);
	config_free(&config);
	return g.exit_status;
}
