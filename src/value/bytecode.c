/* SPDX-License-Identifier: MIT */
/*
 * bytecode.c - the names that a function reads in its environment.
 *
 * A global is read by GETTABUP, which has the number of an upvalue and that of
 * a constant, the name.  A constant beyond number 255, or a long name, is read
 * in another way: then GETUPVAL gets the table first.  Lua 5.4.0 to 5.4.8 have
 * the same format and the same numbers of instructions; 'rs_bytecode_learn'
 * looks at those of the Lua that runs.  If the instructions have other
 * numbers, all constant strings count as names; if the format is another one,
 * no name is found.
 */
#include "value/bytecode.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include <lauxlib.h>

#include "value/dump.h"

enum { GETUPVAL = 9, SETUPVAL = 10, GETTABUP = 11, SETTABUP = 15 };

enum { CONSTANTS = 256 };  /* constants that GETTABUP can name */

/* What is known of this Lua's bytecode. */
enum { UNKNOWN, FORMAT, INSTRUCTIONS };
static _Atomic int knowledge;

/* The names of Lua itself, sorted: every runspace has its own value, or is to
   do without it. */
static const char *const own_names[] = {
  "_G", "_VERSION", "assert", "collectgarbage", "coroutine", "debug", "dofile",
  "error", "getmetatable", "io", "ipairs", "load", "loadfile", "math", "next",
  "os", "package", "pairs", "pcall", "print", "rawequal", "rawget", "rawlen",
  "rawset", "require", "select", "setmetatable", "string", "table", "tonumber",
  "tostring", "type", "utf8", "warn", "xpcall"
};

/* Those by which a function can get hold of its environment as a table. */
static const char *const handles[] = {
  "_G", "debug", "dofile", "load", "loadfile", "package", "require"
};

typedef struct reader {
  rs_dump dump;
  rs_buf *names;
  rs_globals_read found;
  rs_digest *digest;   /* of what the functions do; or NULL */
} reader;

/* ------------------------------------------------------------------ names */

static bool
is_in (const char *name, size_t size, const char *const *list, size_t n)
{
  size_t low = 0;
  while (low < n) {
    const size_t middle = (low + n) / 2;
    const size_t length = strlen(list[middle]);
    int order = memcmp(name, list[middle], size < length ? size : length);
    if (order == 0)
      order = size < length ? -1 : size > length;
    if (order == 0)
      return true;
    if (order < 0)
      n = middle;
    else
      low = middle + 1;
  }
  return false;
}

#define IS_IN(name, size, list) \
  is_in(name, size, list, sizeof list / sizeof list[0])

static void
add_name (reader *r, const char *name, size_t size)
{
  if (IS_IN(name, size, own_names)) {
    if (IS_IN(name, size, handles))
      r->found.plain = false;
    return;
  }
  r->found.known = true;
  rs_buf_add(r->names, &size, sizeof size);
  rs_buf_add(r->names, name, size);
}

const char *
rs_bytecode_next (const rs_buf *names, size_t *at, size_t *size)
{
  memcpy(size, names->data + *at, sizeof *size);
  const char *const name = (const char *) names->data + *at + sizeof *size;
  *at += sizeof *size + *size;
  return name;
}

/* -------------------------------------------------------------- functions */

/* The constants that a function reads as names. */
typedef struct names_read {
  uint64_t number[CONSTANTS / 64];  /* a bit for each */
  bool any;                         /* some constant is a name */
  bool all;                         /* all strings are taken for names */
} names_read;

/* Find the instructions that use the upvalue 'env'. */
static void
read_code (reader *r, const unsigned char *code, size_t n, unsigned env,
           names_read *names)
{
  if (atomic_load_explicit(&knowledge, memory_order_relaxed)
      != INSTRUCTIONS) {
    names->any = names->all = true;
    r->found.plain = false;
    return;
  }
  for (size_t i = 0; i < n; i++) {
    uint32_t word;
    memcpy(&word, code + RS_DUMP_INSTRUCTION * i, sizeof word);
    const unsigned a = word >> 7 & 0xff, b = word >> 16 & 0xff,
                   c = word >> 24;
    switch (word & 0x7f) {
      case GETTABUP:
        if (b == env) {
          names->number[c / 64] |= (uint64_t) 1 << c % 64;
          names->any = true;
        }
        break;
      case GETUPVAL:
        if (b == env) {
          names->any = names->all = true;
          r->found.plain = false;
        }
        break;
      case SETTABUP:
        if (a == env)
          r->found.plain = false;
        break;
      case SETUPVAL:
        if (b == env)
          r->found.plain = false;
        break;
      default:
        break;
    }
  }
}

static bool
is_name (const names_read *names, size_t i)
{
  return names->all || (i < CONSTANTS
                        && (names->number[i / 64] >> i % 64 & 1) != 0);
}

/* Append to the digest the bytes from 'from' up to here. */
static void
add_bytes (reader *r, size_t from)
{
  const rs_dump *const d = &r->dump;
  if (r->digest != NULL && !d->bad)
    rs_digest_bytes(r->digest, d->data + from, d->at - from);
}

/* Read a function.  The environment is upvalue number 'env' of it if 'outer'
   is false, and else of the function around.  Nothing is needed of what
   follows the 'last' one. */
