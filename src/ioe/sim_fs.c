/* SPDX-License-Identifier: Apache-2.0 */
/* sim_fs.c - a machine's names: files, block devices, directories; open files and their locks.
 *
 * Every call here takes no virtual time and its effect on names, sizes and space is durable when it returns. A path is a name and
 * nothing more: no directory need exist, and a directory is a name that renames what begins with it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/ioe/sim.h"

static void say(char *errmsg, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- names and inodes ------------------------------------------------------------------------------------------------- */

struct sim_name *sim_name_find(struct sim_machine *m, const char *path)
{
	list_for_each (l, &m->names) {
		struct sim_name *n = list_entry(l, struct sim_name, link);

		if (strcmp(n->path, path) == 0)
			return n;
	}
	return NULL;
}

struct sim_name *sim_name_new(struct sim_machine *m, const char *path, enum sim_name_kind kind)
{
	struct sim_name *n = sim_zalloc(sizeof(*n));

	n->kind = kind;
	n->path = sim_strdup(path);
	list_init(&n->link);
	list_push(&m->names, &n->link);
	return n;
}

static struct sim_inode *inode_new(struct sim_machine *m, const char *path)
{
	struct sim_inode *ino = sim_zalloc(sizeof(*ino));

	ino->m = m;
	ino->refs = 1;
	ino->path = sim_strdup(path);
	sim_image_init(&ino->img);
	list_init(&ino->in_flight);
	list_init(&ino->link);
	list_push(&m->inodes, &ino->link);
	return ino;
}

static void inode_put(struct sim_inode *ino)
{
	if (--ino->refs > 0)
		return;
	check(list_empty(&ino->in_flight) && !ino->locked_by);
	list_del(&ino->link);
	sim_image_free(&ino->img);
	sim_free(ino->path);
	sim_free(ino->signature);
	sim_free(ino);
}

void sim_name_free(struct sim_name *n)
{
	list_del(&n->link);
	if (n->ino)
		inode_put(n->ino);
	if (n->shm)
		sim_shm_put(n->shm);
	if (n->listener)
		n->listener->name = NULL;
	sim_free(n->path);
	sim_free(n);
}

static void inode_rename(struct sim_inode *ino, const char *path)
{
	sim_free(ino->path);
	ino->path = sim_strdup(path);
}

static struct sim_name *file_find(struct sim_machine *m, const char *path)
{
	struct sim_name *n = sim_name_find(m, path);

	return n && n->kind == SIM_FILE ? n : NULL;
}

static int not_a_file(const struct sim_name *n)
{
	return !n		       ? -ENOENT
	       : n->kind == SIM_DIR    ? -EISDIR
	       : n->kind == SIM_SOCKET ? -ENXIO
				       : -EINVAL;
}

/* How much the machine's files would take with this range allocated. */
bool sim_quota_allows(const struct sim_inode *ino, uint64_t off, uint64_t len)
{
	uint64_t pages;

	if (ino->m->quota_bytes == 0)
		return true;
	pages = sim_image_missing(&ino->img, off, len);
	if (pages == 0)
		return true;
	list_for_each (l, &ino->m->inodes)
		pages += list_entry(l, struct sim_inode, link)->img.used_pages;
	return pages <= ino->m->quota_bytes / SIM_PAGE;
}

static void say(char *errmsg, const char *fmt, ...)
{
	va_list ap;

	if (!errmsg)
		return;
	va_start(ap, fmt);
	vsnprintf(errmsg, ERRMSG_LEN, fmt, ap);
	va_end(ap);
}

/* ---- open files ------------------------------------------------------------------------------------------------------- */

void sim_ofd_put(struct sim_ofd *ofd)
{
	if (--ofd->refs > 0)
		return;
	if (ofd->ino->locked_by == ofd)
		ofd->ino->locked_by = NULL;
	inode_put(ofd->ino);
	sim_free(ofd);
}

static struct sim_ofd *ofd_new(struct sim_proc *p, struct sim_inode *ino)
{
	struct sim_ofd *ofd = sim_zalloc(sizeof(*ofd));

	ofd->ino = ino;
	ofd->refs = 1;
	ofd->pid = p->pid;
	ino->refs++;
	return ofd;
}

