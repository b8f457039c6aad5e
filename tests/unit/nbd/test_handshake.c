/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake: every option in its good and its bad forms, whole and in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "tests/lib/nbd/nbd_peer.h"

enum { FIXED = NBD_FLAG_C_FIXED_NEWSTYLE, NO_ZEROES = NBD_FLAG_C_NO_ZEROES, MIB = 1 << 20 };

struct fx {
	struct nbd_fixture f;
	struct nbd_peer p;
	uint8_t data[8192];
};

static int setup_limits(void **state, const struct nbd_limits *limits)
{
	static struct fx fx;

	memset(&fx, 0, sizeof(fx));
	nbd_fixture_init(&fx.f, 1, limits);
	mock_volume_add(fx.f.vs, "vol", 8 * MIB);
	*state = &fx;
	return 0;
}

/* The least pool: what is served here is small, and a sanitizer marks every byte of a pool, of which each of thousands of connections has one. */
static int setup(void **state)
{
	return setup_limits(state, &(struct nbd_limits){.pool_bytes = MIB + 8192});
}

static int setup_usual(void **state)
{
	return setup_limits(state, NULL);
}

static int teardown(void **state)
{
	struct fx *fx = *state;

	nbd_peer_close(&fx->p);
	nbd_fixture_free(&fx->f);
	return 0;
}

static void greet(struct fx *fx)
{
	nbd_peer_connect(&fx->p, &fx->f);
	nbd_peer_greet(&fx->p, FIXED | NO_ZEROES);
}

static uint32_t ask_info(struct fx *fx, uint32_t option, const char *name)
{
	return nbd_peer_ask(&fx->p, option, fx->data, nbd_peer_info_data(fx->data, name, NULL, 0));
}

static void assert_reply(struct fx *fx, uint32_t option, uint32_t type)
{
	struct nbd_peer_reply r = nbd_peer_reply(&fx->p);

	assert_int_equal(r.option, option);
	assert_int_equal(r.type, type);
}

/* Is the connection still good for options? */
static void assert_haggling(struct fx *fx)
{
	assert_int_equal(nbd_peer_ask(&fx->p, 4711, "x", 1), NBD_REP_ERR_UNSUP);
}

static void assert_serving(struct fx *fx)
{
	uint8_t buf[512];

	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_FLUSH, 0, 0, 0), 0);
	assert_int_equal(nbd_peer_do_read(&fx->p, 0, 0, buf, sizeof(buf)), 0);
}

/* ---- client flags ----------------------------------------------------------------------------------------------------- */

static void unknown_client_flags_end_it(void **state)
{
	struct fx *fx = *state;
	struct nbd_server_info info;

	nbd_peer_connect(&fx->p, &fx->f);
	nbd_peer_greet(&fx->p, FIXED | 4);
	assert_true(nbd_peer_is_eof(&fx->p));
	nbd_server_info(fx->f.server, &info);
	assert_int_equal(info.broken, 1);
	assert_int_equal(info.connections, 0);
}

static void without_fixed_newstyle_only_export_name(void **state)
{
	struct fx *fx = *state;

	nbd_peer_connect(&fx->p, &fx->f);
	nbd_peer_greet(&fx->p, 0);
	nbd_peer_option(&fx->p, NBD_OPT_LIST, NULL, 0);
	assert_true(nbd_peer_is_eof(&fx->p));
	nbd_peer_close(&fx->p);

	nbd_peer_connect(&fx->p, &fx->f);
	nbd_peer_greet(&fx->p, 0);
	nbd_peer_option(&fx->p, NBD_OPT_EXPORT_NAME, "vol", 3);
	nbd_peer_take(&fx->p, 134);
	assert_serving(fx);
}

/* ---- EXPORT_NAME ------------------------------------------------------------------------------------------------------ */

static void export_name(struct fx *fx, uint32_t flags, const char *name, size_t len)
{
	nbd_peer_connect(&fx->p, &fx->f);
	nbd_peer_greet(&fx->p, flags);
	nbd_peer_option(&fx->p, NBD_OPT_EXPORT_NAME, name, len);
}

static void export_name_with_and_without_zeroes(void **state)
{
	struct fx *fx = *state;

	for (int zeroes = 0; zeroes < 2; zeroes++) {
		struct cursor c;

		export_name(fx, zeroes ? FIXED : FIXED | NO_ZEROES, "vol", 3);
		c = cursor_of(nbd_peer_take(&fx->p, 10), 10);
		assert_int_equal(cursor_be64(&c), 8 * MIB);
		assert_int_equal(cursor_be16(&c),
				 NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
				     NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
				     NBD_FLAG_SEND_FAST_ZERO | NBD_FLAG_CAN_MULTI_CONN);
		if (zeroes)
			assert_true(bytes_are_zero(nbd_peer_take(&fx->p, 124), 124));
		assert_serving(fx);
		nbd_peer_close(&fx->p);
	}
}

