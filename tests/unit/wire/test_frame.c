/* SPDX-License-Identifier: Apache-2.0 */
/* The frame header, and the control messages in it: what is accepted, what is refused, and that nothing else happens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/base/rand.h"
#include "src/wire/control.h"
#include "src/wire/frame.h"
#include "tests/lib/env.h"

static void a_header_says_what_was_put_in(void **state)
{
	struct frame f = {.type = 300,
			  .flags = FRAME_F_REPLY,
			  .body_bytes = 3,
			  .data_bytes = 4096,
			  .id = 0x1122334455667788},
		     g;
	struct frame_header h;

	(void)state;
	frame_encode(&h, &f, "abc");
	assert_int_equal(frame_decode(&h, 16, 4096, &g), 0);
	assert_int_equal(g.type, f.type);
	assert_int_equal(g.flags, f.flags);
	assert_int_equal(g.body_bytes, f.body_bytes);
	assert_int_equal(g.data_bytes, f.data_bytes);
	assert_int_equal(g.id, f.id);
	assert_true(frame_crc_matches(&h, "abc", 3));
	assert_false(frame_crc_matches(&h, "abd", 3));
	assert_int_equal(frame_decode(&h, 2, 4096, &g), -EMSGSIZE);
	assert_int_equal(frame_decode(&h, 16, 4095, &g), -EMSGSIZE);
}

static void golden_bytes(void **state)
{
	static const uint8_t golden[FRAME_HEADER_BYTES] = {'S', 'F', 'R', 'M', 1, 1, 0x10, 0,
							   2,	0,   0,	  0,   0, 0, 0,	   0,
							   7,	0,   0,	  0,   0, 0, 0,	   0,
							   0,	0,   0,	  0,   0, 0, 0,	   0};
	struct frame f = {.type = 16, .flags = FRAME_F_REPLY, .body_bytes = 2, .id = 7};
	struct frame_header h;

	(void)state;
	frame_encode(&h, &f, "hi");
	assert_int_equal(get_le32(h.crc), 0x18c05457);
	h.crc = to_le32(0);
	assert_memory_equal(&h, golden, sizeof(golden));
}

static void numbers_of_messages_stay(void **state)
{
	static const struct {
		uint16_t number;
		const char *name;
	} messages[] = {
	    {16, "HELLO"},	   {17, "DEVICE_REPORT"},  {18, "HAPPENED"},
	    {19, "VOLUME_OPEN"},   {20, "VOLUME_CLOSE"},   {21, "MAP"},
	    {22, "ALLOC"},	   {23, "UPDATE"},	   {24, "NAMES"},
	    {64, "RECORDS"},	   {65, "SERVE"},	   {66, "FREE"},
	    {67, "CONFIG"},	   {68, "VOLUME_CHANGED"}, {69, "DEVICE_ADD"},
	    {70, "DEVICE_REMOVE"}, {71, "SLOT_QUERY"},	   {72, "STATS"},
	    {73, "VOLUME_BENCH"},  {74, "LAYER_QUERY"},	   {75, "CLIENTS"},
	};
	size_t at = 0;

	(void)state;
	for (uint16_t type = 0; type < 256; type++) {
		bool is_one = at < ARRAY_LEN(messages) && messages[at].number == type;

		assert_string_equal(control_name(type), is_one ? messages[at].name : "?");
		at += is_one;
	}
	assert_int_equal(at, ARRAY_LEN(messages));
	assert_int_equal(CONTROL_LAYER_DELETED, 1);
	assert_int_equal(CONTROL_LAYER_FROZEN, 2);
	assert_int_equal(CONTROL_LAYER_SECTOR_512, 4);
	assert_int_equal(CONTROL_LAYER_GONE, 8);
	assert_int_equal(CONTROL_LAYER_CACHE_SHIFT, 4);
}

static void every_flipped_bit_is_noticed(void **state)
{
	struct frame f = {.type = 16, .body_bytes = 5, .id = 1}, g;

	(void)state;
	for (size_t bit = 0; bit < (sizeof(struct frame_header) + 5) * 8; bit++) {
		uint8_t bytes[sizeof(struct frame_header) + 5];
		struct frame_header h;
		int r;

		frame_encode(&h, &f, "12345");
		memcpy(bytes, &h, sizeof(h));
		memcpy(bytes + sizeof(h), "12345", 5);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		memcpy(&h, bytes, sizeof(h));
		r = frame_decode(&h, 5, 0, &g);
		assert_true(r || g.body_bytes < 5 || !frame_crc_matches(&h, bytes + sizeof(h), 5));
	}
}

/* ---- control messages ---------------------------------------------------------------------------------------------------------- */

