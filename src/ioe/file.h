/* SPDX-License-Identifier: Apache-2.0 */
/* file.h - files and block devices of the engines on a real kernel. */
#ifndef STRATA_IOE_FILE_H
#define STRATA_IOE_FILE_H

#include "src/ioe/engine.h"

struct file {
	struct ioe_file base;
	int fd;
	uint64_t limit_bytes; /* writes end here: a file grows by file_resize() only; UINT64_MAX: the kernel knows */
	bool is_block_device, is_direct, has_volatile_cache, never_blocks;
	bool ring_moves_inline; /* io_uring makes its reads and writes in the call that submits them */
};

/* `got` of a file request counts the bytes moved so far; `stage` says where it is */
enum file_stage { FILE_QUEUED, FILE_IN_KERNEL, FILE_CANCELLED, FILE_ON_WORKER };

static inline struct file *file_of(struct ioe_file *f)
{
	return container_of(f, struct file, base);
}

/* ---- file.c ---- */
int file_open(struct ioe *e, const char *path, int flags, struct ioe_file **ret_f, char *errmsg);
void file_close(struct ioe *e, struct ioe_file *f);
void file_info(struct ioe_file *f, struct ioe_file_info *ret_info);
int file_resize(struct ioe *e, struct ioe_file *f, uint64_t size_bytes);
int file_reserve(struct ioe *e, struct ioe_file *f, uint64_t off, uint64_t len);
uint64_t file_used_bytes(struct ioe *e, struct ioe_file *f);
int file_space(struct ioe *e, struct ioe_file *f, struct ioe_file_space *ret_space);

/* ---- file_io.c ---- */
/* The whole request by system calls; the result is in r->status. */
void file_run(struct ioe_req *r);
/* The kernel moved `res` bytes (or -errno) of what was left of a READ or WRITE. 1: go on with the rest, else the status. */
int file_progress(struct ioe_req *r, int64_t res);
enum { FILE_PIECE_BYTES_MAX = 1 << 30 }; /* at most this much in one call */

/* ---- file_lock.c ---- */
/* flock on fd: 0, or -E_IN_USE and who has it. */
int file_lock(int fd, const char *path, char *errmsg);
/* The same, but tries for up to a second. */
int file_lock_wait(int fd, const char *path, char *errmsg);

/* ---- dio_align.c ---- */
/* What O_DIRECT on fd demands of offsets, lengths and addresses; 0 when the kernel does not say. */
uint32_t dio_align(int fd);

/* ---- paths.c ---- */
int path_unlink(struct ioe *e, const char *path);
int path_rename(struct ioe *e, const char *from, const char *to);
int path_check_private(struct ioe *e, const char *path, char *errmsg);
bool path_same(struct ioe *e, const char *a, const char *b);
int path_mkdir(struct ioe *e, const char *path, uint32_t mode);
/* Makes the name durable: syncs the directory that has it. */
int directory_sync(const char *path);
int small_file_load(struct ioe *e, const char *path, char **ret_data, size_t *ret_len);
int small_file_store(struct ioe *e, const char *path, const void *data, size_t len, uint32_t mode);

/* ---- shm.c, probe.c ---- */
int shm_create(struct ioe *e, const char *path, size_t len_bytes, struct ioe_shm *ret_shm);
int shm_map(struct ioe *e, const char *path, struct ioe_shm *ret_shm);
void shm_unmap(struct ioe *e, struct ioe_shm *shm);
int probe_signature(struct ioe *e, const char *path, char *errmsg);

#endif
