/* SPDX-License-Identifier: MIT */
/*
 * console.h - the terminal, for programs that edit a line there or run code
 * that may print; runspace.h has the other functions.
 */
#ifndef RS_CONSOLE_H
#define RS_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Take the status away while code of the host runs that may print, and show
 * it again.  Lines that jobs print meanwhile are written without it.  'pause'
 * returns true if the status was shown; only then 'resume' is called.  A new
 * status ends the pause.  Any thread.
 */
bool rs_console_pause (void);
void rs_console_resume (void);

/*
 * Hold back lines while a user edits a line at the terminal; release them.
 * From 'hold' on lines are kept, and the first one writes a byte to 'fd',
 * which must not block.  Then the editor takes its own line away, and calls
 * 'release', which writes the kept lines; later lines are written at once,
 * until the next 'hold'.  A thread that prints much faster than that waits, a
 * tenth of a second at most; then lines are written at once, too.  'hold'
 * takes the status away; the first new status after 'release' is shown.  One
 * thread holds and releases.
 */
void rs_console_hold (int fd);
void rs_console_release (void);

/* From now on the process has no terminal of its own: 'write', which returns 0
   or an 'errno', gets what 'rs_console_write' would write, from any thread,
   and no status is shown.  Called once, before any thread prints. */
void rs_console_redirect (int (*write) (int fd, const char *text,
                                        size_t size));

#endif
