/* SPDX-License-Identifier: Apache-2.0 */
/* rocksdb.c - the metastore on RocksDB: the only file that knows it.
 *
 * Writes. One writer at a time, on a worker: the batches that wait when it starts become one WriteBatch with one sync. Guards are evaluated by the
 * writer, in order, against the database and the earlier batches of the group. The commit counter is a record in the same WriteBatch, so it can
 * neither lag nor lead. A write that fails leaves unknown what is on the medium: the store fails every later commit until it is opened again.
 *
 * Reads run on workers beside the writer.
 *
 * Durability. Each group is synced before it is answered. At open a torn last record of the log is what a crash leaves and is cut off; any
 * other damage is an error, never a silent step back to an older state. The library does not notice a MANIFEST (its list of files) that was
 * cut off between two records: newer files of the log are then played over a database that lacks a table. So each group also records how
 * long the MANIFEST is, on the medium, at that time; at open it must not be shorter than the newest record that was found says.
 *
 * Memory: memtables 3 x 16 MiB, block cache 32 MiB, no mmap. Index and filter blocks are beside the cache and resident, 4 to 5 KiB per MiB of tables (1 MiB
 * for the map of 16 TiB), and every table is opened with the database: so a read that finds nothing cached costs one read of one block. In the
 * cache they would come in at the first touch of each table, and again whenever data pushed them out, 100 KiB at a time. */
#include <inttypes.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <string.h>

#include "metadata/store/backend.h"
#include "src/base/bytes.h"
#include "src/base/check.h"
#include "src/base/crc.h"
#include "src/base/log.h"
#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/foreign.h"

enum {
	PATH_LEN_MAX = 3072,
	GROUP_BATCHES_MAX = 64,
	GROUP_BYTES_MAX = 8 << 20,
	CACHE_BYTES = 32 << 20,
	MEMTABLE_BYTES = 16 << 20,
	MEMTABLES_MAX = 3,
	TABLE_BYTES = 64 << 20, /* 1 PiB of map is 250 open files */
	BLOCK_LEN = 8 << 10,	/* two or three map pages */
	FILTER_BITS =
	    20, /* a key: one table in ten thousand is read in vain, and 16 TiB of map have 64 Ki keys */
	SYNC_BYTES = 1 << 20,
	OPEN_FILES_ALL = -1,
	BACKGROUND_JOBS = 2,
	WAL_TOLERATE_TORN_TAIL = 0, /* WALRecoveryMode::kTolerateCorruptedTailRecords */
	STORE_VERSION = 2,
};

/* How many batches took effect; also what tells this database from another program's. */
static const uint8_t counter_key[] = {METASTORE_KEY_OWN, 'c', 'o', 'm', 'm', 'i', 't'};
struct counter_value {
	struct le32 version;
	struct le32 crc; /* of the rest */
	struct le64 commit;
	struct le64 manifest_no, manifest_bytes;
};

/* The list of files: MANIFEST-<no>, which the file CURRENT names. It only grows; a longer life brings one with a higher number. */
struct manifest {
	uint64_t no, bytes;
};

struct rocks {
	struct metastore base;
	rocksdb_t *db;
	rocksdb_options_t *options;
	rocksdb_block_based_table_options_t *table_options;
	rocksdb_cache_t *cache;
	rocksdb_readoptions_t *read;
	rocksdb_writeoptions_t *write;
	rocksdb_writebatch_t *batch; /* the writer's */
	struct list waiting;	     /* commits */
	struct list group;	     /* the writer's while it runs */
	struct ioe_req writer;
	bool writing;
	bool failed;		  /* the writer's */
	uint64_t commit;	  /* the writer's: number of the last batch that took effect */
	struct manifest manifest; /* the writer's */
	char path[PATH_LEN_MAX];
};

static void rocks_writer_start(struct rocks *s);
static void rocks_writer_run(struct ioe_req *req);
static bool rocks_guards_hold(struct rocks *s, struct metastore_commit *r);
static void rocks_batch_add(struct rocks *s, const struct metastore_commit *r);
static int rocks_group_write(struct rocks *s, uint64_t commit);
static void rocks_writer_done(struct ioe_req *req);

static struct rocks *of(struct metastore *s)
{
	return container_of(s, struct rocks, base);
}

/* ---- errors --------------------------------------------------------------------------------------------------------------- */

