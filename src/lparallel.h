/* SPDX-License-Identifier: MIT */
/*
 * lparallel.h - the Lua module 'parallel', for programs that host it.
 */
#ifndef RS_LPARALLEL_H
#define RS_LPARALLEL_H

#include "runspace.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * [-0, +1, e]  Open the module.  Stock Lua finds it as 'parallel.so'; a
 * program that links the library opens it in a state of its own by
 *
 *     luaL_requiref(L, "parallel", luaopen_parallel, 1);  -- also the global
 *     lua_pop(L, 1);
 *
 * Each runspace has this very module, for 'require "parallel"', without that.
 * There is one engine in a process: a 'parallel.so' that is found on the cpath
 * all the same gives what the library, or the program, that is there already
 * gives.
 */
RS_API int luaopen_parallel (lua_State *L);

/*
 * [-0, +0, e]  Let the default pool of the host state 'L' have 'workers'
 * workers at most; 0 means one for each CPU.  Call it before the default
 * pool is first used.
 */
RS_API void rs_parallel_set_workers (lua_State *L, unsigned workers);

/* [-0, +0, m]  Let the runspaces of the default pool of the host state 'L' be
   where 'isolation' says, RS_ISOLATION_; and with RS_ISOLATION_SERIAL, those
   of all pools of 'L' that do not say where they are.  Call it before that
   pool is first used. */
RS_API void rs_parallel_set_isolation (lua_State *L, int isolation);

/* [-0, +0, m]  Let 'warn' speak in the runspaces of pools that 'L' opens from
   now on; and warn of functions whose assignments are lost when they run as
   jobs, when 'L' submits them. */
RS_API void rs_parallel_set_warnings (lua_State *L, bool on);

/*
 * For programs that wait for other things than this module does: where 'L'
 * hears of its jobs, lent [-0, +0, m]; whether jobs have something to tell,
 * which makes the descriptor there quiet otherwise [-0, +0, m]; and the
 * handing out of that to the script's handlers [-0, +0, e].
 */
RS_API rs_events *rs_parallel_events (lua_State *L);
RS_API bool rs_parallel_pending (lua_State *L);
RS_API void rs_parallel_dispatch (lua_State *L);

/*
 * [-0, +0, m]  What 'L' runs is to end, by an error that the program raises
 * next: handlers of events do not keep it, as they do with their own.
 */
RS_API void rs_parallel_interrupt (lua_State *L);

/*
 * The end of what 'L' runs.  [-0, +0, e]  Wait until the jobs of all pools of
 * 'L' have ended; handlers run meanwhile.  [-0, +0, e]  Cancel them, and say
 * on standard error how many had not ended.
 */
RS_API void rs_parallel_finish (lua_State *L);
RS_API void rs_parallel_abandon (lua_State *L);

/* [-0, +0, e]  Tell, on standard error, of the jobs of 'L' that have failed
   and nobody has looked at, also of those whose handles the script holds. */
RS_API void rs_parallel_report (lua_State *L);

/* Failures of jobs in this process that nobody had looked at when they were
   told.  Any thread. */
RS_API unsigned rs_parallel_unseen (void);

/* [-0, +0, -]  Workers that the default pool of 'L' has at most. */
RS_API unsigned rs_parallel_workers (lua_State *L);

#ifdef __cplusplus
}
#endif

#endif
