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
#include "base/defer.h"
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

/* The interruption of the calling thread; written by 'rs_host_interrupt', in a
   signal handler of that thread, and by the hook.  Nothing here keeps a state
   alive, so the pointer to a coroutine is only compared. */
static _Thread_local struct {
  void (*told) (lua_State *L);    /* called before the error is raised */
  volatile bool pending;          /* the error has not been raised */
  const lua_State *in;            /* the coroutine in which the error was
                                     raised last, or NULL: no caller needs to
                                     be told of it any more */
  char text[LUA_IDSIZE + 64];     /* the error that was raised last */
} interruption;

static void on_failure (lua_State *co, lua_State *L, bool returns);

/* The main coroutine of the state of 'L'. */
static lua_State *
main_of (lua_State *L)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *const main = lua_tothread(L, -1);
  lua_pop(L, 1);
  return main;
}

/* Note that the error, whose text is on top of the stack, is raised in 'L'. */
static void
note_raised (lua_State *L, bool is_main)
{
  snprintf(interruption.text, sizeof interruption.text, "%s",
           lua_tostring(L, -1));
  interruption.in = is_main ? NULL : L;  /* nothing has resumed the main one */
  rs_running_mine()->on_failure = is_main ? NULL : on_failure;
}

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
  lua_State *const main = main_of(L);
  if (main != NULL && lua_gethook(main) == on_hook)
    lua_sethook(main, NULL, 0, 0);
  if (interruption.told != NULL)
    interruption.told(L);
  luaL_where(L, 1);
  lua_pushliteral(L, "interrupted!");
  lua_concat(L, 2);
  note_raised(L, L == main);
  rs_defer_note();
  lua_error(L);
}

static void
plant (lua_State *L)
{
  lua_sethook(L, on_hook,
              LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* True when the error on top of 'co' is the one that was raised there, perhaps
   behind the places of functions that 'coroutine.wrap' has made. */
static bool
is_ours (lua_State *co)
{
  size_t size;
  const size_t own = strlen(interruption.text);
  if (co != interruption.in || lua_type(co, -1) != LUA_TSTRING)
    return false;
  const char *const error = lua_tolstring(co, -1, &size);
  return size >= own && strcmp(error + size - own, interruption.text) == 0
      && (size == own || error[size - own - 1] == ' ');
}

/* rs_running.on_failure: an interruption that has ended the coroutine 'co' is
   raised again in 'L', which had resumed it, where 'resume' would only return
   the error. */
static void
on_failure (lua_State *co, lua_State *L, bool returns)
{
  if (co != interruption.in)
    return;
  const bool ours = is_ours(co);
  interruption.in = ours && !returns && L != main_of(L) ? L : NULL;
  if (interruption.in == NULL)
    rs_running_mine()->on_failure = NULL;
  if (ours && returns) {
    interruption.pending = true;
    plant(L);
  }
}

void
rs_host_track (lua_State *L)
{
  if (L == NULL)
    return;
  rs_control_open_coroutines(L);
}

void
rs_host_interrupt (lua_State *L, void (*told) (lua_State *L))
{
  if (L == NULL)
    return;
  rs_running *const r = rs_running_host();
  lua_State *const co = atomic_load_explicit(&r->L, memory_order_relaxed);
  rs_cancel_interrupt();  /* a job that runs on this thread */
  interruption.told = told;
  interruption.pending = true;
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
  if (L == NULL)
    return;
  luaL_openlibs(L);
  rs_seed_random(L);
  rs_popen_open_host(L);
  rs_output_open_host(L);
}
