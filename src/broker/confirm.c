/* SPDX-License-Identifier: MIT */
/*
 * confirm.c - what was published and is not confirmed: a ring, in the order of
 * the broker's numbers.
 */
#include "broker/confirm.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST = 64 };

void
rs_cut_unref (rs_cut_message *c)
{
  if (c != NULL && atomic_fetch_sub(&c->refs, 1) == 1)
    free(c);
}

void
rs_confirms_init (rs_confirms *c)
{
  memset(c, 0, sizeof *c);
  c->first = 1;
}

static rs_confirm *
at (const rs_confirms *c, uint64_t sequence)
{
  return &c->ring[sequence & (c->room - 1)];
}

void
rs_confirms_clear (rs_confirms *c)
{
  for (size_t i = 0; i < c->n; i++) {
    rs_cut_unref(at(c, c->first + i)->cut);
    free(at(c, c->first + i)->numbers);
  }
  c->first = 1;
  c->n = 0;
}

void
rs_confirms_fini (rs_confirms *c)
{
  rs_confirms_clear(c);
  free(c->ring);
}

static bool
grow (rs_confirms *c)
{
  const size_t room = c->room == 0 ? LEAST : 2 * c->room;
  rs_confirm *const ring = calloc(room, sizeof *ring);
  if (ring == NULL)
    return false;
  for (size_t i = 0; i < c->n; i++)
    ring[(c->first + i) & (room - 1)] = *at(c, c->first + i);
  free(c->ring);
  c->ring = ring;
  c->room = room;
  return true;
}

uint64_t
rs_confirms_add (rs_confirms *c, uint64_t number, rs_cut_message *cut,
                 rs_numbers *numbers)
{
  if (c->n == c->room && !grow(c))
    return 0;
  const uint64_t sequence = c->first + c->n++;
  *at(c, sequence) = (rs_confirm) { .number = number, .cut = cut,
                                    .numbers = numbers };
  return sequence;
}

static bool
has (const rs_confirms *c, uint64_t sequence)
{
  return sequence >= c->first && sequence - c->first < c->n;
}

void
rs_confirms_return (rs_confirms *c, uint64_t sequence)
{
  if (has(c, sequence))
    at(c, sequence)->returned = true;
}

static void
settle (rs_confirm *one,
        void (*tell) (void *ud, uint64_t number, bool routed), void *ud)
{
  rs_cut_message *const cut = one->cut;
  bool routed = !one->returned, whole = one->number != 0;
  rs_numbers *const numbers = one->numbers;
  if (one->done)
    return;
  one->done = true;
  one->cut = NULL;
  one->numbers = NULL;
  if (cut != NULL) {
    cut->routed = routed = cut->routed && routed;
    cut->left--;
    whole = cut->left == 0;
  }
  if (whole)
    tell(ud, one->number, routed);
  for (size_t i = 0; numbers != NULL && i < numbers->n; i++)
    tell(ud, numbers->each[i], routed);
  free(numbers);
  rs_cut_unref(cut);
}

void
rs_confirms_settle (rs_confirms *c, uint64_t sequence, bool all,
                    void (*tell) (void *ud, uint64_t number, bool routed),
                    void *ud)
{
  /* 0 stands for all that there are. */
  const uint64_t last = all && sequence == 0 ? c->first + c->n - 1 : sequence;
  if (!has(c, last))
    return;
  for (uint64_t i = all ? c->first : last; i <= last; i++)
    settle(at(c, i), tell, ud);
  while (c->n > 0 && at(c, c->first)->done) {
    c->first++;
    c->n--;
  }
}
