/* SPDX-License-Identifier: MIT */
/*
 * lplace.c - where the handles of jobs stand.
 */
#include "face/lplace.h"

#include <assert.h>
#include <stdlib.h>

#include <lauxlib.h>

#include "runspace.h"

enum { ROW = 512 };  /* places in a row */

static rs_row *
row_of (const rs_places *p, unsigned place)
{
  return &p->rows[(place - 1) / ROW];
}

static lua_Integer
index_of (unsigned place)
{
  return (place - 1) % ROW + 1;
}

void
rs_places_open (lua_State *L, rs_places *p)
{
  *p = (rs_places) { .patience = ROW };
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  p->meta = luaL_ref(L, LUA_REGISTRYINDEX);
}

void
rs_places_close (rs_places *p)
{
  free(p->rows);
  free(p->vacant);
  *p = (rs_places) { .meta = LUA_NOREF };
}

/* Get memory for one more row.  Return false when there is none. */
static bool
reserve (rs_places *p)
{
  if (p->n_rows < p->rows_room)
    return true;
  const size_t n = p->rows_room > 0 ? 2 * p->rows_room : 1;
  unsigned *const vacant = realloc(p->vacant, n * ROW * sizeof *vacant);
  if (vacant != NULL)
    p->vacant = vacant;
  rs_row *const rows = realloc(p->rows, n * sizeof *rows);
  if (rows != NULL)
    p->rows = rows;
  if (vacant == NULL || rows == NULL)
    return false;
  p->rows_room = (unsigned) n;
  return true;
}

/* [-0, +0, m]  Add a row, where a row was dropped, or else at the end. */
static void
add_row (lua_State *L, rs_places *p)
{
  lua_createtable(L, ROW, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, p->meta);
  lua_setmetatable(L, -2);
  unsigned i = 0;
  if (p->room == p->n_rows * ROW)  /* was no row dropped? */
    i = p->n_rows;
  while (i < p->n_rows && p->rows[i].ref != LUA_NOREF)
    i++;
  if (i == p->n_rows && !reserve(p))
    luaL_error(L, "%s", rs_status_message(RS_ENOMEM));
  const rs_row row = { .ref = luaL_ref(L, LUA_REGISTRYINDEX) };
  p->rows[i] = row;
  p->n_rows += i == p->n_rows;
  p->room += ROW;
  for (unsigned place = (i + 1) * ROW; place > i * ROW; place--)
    p->vacant[p->n_vacant++] = place;
}

/* Drop rows that have no handle, until an eighth of the places is left. */
static void
drop_rows (lua_State *L, rs_places *p)
{
  const unsigned least = p->room / 8;
  for (unsigned i = 0; i < p->n_rows && p->room > least; i++) {
    rs_row *const row = &p->rows[i];
    if (row->ref == LUA_NOREF || row->used > 0)
      continue;
    luaL_unref(L, LUA_REGISTRYINDEX, row->ref);
    row->ref = LUA_NOREF;
    p->room -= ROW;
  }
  unsigned n = 0;
  for (unsigned i = 0; i < p->n_vacant; i++)
    if (row_of(p, p->vacant[i])->ref != LUA_NOREF)
      p->vacant[n++] = p->vacant[i];
  p->n_vacant = n;
}

unsigned
rs_place_take (lua_State *L, rs_places *p)
{
  if (p->meta == LUA_NOREF)
    luaL_error(L, "the Lua state is being closed: it has no more jobs");
  if (--p->patience == 0) {
    if (p->taken < p->room / 32)
      drop_rows(L, p);
    p->patience = p->room > ROW ? p->room : ROW;
  }
  while (p->n_vacant == 0)
    add_row(L, p);
  const unsigned place = p->vacant[--p->n_vacant];
  rs_row *const row = row_of(p, place);
  row->used++;
  p->taken++;
  lua_rawgeti(L, LUA_REGISTRYINDEX, row->ref);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, index_of(place));
  lua_pop(L, 1);
  return place;
}

void
rs_place_vacate (rs_places *p, unsigned place)
{
  if (p->meta == LUA_NOREF || place == 0)
    return;
  assert(place < rs_places_end(p) && row_of(p, place)->used > 0);
  row_of(p, place)->used--;
  p->taken--;
  p->vacant[p->n_vacant++] = place;
}

int
rs_place_push (lua_State *L, const rs_places *p, unsigned place)
{
  if (place == 0 || place >= rs_places_end(p)
      || row_of(p, place)->ref == LUA_NOREF) {
    lua_pushnil(L);
    return LUA_TNIL;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, row_of(p, place)->ref);
  const int type = lua_rawgeti(L, -1, index_of(place));
  lua_remove(L, -2);
  return type;
}

unsigned
rs_places_end (const rs_places *p)
{
  return p->n_rows * ROW + 1;
}
