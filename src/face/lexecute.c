/* SPDX-License-Identifier: MIT */
/*
 * lexecute.c - 'parallel.task.execute': run a program that ends with its job.
 *
 * 'os.execute' and 'io.popen' cannot be stopped or timed, and take locks of
 * the whole process.  'execute' starts the program in a process group of its
 * own, which also ends with this process (lprogram.h).  The program's standard
 * files are pipes that no other program inherits.  The job that waits for the
 * program looks again and again whether it is to stop.
 *
 * The descriptors, the process and the bytes that were read are in a userdata,
 * the execution, since every call of Lua may raise.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* pipe2 */
#endif
#include "face/lexecute.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/level.h"
#include "face/levent.h"
#include "face/lface.h"
#include "face/lhandle.h"
#include "face/lprogram.h"

#define TYPE "parallel.execution"
#define LOOK 0.1           /* seconds from one look for a stop to the next,
                              unless a signal interrupts the wait */
#define TERM 0.05          /* seconds from SIGTERM to SIGKILL, at most */

enum { MOST_WORDS = 1 << 20 };  /* words of a command; systems take fewer */

extern char **environ;

/* A pipe that the program writes to, and the bytes that were read from it. */
typedef struct stream {
  int fd;                  /* -1: closed */
  char *data;              /* owned */
  size_t size, room;       /* bytes */
  size_t told;             /* bytes of lines that a listener was told of */
} stream;

typedef struct execution {
  rs_program program;
  int end;                 /* pidfd, readable when the program has ended; -1:
                              the system has none */
  int in;                  /* pipe to the program's standard input, or -1 */
  const char *text;        /* bytes for 'in'; anchored on the Lua stack */
  size_t size, written;    /* bytes of 'text' */
  stream out, err;         /* standard output, standard error */
  double deadline;         /* instant; INFINITY: none */
} execution;

/* ------------------------------------------------------------------ ending */

static void
close_fd (int *fd)
{
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

static void
release (execution *e)
{
  close_fd(&e->in);
  close_fd(&e->end);
  close_fd(&e->out.fd);
  close_fd(&e->err.fd);
  free(e->out.data);
  free(e->err.data);
  e->out = e->err = (stream) { .fd = -1 };
}

static void
nap (double seconds)
{
  const struct timespec t = { .tv_nsec = (long) (seconds * 1e9) };
  nanosleep(&t, NULL);
}

/* End the program's process group, by SIGTERM and then by SIGKILL, and reap
   the program. */
static void
kill_group (execution *e)
{
  const pid_t group = e->program.pid;
  if (group == 0)
    return;
  kill(-group, SIGTERM);
  const double until = rs_now() + TERM;
  while (!rs_program_ended(&e->program) && rs_now() < until)
    nap(1e-3);
  kill(-group, SIGKILL);   /* also children that outlived the program */
  rs_program_reap(&e->program);
}

/* __gc, __close */
static int
end_execution (lua_State *L)
{
  execution *const e = luaL_checkudata(L, 1, TYPE);
  kill_group(e);
  release(e);
  return 0;
}

/* [-0, +1, m] */
static execution *
new_execution (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__gc", end_execution }, { "__close", end_execution }, { NULL, NULL }
  };
  execution *const e = lua_newuserdatauv(L, sizeof *e, 0);
  *e = (execution) {
    .end = -1, .in = -1, .out.fd = -1, .err.fd = -1, .deadline = INFINITY
  };
  rs_push_type(L, TYPE, meta);
  lua_setmetatable(L, -2);
  return e;
}

/* ---------------------------------------------------------------- starting */

/* Stack slots of 'execute'. */
enum { OPTIONS = 1, EXECUTION, LISTENER };

/* [-0, +0, v]  Return the text at 'index', the option 'what'.  Raise if it has
   a zero byte, which would end it for C.  With 'more', which says so in the
   message, a number becomes a string there. */
static const char *
check_text (lua_State *L, int index, const char *what, const char *more)
{
  size_t size;
  if (lua_type(L, index) != LUA_TSTRING
      && !(more != NULL && lua_type(L, index) == LUA_TNUMBER))
    rs_handle_error(L, "bad option '%s' to 'execute' (a string%s expected, "
                       "got %s)", what, more != NULL ? more : "",
                    luaL_typename(L, index));
  const char *const text = lua_tolstring(L, index, &size);
  if (strlen(text) != size)
    rs_handle_error(L, "bad option '%s' to 'execute' (a string without zero "
                       "bytes expected, got %s)", what,
                    rs_handle_describe(L, index));
  return text;
}

