/* SPDX-License-Identifier: Apache-2.0 */
/* sim_io.c - requests of a simulated process: disk, timer and work.
 *
 *   submitted   in sim_proc.queued; a kill forgets it
 *   pushed      at the end of the turn: a struct sim_op with an event in the future; disk requests beyond the kernel's depth wait in
 *               sim_proc.waiting, which a kill forgets
 *   landed      the event: the effect on the file happens at once and as a whole; the request is completed
 *   delivered   in the next turn
 *
 * A kill between pushed and landed leaves an orphan: the op with a copy of the request and its data, to land at another time. */
#include <string.h>

#include "src/base/crc.h"
#include "src/base/math.h"
#include "src/ioe/sim.h"

enum { PRIV_OP = REQ_PRIV_ENGINE, PRIV_NUMBER };

static void push(struct sim_proc *p, struct ioe_req *r);
static void disk_push(struct sim_proc *p, struct ioe_req *r);
static void disk_land(struct sim_world *w, struct sim_event *ev);
static int disk_effect(struct sim_op *op);
static void write_in_part(struct sim_op *op);
static void timer_fire(struct sim_world *w, struct sim_event *ev);
static void work_fire(struct sim_world *w, struct sim_event *ev);

/* ---- submit and push -------------------------------------------------------------------------------------------------- */

static struct sim_op *op_of(const struct ioe_req *r)
{
	return (struct sim_op *)(uintptr_t)r->priv[PRIV_OP];
}

static struct sim_inode *inode_of(const struct ioe_req *r)
{
	return sim_file_of(r->file)->ofd->ino;
}

static uint64_t least_undelivered(const struct list *completed, const struct sim_inode *ino,
				  uint64_t least)
{
	list_for_each (l, completed) {
		struct ioe_req *r = list_entry(l, struct ioe_req, link);

		if ((r->op == IOE_WRITE || r->op == IOE_PUNCH) && r->priv[PRIV_NUMBER] &&
		    inode_of(r) == ino)
			least = MIN(least, r->priv[PRIV_NUMBER]);
	}
	return least;
}

/* An fsync covers the changes that were delivered before it is submitted. They are delivered in the order they landed, so it covers all
 * numbers below that of the first one not delivered. */
static uint64_t fsync_covers(struct sim_proc *p, const struct sim_inode *ino)
{
	uint64_t least = ino->img.landed + 1;

	least = least_undelivered(&p->e.running, ino, least);
	least = least_undelivered(&p->e.ready, ino, least);
	return least - 1;
}

void sim_submit(struct ioe *e, struct ioe_req *r)
{
	struct sim_proc *p = sim_proc_of(e);

	if (p->is_dead) {
		check(p->in_turn); /* its last callback goes on; nobody else may use it */
		return;
	}
	r->priv[PRIV_OP] = 0;
	r->priv[PRIV_NUMBER] = r->op == IOE_FSYNC ? fsync_covers(p, inode_of(r)) : 0;
	list_init(&r->link);
	list_push(&p->queued, &r->link);
	sim_wake(p);
}

void sim_push(struct sim_proc *p)
{
	struct list *l;

	while ((l = list_pop(&p->queued)))
		push(p, list_entry(l, struct ioe_req, link));
}

static struct sim_op *op_new(struct sim_proc *p, struct ioe_req *r,
			     void (*fire)(struct sim_world *w, struct sim_event *ev))
{
	struct sim_op *op = sim_zalloc(sizeof(*op));

	op->ev.fire = fire;
	op->p = p;
	op->r = r;
	r->priv[PRIV_OP] = (uintptr_t)op;
	list_init(&op->link);
	list_init(&op->inode_link);
	list_push(&p->ops, &op->link);
	return op;
}

/* The event is over or not to happen. The request itself is not touched, unless it is an orphan's copy. */
static void op_free(struct sim_world *w, struct sim_op *op)
{
	sim_unschedule(w, &op->ev);
	list_del(&op->link);
	list_del(&op->inode_link);
	if (!op->p)
		sim_free(op->r);
	if (op->ofd)
		sim_ofd_put(op->ofd);
	sim_free(op);
}

static void push(struct sim_proc *p, struct ioe_req *r)
{
	struct sim_world *w = p->w;

	switch (r->op) {
	case IOE_READ:
	case IOE_WRITE:
	case IOE_FSYNC:
	case IOE_PUNCH:
		if (p->disk_n < w->cfg.depth)
			disk_push(p, r);
		else
			list_push(&p->waiting, &r->link);
		break;
	case IOE_TIMER:
		if (r->deadline_ns == UINT64_MAX) /* until it is cancelled */
			op_new(p, r, timer_fire);
		else
			sim_schedule(w, &op_new(p, r, timer_fire)->ev,
				     sim_world_ns(p, r->deadline_ns));
		break;
	case IOE_WORK:
		sim_schedule(w, &op_new(p, r, work_fire)->ev,
			     w->now_ns + sim_latency(w, w->cfg.disk_ns_min, w->cfg.disk_ns_max));
		break;
	case IOE_ACCEPT:
	case IOE_CONNECT:
	case IOE_RECV:
	case IOE_SEND:
		sim_sock_push(p, r);
		break;
	case IOE_NOP:
		check_unreachable("a nop needs no push");
	}
}

