/* SPDX-License-Identifier: MIT */
/*
 * function.c - Lua functions: bytecode, upvalues, environment.
 *
 * An upvalue is a cell that closures may share.  The first closure that has a
 * cell brings the value of the cell along; later closures tell which upvalue
 * of which function it was.  The encoder notes a cell before it encodes the
 * value, so a function that is its own upvalue ends the walk.
 *
 * A cell named '_ENV' is special when its value is the environment, or a table
 * that inherits from another one, as the sandboxes of test frameworks do.  All
 * such cells are joined to the one that the receiving state keeps (names.c).
 */
#include "value/encoder.h"

#include <stdio.h>

#include <lauxlib.h>

#include "value/decoder.h"
#include "value/wire.h"

/* ------------------------------------------------------------- encoding */

int
rs_on_bytecode (lua_State *L, const void *bytes, size_t n, void *user)
{
  (void) L;
  rs_buf *const buf = user;
  rs_buf_add(buf, bytes, n);
  return buf->failed;
}

/* [-0, +0, -]  Add to the path of a refusal: the refused value is in the
   upvalue 'name' of the function at 'index'. */
static void
inside_upvalue (rs_encoder *e, lua_State *L, int index, const char *name)
{
  char text[160];
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">S", &ar);
  if (ar.linedefined > 0)
    snprintf(text, sizeof text, "upvalue '%.40s' of function <%s:%d>", name,
             ar.short_src, ar.linedefined);
  else
    snprintf(text, sizeof text, "upvalue '%.40s' of the main chunk of %s",
             name, ar.short_src);
  rs_encoder_inside(e, text);
}

/* True when the upvalue 'name', whose value is on top, is the environment. */
static bool
is_environment (const rs_encoder *e, lua_State *L, const char *name)
{
  /* An upvalue without debug information may be '_ENV'. */
  if (strcmp(name, "_ENV") != 0 && strcmp(name, "(no name)") != 0)
    return false;
  if (lua_type(L, -1) != LUA_TTABLE)
    return false;
  const void *const table = lua_topointer(L, -1);
  if (table == e->globals || table == e->env)
    return true;
  /* A table that inherits from another one is a sandbox, and stands for the
     globals, which do not travel either.  A plain table is all that the
     function can see, and travels. */
  const bool inherits = name[0] == '_' && lua_getmetatable(L, -1);
  if (inherits)
    lua_pop(L, 1);
  return inherits;
}

/* The bytecode of a function. */
typedef struct bytecode {
  const rs_buf *buf;
  size_t at, size;
} bytecode;

/* [-0, +0, -]  Append upvalue 'i' of the function at 'index'. */
static int
encode_upvalue (rs_encoder *e, lua_State *L, int index, unsigned id, int i,
                const bytecode *code)
{
  const char *const name = lua_getupvalue(L, index, i);
  const int value = lua_gettop(L);
  int status = RS_OK;
  if (is_environment(e, L, name)) {
    if (e->gives)
      status = rs_encode_environment(e, L, index, value,
                                     code->buf->data + code->at, code->size,
                                     (unsigned) i - 1);
    else
      rs_buf_byte(&e->buf, RS_TAG_UPVALUE_ENV);
  }
  else {
    bool found;
    rs_seen *const cell =
      rs_encoder_see(e, lua_upvalueid(L, index, i), &found);
    if (cell == NULL)
      return RS_ENOMEM;
    if (found) {
      rs_buf_byte(&e->buf, RS_TAG_UPVALUE_SHARED);
      rs_encoder_length(e, cell->id);
      rs_buf_byte(&e->buf, (unsigned char) cell->upvalue);
      e->flags |= RS_MESSAGE_REFS;
    }
    else {
      cell->id = id;
      cell->upvalue = i & 0xff;
      status = rs_encode_any(e, L, value);
      if (status == RS_EREFUSED)
        inside_upvalue(e, L, index, name);
    }
  }
  lua_settop(L, value - 1);
  return status;
}

int
rs_encode_upvalues (rs_encoder *e, lua_State *L, int index, unsigned id)
{
  rs_open open;
  int status = rs_encoder_enter(e, L, &open, id);
  if (status != RS_OK)
    return status;
  rs_buf dump = RS_BUF_INIT;  /* the message has the bytecode somewhere */
  if (e->gives) {
    lua_pushvalue(L, index);
    lua_dump(L, rs_on_bytecode, &dump, 1);
    lua_pop(L, 1);
  }
  const bytecode code = { &dump, 0, dump.size };
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">u", &ar);
  status = dump.failed ? RS_ENOMEM : RS_OK;
  for (int i = 1; i <= ar.nups && status == RS_OK; i++)
    status = encode_upvalue(e, L, index, id, i, &code);
  rs_buf_fini(&dump);
  if (status == RS_OK)
    rs_encoder_leave(e);
  return status;
}

/* [-0, +0, -]  Append the function at 'index' as a field of a table that both
   sides have, if it is one.  The receiver may make a copy, so the function
   keeps its number as an object. */
static bool
put_common (rs_encoder *e, lua_State *L, int index)
{
  if (e->depth >= RS_WIRE_DEPTH)  /* no object fits */
    return false;
  const lua_Integer n = rs_common_find_function(&e->common, L, index);
  if (n == 0)
    return false;
  rs_buf_byte(&e->buf, RS_TAG_REPLACED);
  rs_buf_byte(&e->buf, RS_TAG_COMMON_FUNCTION);
  rs_encoder_length(e, (size_t) n);
  rs_put_scalar(&e->buf, L, -1, lua_type(L, -1));
  e->flags |= RS_MESSAGE_COMMON;
  lua_pop(L, 1);
  return true;
}

