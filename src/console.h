/* SPDX-License-Identifier: MIT */
/*
 * console.h - the console, beside what runspace.h has of it.
 */
#ifndef RS_CONSOLE_H
#define RS_CONSOLE_H

/* In a child of fork(2): the status, and lines that are kept, are the
   parent's. */
void rs_console_begin_child (void);

#endif
