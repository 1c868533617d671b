/* SPDX-License-Identifier: MIT */
/*
 * ring.c - bytes both ways between this process and a child, through memory
 * that both have.
 *
 * A sleeper and a waker do not miss each other: one stores the number of its
 * wait and then loads a count, the other one stores the count and then loads
 * the number.  All four are in one order (memory_order_seq_cst), so one of the
 * two sees what the other one has stored.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* memfd_create, MSG_NOSIGNAL */
#endif
#include "reach/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/futex.h>

#include "base/spin.h"
#include "reach/process.h"

enum {
  PIECE = 128 << 10,       /* bytes that are copied before the other side is
                              told */
  SHORT = 4096,            /* bytes of a short message, at most */
  SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL
};

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u  /* since Linux 6.3 */
#endif

#ifdef SYS_futex
#define FUTEX SYS_futex
#else
#define FUTEX SYS_futex_time64  /* no time is given, so they are the same */
#endif

enum { ALL = RS_RING_HEAD + 2 * RS_RING_BYTES };

_Static_assert(sizeof(rs_ring_head) <= RS_RING_HEAD, "the head has its room");
_Static_assert((RS_RING_BYTES & (RS_RING_BYTES - 1)) == 0, "a power of two");
_Static_assert(sizeof(_Atomic uint32_t) == 4, "futex(2) wants a plain word");

static const char magic[RS_RING_MAGIC] = "runspace ring 1";

struct rs_ring {
  rs_ring_head *memory;
  rs_ring_counts *own, *far;
  int bell;                /* the worker's socket; -1: this is the host */

  struct {                 /* of the thread that writes */
    unsigned char *data;
    uint32_t written;      /* so far, as in 'own' */
    uint32_t read;         /* by the far side, as believed last */
    uint32_t told;         /* the wait of the far side that was ended last */
    uint32_t waits;        /* number of the last wait of ours; none has 0 */
    const char *lie;
  } out;

  struct {                 /* of the thread that reads */
    unsigned char *data;
    uint32_t written;      /* by the far side, as believed last */
    uint32_t read;
    uint32_t told;
    uint32_t waits;
    const char *lie;
  } in;

  bool joined;             /* the far side has written something */
  bool may_look;           /* the host: what it has told the worker */
  uint64_t asked, heard;   /* the host: bells that the worker may have rung,
                              and has */
  const char *lie;         /* of bells */
};

/* -------------------------------------------------------------- life cycle */

/* Map the memory, and make a side of it. */
static rs_ring *
map (int fd, int bell)
{
  rs_ring *const r = calloc(1, sizeof *r);
  void *const at = r == NULL ? MAP_FAILED
                 : mmap(NULL, ALL, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    free(r);
    return NULL;
  }
  unsigned char *const data = (unsigned char *) at + RS_RING_HEAD;
  const bool host = bell < 0;
  r->memory = at;
  r->own = host ? &r->memory->host : &r->memory->worker;
  r->far = host ? &r->memory->worker : &r->memory->host;
  r->out.data = host ? data : data + RS_RING_BYTES;
  r->in.data = host ? data + RS_RING_BYTES : data;
  r->bell = bell;
  return r;
}

/* Make the memory: where the system may insist on it, as one that is no
   program. */
static int
make_memory (void)
{
  static const char name[] = "runspace-ring";
  const int fd = memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
  return fd >= 0 ? fd : memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

rs_ring *
rs_ring_new (int *out)
{
  int fd = make_memory();
  if (fd >= 0)
    fd = rs_process_raise(fd);
  if (fd < 0)
    return NULL;
  rs_ring *const r = ftruncate(fd, ALL) == 0
                  && fcntl(fd, F_ADD_SEALS, SEALS) == 0 ? map(fd, -1) : NULL;
  if (r == NULL) {
    close(fd);
    return NULL;
  }
  memcpy(r->memory->magic, magic, sizeof magic);
  *out = fd;
  return r;
}

/* Is the descriptor that of a ring? */
static bool
is_ring (int fd)
{
  struct stat info;
  char found[sizeof magic];
  const int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & SEALS) == SEALS
      && fstat(fd, &info) == 0 && info.st_size == ALL
      && pread(fd, found, sizeof found, 0) == sizeof found
      && memcmp(found, magic, sizeof magic) == 0;
}

