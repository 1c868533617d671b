/* SPDX-License-Identifier: MIT */
/*
 * environment.h - the globals that a job sees.
 *
 * With RS_RESET_GLOBALS each call, and each item, has a table of its own,
 * which is as good as Lua's table of globals to whoever looks at it, and goes
 * when the call ends.  Otherwise it is that table itself; but with
 * RS_RESET_FRESH calls for which another one waits, or 'init', have a copy.
 *
 * The thread that runs the state.
 */
#ifndef RS_ENVIRONMENT_H
#define RS_ENVIRONMENT_H

#include <stdbool.h>

#include <lua.h>

/* Part of each runspace. */
typedef struct rs_environment {
  int reset;            /* RS_RESET_; constant */
  bool dirty;           /* it was assigned to, or is none of ours: the next
                           call has another one */
  int name_of_globals;  /* registry: the string "_G", as the next two: */
  int metatable;        /* of those that inherit; */
  int home;             /* what keeps the environment (names.h) */
  const void *hiding;   /* the metatable that the globals have meanwhile, or
                           NULL: its address, while they have it */
} rs_environment;

/* [-0, +0, m]  Prepare it, and replace the functions that look at tables
   without their metatables, where they are there.  'e' is the state's. */
void rs_environment_open (lua_State *L, rs_environment *e, int reset);

/* [-0, +0, m]  Let it be a new one, that nobody has assigned to.  'nested': a
   call waits for the one that begins. */
void rs_environment_renew (lua_State *L, rs_environment *e, bool nested);

/* [-1, +0, -]  Let it be the table on top.  Needs 6 stack slots. */
void rs_environment_set (lua_State *L, const rs_environment *e);

/* [-0, +0, -]  A call has ended: '_G' and '_ENV' may have been assigned to.
   False when what keeps the environment is gone: the state is of no use. */
bool rs_environment_check (lua_State *L, rs_environment *e);

/* [-0, +0, m]  The table at 'index' is to be looked at raw, or to get another
   metatable: if it is an environment, let it have all of its fields itself; if
   it stands for the table of modules, let that be there. */
void rs_environment_expose (lua_State *L, int index);

/* [-0, +0, -]  Is the value at 'index' what 'getmetatable' is not to show? */
bool rs_environment_hides (lua_State *L, int index);

#endif
