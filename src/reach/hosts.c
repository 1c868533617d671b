/* SPDX-License-Identifier: MIT */
/*
 * hosts.c - where the workers of a pool are that a command brings up.
 */
#include "reach/hosts.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "base/words.h"

enum {
  STARTING = 8,            /* ssh that start at once: a server with its usual
                              settings refuses more than 10 */
  DOUBLED = 6,             /* times that the pause after a failure doubles */
  WHY = 240                /* bytes of a failure */
};

#define TURN 0.02          /* seconds between two looks for a turn to start */
#define PAUSE 0.1          /* seconds that a host is left alone at first */

/* What ssh is told behind the words of the option, which so count more. */
static const char *const ssh_options[] = {
  "-T", "-oBatchMode=yes", "-oConnectTimeout=10", "-oServerAliveInterval=10",
  "-oServerAliveCountMax=3", NULL
};

typedef struct rs_berth {
  rs_host host;            /* constant, as the next four; the names and words
                              are owned */
  char *name;
  char **words;
  unsigned most;           /* workers that it may have */
  unsigned weight;         /* its share */

  unsigned taken;          /* workers; guarded by the lock of the hosts, as all
                              below */
  bool reached;            /* a worker came up there */
  unsigned failures;       /* in a row */
  double until;            /* instant until which it is left alone; or 0 */
  char why[WHY];           /* the last failure, or "" */
} rs_berth;

struct rs_hosts {
  pthread_mutex_t lock;    /* guards down to the blank line */
  unsigned starting;       /* workers that are coming up */
  uint64_t noise;          /* state of random numbers */

  size_t n;                /* constant, as the next one */
  bool ssh;
  rs_berth berths[];
};

/* -------------------------------------------------------------- life cycle */