static void uuid_text(struct uuid *u, int seed)
{
	memset(u->b, seed, sizeof(u->b));
}

static size_t pack_hello(uint8_t *buf, size_t room)
{
	struct uuid node, process, dev;
	Strata__DeviceInfo d = STRATA__DEVICE_INFO__INIT, *list[] = {&d};
	Strata__Hello m = STRATA__HELLO__INIT;
	char *addrs[] = {"unix:/tmp/a", "127.0.0.1:10809"};

	uuid_text(&node, 1);
	uuid_text(&process, 2);
	uuid_text(&dev, 3);
	m.version = "1";
	m.node = control_uuid(&node);
	m.name = "node-1";
	m.process = control_uuid(&process);
	m.nbd = addrs;
	m.n_nbd = 2;
	m.devices = list;
	m.n_devices = 1;
	d.uuid = control_uuid(&dev);
	d.chunk_shift = CHUNK_SHIFT_FLASH;
	d.slots = 100;
	d.path = "/dev/x";
	assert_true(strata__hello__get_packed_size(&m) <= room);
	return strata__hello__pack(&m, buf);
}

static void a_message_survives_the_wire(void **state)
{
	uint8_t buf[1024];
	size_t n = pack_hello(buf, sizeof(buf));
	ProtobufCMessage *msg;
	Strata__Hello *m;
	struct uuid u;

	(void)state;
	assert_int_equal(control_unpack(CONTROL_HELLO, false, buf, n, &msg), 0);
	m = (Strata__Hello *)msg;
	assert_string_equal(m->name, "node-1");
	assert_int_equal(m->n_devices, 1);
	u = control_get_uuid(m->devices[0]->uuid);
	assert_int_equal(u.b[15], 3);
	control_free(msg);
	assert_int_equal(control_unpack(CONTROL_HELLO, true, buf, n, &msg), -E_PROTOCOL);
	assert_int_equal(control_unpack(15, false, buf, n, &msg), -EOPNOTSUPP);
	assert_int_equal(control_unpack(9999, false, buf, n, &msg), -EOPNOTSUPP);
}

static void a_message_out_of_its_limits_is_refused(void **state)
{
	Strata__Map map = STRATA__MAP__INIT;
	Strata__Free frees = STRATA__FREE__INIT;
	Strata__FreeItem item = STRATA__FREE_ITEM__INIT, *items[] = {&item};
	uint8_t buf[256];
	ProtobufCMessage *msg;

	(void)state;
	map.volume = map.layer = 1;
	map.epoch = 1;
	map.n = CONTROL_CHUNKS_MAX;
	assert_int_equal(control_unpack(CONTROL_MAP, false, buf, strata__map__pack(&map, buf), &msg),
			 0);
	control_free(msg);
	map.n++;
	assert_int_equal(control_unpack(CONTROL_MAP, false, buf, strata__map__pack(&map, buf), &msg),
			 -E_PROTOCOL);
	map.n = 2;
	map.first = UINT32_MAX - 1;
	assert_int_equal(control_unpack(CONTROL_MAP, false, buf, strata__map__pack(&map, buf), &msg),
			 -E_PROTOCOL);
	frees.items = items;
	frees.n_items = 1;
	item.device = DEVICES_MAX + 1;
	item.cgen = 1;
	assert_int_equal(control_unpack(CONTROL_FREE, false, buf, strata__free__pack(&frees, buf),
					&msg),
			 -E_PROTOCOL);
}

static void assert_item_is(const struct control_item *got, const struct control_item *want)
{
	assert_int_equal(got->chunk, want->chunk);
	assert_int_equal(got->layer, want->layer);
	assert_int_equal(got->entry.kind, want->entry.kind);
	assert_int_equal(got->entry.flags, want->entry.flags);
	assert_int_equal(got->entry.replicas_n, want->entry.replicas_n);
	for (int i = 0; i < REPLICAS_MAX; i++) {
		assert_int_equal(got->entry.replicas[i].cgen, want->entry.replicas[i].cgen);
		assert_int_equal(got->entry.replicas[i].slot, want->entry.replicas[i].slot);
		assert_int_equal(got->entry.replicas[i].dev, want->entry.replicas[i].dev);
	}
}

