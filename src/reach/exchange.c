/* SPDX-License-Identifier: MIT */
/*
 * exchange.c - what crosses a link, as the payloads of frames.
 */
#include "reach/exchange.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <lua.h>

#include "base/clock.h"
#include "base/options.h"
#include "base/status.h"
#include "state/initial_state.h"
#include "value/wire.h"

void
rs_text_clean (char *text)
{
  for (unsigned char *s = (unsigned char *) text; *s != '\0'; s++)
    if (*s < 0x20 || *s == 0x7f || (s[0] == 0xc2 && s[1] >= 0x80
                                    && s[1] < 0xa0))
      *s = '?';
}

/* ------------------------------------------------------------------- HELLO */

/* What has to be equal for bytecode and messages to be read. */
static void
write_format (unsigned char format[8])
{
  const uint16_t order = 1;
  memset(format, 0, 8);
  format[0] = RS_PROTOCOL;
  format[1] = RS_WIRE_VERSION;
  format[2] = (unsigned char) (LUA_VERSION_NUM / 100);
  format[3] = (unsigned char) (LUA_VERSION_NUM % 100);
  format[4] = sizeof(lua_Integer);
  format[5] = sizeof(lua_Number);
  format[6] = sizeof(size_t);
  memcpy(format + 7, &order, 1);  /* 1: the lowest byte comes first */
}

void
rs_hello_write (rs_buf *b)
{
  unsigned char format[8];
  write_format(format);
  rs_buf_add(b, format, sizeof format);
  rs_add_text(b, RS_VERSION);
}

int
rs_hello_check (rs_cut *c, rs_error *err)
{
  unsigned char own[8];
  write_format(own);
  const unsigned char *const theirs = rs_cut_bytes(c, sizeof own);
  char *const version = rs_cut_text(c);
  int status = RS_OK;
  if (theirs == NULL || version == NULL)
    status = rs_fail(err, RS_EFAILED, "the worker says hello in a form that "
                                      "runspace %s does not know", RS_VERSION);
  else if (memcmp(own, theirs, sizeof own) != 0) {
    rs_text_clean(version);
    status = rs_fail(err, RS_EFAILED,
                     "the worker is runspace %.40s (protocol %d, values %d, "
                     "Lua %d.%d, %d bits), and this is runspace %s (protocol "
                     "%d, values %d, Lua %d.%d, %d bits): both have to be of "
                     "one kind", version, theirs[0], theirs[1], theirs[2],
                     theirs[3], 8 * theirs[6], RS_VERSION, own[0], own[1],
                     own[2], own[3], 8 * own[6]);
  }
  free(version);
  return status;
}

/* -------------------------------------------------------------------- OPEN */

static const char *const kinds[] = {
  [RS_ENTRY_PRELOAD] = "module", [RS_ENTRY_LOADER] = "preload",
  [RS_ENTRY_VARIABLE] = "variable", [RS_ENTRY_MODULE] = "module",
  [RS_ENTRY_INIT] = "function"
};

int
rs_initial_state_check (const rs_initial_state *is, rs_error *err)
{
  for (const rs_list *link = is->entries.next; link != &is->entries;
       link = link->next) {
    const rs_entry *const e = RS_LIST_ENTRY(link, rs_entry, link);
    if (e->kind == RS_ENTRY_PRELOAD && e->open != rs_own_module)
      return rs_fail(err, RS_EREFUSED, "module '%.100s' is opened by a C "
                                       "function of this program, which is "
                                       "not in the process of a worker: let "
                                       "'require' find it there, or use "
                                       "threads", e->name);
    if (e->message != NULL && (e->message->flags & RS_MESSAGE_LOCAL) != 0)
      return rs_fail(err, RS_EREFUSED, "%s '%.100s' has a light userdata, or "
                                       "a C function that no loaded module "
                                       "has, which cannot be transferred to "
                                       "another process", kinds[e->kind],
                     e->name);
  }
  return RS_OK;
}

