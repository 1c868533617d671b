/* SPDX-License-Identifier: MIT */
/*
 * skip.c - go behind a value of a message without making it.
 *
 * A receiver may be unable to make one item of many, and the other items stand
 * behind it.  A value tells how many inner values it has before they come.  So
 * it is enough to count how many values are still to be passed, in whatever
 * order; no call is nested, nothing is allocated, and no error is raised.
 */
#include "value/decoder.h"

static bool
pass (rs_decoder *d, size_t n)
{
  if (n > d->size - d->at)
    return false;
  d->at += n;
  return true;
}

static bool
get_byte (rs_decoder *d, size_t *out)
{
  if (d->at == d->size)
    return false;
  *out = d->data[d->at++];
  return true;
}

static bool
get_length (rs_decoder *d, size_t *out)
{
  size_t byte;
  *out = 0;
  for (unsigned shift = 0; shift < 63; shift += 7) {
    if (!get_byte(d, &byte))
      return false;
    const uint64_t part = (uint64_t) (byte & 0x7f) << shift;
    if (part > SIZE_MAX)
      return false;
    *out |= (size_t) part;
    if (byte < 0x80)
      return true;
  }
  return false;
}

static bool
get_four (rs_decoder *d, size_t *out)
{
  if (d->size - d->at < 4)
    return false;
  *out = rs_wire_get32(d->data + d->at);
  d->at += 4;
  return true;
}

/* Pass a length, and so many bytes. */
static bool
pass_string (rs_decoder *d)
{
  size_t size;
  return get_length(d, &size) && pass(d, size);
}

/* Count 'n' more values to come; there cannot be more than bytes. */
static bool
expect (const rs_decoder *d, size_t *left, size_t n)
{
  if (n > d->size || *left > d->size)
    return false;
  *left += n;
  return true;
}

static bool
pass_name (rs_decoder *d)
{
  size_t parts;
  bool good = get_byte(d, &parts);
  for (size_t i = 0; good && i < parts; i++)
    good = pass_string(d);
  return good;
}

static bool
pass_shape (rs_decoder *d)
{
  size_t keys, size;
  bool good = get_byte(d, &keys);
  for (size_t i = 0; good && i < keys; i++)
    good = get_byte(d, &size) && pass(d, size);
  return good;
}

static bool
begin_table (rs_decoder *d, size_t *left, bool meta)
{
  size_t array, hash;
  d->next_id++;
  return get_four(d, &array) && get_four(d, &hash)
      && expect(d, left, array) && expect(d, left, hash)
      && expect(d, left, hash) && expect(d, left, meta);
}

static bool
begin_record (rs_decoder *d, size_t *left, bool meta)
{
  size_t shape, n, hash;
  d->next_id++;
  return get_four(d, &shape) && get_byte(d, &n) && get_four(d, &hash)
      && expect(d, left, n) && expect(d, left, hash)
      && expect(d, left, hash) && expect(d, left, meta);
}

static bool
begin_function (rs_decoder *d, size_t *left)
{
  size_t upvalues, size;
  d->next_id++;
  return get_byte(d, &upvalues) && get_four(d, &size) && pass(d, size)
      && expect(d, left, upvalues);
}

static bool
begin_rebuild (rs_decoder *d, size_t *left)
{
  size_t n;
  d->next_id++;
  return get_byte(d, &n) && expect(d, left, n + 1);
}

/* Pass the run whose tag is next; the first of its numbers was counted
   before. */
static bool
pass_run (rs_decoder *d, size_t *left)
{
  const size_t n = rs_get_run(d->data + d->at, d->size - d->at);
  if (n == 0 || n - 1 > *left)
    return false;
  *left -= n - 1;
  return pass(d, RS_WIRE_RUN + 8 * n);
}

