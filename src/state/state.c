/* SPDX-License-Identifier: MIT */
/*
 * state.c - one runspace: a 'lua_State', from its seeding to its end.
 *
 * Printing.  What the code prints is collected until it is a line; a line goes
 * to the terminal at once, and to the call's sink as a record.
 */
#include "state/state.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

#include "state/library.h"
#include "base/clock.h"
#include "state/control.h"
#include "base/finalize.h"
#include "base/fork.h"
#include "state/output.h"
#include "state/popen.h"
#include "state/sandbox.h"
#include "state/seed.h"
#include "base/status.h"

#define FINALIZING 0.5  /* seconds that finalizers have at the end */

enum { MAX_LINE = 65536 };  /* bytes of a line that are held back */

static void on_exhausted (void *ud);
static void *resize_at_end (void *ud, void *ptr, size_t osize, size_t nsize);

/* By its memory, which a script cannot take away. */
rs_state *
rs_state_of (lua_State *L)
{
  void *ud;
  const lua_Alloc resize = lua_getallocf(L, &ud);
  if (resize != rs_alloc_resize && resize != resize_at_end)
    return NULL;
  const rs_alloc *const a = ud;
  return a->exhausted == on_exhausted ? a->ud : NULL;
}

rs_pool *
rs_state_pool (const rs_state *s)
{
  return s->pool;
}

unsigned
rs_state_worker (const rs_state *s)
{
  return s->worker;
}

rs_cancel *
rs_state_cancel (const rs_state *s)
{
  return s->cancel;
}

unsigned
rs_state_depth (const rs_state *s)
{
  return s->depth;
}

/* ------------------------------------------------------------ environment */

/* [-0, +0, -]  Let it be the runspace's globals. */
static void
leave_environment (lua_State *L, rs_state *s)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  rs_environment_set(L, &s->environment);
}

void
rs_state_rest (rs_state *s)
{
  lua_State *const L = s->L;
  if (s->environment.dirty && s->reset == RS_RESET_GLOBALS
      && lua_checkstack(L, LUA_MINSTACK))
    leave_environment(L, s);
}

/* ------------------------------------------------------- what it prints */

/* Write them.  Where nobody reads any more the system tells the thread that
   has written, by a signal that workers block; so the process is told, which
   ends by it unless the program has other plans.  0, or 'errno'. */
static int
write_out (int fd, const char *text, size_t size)
{
  const int error = rs_console_write(fd, text, size);
  if (error == EPIPE)
    kill(getpid(), SIGPIPE);
  return error;
}

/* These lines are whole.  0, or 'errno'. */
static int
put_lines (rs_state *s, int fd, const char *text, size_t size)
{
  const int error = write_out(fd, text, size);
  if (s->on_line == NULL)  /* while it is seeded? */
    return error;
  const char *const end = text + size;
  while (text < end) {
    const char *const stop = memchr(text, '\n', (size_t) (end - text));
    s->on_line(s, fd, text, (size_t) (stop - text));
    text = stop + 1;
  }
  return error;
}

/* rs_output */
static int
write_text (lua_State *L, int fd, const char *text, size_t size)
{
  rs_state *const s = rs_state_of(L);
  rs_buf *const line = &s->lines[fd - 1];
  size_t whole = size;  /* bytes up to the last end of a line */
  int error = 0;
  while (whole > 0 && text[whole - 1] != '\n')
    whole--;
  if (whole > 0 && line->size == 0)
    error = put_lines(s, fd, text, whole);
  else if (whole > 0) {
    rs_buf_add(line, text, whole);
    if (!line->failed)
      error = put_lines(s, fd, (const char *) line->data, line->size);
    else  /* torn rather than lost */
      error = write_out(fd, text, whole);
    rs_buf_clear(line);
  }
  if (whole < size)
    rs_buf_add(line, text + whole, size - whole);
  if (line->size >= MAX_LINE) {
    rs_buf_byte(line, '\n');
    error = put_lines(s, fd, (const char *) line->data, line->size);
    rs_buf_clear(line);
  }
  return error;
}