/* A text, or NULL. */
static void
put_maybe (rs_buf *b, const char *text)
{
  rs_add_number(b, text != NULL, 1);
  if (text != NULL)
    rs_add_text(b, text);
}

static void
put_sandbox (rs_buf *b, const rs_sandbox *s)
{
  size_t n = 0;
  while (s->c_modules != NULL && s->c_modules[n] != NULL)
    n++;
  rs_add_number(b, (uint64_t) s->files, 4);
  rs_add_number(b, s->forbid, 4);
  rs_add_number(b, n, 4);
  for (size_t i = 0; i < n; i++)
    rs_add_text(b, s->c_modules[i]);
}

static void
put_entry (rs_buf *b, const rs_entry *e)
{
  rs_add_number(b, e->kind, 1);
  rs_add_number(b, e->flags, 4);
  rs_add_text(b, e->name);
  rs_add_number(b, e->message != NULL ? e->message->size : 0, 8);
  if (e->message != NULL)
    rs_buf_add(b, e->message->data, e->message->size);
}

void
rs_open_write (rs_buf *b, const rs_pool_options *o, unsigned worker)
{
  const rs_initial_state *const is = o->initial_state;
  size_t n = 0;
  rs_add_number(b, worker, 4);
  rs_add_number(b, (uint64_t) o->reset, 4);
  rs_add_number(b, (uint64_t) o->signal, 4);
  rs_add_number(b, o->memory, 8);
  rs_add_number(b, o->instructions, 8);
  rs_add_number(b, o->max_tasks, 8);
  rs_add_number(b, o->max_bytes, 8);
  rs_add_double(b, o->heartbeat);
  rs_add_double(b, isinf(o->cpu_time) ? 0 : o->cpu_time);
  rs_add_number(b, (uint64_t) o->nice, 1);
  rs_add_number(b, o->strict, 1);
  put_maybe(b, o->cwd);
  rs_add_number(b, is->libs, 4);
  rs_add_number(b, (is->warnings ? 1 : 0) | (is->inherited ? 2 : 0)
                   | (is->contained ? 4 : 0), 1);
  put_maybe(b, is->path);
  put_maybe(b, is->cpath);
  if (is->inherited)
    put_sandbox(b, &is->outer);
  if (is->contained)
    put_sandbox(b, &is->sandbox);
  for (const rs_list *link = is->entries.next; link != &is->entries;
       link = link->next)
    n++;
  rs_add_number(b, n, 4);
  for (const rs_list *link = is->entries.next; link != &is->entries;
       link = link->next)
    put_entry(b, RS_LIST_ENTRY(link, rs_entry, link));
}

static char *
cut_maybe (rs_cut *c)
{
  return rs_cut_number(c, 1) != 0 ? rs_cut_text(c) : NULL;
}

/* Read a sandbox, whose names are owned by the initial state. */
static bool
cut_sandbox (rs_cut *c, rs_sandbox *s)
{
  s->size = sizeof *s;
  s->files = (int) rs_cut_number(c, 4);
  s->forbid = (unsigned) rs_cut_number(c, 4);
  const uint64_t n = rs_cut_number(c, 4);
  if (c->bad || n > c->size / 4)  /* each has a length */
    return false;
  if (n == 0)
    return true;
  char **const names = calloc((size_t) n + 1, sizeof *names);
  s->c_modules = (const char *const *) names;
  for (uint64_t i = 0; names != NULL && i < n; i++)
    if ((names[i] = rs_cut_text(c)) == NULL)
      return false;
  return names != NULL;
}

