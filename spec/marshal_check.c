/* SPDX-License-Identifier: MIT */
/*
 * marshal_check.c - messages: hostile bytes, no memory, what only C can ask.
 *
 * Calls of 'malloc' and its kin come here first, by the linker's '--wrap'.
 */
#include "support/check.h"
#include "support/messages.h"

#include "base/large.h"
#include "value/decoder.h"
#include "value/encoder.h"

/* Code and pointers are believed, so they are out when bytes are wrong. */
enum { UNTRUSTED = RS_MESSAGE_CODE | RS_MESSAGE_LOCAL };

/* ---------------------------------------------- memory that cannot be had */

enum { NEVER, ONCE, TWICE, ALWAYS };

/* Which allocation fails, counted from 1, and what becomes of later ones. */
static struct {
  int mode;
  long at;
  long count;
  bool fired;
} failure;

static bool
fails (void)
{
  if (failure.mode == NEVER)
    return false;
  const long behind = ++failure.count - failure.at;
  const bool now = behind == 0 || (failure.mode == TWICE && behind == 1)
                || (failure.mode == ALWAYS && behind > 0);
  failure.fired |= now;
  return now;
}

/* In memory that C asks for: a whole message, or an encoder's. */
static bool fail_c;
static long c_blocks;

void *__real_malloc (size_t size);
void *__real_calloc (size_t n, size_t size);
void *__real_realloc (void *block, size_t size);
void __real_free (void *block);
void *__wrap_malloc (size_t size);
void *__wrap_calloc (size_t n, size_t size);
void *__wrap_realloc (void *block, size_t size);
void __wrap_free (void *block);

void *
__wrap_malloc (size_t size)
{
  void *const block = fail_c && fails() ? NULL : __real_malloc(size);
  c_blocks += block != NULL;
  return block;
}

void *
__wrap_calloc (size_t n, size_t size)
{
  void *const block = fail_c && fails() ? NULL : __real_calloc(n, size);
  c_blocks += block != NULL;
  return block;
}

void *
__wrap_realloc (void *block, size_t size)
{
  void *const moved = fail_c && fails() ? NULL : __real_realloc(block, size);
  c_blocks += moved != NULL && block == NULL;
  return moved;
}

void
__wrap_free (void *block)
{
  c_blocks -= block != NULL;
  __real_free(block);
}

/* In memory that Lua asks for. */
static bool fail_lua;
static size_t lua_used, lua_peak;

static void *
allocate (void *user, void *block, size_t old, size_t new)
{
  (void) user;
  if (block == NULL)
    old = 0;
  if (new == 0) {
    __real_free(block);
    lua_used -= old;
    return NULL;
  }
  if (new > old && fail_lua && fails())
    return NULL;
  void *const moved = __real_realloc(block, new);
  if (moved != NULL) {
    lua_used += new - old;
    lua_peak = lua_used > lua_peak ? lua_used : lua_peak;
  }
  return moved;
}

/* ------------------------------------------------------------------ states */

static lua_State *
new_state (void)
{
  lua_State *const L = lua_newstate(allocate, NULL);
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  REQUIRE(luaL_dostring(L, prelude) == LUA_OK);
  return L;
}

/* [-0, +n, -]  Push what a chunk returns, and return how many. */
static int
push (lua_State *L, const char *chunk)
{
  const int top = lua_gettop(L);
  if (luaL_loadstring(L, chunk) != LUA_OK
      || lua_pcall(L, 0, LUA_MULTRET, 0) != LUA_OK) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    REQUIRE(!"the chunk runs");
  }
  return lua_gettop(L) - top;
}

static rs_message *
encode (lua_State *L, const char *chunk)
{
  rs_message *msg = NULL;
  rs_error err = { .status = RS_OK };
  const int n = push(L, chunk);
  if (rs_encode(L, n, &msg, &err) != RS_OK)
    fprintf(stderr, "%s\n", err.text);
  REQUIRE(msg != NULL);
  lua_pop(L, n);
  return msg;
}

/* (message)  Decode all values; then encode them again, to touch them all. */
static int
decode_body (lua_State *L)
{
  const rs_message *const msg = lua_touserdata(L, 1);
  rs_decoder d;
  lua_settop(L, 0);
  rs_decoder_init(&d, L, msg, UNTRUSTED);
  const int base = lua_gettop(L);
  while (!rs_decoder_at_end(&d)) {
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    rs_decode_value(&d, L);
  }
  rs_message *again;
  const int n = lua_gettop(L) - base;
  if (rs_encode(L, n, &again, NULL) == RS_OK)
    rs_message_unref(again);
  return n;
}

/* [-0, +1, -]  Decode bytes that are not trusted; pushes the first value or
   the error. */
static int
decode (lua_State *L, const void *bytes, size_t size)
{
  /* A block of its own: a sanitizer sees a byte too much that is read. */
  rs_message *const msg = rs_message_new(bytes, size, 0);
  REQUIRE(msg != NULL);
  lua_pushcfunction(L, decode_body);
  lua_pushlightuserdata(L, msg);
  const int code = lua_pcall(L, 1, 1, 0);
  rs_message_unref(msg);
  return code;
}

/* ----------------------------------------------------------- what is valid */

/* [-0, +1, -]  Is the text on top of the stack one that 'decode' may raise? */
static bool
is_refusal (lua_State *L)
{
  if (lua_type(L, -1) != LUA_TSTRING)
    return false;
  const char *const text = lua_tostring(L, -1);
  return strstr(text, "bad message at byte ") != NULL
      || strstr(text, "is needed by ") != NULL
      || strstr(text, "of a table has made it ") != NULL
      || strstr(text, "stack overflow") != NULL;
}

/* ----------------------------------------------------------- hostile bytes */

/* A header with flags and no objects. */
#define HEADER(flags) 'R', 'S', 1, flags, 0, 0, 0, 0

/* One with back references to so many objects. */
#define OBJECTS(n) 'R', 'S', 1, RS_MESSAGE_REFS, n, 0, 0, 0

