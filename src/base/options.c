/* SPDX-License-Identifier: MIT */
/*
 * options.c - the arguments of public functions, checked in one place.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* NSIG */
#endif
#include "base/options.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>

#include "base/status.h"
#include "base/words.h"

#define IDLE 10.0    /* seconds until an idle worker ends, by default */
#define HEARTBEAT 10.0      /* seconds until a silent worker is lost, too */
#define LEAST_HEARTBEAT 0.1

enum { MOST_RATE = 1000000 };  /* items that may begin in an interval: their
                                  instants are kept */

enum { CALLS = 16 };  /* that a pool of a broker has there at a time, by
                         default */

/* -------------------------------------------------------------------- rows */

/* Rows for a field of the struct 'in'.  The type has to be that of the field.
   ANY: a whole number from 1 on. */
#define SECONDS(in, name) { #name, offsetof(in, name), RS_OPTION_SECONDS, \
                            0, 0, "a positive number of seconds" }
#define DELAY(in, name) { #name, offsetof(in, name), RS_OPTION_DELAY, \
                          0, 0, "a number of seconds from 0 on" }
#define FACTOR(in, name) { #name, offsetof(in, name), RS_OPTION_FACTOR, \
                           1, 0, "a number from 1 on" }
#define NUMBER(in, name, type, least, most) \
  { #name, offsetof(in, name), RS_OPTION_##type, least, most, NULL }
#define ANY(in, name, type) NUMBER(in, name, type, 1, INT64_MAX)
#define FLAG(in, name) { #name, offsetof(in, name), RS_OPTION_FLAG, \
                         0, 1, "true or false" }
#define END { NULL, 0, RS_OPTION_FLAG, 0, 0, NULL }

/* Numbers below twice RS_RETRY_LOST are good, since each bit has a
   meaning. */
#define CALL_LIMITS(in) \
  SECONDS(in, timeout), \
  SECONDS(in, deadline), \
  NUMBER(in, retries, UNSIGNED, 0, UINT_MAX), \
  { "retry_on", offsetof(in, retry_on), RS_OPTION_UNSIGNED, 1, \
    RS_RETRY_ALL | RS_RETRY_LOST, "a sum of flags of RS_RETRY_" }, \
  NUMBER(in, priority, INT, -RS_PRIORITY_MAX, RS_PRIORITY_MAX), \
  DELAY(in, retry_delay), \
  FACTOR(in, backoff), \
  SECONDS(in, max_delay), \
  END

const rs_option rs_call_limits[] = { CALL_LIMITS(rs_job_options) };

const rs_option rs_batch_limits[] = { CALL_LIMITS(rs_batch_options) };

const rs_option rs_job_numbers[] = {
  DELAY(rs_job_options, start_after),
  END
};

const rs_option rs_batch_numbers[] = {
  NUMBER(rs_batch_options, limit, UNSIGNED, 1, UINT_MAX),
  ANY(rs_batch_options, chunk, SIZE),
  ANY(rs_batch_options, total, SIZE),
  ANY(rs_batch_options, max_failures, SIZE),
  NUMBER(rs_batch_options, rate, UNSIGNED, 1, MOST_RATE),
  SECONDS(rs_batch_options, per),
  NUMBER(rs_batch_options, key_limit, UNSIGNED, 1, UINT_MAX),
  END
};

const rs_option rs_runspace_limits[] = {
  ANY(rs_pool_options, memory, BYTES),
  ANY(rs_pool_options, instructions, LARGE),
  ANY(rs_pool_options, max_tasks, LARGE),
  ANY(rs_pool_options, max_bytes, BYTES),
  SECONDS(rs_pool_options, cpu_time),
  NUMBER(rs_pool_options, nice, INT, 0, 19),
  END
};

const rs_option rs_pool_numbers[] = {
  NUMBER(rs_pool_options, min, UNSIGNED, 1, RS_WORKERS_MAX),
  NUMBER(rs_pool_options, max, UNSIGNED, 1, RS_WORKERS_MAX),
  FLAG(rs_pool_options, pin),
  END
};

const rs_option rs_queue_limits[] = {
  { "jobs", offsetof(rs_pool_options, queue_jobs), RS_OPTION_SIZE,
    1, INT64_MAX, NULL },
  { "bytes", offsetof(rs_pool_options, queue_bytes), RS_OPTION_BYTES,
    1, INT64_MAX, NULL },
  END
};

