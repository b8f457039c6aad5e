/* SPDX-License-Identifier: Apache-2.0 */
/* records.c - the small records: from bytes to memory and back. */
#include <assert.h>
#include <string.h>

#include "metadata/san/record.h"
#include "src/base/check.h"
#include "src/base/crc.h"
#include "src/base/math.h"

/* ---- the head ------------------------------------------------------------------------------------------------------------- */

static uint32_t record_crc(const void *key, size_t key_len, const struct record_head *h, size_t len)
{
	return crc32c_more(crc32c(key, key_len), (const uint8_t *)h + sizeof(h->crc),
			   len - sizeof(h->crc));
}

void record_seal(struct record_head *h, uint8_t version, const struct schema_key *k, size_t len)
{
	h->version = version;
	memset(h->reserved, 0, sizeof(h->reserved));
	h->crc = to_le32(record_crc(k->b, k->len, h, len));
}

int record_open(struct metastore_bytes key, struct metastore_bytes value, uint8_t version,
		size_t len_min, size_t len_max)
{
	const struct record_head *h = value.data;

	if (value.len < sizeof(*h) ||
	    get_le32(h->crc) != record_crc(key.data, key.len, h, value.len))
		return -E_FORMAT;
	if (h->version != version)
		return -E_VERSION;
	if (value.len < len_min || value.len > len_max ||
	    !bytes_are_zero(h->reserved, sizeof(h->reserved)))
		return -E_FORMAT;
	return 0;
}

/* Text behind a fixed part: its length is stored, its end is the value's. */
static bool text_get(const void *from, size_t len, size_t max, char *ret_text)
{
	if (len > max || memchr(from, '\0', len))
		return false;
	memcpy(ret_text, from, len);
	memset(ret_text + len, 0, max + 1 - len);
	return true;
}

/* ---- cluster -------------------------------------------------------------------------------------------------------------- */

struct cluster_value {
	struct record_head h;
	struct uuid uuid;
	struct le64 created_ns, cgen, event;
	struct le32 volume, layer, node, device, pool, policy, job;
	struct le32 incompat; /* features that a program must know; none so far */
};
static_assert(sizeof(struct cluster_value) == 80, "no padding");
enum { CLUSTER_VERSION = 1 };

size_t schema_cluster_encode(const struct schema_cluster *c, const struct schema_key *k,
			     uint8_t *out)
{
	struct cluster_value *v = (struct cluster_value *)out;

	*v = (struct cluster_value){
	    .uuid = c->uuid,
	    .created_ns = to_le64(c->created_ns),
	    .cgen = to_le64(c->cgen),
	    .event = to_le64(c->event),
	    .volume = to_le32(c->volume),
	    .layer = to_le32(c->layer),
	    .node = to_le32(c->node),
	    .device = to_le32(c->device),
	    .pool = to_le32(c->pool),
	    .policy = to_le32(c->policy),
	    .job = to_le32(c->job),
	};
	record_seal(&v->h, CLUSTER_VERSION, k, sizeof(*v));
	return sizeof(*v);
}

int schema_cluster_decode(struct metastore_bytes key, struct metastore_bytes value,
			  struct schema_cluster *ret_c)
{
	const struct cluster_value *v = value.data;
	int r = record_open(key, value, CLUSTER_VERSION, sizeof(*v), sizeof(*v));

	if (r)
		return r;
	if (get_le32(v->incompat))
		return -E_VERSION;
	*ret_c = (struct schema_cluster){
	    .uuid = v->uuid,
	    .created_ns = get_le64(v->created_ns),
	    .cgen = get_le64(v->cgen),
	    .event = get_le64(v->event),
	    .volume = get_le32(v->volume),
	    .layer = get_le32(v->layer),
	    .node = get_le32(v->node),
	    .device = get_le32(v->device),
	    .pool = get_le32(v->pool),
	    .policy = get_le32(v->policy),
	    .job = get_le32(v->job),
	};
	return ret_c->device > DEVICES_MAX ? -E_FORMAT : 0;
}

/* ---- device --------------------------------------------------------------------------------------------------------------- */

