/* SPDX-License-Identifier: MIT */
/*
 * library.h - library functions that a runspace has its own versions of.
 */
#ifndef RS_LIBRARY_H
#define RS_LIBRARY_H

#include <stdbool.h>

#include <lua.h>

/*
 * [-0, +0, m]  Replace, where the globals and 'os' have them:
 *
 *   load, loadfile,  give chunks the environment of the job, not the globals,
 *   dofile           which all jobs share
 *   os.exit          raises: a job cannot end the host.  With 'alone' it ends
 *                    the process, which is there for this state
 *   os.setlocale     raises if the locale would change: it belongs to the
 *                    whole process
 */
void rs_library_open (lua_State *L, bool alone);

#endif