static void export_name_that_is_not_there(void **state)
{
	static const char nul[] = "vol\0";
	static char longest[4096];
	struct fx *fx = *state;

	memset(longest, 'v', sizeof(longest));
	export_name(fx, FIXED, "other", 5);
	assert_true(nbd_peer_is_eof(&fx->p));
	nbd_peer_close(&fx->p);
	export_name(fx, FIXED, nul, 4);
	assert_true(nbd_peer_is_eof(&fx->p));
	nbd_peer_close(&fx->p);
	export_name(fx, FIXED, longest, sizeof(longest));
	assert_true(nbd_peer_is_eof(&fx->p));
	nbd_peer_close(&fx->p);
	export_name(fx, FIXED, "vol@", 4);
	assert_true(nbd_peer_is_eof(&fx->p));
	nbd_peer_close(&fx->p);
	mock_rules(fx->f.vs)->open_status = -E_IN_USE;
	export_name(fx, FIXED, "vol", 3);
	assert_true(nbd_peer_is_eof(&fx->p));
}

/* ---- the default export ----------------------------------------------------------------------------------------------- */

static void the_only_volume_is_the_default(void **state)
{
	struct fx *fx = *state;

	nbd_peer_go(&fx->p, &fx->f, "", true); /* contexts too are chosen for "" */
	assert_int_equal(fx->p.size_bytes, 8 * MIB);
	nbd_peer_request(&fx->p, NBD_CMD_BLOCK_STATUS, 0, 7, 0, 4096);
	assert_int_equal(nbd_peer_answer(&fx->p, 0).type, NBD_REPLY_TYPE_BLOCK_STATUS);
	nbd_peer_close(&fx->p);
	export_name(fx, FIXED | NO_ZEROES, "", 0);
	nbd_peer_take(&fx->p, 10);
	assert_serving(fx);
}

static void of_several_none_is_the_default(void **state)
{
	struct fx *fx = *state;
	struct nbd_peer_reply r;

	mock_volume_add(fx->f.vs, "vol2", MIB);
	greet(fx);
	nbd_peer_option(&fx->p, NBD_OPT_GO, fx->data, nbd_peer_info_data(fx->data, "", NULL, 0));
	r = nbd_peer_reply(&fx->p);
	assert_int_equal(r.type, NBD_REP_ERR_UNKNOWN);
	assert_non_null(memmem(r.data, r.len, "several", 7));
	assert_haggling(fx);
}

static void snapshots_do_not_count_for_the_default(void **state)
{
	struct fx *fx = *state;

	mock_volume_add(fx->f.vs, "vol@snap", MIB);
	greet(fx);
	nbd_peer_option(&fx->p, NBD_OPT_GO, fx->data, nbd_peer_info_data(fx->data, "", NULL, 0));
	assert_reply(fx, NBD_OPT_GO, NBD_REP_INFO);
	assert_reply(fx, NBD_OPT_GO, NBD_REP_ACK);
	assert_serving(fx);
}

static void without_volumes_there_is_no_default(void **state)
{
	struct fx *fx = *state;

	mock_rules(fx->f.vs)->list_status = -E_META_AWAY;
	greet(fx);
	assert_int_equal(ask_info(fx, NBD_OPT_GO, ""), NBD_REP_ERR_UNKNOWN);
	assert_haggling(fx);
}

/* ---- INFO and GO ------------------------------------------------------------------------------------------------------ */

static void info_tells_what_is_asked(void **state)
{
	struct fx *fx = *state;
	uint16_t infos[] = {NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE, 4711, NBD_INFO_NAME,
			    NBD_INFO_EXPORT};
	unsigned seen = 0;
	struct nbd_peer_reply r;

	greet(fx);
	nbd_peer_option(&fx->p, NBD_OPT_INFO, fx->data,
			nbd_peer_info_data(fx->data, "vol", infos, 5));
	while ((r = nbd_peer_reply(&fx->p)).type == NBD_REP_INFO) {
		struct cursor c = cursor_of(r.data, r.len);
		uint16_t type = cursor_be16(&c);

		assert_int_equal(r.option, NBD_OPT_INFO);
		assert_false(seen & 1u << type);
		seen |= 1u << type;
		switch (type) {
		case NBD_INFO_EXPORT:
			assert_int_equal(r.len, 12);
			assert_int_equal(cursor_be64(&c), 8 * MIB);
			assert_false(cursor_be16(&c) & (NBD_FLAG_SEND_DF | NBD_FLAG_READ_ONLY |
							NBD_FLAG_SEND_CACHE | NBD_FLAG_ROTATIONAL));
			break;
		case NBD_INFO_BLOCK_SIZE:
			assert_int_equal(r.len, 14);
			assert_int_equal(cursor_be32(&c), 512);
			assert_int_equal(cursor_be32(&c), 4096);
			assert_int_equal(cursor_be32(&c), 32 * MIB);
			break;
		case NBD_INFO_NAME:
			assert_int_equal(r.len, 2 + 3);
			assert_memory_equal(r.data + 2, "vol", 3);
			break;
		case NBD_INFO_DESCRIPTION:
			assert_non_null(memmem(r.data, r.len, "8 MiB", 5));
			break;
		default:
			fail();
		}
	}
	assert_int_equal(r.type, NBD_REP_ACK);
	assert_int_equal(seen, 0xf);
	/* and GO says the same */
	nbd_peer_option(&fx->p, NBD_OPT_GO, fx->data, nbd_peer_info_data(fx->data, "vol", infos, 1));
	assert_reply(fx, NBD_OPT_GO, NBD_REP_INFO);
	assert_reply(fx, NBD_OPT_GO, NBD_REP_INFO);
	assert_reply(fx, NBD_OPT_GO, NBD_REP_ACK);
	assert_serving(fx);
}

