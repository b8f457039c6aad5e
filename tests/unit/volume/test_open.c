/* SPDX-License-Identifier: Apache-2.0 */
/* test_open.c - opening, sharing, closing and losing volumes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "src/base/log.h"
#include "src/base/mem.h"
#include "tests/lib/volume_fixture.h"

static void fixture(struct volume_fixture *fx)
{
	volume_fixture_init(fx, &(struct volume_fixture_config){.seed = 1});
}

static int try_open(struct volume_fixture *fx, struct vf_open *o)
{
	vf_open_start(fx, o);
	return vf_open_wait(fx, o);
}

static void opens_share_one_call(void **state)
{
	struct volume_fixture fx;
	struct vf_open o[5];

	(void)state;
	fixture(&fx);
	memset(o, 0, sizeof(o));
	for (int i = 0; i < 5; i++) {
		char name[8] = "vol"; /* the runtime keeps its own copy */

		o[i].op.name = name;
		vf_open_start(&fx, &o[i]);
		memset(name, 'x', sizeof(name) - 1);
	}
	for (int i = 0; i < 5; i++)
		assert_int_equal(vf_open_wait(&fx, &o[i]), 0);
	vf_open(&fx, "vol");
	assert_int_equal(fx.meta.opens, 1);
	assert_int_equal(vf_stats(&fx, "vol")->handles, 6);
	volume_fixture_free(&fx);
}

static void refusals_say_why(void **state)
{
	struct vf_open none = {.op = {.name = "nothere"}}, bad = {.op = {.name = "-x"}},
		       snap = {.op = {.name = "vol@"}}, other = {.op = {.name = "vol"}};
	struct volume_fixture fx;

	(void)state;
	fixture(&fx);
	assert_int_equal(try_open(&fx, &none), -ENOENT);
	assert_true(none.op.errmsg[0]);
	assert_int_equal(try_open(&fx, &bad), -EINVAL);
	assert_int_equal(try_open(&fx, &snap), -EINVAL);
	fx.vol->elsewhere = true;
	assert_int_equal(try_open(&fx, &other), -E_NOT_OWNER);
	assert_string_equal(other.op.owner_uri, "nbd://other/vol");
	assert_null(other.op.handle);
	fx.vol->elsewhere = false;
	assert_int_equal(try_open(&fx, &other), 0);
	volume_fixture_free(&fx);
}

static void exclusive_excludes(void **state)
{
	struct vf_open alone = {.op = {.name = "vol", .exclusive = true, .client = "backup"}},
		       any = {.op = {.name = "vol"}};
	struct volume_fixture fx;

	(void)state;
	fixture(&fx);
	assert_int_equal(try_open(&fx, &alone), 0);
	assert_int_equal(try_open(&fx, &any), -E_IN_USE);
	assert_non_null(strstr(any.op.errmsg, "backup"));
	vf_close(&fx, alone.op.handle);
	assert_int_equal(try_open(&fx, &any), 0);
	assert_int_equal(try_open(&fx, &alone), -E_IN_USE);
	vf_close(&fx, any.op.handle);

	/* together: the first gets it */
	while (fx.vol->owned)
		assert_true(sim_step(fx.sim.w));
	vf_open_start(&fx, &any);
	vf_open_start(&fx, &alone);
	assert_int_equal(vf_open_wait(&fx, &any), 0);
	assert_int_equal(vf_open_wait(&fx, &alone), -E_IN_USE);
	volume_fixture_free(&fx);
}

/* An export option: whoever is in, stays when it changes; nobody comes second. */
static void a_volume_for_one_client(void **state)
{
	struct vf_open first = {.op = {.name = "vol", .client = "qemu"}},
		       second = {.op = {.name = "vol"}};
	struct volume_geometry g;
	struct volume_fixture fx;
	struct meta_news news;
	struct meta *m;

	(void)state;
	fixture(&fx);
	m = &fx.meta.meta;
	fx.vol->one_opener = true;
	assert_int_equal(try_open(&fx, &first), 0);
	volume_geometry(first.op.handle, &g);
	assert_true(g.one_opener);
	assert_int_equal(try_open(&fx, &second), -E_IN_USE);
	assert_string_equal(second.op.errmsg, "in use exclusively by qemu");
	news = (struct meta_news){.volume = fx.vol->id,
				  .epoch = fx.vol->epoch,
				  .size_bytes = fx.vol->size_bytes};
	m->on_volume(m->on_volume_arg, &news);
	assert_int_equal(try_open(&fx, &second), 0);
	volume_geometry(first.op.handle, &g);
	assert_false(g.one_opener);
	news.one_opener = true;
	m->on_volume(m->on_volume_arg, &news);
	assert_int_equal(vf_write(&fx, first.op.handle, 0, 4096, 1), 0);
	assert_int_equal(vf_write(&fx, second.op.handle, 0, 4096, 1), 0);
	vf_close(&fx, first.op.handle);
	assert_int_equal(try_open(&fx, &first), -E_IN_USE);
	vf_close(&fx, second.op.handle);
	assert_int_equal(try_open(&fx, &first), 0);
	vf_close(&fx, first.op.handle);
	volume_fixture_free(&fx);
}

