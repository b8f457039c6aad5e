/* SPDX-License-Identifier: Apache-2.0 */
/* strata-sim - whole clusters in simulated worlds, one per seed. docs/simulation.md says how to read what it prints.
 *
 * Each seed runs in a process of its own, several at once; the same seed gives the same run, whatever else is going on. Exit 0: all passed.
 * 1: one failed, the rest is not begun. 2: used wrongly. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "src/base/check.h"
#include "tests/sim/run.h"

enum { JOBS_MAX = 64, OPS_MIN = 500, SEED_SECS_MAX = 120 };

struct job {
	pid_t pid; /* 0: none */
	uint64_t seed;
	struct result *result;
};

static struct {
	uint64_t first, seeds_n, secs;
	uint32_t jobs_n;
	enum run_talk talk;
	bool hash;
} arg = {.first = 1, .seeds_n = 100, .jobs_n = 1};

static struct {
	uint64_t begun, passed, counted, failed, ops, errors, events, virtual_ns, starts;
	uint64_t faults[FAULTS_N], runs[FAULTS_N];
} sum;

static double now_secs(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- one run ---------------------------------------------------------------------------------------------------------- */

static void say_how_to_repeat(uint64_t seed)
{
	char commit[64] = "unknown";
	FILE *p = popen("git describe --always --dirty --abbrev=12 2>/dev/null", "r");

	if (p && fgets(commit, sizeof(commit), p))
		commit[strcspn(commit, "\n")] = '\0';
	if (p)
		pclose(p);
	printf("  commit %s; repeat it with:  make sim SEEDS=1 SEED=%" PRIu64 " VERBOSE=1\n",
	       commit, seed);
}

/* Judges how it ended. */
static bool run_passed(uint64_t seed, int status, const struct result *r)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && r->ok)
		return true;
	printf("seed %" PRIu64 " FAILED: ", seed);
	if (r->text[0])
		printf("%s\n", r->text);
	else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF)
		printf("it takes more than %d s of a processor\n", SEED_SECS_MAX);
	else if (WIFSIGNALED(status))
		printf("the program died of signal %d (%s)\n", WTERMSIG(status),
		       strsignal(WTERMSIG(status)));
	else
		printf("exit %d\n", WEXITSTATUS(status));
	say_how_to_repeat(seed);
	return false;
}

static void account(const struct result *r)
{
	uint64_t faults_n = 0;

	sum.passed++;
	sum.ops += r->ops;
	sum.errors += r->errors;
	sum.events += r->events;
	sum.virtual_ns += r->virtual_ns;
	sum.starts += r->process_starts;
	for (enum fault f = 0; f < FAULTS_N; f++) {
		sum.faults[f] += r->faults[f];
		sum.runs[f] += r->faults[f] > 0;
		faults_n += r->faults[f];
	}
	sum.counted += r->ops >= OPS_MIN && faults_n > 0;
}

/* ---- all of them ------------------------------------------------------------------------------------------------------ */

static struct job *job_find(struct job *jobs, pid_t pid)
{
	for (uint32_t i = 0; i < arg.jobs_n; i++)
		if (jobs[i].pid == pid)
			return &jobs[i];
	return NULL;
}

static void job_ended(struct job *j, int status)
{
	j->pid = 0;
	if (run_passed(j->seed, status, j->result))
		account(j->result);
	else
		sum.failed++;
	if (arg.hash && j->result->ok)
		printf("seed %" PRIu64 " hash %016" PRIx64 "\n", j->seed, j->result->hash);
}