/* ---- disk ------------------------------------------------------------------------------------------------------------- */

static uint64_t delay_ns(const struct sim_op *op)
{
	struct sim_machine *m = op->p->m;

	return m->delay_ns ? m->delay_ns(m->delay_arg, op->ofd->ino->path, op->r) : 0;
}

static void disk_push(struct sim_proc *p, struct ioe_req *r)
{
	struct sim_op *op = op_new(p, r, disk_land);
	struct sim_world *w = p->w;

	op->ofd = sim_file_of(r->file)->ofd;
	op->ofd->refs++;
	list_push(&op->ofd->ino->in_flight, &op->inode_link);
	p->disk_n++;
	if (r->op == IOE_WRITE)
		op->crc = crc32c(r->buf, r->len);
	if (p->m->traits.never_blocks)
		disk_land(w, &op->ev);
	else
		sim_schedule(w, &op->ev,
			     w->now_ns + sim_latency(w, w->cfg.disk_ns_min, w->cfg.disk_ns_max) +
				 delay_ns(op));
}

static const char *op_name(enum ioe_op op)
{
	return op == IOE_READ	 ? "read"
	       : op == IOE_WRITE ? "write"
	       : op == IOE_FSYNC ? "fsync"
				 : "punch";
}

static void disk_land(struct sim_world *w, struct sim_event *ev)
{
	struct sim_op *op = container_of(ev, struct sim_op, ev);
	struct sim_inode *ino = op->ofd->ino;
	struct sim_machine *m = ino->m;
	struct sim_proc *p = op->p;
	struct ioe_req *r = op->r;
	int status;

	list_del(&op->inode_link); /* it does not overlap itself */
	status = m->fault ? m->fault(m->fault_arg, ino->path, r) : 0;
	if (status < 0 && r->op == IOE_FSYNC)
		sim_image_fsync_failed(&ino->img, r->priv[PRIV_NUMBER], &w->rand);
	if (status == -EIO)
		write_in_part(op);
	if (!status || (status == SIM_DISK_LOST && r->op == IOE_READ))
		status = disk_effect(op);
	if (status == SIM_DISK_LOST)
		status = 0;
	sim_note(w, op_name(r->op), p, ino->path, r->off, r->len, status);
	if (p) {
		p->disk_n--;
		sim_complete(p, r, status);
		if (!list_empty(&p->waiting))
			disk_push(p, list_entry(list_pop(&p->waiting), struct ioe_req, link));
	}
	op_free(w, op);
}

/* A read that lands amid a write sees some of its sectors. */
static void read_tear(struct sim_world *w, struct sim_inode *ino, const struct ioe_req *rd)
{
	list_for_each (l, &ino->in_flight) {
		const struct ioe_req *wr = list_entry(l, struct sim_op, inode_link)->r;
		uint64_t from = MAX(rd->off, wr->off),
			 to = MIN(rd->off + rd->len, wr->off + wr->len), end;

		if (wr->op != IOE_WRITE || from >= to)
			continue;
		for (; from < to; from = end) {
			end = MIN(to, round_down(from, SIM_SECTOR) + SIM_SECTOR);
			if (rand_percent(&w->rand, 50))
				memcpy((uint8_t *)rd->buf + (from - rd->off),
				       (const uint8_t *)wr->buf + (from - wr->off), end - from);
		}
	}
}

static int disk_change(struct sim_op *op)
{
	struct sim_inode *ino = op->ofd->ino;
	struct ioe_req *r = op->r;
	struct sim_change c = {.off = r->off, .len = r->len, .data = r->buf};

	if (r->op == IOE_PUNCH) {
		if (ino->m->traits.refuses_punch)
			return -EOPNOTSUPP;
		c.off = MIN(c.off, ino->img.size_bytes);
		c.len = MIN(c.len, ino->img.size_bytes - c.off);
		c.data = NULL;
	} else {
		check(
		    op->crc ==
		    crc32c(r->buf, r->len)); /* the buffer belongs to the engine until completion */
		if (!range_inside(r->off, r->len, ino->img.size_bytes))
			return -ENOSPC;
		if (!sim_quota_allows(ino, r->off, r->len)) {
			write_in_part(op);
			return -ENOSPC;
		}
	}
	if (c.len == 0)
		return 0;
	sim_image_change(&ino->img, &c, ino->m->traits.write_through);
	r->priv[PRIV_NUMBER] = ino->img.landed;
	return 0;
}

static int disk_effect(struct sim_op *op)
{
	struct sim_inode *ino = op->ofd->ino;
	struct ioe_req *r = op->r;

	switch (r->op) {
	case IOE_READ:
		if (!range_inside(r->off, r->len, ino->img.size_bytes))
			return -EIO;
		if (op->p) {
			sim_image_read(&ino->img, r->off, r->buf, r->len);
			read_tear(op->p->w, ino, r);
		}
		return 0;
	case IOE_WRITE:
	case IOE_PUNCH:
		return disk_change(op);
	case IOE_FSYNC:
		sim_image_fsync(&ino->img, r->priv[PRIV_NUMBER]);
		return 0;
	default:
		check_unreachable("not a disk request");
	}
}

