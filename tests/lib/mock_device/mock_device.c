/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/mock_device/mock_device.h"

#include <stdio.h>
#include <string.h>

#include "src/base/check.h"
#include "src/base/mem.h"

enum { MEDIA = 32, DELAY_NS = 2000000 };

static struct mock_medium media[MEDIA];

struct device {
	struct ioe *e;
	struct mock_medium *m;
	bool failed, closing, read_only;
	uint32_t in_flight;
	void (*on_event)(void *arg, struct device *dev, const char *what, const char *text);
	void *event_arg;
	void (*closed)(void *arg, int status);
	void *closed_arg;
	uint64_t reads, writes, frees;
};

void mock_media_clear(void)
{
	memset(media, 0, sizeof(media));
}

struct mock_medium *mock_medium(const char *path)
{
	for (size_t i = 0; i < MEDIA; i++) {
		if (!media[i].path[0])
			snprintf(media[i].path, sizeof(media[i].path), "%s", path);
		if (!strcmp(media[i].path, path))
			return &media[i];
	}
	check_unreachable("too many media");
}

uint64_t mock_epoch(const struct mock_medium *m, volume_id volume)
{
	for (uint32_t i = 0; i < m->epochs_n; i++)
		if (m->epochs[i].volume == volume)
			return m->epochs[i].epoch;
	return 0;
}

/* ---- something that takes a while ------------------------------------------------------------------------------------------------------- */

struct delay {
	struct ioe_req req;
	struct device *dev; /* NULL: format, open */
	void (*fn)(struct delay *d);
	void *arg;
	void (*done)(void *arg, int status);
	uint64_t number;
	struct device_layer layer;
};

static void close_step(struct device *dev)
{
	void (*closed)(void *arg, int status) = dev->closed;
	void *arg = dev->closed_arg;

	if (!dev->closing || dev->in_flight)
		return;
	if (dev->m->open == dev)
		dev->m->open = NULL;
	mem_free(dev);
	closed(arg, 0);
}

static void delay_over(struct ioe_req *req)
{
	struct delay *d = container_of(req, struct delay, req);
	struct device *dev = d->dev;

	d->fn(d);
	mem_free(d);
	if (!dev)
		return;
	dev->in_flight--;
	close_step(dev);
}

static struct delay *later_by(struct ioe *e, struct device *dev, void *arg,
			      void (*fn)(struct delay *d), uint64_t ns)
{
	struct delay *d = mem_zalloc(sizeof(*d));

	check(d);
	d->dev = dev;
	d->arg = arg;
	d->fn = fn;
	if (dev)
		dev->in_flight++;
	ioe_timer(e, &d->req, ioe_now_ns(e) + ns + 1 + ioe_rand64(e) % DELAY_NS, delay_over);
	return d;
}

static struct delay *later(struct ioe *e, struct device *dev, void *arg, void (*fn)(struct delay *d))
{
	return later_by(e, dev, arg, fn, 0);
}

/* ---- format, open, close ------------------------------------------------------------------------------------------------------------------ */

static void format_over(struct delay *d)
{
	struct device_format *op = d->arg;
	struct mock_medium *m = mock_medium(op->path);

	op->status = 0;
	if (!op->force && (m->foreign || m->formatted)) {
		op->status = -E_FOREIGN;
		snprintf(op->errmsg, sizeof(op->errmsg), "%s has the signature of something",
			 op->path);
	} else {
		char path[sizeof(m->path)];

		memcpy(path, m->path, sizeof(path));
		memset(m, 0, sizeof(*m));
		memcpy(m->path, path, sizeof(path));
		m->formatted = true;
		m->uuid = op->uuid = ioe_uuid(op->ioe);
		m->cluster = op->cluster;
		m->chunk_shift = op->chunk_shift;
		m->incarnation = m->lsn = 1;
	}
	op->done(op);
}

void device_format(struct device_format *op)
{
	later(op->ioe, NULL, op, format_over);
}

static void open_over(struct delay *d)
{
	struct device_open *op = d->arg;
	struct mock_medium *m = mock_medium(op->path);
	struct device *dev;

	op->status = 0;
	op->found = (struct uuid){{0}};
	op->errmsg[0] = '\0';
	if (m->unopenable)
		op->status = -EIO;
	else if (!m->formatted)
		op->status = -ENOENT;
	else if (op->cluster && !uuid_equal(op->cluster, &m->cluster))
		op->status = -EPERM;
	else {
		op->found = m->uuid;
		if (op->expected && !uuid_equal(op->expected, &m->uuid))
			op->status = -E_FOREIGN;
	}
	if (op->status) {
		snprintf(op->errmsg, sizeof(op->errmsg), "%s cannot be opened", op->path);
		op->done(op);
		return;
	}
	dev = mem_zalloc(sizeof(*dev));
	check(dev);
	dev->e = op->ioe;
	dev->m = m;
	dev->read_only = op->read_only;
	dev->on_event = op->on_event;
	dev->event_arg = op->event_arg;
	m->open = dev;
	m->opens++;
	if (!op->read_only)
		m->lsn++;
	op->dev = dev;
	op->done(op);
}

