/* SPDX-License-Identifier: Apache-2.0 */
/* faults_disk.c - what breaks of a machine's disks. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/math.h"
#include "tests/sim/faults.h"

enum { SECTORS_OF_A_BLOCK = BLOCK_BYTES / SECTOR_BYTES, LIES_MAX = 12, PATH_LEN = 32 };

/* Of one machine's disks: what is being done to them until when. */
struct disk_fault {
	enum fault kind;
	struct world_node *n; /* NULL: none */
	uint64_t until_ns;
	uint32_t percent, ops; /* ops: bit per enum ioe_op */
};

static struct {
	struct disk_fault fault; /* one at a time */
	uint32_t lies;		 /* told so far: the budget */
	struct world_node *away; /* a disk of it is not there; NULL: all are */
	char away_path[PATH_LEN];
	uint64_t away_until_ns;
} d;

static int on_disk(void *arg, const char *path, const struct ioe_req *r);
static uint64_t on_delay(void *arg, const char *path, const struct ioe_req *r);

void faults_disk_begin(struct world *w)
{
	memset(&d, 0, sizeof(d));
	for (uint32_t k = 1; k <= w->s.nodes_n; k++) {
		sim_disk_fault(w->nodes[k].m, on_disk, &w->nodes[k]);
		sim_disk_delay(w->nodes[k].m, on_delay, &w->nodes[k]);
	}
}

/* ---- for a while ------------------------------------------------------------------------------------------------------ */

static void fill(struct world_node *n)
{
	n->w->disk_full = true;
	sim_disk_quota(n->m, 1); /* all that is not allocated yet */
}

static bool disk(struct world *w, enum fault kind)
{
	if (d.fault.n)
		return false;
	d.fault =
	    (struct disk_fault){.kind = kind, .n = faults_node(w), .percent = w->s.eio_percent};
	d.fault.until_ns = faults_until(w, faults_down_ns(w));
	d.fault.ops = rand_percent(&w->rand, 50) ? 1u << IOE_READ : 1u << IOE_WRITE;
	if (rand_percent(&w->rand, 25))
		d.fault.ops = 1u << IOE_FSYNC | 1u << IOE_PUNCH;
	if (kind == FAULT_DISK_FULL)
		fill(d.fault.n);
	world_say(w, "%s: %s", d.fault.n->name, fault_name(kind));
	return true;
}

static void disk_end(struct world *w)
{
	world_say(w, "%s: no more of %s", d.fault.n->name, fault_name(d.fault.kind));
	sim_disk_quota(d.fault.n->m, 0);
	d.fault.n = NULL;
}

/* ---- between two starts of a node --------------------------------------------------------------------------------------- */

static void disk_path(const struct world_node *n, uint32_t disk, char ret_path[PATH_LEN])
{
	snprintf(ret_path, PATH_LEN, "/disk%u-%u", n->k, disk);
}

static bool is_running(const struct world_node *n)
{
	return n->state == PROC_UP || n->state == PROC_STOPPING;
}

/* The latest start of the node may be before the filesystem has room again, or after. */
static bool full_at_start(struct world *w)
{
	struct world_node *n = faults_node(w);

	if (d.fault.n || !is_running(n))
		return false;
	noded_kill(n);
	n->up_at_ns = faults_until(w, faults_down_ns(w));
	d.fault = (struct disk_fault){.kind = FAULT_DISK_FULL, .n = n};
	d.fault.until_ns = faults_until(w, n->up_at_ns - world_now(w) + faults_down_ns(w));
	fill(n);
	world_say(w, "%s: its filesystem is full", n->name);
	return true;
}

static bool disks_swapped(struct world *w)
{
	struct world_node *n = faults_node(w);
	char a[PATH_LEN], b[PATH_LEN];
	uint32_t i = 1 + (uint32_t)rand_below(&w->rand, w->s.disks_n);
	uint32_t j = 1 + (uint32_t)rand_below(&w->rand, w->s.disks_n);

	if (i == j || n == d.away || !is_running(n))
		return false;
	noded_kill(n);
	n->up_at_ns = faults_until(w, faults_down_ns(w));
	disk_path(n, i, a);
	disk_path(n, j, b);
	if (sim_disk_move(n->m, a, "/between") || sim_disk_move(n->m, b, a) ||
	    sim_disk_move(n->m, "/between", b))
		world_fail(w, "%s: disks cannot change places", n->name);
	world_say(w, "%s: %s and %s change places", n->name, a, b);
	return true;
}

static bool disk_away(struct world *w)
{
	struct world_node *n = faults_node(w);

	if (d.away || !is_running(n))
		return false;
	noded_kill(n);
	n->up_at_ns = faults_until(w, faults_down_ns(w));
	disk_path(n, 1 + (uint32_t)rand_below(&w->rand, w->s.disks_n), d.away_path);
	if (sim_disk_move(n->m, d.away_path, "/away"))
		world_fail(w, "%s: %s is not there", n->name, d.away_path);
	d.away = n;
	d.away_until_ns = faults_until(w, n->up_at_ns - world_now(w) + faults_down_ns(w));
	w->disk_full = true; /* what is left may be too little */
	world_say(w, "%s: %s is not there any more", n->name, d.away_path);
	return true;
}

static void disk_returns(struct world *w)
{
	world_say(w, "%s: %s is there again", d.away->name, d.away_path);
	if (sim_disk_move(d.away->m, "/away", d.away_path))
		world_fail(w, "a disk cannot return");
	d.away = NULL;
}

/* ---- lies ---------------------------------------------------------------------------------------------------------------- */

static bool is_metadata(const struct ioe_req *r)
{
	uint64_t uid, sector;

	return r->op != IOE_WRITE || !r->buf || !ledger_identify(r->buf, &uid, &sector);
}

