/* SPDX-License-Identifier: Apache-2.0 */
/* private.h - what jobs.c and builtin.c share. */
#ifndef STRATA_METADATA_JOBS_PRIVATE_H
#define STRATA_METADATA_JOBS_PRIVATE_H

#include "metadata/jobs/jobs.h"

struct jobs {
	struct ioe *ioe;
	struct san *san;
	struct list queue, running; /* struct run */
	uint32_t running_n;
	bool closing, nop_busy;
	struct ioe_req nop;
	void (*closed)(void *arg);
	void *closed_arg;
	uint32_t kinds_n;
	struct job_kind kinds[];
};

struct run {
	struct job_run pub;
	struct list link;
	struct san_job_get get;
	struct san_job_update update;
	bool recording;	      /* update is under way */
	bool ended, leave;    /* job_end() was called; ... and the record stays as it is */
	uint64_t recorded_ns; /* when progress was last recorded */
	/* builtin.c */
	struct san_job_step step;
	struct san_check check;
};

struct cancel {
	struct san_job_cancel own, *asked;
	struct jobs *jobs;
};

void run_stop(struct run *r);
void run_gone(struct run *r);

/* False: not a job of the SAN's. */
bool builtin_start(struct run *r);
void builtin_stop(struct run *r);

#endif
