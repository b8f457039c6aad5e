/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/ids.h"

#include <errno.h>
#include <string.h>

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool name_is_valid(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > NAME_LEN_MAX || !is_alnum(name[0]))
		return false;
	for (size_t i = 1; i < len; i++)
		if (!is_alnum(name[i]) && !strchr("._-", name[i]))
			return false;
	return true;
}

int name_split(const char *text, char ret_volume[NAME_LEN_MAX + 1],
	       char ret_snapshot[NAME_LEN_MAX + 1])
{
	const char *at = strchr(text, '@');
	size_t len = at ? (size_t)(at - text) : strlen(text);
	char volume[NAME_LEN_MAX + 1];

	if (len > NAME_LEN_MAX)
		return -EINVAL;
	memcpy(volume, text, len);
	volume[len] = '\0';
	if (!name_is_valid(volume) || (at && !name_is_valid(at + 1)))
		return -EINVAL;
	memcpy(ret_volume, volume, len + 1);
	strcpy(ret_snapshot, at ? at + 1 : ""); /* check-calls: allow - bounded by name_is_valid */
	return 0;
}