struct device_value {
	struct record_head h;
	struct le32 pool, slots_n, lose_job;
	uint8_t chunk_shift;
	uint8_t reserved[3];
};
static_assert(sizeof(struct device_value) == 24, "no padding");
enum { DEVICE_VERSION = 1 };

size_t schema_device_encode(const struct schema_device *d, const struct schema_key *k, uint8_t *out)
{
	struct device_value *v = (struct device_value *)out;

	*v = (struct device_value){
	    .pool = to_le32(d->pool),
	    .slots_n = to_le32(d->slots_n),
	    .lose_job = to_le32(d->lose_job),
	    .chunk_shift = (uint8_t)d->chunk_shift,
	};
	record_seal(&v->h, DEVICE_VERSION, k, sizeof(*v));
	return sizeof(*v);
}

static bool shift_ok(uint32_t shift)
{
	return shift == CHUNK_SHIFT_FLASH || shift == CHUNK_SHIFT_DISK;
}

int schema_device_decode(struct metastore_bytes key, struct metastore_bytes value,
			 struct schema_device *ret_d)
{
	const struct device_value *v = value.data;
	int r = record_open(key, value, DEVICE_VERSION, sizeof(*v), sizeof(*v));

	if (r)
		return r;
	if (!shift_ok(v->chunk_shift) || !bytes_are_zero(v->reserved, sizeof(v->reserved)))
		return -E_FORMAT;
	*ret_d = (struct schema_device){
	    .pool = get_le32(v->pool),
	    .slots_n = get_le32(v->slots_n),
	    .lose_job = get_le32(v->lose_job),
	    .chunk_shift = v->chunk_shift,
	};
	return 0;
}

/* ---- intent --------------------------------------------------------------------------------------------------------------- */

struct intent_value {
	struct record_head h;
	struct le64 cgen;
};
static_assert(sizeof(struct intent_value) == 16, "no padding");
enum { INTENT_VERSION = 1 };

size_t schema_intent_encode(uint64_t cgen, const struct schema_key *k, uint8_t *out)
{
	struct intent_value *v = (struct intent_value *)out;

	v->cgen = to_le64(cgen);
	record_seal(&v->h, INTENT_VERSION, k, sizeof(*v));
	return sizeof(*v);
}

int schema_intent_decode(struct metastore_bytes key, struct metastore_bytes value,
			 uint64_t *ret_cgen)
{
	const struct intent_value *v = value.data;
	int r = record_open(key, value, INTENT_VERSION, sizeof(*v), sizeof(*v));

	if (r == 0)
		*ret_cgen = get_le64(v->cgen);
	return r;
}

/* ---- volume --------------------------------------------------------------------------------------------------------------- */

enum volume_flags {
	VOLUME_OPEN = 1 << 0,
	VOLUME_EXCLUSIVE = 1 << 1,
	VOLUME_READ_ONLY = 1 << 2,
	VOLUME_FORCED = 1 << 3,
	VOLUME_FLAGS = (1 << 4) - 1,
};
struct volume_value {
	struct record_head h;
	struct uuid uuid, owner_start;
	struct le64 size_bytes, created_ns, epoch, epoch_commit;
	struct le32 head, pool, policy, owner, delete_job;
	struct le16 sector_bytes;
	uint8_t chunk_shift, state, write_cache, flags, name_len, reserved;
	char name[];
};
static_assert(sizeof(struct volume_value) == 100, "no padding");
enum { VOLUME_VERSION = 1 };