/* The name of a program, without its folder. */
static const char *
base_name (const char *path)
{
  const char *const slash = strrchr(path, '/');
  return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

/* The command that a shell on the host runs, in quotes that it takes off; the
   caller owns it.  NULL: no memory. */
static char *
far_command (const char *program)
{
  static const char end[] = "' --worker", plain[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./~";
  const char *const path = program != NULL ? program : "runspace";
  char *const text = malloc(4 * strlen(path) + sizeof end + 1);
  char *at = text;
  if (text == NULL)
    return NULL;
  if (strspn(path, plain) == strlen(path)) {  /* '~' is the shell's */
    sprintf(text, "%s --worker", path);
    return text;
  }
  *at++ = '\'';
  for (const char *s = path; *s != '\0'; s++)
    if (*s == '\'')
      at = (char *) memcpy(at, "'\\''", 4) + 4;
    else
      *at++ = *s;
  memcpy(at, end, sizeof end);
  return text;
}

/* Make the words of ssh: those of the option, ours, the host, the command. */
static char **
ssh_words (const rs_pool_options *o, const char *host)
{
  static const char *const plain[] = { "ssh", NULL };
  const char *const *const first = o->ssh != NULL ? o->ssh : plain;
  const size_t n = rs_words_count(first);
  const size_t more = rs_words_count(ssh_options);
  char *const command = far_command(o->runspace);
  const char **const all = calloc(n + more + 3, sizeof *all);
  char **words = NULL;
  if (command != NULL && all != NULL) {
    memcpy(all, first, n * sizeof *all);
    memcpy(all + n, ssh_options, more * sizeof *all);
    all[n + more] = host;
    all[n + more + 1] = command;
    words = rs_words_copy(all);
  }
  free(all);
  free(command);
  return words;
}

/* Workers that a host without a number may have; a command has as many as its
   pool, which may grow. */
static unsigned
most_of (const rs_pool_options *o)
{
  if (o->hosts == NULL)
    return RS_WORKERS_MAX;
  uint64_t named = 0;
  rs_host_name h;
  for (size_t i = 0; o->hosts[i] != NULL; i++)
    named += rs_host_read(o->hosts[i], &h, NULL) == RS_OK && h.workers > 0
             ? h.workers : 1;
  return o->max > named ? o->max : 1;
}

/* Make a berth: of a host, or of the command, with 'most' workers if nothing
   else is said.  False: no memory. */
static bool
berth_init (rs_berth *b, const rs_pool_options *o, const char *text,
            unsigned most)
{
  rs_host_name h = { .workers = 0 };
  if (text == NULL) {
    b->name = strdup(base_name(o->command[0]));
    b->words = rs_words_copy(o->command);
  }
  else if (rs_host_read(text, &h, NULL) == RS_OK
           && (b->name = strndup(h.name, h.length)) != NULL)
    b->words = ssh_words(o, b->name);
  b->most = h.workers > 0 ? h.workers : most;
  b->weight = h.workers > 0 ? h.workers : 1;
  b->host = (rs_host) {
    .name = b->name, .words = (const char *const *) b->words,
    .ssh = text != NULL, .own = b
  };
  return b->name != NULL && b->words != NULL;
}

int
rs_hosts_new (const rs_pool_options *options, rs_hosts **out, rs_error *err)
{
  const size_t n = options->hosts != NULL ? rs_words_count(options->hosts) : 1;
  const unsigned most = most_of(options);
  rs_hosts *const h = calloc(1, sizeof *h + n * sizeof h->berths[0]);
  if (h == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  rs_mutex_init(&h->lock);
  h->ssh = options->hosts != NULL;
  h->n = n;
  h->noise = (uint64_t) (rs_now() * 1e9) ^ (uintptr_t) h;
  for (size_t i = 0; i < n; i++)
    if (!berth_init(&h->berths[i], options,
                    h->ssh ? options->hosts[i] : NULL, most)) {
      rs_hosts_free(h);
      return rs_fail_plain(err, RS_ENOMEM);
    }
  *out = h;
  return RS_OK;
}

void
rs_hosts_free (rs_hosts *h)
{
  if (h == NULL)
    return;
  for (size_t i = 0; i < h->n; i++) {
    free(h->berths[i].name);
    rs_words_free(h->berths[i].words);
  }
  pthread_mutex_destroy(&h->lock);
  free(h);
}

/* ---------------------------------------------------------------- choosing */

/* A number from 0.5 to 1.5, so that what failed together is not tried
   together. */
static double
scatter_locked (rs_hosts *h)
{
  h->noise ^= h->noise << 13;
  h->noise ^= h->noise >> 7;
  h->noise ^= h->noise << 17;
  return 0.5 + (double) (h->noise >> 11) / (double) (UINT64_C(1) << 53);
}

/* The berth that has room, is up, and has the fewest workers for its share;
   NULL: none. */
static rs_berth *
choose_locked (rs_hosts *h, double now)
{
  rs_berth *best = NULL;
  for (size_t i = 0; i < h->n; i++) {
    rs_berth *const b = &h->berths[i];
    if (b->taken < b->most && b->until <= now
        && (best == NULL || (uint64_t) b->taken * best->weight
                            < (uint64_t) best->taken * b->weight))
      best = b;
  }
  return best;
}

/* The next instant at which a berth that was reached before may be up again;
   RS_NEVER: none has room. */
static double
next_locked (const rs_hosts *h)
{
  double next = RS_NEVER;
  for (size_t i = 0; i < h->n; i++) {
    const rs_berth *const b = &h->berths[i];
    if (b->taken < b->most && b->reached && b->until < next)
      next = b->until;
  }
  return next;
}

/* Tell what does not work: the failures of hosts, each with its name. */
static void
tell_locked (const rs_hosts *h, char *text, size_t size)
{
  size_t n = 0;
  text[0] = '\0';
  for (size_t i = 0; i < h->n; i++)
    if (h->berths[i].why[0] != '\0' && n + 1 < size)
      n += (size_t) snprintf(text + n, size - n, "%s%s", n > 0 ? "; " : "",
                             h->berths[i].why);
}

void
rs_hosts_trouble (rs_hosts *h, char *text, size_t size)
{
  pthread_mutex_lock(&h->lock);
  tell_locked(h, text, size);
  pthread_mutex_unlock(&h->lock);
}

static int
fail_locked (const rs_hosts *h, rs_error *err)
{
  char all[1024];
  tell_locked(h, all, sizeof all);
  return rs_fail(err, RS_EFAILED, "%s",
                 all[0] != '\0' ? all : "no host has room for a worker");
}

int
rs_hosts_take (rs_hosts *h, double patience, const rs_host **out,
               double *pause, rs_error *err)
{
  const double now = rs_now();
  int status = RS_OK;
  pthread_mutex_lock(&h->lock);
  rs_berth *const b = choose_locked(h, now);
  const double next = next_locked(h);
  if (b != NULL && h->ssh && h->starting >= STARTING) {
    *pause = TURN * scatter_locked(h);
    status = RS_EBUSY;
  }
  else if (b != NULL) {
    b->taken++;
    h->starting++;
    *out = &b->host;
  }
  else if (next < patience) {
    *pause = next > now ? next - now : 0;
    status = RS_EBUSY;
  }
  else
    status = fail_locked(h, err);
  pthread_mutex_unlock(&h->lock);
  return status;
}

void
rs_hosts_tell (rs_hosts *h, const rs_host *host, const char *failure,
               bool again)
{
  rs_berth *const b = host->own;
  pthread_mutex_lock(&h->lock);
  h->starting--;
  if (failure == NULL) {
    b->reached = true;
    b->failures = 0;
    b->until = 0;
    b->why[0] = '\0';
  }
  else {
    b->taken--;
    if (!again) {
      snprintf(b->why, sizeof b->why, "%s", failure);
      b->until = rs_now() + PAUSE * (double) (1u << b->failures)
                            * scatter_locked(h);
      if (b->failures < DOUBLED)
        b->failures++;
    }
  }
  pthread_mutex_unlock(&h->lock);
}

void
rs_hosts_leave (rs_hosts *h, const rs_host *host)
{
  pthread_mutex_lock(&h->lock);
  host->own->taken--;
  pthread_mutex_unlock(&h->lock);
}

size_t
rs_hosts_get (rs_hosts *h, rs_host_info *out, size_t room)
{
  if (!h->ssh)
    return 0;
  pthread_mutex_lock(&h->lock);
  for (size_t i = 0; i < h->n && i < room; i++) {
    const rs_berth *const b = &h->berths[i];
    memset(&out[i], 0, sizeof out[i]);
    snprintf(out[i].name, sizeof out[i].name, "%s", b->name);
    snprintf(out[i].failure, sizeof out[i].failure, "%s", b->why);
    out[i].workers = b->taken;
    out[i].max = b->most;
  }
  pthread_mutex_unlock(&h->lock);
  return h->n;
}