static void malformed_info_is_invalid(void **state)
{
	struct fx *fx = *state;
	uint16_t infos[] = {NBD_INFO_BLOCK_SIZE, NBD_INFO_NAME};
	size_t len = nbd_peer_info_data(fx->data, "vol", infos, 2);
	struct be32 wire;

	greet(fx);
	for (uint32_t option = NBD_OPT_INFO; option <= NBD_OPT_GO; option++) {
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(nbd_peer_ask(&fx->p, option, fx->data, cut),
					 NBD_REP_ERR_INVALID);
		assert_int_equal(nbd_peer_ask(&fx->p, option, fx->data, len + 1),
				 NBD_REP_ERR_INVALID);
		wire = to_be32(0xffffffff);
		memcpy(fx->data, &wire, sizeof(wire));
		assert_int_equal(nbd_peer_ask(&fx->p, option, fx->data, len), NBD_REP_ERR_INVALID);
		nbd_peer_info_data(fx->data, "vol", infos, 2);
	}
	assert_haggling(fx);
}

static void names_that_cannot_be(void **state)
{
	struct fx *fx = *state;
	static const char *const names[] = {"nope", "vol@none", "vol@",	       "@vol",
					    "a b",  "../vol",	"vol\xc3\xbc", "-vol"};
	char longest[2000];

	greet(fx);
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		assert_int_equal(ask_info(fx, NBD_OPT_GO, names[i]), NBD_REP_ERR_UNKNOWN);
	memset(longest, 'v', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	for (size_t len = sizeof(longest) - 1; len > 100; len -= 37) {
		longest[len] = '\0';
		assert_int_equal(ask_info(fx, NBD_OPT_INFO, longest), NBD_REP_ERR_UNKNOWN);
	}
	assert_haggling(fx);
}

static void snapshots_are_read_only(void **state)
{
	struct fx *fx = *state;
	uint8_t buf[4096] = {0};

	mock_volume_add(fx->f.vs, "vol@snap", MIB);
	nbd_peer_go(&fx->p, &fx->f, "vol@snap", true);
	assert_int_equal(fx->p.flags, NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY |
					  NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
					  NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_DF);
	assert_int_equal(nbd_peer_do_write(&fx->p, 0, 0, buf, sizeof(buf)), NBD_EPERM);
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_TRIM, 0, 0, 4096), NBD_EPERM);
	assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_WRITE_ZEROES, 0, 0, 4096), NBD_EPERM);
	assert_serving(fx);
}

/* A client would open more connections, and be refused. */
static void an_export_for_one_is_not_for_many_connections(void **state)
{
	struct fx *fx = *state;

	mock_volume_add(fx->f.vs, "one", MIB)->one_opener = true;
	nbd_peer_go(&fx->p, &fx->f, "one", true);
	assert_false(fx->p.flags & NBD_FLAG_CAN_MULTI_CONN);
	assert_true(fx->p.flags & NBD_FLAG_SEND_FLUSH);
	assert_serving(fx);
}

