/* SPDX-License-Identifier: MIT */
/*
 * fuzz_decode.c - a target for libFuzzer: bytes that claim to be messages.
 *
 *     +-----+---------+-------+-------+------------------------+
 *     | way | options | count | split | a message, or two      |
 *     +-----+---------+-------+-------+------------------------+
 *
 * Whatever they are, they are read to the end or refused with a text: nothing
 * crashes, memory is in proportion to the bytes, and where there are two ways
 * to read the same they agree.  What came through the mask of a sandbox is
 * data.  The records of a chunk are as many as its items.
 *
 * Lua believes bytecode, so none comes from the bytes: a function of ours, of
 * as many upvalues, stands in for it.
 *
 * 'fuzz_decode --seeds=DIR' writes real messages, to begin with, and ends.
 */
#include <stdint.h>

#include "support/check.h"
#include "pool/face.h"
#include "support/messages.h"
#include "support/queue.h"

#include "pool/batch.h"
#include "value/code.h"
#include "value/decoder.h"
#include "state/rebuild.h"
#include "state/state.h"

/* Ways to read it. */
enum { WHOLE, ONE_BY_ONE, SCALARS, SMALL, REBUILT, RECORDS, WAYS };

/* Options. */
enum {
  MASKED = 1,       /* it comes from a sandbox */
  CALLS = 2,        /* or else its functions are run */
  COMMON = 4,       /* it may name tables that were sent */
  FULL = 8,         /* records: with RS_BATCH_RECORDS */
  TAKES = 16,       /* records: 'rs_batch_take', too */
  CUT = 32,         /* records: half of the items are left */
  ENDED = 64        /* records: the whole chunk has failed, or is lost */
};

enum { HEAD = 4 };  /* bytes in front of the messages */

typedef struct input {
  unsigned way, options;
  size_t count;
  rs_message *first;   /* of a function; REBUILT */
  rs_message *msg;
} input;

#define MUST(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, \
              #condition); \
      abort(); \
    } \
  } while (0)

/* ------------------------------------------------------------------ states */

enum { MOST = 64 << 20 };  /* bytes that a state may have */

static size_t used, peak;

static void *
allocate (void *ud, void *block, size_t old, size_t new)
{
  (void) ud;
  if (block == NULL)
    old = 0;
  if (new > old && new - old > MOST - used)
    return NULL;
  used += new - old;
  peak = used > peak ? used : peak;
  if (new == 0) {
    free(block);
    return NULL;
  }
  return realloc(block, new);
}

/* What messages may call must be harmless, and end soon; 'tame' raises if one
   of its arguments is more than data, or a table that was here before. */
static const char setup[] =
  "local null = ...\n"
  "local getmetatable = debug.getmetatable\n"
  "for _, name in ipairs { 'collectgarbage', 'debug', 'dofile', 'load',\n"
  "    'loadfile', 'print', 'rawset', 'warn' } do _G[name] = nil end\n"
  "for _, name in ipairs { 'find', 'gmatch', 'gsub', 'match', 'rep' } do\n"
  "  string[name] = nil\n"
  "end\n"
  "package.loadlib, package.searchpath = nil, nil\n"
  "table.move = nil\n"
  "package.loaded.debug = nil\n"
  "local own = {}\n"
  "local function note (t)\n"
  "  if type(t) ~= 'table' or own[t] then return end\n"
  "  own[t] = true\n"
  "  for k, v in next, t do note(k) note(v) end\n"
  "  note(getmetatable(t))\n"
  "end\n"
  "note(package.loaded)\n"
  "local inert = { __index = 'table', __mode = 'string',\n"
  "                __name = 'string' }\n"
  "local types = { ['nil'] = true, boolean = true, number = true,\n"
  "                string = true, table = true }\n"
  "local C, NONE = {}, {}\n"
  "C.__index = C\n"
  "local function classes (i)\n"
  "  if i == 2 then error(setmetatable({ i }, C)) end\n"
  "  return setmetatable({ i, NONE }, C), C, i\n"
  "end\n"
  "note(C) note(NONE)\n"
  "local function tame (...)\n"
  "  local seen, left = {}, table.pack(...)\n"
  "  local n = left.n\n"
  "  left.n = nil\n"
  "  while n > 0 do\n"
  "    local v = left[n]\n"
  "    left[n] = nil\n"
  "    n = n - 1\n"
  "    if not types[type(v)] and v ~= null then\n"
  "      error('a ' .. type(v))\n"
  "    end\n"
  "    if type(v) == 'table' and not own[v] and not seen[v] then\n"
  "      seen[v] = true\n"
  "      local meta = getmetatable(v)\n"
  "      if meta ~= nil and not own[meta] then\n"
  "        for k, x in next, meta do\n"
  "          if type(k) == 'string' and k:sub(1, 2) == '__'\n"
  "             and inert[k] ~= type(x) then error(k) end\n"
  "        end\n"
  "        n = n + 1\n"
  "        left[n] = meta\n"
  "      end\n"
  "      for k, x in next, v do\n"
  "        left[n + 1], left[n + 2] = k, x\n"
  "        n = n + 2\n"
  "      end\n"
  "    end\n"
  "  end\n"
  "end\n"
  "return tame, classes\n";