static void reopening_needs_no_server(void **state)
{
	struct vf_open again = {.op = {.name = "vol"}};
	struct volume_fixture fx;
	struct volume_handle *h;

	(void)state;
	fixture(&fx);
	h = vf_open(&fx, "vol");
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	mock_meta_away(&fx.meta, true);
	assert_int_equal(try_open(&fx, &again), 0);
	vf_close(&fx, h);
	assert_true(vf_reads(&fx, again.op.handle, 0, 4096, 1));
	mock_meta_away(&fx.meta, false);
	assert_int_equal(fx.meta.opens, 1);
	volume_fixture_free(&fx);
}

static void opening_while_it_closes(void **state)
{
	struct volume_fixture fx;

	(void)state;
	for (uint64_t wait_ns = 0; wait_ns < 2000000; wait_ns += 50000) {
		struct vf_open again = {.op = {.name = "vol"}};
		struct volume_handle *h;

		fixture(&fx);
		h = vf_open(&fx, "vol");
		assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
		vf_close(&fx, h);
		if (wait_ns)
			sim_sleep(&fx.sim, wait_ns);
		assert_int_equal(try_open(&fx, &again), 0);
		assert_true(vf_reads(&fx, again.op.handle, 0, 4096, 1));
		assert_int_equal(vf_write(&fx, again.op.handle, 0, 4096, 2), 0);
		volume_fixture_free(&fx);
	}
}

static void server_away_at_open(void **state)
{
	struct vf_open o = {.op = {.name = "vol"}};
	struct volume_fixture fx;
	uint64_t start_ns;

	(void)state;
	fixture(&fx);
	start_ns = sim_now_ns(fx.sim.w);
	mock_meta_away(&fx.meta, true);
	assert_int_equal(try_open(&fx, &o), -E_META_AWAY);
	assert_int_equal(sim_now_ns(fx.sim.w) - start_ns, 10000000000ULL);
	mock_meta_away(&fx.meta, false);
	assert_int_equal(try_open(&fx, &o), 0);
	volume_fixture_free(&fx);
}

/* The close of the one before is not answered: who wants to open does not wait for ever. */
static void server_away_at_close(void **state)
{
	struct vf_open o = {.op = {.name = "vol"}}, late = {.op = {.name = "vol"}};
	struct volume_fixture fx;
	struct volume_handle *h;
	uint64_t start_ns;

	(void)state;
	fixture(&fx);
	h = vf_open(&fx, "vol");
	sim_sleep(&fx.sim, 10000000); /* prefetched */
	vf_close(&fx, h);
	mock_meta_away(&fx.meta, true);
	sim_sleep(&fx.sim, 1000000);
	start_ns = sim_now_ns(fx.sim.w);
	assert_int_equal(try_open(&fx, &o), -E_META_AWAY);
	assert_int_equal(sim_now_ns(fx.sim.w) - start_ns, 10000000000ULL);
	vf_open_start(&fx, &late);
	sim_sleep(&fx.sim, 1000000000);
	mock_meta_away(&fx.meta, false);
	assert_int_equal(vf_open_wait(&fx, &late), 0);
	assert_int_equal(fx.meta.closes, 1);
	volume_fixture_free(&fx);
}

/* The server answers when nobody waits any more. The volume is ours then, and must be given back, or nobody else could ever open it. */
static void a_late_open_is_given_back(void **state)
{
	int late = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct vf_open o = {.op = {.name = "vol"}}, again = {.op = {.name = "vol"}};
		struct volume_fixture fx;

		volume_fixture_init(
		    &fx, &(struct volume_fixture_config){.seed = seed,
							 .limits = {.pieces_shared = 8,
								    .scratch_shared = 2,
								    .map_cache_bytes = 1 << 20,
								    .open_timeout_ns = 2000000}});
		fx.meta.delay_ns_max = 8000000;
		if (try_open(&fx, &o)) {
			assert_int_equal(o.op.status, -E_META_AWAY);
			late++;
			if (seed % 2) { /* another one comes in time for the answer, or not */
				(void)try_open(&fx, &again);
			} else {
				sim_sleep(&fx.sim, 1000000000);
				assert_false(fx.vol->owned);
				assert_int_equal(fx.meta.closes, fx.meta.opens);
			}
			fx.meta.delay_ns_max = 1000;
			sim_sleep(&fx.sim, 1000000000);
			assert_int_equal(try_open(&fx, &again), 0);
		}
		volume_fixture_free(&fx);
		assert_false(fx.vol->owned);
	}
	assert_in_range(late, 10, 59);
}