int sim_file_open(struct ioe *e, const char *path, int flags, struct ioe_file **ret_f, char *errmsg)
{
	struct sim_proc *p = sim_proc_of(e);
	struct sim_name *n = sim_name_find(p->m, path);
	bool is_direct = !(flags & IOE_OPEN_BUFFERED) && !p->m->traits.refuses_direct;
	uint32_t align = flags & IOE_OPEN_BUFFERED ? 1 : SIM_SECTOR;
	int r = p->is_dead ? -EIO : 0;
	struct sim_file *f;

	if (!r && flags & IOE_OPEN_CREATE && n)
		r = -EEXIST;
	if (!r && !(flags & IOE_OPEN_CREATE) && (!n || n->kind != SIM_FILE))
		r = not_a_file(n);
	if (r) {
		say(errmsg, "%s: %s", path, err_text(r));
		return r;
	}
	if (flags & IOE_OPEN_LOCK && n && n->ino->locked_by) {
		say(errmsg, "%s: in use by pid %u", path, n->ino->locked_by->pid);
		return -E_IN_USE;
	}
	if (is_direct && p->m->traits.io_align)
		align = p->m->traits.io_align;
	f = mem_zalloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	if (!n) {
		n = sim_name_new(p->m, path, SIM_FILE);
		n->ino = inode_new(p->m, path);
	}
	engine_file_init(e, &f->f, align, flags & IOE_OPEN_RDONLY);
	f->is_direct = is_direct;
	f->ofd = ofd_new(p, n->ino);
	if (flags & IOE_OPEN_LOCK)
		n->ino->locked_by = f->ofd;
	list_init(&f->link);
	list_push(&p->files, &f->link);
	*ret_f = &f->f;
	return 0;
}

static void file_free(struct sim_file *f)
{
	list_del(&f->link);
	sim_ofd_put(f->ofd);
	mem_free(f);
}

void sim_file_close(struct ioe *e, struct ioe_file *f)
{
	(void)e;
	file_free(sim_file_of(f));
}

void sim_file_info(struct ioe_file *f, struct ioe_file_info *ret_info)
{
	const struct sim_inode *ino = sim_file_of(f)->ofd->ino;

	*ret_info = (struct ioe_file_info){
	    .size_bytes = ino->img.size_bytes,
	    .io_align = f->io_align,
	    .is_block_device = ino->is_block_device,
	    .is_direct = sim_file_of(f)->is_direct,
	    .has_volatile_cache = !ino->m->traits.write_through,
	    .never_blocks = ino->m->traits.never_blocks,
	};
}

int sim_file_resize(struct ioe *e, struct ioe_file *f, uint64_t size_bytes)
{
	struct sim_inode *ino = sim_file_of(f)->ofd->ino;

	if (sim_proc_of(e)->is_dead)
		return -EIO;
	if (ino->is_block_device)
		return -EINVAL;
	if (f->read_only)
		return -EBADF;
	if (size_bytes > SIM_FILE_MAX)
		return -EFBIG;
	sim_image_resize(&ino->img, size_bytes);
	return 0;
}

int sim_file_reserve(struct ioe *e, struct ioe_file *f, uint64_t off, uint64_t len)
{
	struct sim_inode *ino = sim_file_of(f)->ofd->ino;

	if (sim_proc_of(e)->is_dead)
		return -EIO;
	if (ino->is_block_device)
		return 0;
	if (f->read_only)
		return -EBADF;
	if (off + len > SIM_FILE_MAX)
		return -EFBIG;
	if (!sim_quota_allows(ino, off, len))
		return -ENOSPC;
	sim_image_reserve(&ino->img, off, len);
	return 0;
}

uint64_t sim_file_used_bytes(struct ioe *e, struct ioe_file *f)
{
	const struct sim_inode *ino = sim_file_of(f)->ofd->ino;

	(void)e;
	return ino->is_block_device ? ino->img.size_bytes : ino->img.used_pages * SIM_PAGE;
}

/* A machine has one filesystem. */
int sim_file_space(struct ioe *e, struct ioe_file *f, struct ioe_file_space *ret_space)
{
	const struct sim_inode *ino = sim_file_of(f)->ofd->ino;
	uint64_t used = sim_file_used_bytes(e, f), quota = ino->m->quota_bytes, all = 0;

	if (ino->is_block_device)
		return -EINVAL;
	list_for_each (l, &ino->m->inodes)
		all += list_entry(l, struct sim_inode, link)->img.used_pages * SIM_PAGE;
	*ret_space = (struct ioe_file_space){
	    .fs_id = 1,
	    .free_bytes = !quota	? INT64_MAX
			  : quota > all ? quota - all
					: 0,
	    .owed_bytes = ino->img.size_bytes > used ? ino->img.size_bytes - used : 0,
	};
	return 0;
}

