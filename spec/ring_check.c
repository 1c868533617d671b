/* SPDX-License-Identifier: MIT */
/*
 * ring_check.c - bytes through memory that two processes have: what is written
 * comes, both ways, in whatever pieces; sleepers are woken; a far side that
 * lies loses its link, and no more; without a ring the socket alone serves.
 *
 * The program is its own worker: started with --worker it serves, with or
 * without the ring, or greets, and answers a call with the lie that the
 * environment names.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* POLLRDHUP */
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/check.h"

#include "base/spin.h"
#include "reach/exchange.h"
#include "reach/frame.h"
#include "reach/ring.h"

/* ----------------------------------------------------- both sides, in here */

/* A ring whose two sides are in this process. */
typedef struct pair {
  rs_ring *host, *worker;
  int sockets[2];           /* of the host, of the worker */
  rs_ring_head *head;       /* a mapping of our own, to lie in */
} pair;

static pair
open_pair (void)
{
  pair p;
  int fd = -1;
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p.sockets) == 0);
  /* The place where the worker will look for it is kept free. */
  for (int i = 0; i < 2; i++) {
    const int high = fcntl(p.sockets[i], F_DUPFD_CLOEXEC, 10);
    REQUIRE(high >= 0);
    close(p.sockets[i]);
    p.sockets[i] = high;
  }
  p.host = rs_ring_new(&fd);
  REQUIRE(p.host != NULL);
  p.head = mmap(NULL, RS_RING_HEAD, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(p.head != MAP_FAILED);
  if (fd != RS_RING_FD) {
    REQUIRE(dup2(fd, RS_RING_FD) == RS_RING_FD);
    close(fd);
  }
  p.worker = rs_ring_join(p.sockets[1]);
  REQUIRE(p.worker != NULL);
  CHECK(fcntl(RS_RING_FD, F_GETFD) == -1 && errno == EBADF);
  return p;
}

static void
close_pair (pair *p)
{
  rs_ring_free(p->host);
  rs_ring_free(p->worker);
  munmap(p->head, RS_RING_HEAD);
  close(p->sockets[0]);
  close(p->sockets[1]);
}

/* What stands at place 'at' of a stream. */
static unsigned char
byte_at (size_t at)
{
  return (unsigned char) (at * 2654435761u >> 13);
}

/* The sizes of pieces: small ones, and now and then one that is larger than
   the ring. */
static size_t
next_size (unsigned *seed)
{
  *seed = *seed * 1103515245u + 12345u;
  const unsigned n = *seed >> 8;
  return n % 50 == 0 ? n % (3 * RS_RING_BYTES) + 1
       : n % 3 == 0 ? n % 70000 + 1 : n % 40 + 1;
}

enum { MOST = 3 * RS_RING_BYTES + 1, TOTAL = 48 << 20 };

/* One end of the pair. */
typedef struct end {
  rs_ring *ring;
  int fd;                   /* the host: its socket; the worker: -1 */
  unsigned seed;
} end;

/* Wait, now and then without a look. */
static void
wait_at (const end *e, short events)
{
  if (e->seed % 4 != 0 && rs_ring_look(e->ring, events))
    return;
  if (e->fd < 0) {
    rs_ring_sleep(e->ring, events);
    return;
  }
  unsigned char bytes[64];
  struct pollfd fd = { .fd = e->fd, .events = POLLIN };
  if (rs_ring_begin_sleep(e->ring, events))
    poll(&fd, 1, -1);
  rs_ring_end_sleep(e->ring);
  const ssize_t n = recv(e->fd, bytes, sizeof bytes, MSG_DONTWAIT);
  REQUIRE(n <= 0 || rs_ring_hear(e->ring, bytes, (size_t) n));
}