/* Frees the library's message. */
static int error_take(char *err, char errmsg[ERRMSG_LEN])
{
	int r = -EIO;

	if (strncmp(err, "Corruption", 10) == 0)
		r = -E_FORMAT;
	else if (strstr(err, "No space left"))
		r = -ENOSPC;
	else if (strstr(err, "lock") && (strstr(err, "Resource temporarily unavailable") ||
					 strstr(err, "lock hold by current process")))
		r = -E_IN_USE;
	else if (strstr(err, "Permission denied"))
		r = -EACCES;
	else if (strstr(err, "Directory exists"))
		r = -EEXIST;
	if (errmsg)
		snprintf(errmsg, ERRMSG_LEN, "%s", err);
	rocksdb_free(err);
	return r;
}

/* ---- reads ---------------------------------------------------------------------------------------------------------------- */

static void rocks_get_run(struct ioe_req *req)
{
	struct metastore_get *r = container_of(req, struct metastore_get, work);
	struct rocks *s = of(r->store);
	char *err = NULL;
	size_t len;
	rocksdb_pinnableslice_t *slice =
	    rocksdb_get_pinned(s->db, s->read, r->key.data, r->key.len, &err);
	const char *value = slice ? rocksdb_pinnableslice_value(slice, &len) : NULL;

	if (err) {
		char errmsg[ERRMSG_LEN];

		r->status = error_take(err, errmsg);
		log_error("metadata database cannot be read", "error=\"%s\"", errmsg);
	} else if (!value) {
		r->status = -ENOENT;
	} else if (len > r->value_max) {
		r->status = -EMSGSIZE;
	} else {
		r->status = 0;
		r->value_len = len;
		memcpy(r->value, value, len);
	}
	if (slice)
		rocksdb_pinnableslice_destroy(slice);
}

static void rocks_get_done(struct ioe_req *req)
{
	struct metastore_get *r = container_of(req, struct metastore_get, work);

	metastore_get_end(r, req->status ? req->status : r->status);
}

static void rocks_get(struct metastore *s, struct metastore_get *r)
{
	ioe_work(s->ioe, &r->work, rocks_get_run, rocks_get_done);
}

/* The smallest key above all that begin with prefix; its length, 0 when there is none. */
static size_t prefix_end(struct metastore_bytes prefix, uint8_t end[METASTORE_KEY_MAX])
{
	size_t len = prefix.len;

	if (len)
		memcpy(end, prefix.data, len);
	while (len > 0 && end[len - 1] == 0xff)
		len--;
	if (len > 0)
		end[len - 1]++;
	return len;
}

static void scan_seek(rocksdb_iterator_t *it, const struct metastore_scan *r)
{
	static const uint8_t above_own[] = {METASTORE_KEY_OWN + 1};
	struct metastore_bytes from = r->prefix;
	size_t len;

	if (r->after.len && metastore_bytes_cmp(r->after, r->prefix) >= 0)
		from = r->after;
	if (from.len == 0)
		from = (struct metastore_bytes){above_own, sizeof(above_own)};
	rocksdb_iter_seek(it, from.data, from.len);
	if (from.data != r->after.data || !rocksdb_iter_valid(it))
		return;
	from.data = rocksdb_iter_key(it, &len);
	from.len = len;
	if (metastore_bytes_cmp(from, r->after) == 0)
		rocksdb_iter_next(it);
}

static void rocks_scan_run(struct ioe_req *req)
{
	struct metastore_scan *r = container_of(req, struct metastore_scan, work);
	struct rocks *s = of(r->store);
	rocksdb_readoptions_t *read = rocksdb_readoptions_create();
	uint8_t end[METASTORE_KEY_MAX];
	size_t end_len = prefix_end(r->prefix, end), used = 0, key_len, value_len;
	rocksdb_iterator_t *it;
	char *err = NULL;

	if (end_len)
		rocksdb_readoptions_set_iterate_upper_bound(read, (const char *)end, end_len);
	rocksdb_readoptions_set_fill_cache(read, 0);
	it = rocksdb_create_iterator(s->db, read);
	for (scan_seek(it, r); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
		const char *key = rocksdb_iter_key(it, &key_len);
		const char *value = rocksdb_iter_value(it, &value_len);

		if (!metastore_scan_add(r, (struct metastore_bytes){key, key_len},
					(struct metastore_bytes){value, value_len}, &used))
			break;
	}
	rocksdb_iter_get_error(it, &err);
	if (err) {
		char errmsg[ERRMSG_LEN];

		r->status = error_take(err, errmsg);
		log_error("metadata database cannot be read", "error=\"%s\"", errmsg);
	} else {
		r->status = r->items_n == 0 && r->more ? -EMSGSIZE : 0;
	}
	rocksdb_iter_destroy(it);
	rocksdb_readoptions_destroy(read);
}

