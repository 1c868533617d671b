/* SPDX-License-Identifier: MIT */
/*
 * bytecode.c - the names that a function reads in its environment.
 *
 * What 'lua_dump' writes is a header and a function:
 *
 *     source, lines, parameters   skipped
 *     code                        4 bytes an instruction
 *     constants                   a type and a value each
 *     upvalues                    3 bytes each: is it a local variable of the
 *                                 function around, its number there, its kind
 *     functions inside            as this one
 *     lines, variables, names     skipped
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

enum { GETUPVAL = 9, SETUPVAL = 10, GETTABUP = 11, SETTABUP = 15 };

enum {
  HEADER = 32,       /* bytes before the function: signature, version, format,
                        sizes, two numbers, count of upvalues */
  INSTRUCTION = 4,   /* bytes */
  UPVALUE = 3,       /* bytes */
  CONSTANTS = 256    /* constants that GETTABUP can name */
};

/* Types of constants: lua_Type, and a variant in the bits 4 and 5. */
enum { NIL = 0x00, FALSE = 0x01, TRUE = 0x11, INTEGER = 0x03, FLOAT = 0x13,
       SHORT = 0x04, LONG = 0x14 };

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
  const unsigned char *data;
  size_t size, at;
  bool bad;            /* the bytes are not of the format that is known */
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

/* ---------------------------------------------------------------- reading */

static void
pass (reader *r, size_t n)
{
  if (n > r->size - r->at)
    r->bad = true;
  else
    r->at += n;
}

static unsigned
get_byte (reader *r)
{
  if (r->at == r->size) {
    r->bad = true;
    return 0;
  }
  return r->data[r->at++];
}

/* A number: seven bits a byte, high ones first; the last byte is marked. */
static size_t
get_size (reader *r)
{
  size_t n = 0;
  unsigned byte;
  do {
    byte = get_byte(r);
    n = n << 7 | (byte & 0x7f);
  } while (!(byte & 0x80) && !r->bad);
  return n;
}

/* A count of things of 'least' bytes or more each. */
static size_t
get_count (reader *r, size_t least)
{
  const size_t n = get_size(r);
  if (n > (r->size - r->at) / least)
    r->bad = true;
  return r->bad ? 0 : n;
}

/* A string; NULL: there is none. */
static const char *
get_string (reader *r, size_t *size)
{
  const size_t n = get_size(r);
  if (n == 0 || r->bad)
    return NULL;
  *size = n - 1;
  const char *const text = (const char *) r->data + r->at;
  pass(r, n - 1);
  return r->bad ? NULL : text;
}

static void
pass_string (reader *r)
{
  size_t size;
  (void) get_string(r, &size);
}

/* A constant; NULL: it is no string. */
static const char *
get_constant (reader *r, size_t *size)
{
  switch (get_byte(r)) {
    case SHORT:
    case LONG:
      return get_string(r, size);
    case INTEGER:
      pass(r, sizeof (lua_Integer));
      break;
    case FLOAT:
      pass(r, sizeof (lua_Number));
      break;
    case NIL:
    case FALSE:
    case TRUE:
      break;
    default:
      r->bad = true;
  }
  return NULL;
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
    memcpy(&word, code + INSTRUCTION * i, sizeof word);
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
  if (r->digest != NULL && !r->bad)
    rs_digest_bytes(r->digest, r->data + from, r->at - from);
}

/* Read a function.  The environment is upvalue number 'env' of it if 'outer'
   is false, and else of the function around.  Nothing is needed of what
   follows the 'last' one. */
static void
read_function (reader *r, unsigned env, bool outer, bool last)
{
  size_t size, n;
  pass_string(r);               /* source */
  (void) get_size(r);           /* lines */
  (void) get_size(r);
  const size_t begin = r->at;
  pass(r, 3);                   /* parameters, varargs, stack */
  const size_t codes = get_count(r, INSTRUCTION);
  const unsigned char *const code = r->data + r->at;
  pass(r, INSTRUCTION * codes);
  const size_t constants = get_count(r, 1);
  const size_t first = r->at;
  for (size_t i = 0; i < constants && !r->bad; i++)
    (void) get_constant(r, &size);
  n = get_count(r, UPVALUE);
  unsigned mine = outer ? RS_BYTECODE_NO_ENV : env;
  for (size_t i = 0; i < n && outer; i++) {
    const unsigned char *const upvalue = r->data + r->at + UPVALUE * i;
    if (upvalue[0] == 0 && upvalue[1] == env)
      mine = (unsigned) i;
  }
  pass(r, UPVALUE * n);
  add_bytes(r, begin);
  if (mine != RS_BYTECODE_NO_ENV && !r->bad) {
    names_read names = { .any = false };
    const size_t here = r->at;
    read_code(r, code, codes, mine, &names);
    r->at = first;
    for (size_t i = 0; i < constants && names.any; i++) {
      const char *const name = get_constant(r, &size);
      if (name != NULL && is_name(&names, i))
        add_name(r, name, size);
    }
    r->at = here;
  }
  n = get_count(r, 1);          /* functions inside */
  for (size_t i = 0; i < n && !r->bad; i++)
    read_function(r, mine, true, last && i + 1 == n);
  if (last)
    return;
  pass(r, get_count(r, 1));     /* lines of the code */
  n = get_count(r, 2);
  for (size_t i = 0; i < 2 * n && !r->bad; i++)
    (void) get_size(r);
  n = get_count(r, 3);          /* variables */
  for (size_t i = 0; i < n && !r->bad; i++) {
    pass_string(r);
    (void) get_size(r);
    (void) get_size(r);
  }
  n = get_count(r, 1);          /* names of upvalues */
  for (size_t i = 0; i < n && !r->bad; i++)
    pass_string(r);
}

rs_globals_read
rs_bytecode_globals (const unsigned char *dump, size_t size, unsigned env,
                     rs_buf *names)
{
  const size_t before = names->size;
  reader r = { .data = dump, .size = size, .at = HEADER, .names = names,
               .found = { .plain = true } };
  if (size < HEADER
      || atomic_load_explicit(&knowledge, memory_order_relaxed) == UNKNOWN)
    return r.found;
  read_function(&r, env, false, true);
  if (r.bad) {
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
  reader r = { .data = dump, .size = size, .at = HEADER, .names = &names,
               .bad = true, .digest = &own };
  if (size >= HEADER
      && atomic_load_explicit(&knowledge, memory_order_relaxed) != UNKNOWN) {
    r.bad = false;
    read_function(&r, RS_BYTECODE_NO_ENV, false, true);
  }
  if (r.bad)
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
