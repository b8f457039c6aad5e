/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/check_ledger.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/check.h"
#include "src/base/math.h"
#include "src/model/ids.h"

enum { WORDS = SECTOR_BYTES / 8 };
#define NEVER	      UINT64_MAX
#define PATTERN_MAGIC 0x53747261746153ULL
#define FOREIGN	      UINT64_MAX

struct version {
	uint64_t id; /* of the change; 0: before all of them */
	uint64_t lo, end;
	uint64_t dead,
	    stable_dead;   /* from then on nobody sees it; ... and no power loss brings it back */
	uint64_t acked;	   /* when; NEVER */
	uint64_t lost;	   /* a power loss put it in doubt; 0: none did */
	uint32_t machines; /* whose power loss can take it away */
	uint32_t lost_by;  /* whose may have, since it was asked for */
	uint32_t tried_by; /* whose came after its end: what is seen then, they do not lose any more */
	uint32_t proc;	   /* that acknowledged it, and has not reported it as lost */
	uint8_t machine;			 /* of that process */
	bool zeros, certain, stable, wish, over; /* over: finished */
};

struct sector {
	struct version *v; /* NULL: zeros since ever, stable */
	uint16_t n, room;
	bool listed; /* in ledger.open */
	bool damaged, may_be_old;
};

struct ledger {
	uint64_t uid, sectors_n, oldest;
	bool lossy;
	struct sector *sectors;
	uint32_t *open; /* sectors of which more than one version, or an unstable one, is known */
	size_t open_n, open_room;
};

/* ---- life ------------------------------------------------------------------------------------------------------------ */

struct ledger *ledger_new(uint64_t uid, uint64_t sectors_n, bool lossy)
{
	struct ledger *h = calloc(1, sizeof(*h));

	check(h && uid > 0 && sectors_n < UINT32_MAX);
	h->uid = uid;
	h->sectors_n = sectors_n;
	h->lossy = lossy;
	h->sectors = calloc(sectors_n, sizeof(*h->sectors));
	check(h->sectors);
	return h;
}

void ledger_free(struct ledger *h)
{
	for (uint64_t s = 0; s < h->sectors_n; s++)
		free(h->sectors[s].v);
	free(h->sectors);
	free(h->open);
	free(h);
}

void ledger_grow(struct ledger *h, uint64_t sectors_n)
{
	check(sectors_n >= h->sectors_n && sectors_n < UINT32_MAX);
	h->sectors = reallocarray(h->sectors, sectors_n, sizeof(*h->sectors));
	check(h->sectors);
	memset(h->sectors + h->sectors_n, 0, (sectors_n - h->sectors_n) * sizeof(*h->sectors));
	h->sectors_n = sectors_n;
}

uint64_t ledger_sectors(const struct ledger *h)
{
	return h->sectors_n;
}

void ledger_oldest(struct ledger *h, uint64_t oldest)
{
	h->oldest = oldest;
}

static struct version *push(struct sector *s)
{
	if (s->n == s->room) {
		check(s->room < UINT16_MAX / 2);
		s->room = (uint16_t)(s->room ? 2 * s->room : 2);
		s->v = reallocarray(s->v, s->room, sizeof(*s->v));
		check(s->v);
	}
	s->v[s->n] =
	    (struct version){.end = NEVER, .dead = NEVER, .stable_dead = NEVER, .acked = NEVER};
	return &s->v[s->n++];
}

static struct sector *touch(struct ledger *h, uint64_t at)
{
	struct sector *s = &h->sectors[at];

	check(at < h->sectors_n);
	if (s->n == 0) {
		struct version *first = push(s);

		first->end = 0;
		first->zeros = first->certain = first->stable = true;
	}
	if (s->listed)
		return s;
	s->listed = true;
	if (h->open_n == h->open_room) {
		h->open_room = h->open_room ? 2 * h->open_room : 256;
		h->open = reallocarray(h->open, h->open_room, sizeof(*h->open));
		check(h->open);
	}
	h->open[h->open_n++] = (uint32_t)at;
	return s;
}