static const struct {
  const char *error;
  size_t size;
  unsigned char bytes[40];
} wrong[] = {
  { "byte 0: cut short", 4, { 'R', 'S', 1, 0 } },
  { "byte 0: no message", 8, { 'R', 'X', 1, 0 } },
  { "byte 2: a version", 8, { 'R', 'S', 9, 0 } },
  { "byte 3: flags that are not known", 8, { 'R', 'S', 1, 0x80 } },
  { "byte 3: bytecode is not accepted", 8, { HEADER(4) } },
  { "byte 3: pointers are not accepted", 8, { HEADER(2) } },
  { "byte 4: more objects than bytes", 8,
    { 'R', 'S', 1, 1, 0xff, 0xff, 0xff, 0xff } },
  { "byte 8: no such kind of value", 9, { HEADER(0), 0xff } },
  { "byte 9: cut short", 11, { HEADER(0), 0x85, 'a', 'b' } },
  { "byte 9: cut short", 10, { HEADER(0), RS_TAG_FLOAT, 0 } },
  { "byte 9: an integer longer", 11,
    { HEADER(0), RS_TAG_INTEGER + 1, 5, 0 } },
  { "byte 9: an integer longer", 10, { HEADER(0), RS_TAG_INTEGER, 5 } },
  { "bad length", 11, { HEADER(0), RS_TAG_STRING, 0x85, 0x00 } },
  { "bad length", 20, { HEADER(0), RS_TAG_STRING, 0xff, 0xff, 0xff, 0xff,
                        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01 } },
  { "cut short", 19, { HEADER(0), RS_TAG_STRING, 0xff, 0xff, 0xff, 0xff,
                       0xff, 0xff, 0xff, 0xff, 0x7f, 0 } },
  { "a string longer", 12, { HEADER(0), RS_TAG_STRING, 2, 'a', 'b' } },
  { "a table larger than its message", 19,
    { HEADER(0), RS_TAG_TABLE, 0, 0, 0, 8, 0, 0, 0, 0, 1, 2 } },
  { "a table larger than its message", 19,
    { HEADER(0), RS_TAG_TABLE, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2 } },
  { "a table larger than its message", 19,
    { HEADER(0), RS_TAG_TABLE, 1, 0, 0, 0, 1, 0, 0, 0, 1, 2 } },
  { "a key that no table can have", 19,
    { HEADER(0), RS_TAG_TABLE, 0, 0, 0, 0, 1, 0, 0, 0, RS_TAG_NIL, 2 } },
  { "a key that no table can have", 27,
    { HEADER(0), RS_TAG_TABLE, 0, 0, 0, 0, 1, 0, 0, 0, RS_TAG_FLOAT,
      0, 0, 0, 0, 0, 0, 0xf8, 0x7f, 2 } },
  { "a metatable that is no table", 18,
    { HEADER(0), RS_TAG_TABLE_META, 0, 0, 0, 0, 0, 0, 0, 0, 1 } },
  { "a reference to nothing", 10, { HEADER(0), RS_TAG_REF, 0 } },
  { "a reference to nothing", 10, { HEADER(1), RS_TAG_REF, 0 } },
  { "a reference to nothing", 11, { HEADER(1), RS_TAG_REPLACED, RS_TAG_REF,
                                    0 } },
  { "more objects than announced", 17,
    { HEADER(1), RS_TAG_TABLE, 0, 0, 0, 0, 0, 0, 0, 0 } },
  { "more objects than announced", 27,
    { OBJECTS(1), RS_TAG_TABLE, 1, 0, 0, 0, 0, 0, 0, 0, RS_TAG_TABLE, 0, 0, 0,
      0, 0, 0, 0, 0 } },
  { "for later where none is announced", 18,
    { HEADER(0), RS_TAG_LATER, RS_TAG_TABLE, 0, 0, 0, 0, 0, 0, 0, 0 } },
  { "more to come than there is", 17,
    { HEADER(1), RS_TAG_LATER, RS_TAG_TABLE, 0, 0, 0, 0, 0, 0, 0 } },
  { "more to come than there is", 26,
    { OBJECTS(3), RS_TAG_TABLE, 2, 0, 0, 0, 0, 0, 0, 0, RS_TAG_LATER,
      RS_TAG_LATER, 0, 0, 0, 0, 0, 0, 0 } },
  { "no contents of a table", 18,
    { OBJECTS(1), RS_TAG_LATER, RS_TAG_REF, 0, 0, 0, 0, 0, 0, 0, 0 } },
  { "no contents of a table", 18,
    { OBJECTS(1), RS_TAG_LATER, RS_TAG_LATER, 0, 0, 0, 0, 0, 0, 0, 0 } },
  { "bytecode is not accepted", 15, { HEADER(1), RS_TAG_FUNCTION_LATER } },
  { "a table that nobody has sent", 10, { HEADER(0), RS_TAG_COMMON_REF, 1 } },
  { "a table of a function that is not here", 10,
    { HEADER(16), RS_TAG_COMMON_REF, 1 } },
  { "a table of a function that is not here", 19,
    { HEADER(16), RS_TAG_TABLE_META, 0, 0, 0, 0, 0, 0, 0, 0,
      RS_TAG_COMMON_REF, 0 } },
  { "no table where one should be", 10, { HEADER(0), RS_TAG_COMMON, 1 } },
  { "no table where one should be", 13,
    { HEADER(0), RS_TAG_NAMED_TABLE, 1, 1, 'x', 1 } },
  { "no table where one should be", 22,
    { HEADER(0), RS_TAG_NAMED_TABLE, 1, 1, 'x', RS_TAG_NAMED_TABLE, 1, 1,
      'x', RS_TAG_NAMED_TABLE, 1, 1, 'x', RS_TAG_NIL } },
  { "bad name", 10, { HEADER(0), RS_TAG_NAMED_TABLE, 9 } },
  { "no table where one should be", 12,
    { HEADER(0), RS_TAG_COMMON, RS_TAG_COMMON, RS_TAG_COMMON,
      RS_TAG_COMMON } },
  { "bad name", 10, { HEADER(0), RS_TAG_NAMED, 0 } },
  { "bad name", 10, { HEADER(0), RS_TAG_NAMED, 4 } },
  { "module 'x' is needed by a transferred value: ", 12,
    { HEADER(0), RS_TAG_NAMED, 1, 1, 'x' } },
  { "'_G.x' is needed by a transferred value, but is not here", 15,
    { HEADER(0), RS_TAG_NAMED, 2, 2, '_', 'G', 1, 'x' } },
  { "bytecode is not accepted", 15, { HEADER(0), RS_TAG_FUNCTION } },
  { "calls are not accepted", 15, { HEADER(0), RS_TAG_REBUILD } },
  { "pointers are not accepted", 17, { HEADER(0), RS_TAG_POINTER, 1 } },
  { "pointers are not accepted", 17, { HEADER(0), RS_TAG_CFUNCTION } },
  { "no such kind of value", 9, { HEADER(0), RS_TAG_UPVALUE_ENV } },
  { "no such kind of value", 11, { HEADER(1), RS_TAG_UPVALUE_SHARED } },
};

