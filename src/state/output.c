/* SPDX-License-Identifier: MIT */
/*
 * output.c - what code in a runspace prints, caught where it is printed.
 *
 * The functions here replace functions of the base and input-output libraries.
 * The first upvalue of each is the rs_output.  Output that C code writes to
 * the files directly is not caught.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* flockfile */
#endif
#include "state/output.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "runspace.h"
#include "base/level.h"

/* [-0, +0, v]  Write through the rs_output that is the first upvalue.  0, or
   'errno'. */
static int
put (lua_State *L, int fd, const char *text, size_t size)
{
  luaL_checktype(L, lua_upvalueindex(1), LUA_TLIGHTUSERDATA);
  const rs_output *const output = lua_touserdata(L, lua_upvalueindex(1));
  return output->write(L, fd, text, size);
}

/* ------------------------------------------------------------------- print */

static int
print (lua_State *L)
{
  const int n = lua_gettop(L);
  luaL_Buffer line;
  luaL_buffinit(L, &line);
  for (int i = 1; i <= n; i++) {
    if (i > 1)
      luaL_addchar(&line, '\t');
    luaL_tolstring(L, i, NULL);
    luaL_addvalue(&line);
  }
  luaL_addchar(&line, '\n');
  luaL_pushresult(&line);
  size_t size;
  const char *const text = lua_tolstring(L, -1, &size);
  put(L, 1, text, size);
  return 0;
}

/* 'print' in a host: write the line under the lock of 'stdout', which jobs
   hold while they write, so that lines are not mixed. */
static int
print_in_host (lua_State *L)
{
  const int n = lua_gettop(L);
  for (int i = 1; i <= n; i++) {
    luaL_tolstring(L, i, NULL);
    lua_replace(L, i);
  }
  flockfile(stdout);
  for (int i = 1; i <= n; i++) {
    size_t size;
    const char *const text = lua_tolstring(L, i, &size);
    if (i > 1)
      putc('\t', stdout);
    fwrite(text, 1, size, stdout);
  }
  putc('\n', stdout);
  fflush(stdout);
  funlockfile(stdout);
  return 0;
}

/* ------------------------------------------------------------------- write */

/* 1 or 2 for the file at 'index', 0 for others. */
static int
descriptor (lua_State *L, int index)
{
  const luaL_Stream *const file = luaL_testudata(L, index, LUA_FILEHANDLE);
  if (file == NULL || file->closef == NULL)
    return 0;
  return file->f == stdout ? 1 : file->f == stderr ? 2 : 0;
}

/* [-0, +0, e]  Write the arguments from 'first' on, as the input-output
   library writes them.  0, or 'errno'. */
static int
write_arguments (lua_State *L, int fd, int first)
{
  const int n = lua_gettop(L);
  luaL_Buffer text;
  rs_level_room(L, LUA_MINSTACK, NULL);
  luaL_buffinit(L, &text);
  for (int i = first; i <= n; i++) {
    if (lua_type(L, i) == LUA_TNUMBER && !lua_isinteger(L, i)) {
      char number[64];
      const int size = snprintf(number, sizeof number, LUA_NUMBER_FMT,
                                (LUAI_UACNUMBER) lua_tonumber(L, i));
      luaL_addlstring(&text, number, (size_t) size);
    }
    else {
      size_t size;
      const char *const s = luaL_checklstring(L, i, &size);
      luaL_addlstring(&text, s, size);
    }
  }
  luaL_pushresult(&text);
  size_t size;
  const char *const s = lua_tolstring(L, -1, &size);
  const int error = put(L, fd, s, size);
  lua_pop(L, 1);
  return error;
}

/* [-0, +3, m]  Push the values that the input-output library returns for the
   failure 'error', an 'errno'. */
static int
fail (lua_State *L, int error)
{
  errno = error;
  return luaL_fileresult(L, 0, NULL);
}

