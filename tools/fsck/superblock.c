/* SPDX-License-Identifier: Apache-2.0 */
/* superblock.c - two copies of the little that everything else depends on. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/units.h"
#include "tools/fsck/check.h"

static const uint64_t sb_offset[2] = {0, FMT_SB_B_OFFSET};
static const char *const sb_name[2] = {"first superblock", "second superblock"};

struct copy {
	int status; /* of reading and checking it */
	struct fmt_superblock sb;
};

static int read_copy(struct fsck *k, int i, struct copy *ret_copy)
{
	int r = k->file_bytes < sb_offset[i] + FMT_PAGE
		    ? -EIO
		    : fsck_read(k, sb_offset[i], k->io, FMT_PAGE);

	if (r && r != -EIO)
		return fsck_error(k, r, "%s: %s", k->o->path, err_text(r));
	memcpy(&ret_copy->sb, k->io, FMT_PAGE);
	ret_copy->status = r ? r : fmt_superblock_check(&ret_copy->sb, sb_offset[i]);
	return 0;
}

static const char *why(int status)
{
	return status == -EIO	      ? "cannot be read"
	       : status == -E_VERSION ? "is of a version that this program does not know"
				      : "is damaged";
}

/* What the two copies say must be the same, but for the counters in them. */
static bool same_device(const struct fmt_superblock *a, const struct fmt_superblock *b)
{
	return uuid_equal(&a->device, &b->device) && uuid_equal(&a->cluster, &b->cluster) &&
	       memcmp(&a->chunk_shift, &b->chunk_shift, sizeof(a->chunk_shift)) == 0 &&
	       memcmp(&a->registry_half_bytes, &b->registry_half_bytes,
		      sizeof(a->registry_half_bytes)) == 0 &&
	       memcmp(&a->journal_offset, &b->journal_offset, sizeof(a->journal_offset)) == 0 &&
	       memcmp(&a->journal_bytes, &b->journal_bytes, sizeof(a->journal_bytes)) == 0;
}

static void compare(struct fsck *k, const struct copy *c)
{
	uint64_t seq[2] = {get_le64(c[0].sb.sequence), get_le64(c[1].sb.sequence)};
	uint16_t number[2] = {get_le16(c[0].sb.number), get_le16(c[1].sb.number)};

	if (!same_device(&c[0].sb, &c[1].sb)) {
		fsck_say(k, FSCK_ERROR, "superblock-differs",
			 "the two superblocks describe different devices");
		k->stop = true;
	} else if (seq[0] == seq[1]) {
		fsck_say(k, FSCK_ERROR, "superblock-differs",
			 "both superblocks have sequence %" PRIu64
			 ": it cannot be told which one is newer",
			 seq[0]);
	} else if (number[0] && number[1] && number[0] != number[1]) {
		fsck_say(k, FSCK_ERROR, "superblock-differs",
			 "the superblocks give the device two numbers, %u and %u", number[0],
			 number[1]);
	}
}

static void judge(struct fsck *k)
{
	const struct fmt_superblock *sb = &k->sb;
	uint64_t incompat = get_le64(sb->incompat), ro_compat = get_le64(sb->ro_compat);
	char need[UNITS_TEXT_LEN], have[UNITS_TEXT_LEN];

	if (incompat || ro_compat)
		fsck_say(k, FSCK_ERROR, "features",
			 "it uses features that this program does not know (incompatible 0x%" PRIx64
			 ", read-only 0x%" PRIx64 ")",
			 incompat, ro_compat);
	k->stop = k->stop || incompat;
	if (k->o->cluster && !uuid_equal(k->o->cluster, &sb->cluster)) {
		char uuid[UUID_TEXT_LEN];

		uuid_format(&sb->cluster, uuid);
		fsck_say(k, FSCK_ERROR, "other-cluster", "it belongs to cluster %s", uuid);
		k->stop = true;
	}
	if (k->o->device && !uuid_equal(k->o->device, &sb->device)) {
		char uuid[UUID_TEXT_LEN];

		uuid_format(&sb->device, uuid);
		fsck_say(k, FSCK_ERROR, "other-device", "another device lies here: its uuid is %s",
			 uuid);
		k->stop = true;
	}
	if (geometry_load(sb, &k->geo)) {
		fsck_say(k, FSCK_ERROR, "geometry",
			 "the sizes and places in the superblock make no sense");
		k->stop = true;
	} else if (k->geo.size_bytes > k->file_bytes) {
		units_format_size(k->geo.size_bytes, need);
		units_format_size(k->file_bytes, have);
		fsck_say(k, FSCK_ERROR, "truncated",
			 "it was formatted with %s and is %s: its end is missing", need, have);
		k->stop = true;
	}
}

int fsck_superblocks(struct fsck *k)
{
	struct copy c[2];
	int newer;

	for (int i = 0; i < 2; i++) {
		int r = read_copy(k, i, &c[i]);

		if (r)
			return r;
	}
	if (c[0].status && c[1].status) {
		fsck_say(k, FSCK_ERROR, "superblock-damaged",
			 "neither superblock is usable: the first %s, the second %s",
			 why(c[0].status), why(c[1].status));
		k->stop = true;
		return 0;
	}
	for (int i = 0; i < 2; i++)
		if (c[i].status)
			fsck_say(k, FSCK_WARNING, "superblock-damaged",
				 "the %s %s; the other one is used", sb_name[i], why(c[i].status));
	if (!c[0].status && !c[1].status)
		compare(k, c);
	newer = c[0].status ||
		(!c[1].status && get_le64(c[1].sb.sequence) > get_le64(c[0].sb.sequence));
	k->sb = c[newer].sb;
	k->res->device = k->sb.device;
	k->res->cluster = k->sb.cluster;
	k->res->number = get_le16(k->sb.number);
	judge(k);
	k->res->slots_n = k->stop ? 0 : k->geo.total.slots;
	return 0;
}