/* A write that failed or was given up: as far as it came. */
static void write_in_part(struct sim_op *op)
{
	struct sim_inode *ino = op->ofd->ino;
	struct rand *rnd = &ino->m->w->rand;
	struct ioe_req *r = op->r;
	struct sim_change c = {.off = r->off, .data = r->buf};

	if (r->op != IOE_WRITE || rand_percent(rnd, 50))
		return;
	c.len = rand_below(rnd, r->len / SIM_SECTOR + 1) * SIM_SECTOR;
	if (c.len == 0 || !range_inside(r->off, r->len, ino->img.size_bytes) ||
	    !sim_quota_allows(ino, c.off, c.len))
		return;
	sim_image_change(&ino->img, &c, ino->m->traits.write_through);
	r->priv[PRIV_NUMBER] = ino->img.landed;
}

/* ---- timer, work, cancel ---------------------------------------------------------------------------------------------- */

static void timer_fire(struct sim_world *w, struct sim_event *ev)
{
	struct sim_op *op = container_of(ev, struct sim_op, ev);

	sim_note(w, "timer", op->p, NULL, 0, 0, 0);
	sim_complete(op->p, op->r, 0);
	op_free(w, op);
}

static void work_fire(struct sim_world *w, struct sim_event *ev)
{
	struct sim_op *op = container_of(ev, struct sim_op, ev);

	sim_note(w, "work", op->p, NULL, 0, 0, 0);
	op->r->fn(op->r);
	sim_complete(op->p, op->r, 0);
	op_free(w, op);
}

/* What nobody has begun is taken back. Of what the kernel or a worker holds, half is too late. */
void sim_cancel(struct ioe *e, struct ioe_req *r)
{
	struct sim_proc *p = sim_proc_of(e);
	struct sim_op *op = op_of(r);
	bool is_disk = op && op->ofd;

	if (p->is_dead)
		return;
	if (r->op == IOE_CONNECT) {
		sim_connect_cancel(p, r);
		return;
	}
	if (op && r->op != IOE_TIMER && rand_percent(&p->w->rand, 50))
		return;
	if (is_disk)
		write_in_part(op);
	if (op)
		op_free(p->w, op);
	list_del(&r->link);
	sim_complete(p, r, -ECANCELED);
	if (is_disk) {
		p->disk_n--;
		if (!list_empty(&p->waiting))
			disk_push(p, list_entry(list_pop(&p->waiting), struct ioe_req, link));
	}
}

/* ---- death ------------------------------------------------------------------------------------------------------------ */

static void disk_orphan(struct sim_world *w, struct sim_op *op)
{
	const struct ioe_req *r = op->r;
	size_t len = r->op == IOE_WRITE ? r->len : 0;
	struct ioe_req *copy = sim_alloc(sizeof(*copy) + len);

	*copy = *r;
	copy->buf = len ? memcpy(copy + 1, r->buf, len) : NULL;
	op->r = copy;
	op->p = NULL;
	list_del(&op->link);
	sim_unschedule(w, &op->ev);
	sim_schedule(w, &op->ev, w->now_ns + rand_below(&w->rand, SIM_LATE_NS + 1));
}

void sim_ops_orphan(struct sim_proc *p)
{
	list_for_each_safe (l, tmp, &p->ops) {
		struct sim_op *op = list_entry(l, struct sim_op, link);

		if (op->ofd && !p->w->is_ending)
			disk_orphan(p->w, op);
		else
			op_free(p->w, op);
	}
	p->disk_n = 0;
}

/* Its machine's processes are dead: all ops are orphans. They are tried in random order, after everything that landed. */
void sim_inode_power_loss(struct sim_inode *ino)
{
	struct sim_world *w = ino->m->w;
	struct sim_change *changes;
	size_t n = 0;

	list_for_each (l, &ino->in_flight)
		n++;
	changes = sim_alloc((n + 1) * sizeof(*changes));
	n = 0;
	list_for_each (l, &ino->in_flight) {
		const struct ioe_req *r = list_entry(l, struct sim_op, inode_link)->r;
		struct sim_change c = {.off = r->off, .len = r->len, .data = r->buf};
		size_t at = rand_below(&w->rand, n + 1);

		if (r->op != IOE_WRITE && r->op != IOE_PUNCH)
			continue;
		if (!range_inside(c.off, c.len, ino->img.size_bytes))
			continue;
		if (at < n)
			changes[n] = changes[at];
		changes[at] = c;
		n++;
	}
	sim_image_power_loss(&ino->img, &w->rand, changes, n);
	sim_free(changes);
	sim_ops_free(ino);
}

void sim_ops_free(struct sim_inode *ino)
{
	while (!list_empty(&ino->in_flight))
		op_free(ino->m->w, list_first(&ino->in_flight, struct sim_op, inode_link));
}
