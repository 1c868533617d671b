/* SPDX-License-Identifier: MIT */
/*
 * luv.c - errors in callbacks of luv end the job, not the process.
 *
 * luv's own way to call a callback is to end the process when that raises, and
 * a job that is stopped raises wherever it is.  So in a runspace luv is given
 * another way, by the function 'luv_set_callback' of its library: the first
 * error is kept, the loop is told to stop, and the function of the module that
 * the callback was called from, 'run' or 'walk', raises it at its end.
 *
 * By then a hook may raise at each call, and memory may be refused.  So the
 * function that stops the loop is called as one of C, and the error is kept in
 * a userdata that is there.
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

/* What a callback of this state has raised. */
typedef struct failure {
  bool raised;             /* its user value */
  lua_CFunction stop;      /* of luv */
} failure;

/* In the registry by the address of this. */
static const char key;

/* luv's 'luv_CFpcall', and what takes one. */
typedef int call (lua_State *L, int nargs, int nresults, int flags);
typedef void set_call (lua_State *L, call *f);

/* [-(nargs + 1), +nresults, -]  The number of results, or what is below 0 and
   there are none. */
static int
call_back (lua_State *L, int nargs, int nresults, int flags)
{
  (void) flags;
  const int top = lua_gettop(L) - nargs - 1;
  rs_running *const r = rs_running_mine();
  lua_State *const from = atomic_load_explicit(&r->L, memory_order_relaxed);
  const bool other = from != NULL && from != L;  /* that called 'run' */
  if (other)
    rs_running_switch(r, L);
  const int status = lua_pcall(L, nargs, nresults, 0);
  if (other)
    rs_running_switch(r, from);
  if (status == LUA_OK)
    return lua_gettop(L) - top;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &key);
  failure *const f = lua_touserdata(L, -1);
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

/* A function of luv that calls back while it runs; the upvalue is the
   original. */
static int
run (lua_State *L)
{
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &key);
  failure *const f = lua_touserdata(L, -1);
  if (!f->raised) {
    lua_pop(L, 1);
    return lua_gettop(L);
  }
  f->raised = false;
  lua_getiuservalue(L, -1, 1);
  lua_pushnil(L);
  lua_setiuservalue(L, -3, 1);
  return lua_error(L);
}

/* [-0, +0, m]  Put 'run' in the place of the module's function 'name'. */
static void
replace (lua_State *L, int module, const char *name)
{
  lua_pushstring(L, name);
  lua_pushvalue(L, -1);
  lua_rawget(L, module);
  lua_pushcclosure(L, run, 1);
  lua_rawset(L, module);
}

/* The function of luv's library, which 'f' is in, or NULL. */
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
    *f = (failure) { .stop = stop };
    lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
    replace(L, module, "run");
    replace(L, module, "walk");
    set(L, call_back);
  }
  lua_settop(L, top);
}
