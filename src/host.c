/* SPDX-License-Identifier: MIT */
/*
 * host.c - a state for a host.
 *
 * It is what 'luaL_newstate' makes, lauxlib.h, but for its memory: a state is
 * run by one thread at a time, and with 'alloc' its small blocks need no lock
 * and no search.  Programs that allocate take a tenth to a fifth less time.
 */
#include "runspace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"

typedef struct host {
  rs_alloc alloc;
  bool warns;    /* 'warn' says something: "@on" */
  bool begun;    /* it has said a part */
} host;

/* lua_WarnFunction in the manual, section 4.6. */
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

/* An error that nobody catches ends the program. */
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
