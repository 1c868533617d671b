/* SPDX-License-Identifier: MIT */
/*
 * job_result.c - the results of a job, or its error, pushed to a host.
 *
 * A job leaves a message, which each host that asks rebuilds in its own state.
 * What a host cannot rebuild fails the job, from then on and for all hosts:
 * the job keeps the text that says why, the refusal.
 */
#include "pool/job.h"

#include <string.h>

#include "base/level.h"
#include "pool/face.h"
#include "state/rebuild.h"
#include "base/status.h"

bool
rs_job_rebuilds (const rs_job *job)
{
  if (job == NULL)
    return false;
  return rs_job_state_good(rs_job_state_now(job))
      && (job->call.result->flags & (RS_MESSAGE_NAMES | RS_MESSAGE_CODE)) != 0;
}

/* ---------------------------------------------- what a host cannot rebuild */

/* Make a message of the text and the traceback at 'text'; NULL when out of
   memory. */
static rs_message *
make_refusal (lua_State *L, int text)
{
  rs_encoder e;
  rs_encoder_init(&e, 0);
  rs_message *refusal = NULL;
  if (rs_encode_value(&e, L, text, NULL) == RS_OK
      && rs_encode_value(&e, L, text + 1, NULL) == RS_OK)
    refusal = rs_encoder_message(&e);
  rs_encoder_fini(&e);
  return refusal;
}

/*
 * [-0, +0, -]  Fail a job whose result could not be rebuilt, from now on and
 * for all hosts, with the text and the traceback at 'text'.  Only the first
 * refusal is kept.
 */
static void
refuse (rs_job *job, lua_State *L, int text)
{
  if (rs_job_foreign(job))
    return;
  rs_message *refusal = make_refusal(L, text);
  rs_job_lock(job);
  const rs_job_state was = rs_job_state_now(job);
  rs_job_more *const more = rs_job_get_more_locked(job);
  if (!job->refused && more != NULL) {
    more->refusal = refusal;
    refusal = NULL;
  }
  job->refused = true;
  rs_job_set_state_locked(job, RS_JOB_FAILED);
  rs_job_unlock(job);
  rs_message_unref(refusal);
  if (job->call.chunk == NULL && rs_job_state_good(was)) {
    job->queue->ended(job->queue, was, (size_t) -1);  /* one less */
    job->queue->ended(job->queue, RS_JOB_FAILED, 1);
  }
}

/* The refusal of the job, which stays as long as the job, or
   NULL.  '*refused' is true also where there was no memory for the refusal. */
static rs_message *
refusal_of (rs_job *job, bool *refused)
{
  rs_message *refusal = NULL;
  *refused = false;
  if (rs_job_foreign(job))
    return NULL;
  rs_job_lock(job);
  *refused = job->refused;
  if (job->refused && rs_job_more_of(job) != NULL)
    refusal = rs_job_more_of(job)->refusal;
  rs_job_unlock(job);
  return refusal;
}

/* ------------------------------------------------------------------ errors */

/* The part of an error that is to be pushed: its value, or its traceback and
   its text. */
typedef struct error_part {
  const rs_call *call;
  bool value;
} error_part;

/* (error_part) -> the error value | the traceback, the text or nil */
static int
push_error_part (lua_State *L)
{
  const error_part *const part = lua_touserdata(L, 1);
  rs_decoder d;
  lua_settop(L, 0);
  rs_decoder_init(&d, L, part->call->result, 0);
  d.common.sent = part->call->function;
  if (part->value) {
    rs_decode_value(&d, L);
    return 1;
  }
  if (rs_decoder_skip(&d))
    rs_decode_value(&d, L);
  else
    lua_pushnil(L);
  if (rs_decoder_at_end(&d))
    lua_pushnil(L);
  else
    rs_decode_value(&d, L);
  return 2;
}