bool
rs_option_takes (const rs_option *o, rs_option_value v)
{
  switch (o->type) {
    case RS_OPTION_SECONDS:
      return v.seconds > 0;
    case RS_OPTION_DELAY:
    case RS_OPTION_FACTOR:
      return v.seconds >= (double) o->least && v.seconds < INFINITY;
    default:
      return v.n >= o->least && v.n <= o->most;
  }
}

void
rs_option_expect (const rs_option *o, rs_option_value v,
                  char text[RS_OPTION_TEXT])
{
  if (o->expected != NULL)
    snprintf(text, RS_OPTION_TEXT, "%s", o->expected);
  /* Bounds that only the type of the field sets say nothing to most. */
  else if (o->most < UINT_MAX || v.n > o->most)
    snprintf(text, RS_OPTION_TEXT, "an integer from %" PRId64 " to %" PRId64,
             o->least, o->most);
  else
    snprintf(text, RS_OPTION_TEXT, "a %s integer",
             o->least > 0 ? "positive" : "non-negative");
}

static int64_t
clip (uint64_t n)
{
  return n < INT64_MAX ? (int64_t) n : INT64_MAX;
}

rs_option_value
rs_option_get (const rs_option *o, const void *options)
{
  const void *const field = (const char *) options + o->at;
  switch (o->type) {
    case RS_OPTION_SECONDS:
    case RS_OPTION_DELAY:
    case RS_OPTION_FACTOR:
      return (rs_option_value) { .seconds = *(const double *) field };
    case RS_OPTION_INT:
      return (rs_option_value) { .n = *(const int *) field };
    case RS_OPTION_UNSIGNED:
      return (rs_option_value) { .n = *(const unsigned *) field };
    case RS_OPTION_LARGE:
      return (rs_option_value) { .n = clip(*(const uint64_t *) field) };
    case RS_OPTION_FLAG:
      return (rs_option_value) { .n = *(const bool *) field };
    default:
      return (rs_option_value) { .n = clip(*(const size_t *) field) };
  }
}

void
rs_option_set (const rs_option *o, void *options, rs_option_value v)
{
  void *const field = (char *) options + o->at;
  switch (o->type) {
    case RS_OPTION_SECONDS:
    case RS_OPTION_DELAY:
    case RS_OPTION_FACTOR:
      *(double *) field = v.seconds;
      break;
    case RS_OPTION_INT:
      *(int *) field = (int) v.n;
      break;
    case RS_OPTION_UNSIGNED:
      *(unsigned *) field = (unsigned) v.n;
      break;
    case RS_OPTION_LARGE:
      *(uint64_t *) field = (uint64_t) v.n;
      break;
    case RS_OPTION_FLAG:
      *(bool *) field = v.n != 0;
      break;
    default:
      *(size_t *) field = (uint64_t) v.n < SIZE_MAX ? (size_t) v.n : SIZE_MAX;
      break;
  }
}

/* Check the fields that have a row.  0 is the default of each. */
static int
check_rows (const rs_option *o, const void *options, rs_error *err)
{
  char text[RS_OPTION_TEXT];
  for (; o->name != NULL; o++) {
    const rs_option_value v = rs_option_get(o, options);
    const double value = rs_option_is_double(o) ? v.seconds : (double) v.n;
    if (value == 0 || rs_option_takes(o, v))
      continue;
    rs_option_expect(o, v, text);
    return rs_fail(err, RS_EINVAL, "%s (%.15g) is not %s%s", o->name, value,
                   text, o->type == RS_OPTION_SECONDS || o->least > 0
                         ? ", nor 0, the default" : "");
  }
  return RS_OK;
}

void
rs_batch_limits_get (const rs_batch_options *options, rs_job_options *out)
{
  for (int i = 0; rs_batch_limits[i].name != NULL; i++)
    rs_option_set(&rs_call_limits[i], out,
                  rs_option_get(&rs_batch_limits[i], options));
}

/* ------------------------------------------------------------------ checks */

int
rs_fail_null (rs_error *err, const char *name)
{
  return rs_fail(err, RS_EINVAL, "%s is NULL, and is needed", name);
}

