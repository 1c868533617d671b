/* SPDX-License-Identifier: MIT */
/*
 * list.h - an intrusive, circular, doubly linked list.
 *
 *     head <-> first <-> ... <-> last <-> head
 *
 * An element embeds an 'rs_list' and is found again by RS_LIST_ENTRY.  A
 * link that is in no list points to itself, so that removing it twice is
 * harmless.
 */
#ifndef RS_LIST_H
#define RS_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct rs_list {
  struct rs_list *next, *prev;
} rs_list;

#define RS_LIST_ENTRY(link, type, field) \
  ((type *) (void *) ((char *) (link) - offsetof(type, field)))

static inline void
rs_list_init (rs_list *list)
{
  list->next = list->prev = list;
}

static inline bool
rs_list_empty (const rs_list *list)
{
  return list->next == list;
}

/* Put 'link' behind the last element. */
static inline void
rs_list_push (rs_list *list, rs_list *link)
{
  link->prev = list->prev;
  link->next = list;
  list->prev->next = link;
  list->prev = link;
}

/* Put 'link' before the first element. */
static inline void
rs_list_push_front (rs_list *list, rs_list *link)
{
  rs_list_push(list->next, link);
}

static inline void
rs_list_remove (rs_list *link)
{
  link->prev->next = link->next;
  link->next->prev = link->prev;
  rs_list_init(link);
}

/* Take the first element off; NULL when there is none. */
static inline rs_list *
rs_list_shift (rs_list *list)
{
  rs_list *const link = list->next;
  if (link == list)
    return NULL;
  rs_list_remove(link);
  return link;
}

#endif
