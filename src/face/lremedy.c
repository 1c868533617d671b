/* SPDX-License-Identifier: MIT */
/*
 * lremedy.c - the way out for a value that cannot travel.
 *
 * A refusal ends with the kind of the value, after the path to it.  The names
 * of userdata are those of their metatables, as libraries have chosen them.
 */
#include "face/lremedy.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static const char refused[] = "cannot transfer a ";

static const char connect[] =
  "make the connection in the job, or in 'init' of a pool";
static const char elsewhere[] = "make it in the job, or in 'init' of a pool";

/* Kinds that are known by the beginning of what is refused. */
static const struct {
  const char *kind, *remedy;
} kinds[] = {
  { "thread", "make the coroutine in the job, from its function, which "
              "travels" },
  { "C function", "pass the module that has it, or require that in the job" },
  { "userdata (FILE*)", "open the file in the job, by its name, or in 'init' "
                        "of a pool" },
  { "userdata (directory metatable)", "open the directory in the job, by its "
                                      "name" },
  { "userdata (parallel.job)", "pass what job:get() returns" },
  { "userdata (parallel.pool)", "in a job the verbs of 'parallel' work on its "
                                "own pool" },
};

/* Parts of the names of userdata that are connections: sockets, databases. */
static const char *const connections[] = {
  "tcp{", "udp{", "unix{", "unixdgram", "uv_tcp", "uv_udp", "uv_pipe", "ssl",
  "socket", "connection", "sql", "database", "environment", "cursor", "redis",
  "mongo", "amqp", "http"
};

/* Does the text have the part, in capitals or not? */
static bool
has (const char *text, const char *part)
{
  const size_t size = strlen(part);
  for (; *text != '\0'; text++) {
    size_t n = 0;
    while (n < size && tolower((unsigned char) text[n]) == part[n])
      n++;
    if (n == size)
      return true;
  }
  return false;
}

const char *
rs_remedy (const char *refusal)
{
  const char *what = NULL;
  for (const char *at = refusal; (at = strstr(at, refused)) != NULL; )
    what = at += sizeof refused - 1;  /* the last one: paths come first */
  if (what == NULL)
    return NULL;
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    if (strncmp(what, kinds[i].kind, strlen(kinds[i].kind)) == 0)
      return kinds[i].remedy;
  }
  if (strncmp(what, "userdata", strlen("userdata")) != 0)
    return NULL;
  for (size_t i = 0; i < sizeof connections / sizeof connections[0]; i++) {
    if (has(what, connections[i]))
      return connect;
  }
  return elsewhere;
}
