/* SPDX-License-Identifier: MIT */
/*
 * amqp.h - the module of the broker: a connection to RabbitMQ.
 *
 * All that knows AMQP, librabbitmq and libcrypto is in a shared object of its
 * own (runspace-broker.so), which the core loads by dlopen(3) when a pool, or
 * 'runspace --serve', names a broker.  It exports one symbol, RS_AMQP_SYMBOL,
 * a table of functions, and needs nothing of the core.
 *
 * A connection has a thread of its own, which alone calls librabbitmq: it
 * connects, answers heartbeats whether anything else happens or not, and
 * connects again after a random part of a delay that grows from 0.1 to 4 s.
 *
 *     down --> up --> down --> up ...          until 'close'
 *       \--> refused                           nothing will change that
 *
 * Each time that it comes up it declares what 'rs_amqp_options' names, begins
 * to consume, and calls 'up'.  What was published and not confirmed, and what
 * was delivered and not acknowledged, is forgotten when the connection goes
 * down: the user of this layer knows what to send again.
 *
 * The thread of the connection calls all functions of 'rs_amqp_user', one at a
 * time and without a lock.  They do not wait.  They may call 'publish',
 * 'acknowledge' and 'reject', as any other thread may, but not 'close'.
 */
#ifndef RS_AMQP_H
#define RS_AMQP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "runspace.h"

enum {
  RS_AMQP_VERSION = 1,      /* of this interface */
  RS_AMQP_PRIORITIES = 10,  /* of the queue: 'x-max-priority' */
  RS_AMQP_NAME = 256,       /* bytes of the name of a queue, with its end */
  RS_AMQP_HASH = 32         /* bytes of a hash (SHA-256) */
};

/* Bytes of one AMQP message, at most.  A longer body for a queue of which one
   connection is the only consumer is cut, and put together again there.  A
   body for the shared queue is never longer. */
#define RS_AMQP_PART ((size_t) 8 << 20)

/* Most bytes of a body that is put together. */
#define RS_AMQP_MOST ((size_t) 1 << (sizeof(size_t) > 4 ? 33 : 30))

typedef struct rs_amqp rs_amqp;   /* a connection */

/* A message that has come. */
typedef struct rs_amqp_delivery {
  const unsigned char *body;  /* lent, until the function returns */
  size_t size;
  bool shared;              /* from the shared queue: it is to be acknowledged
                               or rejected by its tag; else from 'own' */
  uint64_t tag;             /* never the same twice in a process */
  bool redelivered;         /* a consumer had it before, or may have had it */
  unsigned priority;        /* as it was published */
} rs_amqp_delivery;

/* Who uses a connection. */
typedef struct rs_amqp_user {
  /* It is up, all is declared, and messages may be published. */
  void (*up) (void *ud);

  /* It went down, or did not come up; 'text' says why, with the URL without
     its password.  'refused': the broker is there and does not want us (wrong
     credentials, no such vhost, a queue of another kind, a certificate that
     does not fit), or the URL is none.  After a refusal the connection is
     tried again only if it was up before. */
  void (*down) (void *ud, const char *text, bool refused);

  void (*deliver) (void *ud, const rs_amqp_delivery *delivery);

  /* The broker has taken the message that was published under this number,
     which is not 0.  'routed': it is in a queue; false: there is no such queue
     (any more).  Called once for each, or never if the connection went
     down. */
  void (*confirm) (void *ud, uint64_t number, bool routed);

  /* The answer to 'look'. */
  void (*count) (void *ud, uint64_t messages, uint64_t consumers);
} rs_amqp_user;