static const rs_output output = { .write = write_text };

/* A call or an item has ended: so have its lines. */
void
rs_state_write_lines (rs_state *s)
{
  for (int fd = 1; fd <= 2; fd++) {
    rs_buf *const line = &s->lines[fd - 1];
    if (line->size == 0)
      continue;
    rs_buf_byte(line, '\n');
    if (!line->failed)
      put_lines(s, fd, (const char *) line->data, line->size);
    rs_buf_clear(line);
  }
}

/* --------------------------------------------------------------- functions */

/* [-1, +1, e]  Replace the source text on top by its chunk. */
static void
compile (lua_State *L)
{
  size_t size;
  const char *const source = lua_tolstring(L, -1, &size);
  if (luaL_loadbufferx(L, source, size, "=(chunk)", "t") != LUA_OK)
    lua_error(L);
  rs_env_join(L);
  lua_remove(L, -2);
}

int
rs_state_decode (lua_State *L, const rs_message *message,
                 const rs_common *common, int marks)
{
  static const rs_common none = { .loads = true };
  bool metatables = false;
  const int n = rs_decode_all(L, message, common != NULL ? common : &none,
                              marks, &metatables);
  if (metatables)
    rs_cancel_set_finalizes(rs_cancel_mine());
  return n;
}

int
rs_state_push_function (lua_State *L, rs_message *message, int marks)
{
  const int base = lua_gettop(L);
  rs_state_decode(L, message, NULL, marks);
  const int n = lua_gettop(L) - base;
  if (lua_type(L, base + 1) == LUA_TSTRING) {
    lua_pushvalue(L, base + 1);
    compile(L);
    lua_replace(L, base + 1);
  }
  return n;
}

void
rs_state_trim (rs_state *s)
{
  for (int i = 0; i < RS_STATE_KEPT; i++) {
    rs_message *const function = s->kept[i].function;
    /* Ours is the last reference: no batch can send it again. */
    if (function != NULL
        && atomic_load_explicit(&function->refs, memory_order_acquire) == 1) {
      luaL_unref(s->L, LUA_REGISTRYINDEX, s->kept[i].ref);
      if (s->kept[i].common > 0)
        luaL_unref(s->L, LUA_REGISTRYINDEX, s->kept[i].common);
      rs_message_unref(function);
      s->kept[i].function = NULL;
    }
  }
}

/* ------------------------------------------------------------------ limits */

/* rs_alloc: the limit of memory was reached. */
static void
on_exhausted (void *ud)
{
  rs_state *const s = ud;
  s->exhausted = true;
  if (s->depth > 0)
    rs_cancel_limit(s->cancel, RS_REASON_MEMORY);
}

bool
rs_state_used_up (rs_state *s)
{
  const rs_limits *const l = &s->limits;
  if (l->max_tasks != 0 && s->tasks >= l->max_tasks)
    return true;
  if (l->max_bytes == 0 || s->alloc.used <= l->max_bytes || s->depth > 0)
    return false;
  lua_gc(s->L, LUA_GCCOLLECT);
  return s->alloc.used > l->max_bytes;
}

/* ----------------------------------------------------------------- seeding */

/* Lua's libraries, in the order of RS_LIB_ bits. */
static const luaL_Reg libraries[] = {
  { LUA_GNAME, luaopen_base },
  { LUA_LOADLIBNAME, luaopen_package },
  { LUA_COLIBNAME, luaopen_coroutine },
  { LUA_TABLIBNAME, luaopen_table },
  { LUA_IOLIBNAME, luaopen_io },
  { LUA_OSLIBNAME, luaopen_os },
  { LUA_STRLIBNAME, luaopen_string },
  { LUA_MATHLIBNAME, luaopen_math },
  { LUA_UTF8LIBNAME, luaopen_utf8 },
  { LUA_DBLIBNAME, luaopen_debug },
};

