/* SPDX-License-Identifier: MIT */
/*
 * cli.c - the command line of the host program, and how it runs chunks.
 *
 * SIGINT: while a chunk runs, the handler lets the coroutine that runs raise
 * "interrupted!".  Only the main thread may touch the host's state: on another
 * thread the handler sends the signal on to the main one.  The error goes
 * through the verb that waits, which stops its jobs.  A second SIGINT ends the
 * program, whatever it is at, while the first has not been raised (a function
 * in C goes on), and within a second.  A program that SIGINT ends, ends by
 * that signal.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* sigaction, pthread_kill */
#endif
#include "program/cli.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/escape.h"
#include "base/level.h"
#include "lparallel.h"

#include "runspace.h"

/* ------------------------------------------------------- the command line */

static const char usage[] =
  "usage: %s [options] [script [args]]\n"
  "Available options are:\n"
  "  -e stat   execute string 'stat'\n"
  "  -i        enter interactive mode after executing 'script'\n"
  "  -j N      let the default pool of 'parallel' have N workers; 0: run\n"
  "            jobs on the thread of the script, whenever that waits\n"
  "  --isolation process  let each of them be a child process, not a thread\n"
  "  --serve URL --queue NAME  work for a queue of a broker; comes first\n"
  "  -l mod    require library 'mod' into global 'mod'\n"
  "  -l g=mod  require library 'mod' into global 'g'\n"
  "  -v        show version information\n"
  "  -E        ignore environment variables\n"
  "  -W        turn warnings on\n"
  "  --        stop handling options\n"
  "  -         stop handling options and execute stdin\n";

/* Write 'text' to stderr, escaped as a terminal may have it. */
static void
put_plain (const char *text)
{
  const size_t size = strlen(text), room = rs_escape(text, size, NULL, 0) + 1;
  char *const plain = malloc(room);
  if (plain == NULL)
    return;
  rs_escape(text, size, plain, room);
  fputs(plain, stderr);
  free(plain);
}

/* Say what is wrong with an option, and which options there are.  Returns
   false. */
static bool
complain (const rs_cli *cli, const char *before, const char *option,
          const char *after)
{
  fprintf(stderr, "%s: %s'", cli->name, before);
  put_plain(option);
  fprintf(stderr, "'%s\n", after);
  fprintf(stderr, usage, cli->name);
  fflush(stderr);
  return false;
}

/*
 * Return the argument of the option at '*i': the rest of the option, or the
 * next argument, to which '*i' then moves.  NULL if there is none.
 */
static const char *
option_argument (const rs_cli *cli, int *i)
{
  const char *rest = cli->argv[*i] + 2;
  if (*rest != '\0')
    return rest;
  if (*i + 1 >= cli->argc)
    return NULL;
  return cli->argv[++*i];
}

/* Workers at most: more threads than any machine gives; a pool's 'max' has the
   same limit. */
#define MAX_WORKERS 65536

/* Read the number of workers in 'text', in decimal digits; 'needs' begins the
   complaint. */
static bool
parse_workers (rs_cli *cli, const char *needs, const char *text)
{
  char *end;
  errno = 0;
  const unsigned long n = strtoul(text, &end, 10);
  if (text[strspn(text, "0123456789")] != '\0' || *text == '\0'
      || errno != 0 || n > MAX_WORKERS)
    return complain(cli, needs, text, "");
  cli->serial = n == 0;
  cli->workers = n == 0 ? 1 : (unsigned) n;
  return true;
}

/* Let RUNSPACE_JOBS stand for -j, unless that, or -E, is given; and check that
   what was said of the default pool goes together. */
static bool
finish_parse (rs_cli *cli)
{
  const char *const jobs = cli->no_env || cli->workers > 0
                         ? NULL : getenv("RUNSPACE_JOBS");
  if (jobs != NULL && *jobs != '\0'
      && !parse_workers(cli, "RUNSPACE_JOBS needs an integer from 0 to 65536, "
                             "not ", jobs))
    return false;
  if (cli->serial && cli->isolation == RS_ISOLATION_PROCESS)
    return complain(cli, jobs != NULL ? "RUNSPACE_JOBS=0 lets jobs run on the "
                                        "thread of the script, and not in a "
                                        "process: leave out "
                                      : "'-j 0' lets jobs run on the thread "
                                        "of the script, and not in a process: "
                                        "leave out ",
                    "--isolation process", "");
  if (cli->serial)
    cli->isolation = RS_ISOLATION_SERIAL;
  return true;
}

