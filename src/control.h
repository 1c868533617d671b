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
 *   coroutine.resume,  tell which coroutine runs, since a hook belongs to one
 *   wrap, close
 *   xpcall             leaves out a handler in Lua once the call is to be
 *                      stopped: handlers run without hooks
 *   setmetatable       lets '__gc' in Lua run in a coroutine of its own:
 *                      finalizers run without hooks
 *   debug.sethook      stops, too; refuses where instructions are counted
 */
void rs_control_open (lua_State *L, bool counted);

#endif
