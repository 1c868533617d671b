/* SPDX-License-Identifier: MIT */
/*
 * encoder.c - Lua values to bytes.
 *
 * An encoder walks over the value, depth first, with raw access only.  The
 * walk allocates nothing in the Lua state, so no finalizer runs and no table
 * changes under 'lua_next'.  Therefore no call can raise either, and the walk
 * needs no protected call.
 *
 * Three cases allocate: '__transfer', which is code of the program, objects
 * that are nested too deep, and marks.  The first one that is met ends the
 * walk.  The walk then begins again inside a protected call, as do the walks
 * of all later values of this encoder.  The walk begins again, too, when a
 * table that was sent by its contents proves to be a class that both sides
 * have (encode_table.c).
 */
#include "value/encoder.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/defer.h"
#include "base/large.h"
#include "base/options.h"
#include "base/status.h"
#include "value/scalar.h"
#include "value/wire.h"

/* A message of so many bytes, or more, takes the buffer over without a
   copy. */
enum { HAND_OVER_FROM = 16384 };

/* A message in the encoder's memory may have so many bytes too many. */
enum { SPARE_MAX = 96 };

enum { PREFIX = RS_ENCODER_PREFIX };

/* ----------------------------------------------------------- appending */

void
rs_encoder_truncate (rs_encoder *e, size_t size)
{
  e->buf.size = size;
  if (e->plain_at >= size)
    e->plain_at = 0;
  rs_shapes_truncate(e->shapes, size);
}

void
rs_encoder_length (rs_encoder *e, size_t n)
{
  unsigned char *const at = rs_buf_room(&e->buf, RS_WIRE_VARINT);
  if (at != NULL)
    e->buf.size += rs_put_varint(at, n);
}

void
rs_encoder_drop_from (rs_encoder *e, unsigned id)
{
  e->class.object = NULL;
  rs_identities_drop_from(&e->seen, id);
}

bool
rs_encoder_grow_stack (rs_encoder *e, lua_State *L)
{
  enum { AHEAD = 40 };
  if (!lua_checkstack(L, LUA_MINSTACK + AHEAD))
    return lua_checkstack(L, LUA_MINSTACK);
  e->stack = lua_gettop(L) + AHEAD;
  return true;
}

/* ---------------------------------------------------------------- walks */

int
rs_encode_any (rs_encoder *e, lua_State *L, int index)
{
  const int type = lua_type(L, index);
  if (rs_put_scalar(&e->buf, L, index, type))
    return RS_OK;
  if (type == LUA_TTABLE)
    return rs_encode_table(e, L, index);
  if (type == LUA_TLIGHTUSERDATA)
    return rs_encode_pointer(e, L, index);
  if (type != LUA_TFUNCTION && type != LUA_TUSERDATA)
    return rs_encoder_refuse(e, "cannot transfer a %s",
                             lua_typename(L, type));
  bool found;
  const rs_seen *const seen =
    rs_encoder_see(e, lua_topointer(L, index), &found);
  if (seen == NULL)
    return RS_ENOMEM;
  if (found)
    return rs_encode_ref(e, seen->id);
  const unsigned id = e->next_id++;
  return type == LUA_TUSERDATA ? rs_encode_userdata(e, L, index, id)
       : lua_iscfunction(L, index) ? rs_encode_cfunction(e, L, index)
       : rs_encode_function(e, L, index, id);
}

void
rs_encoder_stop_collector (rs_encoder *e, lua_State *L)
{
  if (!e->quiet && lua_gc(L, LUA_GCISRUNNING)) {
    lua_gc(L, LUA_GCSTOP);
    e->quiet = true;
  }
}

/* (walk, value)  The stack slots of a protected walk, which may call
   '__transfer', and keeps objects that are nested too deep, and marks. */
enum { WALK = 1, VALUE, HOME, KEEP, LATER, MARKS };

_Static_assert(MARKS == KEEP + 2, "the others count from KEEP");

/* [-0, +0, m]  Append the contents of objects that were nested too deep, in
   the order in which these were met. */
