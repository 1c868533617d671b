/* SPDX-License-Identifier: MIT */
/*
 * escape.h - foreign text in one line of our own.
 */
#ifndef RS_ESCAPE_H
#define RS_ESCAPE_H

#include <stddef.h>

/*
 * Write 'text', of 'size' bytes, to 'out' as one line that a terminal shows
 * and does not obey.  Control characters become \n, \t, \r, \x1B or \u{9B};
 * bytes that are not UTF-8 become \xFF.  As snprintf(3), write up to 'room'
 * bytes, a zero at the end included, and return how many bytes the whole text
 * takes without the zero.  Any thread.
 */
size_t rs_escape (const char *text, size_t size, char *out, size_t room);

#endif