static void who_is_refused_is_told_why(void **state)
{
	static const struct {
		int status;
		uint32_t type;
		const char *errmsg, *uri, *text;
	} rows[] = {
	    {-E_NOT_OWNER, NBD_REP_ERR_POLICY, "", "nbd://10.1.2.3:10809/vol",
	     "nbd://10.1.2.3:10809/vol"},
	    {-E_NOT_OWNER, NBD_REP_ERR_POLICY, "", "", "another node owns this volume"},
	    {-E_IN_USE, NBD_REP_ERR_POLICY, "opened exclusively by qemu on node 3", "",
	     "qemu on node 3"},
	    {-E_META_AWAY, NBD_REP_ERR_UNKNOWN, "", "", "metadata server"},
	    {-ENOMEM, NBD_REP_ERR_UNKNOWN, "", "", "memory"},
	    {-ESHUTDOWN, NBD_REP_ERR_SHUTDOWN, "", "", "shutdown"},
	    {-ENOENT, NBD_REP_ERR_UNKNOWN, "", "", "no such volume"},
	};
	struct fx *fx = *state;
	struct mock_rules *rules = mock_rules(fx->f.vs);

	greet(fx);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct nbd_peer_reply r;

		rules->open_status = rows[i].status;
		snprintf(rules->open_errmsg, sizeof(rules->open_errmsg), "%s", rows[i].errmsg);
		snprintf(rules->open_owner_uri, sizeof(rules->open_owner_uri), "%s", rows[i].uri);
		nbd_peer_option(&fx->p, NBD_OPT_GO, fx->data,
				nbd_peer_info_data(fx->data, "vol", NULL, 0));
		r = nbd_peer_reply(&fx->p);
		assert_int_equal(r.type, rows[i].type);
		assert_non_null(memmem(r.data, r.len, rows[i].text, strlen(rows[i].text)));
	}
	rules->open_status = 0;
	assert_haggling(fx);
	nbd_peer_option(&fx->p, NBD_OPT_GO, fx->data, nbd_peer_info_data(fx->data, "vol", NULL, 0));
	assert_reply(fx, NBD_OPT_GO, NBD_REP_INFO);
	assert_reply(fx, NBD_OPT_GO, NBD_REP_ACK);
	assert_serving(fx);
}

static void the_volume_learns_who_opens_it(void **state)
{
	struct fx *fx = *state;
	struct sim_machine *far = sim_machine_new(fx->f.w, "far");
	struct ioe *e = sim_process_new(far, "client", NULL, NULL);

	nbd_peer_go(&fx->p, &fx->f, "vol", false);
	assert_memory_equal(mock_rules(fx->f.vs)->last_client, "nbd ", 4);
	assert_false(mock_rules(fx->f.vs)->last_remote);
	nbd_peer_close(&fx->p);
	nbd_peer_connect_begin(&fx->p, fx->f.w, e, NBD_FIXTURE_TCP);
	nbd_peer_greet(&fx->p, FIXED | NO_ZEROES);
	nbd_peer_option(&fx->p, NBD_OPT_EXPORT_NAME, "vol", 3);
	nbd_peer_take(&fx->p, 10);
	assert_true(mock_rules(fx->f.vs)->last_remote);
	assert_serving(fx);
	nbd_peer_close(&fx->p);
	ioe_free(e);
}

/* ---- LIST ------------------------------------------------------------------------------------------------------------- */

static uint32_t list_count(struct fx *fx, uint32_t *ret_type)
{
	uint32_t n = 0;
	char last[NAME_LEN_MAX + 1] = "";
	struct nbd_peer_reply r;

	nbd_peer_option(&fx->p, NBD_OPT_LIST, NULL, 0);
	while ((r = nbd_peer_reply(&fx->p)).type == NBD_REP_SERVER) {
		struct cursor c = cursor_of(r.data, r.len);
		uint32_t len = cursor_be32(&c);
		char name[NAME_LEN_MAX + 1];

		assert_true(len <= NAME_LEN_MAX && cursor_left(&c) == len);
		memcpy(name, cursor_take(&c, len), len);
		name[len] = '\0';
		assert_true(strcmp(last, name) < 0);
		assert_non_null(mock_volume_find(fx->f.vs, name));
		memcpy(last, name, sizeof(last));
		n++;
	}
	*ret_type = r.type;
	return n;
}

static void list_of_any_length(void **state)
{
	static const uint32_t lengths[] = {1, 255, 256, 257, 512, 600};
	struct fx *fx = *state;
	uint32_t made = 1, type;

	greet(fx);
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		for (; made < lengths[i]; made++) {
			char name[NAME_LEN_MAX + 1];

			memset(name, 'n', sizeof(name) - 1);
			name[sizeof(name) - 1] = '\0';
			snprintf(name + 40, sizeof(name) - 40, "%04u-longest-names-here", made);
			mock_volume_add(fx->f.vs, name, 4096);
		}
		assert_int_equal(list_count(fx, &type), lengths[i]);
		assert_int_equal(type, NBD_REP_ACK);
	}
	assert_int_equal(nbd_peer_ask(&fx->p, NBD_OPT_LIST, "x", 1), NBD_REP_ERR_INVALID);
	mock_rules(fx->f.vs)->list_status = -E_META_AWAY;
	assert_int_equal(list_count(fx, &type), 0);
	assert_true(type & 0x80000000u);
	assert_haggling(fx);
}

/* ---- STRUCTURED_REPLY, ABORT, what we do not know ------------------------------------------------------------------------- */

