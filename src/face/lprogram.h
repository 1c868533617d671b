/* SPDX-License-Identifier: MIT */
/*
 * lprogram.h - programs that end with this process, whatever ends it.
 *
 * Each program has a process group of its own.  The keeper, a process beside
 * this one, ends the groups that are left when this process has ended.  When
 * no keeper can be started, programs are started all the same.
 */
#ifndef RS_LPROGRAM_H
#define RS_LPROGRAM_H

#include <stdbool.h>
#include <sys/types.h>

typedef struct rs_program {
  pid_t pid;               /* number of the process, and of its group; 0: not
                              started, or reaped */
  int status;              /* wait status (waitpid(2)), once it was reaped */
  char *line;              /* its line in the keeper's table, or NULL */
} rs_program;

/*
 * Start the program argv[0]; PATH is searched as posix_spawnp(3) does it.  The
 * descriptors 'files', which are above 2, become its standard files.  The
 * program gets no other descriptor; its signals are not blocked and have their
 * default actions.  'directory' is where it starts; NULL: where this process
 * is.
 * Return 0, or an error number, and then there is no program.  Any thread.
 */
int rs_program_start (rs_program *p, const int files[3],
                      const char *const *argv, const char *const *env,
                      const char *directory);

/* Tell whether the program has ended.  It is not reaped, so no other process
   gets its number.  An 'rs_program' is used by one thread at a time. */
bool rs_program_ended (const rs_program *p);

/* Wait for the end of the program, and reap it.  Its line is erased before, so
   that the keeper leaves its group alone. */
void rs_program_reap (rs_program *p);

#endif
