/* SPDX-License-Identifier: MIT */
/*
 * main.c - the program 'runspace': lua5.4 with the module 'parallel'.
 *
 * The order of events is that of 'lua5.4': options are checked, versions
 * shown, libraries opened, LUA_INIT run, options obeyed, the script run;
 * then the prompt, or standard input, where they are due.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* isatty, mmap */
#endif
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <ucontext.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>

#include "program/cli.h"
#include "lparallel.h"
#include "program/repl.h"
#include "program/serve.h"
#include "runspace.h"

static void
open_libraries (lua_State *L, const rs_cli *cli)
{
  luaL_checkversion(L);
  if (cli->no_env) {
    lua_pushboolean(L, true);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  rs_host_open_libs(L);
  rs_host_track(L);
  luaL_requiref(L, "parallel", luaopen_parallel, 1);
  lua_pop(L, 1);
  rs_parallel_set_workers(L, cli->workers);
  rs_parallel_set_isolation(L, cli->isolation);
  rs_cli_set_events(rs_parallel_events(L));
  rs_cli_replace_exit(L);
}

/* Do all that can raise.  Takes the rs_cli, returns true if all of it went
   well. */
static int
run (lua_State *L)
{
  rs_cli *const cli = lua_touserdata(L, 1);
  const bool has_script = cli->script < cli->argc;
  const bool asked = has_script || cli->statements || cli->version;
  /* A user at a terminal who asked for nothing wants a prompt. */
  cli->prompt = cli->interactive || (!asked && isatty(STDIN_FILENO));

  if (cli->prompt)
    rs_repl_prepare();
  if (cli->version)
    rs_cli_version();
  open_libraries(L, cli);
  rs_cli_set_arg(L, cli);
  lua_gc(L, LUA_GCGEN, 0, 0);
  bool good = (cli->no_env || rs_cli_run_init(L, cli) == LUA_OK)
           && rs_cli_run_options(L, cli) == LUA_OK
           && (!has_script || rs_cli_run_script(L, cli) == LUA_OK);
  if (good && cli->prompt) {
    if (!cli->version)
      rs_cli_version();
    rs_repl_run(L);
  }
  else if (good && !asked)
    rs_cli_run_stdin(L, cli);  /* its failure does not count, as in lua5.4 */
  if (good && !cli->prompt)
    good = rs_cli_await_jobs(L, cli) == LUA_OK;
  rs_cli_abandon_jobs(L);
  lua_pushboolean(L, good);
  return 1;
}

/* Run the program on the stack of the caller; returns its exit status. */
static int
start (int argc, char **argv)
{
  rs_cli cli;
  if (!rs_cli_parse(&cli, argc, argv))
    return EXIT_FAILURE;
  lua_State *L = rs_host_open();
  if (L == NULL) {
    rs_cli_message(cli.name, "cannot create state: not enough memory");
    return EXIT_FAILURE;
  }
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, &cli);
  const int status = lua_pcall(L, 1, 1, 0);
  const bool done = lua_toboolean(L, -1);
  rs_cli_report(L, status, cli.name);
  rs_host_close(L);
  rs_cli_die_interrupted();
  return status == LUA_OK && done && (cli.prompt || rs_parallel_unseen() == 0)
       ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ------------------------------------------------------------- its stack */

/* Bytes of stack that are enough: Lua may nest 200 calls of C functions, which
   take up to 600 KiB. */
#define ENOUGH ((rlim_t) 1 << 20)
#define OWN_STACK ((size_t) 8 << 20)

/* The arguments and the exit status of 'start_there', which gets no pointers
   from makecontext(3). */
static struct {
  int argc;
  char **argv;
  int status;
} program;

static void
start_there (void)
{
  program.status = start(program.argc, program.argv);
}

/* Run the program on a stack of its own; false when there is none, or no way
   to get on it. */
static bool
start_elsewhere (void)
{
#ifndef HAVE_MAKECONTEXT
  (void) start_there;
  return false;
#else
  ucontext_t here, there;
  void *const stack = mmap(NULL, OWN_STACK, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
                           | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED || getcontext(&there) != 0)
    return false;
  mprotect(stack, 65536, PROT_NONE);  /* an overflow faults */
  there.uc_stack.ss_sp = stack;
  there.uc_stack.ss_size = OWN_STACK;
  there.uc_link = &here;
  rs_host_set_stack((char *) stack + 65536);
  makecontext(&there, start_there, 0);
  return swapcontext(&here, &there) == 0;
#endif
}

/* True when the stack is too small.  Under a sanitizer it never is: a
   sanitizer has to be told of other stacks, and needs a large one anyway. */
static bool
is_small (void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false;
#else
  struct rlimit limit;
  return getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur < ENOUGH;
#endif
}

int
main (int argc, char **argv)
{
  const int served = rs_worker_main(argc, argv);
  if (served >= 0)
    return served;
  const int ended = rs_program_serve(argc, argv);
  if (ended >= 0)
    return ended;
  program.argc = argc;
  program.argv = argv;
  if (is_small() && start_elsewhere())
    return program.status;
  return start(argc, argv);
}
