/* SPDX-License-Identifier: Apache-2.0 */
/* cli.h - what the commands of `strata` share.
 *
 * A command is a row of the table in commands.c and one function. It talks to the metadata server's REST API through api_*(), prints
 * either JSON (--json, the server's answer as it is) or text for people, and returns an exit code:
 *   0 done    1 refused or failed (the reason is on stderr)    2 used wrongly: what was asked for cannot be right, whether this program saw
 * that or the server (its code `invalid`)    3 the server cannot be reached    4 not healthy (status, check, fsck) */
#ifndef STRATA_TOOLS_CLI_CLI_H
#define STRATA_TOOLS_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { TIMEOUT_SECS = 60, TIMEOUT_SECS_MAX = 86400 };
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3, EXIT_UNHEALTHY = 4 };

struct cli_option {
	const char *name; /* without the dashes; a command's options are long ones only */
	const char *arg;  /* NULL: a switch; "ADDR ...": may be given several times */
	const char *help;
};

enum { CLI_OPTIONS_MAX = 16, CLI_ARGS_MAX = 8, CLI_REPEAT_MAX = 16 };

/* One parsed command line. */
struct cli {
	/* global options */
	const char *
	    server; /* --server, $STRATA_SERVER (empty is unset), or found by a running `strata up` in ./strata-data */
	bool json;
	long timeout_secs; /* --timeout: how long the server may take for one answer */
	/* of the command */
	const struct cli_command *cmd;
	int args_n;
	const char *args[CLI_ARGS_MAX];
	struct {
		int n;
		const char *values[CLI_REPEAT_MAX];
	} given[CLI_OPTIONS_MAX]; /* by the row in cmd->options */
};

struct cli_command {
	const char *name;  /* "volume create" */
	const char *usage; /* what follows the name */
	const char *help;  /* one line */
	int args_min, args_max;
	int (*run)(struct cli *c);
	struct cli_option options[CLI_OPTIONS_MAX];
};
extern const struct cli_command cli_commands[];	     /* ends with name NULL */
extern const struct cli_option cli_global_options[]; /* ends with name NULL */

/* The option's value, NULL when absent; "" for a switch that was given. Naming one that the command does not have is a bug. */
const char *cli_option(const struct cli *c, const char *name);
int cli_option_values(const struct cli *c, const char *name, const char *const **ret_values);

/* Parses an option or argument; on bad text, or what is not from min to max, prints what is expected and returns false. */
bool cli_size(const struct cli *c, const char *what, const char *text, uint64_t max_bytes,
	      uint64_t *ret_bytes);
bool cli_number(const struct cli *c, const char *what, const char *text, uint64_t max,
		uint64_t *ret_n);
bool cli_duration(const struct cli *c, const char *what, const char *text, uint64_t min_ns);

/* ---- errors (errors.c) ----------------------------------------------------------------------------------------------------- */

/* What failed, on stderr: "strata: MESSAGE", and on a line of its own what to do about it (hint; NULL or "": nothing is known). With --json it is one line
 * {"code", "message", "hint"}. The codes are the server's (docs/operations.md), and our own `failed`, `cancelled` and `unreachable`. Returns exit_code, so that a
 * command can `return cli_error(...)`. */
