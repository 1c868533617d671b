/* SPDX-License-Identifier: MIT */
/*
 * state.c - one runspace: a 'lua_State', from its seeding to its end.
 *
 * Output of the code is collected until it is a whole line.  A line goes to
 * standard output or error at once, and to the call's sink as a record.
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
#include "value/decoder.h"

#define FINALIZING 0.5  /* seconds that finalizers have when a state closes */

enum { MAX_LINE = 65536 };  /* bytes of a line that are held back */

static void on_exhausted (void *ud);
static void *resize_at_end (void *ud, void *ptr, size_t osize, size_t nsize);

/* Found by way of the allocation function, which a script cannot change. */
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

/* [-0, +0, -]  Make the globals of the runspace the environment. */
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
  if (s->environment.dirty && s->options->reset == RS_RESET_GLOBALS
      && lua_checkstack(L, LUA_MINSTACK))
    leave_environment(L, s);
}

/* ------------------------------------------------------- what it prints */

/* Write lines to the console.  When the reader is gone, the system sends
   SIGPIPE to the thread that writes, but workers block that signal.  So the
   signal is sent to the process, which ends unless the program handles it.
   0, or 'errno'. */
static int
write_out (int fd, const char *text, size_t size)
{
  const int error = rs_console_write(fd, text, size);
  if (error == EPIPE)
    kill(getpid(), SIGPIPE);
  return error;
}

/* Write whole lines, and tell the call of each.  0, or 'errno'. */
static int
put_lines (rs_state *s, int fd, const char *text, size_t size)
{
  const int error = write_out(fd, text, size);
  if (s->on_line == NULL)  /* no call, as in seeding? */
    return error;
  const char *const end = text + size;
  while (text < end) {
    const char *const stop = memchr(text, '\n', (size_t) (end - text));
    s->on_line(s, fd, text, (size_t) (stop - text));
    text = stop + 1;
  }
  return error;
}

/* rs_output.write: write the lines that are whole, and keep the rest. */
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
    else  /* no memory: the beginning of the line is lost, not the rest */
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

