/* SPDX-License-Identifier: Apache-2.0 */
#include "metadata/api/metad.h"

#include <stdio.h>

#include "metadata/cluster/check.h"
#include "src/base/log.h"

#define TAKEOVER_NS 60000000000ULL

static void san_opened(struct san_open *op);
static void cluster_opened(struct cluster_open *op);
static int serve(struct metad *m, char errmsg[ERRMSG_LEN]);
static void opened(struct metad *m, int status, const char *errmsg);
static void on_frees(void *arg, device_no dev);
static void on_job(void *arg, uint32_t job);
static void on_layer(void *arg, layer_id layer, uint64_t commit, bool gone);
static void on_failed(void *arg, int status);
static void on_settled(void *arg);
static void close_front(struct metad *m);
static void front_closed(void *arg);
static void jobs_closed(void *arg);
static void cluster_stopped(void *arg);
static void san_closed(void *arg);

/* ---- opening ------------------------------------------------------------------------------------------------------------------------ */

void metad_open(struct metad *m, const struct metad_config *cfg)
{
	*m = (struct metad){.cfg = *cfg, .opening = true};
	m->san_open = (struct san_open){
	    .cfg = {.ioe = cfg->ioe,
		    .store = cfg->store,
		    .cb = {.on_frees = on_frees,
			   .on_job = on_job,
			   .on_layer = on_layer,
			   .on_failed = on_failed,
			   .arg = m}},
	    .done = san_opened,
	};
	san_open(&m->san_open);
}

static void san_opened(struct san_open *op)
{
	struct metad *m = container_of(op, struct metad, san_open);

	if (op->status) {
		opened(m, op->status, op->errmsg);
		return;
	}
	m->san = op->san;
	m->cluster_open = (struct cluster_open){
	    .c = &m->cluster,
	    .ioe = m->cfg.ioe,
	    .san = m->san,
	    .store = m->cfg.store,
	    .done = cluster_opened,
	};
	m->has_cluster = true;
	m->cluster.takeover_ns = m->cfg.takeover_ns ? m->cfg.takeover_ns : TAKEOVER_NS;
	cluster_open(&m->cluster_open);
}

static void cluster_opened(struct cluster_open *op)
{
	struct metad *m = container_of(op, struct metad, cluster_open);
	char errmsg[ERRMSG_LEN] = "";
	int r = op->status;

	if (!r && !m->closing)
		r = serve(m, errmsg);
	opened(m, r, *errmsg ? errmsg : op->errmsg);
}

static int serve(struct metad *m, char errmsg[ERRMSG_LEN])
{
	struct server_config cfg = {
	    .ioe = m->cfg.ioe,
	    .cluster = &m->cluster,
	    .key = m->cfg.key,
	    .settle_ns = m->cfg.settle_ns,
	    .keepalive_ns = m->cfg.keepalive_ns,
	    .settled = on_settled,
	    .arg = m,
	};
	struct job_kind check = cluster_check_kind(&m->cluster);
	int r = jobs_new(m->cfg.ioe, m->san, &check, 1, &m->jobs);

	if (r) {
		snprintf(errmsg, ERRMSG_LEN, "memory is short");
		return r;
	}
	admin_init(&m->admin, &m->cluster, m->jobs);
	m->has_admin = true;
	server_init(&m->server, &cfg);
	m->has_server = true;
	for (uint32_t i = 0; i < m->cfg.rpc_n && !r; i++)
		r = server_listen(&m->server, m->cfg.rpc[i], errmsg);
	if (!r)
		san_start(m->san);
	return r;
}

static void opened(struct metad *m, int status, const char *errmsg)
{
	m->opening = false;
	if (m->closing)
		close_front(m);
	else
		m->cfg.opened(m->cfg.arg, status, errmsg);
}

/* ---- what the SAN and the server have to say ---------------------------------------------------------------------------------------------- */

static void on_frees(void *arg, device_no dev)
{
	struct metad *m = arg;

	cluster_frees(&m->cluster, dev);
}

static void on_job(void *arg, uint32_t job)
{
	struct metad *m = arg;

	jobs_wake(m->jobs, job);
}

static void on_layer(void *arg, layer_id layer, uint64_t commit, bool gone)
{
	struct metad *m = arg;

	cluster_layer_changed(&m->cluster, layer, commit, gone);
}

/* Nothing may be answered from memory that perhaps differs from the database. */
static void on_failed(void *arg, int status)
{
	struct metad *m = arg;

	log_error("the database is out of service", "error=%s: %s", err_name(status),
		  err_text(status));
	m->cfg.failed(m->cfg.arg, status);
}

static void on_settled(void *arg)
{
	struct metad *m = arg;

	if (m->cluster.state == CLUSTER_SERVING)
		jobs_hold(m->jobs, false);
	admin_settled(&m->admin);
}

/* ---- closing ------------------------------------------------------------------------------------------------------------------------ */

void metad_close(struct metad *m, void (*done)(void *arg), void *arg)
{
	check(!m->closing);
	m->closing = true;
	m->closed = done;
	m->closed_arg = arg;
	if (!m->opening)
		close_front(m);
}

static void nop_done(struct ioe_req *req)
{
	front_closed(container_of(req, struct metad, nop));
}

/* Nodes and administrators first: what they wait for ends when the connections do. */
static void close_front(struct metad *m)
{
	if (m->has_cluster)
		cluster_stopping(&m->cluster);
	if (m->jobs)
		jobs_hold(m->jobs, true); /* they notice that it ends before they are asked to */
	m->ending = 1;
	if (m->has_admin) {
		m->ending++;
		admin_stop(&m->admin, front_closed, m);
	}
	if (m->has_server) {
		m->ending++;
		server_close(&m->server, front_closed, m);
	}
	ioe_nop(m->cfg.ioe, &m->nop, nop_done); /* not inline */
}

static void front_closed(void *arg)
{
	struct metad *m = arg;

	if (--m->ending)
		return;
	if (m->jobs)
		jobs_close(m->jobs, jobs_closed, m);
	else
		jobs_closed(m);
}

static void jobs_closed(void *arg)
{
	struct metad *m = arg;

	if (m->has_cluster)
		cluster_stop(&m->cluster, cluster_stopped, m);
	else
		cluster_stopped(m);
}

static void cluster_stopped(void *arg)
{
	struct metad *m = arg;

	if (m->san)
		san_close(m->san, san_closed, m);
	else
		san_closed(m);
}

static void san_closed(void *arg)
{
	struct metad *m = arg;

	if (m->has_cluster)
		cluster_free(&m->cluster);
	m->closed(m->closed_arg);
}