static void rocks_scan_done(struct ioe_req *req)
{
	struct metastore_scan *r = container_of(req, struct metastore_scan, work);

	metastore_scan_end(r, req->status ? req->status : r->status);
}

static void rocks_scan(struct metastore *s, struct metastore_scan *r)
{
	ioe_work(s->ioe, &r->work, rocks_scan_run, rocks_scan_done);
}

/* ---- the MANIFEST --------------------------------------------------------------------------------------------------------- */

static void manifest_path(char path[PATH_LEN_MAX], const char *dir, uint64_t no)
{
	snprintf(path, PATH_LEN_MAX, "%.3000s/MANIFEST-%06" PRIu64, dir, no);
}

/* What CURRENT names, and its length; zeros when that cannot be known: there is no database yet, or the library will complain. */
static struct manifest manifest_look(const char *dir)
{
	char path[PATH_LEN_MAX], text[64];
	struct manifest m = {0, 0};

	snprintf(path, sizeof(path), "%.3000s/CURRENT", dir);
	if (foreign_file_text(path, text, sizeof(text)) ||
	    sscanf(text, "MANIFEST-%" SCNu64, &m.no) != 1)
		return (struct manifest){0, 0};
	manifest_path(path, dir, m.no);
	(void)foreign_file_bytes(path, &m.bytes);
	return m;
}

/* Is what is there no less than what the newest commit knew of? */
static bool manifest_is_whole(const char *dir, const struct manifest *at_commit)
{
	struct manifest now = manifest_look(dir);

	return now.no > at_commit->no || (now.no == at_commit->no && now.bytes >= at_commit->bytes);
}

/* Notes growth since the last look, once what grew is on the medium: a record that claims more than a power loss leaves would condemn a good
 * database. What cannot be known or synced is not claimed. */
static void manifest_follow(const char *dir, struct manifest *m)
{
	char path[PATH_LEN_MAX];
	struct manifest now = {m->no, 0};

	manifest_path(path, dir, m->no);
	if (m->no == 0 || foreign_file_bytes(path, &now.bytes))
		now = manifest_look(dir); /* there is a new one */
	if (now.no == m->no && now.bytes <= m->bytes)
		return;
	manifest_path(path, dir, now.no);
	if (foreign_file_sync(path, &now.bytes) == 0)
		*m = now;
}

/* ---- commits -------------------------------------------------------------------------------------------------------------- */

static void rocks_commit(struct metastore *s, struct metastore_commit *r)
{
	list_push(&of(s)->waiting, &r->link);
	if (!of(s)->writing)
		rocks_writer_start(of(s));
}

static size_t batch_bytes(const struct metastore_commit *r)
{
	size_t bytes = 0;

	for (uint32_t i = 0; i < r->changes_n; i++)
		bytes += r->changes[i].key.len + r->changes[i].value.len;
	return bytes;
}

static void rocks_writer_start(struct rocks *s)
{
	size_t bytes = 0;

	check(list_empty(&s->group));
	for (int n = 0; n < GROUP_BATCHES_MAX && bytes < GROUP_BYTES_MAX; n++) {
		struct list *l = list_pop(&s->waiting);

		if (!l)
			break;
		bytes += batch_bytes(list_entry(l, struct metastore_commit, link));
		list_push(&s->group, l);
	}
	s->writing = true;
	ioe_work(s->base.ioe, &s->writer, rocks_writer_run, rocks_writer_done);
}

