/* SPDX-License-Identifier: Apache-2.0 */
/* codec.h - the registry's records in the database. Keys: a letter and the number, big-endian. Values: version, fields, CRC32C of all before it.
 *
 *   "N" node (u32)     uuid, name, version, addresses of NBD, addresses for peers
 *   "D" device (u16)   uuid, node, pool, chunk_shift, slots, state, incarnation, lsn, told_commit, layers_commit, path
 *   "P" pool (u32)     chunk_shift, name, and the kind of disk (u32) where it is not the one that has such chunks by itself */
#ifndef STRATA_METADATA_CLUSTER_CODEC_H
#define STRATA_METADATA_CLUSTER_CODEC_H

#include "metadata/cluster/cluster.h"

enum { CODEC_KEY_MAX = 8, CODEC_VALUE_MAX = 8192, CODEC_VERSION = 1 };

struct codec_record {
	uint8_t key[CODEC_KEY_MAX], value[CODEC_VALUE_MAX];
	size_t key_len, value_len;
};

void codec_put_node(const struct cluster_node *n, struct codec_record *ret_r);
void codec_put_device(const struct cluster_device *d, struct codec_record *ret_r);
void codec_put_pool(const struct cluster_pool *p, struct codec_record *ret_r);
/* The record as a change, or its end; it must live as long. */
struct metastore_change codec_change(const struct codec_record *r);
struct metastore_change codec_delete(const struct codec_record *r);

/* 0; -E_FORMAT (damaged), -E_VERSION (a later one), -ENOMEM. Durable fields only are set. */
int codec_get_node(const struct metastore_item *item, struct cluster_node *ret_n);
int codec_get_device(const struct metastore_item *item, struct cluster_device *ret_d);
int codec_get_pool(const struct metastore_item *item, struct cluster_pool *ret_p);

#endif