static void *
write_stream (void *arg)
{
  end *const e = arg;
  unsigned char *const bytes = malloc(MOST);
  REQUIRE(bytes != NULL);
  for (size_t at = 0; at < TOTAL;) {
    size_t size = next_size(&e->seed);
    size = size < TOTAL - at ? size : TOTAL - at;
    for (size_t i = 0; i < size; i++)
      bytes[i] = byte_at(at + i);
    for (size_t done = 0; done < size;) {
      const size_t half = (size - done) / 2;
      const struct iovec parts[] = {
        { bytes + done, half }, { bytes + done + half, size - done - half }
      };
      const ssize_t n = rs_ring_write(e->ring, parts, 2);
      REQUIRE(n >= 0);
      done += (size_t) n;
      if (n == 0)
        wait_at(e, POLLOUT);
    }
    at += size;
  }
  free(bytes);
  return NULL;
}

static void *
read_stream (void *arg)
{
  end *const e = arg;
  unsigned char *const bytes = malloc(MOST);
  unsigned wrong = 0;
  REQUIRE(bytes != NULL);
  for (size_t at = 0; at < TOTAL;) {
    const size_t size = next_size(&e->seed);
    const struct iovec parts[] = {
      { bytes, size / 3 }, { bytes + size / 3, size - size / 3 }
    };
    const ssize_t n = rs_ring_read(e->ring, parts, 2);
    REQUIRE(n >= 0);
    for (size_t i = 0; i < (size_t) n; i++)
      wrong += bytes[i] != byte_at(at + i);
    at += (size_t) n;
    if (n == 0)
      wait_at(e, POLLIN);
  }
  REQUIRE(wrong == 0);
  free(bytes);
  return NULL;
}

/* Both directions; a side of the host's has one thread at a time. */
static void
check_streams (void)
{
  for (unsigned seed = 1; seed <= 2; seed++) {
    pair p = open_pair();
    pthread_t reader;
    end from = { p.host, p.sockets[0], seed };
    end to = { p.worker, -1, seed + 7 };
    REQUIRE(pthread_create(&reader, NULL, read_stream, &to) == 0);
    write_stream(&from);
    pthread_join(reader, NULL);
    end back = { p.worker, -1, seed + 13 };
    end here = { p.host, p.sockets[0], seed + 21 };
    CHECK(!rs_ring_is_joined(p.host));
    REQUIRE(pthread_create(&reader, NULL, write_stream, &back) == 0);
    read_stream(&here);
    pthread_join(reader, NULL);
    CHECK(rs_ring_is_joined(p.host));
    close_pair(&p);
  }
}

/* ------------------------------------------------ counts that cannot be so */

/* Bytes that the worker has written and the host has read, before the lie. */
static void
move_some (pair *p, size_t there, size_t taken)
{
  static unsigned char bytes[RS_RING_BYTES];
  struct iovec part = { bytes, there };
  REQUIRE(rs_ring_write(p->worker, &part, 1) == (ssize_t) there);
  part.iov_len = taken;
  REQUIRE(rs_ring_read(p->host, &part, 1) == (ssize_t) taken);
}

static void
check_counts (void)
{
  static const struct {
    const char *what;
    size_t there, taken;
    bool reads;             /* the lie is what the worker has read */
    uint32_t value;
    const char *said;       /* NULL: it is none */
  } rows[] = {
    { "the same", 100, 50, false, 100, NULL },
    { "all of the room", 100, 50, false, 50 + RS_RING_BYTES, NULL },
    { "beyond the room", 100, 50, false, 51 + RS_RING_BYTES, "has room for" },
    { "far beyond", 100, 50, false, 0x7fffffff, "has room for" },
    { "back", 100, 50, false, 99, "taken back" },
    { "back to what was read", 100, 100, false, 99, "taken back" },
    { "far back", 100, 50, false, 0x80000064, "taken back" },
    { "nothing read", 100, 50, true, 0, NULL },
    { "all read", 100, 50, true, 200, NULL },
    { "read beyond", 100, 50, true, 201, "more than its ring had" },
    { "read back", 100, 50, true, UINT32_MAX, "given back" },
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    static unsigned char bytes[RS_RING_BYTES];
    struct iovec part = { bytes, 200 };
    pair p = open_pair();
    REQUIRE(rs_ring_write(p.host, &part, 1) == 200);
    move_some(&p, rows[i].there, rows[i].taken);
    atomic_store(rows[i].reads ? &p.head->worker.read
                               : &p.head->worker.written, rows[i].value);
    part.iov_len = sizeof bytes;
    const ssize_t n = rows[i].reads ? rs_ring_write(p.host, &part, 1)
                                    : rs_ring_read(p.host, &part, 1);
    CHECK((n < 0) == (rows[i].said != NULL));
    CHECK(rows[i].said == NULL
          || strstr(rs_ring_lie(p.host), rows[i].said) != NULL);
    if ((n < 0) != (rows[i].said != NULL))
      fprintf(stderr, "%s: %zd, %s\n", rows[i].what, n, rs_ring_lie(p.host));
    close_pair(&p);
  }
}

