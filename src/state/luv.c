/* SPDX-License-Identifier: MIT */
/*
 * luv.c - errors in callbacks of luv end the job, not the process.
 *
 * When a callback raises, luv by itself ends the process, and a job that is
 * stopped raises wherever it is.  So in a runspace luv gets another function
 * that calls callbacks, 'call_back' below, through 'luv_set_callback' of its
 * library.  'call_back' keeps the first error and tells the loop to stop; then
 * the function of luv that has run the callback, 'run' or 'walk', raises the
 * error when it ends.
 *
 * After an error a hook may raise at each call, and memory may be refused.  So
 * 'call_back' calls luv's 'stop' as a C function, not through Lua, and keeps
 * the error in a userdata that was made before.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* dladdr */
#endif
#include "state/luv.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lauxlib.h>

#include "state/cancel.h"

/* The first error that a callback of this state has raised: the user value of
   a userdata of this type. */
typedef struct failure {
  const void *proof;       /* the address of 'key' */
  bool raised;             /* the user value is an error */
  lua_CFunction stop;      /* luv's function 'stop' */
} failure;

/* The key of the userdata in the registry, by address. */
static const char key;

/* [-0, +1, -]  Push the userdata, or what a script has put in its place.
   Returns it, or NULL. */
static failure *
push_failure (lua_State *L)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &key);
  failure *const f = lua_touserdata(L, -1);
  return f != NULL && lua_rawlen(L, -1) == sizeof *f && f->proof == &key
         ? f : NULL;
}

/* The type 'luv_CFpcall' of luv, and the type of 'luv_set_callback'. */
typedef int call (lua_State *L, int nargs, int nresults, int flags);
typedef void set_call (lua_State *L, call *f);

/* [-(nargs + 1), +(nresults|0), -]  Call a callback for luv.  Returns the
   number of results, or a number below 0 when the callback has raised. */
static int
call_back (lua_State *L, int nargs, int nresults, int flags)
{
  (void) flags;
  const int top = lua_gettop(L) - nargs - 1;
  rs_running *const r = rs_running_mine();
  lua_State *const from = atomic_load_explicit(&r->L, memory_order_relaxed);
  const bool other = from != NULL && from != L;  /* has 'from' called 'run'? */
  if (other)
    rs_running_switch(r, L);
  const int status = lua_pcall(L, nargs, nresults, 0);
  if (other)
    rs_running_switch(r, from);
  if (status == LUA_OK)
    return lua_gettop(L) - top;
  failure *const f = push_failure(L);
  if (f == NULL) {
    lua_settop(L, top);
    return -status;
  }
  lua_insert(L, -2);
  if (!f->raised)  /* the first one? */
    lua_setiuservalue(L, -2, 1);
  f->raised = true;
  lua_settop(L, top);
  if (lua_checkstack(L, LUA_MINSTACK))
    f->stop(L);
  lua_settop(L, top);
  return -status;
}

/* 'run' or 'walk' of luv: call the original, the upvalue, which runs
   callbacks, and raise the error that was kept. */
static int
run (lua_State *L)
{
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  failure *const f = push_failure(L);
  if (f == NULL || !f->raised) {
    lua_pop(L, 1);
    return lua_gettop(L);
  }
  f->raised = false;
  lua_getiuservalue(L, -1, 1);
  lua_pushnil(L);
  lua_setiuservalue(L, -3, 1);
  return lua_error(L);
}

/* [-0, +0, m]  Replace the function 'name' of luv, the table at 'module', by
   'run'. */
static void
replace (lua_State *L, int module, const char *name)
{
  lua_pushstring(L, name);
  lua_pushvalue(L, -1);
  lua_rawget(L, module);
  lua_pushcclosure(L, run, 1);
  lua_rawset(L, module);
}

/* The function 'luv_set_callback' of the library that has 'f', or NULL. */
static set_call *
find_setter (lua_CFunction f)
{
  Dl_info info;
  if (f == NULL || dladdr((void *) (uintptr_t) f, &info) == 0)
    return NULL;
  void *const library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (library == NULL)
    return NULL;
  set_call *const set =
    (set_call *) (uintptr_t) dlsym(library, "luv_set_callback");
  dlclose(library);
  return set;
}

void
rs_luv_adopt (lua_State *L, int index)
{
  const int module = lua_absindex(L, index), top = lua_gettop(L);
  if (!lua_istable(L, module)
      || lua_getfield(L, LUA_REGISTRYINDEX, "luv_context") == LUA_TNIL
      || lua_rawgetp(L, LUA_REGISTRYINDEX, &key) != LUA_TNIL) {
    lua_settop(L, top);
    return;
  }
  lua_pushliteral(L, "stop");
  lua_rawget(L, module);
  const lua_CFunction stop = lua_tocfunction(L, -1);
  set_call *const set = find_setter(stop);
  if (set != NULL) {
    failure *const f = lua_newuserdatauv(L, sizeof *f, 1);
    *f = (failure) { .proof = &key, .stop = stop };
    lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
    replace(L, module, "run");
    replace(L, module, "walk");
    set(L, call_back);
  }
  lua_settop(L, top);
}
