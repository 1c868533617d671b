/* SPDX-License-Identifier: MIT */
/*
 * lost.c - assignments of a function that are lost when it runs as a job.
 *
 * The bytecode is read once, from the first instruction to the last, and for
 * each register it is noted what the register holds: the value of an upvalue
 * or of a global, or something inside of one.  A register counts as that only
 * if it holds it on all ways to an instruction:
 *
 * - Where a jump from 'a' forwards to 'b' ends, registers that are written
 *   between them are forgotten.
 * - Where a jump back from 'b' to 'a' ends, so are those.
 * - Registers that are local variables of functions inside are never noted,
 *   since these may assign to them.
 *
 * So there is no alarm where the value is only perhaps that of the upvalue.
 * Modules, libraries, and tables whose metatable takes assignments or says how
 * they travel are not noted either: they are no copies, or know what they do.
 */
#include "value/lost.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/level.h"
#include "value/bytecode.h"
#include "value/dump.h"

/* Instructions, as their numbers are in Lua 5.4. */
enum {
  MOVE = 0, LFALSESKIP = 6, LOADTRUE = 7, LOADNIL = 8, GETUPVAL = 9,
  SETUPVAL = 10, GETTABUP = 11, GETTABLE = 12, GETI = 13, GETFIELD = 14,
  SETTABUP = 15, SETTABLE = 16, SETI = 17, SETFIELD = 18, NEWTABLE = 19,
  SELF = 20, ADDI = 21, SHR = 45, UNM = 49, LEN = 52, CONCAT = 53, JMP = 56,
  EQ = 57, TESTSET = 67, CALL = 68, TAILCALL = 69, RETURN = 70, RETURN1 = 72,
  FORLOOP = 73, FORPREP = 74, TFORPREP = 75, TFORCALL = 76, TFORLOOP = 77,
  CLOSURE = 79, VARARG = 80
};

enum {
  REGISTERS = 256,
  NO_UPVALUE = 255,     /* one more than Lua allows */
  CODE_MAX = 1 << 20,   /* instructions of a function that is looked at */
  DEPTH_MAX = 100       /* functions inside each other that are looked at */
};

/* What a register holds. */
typedef enum { UNKNOWN, OF_UPVALUE, OF_GLOBAL, LIBRARY, CHANGER } kind;

typedef struct held {
  unsigned char kind;
  bool inside;          /* something in the value */
  unsigned char upvalue;  /* OF_UPVALUE: its number in the function that is
                             sent */
  const char *name;     /* OF_GLOBAL */
  size_t size;
  uint32_t written;     /* number of the instruction that wrote last, from 1 */
} held;

typedef struct function {
  const unsigned char *code;
  uint32_t n;                     /* instructions */
  size_t constants;               /* where they begin */
  size_t count;
  unsigned char upvalue[256];     /* numbers in the function that is sent */
  uint64_t captured[REGISTERS / 64];  /* local variables of functions inside */
  int line;                       /* where the function begins */
  size_t lines, steps;            /* where line information begins; its size */
} function;

typedef struct search {
  lua_State *L;
  int index;                      /* the function that is sent */
  bool globals;
  bool returns;                   /* it returns values */
  rs_dump dump;
  rs_lost *best;
  bool found;
  const function *last;           /* one whose first assignment is known */
} search;

/* ------------------------------------------------------------ live values */

/* [-0, +0, -]  True when the value on top is a loaded module. */
static bool
is_module (lua_State *L)
{
  const int top = lua_gettop(L);
  bool found = false;
  if (lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) == LUA_TTABLE) {
    lua_pushnil(L);
    while (!found && lua_next(L, top + 1)) {
      found = lua_rawequal(L, -1, top);
      lua_pop(L, 1);
    }
  }
  lua_settop(L, top);
  return found;
}

/* [-0, +0, m]  True when the table on top has a metatable with 'field'. */
static bool
has_meta (lua_State *L, const char *field)
{
  const bool has = luaL_getmetafield(L, -1, field) != LUA_TNIL;
  if (has)
    lua_pop(L, 1);
  return has;
}

/* [-0, +0, m]  True when the value on top is the function 'name' of the
   library, or of Lua itself. */
