/* SPDX-License-Identifier: MIT */
/*
 * encode_object.c - objects to bytes other than by their contents: by number,
 * by name, by '__transfer', by pointer.
 *
 * '__transfer' is code of the program, and its results are new objects: they
 * are kept until the end of the walk, so that no other object gets their
 * addresses.
 */
#include "value/encoder.h"

#include <lauxlib.h>

#include "base/defer.h"
#include "base/level.h"
#include "base/stack.h"
#include "value/mask.h"
#include "value/scalar.h"
#include "value/wire.h"

/* ------------------------------------------------------ numbers, names */

int
rs_encode_ref (rs_encoder *e, unsigned id)
{
  if (e->transfers > 0)  /* in results of '__transfer'? */
    for (const rs_open *o = e->open; o != NULL; o = o->outer)
      if (o->id == id && o->rebuilt)
        return rs_encoder_refuse(e, "cannot transfer a value whose"
                                    " '__transfer' leads back to it");
  unsigned char *const at = rs_buf_room(&e->buf, 1 + RS_WIRE_VARINT);
  if (at != NULL) {
    at[0] = RS_TAG_REF;
    e->buf.size += 1 + rs_put_varint(at + 1, id);
  }
  e->flags |= RS_MESSAGE_REFS;
  return RS_OK;
}

int
rs_encoder_later (rs_encoder *e, lua_State *L, int index, unsigned id)
{
  if (e->keep == 0) {  /* is the walk not protected yet? */
    e->careful = true;
    return RS_ERESTART;
  }
  rs_encoder_stop_collector(e, L);
  bool found;
  rs_seen *const seen = rs_encoder_see(e, lua_topointer(L, index), &found);
  if (seen == NULL)
    return RS_ENOMEM;
  seen->later = true;
  const lua_Integer at = 2 * (lua_Integer) e->later++;
  lua_pushvalue(L, index);
  lua_rawseti(L, e->keep + 1, at + 1);
  lua_pushinteger(L, (lua_Integer) id);
  lua_rawseti(L, e->keep + 1, at + 2);
  e->flags |= RS_MESSAGE_REFS;
  return RS_OK;
}

void
rs_encoder_name (rs_encoder *e, const rs_name *name, unsigned tag)
{
  if (tag == RS_TAG_NAMED)  /* can the receiver not do without it? */
    e->flags |= RS_MESSAGE_NAMES;
  rs_buf_byte(&e->buf, (unsigned char) tag);
  rs_buf_byte(&e->buf, (unsigned char) name->parts);
  for (unsigned i = 0; i < name->parts; i++) {
    rs_encoder_length(e, name->size[i]);
    rs_buf_add(&e->buf, name->part[i], name->size[i]);
  }
}

int
rs_encode_name (rs_encoder *e, lua_State *L, int index, int kind, bool *done)
{
  rs_name name;
  const int status = rs_names_find(&e->names, L, e->home, index, kind, &name);
  *done = status == RS_OK && name.parts > 0;
  if (*done && (e->forbidden & RS_MESSAGE_METHODS)
      && rs_name_is_library(&name))
    return rs_encoder_refuse(e, "cannot transfer a library %s",
                             rs_encoder_away(e));
  if (*done)
    rs_encoder_name(e, &name, RS_TAG_NAMED);
  return status;
}

/* ----------------------------------------------------------- __transfer */

int
rs_encoder_refuse_error (rs_encoder *e, lua_State *L, const char *what)
{
  if (lua_type(L, -1) == LUA_TSTRING)
    rs_encoder_refuse(e, "%s: %s", what, lua_tostring(L, -1));
  else
    rs_encoder_refuse(e, "%s: (error object is a %s value)", what,
                      luaL_typename(L, -1));
  lua_pop(L, 1);
  return RS_EREFUSED;
}

