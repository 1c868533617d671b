/* SPDX-License-Identifier: MIT */
/*
 * popen.c - 'io.popen' and 'os.execute' that hold up nobody else.
 *
 * Lua's 'io.popen' flushes all streams of the process first, and holds the C
 * library's list of them while it waits for one that another thread reads:
 * then nobody can open a file any more.  'system' lets the process ignore
 * SIGINT while it runs.  Ours give the same values,
 * and these differences:
 *
 *   - Flushed are the streams that this state writes: its standard output,
 *     where that is the host's, and what 'io.output' is.  While the process
 *     has but one thread, all of them, as in lua5.4.
 *   - A program that a runspace starts has the standard files and no others,
 *     since those are of other jobs, and blocks no signals.
 *   - A job that is stopped does not wait for a program whose handle it
 *     closes; it does in 'os.execute'.
 *   - A file that is collected before it was closed is closed, but its program
 *     is not waited for there.
 *
 * A handle is Lua's own (luaL_Stream), with more behind it.  Threads that run
 * here are those of the states; 'reap' runs on one of its own, which nobody
 * waits for.
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
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
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

typedef struct program {
  luaL_Stream stream;  /* first: what Lua's library sees */
  rs_list link;        /* in 'writers' */
  pid_t pid;
} program;

/* Programs of runspaces that are written to. */
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

/* Write what it takes at once, and let the rest go nowhere. */
static void
cut_off (FILE *f, int null)
{
  set_blocking(fileno(f), false);
  if (ftrylockfile(f) == 0) {  /* or its job is writing */
    fflush(f);
    funlockfile(f);
  }
  if (null >= 0)
    dup2(null, fileno(f));
}

/* 'exit' flushes what the streams of jobs hold.  It shall not wait for
   programs that do not read, nor die of those that have ended. */
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

/* The streams of the parent's jobs are not the child's. */
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

/* Before its stream is closed. */
static void
unlist_writer (program *p)
{
  pthread_mutex_lock(&writers.lock);
  rs_list_remove(&p->link);
  pthread_mutex_unlock(&writers.lock);
}

/* ---------------------------------------------------------------- starting */

/* A pipe whose ends are above those of the standard files and close when a
   program is executed.  0, or an error number. */
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

/* Nothing but the standard files is left open; to close what is not open is no
   error there.  0, or an error number. */
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

/* Start the shell; 'fd' becomes its descriptor 'target', if there is one.
   'alone': it has no other descriptors, and blocks no signals.  0, or an error
   number. */
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

/* What is left of a program that nobody waits for. */
typedef struct remains {
  FILE *f;    /* or NULL */
  pid_t pid;
} remains;

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

/* Let a thread do that.  False when there is none. */
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

/* Nobody waits for it, but it leaves no zombie.  'f' may have something that
   it has not read; or NULL. */
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
    fclose(f);  /* which does not block */
}

/* [-0, +0, v]  Wait for its end.  What pclose(3) returns.  'stops': not when
   the job is to stop. */
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

/* The function of a handle that closes it, which is not closed any more. */
static int
close_program (lua_State *L)
{
  program *const p = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  unlist_writer(p);
  const int code = fclose(p->stream.f) == 0 ? 0 : errno;
  const int status = wait_for(L, p->pid, true);
  if (status == 0 && code != 0) {  /* it has not got all */
    errno = code;
    return luaL_execresult(L, -1);
  }
  return luaL_execresult(L, status);
}

/* __gc of all files; the upvalue is Lua's own. */
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
  set_blocking(fileno(f), false);
  if (fflush(f) != 0 && errno == EAGAIN)
    abandon(p->pid, f);
  else {
    fclose(f);
    abandon(p->pid, NULL);
  }
  return 0;
}

/* [-0, +0, m]  What this state has written is seen before what the program
   writes. */
static void
flush (lua_State *L, bool host)
{
  if (IS_ALONE) {
    fflush(NULL);
    return;
  }
  /* Who has the lock writes a line, and flushes it. */
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

/* Start it.  0, or an error number. */
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

/* io.popen; the upvalue tells whether this is the host. */
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
   library, if that field is there. */
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