/* What can neither be seen nor come back is forgotten. */
static void prune(const struct ledger *h, struct sector *s, uint64_t now)
{
	uint16_t kept = 0;

	for (uint16_t i = 0; i < s->n; i++) {
		const struct version *v = &s->v[i];

		if (v->dead < h->oldest && v->stable_dead <= now)
			continue;
		if (kept != i)
			s->v[kept] = *v;
		kept++;
	}
	check(kept > 0);
	s->n = kept;
}

/* ---- what follows from what ------------------------------------------------------------------------------------------ */

/* w took effect for certain: all that ended before it began is replaced. */
static void replace(struct sector *s, const struct version *w, uint64_t now)
{
	for (uint16_t i = 0; i < s->n; i++) {
		struct version *v = &s->v[i];

		if (v == w || v->end >= w->lo)
			continue;
		v->dead = MIN(v->dead, now);
		if (w->stable)
			v->stable_dead = MIN(v->stable_dead, now);
	}
}

/* v was there at some moment of [lo, now]: what had ended before that came before it. */
static void seen(struct sector *s, struct version *v, uint64_t lo, uint64_t now)
{
	uint64_t from = MAX(lo, v->lo);

	if (v->lost && lo <= v->lost)
		return; /* maybe what was there before the power was lost */
	v->machines &= ~v->tried_by;
	if (v->machines == 0)
		v->stable = true;
	v->end = MIN(v->end, now);
	v->certain = true;
	for (uint16_t i = 0; i < s->n; i++) {
		struct version *u = &s->v[i];

		if (u == v || u->end >= from)
			continue;
		u->dead = MIN(u->dead, now);
		if (v->stable)
			u->stable_dead = MIN(u->stable_dead, now);
	}
}

static struct version *find(struct sector *s, uint64_t id)
{
	for (uint16_t i = s->n; i-- > 0;)
		if (s->v[i].id == id)
			return &s->v[i];
	return NULL;
}

/* ---- changes --------------------------------------------------------------------------------------------------------- */

void ledger_begin(struct ledger *h, const struct ledger_op *op)
{
	for (uint64_t i = 0; i < op->sectors_n; i++) {
		struct version *v = push(touch(h, op->sector + i));

		v->id = op->id;
		v->lo = op->lo;
		v->zeros = op->zeros;
		v->proc = op->proc;
		v->machine = (uint8_t)op->machine;
		v->machines = h->lossy ? LEDGER_ALL_MACHINES : 0;
	}
}

static void acknowledged(const struct ledger *h, struct version *v, enum ledger_end end,
			 uint32_t machines, uint64_t now)
{
	v->acked = now;
	v->wish = end == LEDGER_MAYBE;
	v->machines = h->lossy ? machines : 0;
	v->stable = v->stable || end == LEDGER_STABLE || v->machines == 0;
	if (!(v->lost_by & v->machines)) /* it was not in danger */
		v->lost = 0;
	if (end == LEDGER_STABLE || (end == LEDGER_DONE && !v->lost))
		v->certain = true;
}

void ledger_finish(struct ledger *h, const struct ledger_op *op, enum ledger_end end,
		   uint32_t machines, uint64_t now)
{
	for (uint64_t i = 0; i < op->sectors_n; i++) {
		struct sector *s = &h->sectors[op->sector + i];
		struct version *v = find(s, op->id);

		if (!v) /* it was seen to be replaced */
			continue;
		v->over = true;
		v->end = MIN(v->end, now);
		if (end != LEDGER_FAILED)
			acknowledged(h, v, end, machines, now);
		if (v->certain)
			replace(s, v, now);
		prune(h, s, now);
	}
}

void ledger_fill(const struct ledger *h, uint64_t id, uint64_t sector, uint64_t sectors_n,
		 void *data)
{
	uint64_t *w = data;

	for (uint64_t i = 0; i < sectors_n; i++, w += WORDS) {
		uint64_t place = h->uid << 32 | (sector + i);
		uint64_t x = id * 0x9e3779b97f4a7c15ULL ^ place * 0xbf58476d1ce4e5b9ULL;

		w[0] = PATTERN_MAGIC;
		w[1] = id;
		w[2] = place;
		for (unsigned k = 3; k < WORDS; k++)
			w[k] = x = (x << 7 | x >> 57) + 0x9e3779b97f4a7c15ULL * k;
	}
}