static void unusable_answers_are_refused(void **state)
{
	struct vf_open o = {.op = {.name = "vol"}};
	struct volume_fixture fx;

	(void)state;
	fixture(&fx);
	fx.vol->sector_bytes = 1000;
	assert_int_equal(try_open(&fx, &o), -E_VERSION);
	fx.vol->sector_bytes = SECTOR_BYTES;
	fx.vol->size_bytes = 5000;
	assert_int_equal(try_open(&fx, &o), -E_PROTOCOL);
	while (fx.vol->owned) /* it was ours for a moment */
		assert_true(sim_step(fx.sim.w));
	fx.vol->size_bytes = 8 << 20;
	assert_int_equal(try_open(&fx, &o), 0);
	volume_fixture_free(&fx);
}

static void geometry_tells(void **state)
{
	struct vf_open remote = {.op = {.name = "vol", .remote_client = true, .read_only = true}};
	struct volume_geometry g;
	struct volume_fixture fx;

	(void)state;
	fixture(&fx);
	volume_geometry(vf_open(&fx, "vol"), &g);
	assert_int_equal(g.size_bytes, 8 << 20);
	assert_int_equal(g.sector_bytes, 512);
	assert_int_equal(g.physical_bytes, 4096);
	assert_int_equal(g.chunk_bytes, 1 << 20);
	assert_true(g.write_cache);
	assert_false(g.read_only);
	assert_string_equal(g.name, "vol");
	assert_int_equal(try_open(&fx, &remote), 0);
	volume_geometry(remote.op.handle, &g);
	assert_false(g.write_cache); /* auto: another machine would outlive our memory */
	assert_true(g.read_only);
	volume_fixture_free(&fx);
}

static void write_cache_follows_the_property(void **state)
{
	static const struct {
		enum meta_write_cache property;
		bool stable_devices, remote_client, cache;
	} cases[] = {
	    {META_CACHE_WRITEBACK, false, true, true},
	    {META_CACHE_WRITETHROUGH, false, false, false},
	    {META_CACHE_AUTO, false, false, true},
	    {META_CACHE_AUTO, true, false, false},
	    {META_CACHE_AUTO, false, true, false},
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct vf_open o = {.op = {.name = "vol", .remote_client = cases[i].remote_client}};
		struct volume_geometry g;
		struct volume_fixture fx;

		fixture(&fx);
		fx.vol->write_cache = cases[i].property;
		for (int d = 1; d <= VF_DEVICES; d++)
			fx.store.dev[d].stable = cases[i].stable_devices;
		assert_int_equal(try_open(&fx, &o), 0);
		volume_geometry(o.op.handle, &g);
		assert_int_equal(g.write_cache, cases[i].cache);
		volume_fixture_free(&fx);
	}
}

/* ---- closing ---------------------------------------------------------------------------------------------------------- */

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void close_waits_for_requests(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;
	bool closed = false;
	struct vf_io io[8];

	(void)state;
	fixture(&fx);
	h = vf_open(&fx, "vol");
	for (int i = 0; i < 8; i++)
		vf_io_start(&fx, h, &io[i], VOLUME_WRITE, 0, 1 << 20, 0,
			    1); /* one after the other */
	fx.handles[0] = NULL;
	volume_close(h, set_flag, &closed);
	while (!closed) {
		assert_true(sim_step(fx.sim.w));
		assert_true(!closed || io[7].is_done);
	}
	for (int i = 0; i < 8; i++) {
		assert_int_equal(io[i].r.status, 0);
		vf_io_end(&io[i]);
	}
	volume_fixture_free(&fx);
}