int
rs_encode_function (rs_encoder *e, lua_State *L, int index, unsigned id)
{
  if (e->forbidden & RS_MESSAGE_CODE)
    return e->forbidden & RS_MESSAGE_METHODS
         ? rs_encoder_refuse(e, "cannot transfer a function %s: return what it"
                                " returns", rs_encoder_away(e))
         : rs_encoder_refuse(e, "cannot transfer a function from here");
  if ((e->common.functions & rs_common_bit(lua_topointer(L, index)))
      && put_common(e, L, index))
    return RS_OK;
  rs_open open;
  int status = rs_encoder_enter(e, L, &open, id);
  if (status != RS_OK)
    return status;
  e->flags |= RS_MESSAGE_CODE;
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">u", &ar);
  const bool deep = ar.nups > 0 && rs_encoder_is_deep(e);
  if (deep && (status = rs_encoder_later(e, L, index, id)) != RS_OK)
    return status;
  static const unsigned char size[4];
  rs_buf_byte(&e->buf, deep ? RS_TAG_FUNCTION_LATER : RS_TAG_FUNCTION);
  rs_buf_byte(&e->buf, ar.nups);
  rs_buf_add(&e->buf, size, sizeof size);
  const size_t start = e->buf.size;
  lua_pushvalue(L, index);
  lua_dump(L, rs_on_bytecode, &e->buf, 0);
  lua_pop(L, 1);
  if (e->buf.failed || e->buf.size - start > UINT32_MAX)
    return RS_ENOMEM;
  const bytecode code = { &e->buf, start, e->buf.size - start };
  rs_wire_put32(e->buf.data + start - sizeof size, (uint32_t) code.size);
  for (int i = 1; i <= ar.nups && !deep; i++) {
    status = encode_upvalue(e, L, index, id, i, &code);
    if (status != RS_OK)
      return status;
  }
  rs_encoder_leave(e);
  return RS_OK;
}

/* ------------------------------------------------------------- decoding */

/* [-0, +0, e]  Read the globals that stand behind an upvalue, and give them to
   the environment. */
static void
decode_globals (rs_decoder *d, lua_State *L)
{
  const bool plain = rs_decoder_byte(d, L) != 0;
  rs_decoder_need(d, L, 4);
  uint32_t n = rs_wire_get32(d->data + d->at);
  d->at += 4;
  d->upvalue = 0;
  for (; n > 0; n--) {
    rs_decode_any(d, L);
    if (lua_type(L, -1) != LUA_TSTRING)
      rs_decoder_bad(d, L, "a global without a name");
    rs_decode_any(d, L);
    rs_env_give(L, plain);
  }
}

/* [-0, +0, e]  Join upvalue 'i' of the function at 'index' to the cell that
   the message tells. */
static void
join (rs_decoder *d, lua_State *L, int index, int i)
{
  rs_decoder_ref(d, L);
  const int n = (int) rs_decoder_byte(d, L);
  if (lua_type(L, -1) != LUA_TFUNCTION || lua_iscfunction(L, -1)
      || lua_getupvalue(L, -1, n) == NULL)
    rs_decoder_bad(d, L, "no such upvalue");
  lua_pop(L, 1);
  lua_upvaluejoin(L, index, i, -1, n);
  lua_pop(L, 1);
}

void
rs_decode_upvalues (rs_decoder *d, lua_State *L)
{
  lua_Debug ar;
  const int function = lua_gettop(L);
  lua_pushvalue(L, function);
  lua_getinfo(L, ">u", &ar);
  for (int i = 1; i <= ar.nups; i++) {
    rs_decoder_need(d, L, 1);
    switch (d->data[d->at]) {
      case RS_TAG_UPVALUE_ENV:
      case RS_TAG_UPVALUE_GLOBALS:
        lua_pushvalue(L, function);
        rs_env_join_upvalue(L, i);
        lua_pop(L, 1);
        if (d->data[d->at++] == RS_TAG_UPVALUE_GLOBALS)
          decode_globals(d, L);
        break;
      case RS_TAG_UPVALUE_SHARED:
        d->at++;
        join(d, L, function, i);
        break;
      default:
        d->function = function;
        d->upvalue = i;
        rs_decode_any(d, L);
        lua_setupvalue(L, function, i);
    }
  }
  d->upvalue = 0;
}

void
rs_decode_function (rs_decoder *d, lua_State *L, unsigned tag)
{
  if ((d->forbidden & RS_MESSAGE_CODE) || !(d->flags & RS_MESSAGE_CODE))
    rs_decoder_bad(d, L, "bytecode is not accepted here");
  const unsigned id = rs_decoder_enter(d, L);
  const unsigned upvalues = rs_decoder_byte(d, L);
  rs_decoder_need(d, L, 4);
  const size_t size = rs_wire_get32(d->data + d->at);
  d->at += 4;
  rs_decoder_need(d, L, size);
  const int code = luaL_loadbufferx(L, (const char *) d->data + d->at, size,
                                    "=message", "b");
  if (code == LUA_ERRMEM)
    lua_error(L);
  if (code != LUA_OK)
    rs_decoder_bad(d, L, lua_tostring(L, -1));
  d->at += size;
  lua_Debug ar;
  lua_pushvalue(L, -1);
  lua_getinfo(L, ">u", &ar);
  if (ar.nups != upvalues)
    rs_decoder_bad(d, L, "wrong number of upvalues");
  rs_decoder_register(d, L, id);
  /* Let the collector take a step.  To load bytecode allocates without one, so
     a runspace that is sent nothing but functions would never collect them. */
  lua_gc(L, LUA_GCSTEP, 1);
  if (tag == RS_TAG_FUNCTION)
    rs_decode_upvalues(d, L);
  else
    rs_decoder_later(d, L);
  rs_decoder_leave(d);
}
