/* SPDX-License-Identifier: Apache-2.0 */
/* option.c - the options of the handshake, one after the other as a client uses them. */
#include <stdio.h>
#include <string.h>

#include "src/base/units.h"
#include "targets/nbd/error.h"
#include "targets/nbd/handshake.h"

static void option_list(struct nbd_conn *c);
static void option_list_page(struct nbd_conn *c);
static void option_list_page_done(struct volume_list *op);
static void option_structured_reply(struct nbd_conn *c);
static void option_info(struct nbd_conn *c);
static void option_info_opened(struct nbd_conn *c, int status);
static void option_export_name(struct nbd_conn *c);
static void option_export_name_opened(struct nbd_conn *c, int status);

void option_run(struct nbd_conn *c)
{
	switch (c->hs->option) {
	case NBD_OPT_ABORT: /* any data with it is ignored */
		reply_text(c, NBD_REP_ACK, NULL);
		reply_flush(c, conn_shut);
		return;
	case NBD_OPT_LIST:
		option_list(c);
		return;
	case NBD_OPT_STRUCTURED_REPLY:
		option_structured_reply(c);
		return;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		option_meta_context(c);
		return;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		option_info(c);
		return;
	case NBD_OPT_EXPORT_NAME:
		option_export_name(c);
		return;
	case NBD_OPT_STARTTLS:
	case NBD_OPT_EXTENDED_HEADERS:
	default:
		option_finish(c, NBD_REP_ERR_UNSUP, "this server does not know the option");
		return;
	}
}

/* ---- LIST: a page at a time, each sent before the next is asked for ------------------------------------------------------ */

static void option_list(struct nbd_conn *c)
{
	if (cursor_left(&c->hs->data) > 0) {
		option_finish(c, NBD_REP_ERR_INVALID, "LIST takes no data");
		return;
	}
	c->hs->list.after[0] = '\0';
	option_list_page(c);
}

static void option_list_page(struct nbd_conn *c)
{
	struct volume_list *l = &c->hs->list;

	l->names = c->hs->names;
	l->names_max = LIST_NAMES;
	l->done = option_list_page_done;
	c->pending++;
	volume_list(c->server->volumes, l);
}

static void option_list_page_done(struct volume_list *l)
{
	struct nbd_conn *c = container_of(l, struct handshake, list)->conn;

	c->pending--;
	if (c->state != CONN_HANDSHAKE) {
		conn_settle(c);
		return;
	}
	if (l->status < 0) {
		option_finish(c, nbd_rep_of(l->status), err_text(l->status));
		return;
	}
	for (uint32_t i = 0; i < l->names_n; i++) {
		uint32_t len = (uint32_t)strlen(l->names[i]);
		struct be32 wire = to_be32(len);
		uint8_t *p = reply_put(c, NBD_REP_SERVER, (uint32_t)sizeof(wire) + len);

		memcpy(p, &wire, sizeof(wire));
		memcpy(p + sizeof(wire), l->names[i], len);
	}
	if (l->names_n < LIST_NAMES) {
		option_finish(c, NBD_REP_ACK, NULL);
		return;
	}
	memcpy(l->after, l->names[l->names_n - 1], sizeof(l->after));
	reply_flush(c, option_list_page);
}

/* ---- STRUCTURED_REPLY ------------------------------------------------------------------------------------------------- */