static const char tame_key, classes_key, objects_key;
static rs_message *sent;   /* 'classes', as this state has sent it */

static lua_State *
open_state (void)
{
  static const luaL_Reg libraries[] = {
    { LUA_GNAME, luaopen_base }, { LUA_LOADLIBNAME, luaopen_package },
    { LUA_TABLIBNAME, luaopen_table }, { LUA_STRLIBNAME, luaopen_string },
    { LUA_DBLIBNAME, luaopen_debug },
  };
  rs_error err = { .status = RS_OK };
  lua_State *const L = lua_newstate(allocate, NULL);
  MUST(L != NULL);
  for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
    luaL_requiref(L, libraries[i].name, libraries[i].func, 1);
    lua_pop(L, 1);
  }
  MUST(luaL_dostring(L, prelude) == LUA_OK);
  MUST(luaL_loadstring(L, setup) == LUA_OK);
  lua_pushlightuserdata(L, NULL);  /* which is data */
  MUST(lua_pcall(L, 1, 2, 0) == LUA_OK);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &classes_key);
  MUST(rs_code_encode(L, 0, 0, NULL, &sent, &err) == RS_OK);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &tame_key);
  lua_settop(L, 0);
  return L;
}

static void
close_state (lua_State *L)
{
  rs_message_unref(sent);
  sent = NULL;
  lua_close(L);
  MUST(used == 0);
}

/* What a queue makes of a job: it ends at once. */
static struct {
  const input *in;
  rs_state *state;        /* that runs it; or NULL: 'in' tells its result, */
  rs_message *kept;       /*   else this becomes a copy of it */
} plan;

/* A function of as many upvalues, in place of what the bytes are: the byte in
   front of their size tells how many. */
int __real_luaL_loadbufferx (lua_State *L, const char *bytes, size_t size,
                             const char *name, const char *mode);
int __wrap_luaL_loadbufferx (lua_State *L, const char *bytes, size_t size,
                             const char *name, const char *mode);

int
__wrap_luaL_loadbufferx (lua_State *L, const char *bytes, size_t size,
                         const char *name, const char *mode)
{
  static const char *const functions[] = {
    "return function (...) return ... end",
    "local a return function (...) a = ... return a end",
    "local a, b return function (...) a, b = ... return b, a end",
  };
  if (strcmp(name, "=message") != 0 || plan.state != NULL)
    return __real_luaL_loadbufferx(L, bytes, size, name, mode);
  const unsigned n = (unsigned char) bytes[-5];
  const char *const text = functions[n < 3 ? n : 0];
  MUST(__real_luaL_loadbufferx(L, text, strlen(text), name, "t") == LUA_OK);
  lua_call(L, 0, 1);
  return LUA_OK;
}

/* ------------------------------------------------------------------ checks */

/* What the receiver knows of. */
static rs_common
common_of (lua_State *L, const input *in)
{
  const rs_common none = { .loads = true };
  return in->options & COMMON ? rs_common_of(L, sent) : none;
}

