/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - strata-metad: the database, the server (metad.h) and its HTTP side, put together.
 *
 * Starting: database -> metad (reads it, listens for nodes) -> HTTP -> ready. Ending (SIGTERM): HTTP answers what it has and closes while metad still
 * completes requests, then metad, then the database. When the SAN goes out of service the process ends with an error: whoever supervises it starts
 * it again, and it reads what is true from the database. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metadata/api/http.h"
#include "metadata/api/metad.h"
#include "metadata/store/metastore.h"
#include "src/base/config.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/ioe/notify.h"

struct options {
	char *data, *key_file, *token_file, *engine;
	struct config_list api, rpc;
	uint64_t ready_fd;
};

struct program {
	struct options opt;
	struct ioe *ioe;
	struct metastore *store;
	struct metad metad;
	struct http *http;
	struct auth_key key, token;
	char *token_text;
	bool has_key, ending;
	int exit_code;
};

static void metad_opened(void *arg, int status, const char *errmsg);
static void metad_failed(void *arg, int status);
static void on_terminate(void *arg);
static void end_metad(void *arg);
static void end_store(void *arg);
static void end_loop(void *arg);

/* ---- options -------------------------------------------------------------------------------------------------------------- */

static enum config_verdict read_options(struct options *o, int argc, char **argv,
					char errmsg[ERRMSG_LEN])
{
	struct config_option table[] = {
	    {"data", CONFIG_STRING, &o->data, "DIR", .help = "where the database is (DIR/meta)",
	     .required = true},
	    {"rpc", CONFIG_LIST, &o->rpc, "ADDR",
	     .help = "serve nodes here: host:port or unix:PATH", .required = true},
	    {"api", CONFIG_LIST, &o->api, "ADDR",
	     .help = "serve the REST API here: host:port or unix:PATH", .required = true},
	    {"key-file", CONFIG_STRING, &o->key_file, "FILE",
	     .help = "the cluster's secret, needed for TCP between daemons"},
	    {"api-token-file", CONFIG_STRING, &o->token_file, "FILE",
	     .help = "the bearer token, needed for API addresses that other machines can reach"},
	    {"engine", CONFIG_WORD, &o->engine, "uring|aio",
	     .help = "the I/O engine (uring, and aio where the kernel refuses it)",
	     .words = "uring|aio"},
	    {"ready-fd", CONFIG_NUMBER, &o->ready_fd, "N",
	     .help = "write one line to this descriptor when serving (1)", .max = 1 << 20},
	};
	const struct config c = {.program = "strata-metad",
				 .summary = "metadata server",
				 .options = table,
				 .options_n = ARRAY_LEN(table)};

	o->ready_fd = 1;
	return config_parse(&c, argc, argv, errmsg);
}

/* ---- starting -------------------------------------------------------------------------------------------------------------- */

static uint64_t log_clock(void *arg)
{
	return ioe_wall_ns(arg);
}

static int secrets_load(struct program *p, char errmsg[ERRMSG_LEN])
{
	int r = 0;

	if (p->opt.key_file) {
		r = auth_key_load(p->ioe, p->opt.key_file, &p->key, errmsg);
		p->has_key = !r;
	}
	if (!r && p->opt.token_file) {
		r = auth_key_load(p->ioe, p->opt.token_file, &p->token, errmsg);
		p->token_text = r ? NULL : mem_strndup((const char *)p->token.bytes, p->token.len);
		if (!r && !p->token_text)
			r = -ENOMEM;
	}
	return r;
}

static int store_open(struct program *p, char errmsg[ERRMSG_LEN])
{
	char *path = mem_printf("%s/meta", p->opt.data);
	int r = path ? ioe_mkdir(p->ioe, p->opt.data, 0700) : -ENOMEM;

	if (r)
		snprintf(errmsg, ERRMSG_LEN, "--data %s cannot be made", p->opt.data);
	else
		r = metastore_open_rocksdb(p->ioe, path, &p->store, errmsg);
	mem_free(path);
	return r;
}

