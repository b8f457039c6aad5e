/* SPDX-License-Identifier: Apache-2.0 */
#include "src/wire/frame.h"

#include "src/base/crc.h"
#include "src/base/err.h"

static uint32_t crc_of(const struct frame_header *h, const void *body, uint32_t body_bytes)
{
	struct frame_header bare = *h;

	bare.crc = to_le32(0);
	return crc32c_more(crc32c(&bare, sizeof(bare)), body, body_bytes);
}

void frame_encode(struct frame_header *h, const struct frame *f, const void *body)
{
	*h = (struct frame_header){
	    .magic = to_le32(FRAME_MAGIC),
	    .version = FRAME_VERSION,
	    .flags = f->flags,
	    .type = to_le16(f->type),
	    .body_bytes = to_le32(f->body_bytes),
	    .data_bytes = to_le32(f->data_bytes),
	    .id = to_le64(f->id),
	};
	h->crc = to_le32(crc_of(h, body, f->body_bytes));
}

int frame_decode(const struct frame_header *h, uint32_t body_max, uint32_t data_max,
		 struct frame *ret_f)
{
	struct frame f = {
	    .type = get_le16(h->type),
	    .flags = h->flags,
	    .body_bytes = get_le32(h->body_bytes),
	    .data_bytes = get_le32(h->data_bytes),
	    .id = get_le64(h->id),
	};

	if (get_le32(h->magic) != FRAME_MAGIC)
		return -E_PROTOCOL;
	if (h->version != FRAME_VERSION)
		return -E_VERSION;
	if ((f.flags & ~FRAME_F_REPLY) || get_le32(h->reserved))
		return -E_PROTOCOL;
	if (f.body_bytes > body_max || f.data_bytes > data_max)
		return -EMSGSIZE;
	*ret_f = f;
	return 0;
}

bool frame_crc_matches(const struct frame_header *h, const void *body, uint32_t body_bytes)
{
	return crc_of(h, body, body_bytes) == get_le32(h->crc);
}
