/* SPDX-License-Identifier: MIT */
/*
 * lfinish.c - the end of what a state has started.
 *
 * A script that ends waits for its jobs, also for those of pools that it has
 * no handle of any more.
 */
#include "face/lfinish.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "face/lface.h"
#include "lparallel.h"

/* Failures that nobody had looked at when they were told, in this process. */
static _Atomic unsigned unseen;

static rs_pool_info
info_of (rs_pool *pool)
{
  rs_pool_info info;
  rs_pool_info_get(pool, &info);
  return info;
}

/* Drop the pools whose jobs have ended; count the jobs of the others. */
static void
look (rs_face *face, size_t *queued, size_t *running)
{
  unsigned n = 0;
  *queued = *running = 0;
  for (unsigned i = 0; i < face->left; i++) {
    const rs_pool_info info = info_of(face->pools[i]);
    *queued += info.queued;
    *running += info.running;
    if (info.queued + info.running == 0)
      rs_pool_unref(face->pools[i]);
    else
      face->pools[n++] = face->pools[i];
  }
  face->left = n;
}

void
rs_finish_look (lua_State *L)
{
  rs_face *const face = rs_lua_face(L);
  size_t queued, running;
  face->opened = true;
  if (face->born == rs_forks())
    look(face, &queued, &running);
}

bool
rs_finish_keep (lua_State *L, rs_pool *pool)
{
  const rs_pool_info info = info_of(pool);
  rs_face *const face = rs_lua_face(L);
  size_t queued, running;
  if (info.queued + info.running == 0 || info.closed || face->events == NULL
      || face->born != rs_forks() || rs_pool_current(L) != NULL)
    return false;
  look(face, &queued, &running);
  rs_pool **const more = realloc(face->pools,
                                 (face->left + 1) * sizeof *more);
  if (more == NULL)
    return false;
  more[face->left++] = pool;
  face->pools = more;
  rs_pool_resume(pool);  /* nobody else can, without a handle */
  return true;
}

int
rs_lua_left (lua_State *L)
{
  rs_face *const face = rs_lua_face(L);
  size_t queued = 0, running = 0;
  if (face->born == rs_forks())
    look(face, &queued, &running);
  lua_pushinteger(L, (lua_Integer) queued);
  lua_pushinteger(L, (lua_Integer) running);
  return 2;
}

int
rs_lua_count_unseen (lua_State *L)
{
  (void) L;
  atomic_fetch_add(&unseen, 1);
  return 0;
}

/* [-0, +0, e]  Call the function 'name' of the file 'module' of the Lua part,
   if the state has, or had, a pool. */
static void
call (lua_State *L, const char *module, const char *name)
{
  if (!rs_lua_face(L)->opened)
    return;
  rs_lua_require(L, module);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
  lua_call(L, 0, 0);
}

void
rs_parallel_finish (lua_State *L)
{
  call(L, "parallel.ending", "finish");
}

void
rs_parallel_abandon (lua_State *L)
{
  call(L, "parallel.ending", "abandon");
  rs_lua_face(L)->opened = false;  /* that was told */
}

void
rs_parallel_report (lua_State *L)
{
  call(L, "parallel.event", "report_ended");
}

unsigned
rs_parallel_unseen (void)
{
  return atomic_load(&unseen);
}
