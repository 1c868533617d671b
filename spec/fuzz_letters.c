/* SPDX-License-Identifier: MIT */
/*
 * fuzz_letters.c - a target for libFuzzer: bytes that claim to be letters.
 *
 *     +------+------+------+-------+------+------+-------+ ...
 *     | how  | what | size | bytes | what | size | bytes |
 *     +------+------+------+-------+------+------+-------+ ...
 *      1      1      2
 *
 * They come to a server, or to the runner of a caller, which stand on a broker
 * that is played here: 'what' is a letter, by one way or another, or something
 * else that a broker may say.  Whatever comes:
 *
 *   - a server ends each delivery at most once, and runs nothing before the
 *     broker has confirmed that its caller knows;
 *   - a caller's call ends, and as it can;
 *   - bodies that are cut, or bundled, are put together, or dropped.
 *
 * 'fuzz_letters --seeds=DIR' writes real letters, to begin with, and ends.
 */
#include <stdint.h>

#include "support/payloads.h"

#include "base/console.h"
#include "base/timer.h"
#include "broker/bundle.h"
#include "broker/join.h"
#include "reach/broker.h"
#include "reach/broker_module.h"
#include "reach/broker_run.h"
#include "reach/exchange.h"
#include "reach/server_book.h"

enum {
  WORKER = 1, PLAIN = 2, KEY = 4,          /* bits of 'how' */
  TAGS = 4096,
  NUMBERS = 1 << 16
};

/* What comes. */
typedef enum event {
  TO_ALL,                   /* a letter: for all that listen, */
  SHARED,                   /* in the shared queue, */
  SHARED_AGAIN,             /* there for the second time, */
  OWN,                      /* in the own queue, */
  BUNDLE,                   /* a bundle there, */
  PART,                     /* or a part: a text with its place, and bytes */
  CONFIRM,                  /* the oldest number, */
  RETURN,                   /* as one that no queue took */
  DOWN, UP,                 /* the connection */
  COUNT_IDLE, COUNT_FULL,   /* of messages: none, many */
  RUN,                      /* a worker takes a task, and ends it */
  EVENTS
} event;

typedef struct input {
  const uint8_t *at;
  size_t left;
} input;

/* ------------------------------------------------------- a broker of paper */

static struct broker {
  const rs_amqp_user *user;
  void *ud;
  uint64_t tag;             /* the last one */
  unsigned char ended[TAGS];
  uint64_t asked[NUMBERS], first, last;  /* numbers to be confirmed */
  input *in;                /* what a caller gets when it has published */
  rs_join join;
} broker;

static void take_all (input *in, rs_server *s);

static int
open_broker (const rs_amqp_options *o, rs_amqp **out, rs_error *err)
{
  (void) err;
  broker.user = o->user;
  broker.ud = o->ud;
  *out = (rs_amqp *) &broker;
  return RS_OK;
}

static int
publish (rs_amqp *a, const rs_amqp_message *m)
{
  (void) a;
  if (m->number != 0 && broker.last < NUMBERS)
    broker.asked[broker.last++] = m->number;
  if (m->target != RS_AMQP_SHARED)
    return RS_OK;
  if (broker.in != NULL)
    take_all(broker.in, NULL);
  broker.user->confirm(broker.ud, m->number, false);  /* that is the end */
  return RS_OK;
}

static void
end_tag (uint64_t tag)
{
  MUST(tag >= 1 && tag <= broker.tag && !broker.ended[tag]);
  broker.ended[tag] = 1;
}

static void
acknowledge (rs_amqp *a, uint64_t tag)
{
  (void) a;
  end_tag(tag);
}

static void
reject (rs_amqp *a, uint64_t tag, bool requeue)
{
  (void) a;
  (void) requeue;
  end_tag(tag);
}

static void
nothing (rs_amqp *a)
{
  (void) a;
}

static void
close_broker (rs_amqp *a, double seconds)
{
  (void) a;
  (void) seconds;
}

static void
show (const char *url, char *text, size_t size)
{
  snprintf(text, size, "%s", url);
}