/* Read an entry, and append it. */
static bool
cut_entry (rs_cut *c, rs_initial_state *is)
{
  const rs_entry_kind kind = (rs_entry_kind) rs_cut_number(c, 1);
  const unsigned flags = (unsigned) rs_cut_number(c, 4);
  char *const name = rs_cut_text(c);
  const uint64_t size = rs_cut_number(c, 8);
  const unsigned char *const data = rs_cut_bytes(c, size);
  const bool has_message = kind == RS_ENTRY_LOADER || kind == RS_ENTRY_VARIABLE
                        || kind == RS_ENTRY_INIT;
  rs_entry *e = NULL;
  if (name != NULL && data != NULL && kind <= RS_ENTRY_INIT
      && has_message == (size >= RS_WIRE_HEADER))
    e = calloc(1, sizeof *e + strlen(name) + 1);
  if (e != NULL) {
    e->kind = kind;
    e->flags = flags;
    memcpy(e->name, name, strlen(name) + 1);
    if (kind == RS_ENTRY_PRELOAD)  /* the host has refused all others */
      e->open = rs_own_module;
    rs_list_push(&is->entries, &e->link);
    if (has_message)
      e->message = rs_message_new(data, (size_t) size,
                                  data[RS_WIRE_AT_FLAGS]);
  }
  free(name);
  return e != NULL && (!has_message || e->message != NULL);
}

/* Read an initial state into an empty one. */
static bool
cut_initial_state (rs_cut *c, rs_initial_state *is)
{
  is->libs = (unsigned) rs_cut_number(c, 4);
  const unsigned flags = (unsigned) rs_cut_number(c, 1);
  is->warnings = (flags & 1) != 0;
  is->inherited = (flags & 2) != 0;
  is->contained = (flags & 4) != 0;
  is->path = cut_maybe(c);
  is->cpath = cut_maybe(c);
  if ((is->inherited && !cut_sandbox(c, &is->outer))
      || (is->contained && !cut_sandbox(c, &is->sandbox)))
    return false;
  uint64_t n = rs_cut_number(c, 4);
  while (n > 0 && !c->bad && cut_entry(c, is))
    n--;
  return n == 0 && !c->bad && c->size == 0;
}

int
rs_open_read (rs_cut *c, rs_pool_options *o, unsigned *worker)
{
  memset(o, 0, sizeof *o);
  o->size = sizeof *o;
  o->min = o->max = 1;
  *worker = (unsigned) rs_cut_number(c, 4);
  o->reset = (int) rs_cut_number(c, 4);
  o->signal = (int) rs_cut_number(c, 4);
  o->memory = (size_t) rs_cut_number(c, 8);
  o->instructions = rs_cut_number(c, 8);
  o->max_tasks = rs_cut_number(c, 8);
  o->max_bytes = (size_t) rs_cut_number(c, 8);
  o->heartbeat = rs_cut_double(c);
  o->cpu_time = rs_cut_double(c);
  o->nice = (int) rs_cut_number(c, 1);
  o->strict = rs_cut_number(c, 1) != 0;
  char *const cwd = cut_maybe(c);
  rs_initial_state *const is = rs_initial_state_new();
  if (is != NULL)
    rs_initial_state_clear(is);
  const bool timed = (o->heartbeat >= 0 && o->heartbeat <= FLT_MAX)
                  || o->heartbeat == RS_FOREVER;
  if (is == NULL || c->bad || !timed || !cut_initial_state(c, is)) {
    rs_initial_state_unref(is);
    free(cwd);
    return is == NULL ? RS_ENOMEM : RS_EINVAL;
  }
  o->cwd = cwd;
  rs_initial_state_seal(is);
  o->initial_state = is;
  return RS_OK;
}

/* ------------------------------------------------------------------ places */

static void
put_place (rs_buf *b, const rs_decoder_place *p)
{
  rs_add_number(b, p->at, 8);
  rs_add_number(b, p->next_id, 4);
  rs_add_number(b, p->run, 4);
  rs_add_number(b, p->left, 8);
  rs_add_number(b, p->claimed, 8);
}

static rs_decoder_place
cut_place (rs_cut *c)
{
  rs_decoder_place p = { .at = (size_t) rs_cut_number(c, 8) };
  p.next_id = (unsigned) rs_cut_number(c, 4);
  p.run = (unsigned) rs_cut_number(c, 4);
  p.left = (size_t) rs_cut_number(c, 8);
  p.claimed = (size_t) rs_cut_number(c, 8);
  return p;
}