static void
check_wrong_bytes (lua_State *L)
{
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    const int code = decode(L, wrong[i].bytes, wrong[i].size);
    const bool told = code == LUA_ERRRUN && lua_type(L, -1) == LUA_TSTRING
                   && strstr(lua_tostring(L, -1), wrong[i].error) != NULL;
    if (!told)
      fprintf(stderr, "row %zu, '%s': %s\n", i, wrong[i].error,
              luaL_tolstring(L, -1, NULL));
    CHECK(told);
    lua_settop(L, 0);
  }
}

static void
check_cut_short (lua_State *L)
{
  for (size_t i = 0; i < CORPUS; i++) {
    rs_message *const msg = encode(L, corpus[i]);
    unsigned odd = 0;
    for (size_t size = 0; size < msg->size; size++) {
      odd += decode(L, msg->data, size) != LUA_OK && !is_refusal(L);
      lua_settop(L, 0);
    }
    CHECK(odd == 0);
    rs_message_unref(msg);
  }
}

static void
check_depth (lua_State *L)
{
  enum { LEVELS = 100000, LEVEL = 9 };
  static const unsigned char header[] = { HEADER(0) };
  static unsigned char bytes[sizeof header + LEVELS * LEVEL + 1];
  memcpy(bytes, header, sizeof header);
  unsigned char *at = bytes + sizeof header;
  for (int i = 0; i < LEVELS; i++) {
    static const unsigned char level[LEVEL] = { RS_TAG_TABLE, 1 };
    memcpy(at, level, LEVEL);
    at += LEVEL;
  }
  *at = RS_TAG_NIL;
  CHECK(decode(L, bytes, sizeof bytes) == LUA_ERRRUN);
  CHECK(strstr(lua_tostring(L, -1), "nested too deep") != NULL);
  lua_settop(L, 0);

  memset(bytes + sizeof header, RS_TAG_REPLACED, LEVELS);
  CHECK(decode(L, bytes, sizeof bytes) == LUA_ERRRUN);
  lua_settop(L, 0);

  rs_message *msg = encode(L, "local t = {} for i = 2, 200 do t = { t } end"
                              " return t");
  CHECK(decode(L, msg->data, msg->size) == LUA_OK);
  rs_message_unref(msg);
  lua_settop(L, 0);

  /* What is deeper follows the value. */
  msg = encode(L, "local t for i = 1, 100000 do t = { i, next = t } end"
                  " return t, t");
  CHECK(decode(L, msg->data, msg->size) == LUA_OK);
  CHECK(lua_type(L, 1) == LUA_TTABLE);
  size_t levels = 0;
  for (; lua_type(L, 1) == LUA_TTABLE; levels++) {
    lua_getfield(L, 1, "next");
    lua_replace(L, 1);
  }
  CHECK(levels == 100000);
  lua_settop(L, 0);
  unsigned odd = 0;
  for (size_t size = msg->size - 3000; size < msg->size; size += 7) {
    odd += decode(L, msg->data, size) == LUA_OK || !is_refusal(L);
    lua_settop(L, 0);
  }
  CHECK(odd == 0);
  rs_message_unref(msg);
  rs_error err;
  push(L, "local t = {} for i = 1, 300 do"
          " t = setmetatable({ t }, { __transfer = function (t)"
          " return function (u) return { u } end, t[1] end }) end return t");
  CHECK(rs_encode(L, 1, &msg, &err) == RS_EREFUSED);
  CHECK(strstr(err.text, "nested deeper than 100 levels") != NULL);
  lua_settop(L, 0);
}

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static unsigned
random_below (size_t n)
{
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (unsigned) ((random_state >> 11) % n);
}

/* Change, insert, take away or cut. */
static size_t
mutate (unsigned char *bytes, size_t size)
{
  static const unsigned char odd[] = {
    0x00, 0x01, 0x7f, 0x80, 0xff, RS_TAG_TABLE, RS_TAG_TABLE_META,
    RS_TAG_TABLE_META_OPEN, RS_TAG_REF, RS_TAG_NAMED, RS_TAG_ENV,
    RS_TAG_REPLACED, RS_TAG_STRING, RS_TAG_LATER, RS_TAG_COMMON,
    RS_TAG_COMMON_REF, RS_TAG_NAMED_TABLE, RS_TAG_COMMON_CLASS,
    RS_TAG_COMMON_FUNCTION
  };
  for (unsigned n = 1 + random_below(4); n > 0; n--) {
    const size_t at = random_below(size);
    switch (random_below(5)) {
      case 0:
        bytes[at] ^= (unsigned char) (1u << random_below(8));
        break;
      case 1:
        bytes[at] = odd[random_below(sizeof odd)];
        break;
      case 2:
        bytes[at] = (unsigned char) random_below(256);
        break;
      case 3:
        memmove(bytes + at + 1, bytes + at, size - at);
        size++;
        break;
      default:
        if (size > RS_WIRE_HEADER + 1) {
          memmove(bytes + at, bytes + at + 1, size - at - 1);
          size--;
        }
    }
  }
  return size;
}

