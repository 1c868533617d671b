/* SPDX-License-Identifier: MIT */
/*
 * inherit.h - files that a program must not inherit from the process that
 * starts it, where the system cannot close them all at once.
 */
#ifndef RS_INHERIT_H
#define RS_INHERIT_H

/*
 * A number above those of all open files, and of the files that other threads
 * open while a program is started: a new file gets the lowest free number.
 * Any thread.
 */
int rs_inherit_end (void);

#endif