/* Read the argument of --isolation, or NULL. */
static bool
parse_isolation (rs_cli *cli, const char *text)
{
  if (text == NULL)
    return complain(cli, "", "--isolation", " needs argument");
  if (strcmp(text, "process") == 0)
    cli->isolation = RS_ISOLATION_PROCESS;
  else if (strcmp(text, "thread") == 0)
    cli->isolation = RS_ISOLATION_THREAD;
  else
    return complain(cli, "'--isolation' needs 'thread' or 'process', not ",
                    text, "");
  return true;
}

bool
rs_cli_parse (rs_cli *cli, int argc, char **argv)
{
  memset(cli, 0, sizeof *cli);
  cli->argc = argc;
  cli->argv = argv;
  cli->name = (argc > 0 && argv[0][0] != '\0') ? argv[0] : "runspace";

  int i = 1;
  for (; i < argc && argv[i][0] == '-'; i++) {
    const char *const option = argv[i];
    if (option[1] == '\0')  /* "-": the script is stdin */
      break;
    const bool alone = option[2] == '\0';
    if (strcmp(option, "--isolation") == 0) {
      if (!parse_isolation(cli, i + 1 < argc ? argv[++i] : NULL))
        return false;
      continue;
    }
    if (!alone && strchr("-ivEW", option[1]) != NULL)
      return complain(cli, "unrecognized option ", option, "");
    switch (option[1]) {
      case '-':
        cli->script = i + 1;
        return finish_parse(cli);
      case 'i':
        cli->interactive = cli->version = true;
        break;
      case 'v':
        cli->version = true;
        break;
      case 'E':
        cli->no_env = true;
        break;
      case 'W':
        break;
      case 'e':
      case 'l': {
        const char *argument = option_argument(cli, &i);
        if (argument == NULL || (alone && argument[0] == '-'))
          return complain(cli, "", option, " needs argument");
        if (option[1] == 'e')
          cli->statements = true;
        break;
      }
      case 'j': {
        const char *argument = option_argument(cli, &i);
        if (argument == NULL)
          return complain(cli, "", option, " needs argument");
        if (!parse_workers(cli, "'-j' needs an integer from 0 to 65536, not ",
                           argument))
          return false;
        break;
      }
      default:
        return complain(cli, "unrecognized option ", option, "");
    }
  }
  cli->script = i;
  return finish_parse(cli);
}

void
rs_cli_version (void)
{
  printf("runspace %s  (%s)\n", rs_version(), LUA_COPYRIGHT);
  fflush(stdout);
}

/* ------------------------------------------------------- running a chunk */

void
rs_cli_message (const char *name, const char *message)
{
  /* The message is out at once, so that no line of a job comes in between. */
  fprintf(stderr, "%s%s%s\n", name != NULL ? name : "",
          name != NULL ? ": " : "", message);
  fflush(stderr);
}

int
rs_cli_report (lua_State *L, int status, const char *name)
{
  if (status != LUA_OK) {
    const char *message = lua_tostring(L, -1);
    rs_cli_message(name, message != NULL ? message
                                         : "(error message not a string)");
    lua_pop(L, 1);
  }
  return status;
}

/* The call that SIGINT interrupts: the outermost one, when a chunk runs
   another. */
static struct {
  lua_State *volatile L;    /* NULL: none */
  pthread_t thread;         /* the thread that runs 'L' */
  rs_events *events;        /* events at which 'L' waits, or NULL */
  volatile double last;     /* instant of the last SIGINT */
  volatile bool pending;    /* the last SIGINT has not been raised */
  char text[256];           /* of the error of the last SIGINT that was raised;
                               "": none was */
  bool ended;               /* a SIGINT was raised, and nothing has caught
                               it */
  bool left;                /* our handler stays after the call, */
  struct sigaction before;  /*   instead of this one */
} running;

/* Seconds within which a second SIGINT ends the program. */
#define IMPATIENCE 1.0

void
rs_cli_set_events (rs_events *events)
{
  running.events = events;
}

/* rs_host_interrupt: the error is raised, through handlers of events, too. */
static void
on_raise (lua_State *L)
{
  running.pending = false;
  luaL_where(L, 1);  /* as the error begins */
  snprintf(running.text, sizeof running.text, "%sinterrupted!",
           lua_tostring(L, -1));
  lua_pop(L, 1);
  rs_parallel_interrupt(L);
}

/* End by SIGINT, as if the program had no handler. */
static _Noreturn void
die (void)
{
  const struct sigaction action = { .sa_handler = SIG_DFL };
  sigset_t set;
  sigaction(SIGINT, &action, NULL);
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  raise(SIGINT);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
  _exit(128 + SIGINT);  /* has a debugger swallowed the signal? */
}

/* The handler of SIGINT.  'rs_host_interrupt' may be called by a handler.  The
   poke ends a wait for jobs, in which no hook would run. */