/* on a worker */
static void rocks_writer_run(struct ioe_req *req)
{
	struct rocks *s = container_of(req, struct rocks, writer);
	uint64_t commit = s->commit;
	int status = 0;

	rocksdb_writebatch_clear(s->batch);
	list_for_each (l, &s->group) {
		struct metastore_commit *r = list_entry(l, struct metastore_commit, link);

		if (s->failed) {
			r->status = -EIO;
		} else if (!rocks_guards_hold(s, r)) {
			if (r->status == 0)
				r->status = -E_GUARD;
		} else {
			rocks_batch_add(s, r);
			r->commit = ++commit;
		}
	}
	if (commit != s->commit)
		status = rocks_group_write(s, commit);
	if (status == 0) {
		s->commit = commit;
		return;
	}
	s->failed = true;
	list_for_each (l, &s->group) {
		struct metastore_commit *r = list_entry(l, struct metastore_commit, link);

		if (r->commit) {
			r->status = status;
			r->commit = 0;
		}
	}
}

/* What an earlier batch of the group says of the key: found, and *ret_value. Only guards look, groups are short, so a walk will do. */
static bool group_find(struct rocks *s, const struct metastore_commit *until,
		       struct metastore_bytes key, struct metastore_bytes *ret_value)
{
	for (const struct list *l = until->link.prev; l != &s->group; l = l->prev) {
		const struct metastore_commit *r = list_entry(l, struct metastore_commit, link);

		if (r->status != 0)
			continue;
		for (uint32_t i = r->changes_n; i-- > 0;) {
			if (metastore_bytes_cmp(r->changes[i].key, key) != 0)
				continue;
			*ret_value = r->changes[i].value;
			return true;
		}
	}
	return false;
}

static bool value_is(struct metastore_bytes value, struct metastore_bytes expected)
{
	if (!value.data || !expected.data)
		return !value.data && !expected.data;
	return metastore_bytes_cmp(value, expected) == 0;
}

/* False also when the database cannot be read: then r->status says why. */
static bool rocks_guards_hold(struct rocks *s, struct metastore_commit *r)
{
	for (uint32_t i = 0; i < r->guards_n; i++) {
		const struct metastore_guard *g = &r->guards[i];
		struct metastore_bytes value = {NULL, 0};
		rocksdb_pinnableslice_t *slice = NULL;
		char *err = NULL;
		bool holds;

		if (!group_find(s, r, g->key, &value)) {
			slice = rocksdb_get_pinned(s->db, s->read, g->key.data, g->key.len, &err);
			if (err) {
				r->status = error_take(err, NULL);
				return false;
			}
			if (slice)
				value.data = rocksdb_pinnableslice_value(slice, &value.len);
		}
		holds = value_is(value, g->expected);
		if (slice)
			rocksdb_pinnableslice_destroy(slice);
		if (!holds)
			return false;
	}
	return true;
}

static void rocks_batch_add(struct rocks *s, const struct metastore_commit *r)
{
	for (uint32_t i = 0; i < r->changes_n; i++) {
		const struct metastore_change *c = &r->changes[i];

		if (c->value.data)
			rocksdb_writebatch_put(s->batch, c->key.data, c->key.len, c->value.data,
					       c->value.len);
		else
			rocksdb_writebatch_delete(s->batch, c->key.data, c->key.len);
	}
}

static uint32_t counter_crc(const struct counter_value *v)
{
	return crc32c(&v->commit, sizeof(*v) - offsetof(struct counter_value, commit));
}

static int rocks_group_write(struct rocks *s, uint64_t commit)
{
	struct counter_value v = {
	    .version = to_le32(STORE_VERSION),
	    .commit = to_le64(commit),
	};
	char errmsg[ERRMSG_LEN], *err = NULL;
	int r;

	manifest_follow(s->path, &s->manifest);
	v.manifest_no = to_le64(s->manifest.no);
	v.manifest_bytes = to_le64(s->manifest.bytes);
	v.crc = to_le32(counter_crc(&v));
	rocksdb_writebatch_put(s->batch, (const char *)counter_key, sizeof(counter_key),
			       (const char *)&v, sizeof(v));
	rocksdb_write(s->db, s->write, s->batch, &err);
	if (!err)
		return 0;
	r = error_take(err, errmsg);
	log_error("metadata database cannot be written", "error=\"%s\"", errmsg);
	return r;
}

static void rocks_writer_done(struct ioe_req *req)
{
	struct rocks *s = container_of(req, struct rocks, writer);
	struct list answered, *l;

	list_init(&answered);
	list_splice(&answered, &s->group);
	s->writing = false;
	if (!list_empty(&s->waiting))
		rocks_writer_start(s);
	while ((l = list_pop(&answered))) {
		struct metastore_commit *r = list_entry(l, struct metastore_commit, link);

		if (req->status && r->status == 0)
			r->status = req->status;
		metastore_commit_end(r);
	}
}

