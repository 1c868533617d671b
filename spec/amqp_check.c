/* SPDX-License-Identifier: MIT */
/*
 * amqp_check.c - the module of the broker against a real one, which ends and
 * comes back in the middle.
 *
 * A private server is started for this program alone (rabbitmq.sh).  Where
 * there is none, what needs it is left out, and the log says so.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support/check.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "broker/amqp.h"

#define PATIENCE 120.0      /* seconds after which something has failed */

enum { BODIES = 64 };       /* that are kept of what came */

static const rs_amqp_module *module;
static char server[200];    /* folder of the server; "": none */
static int port, tls_port;

/* ------------------------------------------------------------- the machine */

static double
now (void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

static void
nap (double seconds)
{
  const struct timespec t = {
    .tv_sec = (time_t) seconds,
    .tv_nsec = (long) ((seconds - (double) (time_t) seconds) * 1e9)
  };
  nanosleep(&t, NULL);
}

/* Entries of a directory of /proc/self. */
static int
entries (const char *name)
{
  int n = 0;
  DIR *const d = opendir(name);
  while (d != NULL && readdir(d) != NULL)
    n++;
  if (d != NULL)
    closedir(d);
  return n;
}

/* The first line of what a command prints, in static storage. */
static const char *
ask (const char *format, ...)
{
  static char line[500];
  char command[1000];
  va_list ap;
  va_start(ap, format);
  vsnprintf(command, sizeof command, format, ap);
  va_end(ap);
  FILE *const pipe = popen(command, "re");
  REQUIRE(pipe != NULL);
  line[0] = '\0';
  if (fgets(line, sizeof line, pipe) != NULL)
    line[strcspn(line, "\n")] = '\0';
  pclose(pipe);
  return line;
}

static const char *
source (void)
{
  const char *const dir = getenv("RUNSPACE_SRCDIR");
  return dir != NULL ? dir : ".";
}

/* Tell the server to 'run', 'stop', ... */
static void
tell_server (const char *what)
{
  char command[1000];
  snprintf(command, sizeof command,
           "sh '%s/spec/support/rabbitmq.sh' %s %s", source(), what, server);
  REQUIRE(system(command) == 0);
}

/* Run a command of rabbitmqctl. */
static void
control (const char *what)
{
  char command[1000];
  snprintf(command, sizeof command,
           "sh '%s/spec/support/rabbitmq.sh' ctl %s %s", source(), server,
           what);
  REQUIRE(system(command) == 0);
}

static void
start_server (void)
{
  const char *const dir = ask("sh '%s/spec/support/rabbitmq.sh' open %d "
                              "strict", source(), (int) getpid());
  if (dir[0] == '\0')
    return;
  snprintf(server, sizeof server, "%s", dir);
  port = atoi(ask("cat %s/port", server));
  tls_port = atoi(ask("cat %s/tls_port", server));
}

/* ---------------------------------------------------------------- the user */

typedef struct body {
  unsigned char *bytes;
  size_t size;
  bool shared, redelivered;
  uint64_t tag;
} body;

/* One side: a connection, and all that it was told. */
typedef struct side {
  rs_amqp *a;
  void (*on_deliver) (struct side *s, const rs_amqp_delivery *d);
  const char *reply_to;

  pthread_mutex_t lock;     /* guards what follows */
  pthread_cond_t changed;
  unsigned ups, downs;
  bool up, refused;
  char text[1000];
  bool told;                /* a password */
  bool early;               /* it was called before 'a' was set */
  unsigned delivered;
  body bodies[BODIES];      /* the first ones that came, owned */
  unsigned confirmed, unrouted;
  uint64_t last;            /* number that was confirmed */
  uint64_t messages, consumers;
  unsigned counts;
  unsigned char *seen;      /* by number, for 'note_number' */
  unsigned numbers, doubles;
} side;

static void
change (side *s)
{
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
}

static void
on_up (void *ud)
{
  side *const s = ud;
  pthread_mutex_lock(&s->lock);
  s->early = s->early || s->a == NULL;
  s->ups++;
  s->up = true;
  change(s);
}

static void
on_down (void *ud, const char *text, bool refused)
{
  side *const s = ud;
  pthread_mutex_lock(&s->lock);
  s->early = s->early || s->a == NULL;
  s->downs++;
  s->told = s->told || strstr(text, "guest:guest") != NULL
            || strstr(text, "p@ss") != NULL || strstr(text, "wrong") != NULL;
  s->up = false;
  s->refused = refused;
  snprintf(s->text, sizeof s->text, "%s", text);
  change(s);
}

static void
on_deliver (void *ud, const rs_amqp_delivery *d)
{
  side *const s = ud;
  if (s->on_deliver != NULL)
    s->on_deliver(s, d);
  pthread_mutex_lock(&s->lock);
  if (s->delivered < BODIES) {
    body *const b = &s->bodies[s->delivered];
    b->bytes = malloc(d->size + 1);
    REQUIRE(b->bytes != NULL);
    memcpy(b->bytes, d->body, d->size);
    b->bytes[d->size] = '\0';
    b->size = d->size;
    b->shared = d->shared;
    b->redelivered = d->redelivered;
    b->tag = d->tag;
  }
  s->delivered++;
  change(s);
}

static void
on_confirm (void *ud, uint64_t number, bool routed)
{
  side *const s = ud;
  pthread_mutex_lock(&s->lock);
  s->confirmed++;
  s->unrouted += !routed;
  s->last = number;
  change(s);
}

static void
on_count (void *ud, uint64_t messages, uint64_t consumers)
{
  side *const s = ud;
  pthread_mutex_lock(&s->lock);
  s->messages = messages;
  s->consumers = consumers;
  s->counts++;
  change(s);
}

static const rs_amqp_user user = {
  .up = on_up, .down = on_down, .deliver = on_deliver,
  .confirm = on_confirm, .count = on_count
};

/* Wait until 'condition' of the side 's' holds. */
#define AWAIT(s, condition) \
  do { \
    struct timespec late; \
    int code = 0; \
    clock_gettime(CLOCK_REALTIME, &late); \
    late.tv_sec += (time_t) PATIENCE; \
    pthread_mutex_lock(&(s)->lock); \
    while (!(condition) && code == 0) \
      code = pthread_cond_timedwait(&(s)->changed, &(s)->lock, &late); \
    const bool held = (condition); \
    if (!held) \
      fprintf(stderr, "last: %s\n", (s)->text); \
    pthread_mutex_unlock(&(s)->lock); \
    CHECK(held && #condition); \
  } while (0)

static void
init_side (side *s)
{
  memset(s, 0, sizeof *s);
  pthread_mutex_init(&s->lock, NULL);
  pthread_cond_init(&s->changed, NULL);
}

/* Check what holds of a side now. */
#define SEES(s, condition) \
  do { \
    pthread_mutex_lock(&(s)->lock); \
    const bool held = (condition); \
    if (!held) \
      fprintf(stderr, "last: %s\n", (s)->text); \
    pthread_mutex_unlock(&(s)->lock); \
    CHECK(held && #condition); \
  } while (0)

static int
open_side (side *s, const char *url, rs_amqp_options o, rs_error *err)
{
  o.url = url;
  o.title = "amqp_check";
  o.user = &user;
  o.ud = s;
  return module->open(&o, &s->a, err);
}

static void
start_side (side *s, const char *url, rs_amqp_options o)
{
  rs_error err = { .status = RS_OK };
  init_side(s);
  if (open_side(s, url, o, &err) != RS_OK) {
    fprintf(stderr, "%s\n", err.text);
    REQUIRE(false);
  }
}

static void
close_side (side *s)
{
  module->close(s->a, 10);
  CHECK(!s->told && !s->early);
  for (int i = 0; i < BODIES; i++)
    free(s->bodies[i].bytes);
  free(s->seen);
  pthread_cond_destroy(&s->changed);
  pthread_mutex_destroy(&s->lock);
}

static const char *
plain_url (void)
{
  static char url[100];
  snprintf(url, sizeof url, "amqp://guest:guest@127.0.0.1:%d/", port);
  return url;
}

static int
publish_bytes (const side *s, rs_amqp_target target, const char *name,
               uint64_t number, unsigned priority, const void *bytes,
               size_t size)
{
  /* In two parts, as a head and what follows. */
  const size_t head = size / 3;
  const struct iovec parts[2] = {
    { (void *) (uintptr_t) bytes, head },
    { (unsigned char *) (uintptr_t) bytes + head, size - head }
  };
  const rs_amqp_message m = { .target = target, .name = name,
                              .number = number, .priority = priority,
                              .parts = parts, .n = 2, .waits = true };
  return module->publish(s->a, &m);
}

static int
publish (const side *s, rs_amqp_target target, const char *name,
         uint64_t number, const char *text)
{
  return publish_bytes(s, target, name, number, 0, text, strlen(text));
}

static bool
is (const side *s, unsigned i, const char *text)
{
  return s->delivered > i && s->bodies[i].bytes != NULL
         && strcmp((const char *) s->bodies[i].bytes, text) == 0;
}

/* ------------------------------------------------------- without a server */

static void
check_crypto (void)
{
  static const unsigned char abc[RS_AMQP_HASH] =
    "\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23"
    "\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad";
  static const unsigned char jefe[RS_AMQP_HASH] =
    "\x5b\xdc\xc1\x46\xbf\x60\x75\x4e\x6a\x04\x24\x26\x08\x95\x75\xc7"
    "\x5a\x00\x3f\x08\x9d\x27\x39\x83\x9d\xec\x58\xb9\x64\xec\x38\x43";
  const struct iovec text[2] = { { (char []) { "a" }, 1 },
                                 { (char []) { "bc" }, 2 } };
  const struct iovec what[2] = {
    { (char []) { "what do ya want " }, 16 },
    { (char []) { "for nothing?" }, 12 }
  };
  unsigned char out[RS_AMQP_HASH], other[RS_AMQP_HASH];
  module->hash(text, 2, out);
  CHECK(module->equal(out, abc));
  module->sign("Jefe", 4, what, 2, out);
  CHECK(module->equal(out, jefe));
  CHECK(!module->equal(out, abc));
  CHECK(module->random(out, sizeof out));
  CHECK(module->random(other, sizeof other));
  CHECK(!module->equal(out, other));
}

static void
check_show (void)
{
  static const struct { const char *url, *shown; } rows[] = {
    { "amqp://h", "amqp://h" },
    { "amqp://u:secret@h:5672/v?heartbeat=3", "amqp://u@h:5672/v" },
    { "amqps://u@h/", "amqps://u@h/" },
    { "amqp://:secret@h", "amqp://@h" },
    { "amqp://u:secret@[::1]:1/a%2Fb", "amqp://u@[::1]:1/a%2Fb" },
    { "amqp://u:sec/ret@h", "amqp://..." },
    { "amqp://u:sec?ret@h/v", "amqp://..." },
    { "amqp://u:sec#ret@h/v", "amqp://..." },
    { "amqp://u:se@cr@h/v", "amqp://..." },
    { "amqp://u:se@c/r@h/v", "amqp://..." },
    { "amqp://u:secret", "amqp://..." },
    { "amqp://u:secret@h?passwordfile=/a@b", "amqp://u@h" },
    { "secret", "://..." },
    { "", "://..." },
  };
  char text[100];
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    module->show(rows[i].url, text, sizeof text);
    if (strcmp(text, rows[i].shown) != 0)
      fprintf(stderr, "%s is shown as %s\n", rows[i].url, text);
    CHECK(strcmp(text, rows[i].shown) == 0);
  }
  module->show("amqp://user:secret@host/", text, 10);
  CHECK(strcmp(text, "amqp://us") == 0);
}

static void
check_bad_urls (void)
{
  static const struct { const char *url, *said; } rows[] = {
    { "http://h", "begins with amqp:// or amqps://" },
    { "amqp://", "the host is missing" },
    { "amqp://u:wrong@h:0", "a port is from 1 to 65535" },
    { "amqp://u:wrong@h:70000", "a port is from 1 to 65535" },
    { "amqp://u:wrong@h:x", "this is no URL" },
    { "amqp://u:wrong@[::1", "this is no URL" },
    { "amqp://u:wrong%2@h", "'%' in the password" },
    { "amqp://u:wrong@h/%zz", "'%' in the virtual host" },
    { "amqp://u:wrong@h/%00", "'%' in the virtual host" },
    { "amqp://u@h", "no password for the user 'u'" },
    { "amqp://u:wrong@h?heartbeat=x", "heartbeat has to be a number" },
    { "amqp://u:wrong@h?colour=1", "no option is named 'colour'" },
    { "amqp://u:wrong@h?cacertfile=f", "certificates are for amqps://" },
    { "amqps://u:wrong@h?certfile=f", "certfile and keyfile go together" },
    { "amqps://u:wrong@h?verify=no", "verify_peer or verify_none" },
    { "amqp://u:wrong@h?passwordfile=f", "a password, and a passwordfile" },
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    side s;
    rs_error err = { .status = RS_OK };
    init_side(&s);
    const int status = open_side(&s, rows[i].url, (rs_amqp_options) { 0 },
                                 &err);
    if (strstr(err.text, rows[i].said) == NULL)
      fprintf(stderr, "%s: %s\n", rows[i].url, err.text);
    CHECK(status == RS_EINVAL);
    CHECK(strstr(err.text, rows[i].said) != NULL);
    CHECK(strstr(err.text, "wrong") == NULL);
    close_side(&s);
  }
}

static void
check_no_broker (void)
{
  side s;
  start_side(&s, "amqp://guest:guest@127.0.0.1:1/", (rs_amqp_options) { 0 });
  AWAIT(&s, s.downs >= 2);  /* it goes on */
  SEES(&s, !s.refused);
  SEES(&s, strstr(s.text, "amqp://guest@127.0.0.1:1/: no broker at "
                          "127.0.0.1:1: Connection refused") != NULL);
  CHECK(publish(&s, RS_AMQP_QUEUE, "q", 1, "x") == RS_ECLOSED);
  module->acknowledge(s.a, 1);
  module->look(s.a);
  close_side(&s);
  start_side(&s, "amqps://guest:guest@127.0.0.1:1/", (rs_amqp_options) { 0 });
  AWAIT(&s, s.downs >= 1);
  SEES(&s, strstr(s.text, "no broker at 127.0.0.1:1: Connection refused")
           != NULL);
  close_side(&s);
  start_side(&s, "amqp://host.invalid", (rs_amqp_options) { 0 });
  AWAIT(&s, s.downs >= 1);
  SEES(&s, !s.refused && strstr(s.text, "no host 'host.invalid'") != NULL);
  close_side(&s);
  module->close(NULL, 1);
}

/* ------------------------------------------------------- what is refused */

static void
check_refused (const char *url, rs_amqp_options o, const char *said)
{
  side s;
  start_side(&s, url, o);
  AWAIT(&s, s.downs == 1);
  if (!s.refused || strstr(s.text, said) == NULL)
    fprintf(stderr, "%s: %s\n", url, s.text);
  SEES(&s, s.refused);
  SEES(&s, strstr(s.text, said) != NULL);
  SEES(&s, s.ups == 0);
  close_side(&s);
}

static void
check_accepted (const char *url, rs_amqp_options o)
{
  side s;
  start_side(&s, url, o);
  AWAIT(&s, s.ups == 1);
  close_side(&s);
}

static void
check_refusals (void)
{
  static const rs_amqp_options none = { 0 };
  char url[600], path[300];
  snprintf(url, sizeof url, "amqp://guest:wrong@127.0.0.1:%d/", port);
  check_refused(url, none, "ACCESS_REFUSED");
  snprintf(url, sizeof url, "amqp://guest:guest@127.0.0.1:%d/nowhere", port);
  check_refused(url, none, "NOT_ALLOWED - vhost nowhere not found");
  snprintf(url, sizeof url, "amqp://guest:guest@127.0.0.1:%d/a%%2Fb", port);
  check_refused(url, none, "access to vhost 'a/b' refused");
  check_refused(plain_url(), (rs_amqp_options) { .queue = "plain" },
                "PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for "
                "queue 'plain'");
  check_refused(plain_url(), (rs_amqp_options) { .exchange = "direct" },
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange "
                "'direct'");

  /* Escapes, and passwords from other places. */
  static const char who[] = "amqp://a%%20user%s@127.0.0.1:%d/a%%2Fb%s";
  snprintf(url, sizeof url, who, ":p%40ss%2Fw%25rd%3A", port, "");
  check_accepted(url, none);
  snprintf(url, sizeof url, who, "", port, "");
  setenv("RUNSPACE_BROKER_PASSWORD", "p@ss/w%rd:", 1);
  check_accepted(url, none);
  unsetenv("RUNSPACE_BROKER_PASSWORD");
  snprintf(path, sizeof path, "%s/pass word", server);
  FILE *const file = fopen(path, "we");
  REQUIRE(file != NULL);
  fputs("p@ss/w%rd:\nmore\n", file);
  fclose(file);
  snprintf(path, sizeof path, "?passwordfile=%s/pass%%20word", server);
  snprintf(url, sizeof url, who, "", port, path);
  check_accepted(url, none);
  snprintf(url, sizeof url, who, "", port, "?passwordfile=/nowhere");
  check_refused(url, none, "cannot read the password in '/nowhere'");

  /* An own queue that somebody else has is waited for. */
  side first, second;
  start_side(&first, plain_url(), (rs_amqp_options) { .own = "mine" });
  AWAIT(&first, first.ups == 1);
  start_side(&second, plain_url(), (rs_amqp_options) { .own = "mine" });
  AWAIT(&second, second.downs >= 1);
  SEES(&second, !second.refused
                && strstr(second.text, "RESOURCE_LOCKED") != NULL);
  close_side(&first);
  AWAIT(&second, second.ups == 1);
  close_side(&second);
}

/* ----------------------------------------------------------------- TLS */

static void
check_tls (void)
{
  static const rs_amqp_options none = { 0 };
  const char *const d = server;
  char url[1000], mine[500], other[500];
  snprintf(mine, sizeof mine, "certfile=%s/client.pem&keyfile=%s/client.key",
           d, d);
  snprintf(url, sizeof url, "amqps://guest:guest@localhost:%d/"
                            "?cacertfile=%s/ca.pem&%s", tls_port, d, mine);
  check_accepted(url, none);
  snprintf(url, sizeof url, "amqps://guest:guest@127.0.0.1:%d/"
                            "?cacertfile=%s/ca.pem&%s", tls_port, d, mine);
  check_accepted(url, none);
  snprintf(url, sizeof url, "amqps://guest:guest@127.0.0.1:%d/"
                            "?verify=verify_none&%s", tls_port, mine);
  check_accepted(url, none);

  /* Another authority, the system's ones, another name. */
  snprintf(url, sizeof url, "amqps://guest:guest@localhost:%d/"
                            "?cacertfile=%s/other.pem&%s", tls_port, d, mine);
  check_refused(url, none, "the broker's certificate is not trusted");
  snprintf(url, sizeof url, "amqps://guest:guest@localhost:%d/?%s", tls_port,
           mine);
  check_refused(url, none, "the broker's certificate is not trusted");
  snprintf(url, sizeof url, "amqps://guest:guest@localhost:%d/?cacertfile=%s/"
                            "ca.pem&%s&server_name_indication=elsewhere",
           tls_port, d, mine);
  check_refused(url, none, "the broker's certificate is not for 'elsewhere'");

  /* No certificate of ours, one that is no file, a key that has a password. */
  snprintf(url, sizeof url, "amqps://guest:guest@localhost:%d/"
                            "?cacertfile=%s/ca.pem", tls_port, d);
  side s;
  start_side(&s, url, none);
  AWAIT(&s, s.downs >= 1);
  SEES(&s, strstr(s.text, "'?certfile=FILE&keyfile=FILE' gives") != NULL);
  SEES(&s, s.ups == 0);
  close_side(&s);
  snprintf(url, sizeof url, "amqps://guest:guest@localhost:%d/"
                            "?cacertfile=%s/nowhere.pem", tls_port, d);
  check_refused(url, none, "no certificates of authorities in ");
  snprintf(other, sizeof other,
           "certfile=%s/client.pem&keyfile=%s/secret.key", d, d);
  snprintf(url, sizeof url, "amqps://guest:guest@localhost:%d/"
                            "?cacertfile=%s/ca.pem&%s", tls_port, d, other);
  check_refused(url, none, "has a password");

  /* The wrong ports. */
  snprintf(url, sizeof url, "amqps://guest:guest@localhost:%d/"
                            "?cacertfile=%s/ca.pem&%s", port, d, mine);
  check_refused(url, none, "does not speak TLS");
  snprintf(url, sizeof url, "amqp://guest:guest@localhost:%d/", tls_port);
  start_side(&s, url, none);
  AWAIT(&s, s.downs == 1);
  SEES(&s, strstr(s.text, "localhost") != NULL);
  close_side(&s);

  /* What crosses. */
  const size_t size = (3 << 20) + 7;
  unsigned char *const bytes = malloc(size);
  REQUIRE(bytes != NULL);
  for (size_t i = 0; i < size; i++)
    bytes[i] = (unsigned char) (i * i >> 3);
  snprintf(url, sizeof url, "amqps://guest:guest@localhost:%d/"
                            "?cacertfile=%s/ca.pem&%s", tls_port, d, mine);
  start_side(&s, url, (rs_amqp_options) { .own = "tls" });
  AWAIT(&s, s.ups == 1);
  for (uint64_t i = 1; i <= 8; i++)
    CHECK(publish_bytes(&s, RS_AMQP_QUEUE, "tls", i, 0, bytes, size)
          == RS_OK);
  AWAIT(&s, s.confirmed == 8 && s.delivered == 8);
  SEES(&s, s.unrouted == 0 && s.downs == 0);
  for (int i = 0; i < 8; i++)
    SEES(&s, s.bodies[i].size == size
             && memcmp(s.bodies[i].bytes, bytes, size) == 0);
  close_side(&s);
  free(bytes);
}

/* ------------------------------------------------------------- messages */

static void
check_messages (void)
{
  side host, worker, third;
  start_side(&host, plain_url(), (rs_amqp_options) {
    .queue = "jobs", .own = "host", .exchange = "news" });
  start_side(&worker, plain_url(), (rs_amqp_options) {
    .queue = "jobs", .own = "worker", .exchange = "news", .listens = true,
    .prefetch = 2 });
  start_side(&third, plain_url(), (rs_amqp_options) {
    .queue = "jobs", .own = "third", .exchange = "news", .listens = true });
  AWAIT(&host, host.up);
  AWAIT(&worker, worker.up);
  AWAIT(&third, third.up);

  /* To the shared queue, and back; empty bodies, too. */
  CHECK(publish(&host, RS_AMQP_SHARED, NULL, 7, "work") == RS_OK);
  AWAIT(&worker, worker.delivered == 1);
  SEES(&worker, is(&worker, 0, "work") && worker.bodies[0].shared
                && !worker.bodies[0].redelivered);
  CHECK(publish(&worker, RS_AMQP_QUEUE, "host", 9, "") == RS_OK);
  CHECK(publish(&worker, RS_AMQP_QUEUE, "host", 0, "result") == RS_OK);
  AWAIT(&host, host.delivered == 2);
  SEES(&host, is(&host, 0, "") && is(&host, 1, "result")
              && !host.bodies[1].shared);
  AWAIT(&worker, worker.confirmed == 1);
  SEES(&worker, worker.last == 9 && worker.unrouted == 0);
  module->acknowledge(worker.a, worker.bodies[0].tag);
  AWAIT(&host, host.confirmed == 1);

  /* A queue that is not there. */
  CHECK(publish(&worker, RS_AMQP_QUEUE, "nobody", 10, "x") == RS_OK);
  AWAIT(&worker, worker.confirmed == 2);
  SEES(&worker, worker.last == 10 && worker.unrouted == 1);

  /* To all that listen. */
  CHECK(publish(&host, RS_AMQP_EXCHANGE, NULL, 11, "stop") == RS_OK);
  AWAIT(&worker, worker.delivered == 2);
  AWAIT(&third, third.delivered == 1);
  SEES(&worker, is(&worker, 1, "stop"));
  SEES(&third, is(&third, 0, "stop"));
  SEES(&worker, !worker.bodies[1].shared);
  AWAIT(&host, host.confirmed == 2);
  SEES(&host, host.delivered == 2 && host.unrouted == 0);

  /* What goes back comes again, to whoever takes it; a tag of another
     connection means nothing. */
  CHECK(publish(&host, RS_AMQP_SHARED, NULL, 12, "again") == RS_OK);
  AWAIT(&worker, worker.delivered == 3);
  module->acknowledge(third.a, worker.bodies[2].tag);
  module->reject(worker.a, worker.bodies[2].tag, true);
  AWAIT(&worker, worker.delivered == 4);
  SEES(&worker, is(&worker, 3, "again") && worker.bodies[3].redelivered);
  module->reject(worker.a, worker.bodies[3].tag, false);

  /* No more than 'prefetch' at a time; who quits gets no more. */
  for (int i = 0; i < 5; i++)
    CHECK(publish(&host, RS_AMQP_SHARED, NULL, 13 + i, "many") == RS_OK);
  AWAIT(&worker, worker.delivered == 6);
  AWAIT(&host, host.confirmed == 8);
  module->look(third.a);
  AWAIT(&third, third.counts == 1);
  SEES(&third, third.messages == 3 && third.consumers == 1);
  module->quit(worker.a);
  module->quit(worker.a);
  unsigned counts = 1;
  do {
    module->look(third.a);
    AWAIT(&third, third.counts > counts);
    counts++;
  } while (third.consumers > 0);  /* nobody else looks */
  SEES(&third, third.messages == 3);

  /* A worker that ends gives back what it has. */
  close_side(&worker);
  start_side(&worker, plain_url(), (rs_amqp_options) {
    .queue = "jobs", .own = "worker", .prefetch = 10 });
  AWAIT(&worker, worker.delivered == 5);
  unsigned again = 0;
  for (int i = 0; i < 5; i++) {
    again += worker.bodies[i].redelivered;
    module->acknowledge(worker.a, worker.bodies[i].tag);
  }
  CHECK(again == 2);
  SEES(&worker, worker.downs == 0);
  close_side(&worker);

  /* What is more urgent comes first. */
  for (unsigned i = 0; i < 4; i++) {
    const char name[] = { (char) ('0' + i), '\0' };
    CHECK(publish_bytes(&host, RS_AMQP_SHARED, NULL, 20 + i, i * 3, name, 1)
          == RS_OK);
  }
  AWAIT(&host, host.last >= 20 && host.confirmed == 12);
  start_side(&worker, plain_url(), (rs_amqp_options) {
    .queue = "jobs", .own = "worker", .prefetch = 10 });
  AWAIT(&worker, worker.delivered == 4);
  for (unsigned i = 0; i < 4; i++) {
    const char name[] = { (char) ('3' - i), '\0' };
    SEES(&worker, is(&worker, i, name));
    module->acknowledge(worker.a, worker.bodies[i].tag);
  }
  SEES(&host, host.downs == 0);
  SEES(&worker, worker.downs == 0);
  SEES(&third, third.downs == 0);
  close_side(&worker);
  close_side(&third);
  close_side(&host);
}

static void
check_long (void)
{
  static const size_t sizes[] = {
    131064, 131065, RS_AMQP_PART, RS_AMQP_PART + 1, 5 * RS_AMQP_PART + 12345
  };
  enum { N = sizeof sizes / sizeof sizes[0] };
  side a, b;
  unsigned char *const bytes = malloc(sizes[N - 1]);
  REQUIRE(bytes != NULL);
  for (size_t i = 0; i < sizes[N - 1]; i++)
    bytes[i] = (unsigned char) (i * 2654435761u >> 13);
  start_side(&a, plain_url(), (rs_amqp_options) { .queue = "long" });
  start_side(&b, plain_url(), (rs_amqp_options) {
    .queue = "long", .own = "long own", .prefetch = 4 });
  AWAIT(&a, a.up);
  AWAIT(&b, b.up);
  for (int i = 0; i < N; i++)
    CHECK(publish_bytes(&a, RS_AMQP_QUEUE, "long own", 1 + (uint64_t) i, 0,
                        bytes, sizes[i]) == RS_OK);
  CHECK(publish(&a, RS_AMQP_QUEUE, "long own", 0, "behind") == RS_OK);
  AWAIT(&b, b.delivered == N + 1);
  AWAIT(&a, a.confirmed == N);
  SEES(&a, a.unrouted == 0);
  for (int i = 0; i < N; i++)
    SEES(&b, b.bodies[i].size == sizes[i]
             && memcmp(b.bodies[i].bytes, bytes, sizes[i]) == 0);
  SEES(&b, is(&b, N, "behind"));
  CHECK(publish_bytes(&a, RS_AMQP_SHARED, NULL, 20, 0, bytes, RS_AMQP_PART + 1)
        == RS_EFULL);
  CHECK(publish_bytes(&a, RS_AMQP_SHARED, NULL, 21, 0, bytes, RS_AMQP_PART)
        == RS_OK);
  AWAIT(&b, b.delivered == N + 2);
  SEES(&b, b.bodies[N + 1].shared && b.bodies[N + 1].size == RS_AMQP_PART
           && memcmp(b.bodies[N + 1].bytes, bytes, RS_AMQP_PART) == 0);
  module->acknowledge(b.a, b.bodies[N + 1].tag);

  /* A long one that no queue takes. */
  CHECK(publish_bytes(&a, RS_AMQP_QUEUE, "nobody", 22, 0, bytes,
                      2 * RS_AMQP_PART + 1) == RS_OK);
  AWAIT(&a, a.confirmed == N + 2);
  SEES(&a, a.unrouted == 1 && a.last == 22);
  SEES(&a, a.downs == 0);
  SEES(&b, b.downs == 0);
  close_side(&a);
  close_side(&b);
  free(bytes);
}

/* ------------------------------------------------------- many, and breaks */

/* Note that the number in a body has come. */
static void
note_number (side *s, const rs_amqp_delivery *d)
{
  uint32_t n;
  REQUIRE(d->size >= sizeof n);
  memcpy(&n, d->body, sizeof n);
  pthread_mutex_lock(&s->lock);
  if (s->seen[n])
    s->doubles++;
  else
    s->numbers++;
  s->seen[n] = 1;
  pthread_mutex_unlock(&s->lock);
  if (d->shared)
    module->acknowledge(s->a, d->tag);
}

static int
publish_number (const side *s, rs_amqp_target target, const char *name,
                uint32_t n)
{
  unsigned char bytes[100] = { 0 };
  memcpy(bytes, &n, sizeof n);
  return publish_bytes(s, target, name, n + 1, 0, bytes, sizeof bytes);
}

static void
listen_for_numbers (side *s, const char *own, unsigned most)
{
  rs_error err = { .status = RS_OK };
  init_side(s);
  s->on_deliver = note_number;
  s->seen = calloc(1, most);
  REQUIRE(s->seen != NULL);
  REQUIRE(open_side(s, plain_url(), (rs_amqp_options) {
    .queue = "numbers", .own = own, .prefetch = 50 }, &err) == RS_OK);
  AWAIT(s, s->up);
}

static void
check_many (void)
{
  enum { MANY = 20000 };
  side a, b;
  start_side(&a, plain_url(), (rs_amqp_options) { .queue = "numbers" });
  AWAIT(&a, a.up);
  listen_for_numbers(&b, "own numbers", MANY);
  const double since = now();
  for (uint32_t i = 0; i < MANY; i++)
    if (publish_number(&a, RS_AMQP_QUEUE, "own numbers", i) != RS_OK)
      REQUIRE(false);
  AWAIT(&b, b.numbers == MANY);
  AWAIT(&a, a.confirmed == MANY);
  SEES(&b, b.doubles == 0 && b.downs == 0);
  SEES(&a, a.unrouted == 0 && a.downs == 0);
  printf("%d messages, confirmed, in %.2f s\n", (int) MANY, now() - since);
  close_side(&a);
  close_side(&b);
}

/* Threads that publish while the broker dies: none of them hangs. */
typedef struct flood {
  side *s;
  pthread_t thread;
  unsigned sent;
} flood;

enum { FLOODS = 3 };

static void *
send_until_closed (void *arg)
{
  flood *const f = arg;
  static const unsigned char bytes[100000];
  while (publish_bytes(f->s, RS_AMQP_QUEUE, "flood own", f->sent + 1, 0, bytes,
                       sizeof bytes) == RS_OK)
    f->sent++;
  return NULL;
}

static void
start_floods (side *s, flood floods[FLOODS])
{
  start_side(s, plain_url(), (rs_amqp_options) { .own = "flood own" });
  AWAIT(s, s->up);
  for (int i = 0; i < FLOODS; i++) {
    floods[i] = (flood) { .s = s };
    REQUIRE(pthread_create(&floods[i].thread, NULL, send_until_closed,
                           &floods[i]) == 0);
  }
  AWAIT(s, s->delivered > 50);
}

static void
join_floods (side *s, flood floods[FLOODS])
{
  for (int i = 0; i < FLOODS; i++)
    pthread_join(floods[i].thread, NULL);
  AWAIT(s, s->downs >= 1);
  close_side(s);
}

/* What is not confirmed when the broker ends is published again by its user,
   and comes at least once; what the shared queue had is there afterwards. */
static void
check_restart (const char *how)
{
  enum { MANY = 4000 };
  side a, b, c;
  flood floods[FLOODS];
  start_side(&a, plain_url(), (rs_amqp_options) { .queue = "numbers" });
  AWAIT(&a, a.up);
  for (uint32_t i = 0; i < MANY / 2; i++)
    CHECK(publish_number(&a, RS_AMQP_SHARED, NULL, i) == RS_OK);
  AWAIT(&a, a.confirmed == MANY / 2);  /* these are the broker's now */
  listen_for_numbers(&b, "own numbers", MANY);
  AWAIT(&b, b.numbers > 100);
  start_floods(&c, floods);
  tell_server(how);
  join_floods(&c, floods);
  AWAIT(&a, a.downs >= 1);
  AWAIT(&b, b.downs >= 1);
  CHECK(publish_number(&a, RS_AMQP_SHARED, NULL, 0) == RS_ECLOSED);
  SEES(&a, !a.refused);
  SEES(&b, !b.refused);
  tell_server("run");
  AWAIT(&a, a.ups == 2);
  AWAIT(&b, b.ups == 2);
  for (uint32_t i = MANY / 2; i < MANY; i++)
    CHECK(publish_number(&a, RS_AMQP_SHARED, NULL, i) == RS_OK);
  AWAIT(&b, b.numbers == MANY);
  AWAIT(&a, a.confirmed == MANY);
  close_side(&a);
  close_side(&b);
  printf("after '%s': %u came twice\n", how, b.doubles);
}

/* Heartbeats: nothing else happens for longer than they may be missing; then
   the broker is stopped, which only they can tell. */
static void
check_heartbeats (void)
{
  side s;
  char url[200];
  snprintf(url, sizeof url, "%s?heartbeat=1", plain_url());
  start_side(&s, url, (rs_amqp_options) { .queue = "beats" });
  AWAIT(&s, s.ups == 1);
  nap(4);
  module->look(s.a);
  AWAIT(&s, s.counts == 1);
  SEES(&s, s.downs == 0);
  const int pid = atoi(ask("cat %s/pid", server));
  REQUIRE(pid > 1 && kill(pid, SIGSTOP) == 0);
  AWAIT(&s, s.downs >= 1);
  SEES(&s, strstr(s.text, "no heartbeat from the broker") != NULL);
  const double since = now();
  close_side(&s);  /* while nobody answers */
  CHECK(now() - since < 30);
  kill(pid, SIGCONT);
}

/* A close while the broker reads nothing, and much is to be written. */
static void
check_stuck (void)
{
  side s;
  static unsigned char bytes[1 << 20];
  start_side(&s, plain_url(), (rs_amqp_options) { .own = "stuck" });
  AWAIT(&s, s.up);
  const int pid = atoi(ask("cat %s/pid", server));
  REQUIRE(pid > 1 && kill(pid, SIGSTOP) == 0);
  for (uint64_t i = 0; i < 32; i++) {
    const struct iovec part = { bytes, sizeof bytes };
    const rs_amqp_message m = { .target = RS_AMQP_QUEUE, .name = "stuck",
                                .number = i + 1, .parts = &part, .n = 1 };
    CHECK(module->publish(s.a, &m) == RS_OK);
  }
  module->close(s.a, 0.5);
  s.a = NULL;
  kill(pid, SIGCONT);
  close_side(&s);
}

/* A broker that is short of memory reads nothing from those that publish: they
   wait, heartbeats go on, and nothing is lost. */
static void *
send_many (void *arg)
{
  flood *const f = arg;
  static const unsigned char bytes[100000];
  for (unsigned i = 0; i < 300; i++)
    f->sent += publish_bytes(f->s, RS_AMQP_QUEUE, "alarm", i + 1, 0, bytes,
                             sizeof bytes) == RS_OK;
  return NULL;
}

static void
check_alarm (void)
{
  side s;
  char url[200];
  snprintf(url, sizeof url, "%s?heartbeat=1", plain_url());
  start_side(&s, url, (rs_amqp_options) { .own = "alarm" });
  AWAIT(&s, s.up);
  flood f = { .s = &s };
  control("set_vm_memory_high_watermark 0");
  REQUIRE(pthread_create(&f.thread, NULL, send_many, &f) == 0);
  nap(4);
  SEES(&s, s.downs == 0 && s.confirmed < 300);
  control("set_vm_memory_high_watermark 0.4");
  pthread_join(f.thread, NULL);
  AWAIT(&s, s.confirmed == 300 && s.delivered == 300);
  SEES(&s, s.downs == 0 && s.unrouted == 0);
  CHECK(f.sent == 300);

  control("set_vm_memory_high_watermark 0");
  for (unsigned i = 0; i < 100; i++) {
    static unsigned char bytes[100000];
    const struct iovec part = { bytes, sizeof bytes };
    const rs_amqp_message m = { .target = RS_AMQP_QUEUE, .name = "alarm",
                                .number = i + 1, .parts = &part, .n = 1 };
    CHECK(module->publish(s.a, &m) == RS_OK);
  }
  module->close(s.a, 0.5);
  s.a = NULL;
  control("set_vm_memory_high_watermark 0.4");
  close_side(&s);
}

/* ------------------------------------------------------------------------ */

static void
open_module (void)
{
  char path[1000];
  const char *const build = getenv("RUNSPACE_BUILDDIR");
  snprintf(path, sizeof path, "%s/.libs/runspace-broker.so",
           build != NULL ? build : ".");
  void *const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL)
    fprintf(stderr, "%s\n", dlerror());
  REQUIRE(library != NULL);
  module = dlsym(library, RS_AMQP_SYMBOL);
  REQUIRE(module != NULL && module->version == RS_AMQP_VERSION);
}

static void
with_server (void)
{
  check_refusals();
  check_tls();
  check_messages();
  check_long();
  check_many();
  const int fds = entries("/proc/self/fd"), tasks = entries("/proc/self/task");
  check_restart("stop");
  check_restart("kill");
  check_heartbeats();
  check_stuck();
  check_alarm();
  CHECK(entries("/proc/self/fd") == fds);
  CHECK(entries("/proc/self/task") == tasks);
  tell_server("close");
}

int
main (void)
{
  unsetenv("RUNSPACE_BROKER_PASSWORD");
  open_module();
  check_crypto();
  check_show();
  check_bad_urls();
  check_no_broker();
  start_server();
  if (server[0] == '\0')
    printf("left out, since no broker can be started: all that needs one\n");
  else
    with_server();
  return report();
}