static int
encode_rest (rs_encoder *e, lua_State *L)
{
  const int top = lua_gettop(L);
  for (size_t i = 0; i < e->later; i++) {
    const lua_Integer at = 2 * (lua_Integer) i;
    lua_rawgeti(L, LATER, at + 2);
    const unsigned id = (unsigned) lua_tointegerx(L, -1, NULL);
    const int type = lua_rawgeti(L, LATER, at + 1);
    const int status = type == LUA_TTABLE
                     ? rs_encode_table_later(e, L, top + 2, id)
                     : rs_encode_upvalues(e, L, top + 2, id);
    if (status == RS_EREFUSED)
      rs_encoder_inside_deep(e);
    if (status != RS_OK)
      return status;
    bool found;
    rs_seen *const seen = rs_encoder_see(e, lua_topointer(L, top + 2), &found);
    if (seen == NULL)
      return RS_ENOMEM;
    seen->later = false;
    lua_settop(L, top);
  }
  return RS_OK;
}

typedef struct walk {
  rs_encoder *e;
  rs_progress progress;
} walk;

static int
walk_body (lua_State *L)
{
  walk *const w = lua_touserdata(L, WALK);
  rs_encoder *const e = w->e;
  w->progress = RS_BEGUN;
  rs_home_push(L);
  lua_newtable(L);
  lua_newtable(L);
  if (e->marking)
    rs_common_push_marks(&e->marks, L);
  e->home = HOME;
  e->keep = KEEP;
  e->stack = 0;
  e->status = rs_encode_any(e, L, VALUE);
  if (e->status == RS_OK && e->later > 0)
    e->status = encode_rest(e, L);
  w->progress = RS_DONE;
  return 0;
}

/* [-0, +0, -]  Walk over the value at 'index' in a protected call. */
static int
walk_protected (rs_encoder *e, lua_State *L, int index)
{
  walk w = { e, RS_NOT_BEGUN };
  const int code = rs_defer_call(L, walk_body, &w, index, &w.progress);
  rs_encoder_end_advance(e, L);
  if (e->quiet)
    lua_gc(L, LUA_GCRESTART);
  e->quiet = false;
  if (code == LUA_OK)
    return e->status;
  if (code == LUA_ERRMEM)
    return RS_ENOMEM;
  return rs_encoder_refuse_error(e, L, "cannot transfer a value that changes"
                                       " while '__transfer' runs");
}

/* ------------------------------------------------------------ the encoder */

void
rs_encoder_init (rs_encoder *e, unsigned forbidden)
{
  e->buf = (rs_buf) RS_BUF_INIT;
  e->forbidden = forbidden;
  e->walk = 0;
  e->class = (rs_class) { .object = NULL };
  e->shapes = e->shape = NULL;
  e->seen = (rs_identities) RS_IDENTITIES_INIT;
  e->names = (rs_names) { .known = NULL };
  e->common = (rs_common) { .sent = NULL };
  e->marking = false;
  e->marks = 0;
  e->gives = false;
  e->names_given = NULL;
  e->read = (rs_buf) RS_BUF_INIT;
  e->home = 0;
  e->quiet = e->advanced = false;
  rs_encoder_clear(e);
}

void
rs_encoder_fini (rs_encoder *e)
{
  rs_buf_fini(&e->buf);
  free(e->shapes);
  rs_identities_fini(&e->seen);
  rs_names_fini(&e->names);
  rs_buf_fini(&e->read);
  rs_encoder_init(e, e->forbidden);
}

void
rs_encoder_clear (rs_encoder *e)
{
  rs_buf_clear(&e->buf);
  rs_shapes_truncate(e->shapes, 0);
  e->packed = (rs_packed) { .tag = 0 };
  e->packs = false;
  e->flags = 0;
  e->next_id = 0;
  e->careful = false;
  e->reads = e->moved = e->tampers = false;
  e->plain_at = 0;
  rs_names_clear(&e->names);
  e->status = RS_OK;
  e->pending = 0;
  e->part = NULL;
  e->error[0] = '\0';
  rs_encoder_forget(e);
}

void
rs_encoder_forget (rs_encoder *e)
{
  rs_identities_forget(&e->seen);
}

void
rs_encoder_start (rs_encoder *e)
{
  if (e->buf.size > 0 || !rs_buf_reserve(&e->buf, PREFIX + RS_WIRE_HEADER))
    return;
  memset(e->buf.data, 0, PREFIX);
  rs_wire_put_header(e->buf.data + PREFIX);
  e->buf.size = PREFIX + RS_WIRE_HEADER;
}

void
rs_encoder_rewind (rs_encoder *e, const rs_mark *mark)
{
  rs_encoder_truncate(e, mark->size);
  e->buf.failed = false;  /* only bytes after the mark were lost */
  e->next_id = mark->next_id;
  e->packed = mark->packed;
  rs_encoder_forget(e);
}