/* ---- what flushes and power losses do ---------------------------------------------------------------------------------- */

/* Calls fn for each sector that is not at rest, and lets go of those that came to rest. */
static void for_open(struct ledger *h, uint64_t now, void (*fn)(struct sector *s, void *arg),
		     void *arg)
{
	size_t kept = 0;

	for (size_t i = 0; i < h->open_n; i++) {
		struct sector *s = &h->sectors[h->open[i]];

		fn(s, arg);
		prune(h, s, now);
		s->listed = s->n > 1 || !s->v[0].stable;
		if (s->listed)
			h->open[kept++] = h->open[i];
	}
	h->open_n = kept;
}

struct flush {
	uint32_t proc;
	uint64_t lo, now;
};

/* What was acknowledged before is stable; and is there, unless its loss was nobody's to report. */
static void sector_flushed(struct sector *s, void *arg)
{
	const struct flush *f = arg;

	for (uint16_t i = 0; i < s->n; i++) {
		struct version *v = &s->v[i];

		if (v->stable || v->acked >= f->lo)
			continue;
		v->stable = true;
		if (!v->wish && (!v->lost || v->proc == f->proc))
			v->certain = true;
		if (v->certain)
			replace(s, v, f->now);
	}
}

void ledger_flushed(struct ledger *h, uint32_t proc, uint64_t lo, uint64_t now)
{
	struct flush f = {proc, lo, now};

	for_open(h, now, sector_flushed, &f);
}

static void sector_flush_failed(struct sector *s, void *arg)
{
	const struct flush *f = arg;

	for (uint16_t i = 0; i < s->n; i++)
		if (s->v[i].lost && s->v[i].proc == f->proc)
			s->v[i].proc = 0;
}

void ledger_flush_failed(struct ledger *h, uint32_t proc)
{
	struct flush f = {.proc = proc};

	for_open(h, 0, sector_flush_failed, &f);
}

struct loss {
	uint32_t machine;
	uint64_t now;
};

static void sector_power_loss(struct sector *s, void *arg)
{
	const struct loss *l = arg;

	for (uint16_t i = 0; i < s->n; i++) {
		struct version *v = &s->v[i];

		if (v->stable || !(v->machines >> l->machine & 1))
			continue;
		v->lost = l->now;
		v->lost_by |= 1u << l->machine;
		v->certain = false;
		if (!v->over && v->machine != l->machine) /* it may be executed still */
			continue;
		v->end = MIN(v->end, l->now);
		v->tried_by |= 1u << l->machine;
	}
	for (uint16_t i = 0; i < s->n; i++)
		if (s->v[i].stable_dead == NEVER)
			s->v[i].dead = NEVER;
	for (uint16_t i = 0; i < s->n; i++)
		if (s->v[i].certain)
			replace(s, &s->v[i], l->now);
}