/* What a write of blocks would have changed is told to the histories: it may not be there. */
static void damage_of(struct world *w, const uint8_t *data, uint64_t len, bool may_be_old)
{
	for (uint64_t at = 0; at + SECTOR_BYTES <= len; at += SECTOR_BYTES) {
		struct world_volume *v;
		uint64_t uid, sector;

		if (!ledger_identify(data + at, &uid, &sector))
			continue;
		v = world_volume_by_uid(w, uid);
		sector = round_down(sector, SECTORS_OF_A_BLOCK);
		for (uint64_t s = sector; v && s < sector + SECTORS_OF_A_BLOCK; s++)
			ledger_damage(v->ledger, s, may_be_old);
	}
}

/* A data block somewhere on one of the node's disks; false: none was found. */
static bool find_block(struct world_node *n, char path[PATH_LEN], uint64_t *ret_off,
		       uint8_t block[BLOCK_BYTES])
{
	struct world *w = n->w;

	disk_path(n, 1 + (uint32_t)rand_below(&w->rand, w->s.disks_n), path);
	for (int tries = 0; tries < 200; tries++) {
		uint64_t chunk = rand_below(&w->rand, w->s.disk_bytes >> 20);
		uint64_t at =
		    (chunk << 20) + rand_below(&w->rand, tries < 100 ? 32 : 256) * BLOCK_BYTES;
		uint64_t uid, sector;

		if (sim_disk_peek(n->m, path, at, block, BLOCK_BYTES))
			continue;
		for (unsigned s = 0; s < SECTORS_OF_A_BLOCK; s++) {
			if (!ledger_identify(block + s * SECTOR_BYTES, &uid, &sector))
				continue;
			*ret_off = at;
			return true;
		}
	}
	return false;
}

static bool bit_flip(struct world *w)
{
	struct world_node *n = faults_node(w);
	uint8_t block[BLOCK_BYTES];
	uint64_t off, bit;
	char path[PATH_LEN];

	if (d.lies >= LIES_MAX || !find_block(n, path, &off, block))
		return false;
	d.lies++;
	damage_of(w, block, BLOCK_BYTES, false);
	bit = rand_below(&w->rand, BLOCK_BYTES * 8);
	block[bit / 8] ^= (uint8_t)(1u << bit % 8);
	sim_disk_poke(n->m, path, off, block, BLOCK_BYTES);
	world_say(w, "%s%s: a bit at %" PRIu64 " changes", n->name, path, off + bit / 8);
	return true;
}

/* Where a misdirected write lands, the data of others are gone. */
static void overwrite_other(struct world_node *n, const struct ioe_req *r)
{
	uint8_t block[BLOCK_BYTES];
	uint64_t off;
	char path[PATH_LEN];

	if (!find_block(n, path, &off, block))
		return;
	damage_of(n->w, block, BLOCK_BYTES, false);
	sim_disk_poke(n->m, path, off, r->buf, BLOCK_BYTES);
	world_say(n->w, "%s%s: it lands at %" PRIu64, n->name, path, off);
}

static int lie(struct world_node *n, const struct ioe_req *r)
{
	struct world *w = n->w;

	if (is_metadata(r) || r->len < BLOCK_BYTES || d.lies >= LIES_MAX)
		return 0;
	d.lies++;
	world_say(w, "%s: a write to %" PRIu64 " is lost", n->name, r->off);
	damage_of(w, r->buf, r->len, true);
	if (d.fault.kind == FAULT_MISDIRECTED_WRITE)
		overwrite_other(n, r);
	return SIM_DISK_LOST;
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static int on_disk(void *arg, const char *path, const struct ioe_req *r)
{
	struct world_node *n = arg;
	struct world *w = n->w;

	(void)path;
	if (d.fault.n != n || !rand_percent(&w->rand, d.fault.percent))
		return 0;
	if (d.fault.kind == FAULT_LOST_WRITE || d.fault.kind == FAULT_MISDIRECTED_WRITE)
		return lie(n, r);
	if (d.fault.kind != FAULT_DISK_EIO || !(d.fault.ops >> r->op & 1))
		return 0;
	w->disk_errors = true;
	n->suffered = true;
	n->no_power_loss = n->no_power_loss || r->op == IOE_FSYNC;
	return -EIO;
}

static uint64_t on_delay(void *arg, const char *path, const struct ioe_req *r)
{
	struct world_node *n = arg;

	(void)path;
	(void)r;
	if (d.fault.n != n)
		return 0;
	if (d.fault.kind == FAULT_DISK_SLOW)
		return rand_below(&n->w->rand, 200 * MS);
	if (d.fault.kind == FAULT_DISK_STUCK && d.fault.until_ns > world_now(n->w))
		return d.fault.until_ns - world_now(n->w);
	return 0;
}

/* ---- all of them ------------------------------------------------------------------------------------------------------ */

bool faults_disk_do(struct world *w, enum fault kind)
{
	switch (kind) {
	case FAULT_BIT_FLIP:
		return bit_flip(w);
	case FAULT_FULL_AT_START:
		return full_at_start(w);
	case FAULT_DISKS_SWAPPED:
		return disks_swapped(w);
	case FAULT_DISK_AWAY:
		return disk_away(w);
	default:
		return disk(w, kind);
	}
}

void faults_disk_ends(struct world *w)
{
	if (d.fault.n && world_now(w) >= d.fault.until_ns)
		disk_end(w);
	if (d.away && world_now(w) >= d.away_until_ns)
		disk_returns(w);
}

void faults_disk_heal(struct world *w)
{
	d.fault.until_ns = d.away_until_ns = 0;
	faults_disk_ends(w);
}
