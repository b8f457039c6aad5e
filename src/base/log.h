/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - structured lines on stderr: level, message, key=value pairs.
 *
 *   log_info("volume opened", "vol=%s epoch=%" PRIu64, name, epoch);
 *
 * Nothing is logged per I/O. What can repeat in a loop goes through log_limited(), which lets one line a second through per
 * place and says how many it swallowed. */
#ifndef STRATA_BASE_LOG_H
#define STRATA_BASE_LOG_H

#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_line(enum log_level level, const char *msg, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(msg, ...) log_line(LOG_DEBUG, msg, "" __VA_ARGS__)
#define log_info(msg, ...)  log_line(LOG_INFO, msg, "" __VA_ARGS__)
#define log_warn(msg, ...)  log_line(LOG_WARN, msg, "" __VA_ARGS__)
#define log_error(msg, ...) log_line(LOG_ERROR, msg, "" __VA_ARGS__)

struct log_limit {
	uint64_t last_ns, swallowed;
};
#define log_limited(level, now_ns, msg, ...)                  \
	do {                                                  \
		static struct log_limit limit_;               \
		if (log_limit_pass(&limit_, now_ns))          \
			log_line(level, msg, "" __VA_ARGS__); \
	} while (0)
int log_limit_pass(struct log_limit *l, uint64_t now_ns);

void log_set_level(
    enum log_level
	min); /* default LOG_INFO; STRATA_LOG=debug|info|warn|error in the environment is read at first use */
/* Where the time stamps come from: wall-clock nanoseconds. Without one lines carry no time (journald adds its own). */
void log_set_clock(uint64_t (*wall_ns)(void *arg), void *arg);
/* A word before every line that names the process, e.g. "noded[1]"; copied. */
void log_set_name(const char *name);

#endif