int
rs_check_wait (double *seconds, rs_error *err)
{
  if (isnan(*seconds))
    return rs_fail(err, RS_EINVAL, "timeout (%g) is no time; RS_FOREVER waits "
                                   "without limit", *seconds);
  if (*seconds < 0 && *seconds != RS_FOREVER)
    *seconds = 0;
  else if (isinf(*seconds))
    *seconds = RS_FOREVER;
  return RS_OK;
}

int
rs_check_values (lua_State *L, int n, rs_error *err)
{
  if (L == NULL)
    return rs_fail_null(err, "L");
  if (n < 0)
    return rs_fail(err, RS_EINVAL, "%d values: a number from 0 on is needed",
                   n);
  if (n > lua_gettop(L))
    return rs_fail(err, RS_EINVAL, "%d values are not on the stack, which has "
                                   "%d: push them first", n, lua_gettop(L));
  return RS_OK;
}

/* The first control character of a text, or NULL.  Control characters are
   those of ASCII, and U+0080 to U+009F, which are C2 80 to C2 9F in UTF-8. */
static const unsigned char *
find_control (const char *text)
{
  const unsigned char *s = (const unsigned char *) text;
  for (; *s != '\0'; s++)
    if (*s < 0x20 || *s == 0x7f || (s[0] == 0xc2 && s[1] >= 0x80
                                    && s[1] < 0xa0))
      return s;
  return NULL;
}

int
rs_check_name (const char *name, rs_error *err)
{
  const unsigned char *const at = name != NULL ? find_control(name) : NULL;
  if (at == NULL)
    return RS_OK;
  return rs_fail(err, RS_EINVAL, "name has a control character (\\%d) at byte "
                                 "%zu: it is shown on terminals, so take "
                                 "another one",
                 *at == 0xc2 ? at[1] : *at,
                 (size_t) (at - (const unsigned char *) name) + 1);
}

/* ------------------------------------------------------------------- sizes */

/*
 * Copy the options at 'given', which begin with their size, to the 'full'
 * bytes at 'out'.  Bytes beyond these are refused unless they are zero: zero
 * asks for nothing.
 */
static int
read_sized (const void *given, void *out, size_t full, const char *what,
            rs_error *err)
{
  const unsigned char *const bytes = given;
  size_t size;
  memcpy(&size, given, sizeof size);
  if (size == 0)
    size = full;
  if (size < sizeof size || size > 65536)
    return rs_fail(err, RS_EINVAL, "size (%zu) is not that of %s: 0, or "
                                   "sizeof (%s), is needed", size, what, what);
  for (size_t i = full; i < size; i++)
    if (bytes[i] != 0)
      return rs_fail(err, RS_EINVAL, "size (%zu) of %s: version %s of the "
                                     "library knows %zu bytes, and what is "
                                     "behind them is not zero", size, what,
                     RS_VERSION, full);
  memset(out, 0, full);
  memcpy(out, given, size < full ? size : full);
  memcpy(out, &full, sizeof full);
  return RS_OK;
}

/* ---------------------------------------------- what bounds a job, a batch */

/* Check what jobs and batches have beside numbers. */
static int
check_work (const char *name, unsigned listen, rs_error *err)
{
  const unsigned unknown = 0xf800;  /* bits of 'listen' that mean nothing */
  if (rs_check_name(name, err) != RS_OK)
    return RS_EINVAL;
  if ((listen & unknown) != 0)
    return rs_fail(err, RS_EINVAL, "listen (0x%x) has other bits than 1u << "
                                   "stream, RS_LISTEN_ and those from "
                                   "RS_LISTEN_OWN on", listen);
  return RS_OK;
}

/* Check that what has to do with attempts and time goes together. */
static int
check_delays (double deadline, double start_after, double retry_delay,
              double max_delay, rs_error *err)
{
  if (deadline > 0 && start_after >= deadline)
    return rs_fail(err, RS_EINVAL, "start_after (%.15g) is not below deadline "
                                   "(%.15g): the job could never start",
                   start_after, deadline);
  if (max_delay > 0 && max_delay < retry_delay)
    return rs_fail(err, RS_EINVAL, "max_delay (%.15g) is below retry_delay "
                                   "(%.15g), which it would cut: give only "
                                   "one of them", max_delay, retry_delay);
  return RS_OK;
}

const char *const rs_no_globals[1] = { NULL };