size_t schema_volume_encode(const struct san_volume *x, const struct schema_key *k, uint8_t *out)
{
	struct volume_value *v = (struct volume_value *)out;
	size_t name_len = strlen(x->name);

	*v = (struct volume_value){
	    .uuid = x->uuid,
	    .owner_start = x->owner_start,
	    .size_bytes = to_le64(x->size_bytes),
	    .created_ns = to_le64(x->created_ns),
	    .epoch = to_le64(x->epoch),
	    .epoch_commit = to_le64(x->epoch_commit),
	    .head = to_le32(x->head),
	    .pool = to_le32(x->pool),
	    .policy = to_le32(x->policy),
	    .owner = to_le32(x->owner),
	    .delete_job = to_le32(x->delete_job),
	    .sector_bytes = to_le16((uint16_t)x->sector_bytes),
	    .chunk_shift = (uint8_t)x->chunk_shift,
	    .state = (uint8_t)x->state,
	    .write_cache = (uint8_t)x->write_cache,
	    .flags =
		(uint8_t)((x->is_open ? VOLUME_OPEN : 0) | (x->exclusive ? VOLUME_EXCLUSIVE : 0) |
			  (x->read_only ? VOLUME_READ_ONLY : 0) | (x->forced ? VOLUME_FORCED : 0)),
	    .name_len = (uint8_t)name_len,
	};
	memcpy(v->name, x->name, name_len);
	record_seal(&v->h, VOLUME_VERSION, k, sizeof(*v) + name_len);
	return sizeof(*v) + name_len;
}

static bool volume_ok(const struct volume_value *v)
{
	uint64_t size = get_le64(v->size_bytes);
	uint32_t sector = get_le16(v->sector_bytes);

	return size >= VOLUME_BYTES_MIN && size <= VOLUME_BYTES_MAX && size % BLOCK_BYTES == 0 &&
	       (sector == SECTOR_BYTES || sector == BLOCK_BYTES) && shift_ok(v->chunk_shift) &&
	       (v->state == SAN_VOLUME_READY || v->state == SAN_VOLUME_DELETING) &&
	       v->write_cache <= SAN_CACHE_WRITETHROUGH && v->flags <= VOLUME_FLAGS &&
	       v->reserved == 0;
}

int schema_volume_decode(struct metastore_bytes key, struct metastore_bytes value,
			 struct san_volume *ret_v)
{
	const struct volume_value *v = value.data;
	int r = record_open(key, value, VOLUME_VERSION, sizeof(*v), sizeof(*v) + NAME_LEN_MAX);
	char name[NAME_LEN_MAX + 1];
	volume_id id;

	if (r)
		return r;
	if (value.len != sizeof(*v) + v->name_len ||
	    !text_get(v->name, v->name_len, NAME_LEN_MAX, name) || !name_is_valid(name) ||
	    !volume_ok(v) || !schema_key_get_32(key, &id))
		return -E_FORMAT;
	*ret_v = (struct san_volume){
	    .id = id,
	    .uuid = v->uuid,
	    .owner_start = v->owner_start,
	    .size_bytes = get_le64(v->size_bytes),
	    .created_ns = get_le64(v->created_ns),
	    .epoch = get_le64(v->epoch),
	    .epoch_commit = get_le64(v->epoch_commit),
	    .head = get_le32(v->head),
	    .pool = get_le32(v->pool),
	    .policy = get_le32(v->policy),
	    .owner = get_le32(v->owner),
	    .delete_job = get_le32(v->delete_job),
	    .sector_bytes = get_le16(v->sector_bytes),
	    .chunk_shift = v->chunk_shift,
	    .state = v->state,
	    .write_cache = v->write_cache,
	    .is_open = v->flags & VOLUME_OPEN,
	    .exclusive = v->flags & VOLUME_EXCLUSIVE,
	    .read_only = v->flags & VOLUME_READ_ONLY,
	    .forced = v->flags & VOLUME_FORCED,
	};
	memcpy(ret_v->name, name, sizeof(name));
	return 0;
}

/* ---- name ----------------------------------------------------------------------------------------------------------------- */

struct name_value {
	struct record_head h;
	struct le32 volume;
};
static_assert(sizeof(struct name_value) == 12, "no padding");
enum { NAME_VERSION = 1 };

size_t schema_name_encode(volume_id volume, const struct schema_key *k, uint8_t *out)
{
	struct name_value *v = (struct name_value *)out;

	v->volume = to_le32(volume);
	record_seal(&v->h, NAME_VERSION, k, sizeof(*v));
	return sizeof(*v);
}