int main(int argc, char **argv)
{
	static struct program p;
	char errmsg[ERRMSG_LEN] = "";
	struct ioe_config ec = {0};
	struct metad_config mc = {.opened = metad_opened, .failed = metad_failed, .arg = &p};
	int r;

	switch (read_options(&p.opt, argc, argv, errmsg)) {
	case CONFIG_DONE:
		return 0;
	case CONFIG_BAD:
		fprintf(stderr, "strata-metad: %s\n", errmsg);
		return 2;
	case CONFIG_GO:
		break;
	}
	log_set_name("metad");
	if (p.opt.engine)
		ec.kind = strcmp(p.opt.engine, "aio") ? IOE_URING : IOE_AIO;
	r = ioe_new(&ec, &p.ioe);
	if (!r) {
		log_set_clock(log_clock, p.ioe);
		r = secrets_load(&p, errmsg);
	}
	if (!r)
		r = store_open(&p, errmsg);
	if (!r)
		r = ioe_on_terminate(p.ioe, on_terminate, &p);
	if (r) {
		fprintf(stderr, "strata-metad: %s: %s\n", *errmsg ? errmsg : "cannot start",
			err_text(r));
		return 1;
	}
	mc.ioe = p.ioe;
	mc.store = p.store;
	mc.rpc = (const char *const *)p.opt.rpc.items;
	mc.rpc_n = p.opt.rpc.n;
	mc.key = p.has_key ? &p.key : NULL;
	metad_open(&p.metad, &mc);
	ioe_run(p.ioe);
	return p.exit_code;
}

static void submit(void *arg, struct admin_req *r)
{
	admin_submit(arg, r);
}

static void say_ready(struct program *p)
{
	json_t *api = json_array(), *line = json_object();
	char addr[IOE_ADDR_MAX], *text;

	for (uint32_t i = 0; i < p->opt.api.n; i++) {
		http_addr(p->http, i, addr);
		json_array_append_new(api, json_string(addr));
	}
	json_object_set_new(line, "api", api);
	text = json_dumps(line, JSON_COMPACT);
	json_decref(line);
	log_info("serving");
	notify_ready((int)p->opt.ready_fd, text ? text : "{}");
	free(text);
}

static void metad_opened(void *arg, int status, const char *errmsg)
{
	struct program *p = arg;
	struct http_config hc = {.ioe = p->ioe,
				 .addrs = (const char *const *)p->opt.api.items,
				 .addrs_n = p->opt.api.n,
				 .token = p->token_text,
				 .submit = submit,
				 .submit_arg = &p->metad.admin};
	char why[ERRMSG_LEN] = "";

	if (!status && p->ending)
		return;
	if (!status) {
		status = http_open(&hc, &p->http, why);
		errmsg = why;
	}
	if (status) {
		log_error("cannot start", "why=\"%s\" error=%s",
			  errmsg && *errmsg ? errmsg : err_text(status), err_name(status));
		p->exit_code = 1;
		on_terminate(p);
		return;
	}
	say_ready(p);
}

/* ---- ending ------------------------------------------------------------------------------------------------------------------ */

static void metad_failed(void *arg, int status)
{
	struct program *p = arg;

	log_error("the database cannot be written any more; ending, to be started again",
		  "error=%s", err_name(status));
	p->exit_code = 1;
	on_terminate(p);
}

static void on_terminate(void *arg)
{
	struct program *p = arg;

	if (p->ending)
		return;
	p->ending = true;
	log_info("ending");
	if (p->http)
		http_close(p->http, end_metad, p);
	else
		end_metad(p);
}

static void end_metad(void *arg)
{
	struct program *p = arg;

	metad_close(&p->metad, end_store, p);
}

static void end_store(void *arg)
{
	struct program *p = arg;

	metastore_close(p->store, end_loop, p);
}

static void end_loop(void *arg)
{
	struct program *p = arg;

	mem_free(p->token_text);
	log_info("ended");
	ioe_stop(p->ioe);
}