/* [-?, +?, e]  Call the original, the second upvalue, with all arguments. */
static int
call_original (lua_State *L)
{
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* file:write(...), whose original is the second upvalue */
static int
file_write (lua_State *L)
{
  const int fd = descriptor(L, 1);
  if (fd == 0)
    return call_original(L);
  const int error = write_arguments(L, fd, 2);
  lua_settop(L, 1);
  return error == 0 ? 1 : fail(L, error);
}

/* io.write(...), whose original is the second upvalue, and 'io.output' the
   third */
static int
io_write (lua_State *L)
{
  const int n = lua_gettop(L);
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_call(L, 0, 1);
  const int fd = descriptor(L, n + 1);
  if (fd == 0) {
    lua_settop(L, n);
    return call_original(L);
  }
  lua_settop(L, n);
  const int error = write_arguments(L, fd, 1);
  if (error != 0)
    return fail(L, error);
  lua_pushvalue(L, lua_upvalueindex(3));
  lua_call(L, 0, 1);
  return 1;
}

/* -------------------------------------------------------------------- warn */

/*
 * The state of 'warn': a warning, collected until it is whole, and whether
 * warnings are written; "@on" and "@off" switch that (lua_WarnFunction in the
 * manual).
 */
typedef struct warning {
  lua_State *L;
  const rs_output *output;
  bool on;
  size_t size;        /* bytes in 'text' */
  char text[1024];    /* a longer warning is cut off */
} warning;

static void
append (warning *w, const char *text, size_t size)
{
  const size_t room = sizeof w->text - 1 - w->size;
  if (size > room)
    size = room;
  memcpy(w->text + w->size, text, size);
  w->size += size;
}

/* lua_WarnFunction */
static void
on_warning (void *ud, const char *text, int to_be_continued)
{
  warning *const w = ud;
  if (w->size == 0 && !to_be_continued && text[0] == '@') {
    if (strcmp(text, "@on") == 0)
      w->on = true;
    else if (strcmp(text, "@off") == 0)
      w->on = false;
    return;
  }
  if (w->size == 0)
    append(w, "Lua warning: ", strlen("Lua warning: "));
  append(w, text, strlen(text));
  if (to_be_continued)
    return;
  w->text[w->size] = '\n';
  if (w->on)
    w->output->write(w->L, 2, w->text, w->size + 1);
  w->size = 0;
}

/* [-0, +0, m]  Let 'warn' write to 'output'. */
static void
open_warn (lua_State *L, const rs_output *output)
{
  static const char anchor = 0;
  warning *const w = lua_newuserdatauv(L, sizeof *w, 0);
  w->L = L;
  w->output = output;
  w->on = false;
  w->size = 0;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &anchor);
  lua_setwarnf(L, on_warning, w);
}

/* ------------------------------------------------------------------ public */

void
rs_output_open (lua_State *L, const rs_output *output)
{
  const int top = lua_gettop(L);
  void *const upvalue = (void *) (uintptr_t) output;
  open_warn(L, output);
  lua_pushglobaltable(L);
  if (lua_getfield(L, -1, "print") == LUA_TFUNCTION) {
    lua_pushlightuserdata(L, upvalue);
    lua_pushcclosure(L, print, 1);
    lua_setfield(L, top + 1, "print");
  }
  lua_settop(L, top + 1);
  if (lua_getfield(L, top + 1, LUA_IOLIBNAME) == LUA_TTABLE) {
    lua_pushlightuserdata(L, upvalue);
    lua_getfield(L, top + 2, "write");
    lua_getfield(L, top + 2, "output");
    lua_pushcclosure(L, io_write, 3);
    lua_setfield(L, top + 2, "write");
    luaL_getmetatable(L, LUA_FILEHANDLE);
    lua_getfield(L, -1, "__index");  /* methods */
    lua_pushlightuserdata(L, upvalue);
    lua_getfield(L, -2, "write");
    lua_pushcclosure(L, file_write, 2);
    lua_setfield(L, -2, "write");
  }
  lua_settop(L, top);
}

void
rs_output_open_host (lua_State *L)
{
  lua_pushcfunction(L, print_in_host);
  lua_setglobal(L, "print");
}