/* The host believes nothing that it has written itself. */
static void
check_own_counts (void)
{
  static unsigned char bytes[1000];
  struct iovec part = { bytes, 1000 };
  pair p = open_pair();
  REQUIRE(rs_ring_write(p.host, &part, 1) == 1000);
  move_some(&p, 500, 100);
  memset(&p.head->host, 0x5a, sizeof p.head->host);
  memset(p.head->magic, 0, sizeof p.head->magic);
  CHECK(rs_ring_read(p.host, &part, 1) == 400);
  CHECK(rs_ring_write(p.host, &part, 1) == 1000);
  CHECK(atomic_load(&p.head->host.written) == 2000);
  CHECK(atomic_load(&p.head->host.read) == 500);
  close_pair(&p);
}

static void
check_bells (void)
{
  static const unsigned char bells[3] = { RS_RING_BELL, RS_RING_BELL,
                                          RS_RING_BELL };
  pair p = open_pair();
  REQUIRE(rs_ring_begin_sleep(p.host, POLLIN));
  rs_ring_end_sleep(p.host);
  REQUIRE(rs_ring_begin_sleep(p.host, POLLIN));
  rs_ring_end_sleep(p.host);
  CHECK(rs_ring_hear(p.host, bells, 2));
  CHECK(!rs_ring_hear(p.host, bells, 1));
  CHECK(strstr(rs_ring_lie(p.host), "more often") != NULL);
  close_pair(&p);
  p = open_pair();
  CHECK(!rs_ring_hear(p.host, (const unsigned char *) "x", 1));
  CHECK(strstr(rs_ring_lie(p.host), "else than a bell") != NULL);
  close_pair(&p);
}

/* Nobody can make the memory smaller, or larger, or break the seals. */
static void
check_seals (void)
{
  int fd = -1;
  rs_ring *const r = rs_ring_new(&fd);
  REQUIRE(r != NULL);
  CHECK(ftruncate(fd, 4096) != 0 && errno == EPERM);
  CHECK(ftruncate(fd, 1 << 30) != 0 && errno == EPERM);
  CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0 && errno == EPERM);
  CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 && fd > STDERR_FILENO);
  close(fd);
  rs_ring_free(r);
}

