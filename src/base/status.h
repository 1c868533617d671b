/* SPDX-License-Identifier: MIT */
/*
 * status.h - status codes, and errors that carry one.
 *
 * The codes are in runspace.h; status.c has their names and messages in one
 * table.
 */
#ifndef RS_STATUS_H
#define RS_STATUS_H

#include "runspace.h"

/*
 * Store 'status' and a formatted text in 'err', unless that is NULL, and
 * return 'status', so that a failure is one statement.  Any thread.
 */
int rs_fail (rs_error *err, int status, const char *format, ...)
  __attribute__ ((format (printf, 3, 4)));

/* Fail as 'rs_fail' does, with the message of 'status'. */
int rs_fail_plain (rs_error *err, int status);

#endif
