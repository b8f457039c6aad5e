/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.h - numbers as Prometheus' text format (version 0.0.4). */
#ifndef STRATA_METADATA_API_METRICS_H
#define STRATA_METADATA_API_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct metric_label {
	const char *name, *value;
};

struct metric {
	const char *name, *help; /* help: that of the first of a name counts; so does its kind */
	bool gauge;		 /* else a counter */
	const struct metric_label *labels;
	uint32_t labels_n;
	double value;
};

/* In any order; those of one name come together, as the format wants. What names may not have becomes '_'. The text is freed by mem_free(). NULL:
 * memory is short. */
char *metrics_render(const struct metric *list, size_t n);

#endif