void
rs_encoder_raw (rs_encoder *e, const void *bytes, size_t n)
{
  rs_packed_end(&e->packed, &e->buf);
  rs_buf_add(&e->buf, bytes, n);
}

void
rs_encoder_nil (rs_encoder *e)
{
  rs_packed_end(&e->packed, &e->buf);
  rs_put_nil(&e->buf);
}

void
rs_encoder_string (rs_encoder *e, const char *text, size_t size)
{
  rs_encoder_start(e);
  rs_packed_end(&e->packed, &e->buf);
  rs_put_string(&e->buf, text, size);
}

/* [-0, +0, -]  Append the value at 'index', which is not a scalar. */
static int
encode_composite (rs_encoder *e, lua_State *L, int index)
{
  const int top = lua_gettop(L);
  index = lua_absindex(L, index);
  if (!lua_checkstack(L, LUA_MINSTACK) || !rs_home_try_push(L))
    return RS_ENOMEM;
  if (e->seen.passing)
    rs_identities_drop_passing(&e->seen);
  const size_t size = e->buf.size;
  const unsigned flags = e->flags;
  const unsigned id = e->next_id;
  e->walk++;
  e->home = top + 1;
  e->keep = 0;
  e->first_id = id;
  e->transferred = false;
  e->env = rs_home_env(L, e->home);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  e->globals = lua_topointer(L, -1);
  lua_pop(L, 1);
  int status;
  do {
    e->open = NULL;
    e->depth = 0;
    e->transfers = 0;
    e->stack = 0;
    e->later = 0;
    status = e->careful ? walk_protected(e, L, index)
                        : rs_encode_any(e, L, index);
    if (e->buf.failed)
      status = RS_ENOMEM;
    lua_settop(L, top + 1);
    if (status == RS_OK)
      break;
    rs_encoder_truncate(e, size);
    rs_buf_clear(&e->read);
    e->buf.failed = false;
    e->flags = flags;
    e->next_id = id;
    rs_encoder_drop_from(e, id);
  } while (status == RS_ERESTART);
  e->transfers = 0;
  e->open = NULL;
  e->home = 0;
  lua_settop(L, top);
  rs_encoder_end_advance(e, L);
  return status;
}

int
rs_encode_one (rs_encoder *e, lua_State *L, int index, const char *root)
{
  if (e->home != 0) {  /* called by '__transfer' of a value of this encoder? */
    snprintf(e->error, sizeof e->error, "cannot transfer a value inside the"
             " transfer of another one");
    return e->status = RS_EREFUSED;
  }
  rs_encoder_start(e);
  e->status = RS_ENOMEM;
  if (!e->buf.failed) {
    const rs_mark mark = rs_encoder_mark(e);
    const int type = lua_type(L, index);
    bool scalar = true;
    if (type == LUA_TNUMBER && e->packs)
      rs_packed_put(&e->packed, &e->buf, L, index);
    else {
      rs_packed_end(&e->packed, &e->buf);
      scalar = rs_put_scalar(&e->buf, L, index, type);
    }
    if (!scalar)
      e->status = encode_composite(e, L, index);
    else if (!e->buf.failed)
      e->status = RS_OK;
    else {
      rs_encoder_truncate(e, mark.size);
      e->packed = mark.packed;
      e->buf.failed = false;
    }
  }
  if (e->status == RS_ENOMEM)
    snprintf(e->error, sizeof e->error, "not enough memory");
  else if (e->status == RS_EREFUSED) {
    if (root != NULL && root[0] != '\0')
      rs_encoder_inside(e, root);
    else
      rs_encoder_end_path(e);
  }
  return e->status;
}

size_t
rs_encode_scalars (rs_encoder *e, lua_State *L, int index, lua_Integer from,
                   size_t n, size_t bytes)
{
  const int top = lua_gettop(L);
  size_t i = 0;
  rs_encoder_start(e);
  for (; i < n && e->buf.size < bytes; i++) {
    const int type = lua_rawgeti(L, index, from + (lua_Integer) i);
    if (type == LUA_TNUMBER && e->packs)
      rs_packed_put(&e->packed, &e->buf, L, -1);
    else {
      rs_packed_end(&e->packed, &e->buf);
      if (type == LUA_TNIL || !rs_put_scalar(&e->buf, L, -1, type))
        break;
    }
    if (e->buf.failed)
      break;
    lua_settop(L, top);
  }
  lua_settop(L, top);
  return i;
}

/* Fit the memory of the buffer to its bytes; NULL when that fails.  A little
   too much stays, and so do large blocks, which are kept for others by their
   room. */
