/* SPDX-License-Identifier: MIT */
/*
 * pool.h - what the module asks of a pool and its jobs, beside runspace.h.
 */
#ifndef RS_POOL_H
#define RS_POOL_H

#include <lua.h>

#include "code.h"
#include "runspace.h"

/*
 * [-0, +0, -]  'rs_submit' for the function, or source, at 'function' and the
 * 'nargs' values from 'first' on, with the outbox of 'L', which has
 * LUA_MINSTACK free slots: to look for that, and to move values on the stack,
 * is a twentieth of what a small job costs its host.
 */
int rs_pool_submit (rs_pool *pool, rs_outbox *o, lua_State *L, int function,
                    int first, int nargs, const rs_job_options *options,
                    rs_job **out, rs_error *err);

/* The results of 'job' will be taken soon, if it is there at all: let the
   memory come from the CPU of its worker.  It may be gone, or NULL. */
void rs_job_expect (const rs_job *job);

#endif
