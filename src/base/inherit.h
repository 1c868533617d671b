/* SPDX-License-Identifier: MIT */
/*
 * inherit.h - files that a program shall not get from the process that starts
 * it, where the system cannot close them all at once.
 */
#ifndef RS_INHERIT_H
#define RS_INHERIT_H

/*
 * All files that are open have lower numbers, and so have those that other
 * threads open while a program is started: a new one has the lowest number
 * that is free.  Any thread.
 */
int rs_inherit_end (void);

#endif
