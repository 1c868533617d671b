/* SPDX-License-Identifier: MIT */
/*
 * host.c - a state for a host.
 *
 * The state is as 'luaL_newstate' makes it, except for its memory.  A state is
 * run by one thread at a time, so with an 'rs_alloc' its small blocks need no
 * lock and no search.  Programs that allocate take a tenth to a fifth less
 * time.
 */
#include "runspace.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/alloc.h"
#include "state/cancel.h"
#include "state/control.h"
#include "state/output.h"
#include "state/popen.h"
#include "state/seed.h"
#include "base/stack.h"

typedef struct host {
  rs_alloc alloc;
  bool warns;    /* 'warn' writes: "@on" */
  bool begun;    /* 'warn' has written a part of a message */
} host;

/* lua_WarnFunction: write the warning to standard error. */
static void
on_warning (void *ud, const char *text, int to_be_continued)
{
  host *const h = ud;
  if (!h->begun && !to_be_continued && text[0] == '@') {
    if (strcmp(text, "@on") == 0)
      h->warns = true;
    else if (strcmp(text, "@off") == 0)
      h->warns = false;
    return;
  }
  if (h->warns) {
    fprintf(stderr, "%s%s%s", h->begun ? "" : "Lua warning: ", text,
            to_be_continued ? "" : "\n");
    fflush(stderr);
  }
  h->begun = to_be_continued != 0;
}

/* The panic function: an error outside of protected calls ends the program. */
static int
on_panic (lua_State *L)
{
  const char *const text = lua_tostring(L, -1);
  fprintf(stderr, "PANIC: unprotected error in call to Lua API (%s)\n",
          text != NULL ? text : "error object is not a string");
  fflush(stderr);
  return 0;
}

lua_State *
rs_host_open (void)
{
  host *const h = calloc(1, sizeof *h);
  if (h == NULL)
    return NULL;
  rs_alloc_init(&h->alloc);
  lua_State *const L = lua_newstate(rs_alloc_resize, &h->alloc);
  if (L == NULL) {
    rs_alloc_fini(&h->alloc);
    free(h);
    return NULL;
  }
  lua_atpanic(L, on_panic);
  lua_setwarnf(L, on_warning, h);
  return L;
}

void
rs_host_close (lua_State *L)
{
  if (L == NULL)
    return;
  void *alloc;
  lua_getallocf(L, &alloc);
  host *const h = (host *) alloc;
  lua_close(L);
  rs_alloc_fini(&h->alloc);
  free(h);
}

/* ------------------------------------------------------------ interruption */

/* The interruption that was requested in the calling thread; written by
   'rs_host_interrupt', in a signal handler of that thread, and by the hook. */
static _Thread_local struct {
  lua_State *main;                /* the main coroutine of the state */
  void (*told) (lua_State *L);    /* called before the error is raised */
  volatile bool pending;          /* the error has not been raised */
} interruption;

static const char text[] = "interrupted!";

/* The hook: raise the error in the first coroutine that runs it, and only
   there. */
static void
on_hook (lua_State *L, lua_Debug *ar)
{
  (void) ar;
  lua_sethook(L, NULL, 0, 0);
  if (!interruption.pending)
    return;
  interruption.pending = false;
  if (lua_gethook(interruption.main) == on_hook)
    lua_sethook(interruption.main, NULL, 0, 0);
  if (interruption.told != NULL)
    interruption.told(L);
  luaL_error(L, "%s", text);
}

static void
plant (lua_State *L)
{
  lua_sethook(L, on_hook,
              LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* rs_running.on_failure: an interruption that has ended the coroutine 'co' is
   raised again in 'L', which had resumed it, where 'resume' would only return
   the error. */
static void
on_failure (lua_State *co, lua_State *L, bool returns)
{
  if (!returns || interruption.main == NULL
      || lua_type(co, -1) != LUA_TSTRING
      || strstr(lua_tostring(co, -1), text) == NULL)
    return;
  interruption.pending = true;
  plant(L);
}

void
rs_host_track (lua_State *L)
{
  rs_control_open_coroutines(L);
}

void
rs_host_interrupt (lua_State *L, void (*told) (lua_State *L))
{
  rs_running *const r = rs_running_mine();
  lua_State *const co = atomic_load_explicit(&r->L, memory_order_relaxed);
  interruption.main = L;
  interruption.told = told;
  interruption.pending = true;
  r->on_failure = on_failure;
  plant(L);  /* 'co' may yield before its hook runs */
  if (co != NULL && co != L)
    plant(co);
}

void
rs_host_set_stack (void *lowest)
{
  rs_stack_set(lowest);
}

/* -------------------------------------------------------------- libraries */

void
rs_host_open_libs (lua_State *L)
{
  luaL_openlibs(L);
  rs_seed_random(L);
  rs_popen_open_host(L);
  rs_output_open_host(L);
}
