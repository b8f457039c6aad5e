/* SPDX-License-Identifier: Apache-2.0 */
/* The registry's records: the same bytes for ever, what was put in comes out, and nothing else is taken for a record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "metadata/cluster/codec.h"
#include "src/base/crc.h"
#include "src/base/mem.h"
#include "src/base/rand.h"

static void expect_hex(const void *bytes, size_t len, const char *hex)
{
	char got[512];

	assert_true(2 * len < sizeof(got));
	got[0] = '\0';
	for (size_t i = 0; i < len; i++)
		snprintf(got + i * 2, 3, "%02x", ((const uint8_t *)bytes)[i]);
	assert_string_equal(got, hex);
}

/* ---- examples --------------------------------------------------------------------------------------------------------------- */

static struct uuid a_uuid(void)
{
	struct uuid u;

	for (uint8_t i = 0; i < sizeof(u.b); i++)
		u.b[i] = (uint8_t)(0x10 + i);
	return u;
}

static struct cluster_node a_node(void)
{
	return (struct cluster_node){.no = 0x01020304,
				     .uuid = a_uuid(),
				     .name = "n1",
				     .version = "1.0",
				     .nbd = {.n = 2, .list = {"unix:/a", "[::1]:9"}}};
}

static struct cluster_device a_device(void)
{
	static char path[] = "/dev/sdb";

	return (struct cluster_device){.no = 0x0102,
				       .uuid = a_uuid(),
				       .node = 0x01020304,
				       .pool = 0x11121314,
				       .chunk_shift = 20,
				       .slots_n = 0x21222324,
				       .path = path,
				       .member = CLUSTER_REMOVED,
				       .incarnation = 0x3132333435363738,
				       .lsn = 0x4142434445464748,
				       .told_commit = 0x5152535455565758,
				       .layers_commit = 0x6162636465666768};
}

static struct cluster_pool a_pool(void)
{
	return (struct cluster_pool){.no = 0x01020304,
				     .media = CLUSTER_ROTATIONAL,
				     .chunk_shift = CHUNK_SHIFT_DISK,
				     .name = "default"};
}

enum what { NODE, DEVICE, POOL, WHATS };

static void encode(enum what w, struct codec_record *r)
{
	struct cluster_node n = a_node();
	struct cluster_device d = a_device();
	struct cluster_pool p = a_pool();

	if (w == NODE)
		codec_put_node(&n, r);
	else if (w == DEVICE)
		codec_put_device(&d, r);
	else
		codec_put_pool(&p, r);
}

static int decode(enum what w, const struct codec_record *r)
{
	struct metastore_item item = {.key = {r->key, r->key_len},
				      .value = {r->value, r->value_len}};
	struct cluster_node n = {0};
	struct cluster_device d = {0};
	struct cluster_pool p = {0};
	int ret;

	if (w == NODE)
		return codec_get_node(&item, &n);
	if (w == POOL)
		return codec_get_pool(&item, &p);
	ret = codec_get_device(&item, &d);
	assert_true((ret == 0) == (d.path != NULL));
	mem_free(d.path);
	return ret;
}

/* Makes the checksum right again after bytes were changed. */
static void reseal(struct codec_record *r)
{
	struct le32 crc = to_le32(crc32c(r->value, r->value_len - sizeof(crc)));

	memcpy(r->value + r->value_len - sizeof(crc), &crc, sizeof(crc));
}

/* ---- tests ------------------------------------------------------------------------------------------------------------------ */

/* What is written today must be readable for ever: a changed byte here is a new version there. */
static void golden(void **state)
{
	static struct codec_record r;

	(void)state;
	encode(NODE, &r);
	expect_hex(r.key, r.key_len, "4e01020304");
	expect_hex(r.value, r.value_len,
		   "01000000101112131415161718191a1b1c1d1e1f020000006e3103000000312e300200000007000"
		   "000756e69783a2f61070000005b3a3a315d3a390000000067a1da7b");
	encode(DEVICE, &r);
	expect_hex(r.key, r.key_len, "440102");
	expect_hex(r.value, r.value_len,
		   "01000000101112131415161718191a1b1c1d1e1f040302011413121114000000242322210200000"
		   "03837363534333231484746454443424158575655545352516867666564636261080000002f6465"
		   "762f736462fa4f9014");
	encode(POOL, &r);
	expect_hex(r.key, r.key_len, "5001020304");
	expect_hex(r.value, r.value_len, "01000000160000000700000064656661756c74a79af877");
}

