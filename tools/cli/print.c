/* SPDX-License-Identifier: Apache-2.0 */
/* print.c - JSON as it is, or tables and fields for people. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/math.h"
#include "src/base/mem.h"
#include "src/base/units.h"
#include "tools/cli/cli.h"

enum { CELL_BYTES = 256, COLUMNS_MAX = 16 };

void print_json(json_t *answer)
{
	json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	printf("\n");
}

void print_change(const struct cli *c, json_t *answer, const char *done)
{
	json_t *job = json_object_get(answer, "job");

	if (c->json)
		print_json(answer);
	else if (json_is_integer(job))
		printf("job %" JSON_INTEGER_FORMAT "\n", json_integer_value(job));
	else
		printf("%s\n", done);
}

static json_t *dig(json_t *object, const char *key)
{
	char part[64];
	const char *dot = strchr(key, '.');
	json_t *whole = json_object_get(object, key);

	if (whole || !dot) /* "p99.9" is the name of a member */
		return whole;
	snprintf(part, sizeof(part), "%.*s", (int)(dot - key), key);
	return dig(json_object_get(object, part), dot + 1);
}

static void cell_list(json_t *list, char cell[CELL_BYTES])
{
	size_t i, used = 0;
	json_t *v;

	cell[0] = '\0';
	json_array_foreach (list, i, v) {
		int n = snprintf(cell + used, CELL_BYTES - used, "%s%s", i ? " " : "",
				 json_is_string(v) ? json_string_value(v) : "?");

		if (n < 0 || (size_t)n >= CELL_BYTES - used)
			return;
		used += (size_t)n;
	}
}

static void cell_number(const struct print_column *col, json_t *v, char cell[CELL_BYTES])
{
	char text[UNITS_TEXT_LEN];

	if (col->kind == PRINT_SIZE) {
		units_format_size((uint64_t)json_integer_value(v), text);
		snprintf(cell, CELL_BYTES, "%s", text);
	} else if (json_is_integer(v)) {
		snprintf(cell, CELL_BYTES, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	} else {
		snprintf(cell, CELL_BYTES, "%.2f", json_number_value(v));
	}
}

static void cell_of(json_t *row, const struct print_column *col, char cell[CELL_BYTES])
{
	json_t *v = dig(row, col->key);

	if (!v || json_is_null(v))
		snprintf(cell, CELL_BYTES, "-");
	else if (json_is_string(v))
		snprintf(cell, CELL_BYTES, "%s", json_string_value(v));
	else if (json_is_boolean(v))
		snprintf(cell, CELL_BYTES, "%s", json_is_true(v) ? "yes" : "no");
	else if (json_is_array(v))
		cell_list(v, cell);
	else
		cell_number(col, v, cell);
	if (!cell[0])
		snprintf(cell, CELL_BYTES, "-");
}

static bool right_aligned(const struct print_column *col)
{
	return col->kind == PRINT_SIZE || col->kind == PRINT_NUMBER;
}

static void print_cell(const struct print_column *col, const char *cell, size_t width, bool last)
{
	if (right_aligned(col))
		printf("%*s%s", (int)width, cell, last ? "" : "  ");
	else if (last)
		printf("%s", cell);
	else
		printf("%-*s  ", (int)width, cell);
}

void print_table(json_t *rows, const struct print_column *columns, size_t columns_n)
{
	size_t width[COLUMNS_MAX], i;
	char cell[CELL_BYTES];
	json_t *row;

	for (size_t k = 0; k < columns_n; k++) {
		width[k] = strlen(columns[k].title);
		json_array_foreach (rows, i, row) {
			cell_of(row, &columns[k], cell);
			width[k] = MAX(width[k], strlen(cell));
		}
	}
	for (size_t k = 0; k < columns_n; k++)
		print_cell(&columns[k], columns[k].title, width[k], k + 1 == columns_n);
	printf("\n");
	json_array_foreach (rows, i, row) {
		for (size_t k = 0; k < columns_n; k++) {
			cell_of(row, &columns[k], cell);
			print_cell(&columns[k], cell, width[k], k + 1 == columns_n);
		}
		printf("\n");
	}
}

/* "CAPACITY" as "capacity"; titles that are not all capitals stay as they are */
static void field_title(const char *title, char text[CELL_BYTES])
{
	size_t i;

	snprintf(text, CELL_BYTES, "%s", title);
	for (i = 0; text[i] && !islower((unsigned char)text[i]); i++)
		;
	for (size_t k = 0; !text[i] && k < i; k++)
		text[k] = (char)tolower((unsigned char)text[k]);
}

void print_fields(json_t *object, const struct print_column *columns, size_t columns_n)
{
	size_t width = 0;
	char title[CELL_BYTES], cell[CELL_BYTES];

	for (size_t k = 0; k < columns_n; k++)
		width = MAX(width, strlen(columns[k].title));
	for (size_t k = 0; k < columns_n; k++) {
		field_title(columns[k].title, title);
		cell_of(object, &columns[k], cell);
		printf("%-*s  %s\n", (int)width, title, cell);
	}
}

int list_command(struct cli *c, const char *path, const struct print_column *columns,
		 size_t columns_n)
{
	json_t *items;
	int r = api_list(c, path, &items);

	if (r)
		return r;
	if (c->json)
		print_json(items);
	else
		print_table(items, columns, columns_n);
	json_decref(items);
	return EXIT_OK;
}

int show_command(struct cli *c, const char *path, const struct print_column *columns,
		 size_t columns_n)
{
	json_t *answer;
	int r = api_call(c, "GET", path, NULL, &answer);

	if (r)
		return r;
	if (c->json)
		print_json(answer);
	else
		print_fields(answer, columns, columns_n);
	json_decref(answer);
	return EXIT_OK;
}
