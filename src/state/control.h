/* SPDX-License-Identifier: MIT */
/*
 * control.h - library functions that move control about, in versions that
 * can be stopped.
 */
#ifndef RS_CONTROL_H
#define RS_CONTROL_H

#include <stdbool.h>

#include <lua.h>

/*
 * [-0, +0, m]  Replace, where they are there:
 *
 *   coroutine.resume,  note which coroutine runs, since a hook belongs to one
 *   wrap, close        coroutine
 *   xpcall             leaves out a handler in Lua once the call is to be
 *                      stopped: handlers run without hooks
 *   setmetatable,      let '__gc' in Lua run in a coroutine of its own:
 *   debug.setmetatable finalizers run without hooks
 *   debug.sethook      raises when the call is to be stopped, and where
 *                      instructions are counted ('counted')
 *   debug.gethook      finds the hooks that this 'debug.sethook' has set
 */
void rs_control_open (lua_State *L, bool counted);

/* [-0, +0, m]  Replace the functions for coroutines alone. */
void rs_control_open_coroutines (lua_State *L);

/* [-0, +0, m]  Let each call begin with the hook that is now set on 'L', the
   main coroutine. */
void rs_control_keep_hook (lua_State *L);

#endif
