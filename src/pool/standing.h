/* SPDX-License-Identifier: MIT */
/*
 * standing.h - standing calls: what each runspace of a pool is to have run
 * before it runs jobs.
 *
 * A pool has a list of standing calls, in the order in which they were made,
 * and a worker knows how far its runspace has come in that list.  Before the
 * worker looks for any other work, it goes on from there:
 *
 *     a job waits for this worker    it was there when the call was made, and
 *                                    the caller has that job
 *     none does                      the runspace came later: the worker makes
 *                                    a job for it
 *
 * A new runspace begins at the start of the list.  So no job is handed to a
 * worker from outside: those that sit are called, and look.
 */
#ifndef RS_STANDING_H
#define RS_STANDING_H

#include "pool/job.h"

/* The standing calls of a pool, guarded by its lock. */
typedef struct rs_standings {
  rs_list calls;           /* references to rs_standing, in their order */
  rs_list returned;        /* references to jobs that their workers have given
                              back, until their runspaces are prepared */
  rs_list stranded;        /* references to jobs whose workers take no more
                              jobs: some thread is about to end them */
  size_t waiting;          /* jobs in these two, and in 'waiting' of calls */
  uint64_t last;           /* number of the last call; 0: there was none */
} rs_standings;

struct rs_standing {
  _Atomic unsigned refs;   /* of the pool, the caller, and workers that run
                              it */
  rs_list link;            /* in 'calls'; guarded by the lock of the pool, as
                              the next four */
  rs_list waiting;         /* references to jobs for workers that have not
                              begun them: 'rs_job.worker' is whose they are */
  bool withdrawn;          /* runspaces that come are not concerned */
  size_t known;            /* of 'hosts' */
  const char **hosts;      /* owned, with room for all: where it ran, or runs;
                              names that live as long as the pool */

  uint64_t number;         /* from 1 on; constant once it is in the list, as
                              all that follows */
  bool each_host;          /* it runs once for each host */
  rs_message *function;    /* owned */
  rs_message *arguments;   /* owned, or NULL */
  rs_job_options options;  /* of its jobs: 'name' is owned, 'events' held */
  rs_pool *pool;           /* the caller's handle holds it */
  rs_job **jobs;           /* of the handle: references */
  size_t n;                /* of 'jobs' */
};

void rs_standings_init (rs_standings *s);

/* Let the pool forget its standing calls: moves the references to 'gone', for
   'rs_standings_free', which is to be called without the lock.  'all': also
   those that are not withdrawn.  Calls for which jobs wait stay. */
void rs_standings_prune_locked (rs_standings *s, bool all, rs_list *gone);
void rs_standings_free (rs_list *gone);

void rs_standing_unref (rs_standing *c);

/* New job of the call, for the worker with that number, with two references;
   NULL when out of memory. */
rs_job *rs_standing_job_new (rs_standing *c, rs_queue *queue, unsigned worker);

/* Let the job wait for its worker; takes over a reference. */
void rs_standings_wait_locked (rs_standings *s, rs_standing *c, rs_job *job);

/*
 * The call that comes next for a worker, a reference, or NULL: there is none.
 * 'host' is where the runspace is, or NULL.  '*stood' is the number of the
 * last call that the runspace has come to, and goes on.  '*job' becomes the
 * job that waits for the worker, a reference; NULL: the worker is to make one.
 * With 'only' just jobs that wait are looked for.
 */
rs_standing *rs_standings_next_locked (rs_standings *s, unsigned worker,
                                       const char *host, bool only,
                                       uint64_t *stood, rs_job **job);

/* Let the job, which is of no standing call, wait until its worker takes it
   again; takes over a reference.  And take the one that the worker has given
   back, a reference, or NULL. */
void rs_standings_return_locked (rs_standings *s, rs_job *job);
rs_job *rs_standings_take_back_locked (rs_standings *s, unsigned worker);

/* The call has not completed at the host: another runspace there is to run
   it. */
void rs_standing_miss_locked (rs_standing *c, const char *host);

/* Take out 'job', if it waits for its worker; or any job that does, or
   NULL. */
bool rs_standings_claim_locked (rs_standings *s, rs_job *job);
rs_job *rs_standings_claim_any_locked (rs_standings *s);

/* The worker with that number takes no more jobs: what waits for it is
   stranded. */
void rs_standings_strand_locked (rs_standings *s, unsigned worker);

#endif