/* Pools whose chunks are what suits their disks have no word for the disks. */
static void a_pool_with_other_chunks(void **state)
{
	struct cluster_pool p0 = a_pool(), p = {0};
	static struct codec_record r;
	struct metastore_item item = {.key = {r.key, 0}, .value = {r.value, 0}};

	(void)state;
	p0.media = CLUSTER_FLASH;
	codec_put_pool(&p0, &r);
	expect_hex(r.value, r.value_len, "01000000160000000700000064656661756c7401000000203fc0f9");
	item.key.len = r.key_len;
	item.value.len = r.value_len;
	assert_int_equal(codec_get_pool(&item, &p), 0);
	assert_memory_equal(&p, &p0, sizeof(p));
	for (uint8_t media = 0; media < 4; media++) {
		r.value[r.value_len - 8] = media;
		reseal(&r);
		assert_int_equal(codec_get_pool(&item, &p), media == CLUSTER_FLASH ? 0 : -E_FORMAT);
	}
}

static void what_was_put_in_comes_out(void **state)
{
	static struct codec_record r;
	struct metastore_item item = {.key = {r.key, 0}, .value = {r.value, 0}};
	struct cluster_node n = {0}, n0 = a_node();
	struct cluster_device d = {0}, d0 = a_device();
	struct cluster_pool p = {0}, p0 = a_pool();

	(void)state;
	codec_put_node(&n0, &r);
	item.key.len = r.key_len;
	item.value.len = r.value_len;
	assert_int_equal(codec_get_node(&item, &n), 0);
	assert_memory_equal(&n, &n0, sizeof(n));
	codec_put_device(&d0, &r);
	item.key.len = r.key_len;
	item.value.len = r.value_len;
	assert_int_equal(codec_get_device(&item, &d), 0);
	assert_string_equal(d.path, d0.path);
	mem_free(d.path);
	d.path = d0.path;
	assert_memory_equal(&d, &d0, sizeof(d));
	codec_put_pool(&p0, &r);
	item.key.len = r.key_len;
	item.value.len = r.value_len;
	assert_int_equal(codec_get_pool(&item, &p), 0);
	assert_memory_equal(&p, &p0, sizeof(p));
}

static void damage_is_noticed(void **state)
{
	static struct codec_record r;

	(void)state;
	for (enum what w = 0; w < WHATS; w++) {
		encode(w, &r);
		assert_int_equal(decode(w, &r), 0);
		for (size_t at = 0; at < r.value_len; at++)
			for (int bit = 0; bit < 8; bit++) {
				r.value[at] ^= (uint8_t)(1 << bit);
				assert_int_equal(decode(w, &r), -E_FORMAT);
				r.value[at] ^= (uint8_t)(1 << bit);
			}
		while (r.value_len-- > 0)
			assert_int_equal(decode(w, &r), -E_FORMAT);
	}
}

static void a_later_version_is_told_from_damage(void **state)
{
	static struct codec_record r;

	(void)state;
	for (enum what w = 0; w < WHATS; w++) {
		encode(w, &r);
		r.value[0]++;
		reseal(&r);
		assert_int_equal(decode(w, &r), -E_VERSION);
	}
}

/* Random contents with a right checksum: no crash, no leak, whatever they say. */
static void nonsense_does_no_harm(void **state)
{
	static struct codec_record r;
	struct rand rnd;
	uint32_t refused = 0;

	(void)state;
	rand_seed(&rnd, 7);
	for (int round = 0; round < 30000; round++) {
		enum what w = (enum what)(round % WHATS);

		encode(w, &r);
		for (uint64_t i = rand_below(&rnd, 4) + 1; i > 0; i--)
			r.value[4 + rand_below(&rnd, r.value_len - 4)] = (uint8_t)rand_u64(&rnd);
		if (rand_percent(&rnd, 20))
			r.value_len = 8 + rand_below(&rnd, r.value_len - 8);
		reseal(&r);
		refused += decode(w, &r) != 0;
	}
	assert_true(refused > 1000);
	assert_int_equal(mem_live(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(golden),
	    cmocka_unit_test(a_pool_with_other_chunks),
	    cmocka_unit_test(what_was_put_in_comes_out),
	    cmocka_unit_test(damage_is_noticed),
	    cmocka_unit_test(a_later_version_is_told_from_damage),
	    cmocka_unit_test(nonsense_does_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
