/* SPDX-License-Identifier: MIT */
/*
 * escape.h - texts of others on a line of ours.
 */
#ifndef RS_ESCAPE_H
#define RS_ESCAPE_H

#include <stddef.h>

/*
 * What a terminal shows of 'text', and does not obey, on one line: control
 * characters become \n, \t, \r, \x1B or \u{9B}, and bytes that are no UTF-8
 * \xFF.  As snprintf(3): writes up to 'room' bytes, the last one a zero, and
 * returns how many bytes there are without that.  Any thread.
 */
size_t rs_escape (const char *text, size_t size, char *out, size_t room);

#endif
