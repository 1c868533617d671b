/* SPDX-License-Identifier: MIT */
/*
 * server.h - what works for a queue of a broker ('rs_server').
 *
 * A server has one connection, and as many workers as it may run calls at a
 * time: threads, each with a link to a process that has the runspace.  So many
 * messages of the shared queue are at the server, and some ahead, so that the
 * next one is there when a worker is free; each is a task:
 *
 *     asking --> ready --> told --> due --> running --> ended --> forgotten
 *        \---------\--------\-------\---------\--> dropped, or handed back
 *
 * A task is 'asking' when its caller has to say first that it may run, or to
 * send what this server lacks.  It is 'told' when its caller is being told
 * that it begins, and 'due' when the broker has confirmed that: only then may
 * a worker run it, so what the caller does not know to have begun has not
 * begun, whatever happens here.  It has ended when its result was sent; its
 * message is acknowledged when the broker has confirmed the result, or the
 * caller has seen it; and the task is forgotten when the caller has.
 *
 * Threads: that of the connection (server_mail.c), the workers (server_run.c),
 * and a clerk, who looks after all tasks now and then (server.c).  They share
 * one lock, which none of them holds while it calls the module, or a runner.
 */
#ifndef RS_SERVER_H
#define RS_SERVER_H

#include <pthread.h>

#include "base/list.h"
#include "pool/runner.h"
#include "reach/launch.h"
#include "reach/letter.h"

/* A caller that has sent calls. */
typedef struct rs_client {
  rs_list link;
  char name[RS_AMQP_NAME];  /* its queue */
  bool known;               /* it has answered; then the next two count */
  uint64_t from;            /* calls below this serial are asked for */
  double ahead;             /* seconds that its clock is ahead of ours */
  double missing;           /* instant since which it has no queue; 0: it has
                               one, as far as is known */
  bool dead;                /* that took too long */
  uint64_t voids[128];      /* serials of calls that are not to be begun */
  unsigned n_voids;
  unsigned tasks;           /* that it has here */
  double used;              /* instant of the last letter */
} rs_client;

/* Something that was told, until the caller has seen it. */
typedef struct rs_told {
  rs_list link;
  _Atomic unsigned refs;
  uint64_t number;          /* of the news */
  rs_buf letter;            /* sealed */
} rs_told;

typedef enum rs_task_state {
  RS_TASK_ASKING, RS_TASK_READY, RS_TASK_TOLD, RS_TASK_DUE, RS_TASK_RUNNING,
  RS_TASK_ENDED,
  RS_TASK_LEAVING           /* it goes back to the queue when the caller has
                               been told */
} rs_task_state;

typedef struct rs_server_task {
  rs_call call;             /* the worker's while it runs */
  rs_chunk chunk;
  _Atomic bool stop, failed;
  _Atomic size_t allowed;
  char *name;               /* owned, as the next one */
  char *why;                /* it ends without a result; the worker's */
  uint64_t serial;          /* constant, as the next four */
  unsigned priority;        /* of the message */
  rs_client *client;        /* lent; lives as long as its tasks */
  unsigned char need[3][RS_AMQP_HASH];  /* hashes: open, function, arguments */
  bool has_arguments;

  rs_message *have[3];      /* what has these hashes; a reference, or NULL.
                               Guarded by the lock, as the rest */
  rs_list link;             /* in 'tasks' */
  rs_task_state state;
  uint64_t tag;             /* of the message; 0: it is not ours any more */
  unsigned pins;            /* threads that are about to stop it */
  bool redelivered;
  bool dropped;             /* nobody waits for it */
  bool over;                /* the caller has seen its end */
  bool sent;                /* its result is with the broker */
  unsigned char nonce[RS_AMQP_HASH];
  double since;             /* instant at which it came, or was told */
  double told;              /* instant of the last letter */
  struct rs_server_worker *worker;  /* that runs it, or NULL */
  uint64_t number;          /* of the message with the result; 0: none */
  uint64_t pulse;           /* of the message that said last that it is here */
  uint64_t next;            /* number of the next news; the worker's */
  size_t unseen;            /* bytes of 'news' */
  rs_list news;             /* of rs_told */
} rs_server_task;