static void
on_interrupt (int signal)
{
  const int saved = errno;
  if (!pthread_equal(pthread_self(), running.thread))
    pthread_kill(running.thread, signal);
  else {
    const double now = rs_now();
    const bool again = running.pending || now - running.last < IMPATIENCE;
    running.last = now;
    if (again)
      die();
    /* Our handler is there between calls, and while the state closes, only in
       place of the system's own. */
    if (running.L == NULL)
      die();
    else {
      running.pending = true;
      rs_host_interrupt(running.L, on_raise);
      if (running.events != NULL)
        rs_events_poke(running.events);
    }
  }
  errno = saved;
}

int
rs_cli_pcall (lua_State *L, int nargs, int nresults, int handler)
{
  if (running.L != NULL)  /* is this a call inside of one? */
    return lua_pcall(L, nargs, nresults, handler);

  /* Blocking calls return when the signal comes: no SA_RESTART. */
  struct sigaction action = { .sa_handler = on_interrupt }, before;
  sigemptyset(&action.sa_mask);
  running.thread = pthread_self();
  running.L = L;
  sigaction(SIGINT, &action, &before);
  const int status = lua_pcall(L, nargs, nresults, handler);
  /* The next SIGINT may be a second one, so our handler stays; but a caller
     that had a handler has it again. */
  const bool own = before.sa_handler != SIG_DFL
                && before.sa_handler != SIG_IGN;
  if (running.last == 0 || before.sa_handler != SIG_DFL)
    sigaction(SIGINT, &before, NULL);
  else {
    running.left = true;
    running.before = before;
  }
  /* A SIGINT that came when no Lua code ran any more is for the caller. */
  const bool late = running.pending && own;
  running.L = NULL;
  running.pending = false;
  if (late) {
    lua_sethook(L, NULL, 0, 0);
    raise(SIGINT);
  }
  return status;
}

void
rs_cli_forgive (void)
{
  running.last = 0;
  running.text[0] = '\0';
  running.ended = false;
  if (running.left)
    sigaction(SIGINT, &running.before, NULL);
  running.left = false;
}

void
rs_cli_die_interrupted (void)
{
  if (running.ended)
    die();
}

/* True when 'message' is the error of the last SIGINT that was raised, perhaps
   behind places that 'coroutine.wrap' has put before it. */
static bool
is_interruption (const char *message)
{
  const size_t size = strlen(message), own = strlen(running.text);
  return own > 0 && size >= own
      && strcmp(message + size - own, running.text) == 0
      && (size == own || message[size - own - 1] == ' ');
}

/* [-0, +(0|1), e]  Push the text of a failure of the module 'parallel', which
   takes the traceback of the script.  False for other values. */
static bool
push_failure (lua_State *L)
{
  const bool is = luaL_getmetafield(L, 1, "__name") == LUA_TSTRING
               && strcmp(lua_tostring(L, -1), "parallel.failure") == 0
               && luaL_getmetafield(L, 1, "__tostring") == LUA_TFUNCTION;
  if (is) {
    lua_pushvalue(L, 1);
    rs_level_traceback(L, NULL, 1, true);
    lua_call(L, 2, 1);
  }
  return is && lua_type(L, -1) == LUA_TSTRING;
}

/* Message handler: make a text of the error value. */
static int
describe_error (lua_State *L)
{
  const char *message = lua_tostring(L, 1);
  running.ended = message != NULL && is_interruption(message);
  if (message == NULL) {
    if (push_failure(L))
      return 1;
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING)
      return 1;  /* the value speaks for itself: no traceback */
    message = lua_pushfstring(L, "(error object is a %s value)",
                              luaL_typename(L, 1));
  }
  rs_level_traceback(L, message, rs_level_user(L, 1, message), false);
  return 1;
}

int
rs_cli_call (lua_State *L, int nargs, int nresults)
{
  const int function = lua_gettop(L) - nargs;
  lua_pushcfunction(L, describe_error);
  lua_insert(L, function);  /* describe_error, function, args */
  const int status = rs_cli_pcall(L, nargs, nresults, function);
  if (status == LUA_OK)  /* 'load' may have run the handler all the same */
    running.ended = false;
  lua_remove(L, function);
  return status;
}

/* [-1, +0, -]  Run the chunk on top, unless 'status' says that it is the
   error of loading it. */
static int
run_chunk (lua_State *L, int status, const rs_cli *cli)
{
  if (status == LUA_OK)
    status = rs_cli_call(L, 0, 0);
  return rs_cli_report(L, status, cli->name);
}

static int
run_text (lua_State *L, const char *text, const char *chunkname,
          const rs_cli *cli)
{
  return run_chunk(L, luaL_loadbuffer(L, text, strlen(text), chunkname), cli);
}

/* ----------------------------------------------------------- in its order */

