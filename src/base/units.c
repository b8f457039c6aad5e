/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/units.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "src/base/check.h"
#include "src/base/math.h"

static const char suffixes[] = "KMGTPE";

/* Digits with an optional fraction: value = whole + frac / frac_unit. */
static int parse_decimal(const char **text, uint64_t *whole, uint64_t *frac, uint64_t *frac_unit)
{
	const char *p = *text;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	*whole = *frac = 0;
	*frac_unit = 1;
	for (; isdigit((unsigned char)*p); p++)
		if (!mul_ok(*whole, 10, whole) || !add_ok(*whole, (uint64_t)(*p - '0'), whole))
			return -ERANGE;
	if (*p == '.') {
		if (!isdigit((unsigned char)*++p))
			return -EINVAL;
		for (; isdigit((unsigned char)*p); p++) {
			if (*frac_unit >= 1000000)
				return -EINVAL;
			*frac = *frac * 10 + (uint64_t)(*p - '0');
			*frac_unit *= 10;
		}
	}
	*text = p;
	return 0;
}

static int scale(uint64_t whole, uint64_t frac, uint64_t frac_unit, uint64_t unit, uint64_t *ret)
{
	unsigned __int128 part =
	    (unsigned __int128)frac *
	    unit; /* a fraction of a PiB is more than 64 bits before the division */
	uint64_t v;

	if (!mul_ok(whole, unit, &v))
		return -ERANGE;
	if (part % frac_unit)
		return -EINVAL;
	if (!add_ok(v, (uint64_t)(part / frac_unit), &v) || v > INT64_MAX)
		return -ERANGE;
	*ret = v;
	return 0;
}

int units_parse_size(const char *text, uint64_t *ret_bytes)
{
	uint64_t whole, frac, frac_unit, unit = 1;
	const char *s;
	int r = parse_decimal(&text, &whole, &frac, &frac_unit);

	if (r)
		return r;
	if (*text && (s = strchr(suffixes, toupper((unsigned char)*text)))) {
		unit = 1ULL << (10 * (s - suffixes + 1));
		text++;
		if (!strncasecmp(text, "ib", 2))
			text += 2;
		else if (!strncasecmp(text, "b", 1))
			text++;
	} else if (!strcasecmp(text, "b")) {
		text++;
	}
	if (*text)
		return -EINVAL;
	return scale(whole, frac, frac_unit, unit, ret_bytes);
}

void units_format_size(uint64_t bytes, char text[UNITS_TEXT_LEN])
{
	int i = -1;
	uint64_t unit = 1, tenths;

	while (i < (int)sizeof(suffixes) - 2 && bytes / unit >= 1024) {
		unit *= 1024;
		i++;
	}
	if (i < 0) {
		snprintf(text, UNITS_TEXT_LEN, "%llu B", (unsigned long long)bytes);
		return;
	}
	tenths = bytes % unit / (unit / 1024) * 10 / 1024;
	if (tenths)
		snprintf(text, UNITS_TEXT_LEN, "%llu.%llu %ciB", (unsigned long long)(bytes / unit),
			 (unsigned long long)tenths, suffixes[i]);
	else
		snprintf(text, UNITS_TEXT_LEN, "%llu %ciB", (unsigned long long)(bytes / unit),
			 suffixes[i]);
}

/* from the largest to the smallest */
static const struct {
	const char *word;
	uint64_t ns;
} times[] = {{"h", 3600000000000}, {"m", 60000000000}, {"s", 1000000000},
	     {"", 1000000000},	   {"ms", 1000000},    {"us", 1000}};

int units_parse_duration(const char *text, uint64_t *ret_ns)
{
	uint64_t whole, frac, frac_unit;
	int r = parse_decimal(&text, &whole, &frac, &frac_unit);

	if (r)
		return r;
	for (size_t i = 0; i < ARRAY_LEN(times); i++)
		if (!strcmp(text, times[i].word))
			return scale(whole, frac, frac_unit, times[i].ns, ret_ns);
	return -EINVAL;
}

void units_format_duration(uint64_t ns, char text[UNITS_TEXT_LEN])
{
	for (size_t i = 0; i < ARRAY_LEN(times); i++) {
		if (ns % times[i].ns || !ns)
			continue;
		snprintf(text, UNITS_TEXT_LEN, "%llu%s", (unsigned long long)(ns / times[i].ns),
			 times[i].word);
		return;
	}
	snprintf(text, UNITS_TEXT_LEN, "%lluns", (unsigned long long)ns);
}
