/* SPDX-License-Identifier: MIT */
/*
 * journal.h - a file that keeps what became of the items of a call, for the
 * next run of the program.
 *
 * The order is: open; 'rs_journal_next' until RS_EDONE; then 'rs_journal_add',
 * 'rs_journal_write' and 'rs_journal_push' in any order; close.  A journal
 * belongs to the thread that opened it.  One that was opened before a fork(2)
 * does nothing in the child.
 */
#ifndef RS_JOURNAL_H
#define RS_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "runspace.h"

typedef struct rs_journal rs_journal;

/*
 * Open the file, which is made if it is not there, and lock it until it is
 * closed.  RS_OK, RS_ENOMEM, RS_EBUSY (another run has it), RS_EINVAL (it is
 * no journal), RS_EFORMAT (of another version), RS_EFAILED (the system refuses
 * it).  The text does not name the file.
 */
int rs_journal_open (const char *path, rs_journal **out, rs_error *err);

/* Write nothing more, unlock, free.  NULL is fine. */
void rs_journal_close (rs_journal *j);

/* What 'rs_journal_next' finds. */
typedef struct rs_journal_entry {
  bool heading;                /* 'text' says what the journal is of, as
                                  'rs_journal_head' was told */
  const char *text;            /* lent, until the next call */
  size_t size;                 /* of the text */
  unsigned char key[RS_DIGEST_SIZE];  /* of an item that completed */
  uint64_t place;              /* where its values are */
} rs_journal_entry;

/*
 * Read the next entry.  RS_OK; RS_EDONE: there are no more, and an entry at
 * the end that was not written whole will be overwritten; RS_EINVAL: the file
 * is damaged; RS_ENOMEM, RS_EFAILED.
 */
int rs_journal_next (rs_journal *j, rs_journal_entry *entry, rs_error *err);

/* Begin the file anew, with this heading.  Nothing else was added yet. */
void rs_journal_head (rs_journal *j, const char *text, size_t size);

/*
 * [-n, +0, -]  Add that an item has completed with the 'n' values on top.
 * RS_OK, RS_ENOMEM, or RS_EREFUSED: the values are more than data, and the
 * text says which.
 */
int rs_journal_add (rs_journal *j, lua_State *L, int n,
                    const unsigned char key[RS_DIGEST_SIZE],
                    unsigned attempts, double duration, rs_error *err);

/* Add that an item has ended in a state that is not good, and its error. */
void rs_journal_add_failure (rs_journal *j,
                             const unsigned char key[RS_DIGEST_SIZE],
                             const char *state, const char *text, size_t size);

/*
 * Hand what was added to the system, and let that write it to the disk when
 * the last time is long enough ago, or 'now'.  RS_OK, RS_ENOMEM, or
 * RS_EFAILED: the file has what it had before.
 */
int rs_journal_write (rs_journal *j, bool now, rs_error *err);

/*
 * [-0, +n, e]  Push the values of the item whose place an entry told.  False,
 * and nothing is pushed, when they cannot be made here.
 */
bool rs_journal_push (rs_journal *j, lua_State *L, uint64_t place, int *n,
                      unsigned *attempts, double *duration);

#endif