static void
check_mutants (void)
{
  enum { ROUNDS = 1000, MAX_SIZE = 8192, SECONDS = 2 };
  static unsigned char bytes[MAX_SIZE];
  const double end = rs_now() + SECONDS;
  unsigned long accepted = 0, refused = 0, odd = 0, greedy = 0;
  while (rs_now() < end) {
    lua_State *const L = new_state();
    rs_message *messages[CORPUS];
    for (int i = 0; i < CORPUS; i++)
      messages[i] = encode(L, corpus[i]);
    for (int i = 0; i < ROUNDS; i++) {
      const rs_message *const msg = messages[random_below(CORPUS)];
      memcpy(bytes, msg->data, msg->size);
      const size_t size = mutate(bytes, msg->size);
      lua_gc(L, LUA_GCCOLLECT);
      lua_peak = lua_used;
      const size_t before = lua_used;
      if (decode(L, bytes, size) == LUA_OK)
        accepted++;
      else {
        refused++;
        odd += !is_refusal(L);
      }
      greedy += lua_peak - before > 65536 + 64 * size;
      lua_settop(L, 0);
    }
    for (int i = 0; i < CORPUS; i++)
      rs_message_unref(messages[i]);
    lua_close(L);
  }
  CHECK(accepted > 0);
  CHECK(refused > 0);
  CHECK(odd == 0);
  CHECK(greedy == 0);
}

/* --------------------------------------------------------------- no memory */

static const char everything[] =
  "local shared = { 1, 2, 3 }\n"
  "local function f (n) return n == 0 and shared or f(n - 1) end\n"
  "local long = {}\n"
  "for i = 1, 200 do long[i] = { id = i, name = 'name ' .. i } end\n"
  "local point = require('shapes').Point\n"
  "local own = setmetatable({}, { __index = shared })\n"
  "local moved = setmetatable({}, { __transfer = function ()\n"
  "  return function (t) return t end, { shared }\n"
  "end })\n"
  "local swapped = setmetatable({}, { __transfer = function ()\n"
  "  return { 7 }\n"
  "end })\n"
  "return { f, long, point.new(1, 2), own, print, string, moved, swapped,\n"
  "         ('x'):rep(3000), _G }, shared, moved";

/* (message)  Decode, and check a little of what came. */
static int
use_body (lua_State *L)
{
  rs_message *const msg = lua_touserdata(L, 1);
  lua_settop(L, 0);
  const int n = rs_decode(L, msg);
  if (n != 3 || lua_rawlen(L, 1) != 10 || lua_rawlen(L, 2) != 3)
    return luaL_error(L, "wrong values");
  return 0;
}

/* [-0, +0, -]  One trip of the values at the bottom of the stack: RS_OK,
   RS_ENOMEM, or something that it may not be. */
static int
trip (lua_State *L, int n)
{
  rs_message *msg = NULL;
  rs_error err;
  const int top = lua_gettop(L);
  for (int i = 1; i <= n; i++)
    lua_pushvalue(L, i);
  int status = rs_encode(L, n, &msg, &err);
  if (status == RS_OK) {
    lua_pushcfunction(L, use_body);
    lua_pushlightuserdata(L, msg);
    const int code = lua_pcall(L, 1, 0, 0);
    if (code != LUA_OK)
      status = code == LUA_ERRMEM
            || strstr(luaL_tolstring(L, -1, NULL), "not enough memory")
             ? RS_ENOMEM : RS_EFAILED;
  }
  if (status != RS_OK && status != RS_ENOMEM)
    fprintf(stderr, "%s\n", status == RS_EFAILED ? lua_tostring(L, -1)
                                                 : err.text);
  rs_message_unref(msg);
  lua_settop(L, top);
  return status;
}

static void
check_no_memory (bool *where)
{
  for (int mode = ONCE; mode <= ALWAYS; mode++) {
    unsigned odd = 0, unhealed = 0, runs = 0, leaked = 0, told = 0;
    for (long at = 1; ; at++) {
      const long blocks = c_blocks;
      lua_State *const L = new_state();
      const int n = push(L, everything);
      failure.mode = mode;
      failure.at = at;
      failure.count = 0;
      failure.fired = false;
      *where = true;
      const int status = trip(L, n);
      *where = false;
      failure.mode = NEVER;
      runs++;
      told += status == RS_ENOMEM;
      odd += status != RS_OK && status != RS_ENOMEM;
      odd += status != RS_OK && !failure.fired;
      unhealed += trip(L, n) != RS_OK;
      lua_close(L);
      leaked += c_blocks != blocks;
      if (!failure.fired)
        break;
    }
    CHECK(runs > 5);
    CHECK(odd == 0);
    CHECK(leaked == 0);
    CHECK(unhealed == 0);
    CHECK(told > 0 || mode != ALWAYS);
  }
  CHECK(lua_used == 0);
}

/* ------------------------------------------------------------- the encoder */

/* [-0, +n, -]  Decode a message of our own; returns how many values. */
static int
decode_ours (lua_State *L, rs_message *msg)
{
  const int n = rs_decode(L, msg);
  rs_message_unref(msg);
  return n;
}

static void
check_identities (lua_State *L)
{
  rs_encoder e;
  rs_encoder_init(&e, 0);
  push(L, "return {}");
  CHECK(rs_encode_value(&e, L, 1, NULL) == RS_OK);
  CHECK(rs_encode_value(&e, L, 1, NULL) == RS_OK);
  rs_encoder_forget(&e);
  CHECK(rs_encode_value(&e, L, 1, NULL) == RS_OK);
  CHECK(decode_ours(L, rs_encoder_message(&e)) == 3);
  CHECK(lua_rawequal(L, 2, 3));
  CHECK(!lua_rawequal(L, 3, 4));
  lua_settop(L, 0);

  /* The encoder is clear, and its identities are gone with the message. */
  push(L, "return {}");
  CHECK(rs_encode_value(&e, L, 1, NULL) == RS_OK);
  rs_message *const msg = rs_encoder_message(&e);
  CHECK(!(msg->flags & RS_MESSAGE_REFS));
  CHECK(decode_ours(L, msg) == 1);
  lua_settop(L, 0);

  /* Enough generations that their number begins again. */
  push(L, "return {}");
  CHECK(rs_encode_value(&e, L, 1, NULL) == RS_OK);
  for (long i = 0; i < 0x7fffff; i++)
    rs_encoder_forget(&e);
  CHECK(rs_encode_value(&e, L, 1, NULL) == RS_OK);
  CHECK(decode_ours(L, rs_encoder_message(&e)) == 2);
  CHECK(!lua_rawequal(L, 2, 3));
  rs_encoder_fini(&e);
  lua_settop(L, 0);
}

