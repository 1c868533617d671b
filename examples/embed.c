/* SPDX-License-Identifier: MIT */
/*
 * embed.c - a C program that lets Lua run in several runspaces at once.
 *
 *     cc embed.c $(pkg-config --cflags --libs runspace) -o embed && ./embed
 *
 * Each runspace starts with a module of this program's own, 'checksum', and
 * a global 'rounds'.  Each job is Lua source text and its arguments.  Prints:
 *
 *     alpha: completed: 1005 bytes, 8700f6afed1d6224
 *     beta: completed: 1004 bytes, f0cd9a5f8d64630a
 *     gamma: completed: 1005 bytes, a44edafcb6efc848
 *     : failed: nothing to hash
 */
#include <stdio.h>
#include <stdlib.h>

#include <lua.h>
#include <lauxlib.h>
#include <lualib.h>
#include <runspace.h>

/* [-0, +1, e]  checksum.fnv(s): 64 bits, FNV-1a. */
static int
fnv (lua_State *L)
{
  size_t size;
  const char *s = luaL_checklstring(L, 1, &size);
  lua_Unsigned hash = 14695981039346656037u;
  for (size_t i = 0; i < size; i++)
    hash = (hash ^ (unsigned char)s[i]) * 1099511628211u;
  lua_pushinteger(L, (lua_Integer)hash);
  return 1;
}

/* A module as 'require' takes it.  Any runspace may open it at any time, so
   it keeps nothing in C variables. */
static int
open_checksum (lua_State *L)
{
  static const luaL_Reg functions[] = { { "fnv", fnv }, { NULL, NULL } };
  luaL_newlib(L, functions);
  return 1;
}

static void
check (int status, const rs_error *err)
{
  if (status != RS_OK) {
    fprintf(stderr, "embed: %s\n",
            err->text[0] != '\0' ? err->text : rs_status_message(status));
    exit(EXIT_FAILURE);
  }
}

int
main (void)
{
  static const char *const inputs[] = { "alpha", "beta", "gamma", "" };
  enum { JOBS = sizeof inputs / sizeof *inputs };
  rs_error err = { RS_OK, "" };
  rs_pool *pool;
  rs_job *jobs[JOBS];

  /* Values come from, and go back to, a state of the program's own. */
  lua_State *L = luaL_newstate();
  if (L == NULL)
    return EXIT_FAILURE;
  luaL_openlibs(L);

  /* What each runspace starts with. */
  rs_initial_state *is = rs_initial_state_new();
  if (is == NULL)
    return EXIT_FAILURE;
  check(rs_initial_state_add_preload(is, "checksum", open_checksum,
                                     RS_PRELOAD_GLOBAL), &err);
  lua_pushinteger(L, 1000);
  check(rs_initial_state_add_variable(is, "rounds", L, &err), &err);

  const rs_pool_options options = { .max = 2, .initial_state = is };
  check(rs_pool_open(&options, &pool, &err), &err);
  rs_initial_state_unref(is);

  for (int i = 0; i < JOBS; i++) {
    lua_pushliteral(L, "local s = ...\n"
                       "if s == '' then error('nothing to hash', 0) end\n"
                       "for _ = 1, rounds do\n"
                       "  s = s .. checksum.fnv(s) % 10\n"
                       "end\n"
                       "return #s, string.format('%016x', checksum.fnv(s))");
    lua_pushstring(L, inputs[i]);
    check(rs_submit(pool, L, 1, NULL, &jobs[i], &err), &err);
  }

  for (int i = 0; i < JOBS; i++) {
    rs_job_info info;
    int n;
    rs_job_wait(jobs[i], L, RS_FOREVER);
    rs_job_info_get(jobs[i], &info);
    if (rs_job_push(jobs[i], L, &n) == RS_OK)  /* results, in order */
      printf("%s: %s: %s bytes, %s\n", inputs[i],
             rs_job_state_name(info.state), lua_tostring(L, -n),
             lua_tostring(L, -n + 1));
    else  /* the error value and a traceback */
      printf("%s: %s: %s\n", inputs[i], rs_job_state_name(info.state),
             lua_tostring(L, -n));
    lua_pop(L, n);
    rs_job_unref(jobs[i]);
  }

  rs_pool_close(pool, RS_FOREVER);
  rs_pool_unref(pool);
  lua_close(L);
  return 0;
}
