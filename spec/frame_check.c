/* SPDX-License-Identifier: MIT */
/*
 * frame_check.c - frames: what is sent comes, cut anywhere; what is wrong is
 * refused, and closes the link; a worker that lies does no more harm.
 *
 * The program is its own worker: started with --worker it says hello, and
 * answers a call with the lie that the environment names; or serves.
 */
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/check.h"

#include "reach/exchange.h"
#include "reach/frame.h"

/* ----------------------------------------------------------------- reading */

/* Bytes of frames that were written, from a socket to the end. */
typedef struct stream {
  unsigned char *data;
  size_t size;
} stream;

/* What the tests send: one side of it. */
static void
send_all (rs_frames *f, const rs_message *small, const rs_message *large)
{
  static const unsigned char text[] = "123456789012345678901234567890";
  const struct iovec part = { (void *) (uintptr_t) text, 22 };
  const struct iovec eight = { (void *) (uintptr_t) text, 8 };
  REQUIRE(rs_frames_put(f, RS_FRAME_HELLO, 0, &part, 1) == RS_OK);
  REQUIRE(rs_frames_put(f, RS_FRAME_READY, 0, &eight, 1) == RS_OK);
  REQUIRE(rs_frames_put_message(f, RS_FRAME_VALUES, 7, small) == RS_OK);
  REQUIRE(rs_frames_put(f, RS_FRAME_RECORD, 7, &part, 1) == RS_OK);
  REQUIRE(rs_frames_put_message(f, RS_FRAME_VALUES, 7, large) == RS_OK);
  REQUIRE(rs_frames_put(f, RS_FRAME_RESULT, 7, &part, 1) == RS_OK);
  REQUIRE(rs_frames_put(f, RS_FRAME_OUTPUT, 1, &part, 1) == RS_OK);
  REQUIRE(rs_frames_flush(f) == RS_OK);
}

static const rs_frame_type expected[] = {
  RS_FRAME_HELLO, RS_FRAME_READY, RS_FRAME_VALUES, RS_FRAME_RECORD,
  RS_FRAME_VALUES, RS_FRAME_RESULT, RS_FRAME_OUTPUT
};

enum { EXPECTED = sizeof expected / sizeof expected[0] };

/* A message of 'size' bytes that no decoder would take. */
static rs_message *
make_message (size_t size)
{
  rs_message *const m = rs_message_new(NULL, 0, 0);
  rs_message_unref(m);
  unsigned char *const data = malloc(size);
  REQUIRE(data != NULL);
  for (size_t i = 0; i < size; i++)
    data[i] = (unsigned char) (i * 31 >> 3);
  rs_message *const made = rs_message_new(data, size, 0);
  REQUIRE(made != NULL);
  free(data);
  return made;
}

typedef struct sender {
  int fd;
  const rs_message *small, *large;
} sender;

static void *
send_thread (void *arg)
{
  const sender *const s = arg;
  rs_frames f;
  REQUIRE(rs_frames_init(&f, RS_FRAME_WORKER, s->fd, s->fd) == RS_OK);
  REQUIRE(write(s->fd, rs_frame_greeting, RS_FRAME_GREETING)
          == RS_FRAME_GREETING);
  send_all(&f, s->small, s->large);
  rs_frames_fini(&f);
  close(s->fd);
  return NULL;
}

/* Read all that the thread sends. */
static stream
record (const rs_message *small, const rs_message *large)
{
  int fds[2];
  pthread_t thread;
  stream s = { NULL, 0 };
  ssize_t n;
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  sender w = { fds[1], small, large };
  REQUIRE(pthread_create(&thread, NULL, send_thread, &w) == 0);
  do {
    s.data = realloc(s.data, s.size + 65536);
    REQUIRE(s.data != NULL);
    n = read(fds[0], s.data + s.size, 65536);
    s.size += n > 0 ? (size_t) n : 0;
  } while (n > 0);
  close(fds[0]);
  pthread_join(thread, NULL);
  return s;
}

