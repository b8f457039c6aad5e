/* SPDX-License-Identifier: Apache-2.0 */
/* Records of the SAN: golden bytes, round trips, and damage of every byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "metadata/san/schema.h"
#include "src/base/crc.h"
#include "src/base/mem.h"
#include "src/base/rand.h"
#include "tests/lib/env.h"

static struct metastore_bytes value_of(const uint8_t *bytes, size_t len)
{
	return (struct metastore_bytes){bytes, len};
}

static void expect_hex(const void *bytes, size_t len, const char *hex)
{
	char *got = malloc(len * 2 + 1);

	for (size_t i = 0; i < len; i++)
		snprintf(got + i * 2, 3, "%02x", ((const uint8_t *)bytes)[i]);
	assert_string_equal(got, hex);
	free(got);
}

/* Makes the checksum right again after bytes were changed. */
static void reseal(const struct schema_key *k, uint8_t *b, size_t len)
{
	uint32_t crc = crc32c_more(crc32c(k->b, k->len), b + 4, len - 4);

	for (int i = 0; i < 4; i++)
		b[i] = (uint8_t)(crc >> (8 * i));
}

/* ---- examples --------------------------------------------------------------------------------------------------------------- */

static struct schema_cluster a_cluster(void)
{
	struct schema_cluster c = {.created_ns = 0x1122334455667788,
				   .cgen = 0x0102030405060708,
				   .event = 9,
				   .volume = 1,
				   .layer = 2,
				   .node = 3,
				   .device = 4,
				   .pool = 5,
				   .policy = 6,
				   .job = 7};

	for (uint8_t i = 0; i < 16; i++)
		c.uuid.b[i] = i;
	return c;
}

static struct san_volume a_volume(void)
{
	return (struct san_volume){.id = 5,
				   .name = "vm1",
				   .uuid = {{1, 2, 3}},
				   .state = SAN_VOLUME_READY,
				   .size_bytes = 1 << 30,
				   .sector_bytes = 512,
				   .chunk_shift = 20,
				   .pool = 1,
				   .policy = 2,
				   .write_cache = SAN_CACHE_WRITEBACK,
				   .created_ns = 12345,
				   .head = 6,
				   .epoch = 3,
				   .epoch_commit = 99,
				   .owner = 2,
				   .owner_start = {{7}},
				   .is_open = true,
				   .read_only = true};
}

static struct schema_layer a_layer(void)
{
	return (struct schema_layer){.parent = 3,
				     .volume = 5,
				     .frozen = true,
				     .size_bytes = 1 << 30,
				     .commit = 77,
				     .snapshot = "monday"};
}

static struct san_job a_job(void)
{
	return (struct san_job){.id = 8,
				.kind = SAN_JOB_CHECK,
				.state = SAN_JOB_FAILED,
				.cancel = true,
				.args = {1, 2, 3, 4},
				.subject = "vm1",
				.done_n = 10,
				.total_n = 20,
				.created_ns = 1,
				.ended_ns = 2,
				.error = -EIO,
				.text = "it broke"};
}

static struct san_event an_event(void)
{
	return (struct san_event){.seq = 11,
				  .wall_ns = 12,
				  .severity = SAN_WARNING,
				  .code = "device_lost",
				  .text = "device 3 was lost"};
}

static struct schema_once a_once(void)
{
	return (struct schema_once){.seq = 12,
				    .request = 0x1122334455667788,
				    .wall_ns = 13,
				    .what = SAN_ONCE_JOB,
				    .id = 14,
				    .key = "key of a client"};
}

static void a_body(struct map_body *b)
{
	struct map_entry one = {.kind = MAP_OPEN,
				.flags = MAP_FULL,
				.replicas_n = 1,
				.replicas = {{.cgen = 1000, .slot = 7, .dev = 2}}};
	struct map_entry two = {.kind = MAP_SEALED,
				.flags = MAP_RESERVED | MAP_OPAQUE,
				.replicas_n = 2,
				.replicas = {{.cgen = 1001, .slot = 8, .dev = 2},
					     {.cgen = 70000, .slot = 9, .dev = 3}}};
	struct map_entry zero = {.kind = MAP_ZERO}, lost = {.kind = MAP_LOST};

	*b = (struct map_body){NULL, NULL, 0};
	assert_int_equal(map_body_reserve(b, 2), 0);
	map_body_set(b, 0, &one);
	map_body_set(b, 1, &zero);
	map_body_set(b, 200, &lost);
	map_body_set(b, 255, &two);
}