typedef struct rs_server_worker {
  struct rs_server *server;
  pthread_t thread;
  unsigned number;          /* from 1 */
  rs_cancel *cancel;        /* set before the server takes tasks */
  bool began;               /* the thread runs */
  rs_runner *runner;        /* NULL: none; only the thread has it, as the
                               rest */
  rs_runner_past past;
  rs_pool_options options;  /* that it was opened from */
  unsigned char open[RS_AMQP_HASH];  /* the hash of these */
} rs_server_worker;

/* What was sent once, by its hash. */
typedef struct rs_stored {
  rs_list link;             /* the latest is last */
  unsigned char hash[RS_AMQP_HASH];
  rs_message *what;         /* a reference; a message, or bytes in the form of
                               one */
} rs_stored;

struct rs_server {
  rs_desk desk;             /* constant, as all down to 'lock' */
  rs_amqp *amqp;
  char *queue, *own, *url;
  unsigned char *key;
  char host[128];
  pid_t pid;
  rs_launch *launch;        /* of the processes; owned */
  unsigned n_workers;
  rs_server_worker *workers;
  uint64_t max_jobs;        /* 0: any number */
  double idle;              /* seconds; 0: for ever */
  void (*log) (void *ud, const char *line);
  void *ud;
  pthread_t clerk;
  bool has_clerk;

  pthread_mutex_t lock;     /* guards the rest */
  rs_list clients, stored;
  rs_list tasks;            /* the most urgent is first */
  size_t stored_bytes;
  uint64_t numbers;         /* of messages whose confirmation matters */
  uint64_t begun;           /* tasks */
  unsigned running;
  double busy;              /* instant of the last task's end */
  double took;              /* seconds that a task takes, about */
  double hold;              /* seconds for which a task may wait here if
                               another server could take it */
  bool up, reached;
  double since;             /* instant at which it came up */
  char down[256];           /* why it is down; "": it is up */
  bool stopping;            /* no more tasks begin */
  bool closing;             /* the clerk ends */
  bool over;                /* nothing is left to be done */
  rs_error failure;         /* why it is over; RS_OK: as it should be */
  pthread_cond_t changed;   /* a task has been seen or dropped; 'stopping',
                               'closing' or 'over' was set */
  pthread_cond_t work;      /* a task is due; 'stopping' was set */
};

/* ---------------------------------------------------------- server_store.c */

void rs_server_log (rs_server *s, const char *format, ...)
  __attribute__ ((format (printf, 2, 3)));

/* What is stored under the hash, with a reference of the caller, or NULL. */
rs_message *rs_server_stored_locked (rs_server *s,
                                     const unsigned char hash[RS_AMQP_HASH]);

/* Store something, if its hash is that; false if it is not. */
bool rs_server_store_locked (rs_server *s,
                             const unsigned char hash[RS_AMQP_HASH],
                             rs_message *what, bool is_message);

/* Forget what was wanted least lately. */
void rs_server_forget_locked (rs_server *s);

/* ----------------------------------------------------------- server_book.c */

/* Free a task that has no worker. */
void rs_server_drop_task_locked (rs_server *s, rs_server_task *t);

/* Take no more tasks. */
void rs_server_quit_locked (rs_server *s);

/* ----------------------------------------------------------- server_mail.c */

extern const rs_amqp_user rs_server_user;

/* ----------------------------------------------------------- server_tell.c */

/* Do what is due now: ask again, tell that tasks run, drop those of callers
   that are gone. */
void rs_server_attend (rs_server *s);

/* Begin news of a task, which its worker runs. */
void rs_server_begin_news (rs_server *s, rs_server_task *t, rs_buf *b,
                           rs_news kind);

/* Send the news, which is owned then; 'last': the task has ended.  Waits while
   much has not been seen, but not for the last. */
void rs_server_tell (rs_server *s, rs_server_task *t, rs_buf *b, bool last);

/* ---------------------------------------------------------- server_ahead.c */

/* Messages that are at a server, at most. */
unsigned rs_server_prefetch (const rs_server *s);

/* Look after tasks that wait here; true if there are some. */
bool rs_server_sort (rs_server *s);

/* Hand back all tasks that have not begun. */
void rs_server_hand_back (rs_server *s);

/* ------------------------------------------------------------ server_run.c */

/* The thread of a worker; takes it. */
void *rs_server_work (void *worker);

/* Write what is printed while a task runs where the caller is. */
void rs_server_redirect (void);

#endif
