/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - the online consistency check: the SAN's own records among themselves (san_check), then against what the devices say of their slots. It
 * takes the place of the built-in job kind. */
#ifndef STRATA_METADATA_CLUSTER_CHECK_H
#define STRATA_METADATA_CLUSTER_CHECK_H

#include "metadata/cluster/cluster.h"

/* The kind, for jobs_new(). arg of the kind: the cluster, which may be opened later but before a job starts. */
struct job_kind cluster_check_kind(struct cluster *c);

#endif