void device_open(struct device_open *op)
{
	later_by(op->ioe, NULL, op, open_over, mock_medium(op->path)->open_ns);
}

static void nothing(struct delay *d)
{
	(void)d;
}

void device_close(struct device *dev, void (*done)(void *arg, int status), void *arg)
{
	check(!dev->closing);
	dev->closing = true;
	dev->closed = done;
	dev->closed_arg = arg;
	later(dev->e, dev, NULL, nothing);
}

static void number_over(struct delay *d)
{
	struct mock_medium *m = d->dev->m;
	int status = 0;

	if (m->number && m->number != d->number)
		status = -EEXIST;
	else
		m->number = (device_no)d->number;
	d->done(d->arg, status);
}

void device_set_number(struct device *dev, device_no no, void (*done)(void *arg, int status),
		       void *arg)
{
	struct delay *d = later(dev->e, dev, arg, number_over);

	d->number = no;
	d->done = done;
}

/* ---- requests ----------------------------------------------------------------------------------------------------------------------------- */

static int slot_request(struct device *dev, struct chunk_req *r)
{
	struct device_slot *s = &dev->m->slots[r->slot];
	bool is_open = s->state == DEVICE_SLOT_OPEN;

	if (r->op == CHUNK_FLUSH)
		return 0;
	if (r->slot >= MOCK_SLOTS)
		return -ERANGE;
	if (r->op == CHUNK_FREE) {
		if (r->cgen < s->cgen)
			return 0;
		dev->m->frees++;
		dev->frees++;
		*s = (struct device_slot){.cgen = r->cgen};
		return 0;
	}
	if (mock_epoch(dev->m, r->volume) > r->epoch)
		return -E_STALE_EPOCH;
	if (is_open ? s->cgen != r->cgen : s->cgen >= r->cgen)
		return -E_STALE_CGEN;
	if (r->op == CHUNK_WRITE) {
		if (dev->m->breaks) {
			dev->m->breaks = false;
			dev->failed = true;
			dev->on_event(dev->event_arg, dev, "device_failed", "a write failed");
			return -E_DEVICE_FAILED;
		}
		if (dev->m->is_full != dev->m->no_space) {
			dev->m->no_space = dev->m->is_full;
			dev->on_event(dev->event_arg, dev,
				      dev->m->is_full ? "no_space" : "space_again", "a write");
		}
		if (dev->m->is_full)
			return -ENOSPC;
		dev->writes++;
		dev->m->lsn++;
		s->state = DEVICE_SLOT_OPEN;
		s->cgen = r->cgen;
		s->volume = r->volume;
		s->layer = r->layer;
		s->chunk = r->chunk;
		s->epoch = r->epoch;
		if (s->present_n < r->block + r->blocks_n)
			s->present_n = r->block + r->blocks_n;
	}
	if (r->op == CHUNK_READ) {
		dev->reads++;
		memset(r->buf, 0, (size_t)r->blocks_n * BLOCK_BYTES);
	}
	r->present_n = s->present_n;
	return 0;
}

static void request_over(struct delay *d)
{
	struct chunk_req *r = d->arg;

	r->status = d->dev->failed ? -E_DEVICE_FAILED : slot_request(d->dev, r);
	r->done(r);
}

void device_submit(struct device *dev, struct chunk_req *r)
{
	later(dev->e, dev, r, request_over);
}

static void epoch_over(struct delay *d)
{
	struct device_epoch_req *r = d->arg;
	struct mock_medium *m = d->dev->m;
	uint32_t i = 0;

	r->status = d->dev->failed ? -E_DEVICE_FAILED : 0;
	while (i < m->epochs_n && m->epochs[i].volume != r->volume)
		i++;
	check(i < MOCK_EPOCHS);
	if (!r->status && i == m->epochs_n)
		m->epochs_n++;
	if (!r->status && m->epochs[i].epoch < r->epoch) {
		m->epochs[i].volume = r->volume;
		m->epochs[i].epoch = r->epoch;
		m->epochs[i].commit = r->commit;
		m->lsn++;
	}
	r->done(r);
}

