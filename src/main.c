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
#define _GNU_SOURCE  /* isatty */
#endif
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "cli.h"
#include "lparallel.h"
#include "repl.h"
#include "runspace.h"

static void
open_libraries (lua_State *L, const rs_cli *cli)
{
  luaL_checkversion(L);
  if (cli->no_env) {
    lua_pushboolean(L, true);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  luaL_openlibs(L);
  rs_host_track(L);
  luaL_requiref(L, "parallel", luaopen_parallel, 1);
  lua_pop(L, 1);
  rs_parallel_set_workers(L, cli->workers);
  rs_cli_set_events(rs_parallel_events(L));
}

/* Everything that can raise.  Takes the rs_cli, returns whether all of it
   went well. */
static int
run (lua_State *L)
{
  const rs_cli *const cli = lua_touserdata(L, 1);
  const bool has_script = cli->script < cli->argc;
  const bool asked = has_script || cli->statements || cli->version;
  /* Nothing asked, at a terminal: a prompt is what they came for. */
  const bool prompt = cli->interactive || (!asked && isatty(STDIN_FILENO));

  if (prompt)
    rs_repl_prepare();
  if (cli->version)
    rs_cli_version();
  open_libraries(L, cli);
  rs_cli_set_arg(L, cli);
  lua_gc(L, LUA_GCGEN, 0, 0);
  if (!cli->no_env && rs_cli_run_init(L, cli) != LUA_OK)
    return 0;
  if (rs_cli_run_options(L, cli) != LUA_OK)
    return 0;
  if (has_script && rs_cli_run_script(L, cli) != LUA_OK)
    return 0;
  if (prompt) {
    if (!cli->version)
      rs_cli_version();
    rs_repl_run(L);
  }
  else if (!asked)
    rs_cli_run_stdin(L, cli);  /* its failure does not count: lua5.4 */
  lua_pushboolean(L, true);
  return 1;
}

int
main (int argc, char **argv)
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
  return (status == LUA_OK && done) ? EXIT_SUCCESS : EXIT_FAILURE;
}
