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
    *out |= (byte & 0x7f) << shift;
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

/* Pass a run; the first of its numbers was counted before. */
static bool
pass_run (rs_decoder *d, size_t *left)
{
  size_t n;
  if (!get_four(d, &n) || n == 0 || n - 1 > *left
      || n > (d->size - d->at) / 8)
    return false;
  *left -= n - 1;
  return pass(d, 8 * n);
}

/* Pass a tag and the bytes that belong to it, and count its inner values. */
static bool
pass_tag (rs_decoder *d, size_t *left)
{
  size_t tag, n;
  if (!get_byte(d, &tag))
    return false;
  if (tag <= RS_WIRE_SMALL_MAX)
    return true;
  if (tag <= RS_TAG_STRING_SHORT + RS_WIRE_SHORT_MAX)
    return pass(d, tag - RS_TAG_STRING_SHORT);
  if (tag >= RS_TAG_INTEGER && tag < RS_TAG_INTEGER + 8)
    return pass(d, tag - RS_TAG_INTEGER + 1);
  switch (tag) {
    case RS_TAG_NIL:
    case RS_TAG_FALSE:
    case RS_TAG_TRUE:
    case RS_TAG_ENV:
    case RS_TAG_UPVALUE_ENV:
      return true;
    case RS_TAG_FLOAT:
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
      return begin_table(d, left, tag != RS_TAG_TABLE);
    case RS_TAG_RECORD:
    case RS_TAG_RECORD_META:
    case RS_TAG_RECORD_META_OPEN:
      return begin_record(d, left, tag != RS_TAG_RECORD);
    case RS_TAG_COMMON:  /* stands before a value, as a shape does */
      return expect(d, left, 1);
    case RS_TAG_REF:
    case RS_TAG_COMMON_REF:
      return get_length(d, &n);
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
      && (d->data[d->at] == RS_TAG_INTEGERS
          || d->data[d->at] == RS_TAG_FLOATS)) {  /* does a run begin here? */
    const unsigned tag = d->data[d->at++];
    size_t n;
    if (!get_four(d, &n) || n == 0 || n > (d->size - d->at) / 8)
      return false;
    d->run = tag;
    d->left = n;
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
