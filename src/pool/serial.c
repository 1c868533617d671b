/* SPDX-License-Identifier: MIT */
/*
 * serial.c - pools without threads: a host that waits runs their jobs.
 */
#include "pool/serial.h"

#include "base/clock.h"

/* The serial pools that this thread has opened, oldest first. */
static _Thread_local rs_list pools;

/* Run the next job of these pools; false when there is none. */
static bool
help (void)
{
  for (rs_list *link = pools.next; link != &pools; link = link->next) {
    rs_pool *const pool = RS_LIST_ENTRY(link, rs_pool, serials);
    /* In a child of fork(2) the pools are the parent's. */
    if (!rs_pool_is_foreign(pool) && rs_worker_serve_here(pool->here))
      return true;
  }
  return false;
}

int
rs_serial_open (rs_pool *pool, rs_worker *w, rs_error *err)
{
  if (pools.next == NULL)
    rs_list_init(&pools);
  pool->here = w;
  rs_list_push(&pools, &pool->serials);
  rs_events_set_help(help);
  return rs_worker_open_here(w, err);
}

bool
rs_serial_is_mine (const rs_pool *pool)
{
  if (!pool->serial || pools.next == NULL)
    return false;
  for (const rs_list *link = pools.next; link != &pools; link = link->next)
    if (link == &pool->serials)
      return true;
  return false;
}

void
rs_serial_serve_until (rs_pool *pool, double deadline)
{
  while (pool->here != NULL && rs_remaining(deadline) != 0
         && rs_worker_serve_here(pool->here))
    ;
}

void
rs_serial_close (rs_pool *pool)
{
  rs_worker *const w = pool->here;
  if (w == NULL)
    return;
  pool->here = NULL;
  rs_list_remove(&pool->serials);
  if (rs_list_empty(&pools))
    rs_events_set_help(NULL);
  rs_worker_leave_here(w);
}
