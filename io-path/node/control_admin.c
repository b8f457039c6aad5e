/* SPDX-License-Identifier: Apache-2.0 */
/* control_admin.c - what the metadata server pushes for operators, and the news it passes on. */
#include "io-path/node/control_private.h"

#include <stdio.h>
#include <string.h>

#include "io-path/node/meta_client.h"
#include "src/base/math.h"
#include "src/base/mem.h"

void push_config(struct control *c, struct push *p)
{
	c->cfg.config(c->cfg.arg, (const Strata__Config *)p->msg);
	push_result(p, 0, "");
}

void push_volume_changed(struct control *c, struct push *p)
{
	if (c->cfg.client)
		meta_client_volume_changed(c->cfg.client, (const Strata__VolumeChanged *)p->msg);
	push_result(p, 0, "");
}

/* ---- devices --------------------------------------------------------------------------------------------------------------------- */

struct add_push {
	struct push p;
	struct devices_add add;
};

static void add_done(struct devices_add *add);

void push_device_add(struct control *c, struct push *p)
{
	struct add_push *op = push_grow(p, sizeof(*op));
	const Strata__DeviceAdd *m;

	if (!op)
		return;
	m = (const Strata__DeviceAdd *)op->p.msg;
	op->add.path = mem_strdup(m->path);
	if (!op->add.path) {
		push_result(&op->p, -ENOMEM, "memory is short");
		return;
	}
	op->add.size_bytes = m->size_bytes;
	op->add.chunk_shift = m->chunk_shift;
	op->add.force = m->force;
	op->add.done = add_done;
	devices_add(c->cfg.devices, &op->add);
}

/* The answer counts as the report of the device; when nobody takes it, the next hello is. */
static void add_done(struct devices_add *add)
{
	struct add_push *op = container_of(add, struct add_push, add);
	struct control *c = op->p.c;
	Strata__DeviceAdded m = STRATA__DEVICE_ADDED__INIT;
	Strata__DeviceInfo info;
	struct device_info room;

	m.error = (char *)(uintptr_t)control_error(add->status);
	m.errmsg = add->errmsg;
	if (!add->status) {
		control_describe_device(add->device, &info, &room);
		m.device = &info;
		control_device_told(add->device, &info);
		add->device->told = c->session == op->p.session;
		add->device->admitted = add->device->told; /* or the server has it removed */
		if (c->session != op->p.session)
			control_device_changed(c, add->device);
	}
	push_reply(&op->p, &m.base);
}

struct remove_push {
	struct push p;
	struct devices_remove remove;
};

static void remove_done(struct devices_remove *remove);

void push_device_remove(struct control *c, struct push *p)
{
	struct remove_push *op = push_grow(p, sizeof(*op));

	if (!op)
		return;
	op->remove.uuid = control_get_uuid(((const Strata__DeviceRemove *)op->p.msg)->uuid);
	op->remove.done = remove_done;
	devices_remove(c->cfg.devices, &op->remove);
}

static void remove_done(struct devices_remove *remove)
{
	struct remove_push *op = container_of(remove, struct remove_push, remove);
	struct control *c = op->p.c;
	int status = remove->status;
	char errmsg[ERRMSG_LEN];

	memcpy(errmsg, remove->errmsg, sizeof(errmsg));
	push_result(&op->p, status, *errmsg ? errmsg : err_text(status));
	control_check_ready(c);
}

/* ---- slots ------------------------------------------------------------------------------------------------------------------------- */

static void slot_describe(struct device *dev, uint32_t slot, const struct device_slot *s,
			  Strata__SlotState *ret)
{
	strata__slot_state__init(ret);
	ret->slot = slot;
	ret->state = s->state;
	ret->cgen = s->cgen;
	ret->volume = s->volume;
	ret->layer = s->layer;
	ret->chunk = s->chunk;
	ret->present = s->present_n;
	ret->epoch = s->epoch;
	ret->offset = device_block_offset(dev, slot, 0);
}