/* ---- the counter ---------------------------------------------------------------------------------------------------------- */

/* 0, -ENOENT, or an error with a text */
static int counter_read(rocksdb_t *db, rocksdb_readoptions_t *read, uint64_t *ret_commit,
			struct manifest *ret_manifest, char errmsg[ERRMSG_LEN])
{
	char *err = NULL, *value;
	struct counter_value v;
	size_t len;

	value = rocksdb_get(db, read, (const char *)counter_key, sizeof(counter_key), &len, &err);
	if (err)
		return error_take(err, errmsg);
	if (!value)
		return -ENOENT;
	memset(&v, 0, sizeof(v));
	memcpy(&v, value, MIN(len, sizeof(v)));
	rocksdb_free(value);
	if (len >= sizeof(v.version) && get_le32(v.version) != STORE_VERSION) {
		snprintf(errmsg, ERRMSG_LEN, "the database has version %u, this program knows %d",
			 get_le32(v.version), STORE_VERSION);
		return -E_VERSION;
	}
	if (len != sizeof(v) || get_le32(v.crc) != counter_crc(&v)) {
		snprintf(errmsg, ERRMSG_LEN, "the commit counter is damaged");
		return -E_FORMAT;
	}
	*ret_commit = get_le64(v.commit);
	*ret_manifest = (struct manifest){get_le64(v.manifest_no), get_le64(v.manifest_bytes)};
	return 0;
}

/* ---- backup --------------------------------------------------------------------------------------------------------------- */

/* Opens the copy, which proves that it can be opened, and says which commit it is of. A commit amid the copying may know of a longer MANIFEST than
 * was copied: no opening would take such a backup. */
static int backup_verify(const char *path, uint64_t *ret_commit, char errmsg[ERRMSG_LEN])
{
	rocksdb_options_t *options = rocksdb_options_create();
	rocksdb_readoptions_t *read = rocksdb_readoptions_create();
	struct manifest at_commit;
	char *err = NULL;
	rocksdb_t *db;
	int r;

	rocksdb_options_set_info_log_level(options, 4); /* fatal: nothing to say in the copy */
	db = rocksdb_open_for_read_only(options, path, 1, &err);
	if (err) {
		r = error_take(err, errmsg);
	} else {
		r = counter_read(db, read, ret_commit, &at_commit, errmsg);
		rocksdb_close(db);
		if (r == 0 && !manifest_is_whole(path, &at_commit)) {
			snprintf(errmsg, ERRMSG_LEN,
				 "the database changed while it was copied: make the backup again");
			r = -E_FORMAT;
		}
	}
	rocksdb_readoptions_destroy(read);
	rocksdb_options_destroy(options);
	return r;
}

static void rocks_backup_run(struct ioe_req *req)
{
	struct metastore_backup *r = container_of(req, struct metastore_backup, work);
	struct rocks *s = of(r->store);
	char *err = NULL;
	rocksdb_checkpoint_t *cp = rocksdb_checkpoint_object_create(s->db, &err);

	if (!err) {
		rocksdb_checkpoint_create(cp, r->path, 0, &err);
		rocksdb_checkpoint_object_destroy(cp);
	}
	r->status =
	    err ? error_take(err, r->errmsg) : backup_verify(r->path, &r->commit, r->errmsg);
	if (r->status == -EEXIST)
		snprintf(r->errmsg, ERRMSG_LEN, "%.200s exists; name a new directory", r->path);
}

static void rocks_backup_done(struct ioe_req *req)
{
	struct metastore_backup *r = container_of(req, struct metastore_backup, work);

	metastore_backup_end(r, req->status ? req->status : r->status);
}

static void rocks_backup(struct metastore *s, struct metastore_backup *r)
{
	ioe_work(s->ioe, &r->work, rocks_backup_run, rocks_backup_done);
}

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

static void rocks_free(struct metastore *base)
{
	struct rocks *s = of(base);

	if (s->db)
		rocksdb_close(s->db);
	rocksdb_writebatch_destroy(s->batch);
	rocksdb_writeoptions_destroy(s->write);
	rocksdb_readoptions_destroy(s->read);
	rocksdb_options_destroy(s->options);
	rocksdb_block_based_options_destroy(s->table_options);
	rocksdb_cache_destroy(s->cache);
	mem_free(s);
}

