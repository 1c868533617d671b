/* SPDX-License-Identifier: MIT */
/*
 * stack.c - how much of the C stack is left.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* pthread_getattr_np */
#endif
#include "base/stack.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <lauxlib.h>

/* Bytes that 200 nested calls of the costliest function of Lua's libraries
   take. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RESERVE ((size_t) 1500 << 10)
#else
#define RESERVE ((size_t) 600 << 10)
#endif

/* Lowest address of the thread's stack; 0: not asked for yet; 1: not known. */
static _Thread_local uintptr_t lowest;

/* Bytes that are to be left: RESERVE, or a part of a stack that has little
   more, or less.  Code that nests deeply can then use up such a stack, but
   most code does not nest. */
static _Thread_local size_t reserve = RESERVE;

/* The lowest address to which the stack can grow; '*size' is what it has then.
   For the first thread, whose stack grows, the system may tell just the pages
   used so far (musl); then the limit of the stack counts. */
static uintptr_t
grow_down (uintptr_t address, size_t *size)
{
#ifndef __GLIBC__
  struct rlimit limit;
  const bool first = syscall(SYS_gettid) == getpid();
  if (first && getrlimit(RLIMIT_STACK, &limit) == 0
      && limit.rlim_cur > *size) {
    const uintptr_t end = address + *size;
    *size = (size_t) limit.rlim_cur;
    return end > limit.rlim_cur ? (uintptr_t) (end - limit.rlim_cur) : 1;
  }
#endif
  (void) size;
  return address;
}

static uintptr_t
find_lowest (void)
{
  pthread_attr_t attr;
  void *address = NULL;
  size_t size = 0;
  if (pthread_getattr_np(pthread_self(), &attr) != 0)
    return 1;
  pthread_attr_getstack(&attr, &address, &size);
  pthread_attr_destroy(&attr);
  if (address == NULL)
    return 1;
  const uintptr_t found = grow_down((uintptr_t) address, &size);
  if (size / 8 * 5 < RESERVE)
    reserve = size / 8 * 5;
  return found;
}

bool
rs_stack_low (void)
{
  const uintptr_t here = (uintptr_t) __builtin_frame_address(0);
  if (lowest == 0)
    lowest = find_lowest();
  return here - lowest < reserve;
}

void
rs_stack_check (lua_State *L)
{
  if (rs_stack_low())
    luaL_error(L, "C stack overflow");
}

void
rs_stack_set (void *address)
{
  lowest = (uintptr_t) address;
  reserve = RESERVE;
}
