/* SPDX-License-Identifier: MIT */
/*
 * incoming.h - frames of the broker, and what they make: deliveries, confirms,
 * and the end of a session.
 *
 * All belongs to the thread of the connection, which calls the user's
 * functions here.
 */
#ifndef RS_INCOMING_H
#define RS_INCOMING_H

#include "broker/amqp.h"
#include "broker/confirm.h"
#include "broker/join.h"
#include "broker/session.h"

/* A message of which not all has come. */
typedef struct rs_content {
  enum { RS_CONTENT_NONE, RS_CONTENT_DELIVERY, RS_CONTENT_RETURN } kind;
  bool shared, redelivered;
  bool begun;               /* its size is known */
  bool kept;                /* the bytes are wanted, and there is room */
  uint64_t tag;             /* the broker's */
  unsigned priority;
  uint64_t size, got;
  char id[RS_JOIN_TEXT];    /* number of a message that came back */
  char key[RS_JOIN_TEXT], place[RS_JOIN_TEXT];  /* of a part */
  unsigned char *bytes;     /* owned */
  size_t room;
} rs_content;

typedef struct rs_incoming {
  rs_session *session;      /* lent, as the next three */
  rs_confirms *confirms;
  const rs_amqp_user *user;
  void *ud;
  uint64_t base;            /* of the tags of this session */
  bool blocked;             /* the broker wants nothing to be published */
  rs_content contents[RS_SESSION_CHANNELS];
  rs_join join;
} rs_incoming;

void rs_incoming_init (rs_incoming *in, rs_session *session,
                       rs_confirms *confirms, const rs_amqp_user *user,
                       void *ud);
void rs_incoming_fini (rs_incoming *in);

/* A session is open; its tags begin behind 'base'. */
void rs_incoming_begin (rs_incoming *in, uint64_t base);

/* Forget what has not come whole. */
void rs_incoming_end (rs_incoming *in);

/*
 * Take what has come, without waiting, and answer heartbeats.  False: the
 * session has ended, and its text says why.  '*more': not all was taken.
 */
bool rs_incoming_read (rs_incoming *in, bool *more);

#endif
