/* SPDX-License-Identifier: Apache-2.0 */
/* mock_device.h - the device's contract (io-path/device/device.h) in memory, for tests of what is above it.
 *
 * A medium outlives processes, by path, in one table for the whole test program. What is made durable is in it when the request completes; a
 * killed process leaves it as it is then. Data is not kept: reads give zeros. Every request takes a random time. */
#ifndef STRATA_TESTS_LIB_MOCK_DEVICE_MOCK_DEVICE_H
#define STRATA_TESTS_LIB_MOCK_DEVICE_MOCK_DEVICE_H

#include "io-path/device/device.h"

enum { MOCK_SLOTS = 256, MOCK_EPOCHS = 256, MOCK_LAYERS = 256 };

struct mock_medium {
	char path[128];
	bool formatted, foreign;
	struct uuid uuid, cluster;
	device_no number;
	uint32_t chunk_shift;
	uint64_t incarnation, lsn, commit;
	struct device_slot slots[MOCK_SLOTS];
	struct {
		volume_id volume;
		uint64_t epoch, commit;
	} epochs[MOCK_EPOCHS];
	uint32_t epochs_n;
	struct device_layer layers[MOCK_LAYERS];
	uint32_t layers_n;
	uint32_t opens, frees;
	bool is_full;		     /* writes find no space */
	bool no_space;		     /* the last one did not */
	struct ioe_file_space space; /* fs_id 0: it is no file */
	bool breaks;		     /* the next write fails and takes the device out of service */
	bool unopenable;	     /* device_open fails */
	uint64_t open_ns;	     /* device_open takes that much longer */
	struct device *open;
};

void mock_media_clear(void);
/* The medium at the path; it is made, unformatted, on first mention. */
struct mock_medium *mock_medium(const char *path);
uint64_t mock_epoch(const struct mock_medium *m, volume_id volume); /* durable; 0: none */

#endif
