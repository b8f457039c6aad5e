/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes say to one another: the same bytes and the same numbers for ever, or as long as CHUNK_MSG_VERSION says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "io-path/device/chunk.h"
#include "src/base/err.h"
#include "src/wire/chunk_msg.h"

static void expect_hex(const void *bytes, size_t len, const char *hex)
{
	char got[1024];

	assert_true(2 * len < sizeof(got));
	got[0] = '\0';
	for (size_t i = 0; i < len; i++)
		snprintf(got + i * 2, 3, "%02x", ((const uint8_t *)bytes)[i]);
	assert_string_equal(got, hex);
}

static struct uuid a_uuid(uint8_t first)
{
	struct uuid u;

	for (uint8_t i = 0; i < sizeof(u.b); i++)
		u.b[i] = (uint8_t)(first + i);
	return u;
}

static struct chunk_msg_request a_request(uint8_t op, uint16_t blocks_n)
{
	return (struct chunk_msg_request){.op = op,
					  .want = CHUNK_WANT_CRCS | CHUNK_WANT_STATES,
					  .dev = to_le16(0x0102),
					  .flags = to_le32(CHUNK_F_STABLE | CHUNK_F_IF_EMPTY),
					  .volume = to_le32(0x11121314),
					  .layer = to_le32(0x21222324),
					  .chunk = to_le32(0x31323334),
					  .slot = to_le32(0x41424344),
					  .cgen = to_le64(0x5152535455565758),
					  .epoch = to_le64(0x6162636465666768),
					  .incarnation = to_le64(0x7172737475767778),
					  .block = to_le16(0x0182),
					  .blocks_n = to_le16(blocks_n)};
}

static void golden_hellos(void **state)
{
	struct chunk_msg_hello hello = {.version = to_le32(CHUNK_MSG_VERSION),
					.node = to_le32(0x01020304),
					.cluster = a_uuid(0x10),
					.start = a_uuid(0x20),
					.session = to_le64(0x3132333435363738)};
	struct chunk_msg_hello_reply reply = {.status = to_le32(E_VERSION),
					      .node = to_le32(0x01020304),
					      .start = a_uuid(0x20),
					      .devices_n = to_le32(1)};
	struct chunk_msg_device device = {.uuid = a_uuid(0x40),
					  .incarnation = to_le64(0x5152535455565758),
					  .lsn = to_le64(0x6162636465666768),
					  .number = to_le16(0x0102),
					  .is_stable = 1};

	(void)state;
	expect_hex(&hello, sizeof(hello),
		   "0100000004030201"
		   "101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"
		   "3837363534333231");
	expect_hex(&reply, sizeof(reply),
		   "9313000004030201202122232425262728292a2b2c2d2e2f0100000000000000");
	expect_hex(&device, sizeof(device),
		   "404142434445464748494a4b4c4d4e4f"
		   "5857565554535251686766656463626102010100"
		   "00000000");
}

static void golden_requests(void **state)
{
	struct chunk_msg_request request = a_request(CHUNK_WRITE, 2);
	struct chunk_msg_reply reply = {.status = to_le32(E_STALE_CGEN),
					.present_n = to_le32(0x01020304),
					.incarnation = to_le64(0x7172737475767778),
					.blocks_n = to_le16(0x0102),
					.flags = CHUNK_REPLY_VOLATILE | CHUNK_REPLY_STATES};

	(void)state;
	expect_hex(&request, sizeof(request),
		   "0103020105000000"
		   "14131211242322213433323144434241"
		   "585756555453525168676665646362617877767574737271"
		   "8201020000000000");
	expect_hex(&reply, sizeof(reply),
		   "8a13000004030201787776757473727102010500"
		   "00000000");
}

static bool writes(uint8_t op)
{
	return op == CHUNK_WRITE;
}

/* The bytes above, read. */
static void a_request_says_what_was_put_in(void **state)
{
	struct {
		struct chunk_msg_request r;
		struct le32 crcs[2];
	} body = {.r = a_request(CHUNK_WRITE, 2), .crcs = {to_le32(0xa1a2a3a4), to_le32(7)}};
	struct chunk_msg m;

	(void)state;
	assert_int_equal(chunk_msg_decode(&body, sizeof(body), 2 * BLOCK_BYTES, writes, &m), 0);
	assert_int_equal(m.op, CHUNK_WRITE);
	assert_int_equal(m.flags, CHUNK_F_STABLE | CHUNK_F_IF_EMPTY);
	assert_int_equal(m.dev, 0x0102);
	assert_int_equal(m.volume, 0x11121314);
	assert_int_equal(m.layer, 0x21222324);
	assert_int_equal(m.chunk, 0x31323334);
	assert_int_equal(m.slot, 0x41424344);
	assert_true(m.cgen == 0x5152535455565758);
	assert_true(m.epoch == 0x6162636465666768);
	assert_true(m.incarnation == 0x7172737475767778);
	assert_int_equal(m.block, 0x0182);
	assert_int_equal(m.blocks_n, 2);
	assert_true(m.want_crcs && m.want_states);
	assert_int_equal(get_le32(m.crcs[0]), 0xa1a2a3a4);
	assert_int_equal(get_le32(m.crcs[1]), 7);
	/* of any other length, or with other data, it is none */
	for (uint32_t len = 0; len < sizeof(body); len++)
		assert_int_equal(chunk_msg_decode(&body, len, 2 * BLOCK_BYTES, writes, &m),
				 -E_PROTOCOL);
	assert_int_equal(chunk_msg_decode(&body, sizeof(body), BLOCK_BYTES, writes, &m),
			 -E_PROTOCOL);
	body.r.reserved = to_le32(1);
	assert_int_equal(chunk_msg_decode(&body, sizeof(body), 2 * BLOCK_BYTES, writes, &m),
			 -E_PROTOCOL);
}

/* Numbers that are not in a struct of the wire, but travel in one. */
static void the_numbers_stay(void **state)
{
	(void)state;
	assert_int_equal(CHUNK_MSG_HELLO, 256);
	assert_int_equal(CHUNK_MSG_REQUEST, 257);
	assert_int_equal(CHUNK_READ, 0);
	assert_int_equal(CHUNK_WRITE, 1);
	assert_int_equal(CHUNK_CLEAR, 2);
	assert_int_equal(CHUNK_STATUS, 3);
	assert_int_equal(CHUNK_FLUSH, 4);
	assert_int_equal(CHUNK_FREE, 5);
	assert_int_equal(CHUNK_F_STABLE, 1);
	assert_int_equal(CHUNK_F_ZERO, 2);
	assert_int_equal(CHUNK_F_IF_EMPTY, 4);
	assert_int_equal(CHUNK_WANT_CRCS, 1);
	assert_int_equal(CHUNK_WANT_STATES, 2);
	assert_int_equal(CHUNK_REPLY_VOLATILE, 1);
	assert_int_equal(CHUNK_REPLY_CRCS, 2);
	assert_int_equal(CHUNK_REPLY_STATES, 4);
	assert_int_equal(CHUNK_REPLY_ALL_ZERO, 8);
	assert_int_equal(BLOCK_HOLE, 0);
	assert_int_equal(BLOCK_ZERO, 1);
	assert_int_equal(BLOCK_BAD, 2);
	assert_int_equal(BLOCK_DATA, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(golden_hellos),
	    cmocka_unit_test(golden_requests),
	    cmocka_unit_test(a_request_says_what_was_put_in),
	    cmocka_unit_test(the_numbers_stay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