static void run_all(void)
{
	double end = now_secs() + (double)arg.secs;
	struct result *results = mmap(NULL, sizeof(*results) * JOBS_MAX, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct job jobs[JOBS_MAX] = {0};
	uint32_t running = 0;

	check(results != MAP_FAILED);
	for (;;) {
		struct job *j;
		int status;
		pid_t pid;

		while (running < arg.jobs_n && sum.begun < arg.seeds_n && !sum.failed &&
		       (!arg.secs || now_secs() < end)) {
			j = job_find(jobs, 0);
			j->seed = arg.first + sum.begun++;
			j->result = &results[j - jobs];
			j->pid = run_begin(j->seed, arg.talk,
					   arg.talk == RUN_SILENT ? SEED_SECS_MAX : 0, j->result);
			running++;
		}
		if (running == 0)
			break;
		pid = wait(&status);
		if (pid < 0 && errno == EINTR)
			continue;
		j = job_find(jobs, pid);
		check(pid > 0 && j);
		job_ended(j, status);
		running--;
	}
	munmap(results, sizeof(*results) * JOBS_MAX);
}

static void print_sum(double secs)
{
	printf("seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " passed, %" PRIu64 " failed, %" PRIu64
	       " count (%d requests and a fault at least)\n",
	       arg.first, arg.first + sum.begun - 1, sum.passed, sum.failed, sum.counted, OPS_MIN);
	printf("  %" PRIu64 " client requests, %" PRIu64 " of them answered with an error; %" PRIu64
	       " process starts; %.0f s simulated; %" PRIu64 " events\n",
	       sum.ops, sum.errors, sum.starts, (double)sum.virtual_ns / 1e9, sum.events);
	printf("  %.1f s, %.1f seeds/s, %.0f events/s\n", secs, (double)sum.passed / secs,
	       (double)sum.events / secs);
	for (enum fault f = 0; f < FAULTS_N; f++)
		printf("  %10" PRIu64 "  in %7" PRIu64 " runs  %s\n", sum.faults[f], sum.runs[f],
		       fault_name(f));
}

/* ---- options ---------------------------------------------------------------------------------------------------------- */

static const char help[] =
    "usage: strata-sim [--seed FIRST] [--seeds N] [--jobs N] [--secs N] [--verbose|--trace] "
    "[--hash]\n"
    "  --seed FIRST  the first seed; fresh: one that nobody ran before (from the clock)\n"
    "  --seeds N     how many, one after the other; default 100\n"
    "  --jobs N      so many at once; default 1\n"
    "  --secs N      begin no further one after that time\n"
    "  --verbose     say what happens     --trace  and every event\n"
    "  --hash        print each run's hash: equal for equal runs\n";

static bool parse(int argc, char **argv)
{
	static const struct option options[] = {
	    {"seed", required_argument, NULL, 's'}, {"seeds", required_argument, NULL, 'n'},
	    {"jobs", required_argument, NULL, 'j'}, {"secs", required_argument, NULL, 't'},
	    {"verbose", no_argument, NULL, 'v'},    {"trace", no_argument, NULL, 'T'},
	    {"hash", no_argument, NULL, 'h'},	    {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			arg.first = strcmp(optarg, "fresh") == 0 ? (uint64_t)time(NULL) * 1000000
								 : strtoull(optarg, NULL, 0);
			break;
		case 'n':
			arg.seeds_n = strtoull(optarg, NULL, 0);
			break;
		case 'j':
			arg.jobs_n = (uint32_t)strtoul(optarg, NULL, 0);
			break;
		case 't':
			arg.secs = strtoull(optarg, NULL, 0);
			break;
		case 'v':
			arg.talk = RUN_TELL;
			break;
		case 'T':
			arg.talk = RUN_TRACE;
			break;
		case 'h':
			arg.hash = true;
			break;
		default:
			return false;
		}
	}
	return optind == argc && arg.jobs_n >= 1 && arg.jobs_n <= JOBS_MAX && arg.seeds_n > 0;
}

/* A run touches much memory for a short time; what that costs most is the faults of its pages, so they are large. */
static void use_large_pages(char **argv)
{
#ifndef STRATA_ASAN
	if (getenv("GLIBC_TUNABLES"))
		return;
	setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=8388608", 1);
	execv("/proc/self/exe", argv); /* which reads them before main() */
#else
	(void)argv;
#endif
}

int main(int argc, char **argv)
{
	double start = now_secs();

	use_large_pages(argv);
	if (!parse(argc, argv)) {
		fputs(help, stderr);
		return 2;
	}
	run_all();
	print_sum(now_secs() - start);
	return sum.failed ? 1 : 0;
}
