/* SPDX-License-Identifier: Apache-2.0 */
/* idtab.h - things by number, in order of their numbers. A sorted array: numbers are given out growing, so adding is appending. */
#ifndef STRATA_METADATA_SAN_IDTAB_H
#define STRATA_METADATA_SAN_IDTAB_H

#include <stdint.h>

struct idtab_item {
	uint32_t id;
	void *thing;
};
struct idtab {
	struct idtab_item *items;
	uint32_t n, max;
};

int idtab_reserve(struct idtab *t); /* the next idtab_add cannot fail. 0 or -ENOMEM */
void idtab_add(struct idtab *t, uint32_t id, void *p);	  /* reserved before; the id is new */
void idtab_del(struct idtab *t, uint32_t id);		  /* must be there */
void *idtab_get(const struct idtab *t, uint32_t id);	  /* NULL: none */
void *idtab_above(const struct idtab *t, uint32_t after); /* smallest id above; NULL: none */
void idtab_free(struct idtab *t);			  /* the things stay */

/* p: an expression of the thing's type; the body must not add or delete */
#define idtab_for_each(p, t) \
	for (uint32_t i_##p = 0; i_##p < (t)->n && ((p) = (t)->items[i_##p].thing, 1); i_##p++)

#endif
