/* SPDX-License-Identifier: MIT */
/*
 * lamp.h - a descriptor that poll(2) finds readable while it is lit.
 *
 * The descriptor is the reading end of a pipe, with a byte in it while the
 * lamp is lit.  The owner's lock guards a lamp; 'rs_lamp_flash' needs none.
 * There is no descriptor before 'rs_lamp_open'.
 */
#ifndef RS_LAMP_H
#define RS_LAMP_H

#include <stdatomic.h>
#include <stdbool.h>

typedef struct rs_lamp {
  int out, in;       /* the ends of the pipe to read and to write; or -1 */
  _Atomic bool lit;  /* a byte is in the pipe; a signal handler may set it at
                        any time, and then writes a byte */
} rs_lamp;

void rs_lamp_init (rs_lamp *lamp);
void rs_lamp_fini (rs_lamp *lamp);

/* Make the pipe, unless there is one.  False, and 'errno', when none can be
   had.  The descriptors are above those of the standard files. */
bool rs_lamp_open (rs_lamp *lamp);

static inline bool
rs_lamp_is_open (const rs_lamp *lamp)
{
  return lamp->out >= 0;
}

static inline bool
rs_lamp_is_lit (const rs_lamp *lamp)
{
  return atomic_load(&lamp->lit);
}

/* Light the lamp, which is open, or put it out. */
void rs_lamp_set (rs_lamp *lamp, bool lit);

/* Light the lamp if it is open.  Async-signal-safe. */
void rs_lamp_flash (rs_lamp *lamp);

#endif