/* True when the place can be one of the arguments.  Whether values stand there
   is for the decoder to find, which trusts no place. */
static bool
is_place (const rs_decoder_place *p, const rs_message *arguments)
{
  return arguments == NULL ? p->at == 0 : p->at <= arguments->size;
}

/* -------------------------------------------------------------------- CALL */

enum { CHUNK = 1, ARGUMENTS = 2, KEEP = 4, LIMITED = 8 };

void
rs_call_write (rs_buf *b, const rs_call *call, uint64_t function,
               const char *name)
{
  const rs_chunk *const k = call->chunk;
  const bool limited = k != NULL && k->allowed != NULL;
  rs_add_number(b, (k != NULL ? CHUNK : 0)
                   | (call->arguments != NULL ? ARGUMENTS : 0)
                   | (call->keep ? KEEP : 0) | (limited ? LIMITED : 0), 1);
  rs_add_number(b, call->retry_on, 1);
  rs_add_number(b, call->flags, 1);
  rs_add_number(b, function, 8);
  rs_add_number(b, call->id, 8);
  rs_add_number(b, call->retries, 4);
  rs_add_number(b, call->attempt, 4);
  rs_add_number(b, atomic_load_explicit(&call->depth, memory_order_relaxed),
                2);
  rs_add_double(b, call->timeout);
  rs_add_double(b, rs_now() + (k != NULL ? k->ahead : 0));
  rs_add_text(b, name);
  if (rs_call_is_seeded(call))
    rs_add_number(b, (uint64_t) rs_call_seed(call), 8);
  if (k == NULL)
    return;
  /* An item that ends its process shall not take others with it again. */
  rs_add_number(b, k->losses == 0 ? k->count : 1, 8);
  rs_add_number(b, k->losses, 4);
  rs_add_number(b, k->arity, 4);
  rs_add_number(b, (uint64_t) k->index, 8);
  rs_add_number(b, (uint64_t) k->first, 8);
  rs_add_number(b, (uint64_t) k->step, 8);
  put_place(b, &k->from.in);
  rs_add_double(b, k->budget);
  rs_add_number(b, limited ? atomic_load_explicit(k->allowed,
                                                  memory_order_relaxed) : 0,
                8);
}

int
rs_call_read (rs_cut *c, rs_call *call, rs_chunk *k, rs_call_more *more)
{
  const unsigned flags = (unsigned) rs_cut_number(c, 1);
  call->retry_on = (uint8_t) rs_cut_number(c, 1);
  call->flags = (uint8_t) rs_cut_number(c, 1);
  more->function = rs_cut_number(c, 8);
  call->id = rs_cut_number(c, 8);
  call->retries = (unsigned) rs_cut_number(c, 4);
  call->attempt = (unsigned) rs_cut_number(c, 4);
  atomic_init(&call->depth, (uint16_t) rs_cut_number(c, 2));
  call->timeout = rs_cut_double(c);
  more->now = rs_cut_double(c);
  call->keep = (flags & KEEP) != 0;
  more->arguments = (flags & ARGUMENTS) != 0;
  more->limited = (flags & LIMITED) != 0;
  more->name = rs_cut_text(c);
  if (more->name == NULL)
    return c->bad ? RS_EINVAL : RS_ENOMEM;
  if (rs_call_is_seeded(call))
    rs_call_set_seed(call, (lua_Integer) rs_cut_number(c, 8));
  if ((flags & CHUNK) == 0)
    return c->bad || c->size != 0 ? RS_EINVAL : RS_OK;
  call->chunk = k;
  k->count = (size_t) rs_cut_number(c, 8);
  k->losses = (unsigned) rs_cut_number(c, 4);
  k->arity = (unsigned) rs_cut_number(c, 4);
  k->index = (lua_Integer) rs_cut_number(c, 8);
  k->first = (lua_Integer) rs_cut_number(c, 8);
  k->step = (lua_Integer) rs_cut_number(c, 8);
  k->from.in = cut_place(c);
  k->budget = rs_cut_double(c);
  more->allowed = (size_t) rs_cut_number(c, 8);
  return c->bad || c->size != 0 ? RS_EINVAL : RS_OK;
}

