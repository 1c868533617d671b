/* SPDX-License-Identifier: MIT */
/*
 * check.h - what the check programs share: counting, and a gate.
 *
 * A gate is opened by the test and waited at by jobs, as the global function
 * 'wait_at_gate' of a runspace; it makes an order of events certain without
 * waiting for time to pass.
 */
#ifndef CHECK_H
#define CHECK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "runspace.h"

static unsigned passed, failed;

/* Count, and tell what failed. */
#define CHECK(condition) \
  ((condition) ? (void) passed++ \
               : (failed++, (void) fprintf(stderr, "%s:%d: failed: %s\n", \
                                           __FILE__, __LINE__, #condition)))

/* Like CHECK for what nothing can go on without. */
#define REQUIRE(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "%s:%d: cannot go on: %s\n", __FILE__, __LINE__, \
              #condition); \
      exit(1); \
    } \
  } while (0)

static inline int
report (void)
{
  printf("%u passed, %u failed\n", passed, failed);
  return failed != 0;
}

static struct {
  pthread_mutex_t lock;     /* guards what follows */
  bool open;
  unsigned arrived;
  pthread_cond_t changed;
} gate = { PTHREAD_MUTEX_INITIALIZER, false, 0, PTHREAD_COND_INITIALIZER };

static inline void
gate_close (void)
{
  pthread_mutex_lock(&gate.lock);
  gate.open = false;
  gate.arrived = 0;
  pthread_mutex_unlock(&gate.lock);
}

static inline void
gate_open (void)
{
  pthread_mutex_lock(&gate.lock);
  gate.open = true;
  pthread_cond_broadcast(&gate.changed);
  pthread_mutex_unlock(&gate.lock);
}

/* Wait until 'n' jobs stand at the gate. */
static inline void
gate_await (unsigned n)
{
  pthread_mutex_lock(&gate.lock);
  while (gate.arrived < n)
    pthread_cond_wait(&gate.changed, &gate.lock);
  pthread_mutex_unlock(&gate.lock);
}

static inline int
wait_at_gate (lua_State *L)
{
  (void) L;
  pthread_mutex_lock(&gate.lock);
  gate.arrived++;
  pthread_cond_broadcast(&gate.changed);
  while (!gate.open)
    pthread_cond_wait(&gate.changed, &gate.lock);
  pthread_mutex_unlock(&gate.lock);
  return 0;
}

static inline int
open_gate_module (lua_State *L)
{
  lua_register(L, "wait_at_gate", wait_at_gate);
  lua_pushboolean(L, 1);
  return 1;
}

/* A pool whose runspaces have 'wait_at_gate'. */
static inline rs_pool *
gated_pool (unsigned min, unsigned max)
{
  rs_initial_state *const is = rs_initial_state_new();
  rs_pool *pool = NULL;
  rs_error err = { .status = RS_OK };
  REQUIRE(is != NULL);
  REQUIRE(rs_initial_state_add_preload(is, "gate", open_gate_module,
                                       RS_PRELOAD_GLOBAL) == RS_OK);
  const rs_pool_options o = { .min = min, .max = max, .initial_state = is };
  if (rs_pool_open(&o, &pool, &err) != RS_OK)
    fprintf(stderr, "%s\n", err.text);
  REQUIRE(pool != NULL);
  rs_initial_state_unref(is);
  return pool;
}

/* [-nargs, +0, e]  Submit a chunk of source. */
static inline rs_job *
submit (rs_pool *pool, lua_State *L, const char *source, int nargs)
{
  rs_job *job = NULL;
  rs_error err = { .status = RS_OK };
  lua_pushstring(L, source);
  lua_insert(L, -nargs - 1);
  if (rs_submit(pool, L, nargs, NULL, &job, &err) != RS_OK)
    fprintf(stderr, "%s\n", err.text);
  return job;
}

static inline rs_job_state
state_of (rs_job *job)
{
  rs_job_info info;
  rs_job_info_get(job, &info);
  return info.state;
}

/* Wait for 'job', drop it, and return its first result as an integer. */
static inline lua_Integer
result_of (rs_job *job, lua_State *L)
{
  int n = 0;
  lua_Integer value = -1;
  if (job == NULL)
    return value;
  rs_job_wait(job, L, RS_FOREVER);
  if (rs_job_push(job, L, &n) == RS_OK && n > 0)
    value = lua_tointeger(L, -n);
  else if (n > 0)
    fprintf(stderr, "%s\n", luaL_tolstring(L, -n, NULL)), lua_pop(L, 1);
  lua_pop(L, n);
  rs_job_unref(job);
  return value;
}

#endif
