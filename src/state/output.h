/* SPDX-License-Identifier: MIT */
/*
 * output.h - what code in a runspace prints, caught where it is printed.
 */
#ifndef RS_OUTPUT_H
#define RS_OUTPUT_H

#include <stddef.h>

#include <lua.h>

/*
 * The receiver of all output.  'write' gets 'size' bytes for standard output
 * ('fd' is 1) or standard error (2): a part of a line, or many lines.
 * Returns 0, or 'errno' of the failure.
 * [-0, +0, -]
 */
typedef struct rs_output {
  int (*write) (lua_State *L, int fd, const char *text, size_t size);
} rs_output;

/*
 * [-0, +0, m]  Let 'print', 'io.write', the method 'write' of files, and
 * 'warn' (standard error) write to 'output', where the state has them.  Files
 * other than standard output and error are written as before.  'output' must
 * live as long as the state.
 */
void rs_output_open (lua_State *L, const rs_output *output);

/* [-0, +0, m]  Let 'print' in a host write each line as a whole. */
void rs_output_open_host (lua_State *L);

#endif