int sim_probe_signature(struct ioe *e, const char *path, char *errmsg)
{
	struct sim_name *n = sim_name_find(sim_proc_of(e)->m, path);

	if (!n || n->kind != SIM_FILE)
		return not_a_file(n);
	if (!n->ino->signature)
		return 0;
	say(errmsg, "%s carries %s", path, n->ino->signature);
	return -E_FOREIGN;
}

/* ---- the names of files ----------------------------------------------------------------------------------------------- */

int sim_unlink(struct ioe *e, const char *path)
{
	struct sim_name *n = sim_name_find(sim_proc_of(e)->m, path);

	if (sim_proc_of(e)->is_dead)
		return -EIO;
	if (!n)
		return -ENOENT;
	if (n->kind == SIM_DIR)
		return -EISDIR;
	sim_name_free(n);
	return 0;
}

static void name_move(struct sim_name *n, char *path)
{
	sim_free(n->path);
	n->path = path;
	if (n->ino)
		inode_rename(n->ino, path);
}

static void directory_move(struct sim_machine *m, const char *from, const char *to)
{
	size_t from_len = strlen(from);

	list_for_each (l, &m->names) {
		struct sim_name *n = list_entry(l, struct sim_name, link);
		size_t room = strlen(to) + strlen(n->path) + 1;
		char *path;

		if (strncmp(n->path, from, from_len) != 0 || n->path[from_len] != '/')
			continue;
		path = sim_alloc(room);
		snprintf(path, room, "%s%s", to, n->path + from_len);
		name_move(n, path);
	}
}

int sim_rename(struct ioe *e, const char *from, const char *to)
{
	struct sim_machine *m = sim_proc_of(e)->m;
	struct sim_name *n = sim_name_find(m, from), *old = sim_name_find(m, to);

	if (sim_proc_of(e)->is_dead)
		return -EIO;
	if (!n)
		return -ENOENT;
	if (n == old)
		return 0;
	if (old && (old->kind == SIM_DIR || n->kind == SIM_DIR))
		return old->kind == SIM_DIR ? -EISDIR : -ENOTDIR;
	if (old)
		sim_name_free(old);
	if (n->kind == SIM_DIR)
		directory_move(m, from, to);
	name_move(n, sim_strdup(to));
	return 0;
}

int sim_mkdir(struct ioe *e, const char *path, uint32_t mode)
{
	struct sim_machine *m = sim_proc_of(e)->m;
	struct sim_name *n = sim_name_find(m, path);

	(void)mode;
	if (sim_proc_of(e)->is_dead)
		return -EIO;
	if (n)
		return n->kind == SIM_DIR ? 0 : -EEXIST;
	sim_name_new(m, path, SIM_DIR);
	return 0;
}

/* A machine of the simulation has one user. */
int sim_check_private(struct ioe *e, const char *path, char *errmsg)
{
	struct sim_name *n = sim_name_find(sim_proc_of(e)->m, path);

	if (n && n->kind == SIM_DIR)
		return 0;
	say(errmsg, "%s is no directory", path);
	return n ? -ENOTDIR : -ENOENT;
}

bool sim_same(struct ioe *e, const char *a, const char *b)
{
	struct sim_name *n = sim_name_find(sim_proc_of(e)->m, a);

	return n && n == sim_name_find(sim_proc_of(e)->m, b);
}

int sim_file_load(struct ioe *e, const char *path, char **ret_data, size_t *ret_len)
{
	struct sim_name *n = sim_name_find(sim_proc_of(e)->m, path);
	size_t len;
	char *data;

	if (!n || n->kind != SIM_FILE)
		return not_a_file(n);
	if (n->ino->img.size_bytes > IOE_SMALL_FILE_MAX)
		return -EFBIG;
	len = n->ino->img.size_bytes;
	data = mem_alloc(len + 1);
	if (!data)
		return -ENOMEM;
	sim_image_read(&n->ino->img, 0, data, len);
	data[len] = '\0';
	*ret_data = data;
	*ret_len = len;
	return 0;
}

