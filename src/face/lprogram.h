/* SPDX-License-Identifier: MIT */
/*
 * lprogram.h - programs that end with this process, whatever ends it.
 *
 * Each has a process group of its own.  A keeper, which is another process,
 * ends the groups that are left when this process has ended.  Where no keeper
 * can be had, programs are started all the same.
 */
#ifndef RS_LPROGRAM_H
#define RS_LPROGRAM_H

#include <stdbool.h>
#include <sys/types.h>

typedef struct rs_program {
  pid_t pid;               /* of its group, too; 0: there is none, or it was
                              reaped */
  int status;              /* of waitpid(2), once it was reaped */
  char *line;              /* in the keeper's table, or NULL */
} rs_program;

/*
 * Start the program that 'argv' begins with; PATH is searched as
 * posix_spawnp(3) does.  'files' become its standard files; they are above
 * those themselves.  It gets no other descriptor, and the signals of a new
 * program.  'directory' may be NULL.
 * 0, or an error number: then there is none.  Any thread.
 */
int rs_program_start (rs_program *p, const int files[3],
                      const char *const *argv, const char *const *env,
                      const char *directory);

/* Has it ended?  It is not reaped, so its number is still its own.  The
   program, of which there is one, belongs to one thread. */
bool rs_program_ended (const rs_program *p);

/* Wait for its end, and reap it.  The keeper forgets it. */
void rs_program_reap (rs_program *p);

#endif