/* Feed the bytes in pieces of 'step', and take what comes, until the end or
   what is wrong.  Returns how many messages came; '*status' is the last. */
static int
feed (rs_frames *f, const unsigned char *data, size_t size, size_t step,
      const rs_message *large, int *status)
{
  int n = 0;
  size_t at = 0;
  do {
    rs_frame frame;
    const size_t want = size - at < step ? size - at : step;
    at += rs_frames_feed(f, data + at, want);
    while ((*status = rs_frames_take(f, &frame)) == RS_OK) {
      if (large != NULL) {
        CHECK(n < EXPECTED && frame.type == expected[n]);
        if (n == 4)
          CHECK(frame.message->size == large->size
                && memcmp(frame.message->data, large->data, large->size)
                   == 0);
      }
      rs_message_unref(frame.message);
      n++;
    }
  } while (*status == RS_EBUSY && at < size);
  return n;
}

static rs_frames
new_reader (void)
{
  rs_frames f;
  REQUIRE(rs_frames_init(&f, RS_FRAME_HOST, -1, -1) == RS_OK);
  return f;
}

static void
check_pieces (const stream *s, const rs_message *large)
{
  static const size_t steps[] = { 1, 7, 16, 4096, 65536, 1 << 20 };
  for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
    int status;
    rs_frames f = new_reader();
    CHECK(feed(&f, s->data, s->size, steps[i], large, &status) == EXPECTED);
    CHECK(status == RS_EBUSY && f.error[0] == '\0');
    rs_frames_fini(&f);
  }
}

/* Cut short anywhere it is no more than incomplete. */
static void
check_truncation (const stream *s)
{
  for (size_t size = 0; size < s->size; size += size < 400 ? 1 : 997) {
    int status;
    rs_frames f = new_reader();
    CHECK(feed(&f, s->data, size, 65536, NULL, &status) <= EXPECTED);
    CHECK(status == RS_EBUSY);
    rs_frames_fini(&f);
  }
}

/* Whatever bytes are changed, it is read or refused, with a text. */
static void
check_mutation (const stream *s)
{
  unsigned seed = 1;
  unsigned char *const copy = malloc(s->size);
  REQUIRE(copy != NULL);
  for (int round = 0; round < 3000; round++) {
    int status;
    memcpy(copy, s->data, s->size);
    for (int i = 0; i <= round % 4; i++) {
      seed = seed * 1103515245u + 12345u;
      const size_t most = round % 2 ? s->size : 600;
      copy[(seed >> 8) % most] = (unsigned char) (seed >> 3);
    }
    rs_frames f = new_reader();
    feed(&f, copy, s->size, 65536, NULL, &status);
    CHECK(status == RS_EBUSY || (status == RS_ECLOSED && f.error[0] != '\0'));
    rs_frames_fini(&f);
  }
  free(copy);
}

/* A head, and so many bytes of payload; what is said. */
static const struct {
  const char *what;
  unsigned type, flags, reserved;
  uint32_t length;
  const char *said;
} wrong[] = {
  { "no type", 0, 3, 0, 0, "type 0, which is none" },
  { "an unknown type", 200, 3, 0, 0, "type 200, which is none" },
  { "the other way", RS_FRAME_CALL, 3, 0, 40, "CALL, which does not come" },
  { "unknown flags", RS_FRAME_VALUES, 7, 0, 40, "flags that are not known" },
  { "reserved bytes", RS_FRAME_VALUES, 3, 1, 40, "flags that are not known" },
  { "too long", RS_FRAME_VALUES, 1, 0, 65537, "65537 bytes; 65536 are" },
  { "much too long", RS_FRAME_OUTPUT, 3, 0, UINT32_MAX, "65536 are the most" },
  { "short, and cut", RS_FRAME_RESULT, 1, 0, 16, "or in several frames" },
  { "short, and long", RS_FRAME_READY, 3, 0, 9, "READY with 9 bytes" },
  { "too short", RS_FRAME_LOST, 3, 0, 2, "LOST with 2 bytes" },
  { "a sign with bytes", RS_FRAME_PONG, 3, 0, 1, "PONG with 1 bytes" },
  { "PING from there", RS_FRAME_PING, 3, 0, 0, "PING, which does not come" },
  { "ASK from there", RS_FRAME_ASK, 3, 0, 0, "ASK, which does not come" },
  { "too long a TRACE", RS_FRAME_TRACE, 3, 0, 4097, "TRACE with 4097 bytes" },
  { "the middle first", RS_FRAME_VALUES, 0, 0, 40, "out of order" },
  { "the end first", RS_FRAME_VALUES, 2, 0, 40, "out of order" },
  { "nothing", RS_FRAME_VALUES, 1, 0, 0, "without bytes" },
  { "a message too short", RS_FRAME_VALUES, 3, 0, 9, "VALUES with 9 bytes" },
  { "a trailer", RS_FRAME_VALUES, 3, 0, 40, "an unknown trailer" },
};