static void *
fit (rs_buf *b)
{
  if (b->room - b->size < SPARE_MAX || b->room >= RS_LARGE_FROM)
    return b->data;
  return realloc(b->data, b->size);
}

/* Complete the header, and return it.  NULL when bytes were lost on the
   way. */
static unsigned char *
finish (rs_encoder *e)
{
  rs_encoder_start(e);
  rs_packed_end(&e->packed, &e->buf);
  if (e->buf.failed)
    return NULL;
  unsigned char *const header = e->buf.data + PREFIX;
  header[RS_WIRE_AT_FLAGS] = (unsigned char) e->flags;
  if (e->flags & RS_MESSAGE_REFS)
    rs_wire_put32(header + RS_WIRE_AT_OBJECTS, e->next_id);
  return header;
}

static rs_message *
make_message (rs_encoder *e, bool hand_over)
{
  const unsigned char *const header = finish(e);
  if (header == NULL)
    return NULL;
  const size_t size = e->buf.size - PREFIX;
  rs_message *msg;
  if (!hand_over) {
    msg = rs_message_new(header, size, e->flags);
    if (msg == NULL)
      return NULL;
    msg->forbidden = (uint8_t) e->forbidden;
  }
  else {
    void *const fitting = fit(&e->buf);
    msg = fitting != NULL ? fitting : (void *) e->buf.data;
    rs_message_init(msg, size, e->flags);
    msg->forbidden = (uint8_t) e->forbidden;
    if (e->buf.room >= RS_LARGE_FROM)
      msg->room = (uint32_t) (e->buf.room / 1024);
    e->buf = (rs_buf) RS_BUF_INIT;
  }
  rs_encoder_clear(e);
  return msg;
}

rs_message *
rs_encoder_message (rs_encoder *e)
{
  return make_message(e, e->buf.size >= HAND_OVER_FROM);
}

rs_message *
rs_encoder_end (rs_encoder *e)
{
  return make_message(e, e->buf.size >= HAND_OVER_FROM
                         || e->buf.room - e->buf.size < SPARE_MAX);
}

rs_message *
rs_encoder_message_at (rs_encoder *e, void *room, size_t size)
{
  if (e->buf.failed || e->buf.size > size || e->buf.size < PREFIX)
    return rs_encoder_message(e);
  const unsigned char *const header = finish(e);
  rs_message *const msg = room;
  rs_message_init(msg, e->buf.size - PREFIX, e->flags);
  msg->forbidden = (uint8_t) e->forbidden;
  msg->lent = true;
  memcpy(msg->data, header, msg->size);
  rs_encoder_clear(e);
  return msg;
}

rs_message *
rs_encode_small (lua_State *L, int first, int n, void *room, size_t size)
{
  rs_message *const msg = room;
  if (size < PREFIX + RS_WIRE_HEADER)
    return NULL;
  rs_buf buf = RS_BUF_OVER(room, size);
  buf.size = PREFIX + RS_WIRE_HEADER;
  for (int i = first; i < first + n; i++)
    if (!rs_put_scalar(&buf, L, i, lua_type(L, i)))
      return NULL;
  if (buf.failed)
    return NULL;
  rs_message_init(msg, buf.size - PREFIX, 0);
  rs_wire_put_header(msg->data);
  msg->lent = true;
  return msg;
}

int
rs_encode (lua_State *L, int n, rs_message **out, rs_error *err)
{
  return rs_encode_without(L, n, 0, out, err);
}

int
rs_encode_without (lua_State *L, int n, unsigned forbidden, rs_message **out,
                   rs_error *err)
{
  int status = out == NULL ? rs_fail_null(err, "out")
                           : rs_check_values(L, n, err);
  if (status != RS_OK)
    return status;
  const int base = lua_gettop(L) - n;
  rs_encoder e;
  rs_encoder_init(&e, forbidden);
  for (int i = 1; i <= n && status == RS_OK; i++) {
    char root[32];
    snprintf(root, sizeof root, "value %d", i);
    status = rs_encode_value(&e, L, base + i, n > 1 ? root : NULL);
  }
  rs_message *msg = NULL;
  if (status == RS_OK && (msg = rs_encoder_message(&e)) == NULL) {
    status = RS_ENOMEM;
    snprintf(e.error, sizeof e.error, "not enough memory");
  }
  if (status == RS_OK)
    *out = msg;
  else if (err != NULL) {
    err->status = status;
    snprintf(err->text, sizeof err->text, "%s", e.error);
  }
  rs_encoder_fini(&e);
  return status;
}
