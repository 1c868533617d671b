/* SPDX-License-Identifier: MIT */
/*
 * runner.c - the runner that is a state of this process.
 */
#include "pool/runner.h"

#include <stdlib.h>

#include "base/status.h"

/* Plain calls between two trims of the state. */
enum { TRIM = 32 };

static rs_state_runner *
own (rs_runner *runner)
{
  return (rs_state_runner *) runner;
}

static int
open_one (const rs_state_options *options, rs_runner **out, rs_error *err)
{
  rs_state_runner *const r = malloc(sizeof *r);
  rs_state *s = NULL;
  if (r == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  const int status = rs_state_open(options, &s, err);
  if (status != RS_OK) {
    free(r);
    return status;
  }
  rs_state_runner_init(r, s, NULL);
  *out = &r->base;
  return RS_OK;
}

static void
run (rs_runner *runner, rs_call *call, const rs_call_sink *sink)
{
  rs_call_run(own(runner)->s, own(runner)->L, call, sink);
}

static bool
spent (rs_runner *runner)
{
  return rs_state_spent(own(runner)->s);
}

static void
trim (rs_runner *runner, bool chunk)
{
  rs_state_runner *const r = own(runner);
  if (chunk || ++r->calls % TRIM == 0)
    rs_state_trim(r->s);
}

static void
rest (rs_runner *runner)
{
  rs_state_rest(own(runner)->s);
}

static size_t
bytes (const rs_runner *runner)
{
  return rs_state_bytes(((const rs_state_runner *) runner)->s);
}

static void
close_one (rs_runner *runner)
{
  rs_state_close(own(runner)->s);
  free(runner);
}

const rs_runner_kind rs_state_kind = {
  .local = true,
  .open = open_one,
  .run = run,
  .spent = spent,
  .trim = trim,
  .rest = rest,
  .bytes = bytes,
  .close = close_one,
};

void
rs_state_runner_init (rs_state_runner *r, rs_state *s, lua_State *L)
{
  *r = (rs_state_runner) {
    .base = {
      .kind = &rs_state_kind,
      .cancel = rs_state_cancel(s),
      .worker = rs_state_worker(s),
    },
    .s = s,
    .L = L,
  };
}
