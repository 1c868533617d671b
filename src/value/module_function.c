/* SPDX-License-Identifier: MIT */
/*
 * module_function.c - functions in Lua that a module has.
 *
 * 'require' does not keep the name of the file that a module was loaded from.
 * So a file counts as that of module "a.b" if its name ends in "a/b.lua" or
 * "a/b/init.lua", whatever stands behind the last dot.  That no module has
 * such a file is remembered by thread, since scripts send their own functions
 * again and again.
 */
#include "value/module_function.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "value/names.h"

/* Fields that are looked at, of a module and of a table in a field of it. */
enum { FIELDS_MAX = 1024, SUB_FIELDS_MAX = 256 };

/* Files that are of no module, by the hash of their names and the address of
   the table of modules. */
enum { REMEMBERED = 8 };
static _Thread_local uint64_t no_module[REMEMBERED];

static uint64_t
hash (const char *name, const void *loaded)
{
  uint64_t h = (uint64_t) (uintptr_t) loaded | 1;
  for (; *name != '\0'; name++)
    h = (h ^ (unsigned char) *name) * 0x100000001b3u;
  return h;
}

/* True when the 'length' characters at 'file' end in the name of the module,
   with slashes for its dots. */
static bool
ends_in (const char *file, size_t length, const char *module, size_t size)
{
  if (size == 0 || length < size
      || (length > size && file[length - size - 1] != '/'))
    return false;
  file += length - size;
  for (size_t i = 0; i < size; i++)
    if (file[i] != (module[i] == '.' ? '/' : module[i]))
      return false;
  return true;
}

/* True when the file, whose name has 'length' characters before its last dot,
   may be that of the module. */
static bool
fits (const char *file, size_t length, const char *module, size_t size)
{
  static const char init[] = "/init";
  const size_t more = sizeof init - 1;
  return ends_in(file, length, module, size)
      || (length > more && memcmp(file + length - more, init, more) == 0
          && ends_in(file, length - more, module, size));
}

/* [-0, +0, -]  True when the function at 'index' is the value on top, or in a
   field of it, 'levels' deep. */
static bool
has (lua_State *L, int index, int levels)
{
  if (lua_rawequal(L, -1, index))
    return true;
  if (lua_type(L, -1) != LUA_TTABLE || levels == 0)
    return false;
  const int table = lua_gettop(L);
  const int most = levels == 2 ? FIELDS_MAX : SUB_FIELDS_MAX;
  bool found = false;
  lua_pushnil(L);
  for (int n = 0; n < most && !found && lua_next(L, table); n++) {
    found = has(L, index, levels - 1);
    lua_pop(L, 1);
  }
  lua_settop(L, table);
  return found;
}

bool
rs_is_module_function (lua_State *L, int home, int index)
{
  lua_Debug ar;
  const int top = lua_gettop(L);
  lua_pushvalue(L, index);
  lua_getinfo(L, ">S", &ar);
  const char *const dot = strrchr(ar.source, '.');
  if (ar.source[0] != '@' || dot == NULL || strchr(dot, '/') != NULL)
    return false;
  lua_getiuservalue(L, home, RS_HOME_LOADED);
  if (lua_type(L, -1) != LUA_TTABLE) {
    lua_settop(L, top);
    return false;
  }
  const uint64_t mark = hash(ar.source, lua_topointer(L, -1));
  uint64_t *const known = &no_module[mark >> 32 & (REMEMBERED - 1)];
  bool fit = false, found = false;
  if (*known != mark) {
    lua_pushnil(L);
    while (!found && lua_next(L, top + 1)) {
      if (lua_type(L, -2) == LUA_TSTRING) {
        size_t size;
        const char *const module = lua_tolstring(L, -2, &size);
        if (fits(ar.source + 1, (size_t) (dot - ar.source) - 1, module,
                 size)) {
          fit = true;
          found = has(L, index, 2);
        }
      }
      lua_pop(L, 1);
    }
    if (!fit)
      *known = mark;
  }
  lua_settop(L, top);
  return found;
}