static void
read_function (reader *r, unsigned env, bool outer, bool last)
{
  rs_dump *const d = &r->dump;
  size_t size, n;
  rs_dump_pass_string(d);            /* source */
  (void) rs_dump_size(d);            /* lines */
  (void) rs_dump_size(d);
  const size_t begin = d->at;
  rs_dump_pass(d, 3);                /* parameters, varargs, stack */
  const size_t codes = rs_dump_count(d, RS_DUMP_INSTRUCTION);
  const unsigned char *const code = d->data + d->at;
  rs_dump_pass(d, RS_DUMP_INSTRUCTION * codes);
  const size_t constants = rs_dump_count(d, 1);
  const size_t first = d->at;
  for (size_t i = 0; i < constants && !d->bad; i++)
    (void) rs_dump_constant(d, &size);
  n = rs_dump_count(d, RS_DUMP_UPVALUE);
  unsigned mine = outer ? RS_BYTECODE_NO_ENV : env;
  for (size_t i = 0; i < n && outer; i++) {
    const unsigned char *const upvalue = d->data + d->at + RS_DUMP_UPVALUE * i;
    if (upvalue[0] == 0 && upvalue[1] == env)
      mine = (unsigned) i;
  }
  rs_dump_pass(d, RS_DUMP_UPVALUE * n);
  add_bytes(r, begin);
  if (mine != RS_BYTECODE_NO_ENV && !d->bad) {
    names_read names = { .any = false };
    const size_t here = d->at;
    read_code(r, code, codes, mine, &names);
    d->at = first;
    for (size_t i = 0; i < constants && names.any; i++) {
      const char *const name = rs_dump_constant(d, &size);
      if (name != NULL && is_name(&names, i))
        add_name(r, name, size);
    }
    d->at = here;
  }
  n = rs_dump_count(d, 1);           /* functions inside */
  for (size_t i = 0; i < n && !d->bad; i++)
    read_function(r, mine, true, last && i + 1 == n);
  if (last)
    return;
  rs_dump_pass(d, rs_dump_count(d, 1));  /* lines of the code */
  n = rs_dump_count(d, 2);
  for (size_t i = 0; i < 2 * n && !d->bad; i++)
    (void) rs_dump_size(d);
  n = rs_dump_count(d, 3);           /* variables */
  for (size_t i = 0; i < n && !d->bad; i++) {
    rs_dump_pass_string(d);
    (void) rs_dump_size(d);
    (void) rs_dump_size(d);
  }
  n = rs_dump_count(d, 1);           /* names of upvalues */
  for (size_t i = 0; i < n && !d->bad; i++)
    rs_dump_pass_string(d);
}

bool
rs_bytecode_is_known (void)
{
  return atomic_load_explicit(&knowledge, memory_order_relaxed)
      == INSTRUCTIONS;
}

rs_globals_read
rs_bytecode_globals (const unsigned char *dump, size_t size, unsigned env,
                     rs_buf *names)
{
  const size_t before = names->size;
  reader r = { .dump = { dump, size, RS_DUMP_HEADER, false },
               .names = names, .found = { .plain = true } };
  if (size < RS_DUMP_HEADER
      || atomic_load_explicit(&knowledge, memory_order_relaxed) == UNKNOWN)
    return r.found;
  read_function(&r, env, false, true);
  if (r.dump.bad) {
    names->size = before;
    r.found = (rs_globals_read) { .plain = false };
  }
  return r.found;
}

void
rs_bytecode_digest (const unsigned char *dump, size_t size, rs_digest *digest)
{
  rs_buf names = RS_BUF_INIT;
  rs_digest own = *digest;
  reader r = { .dump = { dump, size, RS_DUMP_HEADER, true },
               .names = &names, .digest = &own };
  if (size >= RS_DUMP_HEADER
      && atomic_load_explicit(&knowledge, memory_order_relaxed) != UNKNOWN) {
    r.dump.bad = false;
    read_function(&r, RS_BYTECODE_NO_ENV, false, true);
  }
  if (r.dump.bad)
    rs_digest_bytes(digest, dump, size);
  else
    *digest = own;
  rs_buf_fini(&names);
}

/* --------------------------------------------------------------- learning */

static int
on_bytecode (lua_State *L, const void *bytes, size_t n, void *user)
{
  (void) L;
  rs_buf *const buf = user;
  rs_buf_add(buf, bytes, n);
  return buf->failed;
}

/* True when the names in the buffer are these, in this order. */
static bool
are (const rs_buf *names, const char *expected)
{
  size_t at = 0, size;
  while (at < names->size) {
    const char *const name = rs_bytecode_next(names, &at, &size);
    if (strncmp(name, expected, size) != 0 || expected[size] != ' ')
      return false;
    expected += size + 1;
  }
  return *expected == '\0';
}

void
rs_bytecode_learn (lua_State *L)
{
  static const char probe[] =
    "wrote = 1; return function (x) x.field = one(x) return two end";
  rs_buf dump = RS_BUF_INIT, names = RS_BUF_INIT;
  if (atomic_load_explicit(&knowledge, memory_order_relaxed) != UNKNOWN
      || luaL_loadbufferx(L, probe, sizeof probe - 1, "=probe", "t") != LUA_OK)
    return;
  lua_dump(L, on_bytecode, &dump, 1);
  lua_pop(L, 1);
  static const int steps[] = { INSTRUCTIONS, FORMAT };
  int known = UNKNOWN;
  for (int i = 0; i < 2 && known == UNKNOWN && !dump.failed; i++) {
    atomic_store_explicit(&knowledge, steps[i], memory_order_relaxed);
    rs_buf_clear(&names);
    rs_globals_read found = rs_bytecode_globals(dump.data, dump.size, 0,
                                                &names);
    if (!names.failed && !found.plain
        && are(&names, i == 0 ? "one two " : "wrote field one two "))
      known = steps[i];
  }
  atomic_store_explicit(&knowledge, known, memory_order_relaxed);
  rs_buf_fini(&dump);
  rs_buf_fini(&names);
}
