/* SPDX-License-Identifier: MIT */
/*
 * popen.c - 'io.popen' and 'os.execute' that hold up no other thread.
 *
 * Lua's 'io.popen' first flushes all streams of the process.  While it waits
 * for a stream that another thread reads, it holds the C library's list of
 * streams, so no thread can open a file.  'system', which 'os.execute' calls,
 * lets the process ignore SIGINT while the program runs.  The functions here
 * return the same values as Lua's, with these differences:
 *
 *   - 'io.popen' flushes only the streams that the state writes: standard
 *     output, in a host, and the file of 'io.output'.  While the process has
 *     but one thread it flushes all streams, as lua5.4 does.
 *   - A program that a runspace starts has the standard files only, since
 *     other files may belong to other jobs, and blocks no signals.
 *   - A job that is stopped does not wait for the program whose handle it
 *     closes.  In 'os.execute' it waits.
 *   - A handle that is collected before it was closed is closed, without
 *     waiting for its program.
 *
 * A handle begins with Lua's luaL_Stream.  The code here runs on the threads
 * that run the states, except 'reap', which runs on a detached thread for each
 * program that is abandoned.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* pipe2, posix_spawn_file_actions_addclosefrom_np */
#endif
#include "state/popen.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_include)
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define IS_ALONE __libc_single_threaded
#endif
#endif
#ifndef IS_ALONE
#define IS_ALONE false
#endif

#include <lauxlib.h>
#include <lualib.h>

#include "base/fork.h"
#include "state/cancel.h"
#include "base/inherit.h"
#include "base/list.h"

#define SHELL "/bin/sh"

enum { STACK_SIZE = 256 << 10 };

extern char **environ;

/* A handle of 'io.popen'. */
typedef struct program {
  luaL_Stream stream;  /* first: Lua's library sees this part only */
  rs_list link;        /* in 'writers', or in no list */
  pid_t pid;
} program;

/* The programs that runspaces write to. */
static struct {
  pthread_mutex_t lock;  /* guards the next one */
  rs_list list;
} writers = { PTHREAD_MUTEX_INITIALIZER, { &writers.list, &writers.list } };

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* --------------------------------------------------------------- at an end */

