/* SPDX-License-Identifier: MIT */
/*
 * inbox.c - what the host has sent to this worker.
 *
 * A call belongs to the inbox and to the runner; whoever lets go of it last
 * frees it.  What is urgent may come before the call that it names, and is
 * remembered until then.
 */
#include "reach/inbox.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/status.h"
#include "reach/exchange.h"

void
rs_inbox_init (rs_inbox *b)
{
  pthread_mutex_init(&b->lock, NULL);
  rs_cond_init(&b->changed);
}

void
rs_served_unref (rs_served *c)
{
  if (c == NULL
      || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
    return;
  rs_message_unref(c->call.function);
  rs_message_unref(c->call.arguments);
  rs_message_unref(c->call.result);
  free(c->name);
  free(c);
}

/* Tell the runner. */
static void
change_locked (rs_inbox *b)
{
  atomic_fetch_add_explicit(&b->news, 1, memory_order_relaxed);
  pthread_cond_signal(&b->changed);
}

/* The place of the function that is kept under 'number'; NULL: none is. */
static rs_message **
find_function (rs_inbox *b, uint64_t number)
{
  for (int i = 0; i < RS_INBOX_FUNCTIONS; i++)
    if (b->kept[i].function != NULL && b->kept[i].number == number)
      return &b->kept[i].function;
  return NULL;
}

static bool
keep_function (rs_inbox *b, const rs_frame *frame)
{
  for (int i = 0; i < RS_INBOX_FUNCTIONS; i++)
    if (b->kept[i].function == NULL) {
      b->kept[i].function = frame->message;
      b->kept[i].number = frame->number;
      return true;
    }
  return false;
}

/* Make the call, and give it to the runner; false for one that is none. */
static bool
take_call (rs_inbox *b, const rs_frame *frame)
{
  rs_cut cut = { frame->data, frame->size, false };
  rs_call_more more;
  rs_served *const c = calloc(1, sizeof *c);
  if (c == NULL)
    return false;
  atomic_init(&c->refs, 2);
  c->number = frame->number;
  const int status = rs_call_read(&cut, &c->call, &c->chunk, &more);
  c->name = more.name;
  rs_message **const f = status == RS_OK ? find_function(b, more.function)
                                         : NULL;
  if (f == NULL || more.arguments != (b->values != NULL)) {
    rs_served_unref(c);
    rs_served_unref(c);
    return false;
  }
  c->call.function = rs_message_ref(*f);
  c->call.arguments = b->values;
  b->values = NULL;
  c->ahead = more.now - rs_now();
  c->chunk.stop = &c->stop;
  if (more.limited) {
    atomic_init(&c->allowed, more.allowed);
    c->chunk.failed = &c->failed;
    c->chunk.allowed = &c->allowed;
  }
  pthread_mutex_lock(&b->lock);
  rs_served *const last = b->latest;
  const bool busy = b->next != NULL;
  b->latest = c;
  if (b->stopped == c->number)
    atomic_store_explicit(&c->stop, true, memory_order_relaxed);
  if (b->cancelled.number == c->number)
    rs_wish_make(&c->call.wish, b->cancelled.reason, b->cancelled.grace);
  if (!busy) {
    b->next = c;
    change_locked(b);
  }
  pthread_mutex_unlock(&b->lock);
  rs_served_unref(last);
  return !busy;
}

static bool
take_open (rs_inbox *b, const rs_frame *frame)
{
  rs_cut cut = { frame->data, frame->size, false };
  if (b->opened || rs_open_read(&cut, &b->options, &b->worker) != RS_OK)
    return false;
  pthread_mutex_lock(&b->lock);
  b->opened = true;
  change_locked(b);
  pthread_mutex_unlock(&b->lock);
  return true;
}

static void
take_stop (rs_inbox *b, uint64_t number)
{
  pthread_mutex_lock(&b->lock);
  b->stopped = number;
  if (b->latest != NULL && b->latest->number == number)
    atomic_store_explicit(&b->latest->stop, true, memory_order_relaxed);
  pthread_mutex_unlock(&b->lock);
}

static void
take_cancel (rs_inbox *b, const rs_frame *frame)
{
  rs_cut cut = { frame->data, frame->size, false };
  const unsigned reason = (unsigned) rs_cut_number(&cut, 1);
  const double grace = rs_cut_double(&cut);
  if (reason == RS_REASON_NONE || reason >= RS_REASONS || !(grace >= 0))
    return;
  pthread_mutex_lock(&b->lock);
  b->cancelled.number = frame->number;
  b->cancelled.reason = (rs_reason) reason;
  b->cancelled.grace = grace;
  rs_served *const c = b->latest != NULL && b->latest->number == frame->number
                  ? b->latest : NULL;
  if (c != NULL) {
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    rs_wish_make(&c->call.wish, (rs_reason) reason, grace);
  }
  pthread_mutex_unlock(&b->lock);
  if (c == NULL)
    return;  /* the call is to come, or has ended, and the host will see
                that */
  rs_cancel_request(b->cancel, &c->call, (rs_reason) reason, grace);
  rs_served_unref(c);
}

rs_served *
rs_inbox_find (rs_inbox *b, uint64_t number)
{
  pthread_mutex_lock(&b->lock);
  rs_served *const c = b->latest != NULL && b->latest->number == number
                     ? b->latest : NULL;
  if (c != NULL)
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
  pthread_mutex_unlock(&b->lock);
  return c;
}

bool
rs_inbox_put (rs_inbox *b, const rs_frame *frame)
{
  rs_message **function;
  switch (frame->type) {
    case RS_FRAME_OPEN:
      return take_open(b, frame);
    case RS_FRAME_FUNCTION:
      return keep_function(b, frame);
    case RS_FRAME_FORGET:
      function = find_function(b, frame->number);
      if (function == NULL)
        return false;
      rs_message_unref(*function);
      *function = NULL;
      return true;
    case RS_FRAME_VALUES:
      if (b->values != NULL)
        return false;
      b->values = frame->message;
      return true;
    case RS_FRAME_CALL:
      return b->opened && take_call(b, frame);
    case RS_FRAME_STOP:
      take_stop(b, frame->number);
      return true;
    case RS_FRAME_CANCEL:
      take_cancel(b, frame);
      return true;
    case RS_FRAME_RENEW:
    case RS_FRAME_CLOSE:
      pthread_mutex_lock(&b->lock);
      b->renewing |= frame->type == RS_FRAME_RENEW;
      b->closing |= frame->type == RS_FRAME_CLOSE;
      change_locked(b);
      pthread_mutex_unlock(&b->lock);
      return true;
    default:
      return false;
  }
}

bool
rs_inbox_has_call_locked (const rs_inbox *b)
{
  return b->next != NULL || b->closing || b->renewing;
}

rs_served *
rs_inbox_take_locked (rs_inbox *b, bool *again)
{
  rs_served *const c = b->next;
  b->next = NULL;
  *again = c == NULL && b->renewing && !b->closing;
  b->renewing &= c != NULL;
  return c;
}
