/* SPDX-License-Identifier: Apache-2.0 */
/* exec_bench.c - a load on a volume, without any target: run by the node that has it open, or by any that is online when nobody has. */
#include <string.h>

#include "metadata/api/exec.h"
#include "metadata/rpc/session.h"
#include "src/ioe/cpu.h"

struct exec_volume_bench {
	struct exec x;
	struct san_volume_get get;
	struct session_call call;
	struct san_stats before;
	uint64_t cpu_ns;
};

static void bench_got(struct san_req *req);
static void bench_told(struct session_call *call, int status, const ProtobufCMessage *answer);

void exec_volume_bench(struct exec *x)
{
	struct exec_volume_bench *op = exec_grow(x, sizeof(*op));

	if (!op)
		return;
	op->get.name = op->x.r->subject;
	op->get.req.done = bench_got;
	san_volume_get(op->x.a->cluster->san, &op->get);
}

static struct session *who(struct cluster *c, const struct san_volume *v)
{
	struct cluster_node *owner = v->is_open ? cluster_node_by_no(c, v->owner) : NULL;

	if (v->is_open)
		return owner ? owner->session : NULL;
	list_for_each (l, &c->nodes) {
		struct cluster_node *n = list_entry(l, struct cluster_node, link);

		if (n->session)
			return n->session;
	}
	return NULL;
}

static void bench_got(struct san_req *req)
{
	struct exec_volume_bench *op = container_of(req, struct exec_volume_bench, get.req);
	const struct admin_req *r = op->x.r;
	const char *pattern;
	struct session *s;
	Strata__VolumeBench m = STRATA__VOLUME_BENCH__INIT;

	if (req->status == -ENOENT) {
		exec_fail(&op->x, ADMIN_E_NOT_FOUND, "'strata volume list' shows them.",
			  "there is no volume %s", r->subject);
		return;
	}
	if (req->status) {
		exec_fail_status(&op->x, req->status, "", req->errmsg);
		return;
	}
	s = who(op->x.a->cluster, &op->get.volume);
	if (!s) {
		exec_fail(&op->x, ADMIN_E_NODE_AWAY, "'strata node list' shows the nodes.",
			  "no node that could run it is online");
		return;
	}
	pattern = admin_text(r, "pattern");
	m.volume = op->get.volume.name;
	m.random = !strncmp(pattern, "rand", 4);
	m.read_percent = !strcmp(pattern, "read") || !strcmp(pattern, "randread") ? 100
			 : strstr(pattern, "rw") || !strcmp(pattern, "readwrite")
			     ? (uint32_t)admin_int(r, "read_percent")
			     : 0;
	m.depth = (uint32_t)admin_int(r, "depth");
	m.io_bytes = (uint32_t)admin_int(r, "block_bytes");
	m.flush_every = (uint32_t)admin_int(r, "flush_every");
	m.length = (uint64_t)admin_int(r, "size_bytes");
	m.duration_ns = (uint64_t)admin_int(r, "seconds") * 1000000000;
	m.stride = (uint64_t)admin_int(r, "stride_bytes");
	m.once = admin_bool(r, "once");
	san_stats(op->x.a->cluster->san, &op->before);
	op->cpu_ns = cpu_process_ns();
	session_ask(s, &op->call, CONTROL_VOLUME_BENCH, &m.base, bench_told);
}

static json_int_t per_second(uint64_t n, uint64_t elapsed_ns)
{
	return elapsed_ns ? (json_int_t)((double)n * 1e9 / (double)elapsed_ns) : 0;
}

static void bench_told(struct session_call *call, int status, const ProtobufCMessage *answer)
{
	struct exec_volume_bench *op = container_of(call, struct exec_volume_bench, call);
	const Strata__VolumeBenched *m = (const Strata__VolumeBenched *)answer;
	uint64_t cpu_ns = cpu_process_ns() - op->cpu_ns;
	struct san_stats st;

	if (status) {
		exec_fail_status(&op->x, -ENOTCONN, "", "the node went away");
		return;
	}
	if (*m->error) {
		exec_fail_status(&op->x, err_by_name(m->error), "", m->errmsg);
		return;
	}
	san_stats(op->x.a->cluster->san, &st);
	exec_answer(
	    &op->x, 200,
	    json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I}}",
		      "volume", op->get.volume.name, "iops", per_second(m->ios, m->elapsed_ns),
		      "bytes_per_second", per_second(m->bytes, m->elapsed_ns), "ios",
		      (json_int_t)m->ios, "flushes", (json_int_t)m->flushes, "bytes",
		      (json_int_t)m->bytes, "elapsed_ns", (json_int_t)m->elapsed_ns,
		      "cpu_ns_per_io", (json_int_t)(m->ios ? m->cpu_ns / m->ios : 0),
		      "metad_cpu_ns_per_io", (json_int_t)(m->ios ? cpu_ns / m->ios : 0),
		      "chunks_allocated", (json_int_t)(st.alloc_chunks - op->before.alloc_chunks),
		      "alloc_commits", (json_int_t)(st.alloc_commits - op->before.alloc_commits),
		      "latency_ns", "p50", (json_int_t)m->p50_ns, "p99", (json_int_t)m->p99_ns,
		      "p99.9", (json_int_t)m->p999_ns));
}