static void
check_refusal_leaves_no_trace (lua_State *L)
{
  rs_encoder e;
  rs_encoder_init(&e, 0);
  push(L, "local t = {} return t, { t, function () return t end, io.stdout },"
          " function () return t end");
  const int top = lua_gettop(L);
  rs_encoder_start(&e);
  const size_t size = e.buf.size;
  CHECK(rs_encode_value(&e, L, 2, "argument 1") == RS_EREFUSED);
  CHECK(strcmp(e.error, "argument 1: field '[3]': cannot transfer a userdata"
                        " (FILE*)") == 0);
  CHECK(e.buf.size == size);
  CHECK(e.flags == 0);
  CHECK(lua_gettop(L) == top);
  /* What the refused value held is new to the values that follow. */
  CHECK(rs_encode_value(&e, L, 3, NULL) == RS_OK);
  CHECK(rs_encode_value(&e, L, 1, NULL) == RS_OK);
  CHECK(decode_ours(L, rs_encoder_message(&e)) == 2);
  CHECK(lua_type(L, top + 1) == LUA_TFUNCTION);
  lua_getupvalue(L, top + 1, 1);
  CHECK(lua_rawequal(L, -1, top + 2));
  rs_encoder_fini(&e);
  lua_settop(L, 0);
}

static int
c_function (lua_State *L)
{
  (void) L;
  return 0;
}

/* Whatever is passed without being made ends where it would have. */
static void
check_skipping (lua_State *L)
{
  static const char *const values[] = {
    "nil", "true", "5", "-1", "2^53", "math.mininteger", "'short'",
    "('long'):rep(100)", "{}", "{ 1, 2, 3 }",
    "{ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5,"
    " 9.5, 'x', 11 }",
    "{ { x = 1, y = 2 }, { x = 3, y = 4 }, { x = 5, y = 6, z = {} },"
    " { x = 7 } }",
    "setmetatable({ 1 }, { __index = { a = 1 } })",
    "(function () local t = {} t[1], t[t] = t, t return setmetatable(t, t)"
    " end)()",
    "string.format", "string",
    "{ package.loaded, { package.loaded } }", "_G", "function () end",
    "(function () local a, b = {}, 1 local function f () return a, b, f, _ENV"
    " end return { f, function () return b end, a } end)()",
    "setmetatable({}, { __transfer = function ()"
    " return function (...) return { ... } end, 1, {}, 'x' end })",
    "setmetatable({}, { __transfer = function () return { 1 } end })",
    "(function () local t for i = 1, 1000 do t = { i, t, f = function ()"
    " return t end } end return { t, t } end)()",
  };
  enum { VALUES = sizeof values / sizeof values[0] };
  rs_encoder e;
  rs_encoder_init(&e, 0);
  REQUIRE(lua_checkstack(L, VALUES + LUA_MINSTACK));
  for (int i = 0; i < VALUES; i++) {
    char source[512];
    snprintf(source, sizeof source, "return %s", values[i]);
    push(L, source);
    e.packs = i % 2 == 0;
    CHECK(rs_encode_value(&e, L, -1, NULL) == RS_OK);
  }
  lua_settop(L, 0);  /* not before: the encoder knows them by address */
  rs_message *const msg = rs_encoder_message(&e);
  rs_decoder made, behind;
  rs_decoder_init(&made, L, msg, 0);
  behind = made;
  for (int i = 0; i < VALUES; i++) {
    CHECK(rs_decoder_skip(&behind));
    rs_decode_value(&made, L);
    lua_pop(L, 1);
    if (behind.at != made.at || behind.next_id != made.next_id
        || behind.left != made.left)
      fprintf(stderr, "passed otherwise: %s\n", values[i]);
    CHECK(behind.at == made.at && behind.next_id == made.next_id
          && behind.left == made.left);
  }
  CHECK(rs_decoder_at_end(&behind));
  CHECK(!rs_decoder_skip(&behind));
  /* Cut short anywhere, it says so, or stays within. */
  for (size_t size = RS_WIRE_HEADER; size < msg->size; size++) {
    rs_decoder d = made;
    d.size = size;
    d.at = RS_WIRE_HEADER;
    d.left = 0;
    while (rs_decoder_skip(&d))
      ;
    CHECK(d.at <= size);
  }
  rs_message_unref(msg);
  rs_encoder_fini(&e);
  lua_settop(L, 0);
}

static void
check_forbidden (lua_State *L)
{
  rs_encoder e;
  rs_encoder_init(&e, UNTRUSTED);
  lua_pushcfunction(L, c_function);
  lua_pushlightuserdata(L, &e);
  push(L, "return function () end, print, {}");
  CHECK(rs_encode_value(&e, L, 1, NULL) == RS_EREFUSED);
  CHECK(strstr(e.error, "to another process") != NULL);
  CHECK(rs_encode_value(&e, L, 2, NULL) == RS_EREFUSED);
  CHECK(rs_encode_value(&e, L, 3, NULL) == RS_EREFUSED);
  CHECK(rs_encode_value(&e, L, 4, NULL) == RS_OK);
  CHECK(rs_encode_value(&e, L, 5, NULL) == RS_OK);
  CHECK(e.flags == RS_MESSAGE_NAMES);
  rs_encoder_fini(&e);

  rs_message *msg;
  lua_settop(L, 2);
  CHECK(rs_encode(L, 2, &msg, NULL) == RS_OK);
  CHECK(msg->flags == RS_MESSAGE_LOCAL);
  CHECK(decode_ours(L, msg) == 2);
  CHECK(lua_tocfunction(L, 3) == c_function);
  CHECK(lua_touserdata(L, 4) == &e);
  lua_settop(L, 0);

  lua_pushnil(L);
  lua_pushcclosure(L, c_function, 1);
  rs_error err;
  CHECK(rs_encode(L, 1, &msg, &err) == RS_EREFUSED);
  CHECK(strstr(err.text, "a C function with upvalues") != NULL);
  lua_settop(L, 0);
}

/* What '__transfer' gave for one value is garbage when the next is encoded:
   another object at the same address is another object. */
