/* SPDX-License-Identifier: Apache-2.0 */
/* check_records.c - are the records of the resident objects what the objects would be written as? */
#include <string.h>

#include "metadata/san/check.h"
#include "src/base/check.h"

static bool same(const struct metastore_item *i, const uint8_t *bytes, size_t len)
{
	return i->value.len == len && memcmp(i->value.data, bytes, len) == 0;
}

void check_name(struct check_run *run, const struct metastore_item *i)
{
	char name[NAME_LEN_MAX + 1];
	struct volume *vol;
	volume_id id;

	if (!schema_key_get_name(i->key, name) || schema_name_decode(i->key, i->value, &id)) {
		check_problem(run, "an entry of the index of names is damaged");
		return;
	}
	vol = volume_by_id(run->s, id);
	if (vol && check_changed(run, &vol->obj))
		return;
	if (vol && vol->v.state == SAN_VOLUME_READY && strcmp(vol->v.name, name) == 0)
		vol->name_seen = true;
	else if (vol || !check_lenient(run))
		check_problem(run, "the name %s is in the index for volume %u, which is not so",
			      name, id);
}

void check_volume(struct check_run *run, const struct metastore_item *i)
{
	uint8_t bytes[SCHEMA_SMALL_MAX];
	struct volume *vol = NULL;
	struct schema_key k;
	volume_id id;

	if (schema_key_get_32(i->key, &id))
		vol = volume_by_id(run->s, id);
	if (!vol) {
		if (!check_lenient(run))
			check_problem(run, "there is a record of a volume that is not known");
		return;
	}
	if (check_changed(run, &vol->obj))
		return;
	vol->obj.seen = true;
	k = schema_key_32(SCHEMA_VOLUME, id);
	if (!same(i, bytes, volume_encode(vol, &k, bytes)))
		check_problem(run, "the record of volume %s differs from what is in memory",
			      vol->v.name);
}

static struct layer *layer_of_key(const struct check_run *run, const struct metastore_item *i)
{
	layer_id id;

	return schema_key_get_32(i->key, &id) ? idtab_get(&run->s->layers, id) : NULL;
}

void check_layer(struct check_run *run, const struct metastore_item *i)
{
	uint8_t bytes[SCHEMA_SMALL_MAX];
	struct layer *l = layer_of_key(run, i);
	struct schema_key k;

	if (!l) {
		if (!check_lenient(run))
			check_problem(run, "there is a record of a layer that is not known");
		return;
	}
	if (check_changed(run, &l->obj))
		return;
	l->obj.seen = true;
	k = schema_key_32(SCHEMA_LAYER, l->id);
	if (!same(i, bytes, layer_encode(l, &k, bytes)))
		check_problem(run, "the record of layer %u differs from what is in memory", l->id);
}

void check_usage(struct check_run *run, const struct metastore_item *i)
{
	uint8_t bytes[SCHEMA_SMALL_MAX];
	struct layer *l = layer_of_key(run, i);
	struct schema_key k;

	if (!l || check_changed(run, &l->obj)) {
		if (!l && !check_lenient(run))
			check_problem(run, "there is a usage record of a layer that is not known");
		return;
	}
	l->usage_seen = true;
	k = schema_key_32(SCHEMA_USAGE, l->id);
	if (!same(i, bytes, schema_usage_encode(&l->n, &k, bytes)))
		check_problem(run, "the usage record of layer %u differs from what is in memory",
			      l->id);
}

void check_device(struct check_run *run, const struct metastore_item *i)
{
	uint8_t bytes[SCHEMA_SMALL_MAX];
	struct device *d = NULL;
	struct schema_key k;
	device_no no;

	if (schema_key_get_dev(i->key, &no))
		d = san_device_of(run->s, no);
	if (!d) {
		check_problem(run, "there is a record of a device that is not known");
		return;
	}
	if (check_changed(run, &d->obj))
		return;
	d->obj.seen = true;
	k = schema_key_dev(SCHEMA_DEVICE, no);
	if (!same(i, bytes, san_device_encode(d, &k, bytes)))
		check_problem(run, "the record of device %u differs from what is in memory", no);
}

void check_space(struct check_run *run, const struct metastore_item *i)
{
	uint8_t bytes[SCHEMA_SPACE_LEN];
	struct device *d = NULL;
	struct schema_key k;
	device_no no;
	uint32_t page;

	if (schema_key_get_dev_32(i->key, &no, &page))
		d = san_device_of(run->s, no);
	if (!d || page >= d->pages_n) {
		check_problem(run, "there is a space page of a device that is not known");
		return;
	}
	if (check_changed(run, &d->pages[page].obj))
		return;
	d->pages[page].obj.seen = true;
	k = schema_key_dev_32(SCHEMA_SPACE, no, page);
	if (!same(i, bytes, space_encode(&d->pages[page], &k, bytes)))
		check_problem(run, "space page %u of device %u differs from what is in memory",
			      page, no);
}

/* ---- what the database does not have ---------------------------------------------------------------------------------------- */

void check_records_begin(struct san *s)
{
	struct volume *vol;
	struct layer *l;
	struct device *d;

	idtab_for_each (vol, &s->volumes)
		vol->obj.seen = vol->name_seen = false;
	idtab_for_each (l, &s->layers)
		l->obj.seen = l->usage_seen = false;
	idtab_for_each (d, &s->devices) {
		d->obj.seen = false;
		for (uint32_t i = 0; i < d->pages_n; i++)
			d->pages[i].obj.seen = false;
	}
}

/* What changed since it was looked for, or before, may or may not have been found. */
static bool is_missing(const struct check_run *run, const struct txn_obj *o, bool seen)
{
	return !seen && !check_changed(run, o);
}

void check_records_end(struct check_run *run)
{
	struct volume *vol;
	struct layer *l;
	struct device *d;

	idtab_for_each (vol, &run->s->volumes) {
		if (is_missing(run, &vol->obj, vol->obj.seen))
			check_problem(run, "volume %u has no record", vol->v.id);
		if (vol->v.state == SAN_VOLUME_READY && is_missing(run, &vol->obj, vol->name_seen))
			check_problem(run, "volume %s is not in the index of names", vol->v.name);
	}
	idtab_for_each (l, &run->s->layers) {
		if (is_missing(run, &l->obj, l->obj.seen))
			check_problem(run, "layer %u has no record", l->id);
		if (l->n.entries_n > 0 && is_missing(run, &l->obj, l->usage_seen))
			check_problem(run, "layer %u has no usage record", l->id);
	}
	idtab_for_each (d, &run->s->devices) {
		if (is_missing(run, &d->obj, d->obj.seen))
			check_problem(run, "device %u has no record", d->no);
		for (uint32_t i = 0; i < d->pages_n; i++)
			if (d->pages[i].taken_n > 0 &&
			    is_missing(run, &d->pages[i].obj, d->pages[i].obj.seen))
				check_problem(run, "space page %u of device %u is missing", i,
					      d->no);
	}
}