/* What is no ring of ours is left alone. */
static void
check_strangers (void)
{
  int sockets[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
  const int high = fcntl(sockets[0], F_DUPFD_CLOEXEC, 10);
  close(sockets[0]);
  close(sockets[1]);
  CHECK(rs_ring_join(high) == NULL);
  for (int i = 0; i < 3; i++) {
    const int fd = i == 0 ? open("/dev/null", O_RDWR)
                          : memfd_create("stranger", MFD_ALLOW_SEALING);
    REQUIRE(fd >= 0);
    if (i == 2)
      REQUIRE(ftruncate(fd, RS_RING_HEAD + 2 * RS_RING_BYTES) == 0);
    if (fd != RS_RING_FD) {
      REQUIRE(dup2(fd, RS_RING_FD) == RS_RING_FD);
      close(fd);
    }
    CHECK(rs_ring_join(high) == NULL);
    CHECK(fcntl(RS_RING_FD, F_GETFD) >= 0);
    close(RS_RING_FD);
  }
  close(high);
}

/* ------------------------------------------------------------------ a liar */

static rs_frames out;
static rs_ring_head *head;       /* in the liar */

static void
say (rs_frame_type type, uint64_t number, const void *bytes, size_t size)
{
  const struct iovec part = { (void *) (uintptr_t) bytes, size };
  rs_frames_put(&out, type, number, &part, 1);
  rs_frames_flush(&out);
}

static void
wake_host (void)
{
  static const unsigned char bell = RS_RING_BELL;
  if (atomic_load(&head->host.reads) != 0)
    send(out.carrier.out, &bell, 1, MSG_NOSIGNAL);
}

static void
lie_beyond (void)
{
  atomic_fetch_add(&head->worker.written, RS_RING_BYTES + 1);
  wake_host();
}

static void
lie_back (void)
{
  atomic_fetch_sub(&head->worker.written, 1);
  wake_host();
}

static void
lie_flood (void)
{
  static unsigned char bells[4096];
  memset(bells, RS_RING_BELL, sizeof bells);
  while (send(out.carrier.out, bells, sizeof bells, MSG_NOSIGNAL) > 0)
    ;
}

static void
lie_noise (void)
{
  static const char text[] = "Segmentation fault (core dumped)\n";
  send(out.carrier.out, text, sizeof text - 1, MSG_NOSIGNAL);
}

/* The bytes change while the host reads them. */
static void
lie_change (void)
{
  unsigned char *const data = (unsigned char *) head + RS_RING_HEAD
                            + RS_RING_BYTES;
  for (unsigned n = 0; n < 2000; n++) {
    for (int i = 0; i < 100; i++)
      rs_frames_put(&out, RS_FRAME_PONG, 0, NULL, 0);
    rs_frames_flush(&out);
    for (unsigned i = 0; i < RS_RING_BYTES; i += 97)
      data[i] = (unsigned char) (i * n);
  }
  lie_noise();
}

static void
lie_end (void)
{
  say(RS_FRAME_PONG, 0, NULL, 0);
  _exit(9);
}

/* Read the socket beside the ring until CANCEL has come. */
static void
await_cancel (void)
{
  rs_frames urgent;
  rs_frame frame;
  int status;
  REQUIRE(rs_frames_init(&urgent, RS_FRAME_WORKER, 0, 0) == RS_OK);
  do
    if ((status = rs_frames_take(&urgent, &frame)) == RS_EBUSY)
      status = rs_frames_fill(&urgent);
    else if (status == RS_OK && frame.type == RS_FRAME_CANCEL)
      break;
  while (status == RS_OK);
  REQUIRE(status == RS_OK);
  rs_frames_fini(&urgent);
}

static void
tell_cancelled (void)
{
  static const unsigned char result[16] = {
    RS_JOB_CANCELLED, RS_REASON_CANCELLED, 0, 1
  };
  say(RS_FRAME_RESULT, 1, result, sizeof result);
}

/* End when something has come, without reading it. */
static _Noreturn void
end_tired (void)
{
  while (!rs_carrier_look(&out.carrier))
    rs_carrier_sleep(&out.carrier);
  _exit(5);
}

static const struct {
  const char *name;
  void (*tell) (void);
  const char *said;
} lies[] = {
  { "beyond", lie_beyond, "written more than its ring has room for" },
  { "back", lie_back, "taken back what it wrote" },
  { "flood", lie_flood, "rung more often" },
  { "noise", lie_noise, "else than a bell" },
  { "change", lie_change, "sent what it may not" },
  { "end", lie_end, "exited with status 9" },
};

enum { LIES = sizeof lies / sizeof lies[0] };

/* Serve one call, with a lie; then wait for the end. */
static int
serve (const char *lie)
{
  rs_buf hello = RS_BUF_INIT;
  rs_frame frame;
  static const unsigned char ready[8];
  int status;
  head = mmap(NULL, RS_RING_HEAD + 2 * RS_RING_BYTES, PROT_READ | PROT_WRITE,
              MAP_SHARED, RS_RING_FD, 0);
  REQUIRE(head != MAP_FAILED);
  REQUIRE(ftruncate(RS_RING_FD, 0) != 0 && errno == EPERM);
  REQUIRE(rs_frames_init(&out, RS_FRAME_WORKER, 0, 0) == RS_OK);
  rs_ring *const ring = rs_ring_join(0);
  REQUIRE(ring != NULL);
  rs_carrier_use(&out.carrier, ring);
  rs_buf_add(&out.going, rs_frame_greeting, RS_FRAME_GREETING);
  rs_hello_write(&hello);
  say(RS_FRAME_HELLO, 0, hello.data, hello.size);
  rs_buf_fini(&hello);
  say(RS_FRAME_READY, 0, ready, sizeof ready);
  const bool deaf = strcmp(lie, "deaf") == 0;
  const bool tired = strcmp(lie, "tired") == 0;
  for (;;) {
    while ((status = rs_frames_take(&out, &frame)) == RS_EBUSY)
      if ((status = rs_frames_fill(&out)) == RS_EBUSY
          && !rs_carrier_look(&out.carrier))
        rs_carrier_sleep(&out.carrier);
    if (status != RS_OK)
      return 1;
    rs_message_unref(frame.message);
    if (frame.type == RS_FRAME_OPEN && deaf)
      await_cancel();
    if (frame.type != RS_FRAME_CALL)
      continue;
    if (deaf || tired)
      tell_cancelled();
    if (tired)
      end_tired();
    for (int i = 0; i < LIES; i++)
      if (strcmp(lies[i].name, lie) == 0)
        lies[i].tell();
    pause();
  }
}

static const rs_pool_options direct = {
  .min = 1, .max = 1, .isolation = RS_ISOLATION_PROCESS,
  .runspace = "/proc/self/exe"
};

static lua_State *
new_state (void)
{
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  return L;
}

/* Whatever the worker does, the job is lost, which says so, and the next one
   is sent to another worker. */
static void
check_lies (void)
{
  lua_State *const L = new_state();
  for (int i = 0; i < LIES; i++) {
    rs_pool *pool = NULL;
    rs_error err;
    setenv("RING_CHECK", lies[i].name, 1);
    REQUIRE(rs_pool_open(&direct, &pool, &err) == RS_OK);
    for (int round = 0; round < 2; round++) {
      rs_job *const job = submit(pool, L, "return 1", 0);
      rs_job_info info;
      CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
      rs_job_info_get(job, &info);
      CHECK(info.state == RS_JOB_LOST);
      CHECK(info.failure != NULL
            && strstr(info.failure, lies[i].said) != NULL);
      if (info.failure == NULL || strstr(info.failure, lies[i].said) == NULL)
        fprintf(stderr, "%s: %s\n", lies[i].name,
                info.failure != NULL ? info.failure : "NULL");
      rs_job_unref(job);
    }
    CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
    rs_pool_unref(pool);
  }
  lua_close(L);
}

/* A stop does not wait behind a message that fills the ring: this worker reads
   the ring only when CANCEL has come. */
static void
check_cancel (void)
{
  lua_State *const L = new_state();
  char *const text = calloc(1, 4 * RS_RING_BYTES);
  rs_pool *pool = NULL;
  rs_error err;
  REQUIRE(text != NULL);
  setenv("RING_CHECK", "deaf", 1);
  REQUIRE(rs_pool_open(&direct, &pool, &err) == RS_OK);
  lua_pushlstring(L, text, 4 * RS_RING_BYTES);
  rs_job *const job = submit(pool, L, "return 1", 1);
  REQUIRE(job != NULL);
  while (state_of(job) == RS_JOB_QUEUED)
    sched_yield();
  rs_job_cancel(job, RS_FOREVER);
  CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
  CHECK(state_of(job) == RS_JOB_CANCELLED);
  rs_job_unref(job);
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  rs_pool_unref(pool);
  free(text);
  lua_close(L);
}

/* A worker that ends between two calls, too late to be seen before the second
   one is written: that call has not begun, and another worker gets it. */
static void
check_unread (void)
{
  lua_State *const L = new_state();
  rs_pool *pool = NULL;
  rs_error err;
  setenv("RING_CHECK", "tired", 1);
  REQUIRE(rs_pool_open(&direct, &pool, &err) == RS_OK);
  for (int i = 0; i < 6; i++) {
    rs_job *const job = submit(pool, L, "return 1", 0);
    CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
    CHECK(state_of(job) == RS_JOB_CANCELLED);
    rs_job_unref(job);
  }
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  rs_pool_unref(pool);
  lua_close(L);
}

/* ------------------------------------------------- with and without a ring */

/* What a child tells of itself: whether it has the ring, whether a program of
   its jobs has a descriptor of the ring, and how long what came back is. */
static const char tell[] =
  "local text = ...\n"
  "local maps = io.open '/proc/self/maps':read 'a'\n"
  "local files = io.popen 'ls -l /proc/self/fd /proc/$PPID/fd':read 'a'\n"
  "return maps:find('runspace-ring', 1, true) ~= nil,\n"
  "       files:find('memfd', 1, true) == nil, text";

/* True when this process maps a ring, or has the descriptor of one. */
static bool
has_ring (void)
{
  static char text[1 << 20];
  FILE *const f = fopen("/proc/self/maps", "r");
  REQUIRE(f != NULL);
  const size_t n = fread(text, 1, sizeof text - 1, f);
  text[n] = '\0';
  fclose(f);
  return strstr(text, "runspace-ring") != NULL;
}

/* The same comes back, through what carries it. */
static void
check_carriers (void)
{
  static const size_t sizes[] = { 0, 1, 40000, RS_RING_BYTES, 5000000 };
  lua_State *const L = new_state();
  char *const text = malloc(5000000);
  REQUIRE(text != NULL);
  for (size_t i = 0; i < 5000000; i++)
    text[i] = (char) byte_at(i);
  for (int ring = 0; ring < 2; ring++) {
    rs_pool *pool = NULL;
    rs_error err;
    if (ring)
      unsetenv("RING_CHECK");
    else
      setenv("RING_CHECK", "without", 1);
    REQUIRE(rs_pool_open(&direct, &pool, &err) == RS_OK);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
      int n = 0;
      size_t size = 1;
      lua_pushlstring(L, text, sizes[i]);
      rs_job *const job = submit(pool, L, tell, 1);
      REQUIRE(job != NULL);
      CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
      CHECK(rs_job_push(job, L, &n) == RS_OK && n == 3);
      CHECK(lua_toboolean(L, -3) == ring);
      CHECK(lua_toboolean(L, -2));
      const char *const back = lua_tolstring(L, -1, &size);
      CHECK(back != NULL && size == sizes[i] && memcmp(back, text, size) == 0);
      lua_settop(L, 0);
      rs_job_unref(job);
    }
    CHECK(has_ring() == (ring == 1));
    CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
    rs_pool_unref(pool);
    CHECK(!has_ring());
  }
  free(text);
  lua_close(L);
}

int
main (int argc, char **argv)
{
  const char *const mode = getenv("RING_CHECK");
  const bool worker = argc == 2 && strcmp(argv[1], "--worker") == 0;
  if (worker && mode != NULL && strcmp(mode, "without") == 0)
    close(RS_RING_FD);
  else if (worker && mode != NULL)
    return serve(mode);
  const int served = rs_worker_main(argc, argv);
  if (served >= 0)
    return served;
  rs_spin_prepare();
  check_seals();
  check_strangers();
  check_counts();
  check_own_counts();
  check_bells();
  check_streams();
  check_lies();
  check_cancel();
  check_unread();
  check_carriers();
  return report();
}