static bool
is_masked (const input *in)
{
  return (in->options & MASKED) != 0;
}

/* Its functions are run: they may raise anything. */
static bool
calls (const input *in)
{
  return !is_masked(in) && (in->options & CALLS) != 0;
}

/* [-0, +0, -]  Bytes were refused, and the value on top tells why. */
static void
check_refusal (lua_State *L, const input *in)
{
  static const char *const texts[] = {
    "bad message at byte ", "is needed by ", "not accepted", "stack overflow",
    "of a table has made it ",
    "too many"
  };
  if (calls(in))
    return;
  MUST(lua_type(L, -1) == LUA_TSTRING);
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    if (strstr(lua_tostring(L, -1), texts[i]) != NULL)
      return;
  fprintf(stderr, "refused with: %s\n", lua_tostring(L, -1));
  abort();
}

/* [-0, +0, e]  The 'n' values from 'first' on came through the mask. */
static void
check_tame (lua_State *L, const input *in, int first, int n)
{
  if (!is_masked(in) || n == 0)
    return;
  luaL_checkstack(L, n + 2, "too many values");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &tame_key);
  for (int i = 0; i < n; i++)
    lua_pushvalue(L, first + i);
  if (lua_pcall(L, n, 0, 0) != LUA_OK) {
    fprintf(stderr, "not tame: %s\n", lua_tostring(L, -1));
    abort();
  }
}

/* [-0, +0, -]  The same scalars; of other values only the type is compared. */
static void
check_same (lua_State *L, int a, int b)
{
  const int type = lua_type(L, a);
  MUST(type == lua_type(L, b));
  if (type == LUA_TNUMBER) {
    MUST(lua_isinteger(L, a) == lua_isinteger(L, b));
    MUST(lua_rawequal(L, a, b)
         || (!lua_rawequal(L, a, a) && !lua_rawequal(L, b, b)));
  }
  else if (type == LUA_TSTRING || type == LUA_TBOOLEAN)
    MUST(lua_rawequal(L, a, b));
}

/* -------------------------------------------------------------------- ways */

/* (input)  All values at once; what was made can be sent again. */
static int
read_whole (lua_State *L)
{
  const input *const in = lua_touserdata(L, 1);
  bool metatables = false;
  lua_settop(L, 0);
  const rs_common common = common_of(L, in);
  const int n = rs_decode_all(L, in->msg, &common, 0, &metatables);
  MUST(n == lua_gettop(L));
  check_tame(L, in, 1, n);
  rs_message *again = NULL;
  if (n > 200 || rs_encode(L, n, &again, NULL) != RS_OK)
    return 0;
  lua_settop(L, 0);
  int m;
  const int status = rs_decode_try(L, again, &m);
  MUST(calls(in) || (status == RS_OK && m == n));
  rs_message_unref(again);
  return 0;
}

typedef struct walk {
  rs_decoder in;
  bool objects;   /* it has a table of them, in the registry */
} walk;

/* (walk) -> the next value */
static int
read_next (lua_State *L)
{
  walk *const w = lua_touserdata(L, 1);
  lua_settop(L, 0);
  if (w->objects) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &objects_key);
    w->in.objects = 1;
  }
  const int base = lua_gettop(L);
  rs_decode_value(&w->in, L);
  return lua_gettop(L) - base;
}

/* (input)  One value after the other, and over those that cannot be made; a
   value ends where skipping it ends. */
static int
read_one_by_one (lua_State *L)
{
  const input *const in = lua_touserdata(L, 1);
  walk w;
  lua_settop(L, 0);
  rs_decoder_init(&w.in, L, in->msg, 0);
  w.in.common = common_of(L, in);
  w.objects = w.in.objects != 0;
  if (w.objects)
    lua_rawsetp(L, LUA_REGISTRYINDEX, &objects_key);
  while (!rs_decoder_at_end(&w.in)) {
    const rs_decoder_place place = rs_decoder_tell(&w.in);
    rs_decoder past = w.in;
    const bool good = rs_decoder_skip(&past);
    const int n = rs_rebuild(L, read_next, &w);
    if (n >= 0) {
      MUST(n == 1 && good);
      MUST(past.at == w.in.at && past.left == w.in.left);
      MUST(past.next_id == w.in.next_id);
      check_tame(L, in, 1, 1);
    }
    else {
      lua_pushvalue(L, 1);
      check_refusal(L, in);
      rs_decoder_seek(&w.in, &place);
      if (!rs_decoder_skip(&w.in))
        break;
    }
    lua_settop(L, 0);
  }
  return 0;
}