/* All pointers are lent until 'open' returns, but for 'user' and 'ud'. */
typedef struct rs_amqp_options {
  /*
   * amqp[s]://[USER[:PASSWORD]@]HOST[:PORT][/VHOST][?NAME=VALUE&...]
   *
   * With RabbitMQ's own names: cacertfile, certfile, keyfile, verify
   * (verify_peer, which is the default, or verify_none),
   * server_name_indication, heartbeat (seconds; 10 by default),
   * connection_timeout (milliseconds); and passwordfile, a file whose first
   * line is the password.  Without one in either place the environment's
   * RUNSPACE_BROKER_PASSWORD is; "guest" for the user "guest".
   */
  const char *url;
  const char *title;        /* connection's name, for those who operate the
                               broker */
  const char *queue;        /* shared: durable, with priorities */
  const char *own;          /* exclusive to the connection, and consumed
                               without acknowledgements */
  const char *exchange;     /* durable, fanout */
  bool listens;             /* 'own' is bound to 'exchange' */
  unsigned prefetch;        /* consume 'queue', with so many messages that are
                               not acknowledged; 0: do not */
  const rs_amqp_user *user;
  void *ud;
} rs_amqp_options;

/* Where a message goes. */
typedef enum rs_amqp_target {
  RS_AMQP_SHARED,           /* the shared queue: persistent */
  RS_AMQP_QUEUE,            /* the queue 'name' of another connection */
  RS_AMQP_EXCHANGE          /* all that listen */
} rs_amqp_target;

typedef struct rs_amqp_message {
  rs_amqp_target target;
  const char *name;         /* of the queue; lent */
  uint64_t number;          /* for 'confirm'; 0: nobody asks */
  unsigned priority;        /* from 0 to RS_AMQP_PRIORITIES */
  const struct iovec *parts;  /* of the body: copied */
  int n;
  bool waits;               /* wait while a few MiB are to be written; never in
                               a function of 'rs_amqp_user' */
} rs_amqp_message;

typedef struct rs_amqp_module {
  unsigned version;         /* RS_AMQP_VERSION */

  /* Start a connection; it is down at first.  '*out' is set before a function
     of the user is called.  RS_OK, RS_ENOMEM, RS_ETHREAD, or
     RS_EINVAL for a URL that is none. */
  int (*open) (const rs_amqp_options *options, rs_amqp **out, rs_error *err);

  /* Publish a message.  Messages of one thread to one queue stay in order.
     RS_OK; RS_ENOMEM; RS_ECLOSED: it is down, and nothing was sent; RS_EFULL:
     more than RS_AMQP_PART bytes for the shared queue, or too many for any. */
  int (*publish) (rs_amqp *a, const rs_amqp_message *message);

  /* End a delivery: it is done, or goes back to the queue ('requeue').  A tag
     of an earlier connection is ignored. */
  void (*acknowledge) (rs_amqp *a, uint64_t tag);
  void (*reject) (rs_amqp *a, uint64_t tag, bool requeue);

  /* Take no more from the shared queue.  What was delivered before stays the
     caller's.  Deliveries that are under way may still come. */
  void (*quit) (rs_amqp *a);

  /* Ask how many messages wait in the shared queue, and how many consume
     it. */
  void (*look) (rs_amqp *a);

  /* Write what is to be written and confirmed, for at most 'seconds', close,
     and wait for the thread.  A search for the host, or a handshake of TLS,
     that has begun is not cut short: the latter ends with the URL's
     'connection_timeout'.  No function of the user is called after that.
     Accepts NULL. */
  void (*close) (rs_amqp *a, double seconds);

  /* Write the URL as messages show it: without a password, and without what
     follows '?'. */
  void (*show) (const char *url, char *text, size_t size);

  /* SHA-256; HMAC of that with a key; random bytes for names and nonces
     (false: the system has none).  Equality in constant time. */
  void (*hash) (const struct iovec *parts, int n,
                unsigned char out[RS_AMQP_HASH]);
  void (*sign) (const void *key, size_t size, const struct iovec *parts,
                int n, unsigned char out[RS_AMQP_HASH]);
  bool (*random) (void *out, size_t size);
  bool (*equal) (const unsigned char a[RS_AMQP_HASH],
                 const unsigned char b[RS_AMQP_HASH]);
} rs_amqp_module;

/* The name of the table, an 'rs_amqp_module', for dlsym(3). */
#define RS_AMQP_SYMBOL "rs_amqp_module_table"

#endif
