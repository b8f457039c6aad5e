/* SPDX-License-Identifier: Apache-2.0 */
/* foreign.h - a look at files that a library writes by itself (RocksDB), whatever the engine. Blocks: for workers and for the start. */
#ifndef STRATA_IOE_FOREIGN_H
#define STRATA_IOE_FOREIGN_H

#include <stddef.h>
#include <stdint.h>

/* The beginning of the file as a string, cut at size - 1. 0 or -errno. */
int foreign_file_text(const char *path, char *text, size_t size);
/* Its length. 0 or -errno. */
int foreign_file_bytes(const char *path, uint64_t *ret_bytes);
/* The length that it has for certain after a power loss, once this returns: looks first and syncs then. 0 or -errno. */
int foreign_file_sync(const char *path, uint64_t *ret_bytes);

#endif
