/* SPDX-License-Identifier: MIT */
/*
 * engines.c - a program with librunspace, whose Lua code, in its own state and
 * in its jobs, loads the 'parallel.so' that it finds on the cpath.
 *
 * It is built in three ways: PROGRAM is linked to the library; PLUGIN is a
 * shared object that is; and the third one, which is linked to Lua only, loads
 * such a plugin.  There is one engine in each, so all print the same.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* dlopen */
#endif
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

int use_library (const char *cpath);

#if defined(PROGRAM) || defined(PLUGIN)

#include <runspace.h>

static const char in_host[] =
  "package.cpath = ... "
  "local parallel, file = require 'parallel' "
  "assert(file == package.searchpath('parallel', package.cpath)) "
  "local job <const> = parallel.submit { 'while true do end', timeout = .01 } "
  "return 'host: ' .. parallel.version .. ', ' .. job:wait(60)";

#define REQUIRE \
  "package.loaded.parallel, package.preload.parallel = nil, nil " \
  "local parallel, file = require 'parallel' " \
  "assert(file == package.searchpath('parallel', package.cpath)) "

static const char in_job[] = REQUIRE
  "local job <const> = parallel.submit { 'while true do end', timeout = .01 } "
  "return 'job ' .. parallel.task.name .. ': ' .. parallel.version .. ', ' "
  ".. job:wait(60)";

static const char loop[] = REQUIRE "while true do end";

/* Print the text on top of the stack, or end the program. */
static void
show (lua_State *L, int status)
{
  printf("%s\n", lua_tostring(L, -1));
  if (status != 0)
    exit(EXIT_FAILURE);
  lua_pop(L, 1);
}

/* Run the text in a job.  Its state. */
static rs_job_state
run (rs_pool *pool, lua_State *L, const char *text, const rs_job_options *o)
{
  rs_job *job = NULL;
  rs_job_info info;
  rs_error err;
  int n = 0;
  lua_pushstring(L, text);
  if (rs_submit(pool, L, 0, o, &job, &err) != RS_OK) {
    lua_pushstring(L, err.text);
    show(L, 1);
  }
  rs_job_wait(job, L, 60);
  rs_job_info_get(job, &info);
  if (rs_job_push(job, L, &n) == RS_OK)
    show(L, 0);
  lua_settop(L, 0);
  rs_job_unref(job);
  return info.state;
}

int
use_library (const char *cpath)
{
  rs_pool *pool = NULL;
  rs_pool_info info;
  rs_error err;
  lua_State *const L = rs_host_open();
  rs_initial_state *const is = rs_initial_state_new();
  rs_host_open_libs(L);
  printf("library: %s\n", rs_version());
  luaL_loadstring(L, in_host);
  lua_pushstring(L, cpath);
  show(L, lua_pcall(L, 1, 1, 0));
  rs_initial_state_set_cpath(is, cpath);
  const rs_pool_options options = { .max = 1, .initial_state = is };
  if (rs_pool_open(&options, &pool, &err) != RS_OK) {
    lua_pushstring(L, err.text);
    show(L, 1);
  }
  const rs_job_options named = { .name = "mine" };
  const rs_job_options timed = { .timeout = 0.01 };
  run(pool, L, in_job, &named);
  printf("loop: %s\n", rs_job_state_name(run(pool, L, loop, &timed)));
  run(pool, L, in_job, &named);
  rs_pool_info_get(pool, &info);
  printf("workers that were lost: %d\n", (int) info.lost_workers);
  rs_initial_state_unref(is);
  rs_pool_unref(pool);
  rs_host_close(L);
  return 0;
}

#endif

#ifdef PROGRAM

/* engines CPATH */
int
main (int argc, char **argv)
{
  return argc > 1 ? use_library(argv[1]) : EXIT_FAILURE;
}

#elif !defined(PLUGIN)

/* engines CPATH PLUGIN (local|global) */
int
main (int argc, char **argv)
{
  int (*use) (const char *);
  if (argc < 4)
    return EXIT_FAILURE;
  lua_close(luaL_newstate());  /* Lua is the program's */
  const int scope = strcmp(argv[3], "local") == 0 ? RTLD_LOCAL : RTLD_GLOBAL;
  void *const plugin = dlopen(argv[2], RTLD_NOW | scope);
  void *const symbol = plugin != NULL ? dlsym(plugin, "use_library") : NULL;
  if (symbol == NULL) {
    printf("%s\n", dlerror());
    return EXIT_FAILURE;
  }
  memcpy(&use, &symbol, sizeof use);
  return use(argv[1]);
}

#endif
