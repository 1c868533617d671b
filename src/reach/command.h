/* SPDX-License-Identifier: MIT */
/*
 * command.h - a command that brings up a worker, and what it says.
 *
 * A command is a child as that of process.h, but behind pipes: a shell takes a
 * socket for a sign that somebody has logged in, and ssh and srun want pipes.
 * The worker, at its end, may be on another host.  It ends when its pipe is
 * closed; the command is told to end by SIGTERM.
 *
 * The standard error of all of it is a pipe, too.  Its lines come to ours with
 * the name of the worker in front.  Until the worker is there they are held
 * back, so that an error can tell them.
 */
#ifndef RS_COMMAND_H
#define RS_COMMAND_H

#include "base/buf.h"
#include "reach/process.h"

typedef struct rs_errors {
  int fd;                   /* owned, does not block; -1: nothing more comes */
  bool shown;               /* lines are not held back */
  const char *name;         /* lent: what is put in front of lines */
  rs_buf held;              /* what came and was not shown */
} rs_errors;

#define RS_NO_ERRORS { .fd = -1, .held = RS_BUF_INIT }

/* Start the command.  'errors', which is closed, reads its standard error.
   RS_OK or RS_EFAILED. */
int rs_command_start (rs_process *p, const char *const *words,
                      rs_errors *errors, rs_error *err);

/* Read 'fd', which becomes owned, from now on, and hold back its lines. */
void rs_errors_begin (rs_errors *e, int fd);

/* Read what has come, without waiting, and show whole lines. */
void rs_errors_read (rs_errors *e);

/* Show what was held back, and what comes from now on. */
void rs_errors_show (rs_errors *e);

/* Read until the process has ended, or 'timeout' seconds are over. */
void rs_errors_drain (rs_errors *e, const rs_process *p, double timeout);

/* Show the rest, if lines are shown, forget it, and close. */
void rs_errors_close (rs_errors *e);

/* Make one line of the last lines of a text: without control characters, and
   of the last 'most' bytes at most. */
void rs_text_last (char *text, size_t most);

#endif
