/* SPDX-License-Identifier: MIT */
/*
 * module_function.h - functions in Lua that a module has.
 */
#ifndef RS_MODULE_FUNCTION_H
#define RS_MODULE_FUNCTION_H

#include <stdbool.h>

#include <lua.h>

/*
 * [-0, +0, -]  True when the function at 'index' is one that a loaded module
 * has, in a field or in a field of a field, or the module itself, and the
 * module was loaded from the file that the function comes from.  The userdata
 * of names.c is at 'home'.  Needs LUA_MINSTACK stack slots.
 */
bool rs_is_module_function (lua_State *L, int home, int index);

#endif