void push_slot_query(struct control *c, struct push *p)
{
	const Strata__SlotQuery *m = (const Strata__SlotQuery *)p->msg;
	struct node_device *d = devices_by_no(c->cfg.devices, (device_no)m->device);
	size_t n = m->n_slots ? m->n_slots : m->max;
	Strata__SlotStates reply = STRATA__SLOT_STATES__INIT;
	Strata__SlotState *states = mem_zalloc_array(n, sizeof(*states));
	Strata__SlotState **list = mem_zalloc_array(n, sizeof(*list));
	struct device_slot s;
	int r = 0;

	if (!states || !list)
		r = -ENOMEM;
	else if (!d)
		r = -E_DEVICE_GONE;
	for (size_t i = 0; i < n && !r; i++) {
		uint32_t slot = m->n_slots ? m->slots[i] : m->first + (uint32_t)i;

		r = device_slot_get(d->dev, slot, &s);
		if (r == -ERANGE && !m->n_slots) { /* the end of the device */
			r = 0;
			break;
		}
		if (r)
			break;
		slot_describe(d->dev, slot, &s, &states[i]);
		list[i] = &states[i];
		reply.n_slots++;
	}
	reply.error = (char *)(uintptr_t)control_error(r);
	reply.errmsg = (char *)(uintptr_t)(r ? err_text(r) : "");
	reply.slots = list;
	if (r)
		reply.n_slots = 0;
	push_reply(p, &reply.base);
	mem_free(states);
	mem_free(list);
}

/* ---- counters ------------------------------------------------------------------------------------------------------------------------ */

enum { LABELS_MAX = 4, STATS_BYTES_MAX = 3 << 20 /* well inside a frame */ };

struct metric {
	struct list link;
	Strata__Metric m;
	Strata__Label labels[LABELS_MAX], *label_list[LABELS_MAX];
	char text[]; /* all strings */
};

struct control_metrics {
	struct list list;
	size_t n, bytes;
};

static char *put_text(char **at, const char *text)
{
	size_t n = strlen(text) + 1;
	char *start = *at;

	memcpy(start, text, n);
	*at += n;
	return start;
}

void control_metric(struct control_metrics *out, const char *name, bool gauge, const char *help,
		    uint64_t value, const char *const *labels, uint32_t labels_n)
{
	size_t bytes = strlen(name) + strlen(help) + 2;
	struct metric *v;
	char *at;

	check(labels_n % 2 == 0 && labels_n / 2 <= LABELS_MAX);
	for (uint32_t i = 0; i < labels_n; i++)
		bytes += strlen(labels[i]) + 1;
	out->bytes += bytes + 16 + labels_n * 4; /* about what it takes on the wire */
	if (out->n == CONTROL_METRICS_MAX || out->bytes > STATS_BYTES_MAX)
		return;
	v = mem_zalloc(sizeof(*v) + bytes);
	if (!v)
		return;
	at = v->text;
	strata__metric__init(&v->m);
	v->m.name = put_text(&at, name);
	v->m.help = put_text(&at, help);
	v->m.value = value;
	v->m.gauge = gauge;
	v->m.labels = v->label_list;
	for (uint32_t i = 0; i < labels_n; i += 2) {
		Strata__Label *l = &v->labels[i / 2];

		strata__label__init(l);
		l->name = put_text(&at, labels[i]);
		l->value = put_text(&at, labels[i + 1]);
		v->label_list[v->m.n_labels++] = l;
	}
	list_push(&out->list, &v->link);
	out->n++;
}