static size_t
write_frame (unsigned char *to, unsigned type, unsigned flags,
             unsigned reserved, uint32_t length, uint64_t number)
{
  memset(to, 0, RS_FRAME_HEAD);
  to[0] = (unsigned char) type;
  to[1] = (unsigned char) flags;
  to[2] = (unsigned char) reserved;
  for (int i = 0; i < 4; i++)
    to[4 + i] = (unsigned char) (length >> 8 * i);
  to[8] = (unsigned char) number;
  const size_t there = length <= 65536 ? length : 0;
  memset(to + RS_FRAME_HEAD, 0xee, there);
  return RS_FRAME_HEAD + there;
}

static void
check_wrong (void)
{
  static unsigned char bytes[2 * 65536];
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    int status;
    rs_frames f = new_reader();
    f.greeted = true;
    const size_t n = write_frame(bytes, wrong[i].type, wrong[i].flags,
                                 wrong[i].reserved, wrong[i].length, 0);
    CHECK(feed(&f, bytes, n, n, NULL, &status) == 0);
    CHECK(status == RS_ECLOSED);
    CHECK(strstr(f.error, wrong[i].said) != NULL);
    if (strstr(f.error, wrong[i].said) == NULL)
      fprintf(stderr, "%s: %s\n", wrong[i].what, f.error);
    CHECK(rs_frames_fill(&f) == RS_ECLOSED);
    rs_frames_fini(&f);
  }
}

/* Frames of two long messages may not be mixed; short ones come between. */
static void
check_order (void)
{
  static unsigned char bytes[1000];
  static const struct { unsigned type, flags; uint64_t number; int came; }
  rows[] = {
    { RS_FRAME_VALUES, 1, 2, -1 }, { RS_FRAME_OUTPUT, 1, 1, -1 },
    { RS_FRAME_VALUES, 0, 1, -1 }, { RS_FRAME_RESULT, 3, 1, 1 },
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    int status;
    rs_frames f = new_reader();
    f.greeted = true;
    size_t n = write_frame(bytes, RS_FRAME_VALUES, 1, 0, 40, 2);
    n += write_frame(bytes + n, rows[i].type, rows[i].flags, 0, 40,
                     rows[i].number);
    const int came = feed(&f, bytes, n, n, NULL, &status);
    CHECK(rows[i].came < 0 ? status == RS_ECLOSED : came == rows[i].came);
    rs_frames_fini(&f);
  }
}

static void
check_greeting (void)
{
  static unsigned char noise[RS_FRAME_NOISE + 100];
  for (int row = 0; row < 3; row++) {
    static const size_t sizes[] = { 5000, RS_FRAME_NOISE, RS_FRAME_NOISE + 1 };
    int status;
    rs_frames f = new_reader();
    memset(noise, '\0', sizeof noise);
    memcpy(noise + 100, rs_frame_greeting, RS_FRAME_GREETING);
    noise[100 + RS_FRAME_GREETING - 1] = 1;
    feed(&f, noise, sizes[row], 1000, NULL, &status);
    if (status == RS_EBUSY)
      feed(&f, rs_frame_greeting, RS_FRAME_GREETING, 5, NULL, &status);
    CHECK(f.greeted == (row < 2));
    CHECK((status == RS_ECLOSED) == (row == 2));
    rs_frames_fini(&f);
  }
}