int
rs_encode_transfer (rs_encoder *e, lua_State *L, int index, int meta,
                    rs_open *open, bool *done)
{
  *done = false;
  const void *const class = lua_topointer(L, meta);
  if (rs_encoder_is_class(e, class))
    return RS_OK;
  lua_getiuservalue(L, e->home, RS_HOME_TRANSFER);
  if (lua_rawget(L, meta) == LUA_TNIL) {
    lua_pop(L, 1);
    e->class = (rs_class) { .object = class, .walk = e->walk };
    return RS_OK;
  }
  if (e->keep == 0) {  /* is the walk not protected yet? */
    e->careful = true;
    return RS_ERESTART;
  }
  /* '__transfer' may encode, too, and that takes more of the C stack than
     Lua's own functions. */
  if (rs_stack_low())
    return rs_encoder_refuse(e, "C stack overflow");
  const int base = lua_gettop(L) - 1;
  lua_pushvalue(L, index);
  e->transferred = true;
  if (e->quiet)  /* '__transfer' may make garbage */
    lua_gc(L, LUA_GCRESTART);
  bool stopped;
  const int code = rs_defer_pcall(L, 1, LUA_MULTRET, &stopped);
  if (e->quiet)
    lua_gc(L, LUA_GCSTOP);
  e->walk++;  /* strings may have been freed */
  if (stopped) {  /* raised when the callers, which have memory, are done */
    rs_defer_put_off(L);
    return rs_encoder_refuse(e, "interrupted");
  }
  if (code == LUA_ERRMEM)
    return RS_ENOMEM;
  if (code != LUA_OK)
    return rs_encoder_refuse_error(e, L, "'__transfer' failed");
  rs_level_room(L, LUA_MINSTACK, "message");
  if (lua_gettop(L) == base)
    lua_pushnil(L);
  if (lua_rawequal(L, base + 1, index)) {  /* shall it travel as it is? */
    lua_settop(L, base);
    return RS_OK;
  }
  if (lua_type(L, base + 1) != LUA_TFUNCTION) {
    lua_settop(L, base + 1);
    rs_buf_byte(&e->buf, RS_TAG_REPLACED);
  }
  else {
    const int n = lua_gettop(L) - base - 1;
    if (n > RS_WIRE_RESULTS)
      return rs_encoder_refuse(e, "'__transfer' returned more than %d values",
                               RS_WIRE_RESULTS);
    if (e->forbidden & RS_MESSAGE_CODE)
      return rs_encoder_refuse(e, "cannot transfer a call that rebuilds a"
                                  " value from here");
    e->flags |= RS_MESSAGE_CODE;
    rs_buf_byte(&e->buf, RS_TAG_REBUILD);
    rs_buf_byte(&e->buf, (unsigned char) n);
  }
  const int top = lua_gettop(L);
  for (int i = base + 1; i <= top; i++) {  /* alive, they keep their
                                              addresses */
    lua_pushvalue(L, i);
    lua_rawseti(L, e->keep, (lua_Integer) lua_rawlen(L, e->keep) + 1);
  }
  open->rebuilt = true;
  e->transfers++;
  for (int i = base + 1; i <= top; i++) {
    const int status = rs_encode_any(e, L, i);
    if (status == RS_EREFUSED)
      rs_encoder_inside_part(e, "result of '__transfer'");
    if (status != RS_OK)
      return status;
  }
  e->transfers--;
  lua_settop(L, base);
  *done = true;
  return RS_OK;
}

/* ------------------------------------------------- functions, userdata */

int
rs_encode_cfunction (rs_encoder *e, lua_State *L, int index)
{
  bool done;
  if (e->forbidden & RS_MESSAGE_METHODS)
    return rs_encoder_refuse(e, "cannot transfer a function %s: return what it"
                                " returns", rs_encoder_away(e));
  const int status = rs_encode_name(e, L, index, RS_NAMES_CFUNCTION, &done);
  if (status != RS_OK || done)
    return status;
  if (lua_getupvalue(L, index, 1) != NULL) {
    lua_pop(L, 1);
    return rs_encoder_refuse(e, "cannot transfer a C function with upvalues"
                                " that no loaded module has");
  }
  if (e->forbidden & RS_MESSAGE_LOCAL)
    return rs_encoder_refuse(e, "cannot transfer a C function that no loaded"
                                " module has to another process");
  e->flags |= RS_MESSAGE_LOCAL;
  const lua_CFunction f = lua_tocfunction(L, index);
  uint64_t bits = 0;
  memcpy(&bits, &f, sizeof f);
  rs_put_eight(&e->buf, RS_TAG_CFUNCTION, bits);
  return RS_OK;
}

int
rs_encode_userdata (rs_encoder *e, lua_State *L, int index, unsigned id)
{
  rs_open open;
  int status = rs_encoder_enter(e, L, &open, id);
  if (status != RS_OK)
    return status;
  const int top = lua_gettop(L);
  bool done = false;
  const char *name = NULL;
  if (lua_getmetatable(L, index)) {
    status = rs_encode_transfer(e, L, index, top + 1, &open, &done);
    if (status != RS_OK)
      return status;
    if (!done) {
      lua_getiuservalue(L, e->home, RS_HOME_NAME);
      if (lua_rawget(L, top + 1) == LUA_TSTRING)
        name = lua_tostring(L, -1);
    }
  }
  if (!done)
    return name == NULL
         ? rs_encoder_refuse(e, "cannot transfer a userdata")
         : rs_encoder_refuse(e, "cannot transfer a userdata (%s)", name);
  lua_settop(L, top);
  rs_encoder_leave(e);
  return RS_OK;
}

int
rs_encode_pointer (rs_encoder *e, lua_State *L, int index)
{
  const bool null = lua_touserdata(L, index) == NULL;  /* as 'cjson' has it */
  if ((e->forbidden & RS_MESSAGE_LOCAL) && !null)
    return rs_encoder_refuse(e, "cannot transfer a light userdata %s",
                             rs_encoder_away(e));
  if (!null)
    e->flags |= RS_MESSAGE_LOCAL;
  rs_put_eight(&e->buf, RS_TAG_POINTER, (uintptr_t) lua_touserdata(L, index));
  return RS_OK;
}