const rs_job_options *
rs_check_job_options (const rs_job_options *given, rs_job_options *room,
                      rs_error *err)
{
  static const rs_job_options defaults;
  if (given == NULL)
    return &defaults;
  if (given->size != 0 && given->size != sizeof *given) {
    if (read_sized(given, room, sizeof *room, "rs_job_options", err) != RS_OK)
      return NULL;
    given = room;
  }
  return check_rows(rs_call_limits, given, err) == RS_OK
         && check_rows(rs_job_numbers, given, err) == RS_OK
         && check_delays(given->deadline, given->start_after,
                         given->retry_delay, given->max_delay, err) == RS_OK
         && check_work(given->name, given->listen, err) == RS_OK ? given
                                                                 : NULL;
}

const rs_batch_options *
rs_check_batch_options (const rs_batch_options *given, rs_batch_options *room,
                        rs_error *err)
{
  static const rs_batch_options defaults;
  const unsigned known = RS_BATCH_RECORDS | RS_BATCH_CONTINUE | RS_BATCH_EAGER
                       | RS_BATCH_CANCEL;
  if (given == NULL)
    return &defaults;
  if (read_sized(given, room, sizeof *room, "rs_batch_options", err) != RS_OK)
    return NULL;
  if (check_rows(rs_batch_limits, room, err) != RS_OK
      || check_rows(rs_batch_numbers, room, err) != RS_OK
      || check_delays(0, 0, room->retry_delay, room->max_delay, err) != RS_OK
      || check_work(room->name, room->listen, err) != RS_OK)
    return NULL;
  if ((room->flags & ~known) != 0) {
    rs_fail(err, RS_EINVAL, "flags (0x%x) has other bits than RS_BATCH_RECORDS"
                            ", RS_BATCH_CONTINUE, RS_BATCH_EAGER and "
                            "RS_BATCH_CANCEL", room->flags);
    return NULL;
  }
  if ((room->rate > 0) != (room->per > 0)) {
    rs_fail(err, RS_EINVAL, "rate (%u) and per (%.15g) go together: so many "
                            "items begin within so many seconds", room->rate,
            room->per);
    return NULL;
  }
  if ((room->rate > 0 || room->key_limit > 0) && room->chunk > 1) {
    rs_fail(err, RS_EINVAL, "chunk (%zu) is not 1: with %s each item waits "
                            "for itself", room->chunk,
            room->rate > 0 ? "rate" : "key_limit");
    return NULL;
  }
  return room;
}

/* ------------------------------------------------------------------- pools */

/* Check the signal that stops jobs: a worker may leave it unblocked, and no
   program needs it for its own end. */
static int
check_signal (int number, rs_error *err)
{
  static const int taken[] = {
    SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT,
    SIGSYS, SIGPROF
  };
  if (number == 0 || number == RS_NO_SIGNAL)
    return RS_OK;
  bool bad = number < 0 || number >= NSIG;
  for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
    bad |= number == taken[i];
  if (number > 31 && number < SIGRTMIN)  /* a signal of the C library? */
    bad = true;
  return bad ? rs_fail(err, RS_EINVAL, "signal (%d) cannot be used to stop "
                                       "jobs; SIGURG (0), SIGUSR1 (%d) and "
                                       "those from SIGRTMIN on can, and "
                                       "RS_NO_SIGNAL (%d) is none", number,
                       SIGUSR1, RS_NO_SIGNAL)
             : RS_OK;
}

/* Check the words of an option; NULL: it is not given. */
static int
check_words (const char *const *words, const char *name, rs_error *err)
{
  if (words != NULL && (words[0] == NULL || words[0][0] == '\0'))
    return rs_fail(err, RS_EINVAL, "%s has no first word: a program is "
                                   "needed", name);
  return RS_OK;
}

/* Check the hosts, and let 'min' and 'max' be as many workers as they name,
   unless they are given. */
