/* SPDX-License-Identifier: MIT */
/*
 * fuzz_frames.c - a target for libFuzzer: bytes that claim to be frames.
 *
 *     +------+------+----------------+
 *     | side | step | frames         |
 *     +------+------+----------------+
 *
 * Whatever they are, and however they come in pieces, each message is read, or
 * refused with a text after which nothing more is read; memory is in
 * proportion to the bytes.  What a message carries is read, too, as each side
 * reads it; an outcome that is believed is one that the call can have.
 *
 * 'fuzz_frames --seeds=DIR' writes real frames, to begin with, and ends.
 */
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/payloads.h"

#include "reach/exchange.h"
#include "reach/frame.h"
#include "state/initial_state.h"

enum { HEAD = 2 };

/* ---------------------------------------------------------------- payloads */

static void
read_result (rs_cut c, rs_message *values, bool plain)
{
  rs_call call;
  rs_chunk chunk;
  bool spent;
  size_t bytes;
  make_call(&call, &chunk, plain);
  if (rs_result_read(&c, &call, values, &spent, &bytes) != RS_OK) {
    MUST(call.result == NULL);
    return;
  }
  MUST(call.result == values);
  judge_outcome(&call, &chunk);
}

static void
read_record (rs_cut c, rs_message *values, bool plain)
{
  rs_call call;
  rs_chunk chunk;
  rs_stream_record *record = NULL;
  make_call(&call, &chunk, plain);
  if (rs_record_read(&c, &call, rs_message_ref(values), &record) != RS_OK)
    MUST(record == NULL);
  if (record == NULL)
    return;
  judge_record(record);
  rs_stream_record_unref(record);
}

static void
read_lost (rs_cut c, bool plain)
{
  rs_call call;
  rs_chunk chunk;
  char *text = NULL;
  make_call(&call, &chunk, plain);
  if (rs_lost_read(&c, &call, &text) != RS_OK)
    MUST(text == NULL);
  MUST(atomic_load(&chunk.begun[0]) <= COUNT);
  free(text);
}

static void
read_call (rs_cut c)
{
  rs_call call;
  rs_chunk chunk;
  rs_call_more more;
  memset(&call, 0, sizeof call);
  memset(&chunk, 0, sizeof chunk);
  rs_call_read(&c, &call, &chunk, &more);
  free(more.name);
}

static void
read_open (rs_cut c)
{
  rs_pool_options o;
  unsigned worker;
  if (rs_open_read(&c, &o, &worker) != RS_OK)
    return;
  rs_initial_state_unref(o.initial_state);
  free((char *) (uintptr_t) o.cwd);
}

static void
read_payload (const rs_frame *frame, rs_message *values, bool plain)
{
  const rs_cut c = { frame->data, frame->size, false };
  rs_cut hello = c;
  rs_error err;
  switch (frame->type) {
    case RS_FRAME_OPEN: read_open(c); break;
    case RS_FRAME_CALL: read_call(c); break;
    case RS_FRAME_HELLO: rs_hello_check(&hello, &err); break;
    case RS_FRAME_RECORD: read_record(c, values, plain); break;
    case RS_FRAME_RESULT: read_result(c, values, plain); break;
    case RS_FRAME_LOST: read_lost(c, plain); break;
    default: break;
  }
}

/* ------------------------------------------------------------------ frames */

int LLVMFuzzerTestOneInput (const uint8_t *bytes, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *bytes, size_t size)
{
  rs_frames f;
  rs_frame frame;
  rs_message *values = NULL;
  if (size < HEAD)
    return 0;
  const rs_frame_side side = bytes[0] & 1 ? RS_FRAME_WORKER : RS_FRAME_HOST;
  const size_t step = bytes[1] + 1u;
  size_t at = HEAD;
  int status = RS_EBUSY;
  if (rs_frames_init(&f, side, -1, -1) != RS_OK)
    return 0;
  f.forbidden = RS_MESSAGE_LIVE;
  while (status == RS_EBUSY && at < size) {
    const size_t n = size - at < step ? size - at : step;
    at += rs_frames_feed(&f, bytes + at, n);
    while ((status = rs_frames_take(&f, &frame)) == RS_OK) {
      MUST(frame.type > 0 && frame.type < RS_FRAME_TYPES);
      MUST(frame.size + (frame.message != NULL ? frame.message->size : 0)
           <= size);
      MUST(frame.message == NULL
           || frame.message->forbidden == RS_MESSAGE_LIVE);
      read_payload(&frame, values, (bytes[0] & 2) != 0);
      if (frame.message != NULL) {
        rs_message_unref(values);
        values = frame.message;
      }
    }
  }
  MUST(status == RS_EBUSY || status == RS_ECLOSED);
  if (status == RS_ECLOSED)
    MUST(f.error[0] != '\0' && rs_frames_take(&f, &frame) == RS_ECLOSED);
  MUST(f.body.room < 4096 + 4 * size && f.brief.room < 4096 + 4 * size);
  rs_message_unref(values);
  rs_frames_fini(&f);
  return 0;
}

