/* SPDX-License-Identifier: MIT */
/*
 * tsan_longjmp.c - let ThreadSanitizer see how Lua's errors jump.
 *
 * The system's liblua raises errors by '_longjmp' or, when it was built with
 * fortification, by '__longjmp_chk'.  ThreadSanitizer intercepts 'longjmp'
 * only, so that the frames an error leaves stay on its shadow stack, which
 * is full after about ten thousand errors.  A program that links this file
 * answers to both names itself, for the libraries it loads too, and goes
 * through 'longjmp'.  Neither function has a frame on the shadow stack.
 */

/* Fortified, 'longjmp' below would be '__longjmp_chk', and call itself. */
#undef _FORTIFY_SOURCE
#include <setjmp.h>

#define UNSEEN __attribute__ ((noreturn, no_sanitize_thread, \
                               visibility ("default")))

UNSEEN void _longjmp (jmp_buf env, int value);
UNSEEN void __longjmp_chk (jmp_buf env, int value);

void
_longjmp (jmp_buf env, int value)
{
  longjmp(env, value);
}

void
__longjmp_chk (jmp_buf env, int value)
{
  longjmp(env, value);
}
