/* SPDX-License-Identifier: Apache-2.0 */
/* export.c - from the name a client asks for to an open volume.
 *
 *   (close what was open) -> (LIST*, for the empty name) -> OPEN* -> opened        (* suspends)
 *
 * A connection keeps the export that INFO or SET_META_CONTEXT opened, so that the GO that follows finds the same one. */
#include <stdio.h>
#include <string.h>

#include "src/base/math.h"
#include "targets/nbd/handshake.h"

static void export_close_other(struct nbd_conn *c);
static void export_other_closed(void *arg);
static void export_find_default(struct nbd_conn *c);
static void export_default_found(struct volume_list *l);
static void export_open_volume(struct nbd_conn *c, const char *name);
static void export_opened(struct volume_open *op);
static void export_changed(void *arg, int status);
static void export_failed(struct nbd_conn *c, int status);

int export_name_take(struct cursor *data, uint32_t len, char ret_name[EXPORT_NAME_LEN])
{
	const char *p = cursor_take(data, len);

	if (!p || len >= EXPORT_NAME_LEN || memchr(p, '\0', len))
		return -EINVAL;
	memcpy(ret_name, p, len);
	ret_name[len] = '\0';
	return 0;
}

void export_open(struct nbd_conn *c, const char *name,
		 void (*opened)(struct nbd_conn *c, int status))
{
	struct handshake *hs = c->hs;

	hs->opened = opened;
	hs->text[0] = '\0';
	if (c->handle && strcmp(c->requested, name) == 0) {
		opened(c, 0);
		return;
	}
	memcpy(hs->wanted, name, strlen(name) + 1);
	if (c->handle)
		export_close_other(c);
	else
		export_find_default(c);
}

static void export_close_other(struct nbd_conn *c)
{
	struct volume_handle *h = c->handle;

	c->handle = NULL;
	c->changed = false;
	c->pending++;
	volume_on_change(h, NULL, NULL);
	volume_close(h, export_other_closed, c);
}

static void export_other_closed(void *arg)
{
	struct nbd_conn *c = arg;

	c->pending--;
	if (c->state == CONN_HANDSHAKE)
		export_find_default(c);
	conn_settle(c);
}

/* The empty name is the only volume, if there is one and only one. */
static void export_find_default(struct nbd_conn *c)
{
	struct volume_list *l = &c->hs->list;

	if (c->hs->wanted[0]) {
		export_open_volume(c, c->hs->wanted);
		return;
	}
	l->after[0] = '\0';
	l->names = c->hs->names;
	l->names_max = 2;
	l->done = export_default_found;
	c->pending++;
	volume_list(c->server->volumes, l);
}

static void export_default_found(struct volume_list *l)
{
	struct handshake *hs = container_of(l, struct handshake, list);
	struct nbd_conn *c = hs->conn;

	c->pending--;
	if (c->state != CONN_HANDSHAKE) {
		;
	} else if (l->status < 0) {
		export_failed(c, l->status);
	} else if (l->names_n == 1) {
		export_open_volume(c, l->names[0]);
	} else {
		snprintf(hs->text, sizeof(hs->text), "%s",
			 l->names_n == 0 ? "there is no default export: there are no volumes yet"
					 : "there is no default export: there are several volumes, "
					   "name one (LIST tells them)");
		export_failed(c, -ENOENT);
	}
	conn_settle(c);
}

static void export_open_volume(struct nbd_conn *c, const char *name)
{
	struct volume_open *op = &c->hs->open;
	char volume[NAME_LEN_MAX + 1], snapshot[NAME_LEN_MAX + 1];
	char client[IOE_ADDR_MAX + 8];

	if (name_split(name, volume, snapshot) < 0) {
		snprintf(c->hs->text, sizeof(c->hs->text), "no volume can have such a name");
		export_failed(c, -ENOENT);
		return;
	}
	snprintf(client, sizeof(client), "nbd %s", c->peer);
	*op = (struct volume_open){
	    .name = name,
	    .client = client,
	    .remote_client = !ioe_sock_is_local(c->sock),
	    .done = export_opened,
	};
	c->pending++;
	volume_open(c->server->volumes, op);
}

static void export_opened(struct volume_open *op)
{
	struct handshake *hs = container_of(op, struct handshake, open);
	struct nbd_conn *c = hs->conn;

	c->pending--;
	if (op->status == 0) {
		c->handle =
		    op->handle; /* also when the client is gone: closed with the connection */
		memcpy(c->requested, hs->wanted, sizeof(c->requested));
		volume_geometry(c->handle, &c->geo);
		volume_on_change(c->handle, export_changed, c);
		c->io_bytes_max =
		    (uint32_t)MIN((uint64_t)c->geo.io_bytes_max,
				  round_down(c->server->limits.pool_bytes, BLOCK_BYTES) -
				      2 * BLOCK_BYTES);
	}
	if (c->state != CONN_HANDSHAKE) {
		;
	} else if (op->status == 0) {
		hs->opened(c, 0);
	} else {
		if (op->status == -E_NOT_OWNER && op->owner_uri[0])
			snprintf(hs->text, sizeof(hs->text), "another node owns this volume: %s",
				 op->owner_uri);
		else if (op->errmsg[0])
			snprintf(hs->text, sizeof(hs->text), "%s", op->errmsg);
		export_failed(c, op->status);
	}
	conn_settle(c);
}

static void export_failed(struct nbd_conn *c, int status)
{
	if (!c->hs->text[0])
		snprintf(c->hs->text, sizeof(c->hs->text), "%s",
			 status == -ENOENT ? "there is no such volume" : err_text(status));
	c->hs->opened(c, status);
}

static void export_changed(void *arg, int status)
{
	struct nbd_conn *c = arg;

	if (!c->changed || status < 0)
		c->change_status = status;
	c->changed = true;
	ioe_hook_arm(c->ioe, &c->hook);
}

/* Flags say what will be honoured, no more: no CACHE (there is no data cache to fill), DF with structured replies only. */
uint16_t export_flags(const struct nbd_conn *c)
{
	unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA;

	if (!c->geo.one_opener)
		flags |= NBD_FLAG_CAN_MULTI_CONN;
	if (c->geo.read_only)
		flags |= NBD_FLAG_READ_ONLY;
	else
		flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	if (c->structured)
		flags |= NBD_FLAG_SEND_DF;
	return (uint16_t)flags;
}