/* [-0, +0, e]  Set a field of 'package', where there is one. */
static void
set_package_field (lua_State *L, const char *field, const char *value)
{
  if (value == NULL)
    return;
  if (lua_getglobal(L, LUA_LOADLIBNAME) == LUA_TTABLE) {
    lua_pushstring(L, value);
    lua_setfield(L, -2, field);
  }
  lua_pop(L, 1);
}

/*
 * [-0, +0, e]  Open those of Lua's libraries that 'libs' has, as
 * 'luaL_requiref' does.  The two tables that all of them go to have room from
 * the start: to grow them by and by took a tenth of the time.
 */
static void
open_libraries (lua_State *L, unsigned libs)
{
  enum { GLOBALS = 40, LOADED = 14 };  /* what they will have */
  lua_createtable(L, 0, GLOBALS);
  lua_pushvalue(L, -1);
  lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_createtable(L, 0, LOADED);
  lua_pushvalue(L, -1);
  lua_setfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
    if (libs & (1u << i)) {
      lua_pushcfunction(L, libraries[i].func);
      lua_pushstring(L, libraries[i].name);
      lua_call(L, 1, 1);
      lua_pushvalue(L, -1);
      lua_setfield(L, -3, libraries[i].name);
      lua_setfield(L, -3, libraries[i].name);  /* globals, loaded */
    }
  }
  lua_pop(L, 2);
}

/* [-1, +0, e]  package.preload[name] = the value on top. */
static void
set_preload (lua_State *L, const char *name)
{
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_insert(L, -2);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

/* [-0, +0, e]  Establish one entry. */
static void
seed_entry (lua_State *L, rs_state *s, const rs_entry *entry)
{
  const int top = lua_gettop(L);
  switch (entry->kind) {
    case RS_ENTRY_PRELOAD:
      lua_pushcfunction(L, entry->open);
      set_preload(L, entry->name);
      if (entry->flags & RS_PRELOAD_GLOBAL)
        luaL_requiref(L, entry->name, entry->open, 1);
      break;
    case RS_ENTRY_LOADER:
      rs_state_push_function(L, entry->message, 0);
      set_preload(L, entry->name);
      break;
    case RS_ENTRY_VARIABLE:
      rs_state_decode(L, entry->message, NULL, 0);
      lua_setglobal(L, entry->name);
      break;
    case RS_ENTRY_MODULE:
      if (lua_getglobal(L, "require") != LUA_TFUNCTION)
        luaL_error(L, "module '%s' cannot be loaded: the initial state has "
                      "no library 'package'", entry->name);
      lua_pushstring(L, entry->name);
      lua_call(L, 1, 0);
      break;
    case RS_ENTRY_INIT:
      s->initializing = true;
      rs_state_push_function(L, entry->message, 0);
      lua_call(L, 0, 0);
      s->initializing = false;
      break;
  }
  lua_settop(L, top);
}

/* The allocation function (lua_newstate) of a state that is as good as closed:
   its small blocks go all at once, with the slab. */
static void *
resize_at_end (void *ud, void *ptr, size_t osize, size_t nsize)
{
  const rs_alloc *const a = ud;
  if (nsize == 0 && ptr != NULL && osize <= RS_SLAB_MAX && !a->plain)
    return NULL;
  return rs_alloc_resize(ud, ptr, osize, nsize);
}

/* All other finalizers have run: nothing of the state may be stopped. */
static int
on_last (lua_State *L)
{
  rs_state *const *const s = rs_finalized(L, on_last);
  if (s != NULL) {
    rs_cancel_forget((*s)->cancel);
    lua_setallocf(L, resize_at_end, &(*s)->alloc);
  }
  return 0;
}

/*
 * [-0, +0, m]  Finalizers run in the order opposite to that in which they were
 * set, so that of the first object that has one is the last one when the
 * state is closed.
 */
static void
set_last (lua_State *L, rs_state *s)
{
  static const char key = 0;
  rs_state **const box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = s;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, on_last);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
}

