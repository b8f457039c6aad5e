/* SPDX-License-Identifier: Apache-2.0 */
/* registry.c - the two halves that keep epochs and the records of layers. */
#include <inttypes.h>
#include <string.h>

#include "tools/fsck/check.h"

struct half {
	bool damaged; /* some page of it is */
	uint64_t seq;
	uint32_t pages_n, bad_page;
};

static int read_page(struct fsck *k, uint8_t half, uint32_t page, int *ret_status)
{
	uint64_t off = geometry_registry_offset(&k->geo, half) + (uint64_t)page * FMT_PAGE;
	int r = fsck_read(k, off, k->io, FMT_PAGE);

	if (r && r != -EIO)
		return fsck_error(k, r, "registry half %u: %s", half, err_text(r));
	*ret_status =
	    r ? r
	      : fmt_registry_page_check((void *)k->io,
					&(struct fmt_registry_page_id){.device = &k->sb.device,
								       .page_no = page,
								       .half = half});
	return 0;
}

static int read_half(struct fsck *k, uint8_t half, struct half *ret_half)
{
	const struct fmt_registry_page *p = (const void *)k->io;
	uint32_t pages_max = (uint32_t)(k->geo.registry_half_bytes / FMT_PAGE);
	struct half h = {.pages_n = 1};

	for (uint32_t page = 0; page < h.pages_n && !h.damaged; page++) {
		int status = 0;
		int r = read_page(k, half, page, &status);

		if (r)
			return r;
		if (page == 0 && !status) {
			h.seq = get_le64(p->seq);
			h.pages_n = get_le32(p->pages_n);
		}
		h.damaged = status || h.pages_n > pages_max || get_le32(p->pages_n) != h.pages_n ||
			    get_le64(p->seq) != h.seq;
		h.bad_page = page;
	}
	*ret_half = h;
	return 0;
}

int fsck_registry(struct fsck *k)
{
	struct half h[2];
	bool ok[2];

	for (uint8_t i = 0; i < 2; i++) {
		int r = read_half(k, i, &h[i]);

		if (r)
			return r;
		ok[i] = !h[i].damaged;
	}
	if (!ok[0] && !ok[1]) {
		fsck_say(
		    k, FSCK_ERROR, "registry-lost",
		    "both halves of the registry are damaged: epochs and layer records are lost");
		return 0;
	}
	if (ok[0] && ok[1] && h[0].seq != h[1].seq && !k->registry_in_journal)
		fsck_say(k, FSCK_WARNING, "registry-damaged",
			 "half %u of the registry is older: a write was lost; the other one has "
			 "all of it and is used",
			 h[0].seq > h[1].seq);
	for (uint8_t i = 0; i < 2; i++) {
		if (!h[i].damaged)
			continue;
		if (k->registry_in_journal)
			fsck_say(k, FSCK_NOTE, "registry-damaged",
				 "half %u of the registry is incomplete: it was being written", i);
		else
			fsck_say(k, FSCK_WARNING, "registry-damaged",
				 "page %u of half %u of the registry is damaged; the other half, "
				 "sequence %" PRIu64 ", has all of it and is used",
				 h[i].bad_page, i, h[!i].seq);
	}
	return 0;
}
