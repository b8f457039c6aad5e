/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/block_history.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/check.h"

static bool is_clear(enum block_state kind)
{
	return kind == BLOCK_HOLE || kind == BLOCK_ZERO;
}

static void push(struct block_history *h, enum block_state kind, uint64_t id, bool live)
{
	if (h->n == h->room) {
		h->room = h->room ? h->room * 2 : 4;
		h->v = realloc(h->v, h->room * sizeof(*h->v));
		check(h->v);
	}
	h->v[h->n++] = (struct block_version){.kind = (uint8_t)kind, .id = id, .live = live};
}

/* An untouched block costs nothing; its first version is the hole. */
static void materialise(struct block_history *h)
{
	if (h->n == 0)
		push(h, BLOCK_HOLE, 0, true);
}

static void drop_first(struct block_history *h, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(h->v[i].torn);
	h->n = (uint16_t)(h->n - n);
	memmove(h->v, h->v + n, h->n * sizeof(*h->v));
	h->lost_n = 0;
}

static void drop_from(struct block_history *h, size_t n)
{
	for (size_t i = n; i < h->n; i++)
		free(h->v[i].torn);
	h->n = (uint16_t)n;
}

void history_reset(struct block_history *h)
{
	drop_from(h, 0);
	free(h->v);
	*h = (struct block_history){.listed = h->listed};
}

void history_begin(struct block_history *h, enum block_state kind, uint64_t id)
{
	check(!h->in_flight);
	materialise(h);
	push(h, kind, id, false);
	h->in_flight = true;
}

/* Version k is what the block holds. */
static void settle(struct block_history *h, size_t k, uint64_t seq)
{
	bool durable = k < h->lost_n;

	drop_from(h, k + 1);
	if (durable)
		drop_first(h, k);
	for (size_t i = 0; i < h->n; i++)
		h->v[i].live = false;
	h->v[h->n - 1].live = true;
	if (h->v[h->n - 1].seq == 0)
		h->v[h->n - 1].seq = seq;
	h->torn_ok = false;
}

void history_ack(struct block_history *h, uint64_t seq, bool stable)
{
	check(h->in_flight);
	h->in_flight = false;
	h->v[h->n - 1].seq = seq;
	for (size_t i = 0; i < h->n; i++)
		h->v[i].live = false;
	h->v[h->n - 1].live = true;
	h->torn_ok = false;
	if (stable)
		drop_first(h, h->n - 1u);
}

void history_cancel(struct block_history *h)
{
	check(h->in_flight);
	h->in_flight = false;
	drop_from(h, h->n - 1u);
}

void history_doubt(struct block_history *h, bool may_be_bad)
{
	check(h->in_flight);
	h->in_flight = false;
	h->v[h->n - 1].live = true;
	if (may_be_bad)
		push(h, BLOCK_BAD, 0, true);
}

void history_kill(struct block_history *h)
{
	if (!h->in_flight)
		return;
	h->in_flight = false;
	h->v[h->n - 1].live = true;
}

/* Sectors can mix only where something was written over data. */
static bool can_tear(const struct block_history *h)
{
	for (size_t i = 0; i + 1 < h->n; i++)
		if (h->v[i].kind == BLOCK_DATA)
			return true;
	return false;
}

void history_lose(struct block_history *h)
{
	if (h->n == 0)
		return;
	h->in_flight = false;
	for (size_t i = 0; i < h->n; i++)
		h->v[i].live = !h->v[i].gone;
	h->lost_n = h->n;
	h->torn_ok = h->torn_ok || can_tear(h);
}

void history_flush(struct block_history *h, uint64_t seq)
{
	size_t n = h->in_flight ? h->n - 1u : h->n;

	for (size_t k = n; k-- > h->lost_n;)
		if (h->v[k].seq != 0 && h->v[k].seq < seq) {
			drop_first(h, k);
			return;
		}
}

static bool same_content(const struct block_version *v, const struct pattern_ids *ids)
{
	for (size_t s = 0; s < PATTERN_SECTORS; s++)
		if (ids->sector[s] != (v->torn ? v->torn[s] : v->id))
			return false;
	return true;
}