static void a_mapping_keeps_its_entries(void **state)
{
	const struct control_item
	    e = {.chunk = 5,
		 .layer = 6,
		 .entry = {.kind = MAP_OPEN,
			   .flags = MAP_FULL,
			   .replicas_n = 2,
			   .replicas = {{.cgen = 1ULL << 40, .slot = 7, .dev = 3},
					{.cgen = 9, .slot = UINT32_MAX, .dev = DEVICES_MAX}}}},
	    z = {.chunk = 8, .layer = 6, .entry = {.kind = MAP_ZERO}};
	/* chunk, layer, kind, flags, how many; cgen, slot, device, twice; the second item */
	static const uint8_t golden[] = {5, 0, 0, 0, 6, 0, 0, 0,    2,	  1,	2,    0,    0,
					 0, 0, 0, 1, 0, 0, 7, 0,    0,	  0,	3,    0,    9,
					 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					 8, 0, 0, 0, 6, 0, 0, 0,    1,	  0,	0};
	uint8_t items[2 * CONTROL_ITEM_BYTES_MAX], buf[256];
	Strata__Mapping m = STRATA__MAPPING__INIT;
	struct control_item got;
	ProtobufCMessage *msg;
	struct cursor c;

	(void)state;
	m.items.data = items;
	m.items.len = control_item_put(items, &e);
	m.items.len += control_item_put(items + m.items.len, &z);
	assert_int_equal(m.items.len, sizeof(golden));
	assert_memory_equal(items, golden, sizeof(golden));
	assert_int_equal(control_unpack(CONTROL_MAP, true, buf, strata__mapping__pack(&m, buf),
					&msg),
			 0);
	c = cursor_of(((Strata__Mapping *)msg)->items.data, ((Strata__Mapping *)msg)->items.len);
	assert_true(control_item_get(&c, &got));
	assert_item_is(&got, &e);
	assert_true(control_item_get(&c, &got));
	assert_item_is(&got, &z);
	assert_int_equal(cursor_left(&c), 0);
	assert_false(control_item_get(&c, &got));
	control_free(msg);
}

static int mapping_of(const uint8_t *items, size_t n)
{
	static uint8_t buf[(CONTROL_ITEMS_MAX + 1) * 11 + 64];
	Strata__Mapping m = STRATA__MAPPING__INIT;
	ProtobufCMessage *msg;
	int r;

	m.items = (ProtobufCBinaryData){.len = n, .data = (uint8_t *)(uintptr_t)items};
	r = control_unpack(CONTROL_MAP, true, buf, strata__mapping__pack(&m, buf), &msg);
	if (r == 0)
		control_free(msg);
	return r;
}

/* Cut short, of an unknown kind, without a slot or with nobody's, more replicas than there are, more items than there may be. */
static void senseless_items_are_refused(void **state)
{
	const struct control_item good = {.chunk = 1,
					  .layer = 2,
					  .entry = {.kind = MAP_OPEN,
						    .replicas_n = 1,
						    .replicas = {{.cgen = 1, .slot = 1, .dev = 1}}}};
	static uint8_t many[(CONTROL_ITEMS_MAX + 1) * 11];
	uint8_t items[CONTROL_ITEM_BYTES_MAX];
	struct control_item bad = good;
	size_t n = control_item_put(items, &good);

	(void)state;
	assert_int_equal(n, 25);
	for (size_t cut = 0; cut <= n; cut++)
		assert_int_equal(mapping_of(items, cut), cut == 0 || cut == n ? 0 : -E_PROTOCOL);
	items[10] = REPLICAS_MAX + 1;
	assert_int_equal(mapping_of(items, n), -E_PROTOCOL);
	items[10] = 0; /* and then 14 bytes of no item */
	assert_int_equal(mapping_of(items, n), -E_PROTOCOL);
	assert_int_equal(mapping_of(items, 11), -E_PROTOCOL);
	bad.entry.kind = MAP_LOST + 1;
	assert_int_equal(mapping_of(items, control_item_put(items, &bad)), -E_PROTOCOL);
	bad = good;
	bad.entry.replicas[0].dev = 0;
	assert_int_equal(mapping_of(items, control_item_put(items, &bad)), -E_PROTOCOL);
	bad = good;
	bad.entry.replicas[0].cgen = 0;
	assert_int_equal(mapping_of(items, control_item_put(items, &bad)), -E_PROTOCOL);
	bad = (struct control_item){.chunk = 1, .layer = 1, .entry = {.kind = MAP_ZERO}};
	for (n = 0; n < sizeof(many); n += 11)
		assert_int_equal(control_item_put(many + n, &bad), 11);
	assert_int_equal(mapping_of(many, n - 11), 0);
	assert_int_equal(mapping_of(many, n), -E_PROTOCOL);
}