static bool
is_of_library (lua_State *L, const char *library, const char *name)
{
  const int top = lua_gettop(L);
  bool same = false;
  if (lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) == LUA_TTABLE) {
    lua_pushstring(L, library);
    if (lua_rawget(L, -2) == LUA_TTABLE) {
      lua_pushstring(L, name);
      lua_rawget(L, -2);
      same = lua_iscfunction(L, top) && lua_rawequal(L, -1, top);
    }
  }
  lua_settop(L, top);
  return same;
}

/* Functions that change the table that is their first argument. */
static const char *const changers[] = { "insert", "remove", "sort" };

static bool
is_changer (const char *name, size_t size)
{
  for (size_t i = 0; i < sizeof changers / sizeof changers[0]; i++)
    if (strlen(changers[i]) == size && memcmp(name, changers[i], size) == 0)
      return true;
  return false;
}

/* [-1, +0, m]  Tell what the value on top is: UNKNOWN, LIBRARY, CHANGER, or
   OF_UPVALUE for a table that is copied. */
static kind
classify (lua_State *L)
{
  kind k = UNKNOWN;
  if (lua_iscfunction(L, -1)) {
    bool is = is_of_library(L, "_G", "rawset");
    for (size_t i = 0; !is && i < sizeof changers / sizeof changers[0]; i++)
      is = is_of_library(L, LUA_TABLIBNAME, changers[i]);
    k = is ? CHANGER : UNKNOWN;
  }
  else if (lua_istable(L, -1)) {
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushliteral(L, LUA_TABLIBNAME);
    lua_rawget(L, -2);
    const bool library = lua_rawequal(L, -1, -3);
    lua_pop(L, 2);
    k = library ? LIBRARY
      : is_module(L) || has_meta(L, "__newindex") || has_meta(L, "__transfer")
      ? UNKNOWN : OF_UPVALUE;
  }
  lua_pop(L, 1);
  return k;
}

/* [-0, +(0|1), -]  Push the environment if upvalue 'n' of the function is
   that. */
static bool
push_environment (const search *s, unsigned n)
{
  const char *const name = lua_getupvalue(s->L, s->index, (int) n + 1);
  if (name == NULL)
    return false;
  if (strcmp(name, "_ENV") == 0 && lua_istable(s->L, -1))
    return true;
  lua_pop(s->L, 1);
  return false;
}

enum { TABLES_MAX = 16 };  /* tables that inherit from each other */

/* [-1, +1, m]  Replace the environment by its global, looked up raw, also in
   tables that it inherits from. */