/* [-0, +1, v]  Push and return an array of pointers to the words of the
   command at 'index': those of an array, or "/bin/sh", "-c" and a text.  The
   pushed userdata anchors the strings. */
static const char **
push_arguments (lua_State *L, int index)
{
  static const char *const shell[] = { "/bin/sh", "-c" };
  const bool words = lua_istable(L, index);
  const lua_Integer n = words ? luaL_len(L, index) : 3;
  if (n < 1)
    rs_handle_error(L, "bad option 'command' to 'execute' (the name of a "
                       "program expected, got an empty array)");
  if (n > MOST_WORDS)
    rs_handle_error(L, "bad option 'command' to 'execute' (at most %d words "
                       "expected, got %I)", MOST_WORDS, (LUAI_UACINT) n);
  rs_level_room(L, 4, NULL);
  const char **const list =
    lua_newuserdatauv(L, ((size_t) n + 1) * sizeof *list, 1);
  lua_newtable(L);  /* anchors the strings */
  for (lua_Integer i = 0; i < n; i++) {
    if (!words && i < 2)
      list[i] = shell[i];
    else {
      if (words)
        lua_rawgeti(L, index, i + 1);
      else
        lua_pushvalue(L, index);
      list[i] = check_text(L, -1, "command",
                           words ? " or a number" : NULL);
      lua_rawseti(L, -2, i + 1);
    }
  }
  lua_setiuservalue(L, -2, 1);
  list[n] = NULL;
  return list;
}

/* [-0, +0, v]  Raise unless the string at 'index' can name a variable: it is
   not empty, and has no '='. */
static void
check_name (lua_State *L, int index)
{
  const char *const name = check_text(L, index, "env", NULL);
  if (name[0] == '\0' || strchr(name, '=') != NULL)
    rs_handle_error(L, "bad option 'env' to 'execute' (the name of a variable "
                       "expected, got %s)", rs_handle_describe(L, index));
}

/* [-0, +1, e]  Push a table of strings, "name=value" for each variable in the
   table at 'index', and "name" for each one that is false there, and return
   their number. */
static size_t
push_variables (lua_State *L, int index)
{
  size_t n = 0;
  if (!lua_isnil(L, index) && !lua_istable(L, index))
    rs_handle_error(L, "bad option 'env' to 'execute' (a table of variables "
                       "expected, got %s)", luaL_typename(L, index));
  lua_newtable(L);
  if (lua_isnil(L, index))
    return 0;
  const int strings = lua_gettop(L);
  lua_pushnil(L);
  while (lua_next(L, index)) {
    check_name(L, -2);
    if (lua_isboolean(L, -1) && !lua_toboolean(L, -1))
      lua_pushvalue(L, -2);
    else {
      check_text(L, -1, "env", ", a number or false");
      lua_pushfstring(L, "%s=%s", lua_tostring(L, -2), lua_tostring(L, -1));
    }
    lua_rawseti(L, strings, (lua_Integer) ++n);
    lua_pop(L, 1);
  }
  return n;
}

/* Is the variable 'entry', "name=value", the one that 'given' names, alone or
   with a value? */
static bool
is_same_name (const char *entry, const char *given)
{
  const size_t length = strcspn(given, "=");
  return strncmp(entry, given, length) == 0
      && (entry[length] == '=' || entry[length] == '\0');
}

/* [-0, +1, e]  Push and return an array of pointers to "name=value" strings:
   the variables in the table at 'index', if it is not nil, and those of this
   process that the table does not name. */
