/* SPDX-License-Identifier: Apache-2.0 */
/* volume_fixture.h - a volume runtime over mock_store and mock_meta in a simulated world, and synchronous calls of its contract.
 *
 *   struct volume_fixture fx;
 *   volume_fixture_init(&fx, &(struct volume_fixture_config){.seed = 1});
 *   h = vf_open(&fx, "vol");
 *   assert_int_equal(vf_write(&fx, h, off, len, 7), 0);         bytes that depend on the position and on 7
 *   assert_true(vf_reads(&fx, h, off, len, 7));
 *   volume_fixture_free(&fx);                                   closes what is open; fails the test on leaks and violations
 *
 * One volume, "vol", is there; others by mock_meta_volume(). */
#ifndef STRATA_TESTS_LIB_VOLUME_FIXTURE_H
#define STRATA_TESTS_LIB_VOLUME_FIXTURE_H

#include "io-path/volume/volumes.h"
#include "tests/lib/mock_meta.h"
#include "tests/lib/mock_store.h"
#include "tests/lib/sim_fixture.h"

enum { VF_HANDLES_MAX = 16, VF_DEVICES = 3 };

struct volume_fixture_config {
	uint64_t seed;
	uint64_t size_bytes;  /* 0: 8 MiB */
	uint32_t slots_n;     /* per device; 0: 64 */
	uint32_t chunk_shift; /* 0: CHUNK_SHIFT_FLASH */
	struct volumes_limits limits;
};

struct volume_fixture {
	struct sim_fixture sim;
	struct mock_store store;
	struct mock_meta meta;
	struct volumes *vs;
	struct mock_volume *vol;
	struct volume_handle *handles[VF_HANDLES_MAX];
	uint64_t mem_live;
	uint32_t events_n;
	char event[64];
};

void volume_fixture_init(struct volume_fixture *fx, const struct volume_fixture_config *cfg);
void volume_fixture_free(struct volume_fixture *fx);

/* An open or a request that remembers that it is done. */
struct vf_open {
	struct volume_open op;
	bool is_done;
};
void vf_open_start(struct volume_fixture *fx, struct vf_open *o); /* o->op's given fields are set */
int vf_open_wait(struct volume_fixture *fx, struct vf_open *o);
struct volume_handle *vf_open(struct volume_fixture *fx, const char *name); /* must succeed */
void vf_close(struct volume_fixture *fx, struct volume_handle *h);

struct vf_io {
	struct volume_req r;
	bool is_done;
	uint8_t *block; /* what it allocated: whole blocks around buf */
	struct volume_extent extents[64];
};
void vf_io_prepare(struct vf_io *io, enum volume_op op, uint64_t off, uint64_t len, uint32_t flags,
		   uint32_t id); /* everything but the submit */
/* READ and WRITE get memory; a write's is filled by vf_pattern. */
void vf_io_start(struct volume_fixture *fx, struct volume_handle *h, struct vf_io *io,
		 enum volume_op op, uint64_t off, uint64_t len, uint32_t flags, uint32_t id);
int vf_io_wait(struct volume_fixture *fx, struct vf_io *io);
void vf_io_end(struct vf_io *io); /* frees the memory */

int vf_do(struct volume_fixture *fx, struct volume_handle *h, enum volume_op op, uint64_t off,
	  uint64_t len, uint32_t flags);
int vf_write(struct volume_fixture *fx, struct volume_handle *h, uint64_t off, uint64_t len,
	     uint32_t id);
int vf_flush(struct volume_fixture *fx, struct volume_handle *h);
/* Does the range read as what vf_write(id) wrote (0: zeros)? */
bool vf_reads(struct volume_fixture *fx, struct volume_handle *h, uint64_t off, uint64_t len,
	      uint32_t id);

/* The bytes of one sector as written with id; 0: zeros. */
void vf_pattern(uint8_t sector[SECTOR_BYTES], uint64_t off, uint32_t id);
/* Which id is it? UINT32_MAX: none. */
uint32_t vf_pattern_id(const uint8_t sector[SECTOR_BYTES], uint64_t off);

const struct volume_stats *vf_stats(struct volume_fixture *fx,
				    const char *name); /* valid until the next call */

#endif