void device_epoch(struct device *dev, struct device_epoch_req *r)
{
	later(dev->e, dev, r, epoch_over);
}

static void layer_over(struct delay *d)
{
	struct mock_medium *m = d->dev->m;
	uint32_t i = 0;

	while (i < m->layers_n && m->layers[i].layer != d->layer.layer)
		i++;
	if (i == MOCK_LAYERS) {
		d->done(d->arg, -ENOSPC);
		return;
	}
	if (i == m->layers_n)
		m->layers[m->layers_n++] = d->layer;
	else if (m->layers[i].commit < d->layer.commit)
		m->layers[i] = d->layer;
	m->lsn++;
	d->done(d->arg, 0);
}

void device_layer_put(struct device *dev, const struct device_layer *layer,
		      void (*done)(void *arg, int status), void *arg)
{
	struct delay *d = later(dev->e, dev, arg, layer_over);

	d->layer = *layer;
	d->done = done;
}

static void drop_over(struct delay *d)
{
	struct mock_medium *m = d->dev->m;
	uint32_t i = 0;

	while (i < m->layers_n && m->layers[i].layer != d->layer.layer)
		i++;
	if (i < m->layers_n && m->layers[i].commit <= d->layer.commit) {
		m->layers[i] = m->layers[--m->layers_n];
		m->lsn++;
	}
	d->done(d->arg, 0);
}

void device_layer_drop(struct device *dev, layer_id layer, uint64_t commit,
		       void (*done)(void *arg, int status), void *arg)
{
	struct delay *d = later(dev->e, dev, arg, drop_over);

	d->layer = (struct device_layer){.layer = layer, .commit = commit};
	d->done = done;
}

int device_layer_next(struct device *dev, layer_id after, struct device_layer *ret_layer)
{
	const struct device_layer *best = NULL;

	for (uint32_t i = 0; i < dev->m->layers_n; i++)
		if (dev->m->layers[i].layer > after &&
		    (!best || dev->m->layers[i].layer < best->layer))
			best = &dev->m->layers[i];
	if (best)
		*ret_layer = *best;
	return best ? 0 : -ENOENT;
}

void device_heard_commit(struct device *dev, uint64_t commit)
{
	if (dev->m->commit < commit)
		dev->m->commit = commit;
}

static void commit_over(struct delay *d)
{
	if (!d->dev->failed)
		d->dev->m->lsn++;
	d->done(d->arg, d->dev->failed ? -E_DEVICE_FAILED : 0);
}

void device_commit_put(struct device *dev, uint64_t commit, void (*done)(void *arg, int status),
		       void *arg)
{
	device_heard_commit(dev, commit);
	later(dev->e, dev, arg, commit_over)->done = done;
}

/* ---- looking ------------------------------------------------------------------------------------------------------------------------------ */

void device_info(struct device *dev, struct device_info *ret_info)
{
	const struct mock_medium *m = dev->m;

	*ret_info = (struct device_info){
	    .uuid = m->uuid,
	    .cluster = m->cluster,
	    .number = m->number,
	    .chunk_shift = m->chunk_shift,
	    .capacity_bytes = (uint64_t)MOCK_SLOTS << m->chunk_shift,
	    .slots_n = MOCK_SLOTS,
	    .incarnation = m->incarnation,
	    .lsn = m->lsn,
	    .stable_lsn = m->lsn,
	    .commit = m->commit,
	    .failed = dev->failed,
	    .has_volatile_cache = true,
	    .no_space = m->no_space,
	    .reads = dev->reads,
	    .writes = dev->writes,
	    .frees = dev->frees,
	};
	for (uint32_t i = 0; i < MOCK_SLOTS; i++) {
		ret_info->slots_open_n += m->slots[i].state == DEVICE_SLOT_OPEN;
		if (m->slots[i].cgen > ret_info->cgen_highest)
			ret_info->cgen_highest = m->slots[i].cgen;
	}
}

int device_space(struct device *dev, struct ioe_file_space *ret_space)
{
	*ret_space = dev->m->space;
	return ret_space->fs_id ? 0 : -EINVAL;
}

int device_slot_get(struct device *dev, uint32_t slot, struct device_slot *ret_slot)
{
	if (slot >= MOCK_SLOTS)
		return -ERANGE;
	*ret_slot = dev->m->slots[slot];
	return 0;
}

uint64_t device_block_offset(struct device *dev, uint32_t slot, uint32_t block)
{
	return (1 << 20) + ((uint64_t)slot << dev->m->chunk_shift) + (uint64_t)block * BLOCK_BYTES;
}