static const struct metastore_ops rocks_ops = {
    .get = rocks_get,
    .scan = rocks_scan,
    .commit = rocks_commit,
    .backup = rocks_backup,
    .free = rocks_free,
};

static void options_set(struct rocks *s)
{
	rocksdb_options_t *o = s->options;
	rocksdb_block_based_table_options_t *t = s->table_options;

	rocksdb_options_set_paranoid_checks(o, 1);
	rocksdb_options_set_wal_recovery_mode(o, WAL_TOLERATE_TORN_TAIL);
	rocksdb_options_set_compression(o, rocksdb_lz4_compression);
	rocksdb_options_set_write_buffer_size(o, MEMTABLE_BYTES);
	rocksdb_options_set_max_write_buffer_number(o, MEMTABLES_MAX);
	rocksdb_options_set_target_file_size_base(o, TABLE_BYTES);
	rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
	rocksdb_options_set_max_open_files(o, OPEN_FILES_ALL);
	rocksdb_options_set_max_background_jobs(o, BACKGROUND_JOBS);
	/* a new table goes to the disk as it is written: its one sync at the end would hold up those of the log for 64 MiB */
	rocksdb_options_set_bytes_per_sync(o, SYNC_BYTES);
	rocksdb_options_set_allow_concurrent_memtable_write(o, 0); /* there is one writer */
	rocksdb_options_set_allow_mmap_reads(o, 0);
	rocksdb_options_set_allow_mmap_writes(o, 0);
	/* its log: small, and no periodic work while idle */
	rocksdb_options_set_info_log_level(o, 2);
	rocksdb_options_set_max_log_file_size(o, 1 << 20);
	rocksdb_options_set_keep_log_file_num(o, 4);
	rocksdb_options_set_stats_dump_period_sec(o, 0);
	rocksdb_options_set_stats_persist_period_sec(o, 0);

	rocksdb_block_based_options_set_block_cache(t, s->cache);
	rocksdb_block_based_options_set_block_size(t, BLOCK_LEN);
	rocksdb_block_based_options_set_filter_policy(t, rocksdb_filterpolicy_create_bloom_full(
							     FILTER_BITS));
	rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 0);
	rocksdb_options_set_block_based_table_factory(o, t);
}

/* A directory without its CURRENT file looks to the library like one without a database, and it would begin a new one between the
 * remains. The options file, which a database has from its first second on, tells them apart. */
static bool has_remains(const char *path)
{
	rocksdb_env_t *env = rocksdb_create_default_env();
	rocksdb_cache_t *cache = rocksdb_cache_create_lru(1 << 20);
	rocksdb_options_t *options = NULL, **cf_options = NULL;
	char **cf_names = NULL, *err = NULL;
	size_t cf_n = 0;
	bool found;

	rocksdb_load_latest_options(path, env, true, cache, &options, &cf_n, &cf_names, &cf_options,
				    &err);
	found = !err;
	if (found)
		rocksdb_load_latest_options_destroy(options, cf_names, cf_options, cf_n);
	else
		rocksdb_free(err);
	rocksdb_cache_destroy(cache);
	rocksdb_env_destroy(env);
	return found;
}

static char *db_open(struct rocks *s, const char *path, bool create)
{
	char *err = NULL;

	rocksdb_options_set_create_if_missing(s->options, create);
	s->db = rocksdb_open(s->options, path, &err);
	if (err && strstr(err, "LZ4")) { /* this build of the library has no LZ4 */
		rocksdb_free(err);
		err = NULL;
		rocksdb_options_set_compression(s->options, rocksdb_no_compression);
		s->db = rocksdb_open(s->options, path, &err);
	}
	return err;
}

static int open_or_create(struct rocks *s, const char *path, char errmsg[ERRMSG_LEN])
{
	char *err = db_open(s, path, false);

	if (err && strstr(err, "does not exist (create_if_missing is false)")) {
		rocksdb_free(err);
		if (has_remains(path)) {
			snprintf(errmsg, ERRMSG_LEN, "the file CURRENT is missing");
			return -E_FORMAT;
		}
		err = db_open(s, path, true);
	}
	return err ? error_take(err, errmsg) : 0;
}

