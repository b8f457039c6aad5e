/* SPDX-License-Identifier: Apache-2.0 */
/* sim_shm.c - shared memory: a name of the machine, and the mappings of its processes. It lives while there is one of either. */
#include "src/base/mem.h"
#include "src/ioe/sim.h"

struct map {
	struct list link; /* in sim_proc.maps */
	struct sim_shm *shm;
};

void sim_shm_put(struct sim_shm *shm)
{
	if (--shm->refs > 0)
		return;
	sim_free(shm->base);
	sim_free(shm);
}

static int map_new(struct sim_proc *p, struct sim_shm *shm, struct ioe_shm *ret_shm)
{
	struct map *map = mem_alloc(sizeof(*map));

	if (!map)
		return -ENOMEM;
	map->shm = shm;
	shm->refs++;
	list_init(&map->link);
	list_push(&p->maps, &map->link);
	*ret_shm = (struct ioe_shm){.base = shm->base, .len_bytes = shm->len_bytes};
	return 0;
}

static void map_free(struct map *map)
{
	list_del(&map->link);
	sim_shm_put(map->shm);
	mem_free(map);
}

int sim_shm_create(struct ioe *e, const char *path, size_t len_bytes, struct ioe_shm *ret_shm)
{
	struct sim_proc *p = sim_proc_of(e);
	struct sim_shm *shm;
	int r;

	if (p->is_dead)
		return -EIO;
	if (sim_name_find(p->m, path))
		return -EEXIST;
	shm = sim_zalloc(sizeof(*shm));
	shm->base = sim_zalloc_pages(len_bytes);
	shm->len_bytes = len_bytes;
	shm->refs = 1;
	r = map_new(p, shm, ret_shm);
	if (r)
		sim_shm_put(shm);
	else
		sim_name_new(p->m, path, SIM_SHM)->shm = shm;
	return r;
}

int sim_shm_open(struct ioe *e, const char *path, struct ioe_shm *ret_shm)
{
	struct sim_proc *p = sim_proc_of(e);
	struct sim_name *n = sim_name_find(p->m, path);

	if (p->is_dead)
		return -EIO;
	if (!n)
		return -ENOENT;
	return n->kind == SIM_SHM ? map_new(p, n->shm, ret_shm) : -EINVAL;
}

void sim_shm_close(struct ioe *e, struct ioe_shm *shm)
{
	list_for_each (l, &sim_proc_of(e)->maps) {
		struct map *map = list_entry(l, struct map, link);

		if (map->shm->base == shm->base) {
			map_free(map);
			shm->base = NULL;
			return;
		}
	}
	check_unreachable("closing shared memory that is not open");
}

void sim_shm_close_all(struct sim_proc *p)
{
	while (!list_empty(&p->maps))
		map_free(list_first(&p->maps, struct map, link));
}
