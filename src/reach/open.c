/* SPDX-License-Identifier: MIT */
/*
 * open.c - pools: opening on the kind of runners that the options ask for.
 */
#include <pthread.h>

#include "base/options.h"
#include "base/status.h"
#include "pool/face.h"
#include "pool/pool.h"
#include "reach/broker.h"
#include "reach/broker_run.h"
#include "reach/exchange.h"
#include "reach/hosts.h"
#include "reach/link.h"

int
rs_pool_start (const rs_pool_options *options, rs_pool **out, rs_error *err)
{
  rs_pool_options room;
  const rs_pool_options *const o = rs_check_pool_options(options, &room, err);
  if (o == NULL)
    return RS_EINVAL;
  const bool away = o->command != NULL || o->hosts != NULL;
  if (o->isolation != RS_ISOLATION_PROCESS && !away && o->broker == NULL)
    return rs_pool_start_on(&rs_state_kind, options, out, err);
  const int status = o->initial_state != NULL
                   ? rs_initial_state_check(o->initial_state, err) : RS_OK;
  return status != RS_OK ? status
       : rs_pool_start_on(o->broker != NULL ? &rs_broker_kind
                          : away ? &rs_command_kind : &rs_process_kind,
                          options, out, err);
}

/* Cleanup: drop a pool that will not open, since that failed or the thread is
   cancelled. */
static void
unref_object (void *pool)
{
  rs_pool_unref(pool);
}

int
rs_pool_open (const rs_pool_options *options, rs_pool **out, rs_error *err)
{
  rs_pool *pool;
  int status = out == NULL ? rs_fail_null(err, "out")
                           : rs_pool_start(options, &pool, err);
  if (status != RS_OK)
    return status;
  pthread_cleanup_push(unref_object, pool);
  status = rs_pool_await_open(pool, NULL, RS_FOREVER, err);
  pthread_cleanup_pop(status != RS_OK);
  if (status == RS_OK)
    *out = pool;
  return status;
}

size_t
rs_pool_hosts (rs_pool *pool, rs_host_info *out, size_t room)
{
  return pool == NULL || rs_pool_is_foreign(pool)
         || pool->kind != &rs_command_kind || (out == NULL && room > 0)
         ? 0 : rs_hosts_get(pool->shared, out, room);
}

bool
rs_pool_broker (rs_pool *pool, rs_broker_info *out)
{
  const bool has = pool != NULL && out != NULL && !rs_pool_is_foreign(pool)
                && pool->kind == &rs_broker_kind;
  if (has)
    rs_broker_get(pool->shared, out);
  return has;
}
