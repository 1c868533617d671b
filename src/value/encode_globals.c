/* SPDX-License-Identifier: MIT */
/*
 * encode_globals.c - the globals that a function reads, to bytes.
 *
 * Globals travel with the cell of the environment, as names and values.  Each
 * name travels once in a message, with the first function that reads it; the
 * functions among the values bring what they read themselves.  A value that
 * cannot travel is left out, with all that came with it.
 *
 * Names are looked up raw: no code of a script runs.  A table that inherits
 * from others by '__index', as the sandboxes of test frameworks do, is
 * followed; a function as '__index' (strict.lua, say) is not called.
 *
 * The function of a module that was loaded from a file brings no globals: it
 * finds those that the module has made where that is loaded.
 *
 * To push a name allocates nothing, since the function has it as a constant,
 * but would let the collector take a step if one is due.  So the collector
 * gets an advance until the walk ends.
 */
#include "value/encoder.h"

#include "value/bytecode.h"
#include "value/module_function.h"
#include "value/scalar.h"

enum {
  SHORT_MAX = 40,          /* bytes of the longest string that Lua keeps once
                              only */
  TABLES_MAX = 16,         /* tables that inherit from each other */
  ADVANCE = 256 << 10      /* KiB */
};

/* [-0, +0, -]  Let the collector take no step until the end of the walk. */
static void
begin_advance (rs_encoder *e, lua_State *L)
{
  if (!e->advanced)
    lua_gc(L, LUA_GCSTEP, -ADVANCE);
  e->advanced = true;
}

void
rs_encoder_end_advance (rs_encoder *e, lua_State *L)
{
  if (e->advanced)
    lua_gc(L, LUA_GCSTEP, ADVANCE);
  e->advanced = false;
}

/* [-0, +1, -]  Push the field 'name', a stack index, of the table at 'env', or
   of one that it inherits from; or nil.  The userdata of names.c is at
   'home'. */
static void
push_global (lua_State *L, int home, int env, int name)
{
  const int top = lua_gettop(L);
  lua_pushvalue(L, env);
  for (int i = 0; i < TABLES_MAX && lua_type(L, top + 1) == LUA_TTABLE; i++) {
    lua_pushvalue(L, name);
    if (lua_rawget(L, top + 1) != LUA_TNIL) {
      lua_replace(L, top + 1);
      return;
    }
    lua_settop(L, top + 1);
    if (!lua_getmetatable(L, top + 1))
      break;
    lua_getiuservalue(L, home, RS_HOME_INDEX);
    lua_rawget(L, -2);
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
  }
  lua_pushnil(L);
  lua_replace(L, top + 1);
}

/* What is taken back when a value cannot travel. */
typedef struct origin {
  size_t size, later;
  unsigned flags, marks, transfers, next_id;
  int depth, top;
  const rs_open *open;
} origin;

/* [-?, +0, m]  Take back all since the origin. */
static void
take_back (rs_encoder *e, lua_State *L, const origin *o)
{
  lua_settop(L, o->top);
  e->open = o->open;
  e->depth = o->depth;
  e->transfers = o->transfers;
  e->flags = o->flags;
  e->later = o->later;
  if (e->marks > o->marks)
    rs_common_unmark(&e->marks, L, e->keep + 2, o->marks);
  e->next_id = o->next_id;
  rs_encoder_drop_from(e, o->next_id);
  rs_encoder_truncate(e, o->size);
  e->pending = 0;
  e->part = NULL;
  e->error[0] = '\0';
}

/* [-0, +0, -]  True when the value on top is one that no message is needed
   for: nil, or the environment itself. */
static bool
is_there (const rs_encoder *e, lua_State *L)
{
  const void *const object = lua_istable(L, -1) ? lua_topointer(L, -1) : NULL;
  return lua_isnil(L, -1)
      || (object != NULL && (object == e->globals || object == e->env));
}

/* [-0, +0, -]  Append the name and the value of the global whose name is on
   top, read in the table at 'env', and count it in '*n'. */
static int
encode_global (rs_encoder *e, lua_State *L, int env, uint32_t *n)
{
  const int name = lua_gettop(L);
  const origin from = { e->buf.size, e->later, e->flags, e->marks,
                        e->transfers, e->next_id, e->depth, name, e->open };
  bool found;
  /* No object has an odd address. */
  const char *const object = (const char *) lua_topointer(L, name) + 1;
  rs_seen *const seen = rs_encoder_see(e, object, &found);
  if (seen == NULL)
    return RS_ENOMEM;
  if (found)
    return RS_OK;
  push_global(L, e->home, env, name);
  if (is_there(e, L))
    return RS_OK;
  e->moved = true;
  if (!rs_put_scalar(&e->buf, L, name, LUA_TSTRING))
    return RS_ENOMEM;
  const int status = rs_encode_any(e, L, name + 1);
  if (status == RS_OK)
    ++*n;
  if (status != RS_EREFUSED)
    return status;
  take_back(e, L, &from);
  return rs_encoder_see(e, object, &found) != NULL ? RS_OK : RS_ENOMEM;
}