/*
 * [-0, +0, -]  Collect garbage from here on, but not at once, as it would:
 * that would take as long as half of what was opened, and find nothing.  A
 * step of that many KiB less than none is as much room as there is behind a
 * collection.
 */
static void
start_collector (lua_State *L)
{
  lua_gc(L, LUA_GCRESTART);
  lua_gc(L, LUA_GCSTEP, -lua_gc(L, LUA_GCCOUNT));
}

/* What is there before any code of scripts runs. */
static int
seed (lua_State *L)
{
  rs_state *const s = lua_touserdata(L, 1);
  const rs_initial_state *const is = lua_touserdata(L, 2);
  set_last(L, s);
  if (s->limits.memory == 0)  /* as in lua5.4; cheap while there is little */
    lua_gc(L, LUA_GCGEN, 0, 0);
  else  /* garbage takes room that is scarce */
    lua_gc(L, LUA_GCINC, 150, 0, 0);
  lua_gc(L, LUA_GCSTOP);  /* what is made here stays */
  open_libraries(L, is->libs);
  rs_seed_open(L);
  lua_pushglobaltable(L);  /* so that later settings cannot raise */
  rs_env_set(L);
  rs_library_open(L);
  rs_popen_open(L);
  rs_output_open(L, &output);
  rs_cancel_open(s->cancel, L);
  rs_control_open(L, s->limits.instructions > 0);
  if (is->warnings)
    lua_warning(L, "@on", 0);
  rs_environment_open(L, &s->environment, s->reset);
  set_package_field(L, "path", is->path);
  set_package_field(L, "cpath", is->cpath);
  if (is->contained)
    rs_sandbox_open(L, is->inherited ? &is->outer : NULL);
  start_collector(L);
  return 0;
}

/* Kinds are established in the order of their declaration. */
static int
seed_entries (lua_State *L)
{
  rs_state *const s = lua_touserdata(L, 1);
  const rs_initial_state *const is = lua_touserdata(L, 2);
  for (int kind = RS_ENTRY_PRELOAD; kind <= RS_ENTRY_INIT; kind++) {
    for (rs_list *link = is->entries.next; link != &is->entries;
         link = link->next) {
      const rs_entry *const entry = RS_LIST_ENTRY(link, rs_entry, link);
      if ((int) entry->kind == kind)
        seed_entry(L, s, entry);
    }
  }
  if (is->contained)
    rs_sandbox_close(L, &is->sandbox);
  rs_control_keep_hook(L);
  return 0;
}

/* The message handler of seeding: the error as a string. */
static int
describe (lua_State *L)
{
  if (lua_type(L, 1) == LUA_TSTRING)
    return 1;
  if (luaL_getmetafield(L, 1, "__tostring") != LUA_TNIL)
    luaL_tolstring(L, 1, NULL);
  else
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  return 1;
}

/* Why seeding did not end well: the error is on top of the stack, unless it
   was stopped. */
static int
fail_open (rs_state *s, int code, rs_reason reason, rs_error *err)
{
  rs_alloc_settle(&s->alloc);
  const char *const text = lua_tostring(s->L, -1);
  if (reason != RS_REASON_NONE)
    return rs_fail(err, RS_ESTOPPED, "%s", rs_reason_text(reason));
  if (s->exhausted)
    return rs_fail(err, RS_EFAILED, "memory: %zu bytes are less than the "
                                    "initial state takes", s->limits.memory);
  if (code == LUA_ERRMEM)
    return rs_fail_plain(err, RS_ENOMEM);
  return rs_fail(err, RS_EFAILED, "%s%s", s->initializing ? "init: " : "",
                 text != NULL ? text : "(no message)");
}

/* [-0, +(0|1), -]  Call a function of seeding.  A Lua status. */
static int
call_seed (rs_state *s, lua_CFunction f, const rs_initial_state *is)
{
  lua_settop(s->L, 0);
  lua_pushcfunction(s->L, describe);
  lua_pushcfunction(s->L, f);
  lua_pushlightuserdata(s->L, s);
  lua_pushlightuserdata(s->L, (void *) (uintptr_t) is);
  return lua_pcall(s->L, 2, 0, 1);
}