static const char **
push_environment (lua_State *L, int index)
{
  size_t n = 0;
  while (environ[n] != NULL)
    n++;
  const size_t more = push_variables(L, index);
  const int strings = lua_gettop(L);
  const char **const list =
    lua_newuserdatauv(L, (n + more + 1) * sizeof *list, 1);
  for (size_t k = 0; k < more; k++) {
    lua_rawgeti(L, strings, (lua_Integer) k + 1);
    list[k] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  size_t used = more;
  for (size_t i = 0; i < n; i++) {
    bool named = false;
    for (size_t k = 0; k < more && !named; k++)
      named = is_same_name(environ[i], list[k]);
    if (!named)
      list[used++] = environ[i];
  }
  size_t kept = 0;  /* names alone go */
  for (size_t k = 0; k < used; k++) {
    if (k >= more || strchr(list[k], '=') != NULL)
      list[kept++] = list[k];
  }
  list[kept] = NULL;
  lua_insert(L, strings);
  lua_setiuservalue(L, strings, 1);
  return list;
}

/* Move the descriptor '*fd' above the standard files.  Return 0, or an error
   number. */
static int
lift (int *fd)
{
  if (*fd > STDERR_FILENO)
    return 0;
  const int higher = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  const int code = errno;
  close(*fd);
  *fd = higher;
  return higher < 0 ? code : 0;
}

/* Make a pipe whose ends are above the standard files, and are closed when a
   program is executed.  The end fds[ours] does not block.  Return 0, or an
   error number. */
static int
make_pipe (int fds[2], int ours)
{
  if (pipe2(fds, O_CLOEXEC) != 0) {
    fds[0] = fds[1] = -1;
    return errno;
  }
  for (int i = 0; i < 2; i++) {
    const int code = lift(&fds[i]);
    if (code != 0)
      return code;
  }
  fcntl(fds[ours], F_SETFL, O_NONBLOCK);
  return 0;
}

/* Open a file that has nothing to read.  Return 0, or an error number. */
static int
open_nothing (int *fd)
{
  *fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  return *fd < 0 ? errno : lift(fd);
}

/*
 * Start a program, and try again while its file is open for writing (ETXTBSY,
 * execve(2)), for a quarter of a second in all.  A file that a job has just
 * written and closed can be open for a moment more: a child that another
 * thread starts holds a copy of the descriptor until the child has become its
 * own program.
 */
static int
run (rs_program *p, const int files[3], const char *const *argv,
     const char *const *env, const char *directory)
{
  for (long ms = 1; ; ms *= 2) {
    const int code = rs_program_start(p, files, argv, env, directory);
    if (code != ETXTBSY || ms > 128)
      return code;
    const struct timespec pause = { .tv_nsec = ms * 1000000 };
    nanosleep(&pause, NULL);
  }
}

/* Make the pipes of 'e', and start the program.  Return 0, or an error number;
   in both cases 'release' closes the ends that 'e' has got. */
static int
start (execution *e, const char *const *argv, const char *const *env,
       const char *directory)
{
  int pipes[3][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
  int code = e->text != NULL ? make_pipe(pipes[0], 1)
                             : open_nothing(&pipes[0][0]);
  for (int i = 1; i <= 2 && code == 0; i++)
    code = make_pipe(pipes[i], 0);
  e->in = pipes[0][1];
  e->out.fd = pipes[1][0];
  e->err.fd = pipes[2][0];
  const int ends[3] = { pipes[0][0], pipes[1][1], pipes[2][1] };
  if (code == 0)
    code = run(&e->program, ends, argv, env, directory);
  for (int i = 0; i < 3; i++) {
    if (ends[i] >= 0)
      close(ends[i]);
  }
#ifdef SYS_pidfd_open
  if (code == 0)
    e->end = (int) syscall(SYS_pidfd_open, e->program.pid, 0);
#endif
  return code;
}

/* ----------------------------------------------------------------- talking */

/* Read what is in the pipe; close it at its end.  Return false when there is
   no memory. */
static bool
read_some (stream *s)
{
  if (s->room - s->size < 65536) {
    const size_t room = s->room + s->room / 2 + 131072;
    char *const data = realloc(s->data, room);
    if (data == NULL)
      return false;
    s->data = data;
    s->room = room;
  }
  const ssize_t n = read(s->fd, s->data + s->size, s->room - s->size);
  if (n > 0)
    s->size += (size_t) n;
  else if (n == 0 || (errno != EAGAIN && errno != EINTR))
    close_fd(&s->fd);
  return true;
}

/* Write as much to the program as its pipe takes; close the pipe when all is
   written.  A program that has closed its end is no error.  SIGPIPE is blocked
   and taken back, since it would end a process that does not ignore it. */
static void
write_some (execution *e)
{
  static const struct timespec now;
  sigset_t pipe, old, waiting;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  sigpending(&waiting);
  pthread_sigmask(SIG_BLOCK, &pipe, &old);
  const ssize_t n = write(e->in, e->text + e->written, e->size - e->written);
  const int code = errno;
  if (n < 0 && code == EPIPE && !sigismember(&waiting, SIGPIPE))
    sigtimedwait(&pipe, NULL, &now);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (n > 0)
    e->written += (size_t) n;
  if (e->written == e->size
      || (n < 0 && code != EAGAIN && code != EINTR))
    close_fd(&e->in);
}

/* [-0, +0, e]  Call the listener, if there is one, with each line that has
   come since the last time, without its end; at the end of the output also
   with one that has none. */
static void
tell_lines (lua_State *L, stream *s)
{
  if (lua_isnil(L, LISTENER))
    return;
  while (s->told < s->size) {
    const char *const line = s->data + s->told;
    const char *const end = memchr(line, '\n', s->size - s->told);
    if (end == NULL && s->fd >= 0)
      return;
    const size_t length = end != NULL ? (size_t) (end - line)
                                      : s->size - s->told;
    s->told += length + (end != NULL);
    lua_pushvalue(L, LISTENER);
    lua_pushlstring(L, line, length);
    lua_call(L, 1, 0);
  }
}

/* [-0, +0, e]  Raise if the job is to stop, or by a pending hook. */
static void
look (lua_State *L)
{
  rs_task_checkpoint(L);
  rs_lua_run_hook(L);
}

/*
 * [-0, +0, e]  Wait until a pipe can be read or written, or the program has
 * ended, or it is time to look for a stop; then read and write.  Return false
 * when the deadline has passed.
 */
static bool
talk (lua_State *L, execution *e)
{
  struct pollfd fds[4] = {
    { .fd = e->in, .events = POLLOUT },
    { .fd = e->out.fd, .events = POLLIN },
    { .fd = e->err.fd, .events = POLLIN },
    { .fd = e->out.fd < 0 && e->err.fd < 0 ? e->end : -1, .events = POLLIN },
  };
  const bool blind = e->out.fd < 0 && e->err.fd < 0 && e->end < 0;
  const double left = e->deadline - rs_now();
  const double patience = blind ? 2e-3 : LOOK;
  if (left <= 0)
    return false;
  poll(fds, 4, (int) ceil((left < patience ? left : patience) * 1e3));
  look(L);
  if (fds[0].revents != 0)
    write_some(e);
  if ((fds[1].revents != 0 && !read_some(&e->out))
      || (fds[2].revents != 0 && !read_some(&e->err)))
    luaL_error(L, "%s", rs_status_message(RS_ENOMEM));
  if (fds[1].revents != 0)
    tell_lines(L, &e->out);
  return true;
}

/* [-0, +0, e]  Wait until the program has ended and all that it wrote was
   read; reap it.  Return false when the deadline has passed. */
static bool
finish (lua_State *L, execution *e)
{
  bool ended = false, in_time = true;
  while (in_time && !(ended && e->out.fd < 0 && e->err.fd < 0)) {
    in_time = talk(L, e);
    if (in_time && !ended && e->out.fd < 0 && e->err.fd < 0)
      ended = rs_program_ended(&e->program);
  }
  if (in_time)
    rs_program_reap(&e->program);
  return in_time;
}

/* ------------------------------------------------------------------ public */

/* [-0, +0, v]  Raise for a field of the options that is not known. */
static void
check_fields (lua_State *L)
{
  static const char *const known[] = {
    "command", "stdin", "timeout", "cwd", "env", "on_output"
  };
  lua_pushnil(L);
  while (lua_next(L, OPTIONS)) {
    bool found = lua_isinteger(L, -2) && lua_tointeger(L, -2) == 1;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
      found |= lua_type(L, -2) == LUA_TSTRING
            && strcmp(lua_tostring(L, -2), known[i]) == 0;
    lua_pop(L, 1);
    if (!found && lua_isinteger(L, -1))
      rs_handle_error(L, "bad options to 'execute' (named options expected, "
                         "got the key %s; the words of a command are one "
                         "array: parallel.task.execute{{\"ls\", \"-l\"}})",
                      rs_handle_describe(L, lua_gettop(L)));
    if (!found)
      rs_handle_error(L, "unknown option %s to 'execute' (known are "
                         "command, stdin, timeout, cwd, env and on_output)",
                      rs_handle_describe(L, lua_gettop(L)));
  }
}

/* [-0, +0, v]  Set the deadline from the option 'timeout'. */
static void
read_timeout (lua_State *L, execution *e)
{
  if (lua_getfield(L, OPTIONS, "timeout") != LUA_TNIL) {
    const double timeout = lua_type(L, -1) == LUA_TNUMBER
                         ? lua_tonumber(L, -1) : -1;
    if (!(timeout > 0))
      rs_handle_error(L, "bad option 'timeout' to 'execute' (a positive "
                         "number of seconds expected, got %s)",
                      rs_handle_describe(L, lua_gettop(L)));
    e->deadline = rs_now() + timeout;
  }
  lua_pop(L, 1);
}

int
rs_lua_execute (lua_State *L)
{
  if (lua_type(L, 1) == LUA_TSTRING && lua_istable(L, 2))
    return rs_handle_error(L, "bad argument 2 to 'execute' (none expected, "
                              "got a table; command and options are one "
                              "table: parallel.task.execute{%s, ...})",
                           rs_handle_describe(L, 1));
  rs_handle_most(L, 1, 0, "parallel.task.execute{{\"ls\", \"-l\"}, cwd = "
                          "...}, with a text for the shell or an array of "
                          "words");
  if (lua_type(L, 1) == LUA_TSTRING) {  /* no table, but a command alone? */
    lua_createtable(L, 1, 0);
    lua_insert(L, 1);
    lua_settop(L, 2);
    lua_rawseti(L, 1, 1);
  }
  if (!lua_istable(L, OPTIONS))
    return rs_handle_error(L, "bad argument 'options' to 'execute' (a text "
                              "for the shell or a table expected, got %s)",
                           luaL_typename(L, OPTIONS));
  lua_settop(L, OPTIONS);
  check_fields(L);
  if (rs_sandbox_forbids(L, RS_FORBID_PROGRAMS))
    return luaL_error(L, "task.execute: the sandbox of this runspace forbids "
                         "programs: give the initial state "
                         "sandbox = {programs = true}");
  execution *const e = new_execution(L);
  lua_toclose(L, EXECUTION);
  if (lua_getfield(L, OPTIONS, "on_output") != LUA_TNIL
      && lua_type(L, LISTENER) != LUA_TFUNCTION)
    return rs_handle_error(L, "bad option 'on_output' to 'execute' (a "
                              "function expected, got %s)",
                           rs_handle_describe(L, LISTENER));
  read_timeout(L, e);
  if (lua_getfield(L, OPTIONS, "stdin") != LUA_TNIL) {
    if (lua_type(L, -1) != LUA_TSTRING)
      return rs_handle_error(L, "bad option 'stdin' to 'execute' (a string "
                                "expected, got %s)", luaL_typename(L, -1));
    e->text = lua_tolstring(L, -1, &e->size);
  }
  lua_getfield(L, OPTIONS, "cwd");
  const char *const directory = lua_isnil(L, -1) ? NULL
                              : check_text(L, -1, "cwd", NULL);
  lua_rawgeti(L, OPTIONS, 1);
  if (lua_getfield(L, OPTIONS, "command") == LUA_TNIL)
    lua_pop(L, 1);
  else if (!lua_isnil(L, -2))
    return rs_handle_error(L, "bad option 'command' to 'execute' (the command "
                              "is given twice, by name and as value 1)");
  const char *const *const argv = push_arguments(L, lua_gettop(L));
  lua_getfield(L, OPTIONS, "env");
  const char *const *const env = push_environment(L, lua_gettop(L));
  look(L);
  const int code = start(e, argv, env, directory);
  if (code != 0) {
    const char *const program = rs_handle_escape(L, argv[0]);
    if (directory != NULL && access(directory, X_OK) != 0)
      lua_pushfstring(L, "cannot run '%s' in '%s': %s", program,
                      rs_handle_escape(L, directory), strerror(code));
    else
      lua_pushfstring(L, "cannot run '%s': %s", program, strerror(code));
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  const bool in_time = finish(L, e);
  const int status = e->program.status;
  if (!in_time)
    kill_group(e);
  if (!in_time) {
    lua_pushnil(L);
    lua_pushliteral(L, "timeout");
  }
  else
    lua_pushinteger(L, WIFSIGNALED(status) ? 128 + WTERMSIG(status)
                                           : WEXITSTATUS(status));
  lua_pushlstring(L, e->out.data != NULL ? e->out.data : "", e->out.size);
  lua_pushlstring(L, e->err.data != NULL ? e->err.data : "", e->err.size);
  return in_time ? 3 : 4;
}
