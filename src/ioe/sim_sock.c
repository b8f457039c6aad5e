/* SPDX-License-Identifier: Apache-2.0 */
#include "src/ioe/sim.h"

void sim_net_init(struct sim_world *w)
{
	list_init(&w->conns);
	list_init(&w->addrs);
	list_init(&w->cuts);
}

void sim_net_free(struct sim_world *w)
{
	(void)w;
}

void sim_net_power_loss(struct sim_machine *m)
{
	(void)m;
}

void sim_net_power_on(struct sim_machine *m)
{
	(void)m;
}

void sim_sock_push(struct sim_proc *p, struct ioe_req *r)
{
	sim_complete(p, r, -EOPNOTSUPP);
}

void sim_socks_close(struct sim_proc *p)
{
	(void)p;
}

void sim_socks_reset(struct sim_proc *p)
{
	(void)p;
}

void sim_socks_free(struct sim_proc *p)
{
	(void)p;
}

void sim_connect(struct ioe *e, struct ioe_req *r, const char *addr)
{
	(void)addr;
	engine_complete(e, r, -EOPNOTSUPP);
}

void sim_connect_cancel(struct sim_proc *p, struct ioe_req *r)
{
	(void)p;
	(void)r;
}

int sim_listen(struct ioe *e, const char *addr, struct ioe_sock **ret_s, char *errmsg)
{
	(void)e;
	(void)addr;
	(void)ret_s;
	(void)errmsg;
	return -EOPNOTSUPP;
}

void sim_sock_shutdown(struct ioe *e, struct ioe_sock *s)
{
	(void)e;
	(void)s;
}

void sim_sock_close(struct ioe *e, struct ioe_sock *s)
{
	(void)e;
	(void)s;
}