static int
check_hosts (rs_pool_options *o, rs_error *err)
{
  rs_host_name host;
  uint64_t sum = 0;
  bool bounded = true;
  if (o->hosts[0] == NULL)
    return rs_fail(err, RS_EINVAL, "hosts is empty: names of hosts are "
                                   "needed");
  for (size_t i = 0; o->hosts[i] != NULL; i++) {
    if (rs_host_read(o->hosts[i], &host, err) != RS_OK)
      return RS_EINVAL;
    bounded = bounded && host.workers > 0;
    sum += host.workers > 0 ? host.workers : 1;
  }
  if (sum > RS_WORKERS_MAX)
    return rs_fail(err, RS_EINVAL, "hosts has %" PRIu64 " workers; %d are the "
                                   "most", sum, RS_WORKERS_MAX);
  if (bounded && o->max > sum)
    return rs_fail(err, RS_EINVAL, "max (%u) is more than the %" PRIu64
                                   " workers that hosts has", o->max, sum);
  if (o->max == 0)
    o->max = o->min > sum ? o->min : (unsigned) sum;
  if (o->min == 0)
    o->min = o->max;
  return bounded && o->max > sum
       ? rs_fail(err, RS_EINVAL, "min (%u) is more than the %" PRIu64
                                 " workers that hosts has", o->min, sum)
       : RS_OK;
}

/* Check the seconds after which a silent worker is lost. */
static int
check_heartbeat (rs_pool_options *o, rs_error *err)
{
  const double s = o->heartbeat;
  if (s != 0 && s != RS_FOREVER && !(s >= LEAST_HEARTBEAT && s < INFINITY))
    return rs_fail(err, RS_EINVAL, "heartbeat (%g) is no time for it: seconds "
                                   "from %g on, or RS_FOREVER, are needed", s,
                   LEAST_HEARTBEAT);
  if (s != 0 && o->isolation != RS_ISOLATION_PROCESS && o->command == NULL
      && o->hosts == NULL)
    return rs_fail(err, RS_EINVAL, "heartbeat (%g) is for worker processes: "
                                   "give RS_ISOLATION_PROCESS, or leave it "
                                   "out", s);
  if (s == 0)
    o->heartbeat = HEARTBEAT;
  return RS_OK;
}

static bool
is_queue_name (const char *name)
{
  return name[0] != '\0' && strlen(name) <= RS_QUEUE_NAME_MAX
      && find_control(name) == NULL;
}

/* Check the broker, and what belongs to it. */
static int
check_broker (rs_pool_options *o, rs_error *err)
{
  const char *const other = o->hosts != NULL ? "hosts"
                          : o->command != NULL ? "command"
                          : o->runspace != NULL ? "runspace"
                          : o->isolation == RS_ISOLATION_PROCESS
                          ? "RS_ISOLATION_PROCESS" : NULL;
  if (o->broker == NULL && (o->broker_queue != NULL || o->key != NULL))
    return rs_fail(err, RS_EINVAL, "%s is of a broker: give broker, or leave "
                                   "it out", o->key != NULL ? "key"
                                                            : "broker_queue");
  if (o->broker == NULL)
    return RS_OK;
  if (other != NULL)
    return rs_fail(err, RS_EINVAL, "%s and broker are given, and each says "
                                   "where workers are: leave one of them out",
                   other);
  if (o->broker_queue == NULL)
    return rs_fail(err, RS_EINVAL, "broker is given without a queue: "
                                   "broker_queue is needed");
  if (!is_queue_name(o->broker_queue))
    return rs_fail(err, RS_EINVAL, "broker_queue is no name: 1 to %d bytes "
                                   "without control characters are needed",
                   RS_QUEUE_NAME_MAX);
  if (o->max == 0)
    o->max = o->min > CALLS ? o->min : CALLS;
  return RS_OK;
}

