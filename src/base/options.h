/* SPDX-License-Identifier: MIT */
/*
 * options.h - the arguments of public functions, checked in one place.
 *
 * A failure names the argument and its value, and tells which values are good.
 *
 * Each option that is a number or a flag has one row, with its name and its
 * bounds.  The checks below go by the rows, and so does the Lua module: it
 * reads tables of options, and refuses what is not good, by the same rows.
 * Inside of the library the public structs hold the options: what bounds a
 * call is in an rs_job_options, that of a chunk, too; what bounds a runspace
 * is in the rs_pool_options of its pool.
 */
#ifndef RS_OPTIONS_H
#define RS_OPTIONS_H

#include <string.h>

#include "runspace.h"

/* -------------------------------------------------------------------- rows */

/* The type of a field. */
typedef enum rs_option_type {
  RS_OPTION_SECONDS,   /* double: above 0 */
  RS_OPTION_DELAY,     /* double: seconds from 0 on, finite */
  RS_OPTION_FACTOR,    /* double: from 1 on, finite */
  RS_OPTION_INT,
  RS_OPTION_UNSIGNED,
  RS_OPTION_SIZE,      /* size_t */
  RS_OPTION_BYTES,     /* size_t; in Lua texts such as "64M", too */
  RS_OPTION_LARGE,     /* uint64_t */
  RS_OPTION_FLAG       /* bool */
} rs_option_type;

typedef struct rs_option {
  const char *name;      /* in Lua, and of the field; NULL ends the rows */
  size_t at;             /* where the field is in its struct */
  rs_option_type type;
  int64_t least, most;   /* of a whole number.  In C the field may be 0 even
                            so: the default */
  const char *expected;  /* what a value shall be; NULL: made from the rest */
} rs_option;

/* What bounds a call: in rs_job_options; the same in rs_batch_options. */
extern const rs_option rs_call_limits[];
extern const rs_option rs_batch_limits[];

/* What else rs_job_options and rs_batch_options have. */
extern const rs_option rs_job_numbers[];
extern const rs_option rs_batch_numbers[];

/* What bounds a runspace; what else rs_pool_options has.  'queue_jobs' there
   is 'jobs' of the table 'queue' in Lua. */
extern const rs_option rs_runspace_limits[];
extern const rs_option rs_pool_numbers[];
extern const rs_option rs_queue_limits[];

/* A value: 'seconds' of a double, else 'n'. */
typedef union rs_option_value {
  double seconds;
  int64_t n;             /* a field that has more is INT64_MAX */
} rs_option_value;

/* True for an option that is a double. */
static inline bool
rs_option_is_double (const rs_option *o)
{
  return o->type <= RS_OPTION_FACTOR;
}

/* True when the value is good.  0 has to be good by the row, too. */
bool rs_option_takes (const rs_option *o, rs_option_value v);

/* Write what is expected instead of 'v': "a positive integer". */
enum { RS_OPTION_TEXT = 80 };
void rs_option_expect (const rs_option *o, rs_option_value v,
                       char text[RS_OPTION_TEXT]);

/* Read and write the field of a struct of options. */
rs_option_value rs_option_get (const rs_option *o, const void *options);
void rs_option_set (const rs_option *o, void *options, rs_option_value v);

/* ------------------------------------------------------------------ checks */

/* Fail with RS_EINVAL: the argument 'name' is NULL. */
int rs_fail_null (rs_error *err, const char *name);

/*
 * Check a time to wait, and simplify it: RS_FOREVER stays, other times below 0
 * become 0, and infinity becomes RS_FOREVER.  RS_OK, or RS_EINVAL for NaN.
 */
int rs_check_wait (double *seconds, rs_error *err);

/* Check that 'L' has 'n' values on its stack.  RS_OK or RS_EINVAL. */
int rs_check_values (lua_State *L, int n, rs_error *err);

/* Check that 'name' has no control characters; NULL has none.  RS_OK or
   RS_EINVAL. */
int rs_check_name (const char *name, rs_error *err);

/*
 * Check the options at 'given', and return them in the form that this library
 * knows.  NULL as 'given' stands for the defaults, but not for a sandbox.  Of
 * a struct of another size, the fields that both sides know are taken.  The
 * result is lent: it is 'given' itself, or 'room', or constant.  NULL:
 * RS_EINVAL, with the text in 'err'.
 */
/* 'rs_check_pool_options' puts in the defaults, too: 'signal' is 0 for none,
   and what limits the queue SIZE_MAX. */
const rs_pool_options *rs_check_pool_options (const rs_pool_options *given,
                                              rs_pool_options *room,
                                              rs_error *err);
const rs_job_options *rs_check_job_options (const rs_job_options *given,
                                            rs_job_options *room,
                                            rs_error *err);
const rs_batch_options *rs_check_batch_options (const rs_batch_options *given,
                                                rs_batch_options *room,
                                                rs_error *err);
const rs_sandbox *rs_check_sandbox (const rs_sandbox *given, rs_sandbox *room,
                                    rs_error *err);

/* Set in 'out' what bounds the calls of a batch with these options. */
void rs_batch_limits_get (const rs_batch_options *options,
                          rs_job_options *out);

/*
 * Copy the struct 'known', of 'full' bytes, to the caller of a '_sized'
 * function, who has room for 'size' bytes at 'out'.  The struct begins with
 * its size, which becomes the number of bytes that are copied.
 */
static inline void
rs_give_sized (void *out, size_t size, void *known, size_t full)
{
  const size_t n = size < full ? size : full;
  memcpy(known, &n, sizeof n);
  memcpy(out, known, n);
}

/* The same for those of a server. */
const rs_server_options *rs_check_server_options
  (const rs_server_options *given, rs_server_options *room, rs_error *err);

#endif
