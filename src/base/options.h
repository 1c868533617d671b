/* SPDX-License-Identifier: MIT */
/*
 * options.h - the arguments of public functions, checked in one place.
 *
 * One function checks the options that bound the work of a pool, a job or a
 * batch, for C programs and for the Lua module alike.  A failure names the
 * argument and its value, and tells which values are good.
 */
#ifndef RS_OPTIONS_H
#define RS_OPTIONS_H

#include <string.h>

#include "runspace.h"

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

#endif
