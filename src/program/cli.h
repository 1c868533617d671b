/* SPDX-License-Identifier: MIT */
/*
 * cli.h - the command line of the host program, and how it runs chunks.
 *
 * What a user can see of it follows 'lua5.4' to the letter: the options and
 * their order, the texts of errors, what is printed where.  Only the main
 * thread runs here.
 */
#ifndef RS_CLI_H
#define RS_CLI_H

#include <stdbool.h>

#include <lua.h>

#include "runspace.h"

/* The command line, parsed.  It borrows 'argv'. */
typedef struct rs_cli {
  int argc;
  char **argv;
  const char *name;   /* of the program, as errors show it */
  int script;         /* index of the script in 'argv'; 'argc' if none */
  unsigned workers;   /* -j, or RUNSPACE_JOBS: workers of the default pool; 0
                         if not given */
  bool serial;        /* it was 0: jobs run on the thread of the script */
  int isolation;      /* --isolation: RS_ISOLATION_ of the default pool */
  bool interactive;   /* -i */
  bool version;       /* -v or -i */
  bool statements;    /* -e */
  bool no_env;        /* -E */
  bool prompt;        /* there is a prompt: set by 'main' */
} rs_cli;

/*
 * Parse the command line.  False when it is wrong; the complaint and the
 * usage are then on stderr.
 */
bool rs_cli_parse (rs_cli *cli, int argc, char **argv);

/* Print the versions of runspace and Lua on stdout. */
void rs_cli_version (void);

/* Print 'message' on stderr, behind 'name' unless that is NULL. */
void rs_cli_message (const char *name, const char *message);

/* [-(status != LUA_OK), +0, -]  Print the error on top, if it is one, and
   return 'status'. */
int rs_cli_report (lua_State *L, int status, const char *name);

/* Set the events at which the state waits for its jobs: SIGINT ends such a
   wait. */
void rs_cli_set_events (rs_events *events);

/*
 * [-(nargs + 1), +(nresults|1), -]  Do 'lua_pcall'.  Meanwhile the first
 * SIGINT raises "interrupted!" in 'L'.  A second one ends the program, if the
 * first was not raised yet or is less than a second old.
 */
int rs_cli_pcall (lua_State *L, int nargs, int nresults, int handler);

/* End by SIGINT if SIGINT has ended what ran, so that the caller (the loop of
   a shell, say) knows, and ends, too. */
void rs_cli_die_interrupted (void);

/* Forget the last SIGINT, since the user has the prompt again: the next one is
   a first one. */
void rs_cli_forgive (void);

/* [-(nargs + 1), +(nresults|1), -]  Do 'rs_cli_pcall'; an error that is left
   is a text, with a traceback unless the error value speaks for itself
   ('__tostring'). */
int rs_cli_call (lua_State *L, int nargs, int nresults);

/* [-0, +0, e]  Set the global 'arg': the script at 0, what led to it below,
   its arguments above. */
void rs_cli_set_arg (lua_State *L, const rs_cli *cli);

/* [-0, +0, e]  Run LUA_INIT_5_4 or else LUA_INIT.  A Lua status; the error
   has been reported. */
int rs_cli_run_init (lua_State *L, const rs_cli *cli);

/* [-0, +0, e]  Do what -e, -l and -W ask, in their order.  A Lua status; the
   error has been reported. */
int rs_cli_run_options (lua_State *L, const rs_cli *cli);

/* [-0, +0, e]  Run the script with its arguments.  A Lua status; the error has
   been reported. */
int rs_cli_run_script (lua_State *L, const rs_cli *cli);

/* [-0, +0, e]  Wait for the jobs that the script has started.  A Lua status;
   the error has been reported. */
int rs_cli_await_jobs (lua_State *L, const rs_cli *cli);

/* [-0, +0, -]  Cancel the jobs that have not ended, and say how many. */
void rs_cli_abandon_jobs (lua_State *L);

/* [-0, +0, m]  Let 'os.exit' do that, too. */
void rs_cli_replace_exit (lua_State *L);

/* [-0, +0, e]  Run standard input, to its end, as one chunk.  A Lua status;
   the error has been reported. */
int rs_cli_run_stdin (lua_State *L, const rs_cli *cli);

#endif
