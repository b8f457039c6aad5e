/* SPDX-License-Identifier: Apache-2.0 */
/* exec.h - what the files of the executor share. */
#ifndef STRATA_METADATA_API_EXEC_H
#define STRATA_METADATA_API_EXEC_H

#include "metadata/api/executor.h"

/* One request being executed. Operations of verbs that wait for something begin with it. */
struct exec {
	struct list link;
	struct admin *a;
	struct admin_req *r;
};

/* The ends: each answers, and frees the operation. */
void exec_answer(struct exec *x, int status, json_t *answer);
void exec_answer_text(struct exec *x, char *text);
void exec_fail(struct exec *x, enum admin_code code, const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* What a part of the server said: code by admin_code_of(status), `errmsg` or what the status means. */
void exec_fail_status(struct exec *x, int status, const char *hint, const char *errmsg);

/* An operation that begins with struct exec, zeroed behind it. NULL: memory is short, and that was answered. */
void *exec_grow(struct exec *x, size_t bytes);

/* A page of a list: items is taken; next may be NULL. */
void exec_answer_page(struct exec *x, json_t *items, const char *next);
/* The `after` of a list by number: false when it is none, and that was answered. */
bool exec_after_number(struct exec *x, uint64_t *ret_after);

json_t *exec_time(uint64_t wall_ns); /* RFC 3339; null for 0 */
/* A text from a node, or one that was cut: what is no UTF-8 becomes '?', where json_pack would fail. */
json_t *exec_text(const char *text);
json_t *exec_uuid(const struct uuid *u);

struct cluster_node *exec_node(struct exec *x, const char *text, int64_t number);
json_t *exec_device_json(struct cluster *c, const struct cluster_device *d);
json_t *exec_job_json(struct admin *a, const struct san_job *job);

json_t *exec_volume_json(struct admin *a, const struct san_volume *v);
/* Who has the volume open: NULL, nobody (that is registered). */
struct cluster_node *exec_owner(struct admin *a, const struct san_volume *v);
/* The end of a request for the volume that it names: there is none, or what the SAN says. */
void exec_no_volume(struct exec *x, int status, const char *errmsg);

/* What is remembered with what the request makes. */
static inline struct san_once exec_once_of(const struct exec *x)
{
	return (struct san_once){.key = x->r->key, .request = x->r->request};
}
/* A request with a key of a verb that makes something: was it done before? Then the answer is what it made, else `execute` goes on. */
void exec_once(struct exec *x, void (*execute)(struct exec *x));

void exec_status(struct exec *x);
void exec_node_list(struct exec *x);
void exec_node_show(struct exec *x);
void exec_node_remove(struct exec *x);
void exec_pool_list(struct exec *x);
void exec_pool_show(struct exec *x);
void exec_pool_create(struct exec *x);
void exec_pool_remove(struct exec *x);
void exec_device_list(struct exec *x);
void exec_device_add(struct exec *x);
void exec_device_show(struct exec *x);
void exec_device_remove(struct exec *x);
void exec_volume_list(struct exec *x);
void exec_volume_create(struct exec *x);
void exec_volume_show(struct exec *x);
void exec_volume_resize(struct exec *x);
void exec_volume_release(struct exec *x);
void exec_volume_delete(struct exec *x);
void exec_volume_map(struct exec *x);
void exec_volume_stats(struct exec *x);
void exec_volume_bench(struct exec *x);
void exec_export_list(struct exec *x);
void exec_export_show(struct exec *x);
void exec_export_set(struct exec *x);
void exec_job_list(struct exec *x);
void exec_job_show(struct exec *x);
void exec_job_cancel(struct exec *x);
void exec_event_list(struct exec *x);
void exec_check(struct exec *x);
void exec_metadata_backup(struct exec *x);
void exec_metrics(struct exec *x);

#endif
