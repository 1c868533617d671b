/* SPDX-License-Identifier: MIT */
/*
 * luv.h - errors in callbacks of luv end the job, not the process.
 */
#ifndef RS_LUV_H
#define RS_LUV_H

#include <lua.h>

/* [-0, +0, m]  A module was loaded, whose value is at 'index'.  If the module
   is luv, catch the errors of its callbacks. */
void rs_luv_adopt (lua_State *L, int index);

#endif