static bool sector_is_of_a_lost_version(const struct block_history *h, size_t s, uint64_t id)
{
	for (size_t i = 0; i < h->lost_n; i++) {
		const struct block_version *v = &h->v[i];

		if (v->kind == BLOCK_DATA && id == (v->torn ? v->torn[s] : v->id))
			return true;
		if (is_clear(v->kind) && i > 0 && id == 0)
			return true;
	}
	return false;
}

static bool see_torn(struct block_history *h, uint64_t seq, const struct pattern_ids *ids)
{
	uint64_t *torn;

	if (!h->torn_ok)
		return false;
	for (size_t s = 0; s < PATTERN_SECTORS; s++)
		if (!sector_is_of_a_lost_version(h, s, ids->sector[s]))
			return false;
	torn = malloc(sizeof(ids->sector));
	check(torn);
	memcpy(torn, ids->sector, sizeof(ids->sector));
	drop_from(h, 0);
	push(h, BLOCK_DATA, 0, true);
	h->v[0].torn = torn;
	h->v[0].seq = seq;
	h->lost_n = 0;
	h->torn_ok = false;
	return true;
}

bool history_see(struct block_history *h, uint64_t seq, enum block_state state,
		 const struct pattern_ids *ids)
{
	size_t fits_n = 0, last = 0;
	bool torn_fits;

	materialise(h);
	for (size_t i = 0; i < h->n; i++) {
		struct block_version *v = &h->v[i];

		if (!v->live || v->kind != state)
			continue;
		if (state == BLOCK_DATA && ids && !same_content(v, ids))
			continue;
		fits_n++;
		last = i;
	}
	torn_fits = state == BLOCK_DATA && h->torn_ok;
	if (ids && state == BLOCK_DATA) {
		if (fits_n == 0)
			return see_torn(h, seq, ids);
		torn_fits = false;
	}
	if (fits_n == 0 && !torn_fits)
		return false;
	if (fits_n == 1 && !torn_fits && !h->in_flight) {
		settle(h, last, seq);
		return true;
	}
	for (size_t i = 0; i < h->n; i++) {
		struct block_version *v = &h->v[i];

		if (!v->live || v->kind == state)
			continue;
		v->live = false;
		v->gone = v->gone || i < h->lost_n;
	}
	h->torn_ok = torn_fits;
	return true;
}

bool history_may_be(const struct block_history *h, enum block_state state)
{
	if (h->n == 0)
		return state == BLOCK_HOLE;
	for (size_t i = 0; i < h->n; i++)
		if (h->v[i].live && h->v[i].kind == state)
			return true;
	return state == BLOCK_DATA && h->torn_ok;
}

int history_present(const struct block_history *h)
{
	bool yes = history_may_be(h, BLOCK_DATA) || history_may_be(h, BLOCK_BAD);
	bool no = history_may_be(h, BLOCK_HOLE) || history_may_be(h, BLOCK_ZERO);

	if (h->in_flight || (yes && no))
		return -1;
	return yes;
}

bool history_is_torn(const struct block_history *h)
{
	for (size_t i = 0; i < h->n; i++)
		if (h->v[i].live && h->v[i].torn)
			return true;
	return false;
}

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

void history_text(const struct block_history *h, char *text, size_t room)
{
	static const char *const kinds[] = {"hole", "zero", "bad", "write"};

	text[0] = '\0';
	if (h->n == 0)
		append(text, room, "hole durable live");
	for (size_t i = 0; i < h->n; i++) {
		const struct block_version *v = &h->v[i];

		append(text, room, "%s%s", i ? " | " : "", kinds[v->kind]);
		if (v->kind == BLOCK_DATA && !v->torn)
			append(text, room, " %" PRIu64, v->id);
		for (size_t s = 0; v->torn && s < PATTERN_SECTORS; s++)
			append(text, room, "%c%" PRIu64, s ? '/' : ' ', v->torn[s]);
		append(text, room, "%s%s%s%s", i == 0 && h->lost_n == 0 ? " durable" : "",
		       i < h->lost_n ? " lost" : "", v->gone ? " gone" : "", v->live ? " live" : "");
	}
	append(text, room, "%s%s", h->in_flight ? " (last in flight)" : "",
	       h->torn_ok ? " (may be torn)" : "");
}