/* A hash, and a seal, that a fuzzer can guess. */
static void
hash (const struct iovec *parts, int n, unsigned char out[RS_AMQP_HASH])
{
  size_t size = 0;
  for (int i = 0; i < n; i++)
    size += parts[i].iov_len;
  memset(out, (int) (size & 0xff), RS_AMQP_HASH);
}

static void
sign (const void *key, size_t size, const struct iovec *parts, int n,
      unsigned char out[RS_AMQP_HASH])
{
  (void) key;
  (void) size;
  (void) parts;
  (void) n;
  memset(out, 0x5a, RS_AMQP_HASH);
}

static bool
make_random (void *out, size_t size)
{
  memset(out, 0x77, size);
  return true;
}

static bool
equal (const unsigned char a[RS_AMQP_HASH],
       const unsigned char b[RS_AMQP_HASH])
{
  return memcmp(a, b, RS_AMQP_HASH) == 0;
}

static const rs_amqp_module paper = {
  .version = RS_AMQP_VERSION, .open = open_broker, .publish = publish,
  .acknowledge = acknowledge, .reject = reject, .quit = nothing,
  .look = nothing, .close = close_broker, .show = show, .hash = hash,
  .sign = sign, .random = make_random, .equal = equal
};

const rs_amqp_module *__wrap_rs_broker_module (rs_error *err);

const rs_amqp_module *
__wrap_rs_broker_module (rs_error *err)
{
  (void) err;
  return &paper;
}

/* ------------------------------------------------------------------ events */

static void
deliver (const uint8_t *body, size_t size, bool shared, bool again)
{
  rs_amqp_delivery d = { .body = body, .size = size, .shared = shared,
                         .redelivered = again,
                         .priority = shared && size > 0 ? body[size - 1] : 0 };
  if (shared && broker.tag + 1 >= TAGS)
    return;
  if (shared)
    d.tag = ++broker.tag;
  broker.user->deliver(broker.ud, &d);
}

static void
unpack (const uint8_t *body, size_t size)
{
  const unsigned char *at = body, *one;
  size_t left = size, n, sum = 0;
  while (rs_bundle_take(&at, &left, &one, &n)) {
    sum += RS_BUNDLE_HEAD + n;
    MUST(one + n == at && sum + left == size);
    deliver(one, n, false, false);
  }
}

static void
join (const uint8_t *body, size_t size)
{
  char place[RS_JOIN_TEXT];
  rs_part part;
  const unsigned char *whole;
  size_t n;
  const size_t length = size < sizeof place ? size : sizeof place - 1;
  memcpy(place, body, length);
  place[length] = '\0';
  const size_t text = strlen(place) + 1;
  if (text > size || !rs_part_read(place, &part))
    return;
  if (rs_join_add(&broker.join, text % 2 ? "a" : "b", part, body + text,
                  size - text, &whole, &n)) {
    MUST(n == part.total);
    deliver(whole, n, false, false);
  }
}

static void
confirm (bool routed)
{
  if (broker.first == broker.last)
    return;
  const uint64_t number = broker.asked[broker.first++];
  broker.user->confirm(broker.ud, number, routed);
}

static void
go_down (void)
{
  broker.first = broker.last;  /* nobody confirms these any more */
  for (uint64_t tag = 1; tag <= broker.tag; tag++)
    broker.ended[tag] = 1;
  broker.user->down(broker.ud, "cut", false);
}

/* Run a task as a worker does. */
static void
run_task (rs_server *s)
{
  rs_server_task *t = NULL;
  pthread_mutex_lock(&s->lock);
  for (rs_list *link = s->tasks.next; link != &s->tasks && t == NULL;
       link = link->next) {
    rs_server_task *const one = RS_LIST_ENTRY(link, rs_server_task, link);
    if (one->state == RS_TASK_DUE)
      t = one;
  }
  if (t != NULL) {
    MUST(t->call.function != NULL && !t->dropped);
    t->state = RS_TASK_RUNNING;
    t->worker = &s->workers[0];
    s->begun++;
    s->running++;
  }
  pthread_mutex_unlock(&s->lock);
  if (t == NULL)
    return;
  rs_buf b = RS_BUF_INIT;
  t->call.state = RS_JOB_FAILED;
  rs_server_begin_news(s, t, &b, RS_NEWS_RESULT);
  rs_add_number(&b, 0, 1);
  rs_result_write(&b, &t->call, false, 0);
  rs_server_tell(s, t, &b, true);
}