static void structured_reply_brings_df(void **state)
{
	struct fx *fx = *state;
	struct nbd_peer_reply r;
	struct cursor c;

	greet(fx);
	assert_int_equal(nbd_peer_ask(&fx->p, NBD_OPT_STRUCTURED_REPLY, "x", 1),
			 NBD_REP_ERR_INVALID);
	for (int i = 0; i < 3; i++) {
		if (i)
			assert_int_equal(nbd_peer_ask(&fx->p, NBD_OPT_STRUCTURED_REPLY, NULL, 0),
					 NBD_REP_ACK);
		nbd_peer_option(&fx->p, NBD_OPT_INFO, fx->data,
				nbd_peer_info_data(fx->data, "vol", NULL, 0));
		r = nbd_peer_reply(&fx->p);
		assert_int_equal(r.type, NBD_REP_INFO);
		c = cursor_of(r.data + 10, 2);
		assert_int_equal(!!(cursor_be16(&c) & NBD_FLAG_SEND_DF), i > 0);
		assert_reply(fx, NBD_OPT_INFO, NBD_REP_ACK);
	}
}

static void abort_is_acknowledged(void **state)
{
	struct fx *fx = *state;

	for (size_t len = 0; len < 200; len += 199) {
		greet(fx);
		assert_int_equal(nbd_peer_ask(&fx->p, NBD_OPT_ABORT, fx->data, len), NBD_REP_ACK);
		assert_true(nbd_peer_is_eof(&fx->p));
		nbd_peer_close(&fx->p);
	}
}

static void unknown_options_are_unsupported(void **state)
{
	static const uint32_t options[] = {
	    0, 4, NBD_OPT_STARTTLS, NBD_OPT_EXTENDED_HEADERS, 12, 0x7fffffff, 0xffffffff};
	struct fx *fx = *state;

	greet(fx);
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		assert_int_equal(nbd_peer_ask(&fx->p, options[i], NULL, 0), NBD_REP_ERR_UNSUP);
		assert_int_equal(nbd_peer_ask(&fx->p, options[i], fx->data, sizeof(fx->data)),
				 NBD_REP_ERR_UNSUP);
	}
}

static void long_options_are_skipped_and_hostile_ones_are_not(void **state)
{
	struct fx *fx = *state;
	size_t len = 3 << 20;
	uint8_t *big = mem_zalloc(len);
	struct nbd_option o = {to_be64(NBD_OPTION_MAGIC), to_be32(NBD_OPT_GO), to_be32(64 << 20)};

	greet(fx);
	assert_int_equal(nbd_peer_ask(&fx->p, NBD_OPT_GO, big, 64 << 10), NBD_REP_ERR_INVALID);
	assert_int_equal(nbd_peer_ask(&fx->p, NBD_OPT_GO, big, (64 << 10) + 1), NBD_REP_ERR_TOO_BIG);
	assert_int_equal(nbd_peer_ask(&fx->p, 99, big, len), NBD_REP_ERR_TOO_BIG);
	assert_haggling(fx);
	nbd_peer_send(&fx->p, &o, sizeof(o));
	assert_true(nbd_peer_is_eof(&fx->p));
	nbd_peer_close(&fx->p);

	greet(fx);
	nbd_peer_option(&fx->p, NBD_OPT_EXPORT_NAME, big, (64 << 10) + 1);
	assert_true(nbd_peer_is_eof(&fx->p));
	mem_free(big);
}

static void a_bad_option_magic_ends_it(void **state)
{
	struct fx *fx = *state;
	struct nbd_option o = {to_be64(NBD_OPTION_MAGIC ^ 1), to_be32(NBD_OPT_LIST), to_be32(0)};

	greet(fx);
	nbd_peer_send(&fx->p, &o, sizeof(o));
	assert_true(nbd_peer_is_eof(&fx->p));
}

static void nobody_haggles_for_ever(void **state)
{
	struct fx *fx = *state;
	int n = 0;

	greet(fx);
	for (; n < 2000; n++) {
		nbd_peer_option(&fx->p, 99, NULL, 0);
		if (!nbd_peer_has(&fx->p, sizeof(struct nbd_option_reply)))
			break;
		nbd_peer_reply(&fx->p);
	}
	assert_int_equal(n, 1000);
}

/* ---- metadata contexts ------------------------------------------------------------------------------------------------ */

/* The number of contexts in the answer; *ret_type is the last reply. */
static uint32_t meta(struct fx *fx, uint32_t option, const char *name, const char *const *queries,
		     uint32_t *ret_type)
{
	uint32_t n = 0;
	struct nbd_peer_reply r;

	nbd_peer_option(&fx->p, option, fx->data, nbd_peer_meta_data(fx->data, name, queries));
	while ((r = nbd_peer_reply(&fx->p)).type == NBD_REP_META_CONTEXT) {
		struct cursor c = cursor_of(r.data, r.len);

		assert_int_equal(!!cursor_be32(&c), option == NBD_OPT_SET_META_CONTEXT);
		assert_int_equal(cursor_left(&c), 15);
		assert_memory_equal(c.at, "base:allocation", 15);
		n++;
	}
	*ret_type = r.type;
	return n;
}

