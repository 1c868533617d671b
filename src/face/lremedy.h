/* SPDX-License-Identifier: MIT */
/*
 * lremedy.h - the way out for a value that cannot travel.
 */
#ifndef RS_LREMEDY_H
#define RS_LREMEDY_H

/* What to do instead, by the kind of value that the text of a refusal names:
   "cannot transfer a userdata (FILE*)"; NULL where nothing is known.  The text
   returned is constant. */
const char *rs_remedy (const char *refusal);

#endif