static void
take (event what, const uint8_t *body, size_t size, rs_server *s)
{
  switch (what) {
    case TO_ALL:
    case OWN: deliver(body, size, false, false); break;
    case SHARED: deliver(body, size, s != NULL, false); break;
    case SHARED_AGAIN: deliver(body, size, s != NULL, true); break;
    case BUNDLE: unpack(body, size); break;
    case PART: join(body, size); break;
    case CONFIRM: confirm(true); break;
    case RETURN: confirm(false); break;
    case DOWN: go_down(); break;
    case UP: broker.user->up(broker.ud); break;
    case COUNT_IDLE: broker.user->count(broker.ud, 0, 2); break;
    case COUNT_FULL: broker.user->count(broker.ud, 9, 1); break;
    case RUN:
      if (s != NULL)
        run_task(s);
      break;
    case EVENTS: break;
  }
}

/* How many tasks may begin now. */
static unsigned
count_due (const rs_server *s)
{
  unsigned n = 0;
  for (const rs_list *link = s->tasks.next; link != &s->tasks;
       link = link->next)
    n += RS_LIST_ENTRY(link, rs_server_task, link)->state == RS_TASK_DUE;
  return n;
}

/* The body is a copy, so that what is read behind it is seen. */
static void
take_all (input *in, rs_server *s)
{
  while (in->left >= 3) {
    const event what = (event) (in->at[0] % EVENTS);
    size_t size = (size_t) in->at[1] << 8 | in->at[2];
    in->at += 3;
    in->left -= 3;
    if (size > in->left)
      size = in->left;
    uint8_t *const body = malloc(size);
    MUST(size == 0 || body != NULL);
    if (size > 0)
      memcpy(body, in->at, size);
    in->at += size;
    in->left -= size;
    const unsigned due = s != NULL ? count_due(s) : 0;
    take(what, body, size, s);
    MUST(s == NULL || what == CONFIRM || count_due(s) <= due);
    free(body);
  }
}

/* ------------------------------------------------------------- both sides */

static void
serve (input *in, const unsigned char *key)
{
  rs_list *link;
  rs_server_worker worker = { .number = 1 };
  rs_server s = {
    .desk = { .module = &paper, .queue = "q", .own = "runspace.worker.x",
              .key = key, .key_size = 16 },
    .amqp = (rs_amqp *) &broker, .queue = (char *) (uintptr_t) "q",
    .n_workers = 1, .workers = &worker, .host = "h"
  };
  s.own = (char *) (uintptr_t) s.desk.own;
  s.url = s.queue;
  rs_list_init(&s.clients);
  rs_list_init(&s.tasks);
  rs_list_init(&s.stored);
  pthread_mutex_init(&s.lock, NULL);
  rs_cond_init(&s.changed);
  rs_cond_init(&s.work);
  broker.user = &rs_server_user;
  broker.ud = &s;
  broker.user->up(broker.ud);
  take_all(in, &s);
  rs_server_sort(&s);
  rs_server_attend(&s);
  rs_server_hand_back(&s);
  MUST(s.running == 0);
  while ((link = s.tasks.next) != &s.tasks)
    rs_server_drop_task_locked(&s, RS_LIST_ENTRY(link, rs_server_task, link));
  while ((link = rs_list_shift(&s.clients)) != NULL) {
    rs_client *const c = RS_LIST_ENTRY(link, rs_client, link);
    MUST(c->tasks == 0);
    free(c);
  }
  while (!rs_list_empty(&s.stored))
    rs_server_forget_locked(&s);
  MUST(s.stored_bytes == 0);
  pthread_mutex_destroy(&s.lock);
  pthread_cond_destroy(&s.changed);
  pthread_cond_destroy(&s.work);
}