/* ---- golden ----------------------------------------------------------------------------------------------------------------- */

/* Nearly all of it is zeros. */
static void space_golden(uint8_t *b)
{
	uint64_t used[SCHEMA_SPACE_WORDS] = {0x8000000000000005}, freeing[SCHEMA_SPACE_WORDS] = {2};
	struct schema_key k = schema_key_dev_32(SCHEMA_SPACE, 0x0102, 0x03040506);
	static uint8_t expected[SCHEMA_SPACE_LEN];
	enum { BITS = 16, BYTES = SCHEMA_SPACE_SLOTS / 8 };

	used[SCHEMA_SPACE_WORDS - 1] = 0xff00;
	expect_hex(k.b, k.len, "73010203040506");
	assert_int_equal(schema_space_encode(used, freeing, &k, b), BITS + 2 * BYTES);
	expect_hex(b, BITS, "b1c42389010000000b00000001000000");
	expected[BITS] = 0x05;
	expected[BITS + 7] = 0x80;
	expected[BITS + BYTES - 7] = 0xff;
	expected[BITS + BYTES] = 0x02;
	assert_memory_equal(b + BITS, expected + BITS, 2 * BYTES);
}

/* What is written today must be readable for ever: a changed byte here is a new version there. */
static void test_golden(void **state)
{
	struct schema_once o = a_once();
	uint8_t b[SCHEMA_PAGE_MAX];
	struct schema_key k = schema_key_table(SCHEMA_CLUSTER);
	struct schema_cluster c = a_cluster();
	struct san_volume v = a_volume();
	struct schema_layer l = a_layer();
	struct san_job j = a_job();
	struct san_event e = an_event();
	struct map_body body;

	(void)state;
	expect_hex(b, schema_cluster_encode(&c, &k, b),
		   "1fee0a0b01000000000102030405060708090a0b0c0d0e0f8877665544332211080706050403020"
		   "10900000000000000"
		   "0100000002000000030000000400000005000000060000000700000000000000");
	k = schema_key_dev(SCHEMA_DEVICE, 0x0102);
	expect_hex(k.b, k.len, "640102");
	expect_hex(b,
		   schema_device_encode(&(struct schema_device){.pool = 1,
								.chunk_shift = 22,
								.slots_n = 1000,
								.lose_job = 3},
					&k, b),
		   "cd905cd30100000001000000e80300000300000016000000");
	k = schema_key_dev_32(SCHEMA_INTENT, 0x0102, 0x03040506);
	expect_hex(k.b, k.len, "66010203040506");
	expect_hex(b, schema_intent_encode(0x1122334455, &k, b), "a3834b20010000005544332211000000");
	k = schema_key_32(SCHEMA_VOLUME, 5);
	expect_hex(k.b, k.len, "7600000005");
	expect_hex(b, schema_volume_encode(&v, &k, b),
		   "e20b09aa01000000010203000000000000000000000000000700000000000000000000000000000"
		   "00000004000000000"
		   "3930000000000000030000000000000063000000000000000600000001000000020000000200000"
		   "00000000000021401"
		   "01050300766d31");
	k = schema_key_name("vm1");
	expect_hex(k.b, k.len, "6e766d31");
	expect_hex(b, schema_name_encode(5, &k, b), "afabcdb50100000005000000");
	k = schema_key_32(SCHEMA_LAYER, 6);
	expect_hex(
	    b, schema_layer_encode(&l, &k, b),
	    "7ca3dc7b0100000000000040000000004d000000000000000300000005000000010600006d6f6e646179");
	k = schema_key_32(SCHEMA_USAGE, 6);
	expect_hex(b, schema_usage_encode(&(struct schema_usage){3, 4}, &k, b),
		   "5802f8300100000003000000000000000400000000000000");
	k = schema_key_32(SCHEMA_JOB, 8);
	expect_hex(b, schema_job_encode(&j, &k, b),
		   "fb98df3901000000010000000000000002000000000000000300000000000000040000000000000"
		   "00a00000000000000"
		   "140000000000000001000000000000000200000000000000030000000401030308000000766d314"
		   "5494f69742062726f"
		   "6b65");
	k = schema_key_64(SCHEMA_EVENT, 11);
	expect_hex(k.b, k.len, "65000000000000000b");
	expect_hex(b, schema_event_encode(&e, &k, b),
		   "6c2e36a7010000000c00000000000000020b11006465766963655f6c6f737464657669636520332"
		   "0776173206c6f7374");
	k = schema_key_64(SCHEMA_ONCE, 12);
	expect_hex(k.b, k.len, "6f000000000000000c");
	expect_hex(b, schema_once_encode(&o, &k, b),
		   "dc8ec9420100000088776655443322110d000000000000000e000000020f00006b6579206f66206"
		   "120636c69656e74");
	space_golden(b);
	k = schema_key_map(0x01020304, 0x050607);
	expect_hex(k.b, k.len, "6d0102030400050607");
	a_body(&body);
	expect_hex(b, schema_map_encode(&body, &k, b),
		   "a7c8941801000000e8030000000000000400030000000000001201020007000000000000010100c"
		   "80600ff2306020008"
		   "000000010000030009000000880d01");
	map_body_free(&body);
}

