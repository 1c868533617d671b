/* SPDX-License-Identifier: MIT */
/*
 * status.c - the one table of status codes.
 */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
  const char *name;
  const char *message;
} table[] = {
  [RS_OK] = { "RS_OK", "success" },
  [RS_ENOMEM] = { "RS_ENOMEM", "not enough memory" },
  [RS_EINVAL] = { "RS_EINVAL", "invalid argument" },
  [RS_ECLOSED] = { "RS_ECLOSED", "it is closed" },
  [RS_ETIMEOUT] = { "RS_ETIMEOUT", "the time is over" },
  [RS_EFULL] = { "RS_EFULL", "there is no room now" },
  [RS_EBUSY] = { "RS_EBUSY", "not finished" },
  [RS_EREFUSED] = { "RS_EREFUSED", "a value cannot be transferred" },
  [RS_EFORMAT] = { "RS_EFORMAT", "bytes that are no message" },
  [RS_EFAILED] = { "RS_EFAILED", "code in a runspace raised an error" },
  [RS_ETHREAD] = { "RS_ETHREAD", "the system gave no thread" },
  [RS_EDONE] = { "RS_EDONE", "nothing is left" },
  [RS_EEVENT] = { "RS_EEVENT", "events are to be dispatched" },
  [RS_ESTOPPED] = { "RS_ESTOPPED", "the job that waits is to stop" },
};

static bool
known (int status)
{
  return status >= 0 && (size_t) status < sizeof table / sizeof table[0];
}

const char *
rs_status_name (int status)
{
  return known(status) ? table[status].name : "?";
}

const char *
rs_status_message (int status)
{
  return known(status) ? table[status].message : "unknown status";
}

const char *
rs_version (void)
{
  return RS_VERSION;
}

int
rs_version_num (void)
{
  return RS_VERSION_NUM;
}

int
rs_fail (rs_error *err, int status, const char *format, ...)
{
  if (err == NULL)
    return status;
  va_list args;
  va_start(args, format);
  const int length = vsnprintf(err->text, sizeof err->text, format, args);
  va_end(args);
  if (length < 0)
    err->text[0] = '\0';
  else if ((size_t) length >= sizeof err->text)  /* was the text cut? */
    memcpy(err->text + sizeof err->text - 4, "...", 4);
  err->status = status;
  return status;
}

int
rs_fail_plain (rs_error *err, int status)
{
  return rs_fail(err, status, "%s", rs_status_message(status));
}
