/* SPDX-License-Identifier: MIT */
/*
 * cancel_storm_check.c - random cancels at random times, before the start and
 * after the end too, among innocent jobs: not one wrong outcome.
 *
 *     cancel_storm_check [CANCELS [SEED]]
 *
 * A victim may only end as cancelled, when it was told to before its end; an
 * innocent job, which runs in the same runspaces at the same time, must
 * complete with its result.  The worst time from a cancel to the end of a job
 * that was running is printed.
 */
#include "support/check.h"

enum {
  IN_FLIGHT = 12,      /* jobs at a time */
  WORKERS = 3,
  INNOCENTS = 3        /* for each victim, about */
};

/* Those that swallow what is raised once must be forced, which the shortest
   grace does soon.  Each calls or allocates: ThreadSanitizer holds back
   signals from loops that do not. */
static const struct {
  const char *source;
  double grace;        /* seconds */
} victims[] = {
  { "local n = 0 while true do n = n + #tostring(n) end", 0.05 },
  { "while true do pcall(function () while true do tostring {} end end) end",
    0.0005 },
  { "local w = coroutine.wrap(function () while true do tostring {} end end)"
    " w()", 0.05 },
  { "while true do local co = coroutine.create(function () "
    "while true do coroutine.yield(tostring {}) end end) "
    "for _ = 1, 50 do coroutine.resume(co) end end", 0.0005 },
  { "while true do local t = {} for i = 1, 100 do t[i] = i * 7 % 13 end "
    "table.sort(t, function (a, b) return a < b end) end", 0.05 },
  { "local t <close> = setmetatable({}, { __close = function () "
    "for i = 1, 100 do tostring(i) end end }) "
    "while true do tostring {} end", 0.05 },
  { "while true do xpcall(function () while true do tostring {} end end, "
    "function () while true do tostring {} end end) end", 0.0005 },
  { "while true do setmetatable({}, { __gc = function () tostring {} end }) "
    "end", 0.05 },
  { "for i = 1, 2000 do tostring(i) end return 'done'", 0.05 },
};

enum { VICTIMS = sizeof victims / sizeof victims[0] };

typedef struct flight {
  rs_job *job;
  int victim;          /* or -1: innocent */
  lua_Integer number;
} flight;

static unsigned long long seed = 1;

/* A number below 'n' (xorshift). */
static unsigned
chance (unsigned n)
{
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return (unsigned) (seed >> 11) % n;
}

static void
start (rs_pool *pool, lua_State *L, flight *f, lua_Integer number)
{
  f->number = number;
  f->victim = chance(INNOCENTS + 1) == 0 ? (int) chance(VICTIMS) : -1;
  lua_pushinteger(L, number);
  f->job = submit(pool, L, f->victim >= 0 ? victims[f->victim].source
                  : "local n = ... for i = 1, n % 500 do tostring(i) end "
                    "return n * 2", 1);
  REQUIRE(f->job != NULL);
}

/* Let some time pass, more or less of it. */
static void
dawdle (void)
{
  const double until = rs_now() + 1e-6 * chance(400);
  while (rs_now() < until)
    ;
}

static unsigned cancels, late, forced;
static double worst;

/* Cancel a victim, and see what became of it. */
static void
cancel (lua_State *L, const flight *f)
{
  const double began = rs_now();
  const int status = rs_job_cancel(f->job, victims[f->victim].grace);
  REQUIRE(status == RS_OK || status == RS_EDONE);
  if (chance(4) == 0)  /* again, when it may have ended */
    rs_job_cancel(f->job, 0);
  rs_job_wait(f->job, L, RS_FOREVER);
  const double took = rs_now() - began;
  const rs_job_state state = state_of(f->job);
  cancels++;
  if (status == RS_EDONE) {
    late++;
    CHECK(state == RS_JOB_COMPLETED && f->victim == VICTIMS - 1);
  }
  else {
    CHECK(state == RS_JOB_CANCELLED);
    worst = took > worst ? took : worst;
    forced += took > victims[f->victim].grace;
  }
}

/* What is not cancelled must not have been hit by what was. */
static void
expect (lua_State *L, const flight *f)
{
  int n = 0;
  rs_job_wait(f->job, L, RS_FOREVER);
  CHECK(rs_job_push(f->job, L, &n) == RS_OK && n == 1
        && lua_tointeger(L, -1) == f->number * 2);
  lua_settop(L, 0);
  if (chance(8) == 0)
    CHECK(rs_job_cancel(f->job, 0) == RS_EDONE);
}

int
main (int argc, char **argv)
{
  const char *const more = getenv("CANCEL_STORM");
  const unsigned wanted = argc > 1 ? (unsigned) atoi(argv[1])
                        : more != NULL ? (unsigned) atoi(more) : 10000;
  flight flights[IN_FLIGHT] = { { NULL, 0, 0 } };
  lua_Integer number = 0;
  rs_pool *pool = NULL;
  const rs_pool_options o = { .min = WORKERS, .max = WORKERS };
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL && rs_pool_open(&o, &pool, NULL) == RS_OK);
  if (argc > 2)
    seed = strtoull(argv[2], NULL, 10);
  while (cancels < wanted) {
    flight *const f = &flights[chance(IN_FLIGHT)];
    if (f->job == NULL) {
      start(pool, L, f, ++number);
      if (chance(2) == 0)
        dawdle();
      continue;
    }
    if (f->victim >= 0)
      cancel(L, f);
    else {
      /* It may stand behind victims that nobody has cancelled yet. */
      for (int i = 0; i < IN_FLIGHT; i++) {
        if (flights[i].job != NULL && flights[i].victim >= 0) {
          cancel(L, &flights[i]);
          rs_job_unref(flights[i].job);
          flights[i].job = NULL;
        }
      }
      expect(L, f);
    }
    rs_job_unref(f->job);
    f->job = NULL;
  }
  for (int i = 0; i < IN_FLIGHT; i++) {
    if (flights[i].job != NULL && flights[i].victim >= 0)
      cancel(L, &flights[i]);
  }
  for (int i = 0; i < IN_FLIGHT; i++) {
    if (flights[i].job != NULL && flights[i].victim < 0)
      expect(L, &flights[i]);
    rs_job_unref(flights[i].job);
  }
  rs_pool_info info;
  rs_pool_info_get(pool, &info);
  CHECK(info.lost_workers == 0);
  rs_pool_unref(pool);
  lua_close(L);
  printf("%u cancels among %lld jobs: %u came after the end, %u jobs had to "
         "be forced, worst %.1f ms\n", cancels, (long long) number, late,
         forced, worst * 1e3);
  return report();
}
