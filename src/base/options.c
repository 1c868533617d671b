/* SPDX-License-Identifier: MIT */
/*
 * options.c - the arguments of public functions, checked in one place.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* NSIG */
#endif
#include "base/options.h"

#include <math.h>
#include <signal.h>

#include "base/status.h"

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

static int
fail_limit (const char *name, double seconds, rs_error *err)
{
  return rs_fail(err, RS_EINVAL, "%s (%g) is no time: seconds above 0, or 0 "
                                 "for any, are needed", name, seconds);
}

/* Check the options that jobs and batches share; a batch passes its own as
   those of its jobs. */
static int
check_work (const rs_job_options *o, rs_error *err)
{
  const unsigned unknown = 0xf800;  /* bits of 'listen' that mean nothing */
  if (o->name != NULL && rs_check_name(o->name, err) != RS_OK)
    return RS_EINVAL;
  if (!(o->timeout >= 0))
    return fail_limit("timeout", o->timeout, err);
  if (!(o->deadline >= 0))
    return fail_limit("deadline", o->deadline, err);
  if (o->priority < -RS_PRIORITY_MAX || o->priority > RS_PRIORITY_MAX)
    return rs_fail(err, RS_EINVAL, "priority (%d) is not from %d to %d",
                   o->priority, -RS_PRIORITY_MAX, RS_PRIORITY_MAX);
  if ((o->retry_on & ~(unsigned) RS_RETRY_ALL) != 0)
    return rs_fail(err, RS_EINVAL, "retry_on (%u) has other bits than those "
                                   "of RS_RETRY_ALL (%d)", o->retry_on,
                   RS_RETRY_ALL);
  if ((o->listen & unknown) != 0)
    return rs_fail(err, RS_EINVAL, "listen (0x%x) has other bits than 1u << "
                                   "stream, RS_LISTEN_ and those from "
                                   "RS_LISTEN_OWN on", o->listen);
  return RS_OK;
}

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
  return check_work(given, err) == RS_OK ? given : NULL;
}

const rs_batch_options *
rs_check_batch_options (const rs_batch_options *given, rs_batch_options *room,
                        rs_error *err)
{
  static const rs_batch_options defaults;
  const unsigned known = RS_BATCH_RECORDS | RS_BATCH_CONTINUE | RS_BATCH_EAGER;
  if (given == NULL)
    return &defaults;
  if (read_sized(given, room, sizeof *room, "rs_batch_options", err) != RS_OK)
    return NULL;
  const rs_job_options work = {
    .name = room->name,
    .listen = room->listen,
    .timeout = room->timeout,
    .deadline = room->deadline,
    .retries = room->retries,
    .retry_on = room->retry_on,
    .priority = room->priority,
  };
  if (check_work(&work, err) != RS_OK)
    return NULL;
  if ((room->flags & ~known) != 0) {
    rs_fail(err, RS_EINVAL, "flags (0x%x) has other bits than RS_BATCH_RECORDS"
                            ", RS_BATCH_CONTINUE and RS_BATCH_EAGER",
            room->flags);
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

static int
check_pool (rs_pool_options *o, rs_error *err)
{
  if (o->min > RS_WORKERS_MAX || o->max > RS_WORKERS_MAX)
    return rs_fail(err, RS_EINVAL, "%s (%u) is more than %d workers",
                   o->min > RS_WORKERS_MAX ? "min" : "max",
                   o->min > RS_WORKERS_MAX ? o->min : o->max, RS_WORKERS_MAX);
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
  return check_signal(o->signal, err);
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
