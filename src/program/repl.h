/* SPDX-License-Identifier: MIT */
/*
 * repl.h - the prompt of the host program.
 */
#ifndef RS_REPL_H
#define RS_REPL_H

#include <lua.h>

/* Prepare standard input; to be called before anything reads it. */
void rs_repl_prepare (void);

/* [-?, +0, e]  Read, run and show until the end of input.  Clears the
   stack. */
void rs_repl_run (lua_State *L);

#endif