static void shutting_down_refuses(void **state)
{
	struct vf_open o = {.op = {.name = "vol"}};
	struct volume_fixture fx;
	struct volume_handle *h;
	bool closed = false, handle_closed = false;

	(void)state;
	fixture(&fx);
	h = vf_open(&fx, "vol");
	fx.handles[0] = NULL;
	volumes_close(fx.vs, set_flag, &closed);
	assert_int_equal(try_open(&fx, &o), -ESHUTDOWN);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0); /* who has it open goes on */
	sim_sleep(&fx.sim, 1000000);
	assert_false(closed);
	volume_close(h, set_flag, &handle_closed);
	sim_run_until(fx.sim.w, &closed);
	assert_true(handle_closed);
	assert_false(fx.vol->owned);
	volumes_free(fx.vs);
	fx.vs = NULL;
	/* the rest of the fixture wants one to close */
	assert_int_equal(volumes_new(&(struct volumes_config){.ioe = fx.sim.e,
							      .store = &fx.store.store,
							      .meta = &fx.meta.meta},
				     &fx.vs),
			 0);
	volume_fixture_free(&fx);
}

/* ---- losing it -------------------------------------------------------------------------------------------------------- */

struct change {
	int n, status;
};

static void on_change(void *arg, int status)
{
	struct change *c = arg;

	c->n++;
	c->status = status;
}

static void a_new_owner_ends_it(void **state)
{
	struct volume_fixture fx;
	struct volume_handle *h;
	struct change c = {0};
	struct vf_io io[4];

	(void)state;
	fixture(&fx);
	h = vf_open(&fx, "vol");
	volume_on_change(h, on_change, &c);
	assert_int_equal(vf_write(&fx, h, 0, 4096, 1), 0);
	fx.store.epoch = fx.vol->epoch + 1; /* the devices know already */
	fx.vol->epoch++;
	for (int i = 0; i < 4; i++)
		vf_io_start(&fx, h, &io[i], VOLUME_WRITE, (uint64_t)i << 20, 4096, 0, 2);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(vf_io_wait(&fx, &io[i]), -E_NOT_OWNER);
		vf_io_end(&io[i]);
	}
	assert_int_equal(c.n, 1);
	assert_int_equal(c.status, -E_NOT_OWNER);
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 0, 4096, 0), -E_NOT_OWNER);
	assert_int_equal(vf_flush(&fx, h), -E_NOT_OWNER);
	assert_string_equal(fx.event, "volume-gone");

	/* whoever opens it now asks the server, though the old handle is still there */
	vf_open(&fx, "vol");
	assert_int_equal(fx.meta.opens, 2);
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 0, 4096, 0), -E_NOT_OWNER);
	assert_true(vf_reads(&fx, fx.handles[1], 0, 4096, 1));
	vf_close(&fx, h);
	assert_int_equal(fx.meta.closes, 0); /* it was not ours to give up */
	volume_fixture_free(&fx);
}

static void the_server_tells_of_changes(void **state)
{
	struct volume_geometry g;
	struct volume_fixture fx;
	struct volume_handle *h;
	struct change c = {0};
	struct meta_news news;
	struct meta *m;

	(void)state;
	fixture(&fx);
	m = &fx.meta.meta;
	h = vf_open(&fx, "vol");
	volume_on_change(h, on_change, &c);
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 8 << 20, 4096, 0), -EINVAL);
	fx.vol->size_bytes = 16 << 20;
	news =
	    (struct meta_news){.volume = fx.vol->id, .epoch = fx.vol->epoch, .size_bytes = 16 << 20};
	m->on_volume(m->on_volume_arg, &news);
	assert_int_equal(c.n, 1);
	assert_int_equal(c.status, 0);
	volume_geometry(h, &g);
	assert_int_equal(g.size_bytes, 16 << 20);
	assert_int_equal(vf_write(&fx, h, 15 << 20, 4096, 1), 0);

	news.size_bytes = 4 << 20;
	news.epoch--;
	m->on_volume(m->on_volume_arg, &news); /* old news */
	news.epoch++;
	news.volume++;
	m->on_volume(m->on_volume_arg, &news); /* another one */
	assert_int_equal(c.n, 1);
	news.volume--;
	news.status = -ENOENT;
	m->on_volume(m->on_volume_arg, &news);
	sim_sleep(&fx.sim, 1000);
	assert_int_equal(c.n, 2);
	assert_int_equal(c.status, -ENOENT);
	assert_int_equal(vf_do(&fx, h, VOLUME_READ, 0, 4096, 0), -ENOENT);
	volume_on_change(h, NULL, NULL);
	volume_fixture_free(&fx);
}

/* ---- lists, memory ---------------------------------------------------------------------------------------------------- */

struct listing {
	struct volume_list op;
	bool done;
};

static void listed(struct volume_list *op)
{
	container_of(op, struct listing, op)->done = true;
}

