/* SPDX-License-Identifier: MIT */
/*
 * session.h - one connection of librabbitmq, from its first byte until all
 * that is declared is there.
 *
 * A session belongs to one thread.  Other threads may call 'rs_session_cut'.
 */
#ifndef RS_SESSION_H
#define RS_SESSION_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include <amqp.h>

#include "broker/url.h"

/* Channels: answers to what is consumed do not wait behind a long body. */
enum { RS_SESSION_CONSUME = 1, RS_SESSION_PUBLISH = 2, RS_SESSION_CHANNELS };

/* Tags of the consumers. */
#define RS_SESSION_OWN "own"
#define RS_SESSION_SHARED "shared"

typedef struct rs_session {
  const rs_url *url;        /* lent */
  amqp_connection_state_t state;  /* NULL: there is none */
  bool broken;              /* nothing is written any more */
  bool refused;             /* what failed will not change by itself */
  char text[800];           /* what failed */

  pthread_mutex_t lock;     /* guards writes of what follows, for 'cut' */
  int fd;                   /* the open socket: a duplicate, since librabbitmq
                               closes its own inside of any call; or -1 */
} rs_session;

/* What is declared; names that are NULL are not. */
typedef struct rs_session_plan {
  const char *title;        /* of the connection */
  const char *queue;        /* as 'rs_amqp_options' has them */
  const char *own;
  const char *exchange;
  bool listens;
  unsigned prefetch;
} rs_session_plan;

void rs_session_init (rs_session *s, const rs_url *url);
void rs_session_fini (rs_session *s);

/*
 * Connect, log in, declare, and begin to consume.  A wait for the connection
 * ends when 'wake' is readable; those that come after it, with the time-out of
 * the URL.  False: 'text' says why not.
 */
bool rs_session_open (rs_session *s, const rs_session_plan *plan, int wake);

/* Close what is open; with a farewell, unless it is broken. */
void rs_session_close (rs_session *s);

/* End each call of librabbitmq that waits.  Any thread. */
void rs_session_cut (rs_session *s);

/* Note why the session fails, behind the URL: what librabbitmq returned. */
void rs_session_fail (rs_session *s, int status);
/* What the broker said. */
void rs_session_fail_as_said (rs_session *s, const char *what, unsigned code,
                              amqp_bytes_t said);
/* A text. */
void rs_session_fail_for (rs_session *s, const char *format, ...)
  __attribute__ ((format (printf, 2, 3)));

#endif