static void
raw_global (lua_State *L, const char *name, size_t size)
{
  for (int i = 0; i < TABLES_MAX && lua_istable(L, -1); i++) {
    lua_pushlstring(L, name, size);
    if (lua_rawget(L, -2) != LUA_TNIL) {
      lua_remove(L, -2);
      return;
    }
    lua_pop(L, 1);
    if (luaL_getmetafield(L, -1, "__index") == LUA_TNIL)
      break;
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  lua_pushnil(L);
}

/* ------------------------------------------------------------ instructions */

static uint32_t
word_at (const function *f, uint32_t pc)
{
  uint32_t word;
  memcpy(&word, f->code + (size_t) RS_DUMP_INSTRUCTION * pc, sizeof word);
  return word;
}

#define OP(word) ((word) & 0x7f)
#define A(word) ((word) >> 7 & 0xff)
#define B(word) ((word) >> 16 & 0xff)
#define C(word) ((word) >> 24)
#define BX(word) ((word) >> 15)
#define SJ(word) ((int64_t) ((word) >> 7) - 0xffffff)

/* The registers that an instruction may write: 'a' to the result, -1: none. */
static int
last_written (uint32_t word)
{
  const unsigned op = OP(word);
  const int a = (int) A(word);
  switch (op) {
    case LOADNIL:
      return a + (int) B(word);
    case SELF:
      return a + 1;
    case CONCAT:
      return a + (int) B(word) - 1;
    case CALL: case TAILCALL: case TFORCALL: case TFORLOOP: case VARARG:
      return REGISTERS - 1;
    case FORLOOP: case FORPREP: case TFORPREP:
      return a + 3;
    case TESTSET: case CLOSURE: case NEWTABLE: case GETUPVAL: case GETTABUP:
    case GETTABLE: case GETI: case GETFIELD:
      return a;
    default:
      return op <= LOADTRUE || (op >= ADDI && op <= SHR)
             || (op >= UNM && op <= LEN) ? a : -1;
  }
}

/* Where the instruction may go on besides the next one; -1: nowhere else. */
static int64_t
target (uint32_t word, uint32_t pc)
{
  const unsigned op = OP(word);
  const int64_t next = (int64_t) pc + 1;
  switch (op) {
    case JMP: return next + SJ(word);
    case LFALSESKIP: return next + 1;
    case FORLOOP: case TFORLOOP: return next - BX(word);
    case FORPREP: return next + 1 + BX(word);
    case TFORPREP: return next + BX(word);
    default: return op >= EQ && op <= TESTSET ? next + 1 : -1;
  }
}

/* The constant string 'n'; NULL: it is none. */
static const char *
constant (const search *s, const function *f, size_t n, size_t *size)
{
  rs_dump d = s->dump;
  const char *text = NULL;
  if (n >= f->count)
    return NULL;
  d.at = f->constants;
  for (size_t i = 0; i <= n && !d.bad; i++)
    text = rs_dump_constant(&d, size);
  return d.bad ? NULL : text;
}

/* The line of the instruction; 0: unknown. */
static int
line_of (const search *s, const function *f, uint32_t pc)
{
  enum { ABSOLUTE = -128 };
  rs_dump d = s->dump;
  if (f->steps != f->n)
    return 0;
  int64_t line = f->line;
  d.at = f->lines + f->n;
  size_t n = rs_dump_count(&d, 2), next = n > 0 ? rs_dump_size(&d) : 0;
  for (uint32_t i = 0; i <= pc; i++) {
    const signed char step = (signed char) d.data[f->lines + i];
    if (step != ABSOLUTE)
      line += step;
    else if (n > 0 && next == i) {
      line = (int64_t) rs_dump_size(&d);
      next = --n > 0 ? rs_dump_size(&d) : 0;
    }
    else
      return 0;
  }
  return d.bad || line < 0 || line > INT32_MAX ? 0 : (int) line;
}

/* ------------------------------------------------------------ what is lost */

/* [-0, +0, m]  Keep the assignment by the instruction 'pc', if it is the first
   of its function, and stands before those of the others. */
static void
keep (search *s, const function *f, uint32_t pc, const held *what)
{
  if (s->last == f)
    return;
  s->last = f;
  const int line = line_of(s, f, pc);
  rs_lost *const best = s->best;
  if (s->found && (line == 0 || best->line <= line))
    return;
  const char *name = what->name;
  size_t size = what->size;
  if (what->kind == OF_UPVALUE) {
    name = lua_getupvalue(s->L, s->index, what->upvalue + 1);
    lua_pop(s->L, 1);
    size = strcmp(name, "(no name)") == 0 ? 0 : strlen(name);
  }
  s->found = true;
  best->line = line;
  best->global = what->kind == OF_GLOBAL;
  best->inside = what->inside;
  size = size < sizeof best->name ? size : sizeof best->name - 1;
  memcpy(best->name, name, size);
  best->name[size] = '\0';
}

/* [-0, +0, m]  Find out what upvalue 'n' of the function is. */
static held
look_at_upvalue (const search *s, unsigned n)
{
  held h = { .kind = UNKNOWN, .upvalue = (unsigned char) n };
  if (n == NO_UPVALUE)
    return h;
  if (push_environment(s, n)) {
    lua_pop(s->L, 1);
    return h;
  }
  if (lua_getupvalue(s->L, s->index, (int) n + 1) != NULL)
    h.kind = classify(s->L);
  return h;
}

/* [-0, +0, m]  Find out what the global is, if upvalue 'n' is the environment;
   else, what the field of that upvalue is. */
static held
look_at_field (const search *s, unsigned n, const char *name, size_t size)
{
  held h = { .kind = UNKNOWN };
  if (n == NO_UPVALUE || name == NULL)
    return h;
  if (!push_environment(s, n)) {
    h = look_at_upvalue(s, n);
    h.inside = true;
    if (h.kind == LIBRARY)
      h.kind = is_changer(name, size) ? CHANGER : UNKNOWN;
    return h;
  }
  raw_global(s->L, name, size);
  const kind k = classify(s->L);
  h.kind = k == OF_UPVALUE ? OF_GLOBAL : k;
  h.name = name;
  h.size = size;
  return h;
}

/* [-0, +0, m]  An assignment to field 'name' of upvalue 'n', which may be the
   environment. */
static void
assign_field (search *s, const function *f, uint32_t pc, unsigned n,
              const char *name, size_t size)
{
  if (n == NO_UPVALUE || name == NULL)
    return;
  if (!push_environment(s, n)) {
    held h = look_at_upvalue(s, n);
    h.inside = true;
    if (h.kind == OF_UPVALUE)
      keep(s, f, pc, &h);
    return;
  }
  raw_global(s->L, name, size);
  const bool own = lua_isnil(s->L, -1) || lua_iscfunction(s->L, -1)
                || (lua_istable(s->L, -1) && is_module(s->L));
  lua_pop(s->L, 1);
  if (s->globals && !own)
    keep(s, f, pc, &(held) { .kind = OF_GLOBAL, .name = name, .size = size });
}

static bool
is_copy (const held *h)
{
  return h->kind == OF_UPVALUE || h->kind == OF_GLOBAL;
}

/* [-0, +0, m]  Obey an instruction: note what its register holds now, and keep
   an assignment. */
static void
step (search *s, const function *f, uint32_t pc, held *r)
{
  const uint32_t word = word_at(f, pc);
  const unsigned op = OP(word), a = A(word), b = B(word), c = C(word);
  held h = { .kind = UNKNOWN };
  size_t size = 0;
  switch (op) {
    case GETUPVAL:
      h = look_at_upvalue(s, f->upvalue[b]);
      break;
    case GETTABUP: {
      const char *const name = constant(s, f, c, &size);
      h = look_at_field(s, f->upvalue[b], name, size);
      break;
    }
    case GETFIELD:
      h = r[b];
      h.inside = true;
      if (h.kind == LIBRARY) {
        const char *const name = constant(s, f, c, &size);
        h.kind = name != NULL && is_changer(name, size) ? CHANGER : UNKNOWN;
      }
      break;
    case GETTABLE:
    case GETI:
      if (is_copy(&r[b]))
        h = r[b];
      h.inside = true;
      break;
    case MOVE:
      h = r[b];
      break;
    case SETUPVAL:
      if (f->upvalue[b] != NO_UPVALUE) {
        if (push_environment(s, f->upvalue[b]))
          lua_pop(s->L, 1);
        else
          keep(s, f, pc, &(held) { .kind = OF_UPVALUE,
                                   .upvalue = f->upvalue[b] });
      }
      break;
    case SETTABUP: {
      const char *const name = constant(s, f, b, &size);
      assign_field(s, f, pc, f->upvalue[a], name, size);
      break;
    }
    case SETTABLE:
    case SETI:
    case SETFIELD:
      h = r[a];
      h.inside = true;
      if (is_copy(&h))
        keep(s, f, pc, &h);
      break;
    case CALL:
      h = r[(a + 1) % REGISTERS];
      h.inside = true;
      if (r[a].kind == CHANGER && b != 1 && is_copy(&h))
        keep(s, f, pc, &h);
      h.kind = UNKNOWN;
      break;
    default:
      break;
  }
  const int last = last_written(word);
  const held object = op == SELF ? r[b] : h;
  for (int i = (int) a; i <= last && i < REGISTERS; i++)
    r[i] = (held) { .kind = UNKNOWN, .written = pc + 1 };
  if (last == (int) a)
    r[a] = h;
  else if (op == SELF && a + 1 < REGISTERS)
    r[a + 1] = object;
  for (int i = (int) a; i <= last && i < REGISTERS; i++) {
    if (f->captured[i / 64] >> i % 64 & 1)
      r[i].kind = UNKNOWN;
    r[i].written = pc + 1;
  }
}

/* Forget what the registers hold that were written by instruction 'from', or
   later. */
static void
forget_since (held *r, uint32_t from)
{
  for (int i = 0; i < REGISTERS; i++)
    if (r[i].written > from)
      r[i].kind = UNKNOWN;
}

/* Forget the registers that are written by an instruction from 'first' to
   'last'. */
static void
forget_written (const function *f, held *r, uint32_t first, uint32_t last)
{
  for (uint32_t pc = first; pc <= last; pc++) {
    const uint32_t word = word_at(f, pc);
    for (int i = (int) A(word); i <= last_written(word) && i < REGISTERS; i++)
      r[i].kind = UNKNOWN;
  }
}

/* [-0, +0, m]  Read the code of a function. */
static void
read_code (search *s, const function *f)
{
  held r[REGISTERS] = { { .kind = UNKNOWN } };
  /* For each instruction: the first one before it that jumps there, plus 1,
     and the last one behind it; 0: none. */
  uint32_t *const before = lua_newuserdatauv(s->L, 2 * f->n * sizeof *before,
                                             0);
  uint32_t *const behind = before + f->n;
  memset(before, 0, 2 * f->n * sizeof *before);
  for (uint32_t pc = 0; pc < f->n; pc++) {
    const int64_t to = target(word_at(f, pc), pc);
    if (to < 0 || to >= f->n)
      continue;
    if (to > pc && before[to] == 0)
      before[to] = pc + 1;
    else if (to <= pc)
      behind[to] = pc;
  }
  for (uint32_t pc = 0; pc < f->n; pc++) {
    if (before[pc] != 0)
      forget_since(r, before[pc] - 1);
    if (behind[pc] != 0)
      forget_written(f, r, pc, behind[pc]);
    step(s, f, pc, r);
  }
  lua_pop(s->L, 1);
}

/* True when the function returns values. */
static bool
returns (const function *f)
{
  for (uint32_t pc = 0; pc < f->n; pc++) {
    const uint32_t word = word_at(f, pc);
    const unsigned op = OP(word);
    if (op == TAILCALL || op == RETURN1 || (op == RETURN && B(word) != 1))
      return true;
  }
  return false;
}

/* [-0, +0, m]  Read a function, and those inside of it.  'outer' is the one
   around; NULL: this is the one that is sent. */
static void
read_function (search *s, function *outer, int depth)
{
  rs_dump *const d = &s->dump;
  function f = { .line = 0 };
  size_t size;
  rs_dump_pass_string(d);
  f.line = (int) rs_dump_size(d);
  (void) rs_dump_size(d);
  rs_dump_pass(d, 3);
  const size_t codes = rs_dump_count(d, RS_DUMP_INSTRUCTION);
  f.code = d->data + d->at;
  rs_dump_pass(d, RS_DUMP_INSTRUCTION * codes);
  f.count = rs_dump_count(d, 1);
  f.constants = d->at;
  for (size_t i = 0; i < f.count && !d->bad; i++)
    (void) rs_dump_constant(d, &size);
  const size_t n = rs_dump_count(d, RS_DUMP_UPVALUE);
  memset(f.upvalue, NO_UPVALUE, sizeof f.upvalue);
  for (size_t i = 0; i < n && i < NO_UPVALUE; i++) {
    const unsigned char *const upvalue = d->data + d->at + RS_DUMP_UPVALUE * i;
    const unsigned number = upvalue[1];
    if (outer == NULL)
      f.upvalue[i] = (unsigned char) i;
    else if (upvalue[0] == 0)
      f.upvalue[i] = outer->upvalue[number];
    else
      outer->captured[number / 64] |= (uint64_t) 1 << number % 64;
  }
  rs_dump_pass(d, RS_DUMP_UPVALUE * n);
  f.n = codes <= CODE_MAX && !d->bad ? (uint32_t) codes : 0;
  d->bad |= depth == DEPTH_MAX;
  s->returns |= outer == NULL && returns(&f);
  for (size_t i = rs_dump_count(d, 1); i > 0 && !d->bad && !s->returns; i--)
    read_function(s, &f, depth + 1);
  if (d->bad || s->returns)
    return;
  f.steps = rs_dump_count(d, 1);
  f.lines = d->at;
  rs_dump_pass(d, f.steps);
  const size_t after = d->at;
  s->last = NULL;
  if (!d->bad && f.n > 0)
    read_code(s, &f);
  d->at = after;
  for (size_t i = 2 * rs_dump_count(d, 2); i > 0 && !d->bad; i--)
    (void) rs_dump_size(d);
  for (size_t i = rs_dump_count(d, 3); i > 0 && !d->bad; i--) {
    rs_dump_pass_string(d);
    (void) rs_dump_size(d);
    (void) rs_dump_size(d);
  }
  for (size_t i = rs_dump_count(d, 1); i > 0 && !d->bad; i--)
    rs_dump_pass_string(d);
}

/* ------------------------------------------------------------------- dumps */

typedef struct writer {
  luaL_Buffer b;
  bool begun;
} writer;

/* lua_Writer.  The buffer begins here, since 'lua_dump' wants the function on
   top. */
static int
write (lua_State *L, const void *bytes, size_t n, void *user)
{
  writer *const w = user;
  if (!w->begun)
    luaL_buffinit(L, &w->b);
  w->begun = true;
  luaL_addlstring(&w->b, bytes, n);
  return 0;
}

/* [-0, +0, m]  'rs_lost_find' for a function in Lua. */
static bool
find (lua_State *L, int index, bool globals, rs_lost *found)
{
  const int top = lua_gettop(L);
  writer w = { .begun = false };
  rs_level_room(L, LUA_MINSTACK, NULL);
  lua_pushvalue(L, index);
  lua_dump(L, write, &w, 0);
  luaL_pushresult(&w.b);
  search s = { .L = L, .index = index, .globals = globals, .best = found };
  s.dump.data = (const unsigned char *) lua_tolstring(L, -1, &s.dump.size);
  s.dump.at = RS_DUMP_HEADER;
  if (s.dump.size > RS_DUMP_HEADER)
    read_function(&s, NULL, 0);
  lua_settop(L, top);
  return s.found && !s.returns && !s.dump.bad;
}

/* ---------------------------------------------------------------- learning */

/* [-0, +0, m]  True when what is found in some functions is what they do: the
   instructions are those that this file knows. */
static bool
try_out (lua_State *L)
{
  static const struct { const char *source, *name; int line; } rows[] = {
    { "local n = 0 return function (x)\nn = n + x end", "n", 2 },
    { "local t = {} return function (x)\n\nt[#t + 1] = x or 1 end", "t", 3 },
    { "local t = { a = {} } return function (x) while x do t.a.b = x end end",
      "t", 1 },
    { "local t = {} return function (f) f(function () t.x = 1 end) end", "t",
      1 },
    { "local t = {} return function () for k, v in f, t do\nlocal u = v.x\n"
      "t[k].y = u end end", "t", 3 },
    { "local t = {} return function (x) for i = 1, x do local u = t "
      "while x do u.x = i u = {} end end end", NULL, 0 },
    { "local t = {} return function (x) local u = x and t or {} u.x = 1 end",
      NULL, 0 },
    { "local n = 0 return function (x) n = n + x return n end", NULL, 0 },
    { "local n = 0 return function (x) n = n + x return f(n) end", NULL, 0 },
    { "local t = {} return function () local u = {} for k, v in next, t do "
      "u[k], u[1], u.v = v, v, t.v end end", NULL, 0 },
  };
  const int top = lua_gettop(L);
  bool good = rs_bytecode_is_known();
  for (size_t i = 0; i < sizeof rows / sizeof rows[0] && good; i++) {
    rs_lost lost;
    good = luaL_loadbufferx(L, rows[i].source, strlen(rows[i].source),
                            "=probe", "t") == LUA_OK
        && lua_pcall(L, 0, 1, 0) == LUA_OK;
    const bool found = good && find(L, lua_gettop(L), false, &lost);
    good = good && found == (rows[i].name != NULL)
        && (!found || (strcmp(lost.name, rows[i].name) == 0
                       && lost.line == rows[i].line));
    lua_settop(L, top);
  }
  return good;
}

bool
rs_lost_find (lua_State *L, int index, bool globals, rs_lost *found)
{
  enum { NEW, GOOD, BAD };
  static _Atomic int known;
  if (!lua_isfunction(L, index) || lua_iscfunction(L, index))
    return false;
  if (atomic_load(&known) == NEW) {
    rs_level_room(L, LUA_MINSTACK, NULL);
    atomic_store(&known, try_out(L) ? GOOD : BAD);
  }
  return atomic_load(&known) == GOOD
      && find(L, lua_absindex(L, index), globals, found);
}