/* ------------------------------------------------------------------ a liar */

static rs_frames out;

static void
say (rs_frame_type type, uint64_t number, const void *bytes, size_t size)
{
  const struct iovec part = { (void *) (uintptr_t) bytes, size };
  rs_frames_put(&out, type, number, &part, 1);
}

static void
say_values (uint64_t number)
{
  static const unsigned char nothing[] = { 'R', 'S', 1, 0, 0, 0, 0, 0 };
  rs_message *const m = rs_message_new(nothing, sizeof nothing, 0);
  rs_frames_put_message(&out, RS_FRAME_VALUES, number, m);
  rs_message_unref(m);
}

/* An outcome of a plain call. */
static void
say_result (uint64_t number, unsigned state, unsigned reason, unsigned flags,
            unsigned attempt, size_t size)
{
  unsigned char result[32] = {
    (unsigned char) state, (unsigned char) reason, (unsigned char) flags,
    (unsigned char) attempt
  };
  say(RS_FRAME_RESULT, number, result, size);
}

enum { RIGHT = 16 };  /* bytes of such an outcome */

static void
lie_number (void)
{
  say_result(99, RS_JOB_FAILED, 0, 0, 1, RIGHT);
}

static void
lie_state (void)
{
  say_result(1, 200, 0, 0, 1, RIGHT);
}

static void
lie_lost (void)
{
  say_result(1, RS_JOB_LOST, 0, 0, 1, RIGHT);
}

static void
lie_reason (void)
{
  say_result(1, RS_JOB_FAILED, 77, 0, 1, RIGHT);
}

static void
lie_values (void)
{
  say_result(1, RS_JOB_COMPLETED, 0, 1, 1, RIGHT);
}

static void
lie_none (void)
{
  say_result(1, RS_JOB_COMPLETED, 0, 0, 1, RIGHT);
}

static void
lie_again (void)
{
  say_result(1, RS_JOB_QUEUED, 0, 0, 2, RIGHT);
}

static void
lie_size (void)
{
  say_result(1, RS_JOB_FAILED, 0, 0, 1, RIGHT + 5);
}

static void
lie_twice (void)
{
  say_values(1);
  say_values(1);
}

static void
lie_record (void)
{
  static const unsigned char record[22] = { 99 };
  say_values(1);
  say(RS_FRAME_RECORD, 1, record, sizeof record);
}

static void
lie_index (void)
{
  static const unsigned char record[22] = { RS_STREAM_VERBOSE, 0, 55 };
  say_values(1);
  say(RS_FRAME_RECORD, 1, record, sizeof record);
}

static void
lie_valueless (void)
{
  static const unsigned char record[22] = { RS_STREAM_VERBOSE };
  say(RS_FRAME_RECORD, 1, record, sizeof record);
}

static void
lie_order (void)
{
  static const unsigned char ready[8];
  say(RS_FRAME_READY, 0, ready, sizeof ready);
}

static void
lie_noise (void)
{
  rs_frames_flush(&out);
  const ssize_t n = write(out.carrier.out,
                          "Segmentation fault (core dumped)\n", 33);
  (void) n;
}

static void
lie_close (void)
{
  _exit(9);
}

