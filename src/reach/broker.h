/* SPDX-License-Identifier: MIT */
/*
 * broker.h - the caller's side of a broker: what all runners of a pool share.
 *
 * One connection serves all of them.  Its thread hands each letter to the
 * order that it is for, and wakes the thread that waits there; that thread
 * alone reads the letter, and answers.
 */
#ifndef RS_BROKER_H
#define RS_BROKER_H

#include "base/list.h"
#include "reach/letter.h"
#include "reach/waker.h"

#define RS_BROKER_PATIENCE 8.0  /* seconds that the others have to come back
                                   after this side is connected again: more
                                   than the longest pause between two
                                   attempts */

/* A letter that waits to be read. */
typedef struct rs_parcel {
  rs_list link;
  rs_letter letter;         /* its content is in 'bytes' */
  unsigned char bytes[];
} rs_parcel;

/* How the connection is. */
typedef struct rs_broker_state {
  bool up, refused;
  unsigned ups;             /* how often it came up */
  double since;             /* instant at which it came up, or went down, last;
                               or was opened */
  double away;              /* seconds that it was down before it came up */
  uint64_t waiting, servers;  /* as in rs_broker_info */
  char text[400];           /* why it is down; "": it has not been tried */
} rs_broker_state;

/* What a thread waits for: a call that was published, or the connection. */
typedef struct rs_order {
  rs_waker *waker;          /* lent; constant */

  rs_list link;             /* the lock of the broker guards the rest */
  uint64_t serial;
  rs_list inbox;            /* of parcels, in the order in which they came */
  bool confirmed;           /* the broker has taken the call */
  bool homeless;            /* there is no shared queue */
  bool absent;              /* the worker that was probed is not connected */
} rs_order;

typedef struct rs_broker {
  rs_desk desk;             /* constant, as all down to 'next' */
  rs_amqp *amqp;
  char *url;                /* as it is shown; owned, as the next four */
  char *queue;
  char *own;
  unsigned char *key;
  rs_buf open;              /* what a runspace is opened from */
  unsigned char open_hash[RS_AMQP_HASH];

  _Atomic uint64_t next;    /* the serial that comes next */
  pthread_mutex_t lock;     /* guards the rest */
  rs_broker_state state;
  rs_list orders[64];       /* by serial */
  struct rs_remark *remarks;  /* what workers are still to be told */
  struct rs_hostname *names;
} rs_broker;

/* Make it for a pool, and begin to connect.  RS_OK, RS_ENOMEM, RS_EFAILED: no
   module, or no key; RS_EINVAL: the URL is none. */
int rs_broker_new (const rs_pool_options *options, rs_broker **out,
                   rs_error *err);
void rs_broker_free (rs_broker *b);

/* Give the order, which is waited for at 'waker', a serial, and let letters
   come to it; a new one instead of the old; let none come any more. */
void rs_order_enter (rs_broker *b, rs_order *o, rs_waker *waker);
void rs_order_renew (rs_broker *b, rs_order *o);
void rs_order_leave (rs_broker *b, rs_order *o);

/* Take the next letter, which is the caller's; NULL: none has come. */
rs_parcel *rs_order_take (rs_broker *b, rs_order *o);

/* Copy what the connection's thread has noted. */
void rs_order_look (rs_broker *b, const rs_order *o, rs_order *out,
                    rs_broker_state *state);

/* What was noted of a worker that was probed does not count any more. */
void rs_order_forget (rs_broker *b, rs_order *o);

/* The worker 'to' may forget the news of a call: those before 'seen', and if
   'done' the call.  It is told with others, by and by. */
void rs_broker_remark (rs_broker *b, const char *to, uint64_t serial,
                       uint64_t seen, bool done);

/* Tell the workers now what they may forget. */
void rs_broker_flush (rs_broker *b);

/* Write why the connection is down; "": it is up. */
void rs_broker_trouble (rs_broker *b, char *text, size_t size);

/* As 'rs_pool_broker'. */
void rs_broker_get (rs_broker *b, rs_broker_info *out);

/* A copy of the name of a host, which lives as long as the broker.  NULL: no
   memory. */
const char *rs_broker_name (rs_broker *b, const char *name);

#endif