static void
check_transferred_garbage (lua_State *L)
{
  enum { VALUES = 500 };
  rs_encoder e;
  rs_encoder_init(&e, 0);
  luaL_checkstack(L, VALUES + LUA_MINSTACK, NULL);
  push(L, "return { __transfer = function ()"
          " N = (N or 0) + 1 return { N, { N } } end }");
  for (int i = 1; i <= VALUES; i++) {
    lua_newtable(L);
    lua_pushvalue(L, 1);
    lua_setmetatable(L, -2);
    /* The object stays on the stack, and what it became is gone. */
    CHECK(rs_encode_value(&e, L, -1, NULL) == RS_OK);
    lua_gc(L, LUA_GCCOLLECT);
  }
  lua_settop(L, 0);
  CHECK(decode_ours(L, rs_encoder_message(&e)) == VALUES);
  unsigned right = 0;
  for (int i = 1; i <= VALUES; i++) {
    lua_rawgeti(L, i, 1);
    lua_rawgeti(L, i, 2);
    lua_rawgeti(L, -1, 1);
    right += lua_tointeger(L, -1) == i && lua_tointeger(L, -3) == i;
    lua_settop(L, VALUES);
  }
  CHECK(right == VALUES);
  rs_encoder_fini(&e);
  lua_settop(L, 0);
}

static void
check_environment (lua_State *L)
{
  rs_message *const msg = encode(L, "return function () return name end,"
                                    " function () return _ENV end, _G");
  CHECK(rs_decode(L, msg) == 3);
  rs_message_unref(msg);
  for (int i = 1; i <= 3; i++) {
    lua_newtable(L);
    lua_pushinteger(L, i);
    lua_setfield(L, -2, "name");
    rs_env_set(L);
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    CHECK(lua_tointeger(L, -1) == i);
    rs_env_push(L);
    lua_pushvalue(L, 2);
    lua_call(L, 0, 1);
    CHECK(lua_rawequal(L, -1, -2));
    lua_settop(L, 3);
  }

  /* The environment is what travels, as the globals do. */
  rs_env_push(L);
  rs_message *env;
  CHECK(rs_encode(L, 1, &env, NULL) == RS_OK);
  lua_State *const other = new_state();
  CHECK(decode_ours(other, env) == 1);
  lua_pushglobaltable(other);
  CHECK(lua_rawequal(other, -1, -2));
  lua_close(other);
  lua_pushglobaltable(L);
  rs_env_set(L);
  lua_settop(L, 0);
}

/* The memory of a large message is the encoder's own, handed over. */
/* As a program does whose scheduler takes the turn from coroutines. */
static void
yield_at_line (lua_State *L, lua_Debug *ar)
{
  (void) ar;
  if (lua_isyieldable(L))
    lua_yield(L, 0);
}

/* What a state gets at its first message is made where such a hook is set. */
static void
check_environment_under_hook (void)
{
  lua_State *const L = luaL_newstate();
  lua_State *const co = lua_newthread(L);
  rs_message *msg;
  luaL_openlibs(L);
  CHECK(luaL_dostring(co, "return function (x) return tostring(2 * x) end")
        == LUA_OK);
  lua_sethook(co, yield_at_line, LUA_MASKLINE, 0);
  CHECK(rs_encode(co, 1, &msg, NULL) == RS_OK);
  CHECK(rs_decode(co, msg) == 1);
  rs_message_unref(msg);
  lua_sethook(co, NULL, 0, 0);
  lua_pushinteger(co, 21);
  CHECK(lua_pcall(co, 1, 1, 0) == LUA_OK);
  CHECK(strcmp(lua_tostring(co, -1), "42") == 0);
  lua_close(L);
}

static void
check_large_message (lua_State *L)
{
  rs_encoder e;
  rs_encoder_init(&e, 0);
  for (int i = 0; i < 3; i++) {
    push(L, "return ('x'):rep(1 << 20), { 1 }");
    CHECK(rs_encode_value(&e, L, 1, NULL) == RS_OK);
    CHECK(rs_encode_value(&e, L, 2, NULL) == RS_OK);
    rs_message *const msg = rs_encoder_message(&e);
    REQUIRE(msg != NULL);
    CHECK(rs_message_size(msg) > 1 << 20);
    CHECK(decode_ours(L, rs_message_ref(msg)) == 2);
    rs_message_unref(msg);
    CHECK(lua_rawlen(L, 3) == 1 << 20 && lua_rawequal(L, 1, 3));
    lua_settop(L, 0);
  }
  rs_encoder_fini(&e);
}

/* Freed large blocks are there for whoever needs one, a few of them. */
static void
check_large_blocks (void)
{
  enum { SIZE = 3 << 20 };
  const size_t most = RS_LARGE_KEPT / rs_large_room(SIZE);
  rs_large_trim();
  const long blocks = c_blocks;
  char *const one = rs_large_take(SIZE);
  REQUIRE(one != NULL);
  one[0] = 'x';
  rs_large_give(one, SIZE);
  CHECK(c_blocks == blocks + (most > 0));
  char *const same = rs_large_resize(NULL, 0, SIZE - 1);
  REQUIRE(same != NULL);
  CHECK(most == 0 || (same == one && same[0] == 'x'));
  same[0] = 'y';
  char *const more = rs_large_resize(same, SIZE - 1, 2 * SIZE);
  REQUIRE(more != NULL);
  CHECK(more[0] == 'y');
  rs_large_give(more, 2 * SIZE);

  enum { MANY = 40 };
  void *all[MANY];
  for (int i = 0; i < MANY; i++) {
    all[i] = rs_large_take(SIZE);
    REQUIRE(all[i] != NULL);
  }
  for (int i = 0; i < MANY; i++)
    rs_large_give(all[i], SIZE);
  CHECK((size_t) (c_blocks - blocks) <= most);
  rs_large_trim();
  CHECK(c_blocks == blocks);
}

