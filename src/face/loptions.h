/* SPDX-License-Identifier: MIT */
/*
 * loptions.h - options in tables of Lua, by the rows of the library.
 */
#ifndef RS_LOPTIONS_H
#define RS_LOPTIONS_H

#include <lua.h>

#include "base/options.h"
#include "runspace.h"

/* [-0, +0, e]  Read the options that have a row from the table at 'index' into
   the struct at 'out'; what is nil there stays as it is.  The values were
   checked by the Lua part ('core.expected'), or will be by the library. */
void rs_read_options (lua_State *L, int index, const rs_option *rows,
                      void *out);

/* [-0, +2, e]  Read the words in the array at the field 'name' of the table at
   'index'.  The two values that are pushed, and that table, anchor them.
   NULL: there are none. */
const char *const *rs_read_words (lua_State *L, int index, const char *name);

/* [-0, +2, e]  Read the option 'globals' in the same way: false, true, an
   array of names, or nil. */
const char *const *rs_read_globals (lua_State *L, int index);

/* [-0, +0, e]  Read the option 'seed' into 'room', which is returned.  NULL:
   it is not given. */
const lua_Integer *rs_read_seed (lua_State *L, int index, lua_Integer *room);

/* [-0, +0, m]  Set 'options' in the table on top: names of the options by
   group, each with its kind, "seconds", "bytes", "flag" or "whole". */
void rs_set_options (lua_State *L);

/* [-0, +0, e]  Raise the text of 'err'.  An argument that it begins with is
   called as the field 'names' of the options at 'index' has it, by its
   number: by the name of a parameter, by another number, or not at all
   (false); see lua/parallel/arguments.lua. */
int rs_raise_named (lua_State *L, int index, const rs_error *err);

/* Function of the C part, for Lua:
   (name, value) -> what is expected, or nil for a good value */
int rs_lua_expected (lua_State *L);

#endif
