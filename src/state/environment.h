/* SPDX-License-Identifier: MIT */
/*
 * environment.h - the globals that a job sees.
 *
 * With RS_RESET_GLOBALS each call, and each item, has a table of its own as
 * environment.  To code that looks at it, the table is like Lua's table of
 * globals; it goes when the call, or the item, ends.  With the other values of
 * RS_RESET_ the environment is the table of globals itself, with one
 * exception: under RS_RESET_FRESH a call has a copy of that table while
 * another call, or 'init', waits for it.
 *
 * Functions here are called by the thread that runs the state.
 */
#ifndef RS_ENVIRONMENT_H
#define RS_ENVIRONMENT_H

#include <stdbool.h>

#include <lua.h>

/* The environment of a runspace; part of its rs_state. */
typedef struct rs_environment {
  int reset;            /* RS_RESET_; constant */
  bool dirty;           /* the next call gets a new environment: this one was
                           assigned to, cannot notice that, or is of a call
                           that waits */
  int name_of_globals;  /* registry reference: the string "_G" */
  int metatable;        /* registry reference: of environments that inherit */
  int home;             /* registry reference: the userdata that keeps the
                           environment (names.h) */
  const void *hiding;   /* address of the metatable that supplies '_G' of the
                           globals, while they have it; or NULL */
} rs_environment;

/* [-0, +0, m]  Prepare the environment 'e' of the state, and replace library
   functions that look at tables without their metatables, where the state has
   them. */
void rs_environment_open (lua_State *L, rs_environment *e, int reset);

/* [-0, +0, m]  Set a new environment, which no code has assigned to.
   'nested': another call, or 'init', waits for the call that begins. */
void rs_environment_renew (lua_State *L, rs_environment *e, bool nested);

/* [-0, +0, m]  Make the globals the environment of a call that prepares the
   runspace: what it assigns stays, as what 'init' assigns does. */
void rs_environment_lend (lua_State *L, rs_environment *e);

/* [-1, +0, -]  Make the table on top the environment.  Needs 6 stack slots. */
void rs_environment_set (lua_State *L, const rs_environment *e);

/* [-0, +0, -]  A call has ended, and may have assigned to '_G' and '_ENV': set
   'dirty' for the first, undo the second.  False when the userdata that keeps
   the environment, or its value, is gone: the state is of no use. */
bool rs_environment_check (lua_State *L, rs_environment *e);

/* [-0, +0, m]  The table at 'index' is about to be read raw, or to get another
   metatable.  An environment that inherits gets all of its fields itself.  The
   globals get '_G' back.  The table that stands for the table of modules is
   replaced by the latter at 'index'. */
void rs_environment_expose (lua_State *L, int index);

/* [-0, +0, -]  Is the value at 'index' the '__metatable' of a metatable that
   'getmetatable' must not show? */
bool rs_environment_hides (lua_State *L, int index);

#endif