/* [-0, +1, e]  Push a table of the values, and return how many these are;
   'most': scalars by so many, or 0: one at a time. */
static lua_Integer
read_list (lua_State *L, const input *in, size_t most)
{
  rs_decoder d;
  lua_Integer i = 0;
  lua_newtable(L);
  const int table = lua_gettop(L);
  rs_decoder_init(&d, L, in->msg, 0);
  d.common = common_of(L, in);
  while (!rs_decoder_at_end(&d)) {
    size_t n = most > 0 ? rs_decode_scalars(&d, L, table, i + 1, most) : 0;
    if (n == 0) {
      rs_decode_value(&d, L);
      lua_rawseti(L, table, i + 1);
      n = 1;
    }
    i += (lua_Integer) n;
  }
  lua_pushvalue(L, table);
  return i;
}

/* (input) -> table, values in it: scalars by the dozen */
static int
read_scalars (lua_State *L)
{
  const input *const in = lua_touserdata(L, 1);
  lua_settop(L, 0);
  lua_pushinteger(L, read_list(L, in, in->count));
  return 2;
}

/* (input) -> the same, one at a time */
static int
read_each (lua_State *L)
{
  const input *const in = lua_touserdata(L, 1);
  lua_settop(L, 0);
  lua_pushinteger(L, read_list(L, in, 0));
  return 2;
}

/* (input) */
static int
compare_scalars (lua_State *L)
{
  input in = *(const input *) lua_touserdata(L, 1);
  lua_settop(L, 0);
  lua_pushcfunction(L, read_scalars);
  lua_pushlightuserdata(L, &in);
  const int first = lua_pcall(L, 1, 2, 0);
  lua_settop(L, 2);
  lua_pushcfunction(L, read_each);
  lua_pushlightuserdata(L, &in);
  const int second = lua_pcall(L, 1, 2, 0);
  lua_settop(L, 4);
  if (first != LUA_OK || second != LUA_OK) {
    /* To ask for more than there is is refused, too. */
    MUST(first != LUA_OK && (in.count > 1 || second != LUA_OK));
    lua_settop(L, 1);
    check_refusal(L, &in);
    return 0;
  }
  MUST(lua_rawequal(L, 2, 4));
  const lua_Integer n = lua_tointeger(L, 2);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    lua_rawgeti(L, 3, i);
    check_same(L, -1, -2);
    lua_pop(L, 2);
  }
  return 0;
}

/* (input)  A few scalars: these have one way to be written. */
static int
read_small (lua_State *L)
{
  const input *const in = lua_touserdata(L, 1);
  struct {
    _Alignas(rs_message) unsigned char bytes[2 * RS_SMALL_MAX
                                             + sizeof(rs_message)];
  } room;
  rs_decoder d;
  lua_settop(L, 0);
  const int n = rs_decode_small(L, in->msg);
  MUST(lua_gettop(L) == (n > 0 ? n : 0));
  if (n < 0)
    return 0;
  const rs_message *const again = rs_encode_small(L, 1, n, &room, sizeof room);
  MUST(again != NULL && again->size == in->msg->size);
  MUST(memcmp(again->data, in->msg->data, again->size) == 0);
  rs_decoder_init(&d, L, in->msg, 0);
  MUST(d.objects == 0);
  for (int i = 1; i <= n; i++) {
    MUST(!rs_decoder_at_end(&d));
    rs_decode_value(&d, L);
    check_same(L, i, -1);
    lua_pop(L, 1);
  }
  MUST(rs_decoder_at_end(&d));
  return 0;
}

/* (input)  A function's message, whose tables the other one may name; and the
   same as a result of what this state has sent. */
