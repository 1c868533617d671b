/* SPDX-License-Identifier: MIT */
/*
 * wall.h - the wall of 'strict': what stands between a child process and the
 * rest of the machine.
 *
 * Its outer part is built by bubblewrap (bwrap(1)) before the worker's program
 * begins: namespaces without network, other processes, and files but those
 * that are named.  Its inner part is a filter of system calls (seccomp(2)),
 * which the worker closes behind itself, since what starts the program may
 * start programs.
 */
#ifndef RS_WALL_H
#define RS_WALL_H

#include "runspace.h"

/*
 * Make the words that start 'program' (an absolute path) with --worker inside
 * of a wall, by the program 'bwrap'; 'serving': it is the program that runs
 * here.  'rs_words_free' frees them.  RS_OK, RS_ENOMEM, or RS_EFAILED, and
 * 'err' names a path that is not there.
 */
int rs_wall_words (const rs_pool_options *o, const char *bwrap,
                   const char *program, bool serving, char ***out,
                   rs_error *err);

/* Close the inner part of the wall around this process, for good.  RS_OK or
   RS_EFAILED. */
int rs_wall_close (rs_error *err);

#endif