/* [-0, +0, -]  Append the globals whose names are in 'e->read' from 'from' to
   'end', and count them in '*n'. */
static int
encode_names (rs_encoder *e, lua_State *L, int env, size_t from, size_t end,
              uint32_t *n)
{
  const int top = lua_gettop(L);
  int status = RS_OK;
  if (top > e->stack && !rs_encoder_grow_stack(e, L))
    return RS_ENOMEM;
  for (size_t at = from; at < end && status == RS_OK; ) {
    size_t size;
    const char *const name = rs_bytecode_next(&e->read, &at, &size);
    if (size > SHORT_MAX && e->keep == 0) {
      e->careful = true;
      return RS_ERESTART;
    }
    begin_advance(e, L);
    lua_pushlstring(L, name, size);
    status = encode_global(e, L, env, n);
    lua_settop(L, top);
  }
  return status;
}

/* Append the names that the caller of the library has given.  They may be new
   to the state. */
static int
add_given_names (rs_encoder *e)
{
  if (e->keep == 0) {
    e->careful = true;
    return RS_ERESTART;
  }
  for (const char *const *name = e->names_given; *name != NULL; name++) {
    const size_t size = strlen(*name);
    rs_buf_add(&e->read, &size, sizeof size);
    rs_buf_add(&e->read, *name, size);
  }
  e->names_given = NULL;
  return RS_OK;
}

int
rs_encode_environment (rs_encoder *e, lua_State *L, int function, int env,
                       const unsigned char *dump, size_t size,
                       unsigned upvalue)
{
  const size_t from = e->read.size;
  rs_globals_read found = rs_bytecode_globals(dump, size, upvalue, &e->read);
  int status = RS_OK;
  if (e->read.size > from) {
    if (lua_gettop(L) > e->stack && !rs_encoder_grow_stack(e, L))
      return RS_ENOMEM;
    if (rs_is_module_function(L, e->home, function)) {
      e->read.size = from;
      found.known = false;
    }
  }
  if (e->names_given != NULL)
    status = add_given_names(e);
  if (status != RS_OK)
    return status;
  e->reads |= found.known;
  if (!found.plain && !e->tampers) {
    e->tampers = true;
    if (e->plain_at != 0 && !e->buf.failed)
      e->buf.data[e->plain_at] = false;
  }
  const size_t start = e->buf.size;
  uint32_t n = 0;
  if (e->read.size > from) {
    static const unsigned char head[6] = { RS_TAG_UPVALUE_GLOBALS };
    rs_buf_add(&e->buf, head, sizeof head);
    status = encode_names(e, L, env, from, e->read.size, &n);
  }
  status = e->read.failed || e->buf.failed ? RS_ENOMEM : status;
  e->read.size = from;
  if (status != RS_OK)
    return status;
  if (n == 0) {
    rs_encoder_truncate(e, start);
    rs_buf_byte(&e->buf, RS_TAG_UPVALUE_ENV);
    return RS_OK;
  }
  e->buf.data[start + 1] = !e->tampers;
  if (e->plain_at == 0)
    e->plain_at = start + 1;
  rs_wire_put32(e->buf.data + start + 2, n);
  return RS_OK;
}

bool
rs_globals_absent (lua_State *L, int env, const rs_buf *names)
{
  const int top = lua_gettop(L);
  bool absent = lua_checkstack(L, LUA_MINSTACK) && rs_home_try_push(L);
  for (size_t at = 0; at < names->size && absent; lua_settop(L, top + 1)) {
    size_t size;
    const char *const name = rs_bytecode_next(names, &at, &size);
    lua_pushlstring(L, name, size);
    push_global(L, top + 1, env, top + 2);
    absent = lua_isnil(L, -1);
  }
  lua_settop(L, top);
  return absent;
}

bool
rs_globals_list (lua_State *L, int index, rs_buf *names)
{
  rs_buf dump = RS_BUF_INIT;
  lua_pushvalue(L, index);
  lua_dump(L, rs_on_bytecode, &dump, 1);
  lua_pop(L, 1);
  rs_buf_clear(names);
  rs_bytecode_globals(dump.data, dump.size, 0, names);
  bool good = !dump.failed && !names->failed;
  rs_buf_fini(&dump);
  for (size_t at = 0; at < names->size && good; ) {
    size_t size;
    (void) rs_bytecode_next(names, &at, &size);
    good = size <= SHORT_MAX;
  }
  return good;
}