static int
read_rebuilt (lua_State *L)
{
  const input *const in = lua_touserdata(L, 1);
  bool metatables = false;
  int n;
  lua_settop(L, 0);
  if (!rs_rebuild_result(L, in->msg, sent, &n)) {
    lua_settop(L, 1);
    check_refusal(L, in);
  }
  else
    check_tame(L, in, 1, n);
  lua_settop(L, 0);
  rs_common common = { .ref = rs_common_open(L), .loads = true };
  rs_decode_all(L, in->first, NULL, common.ref, &metatables);
  lua_settop(L, 0);
  rs_common_close(L, &common);
  rs_decode_all(L, in->msg, &common, 0, &metatables);
  rs_common_release(L, &common);
  return 0;
}

/* ----------------------------------------------------------------- records */

static int
end_at_once (rs_queue *q, rs_job *job, rs_error *err)
{
  const input *const in = plan.in;
  (void) q;
  (void) err;
  if (plan.state != NULL) {
    rs_job_ref(job);
    rs_job_run(job, plan.state, NULL);
    const rs_message *const result = job->call.result;
    plan.kept = rs_message_new(result->data, result->size, 0);
    rs_job_unref(job);
    return RS_OK;
  }
  rs_chunk *const chunk = job->call.chunk;
  const bool ended = (in->options & ENDED) != 0;
  const bool lost = ended && (in->options & CUT) != 0;
  const bool cut = !ended && (in->options & CUT) != 0 && chunk->count > 1;
  chunk->rest.item = ended ? 0 : cut ? chunk->count / 2 : chunk->count;
  chunk->ended[ended ? RS_JOB_FAILED : RS_JOB_COMPLETED] = chunk->count;
  job->call.result = rs_message_ref(in->msg);
  rs_job_end(job, lost ? RS_JOB_LOST : ended ? RS_JOB_FAILED
                                             : RS_JOB_COMPLETED);
  rs_job_unref(job);
  return RS_OK;
}

static rs_queue queue;

static rs_batch *batch;   /* of 'read_records', which may raise */

/* [-0, +0, e]  All records of a chunk: a bit for each of its items. */
static uint64_t
take_chunk (lua_State *L, const input *in)
{
  const int base = lua_gettop(L);
  size_t next = 0;
  uint64_t items = 0;
  rs_record rec;
  while (rs_batch_next(batch, L, &rec) == RS_OK) {
    const size_t item = (size_t) rec.index - 1;
    MUST(item < in->count && (item == next || items == 0));
    items |= UINT64_C(1) << item;
    next = item + 1;
    MUST(rec.state >= RS_JOB_COMPLETED && rec.state <= RS_JOB_LOST);
    MUST(rec.reason == NULL || rec.reason[0] != '\0');
    MUST(lua_gettop(L) == base + rec.n);
    MUST(rec.state != RS_JOB_FAILED || rec.n == 0 || rec.n == 2);
    check_tame(L, in, base + 1, rec.n);
    lua_settop(L, base);
    size_t more = in->options & TAKES ? rs_batch_take(batch, L, base) : 0;
    MUST(more <= in->count - next);
    for (; more > 0; more--)
      items |= UINT64_C(1) << next++;
  }
  return items;
}

/* (input)  What a host reads of the results of a batch. */
static int
read_records (lua_State *L)
{
  const input *const in = lua_touserdata(L, 1);
  rs_error err = { .status = RS_OK };
  uint64_t items = 0;
  int status;
  lua_settop(L, 0);
  lua_newtable(L);
  const rs_batch_options o = {
    .chunk = in->count,
    .flags = RS_BATCH_CONTINUE | (in->options & FULL ? RS_BATCH_RECORDS : 0)
  };
  lua_rawgetp(L, LUA_REGISTRYINDEX, &classes_key);
  plan.in = in;
  MUST(rs_batch_new(&queue, L, 0, &o, &batch, &err) == RS_OK);
  MUST(rs_batch_add_range(batch, 1, 1, in->count, &err) == RS_OK);
  MUST(rs_batch_finish(batch, &err) == RS_OK);
  while ((status = rs_batch_wait(batch, L, 0)) == RS_OK) {
    const uint64_t some = take_chunk(L, in);
    MUST((items & some) == 0);
    items |= some;
  }
  MUST(status == RS_EDONE);
  MUST(items == UINT64_MAX >> (64 - in->count));
  return 0;
}

