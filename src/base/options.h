/* SPDX-License-Identifier: MIT */
/*
 * options.h - what callers pass to public functions, looked at in one place.
 *
 * What bounds the work of a pool, a job and a batch is checked by one
 * function, whoever asks: C programs, and the Lua module, come here alike.  A
 * failure names the argument and its value, and tells what would do.
 */
#ifndef RS_OPTIONS_H
#define RS_OPTIONS_H

#include <string.h>

#include "runspace.h"

/* RS_EINVAL: the argument 'name' is NULL. */
int rs_fail_null (rs_error *err, const char *name);

/*
 * A time to wait: RS_FOREVER stays, what else is below 0 becomes 0, and
 * infinity RS_FOREVER.  RS_OK, or RS_EINVAL for what is no number.
 */
int rs_check_wait (double *seconds, rs_error *err);

/* RS_OK, or RS_EINVAL when 'L' has no 'n' values on its stack. */
int rs_check_values (lua_State *L, int n, rs_error *err);

/* RS_OK, or RS_EINVAL when 'name' has control characters.  NULL has none. */
int rs_check_name (const char *name, rs_error *err);

/*
 * The options as this library knows them.  'given' may be NULL, for defaults;
 * of a struct of another size what both know is taken.  They are lent: 'given'
 * itself, or 'room'.  NULL: RS_EINVAL, and the text in 'err'.
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
 * Give the caller of a '_sized' function, who has room for 'size' bytes, what
 * is known in a struct of 'full' bytes that begins with its size.
 */
static inline void
rs_give_sized (void *out, size_t size, void *known, size_t full)
{
  const size_t n = size < full ? size : full;
  memcpy(known, &n, sizeof n);
  memcpy(out, known, n);
}

#endif
