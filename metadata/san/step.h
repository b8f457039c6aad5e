/* SPDX-License-Identifier: Apache-2.0 */
/* step.h - one step of a long job of the SAN's own: look in the database for what is left, load the pages concerned, change some of it in one
 * batch together with the job's progress. Private to step.c, delete.c and lose.c. */
#ifndef STRATA_METADATA_SAN_STEP_H
#define STRATA_METADATA_SAN_STEP_H

#include "metadata/san/state.h"

enum {
	STEP_PAGES = 8, /* map pages looked at in one go */
	STEP_CHANGES =
	    128, /* entries or intents changed in one step: others want room in the batch too */
};

struct job_step {
	struct san *s;
	struct san_job_step *r;
	uint32_t id; /* args[0] of the job */
	struct scan *scan;
	struct page_set *set; /* NULL: there is nothing left */
	uint32_t phase;
};

struct job_step *step_of(struct san_req *req);
/* NULL: the request was refused. The scan takes STEP_PAGES pages; it may be set to take up to STEP_CHANGES small records. */
struct job_step *step_begin(struct san *s, struct san_job_step *r, uint32_t kind,
			    enum exec (*exec)(struct san *s, struct san_req *req));
/* In exec: NULL when the job has ended (the request is finished then). */
struct job *step_job(struct san *s, struct san_req *req);
/* The last step: ends the job, in the batch; needs room for its record. */
void step_finish(struct san *s, struct san_req *req, struct job *job);
/* st->set is complete: load it, then exec. */
void step_load(struct job_step *st);

#endif