static void
on_record (rs_call *call, rs_stream_record *record)
{
  (void) call;
  judge_record(record);
  rs_stream_record_unref(record);
}

static bool
is_ready (rs_call *call)
{
  (void) call;
  return true;
}

static const char *
name_of (rs_call *call)
{
  (void) call;
  return "job-1";
}

static void
on_failed (rs_call *call, const char *why)
{
  (void) call;
  MUST(why[0] != '\0');
}

static const rs_call_sink sink = {
  .record = on_record, .emit = on_record, .ready = is_ready, .name = name_of,
  .failed = on_failed
};

static void
lose_thread (void *ud)
{
  (void) ud;
}

static const rs_cancel_owner owner = {
  .lost_thread = lose_thread, .hold_call = lose_thread,
  .lost_call = lose_thread
};

static rs_message *
make_message (void)
{
  static const unsigned char bytes[] = { 'R', 'S', 1, 0, 0, 0, 0, 0 };
  rs_message *const m = rs_message_new(bytes, sizeof bytes, 0);
  MUST(m != NULL);
  return m;
}

/* The pool that sends the call. */
static const rs_pool_options *
pool_options (rs_initial_state *is)
{
  static rs_pool_options o;
  o = (rs_pool_options) { .size = sizeof o, .initial_state = is,
                          .broker = "amqp://h/", .broker_queue = "q" };
  return &o;
}

static void
call (input *in, const unsigned char *key, bool plain)
{
  rs_error err = { .status = RS_OK };
  rs_call one;
  rs_chunk chunk;
  rs_runner *runner = NULL;
  void *shared = NULL;
  rs_initial_state *const is = rs_initial_state_new();
  rs_cancel *const cancel = rs_cancel_new(0, &owner, NULL);
  const rs_pool_options *const o = pool_options(is);
  MUST(is != NULL && cancel != NULL);
  MUST(rs_broker_kind.prepare(o, &shared, &err) == RS_OK);
  ((rs_broker *) shared)->desk.key = key;
  broker.user->up(broker.ud);
  broker.in = in;
  make_call(&one, &chunk, plain);
  one.function = make_message();
  one.retry_on = RS_RETRY_LOST;
  const rs_state_options so = { .options = o, .worker = 1, .cancel = cancel,
                                .wish = &one.wish, .owner = &one,
                                .shared = shared };
  MUST(rs_broker_kind.open(&so, &runner, &err) == RS_OK);
  rs_broker_kind.run(runner, &one, &sink);
  judge_outcome(&one, &chunk);
  rs_message_unref(one.result);
  rs_broker_kind.close(runner);
  rs_message_unref(one.function);
  ((rs_broker *) shared)->desk.key = NULL;
  rs_broker_kind.dismiss(shared);
  rs_cancel_leave(cancel);
  rs_cancel_unref(cancel);
  rs_initial_state_unref(is);
}

/* rs_console_redirect: what a job has printed. */
static int
swallow (int fd, const char *text, size_t size)
{
  (void) text;
  (void) size;
  MUST(fd == 1 || fd == 2);
  return 0;
}

int LLVMFuzzerTestOneInput (const uint8_t *bytes, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *bytes, size_t size)
{
  static const unsigned char key[16] = "0123456789abcdef";
  if (size < 1)
    return 0;
  input in = { bytes + 1, size - 1 };
  memset(&broker, 0, sizeof broker);
  const unsigned char *const used = bytes[0] & KEY ? key : NULL;
  if (bytes[0] & WORKER)
    serve(&in, used);
  else
    call(&in, used, (bytes[0] & PLAIN) != 0);
  rs_join_fini(&broker.join);
  return 0;
}

/* ------------------------------------------------------------------- seeds */

static const char *directory;
static FILE *file;
static unsigned seeds;