/* Check where the workers are. */
static int
check_reach (rs_pool_options *o, rs_error *err)
{
  if (o->isolation < RS_ISOLATION_THREAD
      || o->isolation > RS_ISOLATION_SERIAL)
    return rs_fail(err, RS_EINVAL, "isolation (%d) is none of "
                                   "RS_ISOLATION_THREAD, "
                                   "RS_ISOLATION_PROCESS and "
                                   "RS_ISOLATION_SERIAL", o->isolation);
  if (o->isolation == RS_ISOLATION_SERIAL
      && (o->hosts != NULL || o->command != NULL || o->broker != NULL))
    return rs_fail(err, RS_EINVAL, "%s and RS_ISOLATION_SERIAL are given, and "
                                   "each says where jobs run: leave one of "
                                   "them out",
                   o->hosts != NULL ? "hosts"
                   : o->command != NULL ? "command" : "broker");
  if (o->runspace != NULL && o->runspace[0] == '\0')
    return rs_fail(err, RS_EINVAL, "runspace is empty: the path of a program "
                                   "is needed, or NULL, the default");
  if (check_words(o->command, "command", err) != RS_OK
      || check_words(o->ssh, "ssh", err) != RS_OK)
    return RS_EINVAL;
  if (o->command != NULL && o->hosts != NULL)
    return rs_fail(err, RS_EINVAL, "command and hosts are given: hosts are "
                                   "reached by ssh, whose words 'ssh' has; "
                                   "leave one of them out");
  if (o->command != NULL && o->runspace != NULL)
    return rs_fail(err, RS_EINVAL, "runspace (%.100s) is not needed beside "
                                   "command, whose words name the program: "
                                   "leave it out", o->runspace);
  if (o->runspace != NULL && o->isolation != RS_ISOLATION_PROCESS
      && o->hosts == NULL)
    return rs_fail(err, RS_EINVAL, "runspace (%.100s) is the program of child "
                                   "processes: give RS_ISOLATION_PROCESS, or "
                                   "leave it out", o->runspace);
  if (o->ssh != NULL && o->hosts == NULL)
    return rs_fail(err, RS_EINVAL, "ssh is what reaches hosts: give hosts, "
                                   "or leave it out");
  if (check_heartbeat(o, err) != RS_OK || check_broker(o, err) != RS_OK)
    return RS_EINVAL;
  return o->hosts != NULL ? check_hosts(o, err) : RS_OK;
}

/* Check a list of paths, or of variables; NULL: it is not given. */
static int
check_list (const char *const *list, const char *name, bool variables,
            rs_error *err)
{
  for (size_t i = 0; list != NULL && list[i] != NULL; i++)
    if (list[i][0] == '\0' || (variables && list[i][0] == '='))
      return rs_fail(err, RS_EINVAL, "%s has '%s', which has no name", name,
                     list[i]);
  return RS_OK;
}

/* Check what workers are given that are processes. */
static int
check_process (const rs_pool_options *o, rs_error *err)
{
  const struct { const char *name; bool given, far; } rows[] = {
    { "cpu_time", o->cpu_time > 0, true },
    { "nice", o->nice != 0, true },
    { "cwd", o->cwd != NULL, true },
    { "env", o->env != NULL, false },
    { "strict", o->strict, false },
    { "readable", o->readable != NULL, false },
    { "writable", o->writable != NULL, false },
  };
  const bool far = o->command != NULL || o->hosts != NULL || o->broker != NULL;
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (!rows[i].given)
      continue;
    if (!far && o->isolation != RS_ISOLATION_PROCESS)
      return rs_fail(err, RS_EINVAL, "%s is for workers that are processes: "
                                     "give RS_ISOLATION_PROCESS, or leave it "
                                     "out", rows[i].name);
    if (far && !rows[i].far)
      return rs_fail(err, RS_EINVAL, "%s is for children of this process, "
                                     "which command and hosts do not start: "
                                     "let the words of %s see to it, or leave "
                                     "it out", rows[i].name,
                     o->broker != NULL ? "what starts 'runspace --serve'"
                     : o->command != NULL ? "command" : "ssh");
  }
  if (!o->strict && (o->readable != NULL || o->writable != NULL))
    return rs_fail(err, RS_EINVAL, "%s names what passes the wall of strict: "
                                   "give strict, or leave it out",
                   o->readable != NULL ? "readable" : "writable");
  if (o->cwd != NULL && o->cwd[0] == '\0')
    return rs_fail(err, RS_EINVAL, "cwd is empty: the path of a directory is "
                                   "needed, or NULL, the default");
  return check_list(o->env, "env", true, err) == RS_OK
         && check_list(o->readable, "readable", false, err) == RS_OK
         && check_list(o->writable, "writable", false, err) == RS_OK
       ? RS_OK : RS_EINVAL;
}