int sim_file_store(struct ioe *e, const char *path, const void *data, size_t len, uint32_t mode)
{
	struct sim_change c = {.len = len, .data = data};
	struct sim_machine *m = sim_proc_of(e)->m;
	struct sim_name *n = sim_name_find(m, path);
	struct sim_inode *ino;

	(void)mode;
	if (sim_proc_of(e)->is_dead)
		return -EIO;
	if (n && n->kind != SIM_FILE)
		return not_a_file(n);
	ino = inode_new(m, path);
	if (!sim_quota_allows(ino, 0, len)) {
		inode_put(ino);
		return -ENOSPC;
	}
	ino->img.size_bytes = len;
	sim_image_change(&ino->img, &c, true);
	if (!n)
		n = sim_name_new(m, path, SIM_FILE);
	else
		inode_put(n->ino);
	n->ino = ino;
	return 0;
}

/* ---- ends ------------------------------------------------------------------------------------------------------------- */

void sim_fs_close_all(struct sim_proc *p)
{
	while (!list_empty(&p->files))
		file_free(list_first(&p->files, struct sim_file, link));
	sim_shm_close_all(p);
}

void sim_fs_power_loss(struct sim_machine *m)
{
	list_for_each_safe (l, tmp, &m->names) {
		struct sim_name *n = list_entry(l, struct sim_name, link);

		if (n->kind == SIM_SHM)
			sim_name_free(n);
	}
	list_for_each_safe (l, tmp, &m->inodes) {
		struct sim_inode *ino = list_entry(l, struct sim_inode, link);

		ino->refs++; /* its orphans may be the last to hold it */
		sim_inode_power_loss(ino);
		inode_put(ino);
	}
}

void sim_fs_free(struct sim_machine *m)
{
	list_for_each_safe (l, tmp, &m->inodes) {
		struct sim_inode *ino = list_entry(l, struct sim_inode, link);

		ino->refs++;
		sim_ops_free(ino);
		inode_put(ino);
	}
	while (!list_empty(&m->names))
		sim_name_free(list_first(&m->names, struct sim_name, link));
	check(list_empty(&m->inodes));
}

/* ---- what tests do to disks ------------------------------------------------------------------------------------------- */

void sim_disk_traits(struct sim_machine *m, const struct sim_disk_traits *t)
{
	check(t->io_align == 0 || t->io_align == SIM_SECTOR || t->io_align == SIM_PAGE);
	m->traits = *t;
}

int sim_disk_new(struct sim_machine *m, const char *path, uint64_t size_bytes)
{
	struct sim_name *n;

	check(size_bytes <= SIM_FILE_MAX);
	if (sim_name_find(m, path))
		return -EEXIST;
	n = sim_name_new(m, path, SIM_FILE);
	n->ino = inode_new(m, path);
	n->ino->is_block_device = true;
	n->ino->img.size_bytes = size_bytes;
	return 0;
}

int sim_disk_sign(struct sim_machine *m, const char *path, const char *signature)
{
	struct sim_name *n = file_find(m, path);

	if (!n)
		return -ENOENT;
	sim_free(n->ino->signature);
	n->ino->signature = signature ? sim_strdup(signature) : NULL;
	return 0;
}

int sim_disk_move(struct sim_machine *m, const char *from, const char *to)
{
	struct sim_name *n = file_find(m, from);

	if (!n)
		return -ENOENT;
	if (sim_name_find(m, to))
		return -EEXIST;
	name_move(n, sim_strdup(to));
	return 0;
}

void sim_disk_quota(struct sim_machine *m, uint64_t bytes)
{
	m->quota_bytes = bytes;
}

void sim_disk_fault(struct sim_machine *m,
		    int (*fault)(void *arg, const char *path, const struct ioe_req *r), void *arg)
{
	m->fault = fault;
	m->fault_arg = arg;
}

void sim_disk_delay(struct sim_machine *m,
		    uint64_t (*delay_ns)(void *arg, const char *path, const struct ioe_req *r),
		    void *arg)
{
	m->delay_ns = delay_ns;
	m->delay_arg = arg;
}

int sim_disk_peek(struct sim_machine *m, const char *path, uint64_t off, void *buf, uint64_t len)
{
	struct sim_name *n = file_find(m, path);

	if (!n)
		return -ENOENT;
	if (!range_inside(off, len, n->ino->img.size_bytes))
		return -ERANGE;
	sim_image_read(&n->ino->img, off, buf, len);
	return 0;
}

int sim_disk_poke(struct sim_machine *m, const char *path, uint64_t off, const void *buf,
		  uint64_t len)
{
	struct sim_change c = {.off = off, .len = len, .data = buf};
	struct sim_name *n = file_find(m, path);

	if (!n)
		return -ENOENT;
	if (!range_inside(off, len, n->ino->img.size_bytes))
		return -ERANGE;
	sim_image_change(&n->ino->img, &c, true);
	return 0;
}