/* ------------------------------------------------------------------ inputs */

static const struct {
  const char *name;
  lua_CFunction read;
} ways[WAYS] = {
  [WHOLE] = { "whole", read_whole },
  [ONE_BY_ONE] = { "one_by_one", read_one_by_one },
  [SCALARS] = { "scalars", compare_scalars },
  [SMALL] = { "small", read_small },
  [REBUILT] = { "rebuilt", read_rebuilt },
  [RECORDS] = { "records", read_records },
};

/* A message of its own block: a sanitizer sees a byte too much that is
   read. */
static rs_message *
make_message (const uint8_t *bytes, size_t size, const input *in)
{
  rs_message *const msg = rs_message_new(bytes, size, 0);
  MUST(msg != NULL);
  msg->flags = size > RS_WIRE_AT_FLAGS ? bytes[RS_WIRE_AT_FLAGS] : 0;
  msg->forbidden = is_masked(in) ? RS_MESSAGE_LIVE
                 : calls(in) ? RS_MESSAGE_LOCAL
                 : RS_MESSAGE_LOCAL | RS_MESSAGE_CODE;
  return msg;
}

int LLVMFuzzerTestOneInput (const uint8_t *bytes, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *bytes, size_t size)
{
  enum { RUNS = 1000 };  /* in one state */
  static lua_State *L;
  static unsigned runs;
  if (size < HEAD)
    return 0;
  input in = { .way = bytes[0] % WAYS, .options = bytes[1],
               .count = 1u + bytes[2] % 64u };
  const uint8_t *const from = bytes + HEAD;
  const size_t all = size - HEAD;
  const size_t split = in.way != REBUILT ? 0
                     : bytes[3] * 4u < all ? bytes[3] * 4u : all;
  in.first = make_message(from, split, &in);
  in.msg = make_message(from + split, all - split, &in);
  if (L == NULL)
    L = open_state();
  const size_t before = peak = used;
  lua_pushcfunction(L, ways[in.way].read);
  lua_pushlightuserdata(L, &in);
  const int status = lua_pcall(L, 1, 0, 0);
  if (status != LUA_OK) {
    MUST(status == LUA_ERRRUN || calls(&in));
    MUST(in.way != RECORDS || calls(&in));
    check_refusal(L, &in);
  }
  rs_batch_close(batch, L);
  batch = NULL;
  lua_settop(L, 0);
  MUST(calls(&in) || peak - before < (1u << 20) + 1024 * size);
  rs_message_unref(in.first);
  rs_message_unref(in.msg);
  if (calls(&in) || ++runs % RUNS == 0) {  /* it may have changed a lot */
    close_state(L);
    L = NULL;
  }
  return 0;
}

/* ------------------------------------------------------------------- seeds */

static const char *directory;
static unsigned seeds;

static void
write_seed (unsigned way, unsigned options, unsigned count,
            const rs_message *first, const rs_message *msg)
{
  const size_t split = first != NULL ? (first->size + 3) / 4 * 4 : 0;
  const unsigned char head[HEAD] = {
    (unsigned char) way, (unsigned char) options, (unsigned char) (count - 1),
    (unsigned char) (split / 4)
  };
  char path[4096];
  snprintf(path, sizeof path, "%s/%s-%u", directory, ways[way].name, seeds++);
  FILE *const file = fopen(path, "wb");
  REQUIRE(file != NULL);
  fwrite(head, 1, sizeof head, file);
  if (first != NULL) {
    fwrite(first->data, 1, first->size, file);
    fwrite("\xc0\xc0\xc0", 1, split - first->size, file);  /* nils */
  }
  fwrite(msg->data, 1, msg->size, file);
  REQUIRE(fclose(file) == 0);
}

/* [-0, +n, -]  Push what the chunk returns. */
static int
push (lua_State *L, const char *chunk)
{
  const int top = lua_gettop(L);
  REQUIRE(luaL_loadstring(L, chunk) == LUA_OK
          && lua_pcall(L, 0, LUA_MULTRET, 0) == LUA_OK);
  return lua_gettop(L) - top;
}

