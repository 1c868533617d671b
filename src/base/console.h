/* SPDX-License-Identifier: MIT */
/*
 * console.h - the terminal, for who edits a line there or runs code that may
 * print; runspace.h has the rest.
 */
#ifndef RS_CONSOLE_H
#define RS_CONSOLE_H

#include <stdbool.h>

/*
 * Take the status away while code of the host runs that may print, and show
 * it again.  Lines that jobs print meanwhile go out as they are.  True if it
 * was there; only then is 'resume' called.  A new status ends the pause.
 * Any thread.
 */
bool rs_console_pause (void);
void rs_console_resume (void);

/*
 * For who lets a user edit a line at the terminal.  From 'hold' on lines are
 * kept, and a byte is written to 'fd', which must not block, when there is
 * one: then the editor takes its own line away, and 'release' writes what is
 * kept, until the next 'hold'.  Who prints much faster than that waits, a
 * tenth of a second at most; then lines go out as they are.  The status is
 * taken away by 'hold'; the first new one after 'release' is shown.
 * One thread holds and releases.
 */
void rs_console_hold (int fd);
void rs_console_release (void);

#endif