static void option_structured_reply(struct nbd_conn *c)
{
	if (cursor_left(&c->hs->data) > 0) {
		option_finish(c, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY takes no data");
		return;
	}
	c->structured = true;
	option_finish(c, NBD_REP_ACK, NULL);
}

/* ---- INFO and GO ------------------------------------------------------------------------------------------------------ */

/* Data: le of the name, name, number of information requests, the requests. Checked in full before anything is done. */
static void option_info(struct nbd_conn *c)
{
	struct cursor data = c->hs->data;
	char name[EXPORT_NAME_LEN];
	int r = export_name_take(&data, cursor_be32(&data), name);
	uint32_t infos_n = cursor_be16(&data);

	if (data.failed || cursor_left(&data) != infos_n * sizeof(struct be16)) {
		option_finish(c, NBD_REP_ERR_INVALID, "the option's data is malformed");
		return;
	}
	if (r < 0) {
		option_finish(c, NBD_REP_ERR_UNKNOWN, "no volume can have such a name");
		return;
	}
	c->hs->data = data; /* the information requests */
	export_open(c, name, option_info_opened);
}

static bool info_is_wanted(struct cursor requests, enum nbd_info what)
{
	while (cursor_left(&requests) > 0)
		if (cursor_be16(&requests) == what)
			return true;
	return false;
}

static void info_put(struct nbd_conn *c, enum nbd_info type, const char *text)
{
	uint32_t len = (uint32_t)strlen(text);
	struct be16 wire = to_be16((uint16_t)type);
	uint8_t *p = reply_put(c, NBD_REP_INFO, (uint32_t)sizeof(wire) + len);

	memcpy(p, &wire, sizeof(wire));
	memcpy(p + sizeof(wire), text, len);
}

static void info_put_export(struct nbd_conn *c)
{
	struct nbd_info_export info = {
	    .type = to_be16(NBD_INFO_EXPORT),
	    .size_bytes = to_be64(c->geo.size_bytes),
	    .flags = to_be16(export_flags(c)),
	};

	memcpy(reply_put(c, NBD_REP_INFO, sizeof(info)), &info, sizeof(info));
}

static void info_put_block_size(struct nbd_conn *c)
{
	struct nbd_info_block_size info = {
	    .type = to_be16(NBD_INFO_BLOCK_SIZE),
	    .min = to_be32(c->geo.sector_bytes),
	    .preferred = to_be32(c->geo.physical_bytes),
	    .max = to_be32(c->io_bytes_max),
	};

	memcpy(reply_put(c, NBD_REP_INFO, sizeof(info)), &info, sizeof(info));
}

static void info_put_description(struct nbd_conn *c)
{
	char size[UNITS_TEXT_LEN], text[UNITS_TEXT_LEN + 64];

	units_format_size(c->geo.size_bytes, size);
	snprintf(text, sizeof(text), "%s of %s%s",
		 strchr(c->geo.name, '@') ? "snapshot" : "thin volume", size,
		 c->geo.read_only ? ", read-only" : "");
	info_put(c, NBD_INFO_DESCRIPTION, text);
}

static void option_info_opened(struct nbd_conn *c, int status)
{
	struct cursor wanted = c->hs->data;
	bool go = c->hs->option == NBD_OPT_GO;

	if (status == 0 && go)
		status = transmission_new(c);
	if (status < 0) {
		option_finish(c, nbd_rep_of(status),
			      c->hs->text[0] ? c->hs->text : err_text(status));
		return;
	}
	info_put_export(c);
	if (info_is_wanted(wanted, NBD_INFO_BLOCK_SIZE))
		info_put_block_size(c);
	if (info_is_wanted(wanted, NBD_INFO_NAME))
		info_put(c, NBD_INFO_NAME, c->geo.name);
	if (info_is_wanted(wanted, NBD_INFO_DESCRIPTION))
		info_put_description(c);
	if (!go) {
		option_finish(c, NBD_REP_ACK, NULL);
		return;
	}
	reply_text(c, NBD_REP_ACK, NULL);
	handshake_leave(c);
}

/* ---- EXPORT_NAME: has no way to tell an error but to close ------------------------------------------------------------------ */

static void option_export_name(struct nbd_conn *c)
{
	struct cursor data = c->hs->data;
	char name[EXPORT_NAME_LEN];

	if (export_name_take(&data, (uint32_t)cursor_left(&data), name) < 0)
		conn_shut(c);
	else
		export_open(c, name, option_export_name_opened);
}

static void option_export_name_opened(struct nbd_conn *c, int status)
{
	struct handshake *hs = c->hs;
	struct nbd_export_name_reply reply = {
	    .size_bytes = to_be64(c->geo.size_bytes),
	    .flags = to_be16(export_flags(c)),
	};

	if (status == 0)
		status = transmission_new(c);
	if (status < 0) {
		conn_shut(c);
		return;
	}
	hs->replies_len = (uint32_t)(hs->no_zeroes ? offsetof(struct nbd_export_name_reply, zeroes)
						   : sizeof(reply));
	memcpy(hs->replies, &reply, hs->replies_len);
	handshake_leave(c);
}
