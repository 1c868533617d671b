/* SPDX-License-Identifier: MIT */
/*
 * code.c - functions and sources as messages.
 */
#include "value/code.h"

#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

#include "base/status.h"
#include "value/encoder.h"

/* [-0, +0, -]  Check that the value at 'index' is a function, or source text
   without errors. */
static int
check (lua_State *L, int index, rs_error *err)
{
  if (lua_type(L, index) == LUA_TFUNCTION)
    return RS_OK;
  if (lua_type(L, index) != LUA_TSTRING)
    return rs_fail(err, RS_EINVAL, "function or source text expected, got %s",
                   lua_typename(L, lua_type(L, index)));
  size_t size;
  const char *const source = lua_tolstring(L, index, &size);
  if (size > 0 && source[0] == LUA_SIGNATURE[0])
    return rs_fail(err, RS_EINVAL, "bytecode in a string is refused: pass "
                                   "the function itself, or source text");
  const int code = luaL_loadbufferx(L, source, size, "=(chunk)", "t");
  int status = RS_OK;
  if (code == LUA_ERRMEM)
    status = rs_fail_plain(err, RS_ENOMEM);
  else if (code != LUA_OK)
    status = rs_fail(err, RS_EINVAL, "%s", lua_tostring(L, -1));
  lua_pop(L, 1);
  return status;
}

/*
 * [-0, +0, -]  Append the 'n' values from 'first' on.  A refusal calls the
 * values after the first 'unnamed' ones "argument 1" and so on.
 */
static int
append (rs_encoder *e, lua_State *L, int first, int n, int unnamed,
        rs_error *err)
{
  int status = RS_OK;
  for (int i = 0; i < n && status == RS_OK; i++) {
    status = rs_encode_value(e, L, first + i, NULL);
    if (status == RS_EREFUSED && i >= unnamed) {
      char root[32];
      snprintf(root, sizeof root, "argument %d", i + 1 - unnamed);
      rs_encoder_inside(e, root);
    }
  }
  if (status == RS_ENOMEM)
    rs_fail_plain(err, status);
  else if (status != RS_OK)
    rs_fail(err, status, "%s", e->error);
  return status;
}

/* An empty list is as good as none. */
static const char *const *
simplify (const char *const *globals)
{
  return globals == NULL || globals == RS_NO_GLOBALS || globals[0] != NULL
       ? globals : NULL;
}

/* Let the encoder send the globals that functions read, and those of the
   list. */
static void
set_globals (rs_encoder *e, const char *const *globals)
{
  e->gives = globals != RS_NO_GLOBALS;
  e->names_given = e->gives ? globals : NULL;
}

/* [-0, +0, -]  Make a message of the 'n' values from 'first' on.  With a
   function in front ('unnamed' is 1), items and results may name the tables of
   the message.  'found' becomes what 'rs_outbox_keep' asks for. */
static int
encode (lua_State *L, int first, int n, int unnamed, unsigned forbidden,
        const char *const *globals, const rs_common *common, rs_message **out,
        rs_outbox_globals *found, rs_error *err)
{
  rs_message *message = NULL;
  rs_encoder e;
  rs_encoder_init(&e, forbidden);
  set_globals(&e, globals);
  if (common != NULL)
    e.common = *common;
  e.marking = e.names.anew = unnamed > 0;
  int status = append(&e, L, first, n, unnamed, err);
  *found = !e.gives || globals != NULL || e.moved ? RS_GLOBALS_SENT
         : e.reads ? RS_GLOBALS_ABSENT : RS_GLOBALS_NONE;
  if (status == RS_OK && (message = rs_encoder_end(&e)) == NULL)
    status = rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK && rs_common_keep(&e.marks, L, message) != RS_OK)
    status = rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK)
    *out = message;
  else {
    rs_common_drop(&e.marks, L);
    rs_message_unref(message);
  }
  rs_encoder_fini(&e);
  return status;
}

int
rs_code_encode_function (rs_outbox *o, lua_State *L, int index,
                         unsigned forbidden, const char *const *globals,
                         rs_message **function, rs_error *err)
{
  rs_outbox_globals found;
  globals = simplify(globals);
  rs_message *const known = globals == NULL
                          ? rs_outbox_find(o, L, index, forbidden) : NULL;
  if (known != NULL) {
    *function = known;
    return RS_OK;
  }
  int status = check(L, index, err);
  if (status == RS_OK)
    status = encode(L, index, 1, 1, forbidden, globals, NULL, function,
                    &found, err);
  if (status == RS_OK && found != RS_GLOBALS_SENT)
    rs_outbox_keep(o, L, index, *function, found == RS_GLOBALS_ABSENT);
  return status;
}

int
rs_code_encode_arguments (rs_outbox *o, lua_State *L, int first, int n,
                          void *room, size_t size, unsigned forbidden,
                          const char *const *globals,
                          const rs_message *function, rs_message **arguments,
                          rs_error *err)
{
  rs_outbox_globals found;
  *arguments = NULL;
  if (n == 0)
    return RS_OK;
  *arguments = rs_encode_small(L, first, n, room, size);
  if (*arguments != NULL)
    return RS_OK;  /* a scalar is of no kind that may be forbidden */
  const rs_common common = rs_common_of(L, function);
  rs_encoder *const e = rs_outbox_borrow(o);
  if (e == NULL)  /* called by '__transfer' of other arguments? */
    return encode(L, first, n, 0, forbidden, globals, &common, arguments,
                  &found, err);
  e->forbidden = forbidden;
  e->gives = globals != RS_NO_GLOBALS;
  e->common = common;
  int status = append(e, L, first, n, 0, err);
  if (status == RS_OK) {
    *arguments = rs_encoder_message_at(e, room, size);
    if (*arguments == NULL)
      status = rs_fail_plain(err, RS_ENOMEM);
  }
  if (status != RS_OK)
    rs_encoder_clear(e);
  e->common = (rs_common) { .sent = NULL };
  rs_outbox_return(o);
  return status;
}

int
rs_code_encode (lua_State *L, int nargs, unsigned forbidden,
                const char *const *globals, rs_message **message,
                rs_error *err)
{
  rs_outbox_globals found;
  const int base = lua_gettop(L) - nargs - 1;
  rs_outbox *const o = rs_outbox_of(L);
  int status = o != NULL ? RS_OK : rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK && nargs == 0) {
    status = rs_code_encode_function(o, L, base + 1, forbidden, globals,
                                     message, err);
    if (status == RS_OK && (*message)->constant)
      rs_message_ref(*message);
  }
  else if (status == RS_OK) {
    status = check(L, base + 1, err);
    if (status == RS_OK)
      status = encode(L, base + 1, nargs + 1, 1, forbidden, simplify(globals),
                      NULL, message, &found, err);
  }
  lua_settop(L, base);
  return status;
}