int schema_name_decode(struct metastore_bytes key, struct metastore_bytes value,
		       volume_id *ret_volume)
{
	const struct name_value *v = value.data;
	int r = record_open(key, value, NAME_VERSION, sizeof(*v), sizeof(*v));

	if (r == 0)
		*ret_volume = get_le32(v->volume);
	return r;
}

/* ---- layer ---------------------------------------------------------------------------------------------------------------- */

struct layer_value {
	struct record_head h;
	struct le64 size_bytes, commit;
	struct le32 parent, volume;
	uint8_t flags, snapshot_len;
	uint8_t reserved[2];
	char snapshot[];
};
static_assert(sizeof(struct layer_value) == 36, "no padding");
enum { LAYER_VERSION = 1, LAYER_FROZEN = 1 << 0 };

size_t schema_layer_encode(const struct schema_layer *l, const struct schema_key *k, uint8_t *out)
{
	struct layer_value *v = (struct layer_value *)out;
	size_t len = strlen(l->snapshot);

	*v = (struct layer_value){
	    .size_bytes = to_le64(l->size_bytes),
	    .commit = to_le64(l->commit),
	    .parent = to_le32(l->parent),
	    .volume = to_le32(l->volume),
	    .flags = l->frozen ? LAYER_FROZEN : 0,
	    .snapshot_len = (uint8_t)len,
	};
	memcpy(v->snapshot, l->snapshot, len);
	record_seal(&v->h, LAYER_VERSION, k, sizeof(*v) + len);
	return sizeof(*v) + len;
}

int schema_layer_decode(struct metastore_bytes key, struct metastore_bytes value,
			struct schema_layer *ret_l)
{
	const struct layer_value *v = value.data;
	int r = record_open(key, value, LAYER_VERSION, sizeof(*v), sizeof(*v) + NAME_LEN_MAX);
	char snapshot[NAME_LEN_MAX + 1];

	if (r)
		return r;
	if (value.len != sizeof(*v) + v->snapshot_len ||
	    !text_get(v->snapshot, v->snapshot_len, NAME_LEN_MAX, snapshot) ||
	    (snapshot[0] && !name_is_valid(snapshot)) || v->flags > LAYER_FROZEN ||
	    !bytes_are_zero(v->reserved, sizeof(v->reserved)))
		return -E_FORMAT;
	*ret_l = (struct schema_layer){
	    .parent = get_le32(v->parent),
	    .volume = get_le32(v->volume),
	    .frozen = v->flags & LAYER_FROZEN,
	    .size_bytes = get_le64(v->size_bytes),
	    .commit = get_le64(v->commit),
	};
	memcpy(ret_l->snapshot, snapshot, sizeof(snapshot));
	return 0;
}

/* ---- usage ---------------------------------------------------------------------------------------------------------------- */

struct usage_value {
	struct record_head h;
	struct le64 chunks_n, entries_n;
};
static_assert(sizeof(struct usage_value) == 24, "no padding");
enum { USAGE_VERSION = 1 };

size_t schema_usage_encode(const struct schema_usage *u, const struct schema_key *k, uint8_t *out)
{
	struct usage_value *v = (struct usage_value *)out;

	v->chunks_n = to_le64(u->chunks_n);
	v->entries_n = to_le64(u->entries_n);
	record_seal(&v->h, USAGE_VERSION, k, sizeof(*v));
	return sizeof(*v);
}

int schema_usage_decode(struct metastore_bytes key, struct metastore_bytes value,
			struct schema_usage *ret_u)
{
	const struct usage_value *v = value.data;
	int r = record_open(key, value, USAGE_VERSION, sizeof(*v), sizeof(*v));

	if (r)
		return r;
	*ret_u = (struct schema_usage){get_le64(v->chunks_n), get_le64(v->entries_n)};
	return ret_u->chunks_n > ret_u->entries_n ? -E_FORMAT : 0;
}

/* ---- job ------------------------------------------------------------------------------------------------------------------ */

