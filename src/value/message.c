/* SPDX-License-Identifier: MIT */
/*
 * message.c - encoded values: bytes with a count of references, which never
 * change.
 */
#include "value/message.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

void
rs_message_init (rs_message *msg, size_t size, unsigned flags)
{
  atomic_init(&msg->refs, 1);
  msg->flags = flags;
  msg->constant = msg->lent = msg->common = false;
  msg->forbidden = 0;
  msg->room = 0;
  msg->size = size;
}

rs_message *
rs_message_new (const void *data, size_t size, unsigned flags)
{
  if (size > SIZE_MAX / 2)
    return NULL;
  rs_message *const msg = malloc(sizeof *msg + size);
  if (msg == NULL)
    return NULL;
  rs_message_init(msg, size, flags);
  if (size > 0)
    memcpy(msg->data, data, size);
  return msg;
}

rs_message *
rs_message_ref (rs_message *msg)
{
  if (msg != NULL)
    atomic_fetch_add_explicit(&msg->refs, 1, memory_order_relaxed);
  return msg;
}

void
rs_message_unref (rs_message *msg)
{
  /* A lent message has one owner, and no count.  The owner that frees a
     message sees all that other owners did with it. */
  if (msg != NULL && !msg->lent
      && atomic_fetch_sub_explicit(&msg->refs, 1, memory_order_acq_rel) == 1)
    rs_buf_free(msg, msg->room * (size_t) 1024);
}

size_t
rs_message_size (const rs_message *msg)
{
  return msg != NULL ? msg->size : 0;
}