/* Pass a tag and the bytes that belong to it, and count its inner values. */
static bool
pass_tag (rs_decoder *d, size_t *left)
{
  size_t tag, n;
  if (!get_byte(d, &tag))
    return false;
  const int size = rs_wire_scalar_size((unsigned) tag);
  if (size >= 0)
    return pass(d, (size_t) size);
  switch (tag) {
    case RS_TAG_ENV:
    case RS_TAG_UPVALUE_ENV:
      return true;
    case RS_TAG_UPVALUE_GLOBALS:
      return get_byte(d, &n) && get_four(d, &n) && expect(d, left, n)
          && expect(d, left, n);
    case RS_TAG_POINTER:
      return pass(d, 8);
    case RS_TAG_CFUNCTION:
      d->next_id++;
      return pass(d, 8);
    case RS_TAG_STRING:
      return pass_string(d);
    case RS_TAG_TABLE:
    case RS_TAG_TABLE_META:
    case RS_TAG_TABLE_META_OPEN:
      return begin_table(d, left, rs_wire_has_metatable((unsigned) tag));
    case RS_TAG_RECORD:
    case RS_TAG_RECORD_META:
    case RS_TAG_RECORD_META_OPEN:
      return begin_record(d, left, rs_wire_has_metatable((unsigned) tag));
    case RS_TAG_COMMON:  /* stands before a value, as a shape does */
      return expect(d, left, 1);
    case RS_TAG_REF:
    case RS_TAG_COMMON_REF:
    case RS_TAG_COMMON_CLASS:
      return get_length(d, &n);
    case RS_TAG_COMMON_FUNCTION:
      return get_length(d, &n) && expect(d, left, 1);
    case RS_TAG_NAMED:
      d->next_id++;
      return pass_name(d);
    case RS_TAG_NAMED_TABLE:  /* the table stands behind its name */
      return pass_name(d) && expect(d, left, 1);
    case RS_TAG_FUNCTION:
    case RS_TAG_FUNCTION_LATER:
      return begin_function(d, left);
    case RS_TAG_UPVALUE_SHARED:
      return get_length(d, &n) && pass(d, 1);
    case RS_TAG_LATER:  /* the object is counted with its contents */
      return expect(d, left, 1);
    case RS_TAG_REBUILD:
      return begin_rebuild(d, left);
    case RS_TAG_REPLACED:
      d->next_id++;
      return expect(d, left, 1);
    case RS_TAG_INTEGERS:
    case RS_TAG_FLOATS:
      d->at--;
      return pass_run(d, left);
    case RS_TAG_SHAPE:  /* stands before a value */
      return pass_shape(d) && expect(d, left, 1);
    default:
      return false;
  }
}

bool
rs_decoder_skip (rs_decoder *d)
{
  if (d->left == 0 && d->at < d->size
      && rs_wire_is_run(d->data[d->at])) {  /* does a run begin here? */
    d->run = d->data[d->at];
    d->left = rs_get_run(d->data + d->at, d->size - d->at);
    if (d->left == 0)
      return false;
    d->at += RS_WIRE_RUN;
  }
  if (d->left > 0) {
    d->left--;
    return pass(d, 8);
  }
  size_t left = 1;
  while (left > 0) {
    left--;
    if (!pass_tag(d, &left))
      return false;
  }
  return true;
}

bool
rs_message_string (const rs_message *msg, int n, const char **text,
                   size_t *size)
{
  rs_decoder d = {
    .data = msg->data, .size = msg->size, .at = RS_WIRE_HEADER
  };
  size_t tag, length;
  if (msg->size < RS_WIRE_HEADER)
    return false;
  while (--n > 0)
    if (!rs_decoder_skip(&d))
      return false;
  if (d.left > 0 || !get_byte(&d, &tag))
    return false;
  if (tag >= RS_TAG_STRING_SHORT
      && tag <= RS_TAG_STRING_SHORT + RS_WIRE_SHORT_MAX)
    length = tag - RS_TAG_STRING_SHORT;
  else if (tag != RS_TAG_STRING || !get_length(&d, &length))
    return false;
  *text = (const char *) d.data + d.at;
  *size = length;
  return pass(&d, length);
}