struct job_value {
	struct record_head h;
	struct le64 args[SAN_JOB_ARGS];
	struct le64 done_n, total_n, created_ns, ended_ns;
	struct le32 kind;
	uint8_t state, cancel, subject_len, error_len;
	struct le16 text_len;
	uint8_t reserved[2];
	char texts[]; /* subject, name of the error, text */
};
static_assert(sizeof(struct job_value) == 84, "no padding");
enum { JOB_VERSION = 1, ERROR_NAME_MAX = 63 };
static_assert(sizeof(struct job_value) + NAME_LEN_MAX + ERROR_NAME_MAX + SAN_JOB_TEXT_MAX <=
		  SCHEMA_JOB_MAX,
	      "fits");

size_t schema_job_encode(const struct san_job *j, const struct schema_key *k, uint8_t *out)
{
	struct job_value *v = (struct job_value *)out;
	const char *error = j->error ? err_name(j->error) : ""; /* names outlive the numbers */
	size_t subject_len = strlen(j->subject), error_len = strlen(error),
	       text_len = strlen(j->text);

	*v = (struct job_value){
	    .done_n = to_le64(j->done_n),
	    .total_n = to_le64(j->total_n),
	    .created_ns = to_le64(j->created_ns),
	    .ended_ns = to_le64(j->ended_ns),
	    .kind = to_le32(j->kind),

	    .state = (uint8_t)j->state,
	    .cancel = j->cancel,
	    .subject_len = (uint8_t)subject_len,
	    .error_len = (uint8_t)error_len,
	    .text_len = to_le16((uint16_t)text_len),
	};
	for (int i = 0; i < SAN_JOB_ARGS; i++)
		v->args[i] = to_le64(j->args[i]);
	memcpy(v->texts, j->subject, subject_len);
	memcpy(v->texts + subject_len, error, error_len);
	memcpy(v->texts + subject_len + error_len, j->text, text_len);
	record_seal(&v->h, JOB_VERSION, k, sizeof(*v) + subject_len + error_len + text_len);
	return sizeof(*v) + subject_len + error_len + text_len;
}

int schema_job_decode(struct metastore_bytes key, struct metastore_bytes value,
		      struct san_job *ret_j)
{
	const struct job_value *v = value.data;
	int r = record_open(key, value, JOB_VERSION, sizeof(*v), SCHEMA_JOB_MAX);
	char error[ERROR_NAME_MAX + 1];
	size_t text_len;
	uint32_t id;

	if (r)
		return r;
	text_len = get_le16(v->text_len);
	if (value.len != sizeof(*v) + v->subject_len + v->error_len + text_len ||
	    v->state < SAN_JOB_QUEUED || v->state > SAN_JOB_CANCELLED || v->cancel > 1 ||
	    !bytes_are_zero(v->reserved, sizeof(v->reserved)) || !schema_key_get_32(key, &id))
		return -E_FORMAT;
	*ret_j = (struct san_job){
	    .id = id,
	    .kind = get_le32(v->kind),
	    .state = v->state,
	    .cancel = v->cancel,
	    .done_n = get_le64(v->done_n),
	    .total_n = get_le64(v->total_n),
	    .created_ns = get_le64(v->created_ns),
	    .ended_ns = get_le64(v->ended_ns),

	};
	for (int i = 0; i < SAN_JOB_ARGS; i++)
		ret_j->args[i] = get_le64(v->args[i]);
	if (!text_get(v->texts, v->subject_len, NAME_LEN_MAX, ret_j->subject) ||
	    !text_get(v->texts + v->subject_len, v->error_len, ERROR_NAME_MAX, error) ||
	    !text_get(v->texts + v->subject_len + v->error_len, text_len, SAN_JOB_TEXT_MAX,
		      ret_j->text))
		return -E_FORMAT;
	ret_j->error = err_by_name(error);
	return 0;
}

/* ---- event ---------------------------------------------------------------------------------------------------------------- */

struct event_value {
	struct record_head h;
	struct le64 wall_ns;
	uint8_t severity, code_len;
	struct le16 text_len;
	char texts[]; /* code, text */
};
static_assert(sizeof(struct event_value) == 20, "no padding");
static_assert(sizeof(struct event_value) + SAN_EVENT_CODE_MAX + SAN_EVENT_TEXT_MAX <=
		  SCHEMA_SMALL_MAX,
	      "fits");