rs_ring *
rs_ring_join (int bell)
{
  int type;
  socklen_t size = sizeof type;
  if (getsockopt(bell, SOL_SOCKET, SO_TYPE, &type, &size) != 0
      || !is_ring(RS_RING_FD))
    return NULL;
  rs_ring *const r = map(RS_RING_FD, bell);
  close(RS_RING_FD);
  return r;
}

void
rs_ring_free (rs_ring *r)
{
  if (r == NULL)
    return;
  munmap(r->memory, ALL);
  free(r);
}

const char *
rs_ring_lie (const rs_ring *r)
{
  return r->in.lie != NULL ? r->in.lie : r->out.lie != NULL ? r->out.lie
       : r->lie != NULL ? r->lie : "";
}

/* ----------------------------------------------------------------- copying */

/* Wake the far side, which sleeps at 'count' of ours. */
static void
wake (const rs_ring *r, _Atomic uint32_t *count)
{
  static const unsigned char byte = RS_RING_BELL;
  if (r->bell < 0)
    syscall(FUTEX, count, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
  else if (send(r->bell, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
    return;  /* it is full of bells, or nobody is there */
}

/* Tell the far side a count.  'wait' is where it says that it sleeps until
   then, '*told' the wait that was ended last. */
static void
publish (const rs_ring *r, _Atomic uint32_t *count, uint32_t n,
         const _Atomic uint32_t *wait, uint32_t *told)
{
  atomic_store(count, n);
  const uint32_t number = atomic_load(wait);
  if (number == 0 || number == *told)
    return;
  *told = number;
  wake(r, count);
}

/* A count of the far side has gone on by 'moved', and can go on by 'most'.
   What is wrong with that, or NULL. */
static const char *
find_lie (uint32_t moved, uint32_t most, const char *beyond, const char *back)
{
  return moved <= most ? NULL : moved <= UINT32_MAX / 2 ? beyond : back;
}

/* Copy from the ring, or into it, at most up to the end of its memory. */
static size_t
step (uint32_t at, size_t n)
{
  const size_t left = RS_RING_BYTES - at % RS_RING_BYTES;
  n = n < left ? n : left;
  return n < PIECE ? n : PIECE;
}

ssize_t
rs_ring_read (rs_ring *r, const struct iovec *parts, int n)
{
  size_t copied = 0, unsaid = 0;
  const uint32_t now = atomic_load_explicit(&r->far->written,
                                            memory_order_acquire);
  r->in.lie = find_lie(now - r->in.written,
                       RS_RING_BYTES - (r->in.written - r->in.read),
                       "it has written more than its ring has room for",
                       "it has taken back what it wrote to its ring");
  if (r->in.lie != NULL)
    return -1;
  r->in.written = now;
  for (int i = 0; i < n; i++) {
    unsigned char *to = parts[i].iov_base;
    size_t want = parts[i].iov_len;
    while (want > 0 && r->in.read != now) {
      const size_t there = now - r->in.read;
      const size_t some = step(r->in.read, want < there ? want : there);
      memcpy(to, r->in.data + r->in.read % RS_RING_BYTES, some);
      r->in.read += (uint32_t) some;
      to += some;
      want -= some;
      copied += some;
      unsaid += some;
      if (unsaid >= PIECE) {
        publish(r, &r->own->read, r->in.read, &r->far->writes, &r->in.told);
        unsaid = 0;
      }
    }
  }
  /* From here on the copy is what counts, whatever the ring has by now. */
  atomic_signal_fence(memory_order_seq_cst);
  if (unsaid > 0)
    publish(r, &r->own->read, r->in.read, &r->far->writes, &r->in.told);
  r->joined = r->joined || copied > 0;
  return (ssize_t) copied;
}

/* A worker cannot count the threads that are awake here. */
static void
tell_whether_to_look (rs_ring *r)
{
  const bool may = r->bell < 0 && rs_spin_is_free();
  if (may == r->may_look)
    return;
  r->may_look = may;
  atomic_store_explicit(&r->own->may_look, may, memory_order_relaxed);
}

ssize_t
rs_ring_write (rs_ring *r, const struct iovec *parts, int n)
{
  size_t copied = 0, unsaid = 0;
  const uint32_t now = atomic_load_explicit(&r->far->read,
                                            memory_order_acquire);
  r->out.lie = find_lie(now - r->out.read, r->out.written - r->out.read,
                        "it has read more than its ring had",
                        "it has given back what it read from its ring");
  if (r->out.lie != NULL)
    return -1;
  r->out.read = now;
  tell_whether_to_look(r);
  for (int i = 0; i < n; i++) {
    const unsigned char *from = parts[i].iov_base;
    size_t want = parts[i].iov_len;
    while (want > 0 && r->out.written - now != RS_RING_BYTES) {
      const size_t room = RS_RING_BYTES - (r->out.written - now);
      const size_t some = step(r->out.written, want < room ? want : room);
      memcpy(r->out.data + r->out.written % RS_RING_BYTES, from, some);
      r->out.written += (uint32_t) some;
      from += some;
      want -= some;
      copied += some;
      unsaid += some;
      if (unsaid >= PIECE) {
        publish(r, &r->own->written, r->out.written, &r->far->reads,
                &r->out.told);
        unsaid = 0;
      }
    }
  }
  if (unsaid > 0)
    publish(r, &r->own->written, r->out.written, &r->far->reads,
            &r->out.told);
  return (ssize_t) copied;
}

uint32_t
rs_ring_place (const rs_ring *r)
{
  return r->out.written;
}

bool
rs_ring_has_read (const rs_ring *r, uint32_t place)
{
  const uint32_t read = atomic_load(&r->far->read);
  return r->out.written - read < r->out.written - place;
}

/* ----------------------------------------------------------------- waiting */

bool
rs_ring_is_ready (const rs_ring *r, short events)
{
  if ((events & POLLIN) != 0
      && atomic_load(&r->far->written) != r->in.read)
    return true;
  return (events & POLLOUT) != 0
      && r->out.written - atomic_load(&r->far->read) != RS_RING_BYTES;
}

bool
rs_ring_has_room (const rs_ring *r)
{
  const uint32_t used = r->out.written - atomic_load(&r->far->read);
  return used <= RS_RING_BYTES - SHORT;
}

typedef struct look {
  const rs_ring *ring;
  short events;
} look;

static bool
is_ready (const void *ud)
{
  const look *const l = ud;
  return rs_ring_is_ready(l->ring, l->events);
}

bool
rs_ring_look (const rs_ring *r, short events)
{
  const look l = { r, events };
  if (r->bell < 0 || atomic_load_explicit(&r->far->may_look,
                                          memory_order_relaxed) != 0)
    rs_spin_handed(is_ready, &l);
  return rs_ring_is_ready(r, events);
}

/* The number of the next wait. */
static uint32_t
next_wait (uint32_t *waits)
{
  return ++*waits != 0 ? *waits : ++*waits;
}

void
rs_ring_sleep (rs_ring *r, short events)
{
  const bool reads = events == POLLIN;
  _Atomic uint32_t *const wait = reads ? &r->own->reads : &r->own->writes;
  _Atomic uint32_t *const count = reads ? &r->far->written : &r->far->read;
  const uint32_t seen = reads ? r->in.read : r->out.written - RS_RING_BYTES;
  atomic_store(wait, next_wait(reads ? &r->in.waits : &r->out.waits));
  if (atomic_load(count) == seen)
    syscall(FUTEX, count, FUTEX_WAIT, seen, NULL, NULL, 0);
  atomic_store_explicit(wait, 0, memory_order_relaxed);
}

bool
rs_ring_begin_sleep (rs_ring *r, short events)
{
  if ((events & POLLIN) != 0) {
    atomic_store(&r->own->reads, next_wait(&r->in.waits));
    r->asked++;
  }
  if ((events & POLLOUT) != 0) {
    atomic_store(&r->own->writes, next_wait(&r->out.waits));
    r->asked++;
  }
  if (!rs_ring_is_ready(r, events))
    return true;
  rs_ring_end_sleep(r);
  return false;
}

void
rs_ring_end_sleep (rs_ring *r)
{
  atomic_store_explicit(&r->own->reads, 0, memory_order_relaxed);
  atomic_store_explicit(&r->own->writes, 0, memory_order_relaxed);
}

bool
rs_ring_hear (rs_ring *r, const unsigned char *bytes, size_t n)
{
  for (size_t i = 0; i < n; i++)
    if (bytes[i] != RS_RING_BELL)
      r->lie = "something else than a bell came through its socket";
    else if (r->heard++ == r->asked)
      r->lie = "it has rung more often than it was asked to";
  return r->lie == NULL;
}

bool
rs_ring_is_joined (const rs_ring *r)
{
  return r->joined || rs_ring_is_ready(r, POLLIN);
}