int cli_error(int exit_code, const char *code, const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* `failed`, EXIT_FAILED */
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* `invalid`, EXIT_USAGE; the hint is how the command is used */
int cli_usage(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_errors_as_json(bool yes);

/* Nobody else has the cluster's directory as long as this descriptor is open (it may be left to the end of the program). -EWOULDBLOCK: holder
 * gets the pid of who has it; -errno. */
enum { CLI_PID_LEN = 32 };
int cli_lock_data(const char *dir, char holder[CLI_PID_LEN]);

/* The devices on the lists of the nodes below a cluster's directory, until `each` returns other than 0, which is returned. 1 after printing why a list
 * cannot be read. */
int cli_each_device(const char *dir,
		    int (*each)(void *arg, const char *uuid_text, const char *path), void *arg);

/* How far a long work is, on stderr (progress.c). Zeroed by the caller; what: "checking /dev/sdb". */
struct progress {
	uint64_t began_ms, told_ms;
	bool line_open; /* on a terminal: the cursor is behind it */
};
void progress_show(struct progress *p, const char *what, uint64_t done, uint64_t all);
void progress_end(struct progress *p); /* before something else is printed */
uint64_t cli_now_ms(void);	       /* of a clock that only goes forward */

/* ---- the server (http.c) ------------------------------------------------------------------------------------------------ */

/* One exchange. body may be NULL (borrowed). On EXIT_OK *ret_answer is the parsed answer, the caller's to json_decref (JSON null for an empty one).
 * On anything else the reason and the server's hint are on stderr. `path` is "/v1/..." with its query; names in it go through
 * api_escape. A 202 with {"job"} is followed, with progress on stderr when that is a terminal, unless `async`. */
int api_call(struct cli *c, const char *method, const char *path, json_t *body, json_t **ret_answer);
int api_call_job(struct cli *c, const char *method, const char *path, json_t *body, bool async,
		 json_t **ret_answer);
/* All pages of a list: calls `path` with ?limit= and ?after= until the end; *ret_items is an array. `path` has no query. */
int api_list(struct cli *c, const char *path, json_t **ret_items);
char *api_escape(const char *name);    /* percent-encoded; mem_free */
const char *api_server(struct cli *c); /* its address; NULL: none is known */

/* What watches over a request that may take long: asked about once a second while there is no answer. False gives up: errmsg says why. */
struct api_watch {
	bool (*go_on)(struct api_watch *w, char errmsg[256]);
	bool gave_up; /* result */
};
/* As api_call, for as long as the watch goes on (its end is EXIT_UNREACHABLE). */
int api_call_watched(struct cli *c, struct api_watch *watch, const char *method, const char *path,
		     json_t *body, json_t **ret_answer);

struct api_error {
	char code[32], message[512], hint[512];
};
/* The same without a command line, for `up`: returns the HTTP status, 0 when there is no answer: unreachable, silent for timeout_secs, or given up.
 * Then, and from 400 on, *ret_why says what was wrong. */
struct api_target {
	const char *server;
	long timeout_secs;
	struct api_watch *watch; /* instead of the timeout; NULL: none */
};
long api_raw(const struct api_target *to, const char *method, const char *path, json_t *body,
	     json_t **ret_answer, struct api_error *ret_why);
/* An answer that is text; NULL: there is none. mem_free */
char *api_text(const struct api_target *to, const char *path);

/* A watch over POST /v1/devices (format.c): goes on as long as the node gets on with formatting the device at `path`, and for patience_secs without
 * progress; shows it on stderr. `stop` (may be NULL) is asked, too. */
struct format_watch {
	struct api_watch watch;
	const char *server, *path;
	long patience_secs;
	bool (*stop)(void *arg);
	void *stop_arg;
	/* private */
	uint64_t looked_ms, moved_ms, done, all;
	struct progress shown;
};
void format_watch_init(struct format_watch *w, const char *server, long patience_secs,
		       const char *path);
void format_watch_end(struct format_watch *w); /* the request is over */

/* ---- printing (print.c) --------------------------------------------------------------------------------------------------- */

void print_json(json_t *answer);
/* The answer of a command that changes something: JSON, or the job's number when it is only begun, or the line `done`. */
void print_change(const struct cli *c, json_t *answer, const char *done);
/* A table for people: the columns of an array of objects. Sizes are shown in units, absent values as "-". */
enum print_kind { PRINT_TEXT, PRINT_SIZE, PRINT_NUMBER, PRINT_LIST };
struct print_column {
	const char *title, *key; /* key: "a.b" goes into nested objects */
	enum print_kind kind;
};
void print_table(json_t *rows, const struct print_column *columns, size_t columns_n);
/* The same columns as lines "title  value" of one object, titles in small letters. */
void print_fields(json_t *object, const struct print_column *columns, size_t columns_n);
/* `list` command: api_list, then JSON or table */
int list_command(struct cli *c, const char *path, const struct print_column *columns,
		 size_t columns_n);
/* `show` command: one GET, then JSON or fields */
int show_command(struct cli *c, const char *path, const struct print_column *columns,
		 size_t columns_n);

/* ---- commands ---------------------------------------------------------------------------------------------------------------- */

int cmd_up(struct cli *c);
int cmd_volume_create(struct cli *c);
int cmd_volume_list(struct cli *c);
int cmd_volume_show(struct cli *c);
int cmd_volume_resize(struct cli *c);
int cmd_volume_release(struct cli *c);
int cmd_volume_delete(struct cli *c);
int cmd_volume_stats(struct cli *c);
int cmd_device_list(struct cli *c);
int cmd_device_add(struct cli *c);
int cmd_device_remove(struct cli *c);
int cmd_node_list(struct cli *c);
int cmd_node_remove(struct cli *c);
int cmd_pool_list(struct cli *c);
int cmd_pool_show(struct cli *c);
int cmd_pool_create(struct cli *c);
int cmd_pool_remove(struct cli *c);
int cmd_export_list(struct cli *c);
int cmd_export_show(struct cli *c);
int cmd_export_set(struct cli *c);
int cmd_job_list(struct cli *c);
int cmd_job_show(struct cli *c);
int cmd_job_cancel(struct cli *c);
int cmd_map(struct cli *c);
int cmd_status(struct cli *c);
int cmd_events(struct cli *c);
int cmd_check(struct cli *c);
int cmd_meta_backup(struct cli *c);
int cmd_meta_restore(struct cli *c);
int cmd_fsck(struct cli *c);
int cmd_bench(struct cli *c);
int cmd_help(struct cli *c);
int cmd_completion(struct cli *c);

#endif