static const struct {
  const char *name;
  void (*tell) (void);
  const char *said;
} lies[] = {
  { "number", lie_number, "RESULT for call 99, while 1 runs" },
  { "state", lie_state, "RESULT that cannot be" },
  { "lost", lie_lost, "RESULT that cannot be" },
  { "reason", lie_reason, "RESULT that cannot be" },
  { "values", lie_values, "RESULT that cannot be" },
  { "none", lie_none, "RESULT that cannot be" },
  { "again", lie_again, "RESULT that cannot be" },
  { "size", lie_size, "RESULT that cannot be" },
  { "twice", lie_twice, "VALUES for nothing" },
  { "record", lie_record, "RECORD that cannot be" },
  { "index", lie_index, "RECORD that cannot be" },
  { "valueless", lie_valueless, "RECORD that cannot be" },
  { "order", lie_order, "READY for call 0, while 1 runs" },
  { "noise", lie_noise, "type 83, which is none" },
  { "close", lie_close, "exited with status 9" },
};

enum { LIES = sizeof lies / sizeof lies[0] };

/* Serve one call, with a lie; then wait for the end of the file. */
static int
serve (const char *lie)
{
  rs_buf hello = RS_BUF_INIT;
  rs_frames in;
  rs_frame frame;
  static const unsigned char ready[8];
  int status;
  REQUIRE(rs_frames_init(&in, RS_FRAME_WORKER, 0, 1) == RS_OK);
  REQUIRE(rs_frames_init(&out, RS_FRAME_WORKER, 0, 1) == RS_OK);
  REQUIRE(write(1, rs_frame_greeting, RS_FRAME_GREETING)
          == RS_FRAME_GREETING);
  rs_hello_write(&hello);
  if (strcmp(lie, "version") == 0)
    hello.data[0] = 77;
  say(RS_FRAME_HELLO, 0, hello.data, hello.size);
  rs_buf_fini(&hello);
  say(RS_FRAME_READY, 0, ready, sizeof ready);
  rs_frames_flush(&out);
  for (;;) {
    while ((status = rs_frames_take(&in, &frame)) == RS_EBUSY
           && (status = rs_frames_fill(&in)) == RS_OK)
      ;
    if (status != RS_OK) {
      rs_frames_fini(&in);
      rs_frames_fini(&out);
      return 0;
    }
    rs_message_unref(frame.message);
    if (frame.type != RS_FRAME_CALL)
      continue;
    for (int i = 0; i < LIES; i++)
      if (strcmp(lies[i].name, lie) == 0)
        lies[i].tell();
    rs_frames_flush(&out);
  }
}

/* Whatever the worker says, the job is lost, which says so, and the next one
   is sent to another worker. */