static void
open_seed (const char *name, unsigned char how)
{
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  file = fopen(path, "wb");
  MUST(file != NULL);
  fputc(how, file);
  seeds++;
}

static void
put_bytes (event what, const void *bytes, size_t size)
{
  fputc((int) what, file);
  fputc((int) (size >> 8), file);
  fputc((int) (size & 0xff), file);
  fwrite(bytes, 1, size, file);
}

/* Put a letter, sealed as 'd' does, and empty it. */
static void
put (const rs_desk *d, event what, rs_buf *b)
{
  rs_letter_seal(d, b, NULL);
  put_bytes(what, b->data, b->size);
  rs_buf_clear(b);
}

/* A call of number 2, as the runner above has it. */
static void
put_call (const rs_desk *d, event what, bool plain)
{
  rs_buf b = RS_BUF_INIT, open = RS_BUF_INIT;
  rs_call one;
  rs_chunk chunk;
  rs_initial_state *const is = rs_initial_state_new();
  rs_message *const m = make_message();
  const unsigned char kind = 0;
  unsigned char name[RS_AMQP_HASH];
  rs_hello_write(&open);
  rs_open_write(&open, pool_options(is), 0);
  rs_letter_begin(d, &b, RS_LETTER_CALL, 2);
  hash(&(struct iovec) { open.data, open.size }, 1, name);
  rs_buf_add(&b, name, sizeof name);
  rs_add_number(&b, open.size, 4);
  rs_buf_add(&b, open.data, open.size);
  hash((struct iovec [2]) { { (void *) (uintptr_t) &kind, 1 },
                            { m->data, m->size } }, 2, name);
  rs_buf_add(&b, name, sizeof name);
  rs_add_number(&b, 1, 1);
  rs_add_message(&b, m);
  rs_add_number(&b, 0, 1);
  rs_call_write(&b, make_call(&one, &chunk, plain), 0, "job-1");
  put(d, what, &b);
  rs_buf_fini(&b);
  rs_buf_fini(&open);
  rs_message_unref(m);
  rs_initial_state_unref(is);
}

static void
put_reply (const rs_desk *d)
{
  unsigned char nonce[RS_AMQP_HASH];
  rs_buf b = RS_BUF_INIT;
  make_random(nonce, sizeof nonce);
  rs_letter_begin(d, &b, RS_LETTER_REPLY, 2);
  rs_add_reply(&b, nonce, RS_GO, 3);
  put(d, OWN, &b);
  rs_buf_fini(&b);
}

static void
put_seen (const rs_desk *d)
{
  rs_buf b = RS_BUF_INIT;
  rs_letter_begin(d, &b, RS_LETTER_SEEN, 0);
  rs_add_number(&b, 2, 8);
  rs_add_number(&b, UINT64_MAX, 8);
  rs_add_number(&b, 1, 1);
  put(d, OWN, &b);
  rs_buf_fini(&b);
}

static void
put_brief (const rs_desk *d, event what, rs_letter_type type)
{
  rs_buf b = RS_BUF_INIT;
  rs_letter_begin(d, &b, type, 2);
  if (type == RS_LETTER_CANCEL) {
    rs_add_number(&b, RS_REASON_CANCELLED, 1);
    rs_add_double(&b, 1);
  }
  put(d, what, &b);
  rs_buf_fini(&b);
}

/* What a worker is told. */
static void
write_worker_seed (const char *name, const rs_desk *d, unsigned char how)
{
  open_seed(name, how | WORKER);
  put_call(d, SHARED, (how & PLAIN) != 0);
  put_reply(d);
  put_bytes(CONFIRM, NULL, 0);
  put_bytes(CONFIRM, NULL, 0);
  put_brief(d, OWN, RS_LETTER_PROBE);
  put_bytes(RUN, NULL, 0);
  put_bytes(CONFIRM, NULL, 0);
  put_brief(d, TO_ALL, RS_LETTER_RESUME);
  put_bytes(DOWN, NULL, 0);
  put_bytes(UP, NULL, 0);
  put_call(d, SHARED_AGAIN, (how & PLAIN) != 0);
  put_bytes(COUNT_IDLE, NULL, 0);
  put_brief(d, TO_ALL, RS_LETTER_STOP);
  put_brief(d, TO_ALL, RS_LETTER_CANCEL);
  put_seen(d);
  fclose(file);
}