/* ---- round trips, and damage ------------------------------------------------------------------------------------------------ */

enum what {
	CLUSTER,
	DEVICE,
	INTENT,
	VOLUME,
	NAME,
	LAYER,
	USAGE,
	JOB,
	EVENT,
	ONCE,
	MAP,
	SPACE,
	WHATS
};

static size_t encode(enum what w, struct schema_key *k, uint8_t *b)
{
	uint64_t used[SCHEMA_SPACE_WORDS] = {1, 2, 3}, freeing[SCHEMA_SPACE_WORDS] = {6, 0, 4};
	struct schema_cluster c = a_cluster();
	struct san_volume v = a_volume();
	struct schema_layer l = a_layer();
	struct san_job j = a_job();
	struct san_event e = an_event();
	struct schema_once o = a_once();
	struct map_body body;
	size_t len;

	switch (w) {
	case CLUSTER:
		*k = schema_key_table(SCHEMA_CLUSTER);
		return schema_cluster_encode(&c, k, b);
	case DEVICE:
		*k = schema_key_dev(SCHEMA_DEVICE, 2);
		return schema_device_encode(
		    &(struct schema_device){.pool = 1, .chunk_shift = 20, .slots_n = 9}, k, b);
	case INTENT:
		*k = schema_key_dev_32(SCHEMA_INTENT, 2, 3);
		return schema_intent_encode(5, k, b);
	case VOLUME:
		*k = schema_key_32(SCHEMA_VOLUME, 5);
		return schema_volume_encode(&v, k, b);
	case NAME:
		*k = schema_key_name("vm1");
		return schema_name_encode(5, k, b);
	case LAYER:
		*k = schema_key_32(SCHEMA_LAYER, 6);
		return schema_layer_encode(&l, k, b);
	case USAGE:
		*k = schema_key_32(SCHEMA_USAGE, 6);
		return schema_usage_encode(&(struct schema_usage){3, 4}, k, b);
	case JOB:
		*k = schema_key_32(SCHEMA_JOB, 8);
		return schema_job_encode(&j, k, b);
	case EVENT:
		*k = schema_key_64(SCHEMA_EVENT, 11);
		return schema_event_encode(&e, k, b);
	case ONCE:
		*k = schema_key_64(SCHEMA_ONCE, 12);
		return schema_once_encode(&o, k, b);
	case MAP:
		*k = schema_key_map(6, 1);
		a_body(&body);
		len = schema_map_encode(&body, k, b);
		map_body_free(&body);
		return len;
	case SPACE:
		used[0] = 1;
		*k = schema_key_dev_32(SCHEMA_SPACE, 2, 0);
		freeing[2] = 4;
		return schema_space_encode(used, freeing, k, b);
	default:
		abort();
	}
}

static int decode(enum what w, const struct schema_key *key, struct metastore_bytes v)
{
	struct metastore_bytes k = schema_key_bytes(key);
	static union {
		struct schema_cluster c;
		struct schema_device d;
		struct san_volume v;
		struct schema_layer l;
		struct schema_usage u;
		struct san_job j;
		struct san_event e;
		struct schema_once o;
		uint64_t words[2][SCHEMA_SPACE_WORDS];
		uint64_t cgen;
		volume_id id;
	} out;
	struct map_body body = {NULL, NULL, 0};
	int r;

	switch (w) {
	case CLUSTER:
		return schema_cluster_decode(k, v, &out.c);
	case DEVICE:
		return schema_device_decode(k, v, &out.d);
	case INTENT:
		return schema_intent_decode(k, v, &out.cgen);
	case VOLUME:
		return schema_volume_decode(k, v, &out.v);
	case NAME:
		return schema_name_decode(k, v, &out.id);
	case LAYER:
		return schema_layer_decode(k, v, &out.l);
	case USAGE:
		return schema_usage_decode(k, v, &out.u);
	case JOB:
		return schema_job_decode(k, v, &out.j);
	case EVENT:
		return schema_event_decode(k, v, &out.e);
	case ONCE:
		return schema_once_decode(k, v, &out.o);
	case MAP:
		r = schema_map_decode(k, v, &body);
		if (r)
			assert_null(body.slots);
		map_body_free(&body);
		return r;
	case SPACE:
		return schema_space_decode(k, v, out.words[0], out.words[1]);
	default:
		abort();
	}
}

