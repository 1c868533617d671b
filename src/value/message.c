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

void
rs_message_take (rs_message *msg, unsigned n)
{
  atomic_fetch_add_explicit(&msg->refs, n, memory_order_relaxed);
}

void
rs_message_give (rs_message *msg, unsigned n)
{
  /* The owner that frees the message sees all that other owners did with
     it. */
  if (atomic_fetch_sub_explicit(&msg->refs, n, memory_order_acq_rel) == n)
    rs_buf_free(msg, msg->room * (size_t) 1024);
}

rs_message *
rs_message_ref (rs_message *msg)
{
  if (msg != NULL)
    rs_message_take(msg, 1);
  return msg;
}

void
rs_message_unref (rs_message *msg)
{
  if (msg != NULL && !msg->lent)  /* a lent message has one owner, and no
                                     count */
    rs_message_give(msg, 1);
}

size_t
rs_message_size (const rs_message *msg)
{
  return msg != NULL ? msg->size : 0;
}