static void
check_raw (lua_State *L)
{
  rs_encoder e;
  rs_encoder_init(&e, 0);
  rs_encoder_start(&e);
  lua_pushinteger(L, 1000);
  rs_encoder_raw(&e, "abc", 3);
  CHECK(rs_encode_value(&e, L, 1, NULL) == RS_OK);
  rs_encoder_raw(&e, "d", 1);
  rs_message *const msg = rs_encoder_message(&e);
  REQUIRE(msg != NULL);
  rs_decoder d;
  char raw[4];
  rs_decoder_init(&d, L, msg, 0);
  rs_decoder_raw(&d, L, raw, 3);
  rs_decode_value(&d, L);
  rs_decoder_raw(&d, L, raw + 3, 1);
  CHECK(memcmp(raw, "abcd", 4) == 0);
  CHECK(lua_tointeger(L, -1) == 1000);
  CHECK(rs_decoder_at_end(&d));
  rs_message_unref(msg);
  rs_encoder_fini(&e);
  lua_settop(L, 0);
}

/* A few scalars in the caller's room: the same bytes, and none behind it. */
static void
check_small (lua_State *L)
{
  enum { ROOM = 200, UNTOUCHED = 0xa5 };
  static const char *const rows[] = {
    "return", "return nil, true, false", "return 0, 127, 128, -1, 1 << 62",
    "return 1.5, -0.0", "return '', 'abc', ('x'):rep(63), 7",
    "return ('x'):rep(64)"
  };
  union {
    rs_message msg;
    unsigned char bytes[ROOM];
  } room;
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    CHECK(luaL_dostring(L, rows[i]) == LUA_OK);
    const int n = lua_gettop(L);
    rs_message *msg = NULL;
    for (int k = 1; k <= n; k++)
      lua_pushvalue(L, k);
    CHECK(rs_encode(L, n, &msg, NULL) == RS_OK);
    REQUIRE(msg != NULL);
    lua_settop(L, n);
    const size_t all = sizeof *msg + msg->size;
    for (size_t size = 0; size <= ROOM - 1; size++) {
      memset(room.bytes, UNTOUCHED, sizeof room.bytes);
      const rs_message *const small = rs_encode_small(L, 1, n, &room, size);
      CHECK(small == NULL ? size < all + RS_WIRE_VARINT : size >= all);
      CHECK(small == NULL || (small->size == msg->size && small->lent
                              && memcmp(small->data, msg->data, msg->size)
                                 == 0));
      bool same = true;
      for (size_t k = size; k < ROOM; k++)
        same = same && room.bytes[k] == UNTOUCHED;
      CHECK(same);
      CHECK(lua_gettop(L) == n);
    }
    const int got = rs_decode_small(L, msg);
    CHECK(i + 1 == sizeof rows / sizeof rows[0] || got == n);
    for (int k = 1; k <= got; k++)
      CHECK(lua_rawequal(L, k, n + k));
    rs_message_unref(msg);
    lua_settop(L, 0);
  }
  lua_newtable(L);
  CHECK(rs_encode_small(L, 1, 1, &room, sizeof room) == NULL);
  lua_settop(L, 0);
}

/* [-0, +0, -]  Append the 'n' integers from 'first' on. */
static void
encode_integers (rs_encoder *e, lua_State *L, lua_Integer first, int n)
{
  for (int i = 0; i < n; i++) {
    lua_pushinteger(L, first + i);
    CHECK(rs_encode_value(e, L, -1, NULL) == RS_OK);
    lua_pop(L, 1);
  }
}

/* Numbers that follow one another are packed, and can be taken back. */
static void
check_packed (lua_State *L)
{
  rs_encoder e;
  rs_encoder_init(&e, 0);
  rs_encoder_start(&e);
  e.packs = true;
  encode_integers(&e, L, 1, 20);
  const rs_mark mark = rs_encoder_mark(&e);
  encode_integers(&e, L, 1000, 5);       /* of the same run */
  lua_pushliteral(L, "gone");
  CHECK(rs_encode_value(&e, L, -1, NULL) == RS_OK);
  encode_integers(&e, L, 2000, 9);       /* of another one */
  lua_pop(L, 1);
  rs_encoder_rewind(&e, &mark);
  encode_integers(&e, L, 21, 20);
  lua_newtable(L);
  for (int i = 1; i <= 30; i++) {
    lua_pushnumber(L, i + 0.5);
    lua_rawseti(L, 1, i);
  }
  lua_pushliteral(L, "end");
  lua_rawseti(L, 1, 31);
  CHECK(rs_encode_scalars(&e, L, 1, 1, 100, SIZE_MAX) == 31);
  CHECK(rs_encode_scalars(&e, L, 1, 1, 100, 0) == 0);
  CHECK(lua_gettop(L) == 1);
  rs_message *const msg = rs_encoder_message(&e);
  REQUIRE(msg != NULL);
  CHECK(msg->size < 8 + 71 * 8 + 4 * 9);

  rs_decoder d;
  lua_newtable(L);
  rs_decoder_init(&d, L, msg, UNTRUSTED);
  for (int i = 1; i <= 3; i++)           /* some of the run one by one */
    rs_decode_value(&d, L);
  CHECK(lua_tointeger(L, -1) == 3);
  lua_settop(L, 2);
  const rs_decoder_place place = rs_decoder_tell(&d);
  CHECK(rs_decode_scalars(&d, L, 2, 4, 10) == 10);
  rs_decoder_seek(&d, &place);           /* and once more */
  CHECK(rs_decode_scalars(&d, L, 2, 4, 68) == 68);
  CHECK(rs_decoder_at_end(&d));
  for (int i = 4; i <= 40; i++) {
    lua_rawgeti(L, 2, i);
    CHECK(lua_isinteger(L, -1) && lua_tointeger(L, -1) == i);
    lua_pop(L, 1);
  }
  for (int i = 1; i <= 30; i++) {
    lua_rawgeti(L, 2, 40 + i);
    CHECK(lua_tonumber(L, -1) == i + 0.5);
    lua_pop(L, 1);
  }
  rs_message_unref(msg);
  rs_encoder_fini(&e);
  lua_settop(L, 0);
}

/* (message)  Decode it, for nothing. */
static int
drop_body (lua_State *L)
{
  rs_message *const msg = lua_touserdata(L, 1);
  rs_decode(L, msg);
  return 0;
}

/* The collector does not run while a large message is read; but it does,
   also where nothing else happens, and whatever becomes of the message. */
