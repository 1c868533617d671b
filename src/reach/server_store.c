/* SPDX-License-Identifier: MIT */
/*
 * server_store.c - what was sent to a server once, by its hash; and its log.
 */
#include "reach/server.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STORE = 64 << 20 };  /* bytes that are stored, if it is more than one
                               thing */

void
rs_server_log (rs_server *s, const char *format, ...)
{
  char line[600];
  va_list args;
  va_start(args, format);
  vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (s->log != NULL)
    s->log(s->ud, line);
}

rs_message *
rs_server_stored_locked (rs_server *s, const unsigned char hash[RS_AMQP_HASH])
{
  for (rs_list *link = s->stored.next; link != &s->stored; link = link->next) {
    rs_stored *const x = RS_LIST_ENTRY(link, rs_stored, link);
    if (memcmp(x->hash, hash, RS_AMQP_HASH) != 0)
      continue;
    rs_list_remove(link);
    rs_list_push(&s->stored, link);
    return rs_message_ref(x->what);
  }
  return NULL;
}

void
rs_server_forget_locked (rs_server *s)
{
  rs_stored *const x = RS_LIST_ENTRY(rs_list_shift(&s->stored), rs_stored,
                                     link);
  s->stored_bytes -= x->what->size;
  rs_message_unref(x->what);
  free(x);
}

bool
rs_server_store_locked (rs_server *s, const unsigned char hash[RS_AMQP_HASH],
                        rs_message *what, bool is_message)
{
  unsigned char own[RS_AMQP_HASH];
  unsigned char kind = (unsigned char) (what->constant | what->common << 1);
  const struct iovec parts[] = { { &kind, 1 }, { what->data, what->size } };
  rs_message *const known = rs_server_stored_locked(s, hash);
  rs_message_unref(known);
  if (known != NULL)
    return true;
  s->desk.module->hash(parts + (is_message ? 0 : 1), is_message ? 2 : 1, own);
  if (memcmp(own, hash, RS_AMQP_HASH) != 0)
    return false;
  rs_stored *const x = calloc(1, sizeof *x);
  if (x == NULL)
    return true;
  memcpy(x->hash, hash, RS_AMQP_HASH);
  x->what = rs_message_ref(what);
  s->stored_bytes += what->size;
  rs_list_push(&s->stored, &x->link);
  while (s->stored_bytes > STORE && s->stored.next != s->stored.prev)
    rs_server_forget_locked(s);
  return true;
}
