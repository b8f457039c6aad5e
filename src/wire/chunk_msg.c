/* SPDX-License-Identifier: Apache-2.0 */
#include "src/wire/chunk_msg.h"

#include "src/base/err.h"

int chunk_msg_decode(const void *body, uint32_t body_bytes, uint32_t data_bytes,
		     bool (*op_has_data)(uint8_t op), struct chunk_msg *ret_m)
{
	struct chunk_msg_request r;
	struct cursor c = cursor_of(body, body_bytes);
	const void *head = cursor_take(&c, sizeof(r));
	struct chunk_msg m;

	if (!head)
		return -E_PROTOCOL;
	memcpy(&r, head, sizeof(r));
	m = (struct chunk_msg){
	    .op = r.op,
	    .flags = get_le32(r.flags),
	    .dev = get_le16(r.dev),
	    .volume = get_le32(r.volume),
	    .layer = get_le32(r.layer),
	    .chunk = get_le32(r.chunk),
	    .slot = get_le32(r.slot),
	    .cgen = get_le64(r.cgen),
	    .epoch = get_le64(r.epoch),
	    .incarnation = get_le64(r.incarnation),
	    .block = get_le16(r.block),
	    .blocks_n = get_le16(r.blocks_n),
	    .want_crcs = r.want & CHUNK_WANT_CRCS,
	    .want_states = r.want & CHUNK_WANT_STATES,
	};
	if (get_le32(r.reserved) || (r.want & ~(CHUNK_WANT_CRCS | CHUNK_WANT_STATES)))
		return -E_PROTOCOL;
	if (m.block + m.blocks_n > CHUNK_BLOCKS_MAX)
		return -E_PROTOCOL;
	if (op_has_data(m.op)) {
		m.crcs = cursor_take(&c, 4 * (size_t)m.blocks_n);
		if (!m.blocks_n || data_bytes != m.blocks_n * (uint32_t)BLOCK_BYTES)
			return -E_PROTOCOL;
	} else if (data_bytes) {
		return -E_PROTOCOL;
	}
	if (c.failed || cursor_left(&c))
		return -E_PROTOCOL;
	*ret_m = m;
	return 0;
}
