/* SPDX-License-Identifier: Apache-2.0 */
/* jobs.h - runs the long work whose records the SAN keeps (san.h): deletion of volumes, loss of devices, checks, and kinds of other modules.
 *
 *   queued -> running -> done | failed | cancelled
 * At most JOBS_RUNNING_MAX run at once, in the order of their ids; the others wait. A job that a restart interrupted is started again and goes on
 * from what the database says: every step is one commit with the job's progress in it, and repeating a step is harmless.
 *
 * Nothing is started while jobs are held, as they are in the beginning: a job commits, and a server that does not know yet whether its database went
 * back in time must not (the commits of the jobs would hide it).
 *
 * The composition root passes san_callbacks.on_job on to jobs_wake(). */
#ifndef STRATA_METADATA_JOBS_JOBS_H
#define STRATA_METADATA_JOBS_JOBS_H

#include "metadata/san/san.h"

struct jobs;
struct job_run;

enum { JOBS_RUNNING_MAX = 4 };

/* A kind of job. `start` begins the work and returns; from then on the kind calls job_progress() now and then and job_end() exactly once, both from
 * the loop. `stop` (may be NULL: the job cannot be interrupted, only waited for) asks it to call job_end() soon: with -ECANCELED when the job was
 * cancelled, or leave the record as it is when the process shuts down (job_end does the right thing: see `stopping`). */
struct job_kind {
	uint32_t kind;	  /* from SAN_JOB_OTHER on */
	const char *name; /* as people see it, e.g. "device_drain" */
	void (*start)(struct job_run *run, void *arg);
	void (*stop)(struct job_run *run, void *arg);
	void *arg;
	bool alone; /* one at a time; the next one waits */
};

/* One job being run. */
struct job_run {
	struct san_job job; /* as it was started; done_n and total_n as last told */
	struct jobs *jobs;
	void *priv;    /* the kind's */
	bool stopping; /* stop was called */
};

/* kinds: those of other modules, kinds_n of them, copied. One with the number of a built-in kind replaces it (a check that also asks the devices). */
int jobs_new(struct ioe *e, struct san *s, const struct job_kind *kinds, uint32_t kinds_n,
	     struct jobs **ret_jobs);
void jobs_wake(struct jobs *j, uint32_t job);
/* held: nothing is started, and a job that ends with -ECANCELED though nobody cancelled it leaves its record, as in a shutdown. */
void jobs_hold(struct jobs *j, bool held);
/* Stops what runs without ending it (it goes on after the next start), then `done`. Call it before san_close. */
void jobs_close(struct jobs *j, void (*done)(void *arg), void *arg);
/* Simulation, after the process was killed: frees the memory and calls nothing. */
void jobs_abandon(struct jobs *j);

/* Asks to cancel: as san_job_cancel, and tells the running job. */
void jobs_cancel(struct jobs *j, struct san_job_cancel *r);

/* "volume_delete", "device_lost", "check", or that of another module's kind; "unknown" for a kind nobody has. */
const char *jobs_kind_name(const struct jobs *j, uint32_t kind);
/* "queued", "running", "done", "failed", "cancelled" */
const char *jobs_state_name(enum san_job_state state);

/* For kinds. text: the result, or why it failed (may be NULL). */
void job_progress(struct job_run *run, uint64_t done_n, uint64_t total_n);
void job_end(struct job_run *run, int status, const char *text);

#endif