static void
set_blocking (int fd, bool blocking)
{
  const int flags = fcntl(fd, F_GETFL);
  if (flags >= 0)
    fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

/* Write as much of the stream's buffer as its program takes without waiting.
   Let all later output of the stream go to 'null', a descriptor of /dev/null,
   or -1. */
static void
cut_off (FILE *f, int null)
{
  set_blocking(fileno(f), false);
  if (ftrylockfile(f) == 0) {  /* no job is writing? */
    fflush(f);
    funlockfile(f);
  }
  if (null >= 0)
    dup2(null, fileno(f));
}

/* Cut off all writers before 'exit' flushes the streams: 'exit' must not wait
   for programs that do not read, nor be ended by SIGPIPE from programs that
   have ended. */
static void
cut_off_writers (void)
{
  sigset_t pipe, old;
  const struct timespec now = { 0 };
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &old);
  pthread_mutex_lock(&writers.lock);
  const int null = rs_list_empty(&writers.list) ? -1
                 : open("/dev/null", O_WRONLY | O_CLOEXEC);
  for (rs_list *link = writers.list.next; link != &writers.list;
       link = link->next)
    cut_off(RS_LIST_ENTRY(link, program, link)->stream.f, null);
  pthread_mutex_unlock(&writers.lock);
  if (null >= 0 && !sigismember(&old, SIGPIPE))
    sigtimedwait(&pipe, NULL, &now);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Forget the writers in a child of fork(2): the programs are of jobs of the
   parent. */
static void
begin_child (void)
{
  pthread_mutex_init(&writers.lock, NULL);
  rs_list_init(&writers.list);
}

RS_IN_CHILD(begin_child)

static void
prepare (void)
{
  atexit(cut_off_writers);
}

static void
list_writer (program *p)
{
  pthread_once(&once, prepare);
  pthread_mutex_lock(&writers.lock);
  rs_list_push(&writers.list, &p->link);
  pthread_mutex_unlock(&writers.lock);
}

/* Take the program out of 'writers'; to be called before its stream is
   closed. */
static void
unlist_writer (program *p)
{
  pthread_mutex_lock(&writers.lock);
  rs_list_remove(&p->link);
  pthread_mutex_unlock(&writers.lock);
}

/* ---------------------------------------------------------------- starting */

/* Make a pipe.  The numbers of its ends are above those of the standard files,
   and both close when a program is executed.  0, or an error number. */
static int
make_pipe (int fds[2])
{
  if (pipe2(fds, O_CLOEXEC) != 0)
    return errno;
  for (int i = 0; i < 2; i++) {
    if (fds[i] > STDERR_FILENO)
      continue;
    const int higher = fcntl(fds[i], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    const int code = errno;
    close(fds[i]);
    fds[i] = higher;
    if (higher < 0) {
      close(fds[1 - i]);
      return code;
    }
  }
  return 0;
}

/* Let the new program have only the standard files open.  To close a
   descriptor that is not open is no error there.  0, or an error number. */
static int
close_others (posix_spawn_file_actions_t *files)
{
  int code = 0;
#ifdef HAVE_POSIX_SPAWN_FILE_ACTIONS_ADDCLOSEFROM_NP
  code = posix_spawn_file_actions_addclosefrom_np(files, STDERR_FILENO + 1);
#else
  const int end = rs_inherit_end();
  for (int fd = STDERR_FILENO + 1; code == 0 && fd < end; fd++)
    code = posix_spawn_file_actions_addclose(files, fd);
#endif
  return code;
}

/* Start the shell for 'command'.  'fd' becomes its descriptor 'target'; -1:
   none does.  'alone': the shell has the standard files only, and blocks no
   signals.  0, or an error number. */
static int
spawn (pid_t *pid, const char *command, int fd, int target, bool alone)
{
  const char *const argv[] = { "sh", "-c", command, NULL };
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t none;
  int code = posix_spawn_file_actions_init(&files);
  if (code != 0)
    return code;
  posix_spawnattr_init(&attributes);
  sigemptyset(&none);
  if (alone) {
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &none);
  }
  if (fd >= 0)
    code = posix_spawn_file_actions_adddup2(&files, fd, target);
  if (code == 0 && alone)
    code = close_others(&files);
  if (code == 0)
    code = posix_spawn(pid, SHELL, &files, &attributes,
                       (char *const *) (uintptr_t) argv, environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  return code;
}

/* ------------------------------------------------------------------ ending */

/* An abandoned program, which no state waits for; owned by 'reap'. */
typedef struct remains {
  FILE *f;    /* with output that the program has not read; or NULL */
  pid_t pid;
} remains;

/* The thread of an abandoned program: write the rest of its input, and wait
   for its end. */
static void *
reap (void *arg)
{
  remains *const r = arg;
  int status;
  if (r->f != NULL) {
    set_blocking(fileno(r->f), true);
    fclose(r->f);
  }
  while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
    ;
  free(r);
  return NULL;
}

/* Start a thread that runs 'reap', with all signals blocked.  False when the
   system gives none. */
static bool
start_reaper (remains *r)
{
  pthread_t thread;
  pthread_attr_t attr;
  sigset_t all, old;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, STACK_SIZE);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  const bool started = pthread_create(&thread, &attr, reap, r) == 0;
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
  return started;
}

/* Do not wait for the program, but let it leave no zombie.  'f' is a stream
   with output that the program has not read, or NULL; it is closed. */
static void
abandon (pid_t pid, FILE *f)
{
  int status;
  if (f == NULL && waitpid(pid, &status, WNOHANG) != 0)
    return;
  remains *const r = malloc(sizeof *r);
  if (r != NULL)
    *r = (remains) { f, pid };
  if (r != NULL && start_reaper(r))
    return;
  free(r);
  if (f != NULL)
    fclose(f);  /* does not wait: the descriptor does not block */
}

/* [-0, +0, v]  Wait until the program ends; returns what pclose(3) does.  With
   'stops' abandon the program, and raise, when the job is to stop. */
static int
wait_for (lua_State *L, pid_t pid, bool stops)
{
  rs_cancel *const c = rs_cancel_mine();
  int status = -1;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR)
      return -1;
    if (stops && rs_cancel_pending(c)) {
      abandon(pid, NULL);
      rs_cancel_check(c, L);
    }
  }
  errno = 0;
  return status;
}

/* ---------------------------------------------------------------- io.popen */

/* luaL_Stream.closef: close the handle, which Lua has marked as closed. */
static int
close_program (lua_State *L)
{
  program *const p = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  unlist_writer(p);
  const int code = fclose(p->stream.f) == 0 ? 0 : errno;
  const int status = wait_for(L, p->pid, true);
  if (status == 0 && code != 0) {  /* some output was not written */
    errno = code;
    return luaL_execresult(L, -1);
  }
  return luaL_execresult(L, status);
}

/* True when the stream can be closed without waiting for its program.  The
   output must not be tried: of what a full pipe does not take, the C library
   drops the rest.  A pipe that can be written takes PIPE_BUF bytes. */
static bool
closes_at_once (FILE *f)
{
  struct pollfd fd = { .fd = fileno(f), .events = POLLOUT };
  const size_t pending = __fpending(f);
  return pending == 0 || (pending <= PIPE_BUF && poll(&fd, 1, 0) > 0);
}

