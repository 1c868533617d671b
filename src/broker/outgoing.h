/* SPDX-License-Identifier: MIT */
/*
 * outgoing.h - what waits to be written to the broker, and how it is.
 *
 * Items are made by any thread, and written by that of the connection.
 */
#ifndef RS_OUTGOING_H
#define RS_OUTGOING_H

#include "broker/amqp.h"
#include "broker/confirm.h"
#include "broker/join.h"
#include "broker/session.h"

typedef enum rs_item_kind {
  RS_ITEM_PUBLISH, RS_ITEM_ACKNOWLEDGE, RS_ITEM_REJECT, RS_ITEM_REQUEUE,
  RS_ITEM_QUIT, RS_ITEM_LOOK
} rs_item_kind;

typedef struct rs_item {
  struct rs_item *next;
  rs_item_kind kind;
  rs_amqp_target target;
  unsigned priority;
  uint64_t number;          /* for the confirmation; or the tag that ends */
  rs_cut_message *cut;      /* owned reference; NULL: nobody asks, or it was
                               not cut */
  rs_numbers *numbers;      /* owned: of a bundle; NULL: nobody asks */
  bool is_part, is_bundle;
  char key[RS_JOIN_TEXT], place[RS_JOIN_TEXT];  /* of a part */
  const char *name;         /* in the same block, as the body */
  const unsigned char *body;
  size_t size;
  size_t weight;            /* bytes of bodies that the user has given */
} rs_item;

/* An item of another kind than PUBLISH; NULL: no memory. */
rs_item *rs_item_new (rs_item_kind kind, uint64_t tag);

/* A copy of the 'size' bytes of a message that are behind its first 'from';
   NULL: no memory. */
rs_item *rs_item_new_message (const rs_amqp_message *message, size_t from,
                              size_t size);

void rs_item_free (rs_item *item);

/* Free a list. */
void rs_items_free (rs_item *first);

/* Put the first item of the list, and what goes with it, into one, which is
   the first then.  Each queue gets what is for it in the same order. */
void rs_items_bundle (rs_item **first);

/* Where the writer stands; it belongs to the thread of the connection. */
typedef struct rs_outgoing {
  rs_session *session;      /* lent, as the next three */
  rs_confirms *confirms;
  const char *queue, *exchange;
  uint64_t base;            /* of the tags of this session */
  bool begun;               /* a long body is under way */
  size_t at;                /* its bytes that are written */
} rs_outgoing;

/*
 * Write an item, or the next piece of a long one; then '*done' is false.
 * False: the session has failed, and its text says why.
 */
bool rs_outgoing_write (rs_outgoing *out, rs_item *item, bool *done);

#endif