/* ------------------------------------------------------------------- seeds */

static const char *directory;

/* Write what 'f' has queued. */
static void
write_seed (const char *name, rs_frames *f, unsigned char side)
{
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE *const file = fopen(path, "wb");
  MUST(file != NULL);
  const unsigned char head[HEAD] = { side, 64 };
  fwrite(head, 1, sizeof head, file);
  if (!(side & 1))
    fwrite(rs_frame_greeting, 1, RS_FRAME_GREETING, file);
  fwrite(f->going.data, 1, f->going.size, file);
  fclose(file);
}

static void
put (rs_frames *f, rs_frame_type type, rs_buf *b)
{
  const struct iovec part = { b->data, b->size };
  MUST(rs_frames_put(f, type, 1, &part, 1) == RS_OK);
  rs_buf_clear(b);
}

static void
write_seeds (void)
{
  static const unsigned char nothing[] = { 'R', 'S', 1, 0, 0, 0, 0, 0 };
  rs_frames f;
  rs_buf b = RS_BUF_INIT;
  rs_call call;
  rs_chunk chunk;
  rs_message *const m = rs_message_new(nothing, sizeof nothing, 0);
  for (int plain = 0; plain < 2; plain++) {
    MUST(rs_frames_init(&f, RS_FRAME_WORKER, -1, -1) == RS_OK);
    make_call(&call, &chunk, plain != 0)->state = RS_JOB_FAILED;
    rs_hello_write(&b);
    put(&f, RS_FRAME_HELLO, &b);
    rs_add_number(&b, 1000, 8);
    put(&f, RS_FRAME_READY, &b);
    rs_frames_put_message(&f, RS_FRAME_VALUES, 1, m);
    rs_record_write(&b, &(rs_stream_record_info) { .name = "x" }, 0);
    put(&f, RS_FRAME_RECORD, &b);
    rs_buf_add(&b, "line\n", 5);
    put(&f, RS_FRAME_OUTPUT, &b);
    rs_result_write(&b, &call, false, 100);
    put(&f, RS_FRAME_RESULT, &b);
    rs_lost_write(&b, &call, "x.lua:1: did not come back");
    put(&f, RS_FRAME_LOST, &b);
    write_seed(plain ? "host-plain" : "host-chunk", &f,
               plain ? 2 : 0);
    rs_frames_fini(&f);

    rs_initial_state *const is = rs_initial_state_new();
    const rs_pool_options o = {
      .initial_state = is, .cpu_time = 2, .nice = 3, .cwd = "/"
    };
    MUST(rs_frames_init(&f, RS_FRAME_HOST, -1, -1) == RS_OK);
    rs_initial_state_add_module(is, "cjson");
    rs_initial_state_set_path(is, "?.lua");
    rs_open_write(&b, &o, 1);
    put(&f, RS_FRAME_OPEN, &b);
    rs_frames_put_message(&f, RS_FRAME_FUNCTION, 1, m);
    rs_frames_put_message(&f, RS_FRAME_VALUES, 1, m);
    rs_call_write(&b, &call, 1, "job-1");
    put(&f, RS_FRAME_CALL, &b);
    write_seed(plain ? "worker-plain" : "worker-chunk", &f, 1);
    rs_frames_fini(&f);
    rs_initial_state_unref(is);
  }
  rs_message_unref(m);
  rs_buf_fini(&b);
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
      printf("4 seeds\n");
      fflush(stdout);
      _Exit(0);
    }
  return 0;
}