/* [-1, +1, e]  Replace the source text on top by the function that it
   compiles to. */
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
    /* The state has the last reference, so the function will not come again:
       no batch and no host can send it. */
    if (function != NULL
        && atomic_load_explicit(&function->refs, memory_order_acquire) == 1) {
      luaL_unref(s->L, LUA_REGISTRYINDEX, s->kept[i].ref);
      if (s->kept[i].common > 0)
        luaL_unref(s->L, LUA_REGISTRYINDEX, s->kept[i].common);
      if (s->kept[i].given > 0)
        luaL_unref(s->L, LUA_REGISTRYINDEX, s->kept[i].given);
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
  const rs_pool_options *const l = s->options;
  if (s->tasks == 0)  /* it would be replaced by one that is like it */
    return false;
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

/* [-0, +0, e]  Set a field of 'package', if the state has that library and
   'value' is not NULL. */
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
 * [-0, +0, e]  Open the libraries of Lua that are in 'libs', as
 * 'luaL_requiref' does.  The tables of globals and of modules have room for
 * all of them from the start: growing them by and by takes a tenth of the
 * time of opening.
 */
static void
open_libraries (lua_State *L, unsigned libs)
{
  enum { GLOBALS = 40, LOADED = 14 };  /* fields of the two tables */
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

/* [-1, +0, e]  Assign the value on top to package.preload[name]. */
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
  rs_env_collect(false);
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

/* The allocation function (lua_newstate) from 'on_last' on, when only
   'lua_close' frees memory: small blocks are not freed one by one, but all at
   once with the slab. */
static void *
resize_at_end (void *ud, void *ptr, size_t osize, size_t nsize)
{
  const rs_alloc *const a = ud;
  if (nsize == 0 && ptr != NULL && osize <= RS_SLAB_MAX && !a->plain)
    return NULL;
  return rs_alloc_resize(ud, ptr, osize, nsize);
}

/* __gc of the object that is finalized last: no code of scripts runs any more,
   and the signal handler must not touch the coroutines that Lua now frees. */
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
 * [-0, +0, m]  Make the object that is finalized last.  Finalizers run in the
 * reverse order in which objects got them, so the first object of a new state
 * that gets one is finalized last when the state is closed.
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
 * [-0, +0, -]  Start the garbage collector, but so that its first collection
 * does not begin at once: it would take half as long as opening the libraries,
 * and find no garbage.  A step of minus the KiB in use gives the collector the
 * room that it has after a collection.
 */
static void
start_collector (lua_State *L)
{
  lua_gc(L, LUA_GCRESTART);
  lua_gc(L, LUA_GCSTEP, -lua_gc(L, LUA_GCCOUNT));
}

/* (rs_state, rs_initial_state)  Set up all that a state has before code of
   scripts runs. */
static int
seed (lua_State *L)
{
  rs_state *const s = lua_touserdata(L, 1);
  const rs_initial_state *const is = lua_touserdata(L, 2);
  set_last(L, s);
  if (s->options->memory == 0)  /* as in lua5.4; cheap while there is little */
    lua_gc(L, LUA_GCGEN, 0, 0);
  else  /* garbage takes room that is scarce */
    lua_gc(L, LUA_GCINC, 150, 0, 0);
  lua_gc(L, LUA_GCSTOP);  /* the objects made here are no garbage */
  open_libraries(L, is->libs);
  rs_seed_open(L);
  lua_pushglobaltable(L);  /* set once here: to set it later cannot raise */
  rs_env_set(L);
  rs_library_open(L, s->pool == NULL);
  rs_popen_open(L);
  rs_output_open(L, &output);
  rs_cancel_open(s->cancel, L);
  rs_control_open(L, s->options->instructions > 0);
  if (is->warnings)
    lua_warning(L, "@on", 0);
  rs_environment_open(L, &s->environment, s->options->reset);
  set_package_field(L, "path", is->path);
  set_package_field(L, "cpath", is->cpath);
  if (is->contained)
    rs_sandbox_open(L, is->inherited ? &is->outer : NULL);
  start_collector(L);
  return 0;
}

/* (rs_state, rs_initial_state)  Establish the entries: one kind after the
   other, in the order of rs_entry_kind. */
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

/* The message handler of seeding: make a string of the error. */
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

/* Fill 'err' with the reason why seeding has failed, and return the status:
   RS_ESTOPPED if 'reason' is set, else by the error on top of the stack. */
static int
fail_open (rs_state *s, int code, rs_reason reason, rs_error *err)
{
  rs_alloc_settle(&s->alloc);
  const char *const text = lua_tostring(s->L, -1);
  if (reason != RS_REASON_NONE)
    return rs_fail(err, RS_ESTOPPED, "%s", rs_reason_text(reason));
  if (s->exhausted)
    return rs_fail(err, RS_EFAILED, "memory: %zu bytes are less than the "
                                    "initial state takes", s->options->memory);
  if (code == LUA_ERRMEM)
    return rs_fail_plain(err, RS_ENOMEM);
  return rs_fail(err, RS_EFAILED, "%s%s", s->initializing ? "init: " : "",
                 text != NULL ? text : "(no message)");
}

/* [-?, +(1|2), -]  Call 'f' (rs_state, rs_initial_state) on an empty stack,
   and leave the message handler, then the error, if there is one.  Returns a
   Lua status. */
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

/* [-?, +(1|2), -]  Call 'seed_entries' as 'call_seed' does.  Code of scripts
   in the entries can be stopped as a call can; '*reason' tells whether it
   was. */
static int
call_seed_entries (rs_state *s, const rs_state_options *o, rs_reason *reason)
{
  rs_token token;
  const rs_initial_state *const is = s->options->initial_state;
  if (!rs_initial_state_runs_scripts(is))
    return call_seed(s, seed_entries, is);
  rs_token_enter(s->cancel, &token, s->L, o->owner, o->wish);
  s->seeding = true;
  const int code = call_seed(s, seed_entries, is);
  s->seeding = false;
  *reason = rs_token_leave(s->cancel, &token, s->L);
  s->forced = atomic_load_explicit(&token.forced, memory_order_relaxed);
  return code;
}

int
rs_state_open (const rs_state_options *o, rs_state **out, rs_error *err)
{
  const rs_initial_state *const is = o->options->initial_state;
  rs_state *const s = calloc(1, sizeof *s);
  if (s == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  rs_alloc_init(&s->alloc);
  s->options = o->options;
  s->pool = o->pool;
  s->cancel = o->cancel;
  s->worker = o->worker;
  s->born = rs_fork_now();
  s->alloc.refuse = rs_cancel_refusal(s->cancel);
  s->alloc.exhausted = on_exhausted;
  s->alloc.ud = s;
  if (s->options->memory != 0)
    rs_alloc_set_limit(&s->alloc, s->options->memory);
  rs_encoder_init(&s->spare, o->forbidden
                             | (is->contained ? RS_MESSAGE_LIVE : 0));
  s->L = lua_newstate(rs_alloc_resize, &s->alloc);
  if (s->L == NULL) {
    const int status = s->options->memory == 0
      ? rs_fail_plain(err, RS_ENOMEM)
      : rs_fail(err, RS_EFAILED, "memory: %zu bytes are less than a runspace "
                                 "takes", s->options->memory);
    rs_state_close(s);
    return status;
  }
  s->alloc.L = s->L;
  rs_reason reason = RS_REASON_NONE;
  int code = call_seed(s, seed, is);
  if (code == LUA_OK)
    code = call_seed_entries(s, o, &reason);
  if (code != LUA_OK || reason != RS_REASON_NONE) {
    const int status = fail_open(s, code, reason, err);
    rs_state_close(s);
    return status;
  }
  rs_cancel_set_limit(s->cancel, s->options->instructions);
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

/* Close the Lua state.  Finalizers of scripts get FINALIZING seconds.  They
   are stopped by force from the start if an item or a call in the state was
   stopped by force before. */
static void
close_state (rs_state *s)
{
  rs_token token;
  rs_wish wish = { .reason = RS_REASON_NONE };
  if (s->forced)
    rs_wish_make(&wish, RS_REASON_CLOSED, 0);
  rs_alloc_set_limit(&s->alloc, SIZE_MAX);
  rs_token_enter(s->cancel, &token, s->L, NULL, &wish);
  /* No time limit without finalizers: it needs the thread of the timers, and
     to start and end a thread takes longer than closing the state. */
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