static void
check_collector (void)
{
  static const char *const modes[] = { "generational", "incremental" };
  enum { TIMES = 60 };
  for (int mode = 0; mode < 2; mode++)
    for (int cut = 0; cut < 2; cut++) {
      lua_State *const L = new_state();
      rs_message *const msg =
        encode(L, "local t = {} for i = 1, 5000 do"
                  " t[i] = { id = i, name = 'n' .. i } end return t");
      CHECK(msg->size > 64 << 10);
      msg->size -= (size_t) cut;
      if (mode == 0)
        lua_gc(L, LUA_GCGEN, 0, 0);
      lua_gc(L, LUA_GCCOLLECT);
      const size_t before = lua_used;
      size_t once = 0;
      for (int i = 0; i < TIMES; i++) {
        lua_pushcfunction(L, drop_body);
        lua_pushlightuserdata(L, msg);
        const int code = lua_pcall(L, 1, 0, 0);
        CHECK((code == LUA_OK) == (cut == 0));
        CHECK(code == LUA_OK || is_refusal(L));
        lua_settop(L, 0);
        if (i == 0)
          once = lua_used - before;
      }
      CHECK(once > 0);
      if (lua_used - before > 6 * once)
        fprintf(stderr, "%s: %zu bytes once, %zu bytes after %d times\n",
                modes[mode], once, lua_used - before, TIMES);
      CHECK(lua_used - before <= 6 * once);
      CHECK(lua_gc(L, LUA_GCISRUNNING));
      rs_message_unref(msg);
      lua_close(L);
    }
}

/* Small messages may lie in memory that is somebody's. */
static void
check_room (lua_State *L)
{
  _Alignas(rs_message) unsigned char room[96];
  rs_encoder e;
  rs_encoder_init(&e, 0);
  encode_integers(&e, L, 5, 1);
  rs_message *msg = rs_encoder_message_at(&e, room, sizeof room);
  CHECK((void *) msg == (void *) room);
  CHECK(rs_decode(L, msg) == 1 && lua_tointeger(L, -1) == 5);
  rs_message_unref(msg);                 /* frees nothing */
  encode_integers(&e, L, 100000, 50);
  msg = rs_encoder_message_at(&e, room, sizeof room);
  CHECK(msg != NULL && (void *) msg != (void *) room);
  CHECK(rs_decode(L, msg) == 50);
  rs_message_unref(msg);
  rs_encoder_fini(&e);
  lua_settop(L, 0);
}

/* Bytes that no encoder writes, behind a header with these flags. */
static void
check_bad_runs (lua_State *L)
{
  static const struct {
    const char *what;
    unsigned char flags;
    unsigned char bytes[24];
    size_t size;
  } rows[] = {
    { "no numbers", 0, { RS_TAG_INTEGERS, 0, 0, 0, 0 }, 5 },
    { "cut short", 0, { RS_TAG_FLOATS, 2, 0, 0, 0, 1, 2, 3 }, 8 },
    { "cut short", 0, { RS_TAG_FLOATS, 255, 255, 255, 255 }, 5 },
    { "longer than its table", 0,
      { RS_TAG_TABLE, 1, 0, 0, 0, 0, 0, 0, 0, RS_TAG_INTEGERS, 2, 0, 0, 0 },
      24 + 6 },
    { "none is announced", 0, { RS_TAG_SHAPE, 1, 1, 'a', RS_TAG_NIL }, 5 },
    { "too many keys", RS_MESSAGE_SHAPES, { RS_TAG_SHAPE, 0, RS_TAG_NIL }, 3 },
    { "too many keys", RS_MESSAGE_SHAPES, { RS_TAG_SHAPE, 17 }, 20 },
    { "cut short", RS_MESSAGE_SHAPES, { RS_TAG_SHAPE, 2, 9, 'a' }, 4 },
    { "key too long", RS_MESSAGE_SHAPES, { RS_TAG_SHAPE, 1, 64 }, 20 },
    { "no shape where", RS_MESSAGE_SHAPES,
      { RS_TAG_RECORD, 200, 0, 0, 0, 1, 0, 0, 0, 0, RS_TAG_NIL }, 11 },
    { "no shape where", RS_MESSAGE_SHAPES,
      { RS_TAG_RECORD, 8, 0, 0, 0, 1, 0, 0, 0, 0, RS_TAG_NIL }, 11 },
    { "more fields", RS_MESSAGE_SHAPES,
      { RS_TAG_SHAPE, 1, 1, 'a', RS_TAG_RECORD, 8, 0, 0, 0, 2, 0, 0, 0, 0, 1,
        1 }, 16 },
    { "larger than its message", RS_MESSAGE_SHAPES,
      { RS_TAG_SHAPE, 1, 1, 'a', RS_TAG_RECORD, 8, 0, 0, 0, 1, 255, 255, 255,
        255, 1 }, 15 },
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    unsigned char bytes[64] = { 'R', 'S', RS_WIRE_VERSION, rows[i].flags };
    memcpy(bytes + RS_WIRE_HEADER, rows[i].bytes, sizeof rows[i].bytes);
    const int code = decode(L, bytes, RS_WIRE_HEADER + rows[i].size);
    const char *const text = lua_tostring(L, -1);
    CHECK(code != LUA_OK && is_refusal(L));
    CHECK(strstr(text, rows[i].what) != NULL);
    if (strstr(text, rows[i].what) == NULL)
      fprintf(stderr, "row %zu: %s\n", i, text);
    lua_settop(L, 0);
  }
}

int
main (void)
{
  lua_State *const L = new_state();
  check_raw(L);
  check_small(L);
  check_packed(L);
  check_room(L);
  check_bad_runs(L);
  check_identities(L);
  check_refusal_leaves_no_trace(L);
  check_forbidden(L);
  check_skipping(L);
  check_transferred_garbage(L);
  check_environment(L);
  check_environment_under_hook();
  check_large_message(L);
  check_large_blocks();
  check_wrong_bytes(L);
  check_cut_short(L);
  check_depth(L);
  lua_close(L);
  check_collector();
  check_no_memory(&fail_c);
  check_no_memory(&fail_lua);
  check_mutants();
  rs_large_trim();
  CHECK(c_blocks == 0);
  return report();
}