enum { EVENT_VERSION = 1 };

size_t schema_event_encode(const struct san_event *e, const struct schema_key *k, uint8_t *out)
{
	struct event_value *v = (struct event_value *)out;
	size_t code_len = strlen(e->code), text_len = strlen(e->text);

	*v = (struct event_value){
	    .wall_ns = to_le64(e->wall_ns),
	    .severity = (uint8_t)e->severity,
	    .code_len = (uint8_t)code_len,
	    .text_len = to_le16((uint16_t)text_len),
	};
	memcpy(v->texts, e->code, code_len);
	memcpy(v->texts + code_len, e->text, text_len);
	record_seal(&v->h, EVENT_VERSION, k, sizeof(*v) + code_len + text_len);
	return sizeof(*v) + code_len + text_len;
}

int schema_event_decode(struct metastore_bytes key, struct metastore_bytes value,
			struct san_event *ret_e)
{
	const struct event_value *v = value.data;
	int r = record_open(key, value, EVENT_VERSION, sizeof(*v), SCHEMA_SMALL_MAX);
	size_t text_len;

	if (r)
		return r;
	text_len = get_le16(v->text_len);
	*ret_e = (struct san_event){.wall_ns = get_le64(v->wall_ns), .severity = v->severity};
	if (value.len != sizeof(*v) + v->code_len + text_len || v->severity < SAN_INFO ||
	    v->severity > SAN_ERROR || !schema_key_get_64(key, &ret_e->seq) ||
	    !text_get(v->texts, v->code_len, SAN_EVENT_CODE_MAX, ret_e->code) ||
	    !text_get(v->texts + v->code_len, text_len, SAN_EVENT_TEXT_MAX, ret_e->text))
		return -E_FORMAT;
	return 0;
}

/* ---- once ----------------------------------------------------------------------------------------------------------------- */

struct once_value {
	struct record_head h;
	struct le64 request, wall_ns;
	struct le32 id;
	uint8_t what, key_len, reserved[2];
	char key[];
};
static_assert(sizeof(struct once_value) == 32, "no padding");
static_assert(sizeof(struct once_value) + SAN_ONCE_KEY_MAX <= SCHEMA_SMALL_MAX, "fits");
enum { ONCE_VERSION = 1 };

size_t schema_once_encode(const struct schema_once *o, const struct schema_key *k, uint8_t *out)
{
	struct once_value *v = (struct once_value *)out;
	size_t key_len = strlen(o->key);

	*v = (struct once_value){
	    .request = to_le64(o->request),
	    .wall_ns = to_le64(o->wall_ns),
	    .id = to_le32(o->id),
	    .what = (uint8_t)o->what,
	    .key_len = (uint8_t)key_len,
	};
	memcpy(v->key, o->key, key_len);
	record_seal(&v->h, ONCE_VERSION, k, sizeof(*v) + key_len);
	return sizeof(*v) + key_len;
}

int schema_once_decode(struct metastore_bytes key, struct metastore_bytes value,
		       struct schema_once *ret_o)
{
	const struct once_value *v = value.data;
	int r = record_open(key, value, ONCE_VERSION, sizeof(*v), SCHEMA_SMALL_MAX);

	if (r)
		return r;
	*ret_o = (struct schema_once){
	    .request = get_le64(v->request),
	    .wall_ns = get_le64(v->wall_ns),
	    .what = v->what,
	    .id = get_le32(v->id),
	};
	if (value.len != sizeof(*v) + v->key_len || v->key_len == 0 || v->what < SAN_ONCE_VOLUME ||
	    v->what > SAN_ONCE_JOB || !bytes_are_zero(v->reserved, sizeof(v->reserved)) ||
	    !schema_key_get_64(key, &ret_o->seq) || ret_o->seq == 0 ||
	    !text_get(v->key, v->key_len, SAN_ONCE_KEY_MAX, ret_o->key))
		return -E_FORMAT;
	return 0;
}
