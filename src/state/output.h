/* SPDX-License-Identifier: MIT */
/*
 * output.h - what code in a runspace prints, caught where it is printed.
 */
#ifndef RS_OUTPUT_H
#define RS_OUTPUT_H

#include <stddef.h>

#include <lua.h>

/*
 * Where it goes: 'size' bytes for standard output (1) or standard error (2),
 * any part of a line or many lines.  0, or the 'errno' of what failed.
 * [-0, +0, -]
 */
typedef struct rs_output {
  int (*write) (lua_State *L, int fd, const char *text, size_t size);
} rs_output;

/*
 * [-0, +0, m]  Replace, where they are there: 'print', 'io.write' and the
 * method 'write' of files, which do as they did with other files than these
 * two; and let 'warn' use the standard error.  'output' stays.
 */
void rs_output_open (lua_State *L, const rs_output *output);

/* [-0, +0, m]  Let 'print' in a host write a line at once. */
void rs_output_open_host (lua_State *L);

#endif
