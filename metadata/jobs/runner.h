/* SPDX-License-Identifier: Apache-2.0 */
/* runner.h - one job being run, as the runner and the built-in kinds see it. Private to metadata/jobs. */
#ifndef STRATA_METADATA_JOBS_RUNNER_H
#define STRATA_METADATA_JOBS_RUNNER_H

#include "metadata/jobs/jobs.h"

enum {
	JOBS_RETRY_NS = 1000 * 1000 * 1000
}; /* after a step that found memory short, or what it needs in use */

struct job_active {
	struct job_run run; /* first: what a kind gets */
	struct list link;
	const struct job_kind *kind;
	/* the record */
	struct san_job_update update;
	bool updating;	  /* it is being written */
	bool ended;	  /* the kind is through; nothing of it is used any more */
	bool has_record;  /* the end is in the record already (steps write it themselves) */
	uint64_t told_ns; /* when progress was last written */
	/* built-in kinds */
	struct san_job_step step;
	struct san_check check;
	struct ioe_req retry;
};

struct jobs {
	struct ioe *ioe;
	struct san *san;
	struct list active;
	uint32_t active_n;
	struct ioe_hook hook; /* look for jobs to start */
	struct ioe_req close_req, again;
	bool held, closing;
	bool looking_again; /* later, when there may be more memory */
	bool stuck;	    /* records cannot be written: nothing is started any more */
	void (*closed)(void *arg);
	void *closed_arg;
	uint32_t kinds_n;
	struct job_kind kinds[];
};

static inline struct job_active *job_active_of(struct job_run *run)
{
	return container_of(run, struct job_active, run);
}

/* The built-in kinds. */
extern const struct job_kind job_volume_delete, job_device_lost, job_check;

/* The record says that the job has ended; nothing more is to be written. */
void job_end_recorded(struct job_run *run);

#endif