/* ------------------------------------------------------------------ RESULT */

enum { VALUES = 1, SPENT = 2 };

void
rs_result_write (rs_buf *b, const rs_call *call, bool spent, size_t bytes)
{
  const rs_chunk *const k = call->chunk;
  rs_add_number(b, call->state, 1);
  rs_add_number(b, call->reason, 1);
  rs_add_number(b, (call->result != NULL ? VALUES : 0)
                   | (spent ? SPENT : 0), 1);
  rs_add_number(b, call->attempt, 4);
  rs_add_number(b, bytes, 8);
  if (k == NULL) {
    rs_add_number(b, 0, 1);  /* no RESULT is shorter than this */
    return;
  }
  rs_add_number(b, k->rest.item, 8);
  put_place(b, &k->rest.in);
  rs_add_double(b, k->took);
  for (int i = RS_JOB_COMPLETED; i <= RS_JOB_LOST; i++)
    rs_add_number(b, k->ended[i], 8);
}

/* Read what a chunk leaves; false for what this one cannot leave. */
static bool
cut_chunk (rs_cut *c, const rs_call *call, rs_job_state state, rs_chunk *out)
{
  size_t sum = 0;
  const rs_chunk *const k = call->chunk;
  out->rest.item = (size_t) rs_cut_number(c, 8);
  out->rest.in = cut_place(c);
  out->took = rs_cut_double(c);
  bool good = out->rest.item <= k->count
           && is_place(&out->rest.in, call->arguments)
           && out->took >= 0 && out->took <= FLT_MAX;
  for (int i = RS_JOB_COMPLETED; i <= RS_JOB_LOST; i++) {
    out->ended[i] = (size_t) rs_cut_number(c, 8);
    good = good && out->ended[i] <= k->count - sum;
    sum += good ? out->ended[i] : 0;
  }
  return good && !c->bad
      && (state != RS_JOB_COMPLETED || sum == out->rest.item);
}

int
rs_result_read (rs_cut *c, rs_call *call, rs_message *values, bool *spent,
                size_t *bytes)
{
  rs_chunk *const k = call->chunk;
  const rs_job_state state = (rs_job_state) rs_cut_number(c, 1);
  const rs_reason reason = (rs_reason) rs_cut_number(c, 1);
  const unsigned flags = (unsigned) rs_cut_number(c, 1);
  const unsigned attempt = (unsigned) rs_cut_number(c, 4);
  const uint64_t took = rs_cut_number(c, 8);
  const bool again = k == NULL && state == RS_JOB_QUEUED;
  rs_chunk left = { .count = 0 };
  if (k == NULL)
    rs_cut_number(c, 1);
  bool good = !c->bad && reason < RS_REASONS
           && ((flags & VALUES) != 0) == (values != NULL)
           && (again || (rs_job_state_final(state) && state < RS_JOB_LOST))
           && (k == NULL || state != RS_JOB_COMPLETED_WITH_ERRORS)
           && (values != NULL || !rs_job_state_good(state))
           && attempt >= 1
           && attempt - 1 <= call->retries
           && (!again || attempt == call->attempt + 1);
  if (good && k != NULL)
    good = cut_chunk(c, call, state, &left);
  if (!good || c->size != 0)
    return RS_EINVAL;
  if (k != NULL) {
    k->rest = left.rest;
    k->took = left.took;
    memcpy(k->ended, left.ended, sizeof k->ended);
  }
  call->state = state;
  call->reason = reason;
  call->attempt = attempt;
  call->result = values;
  *spent = (flags & SPENT) != 0;
  *bytes = (size_t) took;
  return RS_OK;
}

void
rs_call_count_failures (const rs_call *call)
{
  rs_chunk *const k = call->chunk;
  size_t n = k->ended[RS_JOB_FAILED];
  if (call->reason != RS_REASON_DEADLINE)
    n += k->ended[RS_JOB_TIMED_OUT];
  for (size_t i = 0; i < n && k->allowed != NULL; i++)
    rs_chunk_fail(k);
}