/* Whatever comes: an error or a message within its limits, nothing leaked, bounded memory. */
static void random_bytes_do_no_harm(void **state)
{
	static const uint16_t types[] = {
#define X(name, number, request, reply) number,
	    CONTROL_TABLE(X)
#undef X
	};
	uint64_t live = mem_live(), cases = env_number("STRATA_FUZZ_CASES", 200000);
	uint8_t hello[1024], buf[1024];
	size_t hello_n = pack_hello(hello, sizeof(hello));
	struct rand rng;

	(void)state;
	rand_seed(&rng, 7);
	for (uint64_t i = 0; i < cases; i++) {
		ProtobufCMessage *msg;
		size_t n = rand_below(&rng, 64);
		uint16_t type = types[rand_below(&rng, ARRAY_LEN(types))];
		bool reply = rand_percent(&rng, 50);

		rand_fill(&rng, buf, n);
		if (i % 2) { /* a valid one, damaged */
			memcpy(buf, hello, hello_n);
			n = rand_below(&rng, hello_n + 1);
			type = CONTROL_HELLO;
			reply = false;
			for (uint64_t k = rand_below(&rng, 4); k > 0 && n; k--)
				buf[rand_below(&rng, n)] = (uint8_t)rand_u64(&rng);
		}
		if (control_unpack(type, reply, buf, n, &msg) == 0)
			control_free(msg);
	}
	assert_int_equal(mem_live(), live);
}

/* Two bytes a sub-message, of which each takes far more in memory. */
static void a_small_message_cannot_ask_for_much_memory(void **state)
{
	enum { N = 1 << 20 };
	uint8_t *bomb = mem_alloc(N);
	ProtobufCMessage *msg;

	(void)state;
	for (size_t i = 0; i < N; i += 2) {
		bomb[i] = 0x22; /* Update.items, */
		bomb[i + 1] = 0;
	}
	assert_int_equal(control_unpack(CONTROL_UPDATE, false, bomb, N, &msg), -E_PROTOCOL);
	mem_free(bomb);
}

/* Fails one allocation after the other until it works: how many it takes. */
static uint64_t allocations_of(uint16_t type, bool reply, const uint8_t *buf, size_t n)
{
	uint64_t live = mem_live();
	ProtobufCMessage *msg;
	uint64_t at = 0;
	int r;

	do {
		mem_fail_at(at++, 1);
		r = control_unpack(type, reply, buf, n, &msg);
		mem_fail_at(UINT64_MAX, 0);
		assert_true(r == 0 || r == -E_PROTOCOL);
		if (r)
			assert_int_equal(mem_live(), live);
	} while (r);
	control_free(msg);
	assert_int_equal(mem_live(), live);
	return at - 1;
}

static void failing_allocations_are_survived(void **state)
{
	enum { ITEMS = 256 };
	uint8_t hello[1024];
	static uint8_t frees[16384];
	static Strata__FreeItem items[ITEMS];
	Strata__FreeItem *list[ITEMS];
	Strata__Free m = STRATA__FREE__INIT;
	uint64_t n;

	(void)state;
	assert_int_equal(allocations_of(CONTROL_HELLO, false, hello,
					pack_hello(hello, sizeof(hello))),
			 1);

	/* of many small parts, more than the first block has room for, and still in few pieces */
	for (uint32_t i = 0; i < ITEMS; i++) {
		strata__free_item__init(&items[i]);
		items[i].device = 1;
		items[i].cgen = 1;
		items[i].slot = i;
		list[i] = &items[i];
	}
	m.items = list;
	m.n_items = ITEMS;
	assert_true(protobuf_c_message_get_packed_size(&m.base) <= sizeof(frees));
	n = allocations_of(CONTROL_FREE, false, frees, protobuf_c_message_pack(&m.base, frees));
	assert_in_range(n, 2, 6);
}

