/* SPDX-License-Identifier: MIT */
/*
 * refuse.c - tell which value cannot travel, by the path to it.
 *
 * A refusal unwinds the walk, and each level puts its part in front of the
 * path in 'error'.  First come fields, which are collected as ".a.b[3]", then
 * the objects that have these fields.
 */
#include "value/encoder.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

#include "base/escape.h"

/* Bytes of 'error' that the reason may take, and the reason with the fields in
   front of it; the rest is for the objects that have the fields. */
enum { REASON_MAX = 200, FIELDS_MAX = 320 };

enum { KEY_MAX = 43 };  /* bytes of a key that are shown */

/* Insert 'text' into the error at offset 'at'; "..." if there is no room. */
static void
insert (rs_encoder *e, size_t at, const char *text)
{
  const size_t size = strlen(e->error);
  size_t n = strlen(text);
  if (size + n >= sizeof e->error) {
    text = "...";
    n = 3;
    if (size + n >= sizeof e->error || strncmp(e->error + at, text, n) == 0)
      return;
  }
  memmove(e->error + at + n, e->error + at, size - at + 1);
  memcpy(e->error + at, text, n);
}

/* Put 'text' in front of the path of fields. */
static void
insert_field (rs_encoder *e, const char *text)
{
  const size_t size = strlen(e->error);
  if (strncmp(e->error, "...", 3) == 0)  /* is the path too long already? */
    return;
  if (size + strlen(text) > FIELDS_MAX)
    text = e->error[0] == '.' ? ".." : "...";
  insert(e, 0, text);
  e->pending += strlen(e->error) - size;
}

int
rs_encoder_refuse (rs_encoder *e, const char *format, ...)
{
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(e->error, REASON_MAX, format, arguments);
  va_end(arguments);
  e->pending = 0;
  e->part = NULL;
  return RS_EREFUSED;
}

/* Complete the path so far: ".a.b[3]" becomes "field 'a.b[3]': ". */
void
rs_encoder_end_path (rs_encoder *e)
{
  if (e->pending > 0) {
    insert(e, e->pending, "': ");
    if (e->error[0] == '.' && e->error[1] != '.')
      memmove(e->error, e->error + 1, strlen(e->error));
    e->pending = 0;
    insert(e, 0, "field '");
    if (e->part != NULL)
      insert(e, 0, " of ");
  }
  else if (e->part != NULL)
    insert(e, 0, " of the value: ");
  if (e->part != NULL)
    insert(e, 0, e->part);
  e->part = NULL;
}

void
rs_encoder_inside_deep (rs_encoder *e)
{
  if (e->pending > 0)
    insert_field(e, e->error[0] == '.' ? ".." : "...");
}

/* Tell that the refused value is in the 'part' of a value, such as its
   "key". */
void
rs_encoder_inside_part (rs_encoder *e, const char *part)
{
  rs_encoder_end_path(e);
  e->part = part;
}

void
rs_encoder_inside (rs_encoder *e, const char *where)
{
  rs_encoder_end_path(e);
  insert(e, 0, ": ");
  insert(e, 0, where);
}

static bool
is_identifier (const char *s, size_t size)
{
  for (size_t i = 0; i < size; i++) {
    const char c = s[i];
    const bool letter =
      (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    if (!letter && (i == 0 || c < '0' || c > '9'))
      return false;
  }
  return size > 0;
}

/* [-0, +0, -]  Tell that the refused value is the field whose key is at
   'index'. */
void
rs_encoder_inside_field (rs_encoder *e, lua_State *L, int index)
{
  char text[200];
  switch (lua_type(L, index)) {
    case LUA_TSTRING: {
      size_t size;
      const char *const s = lua_tolstring(L, index, &size);
      const char *const format =
        is_identifier(s, size) ? ".%s%s" : "[\"%s%s\"]";
      char start[4 * KEY_MAX + 1];
      size_t n = size <= KEY_MAX ? size : KEY_MAX;
      while (n < size && n > KEY_MAX - 3
             && ((unsigned char) s[n] & 0xc0) == 0x80)
        n--;  /* cut before a character, not inside */
      rs_escape(s, n, start, sizeof start);
      snprintf(text, sizeof text, format, start, n < size ? "..." : "");
      break;
    }
    case LUA_TNUMBER:
      if (lua_isinteger(L, index))
        snprintf(text, sizeof text, "[%lld]",
                 (long long) lua_tointegerx(L, index, NULL));
      else
        snprintf(text, sizeof text, "[%.14g]",
                 (double) lua_tonumberx(L, index, NULL));
      break;
    case LUA_TBOOLEAN:
      snprintf(text, sizeof text, "[%s]",
               lua_toboolean(L, index) ? "true" : "false");
      break;
    default:
      snprintf(text, sizeof text, "[a %s]", luaL_typename(L, index));
  }
  insert_field(e, text);
}