/* [-0, +(0|1), -]  The same for the entries, whose code can be stopped as a
   call can; '*reason' says whether it was. */
static int
call_seed_entries (rs_state *s, const rs_state_options *o, rs_reason *reason)
{
  rs_token token;
  if (!rs_initial_state_runs_scripts(o->initial_state))
    return call_seed(s, seed_entries, o->initial_state);
  rs_token_enter(s->cancel, &token, s->L, o->owner, o->wish);
  s->seeding = true;
  const int code = call_seed(s, seed_entries, o->initial_state);
  s->seeding = false;
  *reason = rs_token_leave(s->cancel, &token, s->L);
  s->forced = atomic_load_explicit(&token.forced, memory_order_relaxed);
  return code;
}

int
rs_state_open (const rs_state_options *o, rs_state **out, rs_error *err)
{
  rs_state *const s = calloc(1, sizeof *s);
  if (s == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  rs_alloc_init(&s->alloc);
  s->limits = *o->limits;
  s->pool = o->pool;
  s->cancel = o->cancel;
  s->worker = o->worker;
  s->born = rs_fork_now();
  s->reset = o->reset;
  s->alloc.refuse = rs_cancel_refusal(s->cancel);
  s->alloc.exhausted = on_exhausted;
  s->alloc.ud = s;
  if (s->limits.memory != 0)
    rs_alloc_set_limit(&s->alloc, s->limits.memory);
  rs_encoder_init(&s->spare, o->initial_state->contained ? RS_MESSAGE_LIVE
                                                         : 0);
  s->L = lua_newstate(rs_alloc_resize, &s->alloc);
  if (s->L == NULL) {
    const int status = s->limits.memory == 0
      ? rs_fail_plain(err, RS_ENOMEM)
      : rs_fail(err, RS_EFAILED, "memory: %zu bytes are less than a runspace "
                                 "takes", s->limits.memory);
    rs_state_close(s);
    return status;
  }
  s->alloc.L = s->L;
  rs_reason reason = RS_REASON_NONE;
  int code = call_seed(s, seed, o->initial_state);
  if (code == LUA_OK)
    code = call_seed_entries(s, o, &reason);
  if (code != LUA_OK || reason != RS_REASON_NONE) {
    const int status = fail_open(s, code, reason, err);
    rs_state_close(s);
    return status;
  }
  rs_cancel_set_limit(s->cancel, s->limits.instructions);
  rs_alloc_settle(&s->alloc);
  s->exhausted = false;
  lua_settop(s->L, 0);
  *out = s;
  return RS_OK;
}

size_t
rs_state_bytes (const rs_state *s)
{
  return s->alloc.used;
}

/* Close it: finalizers of the script run once more, for a while; for none if
   the state is here because something in it had to be forced. */
static void
close_state (rs_state *s)
{
  rs_token token;
  rs_wish wish = { .reason = RS_REASON_NONE };
  if (s->forced)
    rs_wish_make(&wish, RS_REASON_CLOSED, 0);
  rs_alloc_set_limit(&s->alloc, SIZE_MAX);
  rs_token_enter(s->cancel, &token, s->L, NULL, &wish);
  /* The timer is a thread: to start and end it takes longer than all else. */
  rs_token_begin(s->cancel, &token,
                 rs_cancel_finalizes(s->cancel) ? FINALIZING : 0);
  lua_close(s->L);
  rs_token_leave(s->cancel, &token, NULL);
}

void
rs_state_close (rs_state *s)
{
  if (s == NULL)
    return;
  if (s->L != NULL)
    close_state(s);
  for (int i = 0; i < RS_STATE_KEPT; i++)
    rs_message_unref(s->kept[i].function);
  rs_buf_fini(&s->lines[0]);
  rs_buf_fini(&s->lines[1]);
  rs_encoder_fini(&s->spare);
  rs_alloc_fini(&s->alloc);
  free(s);
}
