/* SPDX-License-Identifier: Apache-2.0 */
/* mock_volume.h - volume.h in memory, for tests and benchmarks of targets: link it instead of io-path/volume.
 *
 * A request takes effect when it is submitted, so overlapping ones are in order whatever happens later; it completes when the rules say:
 * at the end of the turn, after a random delay (so out of order), or when the test lets it. It keeps volume.h's promises and checks
 * that its caller keeps theirs: ranges, alignment, the memory around partial blocks, payloads that do not change in flight, no
 * submit after close. */
#ifndef STRATA_TESTS_LIB_MOCK_VOLUME_H
#define STRATA_TESTS_LIB_MOCK_VOLUME_H

#include "io-path/volume/volume.h"
#include "src/ioe/ioe.h"

enum { MOCK_SEEN_MAX = 64 };

struct mock_volume {
	struct list link; /* by name */
	char name[2 * NAME_LEN_MAX + 2];
	uint64_t size_bytes;
	bool read_only;	 /* a name with '@' makes a snapshot */
	bool one_opener; /* said only: nobody is refused */
	uint8_t *data;
	uint8_t *states; /* enum mock_state per block */
	struct list handles;
	uint32_t handles_n;
	/* what was asked, newest last; seen_n counts on beyond the array */
	struct {
		enum volume_op op;
		uint32_t flags;
		uint64_t off, len;
	} seen[MOCK_SEEN_MAX];
	uint64_t seen_n;
};
enum mock_state { MOCK_HOLE = 0, MOCK_ZERO = 1, MOCK_DATA = 2 };

struct mock_rules {
	uint64_t delay_ns_min, delay_ns_max; /* of a request; 0: done at the end of the turn */
	bool hold;			     /* a request waits for mock_release() */
	bool check; /* costs time: scribbles around partial blocks, watches payloads */
	bool no_fast_zero;
	bool sloppy_extents; /* of single blocks, and one past the end */
	int (*fault)(void *arg,
		     const struct volume_req *r); /* < 0: the request fails so, without effect */
	void *fault_arg;
	uint64_t open_delay_ns; /* also of list and close */
	int open_status;	/* of every open */
	char open_errmsg[ERRMSG_LEN], open_owner_uri[ERRMSG_LEN];
	int list_status;
	uint64_t open_oom;    /* n: while an open is told, the n-th allocation fails */
	char last_client[64]; /* out: of the last open */
	bool last_remote;
};

struct volumes *mock_volumes_new(struct ioe *e);
/* Everything must be closed. */
void mock_volumes_free(struct volumes *vs);
struct mock_rules *mock_rules(struct volumes *vs); /* change them at will */
uint32_t mock_in_flight(struct volumes *vs);	   /* requests, also held ones */
uint32_t mock_held(struct volumes *vs);
/* Lets the i-th held request (oldest: 0) complete at the end of the turn. */
void mock_release(struct volumes *vs, uint32_t i);
void mock_release_all(struct volumes *vs);

struct mock_volume *mock_volume_add(struct volumes *vs, const char *name, uint64_t size_bytes);
struct mock_volume *mock_volume_find(struct volumes *vs, const char *name);
void mock_volume_resize(struct mock_volume *v, uint64_t size_bytes); /* not above the first size */
void mock_volume_take_away(struct mock_volume *v, int status);	     /* tells its openers */

#endif