static void meta_context_queries(void **state)
{
	static const struct {
		const char *queries[4];
		uint32_t list, set;
	} rows[] = {
	    {{NULL}, 1, 0},
	    {{"base:"}, 1, 0},
	    {{"base:allocation"}, 1, 1},
	    {{"base:allocation", "base:allocation", "base:"}, 1, 1},
	    {{"base:alloc"}, 0, 0},
	    {{"base:allocations"}, 0, 0},
	    {{"qemu:dirty-bitmap:x", "base:allocation"}, 1, 1},
	    {{"qemu:", "x-foo:bar"}, 0, 0},
	    {{"base"}, 0, 0},
	    {{""}, 0, 0},
	    {{"nocolon"}, 0, 0},
	};
	struct fx *fx = *state;
	uint32_t type;

	greet(fx);
	assert_int_equal(meta(fx, NBD_OPT_LIST_META_CONTEXT, "vol", rows[1].queries, &type), 0);
	assert_int_equal(type, NBD_REP_ERR_INVALID); /* not before structured replies */
	assert_int_equal(meta(fx, NBD_OPT_SET_META_CONTEXT, "vol", rows[1].queries, &type), 0);
	assert_int_equal(type, NBD_REP_ERR_INVALID);
	assert_int_equal(nbd_peer_ask(&fx->p, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(meta(fx, NBD_OPT_LIST_META_CONTEXT, "vol", rows[i].queries, &type),
				 rows[i].list);
		assert_int_equal(type, NBD_REP_ACK);
		assert_int_equal(meta(fx, NBD_OPT_SET_META_CONTEXT, "vol", rows[i].queries, &type),
				 rows[i].set);
		assert_int_equal(type, NBD_REP_ACK);
	}
	assert_int_equal(meta(fx, NBD_OPT_LIST_META_CONTEXT, "nope", rows[1].queries, &type), 0);
	assert_int_equal(type, NBD_REP_ERR_UNKNOWN);
	assert_haggling(fx);
}

static void malformed_meta_context_is_invalid(void **state)
{
	static const char *const queries[] = {"base:", "base:allocation", NULL};
	struct fx *fx = *state;
	size_t len = nbd_peer_meta_data(fx->data, "vol", queries);

	greet(fx);
	assert_int_equal(nbd_peer_ask(&fx->p, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
	for (uint32_t option = NBD_OPT_LIST_META_CONTEXT; option <= NBD_OPT_SET_META_CONTEXT;
	     option++) {
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(nbd_peer_ask(&fx->p, option, fx->data, cut),
					 NBD_REP_ERR_INVALID);
		assert_int_equal(nbd_peer_ask(&fx->p, option, fx->data, len + 1),
				 NBD_REP_ERR_INVALID);
	}
	/* lengths that wrap */
	for (size_t at = 0; at + 4 <= len; at++) {
		memset(fx->data + at, 0xff, 4);
		nbd_peer_option(&fx->p, NBD_OPT_SET_META_CONTEXT, fx->data, len);
		while (nbd_peer_reply(&fx->p).type == NBD_REP_META_CONTEXT)
			;
		nbd_peer_meta_data(fx->data, "vol", queries);
	}
	assert_haggling(fx);
}

/* A choice of contexts counts for the export it was made for, and only the last one. */
static void contexts_belong_to_an_export(void **state)
{
	static const char *const some[] = {"base:allocation", NULL}, *const none[] = {NULL};
	static const struct {
		const char *first;
		const char *const *first_queries;
		const char *second;
		const char *const *second_queries;
		bool cut; /* the second one fails */
		uint32_t error;
	} rows[] = {
	    {"vol", some, NULL, NULL, false, 0},
	    {"vol2", some, NULL, NULL, false, NBD_EINVAL},
	    {"vol", some, "vol", none, false, NBD_EINVAL},
	    {"vol", none, "vol", some, false, 0},
	    {"vol2", some, "vol", some, false, 0},
	    {"vol", some, "vol2", some, false, NBD_EINVAL},
	    {"vol", some, "vol", some, true, NBD_EINVAL},
	};
	struct fx *fx = *state;
	uint32_t type;

	mock_volume_add(fx->f.vs, "vol2", MIB);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		greet(fx);
		fx->p.structured = true;
		assert_int_equal(nbd_peer_ask(&fx->p, NBD_OPT_STRUCTURED_REPLY, NULL, 0),
				 NBD_REP_ACK);
		meta(fx, NBD_OPT_SET_META_CONTEXT, rows[i].first, rows[i].first_queries, &type);
		if (rows[i].cut)
			assert_int_equal(nbd_peer_ask(&fx->p, NBD_OPT_SET_META_CONTEXT, "\0", 1),
					 NBD_REP_ERR_INVALID);
		else if (rows[i].second)
			meta(fx, NBD_OPT_SET_META_CONTEXT, rows[i].second, rows[i].second_queries,
			     &type);
		nbd_peer_option(&fx->p, NBD_OPT_INFO, fx->data,
				nbd_peer_info_data(fx->data, "vol2", NULL, 0));
		assert_reply(fx, NBD_OPT_INFO, NBD_REP_INFO);
		assert_reply(fx, NBD_OPT_INFO, NBD_REP_ACK);
		nbd_peer_option(&fx->p, NBD_OPT_GO, fx->data,
				nbd_peer_info_data(fx->data, "vol", NULL, 0));
		assert_reply(fx, NBD_OPT_GO, NBD_REP_INFO);
		assert_reply(fx, NBD_OPT_GO, NBD_REP_ACK);
		assert_int_equal(nbd_peer_do(&fx->p, NBD_CMD_BLOCK_STATUS, 0, 0, 4096),
				 rows[i].error);
		assert_int_equal(mock_volume_find(fx->f.vs, "vol2")->handles_n, 0);
		nbd_peer_close(&fx->p);
	}
}

/* ---- in pieces -------------------------------------------------------------------------------------------------------- */

/* A whole client, byte for byte the same whatever the pieces, with requests sent before the handshake was answered. */
static size_t session(uint8_t *out)
{
	static const char *const queries[] = {"base:allocation", NULL};
	uint16_t infos[] = {NBD_INFO_BLOCK_SIZE, NBD_INFO_NAME};
	struct be32 flags = to_be32(FIXED | NO_ZEROES);
	size_t n = 0;

#define PUT(p, len) (memcpy(out + n, p, len), n += (len))
#define OPTION(opt, fill)                                                        \
	do {                                                                     \
		uint8_t d_[256];                                                 \
		size_t l_ = (fill);                                              \
		struct nbd_option o_ = {to_be64(NBD_OPTION_MAGIC), to_be32(opt), \
					to_be32((uint32_t)l_)};                  \
		PUT(&o_, sizeof(o_));                                            \
		PUT(d_, l_);                                                     \
	} while (0)
	PUT(&flags, sizeof(flags));
	OPTION(NBD_OPT_STRUCTURED_REPLY, 0);
	OPTION(NBD_OPT_LIST, 0);
	OPTION(NBD_OPT_SET_META_CONTEXT, nbd_peer_meta_data(d_, "vol", queries));
	OPTION(NBD_OPT_INFO, nbd_peer_info_data(d_, "vol", infos, 2));
	OPTION(NBD_OPT_GO, nbd_peer_info_data(d_, "vol", infos, 1));
	for (uint64_t i = 0; i < 2; i++) {
		struct nbd_request_header w = nbd_peer_header(NBD_CMD_WRITE, 0, i, i * 512, 512);
		struct nbd_request_header r =
		    nbd_peer_header(NBD_CMD_READ, 0, 100 + i, i * 512, 512);
		uint8_t payload[512];

		memset(payload, (int)(i + 1), sizeof(payload));
		PUT(&w, sizeof(w));
		PUT(payload, sizeof(payload));
		PUT(&r, sizeof(r));
	}
#undef OPTION
#undef PUT
	return n;
}

static void session_check(struct fx *fx)
{
	struct nbd_greeting g;
	uint32_t options[] = {NBD_OPT_STRUCTURED_REPLY, NBD_OPT_LIST, NBD_OPT_SET_META_CONTEXT,
			      NBD_OPT_INFO, NBD_OPT_GO};
	uint8_t block[512];

	memcpy(&g, nbd_peer_take(&fx->p, sizeof(g)), sizeof(g));
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		struct nbd_peer_reply r;

		do {
			r = nbd_peer_reply(&fx->p);
			assert_int_equal(r.option, options[i]);
			assert_false(r.type & 0x80000000u);
		} while (r.type != NBD_REP_ACK);
	}
	fx->p.structured = true;
	for (int i = 0; i < 4; i++) {
		struct nbd_peer_answer a = nbd_peer_answer(&fx->p, 0);

		assert_int_equal(a.error, 0);
		if (a.cookie < 100)
			continue;
		memset(block, (int)(a.cookie - 100 + 1), sizeof(block));
		assert_int_equal(a.type, NBD_REPLY_TYPE_OFFSET_DATA);
		assert_int_equal(a.len, 512);
		assert_memory_equal(a.data, block, sizeof(block));
	}
}

static void cut_at_every_byte(void **state)
{
	struct fx *fx = *state;
	uint8_t bytes[4096];
	size_t len = session(bytes);

	for (size_t cut = 0; cut <= len; cut++) {
		nbd_peer_connect(&fx->p, &fx->f);
		nbd_peer_send(&fx->p, bytes, cut);
		nbd_fixture_run(&fx->f, 20000000);
		nbd_peer_send(&fx->p, bytes + cut, len - cut);
		session_check(fx);
		nbd_peer_close(&fx->p);
	}
}

static void one_byte_at_a_time(void **state)
{
	struct fx *fx = *state;
	uint8_t bytes[4096];
	size_t len = session(bytes);

	nbd_peer_connect(&fx->p, &fx->f);
	for (size_t i = 0; i < len; i++) {
		nbd_peer_send(&fx->p, bytes + i, 1);
		nbd_fixture_run(&fx->f, 1000000);
	}
	session_check(fx);
}

/* ---- limits ----------------------------------------------------------------------------------------------------------- */

static void the_handshake_has_a_deadline(void **state)
{
	struct fx *fx = *state;
	uint8_t bytes[4096];
	size_t len = session(bytes);
	struct nbd_server_info info;

	/* slowly: a byte a second never gets there */
	for (size_t start = 0; start < 100; start += 23) {
		nbd_peer_connect(&fx->p, &fx->f);
		nbd_peer_send(&fx->p, bytes, start);
		for (int i = 0; i < 31; i++) {
			nbd_peer_send(&fx->p, bytes + start + i, 1);
			nbd_fixture_run(&fx->f, 1000000000);
		}
		assert_true(nbd_peer_is_eof(&fx->p));
		nbd_peer_close(&fx->p);
	}
	nbd_server_info(fx->f.server, &info);
	assert_int_equal(info.broken, 5);
	assert_int_equal(info.connections, 0);
	/* and does not run on in transmission */
	nbd_peer_connect(&fx->p, &fx->f);
	nbd_peer_send(&fx->p, bytes, len);
	session_check(fx);
	nbd_fixture_run(&fx->f, 100000000000ULL);
	assert_serving(fx);
}

static void a_slow_open_is_given_up_and_cleaned_up(void **state)
{
	struct fx *fx = *state;

	mock_rules(fx->f.vs)->open_delay_ns = 60000000000ULL;
	greet(fx);
	nbd_peer_option(&fx->p, NBD_OPT_GO, fx->data, nbd_peer_info_data(fx->data, "vol", NULL, 0));
	nbd_fixture_run(&fx->f, 31000000000ULL);
	assert_true(nbd_peer_is_eof(&fx->p));
	assert_int_equal(mock_volume_find(fx->f.vs, "vol")->handles_n, 1);
	nbd_fixture_run(&fx->f, 100000000000ULL);
	assert_int_equal(mock_volume_find(fx->f.vs, "vol")->handles_n, 0);
	assert_int_equal(nbd_fixture_conns(&fx->f), 0);
}

/* Each allocation for transmission fails once: a refusal, and the client may go on. */
static void without_memory(void **state)
{
	struct fx *fx = *state;
	uint64_t n = 0;
	uint32_t type;

	do {
		greet(fx);
		mock_rules(fx->f.vs)->open_oom = ++n;
		nbd_peer_option(&fx->p, NBD_OPT_GO, fx->data,
				nbd_peer_info_data(fx->data, "vol", NULL, 0));
		type = nbd_peer_reply(&fx->p).type;
		if (type != NBD_REP_INFO) {
			assert_int_equal(type, NBD_REP_ERR_UNKNOWN);
			assert_haggling(fx);
		}
		nbd_peer_close(&fx->p);
	} while (type != NBD_REP_INFO);
	assert_in_range(n, 4, 10);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(unknown_client_flags_end_it),
	    T(without_fixed_newstyle_only_export_name),
	    T(export_name_with_and_without_zeroes),
	    T(export_name_that_is_not_there),
	    T(the_only_volume_is_the_default),
	    T(of_several_none_is_the_default),
	    T(snapshots_do_not_count_for_the_default),
	    T(without_volumes_there_is_no_default),
	    cmocka_unit_test_setup_teardown(info_tells_what_is_asked, setup_usual, teardown),
	    T(malformed_info_is_invalid),
	    T(names_that_cannot_be),
	    T(snapshots_are_read_only),
	    T(an_export_for_one_is_not_for_many_connections),
	    T(who_is_refused_is_told_why),
	    T(the_volume_learns_who_opens_it),
	    T(list_of_any_length),
	    T(structured_reply_brings_df),
	    T(abort_is_acknowledged),
	    T(unknown_options_are_unsupported),
	    T(long_options_are_skipped_and_hostile_ones_are_not),
	    T(a_bad_option_magic_ends_it),
	    T(nobody_haggles_for_ever),
	    T(meta_context_queries),
	    T(malformed_meta_context_is_invalid),
	    T(contexts_belong_to_an_export),
	    T(cut_at_every_byte),
	    T(one_byte_at_a_time),
	    T(the_handshake_has_a_deadline),
	    T(a_slow_open_is_given_up_and_cleaned_up),
	    T(without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
