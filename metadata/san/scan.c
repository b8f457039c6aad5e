/* SPDX-License-Identifier: Apache-2.0 */
/* scan.c - walking over tables of the database. */
#include <string.h>

#include "metadata/san/state.h"
#include "src/base/check.h"

struct scan *scan_new(struct san *s, uint32_t items_max, size_t buf_len)
{
	struct scan *sc = priv_alloc(s, sizeof(*sc) + items_max * sizeof(sc->items[0]) + buf_len);

	if (!sc)
		return NULL;
	*sc = (struct scan){.s = s};
	sc->m.items = sc->items;
	sc->m.items_max = items_max;
	sc->m.buf = &sc->items[items_max];
	sc->m.buf_max = buf_len;
	return sc;
}

static void scanned(struct metastore_scan *m)
{
	struct scan *sc = container_of(m, struct scan, m);

	sc->done(sc);
}

static void start(struct scan *sc)
{
	sc->m.prefix = schema_key_bytes(&sc->prefix);
	sc->m.after = schema_key_bytes(&sc->after);
	sc->m.done = scanned;
	metastore_scan(sc->s->store, &sc->m);
}

void scan_start(struct scan *sc, const struct schema_key *prefix, const struct schema_key *after,
		void (*done)(struct scan *sc), void *arg)
{
	sc->prefix = *prefix;
	sc->after = after ? *after : (struct schema_key){.len = 0};
	sc->done = done;
	sc->arg = arg;
	start(sc);
}

void scan_next(struct scan *sc, void (*done)(struct scan *sc))
{
	const struct metastore_bytes *last = &sc->items[sc->m.items_n - 1].key;

	check(sc->m.items_n > 0 && last->len <= SCHEMA_KEY_MAX);
	sc->after.len = (uint8_t)last->len;
	memcpy(sc->after.b, last->data, last->len);
	sc->done = done;
	start(sc);
}
