/* SPDX-License-Identifier: MIT */
/*
 * process.h - a child process that serves one runspace.
 *
 * The child is started by posix_spawn(3), which does not copy the memory of
 * this process, and lets no other thread wait.  It leads a process group of
 * its own, so that what its jobs have started ends with it.  It has the
 * standard files alone, and one socket as the first two of them; its signals
 * are those of a new program.
 *
 * The program's children, and SIGCHLD, are left alone: a child of ours is
 * waited for by its number.  A program that ignores SIGCHLD, or waits for any
 * child, may take the status away from us; then all that is known is that the
 * child has ended.
 */
#ifndef RS_PROCESS_H
#define RS_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "runspace.h"

typedef struct rs_process {
  pid_t pid;                /* of the child, and of its group; 0: none */
  int end;                  /* pidfd, readable when the child has ended; -1:
                               the system has none */
  int in, out;              /* our ends of what it writes and reads, which do
                               not block; the same for a socket; or -1 */
  bool gentle;              /* SIGTERM comes before SIGKILL */
  bool inside;              /* the child is the program that stands around the
                               worker, and exits as shells do: with 128 and
                               the number of the signal that killed that */
  double cpu_time;          /* seconds after which SIGXCPU comes; 0: any */
} rs_process;

#define RS_NO_PROCESS { .end = -1, .in = -1, .out = -1 }

/* This program serves ('rs_worker_main'), so it can be its own worker. */
void rs_process_set_serving (void);

/* True when it does. */
bool rs_process_serves (void);

/*
 * Start the program 'path', looked for as execvp(3) does, with 'fds' as its
 * standard files, which are above these, and the last one as the descriptor
 * behind them; it has no other descriptor.  -1 as the third one: it has our
 * standard error; as the last one: it has none there.  'env' are its
 * variables; NULL: ours.  'p' gets the child.  0, or an error number.
 */
int rs_process_spawn (rs_process *p, const char *path,
                      const char *const *argv, const char *const *env,
                      const int fds[4]);

/* Make a socket pair above the standard files, whose first end does not block;
   or a pipe, whose ends block.  0, or an error number, and both are -1. */
int rs_process_sockets (int fds[2]);
int rs_process_pipe (int fds[2]);

/* Move a descriptor that is one of the standard files above them, and let it
   be closed in programs that others start.  -1: not possible, and it is
   closed. */
int rs_process_raise (int fd);

/* Has the child ended? */
bool rs_process_has_ended (const rs_process *p);

/* Kill the child, and all of its group. */
void rs_process_kill (rs_process *p);

/* Close our ends of what the child reads and writes. */
void rs_process_hang_up (rs_process *p);

/*
 * Hang up, wait 'timeout' seconds for the end of the child, kill it, kill
 * what is left of its group, and close the pidfd.  Writes into 'text'
 * how the child ended: "was killed by SIGSEGV", "exited with status 3".
 * Returns the status that it exited with, or -1.
 */
int rs_process_finish (rs_process *p, double timeout, char *text, size_t size);

#endif