static bool is_empty(struct rocks *s)
{
	rocksdb_iterator_t *it = rocksdb_create_iterator(s->db, s->read);
	bool empty;

	rocksdb_iter_seek_to_first(it);
	empty = !rocksdb_iter_valid(it);
	rocksdb_iter_destroy(it);
	return empty;
}

/* Before the real opening, which would delete the tables that a MANIFEST does not list. What else is wrong the real one will say. */
static int manifest_check(struct rocks *s, char errmsg[ERRMSG_LEN])
{
	struct manifest at_commit;
	char *err = NULL;
	rocksdb_t *db = rocksdb_open_for_read_only(s->options, s->path, 0, &err);
	uint64_t commit;
	int r;

	if (err) {
		rocksdb_free(err);
		return 0;
	}
	r = counter_read(db, s->read, &commit, &at_commit, errmsg);
	rocksdb_close(db);
	if (r || manifest_is_whole(s->path, &at_commit))
		return 0;
	snprintf(errmsg, ERRMSG_LEN, "its MANIFEST file was cut off or is an old one");
	return -E_FORMAT;
}

/* A new database gets its counter at once, so that from then on its absence means something. The library begins a new MANIFEST at each
 * open, so each open records that one. */
static int counter_start(struct rocks *s, char errmsg[ERRMSG_LEN])
{
	struct manifest at_commit;
	int r = counter_read(s->db, s->read, &s->commit, &at_commit, errmsg);

	if (r && r != -ENOENT)
		return r;
	if (r && !is_empty(s)) {
		snprintf(errmsg, ERRMSG_LEN, "this is another program's RocksDB database");
		return -E_FOREIGN;
	}
	rocksdb_writebatch_clear(s->batch);
	r = rocks_group_write(s, s->commit);
	if (r)
		snprintf(errmsg, ERRMSG_LEN, "it cannot be written: %s", err_text(r));
	return r;
}

static void explain(int r, const char *path, char errmsg[ERRMSG_LEN])
{
	char why[ERRMSG_LEN];

	memcpy(why, errmsg, sizeof(why));
	if (r == -E_IN_USE)
		snprintf(errmsg, ERRMSG_LEN,
			 "the metadata database %.100s is in use by another process", path);
	else if (r == -E_FORMAT)
		snprintf(errmsg, ERRMSG_LEN,
			 "the metadata database %.60s is damaged: %.100s; restore a backup or "
			 "rebuild it from the devices",
			 path, why);
	else
		snprintf(errmsg, ERRMSG_LEN, "the metadata database %.80s cannot be opened: %.130s",
			 path, why);
}

int metastore_open_rocksdb(struct ioe *e, const char *path, struct metastore **ret_s,
			   char errmsg[ERRMSG_LEN])
{
	struct rocks *s = mem_zalloc(sizeof(*s));
	int r;

	errmsg[0] = '\0';
	if (!s) {
		snprintf(errmsg, ERRMSG_LEN, "out of memory");
		return -ENOMEM;
	}
	if ((size_t)snprintf(s->path, sizeof(s->path), "%s", path) > PATH_LEN_MAX - 64) {
		snprintf(errmsg, ERRMSG_LEN, "the path of the database is too long");
		mem_free(s);
		return -ENAMETOOLONG;
	}
	metastore_init(&s->base, &rocks_ops, e);
	list_init(&s->waiting);
	list_init(&s->group);
	/* The library ends the process when these small allocations fail. */
	s->cache = rocksdb_cache_create_lru(CACHE_BYTES);
	s->table_options = rocksdb_block_based_options_create();
	s->options = rocksdb_options_create();
	s->read = rocksdb_readoptions_create();
	s->write = rocksdb_writeoptions_create();
	s->batch = rocksdb_writebatch_create();
	rocksdb_writeoptions_set_sync(s->write, 1);
	options_set(s);

	r = manifest_check(s, errmsg);
	if (r == 0)
		r = open_or_create(s, path, errmsg);
	if (r == 0)
		r = counter_start(s, errmsg);
	if (r) {
		explain(r, path, errmsg);
		rocks_free(&s->base);
		return r;
	}
	s->base.last_commit = s->commit;
	*ret_s = &s->base;
	return 0;
}
