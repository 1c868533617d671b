/* SPDX-License-Identifier: MIT */
/*
 * storm_check.c - jobs that are stopped at random moments leave nothing.
 *
 * 'spec/support/storm.lua' has the ways: each is a loop over a verb of the
 * module, in a job that is stopped a while after it began, again and again.
 * A way has a host state of its own.  When that is closed there is as much
 * as before the way began: blocks of memory, Lua states, threads, descriptors,
 * child processes.  A leak checker, if one is built in, sees the same at the
 * end of the program.
 *
 *     STORM_ROUNDS=300 STORM_SEED=7 STORM_WAY=run spec/storm_check
 *
 * The linker puts '__wrap_' functions in the place of the C library's for our
 * own objects.  Blocks from 64 KiB on are not counted: some are kept for the
 * next who needs one.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* waitid's siginfo_t */
#endif
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include "support/check.h"

#include "lparallel.h"

enum { COUNTED = 64 << 10 };  /* bytes of a block, less than that */

static _Atomic long blocks;   /* in use now */
static _Atomic long states;   /* the same of Lua */

void *__real_malloc (size_t);
void *__real_calloc (size_t, size_t);
void *__real_realloc (void *, size_t);
void *__real_aligned_alloc (size_t, size_t);
char *__real_strdup (const char *);
void __real_free (void *);
lua_State *__real_lua_newstate (lua_Alloc, void *);
void __real_lua_close (lua_State *);
void *__wrap_malloc (size_t);
void *__wrap_calloc (size_t, size_t);
void *__wrap_realloc (void *, size_t);
void *__wrap_aligned_alloc (size_t, size_t);
char *__wrap_strdup (const char *);
void __wrap_free (void *);
lua_State *__wrap_lua_newstate (lua_Alloc, void *);
void __wrap_lua_close (lua_State *);

static int
counts (void *ptr)
{
  return ptr != NULL && malloc_usable_size(ptr) < COUNTED;
}

static void *
came (void *ptr)
{
  atomic_fetch_add(&blocks, counts(ptr));
  return ptr;
}

void *
__wrap_malloc (size_t n)
{
  return came(__real_malloc(n));
}

void *
__wrap_calloc (size_t n, size_t size)
{
  return came(__real_calloc(n, size));
}

void *
__wrap_realloc (void *ptr, size_t n)
{
  const int was = counts(ptr);
  void *const now = __real_realloc(ptr, n);
  if (now != NULL || n == 0)
    atomic_fetch_add(&blocks, counts(now) - was);
  return now;
}

void *
__wrap_aligned_alloc (size_t alignment, size_t n)
{
  return came(__real_aligned_alloc(alignment, n));
}

char *
__wrap_strdup (const char *text)
{
  return came(__real_strdup(text));
}

void
__wrap_free (void *ptr)
{
  atomic_fetch_sub(&blocks, counts(ptr));
  __real_free(ptr);
}

lua_State *
__wrap_lua_newstate (lua_Alloc f, void *ud)
{
  lua_State *const L = __real_lua_newstate(f, ud);
  atomic_fetch_add(&states, L != NULL);
  return L;
}

void
__wrap_lua_close (lua_State *L)
{
  __real_lua_close(L);
  atomic_fetch_sub(&states, 1);
}

/* ----------------------------------------------------------- what there is */

typedef struct things {
  long blocks, states;
  long threads, descriptors;
  long children;            /* 1: there are some */
} things;

static long
entries (const char *path)
{
  DIR *const dir = opendir(path);
  long n = 0;
  REQUIRE(dir != NULL);
  while (readdir(dir) != NULL)
    n++;
  closedir(dir);
  return n;
}

static things
look (void)
{
  siginfo_t info;
  things t = {
    .threads = entries("/proc/self/task"),
    .descriptors = entries("/proc/self/fd"),
    .blocks = atomic_load(&blocks),
    .states = atomic_load(&states),
  };
  t.children = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
  return t;
}

/* No more than before? */
static bool
is_less (const things *now, const things *before)
{
  return now->blocks <= before->blocks && now->states <= before->states
      && now->threads <= before->threads
      && now->descriptors <= before->descriptors
      && now->children <= before->children;
}

/* What detached threads and programs that end have is gone soon. */
static bool
all_gone (const things *before, things *now)
{
  const struct timespec moment = { .tv_nsec = 1000000 };
  const double late = rs_now() + 20;
  for (*now = look(); !is_less(now, before); *now = look()) {
    if (rs_now() > late)
      return false;
    nanosleep(&moment, NULL);
  }
  return true;
}

/* -------------------------------------------------------------------- ways */

/* [-0, +1, -]  Push what 'storm.lua' returns. */
static void
load_storm (lua_State *L)
{
  const char *const source = getenv("RUNSPACE_SRCDIR");
  luaL_openlibs(L);
  luaL_requiref(L, "parallel", luaopen_parallel, 1);
  lua_settop(L, 0);
  lua_pushfstring(L, "%s/spec/support/storm.lua",
                  source != NULL ? source : ".");
  if (luaL_dofile(L, lua_tostring(L, 1)) != LUA_OK)
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
  REQUIRE(lua_istable(L, -1));
}

static unsigned
number_of (const char *variable, unsigned otherwise)
{
  const char *const text = getenv(variable);
  return text != NULL ? (unsigned) strtoul(text, NULL, 10) : otherwise;
}

/* Run way number 'i' in a host of its own.  False when there is none; its name
   goes to 'name'. */
static bool
run_way (unsigned i, unsigned rounds, char name[64])
{
  const char *const only = getenv("STORM_WAY");
  lua_State *const L = rs_host_open();
  REQUIRE(L != NULL);
  load_storm(L);
  const bool there = lua_rawgeti(L, -1, (lua_Integer) i) == LUA_TTABLE;
  if (there) {
    lua_getfield(L, -1, "name");
    snprintf(name, 64, "%s", lua_tostring(L, -1));
    lua_pop(L, 1);
  }
  if (there && (only == NULL || strcmp(only, name) == 0)) {
    lua_getfield(L, -2, "run");
    lua_insert(L, -2);
    lua_pushinteger(L, (lua_Integer) rounds);
    lua_pushinteger(L, (lua_Integer) number_of("STORM_SEED", 1));
    const bool good = lua_pcall(L, 3, 0, 0) == LUA_OK;
    if (!good)
      fprintf(stderr, "%s: %s\n", name, luaL_tolstring(L, -1, NULL));
    CHECK(good);
  }
  rs_host_close(L);
  return there;
}

int
main (void)
{
  const unsigned rounds = number_of("STORM_ROUNDS", 30);
  char name[64] = "";
  for (unsigned i = 1; run_way(i, 1, name); i++) {  /* what is made once */
    things now, before = look();
    const double began = rs_now();
    run_way(i, rounds, name);
    const bool gone = all_gone(&before, &now);
    CHECK(gone);
    printf("%s: %.0f ms\n", name, (rs_now() - began) * 1e3);
    if (!gone)
      printf("  left: %ld blocks, %ld states, %ld threads, %ld descriptors, "
             "%ld children\n", now.blocks - before.blocks,
             now.states - before.states, now.threads - before.threads,
             now.descriptors - before.descriptors, now.children);
    fflush(stdout);
  }
  return report();
}