static void
check_lies (void)
{
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  for (int n = 0; n < 2 * LIES; n++) {
    static const char *const words[] = { "/proc/self/exe", "--worker", NULL };
    const rs_pool_options direct = {
      .min = 1, .max = 1, .isolation = RS_ISOLATION_PROCESS,
      .runspace = "/proc/self/exe"
    };
    const rs_pool_options command = { .min = 1, .max = 1, .command = words };
    const rs_pool_options o = n < LIES ? direct : command;
    const int i = n % LIES;
    rs_pool *pool = NULL;
    rs_error err;
    setenv("FRAME_CHECK_LIE", lies[i].name, 1);
    REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
    for (int round = 0; round < 2; round++) {
      rs_job *job = NULL;
      rs_job_info info;
      lua_pushliteral(L, "return 1");
      REQUIRE(rs_submit(pool, L, 0, NULL, &job, &err) == RS_OK);
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

/* Where the program ignores SIGCHLD, the system reaps its children: that one
   has ended is all that is known then. */
static void
check_ignored (void)
{
  const rs_pool_options o = {
    .min = 1, .max = 1, .isolation = RS_ISOLATION_PROCESS,
    .runspace = "/proc/self/exe"
  };
  rs_pool *pool = NULL;
  rs_job *job = NULL;
  rs_job_info info;
  rs_error err;
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  signal(SIGCHLD, SIG_IGN);
  setenv("FRAME_CHECK_LIE", "close", 1);
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
  lua_pushliteral(L, "return 1");
  REQUIRE(rs_submit(pool, L, 0, NULL, &job, &err) == RS_OK);
  CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
  rs_job_info_get(job, &info);
  CHECK(info.state == RS_JOB_LOST && info.failure != NULL
        && strcmp(info.failure, "the worker process has ended") == 0);
  rs_job_unref(job);
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  rs_pool_unref(pool);
  signal(SIGCHLD, SIG_DFL);
  lua_close(L);
}

static int
open_module (lua_State *L)
{
  lua_newtable(L);
  return 1;
}

/* What cannot cross is refused where the pool is opened, by name; another
   version is, with both named. */
static void
check_opening (void)
{
  rs_pool_options o = {
    .min = 1, .max = 1, .isolation = RS_ISOLATION_PROCESS,
    .runspace = "/proc/self/exe"
  };
  rs_pool *pool = NULL;
  rs_error err;
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  setenv("FRAME_CHECK_LIE", "version", 1);
  CHECK(rs_pool_open(&o, &pool, &err) == RS_EFAILED);
  CHECK(strstr(err.text, "protocol 77") != NULL
        && strstr(err.text, "protocol 2") != NULL);

  o.initial_state = rs_initial_state_new();
  rs_initial_state_add_preload(o.initial_state, "ours", open_module, 0);
  CHECK(rs_pool_open(&o, &pool, &err) == RS_EREFUSED);
  CHECK(strstr(err.text, "module 'ours'") != NULL);
  rs_initial_state_unref(o.initial_state);

  o.initial_state = rs_initial_state_new();
  lua_pushlightuserdata(L, &o);
  CHECK(rs_initial_state_add_variable(o.initial_state, "p", L, &err)
        == RS_OK);
  CHECK(rs_pool_open(&o, &pool, &err) == RS_EREFUSED);
  CHECK(strstr(err.text, "variable 'p'") != NULL);
  rs_initial_state_unref(o.initial_state);
  lua_close(L);
}

/* A program that serves is its own worker. */
static void
check_own (void)
{
  const rs_pool_options o = {
    .min = 2, .max = 2, .isolation = RS_ISOLATION_PROCESS
  };
  enum { JOBS = 40 };
  rs_job *jobs[JOBS];
  rs_pool *pool = NULL;
  rs_pool_info info;
  rs_error err;
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  unsetenv("FRAME_CHECK_LIE");
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
  for (int i = 0; i < JOBS; i++) {
    lua_pushliteral(L, "local x = ... "
                       "return x * x, io.open '/proc/self/comm':read 'l'");
    lua_pushinteger(L, i);
    REQUIRE(rs_submit(pool, L, 1, NULL, &jobs[i], &err) == RS_OK);
  }
  for (int i = 0; i < JOBS; i++) {
    int n;
    CHECK(rs_job_wait(jobs[i], L, RS_FOREVER) == RS_OK);
    CHECK(rs_job_push(jobs[i], L, &n) == RS_OK && n == 2);
    CHECK(lua_tointeger(L, -2) == (lua_Integer) i * i);
    CHECK(strcmp(lua_tostring(L, -1), "runspace-worker") == 0);
    lua_settop(L, 0);
    rs_job_unref(jobs[i]);
  }
  rs_pool_info_get(pool, &info);
  CHECK(info.ended[RS_JOB_COMPLETED] == JOBS && info.bytes > 0);
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  rs_pool_unref(pool);
  lua_close(L);
}

int
main (int argc, char **argv)
{
  const char *const lie = getenv("FRAME_CHECK_LIE");
  if (argc == 2 && strcmp(argv[1], "--worker") == 0 && lie != NULL)
    return serve(lie);
  const int served = rs_worker_main(argc, argv);
  if (served >= 0)
    return served;
  rs_message *const small = make_message(100);
  rs_message *const large = make_message(1000 * 1000);
  const stream s = record(small, large);
  check_pieces(&s, large);
  check_truncation(&s);
  check_mutation(&s);
  check_wrong();
  check_order();
  check_greeting();
  free(s.data);
  rs_message_unref(small);
  rs_message_unref(large);
  check_lies();
  check_ignored();
  check_opening();
  check_own();
  return report();
}