/* What bounds the memory of a message is not in the way of the longest lists with the smallest entries. */
static void the_fullest_messages_are_taken(void **state)
{
#define PART(bytes) bytes, sizeof(bytes) - 1
	static const struct {
		uint16_t type;
		bool reply;
		uint8_t field;
		const char *part;
		size_t len;
		uint32_t count;
	} cases[] = {
	    {CONTROL_SLOT_QUERY, true, 3, PART("\x08\x01"), CONTROL_SLOTS_MAX},
	    {CONTROL_RECORDS, false, 2, PART("\x08\x01\x10\x01"), CONTROL_RECORDS_MAX},
	    {CONTROL_RECORDS, false, 3, PART("\x08\x01"), CONTROL_RECORDS_MAX},
	    {CONTROL_FREE, false, 1, PART("\x08\x01\x18\x01"), CONTROL_FREES_MAX},
	    {CONTROL_FREE, true, 3, PART(""), CONTROL_FREES_MAX},
	    {CONTROL_CONFIG, false, 3, PART("\x08\x01"), DEVICES_MAX},
	    {CONTROL_CONFIG, false, 2, PART("\x08\x01\x12\x10uuid of 16 bytes"), CONTROL_NODES_MAX},
	    {CONTROL_STATS, true, 3, PART("\x0a\x01z"), CONTROL_METRICS_MAX},
	    {CONTROL_NAMES, true, 3, PART("n"), CONTROL_NAMES_MAX},
	};
#undef PART

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		size_t each = 2 + cases[i].len, n = each * cases[i].count;
		uint8_t *body = mem_alloc(n + each);
		ProtobufCMessage *msg;

		for (uint32_t k = 0; k <= cases[i].count; k++) {
			body[k * each] = (uint8_t)(cases[i].field << 3 | 2);
			body[k * each + 1] = (uint8_t)cases[i].len;
			memcpy(body + k * each + 2, cases[i].part, cases[i].len);
		}
		assert_true(n <= FRAME_BODY_MAX);
		if (control_unpack(cases[i].type, cases[i].reply, body, n, &msg))
			fail_msg("case %zu, %s: %zu bytes within all limits are refused", i,
				 control_name(cases[i].type), n);
		control_free(msg);
		/* and one more is too many */
		assert_int_equal(control_unpack(cases[i].type, cases[i].reply, body, n + each, &msg),
				 -E_PROTOCOL);
		mem_free(body);
	}
}

static void error_names_travel_both_ways(void **state)
{
	(void)state;
	assert_string_equal(control_error(0), "");
	assert_int_equal(err_by_name(""), 0);
	for (int e = 1; e < 200; e++)
		if (strcmp(err_name(-e), "EUNKNOWN"))
			assert_string_equal(err_name(err_by_name(err_name(-e))), err_name(-e));
	for (int e = ERR_FIRST_ + 1; e < ERR_END_; e++)
		assert_int_equal(err_by_name(err_name(-e)), -e);
	assert_int_equal(err_by_name("E_FROM_THE_FUTURE"), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_header_says_what_was_put_in),
	    cmocka_unit_test(golden_bytes),
	    cmocka_unit_test(numbers_of_messages_stay),
	    cmocka_unit_test(every_flipped_bit_is_noticed),
	    cmocka_unit_test(a_message_survives_the_wire),
	    cmocka_unit_test(a_message_out_of_its_limits_is_refused),
	    cmocka_unit_test(a_mapping_keeps_its_entries),
	    cmocka_unit_test(senseless_items_are_refused),
	    cmocka_unit_test(random_bytes_do_no_harm),
	    cmocka_unit_test(a_small_message_cannot_ask_for_much_memory),
	    cmocka_unit_test(failing_allocations_are_survived),
	    cmocka_unit_test(the_fullest_messages_are_taken),
	    cmocka_unit_test(error_names_travel_both_ways),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