/* Check the options of a pool, and put in the defaults. */
static int
check_pool (rs_pool_options *o, rs_error *err)
{
  if (check_rows(rs_runspace_limits, o, err) != RS_OK
      || check_rows(rs_pool_numbers, o, err) != RS_OK
      || check_signal(o->signal, err) != RS_OK
      || check_reach(o, err) != RS_OK
      || check_process(o, err) != RS_OK)
    return RS_EINVAL;
  if (o->adapt && (o->isolation != RS_ISOLATION_THREAD || o->command != NULL
                   || o->hosts != NULL || o->broker != NULL))
    return rs_fail(err, RS_EINVAL, "adapt is for workers that are threads, "
                                   "since it looks at the time that they "
                                   "take: give max instead");
  if (o->isolation == RS_ISOLATION_SERIAL) {
    if (o->min > 1 || o->pin)
      return rs_fail(err, RS_EINVAL, "%s is for workers that are threads or "
                                     "processes, and RS_ISOLATION_SERIAL has "
                                     "none: leave it out",
                     o->pin ? "pin" : "min");
    o->max = 1;
  }
  if (o->min == 0)
    o->min = 1;
  if (o->max == 0)
    o->max = o->min > rs_cpus() ? o->min : rs_cpus();
  if (o->min > o->max)
    return rs_fail(err, RS_EINVAL, "min (%u) is more than max (%u)", o->min,
                   o->max);
  if (!(o->idle >= 0) && o->idle != RS_FOREVER)
    return rs_fail(err, RS_EINVAL, "idle (%g) is no time: seconds from 0 on, "
                                   "or RS_FOREVER, are needed", o->idle);
  if (o->reset < RS_RESET_GLOBALS || o->reset > RS_RESET_FRESH)
    return rs_fail(err, RS_EINVAL, "reset (%d) is none of RS_RESET_GLOBALS, "
                                   "RS_RESET_NONE and RS_RESET_FRESH",
                   o->reset);
  if (o->idle == 0)
    o->idle = IDLE;
  o->signal = o->signal == 0 ? SIGURG
            : o->signal == RS_NO_SIGNAL ? 0 : o->signal;
  if (o->queue_jobs == 0)
    o->queue_jobs = SIZE_MAX;
  if (o->queue_bytes == 0)
    o->queue_bytes = SIZE_MAX;
  return RS_OK;
}

const rs_pool_options *
rs_check_pool_options (const rs_pool_options *given, rs_pool_options *room,
                       rs_error *err)
{
  static const rs_pool_options defaults;
  if (read_sized(given != NULL ? given : &defaults, room, sizeof *room,
                 "rs_pool_options", err) != RS_OK
      || check_pool(room, err) != RS_OK)
    return NULL;
  return room;
}

/* --------------------------------------------------------------- sandboxes */

const rs_sandbox *
rs_check_sandbox (const rs_sandbox *given, rs_sandbox *room, rs_error *err)
{
  if (given == NULL) {
    rs_fail_null(err, "sandbox");
    return NULL;
  }
  if (read_sized(given, room, sizeof *room, "rs_sandbox", err) != RS_OK)
    return NULL;
  if (room->files < RS_FILES_ALL || room->files > RS_FILES_NONE) {
    rs_fail(err, RS_EINVAL, "files (%d) is none of RS_FILES_", room->files);
    return NULL;
  }
  if ((room->forbid & ~(unsigned) RS_FORBID_ALL) != 0) {
    rs_fail(err, RS_EINVAL, "forbid (0x%x) has other bits than those of "
                            "RS_FORBID_ALL (%d)", room->forbid, RS_FORBID_ALL);
    return NULL;
  }
  return room;
}

/* ----------------------------------------------------------------- servers */

const rs_server_options *
rs_check_server_options (const rs_server_options *given,
                         rs_server_options *room, rs_error *err)
{
  if (given == NULL || read_sized(given, room, sizeof *room,
                                  "rs_server_options", err) != RS_OK) {
    if (given == NULL)
      rs_fail_null(err, "options");
    return NULL;
  }
  int status = RS_EINVAL;
  if (room->broker == NULL || room->queue == NULL)
    rs_fail_null(err, room->broker == NULL ? "broker" : "queue");
  else if (!is_queue_name(room->queue))
    rs_fail(err, RS_EINVAL, "queue is no name: 1 to %d bytes without control "
                            "characters are needed", RS_QUEUE_NAME_MAX);
  else if (room->workers > RS_SERVER_WORKERS_MAX)
    rs_fail(err, RS_EINVAL, "workers (%u) are more than %d", room->workers,
            RS_SERVER_WORKERS_MAX);
  else if (!(room->idle >= 0))
    rs_fail(err, RS_EINVAL, "idle (%g) is no time: seconds from 0 on are "
                            "needed", room->idle);
  else
    status = RS_OK;
  return status == RS_OK ? room : NULL;
}
