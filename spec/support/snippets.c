/* SPDX-License-Identifier: MIT */
/*
 * snippets.c - the lines of C in the comments of runspace.h do what they say.
 *
 * "first.h" and "loop.h" are these lines, taken from there.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include <runspace.h>

enum { JOBS = 5 };

static lua_State *L;
static lua_Integer sum, records;
static int left = JOBS;

static void
use (rs_stream_record *record)
{
  records += record != NULL;
}

static void
finish (rs_job *job)
{
  int n;
  if (rs_job_push(job, L, &n) == RS_OK && n == 1)
    sum += lua_tointeger(L, -1);
  lua_settop(L, 0);
  left--;
}

/* The loop ends when the last job has. */
static int
poll_while_any (struct pollfd *fds, nfds_t n, int timeout)
{
  return left > 0 ? poll(fds, n, timeout) : 0;
}

static void
loop (rs_events *events, int other)
{
#define poll poll_while_any
#include "loop.h"
#undef poll
}

static void
run_loop (void)
{
  int other[2];
  rs_pool *pool;
  if (pipe(other) != 0 || rs_pool_open(NULL, &pool, NULL) != RS_OK)
    return;
  rs_events *const events = rs_events_new();
  bool over[JOBS + 1] = { false };
  for (int i = 1; i <= JOBS; i++) {
    const rs_job_options options = {
      .events = events,
      .listen = RS_LISTEN_FINISHED | 1u << RS_STREAM_WARNING,
      .user = &over[i]
    };
    lua_pushliteral(L, "require 'parallel'.task.warning 'w' return ...");
    lua_pushinteger(L, i);
    if (rs_submit(pool, L, 1, &options, NULL, NULL) != RS_OK)
      return;
  }
  loop(events, other[0]);
  printf("%d records, %d\n", (int) records, (int) sum);
  rs_pool_unref(pool);
  rs_events_unref(events);
}

int
main (void)
{
  L = rs_host_open();
  {
#include "first.h"
    printf("%d value, %d\n", n, (int) lua_tointeger(L, -1));
    lua_settop(L, 0);
  }
  run_loop();
  rs_host_close(L);
  return 0;
}
