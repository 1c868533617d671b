/* SPDX-License-Identifier: MIT */
/*
 * launch.h - with what the children of a pool are started: program, words,
 * variables; and the wall that 'strict' puts around them.
 *
 * A launch is made when its pool is opened, and constant then: each child is
 * started with the same.
 */
#ifndef RS_LAUNCH_H
#define RS_LAUNCH_H

#include "reach/command.h"

typedef struct rs_launch rs_launch;

/* Make the launch of a pool.  RS_OK, RS_ENOMEM, or RS_EFAILED: the wall cannot
   be built, and 'err' says what is missing. */
int rs_launch_new (const rs_pool_options *o, rs_launch **out, rs_error *err);
void rs_launch_free (rs_launch *l);

/*
 * Start a child.  Its program has the argument --worker.  That program is
 * 'runspace' of the options; without one this very program, if it serves, or
 * else the installed 'runspace', or the one in PATH.  A child that has a wall
 * around it has no file of ours: 'errors' reads its standard error.  'ring'
 * becomes RS_RING_FD of the child; -1: there is none.  RS_OK or RS_EFAILED.
 * Any thread.
 */
int rs_launch_start (const rs_launch *l, rs_process *p, rs_errors *errors,
                     int ring, rs_error *err);

/* Is there a wall around the children? */
bool rs_launch_is_strict (const rs_launch *l);

#endif