/* [-1, +0, -]  The results of a batch of the function, or source, on top. */
static void
write_records (lua_State *L, unsigned options)
{
  enum { ITEMS = 3 };
  rs_error err;
  rs_batch *b = NULL;
  const rs_batch_options o = {
    .chunk = ITEMS,
    .flags = RS_BATCH_CONTINUE | (options & FULL ? RS_BATCH_RECORDS : 0)
  };
  REQUIRE(rs_batch_new(&queue, L, 0, &o, &b, &err) == RS_OK);
  REQUIRE(rs_batch_add_range(b, 1, 1, ITEMS, &err) == RS_OK);
  REQUIRE(rs_batch_finish(b, &err) == RS_OK);
  REQUIRE(plan.kept != NULL);
  write_seed(RECORDS, options, ITEMS, NULL, plan.kept);
  rs_message_unref(plan.kept);
  plan.kept = NULL;
  rs_batch_close(b, L);
}

static int
open_shapes (lua_State *L)
{
  if (luaL_dostring(L, prelude) != LUA_OK)
    return lua_error(L);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "shapes");
  return 1;
}

/* A runspace of this thread, for 'plan'. */
static void
open_runspace (void)
{
  static const rs_cancel_owner owner = { .lost_thread = NULL };
  static rs_pool_options pool;
  rs_error err;
  rs_initial_state *const is = rs_initial_state_new();
  REQUIRE(is != NULL);
  REQUIRE(rs_initial_state_add_preload(is, "shapes", open_shapes,
                                       RS_PRELOAD_GLOBAL) == RS_OK);
  pool.initial_state = is;
  const rs_state_options o = {
    .options = &pool, .worker = 1, .cancel = rs_cancel_new(0, &owner, NULL),
  };
  REQUIRE(rs_state_open(&o, &plan.state, &err) == RS_OK);
}

static void
write_seeds (void)
{
  static const char lead[] = "local i = ... if i == 2 then error { i } end ";
  char source[1024];
  lua_State *const L = luaL_newstate();
  luaL_openlibs(L);
  REQUIRE(luaL_dostring(L, prelude) == LUA_OK);
  open_runspace();
  rs_message *function = NULL, *msg = NULL;
  push(L, "local C, NONE = {}, {} C.__index = C return function (i)"
          " return setmetatable({ i, NONE }, C), C end");
  lua_pushvalue(L, -1);
  REQUIRE(rs_code_encode(L, 0, 0, NULL, &function, NULL) == RS_OK);
  write_records(L, COMMON);
  for (size_t i = 0; i < CORPUS; i++) {
    const int n = push(L, corpus[i]);
    REQUIRE(rs_encode(L, n, &msg, NULL) == RS_OK);
    for (unsigned way = WHOLE; way <= SMALL; way++)
      for (unsigned options = 0; options <= CALLS; options++)
        write_seed(way, options, 8, NULL, msg);
    write_seed(REBUILT, CALLS, 1, function, msg);
    write_seed(REBUILT, 0, 1, msg, msg);
    rs_message_unref(msg);
    lua_settop(L, 0);
    snprintf(source, sizeof source, "%s%s", lead, corpus[i]);
    for (unsigned options = 0; options <= (FULL | MASKED); options += MASKED) {
      lua_pushstring(L, source);
      write_records(L, options | TAKES);
    }
  }
  rs_message_unref(function);
}

int LLVMFuzzerInitialize (int *argc, char ***argv);

int
LLVMFuzzerInitialize (int *argc, char ***argv)
{
  static const char option[] = "--seeds=";
  idle_queue(&queue, end_at_once);
  for (int i = 1; i < *argc; i++)
    if (strncmp((*argv)[i], option, sizeof option - 1) == 0) {
      directory = (*argv)[i] + sizeof option - 1;
      write_seeds();
      printf("%u seeds\n", seeds);
      fflush(stdout);
      _Exit(0);  /* its runspace stays open */
    }
  return 0;
}