static void test_damage(void **state)
{
	static uint8_t b[SCHEMA_PAGE_MAX];
	struct schema_key k;

	(void)state;
	for (enum what w = 0; w < WHATS; w++) {
		size_t len = encode(w, &k, b);

		assert_int_equal(decode(w, &k, value_of(b, len)), 0);
		for (size_t i = 0; i < len; i++) {
			for (int bit = 0; bit < 8; bit++) {
				b[i] ^= (uint8_t)(1 << bit);
				assert_int_equal(decode(w, &k, value_of(b, len)), -E_FORMAT);
				b[i] ^= (uint8_t)(1 << bit);
			}
		}
		for (size_t i = 0; i < len; i++)
			assert_int_equal(decode(w, &k, value_of(b, i)), -E_FORMAT);
		/* the right bytes under a wrong key */
		k.b[k.len - 1] ^= 1;
		assert_int_equal(decode(w, &k, value_of(b, len)), -E_FORMAT);
	}
}

/* Random contents with a right checksum: no crash, no leak, whatever they say. STRATA_FUZZ_CASES=N: so many. */
static void test_nonsense_with_a_right_checksum(void **state)
{
	uint64_t cases = env_number("STRATA_FUZZ_CASES", 40000);
	static uint8_t b[SCHEMA_PAGE_MAX];
	struct schema_key k;
	struct rand rnd;
	uint32_t refused = 0;

	(void)state;
	rand_seed(&rnd, 5);
	for (uint64_t round = 0; round < cases; round++) {
		enum what w = (enum what)(round % WHATS);
		size_t len = encode(w, &k, b);
		size_t changes = 1 + rand_below(&rnd, 4);

		for (size_t i = 0; i < changes; i++)
			b[8 + rand_below(&rnd, len - 8)] = (uint8_t)rand_u64(&rnd);
		if (rand_percent(&rnd, 20))
			len = 8 + rand_below(&rnd, len - 8);
		reseal(&k, b, len);
		refused += decode(w, &k, value_of(b, len)) != 0;
	}
	assert_true(refused > cases / 40);
	assert_int_equal(mem_live(), 0);
}

static void test_later_version(void **state)
{
	static uint8_t b[SCHEMA_PAGE_MAX];
	struct schema_key k;

	(void)state;
	for (enum what w = 0; w < WHATS; w++) {
		size_t len = encode(w, &k, b);

		b[4]++;
		reseal(&k, b, len);
		assert_int_equal(decode(w, &k, value_of(b, len)), -E_VERSION);
	}
}

static void random_entry(struct rand *rnd, struct map_entry *e, bool wide)
{
	*e = (struct map_entry){.kind = (uint8_t)rand_below(rnd, 7)};
	if (e->kind == MAP_UNMAPPED || e->kind == MAP_ZERO || e->kind == MAP_LOST)
		return;
	e->flags = (uint8_t)rand_below(rnd, 8);
	e->replicas_n = (uint8_t)(wide ? 1 + rand_below(rnd, REPLICAS_MAX) : 1);
	for (uint32_t i = 0; i < e->replicas_n; i++)
		e->replicas[i] = (struct replica){
		    .cgen = wide ? rand_u64(rnd) | 1 : 1000000 + rand_below(rnd, 5000),
		    .slot = (uint32_t)rand_u64(rnd),
		    .dev = (device_no)(1 + rand_below(rnd, DEVICES_MAX)),
		};
}