static int list_names(struct volume_fixture *fx, struct listing *l)
{
	l->done = false;
	l->op.done = listed;
	volume_list(fx->vs, &l->op);
	assert_false(l->done);
	sim_run_until(fx->sim.w, &l->done);
	return l->op.status;
}

static void names_are_listed_by_pages(void **state)
{
	static char names[2][NAME_LEN_MAX + 1];
	struct listing l = {.op = {.names_max = 2, .names = names}};
	struct volume_fixture fx;

	(void)state;
	fixture(&fx);
	mock_meta_volume(&fx.meta, "vol2", 1 << 20);
	mock_meta_volume(&fx.meta, "vol3", 1 << 20);
	assert_int_equal(list_names(&fx, &l), 0);
	assert_int_equal(l.op.names_n, 2);
	assert_string_equal(names[1], "vol2");
	strcpy(l.op.after, names[1]); /* check-calls: allow - equal sizes */
	assert_int_equal(list_names(&fx, &l), 0);
	assert_int_equal(l.op.names_n, 1);
	assert_string_equal(names[0], "vol3");
	mem_fail_at(0, 1);
	assert_int_equal(list_names(&fx, &l), -ENOMEM);
	mem_fail_at(UINT64_MAX, 0);
	volume_fixture_free(&fx);
}

static int clients_n;
static void client(void *arg, const struct volume_client *k)
{
	const struct volume_fixture *fx = arg;

	clients_n++;
	assert_int_equal(k->volume, fx->vol->id);
	assert_int_equal(k->read_only, strcmp(k->name, "reader") == 0);
}

static void clients_are_known(void **state)
{
	struct vf_open a = {.op = {.name = "vol", .client = "reader", .read_only = true}},
		       b = {.op = {.name = "vol", .client = "writer"}};
	struct volume_fixture fx;

	(void)state;
	fixture(&fx);
	volumes_clients(fx.vs, client, &fx);
	assert_int_equal(clients_n, 0);
	assert_int_equal(try_open(&fx, &a), 0);
	assert_int_equal(try_open(&fx, &b), 0);
	volumes_clients(fx.vs, client, &fx);
	assert_int_equal(clients_n, 2);
	volume_fixture_free(&fx);
}

/* Each allocation on the way fails once: a clean error, no leak, and the next try works. */
static void memory_is_short(void **state)
{
	struct volumes_config cfg = {0};
	struct volume_fixture fx;
	uint64_t fails = 0;
	int rc = -ENOMEM;

	(void)state;
	fixture(&fx);
	cfg = (struct volumes_config){.ioe = fx.sim.e,
				      .store = &fx.store.store,
				      .meta = &fx.meta.meta};
	volumes_free(fx.vs);
	for (; rc == -ENOMEM; fails++) {
		uint64_t live = mem_live();

		mem_fail_at(fails, 1);
		rc = volumes_new(&cfg, &fx.vs);
		mem_fail_at(UINT64_MAX, 0);
		assert_true(rc == 0 || mem_live() == live);
	}
	assert_int_equal(rc, 0);
	assert_true(fails > 4);
	rc = -ENOMEM;
	for (fails = 0; rc == -ENOMEM; fails++) {
		struct vf_open o = {.op = {.name = "vol"}};

		mem_fail_at(fails, 1);
		rc = try_open(&fx, &o);
		mem_fail_at(UINT64_MAX, 0);
		assert_true(rc == 0 || o.op.errmsg[0]);
	}
	assert_int_equal(rc, 0);
	assert_true(fails > 5);
	volume_fixture_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(opens_share_one_call),
	    cmocka_unit_test(refusals_say_why),
	    cmocka_unit_test(exclusive_excludes),
	    cmocka_unit_test(a_volume_for_one_client),
	    cmocka_unit_test(reopening_needs_no_server),
	    cmocka_unit_test(opening_while_it_closes),
	    cmocka_unit_test(server_away_at_open),
	    cmocka_unit_test(server_away_at_close),
	    cmocka_unit_test(a_late_open_is_given_back),
	    cmocka_unit_test(unusable_answers_are_refused),
	    cmocka_unit_test(geometry_tells),
	    cmocka_unit_test(write_cache_follows_the_property),
	    cmocka_unit_test(close_waits_for_requests),
	    cmocka_unit_test(shutting_down_refuses),
	    cmocka_unit_test(a_new_owner_ends_it),
	    cmocka_unit_test(the_server_tells_of_changes),
	    cmocka_unit_test(names_are_listed_by_pages),
	    cmocka_unit_test(clients_are_known),
	    cmocka_unit_test(memory_is_short),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