void
rs_call_settle (rs_call *call, rs_reason reason)
{
  if (call->chunk == NULL || call->state == RS_JOB_LOST
      || call->state == RS_JOB_QUEUED)
    return;
  if (reason != RS_REASON_NONE) {
    call->reason = reason;
    call->state = rs_reason_state(reason);
  }
  if (call->state == RS_JOB_FAILED) {
    memset(call->chunk->ended, 0, sizeof call->chunk->ended);
    call->chunk->ended[RS_JOB_FAILED] = call->chunk->count;
  }
}

/* ------------------------------------------------------------------ RECORD */

void
rs_record_write (rs_buf *b, const rs_stream_record_info *info, double ahead)
{
  rs_add_number(b, info->stream, 1);
  rs_add_number(b, (uint64_t) info->source, 1);
  rs_add_number(b, (uint64_t) info->index, 8);
  rs_add_double(b, info->time + ahead);
  rs_add_text(b, info->name != NULL ? info->name : "");
}

/* True when an item of the call has this index. */
static bool
has_index (const rs_call *call, lua_Integer index)
{
  const rs_chunk *const k = call->chunk;
  return index == 0
      || (k != NULL && index >= k->index
          && (uint64_t) index - (uint64_t) k->index < k->count);
}

int
rs_record_read (rs_cut *c, const rs_call *call, rs_message *values,
                rs_stream_record **out)
{
  const rs_stream stream = (rs_stream) rs_cut_number(c, 1);
  const int source = (int) rs_cut_number(c, 1);
  const lua_Integer index = (lua_Integer) rs_cut_number(c, 8);
  double time = rs_cut_double(c);
  char *const name = rs_cut_text(c);
  const double now = rs_now() + (call->chunk != NULL ? call->chunk->ahead : 0);
  *out = NULL;
  const bool good = !c->bad && c->size == 0 && values != NULL
                 && stream <= RS_STREAM_EVENT
                 && (source == RS_SOURCE_NONE || source == 1 || source == 2)
                 && has_index(call, index)
                 && (name == NULL || rs_check_name(name, NULL) == RS_OK);
  if (!good || name == NULL)
    rs_message_unref(values);
  else {
    if (!(time >= 0 && time <= now))
      time = now;
    *out = rs_stream_record_new(stream, stream == RS_STREAM_EVENT ? name
                                                                  : NULL,
                                index, source, values);
    if (*out != NULL)
      (*out)->info.time = time;
  }
  free(name);
  return good ? RS_OK : RS_EINVAL;
}

/* -------------------------------------------------------------------- LOST */

void
rs_lost_write (rs_buf *b, const rs_call *call, const char *text)
{
  const rs_chunk *const k = call->chunk;
  rs_add_text(b, text);
  for (int i = 0; i < 5; i++)
    rs_add_number(b, k != NULL ? atomic_load_explicit(&k->begun[i],
                                                      memory_order_relaxed)
                               : 0, 8);
}

int
rs_lost_read (rs_cut *c, rs_call *call, char **text)
{
  rs_chunk *const k = call->chunk;
  uint64_t begun[5];
  char *const said = rs_cut_text(c);
  *text = NULL;
  for (int i = 0; i < 5; i++)
    begun[i] = rs_cut_number(c, 8);
  if (c->bad || c->size != 0
      || (k != NULL && (begun[0] > k->count
                        || begun[1] > (call->arguments != NULL
                                       ? call->arguments->size : 0)))) {
    free(said);
    return RS_EINVAL;
  }
  for (int i = 0; k != NULL && i < 5; i++)
    atomic_store_explicit(&k->begun[i], (size_t) begun[i],
                          memory_order_relaxed);
  if (said != NULL && said[0] != '\0') {
    rs_text_clean(said);
    *text = said;
  }
  else
    free(said);
  return RS_OK;
}