/* [-0, +2, e]  Push the error that is the job's result, and its traceback. */
static void
push_error (rs_job *job, lua_State *L, rs_job_state state)
{
  error_part part = { &job->call, true };
  const int base = lua_gettop(L);
  if (rs_rebuild(L, push_error_part, &part) == 1) {
    part.value = false;
    if (rs_rebuild(L, push_error_part, &part) < 0) {
      lua_pushnil(L);  /* rather no traceback than no error */
      lua_replace(L, base + 2);
    }
    lua_settop(L, base + 2);
    return;
  }
  part.value = false;  /* 'base' + 1 has a text, and the traceback of here */
  const int n = rs_rebuild(L, push_error_part, &part);
  rs_rebuild_tell(L, base + 1, "the error", n == 2 ? base + 4 : 0);
  if (n == 2) {
    lua_pushvalue(L, base + 3);
    lua_replace(L, base + 2);
  }
  lua_settop(L, base + 2);
  if (state == RS_JOB_FAILED)
    refuse(job, L, base + 1);
}

const char *
rs_job_error_text (rs_job *job, size_t *size)
{
  const char *text = rs_job_failure(job);
  const rs_message *const m = text == NULL
                              && rs_job_state_now(job) != RS_JOB_LOST
                            ? job->call.result : NULL;
  *size = text != NULL ? strlen(text) : 0;
  if (m == NULL)
    return text != NULL ? text : "";
  /* The value, or, if that is no string, what stands behind the traceback. */
  return rs_message_string(m, 1, &text, size)
         || rs_message_string(m, 3, &text, size) ? text : "";
}

/* [-0, +2, e]  Push the error of a job that did not complete. */
static void
push_end (rs_job *job, lua_State *L, rs_job_state state)
{
  const rs_call *const call = &job->call;
  const int top = lua_gettop(L);
  bool refused;
  rs_message *const refusal = refusal_of(job, &refused);
  int n = 0;
  if (refusal != NULL)
    rs_decode_try(L, refusal, &n);
  else if (refused)
    lua_pushstring(L, rs_status_message(RS_ENOMEM));
  /* The call of a lost job belongs to the thread that runs it. */
  else if (state != RS_JOB_LOST && call->result != NULL
           && (state == RS_JOB_FAILED
               || (call->chunk == NULL && call->reason != RS_REASON_NONE)))
    push_error(job, L, state);
  else if (rs_job_failure(job) != NULL || state == RS_JOB_FAILED)
    lua_pushstring(L, rs_job_failure(job) != NULL
                        ? rs_job_failure(job) : rs_status_message(RS_ENOMEM));
  else
    lua_pushfstring(L, "%s was %s", rs_job_name(job),
                    rs_job_state_name(state));
  lua_settop(L, top + 2);
}

/* ----------------------------------------------------------------- results */

int
rs_job_push (rs_job *job, lua_State *L, int *n)
{
  if (job == NULL || L == NULL || n == NULL || rs_job_foreign(job))
    return RS_EINVAL;
  const rs_job_state state = rs_job_state_now(job);
  if (!rs_job_state_final(state))
    return RS_EBUSY;
  /* Fields that are read here without the lock are not written after the
     end. */
  const int top = lua_gettop(L);
  if (rs_job_state_good(state)
      && rs_rebuild_result(L, job->call.result, job->call.function, n))
    return RS_OK;
  rs_level_room(L, 8, NULL);
  if (rs_job_state_good(state)) {
    rs_rebuild_tell(L, top + 1, "the result", 0);
    refuse(job, L, top + 1);
    lua_settop(L, top);  /* all hosts are told the same */
  }
  rs_job_see(job);
  push_end(job, L, rs_job_state_now(job));
  *n = 2;
  return RS_EFAILED;
}

bool
rs_job_take (rs_job *job, lua_State *L, int *n)
{
  if (job == NULL || L == NULL || n == NULL || rs_job_foreign(job))
    return false;
  const rs_message *const result = job->call.result;
  if (!rs_job_settled(job) || !rs_job_state_good(rs_job_state_now(job))
      || result != (const void *) job->call.room || rs_job_rebuilds(job)
      || result->flags & RS_MESSAGE_COMMON)  /* does it need the job? */
    return false;
  struct {
    _Alignas(rs_message) unsigned char bytes[RS_CALL_ROOM];
  } copy;
  memcpy(copy.bytes, result, sizeof copy.bytes);
  rs_job_unref(job);
  *n = rs_decode(L, (rs_message *) copy.bytes);
  return true;
}