void
rs_cli_set_arg (lua_State *L, const rs_cli *cli)
{
  /* The program itself stands at 0 if there is no script. */
  const int zero = cli->script < cli->argc ? cli->script : 0;
  lua_createtable(L, cli->argc - zero, zero + 1);
  for (int i = 0; i < cli->argc; i++) {
    lua_pushstring(L, cli->argv[i]);
    lua_rawseti(L, -2, i - zero);
  }
  lua_setglobal(L, "arg");
}

int
rs_cli_run_init (lua_State *L, const rs_cli *cli)
{
  const char *name = "=LUA_INIT" LUA_VERSUFFIX;
  const char *init = getenv(name + 1);
  if (init == NULL) {
    name = "=LUA_INIT";
    init = getenv(name + 1);
  }
  if (init == NULL)
    return LUA_OK;
  if (init[0] == '@')
    return run_chunk(L, luaL_loadfile(L, init + 1), cli);
  return run_text(L, init, name, cli);
}

/* 'global = require(module)' for "global=module", or for "module". */
static int
require_library (lua_State *L, const char *text, const rs_cli *cli)
{
  const char *equals = strchr(text, '=');
  if (equals == NULL)
    lua_pushstring(L, text);
  else
    lua_pushlstring(L, text, (size_t) (equals - text));
  lua_getglobal(L, "require");
  lua_pushstring(L, equals != NULL ? equals + 1 : text);
  const int status = rs_cli_call(L, 1, 1);  /* global, module or error */
  if (status == LUA_OK)
    lua_setglobal(L, lua_tostring(L, -2));
  else
    rs_cli_report(L, status, cli->name);
  lua_pop(L, 1);
  return status;
}

int
rs_cli_run_options (lua_State *L, const rs_cli *cli)
{
  int status = LUA_OK;
  for (int i = 1; i < cli->script && status == LUA_OK; i++)
    switch (cli->argv[i][1]) {
      case 'e':
        status = run_text(L, option_argument(cli, &i), "=(command line)", cli);
        break;
      case 'l':
        status = require_library(L, option_argument(cli, &i), cli);
        break;
      case 'j':
        option_argument(cli, &i);  /* skip it */
        break;
      case '-':
        i++;  /* skip the argument of --isolation */
        break;
      case 'W':
        lua_warning(L, "@on", 0);
        rs_parallel_set_warnings(L, true);
        break;
    }
  return status;
}

/* [-0, +n, e]  Push the elements of the global 'arg' from 1 on. */
static int
push_arguments (lua_State *L)
{
  if (lua_getglobal(L, "arg") != LUA_TTABLE)
    luaL_error(L, "'arg' is not a table");
  const int arg = lua_gettop(L);
  const int n = (int) luaL_len(L, arg);
  rs_level_room(L, n + 3, "too many arguments to script");
  for (int i = 1; i <= n; i++)
    lua_rawgeti(L, arg, i);
  lua_remove(L, arg);
  return n;
}

int
rs_cli_run_script (lua_State *L, const rs_cli *cli)
{
  char **argv = cli->argv + cli->script;
  const char *name = argv[0];
  if (strcmp(name, "-") == 0 && strcmp(argv[-1], "--") != 0)
    name = NULL;  /* stdin, unless "--" says that it is a file */
  int status = luaL_loadfile(L, name);
  if (status == LUA_OK)
    status = rs_cli_call(L, push_arguments(L), LUA_MULTRET);
  rs_cli_report(L, status, cli->name);
  lua_settop(L, 0);
  return status;
}

int
rs_cli_run_stdin (lua_State *L, const rs_cli *cli)
{
  return run_chunk(L, luaL_loadfile(L, NULL), cli);
}

/* ----------------------------------------------------------------- its end */

static int
finish (lua_State *L)
{
  rs_parallel_finish(L);
  return 0;
}

static int
abandon (lua_State *L)
{
  rs_parallel_abandon(L);
  return 0;
}

int
rs_cli_await_jobs (lua_State *L, const rs_cli *cli)
{
  lua_pushcfunction(L, finish);
  return rs_cli_report(L, rs_cli_call(L, 0, 0), cli->name);
}

void
rs_cli_abandon_jobs (lua_State *L)
{
  lua_pushcfunction(L, abandon);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK)
    lua_pop(L, 1);
}

/* os.exit([status [, close]]); the upvalue is Lua's own. */
static int
os_exit (lua_State *L)
{
  rs_cli_abandon_jobs(L);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 0);
  return 0;
}

void
rs_cli_replace_exit (lua_State *L)
{
  if (lua_getglobal(L, LUA_OSLIBNAME) == LUA_TTABLE) {
    lua_getfield(L, -1, "exit");
    lua_pushcclosure(L, os_exit, 1);
    lua_setfield(L, -2, "exit");
  }
  lua_pop(L, 1);
}