void ledger_power_loss(struct ledger *h, uint32_t machine, uint64_t now)
{
	struct loss l = {machine, now};

	check(h->lossy && machine < 32);
	for_open(h, now, sector_power_loss, &l);
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

bool ledger_identify(const void *data, uint64_t *ret_uid, uint64_t *ret_sector)
{
	uint64_t w[3];

	memcpy(w, data, sizeof(w));
	*ret_uid = w[2] >> 32;
	*ret_sector = w[2] & UINT32_MAX;
	return w[0] == PATTERN_MAGIC;
}

/* The id of the write that made the sector; 0: zeros; FOREIGN. */
static uint64_t id_of(const struct ledger *h, uint64_t sector, const void *data)
{
	uint64_t got[WORDS], want[WORDS];

	memcpy(got, data, sizeof(got));
	if (got[0] != PATTERN_MAGIC || got[2] != (h->uid << 32 | sector) || got[1] == 0)
		return bytes_are_zero(data, SECTOR_BYTES) ? 0 : FOREIGN;
	ledger_fill(h, got[1], sector, 1, want);
	return memcmp(got, want, sizeof(got)) == 0 ? got[1] : FOREIGN;
}

static bool fits(const struct version *v, uint64_t id)
{
	return v->zeros ? id == 0 : v->id == id && id != 0;
}

static bool sector_read(struct ledger *h, uint64_t at, uint64_t id, uint64_t lo, uint64_t now)
{
	struct sector *s = &h->sectors[at];
	struct version *one = NULL;
	uint32_t fits_n = 0;

	if (id == FOREIGN)
		return false;
	if (s->n == 0)
		return id == 0;
	for (uint16_t i = 0; i < s->n; i++) {
		struct version *v = &s->v[i];

		if (!fits(v, id) || v->dead < lo)
			continue;
		fits_n++;
		one = v;
	}
	if (fits_n == 1) {
		seen(s, one, lo, now);
		prune(h, s, now);
	}
	return fits_n > 0 || s->may_be_old;
}

bool ledger_read(struct ledger *h, uint64_t sector, uint64_t sectors_n, const void *data,
		 uint64_t lo, uint64_t now, uint64_t *ret_sector)
{
	for (uint64_t i = 0; i < sectors_n; i++) {
		const uint8_t *at = (const uint8_t *)data + i * SECTOR_BYTES;

		if (sector_read(h, sector + i, id_of(h, sector + i, at), lo, now))
			continue;
		*ret_sector = sector + i;
		return false;
	}
	return true;
}

bool ledger_next(const struct ledger *h, uint64_t from, uint64_t *ret_sector)
{
	for (uint64_t s = from; s < h->sectors_n; s++) {
		if (h->sectors[s].n == 0)
			continue;
		*ret_sector = s;
		return true;
	}
	return false;
}

/* ---- damage ---------------------------------------------------------------------------------------------------------- */

void ledger_damage(struct ledger *h, uint64_t sector, bool may_be_old)
{
	if (sector >= h->sectors_n)
		return;
	h->sectors[sector].damaged = true;
	h->sectors[sector].may_be_old |= may_be_old;
}

bool ledger_is_damaged(const struct ledger *h, uint64_t sector, uint64_t sectors_n)
{
	for (uint64_t i = 0; i < sectors_n; i++)
		if (h->sectors[sector + i].damaged)
			return true;
	return false;
}

/* ---- for people ------------------------------------------------------------------------------------------------------ */

static void __attribute__((format(printf, 3, 4)))
append(char *text, size_t room, const char *fmt, ...)
{
	size_t len = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	if (len + 1 < room)
		vsnprintf(text + len, room - len, fmt, ap);
	va_end(ap);
}

static void append_moment(char *text, size_t room, const char *what, uint64_t at)
{
	if (at != NEVER)
		append(text, room, " %s %" PRIu64, what, at);
}

static void append_version(char *text, size_t room, const struct version *v)
{
	append(text, room, "\n    %s %" PRIu64 ": from %" PRIu64, v->zeros ? "zeros" : "write",
	       v->id, v->lo);
	append_moment(text, room, "to", v->end);
	append_moment(text, room, "acknowledged", v->acked);
	append_moment(text, room, "dead", v->dead);
	append_moment(text, room, "for good", v->stable_dead);
	append(text, room, "%s%s%s", v->certain ? " certain" : "", v->stable ? " stable" : "",
	       v->lost ? " lost" : "");
}

void ledger_explain(const struct ledger *h, uint64_t sector, const void *data, char *text,
		    size_t room)
{
	const struct sector *s = &h->sectors[sector];
	uint64_t id = id_of(h, sector, data), w[3];

	memcpy(w, data, sizeof(w));
	text[0] = '\0';
	append(text, room, "sector %" PRIu64 " is ", sector);
	if (id == FOREIGN && w[0] == PATTERN_MAGIC)
		append(text, room,
		       "write %" PRIu64 " of volume %" PRIu64 " sector %" PRIu64 ", maybe torn",
		       w[1], w[2] >> 32, w[2] & UINT32_MAX);
	else if (id == FOREIGN)
		append(text, room, "what nobody wrote: %016" PRIx64 " %016" PRIx64, w[0], w[1]);
	else if (id)
		append(text, room, "write %" PRIu64, id);
	else
		append(text, room, "zeros");
	append(text, room, ", and may be:");
	if (s->n == 0)
		append(text, room, " zeros");
	for (uint16_t i = 0; i < s->n; i++)
		append_version(text, room, &s->v[i]);
}
