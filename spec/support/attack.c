/* SPDX-License-Identifier: MIT */
/*
 * attack.c - a C module that calls the system as it likes, for specs of what
 * keeps such a module in.
 *
 * attack.call(name, ...) -> result, or -1 and the name of the error.  Numbers
 * and strings are handed on as they are; nil is NULL.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <lauxlib.h>

int luaopen_attack (lua_State *L);

static const struct { const char *name; long number; } calls[] = {
  { "add_key", SYS_add_key }, { "bpf", SYS_bpf }, { "chroot", SYS_chroot },
  { "clone", SYS_clone }, { "clone3", 435 }, { "execve", SYS_execve },
  { "fchmodat", SYS_fchmodat }, { "io_uring_setup", SYS_io_uring_setup },
  { "keyctl", SYS_keyctl }, { "kill", SYS_kill },
  { "mount", SYS_mount }, { "openat", SYS_openat }, { "openat2", 437 },
  { "perf_event_open", SYS_perf_event_open }, { "ptrace", SYS_ptrace },
  { "process_vm_readv", SYS_process_vm_readv }, { "setns", SYS_setns },
  { "setuid", SYS_setuid }, { "socket", SYS_socket },
  { "symlinkat", SYS_symlinkat }, { "unshare", SYS_unshare },
  { "userfaultfd", SYS_userfaultfd },
};

static long
argument (lua_State *L, int index)
{
  switch (lua_type(L, index)) {
    case LUA_TNUMBER: return (long) lua_tointeger(L, index);
    case LUA_TSTRING: return (long) (intptr_t) lua_tostring(L, index);
    default: return 0;
  }
}

static int
call (lua_State *L)
{
  const char *const name = luaL_checkstring(L, 1);
  lua_settop(L, 7);
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
    if (strcmp(calls[i].name, name) == 0) {
      const long result = syscall(calls[i].number, argument(L, 2),
                                  argument(L, 3), argument(L, 4),
                                  argument(L, 5), argument(L, 6),
                                  argument(L, 7));
      const int code = errno;
      lua_pushinteger(L, result);
      lua_pushstring(L, result == -1 ? strerrorname_np(code) : "");
      return 2;
    }
  return luaL_error(L, "no call '%s'", name);
}

/* list(directory) -> names in it, and what links lead to */
static int
list (lua_State *L)
{
  const char *const path = luaL_checkstring(L, 1);
  char name[4096], target[4096];
  DIR *const d = opendir(path);
  const struct dirent *e;
  lua_Integer n = 0;
  lua_newtable(L);
  while (d != NULL && (e = readdir(d)) != NULL) {
    if (e->d_name[0] == '.')
      continue;
    snprintf(name, sizeof name, "%s/%s", path, e->d_name);
    const ssize_t size = readlink(name, target, sizeof target);
    if (size < 0)
      lua_pushstring(L, e->d_name);
    else
      lua_pushlstring(L, target, (size_t) size);
    lua_rawseti(L, -2, ++n);
  }
  if (d != NULL)
    closedir(d);
  return 1;
}

/* take(bytes) -> whether there is so much memory; it is written to */
static int
take (lua_State *L)
{
  const size_t n = (size_t) luaL_checkinteger(L, 1);
  char *const block = malloc(n);
  lua_pushboolean(L, block != NULL);
  if (block != NULL) {
    memset(block, 1, n);
    lua_pushboolean(L, block[n / 2] == 1);
  }
  free(block);
  return 1;
}

/* dig_in(path): ignore all signals, make a file that tells so, and never
   return */
static int
dig_in (lua_State *L)
{
  for (int i = 1; i < 65; i++)
    signal(i, SIG_IGN);
  close(open(luaL_checkstring(L, 1), O_WRONLY | O_CREAT, 0600));
  for (;;)
    usleep(1000);
}

static int
crash (lua_State *L)
{
  (void) L;
  signal(SIGSEGV, SIG_DFL);
  raise(SIGSEGV);
  return 0;
}

int
luaopen_attack (lua_State *L)
{
  static const luaL_Reg functions[] = {
    { "call", call }, { "list", list }, { "take", take },
    { "dig_in", dig_in }, { "crash", crash }, { NULL, NULL }
  };
  luaL_newlib(L, functions);
  return 1;
}