static void
put_news (const rs_desk *d, rs_buf *b, uint64_t number, rs_news kind)
{
  rs_letter_begin(d, b, RS_LETTER_NEWS, 2);
  rs_add_number(b, number, 8);
  rs_add_number(b, kind, 1);
}

/* What a caller is told. */
static void
write_caller_seed (const char *name, const rs_desk *d, unsigned char how)
{
  rs_buf b = RS_BUF_INIT;
  rs_call one;
  rs_chunk chunk;
  rs_message *const m = make_message();
  make_call(&one, &chunk, (how & PLAIN) != 0)->state = RS_JOB_FAILED;
  open_seed(name, how);
  rs_letter_begin(d, &b, RS_LETTER_ASK, 2);
  for (int i = 0; i < RS_AMQP_HASH; i++)
    rs_add_number(&b, 0x77, 1);
  rs_add_number(&b, 0, 1);
  put(d, OWN, &b);
  rs_letter_begin(d, &b, RS_LETTER_BEGAN, 2);
  rs_add_text(&b, "web1");
  rs_add_number(&b, 1234, 8);
  put(d, OWN, &b);
  put_news(d, &b, 0, RS_NEWS_RECORD);
  rs_add_message(&b, m);
  rs_record_write(&b, &(rs_stream_record_info) { .name = "x" }, 0);
  put(d, OWN, &b);
  put_news(d, &b, 2, RS_NEWS_RESULT);
  rs_add_number(&b, 1, 1);
  rs_add_message(&b, m);
  rs_result_write(&b, &one, false, 0);
  put(d, OWN, &b);
  put_news(d, &b, 1, RS_NEWS_OUTPUT);
  rs_add_number(&b, 1, 1);
  rs_buf_add(&b, "line\n", 5);
  put(d, OWN, &b);
  put_news(d, &b, 3, RS_NEWS_LOST);
  rs_lost_write(&b, &one, "x.lua:1: did not come back");
  put(d, OWN, &b);
  put_news(d, &b, 0, RS_NEWS_REFUSED);
  rs_add_text(&b, "no");
  put(d, OWN, &b);
  put_brief(d, OWN, RS_LETTER_ALIVE);
  put_brief(d, OWN, RS_LETTER_BACK);
  put_brief(d, OWN, RS_LETTER_ABSENT);
  put_bytes(PART, "0/7\0letters", 11);
  put_bytes(BUNDLE, "\0\0\0\1x\0\0\0\2yz", 11);
  fclose(file);
  rs_buf_fini(&b);
  rs_message_unref(m);
}

static void
write_seeds (void)
{
  for (unsigned char how = 0; how < 2 * KEY; how += PLAIN) {
    char name[32];
    rs_desk d = { .module = &paper, .queue = "q", .own = "runspace.caller.x",
                  .key = how & KEY ? "0123456789abcdef" : NULL,
                  .key_size = 16 };
    snprintf(name, sizeof name, "worker-%d", how);
    write_worker_seed(name, &d, how);
    d.own = "runspace.worker.x";
    snprintf(name, sizeof name, "caller-%d", how);
    write_caller_seed(name, &d, how);
  }
}

int LLVMFuzzerInitialize (int *argc, char ***argv);

int
LLVMFuzzerInitialize (int *argc, char ***argv)
{
  static const char option[] = "--seeds=";
  for (int i = 1; i < *argc; i++)
    if (strncmp((*argv)[i], option, sizeof option - 1) == 0) {
      directory = (*argv)[i] + sizeof option - 1;
      write_seeds();
      printf("%u seeds\n", seeds);
      fflush(stdout);
      _Exit(0);
    }
  rs_console_redirect(swallow);
  return 0;
}