static void device_metrics(struct control_metrics *out, const struct node_device *d)
{
	char uuid[UUID_TEXT_LEN], no[8];
	const char *labels[] = {"device", no, "uuid", uuid};
	struct device_info i;

	device_info(d->dev, &i);
	uuid_format(&d->uuid, uuid);
	snprintf(no, sizeof(no), "%u", i.number);
#define GAUGE(name, help, value) \
	control_metric(out, "strata_device_" name, true, help, value, labels, 4);
#define COUNTER(name, help, value) \
	control_metric(out, "strata_device_" name "_total", false, help, value, labels, 4);
	GAUGE("capacity_bytes", "Bytes of all slots", i.capacity_bytes)
	GAUGE("slots_open", "Slots that hold a chunk", i.slots_open_n)
	GAUGE("slots_active", "Slots that may hold unfinished overwrites", i.active_slots)
	GAUGE("failed", "1 when out of service", i.failed)
	GAUGE("bad_blocks", "Blocks known to be damaged", i.bad_blocks)
	GAUGE("unresolved_blocks", "Blocks accepted as unfinished writes", i.unresolved_blocks)
	GAUGE("table_cache_bytes", "Block tables in memory", i.table_cache_bytes)
	COUNTER("table_cache_hits", "Block table lookups answered from memory", i.table_cache_hits)
	COUNTER("table_cache_misses", "Block table lookups that read", i.table_cache_misses)
	COUNTER("journal_blocks", "Journal blocks written", i.journal_blocks)
	COUNTER("journal_records", "Journal records written", i.journal_records)
	COUNTER("flushes", "Flushes of the medium", i.flushes)
	COUNTER("checkpoints", "Pages checkpointed", i.checkpoints)
	COUNTER("reads", "Read requests", i.reads)
	COUNTER("writes", "Write requests", i.writes)
	COUNTER("clears", "Zeroing and discarding requests", i.clears)
	COUNTER("frees", "Slots freed", i.frees)
	COUNTER("read_bytes", "Bytes read", i.read_bytes)
	COUNTER("write_bytes", "Bytes written", i.write_bytes)
	COUNTER("no_space", "Writes that found no space under the device", i.no_space_errors)
#undef GAUGE
#undef COUNTER
}

/* Formatting a large device takes a while. */
static void format_metrics(struct control_metrics *out, const struct devices_add *add)
{
	const char *labels[] = {"path", add->path};

	if (!add->format.all_bytes)
		return;
	control_metric(out, "strata_device_format_done_bytes", true,
		       "How far the formatting of a device is", add->format.done_bytes, labels, 2);
	control_metric(out, "strata_device_format_all_bytes", true,
		       "Of how many bytes of discarding and writing", add->format.all_bytes, labels,
		       2);
}

void push_stats(struct control *c, struct push *p)
{
	volume_id volume = ((const Strata__StatsQuery *)p->msg)->volume;
	Strata__Stats reply = STRATA__STATS__INIT;
	struct control_metrics out = {.n = 0};
	Strata__Metric **list;
	struct list *l;
	size_t n = 0;

	list_init(&out.list);
	if (!volume) {
		list_for_each (at, &c->cfg.devices->list) {
			struct node_device *d = list_entry(at, struct node_device, link);

			if (d->dev)
				device_metrics(&out, d);
		}
		list_for_each (at, &c->cfg.devices->adds) {
			format_metrics(&out, list_entry(at, struct devices_add, link));
		}
		control_metric(&out, "strata_node_waiting_requests", true,
			       "Chunk requests whose device is away", c->cfg.store->waiting_n, NULL,
			       0);
	}
	c->cfg.stats(c->cfg.arg, &out, volume);
	list = mem_zalloc_array(out.n, sizeof(*list));
	if (list) {
		list_for_each (at, &out.list) {
			list[n++] = &list_entry(at, struct metric, link)->m;
		}
	}
	reply.error = (char *)(uintptr_t)control_error(list ? 0 : -ENOMEM);
	reply.metrics = list;
	reply.n_metrics = n;
	push_reply(p, &reply.base);
	while ((l = list_pop(&out.list)))
		mem_free(list_entry(l, struct metric, link));
	mem_free(list);
}