static void test_map_page_round_trip(void **state)
{
	static uint8_t b[SCHEMA_PAGE_MAX];
	struct schema_key k = schema_key_map(3, 4);
	struct rand rnd;

	(void)state;
	rand_seed(&rnd, 1);
	for (int round = 0; round < 500; round++) {
		struct map_body body = {NULL, NULL, 0}, got = {NULL, NULL, 0};
		struct map_entry e[SCHEMA_MAP_CHUNKS], f;
		uint32_t n = 0;
		size_t len;

		assert_int_equal(map_body_reserve(&body, REPLICAS_MAX), 0);
		for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
			e[i] = (struct map_entry){.kind = MAP_UNMAPPED};
			if (round % 5 == 0 || rand_percent(&rnd, 30) || i == 0)
				random_entry(&rnd, &e[i], round % 2);
			if (i == 0 && e[i].kind == MAP_UNMAPPED)
				e[i].kind = MAP_ZERO;
			map_body_set(&body, i, &e[i]);
			n += e[i].kind != MAP_UNMAPPED;
		}
		assert_int_equal(body.entries_n, n);
		len = schema_map_encode(&body, &k, b);
		assert_true(len <= SCHEMA_PAGE_MAX);
		assert_int_equal(schema_map_decode(schema_key_bytes(&k), value_of(b, len), &got), 0);
		assert_int_equal(got.entries_n, n);
		for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
			map_body_get(&got, i, &f);
			assert_memory_equal(&f, &e[i], sizeof(f));
		}
		map_body_free(&body);
		map_body_free(&got);
	}
}

/* The sizes that the design promises. */
static void test_map_page_sizes(void **state)
{
	static uint8_t b[SCHEMA_PAGE_MAX];
	struct schema_key k = schema_key_map(3, 4);
	struct map_body body = {NULL, NULL, 0};
	struct map_entry e = {.kind = MAP_OPEN, .replicas_n = 1};
	size_t len;

	(void)state;
	assert_int_equal(map_body_reserve(&body, REPLICAS_MAX), 0);
	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		e.replicas[0] = (struct replica){.cgen = 1 + i * 60000, .slot = i, .dev = 1};
		map_body_set(&body, i, &e);
	}
	len = schema_map_encode(&body, &k, b);
	assert_true(len <= 3200); /* 4096 pages a TiB: 12.5 MiB */
	e.replicas_n = REPLICAS_MAX;
	for (uint32_t i = 0; i < SCHEMA_MAP_CHUNKS; i++) {
		for (uint32_t j = 0; j < REPLICAS_MAX; j++)
			e.replicas[j] = (struct replica){.cgen = 1 + ((1ULL << 40) - 2) * i / 255,
							 .slot = i,
							 .dev = 1};
		map_body_set(&body, i, &e);
	}
	len = schema_map_encode(&body, &k, b);
	assert_true(len <= 12 << 10);
	/* and if cgens ever were that far apart */
	e.replicas[0].cgen = UINT64_MAX;
	map_body_set(&body, 0, &e);
	len = schema_map_encode(&body, &k, b);
	assert_int_equal(len, 24 + SCHEMA_MAP_CHUNKS * (3 + REPLICAS_MAX * (6 + 8)));
	assert_true(len <= SCHEMA_PAGE_MAX);
	map_body_free(&body);
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------- */

static void test_keys(void **state)
{
	struct schema_key a = schema_key_map(1, 255), b = schema_key_map(1, 256),
			  c = schema_key_map(2, 0), n;
	char name[NAME_LEN_MAX + 1];
	layer_id layer;
	uint32_t page, x;
	uint64_t y;
	device_no dev;

	(void)state;
	assert_true(memcmp(a.b, b.b, a.len) < 0);
	assert_true(memcmp(b.b, c.b, b.len) < 0);
	assert_true(schema_key_get_map(schema_key_bytes(&b), &layer, &page));
	assert_int_equal(layer, 1);
	assert_int_equal(page, 256);
	a = schema_key_dev_32(SCHEMA_SPACE, 7, 9);
	assert_true(schema_key_get_dev_32(schema_key_bytes(&a), &dev, &x));
	assert_int_equal(dev, 7);
	assert_int_equal(x, 9);
	assert_false(schema_key_get_32(schema_key_bytes(&a), &x));
	a = schema_key_64(SCHEMA_EVENT, 0x123456789abcdef0);
	assert_true(schema_key_get_64(schema_key_bytes(&a), &y));
	assert_true(y == 0x123456789abcdef0);
	n = schema_key_name("0123456789012345678901234567890123456789012345678901234567890ab");
	assert_true(schema_key_get_name(schema_key_bytes(&n), name));
	assert_int_equal(strlen(name), NAME_LEN_MAX);
	n = schema_key_table(SCHEMA_NAME);
	assert_false(schema_key_get_name(schema_key_bytes(&n), name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_golden),
	    cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_nonsense_with_a_right_checksum),
	    cmocka_unit_test(test_later_version),
	    cmocka_unit_test(test_map_page_round_trip),
	    cmocka_unit_test(test_map_page_sizes),
	    cmocka_unit_test(test_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