/* __gc of all files; the upvalue is the original. */
static int
collect (lua_State *L)
{
  program *const p = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  const lua_CFunction original = lua_tocfunction(L, lua_upvalueindex(1));
  if (p->stream.closef != close_program)
    return original != NULL ? original(L) : 0;
  FILE *const f = p->stream.f;
  p->stream.closef = NULL;
  if (f == NULL)
    return 0;
  unlist_writer(p);
  const bool waits = !closes_at_once(f);
  set_blocking(fileno(f), false);
  if (waits)
    abandon(p->pid, f);
  else {
    fclose(f);
    abandon(p->pid, NULL);
  }
  return 0;
}

/* [-0, +0, m]  Flush the output of this state, so that it stands before the
   output of the program. */
static void
flush (lua_State *L, bool host)
{
  if (IS_ALONE) {
    fflush(NULL);
    return;
  }
  /* Another thread that has the lock writes a line, and flushes then. */
  if (host && ftrylockfile(stdout) == 0) {
    fflush(stdout);
    funlockfile(stdout);
  }
  lua_getfield(L, LUA_REGISTRYINDEX, "_IO_output");  /* liolib.c */
  const luaL_Stream *const out = luaL_testudata(L, -1, LUA_FILEHANDLE);
  if (out != NULL && out->closef != NULL && out->f != stdout)
    fflush(out->f);
  lua_pop(L, 1);
}

/* Start the program, and fill in 'p'.  'reads': the state reads the output of
   the program; else the state writes its input.  0, or an error number. */
static int
start (program *p, const char *command, bool reads, bool alone)
{
  int fds[2];
  int code = make_pipe(fds);
  if (code != 0)
    return code;
  const int ours = fds[!reads], its = fds[reads];
  FILE *const f = fdopen(ours, reads ? "r" : "w");
  if (f == NULL)
    code = errno;
  else
    code = spawn(&p->pid, command, its, reads ? STDOUT_FILENO : STDIN_FILENO,
                 alone);
  close(its);
  if (code == 0)
    p->stream.f = f;
  else if (f != NULL)
    fclose(f);
  else
    close(ours);
  return code;
}

/* io.popen; the upvalue tells whether the state is a host's. */
static int
popen_program (lua_State *L)
{
  const char *const command = luaL_checkstring(L, 1);
  const char *const mode = luaL_optstring(L, 2, "r");
  const bool host = lua_toboolean(L, lua_upvalueindex(1));
  program *const p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = (program) { .stream = { NULL, NULL } };
  rs_list_init(&p->link);
  luaL_setmetatable(L, LUA_FILEHANDLE);
  luaL_argcheck(L, strcmp(mode, "r") == 0 || strcmp(mode, "w") == 0, 2,
                "invalid mode");
  flush(L, host);
  const int code = start(p, command, mode[0] == 'r', !host);
  if (code != 0) {
    errno = code;
    return luaL_fileresult(L, 0, command);
  }
  p->stream.closef = close_program;
  if (!host && mode[0] == 'w')
    list_writer(p);
  return 1;
}

/* -------------------------------------------------------------- os.execute */

static int
execute (lua_State *L)
{
  const char *const command = luaL_optstring(L, 1, NULL);
  if (command == NULL) {
    lua_pushboolean(L, access(SHELL, X_OK) == 0);
    return 1;
  }
  pid_t pid;
  const int code = spawn(&pid, command, -1, -1, true);
  if (code != 0) {
    errno = code;
    return luaL_execresult(L, -1);
  }
  return luaL_execresult(L, wait_for(L, pid, false));
}

/* ------------------------------------------------------------------ public */

/* [-1, +0, m]  Put the value on top into the field 'name' of the loaded
   library, if the library has that field. */
static void
replace (lua_State *L, const char *library, const char *name)
{
  const int top = lua_gettop(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, library) == LUA_TTABLE
      && lua_getfield(L, -1, name) != LUA_TNIL) {
    lua_pushvalue(L, top);
    lua_setfield(L, -3, name);
  }
  lua_settop(L, top - 1);
}

static void
replace_popen (lua_State *L, bool host)
{
  lua_pushboolean(L, host);
  lua_pushcclosure(L, popen_program, 1);
  replace(L, LUA_IOLIBNAME, "popen");
}

void
rs_popen_open (lua_State *L)
{
  const int top = lua_gettop(L);
  replace_popen(L, false);
  lua_pushcfunction(L, execute);
  replace(L, LUA_OSLIBNAME, "execute");
  if (luaL_getmetatable(L, LUA_FILEHANDLE) == LUA_TTABLE) {
    lua_getfield(L, -1, "__gc");
    lua_pushcclosure(L, collect, 1);
    lua_setfield(L, -2, "__gc");
  }
  lua_settop(L, top);
}

void
rs_popen_open_host (lua_State *L)
{
  replace_popen(L, true);
}
