/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/err.h"

#include <string.h>

struct err_row {
	const char *name, *text;
	int wire;
};

static const struct err_row rows[] = {
#define X(name, wire, text) {"E_" #name, text, wire},
    ERR_TABLE(X)
#undef X
};

static const struct err_row *row_of(int err)
{
	if (err >= 0 || -err <= ERR_FIRST_ || -err >= ERR_END_)
		return NULL;
	return &rows[-err - ERR_FIRST_ - 1];
}

const char *err_text(int err)
{
	const struct err_row *row = row_of(err);

	if (row)
		return row->text;
	return err == 0 ? "success" : strerror(err < 0 ? -err : err);
}

const char *err_name(int err)
{
	const struct err_row *row = row_of(err);
	const char *name;

	if (row)
		return row->name;
	if (err == 0)
		return "OK";
	name = strerrorname_np(err < 0 ? -err : err);
	return name ? name : "EUNKNOWN";
}

int err_by_name(const char *name)
{
	enum { ERRNO_MAX = 133 }; /* EHWPOISON, the highest that Linux has */

	if (!*name || !strcmp(name, "OK"))
		return 0;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (!strcmp(name, rows[i].name))
			return -(ERR_FIRST_ + 1 + (int)i);
	for (int e = 1; e <= ERRNO_MAX; e++) {
		const char *known = strerrorname_np(e);

		if (known && !strcmp(name, known))
			return -e;
	}
	return -EPROTO;
}

int err_errno(int err)
{
	const struct err_row *row = row_of(err);

	return row ? row->wire : -err;
}
