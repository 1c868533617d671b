/* SPDX-License-Identifier: MIT */
/*
 * status.h - status codes, and errors that carry one.
 *
 * The codes are in runspace.h; their names and messages come from one table
 * in status.c.
 */
#ifndef RS_STATUS_H
#define RS_STATUS_H

#include "runspace.h"

/*
 * Leave 'status' and a formatted text in 'err', if there is one, and return
 * 'status', so that a failure is one statement.  Any thread.
 */
int rs_fail (rs_error *err, int status, const char *format, ...)
  __attribute__ ((format (printf, 3, 4)));

/* 'rs_fail' with the status' own message. */
int rs_fail_plain (rs_error *err, int status);

#endif
